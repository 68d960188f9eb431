//! The CA of X.509 certificates.

use std::path::Path;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType, IsCa,
    Issuer, KeyUsagePurpose, SerialNumber, SubjectPublicKeyInfo,
};
use ring::digest::{SHA256, digest};
use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;

use super::private::{PrivateKey, Public, lacking};
use super::signer::Signer;
use super::{crl, subject};
use crate::authority::validity::Validity;
use crate::clock::LEEWAY;
use crate::error::{Context as _, Error, Kind, Result};
use crate::folder::read::{self, Limit, Trust};
use crate::folder::trust::Owner;
use crate::folder::{PRIVATE_FILE, replace};
use crate::pem;
use crate::random;
use crate::text::hex;

/// How long its own certificate is valid, in days.
const DAYS: i64 = 3650;

/// The CA of X.509 certificates.
#[derive(Clone, Debug)]
pub(super) struct TlsCa {
    /// Its key, where that can be reached.
    pub(super) key: Option<Arc<dyn PrivateKey>>,
    pub(super) certificate: Arc<TlsCaCertificate>,
    /// Chains of certificates for its key by others, in PEM.
    pub(super) cross: Vec<String>,
}

/// What everybody may know of the TLS CA.
#[derive(Debug)]
pub struct TlsCaCertificate {
    /// Its certificate.
    pub(super) der: Vec<u8>,
    /// The same in PEM, as it stands in the file.
    pub(super) pem: String,
    /// When it is good.
    pub validity: Validity,
}

/// Makes the certificate of the first CA, for itself, and puts it there.
pub(super) fn create(key: &dyn PrivateKey, path: &Path, cluster: &str, now: i64) -> Result<()> {
    let certificate = self_signed(key, name(cluster), now)?;
    replace::write_new(path, certificate.as_bytes(), PRIVATE_FILE)?;
    let folder = path.parent().unwrap_or(path);
    replace::sync(folder).context(Kind::Usage, format!("cannot sync {}", folder.display()))
}

fn name(cluster: &str) -> String {
    format!("{cluster} machine-id CA")
}

/// The certificate of a later CA, for itself, in PEM: no two of an authority have one name.
pub(super) fn create_later(key: &dyn PrivateKey, cluster: &str, now: i64) -> Result<String> {
    let id: String = hex(digest(&SHA256, key.spki()).as_ref()).chars().take(8).collect();
    self_signed(key, format!("{} {id}", name(cluster)), now)
}

fn self_signed(key: &dyn PrivateKey, name: String, now: i64) -> Result<String> {
    let mut params = params(random::serial()?, now, now.saturating_add(DAYS * 86_400))?;
    params.distinguished_name.push(DnType::CommonName, name);
    // One below it is what takes its place, signed by it for those that know no other.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let public = Public::of(key)?;
    let signer = Signer::new(key, &public);
    let certificate = params.self_signed(&signer).context(Kind::Internal, "new TLS CA");
    Ok(certificate.map_err(|error| signer.failure(error))?.pem())
}

/// The certificate in that file.
///
/// # Errors
/// `Kind::Usage` where it cannot be read, or is none.
pub(super) fn read(path: &Path, owner: Owner) -> Result<TlsCaCertificate> {
    let text = read::text(path, Trust::Operators(owner), Limit::FILE)?;
    TlsCaCertificate::parse(&text).map_err(|why| Error::usage(format!("{} {why}", path.display())))
}

impl TlsCaCertificate {
    /// The certificate in that file, without its key; none where it is not there.
    ///
    /// # Errors
    /// `Kind::Usage` where it cannot be read, or is none.
    pub fn find(path: &Path, owner: Owner) -> Result<Option<Self>> {
        path.exists().then(|| read(path, owner)).transpose()
    }

    /// In PEM; an error is in words that follow what it is.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let der = pem::decode_all(text, "CERTIFICATE").and_then(|all| all.into_iter().next());
        let der = der.ok_or_else(|| "is not a certificate".to_owned())?.to_vec();
        let validity = Validity::of(&der)?;
        Ok(Self { der, pem: text.trim_end().to_owned() + "\n", validity })
    }

    /// The SHA-256 of its SubjectPublicKeyInfo.
    pub(super) fn key_hash(&self) -> Result<Vec<u8>> {
        let (_, read) = x509_parser::parse_x509_certificate(&self.der).context(Kind::Internal, "X.509")?;
        Ok(digest(&SHA256, read.public_key().raw).as_ref().to_vec())
    }
}

