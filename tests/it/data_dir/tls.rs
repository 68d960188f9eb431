//! The files of `tls:`, as operators get them wrong: each mistake is told by its name.

use std::path::PathBuf;

use super::{Data, chmod};
use crate::support::process::{command, read, succeed};

/// Files of OpenSSL's in the data directory, beside `server.crt` and `server.key`, which are served.
const MADE: &str = "
    ext='-addext subjectAltName=DNS:id.test'
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout server.key -out server.crt -subj /CN=id.test $ext -days 99
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout other.key -out other.crt -subj /CN=other.test -days 99
    openssl pkey -in server.key -aes256 -passout pass:x -out encrypted.key
    openssl ec -in server.key -aes256 -passout pass:x -out traditional.key
    { openssl ecparam -name prime256v1; openssl ec -in server.key; } > with-parameters.key
    cat other.key server.key > several.key
    cat other.crt server.crt > disordered.crt
    cat server.crt server.key > one.pem
    openssl pkey -in server.key -pubout -out public.key
    openssl pkey -in server.key -outform DER -out der.key
    openssl x509 -in server.crt -outform DER -out der.crt
    openssl x509 -in server.crt -trustout -out trusted.crt
    openssl req -new -key server.key -subj /CN=id.test -out request.crt
    openssl crl2pkcs7 -nocrl -certfile server.crt -out bag.crt
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-521 -nodes -keyout p521.key -out p521.crt -subj /CN=id.test $ext -days 99
    ssh-keygen -q -t ed25519 -N '' -f ssh.key
    head -n 3 server.key > cut.key
    { cat server.crt; head -n 4 other.crt; } > cut.crt
    : > empty.crt
";

#[test]
fn each_mistake_in_the_files_of_tls_is_told_by_its_name() {
    let data = Data::new();
    succeed(
        command("bash").args(["-euc", MADE]).current_dir(data.path("")).stderr(std::process::Stdio::null()),
    );
    for key in std::fs::read_dir(data.path("")).unwrap().map(|entry| entry.unwrap().path()) {
        if key.extension().is_some_and(|end| end == "key" || end == "pem") {
            chmod(&key, 0o600);
        }
    }
    let at = |name: &str| data.path(name).display().to_string();
    let with = |cert: &str, key: &str| data.config(&format!("tls: {{cert_file: {cert}, key_file: {key}}}\n"));
    for (cert, key) in [
        ("server.crt", "server.key"),
        ("server.crt", "with-parameters.key"),
        ("server.crt", "several.key"),
        ("one.pem", "one.pem"),
    ] {
        with(cert, key);
        data.is_good();
    }
    let both =
        "hint: `cert_file` names the certificate with its chain, `key_file` its private key; both in PEM";
    let encrypted = "its private key is encrypted, and nobody is asked for a passphrase";
    let decrypt =
        "hint: decrypt it, for the authority's user alone: `(umask 077; openssl pkey -in FILE -out NEW)`";
    let ssh = "hint: `ssh-keygen -p -m PKCS8 -f COPY` turns a copy of it into PEM";
    let order = "hint: put the server's own certificate first, then its issuer's, and so on, as `fullchain.pem` has them";
    let is_not =
        format!("the key in {} is not that of the certificate in {}", at("other.key"), at("server.crt"));
    let begins = format!("begins with another certificate than that of the key in {}", at("server.key"));
    let no_kind = format!("{} holds no key of a kind that can be served with", at("p521.key"));
    for (cert, key, said, hint) in [
        ("server.crt", "encrypted.key", encrypted, decrypt),
        ("server.crt", "traditional.key", encrypted, decrypt),
        ("server.key", "server.crt", "it holds `PRIVATE KEY` and no certificate", both),
        ("server.crt", "public.key", "it holds `PUBLIC KEY` and no private key", both),
        ("server.crt", "ssh.key", "it holds `OPENSSH PRIVATE KEY` and no private key", ssh),
        ("server.crt", "cut.key", "it breaks off within a block of PEM", both),
        ("cut.crt", "server.key", "it breaks off within a block of PEM", both),
        ("empty.crt", "server.key", "it holds no certificate in PEM", both),
        ("trusted.crt", "server.key", "it holds `TRUSTED CERTIFICATE` and no certificate", both),
        ("request.crt", "server.key", "it holds `CERTIFICATE REQUEST` and no certificate", both),
        ("bag.crt", "server.key", "it holds `PKCS7` and no certificate", both),
        ("der.crt", "server.key", "it is not text in UTF-8", "certificates and keys are read as PEM"),
        ("server.crt", "der.key", "it is not text in UTF-8", "certificates and keys are read as PEM"),
        ("server.crt", "other.key", &is_not, "`openssl x509 -noout -pubkey -in CERTIFICATE`"),
        ("disordered.crt", "server.key", &begins, order),
        (
            "p521.crt",
            "p521.key",
            &no_kind,
            "hint: there are RSA from 2048 bits on, ECDSA over P-256 and P-384, and Ed25519",
        ),
    ] {
        with(cert, key);
        let culprit = if said.contains("PEM") || said.starts_with("it") {
            if key == "server.key" || cert == "server.key" || cert == "cut.crt" { at(cert) } else { at(key) }
        } else {
            String::new()
        };
        data.is_refused(&[&culprit, said, hint]);
    }
}

#[test]
fn an_encrypted_ca_key_is_told_too() {
    let data = Data::new();
    let key: PathBuf = data.path("keys/tls_ca.key");
    succeed(
        command("openssl")
            .args(["pkey", "-aes256", "-passout", "pass:x", "-in"])
            .arg(&key)
            .arg("-out")
            .arg(data.path("keys/new")),
    );
    assert!(read(data.path("keys/new")).contains("ENCRYPTED"));
    std::fs::rename(data.path("keys/new"), &key).unwrap();
    chmod(&key, 0o600);
    data.is_refused(&[
        &format!(
            "cannot use the CA key {}: it is sealed with a passphrase, and none is given",
            key.display()
        ),
        "hint: name its file in authority.yaml, `key_passphrase_file: FILE`",
    ]);
    let ssh = data.path("keys/ssh_user_ca");
    let data = Data::new();
    let ssh_of = |data: &Data| data.path("keys/ssh_user_ca");
    assert_ne!(ssh, ssh_of(&data));
    succeed(command("ssh-keygen").args(["-q", "-p", "-P", "", "-N", "secret", "-f"]).arg(ssh_of(&data)));
    data.is_refused(&[
        "without a passphrase",
        "hint: where it has one, `ssh-keygen -p -f FILE` takes it away",
    ]);
}
