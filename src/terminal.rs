//! What people and CI systems read on stderr, and what programs read on
//! stdout. Nothing else prints.

use std::io::{ErrorKind, IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::environment::Environment;
use crate::error::{Context as _, Error, Kind, Result};

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
        write_stderr(&error_text(text, &[], self.commands));
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

/// Prints an error: what failed and why, then hints; in a GitHub job an annotation as well.
pub fn report(error: &Error, env: &Environment) {
    write_stderr(&error_text(&error.to_string(), error.hints(), env.is_true("GITHUB_ACTIONS")));
}

fn error_text(message: &str, hints: &[String], commands: bool) -> String {
    let mut text = format!("error: {message}\n");
    for hint in hints {
        text.push_str(&format!("hint: {}\n", hint.replace('\n', "\n      ")));
    }
    if commands {
        let told = [&[message.to_owned()], hints].concat().join("\n");
        text.push_str(&format!("::error title=machine-id::{}\n", escape(&told)));
    }
    text
}

/// A line of a server's log.
pub fn log(line: &str) {
    write_stderr(&format!("{line}\n"));
}

/// A line that strangers can cause, at most one each second.
pub fn log_rarely(line: &str) {
    static LAST: Mutex<Option<Instant>> = Mutex::new(None);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if last.is_none_or(|last| last.elapsed() >= Duration::from_secs(1)) {
        *last = Some(Instant::now());
        log(line);
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
    print_part(text).map(drop)
}

/// A part of the result; returns whether anybody still reads.
pub fn print_part(text: &str) -> Result<bool> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context(Kind::Internal, "cannot write to stdout"),
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
    fn errors_are_annotated_once() {
        let hints = ["do this\nor that".to_owned()];
        assert_eq!(error_text("50%", &hints, false), "error: 50%\nhint: do this\n      or that\n");
        assert_eq!(
            error_text("50%", &hints, true),
            "error: 50%\nhint: do this\n      or that\n::error title=machine-id::50%25%0Ado this%0Aor that\n"
        );
    }

    #[test]
    fn quiet_wins() {
        assert_eq!(Level::of_flags(true, true), Level::Quiet);
        assert!(Level::of_flags(true, false) > Level::of_flags(false, false));
    }
}
