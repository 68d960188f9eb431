//! Reading an X.509 revocation list (RFC 5280, section 5) before a TLS server
//! does: signed by the CA, in force, and not older than the one that is there.

use std::collections::BTreeSet;

use ring::digest::{SHA256, digest};
use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::prelude::{
    AttributeTypeAndValue, CertificateRevocationList, FromDer as _, ParsedExtension, X509Name,
};
use zeroize::Zeroizing;

use crate::net::pin_of;
use crate::pem;
use crate::text::hex;

/// What stands around a list in PEM.
pub const ARMOUR: &str = "X509 CRL";

/// What a list says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crl {
    /// Its number; that of a later list is higher. Big-endian, without leading zeros.
    pub number: Vec<u8>,
    /// When it was made, in seconds since 1970.
    pub made: i64,
    /// Until when it is good; servers refuse everybody afterwards.
    pub until: i64,
    /// What it revokes.
    pub serials: BTreeSet<u64>,
    /// The pin of the CA that has signed it.
    pub signer: String,
    issuer: CrlIssuer,
}

/// Which CA a list is of: its name, and its key's identifier.
type CrlIssuer = (Vec<u8>, Option<Vec<u8>>);

fn issuer(list: &CertificateRevocationList<'_>) -> CrlIssuer {
    let key = list.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0.to_vec()),
        _ => None,
    });
    (list.issuer().as_raw().to_vec(), key)
}

/// A serial (DER's `INTEGER`, which is negative with its first bit) of at most 64 bits, as all of ours are.
fn serial(bytes: &[u8]) -> Option<u64> {
    let positive = Some(bytes).filter(|bytes| bytes.first().is_some_and(|first| *first < 0x80))?;
    positive.iter().try_fold(0_u64, |serial, byte| serial.checked_mul(256)?.checked_add(u64::from(*byte)))
}

/// What one CA has revoked, for a server that says who its clients are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// The CA's name as OpenSSL prints it on one line, and PostgreSQL with it: `/CN=…`.
    pub issuer: String,
    /// The serials.
    pub serials: BTreeSet<u64>,
}

/// What lists in PEM revoke, which have been judged when they were put there.
pub fn revoked(text: &[u8]) -> Result<Vec<Revoked>, String> {
    let text = std::str::from_utf8(text).map_err(|_| "it is no list in PEM")?;
    let lists =
        pem::decode_all(text, ARMOUR).filter(|lists| !lists.is_empty()).ok_or("it is no list in PEM")?;
    let revoked = |der: &Zeroizing<Vec<u8>>| {
        let (_, list) = CertificateRevocationList::from_der(der).map_err(|error| error.to_string())?;
        // What no authority of ours gives is no certificate of ours.
        let serials = list.iter_revoked_certificates().filter_map(|one| serial(one.raw_serial())).collect();
        Ok(Revoked { issuer: one_line(list.issuer()), serials })
    };
    lists.iter().map(revoked).collect()
}

/// As `X509_NAME_to_cstring` of PostgreSQL's, with what RFC 2253 escapes.
fn one_line(name: &X509Name<'_>) -> String {
    let part = |attribute: &AttributeTypeAndValue<'_>| {
        let oid = attribute.attr_type();
        let kind = oid2abbrev(oid, oid_registry()).map_or_else(|_| oid.to_id_string(), str::to_owned);
        let value = attribute.as_str().unwrap_or_default();
        let escaped = value.chars().enumerate().map(|(at, c)| {
            let is_end = at == 0 || at + 1 == value.chars().count();
            let escape = ",+\"\\<>;".contains(c) || c == '#' && at == 0 || c == ' ' && is_end;
            if escape { format!("\\{c}") } else { c.to_string() }
        });
        format!("/{kind}={}", escaped.collect::<String>())
    };
    name.iter_attributes().map(part).collect()
}

/// What is signed of a list in DER (`TBSCertList`), which replicas have in common.
pub fn signed_part(der: &[u8]) -> Result<Vec<u8>, String> {
    let (_, list) = CertificateRevocationList::from_der(der).map_err(|error| error.to_string())?;
    Ok(list.tbs_cert_list.as_ref().to_vec())
}

