//! Whether what an authority states of itself is believed. Nothing is asked or written here.
//!
//! A statement counts where a key signed it that is known, for the cluster that is known, in its time, and not
//! before what was believed last. The first one, over TLS that was verified, makes cluster, keys and CAs known. From then on a new CA
//! needs the word of one of its kind that is known, or of the TLS CA; a new statement key that of the TLS CA, and either a
//! statement by a key that is known or the word of that too: so a thief of one key alone changes nothing.
//!
//! A CA that is revoked needs nobody's word: its own is worth nothing from then on, in whichever statement.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{self as by, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use ssh_key::public::KeyData;
use x509_parser::public_key::PublicKey as SubjectKey;

use super::refused::Refused;
use super::trust::{plain, plain_key, tls_of};
use crate::clock::{LEEWAY, rfc3339};
use crate::pem;
use crate::wire::{CrlHash, Endorsement, STATEMENT, Statement, TrustAnchors};

/// What is known of an authority: what the last statement that was believed says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Known {
    /// Its cluster.
    pub cluster: String,
    /// The keys that sign its statements, as [`Statement::statement_keys`] has them.
    pub statement_keys: Vec<String>,
    /// Its CAs, in their one form.
    pub trust: TrustAnchors,
    /// The number of its lists.
    pub number: u64,
    /// When it was made.
    pub made: i64,
    /// The CAs that are believed no more, in this one or any that comes.
    #[serde(default, skip_serializing_if = "Refused::is_empty")]
    pub refused: Refused,
}

impl Known {
    /// What a statement makes known.
    pub fn of(statement: &Statement) -> Self {
        Self {
            cluster: statement.cluster.clone(),
            statement_keys: statement.statement_keys.clone(),
            trust: statement.trust.clone(),
            number: statement.number,
            made: statement.made,
            refused: Refused::of(&statement.revoked_cas),
        }
    }

    /// Believes these CAs no more.
    pub fn refuse(&mut self, more: &Refused) {
        self.refused.add(more);
        self.trust = self.refused.without(&self.trust);
    }
}

/// How a statement key signs: by the length of its raw public key, `alg` of a JWS, and what that and an endorsement are
/// verified by.
static SIGNERS: [(usize, &str, &dyn VerificationAlgorithm, &dyn VerificationAlgorithm); 3] = [
    (32, "EdDSA", &by::ED25519, &by::ED25519),
    (65, "ES256", &by::ECDSA_P256_SHA256_FIXED, &by::ECDSA_P256_SHA256_ASN1),
    (97, "ES384", &by::ECDSA_P384_SHA384_FIXED, &by::ECDSA_P384_SHA384_ASN1),
];

#[derive(Deserialize)]
struct Header {
    alg: String,
    typ: String,
    /// What must be understood (RFC 7515, section 4.1.11): we understand nothing of it.
    crit: Option<serde_json::Value>,
}

/// So many statement keys, and CAs of a kind, are listened to: three at most are there in a rotation, and each costs a signature.
const MOST: usize = 16;

/// What a JWS is that no statement key has signed.
const ANOTHER: &str = "it is a JWS of another kind";

