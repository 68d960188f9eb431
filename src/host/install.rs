//! `host install`: everything that an `sshd` needs of an authority, in one run.
//!
//! First one looks, and asks the authority; nothing is changed where that fails. Then each file is put in place whole, `sshd`'s
//! lines last of all, once `sshd` has taken them and everything that they name is there. What fails on the way is undone. A
//! run that is killed leaves an `sshd` that goes by its old configuration or by the new one, and a mark by which the
//! next run knows that it has to go through all of it again.

use std::os::unix::process::CommandExt as _;
use std::path::Path;

use crate::clock::Clock;
use crate::error::{EXIT_CODES, Error, Kind, Result};
use crate::folder::Aside;
use crate::host::fetch::RefreshSettings;
use crate::host::machine::{self, User};
use crate::host::store::{self, HOST_CA};
use crate::host::{refresh, sshd};

mod away;
mod changes;
mod include;
mod mark;
pub mod places;
mod plan;
pub mod settings;
pub mod uninstall;
mod units;

use changes::Changes;
pub use changes::Done;
use places::{
    CA_FILE, FOLDER, GIVEN, HOME, JOINED, RENEW, RENEW_TIMER, SSHD_USER, TMPFILES, UNFINISHED, WATCH_USER,
};
use plan::{Host, Plan};
use settings::{Certified, Join, Settings};

/// Beside it what the authority has is fetched to be looked at; it goes again.
const TRIAL: &str = "/run/machine-id-install";
/// `sshd`'s configuration as it would be, to be judged.
const CANDIDATE: &str = "/etc/ssh/machine-id/candidate";

/// Sets the host up.
///
/// # Errors
/// `Kind::Usage` where it cannot be, `Kind::Unreachable` where the authority is not reached, `Kind::Refused` and `Kind::Proof`
/// where it lets this host not join: then everything is as it was.
pub async fn run(settings: &Settings) -> Result<Done> {
    settings.check()?;
    let host = Host::look(settings)?;
    let now = Clock::system().now();
    let life = plan::life(settings, &host, now);
    let plan = Plan::new(settings, &host, life)?;
    let included = include::is_read()?;
    let is_certified = life.is_some() || matches!(settings.certified, Certified::Given(_));
    if is_certified && plan.is_in_place(&host, included)? {
        return Ok(Done::default());
    }
    let cas = trial(settings).await?;
    if let Certified::Given(path) = &settings.certified {
        let certificate = sshd::certificate(path).map_err(|unfit| unfit.to_string());
        certificate.and_then(|it| plan::usable(&it, &cas, &host.public_key, now)).map_err(|why| {
            Error::usage(why)
                .context(format!("cannot use {}", path.display()))
                .hint("`machine-id authority sign-host` signs it for the key of this host's sshd")
        })?;
    }
    let mut changes = Changes::default();
    match change(settings, &host, &mut changes).await {
        Ok(()) => Ok(Done { paths: changes.paths, reloaded: Some(host.sshd), left: Vec::new() }),
        Err(error) => {
            let failed = changes.undo();
            Err(failed
                .into_iter()
                .fold(error, |error, why| error.hint(format!("could not be undone: {why}"))))
        }
    }
}

/// Asks the authority for everything, into a folder that goes again; the CAs of its hosts.
async fn trial(settings: &Settings) -> Result<String> {
    let aside = Aside::of(Path::new(TRIAL))
        .map_err(|unfit| unfit.error(Kind::Usage, format!("cannot make a folder beside {TRIAL}")))?;
    let refresh = RefreshSettings {
        authority: settings.authority.clone(),
        trust: settings.trust.clone(),
        statement_key: settings.statement_key.clone(),
        directory: aside.path().join("trust"),
        timeout: settings.timeout,
        host_key: None,
    };
    let done = refresh::run(&refresh).await?;
    if let Some(error) = Error::together(done.errors) {
        return Err(error);
    }
    let cas = store::open(&refresh.directory)?.read(HOST_CA, store::MAX_TRUST);
    let cas = cas.map_err(Error::internal)?.unwrap_or_default();
    Ok(String::from_utf8_lossy(&cas).into_owned())
}

