//! `host uninstall`: what `host install` wrote is taken back, in the opposite order, and nothing else.
//!
//! `sshd`'s lines go first, and everything that they name stays until `sshd` has read that they are gone: with a list that is
//! not there it refuses every key.

use std::path::Path;

use super::away::{disable, leave_folder, remove_lists, remove_notes, remove_user, wipe};
use super::changes::{Done, lock};
use super::include;
use super::mark::{self, Found, marked};
use super::places::{
    DESTINATION, FOLDER, HOME, RENEW, SNIPPET, SSHD_USER, STORAGE, UNFINISHED, USERS, WATCH_USER, is_ours,
    pieces, unit,
};
use super::plan;
use crate::error::{Error, Result};
use crate::folder::Folder;
use crate::host::machine;
use crate::host::sshd::{self, Effective};

/// What a worker's storage has.
const STORED: [&str; 2] = ["state.json", "lock"];

/// Takes it back; `program` is this one.
///
/// # Errors
/// `Kind::Usage` where `sshd` would go on by what is to be taken away: then everything is as it was.
pub async fn run(program: &Path) -> Result<Done> {
    plan::needs()?;
    let _lock = if Path::new(FOLDER).is_dir() { Some(lock().await?) } else { None };
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
        leave_folder()?;
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
    leave_folder()?;
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

/// Wipes the host's certificate, and what it joined by.
fn forget(program: &Path) -> Result<()> {
    wipe(program)?;
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
