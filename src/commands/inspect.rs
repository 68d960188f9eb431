//! `machine-id inspect`: what a destination, a certificate, a key or a token holds.
//!
//! Never a private key, and never a token whole: of a private key its type
//! and fingerprint, of a token its header and claims without the signature.

use std::path::Path;

use crate::cli::Format;
use crate::cli::inspect::Args;
use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::folder::Unfit;
use crate::folder::read::{self, Limit};
use crate::krl;
use crate::terminal::print;
use crate::text::shown;

mod certificates;
mod destinations;
mod files;
mod item;
mod manifest;
mod tokens;

use item::{as_json, in_words};

/// Shows what stands at the path.
///
/// # Errors
/// `Kind::Usage` where it cannot be read, or holds nothing that is known.
pub fn run(args: &Args) -> Result<()> {
    let now = Clock::system().now();
    let items = if args.path != "-" && Path::new(&args.path).is_dir() {
        destinations::inspect(Path::new(&args.path), now)?
    } else {
        let unfit = |unfit: Unfit| unfit.error(Kind::Usage, named(&args.path));
        let bytes = read::input_raw(Path::new(&args.path), Limit::FILE).map_err(unfit)?;
        match krl::read(&bytes) {
            Ok(list) => vec![files::revoked(&list, now)],
            Err(_) => files::inspect(&read::utf8(bytes).map_err(unfit)?, now)
                .map_err(|why| Error::usage(why).context(named(&args.path)))?,
        }
    };
    print(&match args.format {
        Format::Text => in_words(&items),
        Format::Json => as_json(&items),
    })
}

fn named(path: &str) -> String {
    if path == "-" { "cannot inspect stdin".to_owned() } else { format!("cannot inspect {}", shown(path)) }
}

#[cfg(test)]
#[path = "inspect/tests.rs"]
mod tests;
