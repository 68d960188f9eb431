//! What must hold wherever the CA keys are: a whole job, a thousand issuances at once, and a store of keys that is gone under load.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use machine_id::pem;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::authority::Authority;
use crate::support::client::{Keys, timed};
use crate::support::issuer::Issuer;
use crate::support::key_store::{KeyStore, Kind};
use crate::support::kms::Kms;
use crate::support::nginx::Nginx;
use crate::support::once::{World, snapshot};
use crate::support::postgres::Postgres;
use crate::support::process::{command, run, succeed};
use crate::support::replicas::Replicas;
use crate::support::servers::Folder;
use crate::support::softhsm::PIN;
use crate::support::sshd::Sshd;
use crate::support::watcher::Watcher;
use crate::support::{PATIENCE, wait_for};

/// Jobs that ask at once.
const JOBS: usize = 16;
/// Issuances of theirs.
const MANY: usize = 1000;
/// For how long a store of keys is gone.
const GONE: Duration = Duration::from_secs(10);

/// The list of revoked certificates, for nginx.
#[track_caller]
fn list(authority: &Authority, folder: &Path, name: &str) -> PathBuf {
    let file = folder.join(name);
    let crl = authority.client().get("/v1/revoked/tls.crl");
    assert_eq!(crl.status, 200);
    std::fs::write(&file, pem::encode("X509 CRL", &crl.body).as_bytes()).unwrap();
    file
}

/// What a site says to whoever has these files.
fn visit(site: &Nginx, destination: &Path) -> String {
    let file = |name: &str| destination.join(name);
    let mut curl = command("curl");
    curl.arg("-sS").arg("--cert").arg(file("tls.crt")).arg("--key").arg(file("tls.key"));
    succeed(curl.arg("--cacert").arg(file("ca.crt")).arg(site.url()))
}

/// Logs in to everything, is renewed beside an agent, and is given back.
#[track_caller]
fn a_whole_job(store: &KeyStore, kind: Kind) {
    let issuer = Issuer::start();
    let mut authority = store.authority(&issuer, kind).start();
    if let KeyStore::Kms(kms) = store {
        // It serves without the rights by which its keys were made.
        kms.allow(&["serve.json"]);
        authority.restart();
    }
    let world = World { issuer, authority };
    let authority = &world.authority;
    let (of_ca, of_job, signed) = match kind {
        Kind::Modern => ("ssh-ed25519", "ssh-ed25519", "ecdsa-with-SHA256"),
        Kind::Compatible => ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256", "ecdsa-with-SHA256"),
        Kind::P384 => ("ecdsa-sha2-nistp384", "ecdsa-sha2-nistp256", "ecdsa-with-SHA384"),
        Kind::Rsa => ("ssh-rsa", "ecdsa-sha2-nistp256", "sha256WithRSAEncryption"),
    };
    let ca = succeed(&mut authority.command(["export", "ssh-user-ca"]));
    assert!(ca.starts_with(&format!("{of_ca} ")), "{ca}");

    let (sshd, postgres, server) =
        (Sshd::start(authority), Postgres::start(authority), Folder::new(authority, "root"));
    let lists = TempDir::new().unwrap();
    let site = |crl: &Path| Nginx::start(&server.tls(), &authority.ca_file(), Some(crl));
    let nginx = site(&list(authority, lists.path(), "before"));
    let job = world.github();
    let destination = job.once(["--output", "identity"]).good().destination();
    let mut show = command("openssl");
    let text = succeed(show.args(["x509", "-noout", "-text", "-in"]).arg(destination.join("tls.crt")));
    assert!(text.contains(signed), "{text}");
    sshd.logs_in(&destination);
    let said = visit(&nginx, &destination);
    assert!(said.starts_with("hello "), "{said}\n{}", nginx.log());
    let database = job.once(["--output", "database,service=orders,database=orders"]).good().destination();
    assert_eq!(succeed(&mut postgres.psql_with(&database, "deploy", "orders")), "deploy\n");
    sshd.lets_in_an_agent(&job, of_job);

    let other = job.once(["--output", "identity"]).good().destination();
    job.gives_back(&destination);
    sshd.refresh_revoked(authority);
    sshd.refuses(&destination, "revoked");
    let nginx = site(&list(authority, lists.path(), "after"));
    let said = visit(&nginx, &destination);
    assert!(!said.contains("hello "), "{said}");
    nginx.wait_for_log("certificate revoked");
    // And nobody else.
    sshd.logs_in(&other);
    assert!(visit(&nginx, &other).starts_with("hello "), "{}", nginx.log());
    assert!(authority.is_ready() && doctor(authority).starts_with("ok: keys: "));
    if let Some(secret) = store.secret() {
        has_no_key(authority, &secret);
    }
}

