//! What an instance keeps between two runs, and how a join changes it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::super::instance::{BEGINNING, JoinClaims, MAX_EARLIER, MAX_OLDER, secret_hash};
use super::proof::instance_id;
use crate::error::{Context as _, Error, Kind, Result};
use crate::random;
use crate::secret::Secret;

/// The version of the file's shape.
const VERSION: u32 = 1;
/// How long a request may still arrive after its worker gave it up, in
/// seconds: as long as its assertion is good, and some.
const UNDER_WAY: i64 = 300;
/// Where half of the places for older requests are taken, the pause before the
/// next is such a part of the time that the recent ones span.
const SLOWLY: i64 = 64;
/// How many used secrets are remembered, so that one left behind in some
/// environment is known for what it is.
const MAX_SPENT: usize = 64;

/// The file.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StorageState {
    version: u32,
    /// The authority that it is registered with.
    pub(super) authority: String,
    /// The join token that it is registered with.
    #[serde(rename = "token")]
    pub(super) join_token: String,
    /// The instance that joins.
    pub(super) current: Option<KeptInstance>,
    /// One that is being registered.
    pub(super) next: Option<KeptInstance>,
    /// SHA-256 of the secrets that registered this worker, in base64url, newest last.
    spent: Vec<String>,
}

/// An instance's own half.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeptInstance {
    /// Its id.
    pub(super) id: String,
    /// The seed of its Ed25519 key, in base64url.
    key: Secret,
    /// SHA-256 of the secret that registers it, in base64url.
    secret: String,
    /// The generation that its next join presents.
    generation: i64,
    /// The attempt to move on from it, since its first request was written.
    attempt: Option<Attempt>,
}

/// Requests that got no answer; any of them may have been accepted.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Attempt {
    id: String,
    tries: i64,
    recent: Vec<SentRequest>,
    /// How the ids begin of those before the recent ones. A storage that an
    /// earlier version wrote has forgotten them.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    older: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SentRequest {
    id: String,
    time: i64,
}

impl StorageState {
    /// Of a worker that was never registered.
    pub(super) fn new(authority: &str, join_token: &str) -> Self {
        Self {
            version: VERSION,
            authority: authority.to_owned(),
            join_token: join_token.to_owned(),
            ..Self::default()
        }
    }

    /// Reads it; the words of an error are for a person and hold nothing of the file.
    pub(super) fn parse(text: &Secret) -> Result<Self, String> {
        // The parser's words may repeat what it read, which is a key.
        let state: Self = serde_json::from_str(text.expose()).map_err(|error| {
            format!("it cannot be read (line {}, column {})", error.line(), error.column())
        })?;
        if state.version != VERSION {
            return Err(format!("it is of version {}, this machine-id knows {VERSION}", state.version));
        }
        let whole = |instance: &KeptInstance| instance.key().is_ok() && instance.generation >= 0;
        if !state.current.iter().chain(&state.next).all(whole) {
            return Err("an instance in it is broken".to_owned());
        }
        Ok(state)
    }

    /// As text.
    pub(super) fn text(&self) -> Result<Zeroizing<String>> {
        let text = serde_json::to_string_pretty(self).context(Kind::Internal, "cannot write the state")?;
        Ok(Zeroizing::new(text))
    }

    /// Whether a secret has done its work here.
    pub(super) fn has_spent(&self, secret: &Secret) -> bool {
        self.spent.contains(&fingerprint(secret))
    }

    /// The instance that this secret registers: the one that is waiting for it, or a new one.
    pub(super) fn registering(&mut self, secret: &Secret) -> Result<&mut KeptInstance> {
        let fingerprint = fingerprint(secret);
        let waiting = self.next.take().filter(|next| next.secret == fingerprint);
        let instance = waiting.map_or_else(|| KeptInstance::new(fingerprint), Ok)?;
        Ok(self.next.insert(instance))
    }

    /// The join of that instance with that request was certainly not accepted.
    pub(super) fn take_back(&mut self, id: &str, request: &str) {
        let instances = self.current.iter_mut().chain(&mut self.next);
        instances.filter(|instance| instance.id == id).for_each(|instance| instance.take_back(request));
    }

    /// The join of that instance was accepted.
    pub(super) fn settle(&mut self, id: &str, generation: i64) -> Result<(), String> {
        if self.next.as_ref().is_some_and(|next| next.id == id) {
            self.current = self.next.take();
            self.spent.extend(self.current.iter().map(|current| current.secret.clone()));
            let surplus = self.spent.len().saturating_sub(MAX_SPENT);
            self.spent.drain(..surplus);
        }
        let current = self.current.as_mut().filter(|current| current.id == id);
        let current = current.ok_or("its answer is about another instance")?;
        if generation <= current.generation {
            return Err("its answer does not move the generation on".to_owned());
        }
        current.generation = generation;
        current.attempt = None;
        Ok(())
    }
}

