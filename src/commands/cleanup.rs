//! `machine-id cleanup`: wipes, then revokes.
//!
//! It runs when a job ends, perhaps after other failures: what is gone is
//! fine, and what cannot be done is a warning. Only an argument that names
//! something of somebody else is an error.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cli::cleanup::Args;
use crate::destination::manifest::Manifest;
use crate::destination::wipe::{self, Found};
use crate::environment::Environment;
use crate::error::Result;
use crate::folder;
use crate::net::{AuthorityTrust, authority_url, timeout};
use crate::once::revoke::{NOT_REVOKED, Revocable, revoke_by_manifest};
use crate::once::runs;
use crate::runtime::block_on;
use crate::terminal::{Level, Progress};
use crate::text::shown;

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
        Some(path) => cleanup.destination(&absolute(path)?)?,
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
    /// The environment's destination, and what dead runs left.
    fn everything(&self) {
        if let Some(path) = self.env.get("MACHINE_ID_DESTINATION") {
            let done = absolute(path).and_then(|path| self.destination(&path));
            if let Err(error) = done {
                self.progress.warning(&format!("MACHINE_ID_DESTINATION: {error}"));
            }
        }
        for dead in runs::dead(self.env) {
            for path in &dead.destinations {
                if let Err(error) = self.destination(path) {
                    self.progress.warning(&error.to_string());
                }
                if !dead.existed.contains(path) {
                    wipe::remove_empty(path);
                }
            }
            dead.forget();
        }
    }

    fn destination(&self, path: &Path) -> Result<()> {
        let Some(found) = wipe::find(path)? else {
            self.progress.step(&format!("nothing to wipe at {}", shown(&path.to_string_lossy())));
            return Ok(());
        };
        let revocable = Revocable::of_destination(&found);
        let manifest = found.manifest.clone();
        self.wipe(found, path);
        self.wipe_others(&manifest);
        match revocable {
            Some(revocable) => self.revoke(&revocable, &manifest),
            None => self.progress.warning(&format!("{NOT_REVOKED}: there is no key to sign with")),
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
    fn wipe_others(&self, manifest: &Manifest) {
        for path in manifest.also.iter().map(Path::new).filter(|path| path.is_absolute()) {
            if let Ok(Some(found)) = wipe::find(path)
                && found.manifest.issuance_id == manifest.issuance_id
            {
                self.wipe(found, path);
            }
        }
    }

    fn revoke(&self, revocable: &Revocable, manifest: &Manifest) {
        let Args { authority, ca_file, ca_pin, .. } = self.args;
        let typed = (authority.as_deref(), AuthorityTrust::new(ca_file.as_deref(), ca_pin.as_deref()));
        let revocation = revoke_by_manifest(revocable, manifest, typed, self.env, self.progress, self.time);
        if let Err(error) = block_on(revocation) {
            self.progress.warning(&format!("{NOT_REVOKED}: {error}"));
        }
    }
}
