//! `machine-id authority doctor`: what is wrong with an authority, as seen from where it runs. It changes nothing.

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::authority::config::Config;
use crate::cli::Format;
use crate::cli::authority::Doctor;
use crate::environment::Environment;
use crate::error::{Kind, Result};
use crate::runtime::block_on;
use crate::terminal::print;
use crate::text::{counted, json as inert_json};

mod here;
mod outside;
mod told;

use told::{Told, Verdict};

pub(super) fn run(args: &Doctor, env: &Environment) -> Result<ExitCode> {
    let told = match Config::load(&args.data.data_dir) {
        Ok(config) => look(&config, args, env)?,
        Err(error) => vec![Told::error("configuration", &error)],
    };
    let count = |verdict| told.iter().filter(|one| one.verdict == verdict).count();
    let (findings, unreached) = (count(Verdict::Finding), count(Verdict::Unreached));
    let code = match (findings, unreached) {
        (0, 0) => 0,
        (0, _) => Kind::Unreachable.code(),
        _ => Kind::Usage.code(),
    };
    match args.format {
        Format::Text => {
            let page: String = told.iter().map(Told::text).collect();
            let end = match (findings, unreached) {
                (0, 0) => "sound".to_owned(),
                (findings, 0) => counted(findings, "finding"),
                (findings, unreached) => format!("{}, {unreached} not reached", counted(findings, "finding")),
            };
            print(&format!("{page}{end}\n"))?;
        }
        Format::Json => {
            let all: Vec<Value> = told.iter().map(Told::json).collect();
            print(&inert_json(&format!("{:#}\n", json!({"sound": code == 0, "checks": all}))))?;
        }
    }
    Ok(code.into())
}

/// Looks at all of it.
fn look(config: &Config, args: &Doctor, env: &Environment) -> Result<Vec<Told>> {
    let mut told =
        vec![Told::new("configuration", Verdict::Ok, "it can be read, and nobody else can change it")];
    told.extend(here::keys(config));
    told.extend(here::store(config, env)?);
    let (policy, of_policy) = here::policy(config);
    told.extend(of_policy);
    told.extend(here::certificates(config));
    told.extend(here::disk(config));
    told.push(here::backups(config, args));
    told.extend(block_on(outside::look(config, policy.as_ref()))?);
    Ok(told)
}
