//! A certificate whose subject has an attribute more than once, as Kubernetes'
//! groups do: rcgen's names hold each attribute once.
//!
//! The certificate is drafted by rcgen first, unsigned; its subject is exchanged, and the
//! new body signed. Everything else stays as rcgen wrote it (RFC 5280, section 4.1).

use rcgen::SigningKey;
use yasna::{ASN1Result, BERReader, construct_der, parse_der};

use crate::error::{Context as _, Error, Kind, Result};

/// Where the subject stands in what is signed, and of how many elements: in a `TBSCertificate` with version and extensions behind
/// version, serial, algorithm, issuer and validity.
pub(super) const CERTIFICATE: (usize, usize) = (5, 8);
/// In a `CertificationRequestInfo` behind the version.
pub(super) const REQUEST: (usize, usize) = (1, 4);

/// Exchanges the subject of a certificate or a request, which is a draft of that key's, and signs it.
pub(super) fn exchange(
    certificate: &[u8],
    (at, count): (usize, usize),
    subject: &[u8],
    key: &impl SigningKey,
) -> Result<Vec<u8>> {
    let failed = "cannot write the subject of an X.509 certificate";
    let parts = parse_der(certificate, |reader| elements(reader, 3)).context(Kind::Internal, failed)?;
    let [body, algorithm, _signature] = parts.as_slice() else { return Err(Error::internal(failed)) };
    let mut body = parse_der(body, |reader| elements(reader, count)).context(Kind::Internal, failed)?;
    *body.get_mut(at).ok_or_else(|| Error::internal(failed))? = subject.to_vec();
    let body = construct_der(|writer| {
        writer.write_sequence(|writer| body.iter().for_each(|part| writer.next().write_der(part)));
    });
    let signature = key.sign(&body).context(Kind::Internal, failed)?;
    Ok(construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_der(&body);
            writer.next().write_der(algorithm);
            writer.next().write_bitvec_bytes(&signature, signature.len() * 8);
        });
    }))
}

/// The elements of a sequence, each whole; an error where there are more or fewer.
pub(super) fn elements(reader: BERReader<'_, '_>, count: usize) -> ASN1Result<Vec<Vec<u8>>> {
    reader.read_sequence(|reader| (0..count).map(|_| reader.next().read_der()).collect())
}
