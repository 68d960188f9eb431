//! `machine-id inspect`: what a destination, a certificate, a key or a token holds.
//!
//! Never a private key, and never a token whole: of a private key its type
//! and fingerprint, of a token its header and claims without the signature.

use std::io::Read as _;
use std::path::Path;
use std::process::ExitCode;

use crate::cli::Format;
use crate::cli::inspect::Args;
use crate::clock::Clock;
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::terminal::print;
use crate::text::shown;

mod certificates;
mod destinations;
mod files;
mod item;
mod manifest;
mod tokens;

use item::{as_json, in_words};

/// The largest file that is read, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// Shows what stands at the path.
///
/// # Errors
/// `Kind::Usage` where it cannot be read, or holds nothing that is known.
pub fn run(args: Args, _env: &Environment) -> Result<ExitCode> {
    let now = Clock::system().now();
    let items = if args.path != "-" && Path::new(&args.path).is_dir() {
        destinations::inspect(Path::new(&args.path), now)?
    } else {
        let text = read(&args.path)?;
        files::inspect(&text, now).map_err(|why| Error::usage(why).context(named(&args.path)))?
    };
    print(&match args.format {
        Format::Text => in_words(&items),
        Format::Json => as_json(&items),
    })?;
    Ok(ExitCode::SUCCESS)
}

fn named(path: &str) -> String {
    if path == "-" { "cannot inspect stdin".to_owned() } else { format!("cannot inspect {}", shown(path)) }
}

fn read(path: &str) -> Result<zeroize::Zeroizing<String>> {
    let failed = |why: &str| Error::usage(why.to_owned()).context(named(path));
    let mut bytes = zeroize::Zeroizing::new(Vec::new());
    let read = if path == "-" {
        std::io::stdin().lock().take(MAX_BYTES + 1).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
    };
    read.map_err(|error| failed(&error.to_string()))?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > MAX_BYTES) {
        return Err(failed(&format!("it is longer than {MAX_BYTES} bytes")));
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(zeroize::Zeroizing::new(text.to_owned())),
        Err(_) => {
            Err(failed("it is not text").hint("certificates and keys are read as PEM or in OpenSSH's format"))
        }
    }
}

#[cfg(test)]
#[path = "inspect/tests.rs"]
mod tests;
