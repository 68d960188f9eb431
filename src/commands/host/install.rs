//! `machine-id host install` and `host uninstall`.

use serde_json::json;

use crate::cli::Format;
use crate::cli::host::{Install, Uninstall};
use crate::document::parse_duration;
use crate::environment::Environment;
use crate::error::{Context as _, Error, Kind, Result};
use crate::folder::absolute;
use crate::host::install::settings::{Certified, Join, Settings};
use crate::host::install::{self, Done};
use crate::host::machine;
use crate::join;
use crate::net::{AuthorityTrust, authority_url, timeout};
use crate::runtime::block_on;
use crate::terminal::{log, print};
use crate::text::{json as inert_json, shown, which_of};

/// What the units need to know of a proxy.
const PROXIES: [&str; 6] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"];

/// Sets this host up.
pub(super) fn install(args: Install, env: &Environment) -> Result<()> {
    let format = args.format;
    let settings = settings(args, env)?;
    let done = block_on(install::run(&settings))??;
    if done.paths.is_empty() && done.reloaded.is_none() {
        log("nothing to do: everything is in place");
    } else {
        log(
            "this host lets jobs in by their certificates; `machine-id host check` says whether it goes on doing so",
        );
    }
    tell(&done, format)
}

/// Takes it back.
pub(super) fn uninstall(args: &Uninstall) -> Result<()> {
    let done = block_on(install::uninstall::run(&program()?))??;
    if done.paths.is_empty() && done.reloaded.is_none() {
        log("nothing to do: `host install` has written nothing that is here");
    }
    for left in &done.left {
        log(&format!("warning: left as it is: {left}"));
    }
    tell(&done, args.format)
}

fn tell(done: &Done, format: Format) -> Result<()> {
    match format {
        Format::Text => print(&done.paths.iter().map(|path| format!("{path}\n")).collect::<String>()),
        Format::Json => {
            let page = json!({"changed": done.paths, "reloaded": done.reloaded, "left": done.left});
            print(&inert_json(&format!("{page:#}\n")))
        }
    }
}

fn program() -> Result<std::path::PathBuf> {
    std::env::current_exe().context(Kind::Internal, "cannot tell where this program is")
}

fn settings(args: Install, env: &Environment) -> Result<Settings> {
    let certified = match (args.host_certificate, args.token, args.join_method) {
        (Some(path), ..) => Certified::Given(absolute(&path.to_string_lossy())?),
        (None, Some(token), Some(name)) => {
            let method = join::find(&name).ok_or_else(|| {
                Error::usage(format!("there is no join method `{}`", shown(&name)))
                    .hint(which_of(&name, &join::names()))
            })?;
            let secret =
                args.registration_secret_file.map(|path| absolute(&path.to_string_lossy())).transpose()?;
            Certified::Joined(Join { token, method: name, registers: method.registers, secret })
        }
        _ => return Err(Error::usage("neither --host-certificate nor --token is given")),
    };
    let principals = match (&certified, args.principals.is_empty()) {
        (Certified::Given(_), _) => Vec::new(),
        (Certified::Joined(_), false) => args.principals,
        // The one that a job would type.
        (Certified::Joined(_), true) => {
            vec![machine::run("hostname", &["--fqdn"])?.trim().to_ascii_lowercase()]
        }
    };
    let trust =
        AuthorityTrust { ca_file: args.ca_file, ca_pin: args.ca_pin }.or(AuthorityTrust::of_environment(env));
    if let Some(after) = &args.fail_closed {
        parse_duration(after).map_err(|why| Error::usage(format!("--fail-closed: {why}")))?;
    }
    let proxies = PROXIES.iter().filter_map(|name| Some(((*name).to_owned(), env.get(name)?.to_owned())));
    Ok(Settings {
        program: program()?,
        authority: authority_url(&args.authority.unwrap_or_default())?,
        trust,
        statement_key: args.statement_key,
        labels: args.labels.join(","),
        principals,
        certified,
        host_key: args.host_key,
        end_sessions: args.end_sessions,
        timer: args.timer,
        fail_closed: args.fail_closed,
        proxies: proxies.collect(),
        timeout: timeout(&args.timeout)?,
    })
}
