//! The CA of X.509 certificates.

use std::path::Path;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CustomExtension, DistinguishedName,
    DnType, IsCa, Issuer, KeyIdMethod, KeyUsagePurpose, SerialNumber, SubjectPublicKeyInfo,
};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;

use super::cross::{Cross, key_id};
use super::private::{PrivateKey, Public, lacking};
use super::signer::{Draft, Signer};
use super::{crl, subject};
use crate::authority::ca::{CaKind, CaState};
use crate::authority::validity::{Ending, FORMER_TLS_CA, NEXT_TLS_CA, TLS_CA, Validity};
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
    /// Its certificates by the CA before it, in PEM.
    pub(super) cross: Vec<String>,
    /// As another's root has certified it.
    pub(super) root: Option<Arc<Cross>>,
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
    self_signed(key, format!("{} {}", name(cluster), later(key.spki())), now)
}

/// How the name of a later CA of that key ends.
fn later(spki: &[u8]) -> String {
    hex(digest(&SHA256, spki).as_ref()).chars().take(8).collect()
}

fn self_signed(key: &dyn PrivateKey, name: String, now: i64) -> Result<String> {
    let mut params = params(random::serial()?, now, now.saturating_add(DAYS * 86_400))?;
    params.distinguished_name.push(DnType::CommonName, name);
    as_ca(&mut params);
    // One below it is what takes its place, signed by it for those that know no other.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    let public = Public::of(key)?;
    // As most CAs make it of a key (RFC 5280, section 4.2.1.2), so that one who certifies this one names it alike.
    let id = digest(&SHA1_FOR_LEGACY_USE_ONLY, public.raw());
    params.key_identifier_method = KeyIdMethod::PreSpecified(id.as_ref().to_vec());
    let signer = Signer::new(key, &public);
    let certificate = params.self_signed(&signer).context(Kind::Internal, "new TLS CA");
    Ok(certificate.map_err(|error| signer.failure(error))?.pem())
}

