//! `authority doctor` finds what is wrong, and changes nothing.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{authority, init, policy_of};
use crate::support::authority::Authority;
use crate::support::issuer::{Endpoint, Fault, Issuer};
use crate::support::once::{Outcome, snapshot};
use crate::support::port::free_port;
use crate::support::process::{MACHINE_ID, command, read, run};

const WORKERS: [&str; 4] = ["--example", "token:workers", "--login", "deploy"];

/// A data directory of an authority that nobody serves, which asks no issuer.
fn data() -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let (data, made) = init(folder.path(), &WORKERS, None);
    made.good();
    let config = read(data.join("authority.yaml")).replace("127.0.0.1:8443", &free_port().to_string());
    std::fs::write(data.join("authority.yaml"), config).unwrap();
    (folder, data)
}

fn doctor(data: &Path, args: &[&str], platform: Option<&Issuer>) -> Outcome {
    let data = data.display().to_string();
    Outcome::of(&authority(&[&["doctor", "--data-dir", &data], args].concat(), platform))
}

#[track_caller]
fn finds(outcome: &Outcome, code: i32, said: &[&str]) {
    assert_eq!(outcome.code, code, "{outcome:?}");
    for said in said {
        assert!(outcome.stdout.contains(said), "no {said:?} in\n{}", outcome.stdout);
    }
}

fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_new_one_is_sound_and_stays_as_it_is() {
    let (_folder, data) = data();
    let before = snapshot(&data);
    let outcome = doctor(&data, &[], None);
    finds(
        &outcome,
        0,
        &[
            "ok: configuration: ",
            "ok: keys: ",
            "ok: store: ",
            "ok: policy: 1 bot, 1 role, 1 join token from 1 file\n",
            "ok: certificates: ",
            "ok: disk: ",
            "note: backup: no backup is seen in /var/backups/machine-id\n",
            "note: clock: no issuer was asked",
            "note: port: nobody serves at ",
            "\nsound\n",
        ],
    );
    assert_eq!(outcome.stderr, "");
    let json = doctor(&data, &["--format", "json"], None).good().stdout;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["sound"], true);
    assert!(
        json["checks"]
            .as_array()
            .unwrap()
            .iter()
            .all(|one| one["verdict"] != "finding" && one["hints"].is_array())
    );
    assert_eq!(snapshot(&data), before);
}

#[test]
fn what_is_wrong_here_is_found() {
    let (_folder, data) = data();
    let (policy, key) = (data.join("policy/workers.yaml"), data.join("keys/tls_ca.key"));
    let text = read(&policy);
    std::fs::remove_file(&policy).unwrap();
    finds(
        &doctor(&data, &[], None),
        2,
        &["finding: policy: no policy in ", "hint: `machine-id authority policy add`", "\n1 finding\n"],
    );
    std::fs::write(&policy, "kind: role\nversion: v7\nmetadata: {name: r}\nspec: {allow: {logins: [root], node_labels: {'*': '*'}}}\n").unwrap();
    finds(
        &doctor(&data, &[], None),
        2,
        &["finding: policy: it has no join token: nobody can get in\n", "note: policy: lints: 1 warning"],
    );
    std::fs::write(&policy, "kind: bto\n").unwrap();
    finds(&doctor(&data, &[], None), 2, &["workers.yaml:1:7: there is no kind of resource `bto`\n"]);
    std::fs::write(&policy, &text).unwrap();
    chmod(&policy, 0o666);
    finds(&doctor(&data, &[], None), 2, &["finding: policy: ", "anybody may write to it (mode 666)"]);
    chmod(&policy, 0o600);
    // A key that others may read, be it a copy.
    chmod(&key, 0o644);
    finds(
        &doctor(&data, &[], None),
        2,
        &["finding: keys: ", "others than its owner may use it (mode 644)", "hint: chmod 600 "],
    );
    chmod(&key, 0o600);
    let copy = data.join("keys/ssh_user_ca.old");
    std::fs::copy(data.join("keys/ssh_user_ca"), &copy).unwrap();
    chmod(&copy, 0o640);
    finds(
        &doctor(&data, &[], None),
        2,
        &["ssh_user_ca.old is no safe place for a key: others than its owner"],
    );
    std::fs::remove_file(&copy).unwrap();
    std::fs::remove_file(data.join("keys/ssh_host_ca")).unwrap();
    finds(&doctor(&data, &[], None), 2, &["finding: keys: ", "ssh_host_ca"]);
    std::fs::write(data.join("keys/ssh_host_ca"), "").unwrap();
    std::fs::rename(data.join("authority.db"), data.join("away.db")).unwrap();
    finds(&doctor(&data, &[], None), 2, &["finding: keys: ", "finding: store: ", "\n2 findings\n"]);
    let config = read(data.join("authority.yaml"));
    std::fs::write(data.join("authority.yaml"), format!("{config}lisen: x\n")).unwrap();
    let outcome = doctor(&data, &["--format", "json"], None);
    let json: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(
        (outcome.code, &json["sound"], &json["checks"][0]["verdict"]),
        (2, &false.into(), &"finding".into())
    );
    finds(
        &doctor(&data.join("gone"), &[], None),
        2,
        &["finding: configuration: cannot read ", "authority init"],
    );
}

