//! `HostCertificate`: by which jobs know this host.

use std::path::Path;

use ssh_key::certificate::CertType;

use super::finding::Finding;
use super::here;
use crate::clock::rfc3339;
use crate::folder::read::{self, Limit, Trust};
use crate::host::sshd::{self, Effective};
use crate::host::store::HOST_CA;

const ABOUT: &str = "HostCertificate";
/// How long before its end one is told, in seconds.
const SOON: u64 = 14 * 24 * 3600;

pub(super) fn look(effective: &Effective, now: i64) -> Vec<Finding> {
    let all: Vec<Finding> = effective
        .all("hostcertificate")
        .map(|path| one(path, effective, u64::try_from(now).unwrap_or_default()))
        .collect();
    if !all.is_empty() {
        return all;
    }
    vec![
        Finding::warning(ABOUT, "it is set nowhere: no job believes that this is the host that it looks for")
            .hint("`machine-id host install` sets it up"),
    ]
}

fn one(path: &str, effective: &Effective, now: u64) -> Finding {
    let certificate = match sshd::certificate(Path::new(path)) {
        Ok(certificate) => certificate,
        Err(unfit) => {
            return Finding::fault(ABOUT, format!("{path}: {unfit}"))
                .hint("`machine-id host install` gets one, or `authority sign-host` signs one");
        }
    };
    let fault = |why: &str| Finding::fault(ABOUT, format!("{path}: {why}"));
    if certificate.cert_type() != CertType::Host {
        return fault("it is a user's").hint("`authority sign-host` signs a host's");
    }
    let is_its = |key: &str| {
        sshd::public_key(&sshd::public_half(key)).is_ok_and(|key| key.key_data() == certificate.public_key())
    };
    if !effective.all("hostkey").any(is_its) {
        return fault("it is for no HostKey of sshd's").hint("sign that key's public half, or name the key");
    }
    if let Some(Ok(refusals)) = here::refusals(effective)
        && refusals.refuse(&certificate)
    {
        return fault("the authority has revoked it")
            .hint("sign the host a new one, for a new key, once it is let in again");
    }
    if let Some(cas) = host_cas(effective)
        && !cas.iter().any(|ca| ca.key_data() == certificate.signature_key())
    {
        return fault("no host CA of this authority has signed it: jobs do not believe it");
    }
    let end = |at: u64| rfc3339(i64::try_from(at).unwrap_or(i64::MAX));
    let (after, before) = (certificate.valid_after(), certificate.valid_before());
    if now < after {
        return fault(&format!(
            "it is valid from {} on, and this machine's clock says {}",
            end(after),
            end(now)
        ))
        .hint("is the clock right? `timedatectl`");
    }
    if now >= before {
        return fault(&format!("it has ended at {}", end(before)))
            .hint("`systemctl status machine-id-host-certificate`, or sign it again");
    }
    let names = certificate.valid_principals().join(", ");
    // One that is renewed all the time never has that long.
    let soon = SOON.min(before.saturating_sub(after) / 3);
    if before - now <= soon {
        return Finding::warning(ABOUT, format!("{path} for {names} ends at {}", end(before)))
            .hint("`systemctl status machine-id-host-certificate` where it is renewed; else sign it again, and `host install` with the new one");
    }
    Finding::ok(ABOUT, format!("{path} for {names} is good until {}", end(before)))
}

/// The CAs of hosts, where `host watch` keeps them beside those of users.
fn host_cas(effective: &Effective) -> Option<Vec<ssh_key::PublicKey>> {
    let folder = Path::new(effective.one("trustedusercakeys")?).parent()?;
    let text = read::raw(&folder.join(HOST_CA), Trust::Anyone, Limit::FILE).and_then(read::utf8).ok()?;
    Some(text.lines().filter_map(|line| ssh_key::PublicKey::from_openssh(line).ok()).collect())
}
