//! Giving certificates back: `POST /v1/revoke`, signed with a key of the issuance.

use std::borrow::Borrow;
use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::future::join_all;
use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::assertion::{AssertionKey, LIFETIME};
use crate::clock::{Clock, LEEWAY};
use crate::destination::OUTPUTS;
use crate::destination::jwt::TOKEN;
use crate::destination::manifest::Issuer;
use crate::destination::wipe::Found;
use crate::environment::Environment;
use crate::error::{Context as _, Error, Kind, Result};
use crate::net::{self, AuthorityTrust};
use crate::once::exchange::authority::Place;
use crate::once::exchange::keys::JobKeys;
use crate::once::exchange::{Granted, Obtained, refusal};
use crate::once::run::Run;
use crate::openssh;
use crate::pem;
use crate::random;
use crate::secret::Secret;
use crate::terminal::Progress;
use crate::wire::{OutputResponse, Problem, RevokeRequest};

/// How long all revocations of a run together may take.
pub(crate) const REVOKE_TIME: Duration = Duration::from_secs(5);

/// An issuance, with what proves that it is ours.
pub struct Revocable {
    issuance_id: String,
    key: AssertionKey,
    /// The serial of what the key is for, where no certificate says it.
    serial: Option<String>,
    /// When the last of its certificates expires, in seconds since 1970; later than any where that is not known.
    ends_at: i64,
}

impl fmt::Debug for Revocable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Revocable").field("issuance_id", &self.issuance_id).finish_non_exhaustive()
    }
}

impl Revocable {
    /// Of an answer and the keys that it is for; a TLS key where there is one.
    pub fn of_answer<K: Borrow<JobKeys>>(
        issuance_id: &str,
        outputs: &[OutputResponse],
        keys: &[K],
    ) -> Option<Self> {
        let issued = || outputs.iter().zip(keys.iter().map(Borrow::borrow));
        let tls = issued().find_map(|(output, keys)| {
            AssertionKey::tls(keys.tls.as_ref()?.pkcs8.clone(), output.tls_certificate_chain.as_deref()?)
        });
        let ssh = || {
            issued().find_map(|(output, keys)| {
                AssertionKey::ssh(keys.ssh.as_ref()?.private.as_ref()?, output.ssh_certificate.as_deref()?)
            })
        };
        // The key of a token has no certificate.
        let bare = || {
            issued().find_map(|(output, keys)| {
                let tls = keys.tls.as_ref().filter(|_| output.jwt.is_some())?;
                Some((AssertionKey::bare(tls.pkcs8.clone(), &tls.spki)?, output.serial.clone()))
            })
        };
        let ends_at = last_end(outputs.iter().map(|output| {
            let token = output.jwt.as_ref().map(Secret::expose);
            [output.ssh_certificate.as_deref(), output.tls_certificate_chain.as_deref(), token]
        }));
        let (key, serial) = match tls.or_else(ssh) {
            Some(key) => (key, None),
            None => bare().map(|(key, serial)| (key, Some(serial)))?,
        };
        Some(Self { issuance_id: issuance_id.to_owned(), key, serial, ends_at })
    }

    /// Of what one issuer has in a destination.
    fn of_issuer(found: &Found, issuer: &Issuer<'_>) -> Option<Self> {
        let plan = found.manifest.plan_of_issuance(issuer);
        let read = |folder: &str, name: &str| {
            Some(Zeroizing::new(String::from_utf8(found.read(folder, name)?).ok()?))
        };
        let tls = plan.iter().find_map(|(folder, names)| {
            let both =
                OUTPUTS.iter().find_map(|output| (output.tls_pem)(names, &|name| read(folder, name)))?;
            AssertionKey::tls(pem::decode_all(&both, "PRIVATE KEY")?.pop()?, &both)
        });
        let ssh = || {
            let pairs = [("key", "key-cert.pub"), ("ssh_host", "ssh_host-cert.pub")];
            plan.keys().flat_map(|folder| pairs.map(|pair| (folder, pair))).find_map(|(folder, pair)| {
                let key = openssh::private(&read(folder, pair.0)?).ok()?;
                AssertionKey::ssh(&key, &read(folder, pair.1)?)
            })
        };
        // Another destination may hold others of the same issuance.
        let ends_at = if found.manifest.also.is_empty() {
            last_end(
                plan.keys().map(|folder| ["key-cert.pub", "tls.crt", TOKEN].map(|name| read(folder, name))),
            )
        } else {
            i64::MAX
        };
        let issuance_id = issuer.issuance_id.to_owned();
        Some(Self { issuance_id, key: tls.or_else(ssh)?, serial: None, ends_at })
    }

