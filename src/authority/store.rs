//! What an authority remembers: used proofs, serials, issuances, refusals,
//! revocations. What is promised stands here, and each engine keeps it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde_json::{Map, Value};

use super::limits::{Level, Spent};
use crate::clock::{Held, rfc3339};
use crate::error::Result;
use crate::join::instance::{InstanceJoin, InstanceLookup};
use crate::join::verify::Replay;
use crate::wire::MAX_TTL;

mod bounds;
mod ca_schema;
pub mod cas;
pub mod closed;
#[cfg(test)]
mod conformance;
pub mod engine;
mod event;
pub mod hosts;
pub mod instances;
pub mod joins;
pub mod locks;
mod loss;
#[cfg(feature = "next-schema")]
mod next_schema;
mod odometer;
mod packed;
mod pages;
mod place;
#[cfg(test)]
#[path = "../../tests/support/port.rs"]
mod port;
pub mod postgres;
pub mod proofs;
pub mod record;
pub mod replicas;
mod revoked;
pub mod seal;
pub mod sqlite;
#[cfg(test)]
pub(crate) mod testing;
mod transfer;
mod unusable;
mod version;

pub use bounds::Stranger;
pub use loss::{Loss, Restored, lost};
pub use pages::{Cursor, Event, EventFilter};
pub use place::StorePlace;
pub use revoked::{CertificateKind, RevokedCertificate, RevokedSince, RevokedUpto};
pub use unusable::{is_away, is_displaced, no_room};

use cas::{CaStore, Heard};
use closed::Closed;
use hosts::{HostStore, HostTrail, SERVE};
use instances::{InstanceRefusal, NewSecret, RegisteredInstance};
use locks::{Lock, LockKind, NewLock, Refused, Shut, Subject};
use replicas::{Announced, Replica};

/// The last second that has a list number of its own, in the year 2255: 63 bits end in 2262.
const LAST_NUMBERED: i64 = 9_000_000_000;

/// What a [`Store`] must be beside its methods: one of this folder.
mod sealed {
    /// A database in a file beside this one; no other is believed that it keeps what it is given.
    pub trait Engine {
        /// Has its authority run for so many seconds.
        #[cfg(test)]
        fn run_for(&self, seconds: i64);
    }
}

/// What is read of an authority's memory to see what happened, by whoever may
/// read and nothing else.
pub trait Trail: HostTrail + Send + Sync + fmt::Debug {
    /// Events of the audit trail and strangers' refusals among them, oldest
    /// first, behind `after`, at most `limit` of them.
    fn events(&self, filter: EventFilter, after: Cursor, limit: usize) -> BoxFuture<'_, Result<Vec<Event>>>;

    /// How many refusals of strangers newer ones have pushed out.
    fn dropped(&self) -> BoxFuture<'_, Result<i64>>;

    /// From when on everything is kept, in seconds since 1970: of before, `retain` let go what it may; 0 where it never did.
    fn kept_from(&self) -> BoxFuture<'_, Result<i64>>;

    /// Why nothing is written to it, if that is so: what was recorded since is elsewhere.
    fn closed(&self) -> BoxFuture<'_, Result<Option<Closed>>>;

    /// Every registered instance, in the order of registration.
    fn instances(&self) -> BoxFuture<'_, Result<Vec<RegisteredInstance>>>;
}

/// The authority's memory. Every method that writes returns once what it
/// wrote is durable. What is to be signed is recorded through [`record`].
pub trait Store: sealed::Engine + Trail + InstanceLookup + HostStore + CaStore {
    /// Uses the proof up and records the issuance with its serials, in one
    /// transaction, before anything is signed. A registered instance is judged,
    /// and moved on or locked, in the same transaction.
    fn issue(&self, entry: NewIssuance, plan: PlanRecord) -> BoxFuture<'_, Result<Issued>>;

    /// Records a certificate that a command is about to sign, unless a lock takes it or the CAs are others by now.
    fn record_signed(&self, entry: NewSigned) -> BoxFuture<'_, Result<Signed>>;

    /// Records a refusal: a stranger's apart from the trail, where newer ones push it out.
    fn refuse(&self, entry: NewRefusal) -> BoxFuture<'_, Result<()>>;

    /// The certificate of that serial with its issuance, for a revocation.
    fn certificate(&self, serial: u64) -> BoxFuture<'_, Result<Option<CertificateRecord>>>;

    /// Uses up the assertion and revokes every certificate of the issuance, in
    /// one transaction.
    fn revoke(&self, entry: NewRevocation) -> BoxFuture<'_, Result<Revoked>>;

