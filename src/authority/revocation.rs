//! The lists of what was revoked, as servers read them: OpenSSH's key
//! revocation list (`PROTOCOL.krl` of OpenSSH) for `RevokedKeys`, and the
//! X.509 list (RFC 5280, section 5) for TLS servers. Neither says when a
//! certificate ends, so that is told beside them.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{self, Arc, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use rcgen::{CertificateRevocationListParams, KeyIdMethod, RevokedCertParams, SerialNumber};
use ring::digest::{Context, SHA256, digest};
use time::OffsetDateTime;
use tokio::sync::Mutex;
use x509_parser::asn1_rs::{Any, FromDer as _};

use super::keys::{CaKeys, valid_from};
use super::store::{CertificateKind, LIST_SERVED, ListNumber, RevokedCertificate, Store};
use crate::clock::{LAST_SECOND, LEEWAY};
use crate::error::{Context as _, Kind, Result};
use crate::krl;
use crate::text::hex;
use crate::wire::{MAX_LIST, RevokedEnds, RevokedNow};

/// How long the lists serve before the store is asked again, in seconds, since others may share it; a revocation
/// here ends that at once.
const ASKED: Range<i64> = 0..1;
/// How long they are served, in seconds, where nothing was revoked.
const SERVED: Range<i64> = 0..LIST_SERVED;
/// How long a TLS list says that it is good for, in seconds.
const CRL_VALID: i64 = 24 * 3600;
/// How long the end of a certificate is told that is over, in seconds: for hosts that have not asked before.
const ENDED: i64 = 3600;
/// How many revocations are known as new to a list: who lacks more fetches the whole one.
const MAX_NEW: usize = 2000;
/// How many lists are known by what was new to them.
const MAX_CHANGES: usize = 512;

/// What two lists of one moment say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RevocationList {
    /// Theirs alone.
    pub number: u64,
    /// The certificates, by ascending serial.
    pub certificates: Vec<RevokedCertificate>,
}

/// The SSH certificates of the list as a KRL of the moment `now`, in seconds
/// since 1970: those of the user CA, and of the host CA.
pub fn ssh_krl(ca_blobs: [Vec<u8>; 2], list: &RevocationList, now: i64) -> Vec<u8> {
    let serials = |is_host| {
        let of_ca = of_kind(list, CertificateKind::Ssh).filter(|revoked| revoked.is_host == is_host);
        of_ca.map(|revoked| revoked.serial).collect()
    };
    let [user, host] = ca_blobs;
    krl::write(list.number, krl_date(now), vec![(user, serials(false)), (host, serials(true))])
}

fn krl_date(now: i64) -> u64 {
    u64::try_from(valid_from(now)).unwrap_or(0)
}

/// The X.509 certificates of the list as a CRL, which their CA is to sign, of
/// the moment `now` and good for `valid_for` seconds. It is in force from as
/// long back as a certificate, since servers whose clocks are behind refuse everybody
/// over one that is not.
pub fn tls_crl(list: &RevocationList, now: i64, valid_for: i64) -> CertificateRevocationListParams {
    let made = valid_from(now);
    let revoked_certs = of_kind(list, CertificateKind::Tls)
        .map(|revoked| RevokedCertParams {
            serial_number: SerialNumber::from(revoked.serial),
            revocation_time: x509_time(revoked.revoked.min(made)),
            // RFC 5280 wants no reason rather than "unspecified".
            reason_code: None,
            invalidity_date: None,
        })
        .collect();
    CertificateRevocationListParams {
        this_update: x509_time(made),
        next_update: x509_time(now.saturating_add(valid_for)),
        crl_number: SerialNumber::from(list.number),
        issuing_distribution_point: None,
        revoked_certs,
        key_identifier_method: KeyIdMethod::Sha256,
    }
}

fn of_kind(list: &RevocationList, kind: CertificateKind) -> impl Iterator<Item = &RevokedCertificate> {
    list.certificates.iter().filter(move |revoked| revoked.kind == kind)
}

