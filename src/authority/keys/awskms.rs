//! Keys in AWS KMS, which nobody gets out of it: `PREFIX-ssh-user` and so on are their aliases.
//!
//! Nothing that it answers is believed: each signature is verified by the key's public half before anybody uses it, so
//! that no certificate is recorded that is not good.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
    VerificationAlgorithm,
};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;

use super::private::{Algorithm, KeyStore, PrivateKey, away};
use crate::environment::Environment;
use crate::error::{Error, Kind, Result};
use crate::retry::Attempts;
use crate::text::shown;

mod service;
#[cfg(test)]
mod tests;

use service::{Service, Trouble};

/// The longest message that KMS takes unhashed, in bytes.
const MAX_MESSAGE: usize = 4096;
/// The shortest time that AWS keeps a key for that is to be deleted, in days.
const PENDING_DAYS: u8 = 7;
/// How long KMS may take to know everywhere what it has said in one place.
const SPREADING: Duration = Duration::from_secs(8);
/// The longest prefix, in bytes: an alias has 256, of which the name takes up to 30.
const MAX_PREFIX: usize = 200;

/// What KMS calls an algorithm, and how ring verifies it.
struct Spec {
    algorithm: Algorithm,
    key: &'static str,
    signing: &'static str,
    verified_by: &'static dyn VerificationAlgorithm,
    /// What messages are hashed with, where KMS takes hashes.
    hash: Option<&'static digest::Algorithm>,
    /// What a SubjectPublicKeyInfo begins with, before what ring takes, and its length.
    before: &'static [u8],
    length: usize,
}

impl fmt::Debug for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.key)
    }
}

static SPECS: [Spec; 4] = [
    Spec {
        algorithm: Algorithm::Ed25519,
        key: "ECC_NIST_EDWARDS25519",
        signing: "ED25519_SHA_512",
        verified_by: &ED25519,
        // It takes some for `ED25519_PH_SHA_512`, which is another algorithm.
        hash: None,
        before: b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00",
        length: 44,
    },
    Spec {
        algorithm: Algorithm::EcdsaP256,
        key: "ECC_NIST_P256",
        signing: "ECDSA_SHA_256",
        verified_by: &ECDSA_P256_SHA256_ASN1,
        hash: Some(&digest::SHA256),
        before: b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00",
        length: 91,
    },
    Spec {
        algorithm: Algorithm::EcdsaP384,
        key: "ECC_NIST_P384",
        signing: "ECDSA_SHA_384",
        verified_by: &ECDSA_P384_SHA384_ASN1,
        hash: Some(&digest::SHA384),
        before: b"\x30\x76\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22\x03\x62\x00",
        length: 120,
    },
    Spec {
        algorithm: Algorithm::Rsa3072,
        key: "RSA_3072",
        signing: "RSASSA_PKCS1_V1_5_SHA_256",
        verified_by: &RSA_PKCS1_2048_8192_SHA256,
        hash: Some(&digest::SHA256),
        before: b"\x30\x82\x01\xa2\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00\x03\x82\x01\x8f\x00",
        length: 422,
    },
];

/// The keys of one prefix.
#[derive(Debug)]
pub(super) struct AwsKms {
    service: Arc<Service>,
    prefix: String,
}

impl AwsKms {
    /// Reads `alias/PREFIX`.
    ///
    /// # Errors
    /// `Kind::Usage` for anything else.
    pub(super) fn parse(text: &str) -> Result<String> {
        let taken = |b: u8| b.is_ascii_alphanumeric() || b"/_-".contains(&b);
        let prefix = text.strip_prefix("alias/").filter(|prefix| {
            (1..=MAX_PREFIX).contains(&prefix.len())
                && prefix.bytes().all(taken)
                && !prefix.starts_with("aws/")
        });
        let wrong = || {
            Error::usage(format!("`awskms:{}` is not `awskms:alias/PREFIX`", shown(text)))
                .hint("PREFIX is letters, digits, `-`, `_` and `/`, and does not begin with `aws/`; the keys' aliases are PREFIX-ssh-user and so on")
        };
        prefix.map(str::to_owned).ok_or_else(wrong)
    }

