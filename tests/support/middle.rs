//! Whoever has the TLS CA's key and stands between a host and its authority: holds answers back, repeats them, and gives old
//! ones in the place of new.

use std::collections::HashMap;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::authority::Authority;
use super::client::Client;

/// It ends with the test.
pub struct Middle {
    shared: Arc<Shared>,
    address: SocketAddr,
}

struct Shared {
    client: Client,
    tls: Arc<ServerConfig>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The first answers, by path.
    known: HashMap<String, Vec<u8>>,
    repeated: Vec<&'static str>,
    held: bool,
    /// Higher where connections that there are by then are to end.
    epoch: usize,
}

impl Middle {
    /// One before this authority, which passes everything on.
    #[track_caller]
    pub fn before(authority: &Authority) -> Self {
        let client = authority.client().clone();
        let shared = Arc::new(Shared { client, tls: authority.tls_of_another(), state: Mutex::default() });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let weak = Arc::downgrade(&shared);
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let Some(shared) = weak.upgrade() else { return };
                std::thread::spawn(move || connection(socket, &shared));
            }
        });
        Self { shared, address }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Gives the first answers that there were at these paths; those that were never given it passes on. Connections begin anew.
    pub fn repeat<const N: usize>(&self, paths: [&'static str; N]) {
        let mut state = self.shared.state.lock().unwrap();
        state.repeated = paths.into();
        state.epoch += 1;
    }

    /// Gives these answers, in the place of the truth or of what was given before. Connections begin anew.
    pub fn give(&self, answers: Vec<(&'static str, Vec<u8>)>) {
        let mut state = self.shared.state.lock().unwrap();
        state.repeated = answers.iter().map(|(path, _)| *path).collect();
        for (path, body) in answers {
            // What is watched has no end.
            let length = (path != "/v1/watch").then(|| format!("Content-Length: {}\r\n", body.len()));
            let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\n{}\r\n", length.unwrap_or_default());
            state.known.insert(path.to_owned(), [head.into_bytes(), body].concat());
        }
        state.epoch += 1;
    }

    /// Answers nothing and passes nothing on.
    pub fn hold(&self, is_held: bool) {
        self.shared.state.lock().unwrap().held = is_held;
    }
}

fn connection(socket: TcpStream, shared: &Shared) {
    let _ = socket.set_nodelay(true);
    let Ok(tls) = ServerConnection::new(Arc::clone(&shared.tls)) else { return };
    let mut stream = BufReader::new(StreamOwned::new(tls, socket));
    let mut path = String::new();
    loop {
        let mut line = String::new();
        match stream.read_line(&mut line) {
            Ok(read) if read > 0 => {}
            _ => return,
        }
        if line.trim_end().is_empty() {
            break;
        }
        if path.is_empty() {
            path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        }
    }
    let _ = answer(stream.get_mut(), shared, &path);
}

/// One answer, and the end.
fn answer(to: &mut StreamOwned<ServerConnection, TcpStream>, shared: &Shared, path: &str) -> io::Result<()> {
    let name = path.split('?').next().unwrap_or_default();
    let (epoch, known) = {
        let state = shared.state.lock().unwrap();
        (state.epoch, state.known.get(name).filter(|_| state.repeated.contains(&name)).cloned())
    };
    let is_over = || shared.state.lock().unwrap().epoch != epoch;
    let hold = || {
        while shared.state.lock().unwrap().held && !is_over() {
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    hold();
    if let Some(known) = known {
        to.write_all(&known)?;
        to.flush()?;
        // What follows in a stream is the same again and again.
        let line = known.windows(4).position(|end| end == b"\r\n\r\n").map(|at| &known[at + 4..]);
        while name == "/v1/watch" && !is_over() {
            std::thread::sleep(Duration::from_millis(200));
            to.write_all(line.unwrap_or_default())?;
            to.flush()?;
        }
        return Ok(());
    }
    let mut from = shared.client.connect()?;
    write!(from, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")?;
    from.flush()?;
    from.sock.set_read_timeout(Some(Duration::from_millis(50)))?;
    let (mut whole, mut chunk) = (Vec::new(), vec![0; 65_536]);
    let end = loop {
        hold();
        if is_over() {
            break Ok(());
        }
        match from.read(&mut chunk) {
            Ok(0) => break Ok(()),
            Ok(read) => {
                hold();
                to.write_all(&chunk[..read])?;
                to.flush()?;
                // Of a stream, the first line.
                if name != "/v1/watch" || !whole.ends_with(b"}\n\r\n") {
                    whole.extend_from_slice(&chunk[..read]);
                }
                if name == "/v1/watch" {
                    remember(shared, name, &whole);
                }
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(error) => break Err(error),
        }
    };
    remember(shared, name, &whole);
    end
}

/// The first answer at a path, whole.
fn remember(shared: &Shared, name: &str, answer: &[u8]) {
    let is_whole =
        if name == "/v1/watch" { answer.ends_with(b"}\n\r\n") } else { answer.starts_with(b"HTTP/1.1 200") };
    if is_whole {
        shared.state.lock().unwrap().known.entry(name.to_owned()).or_insert_with(|| answer.to_vec());
    }
}
