//! The command line, as types: no I/O, no defaults that the environment or a
//! file could change.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue};
use clap::{Parser, Subcommand};

pub mod authority;
pub mod cleanup;
mod data_dir;
pub mod format;
pub mod host;
pub mod inspect;
pub mod once;
pub mod rotate;

pub use format::Format;

use crate::elsewhere;
use crate::text;

/// Short-lived SSH and X.509 certificates for CI jobs, in exchange for the OIDC token of their run.
#[derive(Debug, Parser)]
#[command(name = "machine-id", version, disable_help_subcommand = true, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// The command line, the program's name first.
    ///
    /// # Errors
    /// What clap says, and what an option of another tool's is here.
    pub fn of(words: &[OsString]) -> Result<Self, clap::Error> {
        Self::try_parse_from(words).map_err(|error| {
            // What was typed is part of its words: clap is given it as text from outside is shown.
            let typed = words.iter().map(|word| text::shown_long(&word.to_string_lossy()));
            let mut error = Self::try_parse_from(typed).err().unwrap_or(error);
            let option = match error.get(ContextKind::InvalidArg) {
                Some(ContextValue::String(option)) => elsewhere::key(option),
                _ => None,
            };
            if let Some(hint) = option {
                error.remove(ContextKind::SuggestedArg);
                error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![hint.into()]));
            }
            error
        })
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Prove who this job is and exchange that for short-lived certificates.
    Once(Box<once::Args>),
    /// Wipe a destination and revoke what is in it.
    Cleanup(cleanup::Args),
    /// Show what a destination, identity file, certificate or token holds.
    Inspect(inspect::Args),
    /// Create, run and manage an authority.
    #[command(subcommand)]
    Authority(Box<authority::Command>),
    /// For the servers that trust an authority.
    #[command(subcommand)]
    Host(host::Command),
    /// Show the whole loop on this machine: authority, issuer, certificates, login, cleanup.
    Demo,
    /// Print man pages or shell completions.
    #[command(subcommand)]
    Generate(Generate),
}

/// What to print for packagers.
#[derive(Debug, Subcommand)]
pub enum Generate {
    /// Man pages, one for each command, into a folder.
    Man {
        /// The folder, which must exist.
        directory: std::path::PathBuf,
    },
    /// Completions for a shell, on stdout.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_tree_is_sound() {
        Cli::command().debug_assert();
    }

    /// Help would print them as they are, and they are text from outside.
    #[test]
    fn help_says_nothing_that_the_environment_says() {
        let mut commands = vec![Cli::command()];
        let mut settable = 0;
        while let Some(command) = commands.pop() {
            for option in command.get_arguments().filter(|option| option.get_env().is_some()) {
                assert!(option.is_hide_env_values_set(), "{}: {option}", command.get_name());
                settable += 1;
            }
            commands.extend(command.get_subcommands().cloned());
        }
        assert!(settable > 0);
    }
}
