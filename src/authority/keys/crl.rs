//! A revocation list of any length (RFC 5280, section 5), in as much memory as it is long: rcgen's parameters take ten times
//! that. It makes the list without certificates; they are put in their place, and the new body is signed.

use std::time::Duration;

use der::asn1::{GeneralizedTime, UintRef, UtcTime};
use der::{Encode, Header, Length, Tag};
use rcgen::SigningKey;
use yasna::{construct_der, parse_der};

use super::subject::elements;
use crate::error::{Context as _, Error, Kind, Result};

/// The elements of a `TBSCertList` without certificates: version, algorithm, issuer, two times and extensions.
const ELEMENTS: usize = 6;
/// What an entry takes: two heads, a serial of 63 bits, and a time of this half of the century.
const ENTRY: usize = 27;

/// Puts these certificates on a list that has none, each with when it was revoked (in seconds since 1970), and signs it: it is a draft of that key's.
pub(super) fn with_certificates(
    list: &[u8],
    revoked: impl ExactSizeIterator<Item = (u64, i64)>,
    key: &impl SigningKey,
) -> Result<Vec<u8>> {
    let failed = "cannot write the revocation list";
    let parts = parse_der(list, |reader| elements(reader, 3)).context(Kind::Internal, failed)?;
    let [body, algorithm, _signature] = parts.as_slice() else { return Err(Error::internal(failed)) };
    let mut body = parse_der(body, |reader| elements(reader, ELEMENTS)).context(Kind::Internal, failed)?;
    let extensions = body.pop().unwrap_or_default();
    let mut list = Vec::with_capacity(revoked.len() * ENTRY + (4 << 10));
    for (serial, time) in revoked {
        put(&mut list, serial, time).context(Kind::Internal, failed)?;
    }
    // Without certificates there is no list of them either.
    if !list.is_empty() {
        enclose(&mut list)?;
    }
    list.splice(0..0, body.concat());
    list.extend(extensions);
    enclose(&mut list)?;
    let signature = key.sign(&list).context(Kind::Internal, failed)?;
    list.extend(algorithm);
    list.extend(construct_der(|writer| writer.write_bitvec_bytes(&signature, signature.len() * 8)));
    enclose(&mut list)?;
    Ok(list)
}

/// Makes a sequence of it, where it stands.
fn enclose(content: &mut Vec<u8>) -> Result<()> {
    let head =
        Length::try_from(content.len()).and_then(|length| Header::new(Tag::Sequence, length)?.to_der());
    content.splice(0..0, head.context(Kind::Internal, "a revocation list that is too long")?);
    Ok(())
}

/// Behind 2049 times have another form.
fn put(list: &mut Vec<u8>, serial: u64, time: i64) -> der::Result<()> {
    let (bytes, time) = (serial.to_be_bytes(), Duration::from_secs(u64::try_from(time).unwrap_or(0)));
    let serial = UintRef::new(&bytes)?;
    match UtcTime::from_unix_duration(time) {
        Ok(time) => put_both(list, &serial, &time),
        Err(_) => put_both(list, &serial, &GeneralizedTime::from_unix_duration(time)?),
    }
}

fn put_both(list: &mut Vec<u8>, serial: &impl Encode, time: &impl Encode) -> der::Result<()> {
    Header::new(Tag::Sequence, (serial.encoded_len()? + time.encoded_len()?)?)?.encode(list)?;
    serial.encode(list)?;
    time.encode(list)
}
