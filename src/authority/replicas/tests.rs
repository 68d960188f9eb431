//! What one replica makes of others.

use super::*;

fn replica(id: &str, keys: &[&str], policy: &str, seen: i64) -> Replica {
    Replica {
        id: id.into(),
        name: format!("{id}.example:8443"),
        keys: keys.iter().map(|key| (*key).to_owned()).collect(),
        has: vec!["cas 7".into()],
        policy: policy.into(),
        version: "1".into(),
        seen,
    }
}

/// The lines for the log, `after` so many seconds.
struct Log {
    replicas: Replicas,
    begun: Instant,
    shared: bool,
}

impl Log {
    fn new(shared: bool) -> Self {
        Self { replicas: Replicas::default(), begun: Instant::now(), shared }
    }

    fn hear(&self, after: u64, policy: &str, others: &[Replica]) -> Vec<String> {
        let announced = Announced { keys: vec!["tls 1".into()], others: others.to_vec() };
        let me = replica("me", &["tls 1"], policy, 0);
        let now = self.begun + Duration::from_secs(after);
        self.replicas.known().hear(&me, &announced, now, self.shared)
    }
}

#[test]
fn another_policy_is_told_once_after_a_while_and_when_it_ends() {
    let log = Log::new(true);
    let (b, c) = (
        |policy, seen| replica("b", &["tls 1"], policy, seen),
        |policy, seen| replica("c", &["tls 1"], policy, seen),
    );
    let mut told = Vec::new();
    let mut told_at = |log: &Log, after: u64, policy: &str, others: &[Replica]| {
        told.extend(log.hear(after, policy, others).into_iter().map(|line| (after, line)));
        assert_eq!(log.replicas.warning().is_some(), (99..109).contains(&after), "for `readyz`, {after}");
    };
    told_at(&log, 0, "old", &[b("old", 100), c("old", 100)]);
    // A rolling update that is over in time.
    told_at(&log, 5, "old", &[b("new", 105), c("old", 105)]);
    told_at(&log, 30, "old", &[b("new", 130), c("old", 130)]);
    told_at(&log, 34, "new", &[b("new", 134), c("new", 134)]);
    // One that has ended since, and whose row is still there.
    told_at(&log, 35, "new", &[b("new", 135), c("old", 135)]);
    told_at(&log, 49, "new", &[b("new", 149), c("old", 135)]);
    told_at(&log, 50, "new", &[b("new", 150), c("old", 135)]);
    told_at(&log, 68, "new", &[b("new", 168), c("old", 135)]);
    // One that is not.
    told_at(&log, 69, "newer", &[b("new", 169), c("new", 169)]);
    told_at(&log, 98, "newer", &[b("new", 198), c("newer", 198)]);
    told_at(&log, 99, "newer", &[b("new", 199), c("new", 199)]);
    told_at(&log, 104, "newer", &[b("new", 204), c("new", 204)]);
    told_at(&log, 109, "newer", &[b("newer", 209), c("newer", 209)]);
    let many = "warning: another policy, `public_url` or `limits` than here: b.example:8443 and 1 replica more; jobs are judged by whichever they come to";
    assert_eq!(told, [(99, many.to_owned()), (109, "all replicas have the same policy again".to_owned())]);
}

/// A row that stays for a while is of one that ended, or was killed; another that goes on is there.
#[test]
fn one_that_is_not_seen_again_counts_for_nothing() {
    let log = Log::new(false);
    let dead = replica("dead", &["tls 1"], "other", 100);
    for after in [0, 5, 10, 60] {
        assert!(log.hear(after, "mine", std::slice::from_ref(&dead)).is_empty());
    }
    let alive = replica("\u{1b}[2Jalive", &["tls 1"], "mine", 101);
    assert!(log.hear(70, "mine", &[dead.clone(), alive.clone()]).is_empty());
    let again = Replica { seen: 106, ..alive };
    let said = log.hear(75, "mine", &[dead.clone(), again.clone()]);
    let [line] = said.as_slice() else { panic!("{said:?}") };
    assert!(
        line.ends_with("alive.example:8443 serves this store too, which is made for one authority"),
        "{line}"
    );
    assert!(!line.contains('\u{1b}'));
    assert!(log.hear(80, "mine", &[Replica { seen: 111, ..again }]).is_empty(), "once");
}

#[test]
fn who_has_other_keys_issues_nothing_and_says_whose() {
    let me = replica("me", &["ssh-user A", "tls 1"], "p", 0);
    let announced = |keys: &[&str], others: Vec<Replica>| Announced {
        keys: keys.iter().map(|key| (*key).to_owned()).collect(),
        others,
    };
    let right = announced(&["ssh-user A", "tls 1"], vec![replica("b", &["tls 9"], "p", 1)]);
    assert_eq!(other_keys(&me, &right), None, "that one is wrong, not this");
    let b = replica("b", &["ssh-user A", "tls 2"], "p", 1);
    let wrong = announced(&["ssh-user A", "tls 2"], vec![replica("c", &["tls 9"], "p", 1), b]);
    let why =
        "the CA keys here are others than those of the store: tls 1 here, tls 2 there, as b.example:8443 has";
    assert_eq!(other_keys(&me, &wrong).unwrap(), why);
    let more = announced(&["ssh-user A", "tls 1", "tls 2"], Vec::new());
    let why = "the CA keys here are others than those of the store: none here, tls 2 there";
    assert_eq!(other_keys(&me, &more).unwrap(), why);
    let replicas = Replicas::default();
    let hear = |announced: &Announced| replicas.known().hear(&me, announced, Instant::now(), true);
    assert!(hear(&right).is_empty());
    assert_eq!(hear(&wrong).len(), 1);
    assert!(replicas.stopped().is_some());
    assert!(hear(&wrong).is_empty(), "said once");
    assert_eq!(hear(&right), ["the CA keys are those of the store again"]);
    assert_eq!(replicas.stopped(), None);
}
