//! Private keys, wherever they are: in files, in a token, at a service. Who signs by one sees neither it nor where it is.

use std::fmt;
use std::sync::Arc;

use der::asn1::UintRef;
use der::{Decode as _, Reader as _, SliceReader};
use rcgen::SignatureAlgorithm;
use ssh_key::public::{EcdsaPublicKey, Ed25519PublicKey, KeyData, RsaPublicKey};
use ssh_key::{EcdsaCurve, HashAlg, Mpint, Signature};
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey as SubjectKey;
use x509_parser::x509::SubjectPublicKeyInfo;
use zeroize::Zeroizing;

use crate::error::{Context as _, Error, Kind, Result};

/// What a key signs by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// Ed25519 (RFC 8032).
    Ed25519,
    /// ECDSA over P-256, with SHA-256.
    EcdsaP256,
    /// ECDSA over P-384, with SHA-384.
    EcdsaP384,
    /// RSA of 3072 bits or more, PKCS#1 v1.5 with SHA-256.
    Rsa3072,
}

/// A private key.
pub trait PrivateKey: Send + Sync + fmt::Debug {
    /// What it signs by.
    fn algorithm(&self) -> Algorithm;

    /// Its SubjectPublicKeyInfo in DER (RFC 5280).
    fn spki(&self) -> &[u8];

    /// Signs the unhashed message: Ed25519 in 64 bytes, ECDSA in ASN.1. It may block, for ten seconds at most.
    ///
    /// # Errors
    /// [`is_away`] where its store cannot be reached, which may come back; `Kind::Internal` otherwise.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>>;
}

/// Where private keys are. Those that `init` makes are called `ssh-user`, `ssh-host`, `tls`,
/// `statement`, `federation` and `federation-next`.
pub trait KeyStore: Send + Sync + fmt::Debug {
    /// Whether signing waits for nothing but the processor.
    fn is_local(&self) -> bool;

    /// The key of that name; none where there is none.
    fn open(&self, name: &str) -> Result<Option<Arc<dyn PrivateKey>>>;

    /// Makes one where there is none of that name.
    fn create(&self, name: &str, algorithm: Algorithm) -> Result<Arc<dyn PrivateKey>>;

    /// Has nobody sign by that key any more.
    ///
    /// # Errors
    /// What the operator has to do, where it cannot.
    fn destroy(&self, name: &str) -> Result<()>;

    /// Where that key is, for operators.
    fn place(&self, name: &str) -> String;

    /// The key in words that [`KeyStore::put`] takes, where it can be had at all: of a token or a service there are none.
    fn copy(&self, _name: &str) -> Result<Option<Zeroizing<String>>> {
        Ok(None)
    }

    /// Puts a key there that another such store has copied, where there is none of that name.
    fn put(&self, name: &str, _key: &str) -> Result<()> {
        Err(Error::usage(format!("{} is made where it is", self.place(name))))
    }
}

/// A private key that an authority ought to have, and has not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    /// Its name in the key store.
    pub name: String,
    /// Where it ought to be.
    pub place: String,
    /// Why it is not to be had.
    pub why: String,
    /// Whether it is one that signs.
    pub signs: bool,
}

impl Lack {
    /// In words.
    pub fn words(&self) -> String {
        format!("the private key of the CA {} is not to be had, in {}: {}", self.name, self.place, self.why)
    }
}

/// That a store of keys cannot be reached.
#[derive(Debug)]
struct Away(String);

impl fmt::Display for Away {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// That a store of keys cannot be reached now, and why.
pub(super) fn away(why: impl Into<String>) -> Error {
    Error::new(Kind::Unreachable, Away(why.into()))
}

/// That a CA's private key is not to be had here.
pub(in crate::authority) fn lacking() -> Error {
    away("this authority lacks the private key of a CA: `machine-id authority rotate status` says which")
}

/// Whether it is that a store of keys cannot be reached.
pub fn is_away(error: &Error) -> bool {
    error.cause::<Away>().is_some()
}

/// A public key, as what is signed names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Public {
    algorithm: Algorithm,
    /// What its SubjectPublicKeyInfo holds: raw, a point, or the DER of an `RSAPublicKey`.
    raw: Vec<u8>,
}

impl Public {
    /// Of such bytes, by what they sign.
    pub(super) fn new(algorithm: Algorithm, raw: &[u8]) -> Self {
        Self { algorithm, raw: raw.to_vec() }
    }

    /// Of a key.
    pub(super) fn of(key: &dyn PrivateKey) -> Result<Self> {
        let (rest, read) =
            SubjectPublicKeyInfo::from_der(key.spki()).context(Kind::Internal, "a CA's public key")?;
        let raw = read.subject_public_key.data.to_vec();
        if !rest.is_empty() {
            return Err(Error::internal("more than a CA's public key"));
        }
        Ok(Self { algorithm: key.algorithm(), raw })
    }

