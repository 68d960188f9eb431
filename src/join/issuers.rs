//! Issuers' key sets: discovered, cached, refreshed in the background, and
//! bounded in size and time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jsonwebtoken::jwk::{Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind};
use serde_json::Value;
use tokio::sync::{Semaphore, watch};

use crate::net::{self, RequestError};
use crate::text::shown_exactly;

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
/// Requests that may wait for one issuer at once. Each holds a connection to
/// the authority for as long, which jobs of other issuers need too.
const MAX_WAITING: usize = 128;
/// The same for all issuers together: one dead proxy stands before many.
const MAX_WAITING_IN_ALL: usize = 1024;

/// An issuer's usable keys.
#[derive(Clone, Debug, Default)]
pub struct KeySet(Vec<UsableKey>);

#[derive(Clone, Debug)]
struct UsableKey {
    kid: Option<String>,
    /// The one algorithm that the key is for, where it says so.
    algorithm: Option<KeyAlgorithm>,
    key: DecodingKey,
}

impl KeySet {
    /// Reads a JWK set (RFC 7517, section 5) with a usable key at least. Keys that cannot be read, are
    /// not for signatures, or are too weak are left out.
    pub fn parse(json: &[u8]) -> Result<Self, String> {
        let set: Value = serde_json::from_slice(json).map_err(|_| "it is not JSON")?;
        let keys = set.get("keys").and_then(Value::as_array).ok_or("it has no list `keys`")?;
        let usable: Vec<UsableKey> = keys.iter().take(MAX_KEYS).filter_map(usable).collect();
        if usable.is_empty() {
            return Err("it has no usable key".to_owned());
        }
        Ok(Self(usable))
    }

    /// The keys of that `kid` that may be used with that algorithm: an issuer that publishes two under one means
    /// either. Where token or key has no `kid`, which is optional (RFC 7515, section 4.1.4; RFC 7517, section 4.5),
    /// the one that it can be, and none of several.
    pub fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Vec<&DecodingKey> {
        let fits = |key: &&UsableKey| {
            key.key.family() == algorithm.family()
                && key.algorithm.is_none_or(|named| named == KeyAlgorithm::from(algorithm))
        };
        let fitting = |may_be: &dyn Fn(Option<&str>) -> bool| -> Vec<&DecodingKey> {
            let keys = self.0.iter().filter(fits).filter(|key| may_be(key.kid.as_deref()));
            keys.map(|key| &key.key).collect()
        };
        let named = fitting(&|key| key.is_some() && key == kid);
        let unnamed = fitting(&|key| key.is_none() || kid.is_none());
        match (named.is_empty(), unnamed.len()) {
            (true, 1) => unnamed,
            _ => named,
        }
    }

    /// Whether it has a key of that `kid`.
    pub fn has(&self, kid: &str) -> bool {
        self.0.iter().any(|key| key.kid.as_deref() == Some(kid))
    }
}

/// The key, if it may verify signatures (RFC 7517, sections 4.2 to 4.5).
fn usable(json: &Value) -> Option<UsableKey> {
    let jwk: Jwk = serde_json::from_value(json.clone()).ok()?;
    let common = &jwk.common;
    let for_signatures = common.public_key_use.as_ref().is_none_or(|used| *used == PublicKeyUse::Signature)
        && common.key_operations.as_ref().is_none_or(|ops| ops.contains(&KeyOperations::Verify));
    let kid = common.key_id.clone();
    let is_named_well = kid.as_ref().is_none_or(|kid| !kid.is_empty() && kid.len() <= 256);
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    let strong = match key.kind() {
        // A modulus of 2048 bits has its highest bit in the 256th byte from the end.
        DecodingKeyKind::RsaModulusExponent { n, .. } => {
            n.iter().position(|byte| *byte != 0).is_some_and(|zeros| n.len() - zeros >= 256)
        }
        DecodingKeyKind::SecretOrDer(_) => key.family() != AlgorithmFamily::Hmac,
    };
    (for_signatures && strong && is_named_well).then(|| UsableKey {
        kid,
        algorithm: common.key_algorithm,
        key,
    })
}

/// Every issuer's keys. Only issuers that a join token names are ever asked.
#[derive(Debug)]
pub struct Issuers {
    client: reqwest::Client,
    issuers: Mutex<HashMap<String, Arc<CachedIssuer>>>,
    waiting: Semaphore,
}

/// One issuer's cache.
#[derive(Debug)]
struct CachedIssuer {
    state: Mutex<CacheState>,
    waiting: Semaphore,
}

#[derive(Clone, Debug, Default)]
struct CacheState {
    keys: Option<(Arc<KeySet>, Instant)>,
    asked: Option<Instant>,
    /// The question under way, if any: it ends when its sender goes.
    answer: Option<watch::Receiver<()>>,
    /// Why the last answer was none; nothing where it was one.
    failure: Option<String>,
}

impl CacheState {
    fn serving(&self) -> Option<(&Arc<KeySet>, Duration)> {
        let (keys, since) = self.keys.as_ref()?;
        Some((keys, since.elapsed())).filter(|(_, age)| *age < SERVE_AT_MOST)
    }
}

