//! A destination: its manifest, and each certificate in it.

use std::path::Path;

use super::item::Item;
use super::{files, manifest};
use crate::destination::jwt::TOKEN;
use crate::destination::wipe::{self, Found};
use crate::error::{Error, Result};
use crate::text::shown;

/// Files whose content says more than the manifest does.
const TELLING: &[&str] = &["key-cert.pub", "tls.crt", "ssh_host-cert.pub", "mongo.crt", TOKEN];

fn tells(name: &str) -> bool {
    TELLING.contains(&name) || (name.starts_with("client.") && name.ends_with(".crt"))
}

pub(super) fn inspect(path: &Path, now: i64) -> Result<Vec<Item>> {
    let shown_path = shown(&path.to_string_lossy());
    let found = match wipe::find(path) {
        Ok(Some(found)) => found,
        Ok(None) => return Err(Error::usage(format!("{shown_path} is empty"))),
        Err(_) => {
            return Err(Error::usage(format!("{shown_path} is not a destination of machine-id"))
                .hint("give a directory that `machine-id once` wrote, or a file in it"));
        }
    };
    let mut items = vec![manifest::item(&found.manifest, now)];
    for (folder, names) in found.manifest.plan() {
        for name in names.iter().filter(|name| tells(name)) {
            items.extend(file(&found, &folder, name, now));
        }
    }
    Ok(items)
}

fn file(found: &Found, folder: &str, name: &str, now: i64) -> Vec<Item> {
    let path = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
    let text = found.read(folder, name).and_then(|bytes| String::from_utf8(bytes).ok());
    let items = text
        .ok_or_else(|| "it is not there, or not text".to_owned())
        .and_then(|text| files::inspect(&text, now));
    match items {
        Ok(items) => items.into_iter().map(|item| item.with("file", path.as_str())).collect(),
        Err(why) => vec![Item::new("unreadable file").with("file", path).with("why", why)],
    }
}
