//! What a policy is asked.

use crate::wire::OutputRequest;

/// What a job asks a policy for.
#[derive(Clone, Copy, Debug)]
pub struct PolicyRequest<'a> {
    /// The outputs.
    pub outputs: &'a [OutputRequest],
    /// How long the certificates should live, in seconds.
    pub ttl_seconds: i64,
}
