//! TLS to the database: whom it is believed from, and who we are.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use ring::digest::{SHA256, SHA384, SHA512, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::Socket;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_rustls::TlsConnector;
use x509_parser::oid_registry as oid;

use crate::error::{Context as _, Error, Kind, Result};
use crate::folder::read::{self, Limit, Trust};
use crate::folder::trust::Owner;
use crate::{net, pem};

/// Which server is believed to be the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trusted {
    /// One with a certificate of these roots, for its name or for any.
    Certified { by_name: bool },
    /// Any that speaks TLS.
    Anyone,
    /// Any at all; TLS where it has it.
    AnyoneOrPlain,
    /// Nothing is encrypted.
    Nobody,
}

/// What the URL says of TLS.
#[derive(Clone, Debug)]
pub(super) struct Tls {
    pub(super) trusted: Trusted,
    mode: String,
    /// The system's, where there is none.
    pub(super) roots: Option<PathBuf>,
    identity: Option<(PathBuf, PathBuf)>,
    pub(super) is_direct: bool,
}

impl Tls {
    /// As libpq understands it, but that nothing is left unverified without being asked for.
    pub(super) fn new(
        mode: Option<&str>,
        roots: Option<PathBuf>,
        identity: (Option<PathBuf>, Option<PathBuf>),
        is_direct: bool,
    ) -> Result<Self> {
        let mode = mode.unwrap_or("verify-full");
        // `system` is no file, also where paths begin at the data directory.
        let is_system =
            roots.as_ref().is_some_and(|path| path.file_name().is_some_and(|name| name == "system"));
        let roots = roots.filter(|_| !is_system);
        let trusted = match mode {
            "verify-full" => Trusted::Certified { by_name: true },
            _ if is_system => {
                return Err(Error::usage(format!(
                    "`sslrootcert=system` with `sslmode={mode}` believes anybody"
                ))
                .hint("leave `sslmode` out: it is verify-full"));
            }
            "verify-ca" if roots.is_none() => {
                return Err(Error::usage(
                    "`sslmode=verify-ca` without `sslrootcert` believes anybody whom a public CA knows",
                )
                .hint("name the database's CA: sslrootcert=FILE"));
            }
            // As in libpq: whoever names a root wants it to be asked.
            "verify-ca" => Trusted::Certified { by_name: false },
            "require" if roots.is_some() => Trusted::Certified { by_name: false },
            "require" => Trusted::Anyone,
            "disable" => Trusted::Nobody,
            _ => Trusted::AnyoneOrPlain,
        };
        if is_direct && matches!(trusted, Trusted::AnyoneOrPlain | Trusted::Nobody) {
            return Err(Error::usage(format!(
                "`sslnegotiation=direct` and `sslmode={mode}` contradict one another"
            )));
        }
        let identity = match identity {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => return Err(Error::usage("`sslcert` and `sslkey` go together: one of them is not named")),
        };
        Ok(Self { trusted, mode: mode.to_owned(), roots, identity, is_direct })
    }

    /// What is weak about it.
    pub(super) fn warning(&self) -> Option<(String, &'static str)> {
        let what = match self.trusted {
            Trusted::Certified { by_name: true } => return None,
            Trusted::Certified { by_name: false } => "does not look at the database's name",
            Trusted::Anyone | Trusted::AnyoneOrPlain => "believes whoever answers to be the database",
            Trusted::Nobody => "sends everything in the clear",
        };
        Some((
            format!("`sslmode={}` {what}", self.mode),
            "leave `sslmode` out, which is verify-full, and name the database's CA where it is no public one: sslrootcert=FILE",
        ))
    }

