//! Giving certificates back.
//!
//! `POST /v1/revoke` takes a JWS by a key of the issuance, with the
//! certificate of that key in its header: whoever could use a certificate can
//! end it, and nobody else. A serial alone buys nothing.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::{Algorithm, DecodingKey};
use ring::digest::{Digest, SHA256, digest};
use serde_json::{Map, Value};
use ssh_key::public::KeyData;
use x509_parser::public_key::PublicKey as SubjectKey;

use super::Authority;
use super::store::{CertificateKind, NewRefusal, NewRevocation, Revoked, Stranger};
use crate::clock::Held;
use crate::denial::{Denial, Reason};
use crate::error::{Error, Result};
use crate::join::jwt::{self, AudienceRules, Jwt, MAX_JTI, TimeRules, need_text};
use crate::random;
use crate::text::shown_exactly;
use crate::wire::RevokeRequest;

/// The reason of a refusal here, in the audit trail.
const ASSERTION_INVALID: &str = "assertion_invalid";
/// The longest that an assertion lives, in seconds.
const MAX_LIFETIME: i64 = 60;

/// Why nothing was revoked.
#[derive(Debug)]
pub enum Unrevoked {
    /// The assertion is no good; the name of the record.
    Refused(String),
    /// Too many refusals, or repetitions: try again after so many seconds.
    TooMany(u64),
    /// Something broke inside.
    Broken(Error),
}

impl From<Error> for Unrevoked {
    fn from(error: Error) -> Self {
        Self::Broken(error)
    }
}

/// How a request ends that revokes nothing.
enum Ended {
    /// It is to be recorded yet: why, and whether the assertion is by the certificate's key.
    Unfit(String, Stranger),
    Broken(Error),
}

impl From<Error> for Ended {
    fn from(error: Error) -> Self {
        Self::Broken(error)
    }
}

impl From<&'static str> for Ended {
    fn from(why: &'static str) -> Self {
        Self::Unfit(why.to_owned(), Stranger::Unverified)
    }
}

/// A certificate as the assertion's header shows it.
struct Shown {
    kind: CertificateKind,
    serial: u64,
    key_hash: Digest,
    key: DecodingKey,
}

/// Revokes every certificate of the issuance.
///
/// # Errors
/// [`Unrevoked`]; a refusal has been recorded when this returns, among those of strangers.
pub async fn revoke(authority: &Authority, request: &RevokeRequest, peer: IpAddr) -> Result<(), Unrevoked> {
    let (why, stranger) = match judge(authority, request, peer).await {
        Ok(Revoked::Before) => {
            // It is in the trail already, and whoever repeats it for ever makes us work.
            return authority.refusals.admit(peer, true).map_err(Unrevoked::TooMany);
        }
        Ok(_) => return Ok(()),
        Err(Ended::Unfit(why, stranger)) => (why, stranger),
        Err(Ended::Broken(error)) => return Err(error.into()),
    };
    authority.refusals.admit(peer, stranger == Stranger::Verified).map_err(Unrevoked::TooMany)?;
    let id = random::id("d")?;
    let entry = NewRefusal {
        id: id.clone(),
        time: authority.clock.now(),
        token: String::new(),
        join_method: String::new(),
        bot: None,
        reason: ASSERTION_INVALID,
        detail: format!("revocation of {}: {why}", shown_exactly(&request.issuance_id)),
        claims: None,
        verified: stranger == Stranger::Verified,
        peer: peer.to_canonical().to_string(),
        stranger: Some(stranger),
    };
    authority.store.refuse(entry).await?;
    Err(Unrevoked::Refused(id))
}

