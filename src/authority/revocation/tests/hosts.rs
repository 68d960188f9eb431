//! An authority whose store is put back and whose clock jumps, and hosts that
//! fetch its lists all the while: the store, the lists and the hosts' files
//! are real, the network between them is not.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use futures_util::future::BoxFuture;
use proptest::prelude::*;
use proptest::sample::select;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::*;
use crate::authority::store::seal::StoreKey;
use crate::authority::store::sqlite::Sqlite;
use crate::authority::store::{NewCertificate, NewRevocation, NewSigned};
use crate::clock::Held;
use crate::folder::Folder;
use crate::host::lists::{self, CRL, KRL};
use crate::host::seen::Seen;
use crate::host::store as host_store;
use crate::pem;
use crate::wire::RevokedEnds;

const HOUR: i64 = 3600;

/// What may happen.
#[derive(Clone, Debug)]
enum Step {
    /// Certificates of both kinds, good for that long.
    Issue(i64),
    /// Gives back those of the one that was issued so many ago.
    Revoke(u64),
    Wait(i64),
    /// The authority's clock is off by that much from now on.
    Off(i64),
    Restart,
    BackUp,
    PutBack,
    Refresh(usize),
}

struct Host {
    _folder: TempDir,
    store: Folder,
    /// What was revoked here at some time, with its end.
    revoked: BTreeMap<u64, i64>,
}

struct World {
    folder: TempDir,
    runtime: Runtime,
    keys: Arc<CaKeys>,
    cas: Vec<Vec<u8>>,
    store: Option<Sqlite>,
    cache: ListCache,
    now: i64,
    off: i64,
    ends: BTreeMap<u64, i64>,
    hosts: Vec<Host>,
    /// Every list, by its number.
    lists: BTreeMap<u64, Vec<u8>>,
}

