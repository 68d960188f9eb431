//! `machine-id authority init`: a new data directory.

use std::path::Path;

use crate::authority::{config, keys};
use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::folder::replace::{make_private, write_new};
use crate::folder::{PRIVATE_FILE, trust};
use crate::terminal::print;

pub(super) fn run(dir: &Path, cluster: &str, public_url: &str) -> Result<()> {
    let cluster = config::check_cluster(cluster)
        .map_err(|why| Error::usage(format!("`--cluster` {why}")).hint("for example id.example.com"))?;
    let public_url =
        config::check_public_url(public_url).map_err(|why| Error::usage(format!("`--public-url` {why}")))?;
    let file = dir.join(config::FILE);
    if file.exists() || dir.join("keys").exists() {
        return Err(Error::usage(format!("{} is an authority's data directory already", dir.display()))
            .hint(
                "nothing was changed; choose another --data-dir, or delete that one if its CA keys may go",
            ));
    }
    make_private(dir)?;
    // One that was there may be open to others, and so may be what it stands in.
    trust::operators(dir, trust::Owner::me())
        .map_err(|unfit| unfit.error(Kind::Usage, format!("cannot use {}", dir.display())))?;
    make_private(&dir.join("policy"))?;
    keys::file::create(&dir.join("keys"), &cluster, Clock::system().now())?;
    // The configuration comes last: a directory without one was not finished.
    let text = format!(
        "version: v1\ncluster: '{cluster}'\npublic_url: {public_url}  # the audience that OIDC tokens must carry\n\
         listen: 127.0.0.1:8443\nstore: sqlite:authority.db\nkeys: file:keys\npolicy: policy\n"
    );
    write_new(&file, text.as_bytes(), PRIVATE_FILE)?;
    print(&format!(
        "created {}\n\nput bots, roles and join tokens into {}, then run:\n\n    machine-id authority serve --data-dir {}\n",
        dir.display(),
        dir.join("policy").display(),
        dir.display()
    ))
}
