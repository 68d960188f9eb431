//! `machine-id host …`.

use std::path::PathBuf;

use crate::cli::host::{Command, Principals, Refresh, Watch};
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::host::lists::{CRL, KRL};
use crate::host::sessions::{self, Backends, Ender};
use crate::host::{labels, principals, refresh};
use crate::net::{AuthorityTrust, authority_url, timeout};
use crate::runtime::block_on;
use crate::terminal::{log, print};

/// Runs a command of a server.
pub fn run(command: Command, env: &Environment) -> Result<()> {
    match command {
        Command::Principals(args) => print_principals(&args),
        Command::Refresh(args) => run_refresh(args, env),
        Command::Watch(args) => watch(&args),
    }
}

fn print_principals(args: &Principals) -> Result<()> {
    let texts = args.labels.iter().map(String::as_str);
    let host = labels::read(texts, args.labels_file.iter().map(PathBuf::as_path))?;
    let found = principals::of_certificate(&args.cert_base64, &args.user, &host)
        .map_err(|why| Error::usage(format!("CERT_BASE64 is no user certificate: {why}")))?;
    // Before anybody gets in by it, and also where nobody does by what is printed.
    if let Some(folder) = &args.sessions {
        sessions::note(folder, &args.cert_base64, args.every)?;
    }
    print(&found.iter().map(|principal| format!("{principal}\n")).collect::<String>())
}

/// Prints the path of each file that changed, so that a script knows what to reload.
fn run_refresh(args: Refresh, env: &Environment) -> Result<()> {
    let settings = refresh::RefreshSettings {
        authority: authority_url(&args.authority)?,
        trust: AuthorityTrust { ca_file: args.ca_file, ca_pin: args.ca_pin }
            .or(AuthorityTrust::of_environment(env)),
        directory: args.dir,
        timeout: timeout(&args.timeout)?,
    };
    let refresh::Refreshed { changed, errors } = block_on(refresh::run(&settings))??;
    // What changed must be said now: the next run finds it as it is.
    print(&changed.iter().map(|path| format!("{}\n", path.display())).collect::<String>())?;
    Error::together(errors).map_or(Ok(()), Err)
}

fn watch(args: &Watch) -> Result<()> {
    let ender = Ender::new(&args.sessions, &args.dir.join(KRL));
    let backends = args.postgres.as_deref().map(|url| Backends::new(url, &args.dir.join(CRL))).transpose()?;
    block_on(sessions::run(ender, backends, log))
}
