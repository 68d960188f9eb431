use super::super::crl::tests::{ca, list};
use super::super::store;
use super::*;

/// 1 January 2026, 12:00.
const NOON: i64 = 1_767_268_800;

fn store() -> (tempfile::TempDir, Folder) {
    let folder = tempfile::tempdir().unwrap();
    let store = store::open(&folder.path().join("trust")).unwrap();
    (folder, store)
}

/// What becomes of the file where one list is fetched, which any of the CAs may have signed.
fn one_crl(
    store: &Folder,
    seen: &mut Seen,
    list: &[u8],
    cas: &[Vec<u8>],
    at: (Option<&BTreeMap<u64, i64>>, i64),
) -> Result<Option<Vec<u8>>> {
    let new = [NewCrl { list, cas: cas.to_vec(), path: "/crl" }];
    let FreshCrls { content, mut wrong, .. } = fresh_crls(store, seen, &new, cas, at);
    wrong.pop().map_or(Ok(content), Err)
}

fn krl(number: u64) -> Vec<u8> {
    krl_of(number, NOON, &[])
}

fn krl_of(number: u64, date: i64, serials: &[u64]) -> Vec<u8> {
    krl::write(number, u64::try_from(date).unwrap(), vec![(vec![], serials.to_vec())])
}

#[test]
fn only_where_there_is_no_list_is_any_one_good() {
    let (_folder, store) = store();
    let fresh = |list| fresh_krl(&store, (&mut Seen::default(), &BTreeSet::new()), list, NOON, "/krl");
    let content = |number| fresh(krl(number)).unwrap().content;
    assert_eq!(content(7), Some(krl(7)));
    store::write(&store, KRL, &krl(7)).unwrap();
    assert_eq!(
        (content(7), content(8), fresh(krl_of(8, NOON - 5, &[])).unwrap().content),
        (None, None, None)
    );
    let revoking = krl_of(8, NOON, &[5]);
    assert_eq!(fresh(revoking.clone()).unwrap().content, Some(revoking));
    let older = fresh(krl(6)).unwrap();
    let error = older.wrong.unwrap();
    assert!(error.kind() == Kind::Unreachable && error.to_string().contains("older than revoked.krl"));
    assert_eq!(older.content, None);
    store::write(&store, KRL, b"damaged").unwrap();
    let error = fresh(krl(9)).unwrap_err();
    assert_eq!(error.kind(), Kind::Destination);
    assert!(error.to_string().contains("cannot read") && error.hints()[0].contains("remove it"), "{error:?}");
    // What the authority gives is judged first.
    let error = fresh(b"<html>".to_vec()).unwrap_err();
    assert_eq!(error.kind(), Kind::Unreachable);
}

/// Puts a list in place as `host refresh` does; what is wrong, and the serials that are revoked then.
fn take(store: &Folder, seen: &mut Seen, list: Vec<u8>, now: i64) -> (String, Vec<u64>) {
    let fresh = fresh_krl(store, (seen, &BTreeSet::new()), list, now, "/krl").unwrap();
    fresh.content.map(|content| store::write(store, KRL, &content).unwrap());
    let there = store.read(KRL, MAX_LIST).unwrap();
    let wrong = fresh.wrong.map(|error| format!("{error:#} {:?}", error.hints()));
    (wrong.unwrap_or_default(), there.map_or(vec![], |list| krl::read(&list).unwrap().serials))
}

