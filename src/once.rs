//! The client: proves who this job is, exchanges that for certificates,
//! writes them, and takes them away again.

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use crate::cli::Format;
use crate::destination::manifest::Manifest;
use crate::environment::Environment;
use crate::error::Result;
use crate::join;
use crate::net::{self, AuthorityTrust};
use crate::runtime::block_on;
use crate::suite::{KeyType, Suite};
use crate::text::{json, shown};

pub(crate) mod command;
mod delivery;
pub mod exchange;
pub mod revoke;
mod run;
pub(crate) mod runs;
pub(crate) mod settings;

use crate::terminal::{self, Progress};
use command::WrappedCommand;
use command::program;
use command::signals::{self, Signals, Told};
use delivery::{OpenDestinations, ci};
use exchange::authority::OtherSuite;
use exchange::keys::JobKeys;
use exchange::{Exchanger, Obtained};
use revoke::{Own, REVOKE_TIME, revoke_own};
use run::Run;
use runs::RegisteredRun;
use settings::Settings;
use settings::destinations::Asked;
use settings::output::Output;

/// Does what the settings say. What can fail without the network comes first,
/// so that nobody is asked for certificates that could not be used.
///
/// # Errors
/// Of every kind; nothing is left of the destination then.
pub(crate) fn execute(settings: &Settings, env: &Environment, progress: &Progress) -> Result<ExitCode> {
    if let Some(program) = settings.command.first()
        && let Err(error) = program::find(program, env)
    {
        return Ok(ExitCode::from(program::not_runnable(program, &error, progress)));
    }
    let suite = Suite::default();
    let keys = make_keys(settings, settings.key_type.unwrap_or(suite.key_type()))?;
    // Each suite has the same keys of TLS.
    let is_open = settings.key_type.is_none() && keys.iter().any(JobKeys::has_own_ssh);
    let client = net::authority_client(&settings.trust, &settings.authority, settings.timeout)?;
    let run = Run { settings, env, progress, keys: &keys, suite: is_open.then_some(suite), client: &client };
    for note in &settings.notes {
        progress.line(note);
    }
    let _registered = register(run);
    block_on(exchange_and_deliver(run))?
}

fn make_keys(settings: &Settings, key_type: KeyType) -> Result<Vec<JobKeys>> {
    let keys = |output: &Output| {
        let keys =
            JobKeys::generate(&output.name, output.kind.declaration.keys, key_type, output.given_key())?;
        Ok(JobKeys { jwt: output.jwt(), ..keys })
    };
    settings.outputs().map(keys).collect()
}

/// Before the destination is there, so that `cleanup` finds it whenever this process is killed.
fn register(Run { settings, env, progress, .. }: Run<'_>) -> Option<RegisteredRun> {
    if settings.command.is_empty() {
        return None;
    }
    let registered = runs::register(env, &paths(settings), join::job(env));
    registered
        .inspect_err(|error| {
            progress.warning(&format!(
                "if this process is killed, `cleanup` will not find its destination: {error}"
            ))
        })
        .ok()
}

fn paths(settings: &Settings) -> Vec<&Path> {
    settings.destinations.iter().map(|destination| destination.path.as_path()).collect()
}

async fn exchange_and_deliver(run: Run<'_>) -> Result<ExitCode> {
    let Run { settings, progress, .. } = run;
    let deadline = Instant::now() + settings.timeout;
    let wrapped = !settings.command.is_empty();
    // Before there is anything that a signal could leave behind.
    let mut signals = Signals::listen(if wrapped { signals::FORWARDED } else { signals::ENDING })?;
    let destinations = OpenDestinations::prepare(&settings.destinations)?;
    progress.group("machine-id: certificates for this job");
    progress.step(&format!("proving this job with {} to {}", settings.method.name, settings.authority));
    let exchanger = Exchanger::new(run);
    let exchanged = tokio::select! {
        biased;
        told = ending(&mut signals) => return Ok(ended(told, progress)),
        exchanged = exchanger.exchange(deadline) => exchanged,
    };
    let other = exchanged.as_ref().err().and_then(|error| error.cause::<OtherSuite>());
    let Some(OtherSuite(suite)) = other else {
        return deliver_all(run, (&exchanger, exchanged?), destinations, signals).await;
    };
    progress.step(&format!("making keys of the authority's suite `{}`", suite.name()));
    let keys = make_keys(settings, suite.key_type())?;
    let run = Run { keys: &keys, suite: None, ..run };
    let exchanger = Exchanger::new(run);
    let obtained = tokio::select! {
        biased;
        told = ending(&mut signals) => return Ok(ended(told, progress)),
        obtained = exchanger.exchange(deadline) => obtained?,
    };
    deliver_all(run, (&exchanger, obtained), destinations, signals).await
}

