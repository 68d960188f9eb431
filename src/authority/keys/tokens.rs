//! Tokens, signed by the federation key, and the set that they are verified by.

use jsonwebtoken::Header;
use serde::Serialize;

use super::federation::{AHEAD, FederationKey};
use super::private::{self, Algorithm, lacking};
use super::{CaKeys, StatementKey};
use crate::authority::store::record::Recorded;
use crate::error::Result;
use crate::jws;
use crate::secret::Secret;

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
