//! Which CAs an authority has, of each kind, and what each is good for. Before the first rotation there is one of each,
//! whose key is in the key store, and nothing is written down of it.

use std::fmt;

use crate::wire::Endorsement;

/// What certificates name in a CA's place that an authority signs for itself: they go with the CA, and nobody waits for their end.
pub const OWN: i64 = 0;

/// What a CA's key signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CaKind {
    /// OpenSSH certificates of users.
    SshUser,
    /// OpenSSH certificates of hosts.
    SshHost,
    /// X.509 certificates.
    Tls,
    /// What is stated to servers.
    Statement,
    /// What is vouched for elsewhere: tokens, to clouds and leaf clusters.
    Federation,
}

impl CaKind {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::SshUser, Self::SshHost, Self::Tls, Self::Statement, Self::Federation];

    /// As `rotate --ca` has it, and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::SshUser => "ssh-user",
            Self::SshHost => "ssh-host",
            Self::Tls => "tls",
            Self::Statement => "statement",
            Self::Federation => "federation",
        }
    }

    /// The kind of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// What a CA is good for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaState {
    /// Trusted, and signs nothing now.
    Next,
    /// Trusted, and signs.
    Current,
    /// Trusted; it signed before.
    Former,
    /// Trusted no more.
    Ended,
    /// Trusted no more, and on the list of what is revoked: rolled back away, or compromised.
    Revoked,
}

impl CaState {
    const ALL: [Self; 5] = [Self::Next, Self::Current, Self::Former, Self::Ended, Self::Revoked];

    /// As tables have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Next => "next",
            Self::Current => "current",
            Self::Former => "former",
            Self::Ended => "ended",
            Self::Revoked => "revoked",
        }
    }

    /// The state of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    /// Whether what it has signed is believed.
    pub fn is_trusted(self) -> bool {
        matches!(self, Self::Next | Self::Current | Self::Former)
    }
}

/// A CA. How its private key prints is that there is one.
#[derive(Clone, PartialEq, Eq)]
pub struct CaKey {
    /// From 1 on, unique in the store: certificates name it.
    pub number: i64,
    /// What it signs.
    pub kind: CaKind,
    /// The name of its private key in the key store: that of its kind, or `KIND-XXXXXXXX`.
    pub name: String,
    /// As [`CaKeys::names`](super::keys::CaKeys::names) has it behind the kind: `SHA256:…` of SSH, `sha256:` and the
    /// hexadecimal SHA-256 of the SubjectPublicKeyInfo of TLS, base64url of a statement key, the thumbprint of a federation key.
    pub id: String,
    /// Whether it is the first of its kind in this store: certificates that name none are its.
    pub is_first: bool,
    /// What it is good for.
    pub state: CaState,
    /// The line of OpenSSH, the PEM certificate, or base64url.
    pub public: String,
    /// Who says that it is to be believed.
    pub endorsements: Vec<Endorsement>,
    /// Certificates for the key of this TLS CA by others, each a chain in PEM, leaf first.
    pub cross: Vec<String>,
    /// Its private key, sealed under a key that is derived from `store.key`; only of keys in files, and none once it is
    /// trusted no more.
    pub sealed: Option<Vec<u8>>,
    /// Since when it is what it is, in seconds since 1970.
    pub since: i64,
}

impl fmt::Debug for CaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, kind, name, id, is_first, state, since, sealed, .. } = self;
        f.debug_struct("CaKey")
            .field("number", number)
            .field("kind", kind)
            .field("name", name)
            .field("id", id)
            .field("is_first", is_first)
            .field("state", state)
            .field("since", since)
            .field("is_sealed_here", &sealed.is_some())
            .finish_non_exhaustive()
    }
}

/// All CAs of a store, as of a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CaSet {
    /// Another with each change, and higher; 0 before the first rotation.
    pub number: i64,
    /// By their numbers; none of a kind that was never rotated.
    pub keys: Vec<CaKey>,
}

impl CaSet {
    /// Those of a kind.
    pub fn of(&self, kind: CaKind) -> impl Iterator<Item = &CaKey> {
        self.keys.iter().filter(move |key| key.kind == kind)
    }

    /// The one of a kind that signs, where that kind was ever rotated.
    pub fn current(&self, kind: CaKind) -> Option<&CaKey> {
        self.of(kind).find(|key| key.state == CaState::Current)
    }

    /// The one of that number.
    pub fn key(&self, number: i64) -> Option<&CaKey> {
        self.keys.iter().find(|key| key.number == number)
    }
}
