//! Whether what an authority states of itself is believed. Nothing is asked or written here.
//!
//! A statement counts where a key signed it that is known, for the cluster that is known, in its time, and not
//! before what was believed last. The first one, over TLS that was verified, makes cluster, keys and CAs known. From then on a new CA
//! needs the word of one of its kind that is known, or of the TLS CA; a new statement key that of the TLS CA, in a statement
//! by one that is known: so a thief of one key alone changes nothing.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, UnparsedPublicKey,
    VerificationAlgorithm,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use ssh_key::public::{EcdsaPublicKey, KeyData};

use super::trust::{plain, plain_key};
use crate::clock::{LEEWAY, rfc3339};
use crate::pem;
use crate::wire::{Endorsement, STATEMENT, Statement, TrustAnchors};

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
        }
    }
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    typ: String,
    /// What must be understood (RFC 7515, section 4.1.11): we understand nothing of it.
    crit: Option<serde_json::Value>,
}

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
    let (length, algorithm): (_, &'static dyn VerificationAlgorithm) = match header.alg.as_str() {
        "EdDSA" => (32, &ED25519),
        "ES256" => (65, &ECDSA_P256_SHA256_FIXED),
        "ES384" => (97, &ECDSA_P384_SHA384_FIXED),
        _ => return Err(ANOTHER.to_owned()),
    };
    if header.typ != STATEMENT || header.crit.is_some() {
        return Err(ANOTHER.to_owned());
    }
    let mut statement: Statement = json(claims).ok_or("its claims are not those of a statement")?;
    statement.trust = plain(&statement.trust)?;
    let signed_by = |key: &String| {
        let key = URL_SAFE_NO_PAD.decode(key).unwrap_or_default();
        key.len() == length && is_signature(algorithm, &key, message.as_bytes(), signature)
    };
    let signer = statement.statement_keys.iter().find(|key| signed_by(key));
    let signer = signer.ok_or("none of its keys has signed it")?;
    match (known, given) {
        (Some(known), _) if !known.statement_keys.contains(signer) => {
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

/// Whether a known CA of that kind, or a known one of TLS, has signed that the new one is to be believed.
fn is_vouched_for(statement: &Statement, known: &Known, kind: &str, new: &str) -> bool {
    statement.endorsements.iter().any(|endorsement| {
        let message = Endorsement::message(&known.cluster, kind, &endorsement.new);
        endorsement.kind == kind
            && one_form(kind, &endorsement.new).as_deref() == Some(new)
            && ca_key(kind, &endorsement.by, &known.trust)
                .is_some_and(|key| verifies(&key, message.as_bytes(), &endorsement.signature))
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
fn ca_key(kind: &str, by: &str, known: &TrustAnchors) -> Option<Vec<u8>> {
    if one_form("tls", by).is_some_and(|ca| known.tls_cas.contains(&ca)) {
        let der = pem::certificates(by).ok()?.pop()?;
        let (_, ca) = x509_parser::parse_x509_certificate(&der).ok()?;
        return Some(ca.public_key().subject_public_key.data.to_vec());
    }
    let cas = match kind {
        "ssh-user" => &known.ssh_user_cas,
        "ssh-host" => &known.ssh_host_cas,
        _ => return None,
    };
    let line = one_form(kind, by).filter(|line| cas.contains(line))?;
    match ssh_key::PublicKey::from_openssh(line.trim_end()).ok()?.key_data() {
        KeyData::Ed25519(key) => Some(key.0.to_vec()),
        KeyData::Ecdsa(EcdsaPublicKey::NistP256(point)) => Some(point.as_bytes().to_vec()),
        _ => None,
    }
}

/// Whether that is the signature (base64url) by a raw key of Ed25519, or by a point of P-256: their lengths tell them apart.
fn verifies(key: &[u8], message: &[u8], signature: &str) -> bool {
    let algorithm: &'static dyn VerificationAlgorithm = match key.len() {
        32 => &ED25519,
        65 => &ECDSA_P256_SHA256_ASN1,
        _ => return false,
    };
    is_signature(algorithm, key, message, signature)
}

fn is_signature(
    algorithm: &'static dyn VerificationAlgorithm,
    key: &[u8],
    message: &[u8],
    signature: &str,
) -> bool {
    let Ok(signature) = URL_SAFE_NO_PAD.decode(signature) else { return false };
    UnparsedPublicKey::new(algorithm, key).verify(message, &signature).is_ok()
}

fn json<T: DeserializeOwned>(part: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

#[cfg(test)]
pub(super) mod tests;
