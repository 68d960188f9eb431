//! What authorities that share a PostgreSQL say of one another and of it, with the real binary.

use std::process::Output;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::authority::Authority;
use crate::support::client::{Keys, assertion_claims};
use crate::support::cluster::{Cluster, Role};
use crate::support::issuer::Issuer;
use crate::support::port::free_port;
use crate::support::process::{command, machine_id, succeed};
use crate::support::watcher::{self, Watcher};
use crate::support::{policies, wait_for};

/// So long may policies differ, which is half a minute, and a word of that be on its way.
const TOLD: Duration = Duration::from_secs(60);

fn serving(issuer: &Issuer, cluster: &Cluster) -> Authority {
    let urls = [Role::Owner, Role::Server].map(|role| cluster.url(role));
    Authority::with_policy(&policies::basic(issuer)).issuer(issuer).store(&urls[0], &urls[1]).start()
}

/// As [`wait_for`], for what takes [`TOLD`] at most.
#[track_caller]
fn told(what: &str, mut probe: impl FnMut() -> bool) {
    let end = Instant::now() + TOLD;
    while !probe() {
        assert!(Instant::now() < end, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Nearly all of its time it waits for the half minute to be over.
#[test]
fn other_policies_are_told_and_other_ca_keys_do_not_start() {
    let (issuer, cluster) = (Issuer::start(), Cluster::start());
    let first = serving(&issuer, &cluster);
    let second = first.replica();
    second.write_policy(&policies::basic(&issuer).replace("ubuntu", "debian"));
    second.hup();

    other_ca_keys(&first);

    let warning = "another replica has another policy than this one: its log names it";
    let both = [(&first, &second), (&second, &first)];
    told("a warning of both", || {
        let ready = both.map(|(one, _)| one.client().get("/readyz"));
        assert!(ready.iter().all(|one| one.status == 200), "{} {}", ready[0].text(), ready[1].text());
        ready.iter().all(|one| one.text().contains(warning))
    });
    for (one, other) in both {
        one.wait_for_stderr("warning: another policy, `public_url` or `limits` than here: ");
        let (said, port) = (one.stderr(), format!(":{};", other.address().port()));
        assert!(said.contains(&port), "it names the other, {port} {said}");
    }
    second.write_policy(&policies::basic(&issuer));
    second.hup();
    told("that it is over", || {
        both.iter().all(|(one, _)| !one.client().get("/readyz").text().contains(warning))
    });
}

/// A machine that was given the configuration, and not the keys.
#[track_caller]
fn other_ca_keys(first: &Authority) {
    let (folder, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    succeed(command("cp").arg("-a").arg(first.data_dir()).arg(folder.path()));
    let made = other.path().join("authority");
    let init = ["authority", "init", "--cluster", "id.test", "--public-url", &first.url(), "--data-dir"];
    succeed(machine_id(init).arg(&made));
    let mut stranger = first.replica_in(folder, free_port());
    let keys = stranger.data_dir().join("keys");
    std::fs::remove_dir_all(&keys).unwrap();
    std::fs::rename(made.join("keys"), &keys).unwrap();
    let events = first.audit().len();
    let said = stranger.refuses_to_start();
    for words in [
        "exit status: 2",
        "the CA keys here are others than those of the store: federation ",
        ", ssh-host SHA256:",
        " there, as ",
        "hint: all authorities of a store have the same CA keys",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert_eq!(first.audit().len(), events, "nothing was signed");
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&*output.stdout, &output.stderr].concat()).into_owned()
}

/// What would not be served is an error, and what may be over when it is served a warning.
#[test]
fn a_store_that_cannot_be_served_does_not_pass_the_check() {
    let (issuer, cluster) = (Issuer::start(), Cluster::start());
    let authority = serving(&issuer, &cluster);
    let check = |code: i32, words: &[&str]| {
        let output = authority.run(["check"]);
        let said = said(&output);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(words.iter().all(|word| said.contains(word)), "{words:?}: {said}");
    };
    check(0, &[]);
    cluster.sql("UPDATE machine_id.state SET closed = 'moved a1 sqlite:new.db'");
    check(2, &["error: the store has moved to sqlite:new.db", "  hint: where it says `store`"]);
    let json = authority.run(["check", "--format", "json"]);
    let told: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((json.status.code(), &told["store"][0]["fault"]), (Some(2), &true.into()), "{told}");
    cluster.sql("UPDATE machine_id.state SET closed = NULL");
    check(0, &[]);
    cluster.sql("INSERT INTO machine_id.versions (version, oldest) VALUES (999, 999)");
    check(
        2,
        &["error: the store was written by a newer machine-id", "  hint: use the machine-id that wrote it"],
    );
    cluster.sql("ALTER SCHEMA machine_id RENAME TO elsewhere");
    check(
        2,
        &["error: the database holds no store of an authority", "  hint: `machine-id authority upgrade`"],
    );
    let right = cluster.url(Role::Server);
    authority.set_store(&right.replace(&Role::Server.password(), "h4rd2gu3ss"));
    check(2, &["it refuses the password of `machine_id_server`", "  hint: the password is from the URL"]);
    assert!(!said(&authority.run(["check"])).contains("h4rd2gu3ss"));
    let missing = right.replace(&format!(":{}@", Role::Server.password()), "@");
    authority.set_store(&format!("{missing}&passfile=none"));
    check(2, &["cannot use the password file", "hint: put it there"]);
    authority.set_store(&right);
    cluster.kill();
    wait_for("its end", || (!cluster.is_up()).then_some(()));
    check(0, &["warning: cannot read from the store: "]);
}

/// By one authority, or by a command, and watched at another: within a second, also where that one was away.
#[test]
fn what_is_revoked_at_one_is_told_by_all() {
    const AT_ONCE: Duration = Duration::from_secs(1);
    let (issuer, cluster) = (Issuer::start(), Cluster::start());
    let first = serving(&issuer, &cluster);
    let mut second = first.replica();
    let key = watcher::exported_key(&first);
    let [one, other] = [&first, &second].map(|authority| watcher::present(authority.client(), &key));
    for same in ["number", "krl", "crl", "trust", "cluster", "statement_keys"] {
        assert_eq!(one[same], other[same], "{same}");
    }
    let grant = || {
        let keys = Keys::fresh();
        let token = issuer.token("github", &keys.audience(&first.url())).mint();
        let granted = first.client().exchange(&keys.request("github-deploy", "github", &token)).granted();
        (keys, granted)
    };
    let granted = [grant(), grant(), grant()];
    let give_back = |(keys, granted): &(Keys, serde_json::Value)| {
        let chain = granted["outputs"][0]["tls_certificate_chain"].as_str().unwrap();
        let assertion = keys.tls_assertion(chain, &assertion_claims(&first.url()));
        let body = serde_json::json!({"issuance_id": granted["issuance_id"], "assertion": assertion});
        first.client().post("/v1/revoke", body.to_string()).granted();
    };
    let mut watching = Watcher::start(&second, None);
    let begun = watching.next(AT_ONCE);
    give_back(&granted[0]);
    let told = watching.wait(AT_ONCE, |told| !watcher::revoked(told).is_empty());
    assert_eq!((&told["since"], &told["urgent"]), (&begun["number"], &begun["urgent"]));
    succeed(&mut first.command(["lock", "--issuance", granted[1].1["issuance_id"].as_str().unwrap()]));
    let locked = watching.wait(AT_ONCE, |told| !watcher::revoked(told).is_empty());
    assert_eq!(locked["urgent"], locked["number"]);
    // One that ends sends its watchers to another, which has not heard of all that they have.
    second.term();
    assert!(watching.try_next(AT_ONCE).is_err());
    assert!(second.wait().success());
    let mut watching = Watcher::start(&first, Some(watcher::number(&locked)));
    assert_eq!(watching.next(AT_ONCE)["number"], locked["number"]);
    give_back(&granted[2]);
    let told = watching.wait(AT_ONCE, |told| !watcher::revoked(told).is_empty());
    assert_eq!(told["since"], locked["number"]);

    // A copy of the data directory from before there was a statement key.
    std::fs::remove_file(second.data_dir().join("keys/statement_key")).unwrap();
    let said = second.refuses_to_start();
    assert!(
        said.contains(&format!("none here, statement {key} there, as "))
            && said.contains("hint: all authorities of a store have the same CA keys: copy the folder"),
        "{said}"
    );
}
