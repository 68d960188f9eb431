//! Rows as they are sent, in columns, and as they are found.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use serde_json::{Map, Value};
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::super::event::{self, NewEvent};
use super::super::packed::{pack, unpack};
use super::super::proofs::UsedProof;
use super::super::seal::Seal;
use super::super::{CertificateKind, Earlier, EarlierCertificate, NewCertificate, PlanRecord};
use super::failure::Failure;
use super::transaction::Parameter;

/// The columns of what is recorded in one statement.
#[derive(Default)]
pub(super) struct Columns<'a> {
    entries: i64,
    key: Vec<Option<Vec<u8>>>,
    fingerprint: Vec<Option<Vec<u8>>>,
    certificate: Vec<Option<i64>>,
    held_until: Vec<Option<i64>>,
    held_to_run: Vec<Option<i64>>,
    generation: Vec<Option<i64>>,
    mac: Vec<Option<Vec<u8>>>,
    time: Vec<i64>,
    event: Vec<&'a str>,
    id: Vec<&'a str>,
    bot: Vec<Option<&'a str>>,
    token: Vec<Option<String>>,
    body: Vec<Vec<u8>>,
    entry: Vec<i64>,
    serial: Vec<i64>,
    kind: Vec<i64>,
    expires: Vec<i64>,
    key_hash: Vec<&'a [u8]>,
    host: Vec<Option<i64>>,
    ca: Vec<Option<i64>>,
}

impl<'a> Columns<'a> {
    /// Adds an event with its certificates, and the proof that is used up by it.
    pub(super) fn add(
        &mut self,
        event: &'a NewEvent,
        certificates: &'a [NewCertificate],
        proof: Option<UsedProof>,
        seal: &Seal,
    ) {
        self.entries = self.entries.saturating_add(1);
        self.mac.push(proof.as_ref().map(|proof| seal.of(proof).to_vec()));
        self.certificate.push(proof.as_ref().and_then(|proof| proof.certificate));
        self.held_until.push(proof.as_ref().map(|proof| proof.held_until));
        self.held_to_run.push(proof.as_ref().map(|proof| proof.held_to_run));
        self.generation.push(proof.as_ref().and_then(|proof| proof.generation));
        let (key, fingerprint) = proof.map(|proof| (proof.key, proof.fingerprint)).unzip();
        self.key.push(key);
        self.fingerprint.push(fingerprint);
        self.time.push(event.time);
        self.event.push(event.event);
        self.id.push(&event.id);
        self.bot.push(event.bot.as_deref());
        self.token.push(text(event.token.as_deref()));
        self.body.push(pack(&event.body.0));
        for certificate in certificates {
            self.entry.push(self.entries);
            self.serial.push(serial(certificate.serial));
            self.kind.push(certificate.kind.number());
            self.expires.push(certificate.expires);
            self.key_hash.push(&certificate.key_hash);
            self.host.push(certificate.is_host.then_some(1));
            self.ca.push(certificate.ca);
        }
    }

    /// As parameters: of the proofs, the events, the certificates.
    pub(super) fn parameters(&self) -> [Parameter<'_>; 20] {
        [
            (&self.key, Type::BYTEA_ARRAY),
            (&self.fingerprint, Type::BYTEA_ARRAY),
            (&self.certificate, Type::INT8_ARRAY),
            (&self.held_until, Type::INT8_ARRAY),
            (&self.held_to_run, Type::INT8_ARRAY),
            (&self.generation, Type::INT8_ARRAY),
            (&self.mac, Type::BYTEA_ARRAY),
            (&self.time, Type::INT8_ARRAY),
            (&self.event, Type::TEXT_ARRAY),
            (&self.id, Type::TEXT_ARRAY),
            (&self.bot, Type::TEXT_ARRAY),
            (&self.token, Type::TEXT_ARRAY),
            (&self.body, Type::BYTEA_ARRAY),
            (&self.entry, Type::INT8_ARRAY),
            (&self.serial, Type::INT8_ARRAY),
            (&self.kind, Type::INT8_ARRAY),
            (&self.expires, Type::INT8_ARRAY),
            (&self.key_hash, Type::BYTEA_ARRAY),
            (&self.host, Type::INT8_ARRAY),
            (&self.ca, Type::INT8_ARRAY),
        ]
    }
}

