//! Who looks for credentials.

use crate::environment::Environment;
use crate::net::Platform;

/// Who looks for credentials.
#[derive(Clone, Copy)]
pub struct Seeker<'a> {
    /// `this job`, `the authority`.
    pub who: &'static str,
    /// What it can do outside AWS, as a hint.
    pub outside: &'static str,
    /// Its environment.
    pub env: &'a Environment,
    /// The way to AWS's own endpoints.
    pub platform: &'a Platform,
    /// Tells a step.
    pub say: &'a (dyn Fn(&str) + Sync),
    /// Tells what a person should know even where it works.
    pub warn: &'a (dyn Fn(&str) + Sync),
}
