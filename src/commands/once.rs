//! `machine-id once`.

use std::process::ExitCode;

use crate::cli::once::Args;
use crate::environment::Environment;
use crate::error::Result;
use crate::once::settings::Settings;
use crate::terminal::{Level, Progress};

/// Gets certificates for this job, and runs COMMAND with them where there is one.
pub fn run(args: Args, env: &Environment) -> Result<ExitCode> {
    let progress = Progress::new(Level::of_flags(args.verbose, args.quiet), env);
    let settings = Settings::new(args, env);
    let done = settings.and_then(|settings| crate::once::execute(&settings, env, &progress));
    progress.end_group();
    done
}