impl TlsCa {
    /// The CA of that certificate, with its key where there is one.
    pub(super) fn new(key: Option<Arc<dyn PrivateKey>>, certificate: TlsCaCertificate) -> Result<Self> {
        let ca = Self { key, certificate: Arc::new(certificate), cross: Vec::new() };
        if let Some(key) = &ca.key {
            let der = &ca.certificate.der;
            let (_, parsed) = x509_parser::parse_x509_certificate(der).context(Kind::Usage, "X.509")?;
            if parsed.public_key().raw != key.spki() {
                return Err(Error::usage("it is of another key"));
            }
            let public = Public::of(key.as_ref())?;
            ca.issuer(key.as_ref(), &public).map_err(|error| Error::usage(error.to_string()))?;
        }
        Ok(ca)
    }

    /// As what it signs names it, for one signature.
    fn issuer<'k>(&self, key: &'k dyn PrivateKey, public: &'k Public) -> Result<Issuer<'static, Signer<'k>>> {
        let der = CertificateDer::from(&*self.certificate.der);
        Issuer::from_ca_cert_der(&der, Signer::new(key, public))
            .context(Kind::Internal, "the TLS CA's certificate")
    }

    /// A certificate by this CA for another's key, under the name that it has for itself; in PEM. It ends with the first of both.
    pub(super) fn cross_sign(&self, other: &TlsCaCertificate, now: i64) -> Result<String> {
        let failed = "a certificate for the next TLS CA";
        let (_, read) = x509_parser::parse_x509_certificate(&other.der).context(Kind::Internal, failed)?;
        let until = self.certificate.validity.until.min(other.validity.until);
        let mut params = params(random::serial()?, now, until)?;
        let name = read.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
        let name = name.ok_or_else(|| Error::internal(failed))?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.use_authority_key_identifier_extension = true;
        self.sign(&params, read.public_key().raw, None)
    }

    pub(super) fn sign(
        &self,
        params: &CertificateParams,
        spki: &[u8],
        subject: Option<&[u8]>,
    ) -> Result<String> {
        if params.not_after.unix_timestamp() > self.certificate.validity.until {
            return Err(Error::internal("an X.509 certificate that would outlive its CA"));
        }
        let key = SubjectPublicKeyInfo::from_der(spki).context(Kind::Internal, "a planned TLS key")?;
        let private = self.key.as_deref().ok_or_else(lacking)?;
        let public = Public::of(private)?;
        let issuer = self.issuer(private, &public)?;
        let certificate = params
            .signed_by(&key, &issuer)
            .context(Kind::Internal, "cannot sign an X.509 certificate")
            .map_err(|error| issuer.key().failure(error))?;
        let der = match subject {
            Some(subject) => subject::exchange(certificate.der(), subject, issuer.key())
                .map_err(|error| issuer.key().failure(error))?,
            None => certificate.der().to_vec(),
        };
        Ok(pem::encode("CERTIFICATE", &der).to_string())
    }

    pub(super) fn sign_crl(
        &self,
        list: &CertificateRevocationListParams,
        revoked: impl ExactSizeIterator<Item = (u64, i64)>,
    ) -> Result<Vec<u8>> {
        let private = self.key.as_deref().ok_or_else(lacking)?;
        let public = Public::of(private)?;
        let issuer = self.issuer(private, &public)?;
        let failed = "cannot sign the revocation list";
        let crl = list
            .signed_by(&issuer)
            .context(Kind::Internal, failed)
            .map_err(|error| issuer.key().failure(error))?;
        crl::with_certificates(crl.der(), revoked, issuer.key()).map_err(|error| issuer.key().failure(error))
    }
}

/// Valid from a minute back, since clocks differ.
pub(in crate::authority) fn valid_from(now: i64) -> i64 {
    now.saturating_sub(LEEWAY)
}

/// What every X.509 certificate of ours begins with.
pub(in crate::authority) fn params(serial: u64, now: i64, until: i64) -> Result<CertificateParams> {
    let time = |unix| OffsetDateTime::from_unix_timestamp(unix).context(Kind::Internal, "validity");
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.serial_number = Some(SerialNumber::from_slice(&serial.to_be_bytes()));
    (params.not_before, params.not_after) = (time(valid_from(now))?, time(until)?);
    Ok(params)
}
