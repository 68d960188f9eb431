use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::*;

fn place(dir: &Path) -> (KeyPlace, std::path::PathBuf) {
    let place = KeyPlace::File(dir.join("keys"));
    let certificate = place.certificate(dir);
    (place, certificate)
}

/// What they are opened by.
pub(in crate::authority) fn source(dir: &Path) -> KeySource {
    let (place, certificate) = place(dir);
    let sealing = Some(zeroize::Zeroizing::new([7; 32]));
    let (suite, passphrase, owner) = (Suite::Modern, None, Owner::me());
    KeySource { place, certificate, cluster: "id.test".to_owned(), owner, suite, passphrase, sealing }
}

/// New keys of `id.test` in that data directory.
pub(in crate::authority) fn new_keys(dir: &Path, now: i64) -> Arc<CaKeys> {
    let (place, certificate) = place(dir);
    CaKeys::create(&place, &certificate, "id.test", (Suite::Modern, None), now).unwrap();
    keys_in(dir)
}

/// Those that are there.
pub(in crate::authority) fn keys_in(dir: &Path) -> Arc<CaKeys> {
    Arc::new(open(dir).unwrap())
}

fn open(dir: &Path) -> Result<CaKeys> {
    CaKeys::open(&source(dir), &Arc::default())
}

const FILES: [&str; 4] = ["ssh_user_ca", "ssh_host_ca", "statement_key", "tls_ca.key"];

