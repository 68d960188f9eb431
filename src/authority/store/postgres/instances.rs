//! Registered instances. What becomes of a join is decided in `store/joins.rs`; here it is found and
//! written, in one transaction of two flushes.

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use super::super::event::{self, NewEvent};
use super::super::instances::NewSecret;
use super::super::joins::{Accepted, Decision, Found, InstanceRow, SecretRow, decide};
use super::super::proofs::{UsedProof, proof_key};
use super::super::seal::{Kept, Seal};
use super::super::{Issued, NewIssuance, PlanRecord};
use super::failure::Failure;
use super::reads;
use super::rows::{self, Columns};
use super::transaction::{self, Judged, Parameter, Statement, locked};
use super::work::Shared;
use super::writer::RECORD;
use crate::clock::LEEWAY;
use crate::join::instance::{Instance, InstanceJoin, LastJoin};
use crate::join::verify::Replay;

macro_rules! columns {
    () => {
        "id, token, bot, key, generation, base, attempt, tries, last, replaces, registered, seen, locked, reason, mac"
    };
}

/// The instance, and whose place it takes, after it.
const INSTANCES: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM machine_id.instances WHERE id = $1
        OR id = (SELECT replaces FROM machine_id.instances WHERE id = $1) ORDER BY id <> $1"
);

const SECRET: &str = "SELECT hash, id, token, expires, made, held_to_run, instance, mac FROM machine_id.secrets WHERE hash = $1";

/// What the instance still has: it is revoked where it is locked.
const SERIALS: &str = "SELECT serial FROM machine_id.certificates
    WHERE instance = (SELECT number FROM machine_id.instances WHERE id = $1) AND expires >= $2 AND revoked IS NULL";

const KEEP_INSTANCE: &str = concat!(
    "INSERT INTO machine_id.instances (number, ",
    columns!(),
    ") SELECT coalesce((SELECT max(number) FROM machine_id.instances), 0) + 1,
        $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15 WHERE ",
    locked!(),
    " ON CONFLICT (id) DO UPDATE SET token = $2, bot = $3, key = $4, generation = $5, base = $6, attempt = $7,
        tries = $8, last = $9, replaces = $10, registered = $11, seen = $12, locked = $13, reason = $14, mac = $15"
);

const USE_SECRET: &str =
    concat!("UPDATE machine_id.secrets SET instance = $2, mac = $3 WHERE hash = $1 AND ", locked!());

/// The requests that the instance made before this one are used up with it: one that arrives late does not
/// look like a copy's. Their fingerprint is one that no request has.
const OVERTAKE: &str = concat!(
    "INSERT INTO machine_id.proofs (key, fingerprint, certificate, held_until, held_to_run)
     SELECT key, decode(repeat('00', 32), 'hex'), 0, $2, $3 FROM unnest($1::bytea[]) AS earlier (key)
     WHERE ",
    locked!(),
    " ON CONFLICT (key) DO NOTHING"
);

const OWN: &str = concat!(
    "UPDATE machine_id.certificates SET instance = (SELECT number FROM machine_id.instances WHERE id = $1)
     WHERE serial = ANY ($2) AND ",
    locked!()
);

const REVOKE: &str = concat!(
    "WITH gone AS (
        UPDATE machine_id.certificates SET revoked = $2 WHERE serial = ANY ($1) AND revoked IS NULL AND ",
    locked!(),
    " RETURNING serial)
     UPDATE machine_id.state SET revocations = revocations + 1 WHERE (SELECT count(*) FROM gone) >= 0 AND ",
    locked!(),
    " RETURNING revocations"
);

/// An instance as it is kept, with its seal.
struct Kin {
    row: InstanceRow,
    mac: Vec<u8>,
}

impl Kin {
    fn new(row: InstanceRow, seal: &Seal) -> Self {
        let mac = seal.of(&row).to_vec();
        Self { row, mac }
    }

    fn parameters(&self) -> [Parameter<'_>; 15] {
        let InstanceRow { id, token, bot, key, last, replaces, registered, seen, locked, reason } = &self.row;
        [
            (id, Type::TEXT),
            (token, Type::TEXT),
            (bot, Type::TEXT),
            (key, Type::BYTEA),
            (&last.expected, Type::INT8),
            (&last.base, Type::INT8),
            (&last.attempt, Type::TEXT),
            (&last.tries, Type::INT8),
            (&last.id, Type::TEXT),
            (replaces, Type::TEXT),
            (registered, Type::INT8),
            (seen, Type::INT8),
            (locked, Type::INT8),
            (reason, Type::TEXT),
            (&self.mac, Type::BYTEA),
        ]
    }
}

