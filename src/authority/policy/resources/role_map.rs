//! What the roles of another cluster's bots are here.

use crate::document::Place;

/// A trusted cluster's role map.
#[derive(Debug)]
pub(crate) struct RoleMap {
    /// Its lines: every one that takes a role of the proof gives its own.
    pub(crate) lines: Vec<MapLine>,
    /// `max_session_ttl` of the trusted cluster, in seconds.
    pub(crate) max_ttl: Option<u64>,
}

/// A line of a [`RoleMap`].
#[derive(Debug)]
pub(crate) struct MapLine {
    /// Where it stands.
    pub(crate) place: Place,
    /// Which of the other cluster's roles it takes: a glob.
    pub(crate) remote: String,
    /// The roles of this cluster that it gives, each with its place.
    pub(crate) local: Vec<(String, Place)>,
}