/// The time, or the nearest that X.509 has.
fn x509_time(unix: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(unix.clamp(0, LAST_SECOND)).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// The lists as they are served: each answer shares them, since anybody may ask on many connections and read none.
#[derive(Debug)]
pub struct Lists {
    /// What names them.
    pub number: u64,
    /// The SHA-256 of the KRL and of what the CRL's signature is over, in hexadecimal.
    pub hashes: [String; 2],
    /// What was new to these, and to those before them, oldest first.
    changes: VecDeque<Arc<Change>>,
    /// OpenSSH's key revocation list.
    pub krl: Bytes,
    /// The X.509 revocation list in DER (RFC 5280, section 5).
    pub crl: Bytes,
    /// [`RevokedEnds`] in JSON.
    pub ends: Bytes,
}

/// What is on a list and was not on the one before.
#[derive(Debug)]
struct Change {
    since: u64,
    revoked: Vec<RevokedNow>,
}

/// Keeps the lists: anybody may ask for them.
#[derive(Debug, Default)]
pub struct ListCache(Mutex<Option<Cached>>);

#[derive(Debug)]
struct Cached {
    lists: Arc<Lists>,
    serials: Vec<u64>,
    made: i64,
    asked: i64,
    revocations: u64,
}

impl Lists {
    /// What is revoked by these and was not by those of that number; none where that is not known any more.
    pub fn since(&self, number: u64) -> Option<Vec<RevokedNow>> {
        if number == self.number {
            return Some(Vec::new());
        }
        let from = self.changes.iter().position(|change| change.since == number)?;
        Some(self.changes.iter().skip(from).flat_map(|change| change.revoked.iter().copied()).collect())
    }

    /// What the operator must hear long before servers take the lists no more.
    pub fn alarm(&self) -> Option<String> {
        let largest = self.krl.len().max(self.crl.len()).max(self.ends.len());
        (largest > MAX_LIST / 2).then(|| {
            let [has, most] = [largest, MAX_LIST].map(|bytes| bytes >> 20);
            format!(
                "a revocation list has {has} MiB, and beyond {most} MiB servers keep the old one for ever: shorten `max_session_ttl`, lower `limits`, and see who gives so much back"
            )
        })
    }
}

impl ListCache {
    /// The lists as of `now`: those that were made last, byte for byte, as long as they say what is true.
    pub async fn lists(&self, store: &dyn Store, keys: &CaKeys, now: i64) -> Result<Arc<Lists>> {
        // A clock that was put back is asked about too: what was made before is from the future.
        let is_within = |since: i64, age: &Range<i64>| age.contains(&now.saturating_sub(since));
        let mut cached = self.0.lock().await;
        // Taken first, so that lists read before a revocation are not kept after it.
        let revocations = store.revocations();
        if let Some(known) = cached.as_ref()
            && known.revocations == revocations
            && is_within(known.asked, &ASKED)
        {
            return Ok(Arc::clone(&known.lists));
        }
        let mut all = store.revoked(now.saturating_sub(ENDED)).await?;
        let (certificates, serials, ListNumber { number, made }) = loop {
            // What a clock within the leeway may still take for valid.
            let is_good = |revoked: &&RevokedCertificate| revoked.expires >= now.saturating_sub(LEEWAY);
            let certificates: Vec<_> = all.iter().filter(is_good).cloned().collect();
            let serials: Vec<u64> = certificates.iter().map(|revoked| revoked.serial).collect();
            if let Some(known) = cached.as_mut()
                && known.serials == serials
                && is_within(known.made, &SERVED)
            {
                (known.asked, known.revocations) = (now, revocations);
                return Ok(Arc::clone(&known.lists));
            }
            let number = store.list_number(now, what(keys, &certificates)?).await?;
            // What was revoked before it had its number may be on another's list, which has a lower one.
            let since = store.revoked(now.saturating_sub(ENDED)).await?;
            if since == all {
                break (certificates, serials, number);
            }
            all = since;
        };
        let changes = changes(cached.as_ref(), number, &certificates);
        let expires = all.iter().map(|revoked| (revoked.serial, revoked.expires)).collect();
        let list = RevocationList { number, certificates };
        let ends = RevokedEnds { expires };
        let krl = ssh_krl(keys.ssh_blobs()?, &list, made);
        let crl = keys.sign_crl(&tls_crl(&list, made, CRL_VALID))?;
        let lists = Arc::new(Lists {
            number,
            hashes: [&*krl, to_be_signed(&crl)?].map(|list| hex(digest(&SHA256, list).as_ref())),
            changes,
            krl: krl.into(),
            crl: crl.into(),
            ends: serde_json::to_vec(&ends).context(Kind::Internal, "the ends of what is revoked")?.into(),
        });
        *cached = Some(Cached { lists: Arc::clone(&lists), serials, made, asked: now, revocations });
        Ok(lists)
    }
}

/// How many revoked host certificates a job is told of at most (64 KiB): those that last longest.
const MAX_HOSTS: usize = 8192;

/// Keeps the list of revoked host certificates, which each job is given that logs in somewhere.
#[derive(Debug, Default)]
pub struct HostListCache(sync::Mutex<Option<HostList>>);

#[derive(Debug)]
struct HostList {
    krl: Arc<str>,
    asked: i64,
    revocations: u64,
}

impl HostListCache {
    /// The list as of `now`, in base64: of the host CA.
    pub async fn list(&self, store: &dyn Store, keys: &CaKeys, now: i64) -> Result<Arc<str>> {
        // Not held while the store is asked: nobody waits for an answer that another does not get.
        let cached = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let revocations = store.revocations();
        if let Some(known) = cached().as_ref()
            && known.revocations == revocations
            && ASKED.contains(&now.saturating_sub(known.asked))
        {
            return Ok(Arc::clone(&known.krl));
        }
        let serials = store.revoked_hosts(now.saturating_sub(LEEWAY), MAX_HOSTS).await?;
        let ([_, host], made) = (keys.ssh_blobs()?, krl_date(now));
        let krl: Arc<str> = STANDARD.encode(krl::write(made, made, vec![(host, serials)])).into();
        *cached() = Some(HostList { krl: Arc::clone(&krl), asked: now, revocations });
        Ok(krl)
    }
}

/// What the signature of a CRL is over, which is the same of all who share a store. Without reading all that is on it.
fn to_be_signed(crl: &[u8]) -> Result<&[u8]> {
    let (_, list) = Any::from_der(crl).context(Kind::Internal, "a CRL")?;
    let (rest, _) = Any::from_der(list.data).context(Kind::Internal, "a CRL")?;
    Ok(list.data.strip_suffix(rest).unwrap_or(list.data))
}

/// What is known to be new to the list of that number, and to those before it.
fn changes(
    before: Option<&Cached>,
    number: u64,
    certificates: &[RevokedCertificate],
) -> VecDeque<Arc<Change>> {
    let Some(before) = before else { return VecDeque::new() };
    let mut changes = before.lists.changes.clone();
    if before.lists.number != number {
        let fresh = certificates.iter().filter(|one| before.serials.binary_search(&one.serial).is_err());
        let revoked = fresh.map(|one| RevokedNow {
            serial: one.serial,
            ssh: one.kind == CertificateKind::Ssh,
            expires: one.expires,
        });
        changes.push_back(Arc::new(Change { since: before.lists.number, revoked: revoked.collect() }));
    }
    let count =
        |changes: &VecDeque<Arc<Change>>| changes.iter().map(|change| change.revoked.len()).sum::<usize>();
    while changes.len() > MAX_CHANGES || count(&changes) > MAX_NEW {
        changes.pop_front();
    }
    changes
}

/// A hash of what the lists say, and of which CAs.
fn what(keys: &CaKeys, certificates: &[RevokedCertificate]) -> Result<[u8; 32]> {
    let mut hash = Context::new(&SHA256);
    for ca in keys.ssh_blobs()?.iter().map(Vec::as_slice).chain([keys.tls_certificate()]) {
        hash.update(digest(&SHA256, ca).as_ref());
    }
    for RevokedCertificate { serial, kind, .. } in certificates {
        hash.update(&serial.to_be_bytes());
        hash.update(&[u8::from(*kind == CertificateKind::Tls)]);
    }
    hash.finish().as_ref().try_into().context(Kind::Internal, "SHA-256")
}

#[cfg(test)]
mod tests;
