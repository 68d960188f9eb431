//! How much may be written: a stranger can make a refusal with each request, and
//! a job that is let in certificates. Each is a row in the store.
//!
//! What was counted is forgotten when the authority ends: the operator alone
//! starts it anew, and each start is worth one burst more.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Refusals that one address may cause at once, and then each second.
const PER_ADDRESS: Rate = Rate { burst: 200.0, each_second: 2.0 };
/// The same for the network about it.
const PER_NETWORK: Rate = Rate { burst: 500.0, each_second: 4.0 };
/// Refusals of verified proofs that all may cause at once, and then each second.
const VERIFIED: Rate = Rate { burst: 2000.0, each_second: 50.0 };
/// The same for proofs that could not be verified, which cost a stranger nothing.
const UNVERIFIED: Rate = Rate { burst: 2000.0, each_second: 5.0 };
/// Addresses and networks remembered at most; beyond it, full buckets are forgotten.
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

/// Runs remembered at most; beyond it, those with a full bucket are forgotten.
const MAX_RUNS: usize = 50_000;
/// How often it is looked which runs can be forgotten.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug)]
struct Rate {
    burst: f64,
    each_second: f64,
}

/// What is left of a rate; it fills by itself.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    rate: Rate,
    left: f64,
    since: Instant,
}

impl Bucket {
    fn full(rate: Rate, now: Instant) -> Self {
        Self { rate, left: rate.burst, since: now }
    }

    /// Whether it is full.
    fn fill(&mut self, now: Instant) -> bool {
        let gained = now.saturating_duration_since(self.since).as_secs_f64() * self.rate.each_second;
        self.left = (self.left + gained).min(self.rate.burst);
        self.since = now;
        self.left >= self.rate.burst
    }
}

/// Counts refusals.
#[derive(Debug)]
pub struct Refusals(Mutex<State>);

#[derive(Debug)]
struct State {
    verified: Bucket,
    unverified: Bucket,
    addresses: HashMap<Network, Bucket>,
}

impl Default for Refusals {
    fn default() -> Self {
        let now = Instant::now();
        let (verified, unverified) = (Bucket::full(VERIFIED, now), Bucket::full(UNVERIFIED, now));
        Self(Mutex::new(State { verified, unverified, addresses: HashMap::new() }))
    }
}

impl Refusals {
    /// Whether one more refusal of `peer` may be recorded.
    ///
    /// # Errors
    /// After how many seconds to try again.
    pub fn admit(&self, peer: IpAddr, verified: bool) -> Result<(), u64> {
        self.admit_at(peer, verified, Instant::now())
    }

    fn admit_at(&self, peer: IpAddr, verified: bool, now: Instant) -> Result<(), u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let State { verified: of_verified, unverified: of_unverified, addresses } = &mut *state;
        let all = if verified { of_verified } else { of_unverified };
        let networks = networks(peer);
        if addresses.len() + networks.len() > MAX_ADDRESSES
            && networks.iter().any(|one| !addresses.contains_key(one))
        {
            addresses.retain(|_, bucket| !bucket.fill(now));
            if addresses.len() + networks.len() > MAX_ADDRESSES {
                return Err(60);
            }
        }
        all.fill(now);
        let mut is_left = all.left >= 1.0;
        for (one, rate) in networks.iter().zip([PER_ADDRESS, PER_NETWORK]) {
            let bucket = addresses.entry(*one).or_insert_with(|| Bucket::full(rate, now));
            bucket.fill(now);
            is_left &= bucket.left >= 1.0;
        }
        if !is_left {
            return Err(5);
        }
        all.left -= 1.0;
        for one in networks {
            if let Some(bucket) = addresses.get_mut(&one) {
                bucket.left -= 1.0;
            }
        }
        Ok(())
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
    used: Mutex<Used>,
}

/// What is used of the quotas.
#[derive(Debug)]
struct Used {
    /// By join token, and by join token and run.
    buckets: HashMap<(String, String), Bucket>,
    /// When those that are full again were last forgotten.
    swept: Instant,
}

impl Issuances {
    /// With these quotas.
    pub fn new(quotas: Quotas) -> Self {
        Self { quotas, used: Mutex::new(Used { buckets: HashMap::new(), swept: Instant::now() }) }
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
        let count = f64::from(u32::try_from(certificates).unwrap_or(u32::MAX));
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        for run in ["", run] {
            if let Some(bucket) = used.buckets.get_mut(&(token.to_owned(), run.to_owned())) {
                bucket.left = (bucket.left + count).min(bucket.rate.burst);
            }
        }
    }