async fn change(settings: &Settings, host: &Host, changes: &mut Changes) -> Result<()> {
    changes.folder(FOLDER, None)?;
    let _lock = changes::lock().await?;
    changes.write(
        UNFINISHED,
        &mark::marked("a run of `machine-id host install` or `uninstall` has begun and not ended\n"),
    )?;
    let watcher = changes.user(WATCH_USER, HOME)?;
    changes.user(SSHD_USER, "/nonexistent")?;
    changes.folder(HOME, Some(&watcher))?;

    // What the first runs of the units' commands need, which are these.
    let life = plan::life(settings, host, Clock::system().now());
    for piece in &Plan::new(settings, host, life)?.pieces {
        if [CA_FILE, GIVEN].contains(&piece.path.as_str()) {
            changes.write(&piece.path, &piece.text)?;
        }
    }
    changes.lists();
    fetch(settings, &watcher)?;
    if let Certified::Joined(joins) = &settings.certified {
        // Another token or authority than before has to let it in, too.
        let plan = Plan::new(settings, host, life)?;
        let is_as_before = plan.pieces.iter().any(|piece| piece.path.ends_with(RENEW) && piece.is_there());
        if life.is_none() || !is_as_before {
            changes.joined(&settings.program);
            join(settings, host, joins)?;
        }
    }

    let life = plan::life(settings, host, Clock::system().now());
    if life.is_none() && matches!(settings.certified, Certified::Joined(_)) {
        return Err(Error::internal(format!("{JOINED} is not the certificate that was asked for")));
    }
    let plan = Plan::new(settings, host, life)?;
    for unit in &plan.units {
        changes.restart(unit);
    }
    changes.systemd();
    let mut changed = Vec::new();
    for piece in &plan.pieces {
        if changes.write(&piece.path, &piece.text)? {
            changed.push(piece.path.clone());
        }
    }
    machine::run("systemctl", &["daemon-reload"])?;
    if settings.end_sessions {
        machine::run("systemd-tmpfiles", &["--create", TMPFILES])?;
    }
    for unit in &plan.units {
        changes.enable(unit, changed.contains(&places::unit(unit)))?;
    }
    tell_sshd(&plan, host, changes)?;
    // Nobody goes by them any more.
    for path in plan.stale() {
        away::disable(&path)?;
        changes.remove(&path)?;
        if path == TMPFILES {
            away::remove_notes()?;
        }
    }
    machine::run("systemctl", &["daemon-reload"])?;
    mark::remove(Path::new(UNFINISHED))?;
    changes.paths.retain(|path| path != UNFINISHED);
    Ok(())
}

/// Fetches CA keys and lists, as the unit will, and as its user.
fn fetch(settings: &Settings, watcher: &User) -> Result<()> {
    own(settings, &units::fetch(settings, Path::new(CA_FILE), "refresh"), &[], Some(watcher))
}

/// Gets the first certificate, as the unit will get the others.
fn join(settings: &Settings, host: &Host, join: &Join) -> Result<()> {
    let args = units::join(settings, join, Path::new(CA_FILE), &host.public_key);
    let secret = join
        .secret
        .iter()
        .flat_map(|path| ["--registration-secret-file".to_owned(), path.display().to_string()]);
    let hint =
        "the policy must let this host have an output `ssh-host` for its names: docs/resources/ssh-hosts.md";
    own(settings, &args, &secret.collect::<Vec<_>>(), None)
        .map_err(|error| error.context(format!("{RENEW_TIMER}: no certificate for this host")).hint(hint))
}

/// A command of this program's, which must do what it is to.
fn own(settings: &Settings, args: &[String], more: &[String], user: Option<&User>) -> Result<()> {
    let mut command = machine::command(&settings.program);
    command
        .args(args)
        .args(more)
        .current_dir("/")
        .envs(settings.proxies.iter().map(|(name, value)| (name, value)));
    if let Some(user) = user {
        command.uid(user.uid).gid(user.gid);
    }
    let said = machine::ask(&mut command)?;
    if said.is_good() {
        return Ok(());
    }
    let kind = EXIT_CODES.iter().find(|(_, code, _)| said.code == Some(i32::from(*code)));
    let mut lines = said.stderr.lines();
    let why = lines
        .by_ref()
        .find_map(|line| line.strip_prefix("error: "))
        .map_or_else(|| said.why(), str::to_owned);
    let error = Error::new(kind.map_or(Kind::Internal, |(kind, ..)| *kind), why);
    Err(lines.filter_map(|line| line.strip_prefix("hint: ")).fold(error, Error::hint))
}

/// Puts `sshd`'s lines in place, if it takes them, and has it read them.
fn tell_sshd(plan: &Plan, host: &Host, changes: &mut Changes) -> Result<()> {
    // Before they count, in front of all that is there.
    let candidate = format!("{}Include {}\n", plan.snippet.text, sshd::CONFIG);
    mark::write(Path::new(CANDIDATE), &candidate)?;
    let taken = sshd::test(Some(Path::new(CANDIDATE)));
    mark::remove(Path::new(CANDIDATE))?;
    taken?;
    let drop_ins = Path::new(&plan.snippet.path).parent().unwrap_or(Path::new("/"));
    changes.folder(&drop_ins.display().to_string(), None)?;
    changes.sshd(host.sshd);
    changes.write(&plan.snippet.path, &plan.snippet.text)?;
    if !include::is_read()? {
        changes.include()?;
    }
    sshd::test(None)?;
    plan.in_force()?;
    sshd::reload(host.sshd)
}