/// The statement, its CAs in their one form, if it is to be believed; `given` is the key that an operator has named for
/// the first.
///
/// # Errors
/// Why not, for a person.
pub fn believe(jws: &str, known: Option<&Known>, given: Option<&str>, now: i64) -> Result<Statement, String> {
    let (message, signature) = jws.rsplit_once('.').ok_or("it is no JWS")?;
    let (header, claims) = message.split_once('.').ok_or("it is no JWS")?;
    let header: Header = json(header).ok_or("it is no JWS of a statement")?;
    if !SIGNERS.iter().any(|signer| signer.1 == header.alg)
        || header.typ != STATEMENT
        || header.crit.is_some()
    {
        return Err(ANOTHER.to_owned());
    }
    let mut statement: Statement = json(claims).ok_or("its claims are not those of a statement")?;
    let TrustAnchors { ssh_host_cas, ssh_user_cas, tls_cas } = &statement.trust;
    if [&statement.statement_keys, ssh_host_cas, ssh_user_cas, tls_cas].iter().any(|all| all.len() > MOST) {
        return Err(format!("it has more than {MOST} statement keys, or CAs of a kind"));
    }
    statement.trust = plain(&statement.trust)?;
    let signed_by = |key: &String| {
        let key = URL_SAFE_NO_PAD.decode(key).unwrap_or_default();
        SIGNERS.iter().any(|(length, alg, jws, _)| {
            (*length, *alg) == (key.len(), &header.alg)
                && VouchingKey::Raw(*jws, key.clone()).verifies(message, signature)
        })
    };
    let signer = statement.statement_keys.iter().find(|key| signed_by(key));
    let signer = signer.ok_or("none of its keys has signed it")?;
    // Who revokes the last one of a kind has nobody let in by it; who does not know that it is revoked says nothing of use.
    let mut refused = Refused::of(&statement.revoked_cas);
    let stated = refused.without(&statement.trust);
    known.iter().for_each(|known| refused.add(&known.refused));
    statement.trust = refused.without(&statement.trust);
    let lost =
        |of: fn(&TrustAnchors) -> &Vec<String>| of(&statement.trust).is_empty() && !of(&stated).is_empty();
    if lost(|trust| &trust.ssh_host_cas) || lost(|trust| &trust.ssh_user_cas) || lost(|trust| &trust.tls_cas)
    {
        return Err("it has a kind of CA of which all are revoked".to_owned());
    }
    let is_trusted = |list: &CrlHash| {
        !tls_of(&statement.trust, |pin| pin.strip_prefix("sha256:") == Some(&list.ca)).is_empty()
    };
    statement.crls.retain(is_trusted);
    let known = known.map(|known| with_heirs(known, &statement));
    match (&known, given) {
        (Some(known), _)
            if !known.statement_keys.contains(signer) && !succeeds(&statement, known, signer) =>
        {
            return Err(format!("the key that has signed it, {signer}, is not known"));
        }
        (Some(known), _) => follows(&statement, known)?,
        (None, Some(given)) if given != signer => {
            return Err("the key that --statement-key names has not signed it".to_owned());
        }
        (None, _) => {}
    }
    let times = |what: &str, then| {
        format!("{what} {}, and by this machine's clock it is {}", rfc3339(then), rfc3339(now))
    };
    if statement.made > now.saturating_add(LEEWAY) {
        return Err(times("it is from the future: made at", statement.made));
    }
    if statement.until < now.saturating_sub(LEEWAY) || statement.until < statement.made {
        return Err(times("it is an old one: good until", statement.until));
    }
    Ok(statement)
}

/// Of which lists it says that it is, whoever has signed it.
pub fn number_of(jws: &str) -> Option<u64> {
    json::<Statement>(jws.split('.').nth(1)?).map(|statement| statement.number)
}

/// Whether it is of whom is known, not before what is known, and everything new in it is vouched for.
fn follows(statement: &Statement, known: &Known) -> Result<(), String> {
    if statement.cluster != known.cluster {
        return Err(format!("it is of the cluster {}, and not of {}", statement.cluster, known.cluster));
    }
    for key in &statement.statement_keys {
        if !known.statement_keys.contains(key) && !is_vouched_for(statement, known, "statement", key) {
            return Err(format!("its key {key} is not known, and no TLS CA that is known vouches for it"));
        }
    }
    let (new, old) = (&statement.trust, &known.trust);
    for (kind, new, old) in [
        ("ssh-user", &new.ssh_user_cas, &old.ssh_user_cas),
        ("ssh-host", &new.ssh_host_cas, &old.ssh_host_cas),
        ("tls", &new.tls_cas, &old.tls_cas),
    ] {
        for ca in new {
            if !old.contains(ca) && !is_vouched_for(statement, known, kind, ca) {
                return Err(format!("it has a new CA ({kind}), and none that is known vouches for it"));
            }
        }
    }
    // Clocks of authorities that share a store may be apart.
    if (statement.number, statement.made.saturating_add(LEEWAY)) < (known.number, known.made) {
        return Err(format!(
            "it is older than what was heard before: its number is {}, made at {}, and that was {}, made at {}",
            statement.number,
            rfc3339(statement.made),
            known.number,
            rfc3339(known.made)
        ));
    }
    Ok(())
}

/// With the TLS CAs for which one that is known vouches: their word counts as its own, so that a host goes on that was away while
/// first that CA and then what it vouches for was exchanged.
fn with_heirs(known: &Known, statement: &Statement) -> Known {
    let mut with = known.clone();
    let vouched = |ca: &&String| is_vouched_for(statement, known, "tls", ca);
    with.trust.tls_cas.extend(statement.trust.tls_cas.iter().filter(vouched).cloned());
    with
}

/// Whether a known CA of that kind, or a known one of TLS, has signed that the new one is to be believed.
fn is_vouched_for(statement: &Statement, known: &Known, kind: &str, new: &str) -> bool {
    is_signed_for(statement, known, (kind, new), |by| ca_key(kind, by, &known.trust))
}

