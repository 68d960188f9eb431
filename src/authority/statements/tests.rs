//! What is stated, over a real store.

use std::ops::Deref;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{ED25519, UnparsedPublicKey};
use serde_json::Value;

use super::*;
use crate::authority::revocation::tests::world::World;
use crate::authority::store::CertificateKind;
use crate::authority::store::locks::{Lock, LockKind, NewLock};
use crate::wire::STATEMENT;

const NOW: i64 = 1_795_348_800;

struct Stage {
    world: World,
    statements: Statements,
}

impl Deref for Stage {
    type Target = World;

    fn deref(&self) -> &World {
        &self.world
    }
}

impl Stage {
    fn new() -> Self {
        Self { world: World::new(), statements: Statements::default() }
    }

    fn stated(&self, now: i64, age: Range<i64>) -> Arc<Stated> {
        let of: (&dyn Store, _, _) = (&self.store, &self.keys, &self.lists);
        self.runtime.block_on(async {
            self.store.hear().await.unwrap();
            self.statements.present(of, "id.test", now, age).await.unwrap()
        })
    }

    fn issue(&self, serial: u64) {
        let kind = if serial.is_multiple_of(2) { CertificateKind::Ssh } else { CertificateKind::Tls };
        self.world.issue(serial, kind, NOW + 3600);
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
        self.read(&self.runtime.block_on(stated.line(since)).unwrap())
    }
}

fn serials(statement: &Statement) -> Vec<(u64, bool)> {
    statement.revoked.iter().map(|one| (one.serial, one.ssh)).collect()
}

#[test]
fn who_has_a_list_hears_what_is_new_and_who_has_none_the_whole() {
    let stage = Stage::new();
    (2..8).for_each(|serial| stage.issue(serial));
    let first = stage.stated(NOW, PRESENT);
    let (number, whole) = (first.order().0, stage.line(&first, None));
    assert_eq!((whole.since, serials(&whole), whole.number), (None, vec![], number));
    assert_eq!((whole.made, whole.until, &*whole.cluster), (NOW, NOW + STATEMENT_VALID, "id.test"));
    assert_eq!(
        (&whole.trust, whole.statement_keys),
        (&stage.keys.trust(), vec![stage.keys.statement_key().unwrap()])
    );
    stage.give_back(2);
    let second = stage.stated(NOW, PRESENT).order().0;
    stage.give_back(3);
    stage.give_back(5);
    let third = stage.stated(NOW, PRESENT);
    assert!(number < second && second < third.order().0);
    for (since, told) in
        [(number, vec![(2, true), (3, false), (5, false)]), (second, vec![(3, false), (5, false)])]
    {
        let statement = stage.line(&third, Some(since));
        assert_eq!((statement.since, serials(&statement)), (Some(since), told));
        assert!(statement.revoked.iter().all(|one| one.expires == NOW + 3600));
    }
    // What it has already, and what nobody knows.
    assert_eq!(stage.line(&third, Some(third.order().0)).since, Some(third.order().0));
    for unknown in [Some(number + 1), Some(0), Some(u64::MAX), None] {
        assert_eq!((stage.line(&third, unknown).since, stage.line(&third, unknown).revoked), (None, vec![]));
    }
    let of_list = stage.lists.lists(&stage.store, &stage.keys, NOW, false);
    let (of_list, _) = stage.runtime.block_on(of_list).unwrap();
    let hash = |list: &[u8]| crate::text::hex(ring::digest::digest(&ring::digest::SHA256, list).as_ref());
    let statement = stage.line(&third, None);
    let (_, crl) = x509_parser::parse_x509_crl(&of_list.crl).unwrap();
    let signed = Bytes::copy_from_slice(crl.tbs_cert_list.as_ref());
    assert_eq!([&statement.krl, &statement.crl], [&hash(&of_list.krl), &hash(&signed)]);
    // An authority that starts anew knows what is, and not what was.
    let lists = ListCache::default();
    let of: (&dyn Store, _, _) = (&stage.store, &stage.keys, &lists);
    let again = stage.runtime.block_on(Statements::default().present(of, "id.test", NOW, PRESENT)).unwrap();
    assert_eq!((again.order().0, stage.line(&again, Some(second)).since), (third.order().0, None));
    let urgent = third.order().0;
    assert_eq!(stage.line(&again, None), Statement { urgent, ..statement }, "of one moment and one list");
}