    /// Those of that prefix, for this environment's credentials, region and endpoint.
    ///
    /// # Errors
    /// `Kind::Usage` where the environment says no region or a wrong endpoint.
    pub(super) fn new(prefix: &str, env: Environment) -> Result<Self> {
        let service = Service::of(env).map_err(|error| asked(&error, Kind::Usage, "AWS KMS"))?;
        Ok(Self { service: Arc::new(service), prefix: prefix.to_owned() })
    }

    fn alias(&self, name: &str) -> String {
        format!("alias/{}-{name}", self.prefix)
    }

    /// What became of a request about that key, as an error of a command.
    fn failed(&self, name: &str, trouble: Trouble) -> Error {
        error(&self.service, &self.alias(name), trouble, Kind::Usage)
    }

    fn described(&self, name: &str) -> Result<Option<Metadata>> {
        match self.service.call::<Described>("DescribeKey", &json!({"KeyId": self.alias(name)}), true) {
            Ok(found) => Ok(Some(found.key_metadata)),
            Err(Trouble::Refused { code, .. }) if code == "NotFoundException" => Ok(None),
            Err(trouble) => Err(self.failed(name, trouble)),
        }
    }

    /// Has nobody sign by a key that was made and has no name; what there is to say of it.
    fn undo(&self, arn: &str) -> String {
        let body = json!({"KeyId": arn, "PendingWindowInDays": PENDING_DAYS});
        match self.service.call::<IgnoredAny>("ScheduleKeyDeletion", &body, true) {
            Ok(_) => format!("the key {} that was made for it is deleted in {PENDING_DAYS} days", shown(arn)),
            Err(_) => format!(
                "the key {0} that was made for it is left: `aws kms schedule-key-deletion --key-id {0}`",
                shown(arn)
            ),
        }
    }
}

impl KeyStore for AwsKms {
    fn is_local(&self) -> bool {
        false
    }