/// Neither a private key of a CA nor what opens the place of those is in the data directory.
fn has_no_key(authority: &Authority, secret: &str) {
    let files = snapshot(&authority.data_dir());
    assert!(files.keys().any(|path| path.ends_with("tls_ca.crt")));
    for (path, content) in files {
        let text = String::from_utf8_lossy(&content);
        // Its own server's key is no CA key.
        let is_served = path.starts_with(authority.data_dir().join("tls"));
        assert!(is_served || !text.contains("PRIVATE KEY"), "{}", path.display());
        assert!(!text.contains(secret), "{}", path.display());
    }
}

/// The key of that kind that signs, as `readyz` names it.
#[track_caller]
fn signer(authority: &Authority, kind: &str) -> String {
    let ready = authority.client().get("/readyz").granted();
    let names = ready["keys"].as_array().unwrap().iter().filter_map(Value::as_str);
    let mut ids = names.filter_map(|name| name.strip_prefix(kind)?.strip_prefix(' '));
    ids.next().unwrap_or_else(|| panic!("no {kind}: {ready}")).to_owned()
}

/// The serials of an issuance, in an answer's output or an event.
fn recorded(trail: &[Value]) -> BTreeMap<String, BTreeSet<String>> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let issued = trail.iter().filter(|one| one["event"] == "issued" && one["token"] == "github-deploy");
    issued
        .map(|one| (text(&one["issuance_id"]), one["serials"].as_array().unwrap().iter().map(text).collect()))
        .collect()
}

fn answered(granted: &Value) -> (String, BTreeSet<String>) {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let output = &granted["outputs"][0];
    (text(&granted["issuance_id"]), [text(&output["serial"]), text(&output["tls_serial"])].into())
}

/// A thousand issuances at once: ssh-keygen and OpenSSL verify every certificate, and the trail has each, once.
#[track_caller]
fn many(store: &KeyStore) {
    let issuer = Issuer::start();
    let authority = store.authority(&issuer, Kind::Modern).start();
    let next = AtomicUsize::new(0);
    let job = || {
        let keys = Keys::fresh();
        let mut granted = Vec::new();
        while next.fetch_add(1, Ordering::Relaxed) < MANY {
            let token = issuer.token("github", &keys.audience(&authority.url())).mint();
            let request = keys.request("github-deploy", "github", &token);
            granted.push(authority.client().exchange(&request).granted());
        }
        granted
    };
    let (granted, time) = timed(|| -> Vec<Value> {
        std::thread::scope(|scope| {
            let jobs: Vec<_> = (0..JOBS).map(|_| scope.spawn(job)).collect();
            jobs.into_iter().flat_map(|one| one.join().unwrap()).collect()
        })
    });
    println!("{MANY} issuances in {time:?}");

    let folder = TempDir::new().unwrap();
    let output = |one: &Value, name: &str| one["outputs"][0][name].as_str().unwrap().trim().to_owned() + "\n";
    let lines: String = granted.iter().map(|one| output(one, "ssh_certificate")).collect();
    std::fs::write(folder.path().join("all"), lines).unwrap();
    // It reads no certificate whose signature is not by the key that stands in it.
    let listed = succeed(command("ssh-keygen").arg("-Lf").arg(folder.path().join("all")));
    let by = format!("Signing CA: ED25519 {} ", signer(&authority, "ssh-user"));
    assert_eq!(listed.matches(&by).count(), MANY, "{by}: {listed}");
    for (number, one) in granted.iter().enumerate() {
        std::fs::write(folder.path().join(format!("{number}.crt")), output(one, "tls_certificate_chain"))
            .unwrap();
    }
    let mut openssl = command("openssl");
    openssl.args(["verify", "-x509_strict", "-purpose", "sslclient", "-CAfile"]).arg(authority.ca_file());
    let said = succeed(openssl.args((0..MANY).map(|number| folder.path().join(format!("{number}.crt")))));
    assert_eq!(said.matches(": OK\n").count(), MANY, "{said}");

    let answered: BTreeMap<_, _> = granted.iter().map(answered).collect();
    assert_eq!(answered.len(), MANY);
    assert_eq!(answered.values().flatten().collect::<BTreeSet<_>>().len(), 2 * MANY, "a serial twice");
    assert_eq!(recorded(&authority.audit()), answered);
}