/// Text without the one character that PostgreSQL's cannot have; callers write join tokens' names as they like.
pub(super) fn text(text: Option<&str>) -> Option<String> {
    text.map(|text| text.replace('\0', "\u{fffd}"))
}

/// A serial has 63 bits; the table takes no other.
pub(super) fn serial(serial: u64) -> i64 {
    i64::try_from(serial).unwrap_or(-1)
}

/// The kind of certificate in that column.
pub(super) fn kind(row: &Row, column: usize) -> Result<CertificateKind, Failure> {
    let number = row.try_get(column)?;
    CertificateKind::of_number(number)
        .ok_or_else(|| Failure::Unreadable(format!("a certificate is of the unknown kind {number}")))
}

/// The serial in that column.
pub(super) fn read_serial(row: &Row, column: usize) -> Result<u64, Failure> {
    Ok(u64::try_from(row.try_get::<_, i64>(column)?).unwrap_or_default())
}

/// The hash in that column.
pub(super) fn hash(row: &Row, column: usize) -> Result<[u8; 32], Failure> {
    Ok(row.try_get::<_, &[u8]>(column)?.try_into().unwrap_or_default())
}

/// The body of an event.
pub(super) fn body(row: &Row, column: usize) -> Result<Map<String, Value>, Failure> {
    let text = unpack(row.try_get(column)?).map_err(|error| Failure::Unreadable(error.to_string()))?;
    event::read(&text).map_err(|error| Failure::Unreadable(format!("an event is no JSON: {error}")))
}

/// Used proofs, by their keys.
pub(super) type Used = BTreeMap<Vec<u8>, Found>;

/// A used proof with its seal.
#[derive(Debug)]
pub(super) struct Found {
    row: UsedProof,
    mac: Option<Vec<u8>>,
    is_revoked: bool,
}

impl Found {
    /// Has the seal judge it.
    pub(super) fn judge(&self, seal: &Seal) {
        seal.holds(&self.row, self.mac.as_deref());
    }

    /// What was recorded for it and is to be signed again, if this is the same request and nothing of that was
    /// revoked since; and what a registered instance was answered.
    pub(super) fn again(&self, plan: &PlanRecord, seal: &Seal) -> Option<(Earlier, Option<i64>)> {
        let Self { row, mac, is_revoked } = self;
        let is_again =
            [plan.fingerprint, plan.former_fingerprint].iter().any(|known| row.fingerprint == *known);
        let is_again = is_again && !is_revoked && !row.earlier.certificates.is_empty();
        (is_again && seal.holds(row, mac.as_deref())).then(|| (row.earlier.clone(), row.generation))
    }
}

/// The proofs of [`super::reads::PROOFS`]: a row for each certificate of each.
pub(super) fn used(rows: &[Row]) -> Result<Used, Failure> {
    let mut used = Used::new();
    for row in rows {
        let found = match used.entry(row.try_get(0)?) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let (id, time): (Option<String>, Option<i64>) = (row.try_get(7)?, row.try_get(8)?);
                let (id, time) = (id.unwrap_or_default(), time.unwrap_or_default());
                let proof = UsedProof {
                    key: new.key().clone(),
                    fingerprint: row.try_get(1)?,
                    certificate: row.try_get(2)?,
                    held_until: row.try_get(3)?,
                    held_to_run: row.try_get(4)?,
                    generation: row.try_get(5)?,
                    earlier: Earlier { id, time, certificates: Vec::new() },
                };
                new.insert(Found { row: proof, mac: row.try_get(6)?, is_revoked: false })
            }
        };
        if row.try_get::<_, Option<i64>>(9)?.is_some() {
            found.row.earlier.certificates.push(EarlierCertificate {
                serial: read_serial(row, 9)?,
                kind: kind(row, 10)?,
                expires: row.try_get(11)?,
                key_hash: hash(row, 12)?,
                ca: row.try_get(14)?,
            });
            found.is_revoked |= row.try_get::<_, Option<i64>>(13)?.is_some();
        }
    }
    Ok(used)
}
