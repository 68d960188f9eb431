//! Locks: whom an operator has shut out. Nothing is issued to whoever one takes, and what they hold is revoked when it is put.
//!
//! Which locks there are a store knows by heart, and by a number, `state.locks`, which is another once anything of them has
//! changed: an issuance is judged in memory, and recorded only where the number is still that one.

use serde_json::{Map, Value};

use super::hosts::{self, covers};
use super::seal::{Column, Granting, Seal};
use crate::clock::LEEWAY;
use crate::join;
use crate::text::hex;

/// How far back issuances may be that are still good, in seconds: the longest life, and clocks that are days apart.
pub const REACH: i64 = 10 * 86_400;

/// How many issuances one transaction revokes at most; what is beyond follows it, while nothing more is issued to them.
pub(super) const STEP: usize = 10_000;

/// How many issuances are looked at in one go.
pub(super) const PAGE: i64 = 1000;

/// How many issuances one `revoked` event names at most.
pub(super) const NAMED: usize = 500;

/// What a lock is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LockKind {
    /// Everybody.
    All,
    /// A bot.
    Bot,
    /// A join token.
    Token,
    /// A join method.
    JoinMethod,
    /// Whoever issues tokens, by its URL.
    Issuer,
    /// A registered worker.
    Instance,
    /// What was issued with a certificate, by its serial.
    Serial,
    /// An issuance.
    Issuance,
    /// A run of a CI system, by any of its ids or by the line that certificates have of it.
    Run,
    /// A repository or project, by its name or its id.
    Repository,
    /// A host that was thrown out, by its name.
    Host,
    /// A key, by the SHA-256 of its SSH blob or its SubjectPublicKeyInfo, in hexadecimal.
    Key,
}

impl LockKind {
    const ALL: [(Self, &'static str); 12] = [
        (Self::All, "all"),
        (Self::Bot, "bot"),
        (Self::Token, "token"),
        (Self::JoinMethod, "join-method"),
        (Self::Issuer, "issuer"),
        (Self::Instance, "instance"),
        (Self::Serial, "serial"),
        (Self::Issuance, "issuance"),
        (Self::Run, "run"),
        (Self::Repository, "repository"),
        (Self::Host, "host"),
        (Self::Key, "key"),
    ];

    /// As the option of `authority lock` is called.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(kind, _)| *kind == self).map_or("all", |(_, name)| name)
    }

    /// The kind of that name. Tables have no other, unless somebody has put it there: that one takes everybody.
    pub(super) fn of_name(name: &str) -> Self {
        Self::ALL.iter().find(|(_, known)| *known == name).map_or(Self::All, |(kind, _)| *kind)
    }

    /// `bot deployer`.
    pub fn words(self, value: &str) -> String {
        format!("{} {value}", self.name()).trim_end().to_owned()
    }

    /// Whether it is of what was issued before, and of nobody who may come again.
    pub fn is_of_past(self) -> bool {
        matches!(self, Self::Serial | Self::Issuance)
    }
}

/// A lock, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock {
    /// Its id.
    pub id: String,
    /// What it is about.
    pub kind: LockKind,
    /// Which of them; empty where it is about everybody.
    pub value: String,
    /// When it ends by itself, in seconds since 1970 and by the odometer: when both are over.
    pub until: Option<(i64, i64)>,
    /// What refused jobs are told.
    pub message: Option<String>,
    /// Who has put it.
    pub by: String,
    /// When, in seconds since 1970.
    pub at: i64,
    /// The ids of those that had its name, which it takes under another name too.
    pub met: Vec<String>,
    /// When it was lifted, and by whom.
    pub lifted: Option<(i64, String)>,
}

impl Lock {
    /// Whether it holds at that time, by a clock and by the odometer.
    pub fn holds(&self, now: i64, run: i64) -> bool {
        self.lifted.is_none()
            && self.until.is_none_or(|(until, held_to_run)| now <= until || run <= held_to_run)
    }

    /// Whether it takes them.
    pub fn takes(&self, subject: &Subject) -> bool {
        match self.kind {
            // Who shuts everybody out leaves what operators sign.
            LockKind::All => !subject.is_of_operator,
            LockKind::Repository => {
                subject.repositories.iter().any(|name| is_repository(name, &self.value))
                    || subject.repository_ids.iter().any(|id| *id == self.value || self.met.contains(id))
                    || subject.vouched_ids().any(|id| self.met.contains(&id))
            }
            LockKind::Host => subject.hosts.iter().any(|name| covers(name, &self.value)),
            kind => subject.facts.iter().any(|(fact, value)| *fact == kind && *value == self.value),
        }
    }

