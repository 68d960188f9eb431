//! `authority.yaml`: read strictly, resolved against the data directory,
//! checked before anything starts.

use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::ca::CaSet;
use super::keys::{self, CaKeys, KeyPlace, KeySource, SEALS_CA_KEYS};
use super::limits::Quotas;
use super::policy::Policy;
use super::policy_files::PolicyFiles;
use super::store::StorePlace;
use super::store::seal::{STORE_KEY, StoreKey};
use crate::document::{self, Mistake, Mistakes, Node, Value};
use crate::environment::Environment;
use crate::error::{Error, Kind, Result};
use crate::folder::read::{self, Limit, Trust};
use crate::folder::stamp::Stamp;
use crate::folder::trust::{self, Owner};
use crate::net::authority_origin;
use crate::secret::Secret;
use crate::suite::Suite;

/// The configuration's name in the data directory.
pub const FILE: &str = "authority.yaml";

/// What a quota may be.
const QUOTA: RangeInclusive<u32> = 32..=100_000_000;

/// The shortest that records are kept, in seconds: the longest that a certificate of a job lives, and a day.
const RETAIN: i64 = 8 * 86_400;

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
    /// Where the store is.
    pub store: StorePlace,
    /// Where the CA keys are.
    pub keys: KeyPlace,
    /// Where the passphrase is that those in files are sealed with, if not in a credential of systemd's.
    pub key_passphrase_file: Option<PathBuf>,
    /// Which algorithms new keys have, of its own and of jobs.
    pub suite: Suite,
    /// The policy: a file or a folder.
    pub policy: PathBuf,
    /// Whose all of it is.
    pub owner: Owner,
    /// Extra roots for issuers.
    pub issuer_ca_file: Option<PathBuf>,
    /// How long what was recorded is kept, in seconds; for ever where it is not said.
    pub retain: Option<i64>,
    /// How many certificates an hour.
    pub quotas: Quotas,
    /// Where all of it is.
    pub data_dir: PathBuf,
    /// The state of the file of extra roots.
    issuer_roots: Option<Stamp>,
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
            if unfit.is_missing()
                && let Some(unfinished) = unfinished(data_dir)
            {
                return unfinished;
            }
            let hint = if unfit.is_missing() {
                Some("`machine-id authority init` creates a data directory")
            } else {
                unfit
                    .is_denied()
                    .then_some("run it as the user whose directory it is: `sudo -u machine-id machine-id …`")
            };
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
        let store = all.read("store", |node, key| read_store(node, key, data_dir));
        let keys = all.read("keys", |node, key| read_keys(node, key, data_dir));
        let key_passphrase_file = all.read("key_passphrase_file", Node::text).map(below);
        let suite = all.read("suite", |node, key| check(node, key, check_suite)).unwrap_or_default();
        let policy = all.read("policy", Node::text);
        let issuer_ca_file = all.read("issuer_ca_file", Node::text).map(below);
        let retain = all.read("retain", read_retain);
        let quotas = all.read("limits", read_limits).unwrap_or_default();
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
            store: store.unwrap_or_else(|| StorePlace::Sqlite(below(STORE))),
            keys: keys.unwrap_or_else(|| KeyPlace::File(below(KEYS))),
            key_passphrase_file,
            suite,
            policy: below(policy.unwrap_or("policy")),
            owner,
            issuer_roots: issuer_ca_file.as_deref().and_then(Stamp::of),
            issuer_ca_file,
            retain,
            quotas,
            data_dir: data_dir.to_owned(),
        })
    }

    /// The CA keys.
    ///
    /// # Errors
    /// As [`CaKeys::open`] says.
    pub fn open_keys(&self, set: &Arc<CaSet>) -> Result<CaKeys> {
        CaKeys::open(&self.key_source()?, set)
    }

    /// What they are opened by.
    ///
    /// # Errors
    /// `Kind::Usage` where the key of the store or the passphrase cannot be used.
    pub fn key_source(&self) -> Result<KeySource> {
        Ok(KeySource {
            place: self.keys.clone(),
            certificate: self.ca_certificate(),
            cluster: self.cluster.clone(),
            owner: self.owner,
            suite: self.suite,
            passphrase: self.key_passphrase()?,
            sealing: self.store_key().derive(SEALS_CA_KEYS)?,
        })
    }

    /// The passphrase that CA keys in files are sealed with, where there is one.
    ///
    /// # Errors
    /// As [`keys::passphrase()`] says.
    pub fn key_passphrase(&self) -> Result<Option<Secret>> {
        keys::passphrase(self.key_passphrase_file.as_deref(), self.owner, &Environment::of_process())
    }

    /// Where the TLS CA's certificate lies.
    pub fn ca_certificate(&self) -> PathBuf {
        self.keys.certificate(&self.data_dir)
    }

    /// What to say where the file says something else by now, or nothing that can be read: it is read at the start alone.
    pub fn outdated(&self) -> Option<Error> {
        let again = || format!("{} is read at the start alone", self.data_dir.join(FILE).display());
        let now = match Self::load(&self.data_dir) {
            Ok(now) => now,
            Err(error) => {
                return Some(error.context(again()).hint("the authority will not start again with it"));
            }
        };
        let Self { cluster, public_url, listen, tls, store, keys, suite, policy, retain, quotas, .. } = self;
        let roots = |config: &Self| (config.issuer_ca_file.clone(), config.issuer_roots);
        let changed = [
            ("cluster", *cluster != now.cluster),
            ("public_url", *public_url != now.public_url),
            ("listen", *listen != now.listen),
            ("tls", *tls != now.tls),
            ("store", *store != now.store),
            ("keys", *keys != now.keys),
            ("key_passphrase_file", self.key_passphrase_file != now.key_passphrase_file),
            ("suite", *suite != now.suite),
            ("policy", *policy != now.policy),
            ("issuer_ca_file", roots(self) != roots(&now)),
            ("retain", *retain != now.retain),
            ("limits", *quotas != now.quotas),
        ];
        let names = changed.iter().filter(|(_, is_other)| *is_other).map(|(name, _)| format!("`{name}`"));
        let names = names.collect::<Vec<_>>().join(", ");
        let said = || Error::usage(format!("{names} changed since")).context(again());
        (!names.is_empty()).then(|| said().hint("restart the authority for that to count"))
    }

    /// Where the key is that the store's rows are sealed with.
    pub fn store_key(&self) -> StoreKey {
        StoreKey::new(&self.data_dir, self.owner, &self.cluster)
    }

    /// The store that an option names as `store` names one.
    ///
    /// # Errors
    /// As [`StorePlace::of_option`].
    pub fn store_at(&self, option: &str, text: &str) -> Result<StorePlace> {
        let named = |error: Error| error.context(format!("cannot use `{option}`"));
        StorePlace::of_option(option, text, &self.data_dir).map_err(named)
    }

    /// With its store where that option says, if it does.
    ///
    /// # Errors
    /// As [`StorePlace::of_option`].
    pub fn with_store(self, option: &str, text: Option<&str>) -> Result<Self> {
        let store = text.map(|text| self.store_at(option, text)).transpose()?;
        Ok(Self { store: store.unwrap_or(self.store), ..self })
    }

    /// What an operator should hear of where the store is, and what to do about it.
    ///
    /// # Errors
    /// As [`StorePlace::warnings`].
    pub fn store_warnings(&self, env: &Environment) -> Result<Vec<(String, &'static str)>> {
        self.store.warnings(env, &self.data_dir, self.owner)
    }

    /// What an operator should hear of `retain`, where it is for others to see to.
    pub fn retain_warning(&self) -> Option<(String, &'static str)> {
        let message =
            "`retain` does nothing by itself: no server may take anything from the trail in PostgreSQL";
        let hint = "run `machine-id authority prune` as the database's owner, by a timer";
        let is_others = self.retain.is_some() && matches!(self.store, StorePlace::Postgres(_));
        is_others.then(|| (message.to_owned(), hint))
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
        let policy = self.policy_files().policy()?;
        self.check_policy(&policy)?;
        Ok(policy)
    }

    /// Whether this authority can have that policy: not one by which it is a leaf of its own.
    ///
    /// # Errors
    /// As [`Config::load_policy`].
    pub fn check_policy(&self, policy: &Policy) -> Result<()> {
        PolicyFiles::check_at(policy, &self.cluster, &self.public_url)
    }

    /// The public URL's host, as certificates name it.
    pub fn public_host(&self) -> String {
        let url = reqwest::Url::parse(&self.public_url).ok();
        let host = url.as_ref().and_then(reqwest::Url::host_str).unwrap_or_default();
        host.trim_matches(['[', ']']).to_owned()
    }
}