/// Revokes, if the assertion is one by a key of the issuance.
async fn judge(authority: &Authority, request: &RevokeRequest, peer: IpAddr) -> Result<Revoked, Ended> {
    let unverified = |denial: Denial| Ended::Unfit(denial.detail, Stranger::Unverified);
    let verified = |why: &str| Ended::Unfit(why.to_owned(), Stranger::Verified);
    let jwt = Jwt::parse(request.assertion.expose()).map_err(unverified)?;
    if !matches!(jwt.algorithm, Algorithm::ES256 | Algorithm::EdDSA) {
        return Err("not signed with ES256 or EdDSA".into());
    }
    let shown = shown(&jwt.header, jwt.algorithm).ok_or("no usable certificate in the header")?;
    // The store knows the key that each serial was issued for, so a
    // certificate that somebody made up, or of another issuance, gets nowhere.
    let recorded = authority.store.certificate(shown.serial).await?.ok_or("no such certificate")?;
    let fits = recorded.issuance_id == request.issuance_id
        && recorded.key_hash == shown.key_hash.as_ref()
        && recorded.kind == shown.kind;
    if !fits {
        return Err("the certificate is not of that issuance".into());
    }
    if !jwt.is_signed_by(&shown.key) {
        return Err("the signature does not verify".into());
    }
    let now = authority.clock.now();
    let claims = check_claims(&jwt.claims, &authority.config.public_url, now);
    let (assertion_id, held) = claims.map_err(|denial| verified(&denial.detail))?;
    let entry = NewRevocation {
        issuance_id: request.issuance_id.clone(),
        time: now,
        assertion_id,
        held,
        peer: peer.to_canonical().to_string(),
    };
    match authority.store.revoke(entry).await? {
        revoked @ (Revoked::Now | Revoked::Before) => Ok(revoked),
        Revoked::AssertionUsed => Err(verified("the assertion was used before")),
        Revoked::Unknown => Err(verified("no such issuance")),
    }
}

/// The assertion's id, and how long it must be remembered.
fn check_claims(claims: &Map<String, Value>, public_url: &str, now: i64) -> Result<(String, Held), Denial> {
    let rules = AudienceRules {
        ours: &format!("{public_url}/v1/revoke"),
        is_public: true,
        beside: None,
        binding: None,
        requires_binding: false,
    };
    jwt::check_audience(jwt::audience(claims)?, &rules)?;
    let times = TimeRules { lifetime: 0..=MAX_LIFETIME, not_before: false };
    let held = jwt::check_times(claims, &times, now)?;
    match need_text(claims, "jti")? {
        id if (1..=MAX_JTI).contains(&id.len()) => Ok((id.to_owned(), held)),
        _ => Err(Denial::new(Reason::ClaimInvalid, "no `jti`")),
    }
}

/// The certificate in the header: `x5c` (RFC 7515, section 4.1.6), leaf first, or `ssh_certificate`.
fn shown(header: &Map<String, Value>, algorithm: Algorithm) -> Option<Shown> {
    match (header.get("x5c"), header.get("ssh_certificate")) {
        (Some(chain), None) => {
            let der = STANDARD.decode(chain.as_array()?.first()?.as_str()?).ok()?;
            shown_x509(&der, algorithm)
        }
        (None, Some(line)) => shown_ssh(line.as_str()?, algorithm),
        _ => None,
    }
}

fn shown_x509(der: &[u8], algorithm: Algorithm) -> Option<Shown> {
    let (rest, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    let spki = certificate.public_key();
    let key = match (algorithm, spki.parsed().ok()?) {
        (Algorithm::ES256, SubjectKey::EC(point)) => DecodingKey::from_ec_der(point.data()),
        (Algorithm::EdDSA, SubjectKey::Unknown(_)) => {
            DecodingKey::from_ed_der(spki.subject_public_key.data.as_ref())
        }
        _ => return None,
    };
    let serial = certificate
        .raw_serial()
        .iter()
        .try_fold(0_u64, |serial, byte| serial.checked_mul(256).map(|serial| serial + u64::from(*byte)))?;
    let key_hash = digest(&SHA256, spki.raw);
    rest.is_empty().then_some(Shown { kind: CertificateKind::Tls, serial, key_hash, key })
}

fn shown_ssh(line: &str, algorithm: Algorithm) -> Option<Shown> {
    let certificate = ssh_key::Certificate::from_openssh(line).ok()?;
    let key = match (algorithm, certificate.public_key()) {
        (Algorithm::EdDSA, KeyData::Ed25519(key)) => DecodingKey::from_ed_der(&key.0),
        (Algorithm::ES256, KeyData::Ecdsa(key)) => DecodingKey::from_ec_der(key.as_sec1_bytes()),
        _ => return None,
    };
    let blob = ssh_key::PublicKey::from(certificate.public_key().clone()).to_bytes().ok()?;
    Some(Shown {
        kind: CertificateKind::Ssh,
        serial: certificate.serial(),
        key_hash: digest(&SHA256, &blob),
        key,
    })
}
