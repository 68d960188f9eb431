//! What one replica makes of others.

use super::*;

fn replica(id: &str, keys: &[&str], policy: &str, seen: i64) -> Replica {
    Replica {
        id: id.into(),
        name: format!("{id}.example:8443"),
        keys: keys.iter().map(|key| (*key).to_owned()).collect(),
        policy: policy.into(),
        version: "1".into(),
        seen,
    }
}

/// The lines for the log, `after` so many seconds.
struct Log {
    known: Known,
    begun: Instant,
    shared: bool,
}

impl Log {
    fn new(shared: bool) -> Self {
        Self { known: Known::default(), begun: Instant::now(), shared }
    }

    fn hear(&mut self, after: u64, policy: &str, others: &[Replica]) -> Vec<String> {
        let announced = Announced { keys: vec!["tls 1".into()], others: others.to_vec() };
        let me = replica("me", &["tls 1"], policy, 0);
        self.known.hear(&me, &announced, self.begun + Duration::from_secs(after), self.shared)
    }
}

#[test]
fn another_policy_is_told_once_after_a_while_and_when_it_ends() {
    let mut log = Log::new(true);
    let (b, c) = (|policy, seen| replica("b", &["tls 1"], policy, seen), |policy, seen| {
        replica("c", &["tls 1"], policy, seen)
    });
    let mut told = Vec::new();
    let mut told_at = |log: &mut Log, after: u64, policy: &str, others: &[Replica]| {
        let is_before = log.known.differ.is_some_and(|(_, told)| told);
        let news = log.hear(after, policy, others);
        told.extend(news.into_iter().map(|line| (after, line)));
        is_before
    };
    told_at(&mut log, 0, "old", &[b("old", 100), c("old", 100)]);
    // A rolling update that is over in time.
    told_at(&mut log, 5, "old", &[b("new", 105), c("old", 105)]);
    told_at(&mut log, 30, "old", &[b("new", 130), c("old", 130)]);
    told_at(&mut log, 34, "new", &[b("new", 134), c("new", 134)]);
    // One that is not.
    told_at(&mut log, 40, "newer", &[b("new", 140), c("new", 140)]);
    told_at(&mut log, 69, "newer", &[b("new", 169), c("newer", 169)]);
    told_at(&mut log, 70, "newer", &[b("new", 170), c("new", 170)]);
    told_at(&mut log, 75, "newer", &[b("new", 175), c("new", 175)]);
    told_at(&mut log, 80, "newer", &[b("newer", 180), c("newer", 180)]);
    let many = "warning: another policy, `public_url` or `limits` than here: b.example:8443 and 1 replica more; jobs are judged by whichever they come to";
    assert_eq!(told, [(70, many.to_owned()), (80, "all replicas have the same policy again".to_owned())]);
}

/// A row that stays for a while is of one that ended, or was killed; another that goes on is there.
#[test]
fn one_that_is_not_seen_again_counts_for_nothing() {
    let mut log = Log::new(false);
    let dead = replica("dead", &["tls 1"], "other", 100);
    for after in [0, 5, 10, 60] {
        assert!(log.hear(after, "mine", std::slice::from_ref(&dead)).is_empty());
    }
    let alive = replica("\u{1b}[2Jalive", &["tls 1"], "mine", 101);
    assert!(log.hear(70, "mine", &[dead.clone(), alive.clone()]).is_empty());
    let again = Replica { seen: 106, ..alive };
    let said = log.hear(75, "mine", &[dead.clone(), again.clone()]);
    let [line] = said.as_slice() else { panic!("{said:?}") };
    assert!(line.ends_with("alive.example:8443 serves this store too, which is made for one authority"), "{line}");
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
    let why = "the CA keys here are others than those of the store: tls 1 here, tls 2 there, as b.example:8443 has";
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
