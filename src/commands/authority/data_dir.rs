//! What commands do with a data directory: open it to sign, or its store to read.

use std::path::Path;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::authority::store::record::{self, CommandPlan, Recorded};
use crate::authority::store::{Store, Trail, engine, lost, restored_warning};
use crate::authority::{config, keys, tls};
use crate::clock::Clock;
use crate::document;
use crate::environment::Environment;
use crate::error::{Error, Kind, Result};
use crate::folder::Unfit;
use crate::folder::read::{self, Limit, Trust};
use crate::runtime::block_on;
use crate::terminal;
use crate::text::word;

/// Opens what a signing command needs: keys, and the store that records it first.
pub(super) fn open(data_dir: &Path) -> Result<(keys::CaKeys, Box<dyn Store>)> {
    let config = config::Config::load(data_dir)?;
    open_with_keys(&config)
}

/// The same of a configuration.
pub(super) fn open_with_keys(config: &config::Config) -> Result<(keys::CaKeys, Box<dyn Store>)> {
    let store = open_store(config)?;
    let set = block_on(store.cas())??;
    Ok((config.open_keys(&Arc::new(set))?, store))
}

/// Opens the store, for writing; says where it was put back lately. One that has lost something is not written to:
/// that is found before anything else is.
pub(super) fn open_store(config: &config::Config) -> Result<Box<dyn Store>> {
    let now = Clock::system().now();
    look(block_on(engine::open(&config.store, &config.store_key(), now))??, now)
}

/// The same, to let something go.
pub(super) fn open_to_prune(config: &config::Config, now: i64) -> Result<Box<dyn Store>> {
    look(block_on(engine::open_to_prune(&config.store, &config.store_key(), now))??, now)
}

fn look(store: Box<dyn Store>, now: i64) -> Result<Box<dyn Store>> {
    block_on(store.mark())?.or_else(|error| if lost(&error).is_some() { Err(error) } else { Ok(()) })?;
    restored_warning(store.as_ref(), now)
        .iter()
        .for_each(|warning| terminal::log(&format!("warning: {warning}")));
    Ok(store)
}

/// Opens the store for reading; says where its records have gone on elsewhere.
pub(super) fn read_store(config: &config::Config) -> Result<Box<dyn Trail>> {
    let store = block_on(engine::read(&config.store, &config.store_key()))??;
    if let Some(closed) = block_on(store.closed())?? {
        let error = closed.error();
        terminal::log(&format!("warning: {error}"));
        error.hints().iter().for_each(|hint| terminal::log(&format!("hint: {hint}")));
    }
    Ok(store)
}

/// The user of the operating system that this process runs as, for a record of who has done something: with whoever
/// became it by sudo, as that says.
pub(super) fn user(env: &Environment) -> String {
    let uid = rustix::process::getuid().as_raw().to_string();
    let known = read::raw(Path::new("/etc/passwd"), Trust::Ours, Limit::FILE).and_then(read::utf8);
    let name = known.ok().and_then(|text| {
        let of = |line: &str| -> Option<String> {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)? == uid).then(|| word(name))
        };
        text.lines().find_map(of)
    });
    let name = name.unwrap_or_else(|| format!("uid {uid}"));
    match env.get("SUDO_USER") {
        Some(by) if !by.is_empty() && word(by) != name => format!("{name} (sudo: {})", word(by)),
        _ => name,
    }
}

/// Says on stderr that the TLS CA ends soon or has ended: what is signed or trusted now ends with it.
pub(super) fn warn_of_ca(keys: &keys::CaKeys) {
    for warning in tls::ca_warnings(&keys.tls_endings(), Clock::system().now()) {
        terminal::log(&format!("warning: {}", warning.told()));
        terminal::log(&format!("hint: {}", warning.hint));
    }
}

/// Says on stderr what an operator has to see to.
pub(super) fn warn(error: &Error) {
    terminal::log(&format!("warning: {error}"));
    error.hints().iter().for_each(|hint| terminal::log(&format!("hint: {hint}")));
}

/// What is to be signed: a file, or stdin for `-`, since the authority's user cannot read what lies in an operator's folders.
pub(super) fn read_input(path: &Path) -> Result<Zeroizing<String>> {
    let cannot = |unfit: Unfit| unfit.error(Kind::Usage, format!("cannot read {}", path.display()));
    read::input(path, Limit::FILE).map_err(|unfit| {
        let hint = unfit.is_denied().then_some("hand it over on stdin: `-` for its name, and `< FILE`");
        hint.into_iter().fold(cannot(unfit), Error::hint)
    })
}

/// Records what is going to be signed.
pub(super) fn record<P: CommandPlan>(
    store: &dyn Store,
    keys: &keys::CaKeys,
    by: &'static str,
    plan: P,
) -> Result<Recorded<P>> {
    block_on(record::command(store, by, Clock::system().now(), keys.set().number, plan))?
}

/// The value of a certificate's `--ttl`: at most as long as the CA itself lives.
pub(super) fn certificate_ttl(text: &str) -> Result<i64> {
    ttl(text, 3650, "ten years")
}

/// The value of a `--ttl` of at most so many days.
pub(super) fn ttl(text: &str, days: i64, most: &str) -> Result<i64> {
    let seconds = document::parse_duration(text).map_err(|why| Error::usage(format!("`--ttl`: {why}")))?;
    let seconds = i64::try_from(seconds).ok().filter(|seconds| *seconds <= days * 86_400);
    seconds.ok_or_else(|| Error::usage(format!("`--ttl` is longer than {most}")))
}