#[test]
fn what_was_seen_revoked_stays_in_the_krl() {
    let (_folder, store) = store();
    let seen = &mut Seen::default();
    let week = 7 * 86_400 + 60;
    // From a version before, which kept nothing beside the list: a certificate may be good for a week yet.
    store::write(&store, KRL, &krl_of(7, NOON - 100, &[1])).unwrap();
    assert_eq!(take(&store, seen, krl_of(8, NOON, &[2, 3]), NOON), (String::new(), vec![1, 2, 3]));
    seen.learn(&BTreeMap::from([(2, NOON + 500), (3, NOON + 500)]));
    // The authority that has forgotten some is told of; one that is right in that it is over, is not.
    let (wrong, serials) = take(&store, seen, krl_of(9, NOON, &[3, 4]), NOON);
    assert_eq!(serials, [1, 2, 3, 4]);
    assert!(wrong.contains("it does not revoke the certificate 2 any more, which is good until 2026-01-01T12:08:20Z: the authority has forgotten that, as one does that was put back from a backup"), "{wrong}");
    assert!(wrong.contains("stays so in revoked.krl"), "{wrong}");
    let (wrong, _) = take(&store, seen, krl_of(9, NOON, &[]), NOON);
    assert!(wrong.contains("the certificate 2 (and 1 more) any more"), "{wrong}");
    assert_eq!(take(&store, seen, krl_of(9, NOON + 441, &[]), NOON + 441), (String::new(), vec![1, 2, 3, 4]));
    assert_eq!(take(&store, seen, krl_of(9, NOON + 501, &[]), NOON + 501), (String::new(), vec![1, 4]));
    assert_eq!(
        take(&store, seen, krl_of(9, NOON + week - 99, &[]), NOON + week - 99),
        (String::new(), vec![4])
    );
    assert_eq!(take(&store, seen, krl_of(9, NOON + week, &[]), NOON + week + 1), (String::new(), vec![]));
}

#[test]
fn of_a_krl_of_another_time_what_it_revokes_is_added() {
    let (_folder, store) = store();
    let seen = &mut Seen::default();
    // None is there, and this one is no good.
    let (wrong, serials) = take(&store, seen, krl_of(7, NOON + 61, &[1]), NOON);
    assert!(serials.is_empty() && !store.path().join(KRL).exists());
    assert!(wrong.contains("from the future: made at 2026-01-01T12:01:01Z, by this machine's clock it is 2026-01-01T12:00:00Z"), "{wrong}");
    assert!(wrong.contains("check the clocks"), "{wrong}");
    assert_eq!(take(&store, seen, krl_of(7, NOON + 60, &[2]), NOON), (String::new(), vec![1, 2]));
    for (list, why) in
        [(krl_of(9, NOON + 61, &[3]), "from the future"), (krl_of(6, NOON, &[4]), "older than")]
    {
        let number = |list: Vec<u8>| krl::read(&list).unwrap().number;
        let (wrong, serials) = take(&store, seen, list, NOON);
        assert!(wrong.contains(why) && serials.len() >= 3, "{wrong} {serials:?}");
        assert_eq!(number(store.read(KRL, MAX_LIST).unwrap().unwrap()), 7);
    }
    // One that is there already gives way to any of now; what it revoked stays.
    store::write(&store, KRL, &krl_of(1 << 40, NOON + 7200, &[5])).unwrap();
    assert_eq!(take(&store, seen, krl_of(8, NOON, &[6]), NOON), (String::new(), vec![1, 2, 3, 4, 5, 6]));
}

#[test]
fn lists_of_another_ca_are_not_compared() {
    let (_folder, store) = store();
    let (ours, theirs) = (ca(), ca());
    let both = [ours.2.clone(), theirs.2.clone()];
    let fresh = |der: &[u8], cas: &[Vec<u8>], now| {
        one_crl(&store, &mut Seen::default(), der, cas, (Some(&BTreeMap::new()), now))
    };
    let put = |der: &[u8]| store::write(&store, CRL, pem::encode(ARMOUR, der).as_bytes()).unwrap();
    assert!(fresh(&list(&ours, 7, &[]), &both, NOON).unwrap().is_some());
    let late = fresh(&list(&ours, 7, &[]), &both, NOON + 3 * 86_400).unwrap_err();
    assert!(late.to_string().contains("by this machine's clock"), "{late}");
    put(&list(&theirs, 9, &[]));
    // Of another that is trusted too, and of one that is not any more.
    assert!(fresh(&list(&ours, 7, &[]), &both, NOON).unwrap().is_some());
    assert!(fresh(&list(&ours, 7, &[]), std::slice::from_ref(&ours.2), NOON).unwrap().is_some());
    // Of the same.
    put(&list(&ours, 9, &[]));
    let older = fresh(&list(&ours, 7, &[]), &both, NOON).unwrap_err();
    assert!(older.to_string().contains("older than tls.crl"), "{older}");
    assert!(fresh(&list(&ours, 9, &[]), &both, NOON).unwrap().is_none());
    // Of the same, it says, and is not: nothing to go by.
    let mut damaged = list(&ours, 9, &[]);
    *damaged.last_mut().unwrap() ^= 1;
    put(&damaged);
    let error = fresh(&list(&ours, 10, &[]), &both, NOON).unwrap_err();
    assert!(error.kind() == Kind::Destination && error.to_string().contains("has signed it"), "{error}");
    store::write(&store, CRL, b"damaged").unwrap();
    let error = fresh(&list(&ours, 10, &[]), &both, NOON).unwrap_err();
    assert!(error.to_string().ends_with("it is no list in PEM"), "{error}");
}

