//! Issuers' key sets: discovered, cached, refreshed in the background, and
//! bounded in size and time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jsonwebtoken::jwk::{Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind};
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::net;

/// Keys older than this are fetched anew while the old ones serve.
const REFRESH_AFTER: Duration = Duration::from_secs(600);
/// Keys older than this serve only where a refresh was tried first: a key that
/// was withdrawn while nobody came is not believed once more.
const AWAIT_AFTER: Duration = Duration::from_secs(3600);
/// Keys older than this serve no more: an issuer that withdrew a key is believed within a day.
const SERVE_AT_MOST: Duration = Duration::from_secs(24 * 3600);
/// An issuer is asked at most once in this time, whatever tokens name.
const COOL_DOWN: Duration = Duration::from_secs(10);
/// How long one fetch may take, discovery included.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_DISCOVERY: usize = 64 << 10;
const MAX_KEY_SET: usize = 256 << 10;
const MAX_KEYS: usize = 64;

/// An issuer's usable keys.
#[derive(Clone, Debug, Default)]
pub struct KeySet(Vec<Key>);

#[derive(Clone)]
struct Key {
    kid: String,
    /// The one algorithm that the key is for, where it says so.
    algorithm: Option<KeyAlgorithm>,
    family: AlgorithmFamily,
    key: DecodingKey,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.kid)
    }
}

impl KeySet {
    /// Reads a JWK set (RFC 7517, section 5). Keys that cannot be read, are
    /// not for signatures, have no `kid`, or are too weak are left out.
    ///
    /// # Errors
    /// Where it is no key set, or none of its keys is usable.
    pub fn parse(json: &[u8]) -> Result<Self, String> {
        let set: Value = serde_json::from_slice(json).map_err(|error| format!("not JSON: {error}"))?;
        let keys = set.get("keys").and_then(Value::as_array).ok_or("it has no list `keys`")?;
        let usable: Vec<Key> = keys.iter().take(MAX_KEYS).filter_map(usable).collect();
        if usable.is_empty() {
            return Err("it has no usable key".to_owned());
        }
        Ok(Self(usable))
    }

    /// The keys of that `kid` that may be used with that algorithm.
    pub fn find<'k>(&'k self, kid: &'k str, algorithm: Algorithm) -> impl Iterator<Item = &'k DecodingKey> {
        let fits = move |key: &&Key| {
            key.kid == kid
                && key.family == algorithm.family()
                && key.algorithm.is_none_or(|named| format!("{named:?}") == format!("{algorithm:?}"))
        };
        self.0.iter().filter(fits).map(|key| &key.key)
    }

    fn has(&self, kid: &str) -> bool {
        self.0.iter().any(|key| key.kid == kid)
    }
}

/// The key, if it may verify signatures (RFC 7517, sections 4.2 to 4.5).
fn usable(json: &Value) -> Option<Key> {
    let jwk: Jwk = serde_json::from_value(json.clone()).ok()?;
    let common = &jwk.common;
    let for_signatures = common.public_key_use.as_ref().is_none_or(|used| *used == PublicKeyUse::Signature)
        && common.key_operations.as_ref().is_none_or(|ops| ops.contains(&KeyOperations::Verify));
    let kid = common.key_id.clone().filter(|kid| !kid.is_empty() && kid.len() <= 256)?;
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    let strong = match key.kind() {
        // A modulus of 2048 bits has its highest bit in the 256th byte from the end.
        DecodingKeyKind::RsaModulusExponent { n, .. } => {
            n.iter().position(|byte| *byte != 0).is_some_and(|zeros| n.len() - zeros >= 256)
        }
        DecodingKeyKind::SecretOrDer(_) => key.family() != AlgorithmFamily::Hmac,
    };
    (for_signatures && strong).then(|| Key {
        kid,
        algorithm: common.key_algorithm,
        family: key.family(),
        key,
    })
}

/// Every issuer's keys. Only issuers that a join token names are ever asked.
#[derive(Debug)]
pub struct Issuers {
    client: reqwest::Client,
    issuers: Mutex<HashMap<String, Arc<Issuer>>>,
}

/// One issuer's cache. Whoever holds `fetching` is the one who asks.
#[derive(Debug, Default)]
struct Issuer {
    state: Mutex<State>,
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Clone, Debug, Default)]
struct State {
    keys: Option<(Arc<KeySet>, Instant)>,
    asked: Option<Instant>,
    /// Why the last answer was none; nothing where it was one.
    failure: Option<String>,
}

impl State {
    fn serving(&self) -> Option<(&Arc<KeySet>, Duration)> {
        let (keys, since) = self.keys.as_ref()?;
        Some((keys, since.elapsed())).filter(|(_, age)| *age < SERVE_AT_MOST)
    }

    fn may_ask(&self) -> bool {
        self.asked.is_none_or(|asked| asked.elapsed() >= COOL_DOWN)
    }
}

impl Issuers {
    /// With the client that asks them.
    #[must_use]
    pub fn new(client: reqwest::Client) -> Self {
        Self { client, issuers: Mutex::default() }
    }

    /// The client that asks them, for methods that ask something else.
    #[must_use]
    pub fn client(&self) -> &reqwest::Client {
        &self.client
    }

