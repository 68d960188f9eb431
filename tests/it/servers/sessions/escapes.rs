//! Who tries to get away.

use super::*;

#[test]
fn what_has_left_its_session_is_named() {
    let files = Files::new();
    files.certify("thief", 5, "thief", &login());
    let (sshd, watch) = (files.sshd(), files.watch());
    let leave = "(setsid sleep 654 </dev/null >/dev/null 2>&1 & echo $!); echo up; exec sleep 600";
    let mut session = files.session(&sshd, &["thief"], &[], leave);
    let left: u32 = session.stdout().lines().next().unwrap().parse().unwrap();
    ends("the session", &mut session, files.revoke("id: thief"));
    says(&watch, &format!("still there: {left} (`sleep`)"));
    assert!(lives(left));
    succeed(command("kill").arg(left.to_string()));
}

/// More than the one that ends them may have descriptors.
#[test]
fn a_crowd_ends_whole() {
    let files = Files::new();
    files.certify("thief", 5, "thief", &login());
    let sshd = files.sshd();
    let crowd =
        "for n in $(seq 150); do sleep 654 & done; pgrep -P $$ -x sleep | tr '\\n' ' '; echo; echo up; wait";
    let mut session = files.session(&sshd, &["thief"], &[], crowd);
    let pids: Vec<u32> =
        session.stdout().lines().next().unwrap().split_whitespace().map(|pid| pid.parse().unwrap()).collect();
    assert_eq!(pids.len(), 150);
    let mut watch = command("sh");
    watch.args([
        "-c",
        "ulimit -n 32; exec \"$@\"",
        "sh",
        process::MACHINE_ID,
        "host",
        "watch",
        "--end-sessions",
    ]);
    watch.arg("--dir").arg(files.path("trust")).arg("--sessions").arg(files.path("sessions"));
    let watch = Running::start(watch.stdout(Stdio::null()).stderr(Stdio::piped()));
    ends("the session", &mut session, files.revoke("serial: 5"));
    says(&watch, "which is revoked\n");
    let left: Vec<u32> = pids.into_iter().filter(|pid| lives(*pid)).collect();
    assert!(left.is_empty(), "{left:?} live\n{}", watch.stderr());
}

/// Before OpenSSH 9.8 both are one program, and whose child a connection is says which it is; until `sshd` is restarted.
#[test]
fn sessions_end_whose_listener_has_ended() {
    let files = Files::new();
    files.certify("thief", 5, "thief", &login());
    let mut sshd = files.sshd();
    let mut sessions: Vec<Running> =
        (0..3).map(|_| files.session(&sshd, &["thief"], &[], FOR_EVER)).collect();
    sshd.kill();
    let watch = files.watch();
    let since = files.revoke("serial: 5");
    sessions.iter_mut().for_each(|session| ends("the session", session, since));
    says(&watch, "which is revoked\n");
    assert!(!watch.stderr().contains("warning"), "{}", watch.stderr());
}