#[test]
fn a_crl_that_lacks_what_was_seen_revoked_is_refused() {
    let (_folder, store) = store();
    let ours = ca();
    let cas = std::slice::from_ref(&ours.2);
    let none = BTreeMap::new();
    let put = |der: &[u8]| store::write(&store, CRL, pem::encode(ARMOUR, der).as_bytes()).unwrap();
    let take = |seen: &mut Seen, number, serials: &[u64], ends, now| {
        let der = list(&ours, number, serials);
        match one_crl(&store, seen, &der, cas, (ends, now)) {
            Ok(content) => drop(content.map(|_| put(&der))),
            Err(error) => return format!("{error:#} {:?}", error.hints()),
        }
        String::new()
    };
    let seen = &mut Seen::default();
    let told = BTreeMap::from([(5, NOON + 10), (6, NOON + 100)]);
    assert_eq!(take(seen, 7, &[5, 6], Some(&told), NOON), "");
    // Over by this machine's clock, not by that of the authority.
    let wrong = take(seen, 8, &[6], Some(&none), NOON + 10);
    assert!(
        wrong.contains(
            "the certificate 5 any more, which is good until 2026-01-01T12:00:10Z: the authority has"
        ),
        "{wrong}"
    );
    assert!(wrong.contains("remove revoked.seen and tls.crl"), "{wrong}");
    assert_eq!(take(seen, 8, &[6], Some(&none), NOON + 11), "");
    // Also where the list that is there is removed, and whatever the authority tells.
    std::fs::remove_file(store.path().join(CRL)).unwrap();
    assert!(take(seen, 9, &[], None, NOON + 11).contains("the certificate 6 any more"));
    // Without what was kept, the list that is there counts, until a certificate of it cannot be good any more;
    // but not with an authority of a version before, of which nobody would know.
    put(&list(&ours, 7, &[6]));
    let wrong = take(&mut Seen::default(), 9, &[], Some(&none), NOON);
    assert!(wrong.contains("is good until 2026-01-08T00:01:00Z at the latest"), "{wrong}");
    assert_eq!(take(&mut Seen::default(), 9, &[], None, NOON), "");
}

#[test]
fn a_crl_that_is_not_yet_good_is_refused_and_gives_way() {
    let (_folder, store) = store();
    let ours = ca();
    let seen = &mut Seen::default();
    let ends = BTreeMap::from([(5, NOON + 86_400)]);
    let made = NOON - 12 * 3600;
    let mut fresh = |number, serials: &[u64], now| {
        let der = list(&ours, number, serials);
        one_crl(&store, seen, &der, std::slice::from_ref(&ours.2), (Some(&ends), now))
    };
    let error = fresh(9, &[5], made - 1).unwrap_err();
    assert!(error.to_string().contains("it is from the future"), "{error}");
    // It is there, of an earlier version that took it; it does not hold up a lower number, but its serials count.
    store::write(&store, CRL, pem::encode(ARMOUR, &list(&ours, 9, &[5])).as_bytes()).unwrap();
    assert!(fresh(8, &[5], made).unwrap_err().to_string().contains("older than tls.crl"));
    assert!(fresh(8, &[], made).unwrap_err().to_string().contains("does not revoke the certificate 5"));
}

