//! `once --agent`: OpenSSH's own clients use it, and nothing else gets
//! anything out of it, or into it.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::support::process::{Running, command, machine_id, run, succeed};
use crate::support::sshd_labels::{Estate, LabelledSshd, login};
use crate::support::wait_for;

fn estate() -> Estate {
    Estate::start("{env: prod}", "{max_session_ttl: 2h}")
}

/// `once --agent` around a command that waits, when its agent is there.
#[track_caller]
fn waiting<const N: usize>(estate: &Estate, args: [&str; N]) -> (Running, PathBuf) {
    let mut once = estate.once("job", args);
    once.args(["--agent", "--", "sh", "-c", "touch \"$MACHINE_ID_DESTINATION\".ready; exec sleep 300"]);
    let mut running = Running::start(once.stdout(Stdio::piped()).stderr(Stdio::piped()));
    wait_for("COMMAND", || {
        assert!(running.ended().is_none(), "{}", running.stderr());
        estate.path("job.ready").exists().then_some(())
    });
    (running, estate.path("job/agent.sock"))
}

/// `ssh` with nothing but an agent.
fn plain(socket: &Path, sshd: &LabelledSshd, known_hosts: &str) -> Command {
    let mut ssh = command("ssh");
    ssh.env("SSH_AUTH_SOCK", socket).args(["-F", "none", "-o", "BatchMode=yes", "-p", &sshd.port()]);
    ssh.arg("-o").arg(format!("UserKnownHostsFile={known_hosts}"));
    ssh
}

fn ssh_add(socket: &Path, args: &[&str]) -> Command {
    let mut ssh_add = command("ssh-add");
    ssh_add.env("SSH_AUTH_SOCK", socket).args(args);
    ssh_add
}

fn files(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, into) } else { into.push(path) }
    }
}

#[test]
fn ssh_logs_in_with_a_key_that_is_in_no_file() {
    let estate = estate();
    let sshd = LabelledSshd::start(&estate, "env=prod", "");
    let (mut once, socket) = waiting(&estate, ["--output", "identity"]);
    let metadata = std::fs::symlink_metadata(&socket).unwrap();
    assert_eq!((metadata.file_type().is_socket(), metadata.mode() & 0o777), (true, 0o600));
    // The certificate alone.
    let listed = succeed(&mut ssh_add(&socket, &["-L"]));
    let kinds: Vec<&str> = listed.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(kinds, ["ssh-ed25519-cert-v01@openssh.com"], "{listed}");
    let short = succeed(&mut ssh_add(&socket, &["-l"]));
    assert!(short.contains("machine-id identity (ED25519-CERT)\n"), "{short}");
    // Through its configuration, and with nothing but the socket.
    let destination = estate.path("job");
    assert_eq!(sshd.lets_in(&destination, "echo in"), "in\n");
    let file = |name: &str| destination.join(name).display().to_string();
    for more in [
        vec![],
        // As $MACHINE_ID_IDENTITY_FILE names it; as others' configurations may.
        vec!["-i".into(), file("key.pub")],
        vec![
            "-oIdentitiesOnly=yes".into(),
            "-i".into(),
            file("key.pub"),
            format!("-oCertificateFile={}", file("key-cert.pub")),
        ],
        vec!["-oIdentitiesOnly=yes".into(), "-i".into(), file("key-cert.pub")],
    ] {
        let mut plain = plain(&socket, &sshd, &file("known_hosts"));
        assert_eq!(succeed(plain.args(&more).arg(format!("{}@127.0.0.1", login())).arg("echo in")), "in\n");
    }
    let mut found = Vec::new();
    files(&destination, &mut found);
    assert!(found.contains(&destination.join("key-cert.pub")) && !found.contains(&destination.join("key")));
    for path in found.iter().filter(|path| **path != socket) {
        let text = String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
        assert!(!text.contains("OPENSSH PRIVATE KEY"), "{}", path.display());
    }
    // Told to end, it leaves nothing.
    once.signal(Signal::TERM);
    once.wait();
    assert!(!destination.exists(), "{}", once.stderr());
    assert!(!once.stderr().contains("warning"), "{}", once.stderr());
}

