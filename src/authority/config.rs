//! `authority.yaml`: read strictly, resolved against the data directory,
//! checked before anything starts.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::policy::Policy;
use super::policy_files::PolicyFiles;
use crate::document::{self, Mistake, Mistakes, Node};
use crate::error::{Error, Kind, Result};
use crate::folder::read::{self, Limit, Trust};
use crate::folder::trust::{self, Owner};
use crate::net::authority_origin;

/// The configuration's name in the data directory.
pub const FILE: &str = "authority.yaml";

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
    /// Whose all of it is.
    pub owner: Owner,
    /// Extra roots for issuers.
    pub issuer_ca_file: Option<PathBuf>,
}

impl Config {
    /// Reads `DIR/authority.yaml`.
    ///
    /// # Errors
    /// `Kind::Usage` with the place of each mistake.
    pub fn load(data_dir: &Path) -> Result<Self> {
        let path = data_dir.join(FILE);
        let read = |owner| Ok((owner, read::utf8(read::raw(&path, Trust::Operators(owner), Limit::FILE)?)?));
        let (owner, text) = Owner::of(data_dir).and_then(read).map_err(|unfit| {
            let hint = unfit.is_missing().then_some("`machine-id authority init` creates a data directory");
            let cannot = unfit.error(Kind::Usage, format!("cannot read {}", path.display()));
            hint.into_iter().fold(cannot, Error::hint)
        })?;
        check_folder(data_dir, owner)?;
        Self::parse(&text, data_dir, owner).map_err(|mistakes| mistakes.in_file(&path.display().to_string()))
    }

    fn parse(text: &str, data_dir: &Path, owner: Owner) -> Result<Self, Mistakes> {
        let node = document::parse_one(text)?;
        let mut all = node.mapping("the configuration")?;
        all.version()?;
        let cluster = all.require("cluster", |node, key| check(node, key, check_cluster));
        let public_url = all.require("public_url", |node, key| check(node, key, check_public_url));
        let listen = all.read("listen", listen).unwrap_or(SocketAddr::from(([127, 0, 0, 1], 8443)));
        let below = |path: &str| data_dir.join(path);
        let tls = all.read("tls", |node, key| read_tls(node, key, data_dir));
        let store = all.read("store", |node, key| scheme(node, key, "sqlite:"));
        let keys = all.read("keys", |node, key| scheme(node, key, "file:"));
        let policy = all.read("policy", Node::text);
        let issuer_ca_file = all.read("issuer_ca_file", Node::text).map(below);
        if let Some(node) = all.take("metrics_listen") {
            let message = "`metrics_listen` is not supported by this version";
            all.mistakes.add(Mistake::new(node.place, message));
        }
        all.finish()?;
        Ok(Self {
            // Without one there is a mistake.
            cluster: cluster.unwrap_or_default(),
            public_url: public_url.unwrap_or_default(),
            listen,
            tls,
            store: below(store.unwrap_or("authority.db")),
            keys: below(keys.unwrap_or("keys")),
            policy: below(policy.unwrap_or("policy")),
            owner,
            issuer_ca_file,
        })
    }

    /// The policy's files.
    pub fn policy_files(&self) -> PolicyFiles {
        PolicyFiles::new(self.policy.clone(), Trust::Operators(self.owner))
    }

    /// The policy as its files have it now.
    ///
    /// # Errors
    /// The first mistake in full, the others as hints.
    pub fn load_policy(&self) -> Result<Policy> {
        self.policy_files().policy()
    }

    /// The public URL's host, as certificates name it.
    pub fn public_host(&self) -> String {
        let url = reqwest::Url::parse(&self.public_url).ok();
        let host = url.as_ref().and_then(reqwest::Url::host_str).unwrap_or_default();
        host.trim_matches(['[', ']']).to_owned()
    }
}

/// Whoever may write there decides who gets in.
fn check_folder(data_dir: &Path, owner: Owner) -> Result<()> {
    let cannot = || format!("cannot use the data directory {}", data_dir.display());
    trust::operators(data_dir, owner).map(drop).map_err(|unfit| unfit.error(Kind::Usage, cannot()))
}

fn check(node: &Node, key: &str, check: fn(&str) -> Result<String, &'static str>) -> Result<String, Mistake> {
    check(node.text(key)?).map_err(|why| Mistake::new(node.place, format!("`{key}` {why}")))
}

fn listen(node: &Node, key: &str) -> Result<SocketAddr, Mistake> {
    let wrong = || Mistake::new(node.place, "`listen` must be ADDRESS:PORT").hint("for example 0.0.0.0:8443");
    node.text(key)?.parse().map_err(|_| wrong())
}

fn read_tls(node: &Node, key: &str, data_dir: &Path) -> Result<(PathBuf, PathBuf), Mistakes> {
    let mut tls = node.mapping(key)?;
    let [certificate, key] =
        ["cert_file", "key_file"].map(|key| tls.require(key, Node::text).map(|path| data_dir.join(path)));
    tls.finish()?;
    Ok((certificate.unwrap_or_default(), key.unwrap_or_default()))
}

/// The path of `SCHEME:PATH`, in the one scheme that this version has.
fn scheme<'n>(node: &'n Node, key: &str, scheme: &str) -> Result<&'n str, Mistake> {
    let path = node.text(key)?.strip_prefix(scheme).filter(|path| !path.is_empty());
    path.ok_or_else(|| Mistake::new(node.place, format!("`{key}` must be `{scheme}PATH`")))
}

/// A cluster's name: it stands in SPIFFE ids as the trust domain.
pub fn check_cluster(name: &str) -> Result<String, &'static str> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
    let fits =
        !name.is_empty() && name.len() <= 255 && name.bytes().all(allowed) && !name.starts_with(['.', '-']);
    if fits { Ok(name.to_owned()) } else { Err("must be lower-case letters, digits, dots and dashes") }
}

/// A public URL: https, a host, perhaps a port, and nothing else, since every
/// character of it is part of the audience. A trailing slash is dropped.
pub fn check_public_url(text: &str) -> Result<String, &'static str> {
    authority_origin(text).map_err(|_| "must be https://HOST or https://HOST:PORT")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = "version: v1\ncluster: id.example.com\npublic_url: https://id.example.com\n";

    fn parse(text: &str) -> Result<Config, Mistakes> {
        Config::parse(text, Path::new("/data"), Owner::me())
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
            (String::new(), "1:1: a configuration is one YAML document"),
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
    fn no_value_may_be_empty() {
        let full = format!(
            "{MINIMAL}listen: 0.0.0.0:1\nstore: sqlite:a\nkeys: file:k\npolicy: p\nissuer_ca_file: c\n\
             tls: {{cert_file: c, key_file: k}}\n"
        );
        parse(&full).unwrap();
        for emptied in document::emptied::emptied(&full) {
            let mistakes = parse(&emptied.text).expect_err(&emptied.path);
            emptied.is_refused_by(&mistakes.into_iter().map(|one| one.to_string()).collect::<Vec<_>>());
        }
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        let error = parse("version: v1\ncluster: A\npublic_url:\nlisten: x\n").unwrap_err().in_file("f");
        assert_eq!(
            error.to_string(),
            "f:2:10: `cluster` must be lower-case letters, digits, dots and dashes"
        );
        assert_eq!(
            error.hints(),
            ["also at 3:1: `public_url` has no value", "also at 4:9: `listen` must be ADDRESS:PORT"]
        );
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
