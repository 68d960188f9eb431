//! `machine-id authority init`: a new data directory.

use std::path::Path;

use crate::authority::store::StorePlace;
use crate::authority::store::seal::{STORE_KEY, StoreKey};
use crate::authority::store::sqlite::{MARK, Sqlite};
use crate::authority::{config, keys};
use crate::clock::Clock;
use crate::error::{Context as _, Error, Kind, Result};
use crate::folder::replace::{make_private, write_new};
use crate::folder::trust::Owner;
use crate::folder::{Aside, PRIVATE_FILE};
use crate::terminal::print;

const POLICY: &str = "policy";

pub(super) fn run(dir: &Path, cluster: &str, public_url: &str, store: &str) -> Result<()> {
    let cluster = config::check_cluster(cluster)
        .map_err(|why| Error::usage(format!("`--cluster` {why}")).hint("for example id.example.com"))?;
    let public_url =
        config::check_public_url(public_url).map_err(|why| Error::usage(format!("`--public-url` {why}")))?;
    let file = store_file(store)?;
    if dir.join(config::FILE).exists() {
        return Err(Error::usage(format!("{} is an authority's data directory already", dir.display()))
            .hint(
                "nothing was changed; choose another --data-dir, or delete that one if its CA keys may go",
            ));
    }
    config::unfinished(dir).map_or(Ok(()), Err)?;
    let cannot = || format!("cannot use {}", dir.display());
    let aside = Aside::of(dir).map_err(|unfit| unfit.error(Kind::Usage, cannot()))?;
    let at = |name: &str| aside.path().join(name);
    make_private(&at(POLICY))?;
    keys::file::create(&at(config::KEYS), &cluster, Clock::system().now())?;
    let key = StoreKey::new(aside.path(), Owner::me(), &cluster);
    match &file {
        Some(file) => Sqlite::create(&at(file), &key)?,
        None => key.create().map(drop)?,
    }
    let text = format!(
        "version: v1\ncluster: '{cluster}'\npublic_url: {public_url}  # the audience that OIDC tokens must carry\n\
         listen: 127.0.0.1:8443\nstore: {}\nkeys: file:{}\npolicy: {POLICY}\n",
        as_yaml(store),
        config::KEYS
    );
    write_new(&at(config::FILE), text.as_bytes(), PRIVATE_FILE)?;
    // Where the directory itself is there, keys are first: of two at once, only one can put them there. The
    // configuration is last: a directory without one is not finished.
    let is_shared = file.is_none();
    let files = file.map(|file| [format!("{file}{MARK}"), file]).unwrap_or_default();
    let store_files = files.iter().map(String::as_str).filter(|name| !name.is_empty());
    let order: Vec<&str> =
        [config::KEYS, STORE_KEY].into_iter().chain(store_files).chain([POLICY, config::FILE]).collect();
    aside.put(&order, POLICY).context(Kind::Usage, cannot())?;
    let (dir, policy) = (dir.display(), dir.join(POLICY));
    // The tables of a database are for its owner to make.
    let upgrade = if is_shared {
        format!(
            "    machine-id authority upgrade --data-dir {dir} --store postgres://OWNER@… --server-role ROLE\n"
        )
    } else {
        String::new()
    };
    print(&format!(
        "created {dir}\n\nput bots, roles and join tokens into {}, then run:\n\n{upgrade}    machine-id authority serve --data-dir {dir}\n",
        policy.display()
    ))
}

/// The name of the store's file, where it is one. It is put into the directory with the rest.
fn store_file(store: &str) -> Result<Option<String>> {
    // A name and nothing else stays below any directory.
    match StorePlace::of_option("--store", store, Path::new(""))? {
        StorePlace::Sqlite(path) => {
            let is_name = path.file_name() == Some(path.as_os_str());
            path.to_str().filter(|_| is_name).map(|name| Some(name.to_owned())).ok_or_else(|| {
                Error::usage("`--store sqlite:NAME` is a file of the data directory, without a folder")
                    .hint("for another place, write it into authority.yaml afterwards, and run `machine-id authority new-store`")
            })
        }
        StorePlace::Postgres(_) => Ok(None),
    }
}

/// A value that YAML takes for nothing else than what it is.
fn as_yaml(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '.' | '_' | '-' | '/');
    if text.chars().all(is_plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', "''")) }
}
