use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::file::FileStore;
use super::*;
use crate::authority::ca::CaKey;

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

const FILES: [&str; 6] =
    ["ssh_user_ca", "ssh_host_ca", "statement_key", "federation_key", "federation_next_key", "tls_ca.key"];

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
fn keys_that_came_later_are_added_once_and_found_again() {
    let dir = tempfile::tempdir().unwrap();
    new_keys(dir.path(), 1_800_000_000);
    for file in ["statement_key", "federation_key", "federation_next_key"] {
        fs::remove_file(dir.path().join("keys").join(file)).unwrap();
    }
    let before = open(dir.path()).unwrap();
    assert_eq!((before.statement_key(), before.names().unwrap().len()), (None, 3));
    assert!(before.federation_keys().unwrap().is_empty());
    let (after, made) = before.with_later_keys(Suite::Modern).unwrap();
    assert_eq!(made, ["statement", "federation", "federation-next"]);
    let key = after.statement_key().unwrap();
    let found = open(dir.path()).unwrap();
    assert_eq!(found.statement_key().as_ref(), Some(&key));
    let published = found.federation_keys().unwrap();
    assert_eq!((published.len(), &published), (2, &after.federation_keys().unwrap()));
    assert!(after.with_later_keys(Suite::Modern).unwrap().1.is_empty());
    let (other, _) = before.with_later_keys(Suite::Modern).unwrap();
    assert_eq!(other.federation_keys().unwrap(), published, "what was made meanwhile stays, and is taken");
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
    // The next one travels as it lies there: what seals it in the store is beside that.
    let from = || KeySource { passphrase: passphrase("good"), ..source(dir.path()) };
    let new = NewCa { kind: CaKind::SshUser, occasion: "start", now: 1_800_000_001 };
    let next = keys.make_next(&from(), new).unwrap();
    let travels = travel::unseal(
        &from().sealing.unwrap(),
        &format!("id.test {}", next.name),
        &next.sealed.clone().unwrap(),
    );
    let travels = travels.unwrap();
    assert!(is_sealed(&travels) && !travels.contains("-----BEGIN PRIVATE KEY-----"));
    fs::remove_file(dir.path().join("keys").join(&next.name)).unwrap();
    let present = CaKey { number: 1, ..keys.present(CaKind::SshUser, 1_800_000_001).unwrap() };
    let set = Arc::new(CaSet { number: 7, keys: vec![present, CaKey { number: 2, ..next }] });
    assert!(CaKeys::open(&from(), &set).unwrap().lacks().is_empty());
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

/// A set with the CA of that kind that signs, and the next one beside it.
pub(in crate::authority) fn started(keys: &CaKeys, dir: &Path, kind: CaKind) -> Arc<CaSet> {
    let new = NewCa { kind, occasion: "start", now: 1_800_000_001 };
    let next = keys.make_next(&source(dir), new).unwrap();
    let all = keys.written(kind, 1_800_000_001).unwrap().into_iter().chain([next]);
    let keys = (1..).zip(all).map(|(number, key)| CaKey { number, ..key }).collect();
    Arc::new(CaSet { number: 7, keys })
}

#[test]
fn the_next_ca_is_trusted_and_travels_sealed() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = new_keys(dir.path(), 1_800_000_000);
    for entry in fs::read_dir(dir.path().join("keys")).unwrap().map(|entry| entry.unwrap().path()) {
        fs::create_dir_all(other.path().join("keys")).unwrap();
        fs::set_permissions(other.path().join("keys"), fs::Permissions::from_mode(0o700)).unwrap();
        fs::copy(&entry, other.path().join("keys").join(entry.file_name().unwrap())).unwrap();
    }
    for kind in CaKind::ALL {
        let set = started(&first, dir.path(), kind);
        // The same once more finds the key that was made, where it was not recorded.
        let again = started(&first, dir.path(), kind);
        let [next, again] = [&set, &again].map(|set| set.keys.last().unwrap());
        assert_eq!((&again.id, &again.name), (&next.id, &next.name), "{kind:?}");
        assert!(next.name.starts_with(&format!("{}-", kind.name())), "{}", next.name);
        let sealed = next.sealed.clone().unwrap();
        assert!(!String::from_utf8_lossy(&sealed).contains("PRIVATE"));
        let vouch = [(CaKind::Tls, 1), (CaKind::Federation, 0)].into_iter().find(|(of, _)| *of == kind);
        assert_eq!(next.endorsements.len(), vouch.map_or(2, |(_, count)| count));
        for folder in [dir.path(), other.path()] {
            let keys = CaKeys::open(&source(folder), &set).unwrap();
            assert!(keys.lacks().is_empty(), "{:?}", keys.lacks());
            assert!(folder.join("keys").join(&next.name).exists());
            let trust = keys.trust();
            let count = [trust.ssh_user_cas, trust.ssh_host_cas, trust.tls_cas, keys.statement_keys()];
            let at = CaKind::ALL.iter().position(|one| *one == kind).unwrap();
            // As `CaKind::ALL` has them.
            assert_eq!(count.map(|all| all.len()), [0, 1, 2, 3].map(|one| if one == at { 2 } else { 1 }));
            let published: Vec<String> =
                keys.federation_keys().unwrap().into_iter().map(|key| key.kid).collect();
            let rows = set.of(CaKind::Federation).map(|key| key.id.clone());
            let rows: Vec<String> = if kind == CaKind::Federation { rows.collect() } else { Vec::new() };
            assert!(published.starts_with(&rows), "{published:?} {rows:?}");
            assert_eq!(published.len(), if kind == CaKind::Federation { 3 } else { 2 });
            assert_eq!(keys.names().unwrap(), first.names().unwrap(), "the first stay the first");
        }
        // Another key of the store unseals nothing, and another's key is not taken for it.
        let lacking = |lack: &str| {
            let keys =
                CaKeys::open(&KeySource { sealing: Some([8; 32].into()), ..source(other.path()) }, &set);
            let keys = keys.unwrap();
            assert!(keys.lacks()[0].why.contains(lack) && !keys.lacks()[0].signs, "{:?}", keys.lacks());
        };
        fs::remove_file(other.path().join("keys").join(&next.name)).unwrap();
        lacking("sealed with another");
        let another = other.path().join("keys").join(&next.name);
        FileStore::new(&other.path().join("keys"), Owner::me(), None)
            .create(&next.name, algorithm_of(kind))
            .unwrap();
        lacking("another");
        // One that was made at the same time elsewhere makes room for the one that the store has.
        assert!(CaKeys::open(&source(other.path()), &set).unwrap().lacks().is_empty());
        fs::remove_file(another).unwrap();
    }
}

