//! The file of `--config`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use crate::document::{self, Mistake, Mistakes, Node, Value};
use crate::error::{Kind, Result};
use crate::folder::read::{self, Limit, Trust};
use crate::once::settings::leaf::PinnedLeaf;
use crate::once::settings::output::RawOutput;

/// What the file says, by the names of the options; nothing of it checked beyond its shape.
#[derive(Debug, Default)]
pub(super) struct ConfigFile {
    pub authority: Option<String>,
    pub ca_file: Option<String>,
    pub ca_pin: Option<String>,
    pub join_method: Option<String>,
    pub token: Option<String>,
    pub storage: Option<String>,
    pub ttl: Option<String>,
    pub key_type: Option<String>,
    pub destination: Option<String>,
    pub at: Option<String>,
    pub outputs: Vec<RawOutput>,
    pub leaves: Vec<PinnedLeaf>,
}

impl ConfigFile {
    /// Reads it; `patience` is for a pipe.
    pub(super) fn read(path: &Path, patience: Duration) -> Result<Self> {
        let text = read::raw(path, Trust::Anyone, Limit::FILE.within(patience)).and_then(read::utf8);
        let cannot = || format!("cannot read the configuration {}", path.display());
        let text = text.map_err(|unfit| unfit.error(Kind::Usage, cannot()))?;
        Self::parse(&text).map_err(|mistakes| mistakes.in_file(&path.display().to_string()))
    }

    fn parse(text: &str) -> Result<Self, Mistakes> {
        let node = document::parse_one(text)?;
        let mut all = node.mapping("the configuration")?;
        let version = all.version();
        all.mistakes.keep(version);
        let (join_method, token) = all.read("join", join).unwrap_or_default();
        let config = Self {
            authority: all.read("authority", owned),
            ca_file: all.read("ca_file", owned),
            ca_pin: all.read("ca_pin", owned),
            join_method,
            token,
            storage: all.read("storage", owned),
            ttl: all.read("ttl", owned),
            key_type: all.read("key_type", owned),
            destination: all.read("destination", owned),
            at: all.read("at", owned),
            outputs: all.read("outputs", outputs).unwrap_or_default(),
            leaves: all.read("leaves", leaves).unwrap_or_default(),
        };
        all.finish()?;
        Ok(config)
    }
}

fn owned(node: &Node, key: &str) -> Result<String, Mistake> {
    node.text(key).map(str::to_owned)
}

/// `join`: the method and the token.
fn join(node: &Node, key: &str) -> Result<(Option<String>, Option<String>), Mistakes> {
    let mut join = node.mapping(&format!("`{key}`"))?;
    let pair = (join.read("method", owned), join.read("token", owned));
    join.finish()?;
    Ok(pair)
}

fn leaves(node: &Node, key: &str) -> Result<Vec<PinnedLeaf>, Mistakes> {
    let mut mistakes = Mistakes::default();
    let leaves = node.list(key)?.iter().filter_map(|node| mistakes.keep(leaf(node))).collect();
    mistakes.or(leaves)
}

fn leaf(node: &Node) -> Result<PinnedLeaf, Mistakes> {
    let mut leaf = node.mapping("a leaf")?;
    let pinned = PinnedLeaf {
        name: leaf.require("name", owned).unwrap_or_default(),
        url: leaf.require("url", owned).unwrap_or_default(),
        ca_pin: leaf.read("ca_pin", owned),
        hosts: leaf.read("hosts", Node::texts).unwrap_or_default(),
    };
    leaf.finish()?;
    Ok(pinned)
}

fn outputs(node: &Node, key: &str) -> Result<Vec<RawOutput>, Mistakes> {
    let mut mistakes = Mistakes::default();
    let outputs = node.list(key)?.iter().filter_map(|node| mistakes.keep(output(node))).collect();
    mistakes.or(outputs)
}

fn output(node: &Node) -> Result<RawOutput, Mistakes> {
    let mut output = node.mapping("an output")?;
    let mut raw = RawOutput {
        kind: output.require("type", owned).unwrap_or_default(),
        name: output.read("name", owned),
        at: output.read("at", owned),
        destination: output.read("destination", owned),
        roles: output.read("roles", Node::texts).unwrap_or_default(),
        options: BTreeMap::new(),
    };
    for (key, value) in output.rest() {
        // A list stands for what the command line separates with `+`.
        let text = match value.value {
            Value::List(_) => value.texts(&key.text).map(|items| items.join("+")),
            _ => owned(value, &key.text),
        };
        raw.options.extend(output.mistakes.keep(text).map(|text| (key.text.clone(), text)));
    }
    output.finish()?;
    Ok(raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_key() {
        let file = ConfigFile::parse(
            "version: v1\nauthority: https://a\nca_file: ca.pem\njoin: {method: github, token: t}\nttl: 30m\nkey_type: ecdsa-p384\n\
             storage: /s\ndestination: /d\noutputs:\n  - {type: identity, roles: [a, b]}\n  - {type: ssh, name: x, destination: /e}\n",
        )
        .unwrap();
        assert_eq!(file.join_method.as_deref(), Some("github"));
        assert_eq!((file.ttl.as_deref(), file.key_type.as_deref()), (Some("30m"), Some("ecdsa-p384")));
        assert_eq!(file.storage.as_deref(), Some("/s"));
        assert_eq!(file.outputs[0].roles, ["a", "b"]);
        assert_eq!(file.outputs[1].destination.as_deref(), Some("/e"));
    }

    #[test]
    fn no_value_may_be_empty() {
        let full = "version: v1\nauthority: https://a\nca_file: c\nca_pin: p\njoin: {method: github, token: t}\n\
            ttl: 30m\nkey_type: ed25519\nstorage: /s\ndestination: /d\nat: l\noutputs:\n  - {type: ssh, name: x, at: l, destination: /e, roles: [a, b]}\n  \
            - {type: ssh-host, principals: [a.x, b.x], host_key: /k}\nleaves:\n  - {name: l, url: https://l, ca_pin: p, hosts: [a.x, b.x]}\n";
        ConfigFile::parse(full).unwrap();
        for emptied in document::emptied::emptied(full) {
            let mistakes = ConfigFile::parse(&emptied.text).expect_err(&emptied.path);
            emptied.is_refused_by(&mistakes.into_iter().map(|one| one.to_string()).collect::<Vec<_>>());
        }
        let mistake = ConfigFile::parse("version: v1\noutputs: [{type: ssh, roles: }]\n").unwrap_err();
        assert_eq!(mistake.to_string(), "2:23: `roles` has no value");
    }

    #[test]
    fn mistakes_have_a_place() {
        for (text, says) in [
            ("authority: https://a\n", "lacks `version`"),
            ("version: v2\n", "must be v1"),
            ("version: v1\nauthorty: x\n", "2:1: the configuration has no `authorty`"),
            ("version: v1\njoin: {tokn: x}\n", "`join` has no `tokn`"),
            ("version: v1\noutputs: [{name: x}]\n", "an output lacks `type`"),
            ("version: v1\nleaves: [{name: x}]\n", "a leaf lacks `url`"),
            ("version: v1\nleaves: [{name: x, url: y, host: z}]\n", "a leaf has no `host`"),
            ("version: v1\noutputs: [{type: ssh, roles: x}]\n", "`roles` must be a list"),
            ("version: v1\n---\nversion: v1\n", "one YAML document"),
            ("", "one YAML document"),
        ] {
            let mistake = ConfigFile::parse(text).unwrap_err().to_string();
            assert!(mistake.contains(says), "{mistake}");
        }
    }
}
