//! `machine-id generate`: man pages and completions from the clap tree.

use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory as _;

use crate::cli::{Cli, Generate, Shell};
use crate::error::{Context as _, Kind, Result};
use crate::terminal::print;

/// Writes the man pages, or prints the completions.
pub fn run(what: &Generate) -> Result<ExitCode> {
    let mut command = Cli::command();
    match what {
        Generate::Man { directory } => man(directory, command)?,
        Generate::Completions { shell } => {
            let shell = match shell {
                Shell::Bash => clap_complete::Shell::Bash,
                Shell::Elvish => clap_complete::Shell::Elvish,
                Shell::Fish => clap_complete::Shell::Fish,
                Shell::Powershell => clap_complete::Shell::PowerShell,
                Shell::Zsh => clap_complete::Shell::Zsh,
            };
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command, "machine-id", &mut script);
            print(&String::from_utf8_lossy(&script))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn man(directory: &Path, command: clap::Command) -> Result<()> {
    clap_mangen::generate_to(command, directory)
        .context(Kind::Usage, format!("cannot write man pages into {}", directory.display()))
}