    /// The revoked certificates that end at `since` or later: those that were revoked since so many were known, whoever did
    /// it and whatever their serials and the clocks are; all of them where that was none of this store as it is now.
    fn revoked_since(&self, since: i64, known: Option<RevokedUpto>) -> BoxFuture<'_, Result<RevokedSince>>;

    /// All of them, by ascending serial.
    #[cfg(test)]
    fn revoked(&self, since: i64) -> BoxFuture<'_, Result<Vec<RevokedCertificate>>> {
        Box::pin(async move {
            let mut all = self.revoked_since(since, None).await?.certificates;
            all.sort_by_key(|one| one.serial);
            Ok(all)
        })
    }

    /// The number and the time of the lists that say `what` (a hash): those that they had where they are the last
    /// ones and were made within [`LIST_SERVED`] before `now`, so that all who share the store give the same;
    /// else `now`, and a number higher than any before and another than a copy of this store gives.
    fn list_number(&self, now: i64, what: [u8; 32]) -> BoxFuture<'_, Result<ListNumber>>;

    /// A number that is another once something was revoked, whether or not
    /// whoever asked for that still waits.
    fn revocations(&self) -> u64;

    /// Looks whether others who share it have revoked something, which [`Store::revocations`] tells from then on; cheap. A
    /// number that is another once operators have, and that of the CAs.
    fn hear(&self) -> BoxFuture<'_, Result<Heard>>;

    /// Adds what was used of limits, and tells how far each that it knows is used by all. It forgets one that has
    /// been free for [`FREE`](super::limits::FREE). Time is what passes for the store.
    fn spend(&self, spent: Vec<Spent>) -> BoxFuture<'_, Result<Vec<Level>>>;

    /// Says that this authority is there, and tells who else is. The CA keys of the first that ever says so are kept, of each kind.
    fn announce(&self, replica: Replica) -> BoxFuture<'_, Result<Announced>>;

    /// Whether it is made for several authorities at once.
    fn is_shared(&self) -> bool;

    /// Keeps a registration secret, by its hash, with an event.
    fn add_secret(&self, entry: NewSecret) -> BoxFuture<'_, Result<()>>;

    /// Forgets the registration secrets of that join token that are not used up, with an event; how many there were.
    fn withdraw_secrets(&self, token: String, at: i64, by: String) -> BoxFuture<'_, Result<u64>>;

    /// Shuts somebody out, and revokes what they hold: of an exchange that comes at the same time, either nothing is issued
    /// or it is revoked too.
    fn lock(&self, new: NewLock) -> BoxFuture<'_, Result<Shut>>;

    /// Lifts the locks of that kind and value, which are answered; what they have revoked stays so.
    fn unlock(&self, kind: LockKind, value: String, at: i64, by: String) -> BoxFuture<'_, Result<Vec<Lock>>>;

    /// Has a lock take these ids too: it has met them under the name that it is about.
    fn meet(&self, lock: String, ids: Vec<String>) -> BoxFuture<'_, Result<()>>;

    /// The locks that hold, by when they were put.
    fn locks(&self, now: i64) -> BoxFuture<'_, Result<Vec<Lock>>>;

    /// Whether it takes what an exchange writes, and can be read.
    fn ready(&self) -> BoxFuture<'_, Result<()>>;

    /// When the operator last went on with it though it had lost something, or began it anew in the place of a
    /// lost one: what was used, issued and revoked before is not known.
    fn restored(&self) -> Option<Restored>;

    /// What an operator must know of rows that no authority left as they are, and that therefore grant nothing.
    fn tampered(&self) -> Option<String>;

    /// Leaves a mark outside of it of how far it has come, by which a copy
    /// that is put back is known; fails where it is not in its place any more,
    /// or has [`lost`] something: nothing is written then, and no list read.
    fn mark(&self) -> BoxFuture<'_, Result<()>>;

    /// Lets events go that are from before `before`, with all that they issued, unless one of those certificates ended
    /// later; in small steps, beside which exchanges go on; how many went. The last event stays. That so much goes is an
    /// event first. Without being `asked` by an operator it goes on from where one began, with time and no faster.
    fn let_go(&self, before: i64, now: i64, asked: bool) -> BoxFuture<'_, Result<u64>>;

    /// Goes on without what it has lost, as the operator says: proofs of before
    /// are refused from now on, unused secrets forgotten, and lists have higher
    /// numbers than any before.
    fn resume(&self, now: i64) -> BoxFuture<'_, Result<()>>;

    /// Forgets proofs, assertions and secrets whose time is up, by the wall
    /// clock and by how long this authority has been running since.
    fn prune(&self, now: i64) -> BoxFuture<'_, Result<()>>;
}