#[test]
fn the_key_of_a_revoked_ca_never_leaves_the_krl() {
    let (_folder, store) = store();
    let key = |seed| {
        let pair = ssh_key::private::Ed25519Keypair::from_seed(&[seed; 32]);
        ssh_key::PrivateKey::from(pair).public_key().to_bytes().unwrap()
    };
    let [one, other] = [key(1), key(2)];
    let take = |keys: &[&Vec<u8>], list: Vec<u8>| {
        let keys = keys.iter().map(|key| (*key).clone()).collect();
        let fresh = fresh_krl(&store, (&mut Seen::default(), &keys), list, NOON, "/krl").unwrap();
        fresh.content.map(|content| store::write(&store, KRL, &content).unwrap());
        let there = krl::read(&store.read(KRL, MAX_LIST).unwrap().unwrap()).unwrap().keys;
        (fresh.wrong.map(|error| error.to_string()).unwrap_or_default(), fresh.keys, there.len())
    };
    let with = |number, keys: &[&Vec<u8>]| krl::revoking_keys(krl(number), keys.iter().copied()).unwrap();
    assert_eq!(take(&[], with(7, &[&one])), (String::new(), vec![one.clone()], 1));
    let (wrong, _, there) = take(&[&one], with(8, &[&other]));
    assert!(wrong.contains("it does not revoke the CA SHA256:") && there == 2, "{wrong}");
    // Of a list of another time, its keys count as well.
    let (wrong, keys, there) = take(&[&one], with(6, &[&one, &other]));
    assert!(wrong.contains("older than revoked.krl") && keys.len() == 2 && there == 2, "{wrong}");
    // Where nothing is known of it, the list that is there says nothing: it may be closed by keys of CAs that are trusted.
    assert_eq!(take(&[], krl(9)), (String::new(), vec![], 0));
}

#[test]
fn each_ca_has_its_own_list_and_without_one_servers_do_not_trust_it() {
    let (_folder, store) = store();
    let (ours, theirs) = (ca(), ca());
    let both = [ours.2.clone(), theirs.2.clone()];
    let fresh = |new: &[(&[u8], &[u8])], cas: &[Vec<u8>]| {
        let new: Vec<NewCrl<'_>> =
            new.iter().map(|(list, ca)| NewCrl { list, cas: vec![ca.to_vec()], path: "/crl" }).collect();
        let ends = BTreeMap::new();
        let FreshCrls { content, listed, wrong } =
            fresh_crls(&store, &mut Seen::default(), &new, cas, (Some(&ends), NOON));
        content.iter().for_each(|content| drop(store::write(&store, CRL, content).unwrap()));
        let there = store.read(CRL, MAX_LIST).unwrap().unwrap_or_default();
        let there = String::from_utf8(there).unwrap().matches("BEGIN").count();
        (there, listed.len(), wrong.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let [one, other, of_none] = [list(&ours, 7, &[5]), list(&theirs, 7, &[6]), list(&ca(), 7, &[])];
    assert_eq!(fresh(&[(&one, &ours.2)], &both), (1, 1, vec![]));
    let trust = TrustAnchors {
        tls_cas: both.iter().map(|ca| pem::encode("CERTIFICATE", ca).to_string()).collect(),
        ..TrustAnchors::default()
    };
    assert_eq!(listed(&store, &trust).unwrap(), trust.tls_cas[0]);
    // Each is that of the CA that it is asked of.
    for wrong in [&one, &of_none] {
        let (there, listed, wrong) = fresh(&[(&one, &ours.2), (wrong, &theirs.2)], &both);
        assert!(
            (there, listed) == (1, 1) && wrong[0].contains("none of the TLS CAs has signed it"),
            "{wrong:?}"
        );
    }
    assert_eq!(fresh(&[(&one, &ours.2), (&other, &theirs.2)], &both), (2, 2, vec![]));
    assert_eq!(listed(&store, &trust).unwrap(), trust.tls_cas.concat());
    // One that is no good leaves the one that is there, and nobody's list stays of whom nobody trusts.
    let (there, listed, wrong) = fresh(&[(&of_none, &ours.2), (&other, &theirs.2)], &both);
    assert_eq!((there, listed, wrong.len()), (2, 2, 1));
    assert_eq!(fresh(&[(&other, &theirs.2)], &both[1..]), (1, 1, vec![]));
    let revoked = super::super::crl::revoked(&store.read(CRL, MAX_LIST).unwrap().unwrap()).unwrap();
    assert_eq!(revoked[0].serials, [6].into());
}
