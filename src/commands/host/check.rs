//! `machine-id host check`.

use std::process::ExitCode;

use serde_json::{Value, json};
use ssh_key::Certificate;

use crate::cli::Format;
use crate::cli::host::Check;
use crate::error::{Error, Kind, Result};
use crate::folder::read::{self, Limit};
use crate::host::check::{self, Finding, Login};
use crate::principal::is_login;
use crate::terminal::print;
use crate::text::{json as inert_json, shown};

/// Says what there is to say, and ends by it.
pub(super) fn run(args: &Check) -> Result<ExitCode> {
    let login = login(args)?;
    let findings = check::run(login.as_ref())?;
    let kind = check::kind(&findings);
    match args.format {
        Format::Text => print(&findings.iter().map(text).collect::<String>())?,
        Format::Json => {
            let all: Vec<Value> = findings.iter().map(object).collect();
            let page = json!({"works": kind.is_none(), "findings": all});
            print(&inert_json(&format!("{page:#}\n")))?;
        }
    }
    Ok(kind.map_or(ExitCode::SUCCESS, |kind| ExitCode::from(kind.code())))
}

fn login(args: &Check) -> Result<Option<Login>> {
    let (Some(user), Some(path)) = (&args.user, &args.certificate) else { return Ok(None) };
    if !is_login(user) {
        return Err(Error::usage(format!("--user: `{}` is no login", shown(user))));
    }
    let cannot = || format!("cannot read {}", path.display());
    let text = read::input(path, Limit::FILE).map_err(|unfit| unfit.error(Kind::Usage, cannot()))?;
    let line = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
    let certificate = Certificate::from_openssh(line.unwrap_or_default()).map_err(|error| {
        Error::usage(format!("it is no certificate of OpenSSH's: {error}"))
            .context(cannot())
            .hint("give the `key-cert.pub` of the job's destination")
    })?;
    Ok(Some(Login { user: user.clone(), certificate }))
}

fn text(finding: &Finding) -> String {
    let hint = finding.hint.iter().map(|hint| format!("  hint: {}\n", shown(hint))).collect::<String>();
    format!("{}: {}: {}\n{hint}", finding.verdict.word(), finding.about, shown(&finding.message))
}

fn object(finding: &Finding) -> Value {
    let Finding { about, verdict, message, hint } = finding;
    json!({"about": about, "verdict": verdict.word(), "message": message, "hint": hint})
}