    /// Whether all of its certificates have expired, by whichever clock.
    pub(crate) fn is_over(&self, now: i64) -> bool {
        self.ends_at < now.saturating_sub(LEEWAY)
    }

    /// Has the authority revoke it; nothing is tried twice.
    async fn revoke(&self, client: &reqwest::Client, authority: &str, time: Duration) -> Result<()> {
        let url = format!("{authority}/v1/revoke");
        let request = RevokeRequest {
            issuance_id: self.issuance_id.clone(),
            assertion: self.assertion(&url, &Clock::system())?,
        };
        let body = serde_json::to_vec(&request).context(Kind::Internal, "cannot write the request")?;
        let request = client.post(&url).header(CONTENT_TYPE, "application/json").body(body).timeout(time);
        let response =
            net::send(request).await.map_err(|error| Error::new(Kind::Unreachable, error.to_string()))?;
        let status = response.status().as_u16();
        if status == 200 {
            return Ok(());
        }
        let body = net::body(response, 1 << 16).await.unwrap_or_default();
        let said = serde_json::from_slice::<Problem>(&body)
            .map_or_else(|_| format!("status {status}"), |p| refusal::words(&p));
        Err(Error::new(Kind::Refused, said).context("the authority refused"))
    }

    fn assertion(&self, audience: &str, clock: &Clock) -> Result<Secret> {
        let (now, jti) = (clock.now(), random::hex::<16>()?);
        let mut claims = json!({"aud": audience, "iat": now, "exp": now + LIFETIME, "jti": jti});
        if let (Some(serial), Some(claims)) = (&self.serial, claims.as_object_mut()) {
            claims.insert("serial".to_owned(), json!(serial));
        }
        self.key.sign(&claims)
    }
}

/// Revokes those that are still valid, all at once and each within `time`. A
/// failure is only a warning, and one for all: the job's own work is done, and
/// the certificates end by themselves.
async fn revoke_all<R: Borrow<Revocable>>(
    issued: &[R],
    client: &reqwest::Client,
    authority: &str,
    progress: &Progress,
    time: Duration,
) {
    let now = Clock::system().now();
    let valid = issued.iter().map(Borrow::borrow).filter(|issuance| !issuance.is_over(now));
    let revocations = join_all(valid.map(async |issuance| {
        issuance.revoke(client, authority, time).await.inspect(|()| progress.step("revoked the certificates"))
    }));
    let failed = revocations.await.into_iter().find_map(Result::err);
    if let Some(error) = failed {
        progress.warning(&format!("{NOT_REVOKED}: {error}"));
    }
}

/// An issuance of this run, and who gave it.
pub(crate) struct Own {
    place: Place,
    pub revocable: Revocable,
}

impl Own {
    /// Each that a run has got; but for those without a key of ours, which nobody can give back.
    pub(crate) fn of(obtained: &Obtained, keys: &[JobKeys]) -> Vec<Self> {
        let own = |granted: &Granted| {
            let response = &granted.issuance.response;
            let of = |answer: &OutputResponse| keys.iter().find(|keys| keys.output == answer.name);
            let keys: Vec<&JobKeys> = response.outputs.iter().filter_map(of).collect();
            let revocable = Revocable::of_answer(&response.issuance_id, &response.outputs, &keys)?;
            Some(Self { place: granted.place.clone(), revocable })
        };
        obtained.all().filter_map(own).collect()
    }
}

/// The same for issuances of this run, each by whoever gave it, over a connection that is there already.
pub(crate) async fn revoke_own(issued: &[Own], run: Run<'_>) {
    let mut places: Vec<&Place> = Vec::new();
    for own in issued {
        if places.iter().all(|place| place.url != own.place.url) {
            places.push(&own.place);
        }
    }
    join_all(places.into_iter().map(async |place| {
        let of_it = issued.iter().filter(|own| own.place.url == place.url);
        let of_it: Vec<&Revocable> = of_it.map(|own| &own.revocable).collect();
        revoke_all(&of_it, &place.client, &place.url, run.progress, REVOKE_TIME).await;
    }))
    .await;
}

