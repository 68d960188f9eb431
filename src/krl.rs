//! Key revocation lists (`PROTOCOL.krl` of OpenSSH), written by the authority,
//! and read before `sshd` does: with one that it cannot read, it refuses every key.

use std::collections::{BTreeMap, BTreeSet};

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use ssh_key::Certificate;
use ssh_key::public::KeyData;

use crate::rfc4251::{CUT, Decoder, put_string};

/// The head of every list.
const MAGIC: &[u8] = b"SSHKRL\n\0";
const FORMAT_VERSION: u32 = 1;
/// Where number and date of its making stand: behind magic and format.
const NUMBER_AND_DATE: std::ops::Range<usize> = 12..28;
/// Stands for every CA.
const EVERY_CA: &[u8] = b"";

const SECTION_CERTIFICATES: u8 = 1;
const SECTION_EXPLICIT_KEY: u8 = 2;
const SECTION_FINGERPRINT_SHA1: u8 = 3;
const SECTION_FINGERPRINT_SHA256: u8 = 5;
const CERT_SERIAL_LIST: u8 = 0x20;
const CERT_SERIAL_RANGE: u8 = 0x21;
const CERT_SERIAL_BITMAP: u8 = 0x22;
const CERT_KEY_ID: u8 = 0x23;
/// A key that nobody has, in front of the keys by which a list is [`closed`]: those go again.
const CLOSED: &[u8] = b"\0\0\0\x0bssh-ed25519\0\0\0 machine-id: nobody is let in now";
/// The longest bitmap in bytes, but for a zero in front: the longest number that OpenSSH reads.
const MAX_BITMAP: usize = 16_384 / 8;

/// What a list says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Krl {
    /// Its number; that of a later list is higher.
    pub number: u64,
    /// When it was made, in seconds since 1970.
    pub date: u64,
    /// The serials that it lists one by one, as ours do, ascending.
    pub serials: Vec<u64>,
    /// The keys that it revokes as they are (blobs of RFC 4253, section 6.6), and with them what CAs of that key have signed;
    /// ascending, without those by which it is [`closed`].
    pub keys: Vec<Vec<u8>>,
}

