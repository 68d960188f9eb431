//! A company's PKI beside the authority: a root, an issuing CA, what they certify, and their lists.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PublicKeyData as _, SubjectPublicKeyInfo,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use time::{Duration, OffsetDateTime};
use x509_parser::extensions::ParsedExtension;

use super::authority::Authority;
use super::process::{read, succeed};

/// How long what it certifies lasts, in days, unless a test says otherwise.
pub const DAYS: i64 = 300;

/// A CA.
pub struct Ca {
    pub params: CertificateParams,
    pub key: KeyPair,
    /// Its certificate.
    pub pem: String,
}

/// What a certificate of that name has, from an hour ago on for so many days.
pub fn params(name: &str, days: i64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let now = OffsetDateTime::now_utc();
    (params.not_before, params.not_after) = (now - Duration::hours(1), now + Duration::days(days));
    params.use_authority_key_identifier_extension = true;
    params
}

/// The same of a CA.
pub fn ca_params(name: &str, days: i64) -> CertificateParams {
    let mut params = params(name, days);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

impl Ca {
    /// A root.
    pub fn root(params: CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { params, key, pem }
    }

    /// One that this CA has certified.
    pub fn below(&self, params: CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let pem = self.certify(&params, &key.subject_public_key_info());
        Self { params, key, pem }
    }

    fn issuer(&self) -> Issuer<'_, &KeyPair> {
        Issuer::from_params(&self.params, &self.key)
    }

    /// A certificate of that key, in PEM.
    pub fn certify(&self, params: &CertificateParams, spki: &[u8]) -> String {
        let key = SubjectPublicKeyInfo::from_der(spki).unwrap();
        params.signed_by(&key, &self.issuer()).unwrap().pem()
    }

    /// A list that revokes nothing, in PEM.
    pub fn crl(&self) -> String {
        let now = OffsetDateTime::now_utc();
        let list = CertificateRevocationListParams {
            this_update: now - Duration::hours(1),
            next_update: now + Duration::days(1),
            crl_number: 1_u64.into(),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer()).unwrap().pem().unwrap()
    }
}

/// A root and the CA below it that certifies others.
pub struct Company {
    pub root: Ca,
    pub issuing: Ca,
}

/// What an authority has for its TLS CA's certificate, as others certify it: parameters, and the key.
pub fn tls_ca(pem: &str) -> (CertificateParams, Vec<u8>) {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let (_, read) = x509_parser::parse_x509_certificate(&der).unwrap();
    let name = read.subject().iter_common_name().next().unwrap().as_str().unwrap();
    let mut params = ca_params(name, DAYS);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let id = read.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
        _ => None,
    });
    params.key_identifier_method = KeyIdMethod::PreSpecified(id.unwrap());
    (params, read.public_key().raw.to_vec())
}

impl Company {
    pub fn new() -> Self {
        let root = Ca::root(ca_params("Company Root", 3650));
        let issuing = root.below(ca_params("Company Issuing", 1800));
        Self { root, issuing }
    }

    /// The TLS CA of a certificate, up to the root: what `import` takes.
    pub fn chain(&self, tls_ca: &(CertificateParams, Vec<u8>)) -> String {
        let (params, spki) = tls_ca;
        format!("{}{}{}", self.issuing.certify(params, spki), self.issuing.pem, self.root.pem)
    }

    /// Has an authority stand under it from now on; where its root's certificate is.
    #[track_caller]
    pub fn adopt(&self, authority: &mut Authority) -> PathBuf {
        let chain = self.chain(&tls_ca(&read(authority.ca_file())));
        let file = |name: &str, text: &str| {
            let path = authority.ca_file().with_file_name(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let (chain, root) = (file("company-chain.pem", &chain), file("company-root.pem", &self.root.pem));
        succeed(authority.command(["import"]).arg("--tls-ca").arg(chain));
        assert!(authority.terminate().success());
        authority.restart();
        root
    }

    /// A certificate of a client's by the issuing CA, with those up to the root, and its key: files in a folder, as jobs have them.
    pub fn client(&self, name: &str, folder: &Path) -> PathBuf {
        let mut params = params(name, 30);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let leaf = self.issuing.below(params);
        std::fs::create_dir_all(folder).unwrap();
        let put = |name: &str, text: &str| {
            let file = folder.join(name);
            std::fs::write(&file, text).unwrap();
            std::fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        };
        put("tls.crt", &format!("{}{}{}", leaf.pem, self.issuing.pem, self.root.pem));
        put("tls.key", &leaf.key.serialize_pem());
        folder.to_owned()
    }
}
