//! `machine-id authority …`. These commands open the data directory; there is
//! no administration over the network.

use std::process::ExitCode;

use crate::cli::authority::{Command, Lock, PolicyCommand, RevokeHost, TokenCommand, Whom};
use crate::environment::Environment;
use crate::error::Result;

mod answer;
mod audit;
mod check;
mod data_dir;
mod doctor;
mod example;
mod explain;
mod export;
mod hosts;
mod import;
mod init;
mod instances;
mod lock;
mod migrate;
mod new_store;
mod policy_add;
mod prune;
mod resume;
mod rotate;
mod serve;
mod sign_host;
mod sign_server;
mod token;
mod upgrade;

/// Runs a command of the operator.
pub fn run(command: Command, env: &Environment) -> Result<ExitCode> {
    match command {
        Command::Check(args) => return check::run(&args, env),
        Command::Doctor(args) => return doctor::run(&args, env),
        Command::Init(args) => init::run(&args),
        Command::Policy(PolicyCommand::Add(args)) => policy_add::run(&args),
        Command::NewStore(data) => new_store::run(&data.data_dir),
        Command::Migrate(args) => migrate::run(&args),
        Command::Prune { data, store } => prune::run(&data.data_dir, store.as_deref()),
        Command::Resume { data, accept_loss } => resume::run(&data.data_dir, accept_loss),
        Command::Upgrade { data, store, server_role, reader_role } => {
            upgrade::run(&data.data_dir, store.as_deref(), server_role, reader_role)
        }
        Command::Rotate(args) => rotate::run(&args, env),
        Command::Serve { data, listen } => serve::run(&data.data_dir, listen, env),
        Command::Export { data, what } => export::run(&data.data_dir, what),
        Command::Import { data, tls_ca } => import::run(&data.data_dir, &tls_ca),
        Command::SignHost { data, principals, ttl, key } => {
            sign_host::run(&data.data_dir, principals, &ttl, &key)
        }
        Command::SignServer(args) => sign_server::run(args),
        Command::Audit(args) => audit::run(args),
        Command::Explain { data, id } => explain::run(&data.data_dir, &id),
        Command::Token(TokenCommand::Add { data, token, ttl, format }) => {
            token::add(&data.data_dir, &token, &ttl, format)
        }
        Command::Token(TokenCommand::Revoke { data, token }) => token::revoke(&data.data_dir, &token, env),
        Command::Lock(args) => lock::lock(&args, env),
        Command::Unlock { data, whom } => lock::unlock(&data.data_dir, &whom, env),
        Command::Locks { data, format } => lock::list(&data.data_dir, format),
        Command::Hosts { data, format } => hosts::run(&data.data_dir, format),
        Command::RevokeHost(RevokeHost { data, name, message, dry_run }) => {
            let whom = Whom { host: Some(name), ..Whom::default() };
            lock::lock(&Lock { data, whom, ttl: None, message, dry_run }, env)
        }
        Command::Instances { data, format } => instances::run(&data.data_dir, format),
    }?;
    Ok(ExitCode::SUCCESS)
}
