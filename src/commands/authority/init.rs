//! `machine-id authority init`: a new data directory.

use std::path::Path;

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

pub(super) fn run(dir: &Path, cluster: &str, public_url: &str) -> Result<()> {
    let cluster = config::check_cluster(cluster)
        .map_err(|why| Error::usage(format!("`--cluster` {why}")).hint("for example id.example.com"))?;
    let public_url =
        config::check_public_url(public_url).map_err(|why| Error::usage(format!("`--public-url` {why}")))?;
    if dir.join(config::FILE).exists() {
        return Err(Error::usage(format!("{} is an authority's data directory already", dir.display()))
            .hint(
                "nothing was changed; choose another --data-dir, or delete that one if its CA keys may go",
            ));
    }
    config::unfinished(dir).map_or(Ok(()), Err)?;
    let cannot = || format!("cannot use {}", dir.display());
    let aside = Aside::of(dir).map_err(|unfit| unfit.error(Kind::Usage, cannot()))?;
    let at = |name| aside.path().join(name);
    make_private(&at(POLICY))?;
    keys::file::create(&at(config::KEYS), &cluster, Clock::system().now())?;
    Sqlite::create(&at(config::STORE), &StoreKey::new(aside.path(), Owner::me(), &cluster))?;
    let text = format!(
        "version: v1\ncluster: '{cluster}'\npublic_url: {public_url}  # the audience that OIDC tokens must carry\n\
         listen: 127.0.0.1:8443\nstore: sqlite:{}\nkeys: file:{}\npolicy: {POLICY}\n",
        config::STORE,
        config::KEYS
    );
    write_new(&at(config::FILE), text.as_bytes(), PRIVATE_FILE)?;
    // Where the directory itself is there, keys are first: of two at once, only one can put them there. The
    // configuration is last: a directory without one is not finished.
    let mark = format!("{}{MARK}", config::STORE);
    aside
        .put(&[config::KEYS, STORE_KEY, &mark, config::STORE, POLICY, config::FILE], POLICY)
        .context(Kind::Usage, cannot())?;
    print(&format!(
        "created {}\n\nput bots, roles and join tokens into {}, then run:\n\n    machine-id authority serve --data-dir {}\n",
        dir.display(),
        dir.join(POLICY).display(),
        dir.display()
    ))
}