    /// As its SubjectPublicKeyInfo has it.
    pub(super) fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// The SubjectPublicKeyInfo in DER.
    pub(super) fn spki(&self) -> Vec<u8> {
        rcgen::PublicKeyData::subject_public_key_info(self)
    }

    /// As SSH has it.
    pub(super) fn ssh(&self) -> Result<KeyData> {
        let failed = "a CA's public key for SSH";
        let point = || EcdsaPublicKey::from_sec1_bytes(&self.raw).context(Kind::Internal, failed);
        Ok(match self.algorithm {
            Algorithm::Ed25519 => {
                KeyData::Ed25519(Ed25519PublicKey::try_from(&*self.raw).context(Kind::Internal, failed)?)
            }
            Algorithm::EcdsaP256 | Algorithm::EcdsaP384 => KeyData::Ecdsa(point()?),
            Algorithm::Rsa3072 => {
                let spki = self.spki();
                let (_, read) = SubjectPublicKeyInfo::from_der(&spki).context(Kind::Internal, failed)?;
                let Ok(SubjectKey::RSA(key)) = read.parsed() else { return Err(Error::internal(failed)) };
                let number = |bytes| Mpint::from_positive_bytes(bytes).context(Kind::Internal, failed);
                KeyData::Rsa(RsaPublicKey { n: number(key.modulus)?, e: number(key.exponent)? })
            }
        })
    }
}

impl rcgen::PublicKeyData for Public {
    fn der_bytes(&self) -> &[u8] {
        &self.raw
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        match self.algorithm {
            Algorithm::Ed25519 => &rcgen::PKCS_ED25519,
            Algorithm::EcdsaP256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            Algorithm::EcdsaP384 => &rcgen::PKCS_ECDSA_P384_SHA384,
            Algorithm::Rsa3072 => &rcgen::PKCS_RSA_SHA256,
        }
    }
}

/// The two numbers of an ECDSA signature in ASN.1, without zeros before them.
fn ecdsa_numbers(signature: &[u8]) -> der::Result<[Vec<u8>; 2]> {
    let mut reader = SliceReader::new(signature)?;
    let numbers = reader.sequence(|reader| {
        let mut number = || UintRef::decode(reader).map(|number| number.as_bytes().to_vec());
        Ok([number()?, number()?])
    })?;
    reader.finish(numbers)
}

/// A signature as JWS has it (RFC 7518, section 3.4).
pub(super) fn jws_signature(algorithm: Algorithm, signature: Vec<u8>) -> Result<Vec<u8>> {
    let width = match algorithm {
        Algorithm::EcdsaP256 => 32,
        Algorithm::EcdsaP384 => 48,
        Algorithm::Ed25519 | Algorithm::Rsa3072 => return Ok(signature),
    };
    let numbers = ecdsa_numbers(&signature).context(Kind::Internal, "an ECDSA signature")?;
    let zeros = |number: &Vec<u8>| vec![0; width - number.len().min(width)];
    Ok(numbers.iter().flat_map(|number| [zeros(number), number.clone()].concat()).collect())
}

/// A signature as SSH has it (RFC 4253, section 6.6; RFC 5656; RFC 8332; RFC 8709).
pub(super) fn ssh_signature(algorithm: Algorithm, signature: Vec<u8>) -> Result<Signature> {
    let ecdsa = |curve| ssh_key::Algorithm::Ecdsa { curve };
    let (name, is_ecdsa) = match algorithm {
        Algorithm::Ed25519 => (ssh_key::Algorithm::Ed25519, false),
        Algorithm::EcdsaP256 => (ecdsa(EcdsaCurve::NistP256), true),
        Algorithm::EcdsaP384 => (ecdsa(EcdsaCurve::NistP384), true),
        Algorithm::Rsa3072 => (ssh_key::Algorithm::Rsa { hash: Some(HashAlg::Sha256) }, false),
    };
    let failed = "a signature of SSH";
    if !is_ecdsa {
        return Signature::new(name, signature).context(Kind::Internal, failed);
    }
    let mut data = Vec::with_capacity(signature.len() + 8);
    for number in ecdsa_numbers(&signature).context(Kind::Internal, failed)? {
        let number = Mpint::from_positive_bytes(&number).context(Kind::Internal, failed)?;
        let length = u32::try_from(number.as_bytes().len()).context(Kind::Internal, failed)?;
        data.extend(length.to_be_bytes());
        data.extend(number.as_bytes());
    }
    Signature::new(name, data).context(Kind::Internal, failed)
}
