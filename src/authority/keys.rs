//! The CA keys: the only place that sees them.
//!
//! Three of them: for SSH users, for SSH hosts (Ed25519) and for TLS (ECDSA
//! P-256). Certificates are signed for [`Recorded`] plans alone, lists as
//! lists; the CA's own certificate is signed in `keys::file`, where it is made.
//! A fourth key, of Ed25519, signs statements and no certificate.

use std::fmt;
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Header;
use rcgen::{
    CertificateParams, CertificateRevocationListParams, DistinguishedName, Issuer, KeyPair as TlsKey,
    SerialNumber, SubjectPublicKeyInfo,
};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use ssh_key::certificate::{Builder, CertType};
use ssh_key::public::KeyData;
use ssh_key::{Algorithm, HashAlg, PublicKey, Signature};
use time::OffsetDateTime;

use super::store::record::Recorded;
use super::validity::Validity;
use crate::clock::LEEWAY;
use crate::error::{Context as _, Error, Kind, Result};
use crate::jws;
use crate::net::pin_of;
use crate::pem;
use crate::wire::{STATEMENT, Statement, TrustAnchors};

mod crl;
pub mod file;
mod subject;

/// Every CA of an authority.
pub struct CaKeys {
    ssh_user: SshCa,
    ssh_host: SshCa,
    tls: TlsCa,
    /// The statement key; none in a data directory from before there were statements, until `serve` makes it.
    statement: OnceLock<SshCa>,
}

impl fmt::Debug for CaKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaKeys").finish_non_exhaustive()
    }
}

impl CaKeys {
    /// What others need to trust these CAs.
    pub fn trust(&self) -> TrustAnchors {
        TrustAnchors {
            ssh_host_cas: vec![self.ssh_host.line.clone()],
            ssh_user_cas: vec![self.ssh_user.line.clone()],
            tls_cas: vec![self.tls.certificate.pem.clone()],
        }
    }

    /// Names the keys for operators, sorted: as `ssh-keygen -l` does, and as `export tls-ca-pin`.
    pub fn names(&self) -> Result<Vec<String>> {
        let ssh = |ca: &SshCa| ca.public.fingerprint(HashAlg::Sha256);
        let mut names =
            vec![format!("ssh-host {}", ssh(&self.ssh_host)), format!("ssh-user {}", ssh(&self.ssh_user))];
        names.extend(self.statement_key().map(|key| format!("statement {key}")));
        names.push(format!("tls {}", pin_of(self.tls_certificate())?));
        Ok(names)
    }

    /// The public key that statements are verified by, in base64url; none where there is none yet.
    pub fn statement_key(&self) -> Option<String> {
        Some(URL_SAFE_NO_PAD.encode(self.statement.get()?.pair.public_key()))
    }

    /// Signs a statement, and nothing else; as a JWS.
    pub(in crate::authority) fn sign_statement(&self, statement: &Statement) -> Result<String> {
        let key = self.statement.get().ok_or_else(|| Error::internal("there is no statement key"))?;
        let header = Header { typ: Some(STATEMENT.to_owned()), ..Header::default() };
        Ok(jws::sign_ed25519(&key.pair, header, statement)?.expose().to_owned())
    }

    /// The TLS CA's certificate in DER.
    pub fn tls_certificate(&self) -> &[u8] {
        &self.tls.certificate.der
    }

    /// When the TLS CA's certificate is good. The SSH CAs have no end.
    pub fn tls_validity(&self) -> Validity {
        self.tls.certificate.validity
    }

    /// The public key blobs of the SSH CAs (RFC 4253, section 6.6), as a revocation list names them: of users, and of hosts.
    pub fn ssh_blobs(&self) -> Result<[Vec<u8>; 2]> {
        let blob = |ca: &SshCa| ca.public.to_bytes().context(Kind::Internal, "SSH CA");
        Ok([blob(&self.ssh_user)?, blob(&self.ssh_host)?])
    }

