//! Pages of the audit trail: what is asked for, and what is found.

use serde_json::{Map, Value};

/// Which events are wanted; what is absent matches everything.
#[derive(Clone, Debug, Default)]
pub struct EventFilter {
    /// Not before, in seconds since 1970.
    pub since: Option<i64>,
    /// Of this bot.
    pub bot: Option<String>,
    /// Of this join token.
    pub token: Option<String>,
    /// `issued`, `refused`, `revoked`, …
    pub event: Option<String>,
    /// A denial or issuance id.
    pub id: Option<String>,
}

/// A place among the events: the last one of the trail, and the last refusal of
/// a stranger, that stand before it. The first place is the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    pub(in crate::authority) event: i64,
    pub(in crate::authority) stranger: i64,
}

/// One event of the audit trail.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Where it stands: the next page begins behind it.
    pub cursor: Cursor,
    /// The object of `audit --format json`: `time`, `event`, `issuance_id` or
    /// `denial_id`, `bot`, `token`, `join_method`, `serials`, `provenance`, `reason`, ….
    pub body: Map<String, Value>,
}
