//! The CA of X.509 certificates.

use std::path::Path;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType, IsCa,
    Issuer, KeyUsagePurpose, SerialNumber, SubjectPublicKeyInfo,
};
use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;

use super::private::{PrivateKey, Public};
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

/// How long its own certificate is valid, in days.
const DAYS: i64 = 3650;

/// The CA of X.509 certificates.
#[derive(Clone, Debug)]
pub(super) struct TlsCa {
    pub(super) key: Arc<dyn PrivateKey>,
    public: Public,
    pub(super) certificate: Arc<TlsCaCertificate>,
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

/// Makes the certificate of a new CA, for itself, and puts it there.
pub(super) fn create(key: &dyn PrivateKey, path: &Path, cluster: &str, now: i64) -> Result<()> {
    let until = now.saturating_add(DAYS * 86_400);
    let mut params = params(random::serial()?, now, until)?;
    params.distinguished_name.push(DnType::CommonName, format!("{cluster} machine-id CA"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let public = Public::of(key)?;
    let signer = Signer::new(key, &public);
    let certificate = params
        .self_signed(&signer)
        .context(Kind::Internal, "new TLS CA")
        .map_err(|error| signer.failure(error))?;
    replace::write_new(path, certificate.pem().as_bytes(), PRIVATE_FILE)?;
    let folder = path.parent().unwrap_or(path);
    replace::sync(folder).context(Kind::Usage, format!("cannot sync {}", folder.display()))
}

/// The certificate in that file.
///
/// # Errors
/// `Kind::Usage` where it cannot be read, or is none.
pub(super) fn read(path: &Path, owner: Owner) -> Result<TlsCaCertificate> {
    let text = read::text(path, Trust::Operators(owner), Limit::FILE)?;
    let unfit = |why: &str| Error::usage(format!("{} {why}", path.display()));
    let der = pem::decode_all(&text, "CERTIFICATE").and_then(|all| all.into_iter().next());
    let der = der.ok_or_else(|| unfit("is not a certificate"))?.to_vec();
    let validity = Validity::of(&der).map_err(|why| unfit(&why))?;
    Ok(TlsCaCertificate { der, pem: text.trim_end().to_owned() + "\n", validity })
}

impl TlsCaCertificate {
    /// The certificate in that file, without its key; none where it is not there.
    ///
    /// # Errors
    /// `Kind::Usage` where it cannot be read, or is none.
    pub fn find(path: &Path, owner: Owner) -> Result<Option<Self>> {
        path.exists().then(|| read(path, owner)).transpose()
    }
}

impl TlsCa {
    /// The CA of that key and certificate, which lies at `path`.
    pub(super) fn new(key: Arc<dyn PrivateKey>, certificate: TlsCaCertificate, path: &Path) -> Result<Self> {
        let cannot = || format!("cannot use the CA certificate {}", path.display());
        let public = Public::of(key.as_ref())?;
        let der = CertificateDer::from(certificate.der.clone());
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).context(Kind::Usage, cannot())?;
        if parsed.public_key().raw != public.spki() {
            return Err(Error::usage("it is of another key").context(cannot()));
        }
        let ca = Self { key, public, certificate: Arc::new(certificate) };
        ca.issuer().map_err(|error| Error::usage(error.to_string()).context(cannot()))?;
        Ok(ca)
    }

    /// As what it signs names it, for one signature.
    fn issuer(&self) -> Result<Issuer<'static, Signer<'_>>> {
        let der = CertificateDer::from(&*self.certificate.der);
        Issuer::from_ca_cert_der(&der, Signer::new(self.key.as_ref(), &self.public))
            .context(Kind::Internal, "the TLS CA's certificate")
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
        let issuer = self.issuer()?;
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
        let issuer = self.issuer()?;
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