/// Under load it is gone for a while: that is told at once and to everybody, and over without a restart; what was recorded meanwhile is
/// signed afterwards, under the same serials, and once.
#[track_caller]
fn gone(store: &KeyStore, time: Duration) {
    let issuer = Issuer::start();
    let mut replicas = Replicas::of(vec![store.authority(&issuer, Kind::Modern).start()]);
    let load = replicas.load(&issuer);
    load.during(JOBS, || {
        load.goes_on(100);
        let authority = replicas.one(0);
        let mut watcher = Watcher::start(authority, None);
        let before = watcher.next(PATIENCE);
        let keys = Keys::fresh();
        let token = issuer.token("github", &keys.audience(&authority.url()));
        let request = keys.request("github-deploy", "github", &token.clone().mint());
        let ask = || authority.client().exchange(&request);

        store.take_away();
        let begun = Instant::now();
        let (told, took) = timed(ask);
        assert_eq!(told.problem(503)["type"], "urn:machine-id:keys-unavailable");
        assert!(told.header("retry-after").is_some() && took < Duration::from_secs(15), "{took:?}");
        wait_for("not to be ready", || (!authority.is_ready()).then_some(()));
        // It is in the trail already, under what it gets later.
        let own = |trail: &[Value]| -> Vec<_> {
            let mine = |one: &&Value| one["claims"]["jti"] == token.claims["jti"];
            recorded(&trail.iter().filter(mine).cloned().collect::<Vec<_>>()).into_iter().collect()
        };
        let unsigned = own(&authority.audit());
        assert_eq!(unsigned.len(), 1, "{unsigned:?}");
        // Whoever watches is told what there is, or that nothing is told; whoever comes now is, too.
        let watched = authority.client().get("/v1/watch");
        assert_eq!(watched.problem(503)["type"], "urn:machine-id:keys-unavailable");
        while begun.elapsed() < time {
            load.fails_with("keys-unavailable");
            assert!(!authority.is_ready());
        }
        store.put_back();

        load.goes_on(100);
        wait_for("to be ready", || authority.is_ready().then_some(()));
        let granted = wait_for("what was recorded", || {
            let told = ask();
            (told.status == 200).then(|| told.granted())
        });
        assert_eq!(vec![answered(&granted)], unsigned);
        assert_eq!(vec![answered(&ask().granted())], unsigned);
        assert_eq!(own(&authority.audit()), unsigned, "recorded twice");
        // A connection that ended says so; none is silent for good.
        let later = |told: &Value| told["made"].as_i64() > before["made"].as_i64();
        let mut told = watcher.try_next(PATIENCE);
        while told.as_ref().is_ok_and(|told| !later(told)) {
            told = watcher.try_next(PATIENCE);
        }
        if let Err(error) = told {
            assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof, "{error}");
            assert!(later(&Watcher::start(authority, None).next(PATIENCE)));
        }
    });
    load.holds(|| replicas.audit());
    assert!(replicas.one(0).terminate().success());
}

macro_rules! each {
    ($($name:ident: $holds:ident($($of:expr),+);)+) => {
        $(#[test]
        fn $name() {
            $holds($($of),+);
        })+
    };
}

