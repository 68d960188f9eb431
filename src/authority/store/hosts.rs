//! Servers that prove which host they are: when each was last heard, and what it had then. It grants nothing, and is not sealed.

use std::collections::BTreeMap;
use std::net::IpAddr;

use futures_util::future::BoxFuture;
use serde_json::{Map, Value};

use super::CertificateKind;
use crate::authority::ca::CaKey;
use crate::error::Result;
use crate::output::SSH_HOST;

/// How many hosts are known at most, in a store and to an authority: who was heard last stays.
pub const MAX_HOSTS: usize = 20_000;

/// How many CAs of a host are kept.
pub const MAX_CAS: usize = 16;

/// The command by which an authority signs its own certificate. That is no other host's, whatever is thrown out: without it
/// nobody would hear of that.
pub const SERVE: &str = "serve";

/// A host, as it was last heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostSeen {
    /// Its name: one of those in its certificate.
    pub name: String,
    /// When, in seconds since 1970.
    pub seen: i64,
    /// The number of the revocation lists that it has, as it says.
    pub list: Option<u64>,
    /// The CAs that it has, as it says: `ssh-user SHA256:…`.
    pub cas: Vec<String>,
    /// The serial of the certificate that it has shown.
    pub serial: u64,
}

/// What is heard of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostNews {
    /// It has said something, in the place of what it said before.
    Said(HostSeen),
    /// The one of that name is still there, at that time.
    There(String, i64),
}

impl HostNews {
    /// Its name.
    pub fn name(&self) -> &str {
        match self {
            Self::Said(HostSeen { name, .. }) | Self::There(name, _) => name,
        }
    }
}

impl HostSeen {
    /// The column `list`: numbers have 64 bits.
    pub(super) fn list_text(&self) -> Option<String> {
        self.list.map(|number| number.to_string())
    }

    /// What that column says.
    pub(super) fn read_list(text: Option<&str>) -> Option<u64> {
        text?.parse().ok()
    }

    /// The column `cas`.
    pub(super) fn cas_text(&self) -> String {
        self.cas.join("\n")
    }

    /// What that column says.
    pub(super) fn read_cas(text: &str) -> Vec<String> {
        text.lines().take(MAX_CAS).map(str::to_owned).collect()
    }
}

/// Who sees to it that there is a next certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// An operator, by `sign-host` or `sign-server`.
    Operator,
    /// A registered worker.
    Worker,
    /// Another job, or nobody.
    Job,
}

impl Renewal {
    /// As the event and the certificate of it say.
    pub(super) fn of(is_signed: bool, is_workers: bool) -> Self {
        match (is_signed, is_workers) {
            (true, _) => Self::Operator,
            (false, true) => Self::Worker,
            (false, false) => Self::Job,
        }
    }
}

/// A certificate of a host or server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostCertificate {
    /// Its serial.
    pub serial: u64,
    /// SSH or TLS.
    pub kind: CertificateKind,
    /// Its names.
    pub names: Vec<String>,
    /// As [`NewCertificate::key_hash`](super::NewCertificate::key_hash).
    pub key_hash: [u8; 32],
    /// The number of its event, higher than those before.
    pub issuance: i64,
    /// When it was signed.
    pub from: i64,
    /// When it ends.
    pub until: i64,
    /// Who renews it.
    pub renewal: Renewal,
}

/// What is read of hosts by whoever may read.
pub trait HostTrail {
    /// All of them, by name.
    fn hosts(&self) -> BoxFuture<'_, Result<Vec<HostSeen>>>;

    /// The certificates of hosts and servers that are not revoked, by their ends and serials: at most so many, behind that
    /// end and serial.
    fn living(&self, after: (i64, u64), most: usize) -> BoxFuture<'_, Result<Vec<HostCertificate>>>;

    /// When the last revocation lists were made that hosts and servers are given; none where there were none yet.
    fn last_list(&self) -> BoxFuture<'_, Result<Option<i64>>>;

    /// The TLS CAs that are trusted, none before the first rotation: to tell of them, since no seal is looked at.
    fn tls_cas(&self) -> BoxFuture<'_, Result<Vec<CaKey>>>;
}

/// What an authority keeps of hosts.
pub trait HostStore {
    /// Notes these, all in one transaction.
    fn hear_of(&self, hosts: Vec<HostNews>) -> BoxFuture<'_, Result<()>>;

    /// The serials of the SSH certificates of hosts that are revoked and end at `since` or later; at most so many:
    /// those that last longest.
    fn revoked_hosts(&self, since: i64, most: usize) -> BoxFuture<'_, Result<Vec<u64>>>;
}

