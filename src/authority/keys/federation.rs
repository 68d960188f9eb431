//! The keys by which this authority vouches for jobs elsewhere: to clouds as an OIDC issuer, to leaf clusters as their root.
//! They sign no certificate. The next one is published one rotation ahead, for those who keep a copy of the set.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use serde::Serialize;

use super::statement::StatementKey;
use crate::error::{Context as _, Error, Kind, Result};

/// The name of the key that is published and signs nothing, before the first rotation.
pub(super) const AHEAD: &str = "federation-next";

/// A public key of the set, as a JWK has it (RFC 7518, section 6.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FederationKey {
    /// `EC`.
    pub kty: &'static str,
    /// `P-256`.
    pub crv: &'static str,
    /// The point's first half, in base64url.
    pub x: String,
    /// Its second.
    pub y: String,
    /// `ES256`.
    pub alg: &'static str,
    /// `sig`.
    #[serde(rename = "use")]
    pub used_for: &'static str,
    /// Its thumbprint (RFC 7638), in base64url.
    pub kid: String,
}

impl FederationKey {
    pub(super) fn of(key: &StatementKey) -> Result<Self> {
        let point = URL_SAFE_NO_PAD.decode(&key.public).context(Kind::Internal, "a federation key")?;
        let half = |from: usize| {
            let half = point.get(from..from + 32).filter(|_| point.len() == 65);
            half.map(|half| URL_SAFE_NO_PAD.encode(half))
                .ok_or_else(|| Error::usage("a federation key is of P-256, and this one is not"))
        };
        let (x, y) = (half(1)?, half(33)?);
        let members = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        let kid = URL_SAFE_NO_PAD.encode(digest(&SHA256, members.as_bytes()));
        Ok(Self { kty: "EC", crv: "P-256", x, y, alg: "ES256", used_for: "sig", kid })
    }
}

/// As it is written down: its thumbprint, and the key.
pub(super) fn named(key: &StatementKey) -> Result<(String, String)> {
    Ok((FederationKey::of(key)?.kid, key.public.clone()))
}
