//! Hosts that prove which they are, and hosts that are thrown out.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use base64::Engine as _;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use super::Bench;
use super::revocation::{self, Held};
use super::serving::serve_after;
use crate::support::client::{self, Keys, Response};
use crate::support::now;
use crate::support::process::{Running, machine_id, read, run, succeed};
use crate::support::wait_for;
use crate::support::watcher::{Watcher, revoked};

mod names;

/// A host with an SSH key and a TLS key, each certified for it by the operator.
struct Host {
    keys: Keys,
    ssh: String,
    tls: String,
    folder: TempDir,
}

impl Host {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Claims for that URL.
    fn claims(url: &str) -> Map<String, Value> {
        let claims =
            json!({"aud": url, "iat": now(), "exp": now() + 60, "list": 7, "cas": ["ssh-user SHA256:x"]});
        claims.as_object().unwrap().clone()
    }
}

impl Bench {
    fn host(&self, name: &str) -> Host {
        let (keys, folder) = (Keys::fresh(), TempDir::new().unwrap());
        let path = |name: &str| folder.path().join(name);
        let put = |name: &str, text: &str| {
            std::fs::write(path(name), text).unwrap();
            std::fs::set_permissions(path(name), std::fs::Permissions::from_mode(0o600)).unwrap();
        };
        put("host.pub", &keys.ssh);
        put("host", &keys.ssh_private());
        put("host.csr", &keys.csr);
        put("server.key", &keys.tls.serialize_pem());
        let ssh = succeed(self.authority.command(["sign-host", "--principal", name]).arg(path("host.pub")));
        let mut sign = self.authority.command(["sign-server", "--name", name]);
        let tls = succeed(sign.arg("--csr").arg(path("host.csr")));
        put("host-cert.pub", &ssh);
        put("server.crt", &tls);
        Host { keys, ssh: ssh.trim().to_owned(), tls, folder }
    }

    fn get_as(&self, path: &str, said: &[&str]) -> Response {
        let headers: String = said.iter().map(|said| format!("machine-id-host: {said}\r\n")).collect();
        self.authority.client().try_send("GET", path, &headers, b"").unwrap()
    }

