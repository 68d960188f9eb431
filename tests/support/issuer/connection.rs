//! The issuer's connections: TLS, and the proxy in front of it.

use std::io::{self, BufRead, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ServerConnection, StreamOwned};

use super::{Endpoint, Request, Shared};

/// The longest that a client may take over a request.
const PATIENCE: Duration = Duration::from_secs(20);

/// One request over TLS, one answer, the end.
pub fn tls(shared: &Shared, socket: TcpStream) {
    let _ = socket.set_read_timeout(Some(PATIENCE));
    let _ = socket.set_nodelay(true);
    let Ok(connection) = ServerConnection::new(Arc::clone(&shared.config)) else { return };
    let mut stream = BufReader::new(StreamOwned::new(connection, socket));
    let Ok(request) = read(&mut stream) else { return };
    let _ = shared.answer(&request, stream.get_mut());
    let stream = stream.get_mut();
    stream.conn.send_close_notify();
    let _ = stream.flush();
    let _ = stream.sock.shutdown(Shutdown::Write);
}

/// `CONNECT`, as a proxy that knows one server; or a platform's command, from
/// the script of [`write_minter`].
pub fn plain(shared: &Shared, socket: TcpStream) {
    let _ = socket.set_read_timeout(Some(PATIENCE));
    let _ = socket.set_nodelay(true);
    let mut reader = BufReader::new(socket);
    let Ok(request) = read(&mut reader) else { return };
    let mut client = reader.into_inner();
    if request.method != "CONNECT" {
        let _ = shared.answer(&request, &mut client);
        return;
    }
    let Ok(server) = TcpStream::connect(shared.address) else {
        let _ = client.write_all(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n");
        return;
    };
    if client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").is_err() {
        return;
    }
    let (Ok(to_client), Ok(from_server)) = (client.try_clone(), server.try_clone()) else { return };
    let back = std::thread::spawn(move || pump(from_server, to_client));
    pump(client, server);
    let _ = back.join();
}

fn pump(mut from: TcpStream, mut to: TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}

fn read(stream: &mut impl BufRead) -> io::Result<Request> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.take(65_536).read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let mut words = lines.first().map(String::as_str).unwrap_or_default().split(' ').map(str::to_owned);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let headers: Vec<(String, String)> = lines
        .iter()
        .skip(1)
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let mut request = Request {
        endpoint: endpoint(&target),
        method,
        host: String::new(),
        target,
        headers,
        body: Vec::new(),
    };
    request.host = request.header("host").unwrap_or_default().to_owned();
    let length = request.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    request.body = vec![0; length];
    stream.read_exact(&mut request.body)?;
    Ok(request)
}

fn endpoint(target: &str) -> Endpoint {
    let path = target.split('?').next().unwrap_or_default();
    if path.ends_with("/.well-known/openid-configuration") {
        Endpoint::Discovery
    } else if path.ends_with("/.well-known/jwks") {
        Endpoint::Keys
    } else if ["/actions/idtoken", "/circleci", "/buildkite"].contains(&path) || path.ends_with("/oidctoken")
    {
        Endpoint::Token
    } else {
        Endpoint::Other
    }
}

/// A platform's program that mints tokens, as the real one in a job does; the
/// issuer makes what it prints. Its arguments are added to a file beside it.
pub fn write_minter(path: &Path, platform: &str, issuer: SocketAddr) {
    let (words, option) = match platform {
        "circleci" => {
            ("run oidc get", r#"--claims) claims=$2; shift 2 ;; --claims=*) claims=${1#--claims=}; shift ;;"#)
        }
        "buildkite" => {
            ("oidc request-token", r#"--audience) claims="{\"aud\":\"$2\"}"; shift 2 ;; --claim) shift 2 ;;"#)
        }
        other => panic!("{other} has no command"),
    };
    let count = words.split(' ').count();
    let (ip, port) = (issuer.ip(), issuer.port());
    let script = format!(
        r#"#!/bin/bash
set -u
printf '%s\n' "$*" >>"$0.args"
[ "${{*:1:{count}}}" = "{words}" ] || {{ echo "unknown command" >&2; exit 1; }}
shift {count}
claims='{{}}'
while [ $# -gt 0 ]; do
  case $1 in
    {option}
    *) shift ;;
  esac
done
exec 3<>/dev/tcp/{ip}/{port}
printf 'POST /{platform} HTTP/1.1\r\nHost: {platform}\r\nContent-Length: %s\r\n\r\n%s' "${{#claims}}" "$claims" >&3
IFS=' ' read -r _ status _ <&3
while IFS= read -r line <&3; do [ "$line" = $'\r' ] && break; done
while IFS= read -r line <&3 || [ -n "$line" ]; do printf '%s\n' "$line"; done
[ "$status" = 200 ]
"#
    );
    std::fs::write(path, script).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}
