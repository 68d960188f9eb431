//! Signatures by ECDSA keys of SSH (RFC 5656), which ring makes: of P-256 and P-384.

use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair};
use ssh_key::private::EcdsaKeypair;
use ssh_key::{EcdsaCurve, Mpint, Signature};

use crate::rfc4251::put_string;

/// Signs; none for another curve.
pub(super) fn sign(pair: &EcdsaKeypair, data: &[u8]) -> Option<Signature> {
    let algorithm = match pair.curve() {
        EcdsaCurve::NistP256 => &ECDSA_P256_SHA256_FIXED_SIGNING,
        EcdsaCurve::NistP384 => &ECDSA_P384_SHA384_FIXED_SIGNING,
        EcdsaCurve::NistP521 => return None,
    };
    let (private, public, random) = (pair.private_key_bytes(), pair.public_key_bytes(), SystemRandom::new());
    let key = EcdsaKeyPair::from_private_key_and_public_key(algorithm, private, public, &random).ok()?;
    let signed = key.sign(&random, data).ok()?;
    let (r, s) = signed.as_ref().split_at(signed.as_ref().len() / 2);
    let mut numbers = Vec::with_capacity(signed.as_ref().len() + 10);
    for number in [r, s] {
        put_string(&mut numbers, Mpint::from_positive_bytes(number).ok()?.as_bytes());
    }
    Signature::new(pair.algorithm(), numbers).ok()
}
