//! `machine-id authority check`: what is wrong with a policy, what is seldom
//! meant, whether a job would get in, and what is to be said of certificates. Of
//! the network only a database is asked that a data directory names as its store, and never the CA keys.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::answer;
use crate::authority::config::Config;
use crate::authority::host_ends::HostEnds;
use crate::authority::policy::{Finding, Policy, Report};
use crate::authority::policy_files::PolicyFiles;
use crate::authority::revocation::{alarm_of, ending_of};
use crate::authority::store::engine;
use crate::authority::tls::{self, CertificateWarning};
use crate::authority::validity::Ending;
use crate::cli::Format;
use crate::cli::authority::Check;
use crate::clock::Clock;
use crate::environment::Environment;
use crate::error::{Error, Kind, Result};
use crate::folder::read::Trust;
use crate::runtime::block_on;
use crate::terminal::{self, print};
use crate::text::{counted, json as inert_json};

pub(super) fn run(args: &Check, env: &Environment) -> Result<ExitCode> {
    let config = args.data_dir.as_deref().map(Config::load).transpose()?;
    let mut sources = Vec::new();
    let (paths, trust) = paths(args, config.as_ref());
    for path in paths {
        sources.extend(PolicyFiles::new(path, trust).sources()?);
    }
    let policy = match Policy::parse(&sources) {
        Ok(policy) => policy,
        Err(mistakes) => return refuse(args, &mistakes, env),
    };
    let mistakes_at = |config: &Config| policy.mistakes_at(&config.cluster, &config.public_url);
    let mistakes = config.as_ref().map(mistakes_at).unwrap_or_default();
    if !mistakes.is_empty() {
        return refuse(args, &mistakes, env);
    }
    if let Some(file) = &args.claims {
        let public_url = config.as_ref().map(|config| config.public_url.as_str());
        let answer = answer::ask(&policy, file, args, public_url)?;
        match args.format {
            Format::Text => print(&answer.text())?,
            Format::Json => print_json(&json!({"valid": true, "mistakes": [], "answer": answer.json()}))?,
        }
        return Ok(if answer.is_allowed() { ExitCode::SUCCESS } else { Kind::Refused.code().into() });
    }
    let report = policy.lint();
    let store = config.as_ref().map(|config| store(config, env)).transpose()?.unwrap_or_default();
    let now = Clock::system().now();
    let (certificates, endings) = config.map(|config| ends(&config, now)).transpose()?.unwrap_or_default();
    match args.format {
        Format::Text => print(&text(&policy, &report, &store, &certificates, &endings))?,
        Format::Json => print_json(&json!({
            "valid": true,
            "mistakes": [],
            "policy": policy.summary(),
            "lints": report.findings.iter().map(finding_json).collect::<Vec<_>>(),
            "silenced": report.silenced,
            "store": store.iter().map(StoreWarning::json).collect::<Vec<_>>(),
            "certificates": certificates.iter().map(warning_json).collect::<Vec<_>>(),
            "expires": endings.iter().map(|one| one.json(now)).collect::<Vec<_>>(),
        }))?,
    }
    let is_fault =
        certificates.iter().any(|warning| warning.is_fault) || store.iter().any(|warning| warning.is_fault);
    Ok(if is_fault || args.deny_lints && !report.findings.is_empty() {
        Kind::Usage.code().into()
    } else {
        ExitCode::SUCCESS
    })
}

/// What is to be said of a store.
struct StoreWarning {
    message: String,
    hints: Vec<String>,
    /// Whether it cannot be served.
    is_fault: bool,
}

impl StoreWarning {
    fn json(&self) -> Value {
        json!({"message": self.message, "hint": self.hints.join("; "), "fault": self.is_fault})
    }
}

/// Whether it can be served, and how it keeps what it holds. A database that is away may be back when it is served.
fn store(config: &Config, env: &Environment) -> Result<Vec<StoreWarning>> {
    let (mut kept, error) = match block_on(engine::check(&config.store, &config.store_key()))? {
        Ok(kept) => (kept, None),
        Err(error) => (Vec::new(), Some(error)),
    };
    // Who may only read a database is not told.
    let count = block_on(engine::revoked_count(&config.store, &config.store_key(), Clock::system().now()))?;
    kept.extend(count.ok().and_then(alarm_of));
    let error = error.map(|error| StoreWarning {
        message: error.to_string(),
        hints: error.hints().to_vec(),
        is_fault: error.kind() != Kind::Unreachable,
    });
    let warning =
        |(message, hint): (_, &str)| StoreWarning { message, hints: vec![hint.to_owned()], is_fault: false };
    Ok(error
        .into_iter()
        .chain(
            config.store_warnings(env)?.into_iter().chain(config.retain_warning()).chain(kept).map(warning),
        )
        .collect())
}