#[test]
fn what_operators_revoke_is_urgent_and_what_jobs_give_back_is_not() {
    let stage = Stage::new();
    (2..8).for_each(|serial| stage.issue(serial));
    let urgent = |stated: &Stated| stage.line(stated, None).urgent;
    let first = stage.stated(NOW, PRESENT);
    assert_eq!(urgent(&first), first.order().0, "nobody knows what was before");
    stage.give_back(2);
    let second = stage.stated(NOW, PRESENT);
    assert_eq!(urgent(&second), first.order().0);
    stage.lock(4);
    let third = stage.stated(NOW, 0..i64::MAX);
    assert_eq!(urgent(&third), third.order().0);
    stage.give_back(3);
    let fourth = stage.stated(NOW, 0..i64::MAX);
    assert!(urgent(&fourth) == third.order().0 && third.order().0 < fourth.order().0);
    // One that nothing was new to is news all the same, where it is urgent.
    let unlocked = stage.store.unlock(LockKind::Serial, "4".into(), NOW, "anna".into());
    stage.runtime.block_on(unlocked).unwrap();
    let fifth = stage.stated(NOW, 0..i64::MAX);
    assert_eq!((fifth.order().0, urgent(&fifth)), (fourth.order().0, fourth.order().0));
    assert!(fifth.is_news_after(&fourth) && !fifth.is_news_after(&fifth));
}

#[test]
fn each_is_signed_once_and_told_in_order() {
    let stage = Stage::new();
    (2..8).for_each(|serial| stage.issue(serial));
    let first = stage.stated(NOW, PRESENT);
    let line = |of: &Stated, since| stage.runtime.block_on(of.line(since)).unwrap();
    let lines = [(); 2].map(|()| line(&first, None));
    assert_eq!(lines[0].as_ptr(), lines[1].as_ptr(), "the same bytes");
    assert!(Arc::ptr_eq(&first, &stage.stated(NOW, PRESENT)));
    assert!(!Arc::ptr_eq(&first, &stage.stated(NOW + 1, PRESENT)) && !stage.statements.is_watched());

    let mut watch = stage.statements.watch();
    assert!(stage.statements.is_watched());
    let later = stage.stated(NOW + 2, PRESENT);
    watch.heard(&later);
    // Nothing older than what it has heard, though it was told since.
    assert!(stage.statements.tell(&first, false) && !stage.statements.tell(&first, false));
    stage.give_back(2);
    let new = stage.stated(NOW, PRESENT);
    assert!(stage.statements.tell(&new, false));
    let next = stage.runtime.block_on(watch.next()).unwrap();
    assert!(Arc::ptr_eq(&next, &new) && watch.number() == Some(new.order().0));
    assert!(!stage.statements.tell(&new, false));
    let heartbeat = stage.stated(NOW + 15, 0..0);
    assert!(!stage.statements.tell(&heartbeat, false) && stage.statements.tell(&heartbeat, true));
    assert!(Arc::ptr_eq(&stage.runtime.block_on(watch.next()).unwrap(), &heartbeat));
    stage.statements.end();
    assert!(stage.runtime.block_on(watch.next()).is_none());
    assert!(stage.runtime.block_on(stage.statements.watch().next()).is_none());
    // Strangers who ask for what nobody has have the same line, and nothing is kept for them.
    for since in 0..1000 {
        line(&new, Some(since));
    }
    assert!(stage.runtime.block_on(new.lines.lock()).len() <= 3);
}