#[test]
fn a_port_that_another_has_is_found() {
    let (_folder, data) = data();
    let config = read(data.join("authority.yaml"));
    let with = |listen: &str| {
        let lines = config.lines().map(|line| {
            if line.starts_with("listen:") { format!("listen: {listen}\n") } else { format!("{line}\n") }
        });
        std::fs::write(data.join("authority.yaml"), lines.collect::<String>()).unwrap();
    };
    // Nobody has that address here (RFC 5737).
    with("192.0.2.1:1");
    finds(&doctor(&data, &[], None), 2, &["finding: port: nobody can listen at 192.0.2.1:1: "]);
    let stranger = Issuer::start();
    let config = config.replace("https://127.0.0.1:9 ", &format!("{} ", stranger.url("")));
    let listen = stranger.host();
    std::fs::write(
        data.join("authority.yaml"),
        config.replace(
            config.lines().find(|line| line.starts_with("listen:")).unwrap(),
            &format!("listen: {listen}"),
        ),
    )
    .unwrap();
    finds(
        &Outcome::of(&run(command(MACHINE_ID).args(["authority", "doctor", "--data-dir"]).arg(&data))),
        2,
        &["finding: port: cannot reach the authority ", "somebody else answers there"],
    );
    // It takes connections, and says nothing of TLS.
    let dumb = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = dumb.local_addr().unwrap();
    std::thread::spawn(move || dumb.incoming().for_each(drop));
    let dumb = config.replace(&stranger.url(""), &format!("https://{address}"));
    std::fs::write(
        data.join("authority.yaml"),
        dumb.replace(
            dumb.lines().find(|line| line.starts_with("listen:")).unwrap(),
            &format!("listen: {address}"),
        ),
    )
    .unwrap();
    finds(
        &Outcome::of(&run(command(MACHINE_ID).args(["authority", "doctor", "--data-dir"]).arg(&data))),
        5,
        &["unreached: port: cannot reach ", "see whether that is this authority"],
    );
}