    fn charge_at(&self, token: &str, run: &str, certificates: usize, now: Instant) -> Result<(), Exceeded> {
        let count = f64::from(u32::try_from(certificates).unwrap_or(u32::MAX));
        let wanted = [
            ("quota-token", "this join token", self.quotas.token, (token.to_owned(), String::new())),
            ("quota-run", "this run", self.quotas.run, (token.to_owned(), run.to_owned())),
        ];
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let Used { buckets, swept } = &mut *used;
        // All of them are looked at, which is not for each exchange.
        if buckets.len() >= MAX_RUNS && now.saturating_duration_since(*swept) >= SWEEP_EVERY {
            buckets.retain(|_, bucket| !bucket.fill(now));
            *swept = now;
        }
        for (kind, whose, quota, key) in &wanted {
            let rate = Rate { burst: f64::from(*quota), each_second: f64::from(*quota) / 3600.0 };
            let bucket = buckets.entry(key.clone()).or_insert_with(|| Bucket::full(rate, now));
            bucket.fill(now);
            let missing = count - bucket.left;
            if missing > 0.0 {
                let wait =
                    Duration::try_from_secs_f64((missing / rate.each_second).ceil()).unwrap_or(Duration::MAX);
                return Err(Exceeded { kind, whose, quota: *quota, retry_after: wait.as_secs().max(1) });
            }
        }
        for (.., key) in &wanted {
            if let Some(bucket) = buckets.get_mut(key) {
                bucket.left -= count;
            }
        }
        Ok(())
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_ends_and_others_go_on() {
        let refusals = Refusals::default();
        let now = Instant::now();
        let from = |address: &str, after| {
            refusals.admit_at(address.parse().unwrap(), false, now + Duration::from_secs(after)).is_ok()
        };
        assert!((0..200).all(|n| from(&format!("2001:db8::{n}"), 0)), "a /64 is one address");
        assert!(!from("2001:db8::1", 0));
        assert!(from("192.0.2.1", 0));
        assert!(from("2001:db8::1", 1));
        // Of a /48, however many /64 of it take part.
        let taken = (0..1000).filter(|n| from(&format!("2001:db8:0:{n:x}::1"), 1)).count();
        assert!((298..=306).contains(&taken), "{taken}");
        assert!(from("2001:db8:1::1", 1));
    }

    #[test]
    fn a_run_is_held_to_its_quota_and_takes_nothing_from_others() {
        let issuances = Issuances::new(Quotas { token: 1000, run: 360 });
        let now = Instant::now();
        let charge = |token, run, count, after| {
            issuances
                .charge_at(token, run, count, now + Duration::from_secs(after))
                .map_err(|no| (no.kind, no.retry_after))
        };
        for _ in 0..18 {
            charge("ci", "1", 20, 0).unwrap();
        }
        assert_eq!(charge("ci", "1", 20, 0), Err(("quota-run", 200)), "one each ten seconds");
        assert_eq!(charge("ci", "1", 1, 10), Ok(()));
        assert_eq!(charge("ci", "1", 20, 220), Ok(()));
        charge("ci", "2", 360, 0).unwrap();
        // What a run was refused was not taken from its join token.
        charge("ci", "3", 240, 0).unwrap();
        assert_eq!(charge("ci", "4", 200, 0).unwrap_err().0, "quota-token");
        charge("other", "1", 360, 0).unwrap();
        assert_eq!(charge("ci", "3", 360, 3600), Ok(()), "an hour later all of it is there again");
    }

    #[test]
    fn memory_of_runs_is_bounded() {
        let issuances = Issuances::new(Quotas::default());
        let now = Instant::now();
        for n in 0..u64::try_from(MAX_RUNS).unwrap() * 2 {
            let _ = issuances.charge_at("ci", &n.to_string(), 1, now + Duration::from_secs(n / 10));
        }
        assert!(issuances.used.lock().unwrap().buckets.len() <= MAX_RUNS + 12);
    }

    #[test]
    fn memory_is_bounded() {
        let refusals = Refusals::default();
        let start = Instant::now();
        for n in 0..20_000u32 {
            let _ =
                refusals.admit_at(IpAddr::V4(n.into()), true, start + Duration::from_millis(u64::from(n)));
        }
        assert!(refusals.0.lock().unwrap().addresses.len() <= MAX_ADDRESSES);
    }
}
