//! The events of the audit trail, as they are stored and as `audit --format json`
//! shows them; built once, by the caller, so that a database's writer only copies them.

use serde_json::{Map, Value, json};

use super::bounds::{Bounds, NAME, TRAIL, cut, fewer};
use super::cas::CaChange;
use super::instances::NewSecret;
use super::locks::{Lock, LockKind, Shut};
use super::{CertificateKind, NewCertificate, NewIssuance, NewRefusal, NewRevocation, NewSigned, PlanRecord};
use crate::authority::ca::CaSet;
use crate::clock::rfc3339;
use crate::join;
use crate::join::instance::InstanceJoin;
use crate::text::json_text;

/// An event that is to be appended: what it is searched by, and its JSON.
#[derive(Debug)]
pub(super) struct NewEvent {
    pub(super) time: i64,
    pub(super) event: &'static str,
    pub(super) id: String,
    pub(super) bot: Option<String>,
    pub(super) token: Option<String>,
    pub(super) body: Object,
}

/// What most bodies take, in bytes: one that grows is copied and wiped each time.
const ROOM: usize = 3 << 10;

/// A JSON object whose members stay in the order in which they were added.
#[derive(Debug, Default)]
pub(super) struct Object(pub(super) String);

impl Object {
    /// Adds a member, unless its value is null.
    fn with(self, name: &str, value: impl Into<Value>) -> Self {
        match value.into() {
            Value::Null => self,
            value => self.with_json(name, &json_text(&value)),
        }
    }

    fn with_json(mut self, name: &str, json: &str) -> Self {
        self.0.pop();
        let before = if self.0.is_empty() { "{" } else { "," };
        self.0.extend([before, "\"", name, "\":", json, "}"]);
        self
    }
}

impl NewEvent {
    /// An event with an id, which is the member `member`.
    fn new(event: &'static str, time: i64, member: &str, id: &str) -> Self {
        let body = Object(String::with_capacity(ROOM))
            .with("time", rfc3339(time))
            .with("event", event)
            .with(member, id);
        Self { time, event, id: id.to_owned(), bot: None, token: None, body }
    }

    fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.body = self.body.with(name, value);
        self
    }

    fn of(mut self, bot: Option<&str>, token: Option<&str>) -> Self {
        (self.bot, self.token) = (bot.map(str::to_owned), token.map(str::to_owned));
        self.with("bot", bot).with("token", token)
    }

    /// With as many of the claims as there is room for, and how many there was none for.
    fn with_claims(self, claims: &Map<String, Value>, bounds: &Bounds) -> Self {
        let (kept, left_out) = fewer(claims, bounds.claims);
        let mut event = self.with("claims_left_out", (left_out > 0).then_some(left_out));
        event.body = event.body.with_json("claims", &kept);
        event
    }

    /// With what is signed, and when the first of it expires.
    fn with_outputs(mut self, certificates: &[NewCertificate]) -> Self {
        let outputs: Vec<String> = certificates.iter().map(|certificate| output(certificate).0).collect();
        self.body = self.body.with_json("outputs", &format!("[{}]", outputs.join(",")));
        let expires = certificates.iter().map(|certificate| certificate.expires).min();
        self.with("expires_at", expires.map(rfc3339))
    }
}

/// One certificate of an event. Its options are not on it: the database, the cluster, the application.
fn output(certificate: &NewCertificate) -> Object {
    let NewCertificate { options, groups, .. } = certificate;
    let kind = match certificate.kind {
        CertificateKind::Ssh => "ssh",
        CertificateKind::Tls => "tls",
    };
    Object::default()
        .with("name", &*certificate.output)
        .with("type", certificate.output_type.as_deref())
        .with("options", (!options.is_empty()).then(|| json!(options)))
        .with("kind", kind)
        // Decimal text: it exceeds what JSON numbers hold elsewhere.
        .with("serial", certificate.serial.to_string())
        .with("principals", &*certificate.principals)
        .with("groups", (!groups.is_empty()).then_some(&**groups))
        .with("expires_at", rfc3339(certificate.expires))
}