/// One that serves, with an issuer whose clock is right, wrong, or away.
#[test]
fn issuers_and_their_clocks() {
    let issuer = Issuer::start();
    let policy = policy_of(&["gitlab:octo-group/app"], None);
    let authority = Authority::with_policy(&policy).issuer(&issuer).proxy(&issuer.proxy()).start();
    let ask = || {
        let mut command = authority.command(["doctor"]);
        let outcome = run(command.env("HTTPS_PROXY", issuer.proxy()).env("NO_PROXY", "127.0.0.1"));
        Outcome::of(&outcome)
    };
    finds(
        &ask(),
        0,
        &[
            "ok: issuers: https://gitlab.com gives its keys",
            "note: clock: no issuer was asked",
            "ok: port: it answers at ",
            "\nsound\n",
        ],
    );
    for (off, code) in [(0, 0), (60, 2), (-60, 2), (20, 0), (-86_400, 2)] {
        let now = SystemTime::now();
        let by = Duration::from_secs(u64::from(i32::unsigned_abs(off)));
        let date = httpdate::fmt_http_date(if off > 0 { now + by } else { now - by });
        let discovery =
            json!({"issuer": "https://gitlab.com", "jwks_uri": "https://gitlab.com/.well-known/jwks"});
        issuer.fail(Endpoint::Discovery, Fault::Answer(200, format!("Date: {date}"), discovery.to_string()));
        let said = if code == 0 {
            "ok: clock: it agrees with those of the issuers"
        } else {
            "finding: clock: this machine's clock says "
        };
        finds(&ask(), code, &[said]);
    }
    for (fault, why) in [
        (Fault::Status(503), "status 503"),
        (Fault::Body("{}".to_owned()), "is of another issuer"),
        (Fault::Drop, "https://gitlab.com/.well-known/openid-configuration: "),
    ] {
        issuer.fail(Endpoint::Discovery, fault);
        finds(
            &ask(),
            5,
            &[
                "unreached: issuers: the keys of https://gitlab.com cannot be had: ",
                why,
                "\n0 findings, 1 not reached\n",
            ],
        );
    }
    // Both: what is wrong here counts.
    std::fs::remove_file(authority.data_dir().join("policy/test.yaml")).unwrap();
    std::fs::write(authority.data_dir().join("policy/other.yaml"), "kind: bto\n").unwrap();
    finds(&ask(), 2, &["finding: policy: "]);
}

/// A public name that the resolver does not know is not here.
#[test]
fn a_name_that_nobody_knows_is_not_reached() {
    let (_folder, data) = data();
    let config = read(data.join("authority.yaml")).replace("https://127.0.0.1:9 ", "https://id.invalid ");
    std::fs::write(data.join("authority.yaml"), config).unwrap();
    finds(
        &doctor(&data, &[], None),
        5,
        &["unreached: names: id.invalid, as `public_url` names it, is not known here: "],
    );
}

#[test]
fn backups_are_looked_at() {
    let (folder, data) = data();
    let backups = folder.path().join("backups");
    let place = backups.display().to_string();
    let ask = || doctor(&data, &["--backups", &place], None);
    finds(&ask(), 2, &["finding: backup: no backup is seen in "]);
    // One that is being made.
    std::fs::create_dir_all(backups.join(".new.x")).unwrap();
    finds(&ask(), 2, &["finding: backup: no backup is seen in "]);
    let newest = backups.join("2026-01-01T000000Z");
    std::fs::create_dir(&newest).unwrap();
    std::fs::copy(data.join("authority.yaml"), newest.join("authority.yaml")).unwrap();
    finds(&ask(), 2, &["2026-01-01T000000Z lacks keys and store.key: it is not all of an authority"]);
    std::fs::create_dir(newest.join("keys")).unwrap();
    std::fs::copy(data.join("store.key"), newest.join("store.key")).unwrap();
    finds(&ask(), 0, &["ok: backup: ", "2026-01-01T000000Z is 0 hours old"]);
    let folder = std::fs::File::open(&newest).unwrap();
    folder.set_modified(SystemTime::now() - Duration::from_secs(40 * 3600)).unwrap();
    finds(&ask(), 2, &["finding: backup: ", "is 40 hours old", "see why the timer that makes them has not"]);
}

#[test]
fn a_disk_that_fills_up_is_found() {
    if !rustix::process::geteuid().is_root()
        || !run(command("unshare").args(["--mount", "true"])).status.success()
    {
        return;
    }
    let folder = TempDir::new().unwrap();
    let line = "mount -t tmpfs -o mode=700,size=64m tmpfs \"$1\" && \"$0\" authority init --cluster id.test \
                --public-url https://127.0.0.1:9 --data-dir \"$1/data\" --example token:w --login deploy >/dev/null && \
                \"$0\" authority doctor --data-dir \"$1/data\"";
    let outcome = run(command("unshare").args(["--mount", "sh", "-c", line, MACHINE_ID]).arg(folder.path()));
    let outcome = Outcome::of(&outcome);
    finds(&outcome, 2, &["finding: disk: ", " MiB are free at ", "make room: "]);
}
