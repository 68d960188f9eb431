//! Issuers that are dead or lie, and tokens by the thousand: what they cost others.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::authority::Authority;
use crate::support::client::{Keys, timed};
use crate::support::issuer::{Endpoint, Fault, Issuer};
use crate::support::token::{Signing, Token};
use crate::support::{fresh, policies};

/// An authority with a join token of method `oidc` for each of these issuers.
fn authority(issuer: &Issuer, issuers: &[(&str, String)]) -> Authority {
    Authority::trusting(issuer, &policy(issuer, issuers))
}

fn policy(issuer: &Issuer, issuers: &[(&str, String)]) -> String {
    let mut policy = policies::basic(issuer);
    for (name, url) in issuers {
        policy.push_str(&format!(
            "---\nkind: token\nversion: v2\nmetadata: {{name: {name}}}\nspec:\n  roles: [Bot]\n  bot_name: deployer\n  \
             join_method: oidc\n  oidc: {{issuer: '{url}', allow: [{{claims: {{sub: job/deploy/main}}}}]}}\n"
        ));
    }
    policy
}

fn token(issuer: &Issuer, authority: &Authority, url: &str, keys: &Keys) -> Token {
    issuer.token("oidc", &keys.audience(&authority.url())).claim("iss", url)
}

/// Joins in turn, each with fresh keys, until told to stop; the longest that one took.
fn join_all_the_while(
    issuer: &Issuer,
    authority: &Authority,
    name: &str,
    url: &str,
    go_on: impl Fn() -> bool,
) -> (usize, Duration) {
    let (mut joins, mut longest) = (0, Duration::ZERO);
    while go_on() {
        let keys = Keys::fresh();
        let request = keys.request(name, "oidc", &token(issuer, authority, url, &keys).mint());
        let (response, took) = timed(|| authority.client().exchange(&request));
        response.granted();
        (joins, longest) = (joins + 1, longest.max(took));
        std::thread::sleep(Duration::from_millis(10));
    }
    (joins, longest)
}

/// How many joins wait for the dead.
const MANY: usize = 400;
/// What nobody else's join may take meanwhile, on a machine with other things to do.
const FAST: Duration = Duration::from_secs(3);

#[test]
fn a_dead_issuer_delays_its_own_joins_alone() {
    let issuer = Issuer::start();
    // It takes connections, and nobody ever answers.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let dead = format!("https://{}", silent.local_addr().unwrap());
    let alive = issuer.url("/oidc");
    let authority = authority(&issuer, &[("dead", dead.clone()), ("alive", alive.clone())]);
    delays_its_own_alone(&issuer, &authority, &dead, &alive);
    silent.set_nonblocking(true).unwrap();
    let asked = std::iter::from_fn(|| silent.accept().ok()).count();
    assert!(asked <= 3, "asked {asked} times");
}

#[test]
fn a_dead_proxy_delays_the_joins_behind_it_alone() {
    let issuer = Issuer::start();
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (dead, alive) = ("https://dead.example.com".to_owned(), issuer.url("/oidc"));
    let issuers = [("dead", dead.clone()), ("alive", alive.clone())];
    let builder = Authority::with_policy(&policy(&issuer, &issuers)).issuer(&issuer);
    let proxy = format!("http://{}", silent.local_addr().unwrap());
    let authority = builder.proxy(&proxy).environment("NO_PROXY", "127.0.0.1").start();
    delays_its_own_alone(&issuer, &authority, &dead, &alive);
}

fn delays_its_own_alone(issuer: &Issuer, authority: &Authority, dead: &str, alive: &str) {
    let keys = Keys::fresh();
    let (at_once, waited) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let answered = || at_once.load(Ordering::Relaxed) + waited.load(Ordering::Relaxed);
    let (joins, longest) = std::thread::scope(|scope| {
        for one in 0..MANY {
            let (keys, at_once, waited) = (&keys, &at_once, &waited);
            scope.spawn(move || {
                // Fewer from each address than one may open.
                let source = Ipv4Addr::from([127, 0, 1, u8::try_from(1 + one % 8).unwrap()]);
                let mut stream = authority.client().connect_from(source).unwrap();
                let request = keys.request("dead", "oidc", &token(issuer, authority, dead, keys).mint());
                let start = Instant::now();
                let response = authority.client().exchange_over(&mut stream, &request).unwrap();
                response.problem(503);
                assert!(response.header("retry-after").is_some());
                let count = if start.elapsed() < Duration::from_secs(5) { at_once } else { waited };
                count.fetch_add(1, Ordering::Relaxed);
            });
        }
        join_all_the_while(issuer, authority, "alive", alive, || answered() < MANY)
    });
    let (at_once, waited) = (at_once.into_inner(), waited.into_inner());
    println!(
        "{waited} joins waited, {at_once} were sent away at once; meanwhile {joins} others, the longest {longest:?}"
    );
    assert!((1..=128).contains(&waited), "{waited} waited");
    assert!(joins > 10 && longest < FAST, "{joins} joins, the longest took {longest:?}");
    assert!(authority.audit().iter().all(|event| event["event"] != "refused"), "an outage is no refusal");
}

