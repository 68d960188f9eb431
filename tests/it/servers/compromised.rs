//! `rotate --phase compromised` beside a thief of each key: what he signs is refused, by the steps of `docs/rotation.md`, as soon as it says.

use std::fs::{Permissions, create_dir, set_permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use serde_json::{Value, json};

use super::rotation_page::Shell;
use crate::support::authority::Authority;
use crate::support::client::Keys;
use crate::support::cluster::{Cluster, Role};
use crate::support::issuer::Issuer;
use crate::support::middle::Middle;
use crate::support::once::World;
use crate::support::process::{Running, command, machine_id, read, run, succeed};
use crate::support::sshd::Sshd;
use crate::support::sshd_labels::{Estate, LabelledSshd, login};
use crate::support::thief::Thief;
use crate::support::{PATIENCE, now, policies, wait_for};

fn refuses(sshd: &LabelledSshd, destination: &Path) -> bool {
    !sshd.run(destination, [], "true").status.success()
}

/// Hosts that watch, that refresh, and that have a copy.
#[test]
fn a_stolen_user_ca_opens_no_host() {
    let estate = Estate::start("{env: prod}", "{max_session_ttl: 2h}");
    let (shell, thief) = (Shell::of(&estate.authority), Thief::of(&estate.authority));
    let sessions = estate.path("sessions");
    create_dir(&sessions).unwrap();
    set_permissions(&sessions, Permissions::from_mode(0o700)).unwrap();
    let watched = LabelledSshd::start(&estate, &format!("env=prod --sessions {}", sessions.display()), "");
    let timed = LabelledSshd::start(&estate, "env=prod", "");
    let honest = estate.certificates("before");
    // Any serial: one that nobody has, and the job's own.
    let list = succeed(command("ssh-keygen").arg("-Lf").arg(honest.join("key-cert.pub")));
    let serial = list.lines().find_map(|line| line.trim().strip_prefix("Serial: ")).unwrap();
    let stolen = [("none", 0), ("job", serial.parse().unwrap()), ("last", u64::MAX)]
        .map(|(name, serial)| thief.login(name, &login(), serial));

    let copied = shell.path("copied");
    create_dir(&copied).unwrap();
    succeed(command("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(copied.join("host_key")));
    let ca = succeed(&mut estate.authority.command(["export", "ssh-user-ca"]));
    std::fs::write(copied.join("ssh_user_ca.pub"), ca).unwrap();
    let lines = "HostKey D/host_key\nTrustedUserCAKeys D/ssh_user_ca.pub\nAuthorizedKeysFile none\n";
    let copy = Sshd::with_config(&lines.replace('D', copied.to_str().unwrap()));

    let mut watch = estate.host("watch", &watched.trust());
    watch.args(["--fail-closed", "10m", "--end-sessions", "--sessions"]).arg(&sessions);
    let watch = Running::start(watch.stdout(Stdio::null()).stderr(Stdio::piped()));
    for destination in &stolen {
        watched.lets_in(destination, "true");
        timed.lets_in(destination, "true");
        copy.logs_in(destination);
    }
    let mut session = watched.ssh(&stolen[0], [], "echo up; exec sleep 600");
    let mut session = Running::start(session.stdout(Stdio::piped()).stderr(Stdio::piped()));
    wait_for("the session", || session.stdout().contains("up").then_some(()));

    shell.types("ssh-user", &[]);
    let taken = Instant::now();
    wait_for("the list", || refuses(&watched, &stolen[0]).then_some(()));
    println!(
        "a host that watches refuses a login by the stolen ssh-user CA {:?} after the step",
        taken.elapsed()
    );
    assert!(stolen.iter().chain([&honest]).all(|destination| refuses(&watched, destination)));
    assert!(session.wait_at_most(PATIENCE).is_some(), "{}", watch.stderr());
    println!("and the session by it that was open has ended after {:?}", taken.elapsed());
    let after = estate.certificates("after");
    watched.lets_in(&after, "true");

    // With the timer; and while it is kept away, by the age of what was heard last.
    timed.lets_in(&stolen[0], "true");
    let age = timed.trust().join("authority.heard");
    let truth = read(&age);
    let mut heard: Value = serde_json::from_str(&truth).unwrap();
    for list in ["krl", "crl"] {
        let at = &mut heard["lists"][list]["at"];
        let earlier = |time: &Value| json!(time.as_i64().unwrap() - 600);
        at["unix"] = earlier(&at["unix"]);
        at["boot"][1] = earlier(&at["boot"][1]);
    }
    std::fs::write(&age, heard.to_string()).unwrap();
    let key = read(stolen[0].join("key-cert.pub"));
    let mut asks = machine_id(["host", "principals", "--labels", "env=prod", "--fail-closed", "9m", "--dir"]);
    let asked = run(asks.arg(timed.trust()).args([&login(), key.split(' ').nth(1).unwrap()]));
    assert_eq!(asked.status.code(), Some(5), "{asked:?}");
    std::fs::write(&age, truth).unwrap();
    let timer = Instant::now();
    succeed(&mut estate.refresh(&timed.trust()));
    println!("a host that refreshes refuses it {:?} after its timer", timer.elapsed());
    assert!(stolen.iter().chain([&honest]).all(|destination| refuses(&timed, destination)));
    timed.lets_in(&after, "true");

    // Where nothing is fetched.
    copy.logs_in(&stolen[2]);
    shell.types("ssh-user-copied", &[("/etc/ssh/machine-id", copied.to_str().unwrap())]);
    for destination in &stolen {
        assert!(!copy.try_login(destination, &login()).status.success());
    }
}

/// Where it was stolen from is not where it is made good: the other authority states it, and signs by the new one.
#[test]
fn what_is_compromised_at_one_authority_is_so_at_all() {
    let (issuer, cluster) = (Issuer::start(), Cluster::start());
    let urls = [Role::Owner, Role::Server].map(|role| cluster.url(role));
    let builder = Authority::with_policy(&policies::basic(&issuer)).issuer(&issuer);
    let one = builder.store(&urls[0], &urls[1]).start();
    let other = one.replica();
    let (one, other) = (&one, &other);
    let (shell, thief) = (Shell::of(one), Thief::of(other));
    let stolen = thief.login("stolen", "root", 7);
    let mut watch =
        machine_id(["host", "watch", "--dir", shell.path("trust").to_str().unwrap(), "--authority"]);
    watch.arg(format!("https://{}", other.address())).arg("--ca-file").arg(other.ca_file());
    let watch = Running::start(watch.stdout(Stdio::null()).stderr(Stdio::piped()));
    let list = shell.path("trust/revoked.krl");
    let is_refused = |certificate: &Path| {
        let mut query = command("ssh-keygen");
        !run(query.arg("-Q").arg("-f").arg(&list).arg(certificate)).status.success()
    };
    wait_for("the files", || shell.path("trust/tls_ca.crt").exists().then_some(()));
    assert!(!is_refused(&stolen.join("key-cert.pub")));
    shell.types("ssh-user", &[]);
    wait_for("the list", || is_refused(&stolen.join("key-cert.pub")).then_some(()));
    let key = |name: &str| read(shell.path(name)).split_whitespace().nth(1).map(str::to_owned);
    wait_for("the new CA", || (key("trust/ssh_user_ca.pub") == key("ssh_user_ca.pub")).then_some(()));
    let certificate = shell.path("after-cert.pub");
    wait_for("one by the new CA", || {
        let keys = Keys::fresh();
        let token = issuer.token("github", &keys.audience(&other.url())).mint();
        let answer = other.client().exchange(&keys.request("github-deploy", "github", &token));
        let granted = (answer.status == 200).then(|| answer.granted())?;
        std::fs::write(&certificate, granted["outputs"][0]["ssh_certificate"].as_str().unwrap()).unwrap();
        (!is_refused(&certificate)).then_some(())
    });
    let files = |at: &Authority| succeed(command("ls").arg(at.data_dir().join("keys")));
    wait_for("the stolen one is gone there", || (files(other) == files(one)).then_some(()));
    assert!(!files(one).contains("ssh_user_ca\n"), "{}", files(one));
    assert_eq!(watch.stderr(), "");
}

#[test]
fn a_stolen_host_ca_deceives_no_job_that_begins_then() {
    let world =
        World::with_policy(|policy| policy.replace("values: [ubuntu]", &format!("values: [{}]", login())));
    let authority = &world.authority;
    let (shell, thief) = (Shell::of(authority), Thief::of(authority));
    let key = shell.path("ssh_host_ed25519_key");
    succeed(command("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key));
    let certificate =
        succeed(authority.command(["sign-host", "--principal", "127.0.0.1"]).arg(key.with_extension("pub")));
    let host = shell.path("host");
    create_dir(&host).unwrap();
    std::fs::write(host.join("ssh_host_ed25519_key-cert.pub"), certificate).unwrap();
    std::fs::write(shell.path("user_ca.pub"), succeed(&mut authority.command(["export", "ssh-user-ca"])))
        .unwrap();
    let sshd = |key: &Path, certificate: &Path| {
        let users = shell.path("user_ca.pub");
        Sshd::with_config(&format!(
            "HostKey {}\nHostCertificate {}\nTrustedUserCAKeys {}\nAuthorizedKeysFile none\n",
            key.display(),
            certificate.display(),
            users.display()
        ))
    };
    let ours = || sshd(&key, &host.join("ssh_host_ed25519_key-cert.pub"));
    let his = thief.host("127.0.0.1");
    let (mut honest, his) = (ours(), sshd(&his.join("key"), &his.join("key-cert.pub")));
    let trust = shell.path("trust");
    let refresh = || {
        let mut refresh = machine_id(["host", "refresh", "--authority", &authority.url(), "--dir"]);
        succeed(refresh.arg(&trust).arg("--ca-file").arg(authority.ca_file()))
    };
    let job = || {
        let job = world.github();
        let destination: PathBuf = job.once([]).good().destination();
        (job, destination)
    };
    let is_believed = |sshd: &Sshd, destination: &Path| {
        let output = sshd.try_login(destination, &login());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() || said.contains("Host key verification failed"), "{said}");
        output.status.success()
    };
    refresh();
    let (old_job, old) = job();
    assert!(is_believed(&honest, &old) && is_believed(&his, &old));

    shell.types("ssh-host", &[("web-1.example.com", "127.0.0.1")]);
    let taken = Instant::now();
    let (_new_job, new) = wait_for("a job that knows it", || {
        let job = job();
        (!is_believed(&his, &job.1)).then_some(job)
    });
    println!(
        "a job has begun and refused a host by the stolen ssh-host CA {:?} after the step",
        taken.elapsed()
    );
    assert!(!is_believed(&honest, &new), "it has its old certificate");
    shell.types("ssh-host-installed", &[("/etc/ssh/machine-id", host.to_str().unwrap())]);
    assert_eq!(read(shell.path("systemctl.log")), "reload ssh\n");
    honest = ours();
    assert!(is_believed(&honest, &new) && !is_believed(&his, &new));
    // Whoever logs in from a host that refreshes; and what a job holds, until it has other certificates.
    refresh();
    let known = read(trust.join("known_hosts"));
    assert_eq!(
        (known.matches("@revoked * ").count(), known.matches("@cert-authority * ").count()),
        (1, 1),
        "{known}"
    );
    assert!(is_believed(&his, &old), "it runs");
    old_job.run(["once", "--destination", old.to_str().unwrap()]).good();
    assert!(!is_believed(&his, &old) && is_believed(&honest, &old));
}

/// Whoever has the statement key, and can pass for the authority: hosts that watch, that were away, and that heard him first.
#[test]
fn a_stolen_statement_key_states_nothing_to_who_has_heard_of_it() {
    let estate = Estate::start("{env: prod}", "{max_session_ttl: 2h}");
    let (authority, middle) = (&estate.authority, Middle::before(&estate.authority));
    let (shell, thief) = (Shell::of(authority), Thief::of(authority));
    let of = |what: &str, name: &str, url: &str| {
        let mut host = machine_id(["host", what, "--authority", url, "--dir"]);
        host.arg(shell.path(name)).arg("--ca-file").arg(authority.ca_file());
        host
    };
    let refresh = |name: &str, url: &str| {
        let output = run(&mut of("refresh", name, url));
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let heard = |name: &str| -> Value {
        let text = std::fs::read_to_string(shell.path(name).join("authority.heard")).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    };
    let says = |change: &dyn Fn(&mut Value)| {
        let line = thief.states(&authority.client().get("/v1/statement").text(), change);
        middle.give(vec![("/v1/statement", line.clone()), ("/v1/watch", line)]);
    };
    for name in ["away", "deceived"] {
        assert_eq!(refresh(name, &authority.url()).0, Some(0));
    }
    let watch = |url: &str| {
        let mut watch = of("watch", "watched", url);
        Running::start(watch.stdout(Stdio::null()).stderr(Stdio::piped()))
    };
    let first = watch(&authority.url());
    wait_for("the files", || shell.path("watched/tls_ca.crt").exists().then_some(()));

    // What he cannot, as long as nobody knows of it: a CA or a key of his own, or another list.
    let not_heard = |name: &str, words: &str| {
        let (code, said) = refresh(name, &middle.url());
        assert!(code == Some(5) && said.contains(words), "{said}");
    };
    let his = read(thief.login("his", "root", 1).join("key.pub"));
    says(&|claims| claims["trust"]["ssh_user_cas"].as_array_mut().unwrap().push(json!(his)));
    not_heard("away", "it has a new CA (ssh-user), and none that is known vouches for it");
    let another = json!("A".repeat(43));
    says(&|claims| claims["statement_keys"].as_array_mut().unwrap().push(another.clone()));
    not_heard("away", "is not known, and no TLS CA that is known vouches for it");
    middle.give(vec![("/v1/revoked/tls.crl", thief.list(u64::MAX))]);
    not_heard("away", "it is not the list that the authority states");
    // What he can, of a host that he stands before.
    says(&|claims| claims["number"] = json!(u64::MAX));
    refresh("deceived", &middle.url());
    assert_eq!(heard("deceived")["known"]["number"], json!(u64::MAX));

    let before = heard("away")["known"]["statement_keys"].clone();
    shell.types("statement", &[]);
    let key = read(shell.path("statement.key")).trim_end().to_owned();
    let knows = |name: &str| heard(name)["known"]["statement_keys"] == json!([key]);
    wait_for("the successor", || knows("watched").then_some(()));
    assert_eq!(first.stderr(), "");
    drop(first);
    // He says that all is as it was; or what is so, by his key.
    says(&|claims| {
        claims["statement_keys"] = before.clone();
        claims["made"] = json!(now() + 30);
    });
    let second = watch(&middle.url());
    let words = format!("the key that has signed it, {}, is not known", before[0].as_str().unwrap());
    wait_for("a warning", || second.stderr().contains(&words).then_some(()));
    drop(second);
    not_heard("watched", &words);
    says(&|_| ());
    not_heard("watched", "none of its keys has signed it");
    assert!(knows("watched"));
    // One that was away hears the truth first.
    assert_eq!(refresh("away", &authority.url()), (Some(0), String::new()));
    assert!(knows("away"));
    not_heard("away", "none of its keys has signed it");
    // One that heard him does not believe it, and begins anew.
    let (code, said) = refresh("deceived", &authority.url());
    assert!(code == Some(5) && said.contains("it is older than what was heard before"), "{said}");
    std::fs::write(shell.path("tls-ca.pin"), succeed(&mut authority.command(["export", "tls-ca-pin"])))
        .unwrap();
    let folder = shell.path("deceived");
    shell.types("anew", &[("/etc/ssh/machine-id", folder.to_str().unwrap())]);
    assert!(knows("deceived"));
}
