//! Hosts with labels: real `sshd`s ask `machine-id host principals` who may
//! log in, with what `machine-id host refresh` fetched; and what a role's
//! options permit there.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant, SystemTime};

use crate::support::process::{self, Running, machine_id, read, run, succeed};
use crate::support::sshd_labels::{Estate, LabelledSshd, login};
use crate::support::wait_for;

const FILES: [&str; 6] =
    ["known_hosts", "revoked.krl", "ssh_host_ca.pub", "ssh_user_ca.pub", "tls.crl", "tls_ca.crt"];

fn failed(output: &Output, code: i32, words: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(code), 0), "{stderr}");
    assert!(stderr.contains(words), "no {words:?} in {stderr}");
}

/// What keeps two refreshes apart.
const LOCK: &str = ".machine-id.lock";
/// What has been seen revoked, and what was heard.
const KEPT: [&str; 3] = ["revoked.seen", "authority.heard", "authority_ca.crt"];

/// Name, content and time of each file of a folder, but for the lock and what it keeps for itself.
fn state(folder: &Path) -> BTreeMap<String, (Vec<u8>, SystemTime)> {
    let entry = |entry: std::fs::DirEntry| {
        let modified = entry.metadata().unwrap().modified().unwrap();
        (entry.file_name().into_string().unwrap(), (std::fs::read(entry.path()).unwrap(), modified))
    };
    let found = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    let mut state: BTreeMap<_, _> = found.filter(|found| found.file_name() != LOCK).map(entry).collect();
    state.retain(|name, _| !KEPT.contains(&name.as_str()));
    state
}

/// An `sshd` that forwards X11 where the certificate permits it, and whose
/// `xauth` leaves this user's own file alone.
fn x11(estate: &Estate) -> String {
    format!("X11Forwarding yes\nSetEnv XAUTHORITY={}", estate.path("xauthority").display())
}

/// The display that a session gets which asks for one. There need be none
/// here: `sshd` grants it before anybody connects.
fn display(sshd: &LabelledSshd, destination: &Path) -> String {
    let mut ssh = sshd.ssh(destination, ["-Y"], "echo $DISPLAY");
    succeed(ssh.env("DISPLAY", ":99"))
}

#[test]
fn one_certificate_opens_the_hosts_of_its_labels() {
    let estate = Estate::start("{env: prod, team: [web, db]}", "{max_session_ttl: 2h}");
    let web = LabelledSshd::start(&estate, "env=prod,team=web", "");
    let dev = LabelledSshd::start(&estate, "env=dev,team=web", "");
    let destination = estate.certificates("job");
    assert_eq!(web.lets_in(&destination, "id -un"), format!("{}\n", login()));
    dev.refuses(&destination);
    wait_for("sshd's reason", || {
        dev.log().contains("does not contain an authorized principal").then_some(())
    });
    // The command itself, on other hosts.
    let certificate = read(destination.join("key-cert.pub"));
    let base64 = certificate.split_whitespace().nth(1).unwrap();
    let principals = |labels: &str, user: &str| {
        succeed(&mut machine_id(["host", "principals", "--labels", labels, user, base64]))
    };
    let user = login();
    assert_eq!(principals("zone=a,team=db,env=prod", &user), format!("{user}@env=prod,team=db\n"));
    for (labels, user) in [("team=db,env=prod", "nobody"), ("env=prod", &user), ("", &user), ("a=b", "")] {
        assert_eq!(principals(labels, user), "", "{labels} {user}");
    }
    let file = estate.path("labels");
    std::fs::write(&file, "# this host\nenv=prod\n").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let file = file.to_str().unwrap();
    let both = ["host", "principals", "--labels-file", file, "--labels", "team=web", &user, base64];
    assert_eq!(succeed(&mut machine_id(both)), format!("{user}@env=prod,team=web\n"));
}

