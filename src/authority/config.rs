//! `authority.yaml` and the policy's files: read strictly, resolved against
//! the data directory, checked before anything starts.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::policy::{Policy, Source};
use crate::document::{self, Mapping, Mistake};
use crate::error::{Context as _, Error, Kind, Result};
use crate::folder::read::{self, Limit, Trust};
use crate::folder::{self, trust};
use crate::net::authority_origin;

/// The configuration's name in the data directory.
pub const FILE: &str = "authority.yaml";
/// The largest file of a policy that is read.
const POLICY_FILE: Limit = Limit::bytes(16 << 20);
/// The most entries that a policy folder may hold.
const MAX_POLICY_FILES: usize = 20_000;

/// A checked configuration; every path is absolute or below the data directory.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cluster's name.
    pub cluster: String,
    /// Where jobs reach the authority: the audience of their tokens. No trailing slash.
    pub public_url: String,
    /// Where it listens.
    pub listen: SocketAddr,
    /// A TLS certificate and its key, if not our own.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// The SQLite file.
    pub store: PathBuf,
    /// The folder of the CA keys.
    pub keys: PathBuf,
    /// The policy: a file or a folder.
    pub policy: PathBuf,
    /// Extra roots for issuers.
    pub issuer_ca_file: Option<PathBuf>,
}

impl Config {
    /// Reads `DIR/authority.yaml`.
    ///
    /// # Errors
    /// `Kind::Usage` with the place of the first mistake.
    pub fn load(data_dir: &Path) -> Result<Self> {
        let path = data_dir.join(FILE);
        let text = read::raw(&path, Trust::Operators, Limit::FILE).and_then(read::utf8).map_err(|unfit| {
            let is_missing = unfit.is_missing();
            let cannot = unfit.error(Kind::Usage, format!("cannot read {}", path.display()));
            if is_missing {
                cannot.hint("`machine-id authority init` creates a data directory")
            } else {
                cannot
            }
        })?;
        check_folder(data_dir, "the data directory")?;
        Self::parse(&text, data_dir).map_err(|mistake| mistake.in_file(&path.display().to_string()))
    }

    fn parse(text: &str, data_dir: &Path) -> Result<Self, Mistake> {
        let nodes = document::parse(text)?;
        let [node] = nodes.as_slice() else {
            return Err(Mistake::new(document::Place { line: 1, column: 1 }, "it must be one YAML document"));
        };
        let mut all = node.mapping("the configuration")?;
        let version = all.need("version")?;
        if version.text("version")? != "v1" {
            return Err(Mistake::new(version.place, "`version` must be v1"));
        }
        let cluster = all.need("cluster")?;
        let cluster = check(cluster, "cluster", check_cluster)?;
        let public_url = check(all.need("public_url")?, "public_url", check_public_url)?;
        let listen = match all.take("listen") {
            Some(node) => node.text("listen")?.parse().map_err(|_| {
                Mistake::new(node.place, "`listen` must be ADDRESS:PORT").hint("for example 0.0.0.0:8443")
            })?,
            None => SocketAddr::from(([127, 0, 0, 1], 8443)),
        };
        let below = |path: &str| data_dir.join(path);
        let tls = all.take("tls").map(|node| read_tls(node.mapping("tls")?, data_dir)).transpose()?;
        let store = scheme(&mut all, "store", "sqlite:", "authority.db")?;
        let keys = scheme(&mut all, "keys", "file:", "keys")?;
        let policy = all.text("policy")?.unwrap_or("policy");
        let issuer_ca_file = all.text("issuer_ca_file")?.map(below);
        if let Some(node) = all.take("metrics_listen") {
            return Err(Mistake::new(node.place, "`metrics_listen` is not supported by this version"));
        }
        all.finish()?;
        Ok(Self {
            cluster,
            public_url,
            listen,
            tls,
            store: below(&store),
            keys: below(&keys),
            policy: below(policy),
            issuer_ca_file,
        })
    }

    /// Reads and parses the policy. A folder's `*.yaml` and `*.yml` files are
    /// read in the order of their names; hidden ones are passed over.
    ///
    /// # Errors
    /// Every mistake.
    pub fn load_policy(&self) -> Result<Policy, Vec<Error>> {
        let sources = policy_sources(&self.policy, Trust::Operators).map_err(|error| vec![error])?;
        Policy::parse(&sources)
    }

    /// The files of a TLS certificate that is not our own.
    #[must_use]
    pub fn tls_files(&self) -> Vec<PathBuf> {
        self.tls.iter().flat_map(|(certificate, key)| [certificate.clone(), key.clone()]).collect()
    }

    /// The policy's files, in order.
    ///
    /// # Errors
    /// `Kind::Usage` where the file or folder cannot be read.
    pub fn policy_files(&self) -> Result<Vec<PathBuf>> {
        policy_files(&self.policy, Trust::Anyone)
    }
}

/// Reads a policy, a file or a folder.
///
/// # Errors
/// `Kind::Usage` where one of its files cannot be read, or is not trusted.
pub fn policy_sources(policy: &Path, trust: Trust) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    for path in policy_files(policy, trust)? {
        let text = read::text(&path, trust, POLICY_FILE)?;
        sources.push(Source { name: path.display().to_string(), text: text.to_string() });
    }
    Ok(sources)
}