#[test]
fn a_key_that_came_open_is_sealed_where_there_is_a_passphrase() {
    let dirs = [0, 1].map(|_| tempfile::tempdir().unwrap());
    let passphrase = || Some(Secret::new("a b".to_owned()));
    let [open, sealed] = [(&dirs[0], None), (&dirs[1], passphrase())].map(|(dir, passphrase)| {
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        FileStore::new(dir.path(), Owner::me(), passphrase)
    });
    for (name, algorithm) in [("ssh-user-1", Algorithm::Ed25519), ("tls-1", Algorithm::EcdsaP256)] {
        let made = open.create(name, algorithm).unwrap();
        sealed.put(name, &open.copy(name).unwrap().unwrap()).unwrap();
        assert!(is_sealed(&fs::read_to_string(dirs[1].path().join(name)).unwrap()), "{name}");
        assert_eq!(sealed.open(name).unwrap().unwrap().spki(), made.spki());
    }
    assert!(sealed.put("ssh-user-2", "no key").is_err() && sealed.open("ssh-user-2").unwrap().is_none());
    let said = format!("{:?}", KeySource { passphrase: passphrase(), ..source(dirs[0].path()) });
    assert!(!said.contains("7, 7") && !said.contains("a b"), "{said}");
}

fn algorithm_of(kind: CaKind) -> Algorithm {
    if kind == CaKind::Tls { Algorithm::EcdsaP256 } else { Algorithm::Ed25519 }
}

