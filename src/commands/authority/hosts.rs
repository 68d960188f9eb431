//! `machine-id authority hosts`: the hosts that have proved which they are.

use std::path::Path;

use serde_json::{Value, json};

use super::data_dir::read_store;
use crate::authority::config::Config;
use crate::authority::store::hosts::HostSeen;
use crate::cli::Format;
use crate::clock::rfc3339;
use crate::error::Result;
use crate::runtime::block_on;
use crate::terminal::print;
use crate::text::{shown, table};

/// Prints them, by name.
pub(super) fn run(data_dir: &Path, format: Format) -> Result<()> {
    let store = read_store(&Config::load(data_dir)?)?;
    let hosts = block_on(store.hosts())??;
    print(&match format {
        Format::Text => text(&hosts),
        Format::Json => hosts.iter().map(|host| format!("{}\n", json(host))).collect(),
    })
}

fn json(host: &HostSeen) -> Value {
    // Decimal text: it exceeds what JSON numbers hold elsewhere.
    let list = host.list.map(|number| number.to_string());
    json!({ "name": host.name, "last_seen": rfc3339(host.seen), "cas": host.cas, "list": list })
}

fn text(hosts: &[HostSeen]) -> String {
    if hosts.is_empty() {
        return "no host has said which it is: `machine-id host refresh --host-key FILE` does\n".to_owned();
    }
    let head = ["HOST", "LAST SEEN", "LIST", "CAS"].map(str::to_owned);
    let row = |host: &HostSeen| {
        let list = host.list.map_or_else(|| "none".to_owned(), |number| number.to_string());
        [shown(&host.name), rfc3339(host.seen), list, shown(&host.cas.join(", "))]
    };
    table(&std::iter::once(head).chain(hosts.iter().map(row)).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_a_table_and_lines() {
        let host = |name: &str, list| HostSeen {
            name: name.into(),
            seen: 1_795_348_800,
            list,
            cas: vec!["ssh-user SHA256:x".into(), "tls sha256:0a".into()],
            serial: 7,
        };
        let hosts = [host("web-1", Some(u64::MAX)), host("db", None)];
        assert_eq!(
            text(&hosts),
            "HOST   LAST SEEN             LIST                  CAS\n\
             web-1  2026-11-22T12:00:00Z  18446744073709551615  ssh-user SHA256:x, tls sha256:0a\n\
             db     2026-11-22T12:00:00Z  none                  ssh-user SHA256:x, tls sha256:0a\n"
        );
        let told = json!({
            "name": "web-1", "last_seen": "2026-11-22T12:00:00Z", "list": "18446744073709551615",
            "cas": ["ssh-user SHA256:x", "tls sha256:0a"],
        });
        assert_eq!((json(&hosts[0]), &json(&hosts[1])["list"]), (told, &Value::Null));
        assert!(text(&[]).contains("--host-key"));
    }
}
