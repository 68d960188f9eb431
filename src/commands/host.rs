//! `machine-id host …`.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::cli::host::{Command, Principals, Refresh};
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::host::{labels, principals, refresh};
use crate::net::AuthorityTrust;
use crate::once::block_on;
use crate::once::settings::{authority_url, timeout};

/// Does what was typed.
///
/// # Errors
/// Of the kinds in `docs/exit-codes.md`.
pub fn run(command: Command, env: &Environment) -> Result<ExitCode> {
    match command {
        Command::Principals(args) => print_principals(&args),
        Command::Refresh(args) => run_refresh(args, env),
    }
}

fn print_principals(args: &Principals) -> Result<ExitCode> {
    let texts = args.labels.iter().map(String::as_str);
    let host = labels::read(texts, args.labels_file.iter().map(PathBuf::as_path)).map_err(Error::usage)?;
    let found = principals::of_certificate(&args.cert_base64, &args.user, &host)
        .map_err(|why| Error::usage(format!("CERT_BASE64 is no user certificate: {why}")))?;
    super::print(&found.iter().map(|principal| format!("{principal}\n")).collect::<String>())?;
    Ok(ExitCode::SUCCESS)
}

/// Prints the path of each file that changed, so that a script knows what to reload.
fn run_refresh(args: Refresh, env: &Environment) -> Result<ExitCode> {
    let settings = refresh::Settings {
        authority: authority_url(&args.authority)?,
        trust: trust(args.ca_file, args.ca_pin, env),
        directory: args.dir,
        timeout: timeout(&args.timeout)?,
    };
    let refresh::Refreshed { changed, trouble } = block_on(refresh::run(&settings))??;
    // What changed must be said now: the next run finds it as it is.
    super::print(&changed.iter().map(|path| format!("{}\n", path.display())).collect::<String>())?;
    trouble.map_or(Ok(ExitCode::SUCCESS), Err)
}

/// What was typed, or else the environment.
fn trust(ca_file: Option<PathBuf>, ca_pin: Option<String>, env: &Environment) -> AuthorityTrust {
    if ca_file.is_some() || ca_pin.is_some() {
        return AuthorityTrust { ca_file, ca_pin };
    }
    AuthorityTrust {
        ca_file: env.get("MACHINE_ID_CA_FILE").map(PathBuf::from),
        ca_pin: env.get("MACHINE_ID_CA_PIN").map(str::to_owned),
    }
}
