//! Instances: workers that stay. What an authority remembers of each, and which
//! of its joins are honest.
//!
//! A worker's storage holds its key and a generation, which every join moves
//! on. Of two copies of a storage, the one that joins second presents a
//! generation that is gone, and that is how a copy shows. What must not look
//! like one is an honest worker that lost a reply, was killed, or whose request
//! was held up on its way: it has moved on less far than the authority, or
//! further than the request that arrives now.
//!
//! Clocks decide nothing here: whoever copied a storage could set theirs.
//! Instead every request names those that its worker made before it and that
//! may have been accepted without its knowing ([`JoinClaims::earlier`]). Only the
//! storage that made a request can name it, since each has a random id.

use std::fmt;

use futures_util::future::BoxFuture;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use crate::clock::Held;
use crate::error::Result;

/// The most requests that a join names as made before it. Where more went
/// unanswered, it has the beginnings of the ids of those before.
pub const MAX_EARLIER: usize = 256;

/// How much of an id that is, in bytes: of base64url, 24 random bits. Whoever
/// does not know them has one guess, and is found out where it is wrong.
pub const BEGINNING: usize = 4;

/// The most that it has of those: an assertion with all of them is as long as one may be.
pub const MAX_OLDER: usize = 1024;

/// The largest generation, and number of requests: what JSON numbers hold everywhere.
pub const MAX_COUNT: i64 = (1 << 53) - 1;

/// Whether that has the form of an instance's id.
pub fn is_id(text: &str) -> bool {
    let digits = text.strip_prefix("w-").unwrap_or_default();
    digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// The SHA-256 of a registration secret, by which it is known.
pub fn secret_hash(secret: &str) -> [u8; 32] {
    digest(&SHA256, secret.as_bytes()).as_ref().try_into().unwrap_or_default()
}

/// What verifiers may look up of what the authority remembers.
pub trait InstanceLookup: Send + Sync + fmt::Debug {
    /// The instance of that id.
    fn instance<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Option<Instance>>>;

    /// Whether a secret of that SHA-256 could register a worker with the join token now.
    fn admits<'a>(
        &'a self,
        secret: &'a [u8; 32],
        join_token: &'a str,
        now: i64,
    ) -> BoxFuture<'a, Result<bool>>;
}

/// A registered instance, as the authority knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// The join token that it registered with.
    pub join_token: String,
    /// Its public key.
    pub key: Vec<u8>,
}

/// A verified join of an instance, to be judged and recorded in the
/// transaction that uses its proof up.
#[derive(Clone, Debug)]
pub struct InstanceJoin {
    /// The instance's id.
    pub instance: String,
    /// The public key that the proof was verified with.
    pub key: Vec<u8>,
    /// SHA-256 of the secret that may register it, where it is not known yet.
    pub secret: Option<[u8; 32]>,
    /// The instance that has agreed to give it its place, once it has heard of its registration.
    pub replaces: Option<String>,
    /// What it presents.
    pub claims: JoinClaims,
    /// How long the requests before it must be remembered as used.
    pub held: Held,
}

/// What a request says of its worker's past, as its assertion's claims.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinClaims {
    /// The request's own id, random.
    #[serde(rename = "jti")]
    pub id: String,
    /// The worker's generation.
    pub generation: i64,
    /// Names the attempt to move on from this generation; all requests until an answer share it.
    pub attempt: String,
    /// How many requests the attempt had before this one.
    pub tries: i64,
    /// Their ids; of more than [`MAX_EARLIER`] the newest.
    pub earlier: Vec<String>,
    /// The [`BEGINNING`]s of the ids of those before, one after the other.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub older: String,
}

impl JoinClaims {
    /// How many requests it names.
    pub fn named(&self) -> usize {
        self.earlier.len().saturating_add(self.older.len() / BEGINNING)
    }

    /// Whether it knows that the request of that id was made so many before it.
    fn knows(&self, id: &str, before: usize) -> bool {
        // The place counts too: it could name many that it guesses.
        let older = || {
            let end =
                self.older.len().checked_sub(before.checked_sub(self.earlier.len() + 1)? * BEGINNING)?;
            self.older.get(end.checked_sub(BEGINNING)?..end)
        };
        self.earlier.iter().any(|earlier| earlier == id)
            || older().is_some_and(|begins| id.starts_with(begins))
    }
}

/// What the last accepted join left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LastJoin {
    /// The generation that the next join must present.
    pub expected: i64,
    /// The generation that the last one presented.
    pub base: i64,
    /// Its attempt.
    pub attempt: String,
    /// How many requests the attempt had before it.
    pub tries: i64,
    /// Its id.
    pub id: String,
}

/// What is to become of a join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It is accepted, and leaves this.
    Accepted(LastJoin),
    /// Two storages claim to be the instance.
    Forked,
    /// The worker knows more than the authority: the store is older than the worker.
    Ahead,
}

impl LastJoin {
    /// Judges a join whose request was not seen before, and that no accepted
    /// request named as one before it.
    pub fn judge(&self, join: &JoinClaims) -> Judgement {
        if join.generation > self.expected {
            return Judgement::Ahead;
        }
        // The reply to the last accepted one was lost, and this is the same
        // worker again: it knows that it made it.
        let of_attempt = join.generation == self.base && join.attempt == self.attempt;
        let before = usize::try_from(join.tries.saturating_sub(self.tries)).unwrap_or(0);
        let again = of_attempt && before > 0 && join.knows(&self.id, before);
        if join.generation == self.expected || again {
            // Moving on each time makes a copy of the pending storage collide too.
            return Judgement::Accepted(Self {
                expected: self.expected.saturating_add(1),
                base: join.generation,
                attempt: join.attempt.clone(),
                tries: join.tries,
                id: join.id.clone(),
            });
        }
        Judgement::Forked
    }
}

#[cfg(test)]
#[path = "instance_tests.rs"]
mod tests;