#[test]
fn a_login_everywhere_is_one_everywhere() {
    let estate = Estate::start("{'*': '*'}", "{max_session_ttl: 2h}");
    let sshd = LabelledSshd::start(&estate, "env=dev", &x11(&estate));
    let destination = estate.certificates("job");
    assert_eq!(sshd.lets_in(&destination, "echo in"), "in\n");
    assert_eq!(display(&sshd, &destination), "\n");
    // Neither of these can be had without asking for it.
    let forwarded = sshd.run(&destination, ["-W", &format!("127.0.0.1:{}", sshd.port())], "");
    assert!(!forwarded.status.success() && forwarded.stdout.is_empty());
    let verbose = sshd.run(&destination, ["-v"], "true");
    let stderr = String::from_utf8(verbose.stderr).unwrap();
    let options =
        stderr.lines().find(|line| line.contains("key options:")).unwrap_or_else(|| panic!("{stderr}"));
    assert!(options.contains("key options: pty"), "{options}");
    assert!(!options.contains("forwarding"), "{options}");
}

#[test]
fn what_cannot_be_read_lets_nobody_in() {
    for args in [
        vec!["host", "principals", "deploy", "AAAA"],
        vec!["host", "principals", "--labels", "env", "deploy", "AAAA"],
        vec!["host", "principals", "--labels", "env=a,env=b", "deploy", "AAAA"],
        vec!["host", "principals", "--labels", "env=a", "deploy", "AAAA"],
        vec!["host", "principals", "--labels", "env=a", "deploy", "not base64"],
        vec!["host", "principals", "--labels", "env=a", "deploy"],
        vec!["host", "principals", "--labels", "env=a", "-x", "AAAA"],
        vec!["host", "principals", "--labels-file", "/no/such/file", "deploy", "AAAA"],
    ] {
        failed(&run(&mut machine_id(&args)), 2, "error: ");
    }
}

#[test]
fn forwarding_is_a_roles_to_permit() {
    let options = "{port_forwarding: true, forward_agent: true, permit_x11_forwarding: true}";
    let estate = Estate::start("{env: prod}", options);
    let sshd = LabelledSshd::start(&estate, "env=prod", &x11(&estate));
    let destination = estate.certificates("job");
    assert!(display(&sshd, &destination).starts_with("localhost:"));
    // sshd's own greeting, through itself.
    let forwarded = sshd.run(&destination, ["-W", &format!("127.0.0.1:{}", sshd.port())], "");
    let stdout = String::from_utf8_lossy(&forwarded.stdout);
    assert!(
        stdout.starts_with("SSH-2.0-OpenSSH"),
        "{stdout}\n{}",
        String::from_utf8_lossy(&forwarded.stderr)
    );
    let verbose = sshd.run(&destination, ["-v"], "true");
    let stderr = String::from_utf8(verbose.stderr).unwrap();
    assert!(stderr.contains("key options: agent-forwarding port-forwarding pty x11-forwarding"), "{stderr}");
    assert!(sshd.lets_in_with_terminal(&destination).starts_with("/dev/"));
    // Our own agent, seen from the host.
    let ssh = format!(
        "ssh -A -o BatchMode=yes -F \"$MACHINE_ID_DESTINATION/ssh_config\" -p {} {}@127.0.0.1 ssh-add -L",
        sshd.port(),
        login()
    );
    let listed =
        succeed(&mut estate.once("agent", ["--output", "ssh", "--agent", "-q", "--", "sh", "-c", &ssh]));
    assert!(listed.starts_with("ssh-ed25519-cert-v01@openssh.com "), "{listed}");
}

#[test]
fn a_forced_command_is_all_there_is() {
    let estate = Estate::start("{env: prod}", "{force_command: 'echo forced $SSH_ORIGINAL_COMMAND'}");
    let sshd = LabelledSshd::start(&estate, "env=prod", "");
    assert_eq!(sshd.lets_in(&estate.certificates("job"), "id"), "forced id\n");
}

#[test]
fn a_pinned_certificate_holds_at_its_address_alone() {
    let estate = Estate::start("{env: prod}", "{pin_source_ip: true}");
    let sshd = LabelledSshd::start(&estate, "env=prod", "");
    let destination = estate.certificates("job");
    assert_eq!(sshd.lets_in(&destination, "echo in"), "in\n");
    let elsewhere = sshd.run(&destination, ["-b", "127.0.0.2"], "echo in");
    assert_eq!((elsewhere.status.code(), elsewhere.stdout.as_slice()), (Some(255), b"".as_slice()));
    wait_for("sshd's reason", || sshd.log().contains("127.0.0.2").then_some(()));
}

