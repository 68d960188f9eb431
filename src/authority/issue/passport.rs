//! Proofs for leaf clusters: that this authority vouches for a job there, for minutes, once, and for the keys of one request.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::leaf::RequestContext;
use super::token::{self, TokenPlan};
use crate::authority::keys::{CaKeys, valid_from};
use crate::authority::policy::{Grant, LeafGrant};
use crate::authority::store::NewCertificate;
use crate::authority::store::record::Recorded;
use crate::error::Result;
use crate::wire::{LeafAnswer, MAX_TOKEN, PASSPORT, bound_audience};

/// From its `iat` to its end, in seconds: time to ask the leaf, and again.
const LIFE: i64 = 300;
/// The type of such an output, in the record.
const TYPE: &str = "passport";

/// A proof that is about to be signed, and where it is for.
#[derive(Debug)]
pub(super) struct PassportPlan {
    pub(super) token: TokenPlan,
    name: String,
    url: String,
    ca_pin: Option<String>,
    hosts: Vec<String>,
}

impl PassportPlan {
    pub(super) fn new(serial: u64, leaf: &LeafGrant, grant: &Grant, at: &RequestContext<'_>) -> Self {
        let mut claims = token::claims(grant, &leaf.roles, at);
        // What the leaf's rules may be about, named as on the job's platform.
        if let Some(Value::Object(provenance)) = claims.get_mut("provenance") {
            provenance.insert("claims".to_owned(), json!(at.claims));
        }
        let said = (bound_audience(&leaf.url, &leaf.binding), claims);
        let key = leaf.binding.clone().into_bytes();
        let until = valid_from(at.now).saturating_add(LIFE);
        let token = TokenPlan::new(serial, PASSPORT, key, said, (at.now, until));
        Self {
            token: token.granting(i64::try_from(leaf.ttl).unwrap_or(0)),
            name: leaf.name.clone(),
            url: leaf.url.clone(),
            ca_pin: leaf.ca_pin.clone(),
            hosts: leaf.hosts.clone(),
        }
    }

    /// Whether no authority would read it.
    pub(super) fn is_too_long(&self) -> bool {
        self.token.length() > MAX_TOKEN
    }

    /// For the store.
    pub(super) fn record(&self) -> NewCertificate {
        let options = [("leaf", &self.name), ("audience", &self.token.audience)];
        NewCertificate {
            output: self.name.clone(),
            output_type: Some(TYPE.to_owned()),
            options: options
                .map(|(name, value)| (name.to_owned(), value.clone()))
                .into_iter()
                .collect::<BTreeMap<_, _>>(),
            ..self.token.record()
        }
    }

    /// Signs it, as a part of what is recorded as that issuance.
    pub(super) fn sign<P>(
        &self,
        recorded: &Recorded<P>,
        issuance_id: &str,
        keys: &CaKeys,
    ) -> Result<LeafAnswer> {
        Ok(LeafAnswer {
            name: self.name.clone(),
            url: self.url.clone(),
            ca_pin: self.ca_pin.clone(),
            hosts: self.hosts.clone(),
            proof: self.token.sign(recorded, issuance_id, keys)?,
        })
    }
}