/// What makes a data directory of an authority's, beside its configuration.
pub const KEYS: &str = "keys";
/// The store's name, as `init` makes it.
pub const STORE: &str = "authority.db";

/// What there is to say of a directory that holds keys or a store and no
/// configuration, which is written last: nothing tells whether they matter.
pub fn unfinished(data_dir: &Path) -> Option<Error> {
    let there = |name: &&str| data_dir.join(name).exists();
    if data_dir.join(FILE).exists() {
        return None;
    }
    let found = [KEYS, STORE_KEY, STORE].into_iter().filter(there).collect::<Vec<_>>();
    let names = found.join(" and ");
    (!found.is_empty()).then(|| {
        Error::usage(format!(
            "{} holds {names} and no {FILE}: `init` was interrupted there, or {FILE} was lost",
            data_dir.display()
        ))
        .hint(format!("where this authority has issued anything, put {FILE} back"))
        .hint(format!("where it has not, remove {names}, and run `machine-id authority init`"))
    })
}

/// Whoever may write there decides who gets in.
fn check_folder(data_dir: &Path, owner: Owner) -> Result<()> {
    let cannot = || format!("cannot use the data directory {}", data_dir.display());
    trust::operators(data_dir, owner).map(drop).map_err(|unfit| unfit.error(Kind::Usage, cannot()))
}

