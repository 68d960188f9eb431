//! A policy's files: which they are, what they hold, and whether they are
//! whole. Half of a rule is a wider rule, so what is being written is waited
//! for, and what a `policy.sha256` does not list is refused.

use std::path::{Path, PathBuf};
use std::time::Instant;

use super::policy::{Policy, Source};
use crate::error::{Context as _, Error, Kind, Result};
use crate::folder;
use crate::folder::read::{self, Limit, Trust};
use crate::folder::trust;

mod manifest;
mod text;
mod watch;

pub use manifest::hash;
pub use watch::{Look, Watch};

use text::{PolicyText, together};
use watch::{Facts, When};

/// The largest file of a policy that is read.
const POLICY_FILE: Limit = Limit::bytes(16 << 20);
/// The most entries that a policy folder may hold.
const MAX_POLICY_FILES: usize = 20_000;

/// Where a policy is, a file or a folder, and who may change it. A folder's
/// `*.yaml` and `*.yml` files are read in the order of their names; hidden ones
/// are passed over.
#[derive(Clone, Debug)]
pub struct PolicyFiles {
    path: PathBuf,
    trust: Trust,
}

impl PolicyFiles {
    /// The policy at `path`.
    pub fn new(path: PathBuf, trust: Trust) -> Self {
        Self { path, trust }
    }

    /// The text of each file, as it is now.
    ///
    /// # Errors
    /// `Kind::Usage` where there is no file, one cannot be read or is not
    /// trusted, or is another than `policy.sha256` lists.
    pub fn sources(&self) -> Result<Vec<Source>> {
        self.read()?.verified()
    }

    /// The text of each file of a folder that another file is to be added to; it may have none yet.
    ///
    /// # Errors
    /// As [`PolicyFiles::sources`]; and where it is no folder, or a `policy.sha256` lists what is in it.
    pub fn sources_to_extend(&self) -> Result<Vec<Source>> {
        let (place, text) = (self.path.display(), self.read_any()?);
        if !self.path.is_dir() {
            return Err(Error::usage(format!(
                "the policy {place} is one file, and no folder that takes another"
            ))
            .hint("move it into a folder, and name that as `policy` in authority.yaml"));
        }
        if text.manifest.is_some() {
            return Err(Error::usage(format!(
                "{place} has a {}, which would not list the new file",
                manifest::NAME
            ))
            .hint("add the file where that list is made, or remove the list"));
        }
        text.verified()
    }

    /// The policy as the files have it now.
    ///
    /// # Errors
    /// The first mistake in full, the others as hints.
    pub fn policy(&self) -> Result<Policy> {
        self.read()?.policy()
    }

    /// Says that the authority of that cluster and URL cannot have this policy, if it cannot.
    ///
    /// # Errors
    /// As [`PolicyFiles::policy`].
    pub fn check_at(policy: &Policy, cluster: &str, public_url: &str) -> Result<()> {
        together(policy.mistakes_at(cluster, public_url)).map_or(Ok(()), Err)
    }

    /// The policy once it stands still, and the watch over what becomes of it.
    ///
    /// # Errors
    /// As [`PolicyFiles::policy`]; and where it is still being written after ten seconds.
    pub fn wait(&self) -> Result<(Policy, Watch)> {
        let (mut watch, begun) = (Watch::default(), Instant::now());
        loop {
            let when = When::since(begun);
            let facts = self.facts();
            let read = self.read();
            let unmoved = self.facts() == facts;
            if let Some(policy) = watch.start(when, facts, read, unmoved) {
                return policy.map(|policy| (policy, watch));
            }
            if when.at > watch::START_PATIENCE {
                return Err(watch.still_written(&self.path));
            }
            std::thread::sleep(watch::START_LOOKS);
        }
    }

    /// Looks at the files, `begun` being when the watch did; where it is `asked` for, even if nothing seems new.
    pub fn look(&self, watch: &mut Watch, begun: Instant, asked: bool) -> Look {
        watch.look(When::since(begun), asked, self.facts(), || self.read())
    }

    fn read(&self) -> Result<PolicyText> {
        let text = self.read_any()?;
        if text.sources.is_empty() {
            let message =
                format!("no policy in {}: it holds no `*.yaml` or `*.yml` file", self.path.display());
            return Err(Error::usage(message)
                .hint("put bots, roles and join tokens there: docs/policy.md shows each")
                .hint("`machine-id authority policy add` writes a file for one project's jobs")
                .hint("hidden files and subfolders are passed over"));
        }
        Ok(text)
    }

    fn read_any(&self) -> Result<PolicyText> {
        let text = |path: &Path| {
            let text = read::text(path, self.trust, POLICY_FILE)?;
            Ok(Source { name: path.display().to_string(), text: text.to_string() })
        };
        let cannot = || format!("cannot read the policy {}", self.path.display());
        if !std::fs::metadata(&self.path).context(Kind::Usage, cannot())?.is_dir() {
            return Ok(PolicyText { sources: vec![text(&self.path)?], manifest: None });
        }
        // Whoever may write there decides who gets in.
        if let Trust::Operators(owner) = self.trust {
            let cannot = || format!("cannot use the policy {}", self.path.display());
            trust::operators(&self.path, owner).map_err(|unfit| unfit.error(Kind::Usage, cannot()))?;
        }
        let names = folder::names(&self.path, MAX_POLICY_FILES).context(Kind::Usage, cannot())?;
        let paths: Vec<PathBuf> = names.into_iter().map(|name| self.path.join(name)).collect();
        let sources: Vec<Source> =
            paths.iter().filter(|path| is_policy(path)).map(|path| text(path)).collect::<Result<_>>()?;
        let manifest = paths.iter().find(|path| is_manifest(path)).map(|path| text(path)).transpose()?;
        Ok(PolicyText { sources, manifest })
    }

    /// What can be told of the files without reading them.
    fn facts(&self) -> Facts {
        let names = folder::names(&self.path, MAX_POLICY_FILES).unwrap_or_default();
        let mut paths: Vec<PathBuf> = names.into_iter().map(|name| self.path.join(name)).collect();
        let is_folder = self.path.is_dir();
        let beside = paths.extract_if(.., |path| !is_policy(path) && !is_manifest(path));
        let mut beside: Vec<PathBuf> = beside.filter(|path| is_hidden(path)).collect();
        if is_folder { &mut beside } else { &mut paths }.push(self.path.clone());
        Facts::of(paths, beside)
    }
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

fn is_policy(path: &Path) -> bool {
    path.extension().is_some_and(|ext| ext == "yaml" || ext == "yml") && !is_hidden(path)
}

fn is_manifest(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == manifest::NAME)
}
