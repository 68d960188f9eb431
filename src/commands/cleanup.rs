//! `machine-id cleanup`: wipes, then revokes.
//!
//! It runs when a job ends, perhaps after other failures: what is gone is
//! fine, and what cannot be done is a warning. Only an argument that names
//! something of somebody else is an error.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::cli::cleanup::Args;
use crate::destination::manifest::Manifest;
use crate::destination::wipe::{self, Found};
use crate::environment::Environment;
use crate::error::Result;
use crate::folder;
use crate::join;
use crate::net::{AuthorityTrust, authority_url, timeout};
use crate::once::revoke::{NOT_REVOKED, Stored};
use crate::once::runs::{self, LivingRun};
use crate::once::settings::destinations::VARIABLE;
use crate::output::JWT;
use crate::runtime::block_on;
use crate::terminal::{Level, Progress};
use crate::text::shown;

/// How long a run may take to tell COMMAND, to wipe and to revoke.
const PATIENCE: Duration = Duration::from_secs(8);

/// How long the system may take to end a process that it kills.
const KILLED: Duration = Duration::from_secs(2);

/// The most destinations that are looked for behind one.
const MOST_EARLIER: usize = 100;

/// Wipes a destination, or what can be found, and revokes what was in it.
///
/// # Errors
/// `Kind::Usage` for bad options, and for an argument that is no destination of ours.
pub fn run(args: Args, env: &Environment) -> Result<()> {
    let progress = Progress::new(Level::of_flags(args.verbose, args.quiet), env);
    let time = timeout(&args.timeout)?;
    if let Some(authority) = &args.authority {
        authority_url(authority)?;
    }
    let cleanup = Cleanup { args: &args, env, progress: &progress, time };
    match &args.destination {
        Some(path) => cleanup.with_earlier(&absolute(path)?)?,
        None => cleanup.everything(),
    }
    Ok(())
}

fn absolute(path: &str) -> Result<PathBuf> {
    // As `once` names it: without a slash at the end, which would follow a link.
    Ok(folder::absolute(path)?.components().collect())
}

struct Cleanup<'a> {
    args: &'a Args,
    env: &'a Environment,
    progress: &'a Progress,
    time: Duration,
}

