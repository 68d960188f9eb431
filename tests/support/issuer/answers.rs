//! What the issuer says: discovery, key sets, tokens, faults.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Endpoint, Fault, REQUEST_TOKEN, Request, Shared};
use crate::support::template::{self, Variables};
use crate::support::token::{Signing, Token};

impl Shared {
    /// Answers a request, or fails at it as the test wants.
    pub fn answer(&self, request: &Request, to: &mut impl Write) -> io::Result<()> {
        let fault = {
            let mut state = self.state.lock().unwrap();
            state.requests.push(request.clone());
            match state.faults.get_mut(&request.endpoint) {
                Some((times, fault)) if *times > 0 => {
                    *times -= 1;
                    Some(fault.clone())
                }
                _ => None,
            }
        };
        match fault {
            None => {}
            Some(Fault::Status(status)) => {
                return reply(to, status, "", r#"{"message":"as the test wants"}"#);
            }
            Some(Fault::Body(body)) => return reply(to, 200, "", &body),
            Some(Fault::Answer(status, header, body)) => return reply(to, status, &header, &body),
            Some(Fault::Redirect(url)) => return reply(to, 302, &format!("Location: {url}"), ""),
            Some(Fault::Forward(server)) => return forward(request, server, to),
            Some(Fault::Delay(time)) => self.rest(time),
            Some(Fault::Huge(bytes)) => return huge(to, bytes),
            Some(Fault::Drip(pause)) => {
                write!(
                    to,
                    "HTTP/1.1 200 Test\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"
                )?;
                while !self.closing.load(Ordering::Relaxed) {
                    to.write_all(b" ")?;
                    to.flush()?;
                    self.rest(pause);
                }
                return Ok(());
            }
            Some(Fault::Hang) => {
                self.rest(Duration::from_secs(120));
                return Ok(());
            }
            Some(Fault::Drop) => return Ok(()),
        }
        match request.endpoint {
            Endpoint::Discovery => {
                let path = request.target.split("/.well-known").next().unwrap_or_default();
                let issuer = format!("https://{}{path}", request.host);
                reply(to, 200, "", &discovery(&issuer).to_string())
            }
            Endpoint::Keys => {
                let keys = json!({"keys": self.state.lock().unwrap().keys});
                reply(to, 200, "", &keys.to_string())
            }
            Endpoint::Token if request.target == "/circleci" => self.command("circleci", request, to),
            Endpoint::Token if request.target == "/buildkite" => self.command("buildkite", request, to),
            Endpoint::Token if request.target.contains("/oidctoken") => self.azure(request, to),
            Endpoint::Token => self.github(request, to),
            Endpoint::Other => reply(to, 404, "", "{}"),
        }
    }

    /// GitHub's: `GET …&audience=…` with the request token; `{"value": JWT}`.
    fn github(&self, request: &Request, to: &mut impl Write) -> io::Result<()> {
        let authorization = request.header("authorization").unwrap_or_default();
        let (scheme, secret) = authorization.split_once(' ').unwrap_or_default();
        if !scheme.eq_ignore_ascii_case("bearer") || secret != REQUEST_TOKEN {
            return reply(to, 401, "", r#"{"message":"Bad request token"}"#);
        }
        let accept = request.header("accept").unwrap_or_default();
        if request.method != "GET" || !accept.replace(' ', "").contains("api-version=2.0") {
            return reply(to, 400, "", r#"{"message":"GET, with the version of the API"}"#);
        }
        let query = request.target.split_once('?').map(|(_, query)| query).unwrap_or_default();
        let audience = query.split('&').find_map(|pair| pair.strip_prefix("audience="));
        let audience = audience.map_or_else(|| "https://github.com/octo-org".to_owned(), decode);
        let token = self.token("github", &audience).mint();
        self.state.lock().unwrap().minted.push(token.clone());
        reply(to, 200, "", &json!({"count": token.len(), "value": token}).to_string())
    }

    /// A platform's command: the claims that the job asks for, then the token.
    fn command(&self, platform: &str, request: &Request, to: &mut impl Write) -> io::Result<()> {
        let Ok(Value::Object(asked)) = serde_json::from_slice(&request.body) else {
            return reply(to, 400, "", "claims must be a JSON object");
        };
        let organization = match platform {
            "circleci" => self.state.lock().unwrap().claims["circleci"]["oidc.circleci.com/org-id"].clone(),
            _ => "https://buildkite.com/acme-inc".into(),
        };
        let audience = asked.get("aud").unwrap_or(&organization).as_str().unwrap_or_default().to_owned();
        let token = self.token(platform, &audience).mint();
        self.state.lock().unwrap().minted.push(token.clone());
        reply(to, 200, "", &token)
    }

    /// Azure DevOps': `POST …?api-version=7.1[&serviceConnectionId=…]` with the access token.
    fn azure(&self, request: &Request, to: &mut impl Write) -> io::Result<()> {
        if request.header("authorization") != Some(&format!("Bearer {REQUEST_TOKEN}")) {
            return reply(to, 401, "", r#"{"message":"TF400813: the user is not authorized"}"#);
        }
        if request.header("content-length") != Some("0") {
            return reply(to, 411, "", "Length Required");
        }
        let query = request.target.split_once('?').map(|(_, query)| query).unwrap_or_default();
        if request.method != "POST" || !query.split('&').any(|pair| pair == "api-version=7.1") {
            return reply(to, 405, "", r#"{"message":"POST, with the version of the API"}"#);
        }
        let mut token = self.token("azure-devops", "api://AzureADTokenExchange");
        if let Some(id) = query.split('&').find_map(|pair| pair.strip_prefix("serviceConnectionId=")) {
            token = token.claim("sub", format!("sc://octo-org/octo-project/{id}"));
        }
        let token = token.mint();
        self.state.lock().unwrap().minted.push(token.clone());
        reply(to, 200, "", &json!({"oidcToken": token}).to_string())
    }

    /// A token of a platform's claims for this audience.
    pub fn token(&self, platform: &str, audience: &str) -> Token {
        let state = self.state.lock().unwrap();
        let issuer = match platform {
            "github" => format!("https://{}/_services/token", self.address),
            // The claims name it.
            _ => String::new(),
        };
        let variables = Variables::new().with("issuer", issuer).with("audience", audience);
        let claims = state.claims.get(platform).cloned().unwrap_or_else(|| template::claims(platform));
        let mut token = Token::by(state.signer, variables.object(&claims));
        token.signing = Signing::Key(state.signer, state.signer.algorithm().to_owned());
        token
    }

    fn rest(&self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end && !self.closing.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The discovery document of an honest issuer.
pub fn discovery(issuer: &str) -> Value {
    json!({
        "issuer": issuer,
        "jwks_uri": format!("{issuer}/.well-known/jwks"),
        "subject_types_supported": ["public", "pairwise"],
        "response_types_supported": ["id_token"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "scopes_supported": ["openid"],
    })
}

/// Passes a request on without TLS, and its answer back.
fn forward(request: &Request, server: SocketAddr, to: &mut impl Write) -> io::Result<()> {
    let mut onward = TcpStream::connect(server)?;
    write!(onward, "{} {} HTTP/1.0\r\n", request.method, request.target)?;
    for (name, value) in request.headers.iter().filter(|(name, _)| name != "connection") {
        write!(onward, "{name}: {value}\r\n")?;
    }
    onward.write_all(b"\r\n")?;
    onward.write_all(&request.body)?;
    io::copy(&mut onward, to)?;
    to.flush()
}

fn reply(to: &mut impl Write, status: u16, header: &str, body: &str) -> io::Result<()> {
    let header = if header.is_empty() { String::new() } else { format!("{header}\r\n") };
    let length = body.len();
    write!(
        to,
        "HTTP/1.1 {status} Test\r\nContent-Type: application/json\r\n{header}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )?;
    to.flush()
}

fn huge(to: &mut impl Write, bytes: usize) -> io::Result<()> {
    write!(to, "HTTP/1.1 200 Test\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n")?;
    let chunk = [b' '; 16_384];
    for _ in 0..bytes.div_ceil(chunk.len()) {
        to.write_all(&chunk)?;
    }
    to.flush()
}

/// Undoes `%XX` and `+` of a query.
fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match (first, hex) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            (b'+', _) => {
                bytes.push(b' ');
                rest = after;
            }
            (byte, _) => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).unwrap()
}
