//! What `host install` has made beside files with a mark, taken away: users, lists, notes, certificates, folders.

use std::os::unix::process::CommandExt as _;
use std::path::Path;

use super::mark;
use super::places::{
    COMMENT, DESTINATION, FOLDER, HOME, SESSIONS, SSHD_USER, TMPFILES, TRUST, UNITS, WATCH_USER, unit,
};
use crate::error::Result;
use crate::folder::Folder;
use crate::host::heard::{AUTHORITY_CA, HEARD};
use crate::host::lists::{CRL, KRL};
use crate::host::machine::{self, User};
use crate::host::seen::SEEN;
use crate::host::store::{HOST_CA, KNOWN_HOSTS, LOCK, TLS_CA, USER_CA};

/// What the watcher keeps.
const FILES: [&str; 10] = [USER_CA, HOST_CA, KNOWN_HOSTS, TLS_CA, KRL, CRL, HEARD, AUTHORITY_CA, SEEN, LOCK];
/// Takes a user away that was made here, and no other; whether there is none any more.
pub(super) fn remove_user(name: &str) -> Result<()> {
    match User::named(name)? {
        Some(user) if user.comment == COMMENT => machine::run("userdel", &[name]).map(drop),
        _ => Ok(()),
    }
}
/// Removes the folder, if nothing else is in it than what all of this was locked by.
pub(super) fn leave_folder() -> Result<()> {
    let Ok(folder) = Folder::open(Path::new(FOLDER)) else { return Ok(()) };
    if folder.entries().is_ok_and(|names| names.iter().all(|name| name == LOCK)) {
        mark::remove(&Path::new(FOLDER).join(LOCK))?;
        folder.remove_if_empty();
    }
    Ok(())
}

/// Stops what a file of a unit's has started.
pub(super) fn disable(path: &str) -> Result<()> {
    match UNITS.iter().find(|name| unit(name) == path) {
        Some(name) => machine::run("systemctl", &["disable", "--now", name]).map(drop),
        None => Ok(()),
    }
}

/// Takes the notes of sessions away; `machine-id-sshd`'s own, by itself, since it may have put anything there.
pub(super) fn remove_notes() -> Result<()> {
    if !Path::new(TMPFILES).exists()
        && Path::new(SESSIONS).is_dir()
        && let Some(user) = User::named(SSHD_USER)?
    {
        let notes = ["--", SESSIONS];
        let mut find = machine::command(&machine::program("find")?);
        find.args([notes[1], "-mindepth", "1", "-delete"]).uid(user.uid).gid(user.gid);
        machine::ask(&mut find)?;
        let _ = std::fs::remove_dir(SESSIONS);
    }
    Ok(())
}

/// Takes CA keys and lists away, as the user whose they are: root follows nobody's links.
pub(super) fn remove_lists() -> Result<()> {
    let Some(user) = User::named(WATCH_USER)? else { return Ok(()) };
    let as_user = |program: &str, args: &[String]| {
        machine::ask(
            machine::command(&machine::program(program)?)
                .args(args)
                .current_dir("/")
                .uid(user.uid)
                .gid(user.gid),
        )
    };
    let mut files = vec!["-f".to_owned(), "--".to_owned()];
    files.extend(FILES.iter().map(|name| format!("{TRUST}/{name}")));
    as_user("rm", &files)?;
    as_user("rmdir", &["--".to_owned(), TRUST.to_owned()])?;
    let _ = std::fs::remove_dir(HOME);
    Ok(())
}

/// Wipes the host's certificate.
pub(super) fn wipe(program: &Path) -> Result<()> {
    if Path::new(DESTINATION).is_dir() {
        // It warns where something is left, which is seen.
        machine::ask(machine::command(program).args(["cleanup", DESTINATION]))?;
    }
    Ok(())
}
