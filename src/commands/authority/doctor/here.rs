//! What can be told without the network, but for a database that is the store.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::told::{Told, Verdict};
use crate::authority::config::{Config, FILE, KEYS};
use crate::authority::keys::{KeyPlace, is_sealed};
use crate::authority::policy::Policy;
use crate::authority::store::seal::STORE_KEY;
use crate::authority::store::{Cursor, EventFilter, StorePlace, engine};
use crate::authority::tls;
use crate::cli::authority::Doctor;
use crate::clock::{Clock, LEEWAY, rfc3339};
use crate::commands::authority::data_dir::read_store;
use crate::environment::Environment;
use crate::error::{Error, Kind, Result};
use crate::folder;
use crate::folder::access;
use crate::folder::read::{self, Limit, Trust};
use crate::runtime::block_on;
use crate::text::counted;

/// The least that should be free on the disk, in MiB: exchanges wait when 16 are not.
const LEAST_FREE: u64 = 256;
/// The folder of backups, as docs/backup.md has it.
const BACKUPS: &str = "/var/backups/machine-id";
/// How old the newest backup may be, in hours: one each day, and half a day late.
const OLDEST_BACKUP: u64 = 36;
/// The most backups that are looked at.
const MOST_BACKUPS: usize = 100_000;

/// The CA keys, and whatever lies beside them: a copy is a key too.
pub(super) fn keys(config: &Config) -> Vec<Told> {
    let opened = || {
        let now = Clock::system().now();
        let set =
            block_on(async { engine::open(&config.store, &config.store_key(), now).await?.cas().await })??;
        config.open_keys(&Arc::new(set))
    };
    let keys = match opened() {
        Ok(keys) => keys,
        Err(error) => return vec![Told::error("keys", &error)],
    };
    let (mut told, ok) = match &config.keys {
        KeyPlace::File(folder) => {
            (of_files(config, folder), "the CA keys belong together, and nobody else can read them")
        }
        _ => {
            let keys = Arc::new(keys.clone());
            let signs = block_on(async move { keys.probe().await }).and_then(|signs| signs);
            let told = signs.err().map(|error| Told::error("keys", &error));
            (told.into_iter().collect(), "the CA keys sign, and belong to their public keys")
        }
    };
    told.extend(keys.lacks().iter().map(|lack| Told::error("keys", &Error::usage(lack.words()))));
    let unlike = keys.unlike(config.suite);
    if !unlike.is_empty() {
        let (names, suite) = (unlike.join(", "), config.suite.name());
        let message = format!("not of the suite `{suite}`, since they are of Ed25519: {names}");
        told.push(
            Told::new("keys", Verdict::Finding, message)
                .hint("new keys will be; docs/keys.md says how to exchange these, or set `suite: modern`"),
        );
    }
    if told.is_empty() {
        let names = keys.signers().unwrap_or_default().join(", ");
        told.push(Told::new("keys", Verdict::Ok, format!("{ok}: {names}")));
    }
    told
}

/// Files of keys, and whatever lies beside them.
fn of_files(config: &Config, folder: &Path) -> Vec<Told> {
    let has_passphrase = config.key_passphrase().is_ok_and(|passphrase| passphrase.is_some());
    let is_public = |path: &Path| path.extension().is_some_and(|ext| ext == "crt" || ext == "pub");
    let names = folder::names(folder, 1000).unwrap_or_default();
    let private =
        names.into_iter().map(|name| folder.join(name)).filter(|path| !is_public(path) && path.is_file());
    let unsafe_ones = private.filter_map(|path| {
        let text = match read::raw(&path, Trust::Secret(config.owner), Limit::FILE).and_then(read::utf8) {
            Ok(text) => text,
            Err(unfit) => {
                let place = format!("{} is no safe place for a key", path.display());
                return Some(Told::error("keys", &unfit.error(Kind::Usage, place)));
            }
        };
        let message = format!("{} is not sealed, though there is a passphrase", path.display());
        let told = || Told::new("keys", Verdict::Finding, message).hint("docs/keys.md says how to seal it");
        (has_passphrase && !is_sealed(&text)).then(told)
    });
    unsafe_ones.collect()
}

/// The store: whether it can be served, and how it keeps what it holds; and whether the clock went back since.
pub(super) fn store(config: &Config, env: &Environment) -> Result<Vec<Told>> {
    let writable = match &config.store {
        StorePlace::Sqlite(path) => {
            access::check(path, true).map_err(|unfit| unfit.error(Kind::Usage, "it cannot be written"))
        }
        StorePlace::Postgres(_) => Ok(()),
    };
    let mut told: Vec<Told> = writable.err().iter().map(|error| Told::error("store", error)).collect();
    let warning = |(message, hint): (String, &str)| Told::new("store", Verdict::Finding, message).hint(hint);
    told.extend(config.store_warnings(env)?.into_iter().map(warning));
    match block_on(engine::check(&config.store, &config.store_key()))? {
        Ok(kept) => {
            told.extend(kept.into_iter().map(warning));
            told.extend(records_to_come(config));
        }
        Err(error) => told.push(Told::error("store", &error)),
    }
    if told.is_empty() {
        told.push(Told::new("store", Verdict::Ok, "it can be read and written"));
    }
    // Whether somebody sees to that cannot be told from here.
    told.extend(
        config.retain_warning().map(|(message, hint)| Told::new("store", Verdict::Note, message).hint(hint)),
    );
    Ok(told)
}