/// Reads a body as it is stored. What is signed has its serials on its outputs, where they are stored once.
///
/// # Errors
/// Where it is no JSON object.
pub(super) fn read(body: &str) -> serde_json::Result<Map<String, Value>> {
    let mut body: Map<String, Value> = serde_json::from_str(body)?;
    if let (Some(Value::Array(outputs)), None) = (body.get("outputs"), body.get("serials")) {
        let serials: Vec<Value> = outputs.iter().filter_map(|output| output.get("serial")).cloned().collect();
        body.insert("serials".to_owned(), serials.into());
    }
    Ok(body)
}

/// The `issued` event.
pub(super) fn issued(entry: &NewIssuance, plan: &PlanRecord) -> NewEvent {
    NewEvent::new("issued", entry.time, "issuance_id", &plan.id)
        .with("instance", entry.join.as_ref().map(|join| &*join.instance))
        .of(Some(&entry.bot), Some(&entry.token))
        .with("join_method", &*entry.join_method)
        .with("provenance", &*entry.provenance)
        .with("origin", origin(&entry.join_method, &entry.claims))
        .with_outputs(&plan.certificates)
        .with("peer", &*entry.peer)
        .with_claims(&entry.claims, &TRAIL)
}

/// Where a job comes from that another cluster vouches for, by which the trail there finds it.
fn origin(join_method: &str, claims: &Map<String, Value>) -> Option<Value> {
    join::find(join_method).filter(|method| method.of_cluster).map(|_| join::trusted_cluster::origin(claims))
}

/// The `signed` event, of a command.
pub(super) fn signed(entry: &NewSigned) -> NewEvent {
    let certificates = std::slice::from_ref(&entry.certificate);
    NewEvent::new("signed", entry.time, "issuance_id", &entry.id)
        .with("by", entry.by)
        .with_outputs(certificates)
}

/// The `refused` event.
pub(super) fn refused(entry: &NewRefusal) -> NewEvent {
    let bounds = Bounds::of(entry.stranger);
    // A revocation names neither.
    let said = |name| Some(cut(name, NAME)).filter(|name| !name.is_empty());
    let event = NewEvent::new("refused", entry.time, "denial_id", &entry.id)
        .of(entry.bot.as_deref(), said(&entry.token))
        .with("join_method", said(&entry.join_method))
        .with("reason", entry.reason)
        .with("detail", cut(&entry.detail, bounds.detail))
        .with("verified", entry.verified)
        .with("peer", &*entry.peer);
    // Of a stranger's, its claims say it.
    let claims = entry.claims.as_ref().filter(|_| entry.verified && entry.stranger.is_none());
    let event = event.with("origin", claims.and_then(|claims| origin(&entry.join_method, claims)));
    match &entry.claims {
        Some(claims) => event.with_claims(claims, bounds),
        None => event,
    }
}

/// The `revoked` event of the job itself; it repeats what the event of the issuance, `begun`, says of its origin.
pub(super) fn revoked(entry: &NewRevocation, begun: &Map<String, Value>) -> NewEvent {
    let text = |name| begun.get(name).and_then(Value::as_str);
    NewEvent::new("revoked", entry.time, "issuance_id", &entry.issuance_id)
        .of(text("bot"), text("token"))
        .with("join_method", text("join_method"))
        .with("by", text("by"))
        .with("serials", begun.get("serials").cloned().unwrap_or_else(|| json!([])))
        .with("provenance", text("provenance"))
        .with("origin", begun.get("origin").cloned())
        .with("reason", "given_back")
        .with("peer", &*entry.peer)
}

/// The `lost` event, of a store that was found to lack what it had.
pub(super) fn lost(time: i64, store: &str, detail: &str) -> NewEvent {
    NewEvent::new("lost", time, "store", store).with("detail", detail)
}

/// The `restored` event, of a store that the operator goes on with after it has lost something, or begins anew.
pub(super) fn restored(time: i64, store: &str, reason: &'static str, detail: String) -> NewEvent {
    NewEvent::new("restored", time, "store", store).with("reason", reason).with("detail", detail)
}

/// The `pruned` event: so many events from before `until` are let go.
pub(super) fn pruned(time: i64, store: &str, events: i64, until: i64) -> NewEvent {
    NewEvent::new("pruned", time, "store", store).with("events", events).with("until", rfc3339(until))
}