/// How long lists are served, in seconds, where nothing else was revoked.
pub const LIST_SERVED: i64 = 3600;

/// What names a pair of lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListNumber {
    /// Higher than that of any before.
    pub number: u64,
    /// When they were made.
    pub made: i64,
    /// How much was revoked when the number was given. Lists that have it all have all that is on lists of lower numbers.
    pub(super) revocations: i64,
}

impl ListNumber {
    /// Whether nothing was revoked between that and the number.
    pub fn is_of(&self, upto: Option<RevokedUpto>) -> bool {
        upto.is_some_and(|upto| upto.revocations == self.revocations)
    }
}

/// What an operator must know of a store that was put back, while what was issued before may still be good.
pub fn restored_warning(store: &dyn Store, now: i64) -> Option<String> {
    let Restored { time, .. } =
        store.restored().filter(|restored| now.saturating_sub(restored.time) <= i64::from(MAX_TTL))?;
    Some(format!(
        "the store was put back from a copy or begun anew at {}, and what was issued, used and revoked since that copy is not \
         known: tokens of before are refused; `authority audit --event restored` says more",
        rfc3339(time)
    ))
}

/// A certificate that is about to be signed.
#[derive(Clone, Debug)]
pub struct NewCertificate {
    /// Of 63 bits, unique over both kinds; see [`crate::random::serials`].
    pub serial: u64,
    /// SSH or TLS.
    pub kind: CertificateKind,
    /// The output it is for.
    pub output: String,
    /// That output's type; none where an operator signs.
    pub output_type: Option<String>,
    /// Those of its options that decided the certificate and are not on it.
    pub options: BTreeMap<String, String>,
    /// SSH principals, or the X.509 common name.
    pub principals: Vec<String>,
    /// The X.509 organizations, which Kubernetes takes for groups.
    pub groups: Vec<String>,
    /// When it expires, in seconds since 1970.
    pub expires: i64,
    /// SHA-256 of the SSH public key blob or of the SubjectPublicKeyInfo.
    pub key_hash: [u8; 32],
    /// Whether it is for a host, whose names its principals are.
    pub is_host: bool,
    /// The number of the CA that will sign it; none where that is the first of its kind, and was never rotated.
    pub ca: Option<i64>,
}

impl NewCertificate {
    /// What a lock may be about of it.
    fn told(&self, subject: &mut Subject) {
        subject.keys([self.key_hash.as_slice()]);
        subject.hosts(self.principals.iter().filter(|_| self.is_host).map(String::as_str));
    }
}

/// What is recorded of the plan of an exchange.
#[derive(Clone, Debug)]
pub struct PlanRecord {
    /// The id of the issuance.
    pub id: String,
    /// Hash over outputs, keys and what is granted: the same again is a retry.
    pub fingerprint: [u8; 32],
    /// The same as stores of the fourth schema have it, of which there are some for a day.
    pub former_fingerprint: [u8; 32],
    /// What will be signed, by ascending serial.
    pub certificates: Vec<NewCertificate>,
}

/// What is recorded of an exchange whose request comes again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Earlier {
    /// The id of the issuance.
    pub id: String,
    /// When it was, in seconds since 1970.
    pub time: i64,
    /// What was signed then, by ascending serial.
    pub certificates: Vec<EarlierCertificate>,
}

/// A certificate of [`Earlier`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EarlierCertificate {
    /// Its serial.
    pub serial: u64,
    /// SSH or TLS.
    pub kind: CertificateKind,
    /// When it expires.
    pub expires: i64,
    /// As [`NewCertificate::key_hash`].
    pub key_hash: [u8; 32],
    /// As [`NewCertificate::ca`]: the one that signs it again, if it still can.
    pub ca: Option<i64>,
}

impl From<&NewCertificate> for EarlierCertificate {
    fn from(new: &NewCertificate) -> Self {
        let NewCertificate { serial, kind, expires, key_hash, ca, .. } = new;
        Self { serial: *serial, kind: *kind, expires: *expires, key_hash: *key_hash, ca: *ca }
    }
}

/// An exchange that is about to be answered.
#[derive(Clone, Debug)]
pub struct NewIssuance {
    /// When, in seconds since 1970.
    pub time: i64,
    /// The bot.
    pub bot: String,
    /// The join token.
    pub token: String,
    /// The join method.
    pub join_method: String,
    /// Which run it is for.
    pub provenance: String,
    /// The verified claims.
    pub claims: Arc<Map<String, Value>>,
    /// The address that asked.
    pub peer: String,
    /// What keeps the proof from being used twice.
    pub replay: Replay,
    /// How many requests may use it, each with keys or outputs of its own; at least one.
    pub max_uses: u32,
    /// Which registered instance it is for, if one.
    pub join: Option<InstanceJoin>,
    /// When the store was last put back, as far as whoever judged the proof knew.
    pub restored: Option<i64>,
    /// The number of the CAs by which it will be signed.
    pub cas: i64,
}

