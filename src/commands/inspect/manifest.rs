//! A destination's manifest.

use serde_json::Value;

use super::item::{Item, when};
use crate::clock::parse_rfc3339;
use crate::destination::manifest::{Manifest, ManifestOutput, MissingOutput};

pub(super) fn item(manifest: &Manifest, now: i64) -> Item {
    let expires = parse_rfc3339(&manifest.expires_at);
    let files: Vec<Value> =
        manifest.outputs.iter().flat_map(|output| &output.files).map(|file| file.as_str().into()).collect();
    let named = |output: &ManifestOutput| {
        let leaf = manifest.leaf_of(output).map_or_else(String::new, |leaf| format!(" at {leaf}"));
        format!("{} ({}{leaf})", output.name, output.kind).into()
    };
    let outputs: Vec<Value> = manifest.outputs.iter().map(named).collect();
    let missing = |it: &MissingOutput| format!("{} (at {}): {}", it.name, it.at, it.reason).into();
    let missing: Vec<Value> = manifest.missing.iter().map(missing).collect();
    let item = Item::new("destination")
        .with("path", manifest.destination.as_str())
        .with("authority", manifest.authority.as_str())
        .with("cluster", manifest.cluster.as_str())
        .with("bot", manifest.bot.as_str())
        .with("join_method", manifest.join_method.as_str())
        .with("token", manifest.token.as_str())
        .with("issuance_id", manifest.issuance_id.as_str())
        .with("expires", expires.map_or_else(|| manifest.expires_at.clone(), |at| when(at, now)))
        .with("outputs", outputs)
        .with("files", files);
    if missing.is_empty() { item } else { item.with("missing", missing) }
}
