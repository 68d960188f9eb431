//! Tokens by which this authority vouches for a job elsewhere (RFC 7519): to whoever believes it as an OIDC issuer, and to leaf
//! clusters. They are recorded as certificates are; their `jti` is the serial.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::leaf::{RequestContext, record};
use crate::authority::ca::{CaKind, OWN};
use crate::authority::keys::{CaKeys, valid_from};
use crate::authority::policy::Grant;
use crate::authority::store::record::Recorded;
use crate::authority::store::{CertificateKind, EarlierCertificate, NewCertificate};
use crate::error::{Error, Result};
use crate::secret::Secret;
use crate::text::json_text;

/// `typ` of what an output `jwt` is.
pub(super) const JWT: &str = "JWT";

/// The most that header, signature and the claims of times and names take, in bytes before base64.
const ROOM: usize = 512;

/// A token that is about to be signed.
#[derive(Debug)]
pub(super) struct TokenPlan {
    pub(super) serial: u64,
    /// Its `typ`, which tells one for clouds from one for a leaf.
    typ: &'static str,
    /// What the record has the hash of: who holds it can give the token back.
    key: Vec<u8>,
    pub(super) audience: String,
    /// Its claims, but for the audience, those of times, and those that name it and its issuance.
    claims: Map<String, Value>,
    /// For how long the job may have something by it, in seconds, where that is said.
    grants: Option<i64>,
    now: i64,
    pub(super) until: i64,
}

impl TokenPlan {
    /// For that audience, until `until`; `claims` are those of [`claims`] and what else it says.
    pub(super) fn new(
        serial: u64,
        typ: &'static str,
        key: Vec<u8>,
        (audience, claims): (String, Map<String, Value>),
        (now, until): (i64, i64),
    ) -> Self {
        Self { serial, typ, key, audience, claims, grants: None, now, until }
    }

    /// One that says until when the job may have something by it, `seconds` from now.
    pub(super) fn granting(self, seconds: i64) -> Self {
        Self { grants: Some(seconds), ..self }
    }

    /// At least as long as it becomes, in bytes.
    pub(super) fn length(&self) -> usize {
        let claims = json_text(&json!(self.claims)).len() + json_text(&json!(self.audience)).len() + ROOM;
        claims.div_ceil(3) * 4
    }

    /// As it was recorded at `time`.
    pub(super) fn recorded(&mut self, time: i64, earlier: &EarlierCertificate) {
        (self.serial, self.now, self.until) = (earlier.serial, time, earlier.expires);
    }

    /// What signs it: whichever key does now, since all that are published are believed.
    #[expect(clippy::unused_self, reason = "as the certificates' plans have it")]
    pub(super) fn ca(&self) -> (CaKind, Option<i64>) {
        (CaKind::Federation, None)
    }

    /// What makes two requests the same.
    pub(super) fn fingerprinted(&self) -> String {
        json_text(&json!([self.typ, STANDARD.encode(&self.key), self.audience, self.claims, self.grants]))
    }

    /// For the store, but for the output that it is of: nobody waits for its end where a CA is rotated.
    pub(super) fn record(&self) -> NewCertificate {
        let audience = [self.audience.clone()];
        record(self.serial, CertificateKind::Tls, &audience, self.until, (&self.key, Some(OWN)))
    }

    /// Signs it, as a part of what is recorded as that issuance.
    pub(super) fn sign<P>(&self, recorded: &Recorded<P>, issuance_id: &str, keys: &CaKeys) -> Result<Secret> {
        let from = valid_from(self.now);
        if self.audience.is_empty() || self.until <= from {
            return Err(Error::internal("a token without an audience or validity"));
        }
        let mut claims = self.claims.clone();
        for (name, value) in [
            ("aud", json!(self.audience)),
            ("iat", json!(from)),
            ("nbf", json!(from)),
            ("exp", json!(self.until)),
            ("jti", json!(self.serial.to_string())),
            ("issuance_id", json!(issuance_id)),
        ] {
            claims.insert(name.to_owned(), value);
        }
        let grant_ends = self.grants.map(|seconds| json!(self.now.saturating_add(seconds)));
        claims.extend(grant_ends.map(|ends| ("grant_expires_at".to_owned(), ends)));
        keys.sign_token(recorded, self.typ, &claims)
    }
}

/// Who the job is, with these roles, as every token says it.
pub(super) fn claims(grant: &Grant, roles: &[String], at: &RequestContext<'_>) -> Map<String, Value> {
    let fulcio = at.provenance.fulcio.iter().map(|(arc, text)| (arc.to_string(), json!(text)));
    let provenance = json!({"line": at.provenance.line, "fulcio": fulcio.collect::<Map<_, _>>()});
    let claims = [
        ("iss", json!(at.issuer)),
        ("sub", json!(format!("spiffe://{}/bot/{}", at.cluster, grant.bot))),
        ("cluster", json!(at.cluster)),
        ("bot", json!(grant.bot)),
        ("roles", json!(roles)),
        ("join_token", json!(grant.token)),
        ("join_method", json!(at.join_method)),
        ("provenance", provenance),
    ];
    claims.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
