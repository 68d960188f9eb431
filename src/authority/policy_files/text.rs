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
pub(super) fn together(mistakes: Vec<Error>) -> Option<Error> {
    let mut mistakes = mistakes.into_iter();
    let first = mistakes.next()?;
    Some(mistakes.fold(first, |all, mistake| all.hint(format!("also: {mistake}"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What replicas compare: the text, wherever it lies.
    #[test]
    fn the_same_text_is_known_by_the_same() {
        let known = |files: &[(&str, &str)]| {
            let source = |(name, text): &(&str, &str)| Source { name: (*name).into(), text: (*text).into() };
            let text = PolicyText { sources: files.iter().map(source).collect(), manifest: None };
            text.policy().unwrap().text
        };
        let role = |name: &str| {
            format!("kind: role\nversion: v7\nmetadata: {{name: {name}}}\nspec: {{allow: {{logins: [a]}}}}\n")
        };
        let (one, other) = (role("one"), role("other"));
        let here = known(&[("/a/1.yaml", &one), ("/a/2.yaml", &other)]);
        assert_eq!(here, known(&[("/b/x.yaml", &other), ("/b/y.yaml", &one)]));
        assert_ne!(here, known(&[("/a/1.yaml", &one)]));
        assert_ne!(here, known(&[("/a/1.yaml", &one), ("/a/2.yaml", &role("others"))]));
    }
}
