//! `authority migrate` and `prune`, with the real binary and an authority that is served.

use std::net::Ipv4Addr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::said;
use super::store::HOST_KEY;
use crate::support::authority::Authority;
use crate::support::client::{Client, Keys, assertion_claims};
use crate::support::issuer::Issuer;
use crate::support::process::{Running, machine_id, run, succeed};
use crate::support::{policies, wait_for};

const CLIENTS: usize = 64;
const WAYS: [&str; 4] = ["--from", "sqlite:authority.db", "--to", "sqlite:new.db"];

/// What a client sent and got.
struct Held {
    token: String,
    granted: Value,
    is_revoked: bool,
}

/// Exchanges and gives every third back, until the authority says that its store has moved; when that was.
fn load(
    client: &Client,
    issuer: &Issuer,
    url: &str,
    held: &Mutex<Vec<Held>>,
    over: &AtomicBool,
    count: &AtomicUsize,
) {
    while !over.load(Ordering::SeqCst) {
        let keys = Keys::fresh();
        let token = issuer.token("github", &keys.audience(url)).mint();
        let answer = client.exchange(&keys.request("github-deploy", "github", &token));
        if answer.status == 503 {
            assert_eq!(answer.problem(503)["type"], "urn:machine-id:store-moved");
            assert_eq!(answer.header("retry-after"), Some("5"));
            over.store(true, Ordering::SeqCst);
            return;
        }
        let granted = answer.granted();
        let mut is_revoked = false;
        if count.fetch_add(1, Ordering::SeqCst).is_multiple_of(3) {
            let chain = granted["outputs"][0]["tls_certificate_chain"].as_str().unwrap();
            let assertion = keys.tls_assertion(chain, &assertion_claims(url));
            let body = json!({"issuance_id": granted["issuance_id"], "assertion": assertion});
            is_revoked = client.post("/v1/revoke", body.to_string()).status == 200;
        }
        held.lock().unwrap().push(Held { token, granted, is_revoked });
    }
}

fn migrate(authority: &Authority, more: &[&str]) -> std::process::Command {
    let mut command = authority.command(["migrate"]);
    command.args(WAYS).args(more);
    command
}

fn point_at(authority: &Authority, store: &str) {
    let path = authority.data_dir().join("authority.yaml");
    let config = std::fs::read_to_string(&path).unwrap();
    std::fs::write(path, config.replace("store: sqlite:authority.db", &format!("store: {store}"))).unwrap();
}