fn policy_files(policy: &Path, trust: Trust) -> Result<Vec<PathBuf>> {
    let cannot = || format!("cannot read the policy {}", policy.display());
    if !std::fs::metadata(policy).context(Kind::Usage, cannot())?.is_dir() {
        return Ok(vec![policy.to_owned()]);
    }
    if trust != Trust::Anyone {
        check_folder(policy, "the policy")?;
    }
    let names = folder::names(policy, MAX_POLICY_FILES).context(Kind::Usage, cannot())?;
    let hidden = |path: &Path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    let yaml = |path: &Path| path.extension().is_some_and(|ext| ext == "yaml" || ext == "yml");
    let paths = names.into_iter().map(|name| policy.join(name));
    Ok(paths.filter(|path| yaml(path) && !hidden(path)).collect())
}

/// Whoever may write there decides who gets in.
fn check_folder(path: &Path, what: &str) -> Result<()> {
    let checked = trust::operators(path);
    checked
        .map(drop)
        .map_err(|unfit| unfit.error(Kind::Usage, format!("cannot use {what} {}", path.display())))
}

fn check(
    node: &document::Node,
    key: &str,
    check: fn(&str) -> Result<String, &'static str>,
) -> Result<String, Mistake> {
    check(node.text(key)?).map_err(|why| Mistake::new(node.place, format!("`{key}` {why}")))
}

fn read_tls(mut mapping: Mapping<'_>, data_dir: &Path) -> Result<(PathBuf, PathBuf), Mistake> {
    let certificate = mapping.need("cert_file")?.text("cert_file")?;
    let key = mapping.need("key_file")?.text("key_file")?;
    mapping.finish()?;
    Ok((data_dir.join(certificate), data_dir.join(key)))
}

/// `SCHEME:PATH`, in the one scheme that this version has.
fn scheme(all: &mut Mapping<'_>, key: &'static str, scheme: &str, default: &str) -> Result<String, Mistake> {
    match all.take(key) {
        None => Ok(default.to_owned()),
        Some(node) => match node.text(key)?.strip_prefix(scheme) {
            Some(path) if !path.is_empty() => Ok(path.to_owned()),
            _ => Err(Mistake::new(node.place, format!("`{key}` must be `{scheme}PATH`"))),
        },
    }
}

/// A cluster's name: it stands in SPIFFE ids as the trust domain.
///
/// # Errors
/// Says what is wrong with it.
pub fn check_cluster(name: &str) -> Result<String, &'static str> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
    let fits =
        !name.is_empty() && name.len() <= 255 && name.bytes().all(allowed) && !name.starts_with(['.', '-']);
    if fits { Ok(name.to_owned()) } else { Err("must be lower-case letters, digits, dots and dashes") }
}

/// A public URL: https, a host, perhaps a port, and nothing else, since every
/// character of it is part of the audience. A trailing slash is dropped.
///
/// # Errors
/// Says what is wrong with it.
pub fn check_public_url(text: &str) -> Result<String, &'static str> {
    authority_origin(text).map_err(|_| "must be https://HOST or https://HOST:PORT")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = "version: v1\ncluster: id.example.com\npublic_url: https://id.example.com\n";

    fn parse(text: &str) -> Result<Config, Mistake> {
        Config::parse(text, Path::new("/data"))
    }

    #[test]
    fn defaults_are_below_the_data_directory() {
        let config = parse(MINIMAL).unwrap();
        assert_eq!(config.store, Path::new("/data/authority.db"));
        assert_eq!(config.policy, Path::new("/data/policy"));
        assert_eq!(config.listen.port(), 8443);
        let config = parse(&format!("{MINIMAL}store: sqlite:/var/db\nissuer_ca_file: ca.pem\n")).unwrap();
        assert_eq!(config.store, Path::new("/var/db"));
        assert_eq!(config.issuer_ca_file.as_deref(), Some(Path::new("/data/ca.pem")));
    }

    #[test]
    fn mistakes_have_a_place() {
        for (text, said) in [
            (String::new(), "1:1: it must be one YAML document"),
            ("version: v2".into(), "1:10: `version` must be v1"),
            (format!("{MINIMAL}lisen: x"), "4:1: the configuration has no `lisen`"),
            (format!("{MINIMAL}listen: x"), "4:9: `listen` must be ADDRESS:PORT"),
            (format!("{MINIMAL}store: postgres://x"), "4:8: `store` must be `sqlite:PATH`"),
            (format!("{MINIMAL}keys: pkcs11:x"), "4:7: `keys` must be `file:PATH`"),
            (format!("{MINIMAL}tls: {{cert_file: x}}"), "4:6: tls lacks `key_file`"),
            (
                MINIMAL.replace("id.example.com\np", "A b\np"),
                "2:10: `cluster` must be lower-case letters, digits, dots and dashes",
            ),
        ] {
            assert_eq!(parse(&text).unwrap_err().to_string(), said);
        }
    }

    #[test]
    fn public_urls_are_bare() {
        assert_eq!(check_public_url("https://id.example.com/").unwrap(), "https://id.example.com");
        assert_eq!(check_public_url("https://127.0.0.1:8443").unwrap(), "https://127.0.0.1:8443");
        for bad in ["http://x", "https://x/y", "https://x?y", "https://x#y", "https://u@x", "x", "https://"] {
            assert!(check_public_url(bad).is_err(), "{bad}");
        }
    }
}
