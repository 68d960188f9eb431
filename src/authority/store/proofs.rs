//! Used proofs, as a store has them.

use ring::digest::{self, Digest, SHA256};

use super::seal::{Column, Granting};
use super::{Earlier, EarlierCertificate, NewIssuance, PlanRecord};
use crate::join::verify::Replay;

/// What names one use of a proof among those of all issuers: SHA-256 over the
/// number of the use (from 0) and the length of the issuer's name in four
/// bytes each, the name, and the proof's id.
pub(super) fn proof_key(replay: &Replay, nth: u32) -> Digest {
    let mut hash = digest::Context::new(&SHA256);
    hash.update(&nth.to_be_bytes());
    hash.update(&u32::try_from(replay.issuer.len()).unwrap_or(u32::MAX).to_be_bytes());
    hash.update(replay.issuer.as_bytes());
    hash.update(replay.id.as_bytes());
    hash.finish()
}

/// A used proof with what it was used for: the same request again is signed again, with the serials and times of this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsedProof {
    /// What names this use of the proof.
    pub key: Vec<u8>,
    /// As [`PlanRecord::fingerprint`].
    pub fingerprint: Vec<u8>,
    /// The serial of the first certificate.
    pub certificate: Option<i64>,
    /// Until when it is held, in seconds since 1970.
    pub held_until: i64,
    /// And by how long the authority has been running.
    pub held_to_run: i64,
    /// The generation that a registered instance was answered.
    pub generation: Option<i64>,
    /// What it was used for.
    pub earlier: Earlier,
}

impl UsedProof {
    /// Of an issuance that is about to be recorded; `run` is how long the authority has been running.
    pub(super) fn new(
        key: &[u8],
        entry: &NewIssuance,
        plan: &PlanRecord,
        generation: Option<i64>,
        run: i64,
    ) -> Self {
        let mut certificates: Vec<EarlierCertificate> =
            plan.certificates.iter().map(EarlierCertificate::from).collect();
        certificates.sort_by_key(|certificate| certificate.serial);
        Self {
            key: key.to_vec(),
            fingerprint: plan.fingerprint.to_vec(),
            certificate: plan.certificates.first().map(|certificate| number(certificate.serial)),
            held_until: entry.replay.held.until,
            held_to_run: run.saturating_add(entry.replay.held.lasts),
            generation,
            earlier: Earlier { id: plan.id.clone(), time: entry.time, certificates },
        }
    }
}

impl Granting for UsedProof {
    const TABLE: &'static str = "proofs";

    fn key(&self) -> &[u8] {
        &self.key
    }

    fn columns(&self) -> Vec<Column<'_>> {
        let Self { key: _, fingerprint, certificate, held_until, held_to_run, generation, earlier } = self;
        let Earlier { id, time, certificates } = earlier;
        let mut columns = vec![
            fingerprint.as_slice().into(),
            (*certificate).into(),
            (*held_until).into(),
            (*held_to_run).into(),
            (*generation).into(),
            id.as_str().into(),
            (*time).into(),
        ];
        for EarlierCertificate { serial, kind, expires, key_hash, ca } in certificates {
            columns.extend([
                number(*serial).into(),
                Column::Integer(kind.number()),
                (*expires).into(),
                key_hash.as_slice().into(),
            ]);
            // Of one without, as versions before have sealed it; another number stands before no hash.
            columns.extend(ca.map(Column::Integer));
        }
        columns
    }
}

/// A serial has 63 bits.
fn number(serial: u64) -> i64 {
    i64::try_from(serial).unwrap_or(i64::MAX)
}