fn instance_row(row: &Row) -> Result<(InstanceRow, Option<Vec<u8>>), Failure> {
    let last = LastJoin {
        expected: row.try_get(4)?,
        base: row.try_get(5)?,
        attempt: row.try_get(6)?,
        tries: row.try_get(7)?,
        id: row.try_get(8)?,
    };
    let instance = InstanceRow {
        id: row.try_get(0)?,
        token: row.try_get(1)?,
        bot: row.try_get(2)?,
        key: row.try_get(3)?,
        last,
        replaces: row.try_get(9)?,
        registered: row.try_get(10)?,
        seen: row.try_get(11)?,
        locked: row.try_get(12)?,
        reason: row.try_get(13)?,
    };
    Ok((instance, row.try_get(14)?))
}

fn secret_row(row: &Row) -> Result<(SecretRow, Option<Vec<u8>>), Failure> {
    let secret = SecretRow {
        hash: rows::hash(row, 0)?,
        id: row.try_get(1)?,
        token: row.try_get(2)?,
        expires: row.try_get(3)?,
        made: row.try_get(4)?,
        held_to_run: row.try_get(5)?,
        instance: row.try_get(6)?,
    };
    Ok((secret, row.try_get(7)?))
}

/// Uses the proof up, moves the instance on or registers it, and records the issuance; or locks the instance.
pub(super) async fn join(
    client: &Client,
    shared: &Shared,
    entry: &NewIssuance,
    plan: &PlanRecord,
    join: &InstanceJoin,
) -> Result<Issued, Failure> {
    let digest = proof_key(&entry.replay, 0);
    let (key, known) = ([digest.as_ref()], &shared.known);
    let (secret, since) = (join.secret.map(|hash| hash.to_vec()), entry.time.saturating_sub(LEEWAY));
    let mut locks = known.locks();
    if entry.cas != known.cas() || locks.refuse(entry.time, known.run(), || entry.subject(plan)).is_some() {
        // It may have been lifted, or this may not have heard of it.
        transaction::look(client, known).await?;
        locks = known.locks();
    }
    if let Some(refused) = locks.refuse(entry.time, known.run(), || entry.subject(plan)) {
        return Ok(Issued::Locked(Box::new(refused)));
    }
    if entry.cas != known.cas() {
        return Ok(Issued::Outdated);
    }
    let found = transaction::begin(
        client,
        known,
        Judged { locks: Some(locks.number), cas: Some(entry.cas), ..Judged::now(known) },
        &[
            (INSTANCES, &[(&join.instance, Type::TEXT)]),
            (reads::PROOFS, &[(&key.as_slice(), Type::BYTEA_ARRAY)]),
            (SECRET, &[(&secret, Type::BYTEA)]),
            (SERIALS, &[(&join.instance, Type::TEXT), (&since, Type::INT8)]),
        ],
    )
    .await?;
    if let Err(loss) = known.check(entry.restored) {
        transaction::finish(client, known, &[]).await?;
        return Err(loss.into());
    }
    let [instances, proofs, secrets, serials] = found.as_slice() else {
        return Err(Failure::Unreadable("it does not answer what it was asked".to_owned()));
    };
    let (own, others): (Vec<_>, Vec<_>) = instances
        .iter()
        .map(instance_row)
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .partition(|(row, _)| row.id == join.instance);
    let earlier = rows::used(proofs)?.into_values().next().map(|used| match used.again(plan, &shared.seal) {
        Some((earlier, generation)) => Issued::Accepted { plan: Some(earlier), generation },
        None => Issued::Used,
    });
    let found = Found {
        instance: shared.seal.judge(own.into_iter().next()),
        earlier,
        secret: shared.seal.judge(secrets.first().map(secret_row).transpose()?),
        replaced: shared.seal.judge(others.into_iter().next()),
    };
    match decide(found, entry, join) {
        Decision::Answer(answer) => {
            transaction::finish(client, &shared.known, &[]).await?;
            Ok(answer)
        }
        Decision::Lock { row, expected, reason, refusal } => {
            let serials = serials.iter().map(|row| row.try_get(0)).collect::<Result<Vec<i64>, _>>()?;
            let event = event::locked(entry, join, expected, &serials, reason);
            lock(client, shared, *row, &serials, entry.time, &event).await?;
            Ok(Issued::Refused(refusal))
        }
        Decision::Accept(accepted) => {
            let generation = Some(accepted.row.last.expected);
            accept(client, shared, entry, plan, join, *accepted).await?;
            Ok(Issued::Accepted { plan: None, generation })
        }
    }
}