/// A thing that a list revokes.
enum Revoked<'l> {
    /// A serial of a CA, or of every one; whether it stands there by itself.
    Serials { ca: &'l Option<KeyData>, first: u64, last: u64, alone: bool },
    /// What a CA, or every one, calls a certificate.
    KeyId { ca: &'l Option<KeyData>, id: &'l [u8] },
    /// A key as it is; whether the list is closed by it.
    Key(&'l [u8], bool),
    /// A key by the SHA-1 of it, or the SHA-256.
    Hash(&'l [u8]),
}

/// Reads a list to its end as OpenSSH would.
pub fn read(list: &[u8]) -> Result<Krl, &'static str> {
    let (mut serials, mut keys) = (Vec::new(), BTreeSet::new());
    let (number, date) = walk(list, |revoked| match revoked {
        Revoked::Serials { first, alone: true, .. } => serials.push(first),
        Revoked::Key(key, false) => drop(keys.insert(key.to_vec())),
        _ => {}
    })?;
    serials.sort_unstable();
    serials.dedup();
    Ok(Krl { number, date, serials, keys: keys.into_iter().collect() })
}

/// What a list refuses, to ask it about certificates.
#[derive(Debug, Default)]
pub struct Refusals {
    /// Of one CA, or of every one.
    of_cas: BTreeMap<Option<KeyData>, Certificates>,
    keys: BTreeSet<Vec<u8>>,
    hashes: BTreeSet<Vec<u8>>,
}

/// Certificates of a CA.
#[derive(Debug, Default)]
struct Certificates {
    /// First and last of each range, ascending, none within or beside another.
    serials: Vec<(u64, u64)>,
    key_ids: BTreeSet<Vec<u8>>,
}

impl Refusals {
    /// Of a list that OpenSSH would read.
    pub fn read(list: &[u8]) -> Result<Self, &'static str> {
        let mut all = Self::default();
        walk(list, |revoked| match revoked {
            Revoked::Serials { ca, first, last, .. } => all.of(ca).serials.push((first, last)),
            Revoked::KeyId { ca, id } => drop(all.of(ca).key_ids.insert(id.to_vec())),
            Revoked::Key(key, _) => drop(all.keys.insert(key.to_vec())),
            Revoked::Hash(hash) => drop(all.hashes.insert(hash.to_vec())),
        })?;
        for certificates in all.of_cas.values_mut() {
            certificates.serials.sort_unstable();
            certificates.serials.dedup_by(|next, known| {
                let together = next.0 <= known.1.saturating_add(1);
                known.1 = if together { known.1.max(next.1) } else { known.1 };
                together
            });
        }
        Ok(all)
    }

    fn of(&mut self, ca: &Option<KeyData>) -> &mut Certificates {
        self.of_cas.entry(ca.clone()).or_default()
    }

    /// Whether `sshd` refuses the certificate for the list: for itself, its key, or its CA's.
    pub fn refuse(&self, certificate: &Certificate) -> bool {
        let ca = certificate.signature_key();
        self.refuse_key(certificate.public_key())
            || self.refuse_key(ca)
            || self.of_cas.iter().any(|(of, certificates)| {
                of.as_ref().is_none_or(|of| of == ca)
                    && (certificates.key_ids.contains(certificate.key_id().as_bytes())
                        || certificates.has(certificate.serial()))
            })
    }

    /// A key that cannot be written down was never read.
    fn refuse_key(&self, key: &KeyData) -> bool {
        if self.keys.is_empty() && self.hashes.is_empty() {
            return false;
        }
        let blob = ssh_key::PublicKey::from(key.clone()).to_bytes().unwrap_or_default();
        let is_hash = |of| self.hashes.contains(digest(of, &blob).as_ref());
        self.keys.contains(&blob) || is_hash(&SHA256) || is_hash(&SHA1_FOR_LEGACY_USE_ONLY)
    }
}

impl Certificates {
    /// OpenSSH takes no list with the serial 0, and no certificate for revoked by it.
    fn has(&self, serial: u64) -> bool {
        let at = self.serials.partition_point(|(first, _)| *first <= serial);
        let below = at.checked_sub(1).and_then(|at| self.serials.get(at));
        serial != 0 && below.is_some_and(|(_, last)| serial <= *last)
    }
}

