//! The client: proves who this job is, exchanges that for certificates,
//! writes them, and takes them away again.

use std::process::ExitCode;
use std::time::Duration;

use rustix::process::Signal;

use crate::cli::Format;
use crate::destination::manifest::Manifest;
use crate::environment::Environment;
use crate::error::Result;
use crate::net::AuthorityTrust;
use crate::runtime::block_on;
use crate::text::shown;

pub mod command;
pub mod delivery;
pub mod exchange;
pub mod revoke;
pub mod settings;

use crate::terminal::{self, Progress};
use command::signals::{self, Signals};
use command::{Wrapped, runs};
use delivery::{Places, ci};
use exchange::Exchanger;
use exchange::check::Issuance;
use exchange::keys::OutputKeys;
use revoke::{Revocable, revoke_all, revoke_by_manifest};
use settings::Settings;

/// How long revocations may take.
const REVOKE_TIME: Duration = Duration::from_secs(5);

/// Does what the settings say. What can fail without the network comes first,
/// so that nobody is asked for certificates that could not be used.
///
/// # Errors
/// Of every kind; nothing is left of the destination then.
pub fn run(settings: &Settings, env: &Environment, progress: &Progress) -> Result<ExitCode> {
    keep_out_of_core_dumps();
    if let Some(program) = settings.command.first()
        && let Err(not_runnable) = command::find(program, env)
    {
        progress.failure(&not_runnable.why);
        return Ok(ExitCode::from(not_runnable.code));
    }
    let keys: Vec<OutputKeys> = settings
        .outputs()
        .map(|output| OutputKeys::generate(output.kind.declaration.keys, output.given_key()))
        .collect::<Result<_>>()?;
    let exchanger = Exchanger::new(settings, env, progress, &keys)?;
    for note in &settings.notes {
        progress.step(note);
    }
    let _registered = register(settings, env, progress);
    let client = Client { settings, env, progress, keys: &keys, exchanger: &exchanger };
    block_on(client.run())?
}

/// A crash must not write the keys to a disk. COMMAND is not touched by this.
fn keep_out_of_core_dumps() {
    #[cfg(target_os = "linux")]
    {
        let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    }
}

/// Before the destination is there, so that `cleanup` finds it whenever this process is killed.
fn register(settings: &Settings, env: &Environment, progress: &Progress) -> Option<runs::Registered> {
    if settings.command.is_empty() {
        return None;
    }
    let paths: Vec<_> = settings.destinations.iter().map(|destination| destination.path.as_path()).collect();
    let registered = runs::register(env, &paths);
    registered
        .inspect_err(|error| {
            progress.warning(&format!(
                "if this process is killed, `cleanup` will not find its destination: {error}"
            ))
        })
        .ok()
}

struct Client<'a> {
    settings: &'a Settings,
    env: &'a Environment,
    progress: &'a Progress,
    keys: &'a [OutputKeys],
    exchanger: &'a Exchanger<'a>,
}

