//! `machine-id authority import`: what another CA has certified.

use std::path::Path;

use super::data_dir::read_input;
use crate::authority::ca::CaKind;
use crate::authority::config::Config;
use crate::authority::keys::{Cross, TlsCaCertificate};
use crate::authority::store::engine;
use crate::clock::{Clock, rfc3339};
use crate::error::{Context as _, Error, Kind, Result};
use crate::folder::Folder;
use crate::runtime::block_on;
use crate::terminal::log;

/// Puts certificates of the TLS CA up to another's root in their place, where they are what they should be. The CA's key is not
/// asked for.
pub(super) fn run(data_dir: &Path, chain: &Path) -> Result<()> {
    let config = Config::load(data_dir)?;
    let text = read_input(chain)?;
    let path = config.ca_certificate();
    let ca = TlsCaCertificate::find(&path, config.owner)?
        .ok_or_else(|| Error::usage(format!("{} is missing", path.display())))?;
    let unfit = |why: String| {
        Error::usage(format!("{} {why}", chain.display()))
            .hint("nothing was changed; docs/keys.md says what belongs into it, and in which order")
    };
    // Of a later CA, where the chain is that one's.
    let now = Clock::system().now();
    let set = block_on(async { engine::open(&config.store, &config.store_key(), now).await?.cas().await })??;
    let mut later = set.of(CaKind::Tls).filter(|row| row.state.is_trusted()).filter_map(|row| {
        let known = TlsCaCertificate::parse(&row.public).ok()?;
        known.is_in(&text).then_some((known, row.name.as_str()))
    });
    let first = CaKind::Tls.name();
    // Of one that has taken the first's place, those read it there who ask no store.
    let is_in_its_place = ca.is_in(&text);
    let (ca, name) = later.next().unwrap_or((ca, first));
    let cross = ca.cross(&text, &config.public_host()).map_err(unfit)?;
    if let Some(why) = cross.validity.fault(now) {
        return Err(unfit(format!("has a certificate that {why}"))
            .hint(format!("this machine's clock says {}", rfc3339(now))));
    }
    let folder = path.parent().unwrap_or(data_dir);
    let also = (is_in_its_place && name != first).then(|| Cross::path(&path, first));
    let path = Cross::path(&path, name);
    for path in also.iter().chain([&path]) {
        let file = path.file_name().and_then(|file| file.to_str()).unwrap_or_default();
        Folder::replace_inside(folder, file, cross.pem.as_bytes())
            .context(Kind::Usage, format!("cannot write {}", path.display()))?;
    }
    log(&format!(
        "imported: whoever trusts `{}` alone believes the servers that are certified from now on",
        cross.root
    ));
    if cross.validity.until < ca.validity.until {
        log(&format!(
            "note: nothing is signed beyond {}, when a certificate of these ends",
            rfc3339(cross.validity.until)
        ));
    }
    log(&format!(
        "next: restart `serve`; copy {} to the other authorities of the store; sign servers anew by `sign-server`",
        path.display()
    ));
    Ok(())
}
