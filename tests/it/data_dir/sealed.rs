//! Suites of `init`, and CA keys that it seals with a passphrase.

use std::path::{Path, PathBuf};
use std::process::Output;

use tempfile::TempDir;

use super::{chmod, said};
use crate::support::authority::Authority;
use crate::support::process::{command, machine_id, read, run, succeed};
use crate::support::workers::POLICY;

const KEYS: [&str; 6] =
    ["ssh_user_ca", "ssh_host_ca", "statement_key", "federation_key", "federation_next_key", "tls_ca.key"];

struct Sealed(TempDir);

impl Sealed {
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn init(&self, options: &[&str]) -> Output {
        let init =
            ["authority", "init", "--cluster", "id.test", "--public-url", "https://id.test", "--data-dir"];
        // The passphrase is found from wherever it is served.
        run(machine_id(init).arg(self.path("data")).args(options).current_dir(self.0.path()))
    }

    fn passphrase(&self, text: &str) {
        std::fs::write(self.path("passphrase"), text).unwrap();
        chmod(self.path("passphrase"), 0o600);
    }

    fn new() -> Self {
        let sealed = Self(TempDir::new().unwrap());
        sealed.passphrase("correct horse\n");
        let made = sealed.init(&["--key-passphrase-file", "passphrase"]);
        assert!(made.status.success(), "{}", said(&made));
        sealed
    }

    /// Needs all of the keys.
    fn export(&self, credentials: Option<&Path>) -> Output {
        let mut export = machine_id(["authority", "export", "tls-ca-pin", "--data-dir"]);
        let credentials = credentials.map(|folder| ("CREDENTIALS_DIRECTORY", folder));
        run(export.arg(self.path("data")).envs(credentials))
    }

    fn configure(&self, change: impl FnOnce(String) -> String) {
        let file = self.path("data/authority.yaml");
        std::fs::write(&file, change(read(&file))).unwrap();
    }

    #[track_caller]
    fn fails(&self, words: &[&str]) {
        let output = self.export(None);
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        for words in words {
            assert!(said(&output).contains(words), "no {words:?} in\n{}", said(&output));
        }
        assert!(!said(&output).contains("horse"));
    }

    fn doctor(&self) -> (Option<i32>, String) {
        let output = run(machine_id(["authority", "doctor", "--data-dir"]).arg(self.path("data")));
        (output.status.code(), said(&output) + &String::from_utf8_lossy(&output.stdout))
    }
}

#[test]
fn a_suite_stands_in_the_configuration() {
    let here = Sealed(TempDir::new().unwrap());
    let wrong = here.init(&["--suite", "fips"]);
    assert_eq!((wrong.status.code(), here.path("data").exists()), (Some(2), false));
    assert!(said(&wrong).contains("`--suite` must be modern or compatible"), "{}", said(&wrong));
    assert!(here.init(&["--suite", "compatible"]).status.success());
    assert!(read(here.path("data/authority.yaml")).contains("\nsuite: compatible\n"));
    let file = here.path("data/keys/statement_key").display().to_string();
    assert!(succeed(command("openssl").args(["pkey", "-noout", "-text", "-in", &file])).contains("P-256"));
    let (_, told) = here.doctor();
    assert!(told.contains("ok: keys: "), "{told}");

    let modern = Sealed(TempDir::new().unwrap());
    assert!(modern.init(&[]).status.success());
    modern.configure(|text| text.replace("suite: modern", "suite: compatible"));
    let (code, told) = modern.doctor();
    assert_eq!(code, Some(2));
    let said =
        "keys: not of the suite `compatible`, since they are of Ed25519: ssh-user, ssh-host, statement";
    assert!(told.contains(said), "{told}");
}