/// The certificates of hosts that an event tells of: the serial of each, and its names.
pub(super) fn certified(event: &Map<String, Value>) -> BTreeMap<&str, Vec<&str>> {
    let is_signed = event.get("event").is_some_and(|event| event == "signed");
    let is_hosts = event.get("by").is_none_or(|by| by != SERVE) && is_signed;
    let outputs = event.get("outputs").and_then(Value::as_array).into_iter().flatten();
    outputs
        .filter(|output| is_hosts || output.get("type").is_some_and(|name| name == SSH_HOST.name))
        .filter_map(|output| {
            let names = output.get("principals")?.as_array()?.iter().filter_map(Value::as_str);
            Some((output.get("serial")?.as_str()?, names.collect()))
        })
        .collect()
}

/// The names of the host whose certificate has that serial.
pub(super) fn names(event: &Map<String, Value>, serial: i64) -> Vec<String> {
    let names = certified(event).remove(serial.to_string().as_str()).unwrap_or_default();
    names.into_iter().map(str::to_owned).collect()
}

/// Whether a certificate with that name is good for the host of the other: `*.` stands for one label, as in TLS, and of an
/// address any spelling for the others. IPv4 within IPv6 is IPv4, as `ssh` has it.
pub(super) fn covers(name: &str, host: &str) -> bool {
    let address = |text: &str| text.parse().ok().map(|address: IpAddr| address.to_canonical());
    if let Some(host) = address(host) {
        return address(name) == Some(host);
    }
    let below =
        |rest: &str| host.split_once('.').is_some_and(|(_, domain)| domain.eq_ignore_ascii_case(rest));
    name.eq_ignore_ascii_case(host) || name.strip_prefix("*.").is_some_and(below)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_wildcard_covers_one_label() {
        for (name, host, covered) in [
            ("web-1", "web-1", true),
            ("Web-1.example.com", "web-1.example.com", true),
            ("*.example.com", "web-1.example.com", true),
            ("*.example.com", "a.web-1.example.com", false),
            ("*.example.com", "example.com", false),
            ("*.example.com", "*.example.com", true),
            ("web-1", "web-2", false),
            ("10.0.0.1", "10.0.0.1", true),
            ("::ffff:10.0.0.1", "10.0.0.1", true),
            ("::FFFF:a00:1", "10.0.0.1", true),
            ("::10.0.0.1", "10.0.0.1", false),
            ("2001:DB8:0:0::2", "2001:db8::2", true),
            ("2001:db8::1", "2001:db8::2", false),
            ("*.0.0.1", "10.0.0.1", false),
        ] {
            assert_eq!(covers(name, host), covered, "{name} {host}");
        }
    }

    proptest! {
        #[test]
        fn an_address_is_covered_in_any_spelling(
            words in prop_oneof![
                any::<[u16; 8]>(),
                proptest::array::uniform8(0_u16..2),
                any::<[u16; 2]>().prop_map(|[a, b]| [0, 0, 0, 0, 0, 0xffff, a, b]),
            ],
            other in any::<[u16; 8]>(),
            capitals in any::<bool>(),
        ) {
            let address = Ipv6Addr::from(words);
            let usual = IpAddr::V6(address).to_canonical().to_string();
            let each = |words: &[u16], word: fn(&u16) -> String| {
                words.iter().map(word).collect::<Vec<_>>().join(":")
            };
            let tail = Ipv4Addr::from((u32::from(words[6]) << 16) | u32::from(words[7]));
            for spelling in [
                address.to_string(),
                each(&words, |word| format!("{word:x}")),
                each(&words, |word| format!("{word:04x}")),
                format!("{}:{tail}", each(&words[..6], |word| format!("{word:x}"))),
            ] {
                let spelling = if capitals { spelling.to_uppercase() } else { spelling };
                prop_assert!(covers(&spelling, &usual) && covers(&usual, &spelling), "{}", spelling);
                prop_assert_eq!(covers(&spelling, &Ipv6Addr::from(other).to_string()), words == other);
            }
        }
    }

    #[test]
    fn of_an_event_the_hosts_are_told_from_jobs_and_from_the_authority() {
        let of = |json: &str| {
            let event: Map<String, Value> = serde_json::from_str(json).unwrap();
            certified(&event).into_keys().map(str::to_owned).collect::<Vec<_>>()
        };
        let outputs = r#""outputs":[{"type":"identity","serial":"1","principals":["deploy"]},
            {"type":"ssh-host","serial":"2","principals":["web-1"]}]"#;
        assert_eq!(of(&format!(r#"{{"event":"issued",{outputs}}}"#)), ["2"]);
        let signed = |by: &str| {
            of(&format!(
                r#"{{"event":"signed","by":"{by}","outputs":[{{"serial":"3","principals":["web-1"]}}]}}"#
            ))
        };
        assert_eq!(
            (signed("sign-host"), signed("sign-server"), signed(SERVE)),
            (vec!["3".into()], vec!["3".into()], vec![])
        );
    }
}