async fn lock(
    client: &Client,
    shared: &Shared,
    row: InstanceRow,
    serials: &[i64],
    time: i64,
    event: &NewEvent,
) -> Result<(), Failure> {
    let instance = Kin::new(row, &shared.seal);
    let mut columns = Columns::default();
    columns.add(event, &[], None, &shared.seal);
    let done = transaction::finish(
        client,
        &shared.known,
        &[
            (KEEP_INSTANCE, &instance.parameters()),
            (REVOKE, &[(&serials, Type::INT8_ARRAY), (&time, Type::INT8)]),
            (RECORD, &columns.parameters()),
        ],
    )
    .await?;
    if let Some(row) = done.get(1).and_then(|rows| rows.first()) {
        shared.known.revoked(row.try_get(0)?);
    }
    Ok(())
}

async fn accept(
    client: &Client,
    shared: &Shared,
    entry: &NewIssuance,
    plan: &PlanRecord,
    join: &InstanceJoin,
    accepted: Accepted,
) -> Result<(), Failure> {
    let Accepted { row, secret, replaced } = accepted;
    let (seal, known) = (&shared.seal, &shared.known);
    let registered = secret.as_ref().map(|secret| event::registered(entry, join, &secret.id));
    let ended = replaced.as_ref().map(|old| event::replaced(entry, &join.instance, &old.id));
    let issued = event::issued(entry, plan);
    let generation = Some(row.last.expected);
    let proof = UsedProof::new(proof_key(&entry.replay, 0).as_ref(), entry, plan, generation, known.held(0));
    let mut columns = Columns::default();
    for event in registered.iter().chain(&ended) {
        columns.add(event, &[], None, seal);
    }
    columns.add(&issued, &plan.certificates, Some(proof), seal);
    let earlier: Vec<Vec<u8>> = join
        .claims
        .earlier
        .iter()
        .map(|id| proof_key(&Replay { id: id.clone(), ..entry.replay.clone() }, 0).as_ref().to_vec())
        .collect();
    let held_to_run = known.held(join.held.lasts);
    let serials: Vec<i64> = plan.certificates.iter().map(|new| rows::serial(new.serial)).collect();
    let instance = Kin::new(row, seal);
    let replaced = replaced.map(|old| Kin::new(old, seal));
    let secret = secret.map(|secret| (seal.of(&secret).to_vec(), secret));

    let instance_is = instance.parameters();
    let recorded = columns.parameters();
    let overtaken: [Parameter<'_>; 3] =
        [(&earlier, Type::BYTEA_ARRAY), (&join.held.until, Type::INT8), (&held_to_run, Type::INT8)];
    let owned: [Parameter<'_>; 2] = [(&join.instance, Type::TEXT), (&serials, Type::INT8_ARRAY)];
    let replaced_is = replaced.as_ref().map(Kin::parameters);
    let hash = secret.as_ref().map(|(_, secret)| secret.hash.as_slice());
    let used = secret.as_ref().map(|(mac, secret)| -> [Parameter<'_>; 3] {
        [(&hash, Type::BYTEA), (&secret.instance, Type::TEXT), (mac, Type::BYTEA)]
    });
    let mut statements: Vec<Statement<'_>> =
        vec![(KEEP_INSTANCE, &instance_is), (RECORD, &recorded), (OVERTAKE, &overtaken), (OWN, &owned)];
    statements.extend(replaced_is.as_ref().map(|old| (KEEP_INSTANCE, old.as_slice())));
    statements.extend(used.as_ref().map(|used| (USE_SECRET, used.as_slice())));
    transaction::finish(client, &shared.known, &statements).await.map(drop)
}

/// The instance of that id.
pub(super) async fn instance(client: &Client, seal: &Seal, id: &str) -> Result<Option<Instance>, Failure> {
    let found = reads::rows(client, INSTANCES, &[(&id, Type::TEXT)]).await?;
    let rows = found.iter().map(instance_row).collect::<Result<Vec<_>, _>>()?;
    let row = seal.judge(rows.into_iter().find(|(row, _)| row.id == id)).row();
    Ok(row.map(|row| Instance { join_token: row.token, key: row.key }))
}

/// Has the seal judge every instance and every secret.
pub(super) async fn judge_all(client: &Client, seal: &Seal) -> Result<(), Failure> {
    const ALL: &str = concat!("SELECT ", columns!(), " FROM machine_id.instances");
    const SECRETS: &str =
        "SELECT hash, id, token, expires, made, held_to_run, instance, mac FROM machine_id.secrets";
    for row in reads::rows(client, ALL, &[]).await? {
        seal.judge(Some(instance_row(&row)?));
    }
    for row in reads::rows(client, SECRETS, &[]).await? {
        seal.judge(Some(secret_row(&row)?));
    }
    Ok(())
}

/// Whether a secret could register an instance now.
pub(super) async fn admits(
    client: &Client,
    seal: &Seal,
    hash: &[u8],
    token: &str,
    now: i64,
) -> Result<bool, Failure> {
    let found = reads::rows(client, SECRET, &[(&hash, Type::BYTEA)]).await?;
    let secret: Kept<SecretRow> = seal.judge(found.first().map(secret_row).transpose()?);
    Ok(secret.row().is_some_and(|secret| secret.admits(token, now)))
}

/// Forgets the secrets of that join token that are not used up; how many there were.
pub(super) async fn withdraw_secrets(
    client: &Client,
    shared: &Shared,
    token: &str,
    at: i64,
    by: &str,
) -> Result<u64, Failure> {
    const UNUSED: &str = "SELECT count(*) FROM machine_id.secrets WHERE token = $1 AND instance IS NULL";
    const FORGET: &str =
        concat!("DELETE FROM machine_id.secrets WHERE token = $1 AND instance IS NULL AND ", locked!());
    let of_token: [Parameter<'_>; 1] = [(&token, Type::TEXT)];
    let found =
        transaction::begin(client, &shared.known, Judged::now(&shared.known), &[(UNUSED, &of_token)]).await?;
    let count: i64 = found.iter().flatten().next().ok_or_else(reads::gone)?.try_get(0)?;
    let gone = u64::try_from(count).unwrap_or(0);
    let event = event::secrets_withdrawn(token, gone, at, by);
    let mut columns = Columns::default();
    columns.add(&event, &[], None, &shared.seal);
    let recorded = columns.parameters();
    let all: &[Statement<'_>] = &[(FORGET, &of_token), (RECORD, &recorded)];
    transaction::finish(client, &shared.known, if gone > 0 { all } else { &[] }).await?;
    Ok(gone)
}

/// Keeps a secret's hash, with an event.
pub(super) async fn add_secret(client: &Client, shared: &Shared, entry: &NewSecret) -> Result<(), Failure> {
    const SQL: &str = concat!(
        "INSERT INTO machine_id.secrets (hash, id, token, expires, made, held_to_run, mac)
         SELECT $1, $2, $3, $4, $5, $6, $7 WHERE ",
        locked!(),
        " ON CONFLICT (hash) DO NOTHING"
    );
    let held_to_run = shared.known.held(entry.expires.saturating_sub(entry.time));
    let secret = SecretRow::new(entry, held_to_run);
    let (hash, mac) = (secret.hash.as_slice(), shared.seal.of(&secret).to_vec());
    let event = event::secret_added(entry);
    let mut columns = Columns::default();
    columns.add(&event, &[], None, &shared.seal);
    let parameters: [Parameter<'_>; 7] = [
        (&hash, Type::BYTEA),
        (&secret.id, Type::TEXT),
        (&secret.token, Type::TEXT),
        (&secret.expires, Type::INT8),
        (&secret.made, Type::INT8),
        (&secret.held_to_run, Type::INT8),
        (&mac, Type::BYTEA),
    ];
    let statements: [Statement<'_>; 2] = [(SQL, &parameters), (RECORD, &columns.parameters())];
    transaction::write(client, &shared.known, &statements).await.map(drop)
}