#[test]
fn what_ends_is_destroyed_and_signs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let first = new_keys(dir.path(), 1_800_000_000);
    let set = started(&first, dir.path(), CaKind::SshUser);
    let mut ended = CaSet::clone(&set);
    (ended.keys[0].state, ended.keys[1].state) = (CaState::Ended, CaState::Current);
    let keys = CaKeys::open(&source(dir.path()), &Arc::new(ended)).unwrap();
    assert!(keys.signs_again(CaKind::SshUser, Some(2)) && !keys.signs_again(CaKind::SshUser, None));
    assert_eq!(keys.signing(), Signing { ssh_user: Some(2), ..Signing::default() });
    let told: Vec<String> = keys.tidy(&source(dir.path())).into_iter().map(Result::unwrap).collect();
    assert!(told[0].starts_with("destroyed the CA key ssh-user"), "{told:?}");
    assert!(!dir.path().join("keys/ssh_user_ca").exists() && keys.tidy(&source(dir.path())).is_empty());
}

/// Also where its key is gone already, as from a token that another authority uses too; and of each rotation, not of the first alone.
#[test]
fn the_certificate_beside_the_keys_is_of_a_ca_that_is_trusted() {
    let dir = tempfile::tempdir().unwrap();
    let first = new_keys(dir.path(), 1_800_000_000);
    let mut keys = CaSet::clone(&started(&first, dir.path(), CaKind::Tls)).keys;
    (keys[0].state, keys[1].state) = (CaState::Ended, CaState::Current);
    let set = |keys| Arc::new(CaSet { number: 8, keys });
    let opened = CaKeys::open(&source(dir.path()), &set(keys.clone())).unwrap();
    fs::remove_file(dir.path().join("keys/tls_ca.key")).unwrap();
    let path = source(dir.path()).certificate;
    let cross = path.with_file_name("tls_ca_cross.crt");
    fs::write(&cross, "of the first").unwrap();
    assert!(opened.tidy(&source(dir.path())).is_empty() && !cross.exists());
    let there = || fs::read_to_string(&path).unwrap();
    assert_eq!(there(), opened.trust().tls_cas[0]);
    let new = NewCa { kind: CaKind::Tls, occasion: "again", now: 1_800_000_002 };
    keys.push(CaKey { number: 3, ..opened.make_next(&source(dir.path()), new).unwrap() });
    (keys[1].state, keys[2].state) = (CaState::Former, CaState::Current);
    let activated = CaKeys::open(&source(dir.path()), &set(keys.clone())).unwrap();
    assert!(activated.tidy(&source(dir.path())).is_empty());
    assert_eq!(there(), keys[1].public);
    keys[1].state = CaState::Ended;
    let finished = CaKeys::open(&source(dir.path()), &set(keys.clone())).unwrap();
    assert_eq!(finished.tidy(&source(dir.path())).len(), 1);
    assert_eq!(there(), keys[2].public);
}

#[test]
fn the_chain_leads_to_the_old_tls_ca_while_that_is_trusted() {
    let dir = tempfile::tempdir().unwrap();
    let first = new_keys(dir.path(), 1_800_000_000);
    let set = started(&first, dir.path(), CaKind::Tls);
    let chain = |states: [CaState; 2]| {
        let mut set = CaSet::clone(&set);
        (set.keys[0].state, set.keys[1].state) = states.into();
        let keys = CaKeys::open(&source(dir.path()), &Arc::new(set)).unwrap();
        crate::pem::certificates(&keys.tls_chain()).unwrap()
    };
    let [old, new] = [0, 1].map(|at| crate::pem::certificates(&set.keys[at].public).unwrap().remove(0));
    let [started, activated, finished] = [
        [CaState::Current, CaState::Next],
        [CaState::Former, CaState::Current],
        [CaState::Ended, CaState::Current],
    ]
    .map(chain);
    assert_eq!((started, finished), (vec![old.clone()], vec![new.clone()]));
    let [cross, root] = activated.try_into().unwrap();
    assert_eq!((root, pin_of(&cross).unwrap()), (old.clone(), pin_of(&new).unwrap()));
    let parse = |der| x509_parser::parse_x509_certificate(der).unwrap().1;
    let (old, new, cross) = (parse(&old), parse(&new), parse(&cross));
    assert_eq!((cross.issuer(), cross.subject()), (old.subject(), new.subject()));
    cross.verify_signature(Some(old.public_key())).unwrap();
    assert_ne!(old.subject(), new.subject());
}