/// Writes what was issued, and what is to be done with it.
async fn deliver_all(
    run: Run<'_>,
    (exchanger, mut obtained): (&Exchanger<'_>, Obtained),
    mut destinations: OpenDestinations,
    mut signals: Signals,
) -> Result<ExitCode> {
    let Run { settings, progress, .. } = run;
    let wrapped = !settings.command.is_empty();
    let own = Own::of(&obtained, run.keys);
    if let Some(error) = obtained.failure(settings.require_all) {
        // As when nothing is obtained at all, what is there of an earlier run stays.
        drop(destinations);
        revoke_own(&own, run).await;
        return Err(error);
    }
    revoke_replaced(run, &destinations).await;
    let written = destinations.write(run, &obtained);
    if written.is_ok() {
        runs::forget_replaced(run.env, &paths(settings));
    }
    let delivered = match written {
        Ok(manifests) if wrapped => {
            say_result(run, &manifests);
            progress.end_group();
            let command = WrappedCommand::new(run, exchanger, destinations, (obtained, own));
            let report = delivery::report(settings, &manifests);
            return Ok(command.run(&report, &mut signals).await);
        }
        Ok(manifests) => deliver(run, destinations, &manifests, &mut signals).await,
        Err(error) => {
            drop(destinations);
            Err(error)
        }
    };
    progress.end_group();
    if !matches!(delivered, Ok(None)) {
        // Nothing of it is left here, so nobody can use it.
        revoke_own(&own, run).await;
    }
    delivered.map(|told| told.map_or(ExitCode::SUCCESS, |told| ended(told, progress)))
}

/// Tells the CI system and prints; all of it or nothing. Returns what ended it.
async fn deliver(
    run: Run<'_>,
    destinations: OpenDestinations,
    manifests: &[Manifest],
    signals: &mut Signals,
) -> Result<Option<Told>> {
    if let Some(told) = signals.pending().await {
        return Ok(Some(told));
    }
    let told = ci::tell(&delivery::report(run.settings, manifests), run.env, run.progress)?;
    say_result(run, manifests);
    terminal::print(&printed(run.settings.format, manifests)).inspect_err(|_| told.take_back())?;
    destinations.keep();
    Ok(None)
}

fn say_result(run: Run<'_>, manifests: &[Manifest]) {
    if let Some(manifest) = manifests.first() {
        run.progress.line(&delivery::summary_line(manifest));
    }
    for manifest in manifests {
        run.progress.step(&format!("wrote {}", manifest.destination));
    }
}

/// Gives back what is about to be overwritten, while its keys are there to do it with.
async fn revoke_replaced(Run { settings, env, progress, .. }: Run<'_>, destinations: &OpenDestinations) {
    let asked = Asked { authority: &settings.authority, token: &settings.token, wrapped: false };
    for (manifest, stored) in destinations.replaced() {
        let text = format!(
            "{} holds certificates of an earlier run, which are replaced and revoked",
            shown(&manifest.destination)
        );
        let is_renewed = settings.destinations.iter().any(|destination| {
            destination.path == Path::new(&manifest.destination)
                && asked.renews(&manifest, &destination.outputs.iter().collect::<Vec<_>>())
        });
        // Somebody may still want the others.
        if manifest.is_live() && !is_renewed {
            progress.warning(&text)
        } else {
            progress.line(&text)
        }
        let typed = (None, AuthorityTrust::default());
        stored.revoke(typed, env, progress, REVOKE_TIME).await;
    }
}

fn ended(told: Told, progress: &Progress) -> ExitCode {
    progress.end_group();
    progress.line(&format!("ended {told}"));
    ExitCode::from(signals::exit_status(told.signal().as_raw()))
}

/// What ends an exchange.
async fn ending(signals: &mut Signals) -> Told {
    loop {
        let told = signals.next().await;
        if signals::ENDING.contains(&told.signal()) {
            return told;
        }
    }
}

/// Paths a line, or the manifest; a list where there are several.
fn printed(format: Format, manifests: &[Manifest]) -> String {
    match (format, manifests) {
        (Format::Text, _) => manifests.iter().map(|manifest| format!("{}\n", manifest.destination)).collect(),
        (Format::Json, [manifest]) => json(&manifest.to_json()),
        (Format::Json, _) => {
            json(&format!("{}\n", serde_json::to_string_pretty(manifests).unwrap_or_default()))
        }
    }
}
