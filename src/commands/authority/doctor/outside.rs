//! What others say: issuers and their clocks, the name that jobs use, and whoever answers there.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::told::{Told, Verdict};
use crate::authority::config::Config;
use crate::authority::policy::Policy;
use crate::clock::{Clock, LEEWAY, rfc3339};
use crate::error::Result;
use crate::join::issuers::{pinned, probe};
use crate::net::{self, AuthorityTrust, RequestError};
use crate::text::shown_long;

/// How far off a clock may be, in seconds: half of what tokens are allowed, so that there is time to see to it.
const OFF: u64 = LEEWAY.unsigned_abs() / 2;
/// How long anybody here or a resolver is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest answer of an authority that is read.
const MAX_ANSWER: usize = 64 << 10;

pub(super) async fn look(config: &Config, policy: Option<&Policy>) -> Vec<Told> {
    let (issuers, name, port) = tokio::join!(issuers(config, policy), name(config), port(config));
    issuers.into_iter().chain(name).chain(port).collect()
}

/// Each issuer whose keys are asked for, as the authority asks, and its clock.
async fn issuers(config: &Config, policy: Option<&Policy>) -> Vec<Told> {
    let tokens = policy.into_iter().flat_map(|policy| policy.tokens().chain(policy.clusters()));
    let urls: BTreeSet<(&str, Option<&str>)> = tokens.filter_map(|token| token.verifier.asks()).collect();
    let client = match net::issuer_client(config.issuer_ca_file.as_ref(), config.owner) {
        Ok(client) => client,
        Err(error) => return vec![Told::error("issuers", &error)],
    };
    let ask = async |(url, pins): &(&str, Option<&str>)| match pins {
        None => probe(&client, url).await,
        Some(pins) => probe(&pinned(url, pins)?, url).await,
    };
    let asked = join_all(urls.iter().map(ask)).await;
    let mut told = Vec::new();
    let mut clocks = 0_u32;
    for ((url, _), answer) in urls.into_iter().zip(asked) {
        let date = match answer {
            Ok(date) => date,
            Err(why) => {
                told.push(Told::new(
                    "issuers",
                    Verdict::Unreached,
                    format!("the keys of {url} cannot be had: {why}"),
                ));
                continue;
            }
        };
        told.push(Told::new("issuers", Verdict::Ok, format!("{url} gives its keys")));
        let now = Clock::system().now();
        let Some(date) = date else { continue };
        clocks += 1;
        if now.abs_diff(date) >= OFF {
            let message = format!(
                "this machine's clock says {}, and {url} says {}: {} seconds apart",
                rfc3339(now),
                rfc3339(date),
                now.abs_diff(date)
            );
            told.push(Told::new("clock", Verdict::Finding, message).hint(
                "synchronise this machine's (`timedatectl`): tokens are refused when it is a minute off",
            ));
        }
    }
    if clocks > 0 && told.iter().all(|one| one.about != "clock") {
        told.push(Told::new("clock", Verdict::Ok, "it agrees with those of the issuers"));
    } else if clocks == 0 {
        told.push(Told::new("clock", Verdict::Note, "no issuer was asked what time it is"));
    }
    told
}

/// Whether the name that jobs use leads anywhere.
async fn name(config: &Config) -> Option<Told> {
    let host = config.public_host();
    if host.parse::<IpAddr>().is_ok() {
        return None;
    }
    let found = timeout(PATIENCE, tokio::net::lookup_host((host.as_str(), 443))).await;
    let why = match found {
        Ok(Ok(mut addresses)) => match addresses.next() {
            Some(_) => return Some(Told::new("names", Verdict::Ok, format!("{host} is known here"))),
            None => "it has no address".to_owned(),
        },
        Ok(Err(error)) => error.to_string(),
        Err(_) => "the resolver did not answer in time".to_owned(),
    };
    Some(
        Told::new("names", Verdict::Unreached, format!("{host}, as `public_url` names it, is not known here: {why}"))
            .hint("jobs must find it: give it an address in DNS, or correct `public_url`, which is the audience of their tokens"),
    )
}

/// Whether the authority listens, and answers by the name that jobs use; or whether it could listen.
async fn port(config: &Config) -> Vec<Told> {
    let listen = config.listen;
    let here = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    if timeout(PATIENCE, TcpStream::connect(SocketAddr::new(here, listen.port())))
        .await
        .is_ok_and(|made| made.is_ok())
    {
        return answers(config).await;
    }
    vec![match TcpListener::bind(listen).await {
        Ok(_) => Told::new("port", Verdict::Note, format!("nobody serves at {listen} yet: `machine-id authority serve`")),
        Err(error) => Told::new("port", Verdict::Finding, format!("nobody can listen at {listen}: {error}"))
            .hint("correct `listen` in authority.yaml; for a port below 1024, give the unit `AmbientCapabilities=CAP_NET_BIND_SERVICE`"),
    }]
}

/// Somebody listens: whether that is this authority, and is ready.
async fn answers(config: &Config) -> Vec<Told> {
    let url = &config.public_url;
    let own = AuthorityTrust { ca_file: Some(config.ca_certificate()), ca_pin: None };
    // Its certificate may be another's, and so may be that of whatever stands before it.
    let mut answer = ready(url, &own).await;
    if matches!(&answer, Ok(Err(RequestError::Untrusted(_)))) {
        answer = ready(url, &AuthorityTrust::default()).await;
    }
    let finding = |message: String, hint: &str| vec![Told::new("port", Verdict::Finding, message).hint(hint)];
    let unreachable = |why| net::unreachable(url, why, &own, Clock::system().now());
    match answer {
        Err(error) => vec![Told::error("port", &error)],
        Ok(Ok((200, said))) => {
            let warnings = said.get("warnings").and_then(Value::as_array).into_iter().flatten();
            let warnings = warnings.map(|one| Told::new("port", Verdict::Finding, text(one)));
            let ok = Told::new("port", Verdict::Ok, format!("it answers at {url}, and is ready"));
            [ok].into_iter().chain(warnings).collect()
        }
        Ok(Ok((503, said))) => {
            let why: Vec<String> =
                ["title", "detail"].iter().filter_map(|key| said.get(key)).map(text).collect();
            finding(format!("it answers at {url}, and is not ready: {}", why.join(": ")), "its log says more")
        }
        Ok(Ok((status, _))) => finding(
            format!("whoever answers at {url} is no authority: status {status}"),
            "look where `public_url` leads, and who else listens there",
        ),
        Ok(Err(why @ RequestError::Untrusted(_))) => finding(
            unreachable(&why).to_string(),
            "somebody else answers there, or one with another certificate, which jobs need `--ca-file` for",
        ),
        Ok(Err(why)) => {
            let hint = format!("somebody listens at {}: see whether that is this authority", config.listen);
            vec![Told::error("port", &unreachable(&why).hint(hint))]
        }
    }
}

/// Text of an answer, as text from outside is shown.
fn text(value: &Value) -> String {
    shown_long(value.as_str().unwrap_or_default())
}

/// Status and body of `/readyz`.
async fn ready(url: &str, trust: &AuthorityTrust) -> Result<Result<(u16, Value), RequestError>> {
    let client = net::authority_client(trust, url, Duration::ZERO)?;
    let asked = async {
        let response = net::send(client.get(format!("{url}/readyz"))).await?;
        let status = response.status().as_u16();
        let body = net::body(response, MAX_ANSWER).await?;
        Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
    };
    Ok(timeout(PATIENCE, asked).await.unwrap_or(Err(RequestError::Timeout)))
}