#[test]
fn sealed_keys_need_their_passphrase_and_every_mistake_has_words() {
    let sealed = Sealed::new();
    for key in KEYS {
        let text = read(sealed.path("data/keys").join(key));
        assert!(text.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----\n"), "{key}");
        let file = sealed.path("data/keys").join(key).display().to_string();
        let passphrase = format!("file:{}", sealed.path("passphrase").display());
        succeed(command("openssl").args(["pkey", "-noout", "-in", &file, "-passin", &passphrase]));
    }
    let line = format!("key_passphrase_file: '{}'\n", sealed.path("passphrase").display());
    let config = read(sealed.path("data/authority.yaml"));
    assert!(config.contains(&line) || config.contains(&line.replace('\'', "")), "{config}");
    assert!(sealed.export(None).status.success());
    for text in ["correct horse", "correct horse\r\n"] {
        sealed.passphrase(text);
        assert!(sealed.export(None).status.success(), "{text:?}");
    }
    sealed.passphrase("correct horse \n");
    sealed.fails(&[
        "keys/ssh_user_ca: the passphrase is not the one that it was sealed with",
        "hint: `openssl pkey",
    ]);
    sealed.passphrase("\n");
    sealed.fails(&["cannot use the passphrase of the CA keys in ", "it is empty"]);
    sealed.passphrase("correct horse\nbattery\n");
    sealed.fails(&["it has more than one line"]);
    sealed.passphrase("correct horse\n");
    chmod(sealed.path("passphrase"), 0o644);
    sealed.fails(&["others than its owner"]);
    std::fs::remove_file(sealed.path("passphrase")).unwrap();
    sealed.fails(&[
        "cannot use the passphrase of the CA keys in ",
        "put it back: without it nobody reads the keys",
    ]);

    sealed.configure(|text| {
        text.lines().filter(|line| !line.starts_with("key_pass")).map(|line| format!("{line}\n")).collect()
    });
    sealed
        .fails(&["it is sealed with a passphrase, and none is given", "LoadCredential=machine-id-keys:FILE"]);
    let (code, told) = sealed.doctor();
    assert!(code == Some(2) && told.contains("it is sealed with a passphrase, and none is given"), "{told}");
    // systemd hands it over, to its user alone.
    let credentials = sealed.path("credentials");
    std::fs::create_dir(&credentials).unwrap();
    sealed.fails(&["none is given"]);
    std::fs::write(credentials.join("machine-id-keys"), "correct horse").unwrap();
    chmod(credentials.join("machine-id-keys"), 0o400);
    let exported = sealed.export(Some(&credentials));
    assert!(exported.status.success(), "{}", said(&exported));
}

#[test]
fn nothing_is_made_without_the_passphrase_that_is_named() {
    let here = Sealed(TempDir::new().unwrap());
    for (text, words) in [(None, "put it back"), (Some(""), "it is empty")] {
        if let Some(text) = text {
            here.passphrase(text);
        }
        let made = here.init(&["--key-passphrase-file", "passphrase"]);
        assert_eq!((made.status.code(), here.path("data").exists()), (Some(2), false));
        assert!(said(&made).contains(words), "{}", said(&made));
    }
}

#[test]
fn a_key_that_lies_open_beside_a_passphrase_is_found() {
    let sealed = Sealed::new();
    let (_, told) = sealed.doctor();
    assert!(told.contains("ok: keys: "), "{told}");
    let key = sealed.path("data/keys/tls_ca.key");
    let text = succeed(command("openssl").args(["pkey", "-passin", "pass:correct horse", "-in"]).arg(&key));
    std::fs::write(&key, text).unwrap();
    assert!(sealed.export(None).status.success(), "it is taken all the same");
    let (code, told) = sealed.doctor();
    let said = "keys/tls_ca.key is not sealed, though there is a passphrase";
    assert!(code == Some(2) && told.contains(said) && told.contains("docs/keys.md"), "{told}");
}

#[test]
fn an_authority_serves_with_sealed_keys() {
    let folder = TempDir::new().unwrap();
    let credential = folder.path().join("machine-id-keys");
    std::fs::write(&credential, "correct horse\n").unwrap();
    chmod(&credential, 0o400);
    let file = credential.display().to_string();
    let authority = Authority::with_policy(POLICY).init(["--key-passphrase-file", &file]).start();
    assert_eq!(authority.client().get("/readyz").status, 200);
    assert!(
        !authority.stderr().contains("horse") && !authority.stderr().contains("warning"),
        "{}",
        authority.stderr()
    );
}
