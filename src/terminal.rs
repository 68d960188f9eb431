//! What people and CI systems read on stderr, and what programs read on
//! stdout. Nothing else prints, and nothing is printed that has not been
//! through [`crate::text`]: no text of others becomes a command of a CI system.

use std::io::{ErrorKind, IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::environment::Environment;
use crate::error::{Context as _, Error, Kind, Result};
use crate::text::{lines, shown_long};

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

    /// A short line.
    pub fn line(&self, text: &str) {
        if self.level >= Level::Normal {
            write_stderr(&line(text));
        }
    }

    /// A step, for `-v`.
    pub fn step(&self, text: &str) {
        if self.level >= Level::Verbose {
            write_stderr(&line(text));
        }
    }

    /// Something that went wrong without failing the command.
    pub fn warning(&self, text: &str) {
        if self.level > Level::Quiet {
            write_stderr(&self.warning_text(text));
        }
    }

    fn warning_text(&self, text: &str) -> String {
        let text = shown_long(text);
        if self.commands {
            command("warning title=machine-id", &text)
        } else if self.colour {
            format!("machine-id: \x1b[33mwarning\x1b[0m: {text}\n")
        } else {
            format!("machine-id: warning: {text}\n")
        }
    }

    /// Opens a group of lines in GitHub's log.
    pub fn group(&self, title: &str) {
        if self.commands && self.level >= Level::Normal && !self.in_group.swap(true, Ordering::Relaxed) {
            write_stderr(&command("group", title));
        }
    }

    /// Ends the group, if one is open.
    pub fn end_group(&self) {
        if self.in_group.swap(false, Ordering::Relaxed) {
            write_stderr(&command("endgroup", ""));
        }
    }

    /// An error that has an exit code of its own and so does not go through `main`.
    pub fn failure(&self, text: &str) {
        self.end_group();
        write_stderr(&error_text(&shown_long(text), &[], self.commands));
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
            write_stderr(&command("add-mask", text));
        }
    }
}

/// Prints an error: what failed and why, then hints; in a GitHub job an annotation as well.
pub fn report(error: &Error, env: &Environment) {
    write_stderr(&error_text(&error.to_string(), error.hints(), env.is_true("GITHUB_ACTIONS")));
}

fn error_text(message: &str, hints: &[String], commands: bool) -> String {
    let mut text = lines(&format!("error: {message}\n"));
    for hint in hints {
        text.push_str(&lines(&format!("hint: {}\n", hint.replace('\n', "\n      "))));
    }
    if commands {
        text.push_str(&command(
            "error title=machine-id",
            &[&[message.to_owned()], hints].concat().join("\n"),
        ));
    }
    text
}

fn line(text: &str) -> String {
    format!("machine-id: {}\n", shown_long(text))
}

/// A line of a server's log; what it goes on with stands below it, indented.
pub fn log(text: &str) {
    write_stderr(&log_text(text));
}

fn log_text(text: &str) -> String {
    format!("{}\n", lines(&text.replace('\n', "\n  ")))
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

/// A workflow command of GitHub's runner: nothing else makes one. The runner writes the lines of `data` into its log.
fn command(name: &str, data: &str) -> String {
    format!("::{name}::{}\n", lines(data).replace('%', "%25").replace('\n', "%0A"))
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

/// The same for what this program made alone, and shells read.
pub fn print_as_it_is(text: &str) -> Result<()> {
    write_stdout(text).map(drop)
}

/// A part of the result, of whole lines; returns whether anybody still reads.
pub fn print_part(text: &str) -> Result<bool> {
    write_stdout(&lines(text))
}

fn write_stdout(text: &str) -> Result<bool> {
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
        assert_eq!(command("x", "50%\r\n ::y"), "::x::50%25\\u{d}%0A \\u{3a}:y\n");
    }

    #[test]
    fn each_message_is_one_line_and_begins_with_whose_it_is() {
        let foreign = "x\n##vso[y]\r::z::";
        assert_eq!(line(foreign), "machine-id: x\\u{a}##vso\\u{5b}y]\\u{d}::z::\n");
        assert_eq!(log_text("warning: x\n::y::\n<0>z"), "warning: x\n  \\u{3a}:y::\n  \\u{3c}0>z\n");
        let told = |commands: &str| {
            let env = Environment::from_pairs([("GITHUB_ACTIONS", commands)]);
            Progress::new(Level::Normal, &env).warning_text(foreign)
        };
        let shown = "x\\u{a}##vso\\u{5b}y]\\u{d}::z::\n";
        assert_eq!(told("true"), format!("::warning title=machine-id::{shown}"));
        assert!(told("false").ends_with(&format!(": {shown}")));
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
