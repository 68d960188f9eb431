//! One file for each command; here is what they share: where output goes.

use std::io::Write as _;
use std::process::ExitCode;

use crate::cli::{Cli, Command};
use crate::environment::Environment;
use crate::error::{Error, Result};
pub use crate::terminal::print;

pub mod authority;
pub mod cleanup;
pub mod demo;
pub mod generate;
pub mod host;
pub mod inspect;
pub mod once;

/// Runs a command.
///
/// # Errors
/// Whatever ended it.
pub fn run(cli: Cli, env: &Environment) -> Result<ExitCode> {
    match cli.command {
        Command::Once(args) => once::run(args, env),
        Command::Cleanup(args) => cleanup::run(args, env),
        Command::Inspect(args) => inspect::run(args, env),
        Command::Authority(command) => authority::run(command, env),
        Command::Host(command) => host::run(command, env),
        Command::Demo => demo::run(),
        Command::Generate(what) => generate::run(&what),
    }
}

/// Prints an error on stderr: what failed and why, then hints; on GitHub an
/// annotation as well.
pub fn report(error: &Error, env: &Environment) {
    let mut text = format!("error: {error}\n");
    for hint in error.hints() {
        text.push_str(&format!("hint: {}\n", hint.replace('\n', "\n      ")));
    }
    if env.is_true("GITHUB_ACTIONS") {
        let told = std::iter::once(error.to_string()).chain(error.hints().iter().cloned());
        let told = told.collect::<Vec<_>>().join("\n");
        // As the runner wants it; a message cannot start a command of its own.
        let escaped = told.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
        text.push_str(&format!("::error title=machine-id::{escaped}\n"));
    }
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}
