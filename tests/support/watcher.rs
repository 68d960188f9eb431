//! One who watches an authority's statements, and believes what their signature says.

use std::io::{self, Read as _, Write as _};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{ED25519, UnparsedPublicKey};
use serde_json::Value;

use super::authority::Authority;
use super::client::{Client, Stream};

/// A connection on which statements come.
pub struct Watcher {
    stream: Stream,
    key: String,
    /// What was read and is not told yet.
    bytes: Vec<u8>,
    text: String,
}

impl Watcher {
    /// Watches, from the lists of that number on where it has some.
    #[track_caller]
    pub fn start(authority: &Authority, since: Option<u64>) -> Self {
        let stream = authority.client().connect().unwrap();
        Self::over(stream, authority, since).expect("an answer")
    }

    /// The same over a connection that there is.
    pub fn over(stream: Stream, authority: &Authority, since: Option<u64>) -> io::Result<Self> {
        let query = since.map_or_else(String::new, |number| format!("?since={number}"));
        Self::ask(stream, authority, &query, "")
    }

    /// One that says something in a header.
    pub fn saying(header: &str, authority: &Authority) -> io::Result<Self> {
        Self::ask(authority.client().connect()?, authority, "", header)
    }

    fn ask(mut stream: Stream, authority: &Authority, query: &str, header: &str) -> io::Result<Self> {
        write!(stream, "GET /v1/watch{query} HTTP/1.1\r\nHost: {}\r\n{header}\r\n", authority.address())?;
        stream.flush()?;
        let mut watcher = Self { stream, key: String::new(), bytes: Vec::new(), text: String::new() };
        let head = watcher.take(b"\r\n\r\n")?;
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        if !head.starts_with("http/1.1 200") {
            return Err(io::Error::other(head));
        }
        assert!(
            head.contains("content-type: application/x-ndjson") && head.contains("connection: close"),
            "{head}"
        );
        watcher.key = exported_key(authority);
        Ok(watcher)
    }

    /// The next statement, which must come within that time.
    #[track_caller]
    pub fn next(&mut self, within: Duration) -> Value {
        self.try_next(within).unwrap_or_else(|error| panic!("no statement: {error}"))
    }

    /// The same, where the connection may end.
    pub fn try_next(&mut self, within: Duration) -> io::Result<Value> {
        self.stream.sock.set_read_timeout(Some(within))?;
        while !self.text.contains('\n') {
            let size = self.take(b"\r\n")?;
            let size = usize::from_str_radix(std::str::from_utf8(&size).unwrap().trim(), 16).unwrap();
            if size == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            while self.bytes.len() < size + 2 {
                self.read()?;
            }
            let chunk: Vec<u8> = self.bytes.drain(..size + 2).collect();
            self.text.push_str(std::str::from_utf8(&chunk[..size]).unwrap());
        }
        let line: String = self.text.drain(..=self.text.find('\n').unwrap()).collect();
        Ok(statement(&serde_json::from_str(&line).unwrap(), &self.key))
    }

    /// The first statement that says so, of those that come within that time.
    #[track_caller]
    pub fn wait(&mut self, within: Duration, says: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + within;
        loop {
            let told = self.next(end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1)));
            if says(&told) {
                return told;
            }
        }
    }

    fn take(&mut self, end: &[u8]) -> io::Result<Vec<u8>> {
        loop {
            if let Some(at) = self.bytes.windows(end.len()).position(|window| window == end) {
                return Ok(self.bytes.drain(..at + end.len()).collect());
            }
            self.read()?;
        }
    }

    fn read(&mut self) -> io::Result<()> {
        let mut chunk = [0; 16_384];
        match self.stream.read(&mut chunk)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                self.bytes.extend_from_slice(&chunk[..read]);
                Ok(())
            }
        }
    }
}

/// `authority export statement-key`.
#[track_caller]
pub fn exported_key(authority: &Authority) -> String {
    super::process::succeed(&mut authority.command(["export", "statement-key"])).trim().to_owned()
}

/// `GET /v1/statement`.
#[track_caller]
pub fn present(client: &Client, key: &str) -> Value {
    statement(&client.get("/v1/statement").granted(), key)
}

/// What an answer states, once that is by the key: checked as `docs/protocol.md` says, without the product.
#[track_caller]
fn statement(answer: &Value, key: &str) -> Value {
    let parts: Vec<&str> = answer["statement"].as_str().expect("a statement").split('.').collect();
    let [header, claims, signature] = parts.as_slice() else { panic!("{answer}") };
    let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
    UnparsedPublicKey::new(&ED25519, decode(key))
        .verify(format!("{header}.{claims}").as_bytes(), &decode(signature))
        .expect("a signature by the statement key");
    let header: Value = serde_json::from_slice(&decode(header)).unwrap();
    assert_eq!(header, serde_json::json!({"alg": "EdDSA", "typ": "machine-id-statement+jwt"}));
    serde_json::from_slice(&decode(claims)).unwrap()
}

/// The number of the lists that a statement is about.
pub fn number(statement: &Value) -> u64 {
    statement["number"].as_u64().unwrap()
}

/// The serials that are new in a statement, as text.
pub fn revoked(statement: &Value) -> Vec<&str> {
    statement["revoked"].as_array().unwrap().iter().map(|one| one["serial"].as_str().unwrap()).collect()
}
