//! The output `ssh-host`: a host certificate for an `sshd`.

use std::net::IpAddr;

use super::{Halves, OutputKind};
use crate::authority::policy::field::{Field, Wildcard, has_wildcard, list};
use crate::authority::policy::grant::SshGrant;
use crate::authority::policy::merge::{MAX_CERTIFICATE_PRINCIPALS, Merged};
use crate::denial::Denial;
use crate::join::rules::glob;
use crate::text::shown;

/// The type.
pub(super) static KIND: OutputKind = OutputKind {
    name: "ssh-host",
    summary: "a host certificate for an sshd",
    ssh: true,
    tls: false,
    options: &["principals"],
    needs: &["principals"],
    recorded: &[],
    fields: &[&HOSTS],
    grant,
};

static HOSTS: Field = Field {
    key: "ssh_host_principals",
    noun: "host name",
    shape: is_host,
    hint: "a DNS name in lower case without a dot at its end, or an IP address in its usual form",
    wildcard: Wildcard::Globs,
    covers,
    same_as: None,
    hollow: |_| false,
    superusers: &[],
    literal_only: None,
    entries: list,
};

/// A host has one name here, so that no other spelling of it gets past a
/// `deny`. OpenSSH takes `*` in a host's principal for a pattern: it is none of
/// a name's characters.
fn is_host(text: &str) -> bool {
    if let Ok(address) = text.parse::<IpAddr>() {
        return address.to_string() == text;
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'))
    };
    // `127.1` and `0x7f000001` are addresses to some programs.
    let last = text.rsplit('.').next().unwrap_or_default();
    let numeric = last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x");
    text.len() <= 253 && !numeric && text.split('.').all(label)
}

/// A glob of nothing but what addresses have (`10.0.0.*`) covers addresses
/// alone: `10.0.0.evil.example` is a name that anybody can register.
fn covers(pattern: &str, name: &str) -> bool {
    let of_addresses = has_wildcard(pattern)
        && pattern.contains(|c: char| c.is_ascii_digit())
        && pattern.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | ':' | '*' | '?'));
    glob(pattern, name) && (!of_addresses || name.parse::<IpAddr>().is_ok())
}

fn grant(merged: &mut Merged<'_, '_>) -> Result<Halves, Denial> {
    merged.leave_out_pinned();
    let mut principals: Vec<String> =
        merged.option("principals").unwrap_or_default().split('+').map(str::to_owned).collect();
    principals.sort_unstable();
    principals.dedup();
    if principals.len() > MAX_CERTIFICATE_PRINCIPALS {
        let most = MAX_CERTIFICATE_PRINCIPALS;
        return Err(merged.invalid(&format!("a certificate holds at most {most} principals")));
    }
    if let Some(bad) = principals.iter().find(|name| !is_host(name)) {
        return Err(merged.invalid(&format!("`{}` cannot be a host name: {}", shown(bad), HOSTS.hint)));
    }
    if let Some(name) = principals.iter().find(|name| merged.givers(&HOSTS, name).is_empty()) {
        return Err(merged.refused(&HOSTS, name));
    }
    let ssh = SshGrant {
        host: true,
        principals,
        extensions: Vec::new(),
        force_command: None,
        pin_source_ip: false,
    };
    Ok((Some(ssh), None))
}
