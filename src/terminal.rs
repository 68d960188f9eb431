//! What people and CI systems read on stderr while a command works, and what
//! programs read on stdout. Nothing else in the client prints.

use std::io::{ErrorKind, IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::environment::Environment;
use crate::error::{Context as _, Kind, Result};

/// How much is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Only errors, and what protects secrets.
    Quiet,
    /// Short lines.
    Normal,
    /// Each step.
    Verbose,
}

impl Level {
    /// Of the flags `-v` and `-q`.
    #[must_use]
    pub fn of_flags(verbose: bool, quiet: bool) -> Self {
        match (verbose, quiet) {
            (_, true) => Self::Quiet,
            (true, false) => Self::Verbose,
            (false, false) => Self::Normal,
        }
    }
}

/// Says things on stderr.
#[derive(Debug)]
pub struct Progress {
    level: Level,
    /// Whether a runner reads workflow commands among the lines.
    commands: bool,
    colour: bool,
    in_group: AtomicBool,
}

impl Progress {
    /// For this environment: workflow commands in a GitHub job, colour on a terminal alone.
    #[must_use]
    pub fn new(level: Level, env: &Environment) -> Self {
        let commands = env.is_true("GITHUB_ACTIONS");
        let colour = !commands
            && env.get("NO_COLOR").is_none()
            && env.get("TERM") != Some("dumb")
            && std::io::stderr().is_terminal();
        Self { level, commands, colour, in_group: AtomicBool::new(false) }
    }

    /// A short line; foreign text in it must have come through [`crate::text::shown`].
    pub fn line(&self, text: &str) {
        if self.level >= Level::Normal {
            write_stderr(&format!("machine-id: {text}\n"));
        }
    }

    /// A step, for `-v`.
    pub fn step(&self, text: &str) {
        if self.level >= Level::Verbose {
            write_stderr(&format!("machine-id: {text}\n"));
        }
    }

    /// Something that went wrong without failing the command.
    pub fn warning(&self, text: &str) {
        if self.level == Level::Quiet {
            return;
        }
        if self.commands {
            write_stderr(&format!("::warning title=machine-id::{}\n", escape(text)));
        } else if self.colour {
            write_stderr(&format!("machine-id: \x1b[33mwarning\x1b[0m: {text}\n"));
        } else {
            write_stderr(&format!("machine-id: warning: {text}\n"));
        }
    }

    /// Opens a group of lines in GitHub's log.
    pub fn group(&self, title: &str) {
        if self.commands && self.level >= Level::Normal && !self.in_group.swap(true, Ordering::Relaxed) {
            write_stderr(&format!("::group::{}\n", escape(title)));
        }
    }

    /// Ends the group, if one is open.
    pub fn end_group(&self) {
        if self.in_group.swap(false, Ordering::Relaxed) {
            write_stderr("::endgroup::\n");
        }
    }

    /// An error that has an exit code of its own and so does not go through `main`.
    pub fn failure(&self, text: &str) {
        self.end_group();
        if self.commands {
            write_stderr(&format!("::error title=machine-id::{}\n", escape(text)));
        }
        write_stderr(&format!("error: {text}\n"));
    }

    /// Has GitHub's log hide `text`. It must not be secret by itself: the
    /// line that asks for it passes through the runner's own log pipe, and
    /// where a job's output is also copied elsewhere (`tee`, a file, a
    /// debugger), it stands there as it is. Hence neither a whole token nor a
    /// private key is ever masked in this way: of a token, only its signature
    /// part, without which the rest proves nothing, and which proves nothing
    /// without the rest.
    pub fn mask(&self, text: &str) {
        if self.commands {
            write_stderr(&format!("::add-mask::{}\n", escape(text)));
        }
    }
}

/// A value of a workflow command: `%` and line ends escaped, so that it stays one command.
fn escape(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// A reader that went away is no reason to stop: the work counts, not the talk.
fn write_stderr(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// The command's result. A reader that went away is fine.
///
/// # Errors
/// Where it cannot be written for another reason, such as a full disk.
pub fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(error).context(Kind::Internal, "cannot write to stdout")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_stay_one_line() {
        assert_eq!(escape("50%\r\n::set-env x"), "50%25%0D%0A::set-env x");
    }

    #[test]
    fn quiet_wins() {
        assert_eq!(Level::of_flags(true, true), Level::Quiet);
        assert!(Level::of_flags(true, false) > Level::of_flags(false, false));
    }
}
