//! Exchanges, refusals, revocations and workers, as a store is told of them.

use std::ops::{Deref, DerefMut};

use serde_json::{Map, Value};

use super::super::instances::NewSecret;
use super::super::locks::{Lock, LockKind, NewLock};
use super::super::{
    CertificateKind, Earlier, EarlierCertificate, Issued, NewCertificate, NewIssuance, NewRefusal,
    NewRevocation, PlanRecord, Stranger,
};
use crate::clock::Held;
use crate::join::instance::{InstanceJoin, JoinClaims};
use crate::join::verify::Replay;

pub(in crate::authority::store) const NOW: i64 = 1_795_348_800;

/// Of a proof of five minutes.
pub(in crate::authority::store) const HELD: Held = Held { until: NOW + 300, lasts: 300 };

/// Recorded now, for a job.
pub(in crate::authority::store) const FRESH: Issued = Issued::Accepted { plan: None, generation: None };

/// A fingerprint that no entry is recorded with.
const FORMER: [u8; 32] = *b"of the fourth schema, recorded  ";

/// Recorded before, as issuance `n`.
pub(in crate::authority::store) fn retry(n: u64) -> Issued {
    Issued::Accepted { plan: Some(earlier(n)), generation: None }
}

/// What is recorded of issuance `n`.
pub(in crate::authority::store) fn earlier(n: u64) -> Earlier {
    let PlanRecord { id, certificates, .. } = issuance(n).plan;
    let certificate = |NewCertificate { serial, kind, expires, key_hash, ca, .. }| EarlierCertificate {
        serial,
        kind,
        expires,
        key_hash,
        ca,
    };
    Earlier { id, time: NOW, certificates: certificates.into_iter().map(certificate).collect() }
}

/// An exchange, and what is recorded of its plan.
#[derive(Clone)]
pub(in crate::authority::store) struct Entry {
    pub(in crate::authority::store) entry: NewIssuance,
    pub(in crate::authority::store) plan: PlanRecord,
}

impl Entry {
    pub(in crate::authority::store) fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

impl Deref for Entry {
    type Target = NewIssuance;

    fn deref(&self) -> &NewIssuance {
        &self.entry
    }
}

impl DerefMut for Entry {
    fn deref_mut(&mut self) -> &mut NewIssuance {
        &mut self.entry
    }
}

pub(in crate::authority::store) fn object(json: &str) -> Map<String, Value> {
    serde_json::from_str(json).unwrap()
}

/// Issuance `n` for proof `n`, with an SSH certificate of serial `2n` and a TLS one of `2n + 1`.
pub(in crate::authority::store) fn issuance(n: u64) -> Entry {
    let certificate = |serial, kind, name: &str| NewCertificate {
        serial,
        kind,
        output: "identity".into(),
        output_type: Some("identity".into()),
        options: Default::default(),
        principals: vec![name.into()],
        groups: Vec::new(),
        expires: NOW + 3600,
        key_hash: [u8::try_from(serial % 256).unwrap(); 32],
        is_host: false,
        ca: None,
    };
    let entry = NewIssuance {
        time: NOW,
        bot: "deployer".into(),
        token: "github-deploy".into(),
        join_method: "github".into(),
        provenance: format!("github:octo-org/app@refs/heads/main run {n} attempt 1"),
        claims: object(r#"{"sub":"repo:octo-org/app"}"#).into(),
        peer: "192.0.2.7".into(),
        replay: Replay { issuer: "https://issuer".into(), id: format!("jti-{n}"), held: HELD },
        max_uses: 1,
        join: None,
        restored: None,
        cas: 0,
    };
    let plan = PlanRecord {
        id: format!("i{n}"),
        fingerprint: [7; 32],
        former_fingerprint: FORMER,
        certificates: vec![
            certificate(2 * n, CertificateKind::Ssh, "deploy"),
            certificate(2 * n + 1, CertificateKind::Tls, "deployer"),
        ],
    };
    Entry { entry, plan }
}

pub(in crate::authority::store) fn refusal(id: &str, claims: Option<&str>) -> NewRefusal {
    NewRefusal {
        id: id.into(),
        time: NOW + 1,
        token: "other".into(),
        join_method: "github".into(),
        bot: None,
        reason: "no_rule_matches",
        detail: "the nearest rule wanted repository octo-org/app".into(),
        claims: claims.map(object),
        verified: true,
        peer: "192.0.2.8".into(),
        stranger: None,
    }
}

pub(in crate::authority::store) fn revocation(issuance: u64, assertion: &str) -> NewRevocation {
    NewRevocation {
        issuance_id: format!("i{issuance}"),
        time: NOW + 2,
        assertion_id: assertion.into(),
        held: Held { until: NOW + 62, lasts: 62 },
        peer: "192.0.2.7".into(),
    }
}

/// The same proof `n`, for something else.
pub(in crate::authority::store) fn other(n: u64, what: u64) -> Entry {
    let mut entry = issuance(what);
    entry.replay = issuance(n).entry.replay;
    entry.plan.fingerprint = [u8::try_from(what % 256).unwrap(); 32];
    entry
}

pub(in crate::authority::store) const SECRET: [u8; 32] = [5; 32];

pub(in crate::authority::store) fn secret(hash: [u8; 32], token: &str) -> NewSecret {
    let id = format!("k-{}", hash[0]);
    NewSecret { id, hash, token: token.into(), bot: "deployer".into(), time: NOW, expires: NOW + 3600 }
}

/// Issuance `n` for a join of a worker at that generation.
pub(in crate::authority::store) fn join(n: u64, instance: &str, generation: i64) -> Entry {
    let claims =
        JoinClaims { id: format!("r{n}"), generation, attempt: format!("a{n}"), ..JoinClaims::default() };
    let join = InstanceJoin {
        instance: instance.into(),
        key: instance.as_bytes().to_vec(),
        secret: None,
        replaces: None,
        claims,
        held: HELD,
    };
    let replay = Replay { issuer: instance.into(), id: format!("r{n}"), held: HELD };
    issuance(n).with(|entry| (entry.replay, entry.join) = (replay, Some(join)))
}

/// The same with a secret.
pub(in crate::authority::store) fn registration(n: u64, instance: &str, hash: [u8; 32]) -> Entry {
    let mut entry = join(n, instance, 0);
    entry.join.as_mut().unwrap().secret = Some(hash);
    entry
}

pub(in crate::authority::store) fn joined(generation: i64) -> Issued {
    Issued::Accepted { plan: None, generation: Some(generation) }
}

pub(in crate::authority::store) fn stranger(id: &str, kind: Stranger, claims: usize) -> NewRefusal {
    let claims = format!(r#"{{"sub":"{}","iss":"https://issuer"}}"#, "x".repeat(claims));
    let verified = kind == Stranger::Verified;
    let token = "t".repeat(1000);
    NewRefusal { stranger: Some(kind), verified, token, ..refusal(id, Some(&claims)) }
}

/// A lock without an end.
pub(in crate::authority::store) fn lock(kind: LockKind, value: &str) -> NewLock {
    let lock = Lock {
        id: format!("l-{}-{value}", kind.name()),
        kind,
        value: value.to_owned(),
        until: None,
        message: Some("taken over".to_owned()),
        by: "anna".to_owned(),
        at: NOW,
        met: Vec::new(),
        lifted: None,
    };
    NewLock { lock, lasts: None, dry_run: false }
}