impl Attempt {
    /// Makes place for one more. What is not named whole any more must not
    /// arrive: it would look like a copy's. What is not known at all any more
    /// must not have been accepted, so that nothing is ever forgotten; where many
    /// got no answer the pauses grow, and there is place for weeks.
    fn make_place(&mut self, now: i64) -> Result<()> {
        let unanswered = |how: String| Error::new(Kind::Unreachable, format!("{how} got no certificates"));
        let (Some(oldest), Some(newest)) = (self.recent.first(), self.recent.last()) else { return Ok(()) };
        if self.recent.len() < MAX_EARLIER {
            return Ok(());
        }
        let since = |request: &SentRequest| now.saturating_sub(request.time).saturating_abs();
        if since(oldest) < UNDER_WAY {
            return Err(unanswered(format!("{MAX_EARLIER} attempts within minutes"))
                .hint("wait some minutes, and let whatever runs this pause longer between its attempts"));
        }
        let known = self.older.len() / BEGINNING;
        let pause = since(oldest) / SLOWLY;
        if known >= MAX_OLDER {
            return Err(unanswered(format!("{} attempts, more than a worker can account for,", self.tries))
                .hint("register it anew: ask the authority's operator for another secret (`machine-id authority token add`)"));
        }
        if known >= MAX_OLDER / 2 && since(newest) < pause {
            return Err(unanswered(format!("{} attempts in a row", self.tries))
                .hint(format!("the next one may be made {pause} s after the last")));
        }
        self.older.extend(oldest.id.chars().take(BEGINNING));
        self.recent.remove(0);
        Ok(())
    }
}

impl KeptInstance {
    fn new(secret: String) -> Result<Self> {
        let mut seed = Zeroizing::new([0; 32]);
        random::fill(seed.as_mut())?;
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.as_ref())
            .map_err(|error| Error::internal(error.to_string()).context("cannot make a key"))?;
        Ok(Self {
            id: instance_id(pair.public_key().as_ref()),
            key: Secret::new(URL_SAFE_NO_PAD.encode(seed.as_ref())),
            secret,
            generation: 0,
            attempt: None,
        })
    }

    /// The seed of its key, and its public key.
    pub(super) fn key(&self) -> Result<(Zeroizing<Vec<u8>>, Vec<u8>)> {
        let broken = || Error::new(Kind::Usage, "the instance's key is broken");
        let seed = Zeroizing::new(URL_SAFE_NO_PAD.decode(self.key.expose()).map_err(|_| broken())?);
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| broken())?;
        let public = pair.public_key().as_ref().to_vec();
        if instance_id(&public) == self.id { Ok((seed, public)) } else { Err(broken()) }
    }

    /// The next request; to be written before it is sent.
    pub(super) fn ask(&mut self, now: i64) -> Result<JoinClaims> {
        let attempt = match &mut self.attempt {
            Some(attempt) => attempt,
            none => none.insert(Attempt { id: name()?, tries: 0, recent: Vec::new(), older: String::new() }),
        };
        let id = name()?;
        let join = JoinClaims {
            id: id.clone(),
            generation: self.generation,
            attempt: attempt.id.clone(),
            tries: attempt.tries,
            earlier: attempt.recent.iter().map(|request| request.id.clone()).collect(),
            older: attempt.older.clone(),
        };
        attempt.make_place(now)?;
        attempt.tries = attempt.tries.saturating_add(1);
        attempt.recent.push(SentRequest { id, time: now });
        Ok(join)
    }

    /// The request of that id, the last one, was certainly not accepted: it need not be accounted for.
    pub(super) fn take_back(&mut self, id: &str) {
        if let Some(attempt) = &mut self.attempt
            && attempt.recent.pop_if(|last| last.id == id).is_some()
        {
            attempt.tries = attempt.tries.saturating_sub(1);
        }
    }
}

/// What tells one secret from another; it is random enough for a plain hash.
fn fingerprint(secret: &Secret) -> String {
    URL_SAFE_NO_PAD.encode(secret_hash(secret.expose()))
}

