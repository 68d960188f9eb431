//! Reading to a limit of size and of time.
//!
//! A file that is longer than it may be is refused and never cut. Neither a
//! pipe that nobody writes into nor a device without an end holds anybody up;
//! a pipe is read all the same where whoever named it may have meant one
//! (`--config <(…)`).

use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, OFlags};
use rustix::io::Errno;
use rustix::path::Arg;
use zeroize::Zeroizing;

use super::open::{Folder, PRIVATE_FILE};
use super::trust::{self, Owner, Standing};
use super::unfit::Unfit;
use crate::error::{Kind, Result};

/// How often a pipe is looked at for what is written into it.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// How much is made room for where it is not known how much there is, in bytes.
const FIRST: usize = 8 << 10;

/// How far what stands at a path is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Whoever named it answers for it; it may be a pipe.
    Anyone,
    /// Nobody changes it but root, the authority's owner and the group to whom an operator gave it.
    Operators(Owner),
    /// Nobody but root and the authority's owner changes it or reads it.
    Secret(Owner),
    /// The same, and it may be root's for a group that reads it.
    ServerKey(Owner),
    /// Nobody changes it but root and this user; it is no link.
    Ours,
}

/// How much is read, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    bytes: usize,
    time: Duration,
}

impl Limit {
    /// What certificates, keys and configurations are far below.
    pub const FILE: Self = Self::bytes(1 << 20);

    /// At most that many, within ten seconds.
    pub const fn bytes(bytes: usize) -> Self {
        Self { bytes, time: Duration::from_secs(10) }
    }

    /// The same, within another time.
    #[must_use]
    pub const fn within(self, time: Duration) -> Self {
        Self { time, ..self }
    }
}

/// What a file holds, with what to say where it cannot be read: `cannot read PATH: …`.
pub fn text(path: &Path, trust: Trust, limit: Limit) -> Result<Zeroizing<String>> {
    raw(path, trust, limit)
        .and_then(utf8)
        .map_err(|unfit| unfit.error(Kind::Usage, format!("cannot read {}", path.display())))
}

/// The same, for words of one's own.
pub fn raw(path: &Path, trust: Trust, limit: Limit) -> Result<Zeroizing<Vec<u8>>, Unfit> {
    let place = match trust {
        Trust::Anyone => return Ok(self::file(open(path)?, limit)?),
        Trust::Operators(owner) | Trust::Secret(owner) | Trust::ServerKey(owner) => {
            trust::operators(path, owner)?
        }
        Trust::Ours => {
            let (above, name) = trust::stands_in(path)?;
            above.join(name)
        }
    };
    let file = open_plain(CWD, &place, OFlags::RDONLY)?;
    let standing = Standing::of(&file)?;
    match trust {
        Trust::Anyone => {}
        Trust::Operators(owner) => standing.check_operators(&place, owner)?,
        Trust::Secret(owner) => standing.check_secret(&place, owner, false)?,
        Trust::ServerKey(owner) => standing.check_secret(&place, owner, true)?,
        Trust::Ours => standing.check_ours()?,
    }
    Ok(self::file(file, limit)?)
}

/// What a file holds, or what is written into a pipe until it is closed, while
/// other things go on. It may be refreshed by whoever put it there.
///
/// # Errors
/// `FileTooLarge` where it is longer than that many bytes, `TimedOut` where
/// nothing has come before the deadline.
pub async fn before(deadline: Instant, path: &Path, bytes: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut reading = Reading::new(open(path)?, bytes)?;
    while !reading.go_on()? {
        reading.check_time(deadline)?;
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Ok(reading.bytes)
}

/// The text of a file, or of stdin for `-`.
pub fn input(path: &Path, limit: Limit) -> Result<Zeroizing<String>, Unfit> {
    input_raw(path, limit).and_then(utf8)
}

/// What a file holds, or stdin for `-`, for as long as whoever writes there takes for it.
pub fn input_raw(path: &Path, limit: Limit) -> Result<Zeroizing<Vec<u8>>, Unfit> {
    if path != Path::new("-") {
        return raw(path, Trust::Anyone, limit);
    }
    let stdin = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    // Where nothing comes, nothing will.
    let mut reading = Reading { is_pipe: false, ..Reading::new(stdin, limit.bytes)? };
    while !reading.go_on()? {
        std::thread::sleep(LOOK_AGAIN);
    }
    Ok(reading.bytes)
}

/// Bytes as text.
pub fn utf8(mut bytes: Zeroizing<Vec<u8>>) -> Result<Zeroizing<String>, Unfit> {
    String::from_utf8(std::mem::take(&mut *bytes)).map(Zeroizing::new).map_err(|error| {
        drop(Zeroizing::new(error.into_bytes()));
        Unfit::new("it is not text in UTF-8")
            .hint("save it as UTF-8; certificates and keys are read as PEM or in OpenSSH's format")
    })
}

/// Whether a pipe stands there, which gives what it holds once.
pub fn is_pipe(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo())
}