#[test]
fn a_lying_issuer_delays_and_denies_its_own_joins_alone() {
    // One port, many issuers: the faults are those of the one that is asked.
    let (issuer, elsewhere) = (Issuer::start(), Issuer::start());
    let faults: Vec<(&str, Endpoint, Fault)> = vec![
        (
            "other-issuer",
            Endpoint::Discovery,
            Fault::Body(
                json!({"issuer": issuer.url("/oidc"), "jwks_uri": issuer.url("/oidc/.well-known/jwks")})
                    .to_string(),
            ),
        ),
        ("no-discovery", Endpoint::Discovery, Fault::Body("[]".into())),
        (
            "redirect",
            Endpoint::Discovery,
            Fault::Redirect(elsewhere.url("/.well-known/openid-configuration")),
        ),
        ("huge", Endpoint::Discovery, Fault::Huge(1 << 30)),
        ("huge-keys", Endpoint::Keys, Fault::Huge(1 << 30)),
        ("redirect-keys", Endpoint::Keys, Fault::Redirect(elsewhere.url("/.well-known/jwks"))),
        ("silent", Endpoint::Keys, Fault::Hang),
        ("slow", Endpoint::Keys, Fault::Drip(Duration::from_millis(100))),
    ];
    let alive = issuer.url("/oidc");
    let mut issuers: Vec<(&str, String)> =
        faults.iter().map(|(name, ..)| (*name, issuer.url(&format!("/{name}")))).collect();
    issuers.push(("alive", alive.clone()));
    let authority = authority(&issuer, &issuers);
    join_once(&issuer, &authority, &alive);
    let before = authority.resident();
    for ((name, endpoint, fault), (_, url)) in faults.into_iter().zip(&issuers) {
        issuer.fail(endpoint, fault);
        let denied = AtomicUsize::new(0);
        let (joins, longest) = std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let keys = Keys::fresh();
                    let request = keys.request(name, "oidc", &token(&issuer, &authority, url, &keys).mint());
                    let response = authority.client().exchange(&request);
                    denied.fetch_add(1, Ordering::Relaxed);
                    response.problem(503);
                });
            }
            join_all_the_while(&issuer, &authority, "alive", &alive, || denied.load(Ordering::Relaxed) < 4)
        });
        issuer.heal(endpoint);
        println!("{name}: {joins} others meanwhile, the longest {longest:?}");
        assert!(longest < FAST, "{name}: {longest:?}");
    }
    assert!(elsewhere.requests().is_empty(), "went where it was sent: {:?}", elsewhere.requests());
    let grown = authority.resident().saturating_sub(before);
    println!("{before} KiB before, {grown} KiB more after");
    // The bodies are of a gigabyte; the joins meanwhile take some of the store's cache.
    assert!(grown < 32 << 10, "{grown} KiB more");
}

fn join_once(issuer: &Issuer, authority: &Authority, url: &str) {
    let keys = Keys::fresh();
    let request = keys.request("alive", "oidc", &token(issuer, authority, url, &keys).mint());
    authority.client().exchange(&request).granted();
}

/// Tokens with keys that nobody has.
const UNKNOWN: usize = 10_000;
const THREADS: usize = 4;
/// Addresses that each thread comes from, in turn.
const ADDRESSES: usize = 16;
/// For how long an issuer that was asked is not asked again, in seconds.
const COOL_DOWN: u64 = 10;

