//! What all files of a policy hold, at one time.

use super::manifest::{self, hash};
use crate::authority::policy::{Policy, Source};
use crate::error::{Error, Result};

/// Each file's text, and the manifest's where there is one.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PolicyText {
    pub(super) sources: Vec<Source>,
    pub(super) manifest: Option<Source>,
}

impl PolicyText {
    /// The text of each file, where the folder's manifest has them so.
    pub(super) fn verified(self) -> Result<Vec<Source>> {
        let mistakes = self.manifest.map(|manifest| manifest::check(&manifest, &self.sources));
        together(mistakes.unwrap_or_default()).map_or(Ok(self.sources), Err)
    }

    pub(super) fn policy(self) -> Result<Policy> {
        let sources = self.verified()?;
        let mut policy = Policy::parse(&sources).map_err(|mistakes| {
            let without = || Error::internal("a policy was refused without a reason");
            together(mistakes).unwrap_or_else(without)
        })?;
        // Whatever the files are called, and wherever they are.
        let mut texts: Vec<String> = sources.iter().map(|source| hash(&source.text)).collect();
        texts.sort_unstable();
        policy.text = hash(&texts.concat());
        Ok(policy)
    }
}

/// The first mistake in full, the others as hints.
fn together(mistakes: Vec<Error>) -> Option<Error> {
    let mut mistakes = mistakes.into_iter();
    let first = mistakes.next()?;
    Some(mistakes.fold(first, |all, mistake| all.hint(format!("also: {mistake}"))))
}
