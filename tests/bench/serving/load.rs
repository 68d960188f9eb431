//! The clients' process: one thread, and as little work as TLS allows.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Has so many clients send every request once, over new connections or kept ones, each to one of the authorities in
/// turn; prints how many, the wall time, its own CPU time, and how long half of them and 99 of a hundred waited at most,
/// in nanoseconds.
pub(crate) fn load(how: &str, clients: usize, addresses: &str, requests: &Path) {
    let requests = unframe(&std::fs::read(requests).unwrap());
    let addresses: Vec<SocketAddr> = addresses.split(',').map(|address| address.parse().unwrap()).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let work = Arc::new(Work {
        connector: connector(),
        requests,
        next: AtomicUsize::new(0),
        waited: Mutex::default(),
    });
    let before = own_cpu_time();
    let begin = Instant::now();
    let keep = how == "kept";
    runtime.block_on(async {
        let client = |number: usize| {
            let address = addresses[number % addresses.len()];
            tokio::spawn(Arc::clone(&work).client(address, keep))
        };
        let clients: Vec<_> = (0..clients).map(client).collect();
        for client in clients {
            client.await.unwrap();
        }
    });
    let wall = begin.elapsed();
    let mut waited = work.waited.lock().unwrap().clone();
    waited.sort();
    let cpu = own_cpu_time() - before;
    let [p50, p99] =
        [50, 99].map(|percent| waited[(waited.len() * percent / 100).min(waited.len() - 1)].as_nanos());
    println!("{} {} {} {p50} {p99}", work.requests.len(), wall.as_nanos(), cpu.as_nanos());
}

fn own_cpu_time() -> Duration {
    let schedstat = std::fs::read_to_string("/proc/self/schedstat").unwrap();
    Duration::from_nanos(schedstat.split(' ').next().unwrap().parse().unwrap())
}

fn unframe(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut requests = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
        let (request, rest) = rest.split_at(usize::try_from(u32::from_be_bytes(*length)).unwrap());
        requests.push(request.to_owned());
        bytes = rest;
    }
    requests
}

struct Work {
    connector: TlsConnector,
    requests: Vec<Vec<u8>>,
    next: AtomicUsize,
    waited: Mutex<Vec<Duration>>,
}

impl Work {
    async fn client(self: Arc<Self>, address: SocketAddr, keep: bool) {
        let mut kept = None;
        while let Some(request) = self.requests.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            let begin = Instant::now();
            let mut stream = match kept.take() {
                Some(stream) => stream,
                None => self.connect(address).await,
            };
            exchange(&mut stream, request).await;
            self.waited.lock().unwrap().push(begin.elapsed());
            kept = keep.then_some(stream);
        }
    }

    async fn connect(&self, address: SocketAddr) -> TlsStream<TcpStream> {
        let socket = TcpStream::connect(address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        self.connector.connect(ServerName::from(address.ip()), socket).await.unwrap()
    }
}

/// Sends a request and reads one answer, which must be a success.
async fn exchange(stream: &mut TlsStream<TcpStream>, request: &[u8]) {
    stream.write_all(request).await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = Vec::with_capacity(8192);
    loop {
        let read = stream.read_buf(&mut answer).await.unwrap();
        assert!(read > 0, "the answer broke off");
        let Some(head) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
        let text = std::str::from_utf8(&answer[..head]).unwrap();
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        if answer.len() >= head + 4 + length.parse::<usize>().unwrap() {
            return;
        }
    }
}

pub(crate) fn connector() -> TlsConnector {
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Unchecked))
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

/// Checks nothing: these clients are here to keep the authority busy, and the
/// checks would cost them what the signatures cost it.
#[derive(Debug)]
struct Unchecked;

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