    fn open(&self, name: &str) -> Result<Option<Arc<dyn PrivateKey>>> {
        let alias = self.alias(name);
        let found: PublicKey = match self.service.call("GetPublicKey", &json!({"KeyId": alias}), true) {
            Ok(found) => found,
            Err(Trouble::Refused { code, .. }) if code == "NotFoundException" => return Ok(None),
            Err(trouble) => return Err(self.failed(name, trouble)),
        };
        let unfit = |why: &str| {
            Error::usage(format!("{} cannot be used: {why}", self.place(name)))
                .hint("it must be a key for SIGN_VERIFY of one of the specs ECC_NIST_P256, ECC_NIST_P384, RSA_3072 and ECC_NIST_EDWARDS25519")
        };
        if found.key_usage != "SIGN_VERIFY" {
            return Err(unfit("it is not for signing"));
        }
        let spki = STANDARD.decode(&found.public_key).map_err(|_| unfit("its public key is not base64"))?;
        let spec = SPECS.iter().find(|spec| spki.len() == spec.length && spki.starts_with(spec.before));
        let spec = spec.ok_or_else(|| unfit("it is of another kind"))?;
        if !found.signing_algorithms.iter().any(|signing| signing == spec.signing) {
            return Err(unfit(&format!("it does not sign by {}", spec.signing)));
        }
        if found.key_id.is_empty() || !found.key_id.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(unfit("it has no id"));
        }
        // By its id from here on: an alias can be moved to another key.
        Ok(Some(Arc::new(KmsKey { service: Arc::clone(&self.service), alias, id: found.key_id, spec, spki })))
    }

    fn create(&self, name: &str, algorithm: Algorithm) -> Result<Arc<dyn PrivateKey>> {
        let (alias, place) = (self.alias(name), self.place(name));
        if self.open(name)?.is_some() {
            return Err(Error::usage(format!("there is {place} already"))
                .hint("take another PREFIX; a key that nobody needs goes by `aws kms delete-alias` and `aws kms schedule-key-deletion`"));
        }
        let spec = SPECS.iter().find(|spec| spec.algorithm == algorithm);
        let spec = spec.ok_or_else(|| Error::internal("an algorithm that KMS is not asked for"))?;
        let body = json!({"KeySpec": spec.key, "KeyUsage": "SIGN_VERIFY", "Description": format!("machine-id {alias}")});
        // Asked twice it would make two.
        let made: Described = self.service.call("CreateKey", &body, false).map_err(|trouble| {
            let is_perhaps = matches!(trouble, Trouble::Away { perhaps: true, .. } | Trouble::Nonsense(_));
            let is_new = spec.hash.is_none() && matches!(trouble, Trouble::Refused { .. });
            match self.failed(name, trouble) {
                error if is_perhaps => error.hint(format!("perhaps a key was made all the same: it has no alias, and the description `machine-id {alias}`")),
                error if is_new => error.hint("not every region's KMS, and none that is like it, has Ed25519: `--suite compatible` goes without"),
                error => error,
            }
        })?;
        let arn = made.key_metadata.arn;
        let body = json!({"AliasName": alias, "TargetKeyId": arn});
        let named = self.service.call::<IgnoredAny>("CreateAlias", &body, true);
        // An answer that was lost is followed by one that says it exists, as does somebody else's.
        let is_there =
            matches!(&named, Err(Trouble::Refused { code, .. }) if code == "AlreadyExistsException");
        if is_there && self.described(name)?.is_some_and(|found| found.arn != arn) {
            return Err(Error::usage(format!("somebody else has just made {place}")).hint(self.undo(&arn)));
        }
        if let Err(trouble) = named
            && !is_there
        {
            return Err(self.failed(name, trouble).hint(self.undo(&arn)));
        }
        // Not all of KMS knows at once what part of it has said.
        let mut attempts = Attempts::until(Instant::now() + SPREADING);
        loop {
            match self.open(name)? {
                Some(key) if key.algorithm() == algorithm => return Ok(key),
                Some(_) => {
                    return Err(Error::internal(format!("{place} is of another kind than it was asked for")));
                }
                None => match attempts.pause(None) {
                    Some(pause) => std::thread::sleep(pause),
                    None => {
                        return Err(away(format!("{place} was made, and is not found yet"))
                            .hint("try again with another PREFIX, or delete it"));
                    }
                },
            }
        }
    }

    /// A key that waits for its deletion signs nothing. For seven days who may `kms:CancelKeyDeletion` gets it back.
    fn destroy(&self, name: &str) -> Result<()> {
        let Some(found) = self.described(name)? else { return Ok(()) };
        let place = self.place(name);
        let by_hand = |error: Error| {
            error
                .context(format!("{place} is not destroyed"))
                .hint(format!("`aws kms schedule-key-deletion --key-id {}` destroys it", shown(&found.arn)))
        };
        if found.key_state != "PendingDeletion" {
            let body = json!({"KeyId": found.arn, "PendingWindowInDays": PENDING_DAYS});
            let done = self.service.call::<IgnoredAny>("ScheduleKeyDeletion", &body, true);
            done.map_err(|trouble| by_hand(self.failed(name, trouble)))?;
        }
        // So that another can have its name. Without its name it is as dead.
        let body = json!({"AliasName": self.alias(name)});
        match self.service.call::<IgnoredAny>("DeleteAlias", &body, true) {
            Ok(_) => Ok(()),
            Err(Trouble::Refused { code, .. }) if code == "NotFoundException" => Ok(()),
            Err(trouble) => Err(self
                .failed(name, trouble)
                .context(format!("{place} is destroyed, and its alias is left"))),
        }
    }

    fn place(&self, name: &str) -> String {
        format!("the key {} in AWS KMS, region {}", self.alias(name), self.service.region)
    }
}

/// A key in KMS.
#[derive(Debug)]
struct KmsKey {
    service: Arc<Service>,
    alias: String,
    id: String,
    spec: &'static Spec,
    spki: Vec<u8>,
}

