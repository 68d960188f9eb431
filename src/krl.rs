//! Key revocation lists (`PROTOCOL.krl` of OpenSSH), written by the authority,
//! and read before `sshd` does: with one that it cannot read, it refuses every key.

use crate::rfc4251::{Decoder, put_string};

/// The head of every list.
const MAGIC: &[u8] = b"SSHKRL\n\0";
const FORMAT_VERSION: u32 = 1;
/// Where the date of its making stands: behind magic, format and number.
const DATE: std::ops::Range<usize> = 20..28;

const SECTION_CERTIFICATES: u8 = 1;
const SECTION_EXPLICIT_KEY: u8 = 2;
const SECTION_FINGERPRINT_SHA1: u8 = 3;
const SECTION_FINGERPRINT_SHA256: u8 = 5;
const CERT_SERIAL_LIST: u8 = 0x20;
const CERT_SERIAL_RANGE: u8 = 0x21;
const CERT_SERIAL_BITMAP: u8 = 0x22;
const CERT_KEY_ID: u8 = 0x23;

/// Reads a list to its end as OpenSSH would; its number, which grows with each revocation.
pub fn number(list: &[u8]) -> Result<u64, &'static str> {
    let mut reader = Decoder::new(list);
    if reader.take(MAGIC.len())? != MAGIC {
        return Err("it does not begin like a key revocation list");
    }
    if reader.u32()? != FORMAT_VERSION {
        return Err("it is of another format version");
    }
    let number = reader.u64()?;
    let (_date, _flags) = (reader.u64()?, reader.u64()?);
    let (_reserved, _comment) = (reader.string()?, reader.string()?);
    while !reader.is_empty() {
        let kind = reader.u8()?;
        let section = Decoder::new(reader.string()?);
        match kind {
            SECTION_CERTIFICATES => certificates(section)?,
            SECTION_EXPLICIT_KEY => entries(section, |key| !key.is_empty())?,
            SECTION_FINGERPRINT_SHA1 => entries(section, |hash| hash.len() == 20)?,
            SECTION_FINGERPRINT_SHA256 => entries(section, |hash| hash.len() == 32)?,
            _ => return Err("it has a section of an unknown kind"),
        }
    }
    Ok(number)
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
    if serials.is_empty() {
        return list;
    }
    let serials: Vec<u8> = serials.into_iter().flat_map(u64::to_be_bytes).collect();
    for blob in ca_blobs {
        let mut section = Vec::with_capacity(serials.len() + blob.len() + 16);
        put_string(&mut section, blob);
        put_string(&mut section, b""); // reserved
        section.push(CERT_SERIAL_LIST);
        put_string(&mut section, &serials);
        list.push(SECTION_CERTIFICATES);
        put_string(&mut list, &section);
    }
    list
}

/// Whether two lists differ in nothing but the date of their making.
pub fn same(one: &[u8], other: &[u8]) -> bool {
    let undated = |list: &[u8]| {
        let (head, rest) = list.split_at(DATE.start.min(list.len()));
        [head, rest.get(DATE.len()..).unwrap_or_default()].concat()
    };
    undated(one) == undated(other)
}

fn certificates(mut section: Decoder<'_>) -> Result<(), &'static str> {
    let (ca, _reserved) = (section.string()?, section.string()?);
    // An empty one stands for every CA.
    if !ca.is_empty() && ssh_key::PublicKey::from_bytes(ca).is_err() {
        return Err("a CA in it is not an SSH public key");
    }
    while !section.is_empty() {
        let kind = section.u8()?;
        let mut part = Decoder::new(section.string()?);
        match kind {
            CERT_SERIAL_LIST => {
                while !part.is_empty() {
                    if part.u64()? == 0 {
                        return Err("it has the serial 0, which OpenSSH does not take");
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
        assert_eq!(number(&list), Ok(7));
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
    fn only_the_date_may_differ() {
        assert!(same(&head(7, 1), &head(7, 2)) && !same(&head(7, 1), &head(8, 1)));
        assert!(!same(&head(7, 1), b"") && same(b"", b""));
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100), at in any::<prop::sample::Index>(), byte: u8) {
            let _ = number(&bytes);
            let _ = number(&[head(1, 1), bytes].concat());
            let mut damaged = revoking(CERT_SERIAL_LIST, &[1; 16]);
            let place = at.index(damaged.len());
            damaged[place] = byte;
            let _ = number(&damaged);
        }
    }
}