/// What it is that certifies others, and no CAs.
fn as_ca(params: &mut CertificateParams) {
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
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

    /// In PEM.
    ///
    /// # Errors
    /// Why it is none, in words that follow what it is.
    pub fn parse(text: &str) -> Result<Self, String> {
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

    /// Whether the first certificate of that chain is of its key.
    pub fn is_in(&self, chain: &str) -> bool {
        let first = Self::parse(chain).and_then(|one| one.key_hash().map_err(|error| error.to_string()));
        first.ok().zip(self.key_hash().ok()).is_some_and(|(first, own)| first == own)
    }

    /// Reads another's certificate of this CA, up to a root, for an authority of that host.
    ///
    /// # Errors
    /// Why it is none, in words that follow the file's name.
    pub fn cross(&self, text: &str, host: &str) -> Result<Cross, String> {
        Cross::read(text, &self.der, Some(host))
    }

    /// When it ends, and those end that certify it in the file beside its own.
    ///
    /// # Errors
    /// `Kind::Usage` where that file cannot be used.
    pub fn endings(&self, path: &Path, owner: Owner, state: CaState) -> Result<Vec<Ending>> {
        let path = match self.is_later()? {
            true => Cross::of_later(path, owner, |text| self.is_in(text)),
            false => Some(Cross::path(path, CaKind::Tls.name())),
        };
        let cross = path.map(|path| Cross::find(&path, &self.der, owner)).transpose()?.flatten();
        Ok(self.with(cross.as_deref(), state))
    }

    fn is_later(&self) -> Result<bool> {
        let (_, read) = x509_parser::parse_x509_certificate(&self.der).context(Kind::Internal, "X.509")?;
        let id = later(read.public_key().raw);
        let mut names = read.subject().iter_common_name().filter_map(|name| name.as_str().ok());
        Ok(names.any(|name| name.ends_with(&id)))
    }

    fn with(&self, cross: Option<&Cross>, state: CaState) -> Vec<Ending> {
        let name = match state {
            CaState::Next => NEXT_TLS_CA,
            CaState::Former => FORMER_TLS_CA,
            _ => TLS_CA,
        };
        let own = Ending { what: TLS_CA.to_owned(), validity: self.validity };
        let named = |Ending { what, validity }| {
            let what = what.strip_suffix(TLS_CA).map(|before| format!("{before}{name}")).unwrap_or(what);
            Ending { what, validity }
        };
        [own].into_iter().chain(cross.into_iter().flat_map(Cross::endings)).map(named).collect()
    }
}

impl TlsCa {
    /// The CA of that certificate, with its key where there is one.
    pub(super) fn new(key: Option<Arc<dyn PrivateKey>>, certificate: TlsCaCertificate) -> Result<Self> {
        let ca = Self { key, certificate: Arc::new(certificate), cross: Vec::new(), root: None };
        if let Some(key) = &ca.key {
            let der = &ca.certificate.der;
            let (_, parsed) = x509_parser::parse_x509_certificate(der).context(Kind::Usage, "X.509")?;
            if parsed.public_key().raw != key.spki() {
                return Err(Error::usage("it is of another key"));
            }
            let public = Public::of(key.as_ref())?;
            ca.issuer(Draft(&public)).map_err(|error| Error::usage(error.to_string()))?;
        }
        Ok(ca)
    }

    /// When it may be signed with: nothing is to end later than what others verify it by.
    pub(super) fn validity(&self) -> Validity {
        self.root.iter().fold(self.certificate.validity, |all, cross| all.both(cross.validity))
    }

    /// When each certificate ends that it is verified by.
    pub(super) fn endings(&self, state: CaState) -> Vec<Ending> {
        self.certificate.with(self.root.as_deref(), state)
    }

    /// What stands behind the certificates of servers: others' certificates of it, or else its own.
    pub(super) fn chain(&self) -> &str {
        self.root.as_ref().map_or(&self.certificate.pem, |cross| &cross.sent)
    }

    /// What another CA is asked to certify it by, in PEM.
    pub(super) fn request(&self) -> Result<String> {
        let failed = "cannot write a certificate request";
        let (_, own) =
            x509_parser::parse_x509_certificate(&self.certificate.der).context(Kind::Internal, failed)?;
        let mut params = CertificateParams::default();
        as_ca(&mut params);
        if let Some(id) = key_id(&own) {
            let id = yasna::construct_der(|writer| writer.write_bytes(id));
            params.custom_extensions.push(CustomExtension::from_oid_content(&[2, 5, 29, 14], id));
        }
        let key = self.key.as_deref().ok_or_else(lacking)?;
        let public = Public::of(key)?;
        let signer = Signer::new(key, &public);
        let request = params.serialize_request(&Draft(&public)).context(Kind::Internal, failed)?;
        let der = subject::exchange(request.der(), subject::REQUEST, own.subject().as_raw(), &signer)
            .map_err(|error| signer.failure(error))?;
        Ok(pem::encode("CERTIFICATE REQUEST", &der).to_string())
    }

    /// As what it signs names it, for one signature.
    fn issuer<S: rcgen::SigningKey>(&self, signer: S) -> Result<Issuer<'static, S>> {
        let der = CertificateDer::from(&*self.certificate.der);
        Issuer::from_ca_cert_der(&der, signer).context(Kind::Internal, "the TLS CA's certificate")
    }

    /// A certificate by this CA for another's key, under the name that it has for itself; in PEM. It ends with the first of both,
    /// and of what this one is verified by.
    pub(super) fn cross_sign(&self, other: &TlsCaCertificate, now: i64) -> Result<String> {
        let failed = "a certificate for the next TLS CA";
        let (_, read) = x509_parser::parse_x509_certificate(&other.der).context(Kind::Internal, failed)?;
        let until = self.validity().until.min(other.validity.until);
        let mut params = params(random::serial()?, now, until)?;
        let name = read.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
        let name = name.ok_or_else(|| Error::internal(failed))?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.use_authority_key_identifier_extension = true;
        // What it signs names it by that.
        let id = key_id(&read).ok_or_else(|| Error::internal(failed))?;
        params.key_identifier_method = KeyIdMethod::PreSpecified(id.to_vec());
        self.sign(&params, read.public_key().raw, None)
    }

    pub(super) fn sign(
        &self,
        params: &CertificateParams,
        spki: &[u8],
        subject: Option<&[u8]>,
    ) -> Result<String> {
        if params.not_after.unix_timestamp() > self.validity().until {
            return Err(Error::internal("an X.509 certificate that would outlive its CA"));
        }
        let key = SubjectPublicKeyInfo::from_der(spki).context(Kind::Internal, "a planned TLS key")?;
        let private = self.key.as_deref().ok_or_else(lacking)?;
        let public = Public::of(private)?;
        let (signer, failed) = (Signer::new(private, &public), "cannot sign an X.509 certificate");
        let der = match subject {
            Some(subject) => params
                .signed_by(&key, &self.issuer(Draft(&public))?)
                .context(Kind::Internal, failed)
                .and_then(|draft| subject::exchange(draft.der(), subject::CERTIFICATE, subject, &signer)),
            None => {
                let issuer = self.issuer(&signer)?;
                params
                    .signed_by(&key, &issuer)
                    .context(Kind::Internal, failed)
                    .map(|signed| signed.der().to_vec())
            }
        };
        Ok(pem::encode("CERTIFICATE", &der.map_err(|error| signer.failure(error))?).to_string())
    }

    pub(super) fn sign_crl(
        &self,
        list: &CertificateRevocationListParams,
        revoked: impl ExactSizeIterator<Item = (u64, i64)>,
    ) -> Result<Vec<u8>> {
        let private = self.key.as_deref().ok_or_else(lacking)?;
        let public = Public::of(private)?;
        let (signer, failed) = (Signer::new(private, &public), "cannot sign the revocation list");
        let (_, own) =
            x509_parser::parse_x509_certificate(&self.certificate.der).context(Kind::Internal, failed)?;
        // Verifiers look for the CA by it.
        let by_id = key_id(&own).map(|id| KeyIdMethod::PreSpecified(id.to_vec()));
        let list = CertificateRevocationListParams {
            key_identifier_method: by_id.unwrap_or(KeyIdMethod::Sha256),
            ..list.clone()
        };
        let draft = list.signed_by(&self.issuer(Draft(&public))?).context(Kind::Internal, failed)?;
        crl::with_certificates(draft.der(), revoked, &signer).map_err(|error| signer.failure(error))
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
