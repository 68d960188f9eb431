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
    KeySource { place, certificate, cluster: "id.test".to_owned(), owner: Owner::me(), sealing }
}

/// New keys of `id.test` in that data directory.
pub(in crate::authority) fn new_keys(dir: &Path, now: i64) -> Arc<CaKeys> {
    let (place, certificate) = place(dir);
    CaKeys::create(&place, &certificate, "id.test", now).unwrap();
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
    let again = CaKeys::create(&place, &certificate, "id.test", 0);
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
    let after = before.with_statement_key().unwrap().unwrap();
    let key = after.statement_key().unwrap();
    assert_eq!(open(dir.path()).unwrap().statement_key().as_ref(), Some(&key));
    assert!(after.with_statement_key().unwrap().is_none());
    assert!(before.with_statement_key().is_err(), "another was made meanwhile, and stays");
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
