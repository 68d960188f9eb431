//! `manifest.json`: what a destination holds, without a secret, and the mark
//! by which a destination is known to be ours.
//!
//! Who reads one back must not believe it: [`Manifest::plan`] keeps only
//! names that this program writes, inside the destination.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::is_file_of_ours;
use super::material::OptionValues;
use crate::clock::{Clock, parse_rfc3339};
use crate::folder::Folder;
use crate::wire::is_name;

pub(crate) const FILE_NAME: &str = "manifest.json";

/// What [`Manifest::format`] says.
pub(crate) const FORMAT: &str = "machine-id/v1";

/// The largest manifest that is read, in bytes.
const MAX_BYTES: usize = 1 << 20;

/// What a destination holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) format: String,
    /// The destination's absolute path when it was written.
    pub(crate) destination: String,
    pub(crate) authority: String,
    /// The CA file that the authority was trusted by, absolute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ca_file: Option<String>,
    /// The pin that the authority was trusted by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ca_pin: Option<String>,
    pub(crate) cluster: String,
    pub(crate) bot: String,
    pub(crate) join_method: String,
    /// The join token's name.
    pub(crate) token: String,
    pub(crate) issuance_id: String,
    /// When the first certificate expires (RFC 3339).
    pub(crate) expires_at: String,
    pub(crate) outputs: Vec<ManifestOutput>,
    /// The outputs that a leaf cluster did not give.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) missing: Vec<MissingOutput>,
    /// Files of no output, relative to the destination.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) files: Vec<String>,
    /// Other destinations of the same issuance, absolute.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) also: Vec<String>,
    /// The destination that `$MACHINE_ID_DESTINATION` named until this one took its place; absolute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) earlier: Option<String>,
    /// Whether the directory was there before, and so stays when it is wiped.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) keep_directory: bool,
}

/// One output in a [`Manifest`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ManifestOutput {
    pub(crate) name: String,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) files: Vec<String>,
    /// Who issued it. Empty in manifests of a machine-id that knew no leaf clusters: whoever issued the rest.
    #[serde(default)]
    pub(crate) cluster: String,
    #[serde(default)]
    pub(crate) issuance_id: String,
    #[serde(default)]
    pub(crate) authority: String,
    /// The pin that a leaf cluster's authority was trusted by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ca_pin: Option<String>,
    /// The type's own options.
    #[serde(default, skip_serializing_if = "OptionValues::is_empty")]
    pub(crate) options: OptionValues,
    /// The serial of its SSH certificate, or of the X.509 one where there is only that; decimal.
    pub(crate) serial: String,
    /// The serial of its X.509 certificate where there are both; decimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tls_serial: Option<String>,
    /// The SSH certificate's principals.
    #[serde(default)]
    pub(crate) principals: Vec<String>,
    #[serde(default)]
    pub(crate) roles: Vec<String>,
}

/// An output that is not there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MissingOutput {
    pub(crate) name: String,
    /// The leaf cluster that was to issue it.
    pub(crate) at: String,
    /// Why it is not there, in words.
    pub(crate) reason: String,
    /// What the leaf's operator knows the refusal by, where it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) denial_id: Option<String>,
}

/// Files by folder; the destination itself is the folder ``.
pub(crate) type WipePlan = BTreeMap<String, Vec<String>>;

/// An issuance, and where it is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Issuer<'m> {
    pub(crate) authority: &'m str,
    pub(crate) issuance_id: &'m str,
    /// Of a leaf cluster: the pin that it is trusted by, or none for the system's trust store.
    pub(crate) leaf_pin: Option<Option<&'m str>>,
}

impl Manifest {
    /// The one that is in a folder; a link or a device is none.
    pub(crate) fn read(folder: &Folder) -> Result<Option<Self>, String> {
        folder.read(FILE_NAME, MAX_BYTES)?.map(|bytes| Self::parse(&bytes)).transpose()
    }

