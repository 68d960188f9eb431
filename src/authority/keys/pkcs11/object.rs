//! Keys as a token has them, and how it makes them and signs by them.

use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use cryptoki::types::Ulong;
use ring::digest;
use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use yasna::{construct_der, parse_der};

use super::trouble::Trouble;
use crate::authority::keys::private::Algorithm;
use crate::error::{Error, Result};
use crate::random;

/// Object identifiers in DER, as `CKA_EC_PARAMS` has them: `prime256v1`, `secp384r1`, `id-Ed25519`.
const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];
const ED25519: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];
/// The same curve by its name, `edwards25519`: of the two forms a token may take only one.
const ED25519_NAME: &[u8] = b"\x13\x0cedwards25519";
/// What stands before a SHA-256 hash in a signature of PKCS#1 v1.5 (RFC 8017, section 9.2).
const SHA256_PREFIX: &[u8] = &[
    0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00,
    0x04, 0x20,
];

/// What every RSA key has at least, in bits.
const RSA_BITS: usize = 3072;

/// The object of that class and label; none where there is none.
///
/// # Errors
/// Where there are two: nothing says which is meant.
pub(super) fn find(
    session: &Session,
    class: ObjectClass,
    label: &str,
) -> Result<Option<ObjectHandle>, Trouble> {
    let template = [Attribute::Token(true), Attribute::Class(class), Attribute::Label(label.into())];
    let found = session.find_objects(&template)?;
    if let [_, _, ..] = found.as_slice() {
        return Err(Error::usage(format!("it has {} objects {label} of one kind", found.len()))
            .hint("have those that are not the authority's destroyed, or give them other labels")
            .into());
    }
    Ok(found.first().copied())
}

/// That a private key may be used as one is.
///
/// # Errors
/// Where the token hands it out, or wants a PIN for each signature.
pub(super) fn check_private(session: &Session, key: ObjectHandle, label: &str) -> Result<(), Trouble> {
    let wanted = [AttributeType::Sensitive, AttributeType::AlwaysAuthenticate];
    for attribute in session.get_attributes(key, &wanted)? {
        let why = match attribute {
            Attribute::Sensitive(false) => {
                "can be read out of the token by whoever has its PIN (CKA_SENSITIVE)"
            }
            Attribute::AlwaysAuthenticate(true) => {
                "wants the PIN for each signature (CKA_ALWAYS_AUTHENTICATE)"
            }
            _ => continue,
        };
        return Err(Error::usage(format!("its private key {label} {why}")).into());
    }
    Ok(())
}

/// The public key of an object: what it signs by, and its bytes as a SubjectPublicKeyInfo holds them.
pub(super) fn public(
    session: &Session,
    key: ObjectHandle,
    label: &str,
) -> Result<(Algorithm, Vec<u8>), Trouble> {
    let wanted = [
        AttributeType::KeyType,
        AttributeType::EcParams,
        AttributeType::EcPoint,
        AttributeType::Modulus,
        AttributeType::PublicExponent,
    ];
    let (mut kind, mut curve, mut point, mut modulus, mut exponent) = (None, vec![], vec![], vec![], vec![]);
    for attribute in session.get_attributes(key, &wanted)? {
        match attribute {
            Attribute::KeyType(found) => kind = Some(found),
            Attribute::EcParams(bytes) => curve = bytes,
            Attribute::EcPoint(bytes) => point = bytes,
            Attribute::Modulus(bytes) => modulus = bytes,
            Attribute::PublicExponent(bytes) => exponent = bytes,
            _ => {}
        }
    }
    let found = match (kind, curve.as_slice()) {
        (Some(KeyType::RSA), _) => rsa(&modulus, &exponent).map(|key| (Algorithm::Rsa3072, key)),
        (Some(KeyType::EC), P256) => point_of(&point, 65).map(|point| (Algorithm::EcdsaP256, point)),
        (Some(KeyType::EC), P384) => point_of(&point, 97).map(|point| (Algorithm::EcdsaP384, point)),
        (Some(KeyType::EC | KeyType::EC_EDWARDS), ED25519 | ED25519_NAME) => {
            point_of(&point, 32).map(|point| (Algorithm::Ed25519, point))
        }
        _ => None,
    };
    let wrong = || Error::usage(format!("its public key {label} is none that the authority has"));
    found.ok_or_else(|| {
        wrong().hint("there are: Ed25519, ECDSA over P-256 and P-384, RSA of 3072 bits or more").into()
    })
}

