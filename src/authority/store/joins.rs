//! Registered instances as a store has them, and what becomes of a join,
//! whichever database they are in.

use super::instances::{AHEAD, COPIED, InstanceRefusal, NewSecret, REPLACED};
use super::seal::{Column, Granting, Kept};
use super::{Issued, NewIssuance};
use crate::clock::LEEWAY;
use crate::join::instance::{InstanceJoin, Judgement, LastJoin};

/// A registered instance, as its row has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceRow {
    /// Its id.
    pub id: String,
    /// The join token that it registered with.
    pub token: String,
    /// The bot that it was when it last joined.
    pub bot: String,
    /// Its public key.
    pub key: Vec<u8>,
    /// What its last join left.
    pub last: LastJoin,
    /// Whose place it takes once it knows that it is registered.
    pub replaces: Option<String>,
    /// When it registered, in seconds since 1970.
    pub registered: i64,
    /// When it last joined.
    pub seen: i64,
    /// When it was locked, if it is.
    pub locked: Option<i64>,
    /// Why.
    pub reason: Option<String>,
}

impl Granting for InstanceRow {
    const TABLE: &'static str = "instances";

    fn key(&self) -> &[u8] {
        self.id.as_bytes()
    }

    fn columns(&self) -> Vec<Column<'_>> {
        let Self { id: _, token, bot, key, last, replaces, registered, seen, locked, reason } = self;
        let LastJoin { expected, base, attempt, tries, id } = last;
        vec![
            token.as_str().into(),
            bot.as_str().into(),
            key.as_slice().into(),
            (*expected).into(),
            (*base).into(),
            attempt.as_str().into(),
            (*tries).into(),
            id.as_str().into(),
            replaces.as_deref().into(),
            (*registered).into(),
            (*seen).into(),
            (*locked).into(),
            reason.as_deref().into(),
        ]
    }
}

/// A registration secret, as its row has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretRow {
    /// SHA-256 of it.
    pub hash: [u8; 32],
    /// Names it in the audit trail.
    pub id: String,
    /// The join token that it is for.
    pub token: String,
    /// Until when it is good, in seconds since 1970.
    pub expires: i64,
    /// When it was made.
    pub made: i64,
    /// Until when it is remembered, by how long the authority has been running.
    pub held_to_run: i64,
    /// The instance that used it up.
    pub instance: Option<String>,
}

impl Granting for SecretRow {
    const TABLE: &'static str = "secrets";

    fn key(&self) -> &[u8] {
        &self.hash
    }

    fn columns(&self) -> Vec<Column<'_>> {
        let Self { hash: _, id, token, expires, made, held_to_run, instance } = self;
        vec![
            id.as_str().into(),
            token.as_str().into(),
            (*expires).into(),
            (*made).into(),
            (*held_to_run).into(),
            instance.as_deref().into(),
        ]
    }
}

impl SecretRow {
    /// As it is kept, until the authority has been running for `held_to_run`.
    pub(super) fn new(entry: &NewSecret, held_to_run: i64) -> Self {
        Self {
            hash: entry.hash,
            id: entry.id.clone(),
            token: entry.token.clone(),
            expires: entry.expires,
            made: entry.time,
            held_to_run,
            instance: None,
        }
    }

    /// Whether it could register an instance with the join token now. One from the future is of a clock that was ahead.
    pub(super) fn admits(&self, token: &str, now: i64) -> bool {
        self.instance.is_none()
            && self.token == token
            && self.expires > now
            && self.made <= now.saturating_add(LEEWAY)
    }
}

/// What a store has of those whom a join concerns, read in the transaction that does what is decided.
pub(super) struct Found {
    /// The instance of the join's id.
    pub(super) instance: Kept<InstanceRow>,
    /// What the same request was answered, or [`Issued::Used`], where the proof was used before.
    pub(super) earlier: Option<Issued>,
    /// The secret that it presents.
    pub(super) secret: Kept<SecretRow>,
    /// The instance whose place it takes.
    pub(super) replaced: Kept<InstanceRow>,
}

/// What is to be done of a join. Every row is as it is to be written, with a new seal.
#[derive(Debug, PartialEq)]
pub(super) enum Decision {
    /// Nothing is written.
    Answer(Issued),
    /// The instance is locked, what it still has is revoked, and an event says so.
    Lock {
        /// Its row now.
        row: Box<InstanceRow>,
        /// The generation that it should have presented.
        expected: i64,
        /// Why it is locked.
        reason: &'static str,
        /// What it is told.
        refusal: InstanceRefusal,
    },
    /// The proof is used up, those of the requests before it too, and the issuance recorded.
    Accept(Box<Accepted>),
}

