//! A store of CA keys that is gone for a minute: what clients under load and jobs are told meanwhile, and when it is over.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::CLIENTS;
use super::support::authority::Authority;
use super::support::client::timed;
use super::support::issuer::Issuer;
use super::support::key_store::{KeyStore, Kind};
use super::support::kms::Kms;
use super::support::once::{Job, manifest};
use super::support::replicas::Replicas;
use super::support::wait_for;

/// Issuances before and after.
const SOME: usize = 1000;
/// A job begins that often while the store is gone.
const EVERY: Duration = Duration::from_secs(4);
/// How long a job tries by itself.
const USUAL: Duration = Duration::from_secs(60);
/// The longest pause that one makes between two attempts, with what chance and one attempt add.
const PAUSE: Duration = Duration::from_secs(20);

/// Does something to a store of keys.
type Act<'a> = &'a dyn Fn();

/// Each store, gone for so many seconds.
pub(crate) fn bench(seconds: u64) {
    let time = Duration::from_secs(seconds);
    let token = KeyStore::token();
    gone("SoftHSM, its token moved away", &token, time, &|| token.take_away(), &|| token.put_back());
    let kms = KeyStore::kms();
    gone("moto, killed", &kms, time, &|| kms.take_away(), &|| kms.put_back());
    let kms = Arc::new(Kms::start());
    let store = KeyStore::Kms(Arc::clone(&kms));
    let stopped = || kms.moto.signal(Signal::STOP);
    gone("moto, stopped", &store, time, &stopped, &|| kms.moto.signal(Signal::CONT));
}

fn gone(name: &str, store: &KeyStore, time: Duration, take_away: Act<'_>, put_back: Act<'_>) {
    let issuer = Issuer::start();
    let mut replicas = Replicas::of(vec![store.authority(&issuer, Kind::Modern).start()]);
    let load = replicas.load(&issuer);
    let told = |what: &str| load.troubles().get(&format!("\"{what}\"")).copied().unwrap_or_default();
    let unavailable = || told("urn:machine-id:keys-unavailable");
    let issued = |more: usize| {
        let begun = Instant::now();
        load.goes_on(more);
        more as f64 / begun.elapsed().as_secs_f64()
    };
    let mut jobs = Vec::new();
    let mut back = Instant::now();
    load.during(CLIENTS, || {
        let authority = replicas.one(0);
        let before = issued(SOME);
        take_away();
        let begun = Instant::now();
        let (first, unready) = std::thread::scope(|scope| {
            let first = scope.spawn(|| timed(|| load.fails_with("keys-unavailable")).1);
            wait_for("not to be ready", || (!authority.is_ready()).then_some(()));
            let unready = begun.elapsed();
            (first.join().unwrap(), unready)
        });
        let granted = load.granted();
        let mut asked = 0;
        while begun.elapsed() < time {
            if begun.elapsed() >= EVERY * u32::try_from(jobs.len() / 2).unwrap() {
                jobs.extend([USUAL, time + USUAL].map(|timeout| once(&issuer, authority, timeout)));
            }
            assert!(!authority.is_ready(), "it says that it is ready");
            asked += 1;
            std::thread::sleep(Duration::from_millis(200));
        }
        let meanwhile = load.granted() - granted;
        let refused = unavailable();

        back = Instant::now();
        put_back();
        load.goes_on(1);
        let again = back.elapsed();
        wait_for("to be ready", || authority.is_ready().then_some(()));
        let ready = back.elapsed();
        let after = issued(SOME);
        let all = load.troubles().values().sum::<usize>();
        println!(
            "keys, outage of {:.0} s, {name}, {CLIENTS} clients: first 503 after {first:.1?}, readyz 503 after {unready:.1?} and each of {asked} times \
             that it was asked; {refused} answers of 503 with Retry-After, {} others, {meanwhile} certificates meanwhile; once it was back \
             the first certificate after {again:.1?}, readyz 200 after {ready:.1?}, {} more answers of 503; {before:.0} issuances a second before, {after:.0} after",
            time.as_secs_f64(),
            all - unavailable(),
            unavailable() - refused,
        );
    });
    // Those that began while it was gone, whatever becomes of them.
    let ended: Vec<Ended> = jobs.into_iter().map(|job| job.join().unwrap()).collect();
    load.holds(|| replicas.audit());
    let trail = replicas.audit();
    for timeout in [USUAL, time + USUAL] {
        let (good, late): (Vec<_>, Vec<_>) =
            ended.iter().filter(|one| one.timeout == timeout).partition(|one| one.id.is_some());
        for one in &good {
            let mine = |event: &&serde_json::Value| {
                event["event"] == "issued" && event["issuance_id"].as_str() == one.id.as_deref()
            };
            assert_eq!(trail.iter().filter(mine).count(), 1, "{:?} is not recorded once", one.id);
        }
        let left = |one: &&Ended| (one.begun + timeout).saturating_duration_since(back);
        // Whose time was up before it was back, or too soon afterwards.
        assert!(late.iter().all(|one| left(one) < PAUSE), "a job gave up that had time left");
        println!(
            "  once --timeout {:.0}s, begun while it was gone: {} of {} have certificates, the last {:.1?} after it was back; {} ended with 5, at most {:.1?} of their time left",
            timeout.as_secs_f64(),
            good.len(),
            good.len() + late.len(),
            good.iter().map(|one| one.ended.saturating_duration_since(back)).max().unwrap_or_default(),
            late.len(),
            late.iter().copied().map(|one| left(&one)).max().unwrap_or_default(),
        );
    }
    assert!(replicas.one(0).terminate().success());
}

/// How a real job ended.
struct Ended {
    timeout: Duration,
    /// Its issuance, where it has one.
    id: Option<String>,
    begun: Instant,
    ended: Instant,
}

/// A real job, which begins now.
fn once(issuer: &Issuer, authority: &Authority, timeout: Duration) -> JoinHandle<Ended> {
    let job = Job::new().envs(issuer.github_environment()).told(authority, "github-deploy");
    std::thread::spawn(move || {
        let begun = Instant::now();
        let mut process = job.start(["--timeout", &format!("{}s", timeout.as_secs())]);
        let status = process.wait_at_most(timeout + PAUSE).expect("its end");
        let ended = Instant::now();
        assert!(status.success() || status.code() == Some(5), "{status}: {}", process.stderr());
        // It is written to the end.
        process.wait();
        let id = status.success().then(|| {
            let manifest = manifest(Path::new(process.stdout().trim_end()));
            manifest["issuance_id"].as_str().unwrap().to_owned()
        });
        Ended { timeout, id, begun, ended }
    })
}