/// Goes through a list to its end as OpenSSH would; its number, and when it was made.
fn walk(list: &[u8], mut revoked: impl FnMut(Revoked<'_>)) -> Result<(u64, u64), &'static str> {
    let mut reader = Decoder::new(list);
    if reader.take(MAGIC.len())? != MAGIC {
        return Err("it does not begin like a key revocation list");
    }
    if reader.u32()? != FORMAT_VERSION {
        return Err("it is of another format version");
    }
    let (number, date, _flags) = (reader.u64()?, reader.u64()?, reader.u64()?);
    let (_reserved, _comment) = (reader.string()?, reader.string()?);
    while !reader.is_empty() {
        let kind = reader.u8()?;
        let section = Decoder::new(reader.string()?);
        match kind {
            SECTION_CERTIFICATES => certificates(section, &mut revoked)?,
            SECTION_EXPLICIT_KEY => {
                let is_closing = closes(section);
                entries(section, |key| !key.is_empty(), |key| revoked(Revoked::Key(key, is_closing)))?
            }
            SECTION_FINGERPRINT_SHA1 => {
                entries(section, |hash| hash.len() == 20, |hash| revoked(Revoked::Hash(hash)))?
            }
            SECTION_FINGERPRINT_SHA256 => {
                entries(section, |hash| hash.len() == 32, |hash| revoked(Revoked::Hash(hash)))?
            }
            _ => return Err("it has a section of an unknown kind"),
        }
    }
    Ok((number, date))
}

/// A list of that number, made at `date` (seconds since 1970), which revokes
/// the serials of each CA, which is given as a public key blob (RFC 4253,
/// section 6.6). Not signed, as OpenSSH has no use for that.
pub fn write(number: u64, date: u64, of_cas: Vec<(Vec<u8>, Vec<u64>)>) -> Vec<u8> {
    let mut list = MAGIC.to_vec();
    list.extend(FORMAT_VERSION.to_be_bytes());
    list.extend([number, date, 0].into_iter().flat_map(u64::to_be_bytes)); // 0: flags
    put_string(&mut list, b""); // reserved
    put_string(&mut list, b"machine-id"); // comment
    for (blob, mut serials) in of_cas {
        // OpenSSH takes no serial 0, and we never issue it.
        serials.retain(|serial| *serial != 0);
        serials.sort_unstable();
        serials.dedup();
        put_serials(&mut list, &blob, &serials);
    }
    list
}

/// The list, and behind what it holds those of the ascending `serials` that it lacks, revoked for every CA.
pub fn adding(mut list: Vec<u8>, serials: impl Iterator<Item = u64>) -> Result<Vec<u8>, &'static str> {
    let known = read(&list)?.serials;
    let missing: Vec<u64> =
        serials.filter(|serial| *serial != 0 && known.binary_search(serial).is_err()).collect();
    put_serials(&mut list, EVERY_CA, &missing);
    Ok(list)
}

/// The list under a later number and date, with these serials revoked for every CA besides.
pub fn advanced(
    mut list: Vec<u8>,
    number: u64,
    date: u64,
    serials: impl Iterator<Item = u64>,
) -> Result<Vec<u8>, &'static str> {
    let place = list.get_mut(NUMBER_AND_DATE).ok_or(CUT)?;
    for (byte, new) in place.iter_mut().zip([number, date].into_iter().flat_map(u64::to_be_bytes)) {
        *byte = new;
    }
    adding(list, serials)
}

/// The list, and behind what it holds those of these keys (blobs of RFC 4253, section 6.6) that it lacks: everything is revoked
/// for good that CAs with them have signed, whenever that was.
pub fn revoking_keys<'b>(
    mut list: Vec<u8>,
    blobs: impl IntoIterator<Item = &'b Vec<u8>>,
) -> Result<Vec<u8>, &'static str> {
    let mut known = BTreeSet::new();
    walk(&list, |revoked| {
        if let Revoked::Key(key, false) = revoked {
            known.insert(key.to_vec());
        }
    })?;
    let missing: BTreeSet<&[u8]> =
        blobs.into_iter().filter(|blob| !known.contains(*blob)).map(Vec::as_slice).collect();
    put_keys(&mut list, missing);
    Ok(list)
}

/// The list, in which everything is revoked as well that these CAs have signed, until it is [`opened`].
pub fn closed(list: Vec<u8>, ca_blobs: &[Vec<u8>]) -> Vec<u8> {
    let mut closed = opened(&list).map(<[u8]>::to_vec).unwrap_or(list);
    put_keys(&mut closed, [CLOSED].into_iter().chain(ca_blobs.iter().map(Vec::as_slice)));
    closed
}

fn put_keys<'b>(list: &mut Vec<u8>, blobs: impl IntoIterator<Item = &'b [u8]>) {
    let mut keys = Vec::new();
    blobs.into_iter().for_each(|blob| put_string(&mut keys, blob));
    if !keys.is_empty() {
        list.push(SECTION_EXPLICIT_KEY);
        put_string(list, &keys);
    }
}

/// Whether a section of keys is the one of a list that is closed.
fn closes(mut section: Decoder<'_>) -> bool {
    section.string() == Ok(CLOSED)
}

/// The list as it was before [`closed`], if it was: without the keys at its end.
pub fn opened(list: &[u8]) -> Option<&[u8]> {
    let mut last = None;
    let mut reader = Decoder::new(list);
    reader.take(NUMBER_AND_DATE.end + 8).ok()?;
    let (_reserved, _comment) = (reader.string().ok()?, reader.string().ok()?);
    while !reader.is_empty() {
        last = Some((reader.u8().ok()?, reader.string().ok()?));
    }
    let (_, section) =
        last.filter(|(kind, section)| *kind == SECTION_EXPLICIT_KEY && closes(Decoder::new(section)))?;
    list.get(..list.len().checked_sub(section.len() + 5)?)
}