/// What is said where a revocation fails.
pub(crate) const NOT_REVOKED: &str = "could not revoke the certificates, which end by themselves";

/// What destinations of one run hold, and where it is given back.
#[derive(Debug, Default)]
pub(crate) struct Stored(Vec<Given>);

/// An issuance in a [`Stored`].
#[derive(Debug)]
struct Given {
    revocable: Revocable,
    authority: String,
    trust: AuthorityTrust,
    is_leaf: bool,
}

impl Stored {
    /// Of what stands in a destination.
    pub(crate) fn of(found: &Found) -> Self {
        let mut stored = Self::default();
        stored.add(found);
        stored
    }

    /// That another destination of the run stands there too. Who has none of its keys in one may have some in another.
    pub(crate) fn add(&mut self, found: &Found) {
        let manifest = &found.manifest;
        for issuer in manifest.issuers() {
            let is_known = |given: &Given| {
                given.revocable.issuance_id == issuer.issuance_id && given.authority == issuer.authority
            };
            if self.0.iter().any(is_known) {
                continue;
            }
            let trust = match issuer.leaf_pin {
                Some(pin) => AuthorityTrust::new(None, pin),
                None => AuthorityTrust::new(manifest.ca_file.as_deref(), manifest.ca_pin.as_deref()),
            };
            self.0.extend(Revocable::of_issuer(found, &issuer).map(|revocable| Given {
                revocable,
                authority: issuer.authority.to_owned(),
                trust,
                is_leaf: issuer.leaf_pin.is_some(),
            }));
        }
    }

    /// Whether there is nothing that could be given back.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Revokes it all: at `authority` where one was typed and else at the manifest's, trusted as was typed, or by the
    /// manifest, or by the environment; what leaf clusters issued, at theirs. A failure is only a warning.
    pub(crate) async fn revoke(
        &self,
        (authority, trust): (Option<&str>, AuthorityTrust),
        env: &Environment,
        progress: &Progress,
        time: Duration,
    ) {
        join_all(self.0.iter().map(async |given| {
            let (url, trust) = match given.is_leaf {
                true => (given.authority.as_str(), given.trust.clone()),
                false => {
                    let trust = trust.clone().or(given.trust.clone()).or(AuthorityTrust::of_environment(env));
                    (authority.unwrap_or(&given.authority), trust)
                }
            };
            let at =
                net::authority_url(url).and_then(|url| Ok((net::authority_client(&trust, &url, time)?, url)));
            match at {
                Ok((client, url)) => {
                    revoke_all(std::slice::from_ref(&given.revocable), &client, &url, progress, time).await;
                }
                Err(error) => progress.warning(&format!("{NOT_REVOKED}: {error}")),
            }
        }))
        .await;
    }
}

/// When the last of these expires, SSH certificates, X.509 chains and tokens.
fn last_end<T: AsRef<str>>(issued: impl Iterator<Item = [Option<T>; 3]>) -> i64 {
    let ends = issued.flat_map(|[ssh, tls, jwt]| {
        let (ssh, tls) = (ssh.map(|line| ssh_end(line.as_ref())), tls.map(|chain| tls_end(chain.as_ref())));
        [ssh, tls, jwt.map(|token| jwt_end(token.as_ref()))]
    });
    ends.flatten().max().unwrap_or(i64::MAX)
}

/// When a token expires; later than any where it does not say.
fn jwt_end(token: &str) -> i64 {
    let claims = || {
        let payload = Zeroizing::new(URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?);
        serde_json::from_slice::<Value>(&payload).ok()?.get("exp")?.as_i64()
    };
    claims().unwrap_or(i64::MAX)
}

/// When an SSH certificate expires; later than any where it cannot be read.
fn ssh_end(line: &str) -> i64 {
    let certificate = ssh_key::Certificate::from_openssh(line.trim_end());
    certificate.ok().and_then(|it| i64::try_from(it.valid_before()).ok()).unwrap_or(i64::MAX)
}