    /// What the command lists.
    fn hosts(&self) -> Vec<Value> {
        let lines = succeed(&mut self.authority.command(["hosts", "--format", "json"]));
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Those that the store has heard of, once there are so many.
    fn known(&self, count: usize) -> Vec<Value> {
        wait_for("hosts", || Some(self.hosts()).filter(|hosts| hosts.len() >= count))
    }

    fn refresh(&self, host: &Host, key: &str) -> Command {
        self.as_host("refresh", host, key)
    }

    fn as_host(&self, what: &str, host: &Host, key: &str) -> Command {
        let mut command = machine_id(["host", what, "--authority", &self.authority.url(), "--dir"]);
        command.arg(host.path("trust")).arg("--ca-file").arg(self.authority.ca_file());
        command.arg("--host-key").arg(host.path(key));
        command
    }
}

fn list_of(host: &Host) -> Option<machine_id::krl::Krl> {
    Some(machine_id::krl::read(&std::fs::read(host.path("trust/revoked.krl")).ok()?).unwrap())
}

#[test]
fn a_host_is_known_by_its_key_and_its_certificate() {
    let bench = Bench::start();
    let (url, web, db) = (bench.authority.url(), bench.host("web-1.example.com"), bench.host("db"));
    assert_eq!(bench.get_as("/v1/trust", &[]).status, 200);
    assert!(bench.hosts().is_empty());
    for path in ["/v1/trust", "/v1/statement", "/v1/revoked", "/v1/revoked/ssh.krl", "/v1/revoked/tls.crl"] {
        let said = web.keys.ssh_assertion(&web.ssh, &Host::claims(&format!("{url}{path}")));
        for _ in 0..2 {
            assert_eq!(
                bench.get_as(path, &[&said]).status,
                200,
                "{path}: it may come again within its minute"
            );
        }
    }
    let said = db.keys.tls_assertion(&db.tls, &Host::claims(&format!("{url}/v1/trust")));
    assert_eq!(bench.get_as("/v1/trust", &[&said]).status, 200);
    let known = bench.known(2);
    let names: Vec<&str> = known.iter().map(|host| host["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["db", "web-1.example.com"]);
    assert_eq!((&known[0]["list"], &known[0]["cas"]), (&json!("7"), &json!(["ssh-user SHA256:x"])));
    assert!(known[0]["last_seen"].as_str().unwrap().starts_with('2'));
    let table = succeed(&mut bench.authority.command(["hosts"]));
    assert!(table.starts_with("HOST ") && table.contains("web-1.example.com"), "{table}");
}

#[test]
fn nobody_else_is_taken_for_a_host() {
    let bench = Bench::start();
    let (url, web, other) = (bench.authority.url(), bench.host("web-1"), bench.host("web-2"));
    let trust = format!("{url}/v1/trust");
    let good = || Host::claims(&trust);
    let with = |name: &str, value: Value| {
        let mut claims = good();
        claims.insert(name.to_owned(), value);
        web.keys.ssh_assertion(&web.ssh, &claims)
    };
    // A user of ours, with a certificate of the user CA.
    let job = Keys::fresh();
    let granted = bench.grant(&job);
    let user = granted["outputs"][0]["ssh_certificate"].as_str().unwrap();
    // One of another CA that has the serial, and other names.
    let stranger = Keys::fresh();
    let forged = forged(&stranger, &web.ssh, "db");
    let mine = forged_for(&web, "db");
    let cases: Vec<(&str, String, bool)> = vec![
        ("nothing", String::new(), false),
        ("no JWS", "a.b.c".into(), false),
        ("a user's certificate", job.ssh_assertion(user, &good()), false),
        ("another host's key", other.keys.ssh_assertion(&web.ssh, &good()), false),
        ("a made-up certificate", stranger.ssh_assertion(&forged, &good()), false),
        ("another path", with("aud", json!(format!("{url}/v1/revoked"))), true),
        ("the path alone", with("aud", json!("/v1/trust")), true),
        ("with a query", with("aud", json!(format!("{trust}?x"))), true),
        ("of an hour", with("exp", json!(now() + 3600)), true),
        (
            "of before",
            {
                let mut claims = good();
                claims.insert("iat".into(), json!(now() - 600));
                claims.insert("exp".into(), json!(now() - 540));
                web.keys.ssh_assertion(&web.ssh, &claims)
            },
            true,
        ),
    ];
    for (what, said, verified) in cases {
        let problem = bench.get_as("/v1/trust", &[&said]).problem(401);
        assert_eq!(problem["type"], "urn:machine-id:host-unproven", "{what}: {problem}");
        let record = bench.authority.refusal(problem["denial_id"].as_str().unwrap());
        assert_eq!(
            (&record["reason"], &record["verified"]),
            (&json!("host_unproven"), &json!(verified)),
            "{what}: {record}"
        );
    }
    let said = web.keys.ssh_assertion(&web.ssh, &good());
    bench.get_as("/v1/trust", &[&said, &said]).problem(401);
    // What it says of its names is not believed: the store knows them by the serial.
    assert_eq!(bench.get_as("/v1/trust", &[&web.keys.ssh_assertion(&mine, &good())]).status, 200);
    assert_eq!(bench.known(1)[0]["name"], "web-1");
    // Nor is one that was thrown out.
    succeed(&mut bench.authority.command(["revoke-host", "web-1"]));
    bench.get_as("/v1/trust", &[&said]).problem(401);
    assert_eq!(bench.hosts().len(), 1);
    let limited = (0..400).map(|_| bench.get_as("/v1/trust", &["x"])).find(|response| response.status != 401);
    limited.expect("a limit").problem(429);
    assert_eq!(bench.get_as("/v1/trust", &[]).status, 200, "who says nothing is served");
}

/// A certificate with the serial of another, by somebody, for these keys and that name.
fn forged(keys: &Keys, like: &str, name: &str) -> String {
    use ssh_key::certificate::{Builder, CertType};
    let like = ssh_key::Certificate::from_openssh(like).unwrap();
    let ca = ssh_key::PrivateKey::from(ssh_key::private::Ed25519Keypair::from_seed(&[7; 32]));
    let key = ssh_key::PublicKey::from_openssh(&keys.ssh).unwrap();
    let mut builder = Builder::new(vec![1; 32], key.key_data().clone(), 0, 1 << 40).unwrap();
    builder.serial(like.serial()).unwrap().cert_type(CertType::Host).unwrap().key_id("x").unwrap();
    builder.valid_principal(name).unwrap();
    builder.sign(&ca).unwrap().to_openssh().unwrap()
}

fn forged_for(host: &Host, name: &str) -> String {
    forged(&host.keys, &host.ssh, name)
}

#[test]
fn a_refresh_says_which_host_it_is_and_what_it_has() {
    let mut bench = Bench::start();
    let (web, db) = (bench.host("web-1"), bench.host("db"));
    bench.authority.restart_with_clock(now());
    succeed(&mut bench.refresh(&web, "host"));
    // Not what it had before; the store may hear of that a minute later.
    let list = list_of(&web).unwrap().number.to_string();
    wait_for("its list", || {
        bench.authority.pass(60);
        bench.hosts().iter().any(|web| web["list"] == list).then_some(())
    });
    // Of what is there already it speaks when it comes.
    std::fs::rename(web.path("trust"), db.path("trust")).unwrap();
    succeed(&mut bench.refresh(&db, "server.key"));
    let known = bench.known(2);
    let fingerprint = |what: &str| succeed(&mut bench.authority.command(["export", what])).trim().to_owned();
    let ssh = |what: &str| {
        let key = ssh_key::PublicKey::from_openssh(&fingerprint(what)).unwrap();
        key.fingerprint(ssh_key::HashAlg::Sha256).to_string()
    };
    let cas = json!([
        format!("ssh-user {}", ssh("ssh-user-ca")),
        format!("ssh-host {}", ssh("ssh-host-ca")),
        format!("tls {}", fingerprint("tls-ca-pin")),
    ]);
    assert_eq!((&known[0]["name"], &known[0]["list"], &known[0]["cas"]), (&json!("db"), &json!(list), &cas));
}

/// No KRL is another for a revocation of TLS.
#[test]
fn a_host_that_has_what_is_stated_is_shown_with_that_number() {
    let bench = Bench::start();
    let (web, db) = (bench.host("web-1"), bench.host("db"));
    succeed(&mut bench.refresh(&web, "host"));
    let before = list_of(&web).unwrap().number;
    let tls = machine_id::pem::certificates(&db.tls).unwrap().remove(0);
    let (_, tls) = x509_parser::parse_x509_certificate(&tls).unwrap();
    succeed(&mut bench.authority.command(["lock", "--serial", &tls.tbs_certificate.serial.to_string()]));
    let number = wait_for("the statement", || {
        let told = bench.authority.client().get("/v1/statement").json();
        let claims = told["statement"].as_str().unwrap().split('.').nth(1).unwrap().to_owned();
        let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(claims).unwrap();
        let statement: machine_id::wire::Statement = serde_json::from_slice(&claims).unwrap();
        Some(statement.number).filter(|number| *number > before)
    });
    succeed(&mut bench.refresh(&web, "host"));
    assert_eq!(list_of(&web).unwrap().number, before);
    // The store hears of each once a minute: another speaks of it when it comes.
    std::fs::rename(web.path("trust"), db.path("trust")).unwrap();
    succeed(&mut bench.refresh(&db, "host"));
    let known = bench.known(2);
    assert_eq!((&known[0]["name"], &known[0]["list"]), (&json!("db"), &json!(number.to_string())));
}

/// Days without anything new on a connection do not mean that a host is away; what it has, only it can say.
#[test]
fn a_watcher_is_seen_for_as_long_as_it_takes_what_it_is_told() {
    let mut bench = Bench::start();
    let (web, db, begun) = (bench.host("web-1"), bench.host("db"), now());
    bench.authority.restart_with_clock(begun);
    let jobs: Vec<Held> = (0..2).map(|_| Held::new(&bench)).collect();
    let give_back = |bench: &Bench, job: &Held| {
        let assertion = job.assertion(bench);
        assert_eq!(revocation::revoke(bench, job.id(), &assertion).status, 200);
        let has = |list: &machine_id::krl::Krl| list.serials.contains(&job.ssh_serial());
        wait_for("the list", || list_of(&web).filter(has));
    };
    let watch = Running::start(bench.as_host("watch", &web, "host").stderr(Stdio::piped()));
    // What it has fetched it says of its own accord; the store hears of each once a minute.
    wait_for("the files", || web.path("trust/tls_ca.crt").exists().then_some(()));
    let number = list_of(&web).unwrap().number.to_string();
    let web_is = |bench: &Bench, seen: i64| {
        let seen = machine_id::clock::rfc3339(seen);
        let hosts = bench.hosts();
        let web = hosts.iter().find(|host| host["name"] == "web-1")?;
        (web["list"] == number && web["last_seen"] == seen).then_some(())
    };
    wait_for("a minute", || {
        bench.authority.pass(60);
        web_is(&bench, begun)
    });
    // It takes what is told, and fetches nothing for it yet.
    bench.authority.set_clock(begun + 30);
    bench.authority.pass(60);
    give_back(&bench, &jobs[0]);
    wait_for("the host is there", || web_is(&bench, begun + 30));
    // One that is thrown out hears of that as well as anybody, and is seen no more.
    succeed(&mut bench.authority.command(["revoke-host", "web-1"]));
    wait_for("a warning", || watch.stderr().contains("for a host's").then_some(()));
    bench.authority.set_clock(begun + 50);
    bench.authority.pass(60);
    give_back(&bench, &jobs[1]);
    let said = db.keys.ssh_assertion(&db.ssh, &Host::claims(&format!("{}/v1/trust", bench.authority.url())));
    assert_eq!(bench.get_as("/v1/trust", &[&said]).status, 200);
    bench.known(2);
    web_is(&bench, begun + 30).expect("as it was");
    let told = watch.stderr();
    assert_eq!(told.matches("warning: the authority does not take ").count(), 1, "{told}");
    assert_eq!(told.matches("warning: ").count(), 1, "{told}");
}

/// With 96 descriptors there are 24 places. Strangers may have them all, but for those of hosts.
#[test]
fn a_host_that_says_who_it_is_is_the_last_watcher_to_go() {
    let mut bench = Bench::start();
    let (web, job) = (bench.host("web-1"), Held::new(&bench));
    let _serving = serve_after(&mut bench, "ulimit -n 96", |_| {});
    let claims = Host::claims(&format!("{}/v1/watch", bench.authority.url()));
    let said = format!("machine-id-host: {}\r\n", web.keys.ssh_assertion(&web.ssh, &claims));
    let soon = std::time::Duration::from_secs(10);
    let named = || Watcher::saying(&said, &bench.authority);
    let mut hosts = vec![named().unwrap()];
    let _strangers: Vec<Watcher> = (0..30).map(|_| Watcher::start(&bench.authority, None)).collect();
    hosts.extend((0..23).map(|_| named().unwrap()));
    let refused = Watcher::saying("", &bench.authority).err().expect("no place").to_string();
    assert!(refused.starts_with("http/1.1 503"), "{refused}");
    // None of theirs was taken away.
    succeed(&mut bench.authority.command(["lock", "--issuance", job.id()]));
    hosts.iter_mut().for_each(|host| drop(host.wait(soon, |told| !revoked(told).is_empty())));
}

/// A certificate that comes later, or another in its place, is used without a new start.
#[test]
fn a_watcher_without_a_certificate_watches_and_says_so() {
    let bench = Bench::start();
    let web = bench.host("web-1");
    std::fs::rename(web.path("host-cert.pub"), web.path("later")).unwrap();
    let watch = Running::start(bench.as_host("watch", &web, "host").stderr(Stdio::piped()));
    wait_for("the files", || web.path("trust/tls_ca.crt").exists().then_some(()));
    wait_for("a warning", || watch.stderr().contains("host-cert.pub").then_some(()));
    assert_eq!(bench.hosts(), Vec::<Value>::new());
    std::fs::rename(web.path("later"), web.path("host-cert.pub")).unwrap();
    let job = Held::new(&bench);
    succeed(&mut bench.authority.command(["lock", "--issuance", job.id()]));
    let list = wait_for("the number that it has", || bench.known(1)[0]["list"].as_str().map(str::to_owned));
    wait_for("the same", || (list_of(&web)?.number.to_string() == list).then_some(()));
    assert_eq!(watch.stderr().matches("warning: ").count(), 1, "{}", watch.stderr());
}

/// Revocations count more than that.
#[test]
fn a_host_that_cannot_prove_it_has_its_files_all_the_same() {
    let bench = Bench::start();
    let web = bench.host("web-1");
    let ends = |key: &str, code: i32, said: &[&str]| {
        let _ = std::fs::remove_dir_all(web.path("trust"));
        let ended = run(&mut bench.refresh(&web, key));
        let stderr = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(code), "{stderr}");
        assert!(said.iter().all(|said| stderr.contains(said)), "{stderr}");
        assert!(
            read(web.path("trust/ssh_user_ca.pub")).starts_with("ssh-ed25519 ")
                && web.path("trust/revoked.krl").exists()
        );
    };
    ends("none", 2, &["cannot read", "none"]);
    ends("host.pub", 2, &["cannot use the host key", "it is no private key"]);
    succeed(&mut bench.authority.command(["revoke-host", "web-1"]));
    ends(
        "host",
        4,
        &["does not take", "for a host's", "does not prove which host asks (d-", "this host is not counted"],
    );
    assert!(bench.hosts().is_empty());
}

#[test]
fn a_host_that_is_thrown_out_is_certified_by_nobody_until_it_is_let_in_again() {
    let bench = Bench::start();
    let web = bench.host("web-1");
    let would = succeed(&mut bench.authority.command(["revoke-host", "web-1", "--dry-run"]));
    assert!(
        would.contains("this would lock host web-1, and revoke 2 issuances with 2 certificates"),
        "{would}"
    );
    let said =
        succeed(&mut bench.authority.command(["revoke-host", "WEB-1", "--message", "its disk was stolen"]));
    assert_eq!(
        said,
        "threw out host web-1: no certificate for its name is signed, and 2 issuances with 2 certificates are revoked\n"
    );
    wait_for("both on the lists", || {
        let listed = bench.authority.client().get("/v1/revoked").json();
        (listed["expires"].as_object().unwrap().len() == 2).then_some(())
    });
    let sign = |command: &[&str], file: &str| {
        let mut sign = bench.authority.command([command[0], command[1], command[2]]);
        sign.args(&command[3..]).arg(web.path(file));
        run(&mut sign)
    };
    let ways: [(&[&str], &str); 2] = [
        (&["sign-host", "--principal", "web-1"], "host.pub"),
        (&["sign-server", "--name", "web-1", "--csr"], "host.csr"),
    ];
    for (command, file) in ways {
        let refused = sign(command, file);
        let stderr = String::from_utf8(refused.stderr).unwrap();
        assert_eq!((refused.status.code(), refused.stdout.as_slice()), (Some(4), b"".as_slice()), "{stderr}");
        let words =
            ["nothing is signed: host web-1 is locked, by ", ": its disk was stolen", "unlock --host web-1"];
        assert!(words.iter().all(|words| stderr.contains(words)), "{stderr}");
    }
    assert!(sign(&["sign-host", "--principal", "web-2"], "host.pub").status.success());
    let bad = run(&mut bench.authority.command(["revoke-host", "web_1/x"]));
    assert_eq!(bad.status.code(), Some(2));
    assert!(String::from_utf8(bad.stderr).unwrap().contains("`web_1/x` cannot be a host name"));
    let lock: Value =
        serde_json::from_str(&succeed(&mut bench.authority.command(["locks", "--format", "json"]))).unwrap();
    assert_eq!((&lock["kind"], &lock["value"]), (&json!("host"), &json!("web-1")));
    succeed(&mut bench.authority.command(["unlock", "--host", "web-1"]));
    assert!(sign(&["sign-host", "--principal", "web-1"], "host.pub").status.success());
}

/// The same of a job that is a host; what jobs that log in are told.
#[test]
fn a_job_is_no_host_that_was_thrown_out_and_is_told_which_were() {
    let bench = Bench::start();
    let ask = || {
        let keys = Keys::fresh();
        let output = json!({
            "name": "host", "type": "ssh-host", "ssh": {"public_key": keys.ssh}, "options": {"principals": "ci-1+ci-2"},
        });
        let token = bench.unbound().mint();
        bench.authority.client().exchange(&client::request("github-hosts", "github", &token, json!([output])))
    };
    let granted = ask().granted();
    assert!(granted.get("revoked_hosts").is_none(), "a host logs in nowhere");
    let told = || {
        let granted = bench.grant(&Keys::fresh());
        let list = base64::engine::general_purpose::STANDARD
            .decode(granted["revoked_hosts"].as_str().unwrap())
            .unwrap();
        machine_id::krl::read(&list).unwrap().serials
    };
    assert!(told().is_empty());
    succeed(&mut bench.authority.command(["revoke-host", "ci-1", "--message", "taken over"]));
    let problem = ask().problem(403);
    assert_eq!(problem["type"], "urn:machine-id:locked-out", "{problem}");
    assert_eq!(problem["detail"], "the host ci-1 was thrown out, and gets no certificate: taken over");
    let serial: u64 = granted["outputs"][0]["serial"].as_str().unwrap().parse().unwrap();
    wait_for("the list", || Some(told()).filter(|serials| *serials == [serial]));
    succeed(&mut bench.authority.command(["unlock", "--host", "ci-1"]));
    ask().granted();
    assert_eq!(told(), [serial]);
}