    /// The issuer's keys, with one of that `kid` if the issuer has one.
    ///
    /// # Errors
    /// Where that cannot be told: the issuer has not answered when last asked,
    /// and the keys of before do not have that `kid` or are too old.
    pub async fn keys(&self, url: &str, kid: &str) -> Result<Arc<KeySet>, String> {
        let issuer = {
            let mut issuers = self.issuers.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(issuers.entry(url.to_owned()).or_default())
        };
        let state = issuer.snapshot();
        if let Some((keys, age)) = state.serving()
            && keys.has(kid)
            && age < AWAIT_AFTER
        {
            if age > REFRESH_AFTER && state.may_ask() {
                drop(self.ask(&issuer, url));
            }
            return Ok(Arc::clone(keys));
        }
        if state.may_ask() || state.serving().is_none() {
            // Whoever comes while it is asked waits for that answer.
            let _ = self.ask(&issuer, url).await;
        }
        let state = issuer.snapshot();
        let failed = || state.failure.clone().unwrap_or_else(|| "it was not asked".to_owned());
        match state.serving() {
            Some((keys, _)) if keys.has(kid) || state.failure.is_none() => Ok(Arc::clone(keys)),
            _ => Err(format!("the keys of {url} cannot be had: {}", failed())),
        }
    }

    /// Asks in a task of its own: whoever waits may hang up, and the answer is
    /// for everybody. Otherwise a stranger could start the cool-down and take
    /// the question away.
    fn ask(&self, issuer: &Arc<Issuer>, url: &str) -> JoinHandle<()> {
        let (client, url, issuer) = (self.client.clone(), url.to_owned(), Arc::clone(issuer));
        tokio::spawn(async move { issuer.ask(&client, &url).await })
    }
}

impl Issuer {
    fn snapshot(&self) -> State {
        self.state().clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the issuer, unless somebody else just did. The cool-down starts
    /// before the answer, so that a slow or dead issuer is not asked more often.
    async fn ask(&self, client: &reqwest::Client, url: &str) {
        let _one_at_a_time = self.fetching.lock().await;
        {
            let mut state = self.state();
            if !state.may_ask() {
                return;
            }
            state.asked = Some(Instant::now());
        }
        let fetched = match tokio::time::timeout(FETCH_TIMEOUT, fetch(client, url)).await {
            Ok(fetched) => fetched,
            Err(_) => Err("no answer in time".to_owned()),
        };
        let mut state = self.state();
        match fetched {
            Ok(keys) => (state.keys, state.failure) = (Some((Arc::new(keys), Instant::now())), None),
            // The old keys serve on.
            Err(why) => state.failure = Some(why),
        }
    }
}

/// OpenID Connect Discovery 1.0, section 4, then the key set.
async fn fetch(client: &reqwest::Client, issuer: &str) -> Result<KeySet, String> {
    let discovery = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
    let document = get(client, &discovery, MAX_DISCOVERY).await?;
    let document: Value =
        serde_json::from_slice(&document).map_err(|error| format!("{discovery} is not JSON: {error}"))?;
    if document.get("issuer").and_then(Value::as_str) != Some(issuer) {
        return Err(format!("{discovery} is of another issuer"));
    }
    let jwks = document.get("jwks_uri").and_then(Value::as_str).ok_or("the discovery has no `jwks_uri`")?;
    if !jwks.starts_with("https://") {
        return Err("the discovery's `jwks_uri` is not https".to_owned());
    }
    KeySet::parse(&get(client, jwks, MAX_KEY_SET).await?).map_err(|why| format!("{jwks}: {why}"))
}

async fn get(client: &reqwest::Client, url: &str, limit: usize) -> Result<Vec<u8>, String> {
    let said = |why: String| format!("{url}: {why}");
    let response = client.get(url).send().await.map_err(|error| said(net::trouble(&error).to_string()))?;
    if response.status() != reqwest::StatusCode::OK {
        // A redirect too: nobody else speaks for an issuer.
        return Err(said(format!("status {}", response.status().as_u16())));
    }
    net::body(response, limit).await.map_err(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ec(extra: &str) -> String {
        // A point of P-256 (RFC 7517, appendix A.1).
        format!(
            r#"{{"kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
               "y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"{extra}}}"#
        )
    }

    fn set(keys: &[String]) -> Result<KeySet, String> {
        KeySet::parse(format!(r#"{{"keys":[{}]}}"#, keys.join(",")).as_bytes())
    }

    #[test]
    fn unusable_keys_are_left_out_and_do_not_take_others_along() {
        let good = ec(r#","kid":"good","use":"sig","alg":"ES256""#);
        let weak =
            r#"{"kty":"RSA","kid":"weak","n":"sXchDaQebHnPiGvyDOAT4saGEUetSyo9MKLOoWFsueri","e":"AQAB"}"#;
        let bad = [
            ec(""),
            ec(r#","kid":"enc","use":"enc""#),
            ec(r#","kid":"ops","key_ops":["sign"]"#),
            r#"{"kty":"oct","kid":"hmac","k":"AAAA"}"#.to_owned(),
            weak.to_owned(),
            r#"{"kty":"new","kid":"x"}"#.to_owned(),
            "7".to_owned(),
        ];
        assert!(set(&bad).is_err());
        let mut all = bad.to_vec();
        all.push(good);
        let set = set(&all).unwrap();
        assert_eq!(set.0.len(), 1);
        assert_eq!(set.find("good", Algorithm::ES256).count(), 1);
        assert_eq!(set.find("good", Algorithm::ES384).count(), 0);
        assert_eq!(set.find("good", Algorithm::HS256).count(), 0);
        assert_eq!(set.find("other", Algorithm::ES256).count(), 0);
    }

    #[test]
    fn no_set_is_an_error() {
        for bad in ["", "{}", r#"{"keys":{}}"#, r#"{"keys":[]}"#] {
            assert!(KeySet::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