#[test]
fn one_certificate_an_output_is_offered() {
    let estate = estate();
    let (sshd, other) =
        (LabelledSshd::start(&estate, "env=prod", ""), LabelledSshd::start(&estate, "env=dev", ""));
    let outputs = ["a", "b", "c", "d"].map(|name| format!("ssh,name={name}"));
    let [a, b, c, d] = outputs.each_ref().map(String::as_str);
    let (_once, socket) = waiting(&estate, ["--output", a, "--output", b, "--output", c, "--output", d]);
    let listed = succeed(&mut ssh_add(&socket, &["-l"]));
    let comments: Vec<&str> = listed.lines().filter_map(|line| line.split("machine-id ").nth(1)).collect();
    assert_eq!(comments, ["a (ED25519-CERT)", "b (ED25519-CERT)", "c (ED25519-CERT)", "d (ED25519-CERT)"]);
    for output in ["a", "d"] {
        let known_hosts = estate.path("job").join(output).join("known_hosts");
        let mut plain = plain(&socket, &sshd, known_hosts.to_str().unwrap());
        assert_eq!(succeed(plain.arg(format!("{}@127.0.0.1", login())).arg("echo in")), "in\n");
        assert_eq!(sshd.lets_in(&estate.path("job").join(output), "echo in"), "in\n");
    }
    // Where none of them opens anything, the server has not had enough before ssh is through: it takes six.
    let known_hosts = estate.path("job/a/known_hosts");
    let mut refused = plain(&socket, &other, known_hosts.to_str().unwrap());
    let output = run(refused.arg(format!("{}@127.0.0.1", login())).arg("true"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("Permission denied") && !stderr.contains("Too many"), "{stderr}");
}

/// What `ControlPersist` keeps would outlive the certificate that opened it.
#[test]
fn connections_that_ssh_shares_end_with_the_certificates() {
    let estate = estate();
    let sshd = LabelledSshd::start(&estate, "env=prod", "");
    let script = "ssh() { command ssh -F \"$MACHINE_ID_DESTINATION/ssh_config\" -o BatchMode=yes \
        -o ControlPath=\"$MACHINE_ID_DESTINATION/shared\" \"$@\" 2>&1; }
        ssh -fN -o ControlMaster=yes -p \"$1\" \"$2@127.0.0.1\" >/dev/null; ssh -O check x; touch \"$MACHINE_ID_DESTINATION/mine\"";
    let login = login();
    let mut once = estate.once("job", ["--output", "ssh", "--", "sh", "-c", script, "sh"]);
    let output = run(once.args([&sshd.port(), &login]));
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let pid = stdout.split_once("pid=").and_then(|(_, rest)| rest.split_once(')')).map(|(pid, _)| pid);
    let pid = pid.unwrap_or_else(|| panic!("{stdout} {stderr}"));
    wait_for("the master's end", || (!Path::new("/proc").join(pid).exists()).then_some(()));
    assert!(stderr.contains("machine-id did not write it: mine\n"), "{stderr}");
    assert!(!estate.path("job/shared").exists());
}

#[test]
fn it_lists_and_signs_and_nothing_else() {
    let estate = estate();
    let (once, socket) = waiting(&estate, ["--output", "ssh"]);
    let own = estate.path("own");
    succeed(command("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&own));
    let own = own.to_str().unwrap();
    let public = estate.path("job/key.pub");
    let listed = succeed(&mut ssh_add(&socket, &["-L"]));
    for refused in [vec!["-D"], vec!["-d", public.to_str().unwrap()], vec![own], vec!["-x"]] {
        let output = run(&mut ssh_add(&socket, &refused));
        assert!(!output.status.success(), "{refused:?}: {output:?}");
    }
    // Garbage ends or fails its own connection, and no other.
    let patient = UnixStream::connect(&socket).unwrap();
    for garbage in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 64], &[0, 0, 0, 0], &[0, 0, 0, 1, 99], &[0, 0, 0, 9, 13]]
    {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.write_all(garbage).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty() || answer == [0, 0, 0, 1, 5], "{answer:?}");
    }
    drop(patient);
    assert_eq!(succeed(&mut ssh_add(&socket, &["-L"])), listed);
    // What it signs is good: OpenSSH verifies it, also for Git.
    let file = estate.path("file");
    std::fs::write(&file, "text").unwrap();
    let mut sign = command("ssh-keygen");
    sign.env("SSH_AUTH_SOCK", &socket).args(["-Y", "sign", "-n", "file", "-f"]).arg(&public).arg(&file);
    succeed(&mut sign);
    let mut check = command("ssh-keygen");
    check.args(["-Y", "check-novalidate", "-n", "file", "-s"]).arg(estate.path("file.sig"));
    succeed(check.stdin(std::fs::File::open(&file).unwrap()));
    drop(once);
}