impl Issuers {
    /// With the client that asks them.
    pub fn new(client: reqwest::Client) -> Self {
        let waiting = Semaphore::new(MAX_WAITING_IN_ALL);
        Self { client, issuers: Mutex::default(), waiting }
    }

    /// The client that asks them, for methods that ask something else.
    pub fn client(&self) -> &reqwest::Client {
        &self.client
    }

    /// The issuer's keys, with the one that is wanted if the issuer has it.
    ///
    /// # Errors
    /// Where that cannot be told: the issuer has not answered when last asked,
    /// and the keys of before do not have it or are too old; or too
    /// many wait for its answer already.
    pub async fn keys(
        &self,
        url: &str,
        has_it: &(dyn Fn(&KeySet) -> bool + Sync),
    ) -> Result<Arc<KeySet>, String> {
        let issuer = {
            let mut issuers = self.issuers.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(issuers.entry(url.to_owned()).or_default())
        };
        let state = issuer.state().clone();
        if let Some((keys, age)) = state.serving()
            && age < AWAIT_AFTER
            && has_it(keys)
        {
            if age > REFRESH_AFTER {
                drop(self.ask(&issuer, url));
            }
            return Ok(Arc::clone(keys));
        }
        let unavailable = |why: &str| format!("the keys of {url} cannot be had: {why}");
        if let Some(mut answer) = self.ask(&issuer, url) {
            let (Ok(_of_this), Ok(_of_all)) = (issuer.waiting.try_acquire(), self.waiting.try_acquire())
            else {
                return Err(unavailable("too many requests wait for its answer"));
            };
            // Nothing is ever sent: it ends when the question has.
            let _ = answer.changed().await;
        }
        let state = issuer.state().clone();
        match state.serving() {
            Some((keys, _)) if state.failure.is_none() || has_it(keys) => Ok(Arc::clone(keys)),
            _ => Err(unavailable(state.failure.as_deref().unwrap_or("it was not asked"))),
        }
    }

    /// The question under way, or a new one unless the issuer was just asked.
    /// It is asked in a task of its own: whoever waits may hang up, and the
    /// answer is for everybody. Otherwise a stranger could start the cool-down
    /// and take the question away. The cool-down starts before the answer, so
    /// that a slow or dead issuer is not asked more often.
    fn ask(&self, issuer: &Arc<CachedIssuer>, url: &str) -> Option<watch::Receiver<()>> {
        let (asking, answer) = watch::channel(());
        {
            let mut state = issuer.state();
            if let Some(answer) = state.answer.as_ref().filter(|answer| answer.has_changed().is_ok()) {
                return Some(answer.clone());
            }
            if state.asked.is_some_and(|asked| asked.elapsed() < COOL_DOWN) {
                return None;
            }
            state.asked = Some(Instant::now());
            state.answer = Some(answer.clone());
        }
        let (client, url, issuer) = (self.client.clone(), url.to_owned(), Arc::clone(issuer));
        tokio::spawn(async move {
            let fetched = tokio::time::timeout(FETCH_TIMEOUT, fetch(&client, &url)).await;
            issuer.learn(fetched.unwrap_or_else(|_| Err("no answer in time".to_owned())));
            drop(asking);
        });
        Some(answer)
    }
}

impl Default for CachedIssuer {
    fn default() -> Self {
        Self { state: Mutex::default(), waiting: Semaphore::new(MAX_WAITING) }
    }
}

impl CachedIssuer {
    fn state(&self) -> MutexGuard<'_, CacheState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn learn(&self, fetched: Result<KeySet, String>) {
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
    let named = document.get("issuer").and_then(Value::as_str).unwrap_or_default();
    if named != issuer {
        return Err(format!("{discovery} is of another issuer: `{}`", shown_exactly(named)));
    }
    let jwks = document.get("jwks_uri").and_then(Value::as_str).ok_or("the discovery has no `jwks_uri`")?;
    if !jwks.starts_with("https://") {
        return Err("the discovery's `jwks_uri` is not https".to_owned());
    }
    KeySet::parse(&get(client, jwks, MAX_KEY_SET).await?).map_err(|why| format!("{jwks}: {why}"))
}