impl World {
    fn new(off: i64) -> Self {
        let folder = TempDir::new().unwrap();
        let keys = new_keys(folder.path(), NOW - HOUR);
        let cas = pem::certificates(&keys.trust().tls_cas[0]).unwrap();
        let host = |_| {
            let folder = TempDir::new().unwrap();
            let store = host_store::open(&folder.path().join("trust")).unwrap();
            Host { _folder: folder, store, revoked: BTreeMap::new() }
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (cache, hosts) = (ListCache::default(), (0..2).map(host).collect());
        let (ends, lists) = (BTreeMap::new(), BTreeMap::new());
        let mut world =
            Self { folder, runtime, keys, cas, store: None, cache, now: NOW, off, ends, hosts, lists };
        world.start();
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn start(&mut self) {
        self.cache = ListCache::default();
        self.store = None;
        let path = self.path("authority.db");
        if !path.exists() {
            Sqlite::create(&path, &StoreKey::beside(&path)).unwrap();
        }
        self.store = Some(Sqlite::open(&path, &StoreKey::beside(&path), self.now + self.off).unwrap());
    }

    fn serials(&self) -> u64 {
        u64::try_from(self.ends.len()).unwrap()
    }

    /// The SSH certificate has the lower serial of two.
    fn issue(&mut self, ttl: i64) -> u64 {
        let (time, first) = (self.now + self.off, self.serials() + 1);
        let sign = |serial, kind| {
            let certificate = NewCertificate {
                serial,
                kind,
                output: "identity".into(),
                output_type: None,
                options: BTreeMap::new(),
                principals: vec!["deploy".into()],
                groups: Vec::new(),
                expires: time + ttl,
                key_hash: [0; 32],
                is_host: false,
                ca: None,
            };
            NewSigned { id: format!("i-{serial}"), time, by: "serve", certificate, cas: 0 }
        };
        let (ssh, tls) = (sign(first, CertificateKind::Ssh), sign(first + 1, CertificateKind::Tls));
        self.both(|store| [store.record_signed(ssh), store.record_signed(tls)]);
        self.ends.extend([(first, time + ttl), (first + 1, time + ttl)]);
        first
    }

    fn revoke(&self, first: u64) {
        let time = self.now + self.off;
        let entry = |serial| NewRevocation {
            issuance_id: format!("i-{serial}"),
            time,
            assertion_id: "a".into(),
            held: Held { until: time, lasts: 60 },
            peer: String::new(),
        };
        // One that the store has forgotten is not revoked.
        self.both(|store| [store.revoke(entry(first)), store.revoke(entry(first + 1))]);
    }

    /// At once, since each commit waits for the disk.
    fn both<'w, T>(&'w self, work: impl FnOnce(&'w Sqlite) -> [BoxFuture<'w, Result<T>>; 2]) {
        let [one, other] = work(self.store.as_ref().unwrap());
        let (one, other) = self.runtime.block_on(async { tokio::join!(one, other) });
        assert!(one.is_ok() && other.is_ok());
    }

    fn back_up(&mut self) {
        self.store = None;
        fs::copy(self.path("authority.db"), self.path("backup.db")).unwrap();
        self.start();
    }

    fn put_back(&mut self) {
        self.store = None;
        if fs::copy(self.path("backup.db"), self.path("authority.db")).is_err() {
            fs::remove_file(self.path("authority.db")).unwrap();
        }
        self.start();
        let resumed = self.store.as_ref().unwrap().resume(self.now + self.off);
        self.runtime.block_on(resumed).unwrap();
    }

    /// `host refresh`; what went wrong. What was revoked on this host is so until it has ended.
    fn refresh(&mut self, host: usize) -> String {
        let off = self.off;
        let lists = self.cache.lists(self.store.as_ref().unwrap(), &self.keys, self.now + off, false);
        let (fetched, _) = self.runtime.block_on(lists).unwrap();
        let number = krl::read(&fetched.krl).unwrap().number;
        // Each signature is another, over the same.
        let (_, crl) = x509_parser::parse_x509_crl(&fetched.crl).unwrap();
        let signed = crl.tbs_cert_list.as_ref();
        let same = self.lists.entry(number).or_insert_with(|| signed.to_vec());
        assert_eq!(*same, signed, "the number {number} is of two lists");
        let told: RevokedEnds = serde_json::from_str(&self.cache.ends(None).0).unwrap();
        let (now, Host { store, revoked, .. }) = (self.now, &mut self.hosts[host]);
        let mut seen = Seen::read(store).unwrap();
        let mut wrong = String::new();
        let keys = BTreeSet::new();
        let fresh = lists::fresh_krl(store, (&mut seen, &keys), fetched.krl.to_vec(), now, "/krl").unwrap();
        wrong.extend(fresh.wrong.map(|error| error.to_string()));
        fresh.content.map(|content| host_store::write(store, KRL, &content).unwrap());
        let new = [lists::NewCrl { list: &fetched.crl, cas: self.cas.clone(), path: "/crl" }];
        let fresh = lists::fresh_crls(store, &mut seen, &new, &self.cas, (Some(&told.expires), now));
        fresh.content.map(|content| host_store::write(store, CRL, &content).unwrap());
        wrong.extend(fresh.wrong.iter().map(ToString::to_string));
        seen.write(store, now).unwrap();
        let there = revoked_at(store);
        let back: Vec<_> =
            revoked.iter().filter(|(serial, end)| now < **end && !there.contains(serial)).collect();
        assert!(back.is_empty(), "good again at {now}: {back:?}");
        revoked.extend(there.iter().map(|serial| (*serial, self.ends[serial])));
        wrong
    }

    fn step(&mut self, step: &Step) {
        let issued = self.serials() / 2;
        match *step {
            Step::Issue(ttl) => drop(self.issue(ttl)),
            Step::Revoke(before) if before < issued => self.revoke(2 * (issued - before) - 1),
            Step::Revoke(_) => {}
            Step::Wait(seconds) => self.now += seconds,
            Step::Off(off) => self.off = off,
            Step::Restart => self.start(),
            Step::BackUp => self.back_up(),
            Step::PutBack => self.put_back(),
            Step::Refresh(host) => drop(self.refresh(host)),
        }
    }
}

/// What the lists in a host's folder revoke.
fn revoked_at(store: &Folder) -> Vec<u64> {
    let read = |name: &str| store.read(name, MAX_LIST).unwrap();
    let mut all = read(KRL).map_or(Vec::new(), |krl| krl::read(&krl).unwrap().serials);
    if let Some(pem) = read(CRL) {
        let der = pem::decode_all(&String::from_utf8(pem).unwrap(), "X509 CRL").unwrap().pop().unwrap();
        let (_, crl) = x509_parser::parse_x509_crl(&der).unwrap();
        all.extend(crl.iter_revoked_certificates().map(|one| u64::try_from(&one.user_certificate).unwrap()));
    }
    all
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => select(vec![60, HOUR, 26 * HOUR, 7 * 24 * HOUR]).prop_map(Step::Issue),
        4 => (0_u64..3).prop_map(Step::Revoke),
        2 => select(vec![1, 50, 59 * 60, 5 * HOUR]).prop_map(Step::Wait),
        2 => select(vec![-2 * HOUR, -300, 0, 0, 20, 90, 2 * HOUR, 48 * HOUR]).prop_map(Step::Off),
        1 => Just(Step::Restart),
        1 => Just(Step::BackUp),
        1 => Just(Step::PutBack),
        6 => (0_usize..2).prop_map(Step::Refresh),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20, ..ProptestConfig::default() })]

    /// Whatever happens to the authority's store and clock, what a host has once seen revoked stays so
    /// until it has ended by the host's clock, and no number is of two lists.
    #[test]
    fn no_host_takes_a_revocation_back(steps in proptest::collection::vec(any_step(), 8..40)) {
        let mut world = World::new(0);
        for step in &steps {
            world.step(step);
        }
        world.refresh(0);
        world.refresh(1);
    }

    /// Where clocks are as far apart as they may be and nothing is put back, nothing is wrong,
    /// and hosts have what the authority has.
    #[test]
    fn nothing_is_refused_that_is_right(
        off in -LEEWAY..=LEEWAY,
        steps in proptest::collection::vec(any_step(), 8..30),
    ) {
        let mut world = World::new(off);
        for step in &steps {
            match step {
                Step::Off(_) | Step::BackUp | Step::PutBack => {}
                Step::Refresh(host) => prop_assert_eq!(world.refresh(*host), ""),
                step => world.step(step),
            }
        }
        prop_assert_eq!(world.refresh(0), "");
        let listed = world.runtime.block_on(world.store.as_ref().unwrap().revoked(NOW)).unwrap();
        let there = revoked_at(&world.hosts[0].store);
        let lacks = listed.iter().find(|one| one.expires > world.now && !there.contains(&one.serial));
        prop_assert!(lacks.is_none(), "{lacks:?}");
    }
}

