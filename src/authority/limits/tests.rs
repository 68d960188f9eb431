//! Limits of one authority, and of several that share a store.

use std::collections::HashMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// What an engine does, in its simplest form; the engines' own tests hold them to it.
#[derive(Default)]
struct Usage(HashMap<Key, f64>);

impl Usage {
    fn spend(&mut self, spent: &[Spent], now: f64) -> Vec<Level> {
        for Spent { key, seconds, age } in spent {
            let until = self.0.get(key).copied().unwrap_or(f64::NEG_INFINITY);
            self.0.insert(*key, until.max(now - age) + seconds);
        }
        self.0.retain(|_, until| *until >= now - FREE);
        self.0.iter().map(|(key, until)| Level { key: *key, seconds: until - now }).collect()
    }
}

/// Authorities that share a store, in a time of their own.
struct Shared {
    begun: Instant,
    usage: Usage,
    replicas: Vec<(Issuances, Refusals)>,
}

impl Shared {
    fn new(replicas: usize, quotas: Quotas) -> Self {
        let replicas = (0..replicas).map(|_| (Issuances::new(quotas), Refusals::default())).collect();
        Self { begun: Instant::now(), usage: Usage::default(), replicas }
    }

    fn at(&self, seconds: f64) -> Instant {
        self.begun + Duration::from_secs_f64(seconds)
    }

