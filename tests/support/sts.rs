//! AWS's STS and KMS, as far as PyPI has them: `moto`, which verifies signatures with
//! botocore, behind the loopback issuer's TLS; and botocore's own signer, to
//! make requests that our client never would.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Map, Value, json};

use super::client::{Keys, Response};
use super::issuer::{Endpoint, Fault, Issuer};
use super::port::free_port;
use super::{repository, wait_for};

/// The account of every caller.
pub const ACCOUNT: &str = "123456789012";
/// The body of the one request that proofs are.
pub const ACTION: &str = "Action=GetCallerIdentity&Version=2011-06-15";

/// The server; it ends with the value.
pub struct Sts {
    process: Child,
    // Closed when this goes, which ends the server.
    alive: ChildStdin,
    address: SocketAddr,
    /// The process that serves, or does so next.
    id: AtomicI32,
    told: Value,
}

impl Sts {
    /// Starts it, with a user and a role's session in [`ACCOUNT`].
    #[track_caller]
    pub fn start() -> Self {
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository("target"), Into::into);
        let python = target.join("tools/moto/bin/python");
        assert!(python.exists(), "there is no {}: run tests/support/sts/install", python.display());
        let address = free_port();
        let mut process = Command::new(python)
            .arg(repository("tests/support/sts/server.py"))
            .arg(address.port().to_string())
            .env_clear()
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let told = serde_json::from_str(&line).expect("what the server says of itself");
        let alive = process.stdin.take().unwrap();
        let id = AtomicI32::new(process.id().try_into().unwrap());
        Self { process, alive, address, id, told }
    }

    /// Where it listens, without TLS.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.id.load(Ordering::Relaxed)).unwrap(), signal).unwrap();
    }

    /// Kills it; another process is left with all that it knew.
    #[track_caller]
    pub fn kill(&self) {
        let spare = self.control("/spare", &json!({}))["id"].as_i64().unwrap();
        self.signal(Signal::KILL);
        self.id.store(spare.try_into().unwrap(), Ordering::Relaxed);
    }

    /// That serves from now on, at the same address.
    #[track_caller]
    pub fn start_again(&self) {
        (&self.alive).write_all(b"\n").unwrap();
        wait_for("moto", || TcpStream::connect(self.address).ok());
    }

    /// Has the issuer, which stands in for every host, pass STS's requests on to it.
    pub fn behind(&self, issuer: &Issuer) {
        issuer.fail(Endpoint::Other, Fault::Forward(self.address()));
    }

    /// What the server says of itself: `user`, `session` and others.
    pub fn told(&self, name: &str) -> &str {
        self.told.pointer(name).and_then(Value::as_str).unwrap_or_else(|| panic!("no {name}"))
    }

    /// Has the server do what AWS has no API for, or another one.
    pub fn control(&self, path: &str, asked: &Value) -> Value {
        let body = asked.to_string();
        let mut stream = TcpStream::connect(self.address()).unwrap();
        write!(stream, "POST {path} HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        Response::read(&mut stream).unwrap().json()
    }

    /// `AWS_ACCESS_KEY_ID` and its like for `user`, `session` or `authority`, whose one policy is what `/allow` said last.
    pub fn environment(&self, whose: &str) -> Vec<(String, String)> {
        [
            ("AWS_ACCESS_KEY_ID", "access_key"),
            ("AWS_SECRET_ACCESS_KEY", "secret_key"),
            ("AWS_SESSION_TOKEN", "token"),
        ]
        .into_iter()
        .filter_map(|(variable, name)| {
            Some((variable.to_owned(), self.told[whose].get(name)?.as_str()?.to_owned()))
        })
        .collect()
    }

    /// The signed request of a proof, by botocore: for a host, with changes to
    /// what is asked to be signed (`region`, `body`, `service`, `secret_key`, …).
    pub fn sign(&self, host: &str, audience: &str, changes: &Value) -> Map<String, Value> {
        let mut asked = self.told["user"].as_object().unwrap().clone();
        let url = format!("https://{host}/");
        let headers = json!({
            "accept": "application/json", "content-type": "application/x-www-form-urlencoded",
            "host": host, "x-machine-id-audience": audience,
        });
        let request = json!({"url": url, "region": "eu-central-1", "body": ACTION, "headers": headers});
        asked.extend(request.as_object().unwrap().clone());
        asked.extend(changes.as_object().unwrap().clone());
        let headers = self.control("/sign", &asked.clone().into());
        let signed = json!({"method": "POST", "url": url, "headers": headers, "body": asked["body"]});
        signed.as_object().unwrap().clone()
    }
}

impl Drop for Sts {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A request for certificates with this signed request as its proof.
pub fn request(keys: &Keys, join_token: &str, signed: &Map<String, Value>) -> Value {
    let mut request = keys.request(join_token, "iam", "");
    request["proof"] = json!({"sts_request": Value::from(signed.clone()).to_string()});
    request
}