/// A point of that length: as the standard has it, in an OCTET STRING, or bare, as some tokens do.
fn point_of(bytes: &[u8], length: usize) -> Option<Vec<u8>> {
    let bare = parse_der(bytes, |reader| reader.read_bytes()).ok().filter(|point| point.len() == length);
    let point = bare.or_else(|| (bytes.len() == length).then(|| bytes.to_vec()))?;
    // Uncompressed, where there is more than one form.
    (length == 32 || point.first() == Some(&4)).then_some(point)
}

/// An `RSAPublicKey` in DER, of a key that is long enough.
fn rsa(modulus: &[u8], exponent: &[u8]) -> Option<Vec<u8>> {
    let digits = modulus.iter().skip_while(|byte| **byte == 0).count();
    (digits >= RSA_BITS / 8 && !exponent.is_empty()).then(|| {
        construct_der(|writer| {
            writer.write_sequence(|writer| {
                writer.next().write_bigint_bytes(modulus, true);
                writer.next().write_bigint_bytes(exponent, true);
            });
        })
    })
}

/// Makes a pair of keys; the private one never leaves the token.
pub(super) fn generate(session: &Session, label: &str, algorithm: Algorithm) -> Result<(), Trouble> {
    let id = random::bytes::<16>()?.to_vec();
    let both = [Attribute::Token(true), Attribute::Label(label.into()), Attribute::Id(id)];
    let secret = [
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Sign(true),
    ];
    let made = |mechanism: &Mechanism<'_>, shape: Vec<Attribute>| {
        let public = [&both[..], &[Attribute::Private(false), Attribute::Verify(true)], &shape].concat();
        session.generate_key_pair(mechanism, &public, &[&both[..], &secret].concat())
    };
    let curve = |params: &[u8]| vec![Attribute::EcParams(params.to_vec())];
    match algorithm {
        Algorithm::EcdsaP256 => made(&Mechanism::EccKeyPairGen, curve(P256)),
        Algorithm::EcdsaP384 => made(&Mechanism::EccKeyPairGen, curve(P384)),
        Algorithm::Ed25519 => made(&Mechanism::EccEdwardsKeyPairGen, curve(ED25519)).or_else(|error| {
            // What matters is said of the usual form.
            made(&Mechanism::EccEdwardsKeyPairGen, curve(ED25519_NAME)).map_err(|_| error)
        }),
        Algorithm::Rsa3072 => {
            let bits = Ulong::try_from(RSA_BITS)?;
            let shape = vec![Attribute::ModulusBits(bits), Attribute::PublicExponent(vec![1, 0, 1])];
            made(&Mechanism::RsaPkcsKeyPairGen, shape)
        }
    }?;
    Ok(())
}

/// Signs a message. Hashes are made here: a list of a million certificates does not go to the token.
pub(super) fn sign(
    session: &Session,
    key: ObjectHandle,
    algorithm: Algorithm,
    message: &[u8],
) -> Result<Vec<u8>, Trouble> {
    let hashed = |hash| digest::digest(hash, message);
    let ecdsa = |hash| session.sign(&Mechanism::Ecdsa, key, hashed(hash).as_ref());
    Ok(match algorithm {
        Algorithm::Ed25519 => {
            session.sign(&Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Pure)), key, message)?
        }
        Algorithm::EcdsaP256 => in_asn1(&ecdsa(&digest::SHA256)?),
        Algorithm::EcdsaP384 => in_asn1(&ecdsa(&digest::SHA384)?),
        Algorithm::Rsa3072 => {
            let encoded = [SHA256_PREFIX, hashed(&digest::SHA256).as_ref()].concat();
            session.sign(&Mechanism::RsaPkcs, key, &encoded)?
        }
    })
}

/// An ECDSA signature, which PKCS#11 has as two numbers of one length, in ASN.1 (RFC 3279, section 2.2.3).
fn in_asn1(signature: &[u8]) -> Vec<u8> {
    let (r, s) = signature.split_at(signature.len() / 2);
    construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_bigint_bytes(r, true);
            writer.next().write_bigint_bytes(s, true);
        });
    })
}

/// Whether it is a signature of this key over the message.
pub(super) fn verifies(algorithm: Algorithm, public: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let by: &dyn VerificationAlgorithm = match algorithm {
        Algorithm::Ed25519 => &signature::ED25519,
        Algorithm::EcdsaP256 => &signature::ECDSA_P256_SHA256_ASN1,
        Algorithm::EcdsaP384 => &signature::ECDSA_P384_SHA384_ASN1,
        Algorithm::Rsa3072 => &signature::RSA_PKCS1_2048_8192_SHA256,
    };
    UnparsedPublicKey::new(by, public).verify(message, signature).is_ok()
}