impl NewIssuance {
    /// Whom a lock may take of it.
    fn subject(&self, plan: &PlanRecord) -> Subject {
        let mut subject = Subject::of(&self.join_method, &self.claims);
        subject.fact(LockKind::Bot, Some(&self.bot));
        subject.fact(LockKind::Token, Some(&self.token));
        subject.fact(LockKind::Run, Some(&self.provenance));
        subject.fact(LockKind::Instance, self.join.as_ref().map(|join| &*join.instance));
        plan.certificates.iter().for_each(|certificate| certificate.told(&mut subject));
        subject
    }
}

/// What became of [`Store::issue`], and of [`record::exchange`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Issued<P = Option<Earlier>> {
    /// Recorded: sign.
    Accepted {
        /// What was recorded then, where the same request was accepted before.
        plan: P,
        /// The generation that a registered instance's next join must present.
        generation: Option<i64>,
    },
    /// The proof was used for something else, or what it was used for is revoked.
    Used,
    /// A registered instance's join is not accepted.
    Refused(InstanceRefusal),
    /// A lock takes it; the proof is not used up.
    Locked(Box<Refused>),
    /// The CAs are others by now: nothing is recorded, and it is planned again by those.
    Outdated,
}

/// What became of [`Store::record_signed`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signed {
    /// Recorded: sign.
    Recorded,
    /// A lock takes it.
    Locked(Box<Refused>),
    /// As [`Issued::Outdated`].
    Outdated,
}

/// A certificate that a command is about to sign.
#[derive(Clone, Debug)]
pub struct NewSigned {
    /// The id of its record.
    pub id: String,
    /// When, in seconds since 1970.
    pub time: i64,
    /// The command: `sign-host`, `sign-server` or `serve`.
    pub by: &'static str,
    /// The certificate.
    pub certificate: NewCertificate,
    /// The number of the CAs by which it will be signed.
    pub cas: i64,
}

impl NewSigned {
    /// Whom a lock may take of it: none where the authority signs for itself.
    fn subject(&self) -> Option<Subject> {
        let mut subject = Subject::of_operator();
        self.certificate.told(&mut subject);
        (self.by != SERVE).then_some(subject)
    }
}

/// A refusal of a proof, or of a revocation.
#[derive(Clone, Debug)]
pub struct NewRefusal {
    /// Its id, told to the caller.
    pub id: String,
    /// When, in seconds since 1970.
    pub time: i64,
    /// The join token asked for, as the caller wrote it; empty for a revocation.
    pub token: String,
    /// The join method asked for, as the caller wrote it; empty for a revocation.
    pub join_method: String,
    /// The bot, where one was found.
    pub bot: Option<String>,
    /// [`crate::denial::ReasonRow::code`].
    pub reason: &'static str,
    /// The whole story.
    pub detail: String,
    /// The claims as read.
    pub claims: Option<Map<String, Value>>,
    /// Whether they were verified.
    pub verified: bool,
    /// The address that asked.
    pub peer: String,
    /// Where it is a stranger's, which are kept apart from the trail.
    pub stranger: Option<Stranger>,
}

/// A certificate as recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateRecord {
    /// The issuance it belongs to.
    pub issuance_id: String,
    /// SHA-256 of its key, as in [`NewCertificate::key_hash`].
    pub key_hash: [u8; 32],
    /// SSH or TLS.
    pub kind: CertificateKind,
    /// When it expires.
    pub expires: i64,
    /// When it was revoked, if it was.
    pub revoked: Option<i64>,
    /// The names of the host that it is for, where it is a host's; of a worker that stays and is not locked its id.
    pub hosts: Vec<String>,
    /// As [`NewCertificate::ca`].
    pub ca: Option<i64>,
}

/// A revocation by the job itself.
#[derive(Clone, Debug)]
pub struct NewRevocation {
    /// The id of the issuance.
    pub issuance_id: String,
    /// When, in seconds since 1970.
    pub time: i64,
    /// The assertion's `jti`.
    pub assertion_id: String,
    /// Until when the assertion must be remembered.
    pub held: Held,
    /// The address that asked.
    pub peer: String,
}

/// What became of [`Store::revoke`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revoked {
    /// Revoked now.
    Now,
    /// It was revoked before.
    Before,
    /// The assertion was used before: nothing changed.
    AssertionUsed,
    /// There is no such issuance.
    Unknown,
}
