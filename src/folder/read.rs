//! Reading to a limit of size and of time.
//!
//! A file that is longer than it may be is refused and never cut. Neither a
//! pipe that nobody writes into nor a device without an end holds anybody up;
//! a pipe is read all the same where whoever named it may have meant one
//! (`--config <(…)`).

use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use zeroize::Zeroizing;

use super::open::Folder;
use super::trust::{self, Standing};
use super::unfit::Unfit;
use crate::error::{Kind, Result};

/// How often a pipe is looked at for what is written into it.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// How far what stands at a path is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Whoever named it answers for it; it may be a pipe.
    Anyone,
    /// Nobody changes it but root, its owner and the group to whom an operator gave it.
    Operators,
    /// The same, and nobody else reads it.
    Secret,
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
    #[must_use]
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
///
/// # Errors
/// `Kind::Usage`.
pub fn text(path: &Path, trust: Trust, limit: Limit) -> Result<Zeroizing<String>> {
    raw(path, trust, limit)
        .and_then(utf8)
        .map_err(|unfit| unfit.error(Kind::Usage, format!("cannot read {}", path.display())))
}

/// The same, for words of one's own.
pub fn raw(path: &Path, trust: Trust, limit: Limit) -> Result<Zeroizing<Vec<u8>>, Unfit> {
    let file = match trust {
        Trust::Anyone => open(path)?,
        Trust::Operators | Trust::Secret => plain(open_at(CWD, trust::operators(path)?, OFlags::NOFOLLOW)?)?,
        Trust::Ours => {
            let (above, name) = trust::stands_in(path)?;
            let file = open_at(CWD, above.join(name), OFlags::NOFOLLOW).map_err(|error| match error {
                Errno::LOOP => Unfit::new("it is a symbolic link; give the file itself"),
                error => error.into(),
            })?;
            plain(file)?
        }
    };
    if trust != Trust::Anyone {
        let standing = Standing::of(&file)?;
        match trust {
            Trust::Secret => standing.check_secret(path)?,
            Trust::Ours => standing.check_ours()?,
            _ => standing.check_operators(path)?,
        }
    }
    let (mut reading, deadline) = (Reading::new(file, limit.bytes)?, Instant::now() + limit.time);
    while !reading.go_on()? {
        reading.check_time(deadline)?;
        std::thread::sleep(LOOK_AGAIN);
    }
    Ok(reading.bytes)
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

/// What a file holds, or stdin for `-`, for as long as whoever writes there takes for it.
pub fn input(path: &Path, limit: Limit) -> Result<Zeroizing<String>, Unfit> {
    if path != Path::new("-") {
        return raw(path, Trust::Anyone, limit).and_then(utf8);
    }
    let mut bytes = Zeroizing::new(Vec::new());
    let most = u64::try_from(limit.bytes).unwrap_or(u64::MAX).saturating_add(1);
    io::stdin().lock().take(most).read_to_end(&mut bytes)?;
    if bytes.len() > limit.bytes { Err(too_long(limit.bytes).into()) } else { utf8(bytes) }
}

/// Bytes as text.
pub fn utf8(mut bytes: Zeroizing<Vec<u8>>) -> Result<Zeroizing<String>, Unfit> {
    String::from_utf8(std::mem::take(&mut *bytes)).map(Zeroizing::new).map_err(|error| {
        drop(Zeroizing::new(error.into_bytes()));
        Unfit::new("it is not text").hint("certificates and keys are read as PEM or in OpenSSH's format")
    })
}

/// Whether a pipe stands there, which gives what it holds once.
#[must_use]
pub fn is_pipe(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo())
}

impl Folder {
    /// A plain file's content, not through a link; none where there is nothing of that name.
    ///
    /// # Errors
    /// Why what is there cannot be read, for a person.
    pub fn read(&self, name: &str, bytes: usize) -> Result<Option<Vec<u8>>, String> {
        let read = |file| Ok(std::mem::take(&mut *self::file(file, bytes)?));
        self.open_file(name).and_then(|file| file.map(read).transpose()).map_err(|unfit| unfit.to_string())
    }

