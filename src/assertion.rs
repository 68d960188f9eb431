//! Assertions: what the holder of a certificate says to the authority, as a JWS by its key with the certificate in the
//! header (`docs/protocol.md`).

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::{
    AlgorithmParameters, CommonParameters, EllipticCurve, EllipticCurveKeyParameters, EllipticCurveKeyType,
    Jwk,
};
use jsonwebtoken::{Algorithm, Header};
use ring::rsa::{KeyPairComponents, PublicKeyComponents};
use ring::signature::RsaKeyPair;
use serde::Serialize;
use ssh_key::private::{EcdsaKeypair, KeypairData, RsaKeypair};
use ssh_key::{Mpint, PrivateKey};
use zeroize::Zeroizing;

use crate::error::Result;
use crate::jws;
use crate::pem;
use crate::secret::Secret;

/// How long an assertion holds, in seconds; the authority takes no more.
pub const LIFETIME: i64 = 60;

/// A private key and its certificate, or what stands for one, as the header has it.
pub enum AssertionKey {
    /// Of TLS: PKCS#8, and the certificate's chain, both in DER.
    Tls {
        /// The key.
        pkcs8: Zeroizing<Vec<u8>>,
        /// The chain, leaf first.
        chain: Vec<Zeroizing<Vec<u8>>>,
    },
    /// Of TLS without a certificate: PKCS#8 in DER, and the public key, which stands for one; the claims then name the `serial`.
    Bare {
        /// The key.
        pkcs8: Zeroizing<Vec<u8>>,
        /// Its public half.
        jwk: Box<Jwk>,
    },
    /// Of SSH.
    Ssh {
        /// The key.
        key: SshSigner,
        /// The certificate: type and base64.
        certificate: String,
    },
}

/// The private numbers of an SSH key.
pub enum SshSigner {
    /// The seed of Ed25519.
    Ed25519(Zeroizing<[u8; 32]>),
    /// Of ECDSA: with which algorithm it signs, the scalar, and the public point.
    Ecdsa(Algorithm, Zeroizing<Vec<u8>>, Vec<u8>),
    /// RSA of 2048 to 4096 bits.
    Rsa(Box<RsaKeyPair>),
}

impl AssertionKey {
    /// Of a key in DER and its chain in PEM.
    pub fn tls(pkcs8: Zeroizing<Vec<u8>>, chain: &str) -> Option<Self> {
        Some(Self::Tls { pkcs8, chain: pem::decode_all(chain, "CERTIFICATE")? })
    }

    /// Of a key of P-256 or P-384 in DER, and its SubjectPublicKeyInfo.
    pub fn bare(pkcs8: Zeroizing<Vec<u8>>, spki: &[u8]) -> Option<Self> {
        let curves = [(EllipticCurve::P256, 32), (EllipticCurve::P384, 48)];
        let jwk = curves.into_iter().find_map(|(curve, length)| {
            // The point, uncompressed, is what stands last, behind the count of unused bits (RFC 5480, section 2.2).
            let (_, point) = spki.split_at_checked(spki.len().checked_sub(2 * length + 2)?)?;
            let (x, y) = point.strip_prefix(&[0, 4])?.split_at_checked(length)?;
            let [x, y] = [x, y].map(|half| URL_SAFE_NO_PAD.encode(half));
            let key_type = EllipticCurveKeyType::EC;
            let parameters = EllipticCurveKeyParameters { key_type, curve, x, y };
            Some(Jwk {
                common: CommonParameters::default(),
                algorithm: AlgorithmParameters::EllipticCurve(parameters),
            })
        });
        Some(Self::Bare { pkcs8, jwk: Box::new(jwk?) })
    }