/// The `rotated` event: what the CAs of a kind are from now on. Each has an id of its own, by the number of the set.
pub(super) fn rotated(change: &CaChange, set: &CaSet) -> NewEvent {
    let keys: Vec<Value> =
        set.of(change.kind).map(|key| json!({"id": key.id, "state": key.state.name()})).collect();
    NewEvent::new("rotated", change.at, "rotation_id", &format!("r-{}", set.number))
        .with("ca", change.kind.name())
        .with("phase", change.phase)
        .with("keys", keys)
        .with("by", &*change.by)
}

/// The `secret_added` event, of a secret that may register an instance.
pub(super) fn secret_added(entry: &NewSecret) -> NewEvent {
    NewEvent::new("secret_added", entry.time, "secret_id", &entry.id)
        .of(Some(&entry.bot), Some(&entry.token))
        .with("by", "token add")
        .with("expires_at", rfc3339(entry.expires))
}

/// The `secrets_withdrawn` event: so many secrets of the join token register nobody any more.
pub(super) fn secrets_withdrawn(token: &str, secrets: u64, at: i64, by: &str) -> NewEvent {
    NewEvent::new("secrets_withdrawn", at, "join_token", token)
        .of(None, Some(token))
        .with("secrets", secrets)
        .with("by", by)
}

/// The `registered` event of an instance whose first issuance is `entry`.
pub(super) fn registered(entry: &NewIssuance, join: &InstanceJoin, secret_id: &str) -> NewEvent {
    let event = NewEvent::new("registered", entry.time, "instance", &join.instance)
        .with("replaces", join.replaces.as_deref())
        .with("secret_id", secret_id);
    by_join(event, entry).with("peer", &*entry.peer)
}

/// The `replaced` event of an instance whose place `instance` has taken.
pub(super) fn replaced(entry: &NewIssuance, instance: &str, old: &str) -> NewEvent {
    let event = NewEvent::new("replaced", entry.time, "instance", old).with("replaced_by", instance);
    by_join(event, entry).with("peer", &*entry.peer)
}

/// The `locked` event of an instance, caused by the join that `entry` would have recorded.
pub(super) fn locked(
    entry: &NewIssuance,
    join: &InstanceJoin,
    expected: i64,
    serials: &[i64],
    reason: &'static str,
) -> NewEvent {
    let presented = join.claims.generation;
    let why = if presented > expected {
        "the storage is newer than what the authority remembers"
    } else {
        "two copies of its storage have joined"
    };
    by_join(NewEvent::new("locked", entry.time, "instance", &join.instance), entry)
        .with("serials", serials.iter().map(ToString::to_string).collect::<Vec<_>>())
        .with("provenance", &*entry.provenance)
        .with("reason", reason)
        .with("detail", format!("presented generation {presented}, {expected} was expected: {why}"))
        .with("peer", &*entry.peer)
}

/// The `locked` event of a lock that an operator has put, and how much it has revoked.
pub(super) fn locked_by(lock: &Lock, shut: &Shut) -> NewEvent {
    of_lock("locked", lock.at, lock)
        .with("by", &*lock.by)
        .with("message", lock.message.as_deref())
        .with("until", lock.until.map(|(until, _)| rfc3339(until)))
        .with("issuances_revoked", shut.issuances.len())
        .with("certificates_revoked", shut.certificates)
}

/// A `revoked` event of a lock: these issuances are.
pub(super) fn revoked_by(lock: &Lock, issuances: &[String]) -> NewEvent {
    of_lock("revoked", lock.at, lock)
        .with("by", &*lock.by)
        .with("reason", "locked")
        .with("issuance_ids", issuances)
}

/// The `unlocked` event of a lock that an operator has lifted.
pub(super) fn unlocked(lock: &Lock, at: i64, by: &str) -> NewEvent {
    of_lock("unlocked", at, lock).with("by", by)
}

/// With whom it is about, so that it is among the events of a bot and of a join token.
fn of_lock(event: &'static str, time: i64, lock: &Lock) -> NewEvent {
    let is = |kind| (lock.kind == kind).then_some(&*lock.value);
    NewEvent::new(event, time, "lock_id", &lock.id)
        .of(is(LockKind::Bot), is(LockKind::Token))
        .with("kind", lock.kind.name())
        .with("value", (lock.kind != LockKind::All).then_some(&*lock.value))
}

/// With whose join caused the event.
fn by_join(event: NewEvent, entry: &NewIssuance) -> NewEvent {
    event.of(Some(&entry.bot), Some(&entry.token)).with("join_method", &*entry.join_method)
}
