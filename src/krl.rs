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
}

/// A thing that a list revokes.
enum Revoked<'l> {
    /// A serial of a CA, or of every one; whether it stands there by itself.
    Serials { ca: &'l Option<KeyData>, first: u64, last: u64, alone: bool },
    /// What a CA, or every one, calls a certificate.
    KeyId { ca: &'l Option<KeyData>, id: &'l [u8] },
    /// A key as it is.
    Key(&'l [u8]),
    /// A key by the SHA-1 of it, or the SHA-256.
    Hash(&'l [u8]),
}

/// Reads a list to its end as OpenSSH would.
pub fn read(list: &[u8]) -> Result<Krl, &'static str> {
    let mut serials = Vec::new();
    let (number, date) = walk(list, |revoked| {
        if let Revoked::Serials { first, alone: true, .. } = revoked {
            serials.push(first);
        }
    })?;
    serials.sort_unstable();
    serials.dedup();
    Ok(Krl { number, date, serials })
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
            Revoked::Key(key) => drop(all.keys.insert(key.to_vec())),
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
                entries(section, |key| !key.is_empty(), |key| revoked(Revoked::Key(key)))?
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

/// The list, in which everything is revoked as well that these CAs have signed, whenever that was.
pub fn closed(mut list: Vec<u8>, ca_blobs: &[Vec<u8>]) -> Vec<u8> {
    let (mut section, mut keys) = (vec![SECTION_EXPLICIT_KEY], Vec::new());
    ca_blobs.iter().for_each(|blob| put_string(&mut keys, blob));
    put_string(&mut section, &keys);
    if !list.ends_with(&section) {
        list.extend(section);
    }
    list
}

/// The list as it was before [`closed`], if it was: without the keys at its end.
pub fn opened(list: &[u8]) -> Option<&[u8]> {
    let mut last = None;
    let mut reader = Decoder::new(list);
    reader.take(NUMBER_AND_DATE.end + 8).ok()?;
    let (_reserved, _comment) = (reader.string().ok()?, reader.string().ok()?);
    while !reader.is_empty() {
        let kind = reader.u8().ok()?;
        last = Some((kind, reader.string().ok()?.len() + 5));
    }
    let (_, length) = last.filter(|(kind, _)| *kind == SECTION_EXPLICIT_KEY)?;
    list.get(..list.len().checked_sub(length)?)
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
mod tests {
    use proptest::prelude::*;
    use ssh_key::private::{Ed25519Keypair, PrivateKey};

    use super::*;

    fn number(list: &[u8]) -> Result<u64, &'static str> {
        read(list).map(|list| list.number)
    }

    fn string(bytes: &[u8]) -> Vec<u8> {
        [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
    }

    fn head(number: u64, date: u64) -> Vec<u8> {
        let mut list = [MAGIC, &1_u32.to_be_bytes(), &number.to_be_bytes(), &date.to_be_bytes()].concat();
        list.extend([0; 8]);
        list.extend([string(b""), string(b"comment")].concat());
        list
    }

    fn with(kind: u8, section: &[u8]) -> Vec<u8> {
        [head(7, 1), vec![kind], string(section)].concat()
    }

    fn revoking(kind: u8, part: &[u8]) -> Vec<u8> {
        let key = PrivateKey::from(Ed25519Keypair::from_seed(&[7; 32]));
        let ca = string(&key.public_key().to_bytes().unwrap());
        with(SECTION_CERTIFICATES, &[ca, string(b""), vec![kind], string(part)].concat())
    }

    #[test]
    fn what_openssh_reads_is_read() {
        assert_eq!(number(&head(7, 1)), Ok(7));
        let serials = [1_u64.to_be_bytes(), u64::MAX.to_be_bytes()].concat();
        let bitmap = [1_u64.to_be_bytes().to_vec(), string(b"\x03")].concat();
        for list in [
            revoking(CERT_SERIAL_LIST, &serials),
            revoking(CERT_SERIAL_RANGE, &serials),
            revoking(CERT_SERIAL_BITMAP, &bitmap),
            revoking(CERT_KEY_ID, &string(b"some id")),
            with(SECTION_EXPLICIT_KEY, &string(b"blob")),
            with(SECTION_FINGERPRINT_SHA1, &string(&[0; 20])),
            with(SECTION_FINGERPRINT_SHA256, &string(&[0; 32])),
        ] {
            assert_eq!(number(&list), Ok(7));
            for length in 0..list.len() {
                let cut = &list[..length];
                assert!(cut.len() == head(7, 1).len() || number(cut).is_err(), "{length}");
            }
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let ca = PrivateKey::from(Ed25519Keypair::from_seed(&[7; 32])).public_key().to_bytes().unwrap();
        let list = write(7, 1, vec![(ca, vec![u64::MAX, 0, 1, 1])]);
        let serials = [1_u64.to_be_bytes(), u64::MAX.to_be_bytes()].concat();
        let expected =
            [write(7, 1, vec![]), revoking(CERT_SERIAL_LIST, &serials)[head(7, 1).len()..].to_vec()];
        assert_eq!(list, expected.concat());
        assert_eq!(read(&list), Ok(Krl { number: 7, date: 1, serials: vec![1, u64::MAX] }));
    }

    #[test]
    fn what_is_added_is_read_and_nothing_is_lost() {
        let known = revoking(CERT_SERIAL_LIST, &[4_u64.to_be_bytes(), 2_u64.to_be_bytes()].concat());
        let more = adding(known.clone(), [0, 1, 2, 9].into_iter()).unwrap();
        assert!(more.starts_with(&known));
        assert_eq!(read(&more).unwrap().serials, [1, 2, 4, 9]);
        assert_eq!(adding(more.clone(), [1, 4].into_iter()), Ok(more));
        let hashes = with(SECTION_FINGERPRINT_SHA256, &string(&[0; 32]));
        assert!(adding(hashes.clone(), [1].into_iter()).unwrap().starts_with(&hashes));
        assert!(adding(b"no list".to_vec(), [1].into_iter()).is_err());
    }

    #[test]
    fn a_list_goes_on_and_is_closed_and_opened() {
        let known = revoking(CERT_SERIAL_LIST, &2_u64.to_be_bytes());
        let next = advanced(known.clone(), 9, 8, [3, 2].into_iter()).unwrap();
        assert_eq!(read(&next), Ok(Krl { number: 9, date: 8, serials: vec![2, 3] }));
        assert!(advanced(known[..20].to_vec(), 9, 8, [].into_iter()).is_err());
        let blobs = [b"one".to_vec(), b"two".to_vec()];
        for list in [head(7, 1), known, next] {
            let shut = closed(list.clone(), &blobs);
            assert!(read(&shut).is_ok() && closed(shut.clone(), &blobs) == shut);
            assert_eq!((opened(&shut), opened(&list)), (Some(list.as_slice()), None));
        }
        assert_eq!((opened(b""), opened(&[0; 40])), (None, None));
    }

    #[test]
    fn what_openssh_does_not_read_is_refused() {
        let mut version = head(7, 1);
        version[11] = 2;
        let backwards = [2_u64.to_be_bytes(), 1_u64.to_be_bytes()].concat();
        let not_a_key = [string(b"not a key"), string(b"")].concat();
        for list in [
            b"".to_vec(),
            b"<html>not a list at all, but long enough to be one</html>".to_vec(),
            version,
            with(4, b"signature"),
            with(9, b""),
            with(SECTION_CERTIFICATES, &not_a_key),
            with(SECTION_FINGERPRINT_SHA256, &string(&[0; 20])),
            revoking(CERT_SERIAL_LIST, &[0; 8]),
            revoking(CERT_SERIAL_LIST, &[1; 9]),
            revoking(CERT_SERIAL_RANGE, &backwards),
            revoking(0x40, b""),
        ] {
            assert!(number(&list).is_err(), "{list:?}");
        }
    }

    #[test]
    fn bitmaps_and_ranges_are_serials() {
        let refused = |kind, part: &[u8]| {
            let all = Refusals::read(&revoking(kind, part)).unwrap();
            let (_, certificates) = all.of_cas.iter().next().unwrap();
            (0..30)
                .chain(u64::MAX - 3..=u64::MAX)
                .filter(|serial| certificates.has(*serial))
                .collect::<Vec<_>>()
        };
        let bitmap = |offset: u64, bits: &[u8]| [offset.to_be_bytes().to_vec(), string(bits)].concat();
        let range = |first: u64, last: u64| [first.to_be_bytes(), last.to_be_bytes()].concat();
        assert_eq!(refused(CERT_SERIAL_BITMAP, &bitmap(7, &[0, 1, 0x81])), [7, 14, 15]);
        assert_eq!(refused(CERT_SERIAL_RANGE, &range(2, 4)), [2, 3, 4]);
        assert_eq!(refused(CERT_SERIAL_RANGE, &range(u64::MAX - 1, u64::MAX)), [u64::MAX - 1, u64::MAX]);
        for broken in [bitmap(0, &[1]), bitmap(u64::MAX, &[2])] {
            assert!(read(&revoking(CERT_SERIAL_BITMAP, &broken)).is_err());
        }
    }

    #[test]
    fn number_and_date_may_differ() {
        assert!(same(&head(7, 1), &head(8, 2)) && !same(&head(7, 1), &revoking(CERT_SERIAL_LIST, &[1; 8])));
        assert!(!same(&head(7, 1), b"") && same(b"", b""));
    }

    proptest! {
        /// Ranges that overlap, touch and hold one another are what they are together.
        #[test]
        fn serials_are_in_their_ranges(ranges in proptest::collection::vec((1_u64..60, 0_u64..9), 0..9), more in proptest::collection::vec(1_u64..60, 0..9)) {
            let part = |(first, length): &(u64, u64)| {
                [vec![CERT_SERIAL_RANGE], string(&[first.to_be_bytes(), (first + length).to_be_bytes()].concat())].concat()
            };
            let parts: Vec<u8> = ranges.iter().flat_map(part).collect();
            let listed: Vec<u8> = more.iter().flat_map(|serial| serial.to_be_bytes()).collect();
            let list = [vec![CERT_SERIAL_LIST], string(&listed)].concat();
            let section = [string(b""), string(b""), parts, list].concat();
            let all = Refusals::read(&with(SECTION_CERTIFICATES, &section)).unwrap();
            for serial in 0..80 {
                let expected = more.contains(&serial)
                    || ranges.iter().any(|(first, length)| (*first..=first + length).contains(&serial));
                prop_assert_eq!(all.of_cas.values().any(|certificates| certificates.has(serial)), expected);
            }
        }

        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100), at in any::<prop::sample::Index>(), byte: u8) {
            let _ = (number(&bytes), opened(&bytes));
            let _ = number(&[head(1, 1), bytes].concat());
            let mut damaged = revoking(CERT_SERIAL_LIST, &[1; 16]);
            let place = at.index(damaged.len());
            damaged[place] = byte;
            let _ = (number(&damaged), opened(&damaged));
        }
    }
}
