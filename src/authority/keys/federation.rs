//! The keys by which this authority vouches for jobs elsewhere: to clouds as an OIDC issuer, to leaf clusters as their root.
//! They sign no certificate. The next one is published one rotation ahead, for those who keep a copy of the set.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Header;
use ring::digest::{SHA256, digest};
use serde::Serialize;

use super::private::{self, Algorithm, lacking};
use super::{CaKeys, StatementKey};
use crate::authority::store::record::Recorded;
use crate::error::{Context as _, Error, Kind, Result};
use crate::jws;
use crate::secret::Secret;

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
    fn of(key: &StatementKey) -> Result<Self> {
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

impl CaKeys {
    /// The one that was published ahead first, whatever it is by now.
    pub(super) fn first_ahead(&self) -> Option<&StatementKey> {
        let number = self.set.keys.iter().find(|key| key.name == AHEAD).map(|key| key.number);
        let mut all = self.federation.as_ref()?.all();
        all.find(|one| !one.is_first && one.number == number).map(|one| &one.ca)
    }

    /// Every key whose tokens are to be believed, the one first that signs; none in a data directory from before there were
    /// any, until `serve` makes them.
    ///
    /// # Errors
    /// Where one is not of P-256.
    pub fn federation_keys(&self) -> Result<Vec<FederationKey>> {
        let Some(all) = &self.federation else { return Ok(Vec::new()) };
        let current = std::iter::once(&all.current().ca);
        let others = all.trusted().filter(|key| key.public != all.current().ca.public);
        current.chain(others).map(FederationKey::of).collect()
    }

    /// Signs a token of what is recorded, with that `typ`.
    ///
    /// # Errors
    /// Where there is no federation key, or it does not sign.
    pub(in crate::authority) fn sign_token<P>(
        &self,
        _: &Recorded<P>,
        typ: &str,
        claims: &impl Serialize,
    ) -> Result<Secret> {
        let all = self.federation.as_ref().ok_or_else(lacking)?;
        let key = all.current().ca.key.as_ref().ok_or_else(lacking)?;
        let kid = FederationKey::of(&all.current().ca)?.kid;
        let header = Header { typ: Some(typ.to_owned()), kid: Some(kid), ..Header::default() };
        jws::sign_by(jsonwebtoken::Algorithm::ES256, header, claims, |message| {
            private::jws_signature(Algorithm::EcdsaP256, key.sign(message)?)
        })
    }
}