    /// The ids that this one has and the lock has not met yet, which it is to take from now on.
    pub fn meets(&self, subject: &Subject) -> Vec<String> {
        let is_named = self.kind == LockKind::Repository
            && subject.repositories.iter().any(|name| is_repository(name, &self.value));
        let ids: Vec<String> = match subject.root {
            None => subject.repository_ids.clone(),
            Some(_) => subject.vouched_ids().collect(),
        };
        ids.into_iter().filter(|id| is_named && !self.met.contains(id)).collect()
    }

    /// Whether it is about that: of repositories, upper and lower case are one.
    pub(super) fn is_about(&self, kind: LockKind, value: &str) -> bool {
        let is_same = kind == LockKind::Repository && self.value.eq_ignore_ascii_case(value);
        self.kind == kind && (is_same || self.value == value)
    }

    /// What it is about, as [`LockKind::words`] says it.
    pub fn words(&self) -> String {
        self.kind.words(&self.value)
    }

    /// As it is where its seal does not hold: nothing that is written beside it lifts it.
    pub(super) fn judged(self, mac: Option<&[u8]>, seal: &Seal) -> Self {
        if seal.holds(&self, mac) { self } else { Self { until: None, lifted: None, message: None, ..self } }
    }

    /// The column `met`.
    pub(super) fn met_text(&self) -> String {
        serde_json::to_string(&self.met).unwrap_or_default()
    }

    /// What that column says.
    pub(super) fn read_met(text: &str) -> Vec<String> {
        serde_json::from_str(text).unwrap_or_default()
    }
}

impl Granting for Lock {
    const TABLE: &'static str = "locks";

    fn key(&self) -> &[u8] {
        self.id.as_bytes()
    }

    fn columns(&self) -> Vec<Column<'_>> {
        let Self { id: _, kind, value, until, message, by, at, met, lifted } = self;
        let mut columns = vec![
            kind.name().into(),
            value.as_str().into(),
            until.map(|(until, _)| until).into(),
            until.map(|(_, run)| run).into(),
            message.as_deref().into(),
            by.as_str().into(),
            (*at).into(),
            lifted.as_ref().map(|(at, _)| *at).into(),
            lifted.as_ref().map(|(_, by)| by.as_str()).into(),
        ];
        columns.extend(met.iter().map(|id| Column::from(id.as_str())));
        columns
    }
}

/// Whether a name, or the URL of a repository, is of what an operator calls so: platforms do not tell upper from lower case.
fn is_repository(name: &str, called: &str) -> bool {
    let (name, called) = (name.to_ascii_lowercase(), called.to_ascii_lowercase());
    name == called || (called.contains('/') && name.ends_with(&format!("/{called}")))
}

/// Whom a lock may take: what is known of an exchange, or of an issuance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    facts: Vec<(LockKind, String)>,
    repositories: Vec<String>,
    repository_ids: Vec<String>,
    /// The cluster whose word alone these are, where it is another one.
    root: Option<String>,
    /// The names of hosts.
    hosts: Vec<String>,
    /// Whether an operator signs it.
    is_of_operator: bool,
}

impl Subject {
    /// Of what an operator signs.
    pub(super) fn of_operator() -> Self {
        Self { is_of_operator: true, ..Self::default() }
    }

    /// Of what was issued, by its event.
    pub(super) fn issued(event: &Map<String, Value>) -> Self {
        let text = |name: &str| event.get(name).and_then(Value::as_str);
        let none = Map::new();
        let claims = event.get("claims").and_then(Value::as_object).unwrap_or(&none);
        let mut subject = Self::of(text("join_method").unwrap_or_default(), claims);
        subject.is_of_operator = text("event") == Some("signed");
        hosts::certified(event).into_values().for_each(|names| subject.hosts(names));
        subject.fact(LockKind::Bot, text("bot"));
        subject.fact(LockKind::Token, text("token"));
        subject.fact(LockKind::Run, text("provenance"));
        subject.fact(LockKind::Instance, text("instance"));
        subject.fact(LockKind::Issuance, text("issuance_id"));
        for serial in event.get("serials").and_then(Value::as_array).into_iter().flatten() {
            subject.fact(LockKind::Serial, serial.as_str());
        }
        subject
    }

