//! `max_session_ttl`, which roles and bots have.

use crate::document::{Mistake, Node};
use crate::wire::MIN_TTL;

/// The longest, in seconds: beyond it nothing is short-lived.
const MAX_TTL: u64 = 7 * 24 * 3600;

/// A `max_session_ttl`, in seconds: no shorter than what can be asked for.
pub(super) fn read(node: &Node, key: &'static str) -> Result<u64, Mistake> {
    let seconds = node.duration(key)?;
    if (u64::from(MIN_TTL)..=MAX_TTL).contains(&seconds) {
        return Ok(seconds);
    }
    Err(Mistake::new(node.place, format!("`{key}` must be between {MIN_TTL}s and 7 days")))
}
