//! `docs/keys.md`, word for word: keys that are sealed, read, sealed anew, and handed over by systemd; keys of RSA.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::support::page;
use crate::support::process::{self, command, read, run, succeed};

/// A shell on the page's machine: its paths are the test's, and whoever runs it is every user.
struct Shell(TempDir);

impl Shell {
    fn new() -> Self {
        let shell = Self(TempDir::new().unwrap());
        for (name, text) in [
            ("sudo", "#!/bin/sh\n[ \"$1\" != -u ] || shift 2\nexec \"$@\"\n"),
            (
                "install",
                "#!/bin/sh\nleft=$#\nwhile [ $left -gt 0 ]; do\n    case $1 in\n        -o | -g) shift; left=$((left - 1)) ;;\n        \
                 *) set -- \"$@\" \"$1\" ;;\n    esac\n    shift\n    left=$((left - 1))\ndone\nexec /usr/bin/install \"$@\"\n",
            ),
        ] {
            std::fs::write(shell.path(name), text).unwrap();
            succeed(command("chmod").arg("755").arg(shell.path(name)));
        }
        std::os::unix::fs::symlink(process::MACHINE_ID, shell.path("machine-id")).unwrap();
        shell
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A block of the page.
    fn block(&self, name: &str) -> String {
        let folder = self.0.path().display();
        let text = page::file("../keys.md", name)
            .replace("/var/lib/machine-id", &format!("{folder}/data"))
            .replace("/etc/machine-id-keys", &format!("{folder}/machine-id-keys"));
        // Files of root's alone may be a group's to read.
        if rustix::process::geteuid().is_root() { text } else { text.replace("-m 640", "-m 600") }
    }

    fn command(&self, name: &str) -> Command {
        let path = format!("{}:{}", self.0.path().display(), std::env::var("PATH").unwrap());
        let mut shell = command("sh");
        shell.args(["-euc", &self.block(name)]).env("PATH", path);
        shell
    }

    #[track_caller]
    fn types(&self, name: &str) -> String {
        succeed(&mut self.command(name))
    }

    /// `export tls-ca-pin`, which needs every key.
    fn pin(&self, credentials: Option<&Path>) -> Command {
        let mut export = process::machine_id(["authority", "export", "tls-ca-pin", "--data-dir"]);
        export.arg(self.path("data")).envs(credentials.map(|folder| ("CREDENTIALS_DIRECTORY", folder)));
        export
    }
}

#[test]
fn keys_are_sealed_read_sealed_anew_and_opened_by_systemd_as_the_page_says() {
    let shell = Shell::new();
    shell.types("passphrase");
    let made = shell.types("init");
    let pin = made.lines().last().unwrap().to_owned();
    assert!(pin.starts_with("sha256:"), "{made}");
    assert!(shell.types("read").contains("P-256"));
    let before = read(shell.path("machine-id-keys.passphrase"));
    let sealed = read(shell.path("data/keys/tls_ca.key"));
    // As a rotation names one.
    let rotated = shell.path("data/keys/tls-0a1b2c3d");
    std::fs::copy(shell.path("data/keys/tls_ca.key"), &rotated).unwrap();
    assert_eq!(shell.types("exchange"), format!("{pin}\n"));
    assert_ne!(read(rotated), sealed);
    assert_ne!(read(shell.path("machine-id-keys.passphrase")), before);
    assert_ne!(read(shell.path("data/keys/tls_ca.key")), sealed);
    assert_eq!(succeed(&mut shell.pin(None)), format!("{pin}\n"));

    // As systemd has it: a folder of the unit's own, with files that its user reads.
    let file = shell.path("data/authority.yaml");
    let is_other = |line: &&str| !line.starts_with("key_passphrase_file:");
    let others: Vec<String> = read(&file).lines().filter(is_other).map(str::to_owned).collect();
    std::fs::write(&file, others.join("\n") + "\n").unwrap();
    assert!(!run(&mut shell.pin(None)).status.success());
    let unit = shell.block("credential");
    let (name, path) = unit.trim().split_once("LoadCredential=").unwrap().1.split_once(':').unwrap();
    let credentials = shell.path("credentials");
    std::fs::create_dir(&credentials).unwrap();
    std::fs::copy(path, credentials.join(name)).unwrap();
    std::fs::set_permissions(credentials.join(name), std::fs::Permissions::from_mode(0o400)).unwrap();
    assert_eq!(succeed(&mut shell.pin(Some(&credentials))), format!("{pin}\n"));
}

#[test]
fn keys_of_rsa_take_the_place_of_those_of_init_as_the_page_says() {
    let shell = Shell::new();
    shell.types("passphrase");
    let before = shell.types("init");
    let pin = shell.types("rsa");
    assert!(pin.starts_with("sha256:") && !before.contains(&pin), "{pin}");
    let mut export = process::machine_id(["authority", "export", "ssh-user-ca", "--data-dir"]);
    assert!(succeed(export.arg(shell.path("data"))).starts_with("ssh-rsa "));
}
