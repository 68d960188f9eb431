//! What of the job's environment COMMAND gets.
//!
//! All of it, but for what was handed to us alone: a token in our name, and the
//! one that `--id-token-env` names. What a platform gives to its jobs, such as
//! what mints their tokens, is between the two of them; `--clear-env` keeps that
//! back as well.

use std::ffi::OsStr;

use crate::join::METHODS;
use crate::join::source::TokenSource;
use crate::once::settings::storage::REGISTRATION_SECRET;

/// What `--clear-env` leaves: where things are, who this is and how text is shown.
const BARE: &[&str] = &["PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TERM", "TZ", "TMPDIR"];

/// See the module.
#[derive(Default)]
pub(crate) struct Inherited {
    clear: bool,
    keep: Vec<String>,
    /// The variable with the token that was handed over by hand.
    by_hand: Option<String>,
}

impl Inherited {
    pub(super) fn new(clear: bool, keep: Vec<String>, by_hand: Option<&TokenSource>) -> Self {
        Self { clear, keep, by_hand: by_hand.and_then(TokenSource::given_variable).map(str::to_owned) }
    }

    /// Whether COMMAND gets the variable of that name.
    pub(crate) fn has(&self, name: &OsStr) -> bool {
        let Some(name) = name.to_str() else { return !self.clear };
        if self.keep.iter().any(|keep| keep == name) {
            return true;
        }
        let is_ours = [self.by_hand.as_deref(), Some(REGISTRATION_SECRET)].contains(&Some(name))
            || METHODS.iter().any(|method| method.private_variables.contains(&name));
        let is_bare = || BARE.contains(&name) || name.starts_with("LC_");
        !is_ours && (!self.clear || is_bare())
    }
}
