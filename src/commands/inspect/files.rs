//! What a file's text is: blocks of PEM, lines of OpenSSH, a token, a manifest.

use ssh_key::{HashAlg, PublicKey};

use super::item::{Item, when};
use super::{certificates, manifest, tokens};
use crate::destination::manifest::Manifest;
use crate::krl::Krl;
use crate::pem::{Piece, pieces};
use crate::text::shown;

/// A list of revoked certificates.
pub(super) fn revoked(list: &Krl, now: i64) -> Item {
    let serials: Vec<String> = list.serials.iter().map(u64::to_string).collect();
    let fingerprint =
        |blob: &Vec<u8>| Some(PublicKey::from_bytes(blob).ok()?.fingerprint(HashAlg::Sha256).to_string());
    let keys: Vec<String> = list.keys.iter().filter_map(fingerprint).collect();
    Item::new("SSH revocation list")
        .with("number", list.number.to_string())
        .with("made", when(i64::try_from(list.date).unwrap_or(i64::MAX), now))
        .with("serials", serials)
        .with("keys", keys)
}

pub(super) fn inspect(text: &str, now: i64) -> Result<Vec<Item>, String> {
    if text.trim().is_empty() {
        return Err("it is empty".to_owned());
    }
    if text.trim_start().starts_with('{') {
        let manifest = Manifest::parse(text.as_bytes())
            .map_err(|why| format!("it is no manifest of machine-id: {why}"))?;
        return Ok(vec![manifest::item(&manifest, now)]);
    }
    let mut items = Vec::new();
    for piece in pieces(text) {
        items.extend(match piece {
            Piece::Block(label, block) => block_item(label, block, now)?,
            Piece::Line(line) => line_item(line, now)?,
            Piece::Broken(line) => return Err(format!("`{}` has no end", shown(line))),
        });
    }
    if items.is_empty() {
        return Err(
            "it is neither a destination, an identity file, a certificate, a key nor a token".to_owned()
        );
    }
    Ok(items)
}

fn block_item(label: &str, block: &str, now: i64) -> Result<Option<Item>, String> {
    match label {
        "CERTIFICATE" => certificates::x509(block, now).map(Some),
        "OPENSSH PRIVATE KEY" => certificates::openssh_private(block).map(Some),
        _ if label.ends_with("PRIVATE KEY") => Ok(Some(certificates::private(label, block))),
        _ => Ok(Some(Item::new("PEM block").with("label", shown(label)))),
    }
}

fn line_item(line: &str, now: i64) -> Result<Option<Item>, String> {
    let first = line.split_whitespace().next().unwrap_or_default();
    let marked = [("@cert-authority", "trusted SSH host CA"), ("@revoked", "revoked SSH host CA")];
    if let Some((_, what)) = marked.into_iter().find(|(marker, _)| *marker == first) {
        let key = line.splitn(3, char::is_whitespace).nth(2).unwrap_or_default();
        return certificates::ssh_public(key).map(|item| Some(Item { what, ..item }));
    }
    if first.ends_with("-cert-v01@openssh.com") {
        return certificates::ssh(line, now).map(Some);
    }
    if first.starts_with("ssh-") || first.starts_with("ecdsa-") || first.starts_with("sk-") {
        return certificates::ssh_public(line).map(Some);
    }
    // Anything else between blocks (OpenSSL writes such lines) says nothing.
    Ok(tokens::jwt(line, now))
}