#[test]
fn what_is_created_loads_and_is_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let keys = new_keys(dir.path(), 1_800_000_000);
    assert!(keys.trust().ssh_user_cas[0].ends_with("ssh_user_ca@id.test"));
    assert_ne!(keys.trust().ssh_user_cas, keys.trust().ssh_host_cas);
    assert!(!format!("{keys:?}").contains("PRIVATE"));
    let (place, certificate) = place(dir.path());
    let again = CaKeys::create(&place, &certificate, "id.test", (Suite::Modern, None), 0);
    assert_eq!(again.unwrap_err().kind(), Kind::Usage);
    for name in FILES {
        let mode = fs::metadata(dir.path().join("keys").join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[test]
fn a_statement_key_is_added_once_and_found_again() {
    let dir = tempfile::tempdir().unwrap();
    new_keys(dir.path(), 1_800_000_000);
    fs::remove_file(dir.path().join("keys/statement_key")).unwrap();
    let before = open(dir.path()).unwrap();
    assert_eq!((before.statement_key(), before.names().unwrap().len()), (None, 3));
    let after = before.with_statement_key(Suite::Modern).unwrap().unwrap();
    let key = after.statement_key().unwrap();
    assert_eq!(open(dir.path()).unwrap().statement_key().as_ref(), Some(&key));
    assert!(after.with_statement_key(Suite::Modern).unwrap().is_none());
    assert!(before.with_statement_key(Suite::Modern).is_err(), "another was made meanwhile, and stays");
    let names = after.names().unwrap();
    assert!(names.is_sorted() && names.contains(&format!("statement {key}")), "{names:?}");
}

#[test]
fn keys_that_others_may_read_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    new_keys(dir.path(), 1_800_000_000);
    let user = dir.path().join("keys/ssh_user_ca");
    fs::set_permissions(&user, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(open(dir.path()).unwrap_err().to_string().contains("others than its owner"));
    fs::remove_file(&user).unwrap();
    assert!(open(dir.path()).unwrap_err().to_string().ends_with("keys/ssh_user_ca is missing"));
}

fn passphrase(text: &str) -> Option<Secret> {
    Some(Secret::new(text.to_owned()))
}

/// What a program says that succeeds.
fn run(program: &str, args: &[&str]) -> String {
    let done = std::process::Command::new(program).args(args).output().unwrap();
    assert!(done.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

#[test]
fn a_suite_says_what_keys_are_of_and_openssh_reads_them() {
    for (suite, begins, length) in
        [(Suite::Modern, "ssh-ed25519 ", 32), (Suite::Compatible, "ecdsa-sha2-nistp256 ", 65)]
    {
        let dir = tempfile::tempdir().unwrap();
        let (place, certificate) = place(dir.path());
        CaKeys::create(&place, &certificate, "id.test", (suite, None), 1_800_000_000).unwrap();
        let keys = open(dir.path()).unwrap();
        let line = keys.trust().ssh_user_cas[0].clone();
        assert!(line.starts_with(begins), "{line}");
        let file = dir.path().join("keys/ssh_user_ca");
        let read = run("ssh-keygen", &["-y", "-f", file.to_str().unwrap()]);
        assert!(line.starts_with(read.split(" ssh-user").next().unwrap().trim_end()), "{read} {line}");
        let statement = URL_SAFE_NO_PAD.decode(keys.statement_key().unwrap()).unwrap();
        assert_eq!(statement.len(), length);
        let unlike: &[&str] =
            if suite == Suite::Modern { &["ssh-user", "ssh-host", "statement"] } else { &[] };
        assert_eq!(keys.unlike(Suite::Compatible), unlike);
        assert_eq!(keys.unlike(Suite::Modern), <[&str; 0]>::default());
    }
}

#[test]
fn sealed_keys_open_with_their_passphrase_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (place, certificate) = place(dir.path());
    let made =
        CaKeys::create(&place, &certificate, "id.test", (Suite::Modern, passphrase("good")), 1_800_000_000);
    made.unwrap();
    let open = |passphrase| CaKeys::open(&KeySource { passphrase, ..source(dir.path()) }, &Arc::default());
    let keys = open(passphrase("good")).unwrap();
    assert!(keys.trust().ssh_user_cas[0].starts_with("ssh-ed25519 "));
    let failed = open(passphrase("bad")).unwrap_err().to_string();
    assert!(
        failed.ends_with("ssh_user_ca: the passphrase is not the one that it was sealed with"),
        "{failed}"
    );
    let failed = open(None).unwrap_err();
    assert!(failed.to_string().ends_with("it is sealed with a passphrase, and none is given"), "{failed}");
    assert!(failed.hints()[0].contains("`key_passphrase_file: FILE`"), "{:?}", failed.hints());
    // Without us, whoever has the passphrase has the keys.
    for name in FILES {
        let path = dir.path().join("keys").join(name);
        assert!(is_sealed(&fs::read_to_string(&path).unwrap()));
        let path = path.to_str().unwrap();
        run("openssl", &["pkey", "-noout", "-in", path, "-passin", "pass:good"]);
    }
    // One that is not sealed is read all the same, so that there is a way from one to the other.
    let plain = dir.path().join("keys/tls_ca.key");
    let text = run("openssl", &["pkey", "-in", plain.to_str().unwrap(), "-passin", "pass:good"]);
    fs::write(&plain, text).unwrap();
    assert_eq!(open(passphrase("good")).unwrap().names().unwrap(), keys.names().unwrap());
}

#[test]
fn keys_of_rsa_and_of_p384_are_taken_from_others() {
    let dir = tempfile::tempdir().unwrap();
    new_keys(dir.path(), 1_800_000_000);
    let at = |name: &str| dir.path().join("keys").join(name).to_str().unwrap().to_owned();
    let rsa = |bits| vec!["RSA".to_owned(), format!("rsa_keygen_bits:{bits}")];
    let p384 = vec!["EC".to_owned(), "ec_paramgen_curve:P-384".to_owned()];
    let make = |kind: &[String], name: &str| {
        let args = ["genpkey", "-algorithm", &kind[0], "-pkeyopt", &kind[1], "-out", &at(name)];
        run("openssl", &args);
        fs::set_permissions(at(name), fs::Permissions::from_mode(0o600)).unwrap();
    };
    make(&rsa(3072), "ssh_user_ca");
    make(&p384, "ssh_host_ca");
    make(&rsa(3072), "tls_ca.key");
    assert!(open(dir.path()).unwrap_err().to_string().ends_with("tls_ca.crt: it is of another key"));
    let request = "req -x509 -days 3650 -subj /CN=id.test -addext basicConstraints=critical,CA:true,pathlen:0 -addext keyUsage=critical,keyCertSign,cRLSign -key";
    let (key, certificate) = (at("tls_ca.key"), at("tls_ca.crt"));
    let args: Vec<&str> = request.split(' ').chain([key.as_str(), "-out", certificate.as_str()]).collect();
    run("openssl", &args);
    let trust = open(dir.path()).unwrap().trust();
    assert!(trust.ssh_user_cas[0].starts_with("ssh-rsa AAAA"), "{trust:?}");
    assert!(trust.ssh_host_cas[0].starts_with("ecdsa-sha2-nistp384 AAAA"), "{trust:?}");
    make(&rsa(2048), "ssh_user_ca");
    let failed = open(dir.path()).unwrap_err().to_string();
    assert!(failed.contains("or RSA of 3072 to 4096 bits"), "{failed}");
}