impl Crl {
    /// Reads a list in DER that one of these CAs (certificates in DER) signed,
    /// or says why a server would not take it.
    pub fn parse(der: &[u8], cas: &[Vec<u8>]) -> Result<Self, String> {
        let (rest, list) = CertificateRevocationList::from_der(der).map_err(|error| error.to_string())?;
        if !rest.is_empty() {
            return Err("something follows it".to_owned());
        }
        let signed = cas.iter().find(|ca| {
            let Ok((_, ca)) = x509_parser::parse_x509_certificate(ca) else { return false };
            ca.subject().as_raw() == list.issuer().as_raw() && list.verify_signature(ca.public_key()).is_ok()
        });
        let signer = pin_of(signed.ok_or("none of the TLS CAs has signed it")?);
        let number = list.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::CRLNumber(number) => Some(number.to_bytes_be()),
            _ => None,
        });
        Ok(Self {
            number: number.ok_or("it has no number")?,
            signer: signer.map_err(|error| error.to_string())?,
            issuer: issuer(&list),
            made: list.last_update().timestamp(),
            until: list.next_update().ok_or("it does not say until when it is good")?.timestamp(),
            serials: list
                .iter_revoked_certificates()
                .map(|one| serial(one.raw_serial()))
                .collect::<Option<_>>()
                .ok_or("it has a serial that no authority gives")?,
        })
    }

    /// Names its CA.
    pub fn ca(&self) -> String {
        let (name, key) = &self.issuer;
        hex(digest(&SHA256, &[name, key.as_deref().unwrap_or_default()].concat()).as_ref())
    }

    /// Whether a list in DER says that it is of the same CA, be it or not.
    pub fn is_of_same(&self, der: &[u8]) -> Result<bool, String> {
        let (_, list) = CertificateRevocationList::from_der(der).map_err(|error| error.to_string())?;
        Ok(self.issuer == issuer(&list))
    }

    /// Whether this one was made before the other of the same CA. Each CA
    /// counts on its own (RFC 5280, section 5.2.3), so of lists of two, neither is.
    pub fn is_before(&self, other: &Self) -> bool {
        self.issuer == other.issuer && (self.number.len(), &self.number) < (other.number.len(), &other.number)
    }

    /// Whether this one still serves in place of a newer one: it revokes the
    /// same, and less than half of its time is over.
    pub fn serves_like(&self, newer: &Self, now: i64) -> bool {
        self.issuer == newer.issuer
            && self.serials == newer.serials
            && now.saturating_sub(self.made) < self.until.saturating_sub(self.made) / 2
    }
}

#[cfg(test)]
pub(super) mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, CertificateRevocationListParams, IsCa, Issuer, KeyIdMethod,
        KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, RevokedCertParams, SerialNumber, date_time_ymd,
    };

    use super::*;

    /// A CA of the same name as every other, and its certificate in DER.
    pub(in crate::host) fn ca() -> (CertificateParams, KeyPair, Vec<u8>) {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let der = params.self_signed(&key).unwrap().der().to_vec();
        (params, key, der)
    }

    /// A list of 1 to 3 January 2026, in DER.
    pub(in crate::host) fn list(
        ca: &(CertificateParams, KeyPair, Vec<u8>),
        number: u64,
        serials: &[u64],
    ) -> Vec<u8> {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2026, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 1),
            next_update: date_time_ymd(2026, 1, 3),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&Issuer::from_params(&ca.0, &ca.1)).unwrap().der().to_vec()
    }

    #[test]
    fn only_a_list_of_the_ca_is_taken() {
        let (ours, theirs) = (ca(), ca());
        let der = list(&ours, 7, &[5]);
        let crl = Crl::parse(&der, &[theirs.2.clone(), ours.2.clone()]).unwrap();
        assert_eq!((crl.number.as_slice(), crl.until - crl.made), ([7].as_slice(), 2 * 86_400));
        assert!(Crl::parse(&der, std::slice::from_ref(&theirs.2)).unwrap_err().contains("has signed it"));
        assert!(Crl::parse(&der, &[]).is_err());
        assert!(Crl::parse(&[der.as_slice(), b"x"].concat(), std::slice::from_ref(&ours.2)).is_err());
        for at in 0..der.len() {
            let mut damaged = der.clone();
            damaged[at] ^= 1;
            // A bit that nothing depends on may differ: the signature is over what is read.
            let read = Crl::parse(&damaged, std::slice::from_ref(&ours.2));
            assert!(read.is_err() || read.as_ref() == Ok(&crl), "{at}: {read:?}");
            assert!(Crl::parse(&der[..at], std::slice::from_ref(&ours.2)).is_err(), "{at}");
        }
    }

    #[test]
    fn newer_and_still_good() {
        let ours = ca();
        let read = |number, serials: &[u64]| {
            Crl::parse(&list(&ours, number, serials), std::slice::from_ref(&ours.2)).unwrap()
        };
        let old = read(255, &[5]);
        assert!(old.is_before(&read(256, &[5])) && !read(256, &[5]).is_before(&old) && !old.is_before(&old));
        let [one, other] = [(); 2].map(|()| signed_part(&list(&ours, 7, &[5])).unwrap());
        assert!(one == other && one != signed_part(&list(&ours, 8, &[5])).unwrap());
        assert!(signed_part(b"nothing").is_err());
        let (young, aged) = (old.made + 86_399, old.made + 86_400);
        assert!(old.serves_like(&read(255, &[5]), young) && !old.serves_like(&read(255, &[5]), aged));
        assert!(old.serves_like(&read(256, &[5]), young) && !old.serves_like(&read(256, &[]), young));
        // Of another CA, though of the same name, the number says nothing.
        let theirs = ca();
        let other = Crl::parse(&list(&theirs, 3, &[5]), std::slice::from_ref(&theirs.2)).unwrap();
        assert!(!other.is_before(&old) && !old.is_before(&other));
        let same_number = Crl::parse(&list(&theirs, 255, &[5]), std::slice::from_ref(&theirs.2)).unwrap();
        assert!(!old.serves_like(&same_number, young));
        assert!(
            old.is_of_same(&list(&ours, 2, &[7])).unwrap()
                && !old.is_of_same(&list(&theirs, 1, &[])).unwrap()
        );
        assert!(old.is_of_same(b"nothing").is_err());
    }
}