impl Cleanup<'_> {
    /// This job's runs that go on, the environment's destination, and what dead runs left.
    fn everything(&self) {
        self.end_living();
        if let Some(path) = self.env.get(VARIABLE) {
            let done = absolute(path).and_then(|path| self.with_earlier(&path));
            if let Err(error) = done {
                self.progress.warning(&format!("MACHINE_ID_DESTINATION: {error}"));
            }
        }
        for dead in runs::dead(self.env) {
            let mut held = false;
            for path in &dead.destinations {
                // By a run that lives, which is about to replace what is there, or has.
                if wipe::find(path).ok().flatten().is_some_and(|found| found.is_in_use()) {
                    held = true;
                    continue;
                }
                if let Err(error) = self.destination(path) {
                    self.progress.warning(&error.to_string());
                }
                if !dead.existed.contains(path) {
                    wipe::remove_empty(path);
                }
            }
            if !held {
                dead.forget();
            }
        }
    }

    /// A job that was cancelled may leave a run behind that nobody told. What it
    /// does not take away itself is a dead run's then.
    fn end_living(&self) {
        let job = join::job(self.env);
        let living = runs::living(self.env).into_iter().filter(|run| !run.process.is_above());
        let (own, others): (Vec<_>, Vec<_>) = living.partition(|run| job.is_some() && run.job == job);
        for run in others {
            let whose = if run.job.is_some() { "another job" } else { "no known job" };
            // Under that number there may be another here, which nobody is to kill.
            let how = if run.process.is_there() {
                format!("`kill {}` ends it", run.process.pid)
            } else {
                "out of reach, as in another container".to_owned()
            };
            self.progress.line(&format!("left alone: {} of {whose} ({how})", said(&run)));
        }
        let mut told = Vec::new();
        for run in own {
            if run.process.signal(Signal::TERM) {
                self.progress.line(&format!("ending {} of this job", said(&run)));
                told.push(run);
            } else if !run.ends_before(Instant::now()) {
                self.progress
                    .warning(&format!("{} goes on out of reach, as in another container", said(&run)));
            }
        }
        let deadline = Instant::now() + PATIENCE;
        for run in told.iter().filter(|run| !run.ends_before(deadline)) {
            run.process.signal(Signal::KILL);
            if !run.ends_before(Instant::now() + KILLED) {
                self.progress.warning(&format!("{} does not end", said(run)));
            }
        }
    }

    /// A destination, and if it is `$MACHINE_ID_DESTINATION`, those that this named before.
    fn with_earlier(&self, path: &Path) -> Result<()> {
        let before = |path: &Path| {
            let earlier = PathBuf::from(wipe::find(path).ok()??.manifest.earlier?);
            Some(earlier).filter(|earlier| earlier.is_absolute())
        };
        let named = self.env.get(VARIABLE).and_then(|named| absolute(named).ok());
        let mut earlier = before(path).filter(|_| named.as_deref() == Some(path));
        self.destination(path)?;
        // Whoever wrote the manifests could have them name one another for ever.
        for _ in 0..MOST_EARLIER {
            let Some(path) = earlier else { break };
            earlier = before(&path);
            if let Err(error) = self.destination(&path) {
                self.progress.warning(&error.to_string());
            }
        }
        Ok(())
    }

    fn destination(&self, path: &Path) -> Result<()> {
        let said = shown(&path.to_string_lossy());
        let Some(found) = wipe::find(path)? else {
            self.progress.step(&format!("nothing to wipe at {said}"));
            if let Err(left) = wipe::look_again(path) {
                self.progress.warning(&format!("{said}: {}", shown(&left)));
            }
            return Ok(());
        };
        let mut stored = Stored::of(&found);
        let manifest = found.manifest.clone();
        self.wipe(found, path);
        self.wipe_others(&manifest, &mut stored);
        if !stored.is_empty() {
            self.revoke(&stored);
        } else if manifest.outputs.iter().all(|output| output.kind == JWT.name) {
            // Its key was in no file.
            let end = shown(&manifest.expires_at);
            self.progress.line(&format!("a token that somebody has copied ends by itself, at {end}"));
        } else {
            self.progress.warning(&format!("{NOT_REVOKED}: there is no key to sign with"));
        }
        Ok(())
    }

    fn wipe(&self, found: Found, path: &Path) {
        let path = shown(&path.to_string_lossy());
        match found.wipe() {
            Ok(()) => self.progress.line(&format!("wiped {path}")),
            Err(left) => self.progress.warning(&format!("could not wipe all of {path}: {}", shown(&left))),
        }
    }

    /// Other destinations of the same run; one of another issuance has nothing to do with this one.
    fn wipe_others(&self, manifest: &Manifest, stored: &mut Stored) {
        for path in manifest.also.iter().map(Path::new).filter(|path| path.is_absolute()) {
            if let Ok(Some(found)) = wipe::find(path)
                && found.manifest.issuance_id == manifest.issuance_id
            {
                stored.add(&found);
                self.wipe(found, path);
            }
        }
    }

    fn revoke(&self, stored: &Stored) {
        let Args { authority, ca_file, ca_pin, .. } = self.args;
        let typed = (authority.as_deref(), AuthorityTrust::new(ca_file.as_deref(), ca_pin.as_deref()));
        let revocation = stored.revoke(typed, self.env, self.progress, self.time);
        if let Err(error) = block_on(revocation) {
            self.progress.warning(&format!("{NOT_REVOKED}: {error}"));
        }
    }
}

/// A run that goes on, in words.
fn said(run: &LivingRun) -> String {
    let paths: Vec<_> =
        run.destinations.iter().map(|path| shown(&path.to_string_lossy()).to_string()).collect();
    format!("the run of process {}, which has {},", run.process.pid, paths.join(", "))
}
