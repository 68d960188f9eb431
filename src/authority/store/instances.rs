//! Registered instances, as commands see them.

/// A secret that may register one instance.
#[derive(Clone, Debug)]
pub struct NewSecret {
    /// Names it in the audit trail; no secret.
    pub id: String,
    /// SHA-256 of it; it is random, so that nothing slower is needed.
    pub hash: [u8; 32],
    /// The join token that it is for.
    pub token: String,
    /// The bot that the instance will be.
    pub bot: String,
    /// When it was made, in seconds since 1970.
    pub time: i64,
    /// Until when it is good.
    pub expires: i64,
}

/// A registered instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisteredInstance {
    /// Its id.
    pub instance: String,
    /// The join token that it registered with.
    pub token: String,
    /// The bot that it was when it last joined.
    pub bot: String,
    /// The generation that its next join must present.
    pub generation: i64,
    /// When it registered, in seconds since 1970.
    pub registered: i64,
    /// When it last joined.
    pub seen: i64,
    /// When it was locked, and why, if it is.
    pub locked: Option<(i64, String)>,
}

/// Why a join of an instance was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstanceRefusal {
    /// There is none of that id with that key and join token, or no longer.
    Unknown,
    /// The secret does not register it, or not any more.
    Secret,
    /// It presents a generation that was never given out, so it is locked now where it is registered.
    Ahead {
        /// The one that its next join must present.
        expected: i64,
    },
    /// It was locked before.
    Locked,
    /// Two storages claim to be it, so it is locked now, and its certificates are revoked.
    LockedNow {
        /// The generation that its next join would have had to present.
        expected: i64,
    },
}

/// The reason of a lock by [`InstanceRefusal::LockedNow`].
pub const COPIED: &str = "generation_used";
/// The reason of a lock by [`InstanceRefusal::Ahead`].
pub const AHEAD: &str = "generation_ahead";
/// The reason of a lock of an instance that registered anew: its old key is good for nothing.
pub const REPLACED: &str = "replaced";
