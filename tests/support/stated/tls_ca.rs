//! A CA of X.509 with its lists, and the servers that it certifies.

use std::sync::Arc;

use machine_id::net::pin_of;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, RevokedCertParams, SerialNumber,
};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use time::OffsetDateTime;

use super::hour;

/// A CA of X.509.
pub struct TlsCa {
    pub issuer: Issuer<'static, KeyPair>,
    pub params: CertificateParams,
    pub pem: String,
    pub der: CertificateDer<'static>,
}

impl TlsCa {
    pub fn fresh() -> Self {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        let id = pin_of(params.self_signed(&key).unwrap().der()).unwrap()[7..15].to_owned();
        params.distinguished_name.push(DnType::CommonName, format!("id.example.com machine-id CA {id}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).unwrap();
        let (pem, der) = (certificate.pem(), certificate.der().clone());
        Self { issuer: Issuer::new(params.clone(), key), params, pem, der }
    }

    /// What `--ca-pin` has of it.
    pub fn pin(&self) -> String {
        pin_of(&self.der).unwrap()
    }

    /// A client's certificate by it, in PEM.
    pub fn client(&self, serial: u64) -> String {
        let mut leaf = CertificateParams::new(vec!["deploy".to_owned()]).unwrap();
        leaf.serial_number = Some(SerialNumber::from(serial));
        leaf.use_authority_key_identifier_extension = true;
        leaf.signed_by(&KeyPair::generate().unwrap(), &self.issuer).unwrap().pem()
    }

    /// The authority's server: behind the leaf stand these.
    pub fn server(&self, chain: &[CertificateDer<'static>]) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let leaf = leaf.signed_by(&key, &self.issuer).unwrap().der().clone();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert([&[leaf], chain].concat(), key);
        Arc::new(config.unwrap())
    }

    pub fn crl(&self, number: u64, serials: &[(u64, i64)]) -> Vec<u8> {
        let time = |unix| OffsetDateTime::from_unix_timestamp(unix).unwrap();
        let revoked = |(serial, _): &(u64, i64)| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: time(hour()),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: time(hour()),
            next_update: time(hour() + 86_400),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().der().to_vec()
    }
}