#[test]
fn another_user_gets_nothing() {
    if !rustix::process::geteuid().is_root() {
        // Nobody else can be had without root.
        return;
    }
    let estate = estate();
    let (_once, socket) = waiting(&estate, ["--output", "ssh"]);
    // As if the folder did not keep them away.
    for (path, mode) in [(estate.path(""), 0o755), (estate.path("job"), 0o755), (socket.clone(), 0o666)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let mut other = command("setpriv");
    other.args(["--reuid=65534", "--regid=65534", "--clear-groups", "ssh-add", "-L"]);
    let output = run(other.env("SSH_AUTH_SOCK", &socket));
    assert_eq!((output.status.success(), output.stdout.len()), (false, 0), "{output:?}");
    assert!(!String::from_utf8_lossy(&output.stderr).contains("Permission denied"), "{output:?}");
    succeed(&mut ssh_add(&socket, &["-L"]));
}

#[test]
fn renewed_certificates_are_served() {
    let estate = estate();
    let sshd = LabelledSshd::start(&estate, "env=prod", "");
    let (once, socket) = waiting(&estate, ["--output", "ssh", "--ttl", "12s"]);
    let first = succeed(&mut ssh_add(&socket, &["-L"]));
    let renewed = wait_for("the renewal", || {
        Some(succeed(&mut ssh_add(&socket, &["-L"]))).filter(|listed| *listed != first)
    });
    assert_eq!(renewed.lines().last(), first.lines().last(), "the key stays");
    wait_for("the file", || once.stderr().contains("renewed the certificates").then_some(()));
    assert_eq!(sshd.lets_in(&estate.path("job"), "echo in"), "in\n");
}

#[test]
fn cleanup_finds_the_socket_of_a_killed_run() {
    let estate = estate();
    let (mut once, socket) = waiting(&estate, ["--output", "identity"]);
    once.kill();
    assert!(socket.exists() && UnixStream::connect(&socket).is_err());
    succeed(&mut machine_id(["cleanup", estate.path("job").to_str().unwrap()]));
    assert!(!estate.path("job").exists());
}

#[test]
fn a_destination_is_used_again() {
    let estate = estate();
    let (mut once, socket) = waiting(&estate, ["--output", "ssh"]);
    once.kill();
    assert!(socket.exists());
    let show = [
        "--output",
        "ssh",
        "--agent",
        "-q",
        "--",
        "sh",
        "-c",
        "ssh-add -L; echo \"$SSH_AUTH_SOCK $MACHINE_ID_IDENTITY_FILE\"",
    ];
    let said = succeed(&mut estate.once("job", show));
    assert_eq!(said.lines().count(), 2, "{said}");
    let destination = estate.path("job").display().to_string();
    assert!(said.ends_with(&format!("{destination}/agent.sock {destination}/key.pub\n")), "{said}");
    assert!(!estate.path("job").exists());
}

#[test]
fn wrong_usage_is_said_before_anything_is_asked_for() {
    let once = |destination: &str, rest: &[&str]| {
        let mut once = machine_id(["once", "--join-method", "github", "--token", "t", "--agent"]);
        once.args(["--authority", "https://127.0.0.1:1", "--destination", destination]).args(rest);
        let output = run(&mut once);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(once("/tmp/x", &[]).contains("--agent serves the SSH key to COMMAND, and there is none"));
    let long = format!("/tmp/{}", "x".repeat(90));
    assert!(once(&long, &["--", "true"]).contains("too long for --agent"));
}
