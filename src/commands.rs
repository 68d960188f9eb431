//! One file for each command.

use std::process::ExitCode;

use crate::cli::{Cli, Command};
use crate::environment::Environment;
use crate::error::{Error, Result};

pub mod authority;
pub mod cleanup;
pub mod demo;
pub mod generate;
pub mod host;
pub mod inspect;
pub mod once;

/// Becomes the COMMAND of a `once`, which starts this binary again for that.
pub fn become_command(env: &Environment) -> Option<ExitCode> {
    crate::once::command::program::become_command(std::env::args_os().skip(1), env)
}

/// Runs a command.
pub fn run(cli: Cli, env: &Environment) -> Result<ExitCode> {
    if let Some(name) = env.quoted_setting() {
        return Err(Error::usage(format!("the value of {name} stands in quotes, which are part of it"))
            .hint(
                "leave them out: `docker run --env-file` and secret stores take a value as it is written",
            ));
    }
    match cli.command {
        Command::Once(args) => return once::run(*args, env),
        Command::Authority(command) => return authority::run(*command, env),
        Command::Cleanup(args) => cleanup::run(args, env),
        Command::Inspect(args) => inspect::run(&args),
        Command::Host(command) => return host::run(command, env),
        Command::Demo => demo::run(),
        Command::Generate(what) => generate::run(&what),
    }?;
    Ok(ExitCode::SUCCESS)
}
