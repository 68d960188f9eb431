//! The client's half of a join method: what it is told about the job, and
//! what it presents for it.

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::future::BoxFuture;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::source::TokenSource;
use crate::environment::Environment;
use crate::error::Result;
use crate::net::Platform;
use crate::secret::Secret;
use crate::wire::{ExchangeResponse, ID_TOKEN, Proof};

/// What a client presents to the authority.
pub struct Presented {
    /// The proof.
    pub proof: Proof,
    /// How long it is good from now, where that is known: another is made for an attempt that comes later.
    pub lasts: Option<Duration>,
    /// What is still to be done once it is known what became of it; dropped where it may have been accepted.
    pub settle: Option<Settle>,
}

impl From<Proof> for Presented {
    fn from(proof: Proof) -> Self {
        // It was minted just now, whatever this machine's clock says.
        let lasts = proof.field(ID_TOKEN).and_then(times).map(|times| seconds(times.iat, times.exp));
        Self { proof, lasts, settle: None }
    }
}

impl Presented {
    /// A token that somebody else had minted, some time ago.
    pub fn handed_over(token: Secret, now: i64) -> Self {
        let lasts = times(&token).map(|times| seconds(now, times.exp));
        Self { lasts, ..Proof::id_token(token).into() }
    }
}

/// What a token says of itself.
#[derive(Deserialize)]
struct Times {
    iat: i64,
    exp: i64,
}

fn times(token: &Secret) -> Option<Times> {
    let payload = URL_SAFE_NO_PAD.decode(token.expose().split('.').nth(1)?).ok()?;
    serde_json::from_slice(&Zeroizing::new(payload)).ok()
}

fn seconds(from: i64, to: i64) -> Duration {
    Duration::from_secs(to.saturating_sub(from).try_into().unwrap_or(0))
}

/// Done before anything is done with the authority's answer, or with none where
/// the proof was certainly not accepted. It fails where what must be kept for the
/// next time cannot be.
pub type Settle = Box<dyn FnOnce(Option<&ExchangeResponse>) -> Result<()> + Send>;

/// A private directory that an instance keeps from one run to the next.
pub trait Storage: Sync + fmt::Debug {
    /// Takes it for one exchange; others wait until the value goes. `Kind::Usage`
    /// where it cannot be used, `Kind::Proof` where it is not free in time.
    fn acquire(&self, deadline: Instant) -> BoxFuture<'_, Result<Box<dyn LockedStorage>>>;
}

/// A [`Storage`] that nobody else uses now.
pub trait LockedStorage: Send {
    /// What is kept in it; nothing in a new one.
    /// `Kind::Usage` where it is somebody else's or others could read it.
    fn read(&self) -> Result<Option<Secret>>;

    /// Replaces what is kept, whole: when this returns it is there whatever
    /// happens next, a power cut included; before, what was kept is.
    fn write(&mut self, content: &str) -> Result<()>;

    /// Its path, for messages.
    fn path(&self) -> &Path;
}

/// What a client tells a method about the job's request.
pub struct Job<'a> {
    /// The job's environment.
    pub env: &'a Environment,
    /// The authority's URL.
    pub authority: &'a str,
    /// The join token's name.
    pub join_token: &'a str,
    /// Where a method whose jobs [register](super::method::Method::registers) keeps its state.
    pub storage: Option<&'a dyn Storage>,
    /// Where its registration secret is, if the user says so.
    pub registration_secret: Option<&'a TokenSource>,
    /// The audience that the proof must carry where it can: `PUBLIC_URL#BINDING`.
    pub audience: &'a str,
    /// The way to the platform's endpoints.
    pub platform: &'a Platform,
    /// When to give up.
    pub deadline: Instant,
    /// Tells a step, for `-v`.
    pub say: &'a (dyn Fn(&str) + Sync),
    /// Tells what the user should know even where it works.
    pub warn: &'a (dyn Fn(&str) + Sync),
}