    /// What connections are made with. Files are read each time, since they are renewed.
    pub(super) fn connector(&self, owner: Owner) -> Result<Connector> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let roots = match (self.trusted, &self.roots) {
            (Trusted::Certified { .. }, Some(path)) => {
                Some(net::roots_of_file(path, Trust::Operators(owner), Limit::FILE)?)
            }
            (Trusted::Certified { .. }, None) => Some(net::system_roots().map_err(|error| {
                Error::usage(error).hint("name the database's CA in its URL: sslrootcert=FILE")
            })?),
            _ => None,
        };
        let by_name = self.trusted == Trusted::Certified { by_name: true };
        let judge = Arc::new(Judge { roots, by_name, provider: Arc::clone(&provider) });
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .context(Kind::Internal, "TLS")?
            .dangerous() // the name of the method; the judge is above
            .with_custom_certificate_verifier(judge);
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let cannot = || format!("cannot use {} with {}", certificate.display(), key.display());
                let chain = read::text(certificate, Trust::Operators(owner), Limit::FILE)?;
                let chain = pem::decode_all(&chain, "CERTIFICATE")
                    .ok_or_else(|| Error::usage(format!("{}: its PEM is broken", certificate.display())))?;
                let chain = chain.iter().map(|der| CertificateDer::from(der.to_vec())).collect();
                let keys = read::text(key, Trust::ServerKey(owner), Limit::FILE)?;
                let keys = pem::private_keys(&keys).map_err(|error| error.context(cannot()))?;
                let key = keys.into_iter().next().ok_or_else(|| {
                    Error::usage(format!("{} holds no private key that can be read", key.display()))
                        .hint("it must not be encrypted: PKCS#8, SEC1 or PKCS#1 in PEM")
                })?;
                builder.with_client_auth_cert(chain, key).context(Kind::Usage, cannot())?
            }
        };
        config.resumption = Resumption::disabled();
        if self.is_direct {
            config.alpn_protocols = vec![b"postgresql".to_vec()];
        }
        Ok(Connector { config: Arc::new(config), has_begun: Arc::default() })
    }
}

/// Who judges a server's certificate.
#[derive(Debug)]
struct Judge {
    /// None: anybody is believed, as the operator says.
    roots: Option<RootCertStore>,
    by_name: bool,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(roots) = &self.roots {
            let certificate = ParsedCertificate::try_from(end_entity)?;
            let algorithms = self.provider.signature_verification_algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&certificate, roots, intermediates, now, algorithms)?;
            if self.by_name {
                verify_server_name(&certificate, server_name)?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Makes TLS of a socket, for one server.
#[derive(Clone)]
pub(super) struct Connector {
    config: Arc<ClientConfig>,
    has_begun: Arc<AtomicBool>,
}

impl Connector {
    /// Whether the server has agreed to speak TLS.
    pub(super) fn has_begun(&self) -> bool {
        self.has_begun.load(Ordering::Relaxed)
    }
}

impl MakeTlsConnect<Socket> for Connector {
    type Stream = TlsSocket;
    type TlsConnect = Handshake;
    type Error = io::Error;

    fn make_tls_connect(&mut self, domain: &str) -> io::Result<Handshake> {
        // Of a socket of this machine's there is no name, and no TLS.
        let name = ServerName::try_from(if domain.is_empty() { "localhost" } else { domain }.to_owned());
        let name = name
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "its name can be in no certificate"))?;
        Ok(Handshake { connector: self.clone(), name })
    }
}

/// A handshake that may be made.
pub(super) struct Handshake {
    connector: Connector,
    name: ServerName<'static>,
}

impl TlsConnect<Socket> for Handshake {
    type Stream = TlsSocket;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TlsSocket>> + Send>>;

    fn connect(self, socket: Socket) -> Self::Future {
        self.connector.has_begun.store(true, Ordering::Relaxed);
        let connecting = TlsConnector::from(self.connector.config).connect(self.name, socket);
        Box::pin(async move { connecting.await.map(|stream| TlsSocket(Box::new(stream))) })
    }
}

/// A socket with TLS on it.
pub(super) struct TlsSocket(Box<tokio_rustls::client::TlsStream<Socket>>);

impl TlsStream for TlsSocket {
    fn channel_binding(&self) -> ChannelBinding {
        let (_, connection) = self.0.get_ref();
        let certificate = connection.peer_certificates().and_then(<[_]>::first);
        certificate
            .and_then(end_point)
            .map_or_else(ChannelBinding::none, ChannelBinding::tls_server_end_point)
    }
}

/// `tls-server-end-point` (RFC 5929, section 4.1): the certificate's hash, by the algorithm of its signature, and none
/// where that has no hash of its own.
fn end_point(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let signed = &parsed.signature_algorithm.algorithm;
    let is = |known: &[oid::Oid<'static>]| known.contains(signed);
    let algorithm =
        if is(&[oid::OID_PKCS1_SHA256WITHRSA, oid::OID_SIG_ECDSA_WITH_SHA256, oid::OID_PKCS1_SHA1WITHRSA]) {
            &SHA256
        } else if is(&[oid::OID_PKCS1_SHA384WITHRSA, oid::OID_SIG_ECDSA_WITH_SHA384]) {
            &SHA384
        } else if is(&[oid::OID_PKCS1_SHA512WITHRSA, oid::OID_SIG_ECDSA_WITH_SHA512]) {
            &SHA512
        } else {
            return None;
        };
    Some(digest(algorithm, certificate).as_ref().to_vec())
}

impl AsyncRead for TlsSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for TlsSocket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
