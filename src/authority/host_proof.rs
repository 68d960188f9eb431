//! Which host asks, where it proves that: an assertion in a header, by its host key or the key of its TLS certificate, for
//! the URL that it asks for. It may come again within its minute, since nothing is granted for it.

use std::net::IpAddr;

use serde_json::Value;

use super::Authority;
use super::assertion::{Assertion, Unfit, Unproven, refuse};
use super::store::CertificateRecord;
use super::store::hosts::{HostNews, HostSeen, MAX_CAS};
use crate::clock::LEEWAY;
use crate::text::shown_exactly;

/// The reason of a refusal here, in the audit trail.
const HOST_UNPROVEN: &str = "host_unproven";

/// The longest that a CA is called.
const MAX_CA: usize = 128;

/// A host that has proved which it is, and what it said that it has.
#[derive(Debug)]
pub struct ProvenHost {
    names: Vec<String>,
    list: Option<u64>,
    cas: Vec<String>,
    serial: u64,
}

impl ProvenHost {
    fn note(&self, authority: &Authority) {
        let Self { names, list, cas, serial } = self;
        for name in names {
            authority.hosts.note(HostNews::Said(HostSeen {
                name: name.clone(),
                seen: authority.clock.now(),
                list: *list,
                cas: cas.clone(),
                serial: *serial,
            }));
        }
    }

    /// Notes that it is there, where its certificate is still good: it takes what it is told on a connection. What it has
    /// only it can say, and does whenever it has fetched something.
    pub async fn is_there(&self, authority: &Authority) {
        let now = authority.clock.instant();
        if !self.names.iter().any(|name| authority.hosts.wants(name, now)) {
            return;
        }
        // Where the store cannot be asked, it is asked again with the next heartbeat.
        if let Ok(Some(record)) = authority.store.certificate(self.serial).await
            && is_hosts(&record, authority.clock.now()).is_ok()
        {
            let there = |name: &String| HostNews::There(name.clone(), authority.clock.now());
            self.names.iter().map(there).for_each(|news| authority.hosts.note(news));
        }
    }
}

/// Which host asks for that path, by what its header says; it is noted.
///
/// # Errors
/// [`Unproven`]; a refusal has been recorded when this returns, among those of strangers.
pub async fn hear(
    authority: &Authority,
    said: &str,
    path: &str,
    peer: IpAddr,
) -> Result<ProvenHost, Unproven> {
    match judge(authority, said, path).await {
        Ok(host) => {
            host.note(authority);
            Ok(host)
        }
        Err(unfit) => {
            let what = format!("a host that asks for {}", shown_exactly(path));
            Err(refuse(authority, unfit, (HOST_UNPROVEN, &what), peer).await)
        }
    }
}

async fn judge(authority: &Authority, said: &str, path: &str) -> Result<ProvenHost, Unfit> {
    let now = authority.clock.now();
    let assertion = Assertion::read(authority, (said, false), |record| is_hosts(record, now)).await?;
    let (claims, _) = assertion.claims(&format!("{}{path}", authority.config.public_url), now)?;
    let is_ca =
        |ca: &&str| ca.len() <= MAX_CA && ca.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    let cas = claims.get("cas").and_then(Value::as_array).into_iter().flatten();
    Ok(ProvenHost {
        cas: cas.filter_map(Value::as_str).filter(is_ca).take(MAX_CAS).map(str::to_owned).collect(),
        list: claims.get("list").and_then(Value::as_u64),
        serial: assertion.serial,
        names: assertion.record.hosts,
    })
}

/// Whether it is a host's that is good.
fn is_hosts(record: &CertificateRecord, now: i64) -> Result<(), &'static str> {
    if record.hosts.is_empty() {
        return Err("the certificate is neither a host's nor a worker's");
    }
    if record.revoked.is_some() {
        return Err("the certificate is revoked");
    }
    (record.expires > now.saturating_sub(LEEWAY)).then_some(()).ok_or("the certificate has expired")
}
