//! `machine-id authority …`. These commands open the data directory; there is
//! no administration over the network.

use std::process::ExitCode;

use crate::cli::authority::{Command, TokenCommand};
use crate::environment::Environment;
use crate::error::Result;

mod answer;
mod audit;
mod check;
mod data_dir;
mod explain;
mod export;
mod init;
mod instances;
mod serve;
mod sign_host;
mod sign_server;
mod token;

/// Runs a command of the operator.
pub fn run(command: Command, env: &Environment) -> Result<ExitCode> {
    match command {
        Command::Check(args) => return check::run(&args, env),
        Command::Init(args) => init::run(&args),
        Command::Serve(args) => serve::run(&args),
        Command::Export(args) => export::run(&args),
        Command::SignHost(args) => sign_host::run(args),
        Command::SignServer(args) => sign_server::run(args),
        Command::Audit(args) => audit::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Token(TokenCommand::Add(args)) => token::add(&args),
        Command::Instances(args) => instances::run(&args),
    }?;
    Ok(ExitCode::SUCCESS)
}
