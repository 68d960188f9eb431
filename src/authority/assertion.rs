//! What somebody says who holds a certificate of ours: a JWS by its key, with the certificate in the header. Whoever could
//! use the certificate can say it, and nobody else; a serial alone says nothing.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey};
use ring::digest::{Digest, SHA256, digest};
use serde_json::{Map, Value};
use ssh_key::public::KeyData;
use x509_parser::public_key::PublicKey as SubjectKey;

use super::Authority;
use super::store::{CertificateKind, CertificateRecord, NewRefusal, Stranger};
use crate::assertion::LIFETIME;
use crate::clock::Held;
use crate::denial::Denial;
use crate::error::{Error, Result};
use crate::join::jwt::{self, AudienceRules, Jwt, TimeRules, text};
use crate::random;

/// Why an assertion is not believed.
#[derive(Debug)]
pub enum Unproven {
    /// It is no good; the name of the record.
    Refused(String),
    /// Too many refusals, or repetitions: try again after so many seconds.
    TooMany(u64),
    /// Something broke inside.
    Broken(Error),
}

impl From<Error> for Unproven {
    fn from(error: Error) -> Self {
        Self::Broken(error)
    }
}

/// How the judgement of one ends that is not believed.
pub(super) enum Unfit {
    /// It is to be recorded yet: why, and whether it is by the certificate's key.
    Refused(String, Stranger),
    Broken(Error),
}

impl Unfit {
    /// Of one that is by the certificate's key.
    pub(super) fn verified(why: impl Into<String>) -> Self {
        Self::Refused(why.into(), Stranger::Verified)
    }
}

impl From<Error> for Unfit {
    fn from(error: Error) -> Self {
        Self::Broken(error)
    }
}

impl From<&'static str> for Unfit {
    fn from(why: &'static str) -> Self {
        Self::Refused(why.to_owned(), Stranger::Unverified)
    }
}

/// An assertion by the key of a certificate that is recorded.
pub(super) struct Assertion {
    /// The certificate's serial.
    pub(super) serial: u64,
    /// What is recorded of it.
    pub(super) record: CertificateRecord,
    claims: Map<String, Value>,
}

impl Assertion {
    /// Reads one, whose certificate is to be one that fits: what else it is, it says. Where a bare key will do, that of a
    /// token is shown by itself.
    pub(super) async fn read(
        authority: &Authority,
        (text, takes_bare): (&str, bool),
        fits: impl FnOnce(&CertificateRecord) -> Result<(), &'static str>,
    ) -> Result<Self, Unfit> {
        let unverified = |denial: Denial| Unfit::Refused(denial.detail, Stranger::Unverified);
        let jwt = Jwt::parse(text).map_err(unverified)?;
        let bare = takes_bare.then_some(&jwt.claims);
        let shown = shown(&jwt.header, bare, jwt.algorithm).ok_or("no usable certificate in the header")?;
        // The store knows the key that each serial was issued for, so a
        // certificate that somebody made up gets nowhere.
        let record = authority.store.certificate(shown.serial).await?.ok_or("no such certificate")?;
        if record.key_hash != shown.key_hash.as_ref() || record.kind != shown.kind {
            return Err("the certificate is not the one of that serial".into());
        }
        fits(&record)?;
        if !jwt.is_signed_by(&shown.key) {
            return Err("the signature does not verify".into());
        }
        Ok(Self { serial: shown.serial, record, claims: jwt.claims })
    }

    /// Its claims, if they are for that URL and of now, and until when it could come again.
    pub(super) fn claims(&self, url: &str, now: i64) -> Result<(&Map<String, Value>, Held), Unfit> {
        let rules = AudienceRules {
            ours: url,
            is_public: true,
            beside: None,
            binding: None,
            requires_binding: false,
        };
        let times = TimeRules { lifetime: 0..=LIFETIME, not_before: false };
        let checked = jwt::audience(&self.claims)
            .and_then(|audience| jwt::check_audience(audience, &rules))
            .and_then(|_| jwt::check_times(&self.claims, &times, now));
        let held = checked.map_err(|denial| Unfit::verified(denial.detail))?;
        Ok((&self.claims, held))
    }
}