#[test]
fn a_store_that_was_put_back_lets_nobody_in_again() {
    let mut world = World::new(0);
    let (one, other) = (world.issue(HOUR), world.issue(HOUR));
    world.back_up();
    world.revoke(one);
    assert_eq!(world.refresh(0), "");
    world.now += 60;
    world.put_back();
    // As many revocations as before: the number was the same once.
    world.revoke(other);
    let wrong = world.refresh(0);
    assert!(wrong.contains(&format!("the certificate {one} any more")), "{wrong}");
    assert!(wrong.contains(&format!("the certificate {} any more", one + 1)), "{wrong}");
    // The KRL has all; the CRL, which only the authority can sign, is the old one.
    assert_eq!(revoked_at(&world.hosts[0].store), [one, other, one + 1]);
    // Over, and all is well.
    world.now += HOUR + 60;
    assert_eq!(world.refresh(0), "");
    assert!(revoked_at(&world.hosts[0].store).is_empty());
}

#[test]
fn a_clock_that_is_ahead_lets_nobody_in_again() {
    let mut world = World::new(0);
    let one = world.issue(HOUR);
    world.revoke(one);
    assert_eq!(world.refresh(0), "");
    world.off = 2 * HOUR;
    let wrong = world.refresh(0);
    assert_eq!(wrong.matches("it is from the future").count(), 2, "{wrong}");
    assert_eq!(revoked_at(&world.hosts[0].store), [one, one + 1]);
    // It is right again, at once, without a restart.
    (world.off, world.now) = (0, world.now + 1);
    assert_eq!(world.refresh(0), "");
    assert_eq!(revoked_at(&world.hosts[0].store), [one, one + 1]);
    // A little ahead, as clocks may be.
    (world.off, world.now) = (LEEWAY, world.now + 10);
    assert_eq!(world.refresh(0), "");
    assert_eq!(world.refresh(1), "");
}

#[test]
fn lists_are_made_anew_when_what_they_say_is_another() {
    let mut world = World::new(0);
    let number = |world: &mut World| {
        world.refresh(0);
        *world.lists.last_key_value().unwrap().0
    };
    let one = world.issue(HOUR / 2);
    let empty = number(&mut world);
    world.now += HOUR - 10;
    assert_eq!(number(&mut world), empty);
    world.now += 10;
    let hourly = number(&mut world);
    assert!(hourly > empty);
    let other = world.issue(HOUR / 2);
    world.revoke(one);
    world.revoke(other);
    let revoked = number(&mut world);
    assert!(revoked > hourly);
    world.now += HOUR / 2 + LEEWAY;
    assert_eq!(number(&mut world), revoked);
    world.now += 60;
    assert!(number(&mut world) > revoked);
    let last = number(&mut world);
    world.start();
    world.now -= 10;
    assert!(number(&mut world) > last);
}

/// Its end is known here, though the list that is there does not say it and the authority has long since ceased to.
#[test]
fn what_ended_while_nobody_asked_holds_up_nothing() {
    let mut world = World::new(-11);
    let one = world.issue(60);
    world.revoke(one);
    world.now += 50;
    assert_eq!(world.refresh(0), "");
    world.now += 5 * HOUR;
    assert_eq!(world.refresh(0), "");
    assert!(revoked_at(&world.hosts[0].store).is_empty());
}
