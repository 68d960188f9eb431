//! Locks over two authorities that share a PostgreSQL, with the real binary.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::authority::Authority;
use crate::support::client::Keys;
use crate::support::cluster::{Cluster, Role};
use crate::support::issuer::Issuer;
use crate::support::policies;
use crate::support::process::succeed;

/// What is promised, and what a busy machine may take beside.
const WITHIN: Duration = Duration::from_secs(3);

/// Asks for the usual certificates; their serials, or nothing where it is refused.
fn ask(issuer: &Issuer, authority: &Authority) -> Option<Vec<String>> {
    let keys = Keys::fresh();
    let token = issuer.token("github", &keys.audience(&authority.url())).mint();
    let response = authority.client().exchange(&keys.request("github-deploy", "github", &token));
    if response.status == 403 {
        let id = response.denial(403);
        assert_eq!(authority.refusal(&id)["reason"], "locked_out");
        return None;
    }
    let id = response.granted()["issuance_id"].as_str().unwrap().to_owned();
    let serials = authority.issuance(&id)["serials"].as_array().unwrap().clone();
    Some(serials.iter().map(|serial| serial.as_str().unwrap().to_owned()).collect())
}

fn listed(authority: &Authority) -> BTreeSet<String> {
    let ends = authority.client().get("/v1/revoked").json();
    ends["expires"].as_object().unwrap().keys().cloned().collect()
}

#[test]
fn of_jobs_that_race_with_a_lock_none_keeps_what_works_on_any_replica() {
    let (issuer, cluster) = (Issuer::start(), Cluster::start());
    let urls = [Role::Owner, Role::Server].map(|role| cluster.url(role));
    let policy = policies::basic(&issuer);
    let first = Authority::with_policy(&policy).issuer(&issuer).store(&urls[0], &urls[1]).start();
    let second = first.replica();
    let both = [&first, &second];
    for round in 0..4 {
        let is_over = AtomicBool::new(false);
        let granted: BTreeSet<String> = std::thread::scope(|scope| {
            let job = |n: usize| {
                let (issuer, is_over) = (&issuer, &is_over);
                move || {
                    let mut granted = Vec::new();
                    while !is_over.load(Ordering::SeqCst) {
                        granted.extend(ask(issuer, both[n % 2]).into_iter().flatten());
                    }
                    granted
                }
            };
            let jobs: Vec<_> = (0..6).map(|n| scope.spawn(job(n))).collect();
            std::thread::sleep(Duration::from_millis(300));
            succeed(&mut both[round % 2].command(["lock", "--bot", "deployer"]));
            // Whoever asks now is refused, wherever.
            assert!(both.iter().all(|authority| ask(&issuer, authority).is_none()));
            is_over.store(true, Ordering::SeqCst);
            jobs.into_iter().flat_map(|job| job.join().unwrap()).collect()
        });
        assert!(!granted.is_empty());
        let since = Instant::now();
        while let Some(authority) = both.iter().find(|authority| !granted.is_subset(&listed(authority))) {
            assert!(since.elapsed() < WITHIN, "{} has {:?}", authority.url(), listed(authority));
            std::thread::sleep(Duration::from_millis(50));
        }
        println!("on both lists after {:?}", since.elapsed());
        succeed(&mut both[(round + 1) % 2].command(["unlock", "--bot", "deployer"]));
        let since = Instant::now();
        assert!(both.iter().all(|authority| ask(&issuer, authority).is_some()), "{:?}", since.elapsed());
    }
}
