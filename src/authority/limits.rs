//! How much may be written: a stranger can make a refusal with each request, and
//! a job that is let in certificates. Each is a row in the store.
//!
//! What decides is in memory (`meter`). Once a second the store hears what
//! was used, and tells what all authorities that share it have, so that a limit
//! is one for all of them, and a restart does not fill it.

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

mod meter;
#[cfg(test)]
mod tests;

pub use meter::{FREE, Key, Level, Spent};
use meter::{Meter, Rate, key};

/// Refusals that one address may cause at once, and then each second.
const PER_ADDRESS: Rate = Rate { burst: 200.0, each_second: 2.0 };
/// The same for the network about it.
const PER_NETWORK: Rate = Rate { burst: 500.0, each_second: 4.0 };
/// Refusals of verified proofs that all may cause at once, and then each second.
const VERIFIED: Rate = Rate { burst: 2000.0, each_second: 50.0 };
/// The same for proofs that could not be verified, which cost a stranger nothing.
const UNVERIFIED: Rate = Rate { burst: 2000.0, each_second: 5.0 };
/// Addresses and networks remembered at most; beyond it, those whose limit is free are forgotten.
const MAX_ADDRESSES: usize = 10_000;

/// Certificates that may be issued at once, and then each hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quotas {
    /// To all jobs of a join token.
    pub token: u32,
    /// To one run, with all of its jobs that its platform counts as that run, or to one worker that stays.
    pub run: u32,
}

impl Default for Quotas {
    /// A matrix of 256 jobs of which each renews two certificates every two
    /// minutes takes 15,360 an hour.
    fn default() -> Self {
        Self { token: 60_000, run: 20_000 }
    }
}

/// Runs remembered at most; beyond it, those whose limit is free are forgotten.
const MAX_RUNS: usize = 50_000;
/// How often it is looked which runs can be forgotten.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts refusals.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<Meter>);

impl Refusals {
    /// Whether one more refusal of `peer` may be recorded.
    ///
    /// # Errors
    /// After how many seconds to try again.
    pub fn admit(&self, peer: IpAddr, verified: bool) -> Result<(), u64> {
        self.admit_at(peer, verified, Instant::now())
    }

    fn admit_at(&self, peer: IpAddr, verified: bool, now: Instant) -> Result<(), u64> {
        let (all, rate) = if verified { ("verified", VERIFIED) } else { ("unverified", UNVERIFIED) };
        let [address, network] = networks(peer).map(|(first, bits)| key(&[&format!("{first}/{bits}")]));
        let wanted = [(key(&[all]), rate), (address, PER_ADDRESS), (network, PER_NETWORK)];
        let mut meter = locked(&self.0);
        let is_new = wanted.iter().any(|(key, _)| !meter.knows(key));
        if is_new && meter.len() + wanted.len() > MAX_ADDRESSES {
            meter.sweep(now);
            if meter.len() + wanted.len() > MAX_ADDRESSES {
                return Err(60);
            }
        }
        meter.take(&wanted, 1.0, now).map_err(|_| 5)
    }

    /// What the store is to be told now.
    pub fn spent(&self, now: Instant) -> Vec<Spent> {
        locked(&self.0).spent(now)
    }

    /// What the store answered to that: what all have used of every limit that it knows.
    pub fn heard(&self, spent: &[Spent], levels: &[Level], now: Instant) {
        locked(&self.0).heard(spent, levels, now);
    }
}

/// A quota that is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exceeded {
    /// The kind of its problem: `quota-token` or `quota-run`.
    pub kind: &'static str,
    /// Whose it is, in words.
    pub whose: &'static str,
    /// How many certificates an hour it is.
    pub quota: u32,
    /// After how many seconds there is room.
    pub retry_after: u64,
}

/// Counts certificates.
#[derive(Debug)]
pub struct Issuances {
    quotas: Quotas,
    used: Mutex<(Meter, Instant)>,
}

impl Issuances {
    /// With these quotas.
    pub fn new(quotas: Quotas) -> Self {
        Self { quotas, used: Mutex::new((Meter::default(), Instant::now())) }
    }

    /// Takes so many certificates from the join token's quota and the run's, or from neither.
    ///
    /// # Errors
    /// Which of them is used up.
    pub fn charge(&self, token: &str, run: &str, certificates: usize) -> Result<(), Exceeded> {
        self.charge_at(token, run, certificates, Instant::now())
    }

    /// Gives back what was taken for certificates that could not be issued: jobs ask again and again then.
    pub fn give_back(&self, token: &str, run: &str, certificates: usize) {
        locked(&self.used).0.give_back(&self.wanted(token, run), count(certificates));
    }

    /// Both quotas, the join token's first.
    fn wanted(&self, token: &str, run: &str) -> [(Key, Rate); 2] {
        let hourly = |quota| Rate { burst: f64::from(quota), each_second: f64::from(quota) / 3600.0 };
        [
            (key(&["token", token]), hourly(self.quotas.token)),
            (key(&["run", token, run]), hourly(self.quotas.run)),
        ]
    }

    fn charge_at(&self, token: &str, run: &str, certificates: usize, now: Instant) -> Result<(), Exceeded> {
        let (meter, swept) = &mut *locked(&self.used);
        // All of them are looked at, which is not for each exchange.
        if meter.len() >= MAX_RUNS && now.saturating_duration_since(*swept) >= SWEEP_EVERY {
            meter.sweep(now);
            *swept = now;
        }
        meter.take(&self.wanted(token, run), count(certificates), now).map_err(|(nth, wait)| {
            let (kind, whose, quota) = match nth {
                0 => ("quota-token", "this join token", self.quotas.token),
                _ => ("quota-run", "this run", self.quotas.run),
            };
            let wait = Duration::try_from_secs_f64(wait.ceil()).unwrap_or(Duration::MAX);
            Exceeded { kind, whose, quota, retry_after: wait.as_secs().max(1) }
        })
    }

    /// What the store is to be told now.
    pub fn spent(&self, now: Instant) -> Vec<Spent> {
        locked(&self.used).0.spent(now)
    }

    /// What the store answered to that: what all have used of every limit that it knows.
    pub fn heard(&self, spent: &[Spent], levels: &[Level], now: Instant) {
        locked(&self.used).0.heard(spent, levels, now);
    }
}

fn count(certificates: usize) -> f64 {
    f64::from(u32::try_from(certificates).unwrap_or(u32::MAX))
}

/// The first bits of addresses, and how many they are.
pub type Network = (IpAddr, u8);

/// Whom an address counts for: itself, which with IPv6 is a whole /64, as one customer has it; and the network about
/// it, which one customer may have as well: a /24, or a /48.
pub fn networks(peer: IpAddr) -> [Network; 2] {
    match peer.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            [(address.into(), 32), (IpAddr::from([a, b, c, 0]), 24)]
        }
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            [(IpAddr::from([a, b, c, d, 0, 0, 0, 0]), 64), (IpAddr::from([a, b, c, 0, 0, 0, 0, 0]), 48)]
        }
    }
}
