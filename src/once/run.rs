//! What every stage of one `once` is given.

use crate::environment::Environment;
use crate::once::exchange::keys::OutputKeys;
use crate::once::settings::Settings;
use crate::terminal::Progress;

/// One run of `once`.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// What it is to do.
    pub settings: &'a Settings,
    /// The job's environment.
    pub env: &'a Environment,
    /// Where it says what it does.
    pub progress: &'a Progress,
    /// Its keys, a set for each output.
    pub keys: &'a [OutputKeys],
}