impl Folder {
    /// A plain file's content, not through a link; none where there is nothing of that name.
    pub fn read(&self, name: &str, bytes: usize) -> Result<Option<Vec<u8>>, String> {
        let read = |file| Ok(std::mem::take(&mut *self::file(file, Limit::bytes(bytes))?));
        self.open_file(name).and_then(|file| file.map(read).transpose()).map_err(|unfit| unfit.to_string())
    }

    /// A plain file, not through a link; none where there is nothing of that name.
    pub fn open_file(&self, name: &str) -> Result<Option<File>, Unfit> {
        match open_plain(&self.fd, name, OFlags::RDONLY) {
            Err(unfit) if unfit.is_missing() => Ok(None),
            opened => opened.map(Some),
        }
    }
}

/// What a file holds that is open.
pub fn file(file: File, limit: Limit) -> io::Result<Zeroizing<Vec<u8>>> {
    let (mut reading, deadline) = (Reading::new(file, limit.bytes)?, Instant::now() + limit.time);
    while !reading.go_on()? {
        reading.check_time(deadline)?;
        std::thread::sleep(LOOK_AGAIN);
    }
    Ok(reading.bytes)
}

/// Opens a file, a pipe or a device; nothing is waited for.
pub fn open(path: &Path) -> rustix::io::Result<File> {
    open_at(CWD, path, OFlags::RDONLY)
}

/// Opens a plain file, not through a link.
pub(super) fn open_plain(at: impl AsFd, path: impl Arg, flags: OFlags) -> Result<File, Unfit> {
    let file = open_at(at, path, flags | OFlags::NOFOLLOW).map_err(|error| match error {
        Errno::LOOP => Unfit::new("it is a symbolic link").hint("give the file itself"),
        error => error.into(),
    })?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(Unfit::new("it is not a plain file")) }
}

fn open_at(at: impl AsFd, path: impl Arg, flags: OFlags) -> rustix::io::Result<File> {
    // NONBLOCK: opening a pipe that somebody put there must not hang.
    let flags = flags | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    rustix::fs::openat(at, path, flags, PRIVATE_FILE).map(File::from)
}

fn too_long(bytes: usize) -> io::Error {
    io::Error::new(ErrorKind::FileTooLarge, format!("it is longer than {bytes} bytes"))
}

/// What has been read so far.
struct Reading {
    file: File,
    is_pipe: bool,
    limit: usize,
    bytes: Zeroizing<Vec<u8>>,
    filled: usize,
}

impl Reading {
    fn new(file: File, limit: usize) -> io::Result<Self> {
        let metadata = file.metadata()?;
        let length = usize::try_from(metadata.len()).unwrap_or(usize::MAX);
        let room = if metadata.is_file() && length > 0 { length } else { FIRST };
        // One more tells that it is too much.
        let bytes = Zeroizing::new(vec![0; room.min(limit).saturating_add(1)]);
        Ok(Self { file, is_pipe: metadata.file_type().is_fifo(), limit, bytes, filled: 0 })
    }

