//! Who shares a store, as each says itself: for operators. Nothing is granted for what stands here.

/// For how many seconds an authority that has not been heard of counts as there.
pub const LIVE: i64 = 30;

/// An authority that runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replica {
    /// Random, another each time it starts.
    pub id: String,
    /// Its machine and where it listens.
    pub name: String,
    /// Its CA keys, sorted: `ssh-user SHA256:…`.
    pub keys: Vec<String>,
    /// A hash of its policy, and of what else must be the same.
    pub policy: String,
    /// Its version.
    pub version: String,
    /// When it last said so, in seconds since 1970, by the store's clock.
    pub seen: i64,
}

/// Who is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Announced {
    /// The CA keys that the store was first used with, of each kind, sorted.
    pub keys: Vec<String>,
    /// The others that were heard of within [`LIVE`], by their names.
    pub others: Vec<Replica>,
}