async fn get(client: &reqwest::Client, url: &str, limit: usize) -> Result<Vec<u8>, String> {
    let said = |why: RequestError| match why {
        RequestError::Untrusted(_) => {
            format!(
                "{url}: {why}; a CA that this machine does not know belongs into `issuer_ca_file` of authority.yaml"
            )
        }
        why => format!("{url}: {why}"),
    };
    let response = net::send(client.get(url)).await.map_err(said)?;
    if response.status() != reqwest::StatusCode::OK {
        // A redirect too: nobody else speaks for an issuer.
        return Err(format!("{url}: status {}", response.status().as_u16()));
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
        assert_eq!(set.find(Some("good"), Algorithm::ES256).len(), 1);
        assert_eq!(set.find(Some("good"), Algorithm::ES384).len(), 0);
        assert_eq!(set.find(Some("good"), Algorithm::HS256).len(), 0);
        assert_eq!(set.find(Some("other"), Algorithm::ES256).len(), 0);
    }

    #[test]
    fn without_a_kid_it_is_the_only_key_that_it_can_be() {
        let found = |keys: &[&str], kid| {
            let keys: Vec<String> = keys.iter().map(|kid| ec(kid)).collect();
            set(&keys).unwrap().find(kid, Algorithm::ES256).len()
        };
        let (a, b, none) = (r#","kid":"a""#, r#","kid":"b""#, "");
        for (keys, of_none, of_a, of_other) in [
            (vec![none], 1, 1, 1),
            (vec![a], 1, 1, 0),
            (vec![a, none], 0, 1, 1),
            (vec![a, b], 0, 1, 0),
            (vec![none, none], 0, 0, 0),
            (vec![a, a], 0, 2, 0),
            (vec![r#","alg":"ES384""#, none], 1, 1, 1),
        ] {
            let counts = [None, Some("a"), Some("other")].map(|kid| found(&keys, kid));
            assert_eq!(counts, [of_none, of_a, of_other], "{keys:?}");
        }
        assert!(set(&[ec(r#","kid":"""#)]).is_err());
    }

    /// A key that names its algorithm is for that one, by its name in RFC 7518
    /// and 8037, and for no other of its family.
    #[test]
    fn a_key_is_for_the_algorithm_that_it_names() {
        let rsa = format!(r#""kty":"RSA","n":"{}","e":"AQAB""#, "u".repeat(341) + "w");
        let p256 = r#""kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM""#;
        let ed25519 = r#""kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo""#;
        let all = [
            ("HS256", Algorithm::HS256),
            ("HS384", Algorithm::HS384),
            ("HS512", Algorithm::HS512),
            ("RS256", Algorithm::RS256),
            ("RS384", Algorithm::RS384),
            ("RS512", Algorithm::RS512),
            ("PS256", Algorithm::PS256),
            ("PS384", Algorithm::PS384),
            ("PS512", Algorithm::PS512),
            ("ES256", Algorithm::ES256),
            ("ES384", Algorithm::ES384),
            ("EdDSA", Algorithm::EdDSA),
        ];
        for (key, family) in [
            (rsa.as_str(), AlgorithmFamily::Rsa),
            (p256, AlgorithmFamily::Ec),
            (ed25519, AlgorithmFamily::Ed),
        ] {
            for (name, named) in all {
                let set = set(&[format!(r#"{{{key},"kid":"k","alg":"{name}"}}"#)]).unwrap();
                for (_, algorithm) in all {
                    let fits = algorithm == named && algorithm.family() == family;
                    assert_eq!(
                        set.find(Some("k"), algorithm).len(),
                        usize::from(fits),
                        "{name} {algorithm:?}"
                    );
                }
            }
            let other = |alg: &str| {
                let set = set(&[format!(r#"{{{key},"kid":"k"{alg}}}"#)]).unwrap();
                all.iter().filter(|(_, algorithm)| set.find(Some("k"), *algorithm).len() == 1).count()
            };
            assert_eq!(other(""), family.algorithms().len(), "one that names none is for its whole family");
            for unknown in ["RSA-OAEP", "RSA1_5", "ES512", "none", "rs256"] {
                assert_eq!(other(&format!(r#","alg":"{unknown}""#)), 0, "{unknown}");
            }
        }
    }

    /// An issuer that takes connections and says nothing.
    #[tokio::test]
    async fn one_question_for_all_who_wait_and_not_too_many_do() {
        crate::net::install_crypto();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let issuers = Arc::new(Issuers::new(reqwest::Client::builder().no_proxy().build().unwrap()));
        let mut jobs = tokio::task::JoinSet::new();
        for _ in 0..MAX_WAITING + 50 {
            let (issuers, url) = (Arc::clone(&issuers), url.clone());
            jobs.spawn(async move { issuers.keys(&url, &|keys| keys.has("kid")).await.unwrap_err() });
        }
        let (silent, _) = listener.accept().await.unwrap();
        for _ in 0..50 {
            let why = jobs.join_next().await.unwrap().unwrap();
            assert!(why.ends_with("too many requests wait for its answer"), "{why}");
        }
        assert_eq!(issuers.waiting.available_permits(), MAX_WAITING_IN_ALL - MAX_WAITING);
        drop(silent);
        let answers = jobs.join_all().await;
        assert!(answers.len() == MAX_WAITING && answers.iter().all(|why| *why == answers[0]), "{answers:?}");
        assert_eq!(issuers.waiting.available_permits(), MAX_WAITING_IN_ALL);
        let asked_again = tokio::time::timeout(Duration::from_millis(100), listener.accept()).await;
        assert!(asked_again.is_err(), "asked more than once");
    }

    #[test]
    fn no_set_is_an_error() {
        for bad in ["", "{}", r#"{"keys":{}}"#, r#"{"keys":[]}"#] {
            assert!(KeySet::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