#[test]
fn ten_thousand_unknown_keys_cost_no_memory_and_few_questions() {
    let issuer = Issuer::start();
    let alive = issuer.url("/oidc");
    let authority = authority(&issuer, &[("alive", alive.clone())]);
    let keys = Keys::fresh();
    let template = token(&issuer, &authority, &alive, &keys);
    let flood = |tokens: usize, base: usize| -> [AtomicUsize; 3] {
        let counts = [0; 3].map(AtomicUsize::new);
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (authority, keys, template, counts) = (&authority, &keys, &template, &counts);
                scope.spawn(move || {
                    for address in 0..ADDRESSES {
                        let last = [base, 1 + thread * ADDRESSES + address].map(|n| u8::try_from(n).unwrap());
                        let source = Ipv4Addr::from([127, 0, last[0], last[1]]);
                        let mut stream = authority.client().connect_from(source).unwrap();
                        for _ in 0..tokens.div_ceil(THREADS * ADDRESSES) {
                            let mut token = template.clone().header("kid", fresh()).claim("jti", fresh());
                            token.signing = Signing::Bytes(vec![7; 256]);
                            let request = keys.request("alive", "oidc", &token.mint());
                            let response = authority.client().exchange_over(&mut stream, &request).unwrap();
                            if response.header("connection") == Some("close") {
                                stream = authority.client().connect_from(source).unwrap();
                            }
                            match response.status {
                                401 => counts[0].fetch_add(1, Ordering::Relaxed),
                                429 => counts[1].fetch_add(1, Ordering::Relaxed),
                                // The issuer may have that key since it was asked.
                                503 => counts[2].fetch_add(1, Ordering::Relaxed),
                                other => panic!("{other}: {}", response.text()),
                            };
                        }
                    }
                });
            }
        });
        counts
    };
    let start = Instant::now();
    // Caches and buffers as they are under load.
    flood(1024, 2);
    let before = authority.resident();
    let [refused, limited, waits] = flood(UNKNOWN, 3).map(AtomicUsize::into_inner);
    let (after, took) = (authority.resident(), start.elapsed());
    let asked = || issuer.count(Endpoint::Discovery);
    println!(
        "{} tokens, {refused} refused, {limited} not even recorded, {waits} told to wait, in {took:.1?}: {before} KiB before, {after} KiB after, asked {} times",
        refused + limited + waits,
        asked()
    );
    assert!(refused + limited + waits >= UNKNOWN);
    assert!(after < before + (8 << 10), "{before} KiB before, {after} KiB after");
    assert!(asked() <= usize::try_from(took.as_secs() / COOL_DOWN).unwrap() + 1, "{} times", asked());
    // The next cool-down brings one question more, however many come.
    std::thread::sleep(Duration::from_secs(COOL_DOWN));
    let asked_before = asked();
    flood(256, 4);
    assert_eq!(asked(), asked_before + 1);
    assert_eq!(issuer.count(Endpoint::Keys), issuer.count(Endpoint::Discovery));
    // Who has a good one never noticed.
    join_once(&issuer, &authority, &alive);
}

/// Whoever nobody lets in leaves little, and not for ever; whom a rule lets in, the trail keeps.
#[test]
fn what_strangers_leave_is_little_and_apart() {
    const MANY: usize = 150;
    let issuer = Issuer::start();
    let mut authority = Authority::trusting(&issuer, &policies::basic(&issuer));
    let keys = Keys::fresh();
    let token = |more: usize| {
        let token = issuer.token("github", &keys.audience(&authority.url())).claim("jti", fresh());
        token.claim("long", "x".repeat(more))
    };
    // As long as a token may be; nobody's, and somebody's whom no rule lets in.
    let mut made_up = token(3000);
    made_up.signing = Signing::Bytes(vec![7; 256]);
    let elsewhere = || token(9000).claim("repository", "stranger/app").mint();
    let ask = |authority: &Authority, last: u8, token: &str| {
        let mut stream = authority.client().connect_from(Ipv4Addr::new(127, 0, 9, last)).unwrap();
        let request = keys.request("github-deploy", "github", token);
        authority.client().exchange_over(&mut stream, &request).unwrap()
    };
    let mut denials = Vec::new();
    for _ in 0..MANY {
        denials.push(ask(&authority, 1, &made_up.mint()).denial(401));
        denials.push(ask(&authority, 2, &elsewhere()).denial(403));
    }
    let mut admitted = keys.request("github-deploy", "github", &token(10).mint());
    admitted["outputs"][0]["roles"] = json!(["admin"]);
    denials.push(authority.client().exchange(&admitted).denial(403));
    let trail = authority.audit();
    let found: Vec<&str> = trail.iter().filter_map(|event| event["denial_id"].as_str()).collect();
    assert_eq!(found, denials, "all of them, in the order of time");
    let event = authority.refusal(&denials[0]);
    assert_eq!((&event["verified"], &event["claims"]["iss"].is_string()), (&json!(false), &true), "{event}");
    let left_out = &event["claims_left_out"];
    assert!(event["claims"]["sub"].is_string() && event["claims"]["long"].is_null(), "{event}");
    for (denial, said, left_out) in
        [(&denials[0], "claims, NOT verified", left_out), (&denials[1], "claims, verified", &json!(1))]
    {
        let output = authority.run(["explain", denial]);
        let story = String::from_utf8(output.stdout).unwrap();
        assert!(story.contains(said), "{story}");
        assert!(story.contains(&format!("  {left_out} more, which were too long to keep\n")), "{story}");
    }
    authority.terminate();
    let size = std::fs::metadata(authority.data_dir().join("authority.db")).unwrap().len();
    let store = rusqlite::Connection::open(authority.data_dir().join("authority.db")).unwrap();
    store.execute("UPDATE strangers SET nth = nth + 100000 WHERE ring = 0", []).unwrap();
    drop(store);
    let said = String::from_utf8(authority.run(["audit", "--bot", "nobody"]).stderr).unwrap();
    assert_eq!(said, "100000 older refusals of jobs that no rule let in are not kept any more\n");
    println!("{} bytes a refusal", size / u64::try_from(2 * MANY).unwrap());
    assert!(size < u64::try_from(2 * MANY).unwrap() * 4096, "{size} bytes");
}
