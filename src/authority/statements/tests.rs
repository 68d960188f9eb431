//! What is stated, over a real store.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{ED25519, UnparsedPublicKey};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::*;
use crate::authority::keys::file;
use crate::authority::store::locks::{Lock, LockKind, NewLock};
use crate::authority::store::seal::StoreKey;
use crate::authority::store::sqlite::Sqlite;
use crate::authority::store::{CertificateKind, NewCertificate, NewRevocation, NewSigned};
use crate::clock::Held;
use crate::folder::trust::Owner;
use crate::wire::STATEMENT;

const NOW: i64 = 1_795_348_800;

struct World {
    _folder: TempDir,
    runtime: Runtime,
    store: Sqlite,
    keys: CaKeys,
    lists: ListCache,
    statements: Statements,
}

impl World {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let [dir, path] = ["keys", "authority.db"].map(|name| folder.path().join(name));
        file::create(&dir, "id.test", NOW).unwrap();
        Sqlite::create(&path, &StoreKey::beside(&path)).unwrap();
        Self {
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
            store: Sqlite::open(&path, &StoreKey::beside(&path), NOW).unwrap(),
            keys: file::load(&dir, Owner::me()).unwrap(),
            lists: ListCache::default(),
            statements: Statements::default(),
            _folder: folder,
        }
    }

    fn stated(&self, now: i64, age: Range<i64>) -> Arc<Stated> {
        let of: (&dyn Store, _, _) = (&self.store, &self.keys, &self.lists);
        self.runtime.block_on(async {
            self.store.hear().await.unwrap();
            self.statements.present(of, "id.test", now, age).await.unwrap()
        })
    }

    fn issue(&self, serial: u64) {
        let certificate = NewCertificate {
            serial,
            kind: if serial.is_multiple_of(2) { CertificateKind::Ssh } else { CertificateKind::Tls },
            output: "identity".into(),
            output_type: None,
            options: BTreeMap::new(),
            principals: vec!["deploy".into()],
            is_host: false,
            groups: Vec::new(),
            expires: NOW + 3600,
            key_hash: [7; 32],
        };
        let entry = NewSigned { id: format!("i-{serial}"), time: NOW, by: "sign-host", certificate };
        self.runtime.block_on(self.store.record_signed(entry)).unwrap();
    }

    /// As its job does.
    fn give_back(&self, serial: u64) {
        let entry = NewRevocation {
            issuance_id: format!("i-{serial}"),
            time: NOW,
            assertion_id: serial.to_string(),
            held: Held { until: NOW + 60, lasts: 60 },
            peer: "192.0.2.1".into(),
        };
        self.runtime.block_on(self.store.revoke(entry)).unwrap();
    }

    /// As an operator does.
    fn lock(&self, serial: u64) {
        let lock = Lock {
            id: format!("l-{serial}"),
            kind: LockKind::Serial,
            value: serial.to_string(),
            until: None,
            message: None,
            by: "anna".into(),
            at: NOW,
            met: Vec::new(),
            lifted: None,
        };
        self.runtime.block_on(self.store.lock(NewLock { lock, lasts: None, dry_run: false })).unwrap();
    }

    /// What a line says, once its signature is that of the statement key.
    fn read(&self, line: &Bytes) -> Statement {
        let text = std::str::from_utf8(line).unwrap();
        assert!(text.ends_with('\n') && text.matches('\n').count() == 1, "{text}");
        let watched: Value = serde_json::from_str(text).unwrap();
        let (message, signature) = watched["statement"].as_str().unwrap().rsplit_once('.').unwrap();
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
        let key = UnparsedPublicKey::new(&ED25519, decode(&self.keys.statement_key().unwrap()));
        key.verify(message.as_bytes(), &decode(signature)).unwrap();
        let (header, claims) = message.split_once('.').unwrap();
        let header: Value = serde_json::from_slice(&decode(header)).unwrap();
        assert_eq!((&header["alg"], &header["typ"]), (&"EdDSA".into(), &STATEMENT.into()));
        serde_json::from_slice(&decode(claims)).unwrap()
    }

    fn line(&self, stated: &Stated, since: Option<u64>) -> Statement {
        self.read(&stated.line(&self.keys, since).unwrap())
    }
}

fn serials(statement: &Statement) -> Vec<(u64, bool)> {
    statement.revoked.iter().map(|one| (one.serial, one.ssh)).collect()
}