/// A join that is accepted.
#[derive(Debug, PartialEq)]
pub(super) struct Accepted {
    /// The instance's row now.
    pub(super) row: InstanceRow,
    /// The secret that it has used up; the row is a new one then, and an event says so.
    pub(super) secret: Option<SecretRow>,
    /// The instance whose place it has taken now, locked; an event says so.
    pub(super) replaced: Option<InstanceRow>,
}

/// What is to become of a join. Nothing is done by one that is not accepted but that the instance may be locked.
pub(super) fn decide(found: Found, entry: &NewIssuance, join: &InstanceJoin) -> Decision {
    let refuse = |refusal| Decision::Answer(Issued::Refused(refusal));
    let known = match found.instance {
        Kept::Broken => return refuse(InstanceRefusal::Unknown),
        Kept::Row(row) if row.locked.is_some() => return refuse(InstanceRefusal::Locked),
        Kept::Row(row) => Some(row),
        Kept::Nothing => None,
    };
    // The same request again is answered again, and so is one that a later one has overtaken refused,
    // before anything is made of its generation.
    if let Some(earlier) = found.earlier {
        let is_again = matches!(earlier, Issued::Accepted { generation: Some(_), .. });
        return Decision::Answer(if is_again { earlier } else { Issued::Used });
    }
    let (row, secret) = match known {
        Some(row) if row.token != entry.token || row.key != join.key => {
            return refuse(InstanceRefusal::Unknown);
        }
        Some(row) => (row, None),
        None => match register(found.secret, entry, join) {
            Ok((row, secret)) => (row, Some(secret)),
            Err(refusal) => return refuse(refusal),
        },
    };
    let expected = row.last.expected;
    let (reason, refusal) = match row.last.judge(&join.claims) {
        Judgement::Accepted(last) => {
            let (bot, seen) = (entry.bot.clone(), entry.time);
            return Decision::Accept(Box::new(take_over(
                Accepted { row: InstanceRow { last, bot, seen, ..row }, secret, replaced: None },
                found.replaced,
                entry,
                join,
            )));
        }
        // The store was put back from a copy, or somebody holds the key and tries. An older copy of the storage
        // would be let in from here on, and the instance itself never again.
        Judgement::Ahead => (AHEAD, InstanceRefusal::Ahead { expected }),
        Judgement::Forked => (COPIED, InstanceRefusal::LockedNow { expected }),
    };
    if secret.is_some() {
        // It has no row that could be locked.
        return refuse(InstanceRefusal::Ahead { expected });
    }
    Decision::Lock { row: Box::new(locked(row, entry.time, reason)), expected, reason, refusal }
}

/// A new instance, for a secret that is good and is used up by it.
fn register(
    secret: Kept<SecretRow>,
    entry: &NewIssuance,
    join: &InstanceJoin,
) -> Result<(InstanceRow, SecretRow), InstanceRefusal> {
    if join.secret.is_none() {
        return Err(InstanceRefusal::Unknown);
    }
    if join.claims.generation != 0 {
        return Err(InstanceRefusal::Ahead { expected: 0 });
    }
    let secret = secret.row().filter(|secret| secret.admits(&entry.token, entry.time));
    let secret = secret.ok_or(InstanceRefusal::Secret)?;
    let row = InstanceRow {
        id: join.instance.clone(),
        token: entry.token.clone(),
        bot: entry.bot.clone(),
        key: join.key.clone(),
        last: LastJoin::default(),
        replaces: join.replaces.clone(),
        registered: entry.time,
        seen: entry.time,
        locked: None,
        reason: None,
    };
    Ok((row, SecretRow { instance: Some(join.instance.clone()), ..secret }))
}

/// Ends the instance whose place this one takes. Only now, since this join tells
/// that the instance has heard of its registration: until then it may go on as
/// what it was. The old one's certificates are its own, and stay good.
fn take_over(
    mut accepted: Accepted,
    old: Kept<InstanceRow>,
    entry: &NewIssuance,
    join: &InstanceJoin,
) -> Accepted {
    if accepted.secret.is_none() && join.claims.generation > 0 && accepted.row.replaces.take().is_some() {
        let old = old.row().filter(|old| old.token == entry.token && old.locked.is_none());
        accepted.replaced = old.map(|old| locked(old, entry.time, REPLACED));
    }
    accepted
}

fn locked(row: InstanceRow, time: i64, reason: &str) -> InstanceRow {
    InstanceRow { locked: Some(time), reason: Some(reason.to_owned()), ..row }
}