#[test]
fn what_is_revoked_is_refused_after_a_refresh() {
    let estate = Estate::start("{env: prod}", "{max_session_ttl: 2h}");
    let sshd = LabelledSshd::start(&estate, "env=prod", "");
    let trust = sshd.trust();
    let before = state(&trust);
    // The page has the host's certificate beside them.
    let fetched = before.keys().filter(|name| *name != "ssh_host_ed25519_key-cert.pub");
    assert_eq!(fetched.collect::<Vec<_>>(), FILES.iter().collect::<Vec<_>>());
    for file in FILES {
        assert_eq!(std::fs::metadata(trust.join(file)).unwrap().mode() & 0o7777, 0o644, "{file}");
    }
    // Nothing has changed, so nothing is written.
    assert_eq!(succeed(&mut estate.refresh(&trust)), "");
    assert_eq!(state(&trust), before);
    // A destination with TLS too, so that both lists change.
    succeed(&mut estate.once("job", ["--output", "identity"]));
    let destination = estate.path("job");
    sshd.lets_in(&destination, "true");
    let spare = estate.path("spare");
    succeed(process::command("cp").arg("-a").arg(&destination).arg(&spare));
    succeed(&mut machine_id(["cleanup", spare.to_str().unwrap()]));
    let changed = wait_for("the revocation", || {
        Some(succeed(&mut estate.refresh(&trust))).filter(|changed| !changed.is_empty())
    });
    let path = |name: &str| format!("{}\n", trust.join(name).display());
    assert_eq!(changed, path("revoked.krl") + &path("tls.crl"));
    sshd.refuses(&destination);
    let verified = run(process::command("openssl")
        .args(["crl", "-noout", "-in"])
        .arg(trust.join("tls.crl"))
        .arg("-CAfile")
        .arg(trust.join("tls_ca.crt")));
    assert!(String::from_utf8_lossy(&verified.stderr).contains("verify OK"), "{verified:?}");
}

/// By one connection, without a reload; others go on.
#[test]
fn a_lock_refuses_within_a_second() {
    let estate = Estate::start("{env: prod}", "{max_session_ttl: 2h}");
    let sshd = LabelledSshd::start(&estate, "env=prod", "");
    let (ours, others) = (estate.certificates("ours"), estate.certificates("others"));
    let heard = sshd.trust().join("authority.heard");
    let before = read(&heard);
    let mut watch = estate.host("watch", &sshd.trust());
    let watch =
        Running::start(watch.args(["--fail-closed", "1m"]).stderr(Stdio::piped()).stdout(Stdio::null()));
    wait_for("the watcher", || (read(&heard) != before).then_some(()));
    sshd.lets_in(&ours, "true");
    let shown = succeed(process::command("ssh-keygen").arg("-L").arg("-f").arg(ours.join("key-cert.pub")));
    let serial = shown.split("Serial: ").nth(1).unwrap().split_whitespace().next().unwrap();
    succeed(&mut estate.authority.command(["lock", "--serial", serial]));
    let begun = Instant::now();
    let revoked = || {
        let mut query = process::command("ssh-keygen");
        query.arg("-Q").arg("-f").arg(sshd.trust().join("revoked.krl"));
        !run(query.arg(ours.join("key-cert.pub"))).status.success()
    };
    wait_for("the KRL", || revoked().then_some(()));
    // A second is promised; a busy machine may take more, and without being told half a minute.
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    sshd.refuses(&ours);
    sshd.lets_in(&others, "true");
    assert_eq!(watch.stderr(), "");
}