/// Records of a time that is still to come: the clock was ahead when they were made, or is behind now.
fn records_to_come(config: &Config) -> Option<Told> {
    let now = Clock::system().now();
    let filter = EventFilter { since: Some(now.saturating_add(LEEWAY)), ..EventFilter::default() };
    let store = read_store(config).ok()?;
    let events = block_on(store.events(filter, Cursor::default(), 1)).ok()?.ok()?;
    events.first().map(|_| {
        let message =
            format!("this machine's clock says {}, and the store has records of a later time", rfc3339(now));
        Told::new("clock", Verdict::Finding, message)
            .hint("synchronise it (`timedatectl`); `machine-id authority audit` shows the records")
    })
}

/// The policy, and what there is to say of it.
pub(super) fn policy(config: &Config) -> (Option<Policy>, Vec<Told>) {
    let sources = match config.policy_files().sources() {
        Ok(sources) => sources,
        Err(error) => return (None, vec![Told::error("policy", &error)]),
    };
    let policy = match Policy::parse(&sources) {
        Ok(policy) => policy,
        Err(mistakes) => {
            return (None, mistakes.iter().map(|mistake| Told::error("policy", mistake)).collect());
        }
    };
    let mistakes = policy.mistakes_at(&config.cluster, &config.public_url);
    if !mistakes.is_empty() {
        return (None, mistakes.iter().map(|mistake| Told::error("policy", mistake)).collect());
    }
    let mut told = vec![Told::new("policy", Verdict::Ok, policy.summary())];
    if policy.tokens().chain(policy.clusters()).next().is_none() {
        told = vec![
            Told::new("policy", Verdict::Finding, "it has no join token: nobody can get in")
                .hint("`machine-id authority policy add` writes one"),
        ];
    }
    let lints = policy.lint().findings.len();
    if lints > 0 {
        told.push(
            Told::new("policy", Verdict::Note, format!("lints: {}", counted(lints, "warning")))
                .hint("`machine-id authority check` tells each"),
        );
    }
    (Some(policy), told)
}

/// The TLS CA and the certificate that is served.
pub(super) fn certificates(config: &Config) -> Vec<Told> {
    let warnings = match tls::check(config, Clock::system().now(), &[]) {
        Ok((warnings, _)) => warnings,
        Err(error) => return vec![Told::error("certificates", &error)],
    };
    if warnings.is_empty() {
        return vec![Told::new("certificates", Verdict::Ok, "none ends soon, and each names what it should")];
    }
    let told = |warning: tls::CertificateWarning| {
        Told::new("certificates", Verdict::Finding, warning.told()).hint(warning.hint)
    };
    warnings.into_iter().map(told).collect()
}

/// Room for what is recorded.
pub(super) fn disk(config: &Config) -> Vec<Told> {
    let store = match &config.store {
        StorePlace::Sqlite(path) => path.parent().map(Path::to_owned),
        StorePlace::Postgres(_) => None,
    };
    let mut places: Vec<PathBuf> = store.into_iter().chain([config.data_dir.clone()]).collect();
    places.dedup();
    let of = |place: PathBuf| match folder::free(&place) {
        Err(error) => Told::new("disk", Verdict::Finding, format!("{}: {error}", place.display())),
        Ok(free) => {
            let mebi = free >> 20;
            let told =
                |verdict| Told::new("disk", verdict, format!("{mebi} MiB are free at {}", place.display()));
            if mebi < LEAST_FREE {
                told(Verdict::Finding)
                    .hint("make room: where 16 MiB are not free, nothing is issued (docs/troubleshooting.md)")
            } else {
                told(Verdict::Ok)
            }
        }
    };
    places.into_iter().map(of).collect()
}

/// The newest backup: how old it is, and whether it holds what a backup must.
pub(super) fn backups(config: &Config, args: &Doctor) -> Told {
    let place = args.backups.as_deref().unwrap_or(Path::new(BACKUPS));
    // Where nobody said that there are any, they may be elsewhere.
    let missing = if args.backups.is_some() { Verdict::Finding } else { Verdict::Note };
    let names = folder::names(place, MOST_BACKUPS).unwrap_or_default();
    let is_finished = |path: &PathBuf| {
        path.is_dir() && path.file_name().is_some_and(|name| !name.as_encoded_bytes().starts_with(b"."))
    };
    let made = |path: PathBuf| Some((std::fs::metadata(&path).ok()?.modified().ok()?, path));
    let newest = names.into_iter().map(|name| place.join(name)).filter(is_finished).filter_map(made).max();
    let Some((time, path)) = newest else {
        return Told::new("backup", missing, format!("no backup is seen in {}", place.display()))
            .hint("docs/backup.md has a script for a timer; `--backups DIR` says where else they are");
    };
    // Of keys that are elsewhere only the certificate is there.
    let certificate = config.ca_certificate();
    let keys = match &config.keys {
        KeyPlace::File(_) => Some(KEYS),
        _ => certificate.file_name().and_then(|name| name.to_str()),
    };
    let lacks: Vec<&str> = [FILE, keys.unwrap_or(KEYS), STORE_KEY]
        .into_iter()
        .filter(|name| !path.join(name).exists())
        .collect();
    if !lacks.is_empty() {
        let message =
            format!("{} lacks {}: it is not all of an authority", path.display(), lacks.join(" and "));
        return Told::new("backup", Verdict::Finding, message)
            .hint("docs/backup.md says what belongs into one");
    }
    let hours = SystemTime::now().duration_since(time).unwrap_or_default().as_secs() / 3600;
    let told = |verdict| Told::new("backup", verdict, format!("{} is {hours} hours old", path.display()));
    if hours > OLDEST_BACKUP {
        told(Verdict::Finding).hint("see why the timer that makes them has not")
    } else {
        told(Verdict::Ok)
    }
}
