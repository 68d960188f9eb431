//! Key revocation lists (`PROTOCOL.krl` of OpenSSH), written by the authority,
//! and read before `sshd` does: with one that it cannot read, it refuses every key.

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

/// Reads a list to its end as OpenSSH would.
pub fn read(list: &[u8]) -> Result<Krl, &'static str> {
    let mut reader = Decoder::new(list);
    if reader.take(MAGIC.len())? != MAGIC {
        return Err("it does not begin like a key revocation list");
    }
    if reader.u32()? != FORMAT_VERSION {
        return Err("it is of another format version");
    }
    let (number, date, _flags) = (reader.u64()?, reader.u64()?, reader.u64()?);
    let (_reserved, _comment) = (reader.string()?, reader.string()?);
    let mut serials = Vec::new();
    while !reader.is_empty() {
        let kind = reader.u8()?;
        let section = Decoder::new(reader.string()?);
        match kind {
            SECTION_CERTIFICATES => certificates(section, &mut serials)?,
            SECTION_EXPLICIT_KEY => entries(section, |key| !key.is_empty())?,
            SECTION_FINGERPRINT_SHA1 => entries(section, |hash| hash.len() == 20)?,
            SECTION_FINGERPRINT_SHA256 => entries(section, |hash| hash.len() == 32)?,
            _ => return Err("it has a section of an unknown kind"),
        }
    }
    serials.sort_unstable();
    serials.dedup();
    Ok(Krl { number, date, serials })
}

/// A list of that number, made at `date` (seconds since 1970), which revokes
/// the serials for each of the CAs, given as public key blobs (RFC 4253,
/// section 6.6). Not signed, as OpenSSH has no use for that.
pub fn write(number: u64, date: u64, ca_blobs: &[Vec<u8>], mut serials: Vec<u64>) -> Vec<u8> {
    let mut list = MAGIC.to_vec();
    list.extend(FORMAT_VERSION.to_be_bytes());
    list.extend([number, date, 0].into_iter().flat_map(u64::to_be_bytes)); // 0: flags
    put_string(&mut list, b""); // reserved
    put_string(&mut list, b"machine-id"); // comment
    // OpenSSH takes no serial 0, and we never issue it.
    serials.retain(|serial| *serial != 0);
    serials.sort_unstable();
    serials.dedup();
    for blob in ca_blobs {
        put_serials(&mut list, blob, &serials);
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
    let serials: Vec<u8> = serials.iter().copied().flat_map(u64::to_be_bytes).collect();
    let mut section = Vec::with_capacity(serials.len() + ca.len() + 16);
    put_string(&mut section, ca);
    put_string(&mut section, b""); // reserved
    section.push(CERT_SERIAL_LIST);
    put_string(&mut section, &serials);
    list.push(SECTION_CERTIFICATES);
    put_string(list, &section);
}

/// Whether two lists revoke the same in the same words, whenever they were made.
pub fn same(one: &[u8], other: &[u8]) -> bool {
    let undated = |list: &[u8]| {
        let (head, rest) = list.split_at(NUMBER_AND_DATE.start.min(list.len()));
        [head, rest.get(NUMBER_AND_DATE.len()..).unwrap_or_default()].concat()
    };
    undated(one) == undated(other)
}

fn certificates(mut section: Decoder<'_>, serials: &mut Vec<u64>) -> Result<(), &'static str> {
    let (ca, _reserved) = (section.string()?, section.string()?);
    if ca != EVERY_CA && ssh_key::PublicKey::from_bytes(ca).is_err() {
        return Err("a CA in it is not an SSH public key");
    }
    while !section.is_empty() {
        let kind = section.u8()?;
        let mut part = Decoder::new(section.string()?);
        match kind {
            CERT_SERIAL_LIST => {
                while !part.is_empty() {
                    match part.u64()? {
                        0 => return Err("it has the serial 0, which OpenSSH does not take"),
                        serial => serials.push(serial),
                    }
                }
            }
            CERT_SERIAL_RANGE => {
                let (low, high) = (part.u64()?, part.u64()?);
                if low == 0 || low > high || !part.is_empty() {
                    return Err("it has a broken range of serials");
                }
            }
            CERT_SERIAL_BITMAP => {
                let (_offset, _bits) = (part.u64()?, part.string()?);
                if !part.is_empty() {
                    return Err("it has a broken bitmap of serials");
                }
            }
            CERT_KEY_ID => entries(part, |_| true)?,
            _ => return Err("it revokes certificates in an unknown way"),
        }
    }
    Ok(())
}

fn entries(mut section: Decoder<'_>, fits: impl Fn(&[u8]) -> bool) -> Result<(), &'static str> {
    while !section.is_empty() {
        if !fits(section.string()?) {
            return Err("it has a key or hash of the wrong length");
        }
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
        let list = write(7, 1, &[ca], vec![u64::MAX, 0, 1, 1]);
        let serials = [1_u64.to_be_bytes(), u64::MAX.to_be_bytes()].concat();
        let expected =
            [write(7, 1, &[], vec![1]), revoking(CERT_SERIAL_LIST, &serials)[head(7, 1).len()..].to_vec()];
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
    fn number_and_date_may_differ() {
        assert!(same(&head(7, 1), &head(8, 2)) && !same(&head(7, 1), &revoking(CERT_SERIAL_LIST, &[1; 8])));
        assert!(!same(&head(7, 1), b"") && same(b"", b""));
    }

    proptest! {
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
