//! Which host asks, where it proves that: an assertion in a header, by its host key or the key of its TLS certificate, for
//! the URL that it asks for. It may come again within its minute, since nothing is granted for it.

use std::net::IpAddr;
use std::time::Instant;

use serde_json::Value;

use super::Authority;
use super::assertion::{Assertion, Unfit, Unproven, refuse};
use super::store::CertificateRecord;
use super::store::hosts::{HostSeen, MAX_CAS};
use crate::clock::LEEWAY;
use crate::text::shown_exactly;

/// The reason of a refusal here, in the audit trail.
const HOST_UNPROVEN: &str = "host_unproven";

/// The longest that a CA is called.
const MAX_CA: usize = 128;

/// Notes which host asks for that path, by what its header says.
///
/// # Errors
/// [`Unproven`]; a refusal has been recorded when this returns, among those of strangers.
pub async fn hear(authority: &Authority, said: &str, path: &str, peer: IpAddr) -> Result<(), Unproven> {
    match judge(authority, said, path).await {
        Ok(()) => Ok(()),
        Err(unfit) => {
            let what = format!("a host that asks for {}", shown_exactly(path));
            Err(refuse(authority, unfit, (HOST_UNPROVEN, &what), peer).await)
        }
    }
}

async fn judge(authority: &Authority, said: &str, path: &str) -> Result<(), Unfit> {
    let now = authority.clock.now();
    let assertion = Assertion::read(authority, said, |record| is_hosts(record, now)).await?;
    let (claims, _) = assertion.claims(&format!("{}{path}", authority.config.public_url), now)?;
    let is_ca =
        |ca: &&str| ca.len() <= MAX_CA && ca.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    let cas = claims.get("cas").and_then(Value::as_array).into_iter().flatten();
    let cas: Vec<String> =
        cas.filter_map(Value::as_str).filter(is_ca).take(MAX_CAS).map(str::to_owned).collect();
    let list = claims.get("list").and_then(Value::as_u64);
    let serial = assertion.serial;
    for name in assertion.record.hosts {
        authority.hosts.note(HostSeen { name, seen: now, list, cas: cas.clone(), serial }, Instant::now());
    }
    Ok(())
}

/// Whether it is a host's that is good.
fn is_hosts(record: &CertificateRecord, now: i64) -> Result<(), &'static str> {
    if record.hosts.is_empty() {
        return Err("the certificate is not a host's");
    }
    if record.revoked.is_some() {
        return Err("the certificate is revoked");
    }
    (record.expires > now.saturating_sub(LEEWAY)).then_some(()).ok_or("the certificate has expired")
}
