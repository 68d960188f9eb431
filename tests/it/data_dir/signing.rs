//! Commands that sign, as an operator runs them beside the server: as its user, who looks into nobody's folders.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::{Data, chmod, said};
use crate::support::process::{command, machine_id, run, succeed};

/// Runs it with that on its stdin.
fn fed(command: &mut Command, input: &[u8]) -> Output {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

/// The request that the pages of `docs/resources` make; its key stays in the folder.
fn csr(folder: &Path) -> Vec<u8> {
    let mut openssl = command("openssl");
    openssl.args(["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc"]);
    succeed(openssl.args(["-subj", "/", "-keyout"]).arg(folder.join("server.key"))).into_bytes()
}

#[test]
fn what_is_signed_comes_on_stdin() {
    let data = Data::new();
    let sign = |args: &[&str], input: &[u8]| {
        let output = fed(machine_id(args).arg("--data-dir").arg(data.path("")), input);
        assert!(output.status.success(), "{}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let key = data.path("host");
    succeed(command("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key));
    let key = std::fs::read(key.with_extension("pub")).unwrap();
    let host = sign(&["authority", "sign-host", "--principal", "web.test", "-"], &key);
    assert!(host.starts_with("ssh-ed25519-cert-v01@openssh.com "), "{host}");
    let server = ["authority", "sign-server", "--name", "db.test", "--csr", "-"];
    let server = sign(&server, &csr(&data.path("")));
    assert!(server.starts_with("-----BEGIN CERTIFICATE-----\n"), "{server}");
}

/// As somebody who may look neither into the data directory nor at what is to be signed.
#[test]
fn whoever_may_not_is_told_who_may() {
    let data = Data::new();
    let root = rustix::process::geteuid().is_root();
    let closed = data.path("closed.csr");
    std::fs::write(&closed, csr(&data.path(""))).unwrap();
    if root {
        chmod(data.0.path(), 0o755);
    } else {
        chmod(&closed, 0o000);
    }
    let as_another = |args: &[&str]| {
        let mut command = machine_id(args);
        if root {
            command.uid(4242).gid(4242);
        }
        said(&run(command.arg("--data-dir").arg(data.path(""))))
    };
    let csr = closed.to_str().unwrap();
    let unread = as_another(&["authority", "sign-server", "--name", "db.test", "--csr", csr]);
    assert!(unread.contains("cannot read ") && unread.contains("closed.csr: Permission denied"), "{unread}");
    assert!(unread.contains("hint: hand it over on stdin: `-` for its name, and `< FILE`\n"), "{unread}");
    chmod(data.path("authority.yaml"), 0o000);
    let unread = as_another(&["authority", "audit"]);
    assert!(unread.contains("authority.yaml: Permission denied"), "{unread}");
    let hint = "hint: run it as the user whose directory it is: `sudo -u machine-id machine-id …`\n";
    assert!(unread.contains(hint), "{unread}");
}