    /// With the keys that are certified.
    pub(super) fn keys<'h>(&mut self, hashes: impl IntoIterator<Item = &'h [u8]>) {
        self.facts.extend(hashes.into_iter().map(|hash| (LockKind::Key, hex(hash))));
    }

    /// With the names of hosts that are certified.
    pub(super) fn hosts<'n>(&mut self, names: impl IntoIterator<Item = &'n str>) {
        self.hosts.extend(names.into_iter().map(str::to_owned));
    }

    /// Of a job with these claims.
    pub(super) fn of(join_method: &str, claims: &Map<String, Value>) -> Self {
        let mut subject = Self::default();
        subject.fact(LockKind::JoinMethod, Some(join_method));
        subject.fact(LockKind::Issuer, claims.get("iss").and_then(Value::as_str));
        if let Some(method) = join::find(join_method) {
            subject.root = claims
                .get("cluster")
                .and_then(Value::as_str)
                .filter(|_| method.of_cluster)
                .map(str::to_owned);
            let (method, claims) = join::behind(method, claims);
            // Of a job of another cluster, those by which it has joined that one, too.
            if subject.root.is_some() {
                subject.fact(LockKind::JoinMethod, Some(method.name));
                subject.fact(LockKind::Issuer, claims.get("iss").and_then(Value::as_str));
            }
            let runs = method.texts(method.runs, claims);
            subject.facts.extend(runs.into_iter().map(|run| (LockKind::Run, run)));
            subject.repositories = method.texts(method.repositories, claims);
            subject.repository_ids = method.texts(method.repository_ids, claims);
        }
        subject
    }

    /// The ids of repositories by another cluster's word, with its name: what it says of its jobs shuts out none of those
    /// for whom their platform speaks itself.
    fn vouched_ids(&self) -> impl Iterator<Item = String> {
        self.root.iter().flat_map(|root| self.repository_ids.iter().map(move |id| format!("{root} {id}")))
    }

    /// With one thing more that a lock may be about.
    pub(super) fn fact(&mut self, kind: LockKind, value: Option<&str>) {
        self.facts.extend(value.filter(|value| !value.is_empty()).map(|value| (kind, value.to_owned())));
    }
}

/// All locks of a store, as of a moment.
#[derive(Clone, Debug, Default)]
pub struct Locks {
    /// What `state.locks` says; another with any other locks.
    pub(super) number: i64,
    pub(super) all: Vec<Lock>,
}

impl Locks {
    /// The first that takes them at that time, if one does.
    pub(super) fn refuse(&self, now: i64, run: i64, subject: impl FnOnce() -> Subject) -> Option<Refused> {
        let mut held = self.all.iter().filter(|lock| lock.holds(now, run)).peekable();
        held.peek()?;
        let subject = subject();
        let lock = held.find(|lock| lock.takes(&subject))?;
        Some(Refused { lock: lock.clone(), met: lock.meets(&subject) })
    }
}

/// That a lock has taken somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Which one.
    pub lock: Lock,
    /// The ids that it has met now: see [`Store::meet`](super::Store::meet).
    pub met: Vec<String>,
}

/// A lock that is to be put.
#[derive(Clone, Debug)]
pub struct NewLock {
    /// As it will be, but for the odometer's part of its end.
    pub lock: Lock,
    /// Until when it holds from now on, in seconds.
    pub lasts: Option<i64>,
    /// Whether to say what it would do, and do nothing.
    pub dry_run: bool,
}

/// What a lock has revoked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shut {
    /// The ids of the issuances, oldest first.
    pub issuances: Vec<String>,
    /// How many certificates they had that were still good.
    pub certificates: usize,
    /// The ids of repositories that it has met.
    pub met: Vec<String>,
    /// Whether what it names was ever issued, where it is of what was; of others, whether something was that is not long ago.
    pub is_known: bool,
}

/// A part of what is still good.
#[derive(Debug)]
pub(super) struct Living {
    /// The number of its event.
    pub(super) sequence: i64,
    /// Its event.
    pub(super) event: Map<String, Value>,
    /// The hashes of the keys of its certificates that are still good.
    pub(super) keys: Vec<Vec<u8>>,
}

/// What a lock takes of that which is still good.
#[derive(Clone, Debug, Default)]
pub(super) struct Taken {
    /// The numbers of the events of their issuances.
    pub(super) issuances: Vec<i64>,
    pub(super) shut: Shut,
}