fn check<T, E: Display>(node: &Node, key: &str, check: fn(&str) -> Result<T, E>) -> Result<T, Mistake> {
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

/// How long what was recorded is kept.
fn read_retain(node: &Node, key: &str) -> Result<i64, Mistake> {
    let wrong = |why| Mistake::new(node.place, format!("`{key}` {why}")).hint("for example 400d");
    let seconds = document::parse_duration(node.text(key)?).map_err(|why| wrong(why.to_string()))?;
    let seconds = i64::try_from(seconds).ok().filter(|seconds| *seconds >= RETAIN);
    seconds.ok_or_else(|| wrong(format!("must be at least {} days", RETAIN / 86_400)))
}

fn read_limits(node: &Node, key: &str) -> Result<Quotas, Mistakes> {
    let mut limits = node.mapping(key)?;
    let usual = Quotas::default();
    let quotas = Quotas {
        token: limits.read("certificates_per_hour_of_token", quota).unwrap_or(usual.token),
        run: limits.read("certificates_per_hour_of_run", quota).unwrap_or(usual.run),
    };
    limits.finish()?;
    Ok(quotas)
}

/// A number of certificates: as many as the outputs of one exchange may have, or more.
fn quota(node: &Node, key: &str) -> Result<u32, Mistake> {
    let number = match &node.value {
        Value::Int(number) => u32::try_from(*number).ok().filter(|number| QUOTA.contains(number)),
        _ => None,
    };
    let (least, most) = (QUOTA.start(), QUOTA.end());
    number.ok_or_else(|| {
        Mistake::new(node.place, format!("`{key}` must be a whole number from {least} to {most}"))
            .hint("it is how many certificates may be issued at once, and then each hour")
    })
}

fn read_store(node: &Node, key: &str, data_dir: &Path) -> Result<StorePlace, Mistake> {
    StorePlace::parse(node.text(key)?, data_dir).map_err(|error| mistake(node, &error))
}

fn read_keys(node: &Node, key: &str, data_dir: &Path) -> Result<KeyPlace, Mistake> {
    KeyPlace::parse(node.text(key)?, data_dir).map_err(|error| mistake(node, &error))
}

fn mistake(node: &Node, error: &Error) -> Mistake {
    let mistake = Mistake::new(node.place, error.to_string());
    error.hints().iter().fold(mistake, |mistake, hint| mistake.hint(hint))
}

/// A cluster's name: it stands in SPIFFE ids as the trust domain.
pub fn check_cluster(name: &str) -> Result<String, &'static str> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
    let fits =
        !name.is_empty() && name.len() <= 255 && name.bytes().all(allowed) && !name.starts_with(['.', '-']);
    if fits { Ok(name.to_owned()) } else { Err("must be lower-case letters, digits, dots and dashes") }
}

/// A suite by its name.
pub fn check_suite(name: &str) -> Result<Suite, &'static str> {
    Suite::named(name).ok_or("must be modern or compatible")
}

/// A public URL: https, a host, perhaps a port, and nothing else, since every
/// character of it is part of the audience. A trailing slash is dropped.
pub fn check_public_url(text: &str) -> Result<String, String> {
    authority_origin(text).map_err(|why| format!("must be https://HOST or https://HOST:PORT: {why}"))
}

#[cfg(test)]
mod tests;
