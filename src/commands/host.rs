//! `machine-id host …`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use crate::cli::host::{Command, Principals, Refresh, Watch};
use crate::clock::Clock;
use crate::document::parse_duration;
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::host::fetch::RefreshSettings;
use crate::host::lists::{CRL, KRL};
use crate::host::round::Refreshed;
use crate::host::sessions::{self, Backends, Ender};
use crate::host::{heard, labels, principals, refresh, watch};
use crate::net::{AuthorityTrust, authority_url, timeout};
use crate::runtime::block_on;
use crate::terminal::{log, print};

mod check;
mod install;

/// Runs a command of a server.
pub fn run(command: Command, env: &Environment) -> Result<ExitCode> {
    match command {
        Command::Principals(args) => print_principals(&args),
        Command::Refresh(args) => run_refresh(args, env),
        Command::Watch(args) => run_watch(args, env),
        Command::Install(args) => install::install(*args, env),
        Command::Uninstall(args) => install::uninstall(&args),
        Command::Check(args) => return check::run(&args),
    }?;
    Ok(ExitCode::SUCCESS)
}

fn print_principals(args: &Principals) -> Result<()> {
    let texts = args.labels.iter().map(String::as_str);
    let host = labels::read(texts, args.labels_file.iter().map(PathBuf::as_path))?;
    let found = principals::of_certificate(&args.cert_base64, &args.user, &host)
        .map_err(|why| Error::usage(format!("CERT_BASE64 is no user certificate: {why}")))?;
    if let (Some(after), Some(dir)) = (fail_closed(args.fail_closed.as_deref())?, &args.dir) {
        heard::within(dir, after, &Clock::system())?;
    }
    // Before anybody gets in by it, and also where nobody does by what is printed.
    if let Some(folder) = &args.sessions {
        sessions::note(folder, &args.cert_base64, args.every)?;
    }
    print(&found.iter().map(|principal| format!("{principal}\n")).collect::<String>())
}

fn fail_closed(after: Option<&str>) -> Result<Option<Duration>> {
    let seconds = after.map(parse_duration).transpose();
    Ok(seconds.map_err(|why| Error::usage(format!("--fail-closed: {why}")))?.map(Duration::from_secs))
}

fn settings(args: Refresh, env: &Environment) -> Result<RefreshSettings> {
    Ok(RefreshSettings {
        authority: authority_url(&args.authority.unwrap_or_default())?,
        trust: AuthorityTrust { ca_file: args.ca_file, ca_pin: args.ca_pin }
            .or(AuthorityTrust::of_environment(env)),
        statement_key: args.statement_key,
        directory: args.dir,
        host_key: args.host_key,
        timeout: timeout(&args.timeout)?,
    })
}

/// Without an authority it speaks to no network, and ends sessions by the files that another keeps.
fn run_watch(args: Watch, env: &Environment) -> Result<()> {
    let dir = args.refresh.dir.clone();
    let ender = args.sessions.as_deref().map(|notes| Ender::new(notes, &dir.join(KRL)));
    let backends = args.postgres.as_deref().map(|url| Backends::new(url, &dir.join(CRL))).transpose()?;
    let end = async {
        if let Some(ender) = ender {
            sessions::run(ender, backends, log).await;
        }
    };
    if args.refresh.authority.is_none() {
        return block_on(end);
    }
    let settings = watch::WatchSettings {
        refresh: settings(args.refresh, env)?,
        reload: args.reload,
        fail_closed: fail_closed(args.fail_closed.as_deref())?,
    };
    let end = async {
        end.await;
        Ok(())
    };
    block_on(async { tokio::try_join!(watch::run(&settings), end).map(drop) })?
}

/// Prints the path of each file that changed, so that a script knows what to reload.
fn run_refresh(args: Refresh, env: &Environment) -> Result<()> {
    let settings = settings(args, env)?;
    let Refreshed { changed, errors } = block_on(refresh::run(&settings))??;
    // What changed must be said now: the next run finds it as it is.
    print(&changed.iter().map(|path| format!("{}\n", path.display())).collect::<String>())?;
    Error::together(errors).map_or(Ok(()), Err)
}
