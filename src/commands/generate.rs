//! `machine-id generate`: man pages and completions from the clap tree.

use clap::CommandFactory as _;

use crate::cli::{Cli, Generate};
use crate::error::{Context as _, Kind, Result};
use crate::terminal::print_as_it_is;

/// Writes the man pages, or prints the completions.
pub fn run(what: &Generate) -> Result<()> {
    let mut command = Cli::command();
    match what {
        Generate::Man { directory } => clap_mangen::generate_to(command, directory)
            .context(Kind::Usage, format!("cannot write man pages into {}", directory.display())),
        Generate::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut command, "machine-id", &mut script);
            print_as_it_is(&String::from_utf8_lossy(&script))
        }
    }
}