/// What ends, and what is to be said of it: of the files, and of what the store knows, where that can be read. Who may only read
/// the trail of a database is not told of certificates.
fn ends(config: &Config, now: i64) -> Result<(Vec<CertificateWarning>, Vec<Ending>)> {
    let look = async {
        let trail = engine::read(&config.store, &config.store_key()).await?;
        let cas = trail.tls_cas().await?;
        Ok::<_, Error>((cas, HostEnds::look(trail.as_ref(), now).await?, trail.last_list().await?))
    };
    let found = block_on(look)?;
    let cas = found.as_ref().map(|(cas, ..)| cas.as_slice()).unwrap_or_default();
    let (mut warnings, mut endings) = tls::check(config, now, cas)?;
    if let Ok((_, hosts, list)) = found {
        let list = list.map(ending_of);
        warnings.extend(tls::store_warnings(&hosts, list.as_ref(), now));
        endings.extend(list.into_iter().chain(hosts.named(now).0));
    }
    Ok((warnings, endings))
}

/// What to check: the arguments, or what the data directory names. Its
/// configuration is read in any case, for the mistakes in it. Who can write to
/// the arguments matters only where they are served, not in a job that checks them.
fn paths(args: &Check, config: Option<&Config>) -> (Vec<PathBuf>, Trust) {
    match config {
        Some(config) if args.policy.is_empty() => {
            (vec![config.policy.clone()], Trust::Operators(config.owner))
        }
        _ => (args.policy.clone(), Trust::Anyone),
    }
}

/// Tells every mistake, each with what to do about it.
fn refuse(args: &Check, mistakes: &[Error], env: &Environment) -> Result<ExitCode> {
    match args.format {
        Format::Text => mistakes.iter().for_each(|mistake| terminal::report(mistake, env)),
        Format::Json => {
            let one = |mistake: &Error| json!({"message": mistake.to_string(), "hints": mistake.hints()});
            print_json(&json!({"valid": false, "mistakes": mistakes.iter().map(one).collect::<Vec<_>>()}))?;
        }
    }
    Ok(Kind::Usage.code().into())
}

fn text(
    policy: &Policy,
    report: &Report,
    store: &[StoreWarning],
    certificates: &[CertificateWarning],
    endings: &[Ending],
) -> String {
    let mut page = String::new();
    let what = |is_fault| if is_fault { "error" } else { "warning" };
    for StoreWarning { message, hints, is_fault } in store {
        page.push_str(&format!("{}: {message}\n", what(*is_fault)));
        hints.iter().for_each(|hint| page.push_str(&format!("  hint: {hint}\n")));
    }
    for one in certificates {
        page.push_str(&format!("{}: {}\n  hint: {}\n", what(one.is_fault), one.told(), one.hint));
    }
    for Finding { lint, origin, message, hint } in &report.findings {
        page.push_str(&format!("{origin}: warning: {message} [{lint}]\n  hint: {hint}\n"));
    }
    page.push_str(&format!("policy: {}\n", policy.summary()));
    let silenced = match report.silenced {
        0 => String::new(),
        silenced => format!(", {silenced} silenced"),
    };
    page.push_str(&format!("lints: {}{silenced}\n", counted(report.findings.len(), "warning")));
    if !report.findings.is_empty() {
        page.push_str(
            "docs/lints.md explains each; `metadata: {allow_lints: [NAME]}` silences one where it is meant\n",
        );
    }
    endings.iter().for_each(|one| page.push_str(&format!("{}\n", one.line(Clock::system().now()))));
    page
}

fn finding_json(finding: &Finding) -> Value {
    json!({
        "lint": finding.lint,
        "file": &*finding.origin.file,
        "line": finding.origin.place.line,
        "column": finding.origin.place.column,
        "message": finding.message,
        "hint": finding.hint,
    })
}

fn warning_json(warning: &CertificateWarning) -> Value {
    json!({"message": warning.told(), "hint": warning.hint, "fault": warning.is_fault})
}

fn print_json(value: &Value) -> Result<()> {
    print(&inert_json(&format!("{value:#}\n")))
}