/// Records that one is refused, among strangers' refusals, for that reason; `what` was to be done by it.
pub(super) async fn refuse(
    authority: &Authority,
    unfit: Unfit,
    (reason, what): (&'static str, &str),
    peer: IpAddr,
) -> Unproven {
    let (why, stranger) = match unfit {
        Unfit::Refused(why, stranger) => (why, stranger),
        Unfit::Broken(error) => return error.into(),
    };
    let is_verified = stranger == Stranger::Verified;
    if let Err(seconds) = authority.refusals.admit(peer, is_verified) {
        return Unproven::TooMany(seconds);
    }
    let record = async {
        let id = random::id("d")?;
        let entry = NewRefusal {
            id: id.clone(),
            time: authority.clock.now(),
            token: String::new(),
            join_method: String::new(),
            bot: None,
            reason,
            detail: format!("{what}: {why}"),
            claims: None,
            verified: is_verified,
            peer: peer.to_canonical().to_string(),
            stranger: Some(stranger),
        };
        authority.store.refuse(entry).await.map(|()| id)
    };
    record.await.map_or_else(Unproven::Broken, Unproven::Refused)
}

/// A certificate as the assertion's header shows it.
struct Shown {
    kind: CertificateKind,
    serial: u64,
    key_hash: Digest,
    key: DecodingKey,
}

/// The certificate in the header: `x5c` (RFC 7515, section 4.1.6), leaf first, or `ssh_certificate`; or the bare key, `jwk`
/// (section 4.1.3), which is that of what the claims name.
fn shown(
    header: &Map<String, Value>,
    bare: Option<&Map<String, Value>>,
    algorithm: Algorithm,
) -> Option<Shown> {
    match (header.get("x5c"), header.get("ssh_certificate")) {
        _ if header.contains_key("jwk") => {
            let is_alone = !header.contains_key("x5c") && !header.contains_key("ssh_certificate");
            shown_bare(header.get("jwk").filter(|_| is_alone)?.as_object()?, bare?, algorithm)
        }
        (Some(chain), None) => {
            let der = STANDARD.decode(chain.as_array()?.first()?.as_str()?).ok()?;
            shown_x509(&der, algorithm)
        }
        (None, Some(line)) => shown_ssh(line.as_str()?, algorithm),
        _ => None,
    }
}

/// A public key of P-256 or P-384 with no member more than it needs, so that nobody sends his private one.
fn shown_bare(jwk: &Map<String, Value>, claims: &Map<String, Value>, algorithm: Algorithm) -> Option<Shown> {
    let member = |name: &str| jwk.get(name).and_then(Value::as_str);
    let (curve, length) = match algorithm {
        Algorithm::ES256 => ("P-256", 32),
        Algorithm::ES384 => ("P-384", 48),
        _ => return None,
    };
    if jwk.len() != 4 || member("kty") != Some("EC") || member("crv") != Some(curve) {
        return None;
    }
    let half = |name| URL_SAFE_NO_PAD.decode(member(name)?).ok().filter(|half| half.len() == length);
    let point = [vec![4], half("x")?, half("y")?].concat();
    let serial = text(claims, "serial");
    // One spelling, that of `jti`.
    let serial = serial.parse().ok().filter(|number: &u64| number.to_string() == serial)?;
    let key_hash = digest(&SHA256, &spki(algorithm, &point));
    Some(Shown { kind: CertificateKind::Tls, serial, key_hash, key: DecodingKey::from_ec_der(&point) })
}

/// A point as a SubjectPublicKeyInfo has it (RFC 5480), which is what is recorded the hash of.
fn spki(algorithm: Algorithm, point: &[u8]) -> Vec<u8> {
    const EC: &[u64] = &[1, 2, 840, 10045, 2, 1];
    const P256: &[u64] = &[1, 2, 840, 10045, 3, 1, 7];
    const P384: &[u64] = &[1, 3, 132, 0, 34];
    let curve = if algorithm == Algorithm::ES384 { P384 } else { P256 };
    yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_sequence(|writer| {
                for oid in [EC, curve] {
                    writer.next().write_oid(&yasna::models::ObjectIdentifier::from_slice(oid));
                }
            });
            writer.next().write_bitvec_bytes(point, 8 * point.len());
        });
    })
}