/// Whether a statement key that is not known takes the place of one that is: by the word of that, which its thief has, and of a
/// TLS CA, which he has not. So a host that was away for all of a rotation goes on.
fn succeeds(statement: &Statement, known: &Known, new: &str) -> bool {
    let of_known = |by: &str| {
        let by = known.statement_keys.iter().find(|known| *known == by)?;
        VouchingKey::of_raw(URL_SAFE_NO_PAD.decode(by).ok()?)
    };
    is_vouched_for(statement, known, "statement", new)
        && is_signed_for(statement, known, ("statement", new), of_known)
}

/// Whether one has signed that, whose `key` there is.
fn is_signed_for(
    statement: &Statement,
    known: &Known,
    (kind, new): (&str, &str),
    key: impl Fn(&str) -> Option<VouchingKey>,
) -> bool {
    statement.endorsements.iter().any(|endorsement| {
        let message = Endorsement::message(&known.cluster, kind, &endorsement.new);
        endorsement.kind == kind
            && one_form(kind, &endorsement.new).as_deref() == Some(new)
            && key(&endorsement.by).is_some_and(|key| key.verifies(&message, &endorsement.signature))
    })
}

/// A CA or a key as [`plain`] writes it.
fn one_form(kind: &str, text: &str) -> Option<String> {
    match kind {
        "statement" => Some(text.trim_end().to_owned()),
        "tls" => match pem::certificates(text).ok()?.as_slice() {
            [der] => Some(pem::encode(super::trust::ARMOUR, der).to_string()),
            _ => None,
        },
        _ => Some(plain_key(text).ok()? + "\n"),
    }
}

/// The public key of a CA, where it is a known one that may vouch for that kind.
fn ca_key(kind: &str, by: &str, known: &TrustAnchors) -> Option<VouchingKey> {
    if one_form("tls", by).is_some_and(|ca| known.tls_cas.contains(&ca)) {
        let der = pem::certificates(by).ok()?.pop()?;
        let (_, ca) = x509_parser::parse_x509_certificate(&der).ok()?;
        let key = ca.public_key();
        let bytes = key.subject_public_key.data.to_vec();
        return match key.parsed().ok()? {
            SubjectKey::RSA(_) => Some(VouchingKey::Raw(&by::RSA_PKCS1_2048_8192_SHA256, bytes)),
            _ => VouchingKey::of_raw(bytes),
        };
    }
    let cas = match kind {
        "ssh-user" => &known.ssh_user_cas,
        "ssh-host" => &known.ssh_host_cas,
        _ => return None,
    };
    let line = one_form(kind, by).filter(|line| cas.contains(line))?;
    match ssh_key::PublicKey::from_openssh(line.trim_end()).ok()?.key_data() {
        KeyData::Ed25519(key) => VouchingKey::of_raw(key.0.to_vec()),
        KeyData::Ecdsa(key) => VouchingKey::of_raw(key.as_sec1_bytes().to_vec()),
        KeyData::Rsa(key) => {
            let bare = |number: &[u8]| number.iter().copied().skip_while(|byte| *byte == 0).collect();
            let (n, e) = (bare(key.n.as_positive_bytes()?), bare(key.e.as_positive_bytes()?));
            Some(VouchingKey::Rsa(RsaPublicKeyComponents { n, e }))
        }
        _ => None,
    }
}

/// A public key that something is verified by.
enum VouchingKey {
    /// As ring takes it for that.
    Raw(&'static dyn VerificationAlgorithm, Vec<u8>),
    /// The numbers of RSA.
    Rsa(RsaPublicKeyComponents<Vec<u8>>),
}

impl VouchingKey {
    /// A raw key of Ed25519, or a point of P-256 or P-384, for endorsements.
    fn of_raw(key: Vec<u8>) -> Option<Self> {
        let (.., algorithm) = SIGNERS.iter().find(|signer| signer.0 == key.len())?;
        Some(Self::Raw(*algorithm, key))
    }

    /// Whether that is its signature (base64url).
    fn verifies(&self, message: &str, signature: &str) -> bool {
        let Ok(signature) = URL_SAFE_NO_PAD.decode(signature) else { return false };
        let verified = match self {
            Self::Raw(algorithm, key) => {
                UnparsedPublicKey::new(*algorithm, key).verify(message.as_bytes(), &signature)
            }
            Self::Rsa(key) => key.verify(&by::RSA_PKCS1_2048_8192_SHA256, message.as_bytes(), &signature),
        };
        verified.is_ok()
    }
}

fn json<T: DeserializeOwned>(part: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

#[cfg(test)]
pub(super) mod tests;