impl Client<'_> {
    async fn run(&self) -> Result<ExitCode> {
        let wrapped = !self.settings.command.is_empty();
        // Before there is anything that a signal could leave behind.
        let mut signals = Signals::listen(if wrapped { signals::FORWARDED } else { signals::ENDING })?;
        let places = Places::prepare(&self.settings.destinations)?;
        self.progress.group("machine-id: certificates for this job");
        self.progress.step(&format!(
            "proving this job with {} to {}",
            self.settings.method.name, self.settings.authority
        ));
        let issuance = tokio::select! {
            biased;
            signal = ending(&mut signals) => return Ok(self.ended_by(signal)),
            issuance = self.exchanger.exchange() => issuance?,
        };
        let response = &issuance.response;
        let revocable = Revocable::of_answer(&response.issuance_id, &response.outputs, self.keys);
        self.revoke_replaced(&places).await;
        if wrapped {
            return self.run_command(places, &issuance, revocable, &mut signals).await;
        }
        let delivered = self.deliver(places, &issuance, &mut signals).await;
        self.progress.end_group();
        if !matches!(delivered, Ok(None)) {
            // Nothing of it is left here, so nobody can use it.
            self.revoke(revocable).await;
        }
        delivered.map(|ended_by| ended_by.map_or(ExitCode::SUCCESS, |signal| self.ended_by(signal)))
    }

    async fn run_command(
        &self,
        mut places: Places,
        issuance: &Issuance,
        revocable: Option<Revocable>,
        signals: &mut Signals,
    ) -> Result<ExitCode> {
        let manifests = match places.write(self.settings, self.keys, issuance, self.env) {
            Ok(manifests) => manifests,
            Err(error) => {
                drop(places);
                self.revoke(revocable).await;
                return Err(error);
            }
        };
        self.say_result(&manifests);
        self.progress.end_group();
        let report = delivery::report(self.settings, &manifests);
        let (settings, env, progress, keys) = (self.settings, self.env, self.progress, self.keys);
        let wrapped = Wrapped::new(settings, env, progress, self.exchanger, keys, places, revocable);
        Ok(wrapped.run(&report, issuance.expires_at, signals).await)
    }

    /// Writes, tells the CI system, prints; all of it or nothing. Returns the signal that ended it.
    async fn deliver(
        &self,
        mut places: Places,
        issuance: &Issuance,
        signals: &mut Signals,
    ) -> Result<Option<Signal>> {
        let manifests = places.write(self.settings, self.keys, issuance, self.env)?;
        if let Some(signal) = signals.pending().await {
            return Ok(Some(signal));
        }
        ci::tell(&delivery::report(self.settings, &manifests), self.env)?;
        self.say_result(&manifests);
        terminal::print(&printed(self.settings.format, &manifests))?;
        places.keep();
        Ok(None)
    }

    fn say_result(&self, manifests: &[Manifest]) {
        if let Some(manifest) = manifests.first() {
            self.progress.line(&delivery::summary_line(manifest));
        }
        for manifest in manifests {
            self.progress.step(&format!("wrote {}", manifest.destination));
        }
    }

    /// Gives back what is about to be overwritten, while its keys are there to do it with.
    async fn revoke_replaced(&self, places: &Places) {
        for (manifest, revocable) in places.replaced() {
            let said = shown(&manifest.destination);
            self.progress.step(&format!("{said} holds certificates of an earlier run, which are revoked"));
            let typed = (None, AuthorityTrust::default());
            revoke_by_manifest(&revocable, &manifest, typed, self.env, self.progress, REVOKE_TIME).await;
        }
    }

    async fn revoke(&self, revocable: Option<Revocable>) {
        let issued: Vec<_> = revocable.into_iter().collect();
        let (client, authority) = (self.exchanger.client(), &self.settings.authority);
        revoke_all(&issued, client, authority, self.progress, REVOKE_TIME).await;
    }

    fn ended_by(&self, signal: Signal) -> ExitCode {
        self.progress.end_group();
        self.progress.line(&format!("ended by signal {}", signal.as_raw()));
        ExitCode::from(signals::exit_status(signal.as_raw()))
    }
}

/// The next signal that ends an exchange.
async fn ending(signals: &mut Signals) -> Signal {
    loop {
        let signal = signals.next().await;
        if signals::ENDING.contains(&signal) {
            return signal;
        }
    }
}

/// Paths a line, or the manifest; a list where there are several.
fn printed(format: Format, manifests: &[Manifest]) -> String {
    match (format, manifests) {
        (Format::Text, _) => manifests.iter().map(|manifest| format!("{}\n", manifest.destination)).collect(),
        (Format::Json, [manifest]) => manifest.to_json(),
        (Format::Json, _) => format!("{}\n", serde_json::to_string_pretty(manifests).unwrap_or_default()),
    }
}
