//! A forward proxy: it opens the way for `CONNECT`, or refuses, in the clear or over TLS of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tempfile::TempDir;
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader, copy_bidirectional,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// The proxy; its threads end with the process.
pub struct ForwardProxy {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    ca: Option<TempDir>,
}

impl ForwardProxy {
    /// One that answers the first requests with these statuses, and the last
    /// of these all others: 200 opens the way.
    pub fn start(statuses: &[u16]) -> Self {
        Self::serve(statuses, None)
    }

    /// The same over TLS, with a certificate for `localhost` and 127.0.0.1 by a CA of its own.
    pub fn with_tls(statuses: &[u16]) -> Self {
        let directory = TempDir::new().unwrap();
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_key = KeyPair::generate().unwrap();
        std::fs::write(directory.path().join("ca.pem"), ca.self_signed(&ca_key).unwrap().pem()).unwrap();
        let key = KeyPair::generate().unwrap();
        let names = ["localhost", "127.0.0.1"].map(str::to_owned);
        let leaf = CertificateParams::new(names).unwrap();
        let leaf = leaf.signed_by(&key, &rcgen::Issuer::new(ca, ca_key)).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key)
            .unwrap();
        Self { ca: Some(directory), ..Self::serve(statuses, Some(TlsAcceptor::from(Arc::new(config)))) }
    }

    fn serve(statuses: &[u16], tls: Option<TlsAcceptor>) -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let proxy = Self { address: listener.local_addr().unwrap(), asked: Arc::clone(&asked), ca: None };
        let statuses = Arc::new(statuses.to_vec());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).unwrap();
                while let Ok((stream, _)) = listener.accept().await {
                    let (statuses, asked, tls) = (Arc::clone(&statuses), Arc::clone(&asked), tls.clone());
                    tokio::spawn(async move {
                        match tls {
                            None => connection(stream, &statuses, &asked).await,
                            Some(tls) => match tls.accept(stream).await {
                                Ok(stream) => connection(stream, &statuses, &asked).await,
                                Err(_) => None,
                            },
                        }
                    });
                }
            });
        });
        proxy
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// For `HTTPS_PROXY`: `http://127.0.0.1:PORT`, or `https://localhost:PORT`.
    pub fn url(&self) -> String {
        match self.ca {
            None => format!("http://{}", self.address),
            Some(_) => format!("https://localhost:{}", self.address.port()),
        }
    }

    /// The CA of its certificate, where it has one.
    pub fn ca_file(&self) -> PathBuf {
        self.ca.as_ref().unwrap().path().join("ca.pem")
    }

    /// What was asked for: `HOST:PORT`, and behind a blank the credentials.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    statuses: &[u16],
    asked: &Mutex<Vec<String>>,
) -> Option<()> {
    let mut stream = BufReader::new(stream);
    let (mut head, mut line) = (Vec::new(), String::new());
    while stream.read_line(&mut line).await.ok()? > 2 {
        head.push(std::mem::take(&mut line));
    }
    let to = head.first()?.strip_prefix("CONNECT ")?.split(' ').next()?.to_owned();
    let credentials = head.iter().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("proxy-authorization").then(|| format!(" {}", value.trim()))
    });
    let status = {
        let mut asked = asked.lock().unwrap();
        asked.push(format!("{to}{}", credentials.unwrap_or_default()));
        *statuses.get(asked.len() - 1).or(statuses.last())?
    };
    if status != 200 {
        let answer = format!("HTTP/1.1 {status} Test\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        stream.write_all(answer.as_bytes()).await.ok()?;
        return stream.shutdown().await.ok();
    }
    let mut server = TcpStream::connect(to).await.ok()?;
    stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.ok()?;
    stream.flush().await.ok()?;
    copy_bidirectional(&mut stream, &mut server).await.ok().map(drop)
}