fn put_serials(list: &mut Vec<u8>, ca: &[u8], serials: &[u64]) {
    if serials.is_empty() {
        return;
    }
    // There may be a million, which are written once.
    let (mut head, size) = (Vec::new(), serials.len() * 8);
    put_string(&mut head, ca);
    put_string(&mut head, b""); // reserved
    head.push(CERT_SERIAL_LIST);
    let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX).to_be_bytes();
    list.reserve(size + head.len() + 16);
    list.push(SECTION_CERTIFICATES);
    list.extend(length(head.len() + 4 + size));
    list.extend(head);
    list.extend(length(size));
    serials.iter().for_each(|serial| list.extend_from_slice(&serial.to_be_bytes()));
}

/// Whether two lists revoke the same in the same words, whenever they were made.
pub fn same(one: &[u8], other: &[u8]) -> bool {
    let undated = |list: &[u8]| {
        let (head, rest) = list.split_at(NUMBER_AND_DATE.start.min(list.len()));
        [head, rest.get(NUMBER_AND_DATE.len()..).unwrap_or_default()].concat()
    };
    undated(one) == undated(other)
}

fn certificates(mut section: Decoder<'_>, revoked: &mut impl FnMut(Revoked<'_>)) -> Result<(), &'static str> {
    let (ca, _reserved) = (section.string()?, section.string()?);
    let key = (ca != EVERY_CA).then(|| ssh_key::PublicKey::from_bytes(ca)).transpose();
    let key = key.map_err(|_| "a CA in it is not an SSH public key")?;
    let ca = &key.map(KeyData::from);
    while !section.is_empty() {
        let kind = section.u8()?;
        let mut part = Decoder::new(section.string()?);
        let mut serials = |first, last, alone| revoked(Revoked::Serials { ca, first, last, alone });
        match kind {
            CERT_SERIAL_LIST => {
                while !part.is_empty() {
                    match part.u64()? {
                        0 => return Err("it has the serial 0, which OpenSSH does not take"),
                        serial => serials(serial, serial, true),
                    }
                }
            }
            CERT_SERIAL_RANGE => {
                let (first, last) = (part.u64()?, part.u64()?);
                if first == 0 || first > last || !part.is_empty() {
                    return Err("it has a broken range of serials");
                }
                serials(first, last, false);
            }
            CERT_SERIAL_BITMAP => {
                let (offset, bits) = (part.u64()?, part.string()?);
                let is_negative = bits.first().is_some_and(|first| *first >= 0x80);
                let length = bits.strip_prefix(&[0]).unwrap_or(bits).len();
                if !part.is_empty() || is_negative || length > MAX_BITMAP {
                    return Err("it has a broken bitmap of serials");
                }
                // A number whose lowest bit is the first serial's.
                for (byte, at) in bits.iter().rev().zip((0_u64..).step_by(8)) {
                    for bit in (0..8_u64).filter(|bit| byte >> bit & 1 == 1) {
                        let serial = offset.checked_add(at + bit).filter(|serial| *serial != 0);
                        let serial = serial.ok_or("it has a broken bitmap of serials")?;
                        serials(serial, serial, false);
                    }
                }
            }
            CERT_KEY_ID => entries(part, |_| true, |id| revoked(Revoked::KeyId { ca, id }))?,
            _ => return Err("it revokes certificates in an unknown way"),
        }
    }
    Ok(())
}

fn entries(
    mut section: Decoder<'_>,
    fits: impl Fn(&[u8]) -> bool,
    mut each: impl FnMut(&[u8]),
) -> Result<(), &'static str> {
    while !section.is_empty() {
        let entry = section.string()?;
        if !fits(entry) {
            return Err("it has a key or hash of the wrong length");
        }
        each(entry);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
