//! The rows that several writes have in common: events, certificates, used proofs.

use std::error::Error;

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, Type, ValueRef};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::super::event::NewEvent;
use super::super::packed::{pack, unpack};
use super::super::proofs::UsedProof;
use super::super::seal::Seal;
use super::super::{
    CertificateKind, Earlier, EarlierCertificate, Issued, NewCertificate, NewIssuance, PlanRecord,
};

impl ToSql for CertificateKind {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.number().into())
    }
}

impl FromSql for CertificateKind {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let number = value.as_i64()?;
        Self::of_number(number).ok_or(FromSqlError::OutOfRange(number))
    }
}

/// Appends an event; its sequence.
pub(super) fn append(connection: &Connection, new: &NewEvent) -> rusqlite::Result<i64> {
    connection
        .prepare_cached(
            "INSERT INTO events (time, event, id, bot, token, body, packed) VALUES (?1, ?2, ?3, ?4, ?5, '', ?6)",
        )?
        .insert(params![new.time, new.event, new.id, new.bot, new.token, pack(&new.body.0)])
}

/// The body in that column of a row: text, or packed.
pub(super) fn body(row: &Row<'_>, column: usize) -> rusqlite::Result<String> {
    match row.get_ref(column)? {
        ValueRef::Blob(packed) => unpack(packed).map_err(|error| not_a_body(error.to_string())),
        text => Ok(text.as_str()?.to_owned()),
    }
}

/// Records what is about to be signed, with its event, whose sequence it answers.
pub(super) fn record(
    connection: &Connection,
    event: &NewEvent,
    certificates: &[NewCertificate],
) -> rusqlite::Result<i64> {
    let issuance = append(connection, event)?;
    let mut insert = connection.prepare_cached(
        "INSERT INTO certificates (serial, issuance, kind, expires, key_hash, host, ca) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    for NewCertificate { serial, kind, expires, key_hash, is_host, ca, .. } in certificates {
        insert.execute(params![serial, issuance, kind, expires, key_hash, is_host.then_some(1), ca])?;
    }
    Ok(issuance)
}

/// Uses a proof up under that key, unless it was before; `generation` is what a
/// registered instance is answered, `run` what the odometer says.
pub(super) fn use_up(
    connection: &Connection,
    key: &[u8],
    entry: &NewIssuance,
    plan: &PlanRecord,
    generation: Option<i64>,
    run: i64,
    seal: &Seal,
) -> rusqlite::Result<bool> {
    let used = UsedProof::new(key, entry, plan, generation, run);
    let mac = seal.of(&used);
    // Without a certificate the column has no value, and nothing is recorded.
    let UsedProof { key, fingerprint, certificate, held_until, held_to_run, generation, earlier: _ } = used;
    let used = connection
        .prepare_cached(
            "INSERT INTO proofs (key, fingerprint, certificate, held_until, held_to_run, generation, mac)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (key) DO NOTHING",
        )?
        .execute(params![key, fingerprint, certificate, held_until, held_to_run, generation, mac])?;
    Ok(used > 0)
}

/// The answer to that use of a proof, if this is the same request again: a
/// retry, unless any certificate of that issuance has been revoked since, or
/// the record of it is not as it was left.
pub(super) fn repeat(
    connection: &Connection,
    key: &[u8],
    plan: &PlanRecord,
    seal: &Seal,
) -> rusqlite::Result<Option<Issued>> {
    let found = connection
        .prepare_cached(&format!("{PROOFS} WHERE key = ?1 AND fingerprint IN (?2, ?3)"))?
        .query_row(params![key, plan.fingerprint, plan.former_fingerprint], read_proof)
        .optional()?;
    let Some((proof, mac)) = found else { return Ok(None) };
    let Some((used, false)) = with_earlier(connection, proof)? else { return Ok(None) };
    let again = seal.judge(Some((used, mac))).row();
    Ok(again.map(|used| Issued::Accepted { plan: Some(used.earlier), generation: used.generation }))
}

const PROOFS: &str =
    "SELECT key, fingerprint, certificate, held_until, held_to_run, generation, mac FROM proofs";

/// A used proof without what it was used for, and what it is sealed with.
fn read_proof(row: &Row<'_>) -> rusqlite::Result<(UsedProof, Option<Vec<u8>>)> {
    let proof = UsedProof {
        key: row.get(0)?,
        fingerprint: row.get(1)?,
        certificate: row.get(2)?,
        held_until: row.get(3)?,
        held_to_run: row.get(4)?,
        generation: row.get(5)?,
        earlier: Earlier { id: String::new(), time: 0, certificates: Vec::new() },
    };
    Ok((proof, row.get(6)?))
}

/// The proof with what it was used for, if there is a record of that, and whether any of it is revoked.
fn with_earlier(
    connection: &Connection,
    mut proof: UsedProof,
) -> rusqlite::Result<Option<(UsedProof, bool)>> {
    let mut statement = connection.prepare_cached(
        "SELECT id, time, all_of.serial, all_of.kind, all_of.expires, all_of.key_hash, all_of.revoked, all_of.ca
         FROM certificates AS one JOIN events ON sequence = issuance JOIN certificates AS all_of USING (issuance)
         WHERE one.serial = ?1 ORDER BY all_of.serial",
    )?;
    let mut rows = statement.query([proof.certificate])?;
    let mut is_revoked = false;
    while let Some(row) = rows.next()? {
        let earlier = &mut proof.earlier;
        (earlier.id, earlier.time) = (row.get(0)?, row.get(1)?);
        earlier.certificates.push(EarlierCertificate {
            serial: row.get(2)?,
            kind: row.get(3)?,
            expires: row.get(4)?,
            key_hash: row.get(5)?,
            ca: row.get(7)?,
        });
        is_revoked |= row.get::<_, Option<i64>>(6)?.is_some();
    }
    Ok((!proof.earlier.certificates.is_empty()).then_some((proof, is_revoked)))
}

/// Has the seal judge every used proof with what it was used for.
pub(super) fn judge_all(connection: &Connection, seal: &Seal) -> rusqlite::Result<()> {
    let mut proofs = connection.prepare(&format!("{PROOFS} WHERE certificate <> 0"))?;
    for proof in proofs.query_map([], read_proof)? {
        let (proof, mac) = proof?;
        let used = with_earlier(connection, proof.clone())?.map_or(proof, |(used, _)| used);
        seal.holds(&used, mac.as_deref());
    }
    Ok(())
}

/// Seals every used proof as it is.
pub(super) fn seal_all(connection: &Connection, seal: &Seal) -> rusqlite::Result<()> {
    let mut proofs = connection.prepare(&format!("{PROOFS} WHERE certificate <> 0"))?;
    let proofs = proofs.query_map([], read_proof)?.collect::<rusqlite::Result<Vec<_>>>()?;
    let mut update = connection.prepare("UPDATE proofs SET mac = ?2 WHERE key = ?1")?;
    for (proof, _) in proofs {
        if let Some((used, _)) = with_earlier(connection, proof)? {
            update.execute(params![used.key, seal.of(&used)])?;
        }
    }
    Ok(())
}

/// A body in the trail that is none.
pub(super) fn not_a_body(error: impl Into<Box<dyn Error + Send + Sync>>) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(1, Type::Text, error.into())
}