impl Taken {
    /// Adds what the lock takes of these; it meets the ids of those that have nothing good any more, too.
    pub(super) fn add(&mut self, lock: &mut Lock, living: Vec<Living>) {
        for Living { sequence, event, keys } in living {
            let mut subject = Subject::issued(&event);
            subject.keys(keys.iter().map(Vec::as_slice));
            if !lock.takes(&subject) {
                continue;
            }
            self.shut.is_known = true;
            let met = lock.meets(&subject);
            lock.met.extend(met.iter().cloned());
            self.shut.met.extend(met);
            if keys.is_empty() {
                continue;
            }
            let id = event.get("issuance_id").and_then(Value::as_str).unwrap_or_default();
            self.shut.certificates = self.shut.certificates.saturating_add(keys.len());
            self.shut.issuances.push(id.to_owned());
            self.issuances.push(sequence);
        }
    }
}

/// From when on certificates are looked for that are still good to a clock within the leeway.
pub(super) fn still_good(now: i64) -> i64 {
    now.saturating_sub(LEEWAY)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::bounds::{TRAIL, fewer};
    use super::*;

    fn lock(kind: LockKind, value: &str) -> Lock {
        let (id, by) = ("l-1".to_owned(), "root".to_owned());
        Lock {
            id,
            kind,
            value: value.to_owned(),
            until: None,
            message: None,
            by,
            at: 0,
            met: Vec::new(),
            lifted: None,
        }
    }

    fn passport(repository: &str, id: &str) -> Map<String, Value> {
        let claims = json!({
            "iss": "https://root.test", "sub": "spiffe://root.test/bot/x", "cluster": "root.test", "bot": "x",
            "join_method": "github", "roles": ["deploy"],
            "provenance": {
                "line": "github:x",
                "claims": {"iss": "https://github.test", "repository": repository, "repository_id": id, "run_id": "9"},
            },
        });
        claims.as_object().unwrap().clone()
    }

    #[test]
    fn a_lock_takes_a_job_of_another_cluster_by_what_it_joined_there_by() {
        let plain = passport("octo-org/app", "74");
        let mut padded = plain.clone();
        padded["provenance"]["line"] = "\u{1}".repeat(1024).into();
        padded["provenance"]["claims"]["x"] = "x".repeat(8000).into();
        padded["provenance"]["fulcio"] =
            (8..25).map(|arc| (arc.to_string(), json!("x".repeat(1024)))).collect();
        padded["roles"] = (0..2000).map(|n| json!(n.to_string())).collect();
        let (kept, left_out) = fewer(&padded, TRAIL.claims);
        assert!(kept.len() <= TRAIL.claims && left_out > 0, "{} {left_out}", kept.len());
        for claims in [plain, serde_json::from_str(&kept).unwrap()] {
            let subject = Subject::of("trusted_cluster", &claims);
            for (kind, value) in [
                (LockKind::Repository, "octo-org/app"),
                (LockKind::Repository, "74"),
                (LockKind::Run, "9"),
                (LockKind::Issuer, "https://github.test"),
                (LockKind::Issuer, "https://root.test"),
                (LockKind::JoinMethod, "github"),
                (LockKind::JoinMethod, "trusted_cluster"),
            ] {
                assert!(lock(kind, value).takes(&subject), "{} {value}", kind.name());
            }
            assert!(!lock(LockKind::Issuer, "https://other.test").takes(&subject));
        }
    }

    #[test]
    fn the_word_of_another_cluster_locks_out_nobody_elses_jobs() {
        let mut named = lock(LockKind::Repository, "octo-org/app");
        let of_root = |repository: &str| Subject::of("trusted_cluster", &passport(repository, "75"));
        named.met = named.meets(&of_root("octo-org/app"));
        assert_eq!(named.met, ["root.test 75"]);
        assert!(
            named.takes(&of_root("octo-org/renamed")) && named.meets(&of_root("octo-org/renamed")).is_empty()
        );
        let local = json!({"repository": "octo-org/victim", "repository_id": "75"});
        let local = Subject::of("github", local.as_object().unwrap());
        assert!(!named.takes(&local));
        // What its platform says is so for all.
        let own = json!({"repository": "octo-org/app", "repository_id": "75"});
        named.met = named.meets(&Subject::of("github", own.as_object().unwrap()));
        assert!(named.takes(&local) && named.takes(&of_root("octo-org/renamed")));
    }
}