/// One list that cannot be judged does not keep the other from being refreshed.
#[test]
fn each_list_is_refreshed_on_its_own() {
    let estate = Estate::start("{env: prod}", "{max_session_ttl: 2h}");
    let sshd = LabelledSshd::start(&estate, "env=prod", "");
    let trust = sshd.trust();
    let revoke = |name: &str| {
        succeed(&mut estate.once(name, ["--output", "identity"]));
        let (destination, spare) = (estate.path(name), estate.path(&format!("{name}-spare")));
        sshd.lets_in(&destination, "true");
        succeed(process::command("cp").arg("-a").arg(&destination).arg(&spare));
        succeed(&mut machine_id(["cleanup", spare.to_str().unwrap()]));
        destination
    };
    // Nothing tells whether the authority's list is newer than this one.
    let crl = read(trust.join("tls.crl"));
    let destination = revoke("first");
    std::fs::write(trust.join("tls.crl"), "damaged").unwrap();
    let partly = run(&mut estate.refresh(&trust));
    let stderr = String::from_utf8_lossy(&partly.stderr);
    assert_eq!(partly.status.code(), Some(6), "{stderr}");
    let file = |name: &str| trust.join(name).display().to_string();
    assert!(stderr.contains(&format!("cannot read {}: it is no list in PEM", file("tls.crl"))), "{stderr}");
    assert!(stderr.contains("remove it and refresh again"), "{stderr}");
    assert_eq!(String::from_utf8_lossy(&partly.stdout), format!("{}\n", file("revoked.krl")));
    assert_eq!(read(trust.join("tls.crl")), "damaged");
    sshd.refuses(&destination);
    // The other way round; and no new CA of SSH without its list.
    std::fs::write(trust.join("tls.crl"), crl).unwrap();
    let krl = std::fs::read(trust.join("revoked.krl")).unwrap();
    std::fs::write(trust.join("revoked.krl"), "damaged").unwrap();
    for name in ["ssh_user_ca.pub", "tls_ca.crt"] {
        std::fs::remove_file(trust.join(name)).unwrap();
    }
    let partly = run(&mut estate.refresh(&trust));
    assert_eq!(partly.status.code(), Some(6), "{partly:?}");
    let changed = String::from_utf8_lossy(&partly.stdout);
    assert_eq!(changed, format!("{}\n{}\n", file("tls.crl"), file("tls_ca.crt")));
    assert!(!trust.join("ssh_user_ca.pub").exists());
    // A link and a folder in its place are no lists either, and are not "none".
    std::fs::remove_file(trust.join("revoked.krl")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", trust.join("revoked.krl")).unwrap();
    failed(&run(&mut estate.refresh(&trust)), 6, "revoked.krl: it is a symbolic link");
    std::fs::remove_file(trust.join("revoked.krl")).unwrap();
    std::fs::create_dir(trust.join("tls.crl-was")).unwrap();
    std::fs::remove_file(trust.join("tls.crl")).unwrap();
    std::fs::rename(trust.join("tls.crl-was"), trust.join("tls.crl")).unwrap();
    std::fs::write(trust.join("revoked.krl"), krl).unwrap();
    let both = run(&mut estate.refresh(&trust));
    let stderr = String::from_utf8_lossy(&both.stderr);
    assert!(both.status.code() == Some(6) && stderr.contains("tls.crl: it is not a plain file"), "{stderr}");
    assert_eq!(String::from_utf8_lossy(&both.stdout), format!("{}\n", file("ssh_user_ca.pub")));
    // Everything that went wrong is said.
    std::fs::write(trust.join("revoked.krl"), "damaged").unwrap();
    let both = run(&mut estate.refresh(&trust));
    let stderr = String::from_utf8_lossy(&both.stderr);
    let says = |name: &str| stderr.matches(&format!("cannot read {}", file(name))).count();
    assert_eq!(
        (says("revoked.krl"), says("tls.crl"), stderr.matches("hint:").count()),
        (1, 1, 1),
        "{stderr}"
    );
}

#[test]
fn a_failure_leaves_the_files_as_they_are() {
    let mut estate = Estate::start("{env: prod}", "{max_session_ttl: 2h}");
    let trust = estate.path("trust");
    let changed = succeed(&mut estate.refresh(&trust));
    assert_eq!(changed.lines().count(), FILES.len(), "{changed}");
    // What is damaged is put right.
    std::fs::write(trust.join("ssh_user_ca.pub"), "").unwrap();
    let changed = succeed(&mut estate.refresh(&trust));
    assert_eq!(changed, format!("{}\n", trust.join("ssh_user_ca.pub").display()));
    // A list with a higher number is not replaced.
    let list = trust.join("revoked.krl");
    let good = std::fs::read(&list).unwrap();
    let mut newer = good.clone();
    newer[12..20].copy_from_slice(&u64::MAX.to_be_bytes());
    std::fs::write(&list, newer).unwrap();
    let before = state(&trust);
    failed(&run(&mut estate.refresh(&trust)), 5, "it is older than revoked.krl");
    assert_eq!(state(&trust), before);
    std::fs::write(&list, good).unwrap();
    let before = state(&trust);
    // Somebody else's certificate.
    let mut pinned = machine_id(["host", "refresh", "--authority", &estate.authority.url(), "--dir"]);
    pinned.arg(&trust).arg("--ca-pin").arg(format!("sha256:{}", "0".repeat(64)));
    failed(&run(&mut pinned), 5, "is not trusted");
    std::fs::set_permissions(&trust, std::fs::Permissions::from_mode(0o777)).unwrap();
    failed(&run(&mut estate.refresh(&trust)), 6, "others can write to it");
    std::fs::set_permissions(&trust, std::fs::Permissions::from_mode(0o755)).unwrap();
    let link = estate.path("link");
    std::os::unix::fs::symlink(&trust, &link).unwrap();
    failed(&run(&mut estate.refresh(&link)), 6, "it is not a directory, or a symbolic link");
    let open = estate.path("open");
    std::fs::create_dir(&open).unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
    failed(&run(&mut estate.refresh(&open.join("trust"))), 6, "open can be written to by everybody");
    failed(&run(&mut estate.refresh(Path::new("/proc/machine-id"))), 6, "cannot use /proc/machine-id");
    failed(&run(estate.refresh(&trust).args(["--timeout", "soon"])), 2, "--timeout");
    estate.authority.kill();
    let gone = run(&mut estate.refresh(&trust));
    failed(&gone, 5, "cannot reach the authority");
    let stderr = String::from_utf8_lossy(&gone.stderr);
    assert_eq!(stderr.matches("cannot reach").count(), 1, "said once: {stderr}");
    assert_eq!(state(&trust), before);
}

/// A run that has fetched an older list must not put it in place of a newer one.
#[test]
fn refreshes_wait_for_one_another() {
    let estate = Estate::start("{env: prod}", "{max_session_ttl: 2h}");
    let trust = estate.path("trust");
    succeed(&mut estate.refresh(&trust));
    let lock = std::fs::File::open(trust.join(LOCK)).unwrap();
    assert_eq!(lock.metadata().unwrap().mode() & 0o7777, 0o600);
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let before = state(&trust);
    let busy = run(estate.refresh(&trust).args(["--timeout", "1s"]));
    failed(&busy, 6, "another `host refresh` is at work on ");
    assert!(String::from_utf8_lossy(&busy.stderr).contains("hint: let one timer refresh it"), "{busy:?}");
    assert_eq!(state(&trust), before);
    // One that waits goes on when the other has ended; any number do.
    std::fs::write(trust.join("ssh_user_ca.pub"), "").unwrap();
    let runs: Vec<_> = (0..3)
        .map(|_| estate.refresh(&trust).stdout(std::process::Stdio::piped()).spawn().unwrap())
        .collect();
    drop(lock);
    let outputs: Vec<Output> = runs.into_iter().map(|run| run.wait_with_output().unwrap()).collect();
    assert!(outputs.iter().all(|output| output.status.success()), "{outputs:?}");
    let said: String = outputs.iter().map(|output| String::from_utf8_lossy(&output.stdout)).collect();
    assert_eq!(said, format!("{}\n", trust.join("ssh_user_ca.pub").display()), "each change is said once");
    // Who may read the folder cannot lock the file behind a link of theirs, nor open it.
    std::fs::remove_file(trust.join(LOCK)).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", trust.join(LOCK)).unwrap();
    failed(&run(&mut estate.refresh(&trust)), 6, "it is a symbolic link");
}