    /// Reads one.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let manifest: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if manifest.format != FORMAT {
            return Err(format!("its format is `{}`, not `{FORMAT}`", crate::text::shown(&manifest.format)));
        }
        Ok(manifest)
    }

    /// As it stands in the file and on stdout.
    pub(crate) fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// Whether some of its certificates may still be good.
    pub(crate) fn is_live(&self) -> bool {
        parse_rfc3339(&self.expires_at).is_none_or(|end| end > Clock::system().now())
    }

    /// The files to wipe: known names, in the destination or in one folder of it.
    pub(crate) fn plan(&self) -> WipePlan {
        Self::plan_of(self.outputs.iter().flat_map(|output| &output.files).chain(&self.files))
    }

    /// The same of the outputs of one issuance.
    pub(crate) fn plan_of_issuance(&self, issuance: &Issuer<'_>) -> WipePlan {
        let outputs = self.outputs.iter().filter(|output| self.issuer(output) == *issuance);
        Self::plan_of(outputs.flat_map(|output| &output.files))
    }

    /// Every issuance that it has outputs of, each once.
    pub(crate) fn issuers(&self) -> Vec<Issuer<'_>> {
        let mut all = Vec::new();
        for issuer in self.outputs.iter().map(|output| self.issuer(output)) {
            if !all.contains(&issuer) {
                all.push(issuer);
            }
        }
        all
    }

    /// Who issued an output.
    fn issuer<'m>(&'m self, output: &'m ManifestOutput) -> Issuer<'m> {
        let is_leaf = self.leaf_of(output).is_some();
        Issuer {
            authority: if is_leaf { &output.authority } else { &self.authority },
            issuance_id: if is_leaf { &output.issuance_id } else { &self.issuance_id },
            leaf_pin: is_leaf.then_some(output.ca_pin.as_deref()),
        }
    }

    /// The leaf cluster that issued an output, if one did.
    pub(crate) fn leaf_of<'m>(&self, output: &'m ManifestOutput) -> Option<&'m str> {
        Some(output.cluster.as_str()).filter(|cluster| !cluster.is_empty() && *cluster != self.cluster)
    }

    fn plan_of<'m>(files: impl Iterator<Item = &'m String>) -> WipePlan {
        let mut plan = WipePlan::new();
        for path in files {
            let (folder, name) = path.split_once('/').unwrap_or(("", path));
            if (folder.is_empty() || is_name(folder)) && !path.starts_with('/') && is_file_of_ours(name) {
                plan.entry(folder.to_owned()).or_default().push(name.to_owned());
            }
        }
        plan
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn manifest(files: &[&str]) -> Manifest {
        Manifest {
            format: FORMAT.into(),
            destination: "/d".into(),
            authority: "https://id.example.com".into(),
            ca_file: None,
            ca_pin: None,
            cluster: "c".into(),
            bot: "b".into(),
            join_method: "github".into(),
            token: "t".into(),
            issuance_id: "i".into(),
            expires_at: "2026-11-22T12:00:00Z".into(),
            outputs: vec![ManifestOutput {
                name: "identity".into(),
                kind: "identity".into(),
                files: files.iter().map(|&file| file.into()).collect(),
                cluster: "c".into(),
                issuance_id: "i".into(),
                authority: "https://id.example.com".into(),
                ca_pin: None,
                options: OptionValues::new(),
                serial: "1".into(),
                tls_serial: None,
                principals: vec![],
                roles: vec![],
            }],
            missing: vec![],
            files: vec![],
            also: vec![],
            earlier: None,
            keep_directory: false,
        }
    }

    #[test]
    fn hostile_paths_are_not_planned() {
        let hostile = [
            "../key",
            "/etc/passwd",
            "/key",
            "a/b/key",
            "./key",
            "..",
            "key/",
            "x/../key",
            "notes.txt",
            "A/key",
        ];
        assert!(manifest(&hostile).plan().is_empty(), "{:?}", manifest(&hostile).plan());
        let plan = manifest(&["key", "orders/tls.key"]).plan();
        assert_eq!(plan.get("").unwrap(), &["key"]);
        assert_eq!(plan.get("orders").unwrap(), &["tls.key"]);
        let others = Manifest { files: vec!["bash_env".into(), "../bash_env".into()], ..manifest(&[]) };
        assert_eq!(others.plan().get("").unwrap(), &["bash_env"]);
    }

    #[test]
    fn what_each_issued_is_told_apart() {
        let of = |cluster: &str, issuance: &str, file: &str| {
            let other = manifest(&[file]).outputs.remove(0);
            let authority = format!("https://{cluster}");
            ManifestOutput { cluster: cluster.into(), issuance_id: issuance.into(), authority, ..other }
        };
        let all = Manifest {
            outputs: vec![of("", "", "a/key"), of("c", "i", "b/key"), of("l", "j", "d/key")],
            ..manifest(&[])
        };
        let issuers = all.issuers();
        // One of a version that knew no leaves says nothing of itself.
        let told = |issuer: &Issuer<'_>| {
            (issuer.authority.to_owned(), issuer.issuance_id.to_owned(), issuer.leaf_pin.is_some())
        };
        assert_eq!(
            issuers.iter().map(told).collect::<Vec<_>>(),
            [("https://id.example.com".into(), "i".into(), false), ("https://l".into(), "j".into(), true)]
        );
        let plans: Vec<Vec<String>> =
            issuers.iter().map(|it| all.plan_of_issuance(it).into_keys().collect()).collect();
        assert_eq!(plans, [vec!["a", "b"], vec!["d"]]);
    }

    #[test]
    fn other_programs_manifests_are_not_ours() {
        let good = manifest(&["key"]);
        assert!(Manifest::parse(good.to_json().as_bytes()).is_ok());
        let other = Manifest { format: "x/v1".into(), ..good };
        assert!(Manifest::parse(other.to_json().as_bytes()).is_err());
        assert!(Manifest::parse(br#"{"name": "app", "icons": []}"#).is_err());
    }
}