    /// A plain file, not through a link; none where there is nothing of that name.
    pub fn open_file(&self, name: &str) -> Result<Option<File>, Unfit> {
        match open_at(&self.fd, name, OFlags::NOFOLLOW) {
            Ok(file) => plain(file).map(Some),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::LOOP) => Err(Unfit::new("it is a symbolic link")),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether what is open still stands there under that name.
    pub(super) fn is_there(&self, name: &str, file: &File) -> bool {
        let there = rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW);
        matches!((rustix::fs::fstat(file), there), (Ok(a), Ok(b)) if (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino))
    }
}

/// What a plain file holds that is open.
///
/// # Errors
/// Where it is longer than that many bytes, or cannot be read.
pub fn file(file: File, bytes: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut reading = Reading::new(file, bytes)?;
    while !reading.go_on()? {}
    Ok(reading.bytes)
}

/// Opens a file, a pipe or a device; nothing is waited for.
pub fn open(path: &Path) -> rustix::io::Result<File> {
    open_at(CWD, path, OFlags::empty())
}

fn open_at(
    at: impl std::os::fd::AsFd,
    path: impl rustix::path::Arg,
    more: OFlags,
) -> rustix::io::Result<File> {
    // NONBLOCK: opening a pipe that somebody put there must not hang.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY | more;
    rustix::fs::openat(at, path, flags, Mode::empty()).map(File::from)
}

fn plain(file: File) -> Result<File, Unfit> {
    if file.metadata()?.is_file() { Ok(file) } else { Err(Unfit::new("it is not a plain file")) }
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
        // Of its full size at once, so that nothing is copied and left behind; one more tells that it is too much.
        let room = if metadata.is_file() && length > 0 { length.min(limit) } else { limit };
        let bytes = Zeroizing::new(vec![0; room.saturating_add(1)]);
        Ok(Self { file, is_pipe: metadata.file_type().is_fifo(), limit, bytes, filled: 0 })
    }

    /// Takes what is there now; whether that was all.
    fn go_on(&mut self) -> io::Result<bool> {
        loop {
            if self.filled > self.limit {
                return Err(too_long(self.limit));
            }
            if self.filled == self.bytes.len() {
                // It has grown meanwhile.
                self.bytes.resize(self.limit.saturating_add(1), 0);
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
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

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
        for trust in [Trust::Anyone, Trust::Operators, Trust::Ours] {
            assert_eq!(said("ten", trust, 10).unwrap(), "0123456789");
            assert_eq!(said("ten", trust, 9).unwrap_err(), "it is longer than 9 bytes");
            assert_eq!(said("empty", trust, 9).unwrap(), "");
            assert_eq!(said("binary", trust, 9).unwrap_err(), "it is not text");
            assert!(said("none", trust, 9).unwrap_err().ends_with("No such file or directory (os error 2)"));
            let pipe = said("pipe", trust, 9).unwrap_err();
            let late = "nothing was written into it in time";
            assert_eq!(pipe, if trust == Trust::Anyone { late } else { "it is not a plain file" });
        }
        assert_eq!(said("link", Trust::Anyone, 10).unwrap(), "0123456789");
        assert_eq!(said("link", Trust::Operators, 10).unwrap(), "0123456789");
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

    #[test]
    fn modes_of_files() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("file");
        std::fs::write(&path, "x").unwrap();
        let root = trust::me() == 0;
        for (mode, operators, secret, ours) in [
            (0o600, true, true, true),
            (0o400, true, true, true),
            // Root's keys may be for a group; nobody else's.
            (0o640, true, root, true),
            (0o440, true, root, true),
            (0o644, true, false, true),
            (0o604, true, false, true),
            (0o660, true, false, false),
            (0o664, true, false, false),
            (0o602, false, false, false),
            (0o666, false, false, false),
        ] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let is_read = |trust| raw(&path, trust, soon(9)).is_ok();
            let found = (is_read(Trust::Operators), is_read(Trust::Secret), is_read(Trust::Ours));
            assert_eq!(found, (operators, secret, ours), "{mode:o}");
            assert!(is_read(Trust::Anyone) || !root);
        }
    }
}