/// The same of a chain's leaf.
fn tls_end(chain: &str) -> i64 {
    let leaf = pem::decode_all(chain, "CERTIFICATE").and_then(|blocks| blocks.into_iter().next());
    let end = leaf.and_then(|leaf| {
        let (_, parsed) = x509_parser::parse_x509_certificate(&leaf).ok()?;
        Some(parsed.validity().not_after.timestamp())
    });
    end.unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::KeyKinds;
    use crate::suite::KeyType;

    fn parts(assertion: &Secret) -> (serde_json::Value, serde_json::Value) {
        let part = |index: usize| {
            let text = assertion.expose().split('.').nth(index).unwrap();
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap()
        };
        (part(0), part(1))
    }

    #[test]
    fn assertions_are_as_the_contract_says() {
        net::install_crypto();
        let keys =
            JobKeys::generate("x", KeyKinds { ssh: true, tls: true, host: false }, KeyType::Ed25519, None)
                .unwrap();
        let output = |ssh: bool, tls: bool| OutputResponse {
            name: "x".into(),
            ssh_certificate: ssh.then(|| "ssh-ed25519-cert-v01@openssh.com AAAA comment\n".into()),
            tls_certificate_chain: tls.then(|| pem::encode("CERTIFICATE", b"der").to_string()),
            jwt: None,
            serial: "1".into(),
            tls_serial: None,
            principals: vec![],
            roles: vec![],
        };
        let keys = [keys];
        let clock = Clock::held(1000);
        let both = Revocable::of_answer("i", &[output(true, true)], &keys).unwrap();
        let (header, claims) = parts(&both.assertion("https://a/v1/revoke", &clock).unwrap());
        assert_eq!((header["alg"].as_str(), header["x5c"][0].as_str()), (Some("ES256"), Some("ZGVy")));
        assert_eq!(
            (claims["aud"].as_str(), claims["iat"].as_i64(), claims["exp"].as_i64()),
            (Some("https://a/v1/revoke"), Some(1000), Some(1060))
        );
        assert_eq!(claims["jti"].as_str().unwrap().len(), 32);
        let ssh = Revocable::of_answer("i", &[output(true, false)], &keys).unwrap();
        let (header, _) = parts(&ssh.assertion("https://a/v1/revoke", &clock).unwrap());
        assert_eq!(header["alg"], "EdDSA");
        assert_eq!(header["ssh_certificate"], "ssh-ed25519-cert-v01@openssh.com AAAA");
        assert!(Revocable::of_answer("i", &[output(false, false)], &keys).is_none());
        assert!(!both.is_over(i64::MAX - 1), "an end that cannot be read is none");
        assert_eq!(format!("{ssh:?}"), "Revocable { issuance_id: \"i\", .. }");
    }

    #[test]
    fn the_last_certificate_counts_with_leeway() {
        let revocable = |ends_at| Revocable {
            issuance_id: "i".into(),
            key: AssertionKey::Tls { pkcs8: Zeroizing::default(), chain: vec![] },
            serial: None,
            ends_at,
        };
        assert!(!revocable(1000).is_over(1000 + LEEWAY) && revocable(1000).is_over(1001 + LEEWAY));
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.not_after = rcgen::date_time_ymd(2030, 1, 1);
        let pem = params.self_signed(&key).unwrap().pem();
        assert_eq!(tls_end(&pem), 1_893_456_000);
        assert_eq!((tls_end("x"), ssh_end("x")), (i64::MAX, i64::MAX));
    }

    #[tokio::test]
    async fn what_has_ended_is_not_asked_about() {
        net::install_crypto();
        let trust = AuthorityTrust { ca_file: None, ca_pin: Some(format!("sha256:{}", "00".repeat(32))) };
        let client = net::authority_client(&trust, "https://a", Duration::ZERO);
        let over = Revocable {
            issuance_id: "i".into(),
            // Nothing to sign with, so that asking would fail at once.
            key: AssertionKey::Tls { pkcs8: Zeroizing::default(), chain: vec![] },
            serial: None,
            ends_at: 0,
        };
        let progress = Progress::new(crate::terminal::Level::Quiet, &Environment::default());
        let started = std::time::Instant::now();
        revoke_all(&[over], &client.unwrap(), "https://127.0.0.1:1", &progress, Duration::from_secs(5)).await;
        assert!(started.elapsed() < Duration::from_secs(4));
    }
}