each! {
    files_serve_a_whole_job: a_whole_job(&KeyStore::Files, Kind::Modern);
    sealed_files_serve_a_whole_job: a_whole_job(&KeyStore::sealed(), Kind::Compatible);
    a_token_serves_a_whole_job_by_ed25519: a_whole_job(&KeyStore::token(), Kind::Modern);
    a_token_serves_a_whole_job_by_p256: a_whole_job(&KeyStore::token(), Kind::Compatible);
    a_token_serves_a_whole_job_by_p384: a_whole_job(&KeyStore::token(), Kind::P384);
    a_token_serves_a_whole_job_by_rsa: a_whole_job(&KeyStore::token(), Kind::Rsa);
    kms_serves_a_whole_job_by_ed25519: a_whole_job(&KeyStore::kms(), Kind::Modern);
    kms_serves_a_whole_job_by_p256: a_whole_job(&KeyStore::kms(), Kind::Compatible);
    kms_serves_a_whole_job_by_p384: a_whole_job(&KeyStore::kms(), Kind::P384);
    kms_serves_a_whole_job_by_rsa: a_whole_job(&KeyStore::kms(), Kind::Rsa);
    files_sign_many: many(&KeyStore::Files);
    sealed_files_sign_many: many(&KeyStore::sealed());
    a_token_signs_many: many(&KeyStore::token());
    kms_signs_many: many(&KeyStore::kms());
    a_token_that_is_gone_under_load_loses_nothing: gone(&KeyStore::token(), GONE);
    kms_that_is_gone_under_load_loses_nothing: gone(&KeyStore::kms(), GONE);
}

/// What `doctor` says of the keys.
#[track_caller]
fn doctor(authority: &Authority) -> String {
    let said = String::from_utf8(run(&mut authority.command(["doctor"])).stdout).unwrap();
    assert!(!said.contains(PIN), "{said}");
    // With the hints below it.
    let from = said.find(": keys: ").and_then(|at| said[..at].rfind('\n')).unwrap();
    said[from + 1..].split(": store: ").next().unwrap().to_owned()
}

#[test]
fn doctor_says_what_is_wrong_with_a_token() {
    let store = KeyStore::token();
    let KeyStore::Token(token) = &store else { panic!() };
    let issuer = Issuer::start();
    let mut authority = store.authority(&issuer, Kind::Modern).start();
    let said = doctor(&authority);
    for kind in ["ssh-user", "ssh-host", "tls", "statement"] {
        assert!(said.contains(&format!("{kind} {}", signer(&authority, kind))), "{said}");
    }
    assert!(authority.terminate().success());
    token.hsm.write_pin("99999999");
    let said = doctor(&authority);
    assert!(said.starts_with("finding: ") && said.contains("it refuses the PIN of"), "{said}");
    token.hsm.write_pin(PIN);
    let right = token.hsm.uri("ca");
    for (uri, words) in [
        (right.replace("libsofthsm2", "nothing"), "nothing.so: No such file"),
        (right.replace("=ca?", "=other?"), "the token other cannot be used"),
        (right.replace("file:", "file:/nowhere"), "/nowhere"),
    ] {
        authority.configure("keys", &format!("'{uri}'"));
        let said = doctor(&authority);
        assert!(said.contains(words), "{uri}: {said}");
    }
    authority.configure("keys", &format!("'{right}'"));
    assert!(doctor(&authority).starts_with("ok: keys: "));
}

#[test]
fn doctor_says_what_is_wrong_with_kms() {
    let kms = std::sync::Arc::new(Kms::start());
    let issuer = Issuer::start();
    let authority = kms.authority(&issuer, "modern").start();
    let said = doctor(&authority);
    assert!(said.starts_with("ok: keys: ") && said.contains(&signer(&authority, "tls")), "{said}");
    kms.allow(&[]);
    let said = doctor(&authority);
    assert!(said.starts_with("finding: ") || said.starts_with("unreached: "), "{said}");
    assert!(said.contains("alias/ca-") && said.contains("access is denied"), "{said}");
    kms.allow(&["serve.json"]);
    kms.enable("alias/ca-tls", false);
    let said = doctor(&authority);
    assert!(said.contains("alias/ca-tls") && said.contains("the key is disabled"), "{said}");
    kms.enable("alias/ca-tls", true);
    assert!(doctor(&authority).starts_with("ok: keys: "));
}
