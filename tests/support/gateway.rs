//! What stands between a job and its authority: a `CONNECT` proxy that passes
//! everything through, or answers in the authority's place (over TLS, with a
//! certificate by the authority's own CA) and fails as a test wants.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::authority::Authority;
use super::client::Client;

/// What happens to a request for certificates or a revocation in place of its being passed on.
#[derive(Clone, Debug)]
pub enum Trouble {
    /// This status, a header line (`Retry-After: 1`, or empty), and this body.
    Answer(u16, String, String),
    /// It is passed on, and its answer is lost.
    LostReply,
    /// The connection is reset.
    Reset,
    /// No answer, until the gateway goes.
    Hang,
    /// The connection is cut, and the request passed on only so much later.
    #[allow(dead_code, reason = "for `workers.rs`, a crate of its own")]
    Late(Duration),
}

/// The gateway; it ends with the value.
pub struct Gateway {
    shared: Arc<Shared>,
    address: SocketAddr,
}

struct Shared {
    authority: SocketAddr,
    client: Client,
    tls: Arc<ServerConfig>,
    state: Mutex<State>,
    closing: AtomicBool,
}

#[derive(Default)]
struct State {
    troubles: Vec<Trouble>,
    connects: Vec<String>,
    requests: Vec<(Instant, String)>,
    interfering: bool,
    /// What happens to each request beyond the troubles that are listed.
    weather: Option<fn() -> Option<Trouble>>,
    /// What happens to each request of a path.
    at: Option<(&'static str, Trouble)>,
}

impl Gateway {
    /// One that tunnels.
    #[track_caller]
    pub fn start(authority: &Authority) -> Self {
        let shared = Arc::new(Shared {
            authority: authority.address(),
            client: authority.client().clone(),
            tls: authority.tls_of_another(),
            state: Mutex::default(),
            closing: AtomicBool::new(false),
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                for stream in listener.incoming() {
                    if shared.closing.load(Ordering::Relaxed) {
                        return;
                    }
                    let Ok(stream) = stream else { continue };
                    let shared = Arc::clone(&shared);
                    std::thread::spawn(move || shared.serve(stream));
                }
            }
        });
        Self { shared, address }
    }

    /// One that meets the next requests with these troubles, and then passes them on.
    #[track_caller]
    pub fn with(authority: &Authority, troubles: &[Trouble]) -> Self {
        let gateway = Self::start(authority);
        gateway.meet(troubles);
        gateway
    }

    /// From now on it answers in the authority's place: with these troubles first.
    pub fn meet(&self, troubles: &[Trouble]) {
        let mut state = self.shared.state.lock().unwrap();
        state.interfering = true;
        state.troubles = troubles.iter().rev().cloned().collect();
    }

    /// From now on each request of that path meets this.
    #[allow(dead_code, reason = "for some of the crates")]
    pub fn meet_at(&self, path: &'static str, trouble: Trouble) {
        let mut state = self.shared.state.lock().unwrap();
        state.interfering = true;
        state.at = Some((path, trouble));
    }

    /// From now on this decides over each request for certificates or a revocation.
    #[allow(dead_code, reason = "for `workers.rs`, a crate of its own")]
    pub fn weather(&self, weather: fn() -> Option<Trouble>) {
        let mut state = self.shared.state.lock().unwrap();
        state.interfering = true;
        state.weather = Some(weather);
    }

    /// For `HTTPS_PROXY`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What was asked for with `CONNECT`.
    pub fn connects(&self) -> Vec<String> {
        self.shared.state.lock().unwrap().connects.clone()
    }

    /// When requests of this path came (`/v1/exchange`).
    pub fn times(&self, path: &str) -> Vec<Instant> {
        let state = self.shared.state.lock().unwrap();
        state.requests.iter().filter(|(_, asked)| asked == path).map(|(time, _)| *time).collect()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn serve(&self, socket: TcpStream) {
        let _ = socket.set_read_timeout(Some(Duration::from_secs(60)));
        let _ = socket.set_nodelay(true);
        let mut reader = BufReader::new(socket);
        let Ok((head, _)) = read(&mut reader) else { return };
        let mut client = reader.into_inner();
        let mut words = head.split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        if method != "CONNECT" {
            return;
        }
        let interfering = {
            let mut state = self.state.lock().unwrap();
            state.connects.push(target.to_owned());
            state.interfering
        };
        let established = b"HTTP/1.1 200 Connection established\r\n\r\n";
        if interfering && target == self.authority.to_string() {
            if client.write_all(established).is_ok() {
                let _ = self.answer(client);
            }
            return;
        }
        let Ok(server) = TcpStream::connect(target) else {
            let _ = client.write_all(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n");
            return;
        };
        if client.write_all(established).is_err() {
            return;
        }
        let (Ok(to_client), Ok(from_server)) = (client.try_clone(), server.try_clone()) else { return };
        let back = std::thread::spawn(move || pump(from_server, to_client));
        pump(client, server);
        let _ = back.join();
    }

    /// Requests of one connection, as the authority would take them.
    fn answer(&self, socket: TcpStream) -> io::Result<()> {
        let connection = ServerConnection::new(Arc::clone(&self.tls)).map_err(io::Error::other)?;
        let mut stream = BufReader::new(StreamOwned::new(connection, socket));
        loop {
            let (head, raw) = read(&mut stream)?;
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            let trouble = {
                let mut state = self.state.lock().unwrap();
                state.requests.push((Instant::now(), path.clone()));
                let weather = state.weather;
                let at = state.at.as_ref().filter(|at| at.0 == path).map(|at| at.1.clone());
                let listed = if path == "/healthz" { None } else { state.troubles.pop() };
                at.or(listed).or_else(|| weather.filter(|_| path != "/healthz")?())
            };
            let to = stream.get_mut();
            match trouble {
                Some(Trouble::Answer(status, header, body)) => {
                    let header = if header.is_empty() { header } else { header + "\r\n" };
                    let length = body.len();
                    write!(to, "HTTP/1.1 {status} Test\r\n{header}Content-Length: {length}\r\n\r\n{body}")?;
                    to.flush()?;
                }
                Some(Trouble::Hang) => {
                    while !self.closing.load(Ordering::Relaxed) {
                        std::thread::sleep(Duration::from_millis(10));
                    }
                    return Ok(());
                }
                Some(Trouble::Late(by)) => {
                    let client = self.client.clone();
                    std::thread::spawn(move || {
                        std::thread::sleep(by);
                        let _ = client.try_raw(&raw);
                    });
                    return to.sock.shutdown(Shutdown::Both);
                }
                // Without `close_notify`, as a middle box would.
                Some(Trouble::Reset) => return to.sock.shutdown(Shutdown::Both),
                Some(Trouble::LostReply) => {
                    self.client.try_raw(&raw)?;
                    return to.sock.shutdown(Shutdown::Both);
                }
                None => {
                    let reply = self.client.try_raw(&raw)?;
                    write!(to, "HTTP/1.1 {} Passed\r\n", reply.status)?;
                    for (name, value) in reply.headers.iter().filter(|(name, _)| name != "connection") {
                        write!(to, "{name}: {value}\r\n")?;
                    }
                    write!(to, "\r\n")?;
                    to.write_all(&reply.body)?;
                    to.flush()?;
                }
            }
        }
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}

/// A request: its first line, and all of its bytes.
fn read(stream: &mut impl BufRead) -> io::Result<(String, Vec<u8>)> {
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if stream.take(65_536).read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
        head.push_str(&line);
        if line.trim_end().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    let first = head.lines().next().unwrap_or_default().to_owned();
    Ok((first, [head.as_bytes(), &body].concat()))
}
