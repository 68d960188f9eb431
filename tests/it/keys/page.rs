//! `docs/keys.md`, word for word, where it is about AWS KMS and a company's root. Its other blocks are typed beside what they are
//! about: in `pkcs11.rs`, and in `tests/it/servers/sealed.rs`.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::support::kms::Kms;
use crate::support::page;
use crate::support::process::{MACHINE_ID, command, machine_id, read, run, succeed};

/// Its user's folder, where `sudo` has whoever runs it do it, and the data directory is `data`.
fn machine() -> TempDir {
    let folder = TempDir::new().unwrap();
    for (name, text) in [
        ("sudo", "[ \"$1\" != -u ] || shift 2\nexec env \"$@\""),
        ("systemctl", "echo \"$*\" >> systemctl.log"),
    ] {
        std::fs::write(folder.path().join(name), format!("#!/bin/sh\n{text}\n")).unwrap();
        succeed(command("chmod").arg("755").arg(folder.path().join(name)));
    }
    std::os::unix::fs::symlink(MACHINE_ID, folder.path().join("machine-id")).unwrap();
    folder
}

/// What types a block of the page there.
fn shell(folder: &Path, block: &str) -> Command {
    let place = folder.display();
    let text = page::file("../keys.md", block)
        .replace("/tmp/", &format!("{place}/"))
        .replace("/var/lib/machine-id", &format!("{place}/data"));
    let mut shell = command("sh");
    shell.args(["-euc", &text]).current_dir(folder);
    shell.env("PATH", format!("{place}:{}", std::env::var("PATH").unwrap()));
    shell
}

#[test]
fn the_page_leads_to_an_authority_with_its_keys_in_kms() {
    let (kms, folder) = (Kms::start(), machine());
    succeed(shell(folder.path(), "init-kms").envs(kms.environment()));
    assert!(read(folder.path().join("data/authority.yaml")).contains("keys: awskms:alias/machine-id\n"));
    let named = |of: &str| (format!("alias/machine-id-{of}"), "ECC_NIST_P256".into(), "Enabled".into());
    let all = ["ssh-user", "ssh-host", "statement", "federation", "federation-next", "tls"];
    assert_eq!(kms.keys(), all.map(named));
    // The same key stands in the way of another, as the page says.
    std::fs::remove_dir_all(folder.path().join("data")).unwrap();
    let again = run(shell(folder.path(), "init-kms").envs(kms.environment()));
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(!again.status.success() && said.contains("there is the key"), "{said}");
}

/// The company's side, which is nobody's of ours: a root, and a CA below it.
const COMPANY: &str = "
    new='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'
    openssl req -x509 $new -keyout root.key -out root.crt -days 3650 -subj '/O=Company/CN=Root'
    openssl req $new -keyout issuing.key -out issuing.csr -subj '/O=Company/CN=Issuing'
    printf 'basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n' > ca.ext
    openssl x509 -req -in issuing.csr -CA root.crt -CAkey root.key -CAcreateserial -days 1900 -extfile ca.ext -out issuing.crt
";

#[test]
fn the_page_leads_to_an_authority_under_a_root() {
    let folder = machine();
    let at = |name: &str| folder.path().join(name);
    succeed(shell(folder.path(), "request").stderr(std::process::Stdio::null()));
    succeed(command("sh").args(["-euc", COMPANY]).current_dir(folder.path()));
    succeed(&mut shell(folder.path(), "certify"));
    let told = succeed(&mut shell(folder.path(), "import"));
    assert_eq!(read(at("systemctl.log")), "restart machine-id\n", "{told}");
    assert_eq!(read(at("data/keys/tls_ca_cross.crt")), read(at("chain.pem")));
    // Who trusts the company's root alone.
    let mut sign = machine_id(["authority", "sign-server", "--name", "db.test", "--data-dir"]);
    succeed(sign.arg(at("data")).arg("--out").arg(at("server")));
    let mut verify = command("openssl");
    verify.args(["verify", "-no-CApath", "-CAfile"]).arg(at("root.crt"));
    succeed(verify.arg("-untrusted").arg(at("server/server.crt")).arg(at("server/server.crt")));
}
