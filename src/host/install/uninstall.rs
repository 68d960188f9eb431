//! `host uninstall`: what `host install` wrote is taken back, in the opposite order, and nothing else.
//!
//! `sshd`'s lines go first, and everything that they name stays until `sshd` has read that they are gone: with a list that is
//! not there it refuses every key.

use std::os::unix::process::CommandExt as _;
use std::path::Path;

use super::changes::{Done, remove_user};
use super::include;
use super::mark::{self, Found, marked};
use super::places::{
    DESTINATION, FOLDER, HOME, RENEW, SESSIONS, SNIPPET, SSHD_USER, STORAGE, TMPFILES, TRUST, UNFINISHED,
    UNITS, USERS, WATCH_USER, is_ours, pieces, unit,
};
use super::plan;
use crate::error::{Error, Result};
use crate::folder::Folder;
use crate::host::heard::{AUTHORITY_CA, HEARD};
use crate::host::lists::{CRL, KRL};
use crate::host::machine::{self, User};
use crate::host::seen::SEEN;
use crate::host::sshd::{self, Effective};
use crate::host::store::{HOST_CA, KNOWN_HOSTS, LOCK, TLS_CA, USER_CA};

/// What the watcher keeps.
const FILES: [&str; 10] = [USER_CA, HOST_CA, KNOWN_HOSTS, TLS_CA, KRL, CRL, HEARD, AUTHORITY_CA, SEEN, LOCK];
/// What a worker's storage has.
const STORED: [&str; 2] = ["state.json", "lock"];

/// Takes it back; `program` is this one.
///
/// # Errors
/// `Kind::Usage` where `sshd` would go on by what is to be taken away: then everything is as it was.
pub fn run(program: &Path) -> Result<Done> {
    plan::needs()?;
    let mut done = Done::default();
    let found = |path: &str| mark::found(Path::new(path));
    let mut ours = Vec::new();
    for path in pieces() {
        match found(&path) {
            Found::Ours(_) => ours.push(path),
            Found::Edited => done.left.push(format!("{path} was edited")),
            Found::Nothing | Found::Foreign => {}
        }
    }
    let has_joined = found(&unit(RENEW)) != Found::Nothing;
    let is_unfinished = Path::new(UNFINISHED).exists();
    let snippet = found(SNIPPET);
    if ours.is_empty() && !is_unfinished && !matches!(snippet, Found::Ours(_) | Found::Edited) {
        return Ok(done);
    }
    if snippet == Found::Edited {
        return Err(still_used(&format!("{SNIPPET} was edited")));
    }
    mark::write(
        Path::new(UNFINISHED),
        &marked("a run of `machine-id host uninstall` has begun and not ended\n"),
    )?;
    leave_sshd(&snippet, &mut done)?;

    for path in &ours {
        disable(path)?;
        mark::remove(Path::new(path))?;
        done.paths.push(path.clone());
    }
    machine::run("systemctl", &["daemon-reload"])?;
    if done.left.is_empty() {
        remove_notes()?;
        if has_joined || is_unfinished {
            forget(program)?;
        }
        remove_lists()?;
        for (user, _) in USERS {
            remove_user(user)?;
        }
    } else {
        done.left.push(format!(
            "{HOME}, {DESTINATION} and the users {WATCH_USER} and {SSHD_USER} may be in use by that"
        ));
    }
    for folder in [HOME, DESTINATION, STORAGE] {
        if Path::new(folder).exists() && done.left.is_empty() {
            done.left.push(format!("{folder} holds something else"));
        }
    }
    mark::remove(Path::new(UNFINISHED))?;
    mark::remove(&Path::new(FOLDER).join(LOCK))?;
    let _ = std::fs::remove_dir(FOLDER);
    Ok(done)
}

fn still_used(why: &str) -> Error {
    Error::usage(format!("sshd would go on by what is to be taken away: {why}"))
        .hint("take those lines out of its configuration, `sudo systemctl reload ssh`, and run this again")
}

/// Has `sshd` go by its configuration without our lines.
fn leave_sshd(snippet: &Found, done: &mut Done) -> Result<()> {
    sshd::prepare();
    let included = include::remove()?;
    if let Found::Ours(_) = snippet {
        mark::remove(Path::new(SNIPPET))?;
        done.paths.push(SNIPPET.to_owned());
    }
    if let Err(error) = without() {
        // As it was.
        if let Found::Ours(text) = snippet {
            mark::write(Path::new(SNIPPET), text)?;
        }
        if included {
            include::add()?;
        }
        mark::remove(Path::new(UNFINISHED))?;
        return Err(error);
    }
    if let Some(unit) = sshd::unit()? {
        sshd::reload(unit)?;
        done.reloaded = Some(unit);
    }
    Ok(())
}

/// That it takes it, and that nothing in it names what goes.
fn without() -> Result<()> {
    let effective = Effective::of(None, None)?;
    for keyword in
        ["trustedusercakeys", "revokedkeys", "hostcertificate", "hostkey", "authorizedprincipalsfile"]
    {
        if let Some(value) = effective.all(keyword).find(|value| is_ours(value)) {
            return Err(still_used(&format!("`{keyword} {value}` stands elsewhere in it")));
        }
    }
    let command = effective.one("authorizedprincipalscommand").unwrap_or_default();
    let user = effective.one("authorizedprincipalscommanduser").unwrap_or_default();
    if command.split_whitespace().any(is_ours) || user == SSHD_USER {
        return Err(still_used("an `AuthorizedPrincipalsCommand` stands elsewhere in it"));
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

/// Wipes the host's certificate, and what it joined by.
fn forget(program: &Path) -> Result<()> {
    if Path::new(DESTINATION).is_dir() {
        // It warns where something is left, which is seen.
        machine::ask(machine::command(program).args(["cleanup", DESTINATION]))?;
    }
    if let Ok(storage) = Folder::open(Path::new(STORAGE)) {
        storage.remove_temporaries(0);
        for name in STORED {
            storage
                .remove(name)
                .map_err(|why| Error::usage(why).context(format!("cannot empty {STORAGE}")))?;
        }
        storage.remove_if_empty();
    }
    Ok(())
}

/// Takes CA keys and lists away, as the user whose they are: root follows nobody's links.
fn remove_lists() -> Result<()> {
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
