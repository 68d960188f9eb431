//! What `host principals` notes: for each of `sshd`'s processes a file with the
//! certificates that it was offered, in order.
//!
//! A connection offers what it likes until it is let in or sent away, so a
//! process has so many certificates and no more, and what is noted of processes
//! that are over is removed with each note.

use std::cell::OnceCell;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use ssh_key::Certificate;

use super::cgroup;
use crate::error::{Error, Kind, Result};
use crate::folder::{Folder, PRIVATE_FILE, PRIVATE_FOLDER, Unfit};
use crate::host::principals::MAX_CERTIFICATE;
use crate::process::Process;

/// More certificates than these no honest client offers in one connection; `sshd` refuses it after six that are no good.
const MOST: usize = 16;
/// More connections than these no `sshd` holds.
const MOST_NOTES: usize = 1 << 16;
/// What a note can be at most, in bytes.
const MAX_NOTE: usize = (MOST + 1) * (MAX_CERTIFICATE + 8);
/// When what a run has left that was killed is surely nobody's, in seconds.
const ABANDONED: i64 = 60;

/// What is noted of a process.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Note {
    /// Whether each certificate counts, and not the last alone.
    every: bool,
    /// Each once, in base64; the last was offered last.
    certificates: Vec<String>,
}

/// Notes in a folder, which is this user's alone, that `sshd`'s process, which has started this one, was offered a
/// certificate. With `every` the others that it was offered count too.
///
/// # Errors
/// Where it cannot be noted: nobody is to be let in by it.
pub fn note(folder: &Path, certificate: &str, every: bool) -> Result<()> {
    let open = || {
        let (folder, _) = Folder::make(
            folder,
            PRIVATE_FOLDER,
            "--sessions",
            "give a --sessions below folders that only root or this user can write to, such as /run",
        )?;
        match folder.standing()?.others_use() {
            true => Err(Unfit::new("others than this user may use it")
                .hint("`chmod 700` it: whoever writes there says whose sessions end")),
            false => Ok(folder),
        }
    };
    let cannot = || format!("cannot use {}", folder.display());
    let opened = open().map_err(|unfit| unfit.error(Kind::Destination, cannot()))?;
    let parent = Process::this().parent().ok_or_else(|| {
        Error::new(Kind::Destination, "the process that has started this one cannot be seen")
            .hint("`sshd` starts this command itself, in its own container; where /proc is mounted with `hidepid`, give the command's user the group that `gid=` names")
    })?;
    add(&opened, parent, certificate, every).map_err(|why| {
        Error::new(Kind::Destination, why)
            .context(format!("cannot note the certificate in {}", folder.display()))
    })
}

/// Adds a certificate to what is noted of a process.
fn add(folder: &Folder, process: Process, certificate: &str, every: bool) -> std::result::Result<(), String> {
    folder.remove_temporaries(ABANDONED);
    let (mut there, leaders) = (0, OnceCell::new());
    for name in folder.entries().map_err(|error| error.to_string())? {
        match Process::named(&name) {
            // What it has left behind may have to end yet.
            Some(other) if other.is_over() && !leaders.get_or_init(cgroup::leaders).contains(&other.pid) => {
                folder.remove(&name)?;
            }
            _ => there += 1,
        }
    }
    if there > MOST_NOTES {
        return Err(format!("there are more than {MOST_NOTES} notes"));
    }
    let name = process.name();
    let mut note = match folder.read(&name, MAX_NOTE)? {
        Some(bytes) => {
            serde_json::from_slice::<Note>(&bytes).map_err(|why| format!("{name} is damaged: {why}"))?
        }
        None => Note::default(),
    };
    note.every |= every;
    note.certificates.retain(|known| known != certificate);
    note.certificates.push(certificate.to_owned());
    if note.certificates.len() > MOST {
        return Err(format!("one connection has offered more than {MOST} certificates"));
    }
    let bytes = serde_json::to_vec(&note).map_err(|error| error.to_string())?;
    folder.replace(&name, &bytes, PRIVATE_FILE).map_err(|error| error.to_string())
}

/// What is noted of a process; nothing where that is gone.
pub(super) fn read(folder: &Folder, name: &str) -> std::result::Result<Option<Offered>, String> {
    let Some(bytes) = folder.read(name, MAX_NOTE)? else { return Ok(None) };
    let note: Note = serde_json::from_slice(&bytes).map_err(|_| "it is damaged")?;
    let certificate = |text: &String| {
        let blob = STANDARD.decode(text).map_err(|_| "it is damaged")?;
        Certificate::from_bytes(&blob).map_err(|_| "it has no certificate")
    };
    let certificates = note.certificates.iter().map(certificate).collect::<std::result::Result<_, _>>()?;
    Ok(Some(Offered { every: note.every, certificates }))
}

/// The certificates that a process was offered.
#[derive(Debug)]
pub(super) struct Offered {
    every: bool,
    certificates: Vec<Certificate>,
}

