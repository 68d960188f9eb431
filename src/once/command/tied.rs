//! COMMAND does not outlive us: the kernel kills it with us, where it can.
//!
//! A process can only ask for that itself. So this binary runs once more, asks
//! for it, and becomes COMMAND. The signal is KILL: where we were killed there
//! is nobody left to send a second one. It comes when the *thread* ends that
//! started COMMAND, which is our only one.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::ExitCode;

use rustix::process::{getpid, getppid};
use tokio::process::Command;

use super::not_runnable;
use crate::environment::Environment;
use crate::terminal::{Level, Progress};

/// The first argument, which no person types: the number of our process and COMMAND follow.
const NAME: &str = "tied-command";

/// COMMAND, to be tied to this process.
pub(super) fn command(program: &OsStr, arguments: &[OsString]) -> io::Result<Command> {
    if !cfg!(target_os = "linux") {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(NAME).arg(getpid().to_string()).arg(program).args(arguments);
    Ok(command)
}

/// Becomes COMMAND, where that is what this process was started for; the exit code if it cannot.
pub(crate) fn run(mut arguments: impl Iterator<Item = OsString>, env: &Environment) -> Option<ExitCode> {
    if arguments.next()? != NAME {
        return None;
    }
    let (parent, program) = (arguments.next()?, arguments.next()?);
    #[cfg(target_os = "linux")]
    {
        let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    }
    if getppid().is_none_or(|pid| parent != *pid.to_string()) {
        // It has ended already.
        return Some(ExitCode::FAILURE);
    }
    let error = std::process::Command::new(&program).args(arguments).exec();
    Some(ExitCode::from(not_runnable(&program, &error, &Progress::new(Level::Quiet, env))))
}
