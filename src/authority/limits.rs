//! How many refusals may be written: a stranger can make one with each
//! request, and each is a row in the store.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Refusals that one address may cause at once, and then each second.
const PER_ADDRESS: Rate = Rate { burst: 200.0, each_second: 2.0 };
/// Refusals of verified proofs that all may cause at once, and then each second.
const VERIFIED: Rate = Rate { burst: 2000.0, each_second: 50.0 };
/// The same for proofs that could not be verified, which cost a stranger nothing.
const UNVERIFIED: Rate = Rate { burst: 2000.0, each_second: 5.0 };
/// Addresses remembered at most; beyond it, full buckets are forgotten.
const MAX_ADDRESSES: usize = 10_000;

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
    addresses: HashMap<IpAddr, Bucket>,
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
        self.admit_at(network(peer), verified, Instant::now())
    }

    fn admit_at(&self, peer: IpAddr, verified: bool, now: Instant) -> Result<(), u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let State { verified: of_verified, unverified: of_unverified, addresses } = &mut *state;
        let all = if verified { of_verified } else { of_unverified };
        if addresses.len() >= MAX_ADDRESSES && !addresses.contains_key(&peer) {
            addresses.retain(|_, bucket| !bucket.fill(now));
            if addresses.len() >= MAX_ADDRESSES {
                return Err(60);
            }
        }
        let one = addresses.entry(peer).or_insert_with(|| Bucket::full(PER_ADDRESS, now));
        one.fill(now);
        all.fill(now);
        if one.left < 1.0 || all.left < 1.0 {
            return Err(5);
        }
        one.left -= 1.0;
        all.left -= 1.0;
        Ok(())
    }
}

/// An IPv6 customer has a whole /64.
pub fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6([a, b, c, d, 0, 0, 0, 0].into())
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_flood_ends_and_others_go_on() {
        let refusals = Refusals::default();
        let now = Instant::now();
        let (noisy, quiet) = (network("2001:db8::1".parse().unwrap()), network("192.0.2.1".parse().unwrap()));
        assert_eq!(noisy, network("2001:db8::2".parse().unwrap()));
        for _ in 0..200 {
            refusals.admit_at(noisy, false, now).unwrap();
        }
        assert!(refusals.admit_at(noisy, false, now).is_err());
        refusals.admit_at(quiet, false, now).unwrap();
        refusals.admit_at(noisy, false, now + Duration::from_secs(1)).unwrap();
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