impl PrivateKey for KmsKey {
    fn algorithm(&self) -> Algorithm {
        self.spec.algorithm
    }

    fn spki(&self) -> &[u8] {
        &self.spki
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
        let (kind, sent) = match self.spec.hash {
            _ if message.len() <= MAX_MESSAGE => ("RAW", STANDARD.encode(message)),
            Some(hash) => ("DIGEST", STANDARD.encode(digest::digest(hash, message))),
            None => {
                return Err(Error::internal(format!(
                    "{}: AWS KMS signs no more than {MAX_MESSAGE} bytes by Ed25519",
                    self.alias
                )));
            }
        };
        let body = json!({"KeyId": self.id, "Message": sent, "MessageType": kind, "SigningAlgorithm": self.spec.signing});
        let told: Signed = self
            .service
            .call("Sign", &body, true)
            .map_err(|trouble| error(&self.service, &self.alias, trouble, Kind::Unreachable))?;
        let signature = STANDARD.decode(&told.signature).unwrap_or_default();
        let public = self.spki.get(self.spec.before.len()..).unwrap_or_default();
        UnparsedPublicKey::new(self.spec.verified_by, public).verify(message, &signature).map_err(|_| {
            Error::internal(format!("what AWS KMS answers for {} is no signature by that key", self.alias))
                .hint("nothing is issued with it; look at what AWS_ENDPOINT_URL and the proxy lead to")
        })?;
        Ok(signature)
    }
}

/// What became of a request about a key, in words. A command's is wrong usage where KMS refuses; that of a server that
/// signs may pass, and needs no restart: a key is enabled again, or rights are given back.
fn error(service: &Service, alias: &str, trouble: Trouble, refused: Kind) -> Error {
    let is_command = refused == Kind::Usage;
    let what = format!("AWS KMS in {}, {alias}", service.region);
    let (code, message) = match trouble {
        Trouble::Refused { code, message } => (code, message),
        Trouble::Away { why, .. } => return away(format!("{what}: {why}")),
        Trouble::Credentials(error) => return asked(&error, refused, &what),
        Trouble::Nonsense(why) => {
            let kind = if is_command { Kind::Usage } else { Kind::Internal };
            return Error::new(kind, format!("{what}: {why}"))
                .hint("look at what AWS_ENDPOINT_URL and the proxy lead to");
        }
    };
    let (why, hint) = match code.as_str() {
        "AccessDeniedException" => (
            format!("access is denied: {message}"),
            "docs/keys.md has the policy that the authority's role needs",
        ),
        "NotFoundException" => (
            "there is no such key".to_owned(),
            "AWS_REGION and the account must be those of `init`; `aws kms list-aliases` tells",
        ),
        "DisabledException" => ("the key is disabled".to_owned(), "`aws kms enable-key` enables it"),
        "KMSInvalidStateException" => (
            format!("the key is in a state in which it signs nothing: {message}"),
            "`aws kms describe-key` tells; `aws kms cancel-key-deletion` keeps one that was to be deleted",
        ),
        _ => (format!("{code}: {message}"), "`aws kms describe-key` tells what it is"),
    };
    let why = format!("{what}: {why}");
    if is_command { Error::usage(why) } else { away(why) }.hint(hint)
}

/// An error of looking for credentials, as one of a store of keys.
fn asked(error: &Error, refused: Kind, what: &str) -> Error {
    let kind = if error.kind() == Kind::Proof { refused } else { error.kind() };
    let why = format!("{what}: {error}");
    let again = if kind == Kind::Unreachable { away(why) } else { Error::new(kind, why) };
    error.hints().iter().fold(again, |again, hint| again.hint(hint.as_str()))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PublicKey {
    key_id: String,
    public_key: String,
    key_usage: String,
    signing_algorithms: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Described {
    key_metadata: Metadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Metadata {
    arn: String,
    key_state: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Signed {
    signature: String,
}