    /// What the keeper of that one does each second; an answer may be lost, or come late.
    fn share(&mut self, nth: usize, seconds: f64) {
        let now = self.at(seconds);
        let (issuances, refusals) = &self.replicas[nth];
        let spent = [issuances.spent(now), refusals.spent(now)].concat();
        let levels = self.usage.spend(&spent, seconds);
        issuances.heard(&spent, &levels, now);
        refusals.heard(&spent, &levels, now);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    /// However jobs come, all authorities together let in the quota, and each a sixteenth of it and a second's worth more.
    #[test]
    fn replicas_keep_a_quota_together(
        replicas in 1_usize..6,
        quota in prop::sample::select(vec![60_u32, 360, 3600, 20_000]),
        // For so many seconds, how many certificates each is asked for each tenth of a second.
        phases in vec((1_usize..600, vec(0_usize..30, 6)), 1..6),
        // Of every second, how many tenths later each of them tells.
        late in vec(0_usize..10, 6),
        lost in vec(prop::bool::weighted(0.1), 6),
    ) {
        let mut shared = Shared::new(replicas, Quotas { token: quota, run: u32::MAX });
        let (mut admitted, mut tenth, mut within, mut most) = (0.0, 0_usize, vec![0.0; 6], vec![0.0_f64; 6]);
        for (seconds, each) in phases {
            for _ in 0..seconds * 10 {
                tenth += 1;
                let seconds = f64::from(u32::try_from(tenth).unwrap()) / 10.0;
                let now = shared.at(seconds);
                for nth in 0..replicas {
                    if each[nth] > 0 && shared.replicas[nth].0.charge_at("ci", "1", each[nth], now).is_ok() {
                        admitted += count(each[nth]);
                        within[nth] += count(each[nth]);
                    }
                    most[nth] = most[nth].max(within[nth]);
                    // Now and then a store does not answer.
                    if tenth % 10 == late[nth] && !(lost[nth] && tenth % 70 < 20) {
                        shared.share(nth, seconds);
                        within[nth] = 0.0;
                    }
                }
                let quota = f64::from(quota);
                let bound = quota * (1.0 + seconds / 3600.0);
                let each: f64 = most.iter().take(replicas).map(|most| most + quota / 16.0).sum();
                prop_assert!(admitted <= bound + each + 1.0, "{admitted} > {bound} + {each} after {seconds} s");
            }
        }
    }
}

/// What one has used, another knows, and one that begins anew.
#[test]
fn a_restart_fills_no_quota() {
    let quotas = Quotas { token: 1000, run: 320 };
    let mut shared = Shared::new(2, quotas);
    shared.replicas[0].0.charge_at("ci", "1", 320, shared.at(0.0)).unwrap();
    shared.share(0, 1.0);
    shared.share(1, 1.5);
    let refused = shared.replicas[1].0.charge_at("ci", "1", 10, shared.at(2.0)).unwrap_err();
    assert_eq!(
        (refused.kind, refused.retry_after),
        ("quota-run", 111),
        "nearly two minutes of ten certificates"
    );
    shared.replicas[0] = (Issuances::new(quotas), Refusals::default());
    shared.share(0, 3.0);
    assert!(shared.replicas[0].0.charge_at("ci", "1", 10, shared.at(3.0)).is_err());
    // Another run of the same join token has what is left of that.
    shared.replicas[0].0.charge_at("ci", "2", 320, shared.at(3.0)).unwrap();
    shared.share(0, 4.0);
    shared.share(1, 4.5);
    shared.replicas[1].0.charge_at("ci", "3", 320, shared.at(5.0)).unwrap();
    shared.share(1, 5.5);
    shared.share(0, 6.0);
    assert_eq!(
        shared.replicas[0].0.charge_at("ci", "4", 50, shared.at(6.5)).unwrap_err().kind,
        "quota-token"
    );
    // An hour later it is free, and forgotten a minute after that.
    shared.share(0, 3700.0);
    assert_eq!(shared.usage.0.len(), 0);
    shared.replicas[0].0.charge_at("ci", "1", 320, shared.at(3700.0)).unwrap();
}

/// A store that does not answer: each goes on by itself, and what was used meanwhile is over when it comes back.
#[test]
fn a_store_that_is_away_costs_no_more_than_a_limit_of_each() {
    let mut shared = Shared::new(2, Quotas { token: 3600, run: 3600 });
    let charge = |shared: &Shared, nth: usize, count, at: f64| {
        shared.replicas[nth].0.charge_at("ci", "1", count, shared.at(at)).is_ok()
    };
    for second in 1..=7200_u32 {
        let at = f64::from(second);
        assert!(charge(&shared, 0, 1, at) && charge(&shared, 1, 1, at));
    }
    assert!(charge(&shared, 0, 3500, 7200.0), "what it used at its rate is over");
    assert!(!charge(&shared, 0, 200, 7200.0));
    shared.share(0, 7201.0);
    shared.share(1, 7201.0);
    assert!(!charge(&shared, 1, 3500, 7202.0), "and the other hears");
    // Together they used more than the limit; an hour and a bit for each of them later there is room.
    assert!(charge(&shared, 1, 1000, 7201.0 + 3600.0 * 3.1));
}

/// What is taken back is taken back for all.
#[test]
fn what_was_given_back_is_told_too() {
    let mut shared = Shared::new(2, Quotas { token: 320, run: 320 });
    shared.replicas[0].0.charge_at("ci", "1", 320, shared.at(0.0)).unwrap();
    shared.share(0, 1.0);
    shared.replicas[0].0.give_back("ci", "1", 320);
    shared.share(0, 2.0);
    shared.share(1, 2.0);
    shared.replicas[1].0.charge_at("ci", "1", 310, shared.at(2.0)).unwrap();
    // What was never told is not either.
    shared.replicas[0].0.charge_at("ci", "2", 1, shared.at(3.0)).unwrap();
    shared.replicas[0].0.give_back("ci", "2", 1);
    let rows = shared.usage.0.len();
    shared.share(0, 4.0);
    assert_eq!(shared.usage.0.len(), rows);
}

/// Strangers from everywhere, as fast as they are let, make few rows, and a run that is an ordinary one none.
#[test]
fn strangers_do_not_fill_the_store() {
    let mut shared = Shared::new(3, Quotas::default());
    let mut most = 0;
    for tenth in 0..6000_u32 {
        let seconds = f64::from(tenth) / 10.0;
        let now = shared.at(seconds);
        for nth in 0..3_u32 {
            for n in 0..30_u32 {
                // Some addresses often, others once.
                let address = if n % 2 == 0 { n << 8 } else { (tenth * 97 + n * 7 + nth) << 8 };
                let peer = IpAddr::V4(address.into());
                let _ = shared.replicas[usize::try_from(nth).unwrap()].1.admit_at(peer, n % 4 < 2, now);
            }
            shared.replicas[0].0.charge_at("ci", &tenth.to_string(), 1, now).unwrap();
            if tenth % 10 == 0 {
                shared.share(usize::try_from(nth).unwrap(), seconds);
            }
        }
        most = most.max(shared.usage.0.len());
    }
    assert!(most < 100, "{most}");
}

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
    assert!(issuances.used.lock().unwrap().0.len() <= MAX_RUNS + 12);
}

#[test]
fn memory_is_bounded() {
    let refusals = Refusals::default();
    let start = Instant::now();
    for n in 0..20_000u32 {
        let _ = refusals.admit_at(IpAddr::V4(n.into()), true, start + Duration::from_millis(u64::from(n)));
    }
    assert!(refusals.0.lock().unwrap().len() <= MAX_ADDRESSES);
}
