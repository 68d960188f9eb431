//! `machine-id authority explain`: the whole story of one refusal. It tells the
//! rules, so it is for whoever may read the data directory.

use std::path::Path;

use serde_json::{Map, Value};

use super::answer;
use super::data_dir::read_store;
use crate::authority::config;
use crate::authority::policy::PolicyRequest;
use crate::authority::store::{Cursor, EventFilter};
use crate::denial::REASONS;
use crate::error::{Error, Result};
use crate::output;
use crate::runtime::block_on;
use crate::terminal::print;
use crate::text::{shown, shown_exactly, shown_long};

/// Prints why the job was refused, and its claims.
pub(super) fn run(data_dir: &Path, id: &str) -> Result<()> {
    let config = config::Config::load(data_dir)?;
    let store = read_store(&config)?;
    let filter =
        EventFilter { id: Some(id.to_owned()), event: Some("refused".to_owned()), ..EventFilter::default() };
    let events = block_on(store.events(filter, Cursor::default(), 1))??;
    let Some(event) = events.first() else {
        return Err(Error::usage(format!("there is no refusal `{}`", shown(id)))
            .hint("a refused job prints its denial id, d- and 32 digits; `authority audit --event refused` lists them")
            .hint("of jobs that no rule let in, the latest refusals alone are kept"));
    };
    let text = |name: &str| event.body.get(name).and_then(Value::as_str).unwrap_or_default();
    let code = text("reason");
    let told = REASONS.iter().find(|row| row.code == code).map_or("", |row| row.told);
    let (id, time, peer) = (shown(text("denial_id")), text("time"), text("peer"));
    let mut page = match event.body.get("token") {
        Some(_) => format!(
            "{id} at {time}\nreason: {code} (the job was told: {told})\njoin token: {}, join method: {}, from {peer}\n",
            shown_exactly(text("token")),
            shown_exactly(text("join_method")),
        ),
        // Of a revocation.
        None => format!("{id} at {time}\nreason: {code}, from {peer}\n"),
    };
    // The story is one line for each thing that was got and wanted.
    for part in text("detail").lines() {
        page.push_str(&format!("  {}\n", shown_long(part)));
    }
    if let Some(Value::Object(claims)) = event.body.get("claims") {
        page.push_str(&format!(
            "with the policy as it is now, {}\n",
            today(&config, text("token"), text("join_method"), claims)
        ));
        let verified = event.body.get("verified") == Some(&Value::Bool(true));
        page.push_str(if verified { "claims, verified:\n" } else { "claims, NOT verified:\n" });
        for (name, value) in claims {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            page.push_str(&format!("  {}: {}\n", shown_exactly(name), shown_exactly(&value)));
        }
        if let Some(left_out) = event.body.get("claims_left_out") {
            page.push_str(&format!("  {left_out} more, which were too long to keep\n"));
        }
    }
    print(&page)
}

/// What today's policy makes of the same claims; about the rules, since what
/// the job asked for is not recorded.
fn today(config: &config::Config, token: &str, method: &str, claims: &Map<String, Value>) -> String {
    let policy = match config.load_policy() {
        Ok(policy) => policy,
        Err(error) => return format!("nothing can be said: it does not load: {error}"),
    };
    let Some(token) = policy.token(token) else {
        return "such a job is denied: token_unknown: there is no join token of that name".to_owned();
    };
    if token.method.name != method {
        return format!("such a job is denied: method_mismatch: the join token is for {}", token.method.name);
    }
    let Ok(identity) = answer::output(output::IDENTITY.name, &[]) else {
        return String::new();
    };
    let asked = PolicyRequest { outputs: &[identity], leaves: &[], ttl_seconds: 3600, public_url: None };
    let answer = answer::judge(&policy, token, claims.clone(), &asked);
    format!("such a job with a good proof is {}", answer.line())
}