impl Offered {
    /// Those that have let somebody in.
    pub(super) fn counts(&self) -> impl Iterator<Item = &Certificate> {
        let skipped = if self.every { 0 } else { self.certificates.len().saturating_sub(1) };
        self.certificates.iter().skip(skipped)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use proptest::prelude::*;
    use ssh_key::certificate::Builder;
    use ssh_key::private::{Ed25519Keypair, PrivateKey};

    use super::*;

    fn certificate(serial: u64) -> String {
        let key = PrivateKey::from(Ed25519Keypair::from_seed(&[7; 32]));
        let mut builder = Builder::new([1; 32], key.public_key().key_data().clone(), 0, 1 << 40).unwrap();
        builder.serial(serial).unwrap().valid_principal("deploy").unwrap();
        STANDARD.encode(builder.sign(&key).unwrap().to_bytes().unwrap())
    }

    fn folder() -> (tempfile::TempDir, Folder) {
        let temp = tempfile::tempdir().unwrap();
        std::fs::set_permissions(temp.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        let folder = Folder::of_another(temp.path()).unwrap();
        (temp, folder)
    }

    fn counted(folder: &Folder) -> Vec<u64> {
        let offered = read(folder, &Process::this().name()).unwrap();
        offered.iter().flat_map(Offered::counts).map(Certificate::serial).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// Whatever is offered, again or not: the last counts, or each once in the order in which it was last offered;
        /// where there are too many, nothing is noted and nobody gets in.
        #[test]
        fn the_last_counts_or_each(offers in proptest::collection::vec((1_u64..24, any::<bool>()), 0..40)) {
            let (_temp, folder) = folder();
            let (mut known, mut every) = (Vec::new(), false);
            for (serial, each) in offers {
                let noted = add(&folder, Process::this(), &certificate(serial), each);
                let mut all: Vec<u64> = known.iter().copied().filter(|other| *other != serial).collect();
                all.push(serial);
                prop_assert_eq!(noted.is_ok(), all.len() <= MOST);
                if noted.is_ok() {
                    (known, every) = (all, every | each);
                }
                let expected = if every { known.clone() } else { known.last().copied().into_iter().collect() };
                prop_assert_eq!(counted(&folder), expected);
            }
        }
    }

    #[test]
    fn notes_go_with_their_processes() {
        let (temp, folder) = folder();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let it = Process::of(child.id()).unwrap();
        add(&folder, it, &certificate(1), false).unwrap();
        let later = format!("{}-{}", it.pid, 1);
        std::fs::write(temp.path().join(&later), "of one that had its number").unwrap();
        add(&folder, Process::this(), &certificate(2), false).unwrap();
        let names = || folder.entries().unwrap().into_iter().collect::<std::collections::BTreeSet<_>>();
        assert_eq!(names(), [it.name(), Process::this().name()].into());
        child.kill().unwrap();
        // Not asked after, it is over all the same.
        add_until(&folder, || it.is_over());
        child.wait().unwrap();
        assert_eq!(names(), [Process::this().name()].into());
        assert!(read(&folder, &it.name()).unwrap().is_none());
    }

    fn add_until(folder: &Folder, over: impl Fn() -> bool) {
        while !over() {
            std::thread::yield_now();
        }
        add(folder, Process::this(), &certificate(2), false).unwrap();
    }

    #[test]
    fn what_cannot_be_noted_is_an_error() {
        let (temp, folder) = folder();
        let place = temp.path().join(Process::this().name());
        for damaged in ["", "{}", r#"{"every":1,"certificates":[]}"#] {
            std::fs::write(&place, damaged).unwrap();
            let why = add(&folder, Process::this(), &certificate(1), false).unwrap_err();
            assert!(why.contains(" is damaged: "), "{why}");
        }
        std::fs::remove_file(&place).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &place).unwrap();
        let why = add(&folder, Process::this(), &certificate(1), false).unwrap_err();
        assert_eq!(why, "it is a symbolic link");
        assert!(read(&folder, &Process::this().name()).is_err());
        std::fs::remove_file(&place).unwrap();
        for note in [r#"{"every":false,"certificates":["!"]}"#, r#"{"every":false,"certificates":["AAAA"]}"#]
        {
            std::fs::write(&place, note).unwrap();
            assert!(read(&folder, &Process::this().name()).is_err(), "{note}");
        }
        // What others may use, or put another in the place of, is no place for it.
        std::fs::set_permissions(temp.path(), std::fs::Permissions::from_mode(0o750)).unwrap();
        let error = note(temp.path(), "AAAA", false).unwrap_err();
        assert!(error.to_string().ends_with("others than this user may use it"), "{error}");
        assert!(Folder::of_another(temp.path()).unwrap_err().to_string().contains("others than its owner"));
        let missing = temp.path().join("no/such");
        assert_eq!(note(&missing, "AAAA", false).unwrap_err().kind(), Kind::Destination);
    }
}