#[test]
fn who_has_a_list_hears_what_is_new_and_who_has_none_the_whole() {
    let world = World::new();
    (2..8).for_each(|serial| world.issue(serial));
    let first = world.stated(NOW, PRESENT);
    let (number, whole) = (first.order().0, world.line(&first, None));
    assert_eq!((whole.since, serials(&whole), whole.number), (None, vec![], number));
    assert_eq!((whole.made, whole.until, &*whole.cluster), (NOW, NOW + STATEMENT_VALID, "id.test"));
    assert_eq!(
        (&whole.trust, whole.statement_keys),
        (&world.keys.trust(), vec![world.keys.statement_key().unwrap()])
    );
    world.give_back(2);
    let second = world.stated(NOW, PRESENT).order().0;
    world.give_back(3);
    world.give_back(5);
    let third = world.stated(NOW, PRESENT);
    assert!(number < second && second < third.order().0);
    for (since, told) in
        [(number, vec![(2, true), (3, false), (5, false)]), (second, vec![(3, false), (5, false)])]
    {
        let statement = world.line(&third, Some(since));
        assert_eq!((statement.since, serials(&statement)), (Some(since), told));
        assert!(statement.revoked.iter().all(|one| one.expires == NOW + 3600));
    }
    // What it has already, and what nobody knows.
    assert_eq!(world.line(&third, Some(third.order().0)).since, Some(third.order().0));
    for unknown in [Some(number + 1), Some(0), Some(u64::MAX), None] {
        assert_eq!((world.line(&third, unknown).since, world.line(&third, unknown).revoked), (None, vec![]));
    }
    let of_list = world.lists.lists(&world.store, &world.keys, NOW, false);
    let (of_list, _) = world.runtime.block_on(of_list).unwrap();
    let hash = |list: &[u8]| crate::text::hex(ring::digest::digest(&ring::digest::SHA256, list).as_ref());
    let statement = world.line(&third, None);
    let (_, crl) = x509_parser::parse_x509_crl(&of_list.crl).unwrap();
    let signed = Bytes::copy_from_slice(crl.tbs_cert_list.as_ref());
    assert_eq!([&statement.krl, &statement.crl], [&hash(&of_list.krl), &hash(&signed)]);
    // An authority that starts anew knows what is, and not what was.
    let lists = ListCache::default();
    let of: (&dyn Store, _, _) = (&world.store, &world.keys, &lists);
    let again = world.runtime.block_on(Statements::default().present(of, "id.test", NOW, PRESENT)).unwrap();
    assert_eq!((again.order().0, world.line(&again, Some(second)).since), (third.order().0, None));
    let urgent = third.order().0;
    assert_eq!(world.line(&again, None), Statement { urgent, ..statement }, "of one moment and one list");
}

#[test]
fn what_operators_revoke_is_urgent_and_what_jobs_give_back_is_not() {
    let world = World::new();
    (2..8).for_each(|serial| world.issue(serial));
    let urgent = |stated: &Stated| world.line(stated, None).urgent;
    let first = world.stated(NOW, PRESENT);
    assert_eq!(urgent(&first), first.order().0, "nobody knows what was before");
    world.give_back(2);
    let second = world.stated(NOW, PRESENT);
    assert_eq!(urgent(&second), first.order().0);
    world.lock(4);
    let third = world.stated(NOW, 0..i64::MAX);
    assert_eq!(urgent(&third), third.order().0);
    world.give_back(3);
    let fourth = world.stated(NOW, 0..i64::MAX);
    assert!(urgent(&fourth) == third.order().0 && third.order().0 < fourth.order().0);
    // One that nothing was new to is news all the same, where it is urgent.
    let unlocked = world.store.unlock(LockKind::Serial, "4".into(), NOW, "anna".into());
    world.runtime.block_on(unlocked).unwrap();
    let fifth = world.stated(NOW, 0..i64::MAX);
    assert_eq!((fifth.order().0, urgent(&fifth)), (fourth.order().0, fourth.order().0));
    assert!(fifth.is_news_after(&fourth) && !fifth.is_news_after(&fifth));
}

#[test]
fn each_is_signed_once_and_told_in_order() {
    let world = World::new();
    (2..8).for_each(|serial| world.issue(serial));
    let first = world.stated(NOW, PRESENT);
    let lines = [(); 2].map(|()| first.line(&world.keys, None).unwrap());
    assert_eq!(lines[0].as_ptr(), lines[1].as_ptr(), "the same bytes");
    assert!(Arc::ptr_eq(&first, &world.stated(NOW, PRESENT)));
    assert!(!Arc::ptr_eq(&first, &world.stated(NOW + 1, PRESENT)) && !world.statements.is_watched());

    let mut watch = world.statements.watch();
    assert!(world.statements.is_watched());
    let later = world.stated(NOW + 2, PRESENT);
    watch.heard(&later);
    // Nothing older than what it has heard, though it was told since.
    assert!(world.statements.tell(&first, false) && !world.statements.tell(&first, false));
    world.give_back(2);
    let new = world.stated(NOW, PRESENT);
    assert!(world.statements.tell(&new, false));
    let next = world.runtime.block_on(watch.next()).unwrap();
    assert!(Arc::ptr_eq(&next, &new) && watch.number() == Some(new.order().0));
    assert!(!world.statements.tell(&new, false));
    let heartbeat = world.stated(NOW + 15, 0..0);
    assert!(!world.statements.tell(&heartbeat, false) && world.statements.tell(&heartbeat, true));
    assert!(Arc::ptr_eq(&world.runtime.block_on(watch.next()).unwrap(), &heartbeat));
    world.statements.end();
    assert!(world.runtime.block_on(watch.next()).is_none());
    assert!(world.runtime.block_on(world.statements.watch().next()).is_none());
    // Strangers who ask for what nobody has have the same line, and nothing is kept for them.
    for since in 0..1000 {
        new.line(&world.keys, Some(since)).unwrap();
    }
    assert!(new.lines.lock().unwrap().len() <= 3);
}