fn shown_x509(der: &[u8], algorithm: Algorithm) -> Option<Shown> {
    let (rest, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    let spki = certificate.public_key();
    let key = match (algorithm, spki.parsed().ok()?) {
        (Algorithm::ES256 | Algorithm::ES384, SubjectKey::EC(point)) => {
            DecodingKey::from_ec_der(point.data())
        }
        (Algorithm::PS256, SubjectKey::RSA(key)) => rsa(key.modulus, key.exponent),
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
        (Algorithm::ES256 | Algorithm::ES384, KeyData::Ecdsa(key)) => {
            DecodingKey::from_ec_der(key.as_sec1_bytes())
        }
        (Algorithm::PS256, KeyData::Rsa(key)) => rsa(key.n.as_positive_bytes()?, key.e.as_positive_bytes()?),
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

/// A key of RSA, by its numbers, which may have zeros in front that verifying does not take.
fn rsa(modulus: &[u8], exponent: &[u8]) -> DecodingKey {
    let bare = |number: &[u8]| number.iter().copied().skip_while(|byte| *byte == 0).collect::<Vec<u8>>();
    DecodingKey::from_rsa_raw_components(&bare(modulus), &bare(exponent))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;

    use ssh_key::PrivateKey;
    use zeroize::Zeroizing;

    use super::*;
    use crate::assertion::AssertionKey;
    use crate::pem;

    fn run(folder: &Path, program: &str, arguments: &[&str]) {
        let done = Command::new(program).args(arguments).current_dir(folder).output().unwrap();
        assert!(done.status.success(), "{done:?}");
    }

    fn is_verified(key: &AssertionKey, algorithm: &str) {
        let said = key.sign(&serde_json::json!({"aud": "x"})).unwrap();
        let jwt = Jwt::parse(said.expose()).unwrap();
        assert_eq!(format!("{:?}", jwt.algorithm), algorithm);
        let shown = shown(&jwt.header, None, jwt.algorithm).unwrap();
        assert!(jwt.is_signed_by(&shown.key), "{algorithm}");
        for other in
            [Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA, Algorithm::PS256, Algorithm::RS256]
        {
            let verifies = super::shown(&jwt.header, None, other).is_some_and(|shown| {
                let (message, signature) = said.expose().rsplit_once('.').unwrap();
                crate::jws::verify(signature, message.as_bytes(), &shown.key, other)
            });
            assert_eq!(verifies, other == jwt.algorithm, "{algorithm} as {other:?}");
        }
    }

    /// Keys of OpenSSH's and OpenSSL's own.
    #[test]
    fn every_kind_of_key_says_what_is_verified() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
        run(folder, "ssh-keygen", &["-q", "-N", "", "-t", "ed25519", "-f", "ca"]);
        for (kind, bits, algorithm) in [
            ("ed25519", "256", "EdDSA"),
            ("ecdsa", "256", "ES256"),
            ("ecdsa", "384", "ES384"),
            ("rsa", "2048", "PS256"),
            ("rsa", "3072", "PS256"),
            ("rsa", "4096", "PS256"),
        ] {
            let name = format!("{kind}{bits}");
            run(folder, "ssh-keygen", &["-q", "-N", "", "-t", kind, "-b", bits, "-f", &name]);
            run(
                folder,
                "ssh-keygen",
                &[
                    "-q",
                    "-s",
                    "ca",
                    "-h",
                    "-I",
                    "x",
                    "-n",
                    "x",
                    "-V",
                    "+1h",
                    "-z",
                    "7",
                    &format!("{name}.pub"),
                ],
            );
            let key = PrivateKey::from_openssh(read(&name)).unwrap();
            is_verified(&AssertionKey::ssh(&key, &read(&format!("{name}-cert.pub"))).unwrap(), algorithm);
        }
        for (kind, option, algorithm) in [
            ("ed25519", "", "EdDSA"),
            ("EC", "ec_paramgen_curve:P-256", "ES256"),
            ("EC", "ec_paramgen_curve:P-384", "ES384"),
            ("RSA", "rsa_keygen_bits:3072", "PS256"),
        ] {
            let mut arguments = vec!["genpkey", "-algorithm", kind, "-out", "key.pem"];
            if !option.is_empty() {
                arguments.extend(["-pkeyopt", option]);
            }
            run(folder, "openssl", &arguments);
            run(
                folder,
                "openssl",
                &[
                    "req",
                    "-x509",
                    "-new",
                    "-key",
                    "key.pem",
                    "-subj",
                    "/CN=x",
                    "-set_serial",
                    "7",
                    "-out",
                    "crt.pem",
                ],
            );
            let pkcs8 = pem::decode_all(&read("key.pem"), "PRIVATE KEY").unwrap().pop().unwrap();
            is_verified(
                &AssertionKey::tls(Zeroizing::new(pkcs8.to_vec()), &read("crt.pem")).unwrap(),
                algorithm,
            );
        }
    }
}
