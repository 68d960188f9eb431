//! What others do to a store while somebody asks.

use super::super::super::conformance::Engine as _;
use super::*;
use crate::authority::keys::tests::new_keys;
use crate::authority::revocation::ListCache;

/// It waits for a connection when this replica hears that the store was put back.
#[test]
fn a_proof_that_was_judged_before_is_taken_by_none_that_is_heard_of_meanwhile() {
    let database = engine();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (store, other) = (database.store().await.unwrap(), database.store().await.unwrap());
        let issue = |n, restored| {
            let fixtures::Entry { entry, plan } =
                fixtures::other(2, n).with(|entry| entry.restored = restored);
            store.issue(entry, plan)
        };
        for n in [1, 3] {
            let fixtures::Entry { entry, plan } = issuance(n);
            assert_eq!(store.issue(entry, plan).await.unwrap(), FRESH);
        }
        assert_eq!(issue(4, None).await.unwrap(), FRESH);
        other.mark().await.unwrap();
        database.put_back(1);
        assert!(lost(&other.mark().await.unwrap_err()).is_some());
        other.resume(NOW).await.unwrap();

        let pool = &store.shared.pool;
        let (mut taken, mut connection) = (Vec::new(), Some(pool.get().await.unwrap()));
        while let Ok(more) = tokio::time::timeout(Duration::from_millis(300), pool.get()).await {
            taken.push(more.unwrap());
        }
        let mut late = issue(9, None);
        let heard = async {
            // By now it is in the batch, which waits.
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            let connection = connection.take().unwrap();
            transaction::look(&connection, &store.shared.known).await.unwrap();
            connection.give_back();
        };
        let (issued, ()) = tokio::join!(&mut late, heard);
        assert!(lost(&issued.unwrap_err()).is_some(), "it was used in what is lost");
        let restored = store.restored().map(|restored| restored.time);
        assert_eq!(issue(10, restored).await.unwrap(), FRESH, "one that is judged by now is taken");
    });
}

/// As where one connection goes to a server that was promoted, and another still to the one before: the second one's commits
/// are no reason to believe the first.
#[test]
fn what_is_heard_of_meanwhile_hides_no_loss() {
    let database = engine();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = database.store().await.unwrap();
        for n in [1, 3, 5] {
            let fixtures::Entry { entry, plan } = issuance(n);
            assert_eq!(store.issue(entry, plan).await.unwrap(), FRESH);
        }
        database.put_back(1);
        let known = &store.shared.known;
        let connection = store.shared.pool.get().await.unwrap();
        let elsewhere = async {
            let reached = Reached { sequence: 4, id: "elsewhere".to_owned(), ..Reached::default() };
            known.loss().reached.raise(&reached);
        };
        let (looked, ()) = tokio::join!(transaction::look(&connection, known), elsewhere);
        assert!(matches!(looked, Err(Failure::Lost(_))), "{looked:?}");
        assert!(!database.psql(ADMIN, "SELECT lost FROM state").unwrap().trim().is_empty(), "others hear it");
    });
}

/// It waits for a connection between what it reads and the number that it is given for that.
#[test]
fn a_list_that_lacks_a_revocation_is_not_served_with_a_higher_number() {
    let database = engine();
    let keys = new_keys(database.key().folder(), NOW);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (store, other) = (database.store().await.unwrap(), database.store().await.unwrap());
        let fixtures::Entry { entry, plan } = issuance(1);
        store.issue(entry, plan).await.unwrap();
        let caches = [ListCache::default(), ListCache::default()];
        let pool = &store.shared.pool;
        let mut taken = Vec::new();
        for _ in 1..8 {
            taken.push(pool.get().await.unwrap());
        }
        let revoke = async {
            let _last = pool.get().await.unwrap();
            other.revoke(revocation(1, "a")).await.unwrap();
            let lists = caches[1].lists(&other, &keys, NOW, false).await.unwrap();
            taken.clear();
            lists
        };
        let (late, lists) = tokio::join!(caches[0].lists(&store, &keys, NOW, false), revoke);
        // The version of a KRL stands behind its magic number and its format.
        let number = |krl: &[u8]| u64::from_be_bytes(krl[12..20].try_into().unwrap());
        let ((late, _), (lists, _)) = (late.unwrap(), lists);
        assert!(number(&late.krl) > number(&lists.krl), "it had to wait");
        let [ends, others] = caches.each_ref().map(|cache| cache.ends(None).0);
        assert_eq!(ends, others);
        assert!(ends.len() > r#"{"expires":{}}"#.len(), "it is revoked");
    });
}

/// Each has all that was used since the store last answered: those whose caller has given up would count it again.
#[test]
fn what_was_used_of_a_limit_counts_once_though_it_was_told_often() {
    let database = engine();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = database.store().await.unwrap();
        let spent = || vec![Spent { key: [7; 16], seconds: 1000.0, age: 0.0 }];
        let pool = &store.shared.pool;
        let mut taken = vec![pool.get().await.unwrap()];
        while let Ok(more) = tokio::time::timeout(Duration::from_millis(100), pool.get()).await {
            taken.push(more.unwrap());
        }
        for _ in 0..3 {
            let told = tokio::time::timeout(Duration::from_millis(20), store.spend(spent())).await;
            assert!(told.is_err(), "nobody waits for it any more");
        }
        taken.into_iter().for_each(Connection::give_back);
        let levels = store.spend(spent()).await.unwrap();
        assert!(matches!(&*levels, [level] if (990.0..=1000.0).contains(&level.seconds)), "{levels:?}");
    });
}