    /// Takes what is there now; whether that was all.
    fn go_on(&mut self) -> io::Result<bool> {
        loop {
            if self.filled > self.limit {
                return Err(too_long(self.limit));
            }
            if self.filled == self.bytes.len() {
                self.grow();
            }
            match self.file.read(self.bytes.get_mut(self.filled..).unwrap_or_default()) {
                // Nobody has it open for writing: not yet, where nothing has come.
                Ok(0) if self.is_pipe && self.filled == 0 => return Ok(false),
                Ok(0) => {
                    self.bytes.truncate(self.filled);
                    return Ok(true);
                }
                Ok(count) => self.filled += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes another buffer, since one that grows in its place leaves what it held behind.
    fn grow(&mut self) {
        let size = self.bytes.len().saturating_mul(2).min(self.limit.saturating_add(1));
        let mut larger = Zeroizing::new(Vec::with_capacity(size));
        larger.extend_from_slice(&self.bytes);
        larger.resize(size, 0);
        self.bytes = larger;
    }

    fn check_time(&self, deadline: Instant) -> io::Result<()> {
        if Instant::now() < deadline {
            return Ok(());
        }
        let why = if self.filled == 0 {
            "nothing was written into it in time"
        } else {
            "it was not written to its end in time"
        };
        Err(io::Error::new(ErrorKind::TimedOut, why))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use rustix::fs::Mode;

    use super::*;

    fn soon(bytes: usize) -> Limit {
        Limit::bytes(bytes).within(Duration::from_millis(100))
    }

    #[test]
    fn nothing_is_cut_and_nothing_hangs() {
        let temp = tempfile::tempdir().unwrap();
        let path = |name: &str| temp.path().join(name);
        std::fs::write(path("ten"), "0123456789").unwrap();
        std::fs::write(path("empty"), "").unwrap();
        std::fs::write(path("binary"), b"\xff\xfe").unwrap();
        symlink("ten", path("link")).unwrap();
        rustix::fs::mkfifoat(CWD, path("pipe"), Mode::RWXU).unwrap();
        let said = |name: &str, trust, bytes| {
            let text = text(&path(name), trust, soon(bytes));
            text.map(|text| text.to_string())
                .map_err(|error| error.to_string().split_once(": ").map(|(_, why)| why.to_owned()).unwrap())
        };
        for trust in [Trust::Anyone, Trust::Operators(Owner::me()), Trust::Ours] {
            assert_eq!(said("ten", trust, 10).unwrap(), "0123456789");
            assert_eq!(said("ten", trust, 9).unwrap_err(), "it is longer than 9 bytes");
            assert_eq!(said("empty", trust, 9).unwrap(), "");
            assert_eq!(said("binary", trust, 9).unwrap_err(), "it is not text in UTF-8");
            assert!(said("none", trust, 9).unwrap_err().ends_with("No such file or directory (os error 2)"));
            let pipe = said("pipe", trust, 9).unwrap_err();
            let late = "nothing was written into it in time";
            assert_eq!(pipe, if trust == Trust::Anyone { late } else { "it is not a plain file" });
        }
        assert_eq!(said("link", Trust::Anyone, 10).unwrap(), "0123456789");
        assert_eq!(said("link", Trust::Operators(Owner::me()), 10).unwrap(), "0123456789");
        assert!(said("link", Trust::Ours, 10).unwrap_err().contains("it is a symbolic link"));
        assert_eq!(said("/dev/zero", Trust::Anyone, 99).unwrap_err(), "it is longer than 99 bytes");
        assert_eq!(said("/dev/null", Trust::Anyone, 99).unwrap(), "");
        // What the system makes up as it is read has no length.
        assert!(
            said("/proc/self/status", Trust::Anyone, 1 << 16).unwrap_or("Name:".into()).contains("Name:")
        );
    }

    #[test]
    fn a_pipe_is_read_to_its_end() {
        use std::io::Write as _;
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("pipe");
        rustix::fs::mkfifoat(CWD, &path, Mode::RWXU).unwrap();
        let into = path.clone();
        let (done, wait) = std::sync::mpsc::channel::<()>();
        let writer = std::thread::spawn(move || {
            let mut pipe = File::options().write(true).open(into).unwrap();
            pipe.write_all(b"a.").unwrap();
            // The second time it stays open.
            let _ = wait.recv();
            pipe.write_all(b"b").unwrap();
        });
        let late = text(&path, Trust::Anyone, soon(9)).unwrap_err().to_string();
        assert!(late.ends_with("it was not written to its end in time"), "{late}");
        done.send(()).unwrap();
        writer.join().unwrap_or_default();
        let into = path.clone();
        let writer = std::thread::spawn(move || std::fs::write(into, "a.b").unwrap());
        assert_eq!(&*text(&path, Trust::Anyone, Limit::bytes(9)).unwrap(), "a.b");
        writer.join().unwrap();
    }

    /// A client's run reads files that have no length, and is over in a moment.
    #[test]
    fn what_has_no_length_takes_little_room_and_is_read_whole() {
        let limit = Limit::FILE.bytes;
        let reading = Reading::new(File::open("/dev/null").unwrap(), limit).unwrap();
        assert_eq!(reading.bytes.len(), FIRST + 1);
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("pipe");
        rustix::fs::mkfifoat(CWD, &path, Mode::RWXU).unwrap();
        let content: String = ('a'..='z').cycle().take(5 * FIRST).collect();
        for (most, whole) in [(limit, true), (content.len(), true), (content.len() - 1, false)] {
            let (into, written) = (path.clone(), content.clone());
            let writer = std::thread::spawn(move || std::fs::write(into, written));
            let read = text(&path, Trust::Anyone, Limit::bytes(most));
            let _ = writer.join().unwrap();
            match read {
                Ok(read) => assert!(whole && *read == content),
                Err(error) => assert!(!whole && error.to_string().contains("it is longer than"), "{error}"),
            }
        }
    }

    #[test]
    fn modes_of_files() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("file");
        std::fs::write(&path, "x").unwrap();
        let root = trust::me() == 0;
        for (mode, operators, secret, server, ours) in [
            (0o600, true, true, true, true),
            (0o400, true, true, true, true),
            // A server's key may be for a group where it is root's.
            (0o640, true, false, root, true),
            (0o440, true, false, root, true),
            (0o644, true, false, false, true),
            (0o604, true, false, false, true),
            (0o660, true, false, false, false),
            (0o664, true, false, false, false),
            (0o602, false, false, false, false),
            (0o666, false, false, false, false),
        ] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let is_read = |trust| raw(&path, trust, soon(9)).is_ok();
            let me = Owner::me();
            let found =
                [Trust::Operators(me), Trust::Secret(me), Trust::ServerKey(me), Trust::Ours].map(is_read);
            assert_eq!(found, [operators, secret, server, ours], "{mode:o}");
            assert!(is_read(Trust::Anyone) || !root);
        }
    }
}
