//! Live sessions of what was revoked end, whatever they do, and nobody else's:
//! the real `sshd` and PostgreSQL, with `host watch --end-sessions` beside them.

use std::fs::{Permissions, create_dir, read_dir, set_permissions, write};
use std::io::Read as _;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use machine_id::krl::{self, Refusals};
use tempfile::TempDir;

use crate::support::port::free_port;
use crate::support::process::{self, Running, command, machine_id, run, succeed};
use crate::support::sshd::{Sshd, login};
use crate::support::{PATIENCE, wait_for};

mod escapes;
mod others;
mod served;

const FOR_EVER: &str = "echo up; exec sleep 600";

/// A folder with a CA, a list of what it has revoked, and notes.
struct Files(TempDir);

impl Files {
    #[track_caller]
    fn new() -> Self {
        let files = Self(TempDir::new().unwrap());
        create_dir(files.path("trust")).unwrap();
        create_dir(files.path("sessions")).unwrap();
        set_permissions(files.path("sessions"), Permissions::from_mode(0o700)).unwrap();
        for key in ["ca", "host_key"] {
            files.key(key);
        }
        files.revoke("");
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    #[track_caller]
    fn key(&self, name: &str) {
        succeed(command("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(self.path(name)));
    }

    /// A key `NAME` with a certificate for these principals.
    #[track_caller]
    fn certify(&self, name: &str, serial: u64, id: &str, principals: &str) {
        self.key(name);
        let mut sign = command("ssh-keygen");
        sign.arg("-q").arg("-s").arg(self.path("ca"));
        sign.args(["-V", "-1m:+1h", "-I", id, "-n", principals, "-z"]);
        succeed(sign.arg(serial.to_string()).arg(self.path(&format!("{name}.pub"))));
    }

    /// The certificate in base64.
    fn base64(&self, name: &str) -> String {
        let line = process::read(self.path(&format!("{name}-cert.pub")));
        line.split_whitespace().nth(1).unwrap().to_owned()
    }

    /// Replaces the list by one of these lines of `ssh-keygen -k`.
    #[track_caller]
    fn revoke(&self, lines: &str) -> Instant {
        let (new, list) = (self.path("new.krl"), self.path("trust/revoked.krl"));
        write(self.path("lines"), lines).unwrap();
        let mut make = command("ssh-keygen");
        make.args(["-q", "-k", "-f"]).arg(&new).arg("-s").arg(self.path("ca.pub")).arg(self.path("lines"));
        succeed(&mut make);
        std::fs::rename(new, list).unwrap();
        Instant::now()
    }

    /// A note about a process, as if it had been offered that certificate.
    fn forge(&self, name: &str, certificate: &str) {
        let note = format!(r#"{{"every":false,"certificates":["{}"]}}"#, self.base64(certificate));
        write(self.path("sessions").join(name), note).unwrap();
    }

    fn watch(&self) -> Running {
        watch(&self.path("trust"), &self.path("sessions"), [])
    }

    fn sshd(&self) -> Sshd {
        self.sshd_with("", "")
    }

    /// One that has `host principals` asked with more options, and more lines.
    fn sshd_with(&self, options: &str, lines: &str) -> Sshd {
        let dir = self.0.path().display();
        Sshd::with_config(&format!(
            "{lines}AuthorizedPrincipalsCommand /usr/bin/env {} host principals --sessions {dir}/sessions {options} --labels env=test %u %k\n\
             AuthorizedPrincipalsCommandUser {}\nHostKey {dir}/host_key\nTrustedUserCAKeys {dir}/ca.pub\nRevokedKeys {dir}/trust/revoked.krl\nAuthorizedKeysFile none\n",
            process::MACHINE_ID,
            login()
        ))
    }

    /// `ssh` with these keys, to run something.
    fn ssh(&self, sshd: &Sshd, keys: &[&str], options: &[&str], to_do: &str) -> Command {
        let mut ssh = command("ssh");
        ssh.args(["-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no"]);
        ssh.args(["-o", "UserKnownHostsFile=/dev/null", "-o", "IdentitiesOnly=yes", "-p", &sshd.port()]);
        for key in keys {
            ssh.arg("-i").arg(self.path(key));
        }
        ssh.args(options).arg(format!("{}@127.0.0.1", login()));
        if !to_do.is_empty() {
            ssh.arg(to_do);
        }
        ssh
    }

    /// A session that has begun.
    #[track_caller]
    fn session(&self, sshd: &Sshd, keys: &[&str], options: &[&str], to_do: &str) -> Running {
        begun(&mut self.ssh(sshd, keys, options, to_do), || sshd.log())
    }
}

fn watch<const N: usize>(trust: &Path, sessions: &Path, more: [&str; N]) -> Running {
    let mut watch = machine_id(["host", "watch", "--end-sessions", "--dir"]);
    watch.arg(trust).arg("--sessions").arg(sessions).args(more);
    Running::start(watch.stdout(Stdio::null()).stderr(Stdio::piped()))
}

#[track_caller]
fn begun(command: &mut Command, log: impl Fn() -> String) -> Running {
    let mut session = Running::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
    wait_for("the session to begin", || {
        let ended = session.ended().map(|status| format!("{status}\n{}\n{}", session.stderr(), log()));
        assert!(ended.is_none(), "{}", ended.unwrap_or_default());
        session.stdout().contains("up\n").then_some(())
    });
    session
}

#[track_caller]
fn ends(what: &str, session: &mut Running, since: Instant) {
    assert!(session.wait_at_most(PATIENCE / 3).is_some(), "{what} does not end");
    // A second, says the page; a machine that runs other tests as well is slower.
    assert!(since.elapsed() < Duration::from_secs(5), "{what}: {:?}", since.elapsed());
}

#[track_caller]
fn says(watch: &Running, words: &str) {
    let end = Instant::now() + PATIENCE;
    while !watch.stderr().contains(words) {
        assert!(Instant::now() < end, "no {words:?} in:\n{}", watch.stderr());
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.starts_with(" Z") && !rest.starts_with(" T"))
}

fn note_of(pid: u32) -> String {
    let stat = process::read(format!("/proc/{pid}/stat"));
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    format!("{pid}-{}", fields[19])
}

/// The numbers of `sshd`'s processes that have been noted.
fn noted(files: &Files) -> Vec<u32> {
    let names = read_dir(files.path("sessions")).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter_map(|name| name.to_str()?.split('-').next()?.parse().ok()).collect()
}

#[test]
fn sessions_of_a_revoked_certificate_end_whatever_they_do() {
    let files = Files::new();
    files.certify("thief", 5, "thief", &login());
    files.certify("other", 6, "job (serial 5) ID thief", &login());
    let (sshd, watch) = (files.sshd(), files.watch());
    let mut other = files.session(&sshd, &["other"], &[], FOR_EVER);
    let mut plain = files.session(&sshd, &["thief"], &[], FOR_EVER);
    // Its shell is in no session of its own any more, ignores what it can, and is a child still.
    let mut deep = files.session(
        &sshd,
        &["thief"],
        &[],
        "trap '' HUP TERM INT; nohup setsid sh -c 'echo up; sleep 600; :' 2>/dev/null; :",
    );
    // One connection, two channels.
    let control = format!("ControlPath={}", files.path("control").display());
    let mut master = files.session(&sshd, &["thief"], &["-M", "-o", &control], FOR_EVER);
    let mut shared = files.session(&sshd, &[], &["-o", &control], FOR_EVER);
    // Forwards, one with a connection through it.
    let local = free_port();
    let forward = format!("{local}:127.0.0.1:{}", sshd.port());
    let mut forwards =
        files.ssh(&sshd, &["thief"], &["-N", "-o", "ExitOnForwardFailure=yes", "-L", &forward], "");
    let mut forwards = Running::start(forwards.stdout(Stdio::null()).stderr(Stdio::piped()));
    let mut through = wait_for("the forward", || TcpStream::connect(local).ok());
    let mut greeting = [0; 8];
    through.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"SSH-2.0-");
    let remote = free_port();
    let back = format!("{remote}:127.0.0.1:{}", sshd.port());
    let mut backwards = files.session(&sshd, &["thief"], &["-R", &back], FOR_EVER);
    let mut backwards_through = TcpStream::connect(remote).unwrap();
    // A file on its way.
    std::fs::File::create(files.path("large")).unwrap().set_len(1 << 30).unwrap();
    let mut copy = command("scp");
    copy.args(["-F", "none", "-q", "-l", "1000", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no"]);
    copy.args(["-o", "UserKnownHostsFile=/dev/null", "-P", &sshd.port(), "-i"]).arg(files.path("thief"));
    copy.arg(files.path("large")).arg(format!("{}@127.0.0.1:{}", login(), files.path("copy").display()));
    let mut copy = Running::start(copy.stdout(Stdio::null()).stderr(Stdio::piped()));
    wait_for("the copy to begin", || {
        std::fs::metadata(files.path("copy")).ok().filter(|copy| copy.len() > 0).map(drop)
    });

    let since = files.revoke("serial: 5");
    for (what, session) in [
        ("a command", &mut plain),
        ("a process tree", &mut deep),
        ("a shared connection", &mut master),
        ("its second channel", &mut shared),
        ("a forward", &mut forwards),
        ("a forward back", &mut backwards),
        ("scp", &mut copy),
    ] {
        ends(what, session, since);
    }
    for forwarded in [&mut through, &mut backwards_through] {
        forwarded.set_read_timeout(Some(PATIENCE)).unwrap();
        let _ = forwarded.read_to_end(&mut Vec::new());
    }
    assert!(TcpStream::connect::<SocketAddr>(remote).is_err());
    // The other of the same user, whose name is what a log would be searched for.
    assert!(other.ended().is_none() && !watch.stderr().contains("serial 6"), "{}", watch.stderr());
    assert!(run(&mut files.ssh(&sshd, &["thief"], &[], "true")).status.code() == Some(255));
    succeed(&mut files.ssh(&sshd, &["other"], &[], "true"));
    says(&watch, "serial 5 (`thief`), which is revoked");
    // The CA itself.
    let ca = process::read(files.path("ca.pub"));
    ends("the other", &mut other, files.revoke(&format!("key: {ca}")));
    says(&watch, "serial 6 (`job (serial 5) ID thief`), which is revoked");
}

#[test]
fn what_is_merely_offered_is_not_what_lets_in() {
    let files = Files::new();
    files.certify("first", 5, "first", "nobody-here");
    files.certify("second", 6, "second", &login());
    let (sshd, watch) = (files.sshd(), files.watch());
    let mut session = files.session(&sshd, &["first", "second"], &[], FOR_EVER);
    files.certify("third", 7, "third", &login());
    let mut third = files.session(&sshd, &["third"], &[], FOR_EVER);
    let since = files.revoke("serial: 5\nserial: 7");
    ends("the third", &mut third, since);
    assert!(session.ended().is_none(), "{}", watch.stderr());
    ends("what let it in", &mut session, files.revoke("serial: 6"));
}

#[test]
fn where_several_are_required_each_counts() {
    let files = Files::new();
    files.certify("first", 5, "first", &login());
    files.certify("second", 6, "second", &login());
    let sshd = files.sshd_with("--every", "AuthenticationMethods publickey,publickey\n");
    let _watch = files.watch();
    let keys = ["first", "second"];
    for serial in [5, 6] {
        files.revoke("");
        let mut session = files.session(&sshd, &keys, &[], FOR_EVER);
        ends("the session", &mut session, files.revoke(&format!("serial: {serial}")));
    }
}

/// The command's user can write what it likes there.
#[test]
fn forged_notes_end_nobody_else() {
    let files = Files::new();
    files.certify("thief", 5, "thief", &login());
    files.certify("other", 6, "other", &login());
    let sshd = files.sshd();
    let mut other = files.session(&sshd, &["other"], &[], FOR_EVER);
    let connection = *noted(&files).first().unwrap();
    let started = note_of(connection);
    // Its number, of a process that was there before.
    files.forge(&format!("{connection}-1"), "thief");
    let mut sleeping = Running::start(command("sleep").arg("600"));
    let listens = std::fs::read_to_string(format!("/proc/{connection}/stat")).unwrap();
    let listens: u32 =
        listens.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap().parse().unwrap();
    for pid in [sleeping.id(), listens, std::process::id(), 1] {
        files.forge(&note_of(pid), "thief");
    }
    let sessions = files.path("sessions");
    write(sessions.join("7-7"), "damaged").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", sessions.join(format!("{}-7", std::process::id()))).unwrap();
    succeed(command("mkfifo").arg(sessions.join("2-7")));
    let mut thief = files.session(&sshd, &["thief"], &[], FOR_EVER);
    let (watch, since) = (files.watch(), files.revoke("serial: 5"));
    ends("the thief", &mut thief, since);
    says(&watch, &format!("process {}, ", sleeping.id()));
    says(&watch, "is revoked and was not ended: it runs ");
    says(&watch, &format!("process {listens}, "));
    says(&watch, "whether it listens or is a connection's cannot be told");
    assert!(sleeping.ended().is_none() && lives(sleeping.id()) && lives(listens));
    assert!(other.ended().is_none(), "{}", watch.stderr());
    succeed(&mut files.ssh(&sshd, &["other"], &[], "true"));
    // Whoever is noted as another is ended, and that is all that a note can do: it says which certificate.
    files.forge(&started, "thief");
    ends("who was noted", &mut other, Instant::now());
}

#[test]
fn who_cannot_be_noted_does_not_get_in() {
    let files = Files::new();
    files.certify("job", 5, "job", &login());
    let sshd = files.sshd();
    let sessions = files.path("sessions");
    succeed(&mut files.ssh(&sshd, &["job"], &[], "true"));
    set_permissions(&sessions, Permissions::from_mode(0o755)).unwrap();
    let refused = run(&mut files.ssh(&sshd, &["job"], &[], "true"));
    assert!(refused.status.code() == Some(255), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("Permission denied"), "{refused:?}");
    set_permissions(&sessions, Permissions::from_mode(0o700)).unwrap();
    // What is noted of those that are over goes with the next note; what anybody offers has a bound.
    files.forge("999999999-1", "job");
    let offer = |name: &str| {
        let base64 = files.base64(name);
        let mut offer = machine_id(["host", "principals", "--labels", "env=test", "--sessions"]);
        run(offer.arg(&sessions).args([&login(), &base64]))
    };
    for at in 0..16 {
        let name = format!("offer{at}");
        files.certify(&name, 100 + at, &name, &login());
        for _ in 0..2 {
            assert_eq!(String::from_utf8(offer(&name).stdout).unwrap(), format!("{}\n", login()));
        }
    }
    let refused = offer("job");
    assert_eq!((refused.status.code(), refused.stdout.len()), (Some(6), 0));
    let says = String::from_utf8(refused.stderr).unwrap();
    assert!(says.contains("one connection has offered more than 16 certificates"), "{says}");
    assert_eq!(read_dir(&sessions).unwrap().count(), 1);
}

#[test]
fn what_was_revoked_before_it_started_ends_too() {
    let files = Files::new();
    files.certify("thief", 5, "thief", &login());
    let sshd = files.sshd();
    let mut session = files.session(&sshd, &["thief"], &[], FOR_EVER);
    files.revoke("serial: 5");
    let watch = files.watch();
    ends("the session", &mut session, Instant::now());
    // A list that is no good ends nobody, and is told once.
    write(files.path("trust/revoked.krl"), "damaged").unwrap();
    says(&watch, "revoked.krl: it breaks off");
    files.revoke("");
    says(&watch, "sessions are ended again");
    assert_eq!(watch.stderr().matches("warning: ").count(), 1, "{}", watch.stderr());
}

/// What OpenSSH says of lists that it has made, by each of its ways.
#[test]
fn a_list_refuses_what_openssh_refuses() {
    let files = Files::new();
    for (serial, id) in
        [(1, "one"), (5, "five"), (6, "six"), (70, "seventy"), (u64::MAX, "last"), (0, "none")]
    {
        files.certify(id, serial, id, "root");
    }
    let one = process::read(files.path("one.pub"));
    let ca = process::read(files.path("ca.pub"));
    let hash = |kind: &str, name: &str| {
        let mut print = command("ssh-keygen");
        print.args(["-l", "-E", kind, "-f"]).arg(files.path(name));
        succeed(&mut print).split_whitespace().nth(1).unwrap().to_owned()
    };
    let dense: String =
        (1..40).filter(|serial| serial % 3 == 0).map(|serial| format!("serial: {serial}\n")).collect();
    for lines in [
        String::new(),
        "serial: 5".to_owned(),
        "serial: 5-70".to_owned(),
        "serial: 18446744073709551615".to_owned(),
        "serial: 1\nserial: 6-69\nserial: 71-80".to_owned(),
        "id: five\nid: none".to_owned(),
        format!("key: {one}"),
        format!("sha1: {one}"),
        format!("sha256: {one}"),
        format!("hash: {}", hash("sha256", "six.pub")),
        format!("key: {ca}"),
        format!("sha256: {ca}"),
        dense,
    ] {
        files.revoke(&lines);
        let list = files.path("trust/revoked.krl");
        let refusals = Refusals::read(&std::fs::read(&list).unwrap()).unwrap();
        for name in ["one", "five", "six", "seventy", "last", "none"] {
            let path = files.path(&format!("{name}-cert.pub"));
            let theirs = run(command("ssh-keygen").args(["-Q", "-f"]).arg(&list).arg(&path));
            let ours = ssh_key::Certificate::from_openssh(&process::read(&path)).unwrap();
            assert_eq!(refusals.refuse(&ours), !theirs.status.success(), "{name}: {lines}\n{theirs:?}");
        }
    }
    // Bitmaps are numbers, which it never writes wrongly.
    let string = |bytes: &[u8]| [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat();
    let long = |first: &[u8], length: usize| [first, &vec![0; length]].concat();
    for (bits, good) in [
        (vec![], true),
        (vec![0x7f], true),
        (vec![0x80], false),
        (vec![0, 0x80], true),
        (long(&[1], 2047), true),
        (long(&[0, 0x80], 2047), true),
        (long(&[1], 2048), false),
        (long(&[0, 1], 2048), false),
        (long(&[], 2049), true),
        (long(&[], 2050), false),
    ] {
        let bitmap = string(&[&100_u64.to_be_bytes()[..], &string(&bits)].concat());
        let section = [string(b""), string(b""), vec![0x22], bitmap].concat();
        let list = [krl::write(7, 1, Vec::new()), vec![1], string(&section)].concat();
        write(files.path("bitmap"), &list).unwrap();
        let ask = [files.path("bitmap"), files.path("one-cert.pub")];
        let theirs = run(command("ssh-keygen").args(["-Q", "-f"]).args(ask));
        assert_eq!((theirs.status.success(), krl::read(&list).is_ok()), (good, good), "{bits:?} {theirs:?}");
    }
    // The same serial of another CA is another certificate.
    files.revoke("serial: 5");
    let refusals = Refusals::read(&std::fs::read(files.path("trust/revoked.krl")).unwrap()).unwrap();
    std::fs::rename(files.path("host_key"), files.path("ca")).unwrap();
    files.certify("theirs", 5, "five", "root");
    let theirs = process::read(files.path("theirs-cert.pub"));
    assert!(!refusals.refuse(&ssh_key::Certificate::from_openssh(&theirs).unwrap()));
}
