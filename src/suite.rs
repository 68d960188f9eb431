//! Suites: the algorithms that an authority and its jobs use together.

/// A suite of algorithms. Each is one that every program takes which jobs and servers commonly use, or that a policy of FIPS
/// 140 leaves to OpenSSH and OpenSSL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Suite {
    /// Ed25519 for SSH and statements, P-256 for TLS.
    #[default]
    Modern,
    /// P-256 for all: FIPS policies take it everywhere, and it costs less than P-384 and RSA.
    Compatible,
}

impl Suite {
    /// Each, by its name.
    pub const ALL: [(&'static str, Self); 2] = [("modern", Self::Modern), ("compatible", Self::Compatible)];

    /// The one of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(known, _)| *known == name).map(|(_, suite)| suite)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.into_iter().find(|(_, suite)| *suite == self).map_or("", |(name, _)| name)
    }

    /// The keys that jobs make where nobody says which.
    pub fn key_type(self) -> KeyType {
        match self {
            Self::Modern => KeyType::Ed25519,
            Self::Compatible => KeyType::EcdsaP256,
        }
    }
}

/// The keys of a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyType {
    /// Of SSH Ed25519; of TLS P-256, since many clients and servers take no certificate of Ed25519.
    #[default]
    Ed25519,
    /// Both P-256.
    EcdsaP256,
    /// Both P-384.
    EcdsaP384,
}

impl KeyType {
    /// Each, by its name.
    pub const ALL: [(&'static str, Self); 3] =
        [("ed25519", Self::Ed25519), ("ecdsa-p256", Self::EcdsaP256), ("ecdsa-p384", Self::EcdsaP384)];

    /// The one of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(known, _)| *known == name).map(|(_, kind)| kind)
    }
}