    /// Of the certificate's line, type and base64 are sent, without its comment. None where no algorithm of ours is for the key.
    pub fn ssh(key: &PrivateKey, certificate: &str) -> Option<Self> {
        let ecdsa = |algorithm, private: &[u8], public: &[u8]| {
            SshSigner::Ecdsa(algorithm, Zeroizing::new(private.to_vec()), public.to_vec())
        };
        let key = match key.key_data() {
            KeypairData::Ed25519(pair) => SshSigner::Ed25519(Zeroizing::new(pair.private.to_bytes())),
            KeypairData::Ecdsa(EcdsaKeypair::NistP256 { public, private }) => {
                ecdsa(Algorithm::ES256, private.as_slice(), public.as_bytes())
            }
            KeypairData::Ecdsa(EcdsaKeypair::NistP384 { public, private }) => {
                ecdsa(Algorithm::ES384, private.as_slice(), public.as_bytes())
            }
            KeypairData::Rsa(pair) => SshSigner::Rsa(Box::new(rsa(pair)?)),
            _ => return None,
        };
        let mut words = certificate.split_whitespace();
        Some(Self::Ssh { key, certificate: format!("{} {}", words.next()?, words.next()?) })
    }

    /// Says these claims.
    pub fn sign(&self, claims: &impl Serialize) -> Result<Secret> {
        match self {
            Self::Tls { pkcs8, chain } => {
                let x5c = chain.iter().map(|certificate| STANDARD.encode(certificate)).collect();
                jws::sign_pkcs8(pkcs8, Header { x5c: Some(x5c), ..Header::default() }, claims)
            }
            Self::Bare { pkcs8, jwk } => {
                jws::sign_pkcs8(pkcs8, Header { jwk: Some((**jwk).clone()), ..Header::default() }, claims)
            }
            Self::Ssh { key, certificate } => {
                let mut header = Header::default();
                header.extras.insert("ssh_certificate", certificate.as_str());
                match key {
                    SshSigner::Ed25519(seed) => jws::sign_eddsa(seed.as_ref(), header, claims),
                    SshSigner::Ecdsa(algorithm, private, public) => {
                        jws::sign_ecdsa(*algorithm, (private, public), header, claims)
                    }
                    SshSigner::Rsa(pair) => jws::sign_rsa(pair, header, claims),
                }
            }
        }
    }
}

/// The pair as ring takes it, which wants two numbers more than OpenSSH writes down.
fn rsa(pair: &RsaKeypair) -> Option<RsaKeyPair> {
    let (public, private) = (&pair.public, &pair.private);
    let [d, p, q, q_inverse] =
        [&private.d, &private.p, &private.q, &private.iqmp].map(Mpint::as_positive_bytes);
    let (d, p, q) = (d?, p?, q?);
    let (d_p, d_q) = (exponent(d, p), exponent(d, q));
    RsaKeyPair::from_components(&KeyPairComponents {
        public_key: PublicKeyComponents {
            n: public.n.as_positive_bytes()?,
            e: public.e.as_positive_bytes()?,
        },
        d,
        p,
        q,
        dP: &d_p,
        dQ: &d_q,
        qInv: q_inverse?,
    })
    .ok()
}

/// `d` modulo the prime less one: bit by bit, so that no other crate sees it. Numbers are big-endian.
fn exponent(d: &[u8], prime: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut less = Zeroizing::new(vec![0]);
    less.extend_from_slice(prime);
    // It is odd.
    less.last_mut().into_iter().for_each(|last| *last &= 0xfe);
    let mut rest = Zeroizing::new(vec![0; less.len()]);
    for bit in d.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)) {
        let mut carry = bit;
        for digit in rest.iter_mut().rev() {
            (*digit, carry) = (*digit << 1 | carry, *digit >> 7);
        }
        if *rest >= *less {
            let mut borrow = false;
            for (digit, less) in rest.iter_mut().rev().zip(less.iter().rev()) {
                let (left, one) = digit.overflowing_sub(*less);
                let (left, other) = left.overflowing_sub(u8::from(borrow));
                (*digit, borrow) = (left, one || other);
            }
        }
    }
    rest.remove(0);
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponents_are_remainders() {
        for (d, prime) in
            [(1_u64 << 60, 65_537_u64), (12_345_678_901, 4_294_967_291), (7, 65_521), (0xffff_ffff_ffff, 257)]
        {
            let bytes = prime.to_be_bytes();
            let prime_bytes = &bytes[bytes.iter().position(|byte| *byte != 0).unwrap()..];
            let rest = exponent(&d.to_be_bytes(), prime_bytes)
                .iter()
                .fold(0, |all, byte| all << 8 | u64::from(*byte));
            assert_eq!(rest, d % (prime - 1), "{d} {prime}");
        }
    }
}
