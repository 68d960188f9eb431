//! `machine-id authority rotate`, as types.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::data_dir::DataDir;
use super::format::Format;

/// `authority rotate`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Rotate {
    /// What to look at, in place of a step.
    #[command(subcommand)]
    pub command: Option<RotateCommand>,
    /// The authority's data directory.
    #[arg(long, value_name = "DIR", env = "MACHINE_ID_DATA_DIR", hide_env_values = true, required = true)]
    pub data_dir: Option<PathBuf>,
    /// Which CA.
    #[arg(long, value_enum, value_name = "WHICH", required = true)]
    pub ca: Option<RotatedCa>,
    /// Which step.
    #[arg(long, value_enum, required = true)]
    pub phase: Option<RotatePhase>,
    /// Do it though somebody is not ready for it; says first what that breaks.
    #[arg(long)]
    pub force: bool,
    /// Do it, where it would only be said what it does.
    #[arg(long)]
    pub yes: bool,
    /// With `--ca tls --phase start`: write a certificate request for the new TLS CA there, for the CA of a root that exists.
    #[arg(long, value_name = "FILE")]
    pub tls_ca_csr: Option<PathBuf>,
    /// How to print what is so then.
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// `authority rotate status`.
#[derive(Debug, Subcommand)]
pub enum RotateCommand {
    /// Say how far the rotation of each CA is, what it waits for, and what is next.
    Status {
        /// Where its data is.
        #[command(flatten)]
        data: DataDir,
        /// How to print it; in JSON one CA a line.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
}

/// What `--ca` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RotatedCa {
    /// The CA of certificates for SSH logins.
    SshUser,
    /// The CA of SSH host certificates.
    SshHost,
    /// The CA of X.509 certificates.
    Tls,
    /// The key that states to servers whom to trust and what is revoked.
    Statement,
    /// The key that vouches for jobs at clouds and leaf clusters.
    Federation,
}

/// What `--phase` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RotatePhase {
    /// A new one is trusted, and the old one signs.
    Start,
    /// The new one signs, and the old one is trusted.
    Activate,
    /// The old one is trusted no more, and its key destroyed.
    Finish,
    /// One step back.
    Rollback,
    /// Somebody else has the key: all are revoked, and a new one signs at once. Needs --yes.
    Compromised,
}
