//! The file of `--config`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use crate::document::{self, Mapping, Mistake, Node};
use crate::error::{Kind, Result};
use crate::folder::read::{self, Limit, Trust};
use crate::once::settings::output::RawOutput;

/// What the file says, by the names of the options; nothing of it checked beyond its shape.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigFile {
    /// `authority`.
    pub authority: Option<String>,
    /// `ca_file`.
    pub ca_file: Option<String>,
    /// `ca_pin`.
    pub ca_pin: Option<String>,
    /// `join.method`.
    pub join_method: Option<String>,
    /// `join.token`.
    pub token: Option<String>,
    /// `storage`.
    pub storage: Option<String>,
    /// `ttl`.
    pub ttl: Option<String>,
    /// `destination`.
    pub destination: Option<String>,
    /// `outputs`.
    pub outputs: Vec<RawOutput>,
}

impl ConfigFile {
    /// Reads it; `patience` is for a pipe.
    ///
    /// # Errors
    /// `Kind::Usage`, with line and column.
    pub fn read(path: &Path, patience: Duration) -> Result<Self> {
        let text = read::raw(path, Trust::Anyone, Limit::FILE.within(patience)).and_then(read::utf8);
        let cannot = || format!("cannot read the configuration {}", path.display());
        let text = text.map_err(|unfit| unfit.error(Kind::Usage, cannot()))?;
        Self::parse(&text).map_err(|mistake| mistake.in_file(&path.display().to_string()))
    }

    fn parse(text: &str) -> Result<Self, Mistake> {
        let nodes = document::parse(text)?;
        let [node] = nodes.as_slice() else {
            return Err(Mistake::new(
                document::Place { line: 1, column: 1 },
                "a configuration is one YAML document",
            ));
        };
        let mut file = node.mapping("the configuration")?;
        let version = file.need("version")?;
        if version.text("version")? != "v1" {
            return Err(Mistake::new(version.place, "`version` must be v1"));
        }
        let (join_method, token) = match file.take("join") {
            Some(node) => {
                let mut join = node.mapping("`join`")?;
                let pair = (text_of(&mut join, "method")?, text_of(&mut join, "token")?);
                join.finish()?;
                pair
            }
            None => (None, None),
        };
        let config = Self {
            authority: text_of(&mut file, "authority")?,
            ca_file: text_of(&mut file, "ca_file")?,
            ca_pin: text_of(&mut file, "ca_pin")?,
            join_method,
            token,
            storage: text_of(&mut file, "storage")?,
            ttl: text_of(&mut file, "ttl")?,
            destination: text_of(&mut file, "destination")?,
            outputs: match file.take("outputs") {
                Some(list) => list.list("outputs")?.iter().map(output).collect::<Result<_, _>>()?,
                None => Vec::new(),
            },
        };
        file.finish()?;
        Ok(config)
    }
}

fn text_of(mapping: &mut Mapping<'_>, key: &'static str) -> Result<Option<String>, Mistake> {
    Ok(mapping.text(key)?.map(str::to_owned))
}

fn output(node: &Node) -> Result<RawOutput, Mistake> {
    let mut mapping = node.mapping("an output")?;
    let kind = mapping.need("type")?.text("type")?.to_owned();
    let name = text_of(&mut mapping, "name")?;
    let destination = text_of(&mut mapping, "destination")?;
    let roles = mapping.texts("roles")?;
    let mut options = BTreeMap::new();
    for (key, value) in mapping.rest() {
        // A list stands for what the command line separates with `+`.
        let text = match value.list(&key.text) {
            Ok(_) => value.texts(&key.text)?.join("+"),
            Err(_) => value.text(&key.text)?.to_owned(),
        };
        options.insert(key.text.clone(), text);
    }
    Ok(RawOutput { kind, name, roles, destination, options })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_key() {
        let file = ConfigFile::parse(
            "version: v1\nauthority: https://a\nca_file: ca.pem\njoin: {method: github, token: t}\nttl: 30m\n\
             storage: /s\ndestination: /d\noutputs:\n  - {type: identity, roles: [a, b]}\n  - {type: ssh, name: x, destination: /e}\n",
        )
        .unwrap();
        assert_eq!(file.join_method.as_deref(), Some("github"));
        assert_eq!(file.ttl.as_deref(), Some("30m"));
        assert_eq!(file.storage.as_deref(), Some("/s"));
        assert_eq!(file.outputs[0].roles, ["a", "b"]);
        assert_eq!(file.outputs[1].destination.as_deref(), Some("/e"));
    }

    #[test]
    fn mistakes_have_a_place() {
        for (text, says) in [
            ("authority: https://a\n", "lacks `version`"),
            ("version: v2\n", "must be v1"),
            ("version: v1\nauthorty: x\n", "2:1: the configuration has no `authorty`"),
            ("version: v1\njoin: {tokn: x}\n", "`join` has no `tokn`"),
            ("version: v1\noutputs: [{name: x}]\n", "an output lacks `type`"),
            ("version: v1\noutputs: [{type: ssh, roles: x}]\n", "`roles` must be a list"),
            ("version: v1\n---\nversion: v1\n", "one YAML document"),
            ("", "one YAML document"),
        ] {
            let mistake = ConfigFile::parse(text).unwrap_err().to_string();
            assert!(mistake.contains(says), "{mistake}");
        }
    }
}
