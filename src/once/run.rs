//! What every stage of one `once` is given.

use crate::environment::Environment;
use crate::once::exchange::keys::JobKeys;
use crate::once::settings::Settings;
use crate::once::settings::output::Output;
use crate::suite::Suite;
use crate::terminal::Progress;

/// One run of `once`.
#[derive(Clone, Copy)]
pub(crate) struct Run<'a> {
    pub settings: &'a Settings,
    pub env: &'a Environment,
    pub progress: &'a Progress,
    /// A set for each output.
    pub keys: &'a [JobKeys],
    /// The suite by which they were made, where nobody chose them and they are to be the authority's.
    pub suite: Option<Suite>,
    /// For the authority alone; its connections are kept.
    pub client: &'a reqwest::Client,
}

impl<'a> Run<'a> {
    /// The outputs that a leaf cluster is asked for, or the authority itself, each with its keys.
    pub(crate) fn issued_by(self, leaf: Option<&str>) -> impl Iterator<Item = (&'a Output, &'a JobKeys)> {
        self.settings.outputs().zip(self.keys).filter(move |(output, _)| output.at.as_deref() == leaf)
    }
}