#[test]
fn records_move_under_load_and_through_kills_and_no_token_is_taken_twice() {
    let issuer = Issuer::start();
    let jenkins = "---\nkind: token\nversion: v2\nmetadata: {name: jenkins}\n\
                   spec: {roles: [Bot], bot_name: deployer, join_method: token, token: {}}\n";
    let mut authority = Authority::trusting(&issuer, &(policies::basic(&issuer) + jenkins));
    let (held, over, count) = (Mutex::default(), AtomicBool::new(false), AtomicUsize::new(0));
    let (url, client) = (authority.url(), authority.client().clone());
    let (done, moved) = std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| load(&client, &issuer, &url, &held, &over, &count));
        }
        // Killed at moments that differ, while clients come and go.
        for nth in 0_u32..4 {
            // Or it was not killed in time, and has moved all of it.
            wait_for("load", || {
                let is_loaded = count.load(Ordering::SeqCst) > 60 * usize::try_from(nth).unwrap();
                (is_loaded || over.load(Ordering::SeqCst)).then_some(())
            });
            let mut killed = Running::start(&mut migrate(&authority, &[]));
            killed.wait_at_most(Duration::from_millis(u64::from(nth * 40)));
            killed.kill();
        }
        let done = succeed(&mut migrate(&authority, &[]));
        wait_for("the end of the load", || over.load(Ordering::SeqCst).then_some(()));
        (done, Instant::now())
    });
    assert!(done.contains("write `store: sqlite:new.db` into authority.yaml"), "{done}");
    // What the old one says to everybody.
    let ready = authority.client().get("/readyz").problem(503);
    assert_eq!(ready["type"], "urn:machine-id:store-moved");
    assert!(ready["detail"].as_str().unwrap().contains("moved to sqlite:new.db"), "{ready}");
    wait_for("no lists", || (authority.client().get("/v1/revoked/tls.crl").status == 503).then_some(()));
    let closed = "the store has moved to sqlite:new.db, and issues nothing any more";
    let key = authority.data_dir().join("host.pub");
    std::fs::write(&key, HOST_KEY).unwrap();
    for command in [
        ["token", "add", "--token", "jenkins"].as_slice(),
        &["sign-host", "--principal", "x", key.to_str().unwrap()],
        &["serve"],
        &["check"],
    ] {
        let mut told = machine_id(["authority"].iter().chain(command));
        let output = run(told.arg("--data-dir").arg(authority.data_dir()));
        assert_eq!(output.status.code(), Some(2), "{command:?}: {}", said(&output));
        let page = String::from_utf8_lossy(&output.stdout).into_owned() + &said(&output);
        assert!(page.contains(closed), "{command:?}: {page}");
    }
    authority.kill();
    let refused = said(&run(&mut authority.command(["serve", "--listen", "192.0.2.1:1"])));
    for text in [closed, "write `store: sqlite:new.db`"] {
        assert!(refused.contains(text), "{refused}");
    }
    point_at(&authority, "sqlite:new.db");
    authority.restart();
    let held = held.into_inner().unwrap();
    assert!(held.len() > CLIENTS, "{}", held.len());
    assert!(!authority.stderr().contains("put back"), "{}", authority.stderr());

    let trail = authority.audit();
    let of = |kind: &str| {
        let of_kind = trail.iter().filter(|event| event["event"] == kind);
        of_kind.map(|event| event["issuance_id"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    let (issued, revoked) = (of("issued"), of("revoked"));
    let ends = authority.client().get("/v1/revoked").json();
    for one in &held {
        let id = one.granted["issuance_id"].as_str().unwrap();
        assert!(issued.iter().any(|known| known == id), "{id} is held, and not recorded");
        if one.is_revoked {
            assert!(revoked.iter().any(|known| known == id), "{id} is not revoked");
            let serial = one.granted["outputs"][0]["serial"].as_str().unwrap();
            assert!(ends.to_string().contains(serial), "{serial} is not listed: {ends}");
        }
    }
    // From everywhere, since so many refusals are more than one network may cause.
    let refused = held.iter().zip(0_u8..=255).filter(|(one, nth)| {
        let thief = Keys::fresh();
        let mut stream = authority.client().connect_from(Ipv4Addr::new(127, 1 + nth / 2, 1, *nth)).unwrap();
        let request = thief.request("github-deploy", "github", &one.token);
        let status = authority.client().exchange_over(&mut stream, &request).unwrap().status;
        assert!([401, 429].contains(&status), "{status}");
        status == 401
    });
    let refused = refused.count();
    assert!(refused > 20, "{refused}");
    assert!(of("issued").len() >= held.len());
    // Whoever waits is answered: from the first 503 on, as long as the operator takes.
    println!("{} issuances; moved and checked within {:?}", held.len(), moved.elapsed());
    let again = succeed(&mut migrate(&authority, &[]));
    assert!(again.contains("was finished before") && again.contains("start the authority again"), "{again}");
}

#[test]
fn mistakes_are_told() {
    let issuer = Issuer::start();
    let mut authority = Authority::trusting(&issuer, &policies::basic(&issuer));
    let told = |args: &[&str]| {
        let output = run(authority.command(["migrate"]).args(args));
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        said(&output)
    };
    for (args, text) in [
        (
            ["--from", "authority.db", "--to", "sqlite:new.db"],
            "cannot use `--from`: `store` must be `sqlite:PATH` or `postgres://USER@HOST/DATABASE`",
        ),
        (["--from", "sqlite:authority.db", "--to", "sqlite:authority.db"], "are the same store"),
        (
            ["--from", "sqlite:authority.db", "--to", "postgres://u:h4rd2gu3ss@h/d"],
            "`--to` holds a password, which everybody on this machine can see",
        ),
        (
            ["--from", "postgre://u:h4rd2gu3ss@h/d", "--to", "sqlite:new.db"],
            "cannot use `--from`: `store` must be",
        ),
        (["--from", "sqlite:other.db", "--to", "sqlite:new.db"], "there is no such file"),
        (["--from", "sqlite:authority.db", "--to", "sqlite:policy"], "cannot"),
    ] {
        let said = told(&args);
        assert!(said.contains(text) && !said.contains("h4rd2gu3ss"), "{said}");
    }
    let refused = told(&[&WAYS[..], &["--give-up"]].concat());
    assert!(refused.contains("there is no such file"), "{refused}");
    // Given up in the middle: the second one is void, and the first one has never stopped.
    let from = rusqlite::Connection::open(authority.data_dir().join("authority.db")).unwrap();
    let store: String = from.query_row("SELECT store FROM state", [], |row| row.get(0)).unwrap();
    succeed(&mut migrate(&authority, &[]));
    let refused = told(&[&WAYS[..], &["--give-up"]].concat());
    assert!(refused.contains("no migration into sqlite:new.db is under way"), "{refused}");
    let to = rusqlite::Connection::open(authority.data_dir().join("new.db")).unwrap();
    to.execute("UPDATE state SET closed = ?1", [format!("filling {store} sqlite:authority.db")]).unwrap();
    drop((from, to));
    authority.kill();
    point_at(&authority, "sqlite:new.db");
    let refused = said(&run(&mut authority.command(["serve", "--listen", "192.0.2.1:1"])));
    assert!(
        refused.contains("a migration into this store, from sqlite:authority.db, is not finished"),
        "{refused}"
    );
    let given_up = succeed(&mut migrate(&authority, &["--give-up"]));
    assert!(given_up.contains("sqlite:authority.db goes on"), "{given_up}");
}

#[test]
fn prune_lets_go_what_the_configuration_says() {
    let issuer = Issuer::start();
    let authority = Authority::trusting(&issuer, &policies::basic(&issuer));
    let keys = Keys::fresh();
    let token = issuer.token("github", &keys.audience(&authority.url())).mint();
    authority.client().exchange(&keys.request("github-deploy", "github", &token)).granted();
    let refused = run(&mut authority.command(["prune"]));
    assert_eq!(refused.status.code(), Some(2));
    assert!(said(&refused).contains("`retain` is not set in authority.yaml"), "{}", said(&refused));
    let path = authority.data_dir().join("authority.yaml");
    let config = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{config}retain: 30d\n")).unwrap();
    let told = succeed(&mut authority.command(["prune"]));
    assert!(told.contains("let go 0 events from before "), "{told}");
    // As if all that was long ago.
    let before = authority.audit().len();
    let store = rusqlite::Connection::open(authority.data_dir().join("authority.db")).unwrap();
    store
        .execute_batch(
            "DROP TRIGGER events_stay_the_same; UPDATE events SET time = time - 9000000 WHERE event = 'issued';
             UPDATE certificates SET expires = expires - 9000000 WHERE issuance IN
                (SELECT sequence FROM events WHERE event = 'issued')",
        )
        .unwrap();
    let told = succeed(&mut authority.command(["prune"]));
    assert!(told.contains("let go 1 event from before "), "{told}");
    let audit = run(&mut authority.command(["audit"]));
    assert!(said(&audit).contains("is not kept any more"), "{}", said(&audit));
    let after = authority.audit();
    assert_eq!((after.len(), &after.last().unwrap()["event"]), (before, &json!("pruned")));
    assert!(after.iter().all(|event| event["event"] != "issued"));
}