/// 128 random bits as text.
fn name() -> Result<String> {
    Ok(URL_SAFE_NO_PAD.encode(random::bytes::<16>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registered() -> StorageState {
        let mut state = StorageState::new("https://a", "t");
        let id = state.registering(&Secret::new("one".into())).unwrap().id.clone();
        state.settle(&id, 1).unwrap();
        state
    }

    #[test]
    fn what_is_written_reads_back_and_does_not_print() {
        let mut state = registered();
        state.current.as_mut().unwrap().ask(7).unwrap();
        let text = state.text().unwrap();
        let read = StorageState::parse(&Secret::new(text.to_string())).unwrap();
        assert_eq!(read.text().unwrap(), text);
        let seed = state.current.as_ref().unwrap().key.expose().to_owned();
        assert!(text.contains(&seed) && !format!("{state:?}").contains(&seed));
        for broken in [
            "",
            "{}",
            "[]",
            &text.replace(&seed, &URL_SAFE_NO_PAD.encode([1; 32])),
            &text.replace("\"version\": 1", "\"version\": 2"),
        ] {
            let why = StorageState::parse(&Secret::new(broken.to_owned())).unwrap_err();
            assert!(!why.contains(&seed), "{why}");
        }
    }

    #[test]
    fn a_secret_registers_once_and_waits_for_its_answer() {
        let mut state = registered();
        assert!(state.has_spent(&Secret::new("one".into())));
        let two = Secret::new("two".into());
        let old = state.current.as_ref().unwrap().id.clone();
        let first = state.registering(&two).unwrap().id.clone();
        assert_eq!(state.registering(&two).unwrap().id, first, "the same, after a lost reply");
        assert_eq!(state.current.as_ref().unwrap().id, old, "kept until then");
        state.settle(&first, 2).unwrap();
        assert_eq!(state.current.as_ref().unwrap().id, first);
        assert!(state.next.is_none() && state.has_spent(&two) && state.has_spent(&Secret::new("one".into())));
    }

    #[test]
    fn requests_name_those_before_them_until_one_is_answered() {
        let mut state = registered();
        let instance = state.current.as_mut().unwrap();
        let (first, second) = (instance.ask(1).unwrap(), instance.ask(2).unwrap());
        assert_eq!((second.tries, second.earlier.as_slice()), (1, [first.id.clone()].as_slice()));
        assert_eq!((first.attempt == second.attempt, first.generation), (true, 1));
        let id = instance.id.clone();
        assert!(state.settle(&id, 1).is_err() && state.settle("w-other", 9).is_err());
        state.settle(&id, 3).unwrap();
        let third = state.current.as_mut().unwrap().ask(3).unwrap();
        assert_eq!((third.generation, third.tries, third.earlier.len()), (3, 0, 0));
        assert_ne!(third.attempt, first.attempt);
    }

    #[test]
    fn nothing_that_may_still_arrive_is_forgotten() {
        let mut state = registered();
        let instance = state.current.as_mut().unwrap();
        for time in 0..256 {
            instance.ask(time).unwrap();
        }
        let error = instance.ask(256).unwrap_err();
        assert_eq!(error.to_string(), "256 attempts within minutes got no certificates");
        assert_eq!(error.kind(), Kind::Unreachable);
    }

    /// A worker that tries each minute for three weeks, whose requests all get no answer.
    #[test]
    fn every_request_is_accounted_for_through_weeks() {
        const WEEKS: i64 = 3 * 7 * 24 * 60;
        let mut state = registered();
        let instance = state.current.as_mut().unwrap();
        let mut ids: Vec<String> = Vec::new();
        let mut longest = 0;
        let mut last = 0;
        for minute in 0..WEEKS {
            let join = match instance.ask(minute * 60) {
                Ok(join) => join,
                Err(error) => {
                    assert_eq!(error.kind(), Kind::Unreachable);
                    assert!(error.to_string().ends_with(" attempts in a row got no certificates"), "{error}");
                    continue;
                }
            };
            (longest, last) = (longest.max(minute - last), minute);
            assert_eq!(usize::try_from(join.tries).unwrap(), ids.len());
            assert_eq!(join.named(), ids.len());
            let split = ids.len() - join.earlier.len();
            assert_eq!(join.earlier, ids[split..]);
            assert_eq!(join.older, ids[..split].iter().map(|id| &id[..4]).collect::<String>());
            ids.push(join.id);
            // A day of it costs no pause that anybody would notice.
            assert!(minute > 12 * 60 || longest <= 1, "{minute}: {longest}");
        }
        println!("{} requests, pauses up to {longest} minutes", ids.len());
        assert!(ids.len() > 900 && longest < 12 * 60, "{} requests, {longest} minutes", ids.len());
    }

    #[test]
    fn what_was_not_sent_is_taken_back() {
        let mut state = registered();
        let instance = state.current.as_mut().unwrap();
        let first = instance.ask(1).unwrap();
        for time in 0..5000 {
            let join = instance.ask(time).unwrap();
            assert_eq!((join.tries, join.earlier.as_slice()), (1, [first.id.clone()].as_slice()));
            instance.take_back("another");
            instance.take_back(&join.id);
        }
    }
}