    /// Signs an OpenSSH certificate of what is recorded, with the CA of its
    /// kind; on one line.
    pub(in crate::authority) fn sign_ssh<P>(
        &self,
        _: &Recorded<P>,
        kind: CertType,
        certificate: Builder,
    ) -> Result<String> {
        let ca = match kind {
            CertType::User => &self.ssh_user,
            CertType::Host => &self.ssh_host,
        };
        certificate
            .sign(ca)
            .and_then(|certificate| certificate.to_openssh())
            .context(Kind::Internal, "cannot sign an SSH certificate")
    }

    /// Signs an X.509 certificate of what is recorded, made of `params` for the
    /// key; `subject`, a DER `Name`, takes the place of one that `params`
    /// cannot say. In PEM, with nothing behind it, since clients hold the root.
    ///
    /// # Errors
    /// Where it would outlive the CA: whoever plans a certificate asks [`CaKeys::tls_validity`].
    pub(in crate::authority) fn sign_tls<P>(
        &self,
        _: &Recorded<P>,
        params: &CertificateParams,
        spki: &[u8],
        subject: Option<&[u8]>,
    ) -> Result<String> {
        if params.not_after.unix_timestamp() > self.tls_validity().until {
            return Err(Error::internal("an X.509 certificate that would outlive its CA"));
        }
        let key = SubjectPublicKeyInfo::from_der(spki).context(Kind::Internal, "a planned TLS key")?;
        let certificate = params
            .signed_by(&key, &self.tls.issuer)
            .context(Kind::Internal, "cannot sign an X.509 certificate")?;
        let der = match subject {
            Some(subject) => subject::exchange(certificate.der(), subject, self.tls.issuer.key())?,
            None => certificate.der().to_vec(),
        };
        Ok(pem::encode("CERTIFICATE", &der).to_string())
    }

    /// Signs a revocation list, and nothing else, with these serials on it, each with when it was revoked; in DER.
    pub(in crate::authority) fn sign_crl(
        &self,
        list: &CertificateRevocationListParams,
        revoked: impl ExactSizeIterator<Item = (u64, i64)>,
    ) -> Result<Vec<u8>> {
        let crl =
            list.signed_by(&self.tls.issuer).context(Kind::Internal, "cannot sign the revocation list")?;
        crl::with_certificates(crl.der(), revoked, self.tls.issuer.key())
    }
}

/// A CA of SSH certificates; or the statement key, which is kept as one.
struct SshCa {
    pair: Ed25519KeyPair,
    public: PublicKey,
    /// The public key on one line.
    line: String,
}

/// Lets `ssh-key` build certificates while ring signs: a third of the time of its own Ed25519.
impl ssh_key::SigningKey for SshCa {
    fn public_key(&self) -> KeyData {
        self.public.key_data().clone()
    }
}

impl signature::Signer<Signature> for SshCa {
    fn try_sign(&self, message: &[u8]) -> Result<Signature, signature::Error> {
        Signature::new(Algorithm::Ed25519, self.pair.sign(message).as_ref())
            .map_err(|_| signature::Error::new())
    }
}

/// The CA of X.509 certificates.
struct TlsCa {
    issuer: Issuer<'static, TlsKey>,
    certificate: TlsCaCertificate,
}

/// What everybody may know of the TLS CA.
#[derive(Debug)]
pub struct TlsCaCertificate {
    /// Its certificate.
    der: Vec<u8>,
    /// The same in PEM, as it stands in the file.
    pem: String,
    /// When it is good.
    pub validity: Validity,
}

/// Valid from a minute back, since clocks differ.
pub(super) fn valid_from(now: i64) -> i64 {
    now.saturating_sub(LEEWAY)
}

/// What every X.509 certificate of ours begins with.
pub(super) fn params(serial: u64, now: i64, until: i64) -> Result<CertificateParams> {
    let time = |unix| OffsetDateTime::from_unix_timestamp(unix).context(Kind::Internal, "validity");
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.serial_number = Some(SerialNumber::from_slice(&serial.to_be_bytes()));
    (params.not_before, params.not_after) = (time(valid_from(now))?, time(until)?);
    Ok(params)
}
