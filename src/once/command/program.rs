//! COMMAND as a program: where it is, and that it does not outlive us.
//!
//! The kernel kills it with us, where it can. A process can only ask for that itself. So this binary runs once more, asks
//! for it, and becomes COMMAND. The signal is KILL: where we were killed there
//! is nobody left to send a second one. It comes when the *thread* ends that
//! started COMMAND, which is our only one.

use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::ExitCode;

use rustix::fs::{Access, AtFlags, CWD};
use rustix::process::{getpid, getppid};
use tokio::process::Command;

use crate::environment::Environment;
use crate::terminal::{Level, Progress};
use crate::text::shown;

/// The first argument, which no person types: the number of our process and COMMAND follow.
const NAME: &str = "tied-command";

/// Says that COMMAND cannot be run; returns the exit code.
pub(crate) fn not_runnable(program: &OsStr, error: &io::Error, progress: &Progress) -> u8 {
    let (code, why) = match error.kind() {
        ErrorKind::NotFound => (127, "there is no such command".to_owned()),
        ErrorKind::PermissionDenied => (126, "it is not executable".to_owned()),
        _ => (126, error.to_string()),
    };
    progress.failure(&format!("cannot run `{}`: {why}", shown(&program.to_string_lossy())));
    code
}

/// Looks for COMMAND as it will be run, before anything is asked for on its behalf.
///
/// # Errors
/// `NotFound`, or `PermissionDenied` where it is not executable.
pub(crate) fn find(program: &OsStr, env: &Environment) -> io::Result<()> {
    let candidates: Vec<PathBuf> = if program.as_encoded_bytes().contains(&b'/') {
        vec![PathBuf::from(program)]
    } else {
        let path = env.get("PATH").unwrap_or("/bin:/usr/bin");
        std::env::split_paths(path).map(|directory| directory.join(program)).collect()
    };
    let mut found = candidates.iter().filter(|path| std::fs::symlink_metadata(path).is_ok()).peekable();
    if program.is_empty() || found.peek().is_none() {
        return Err(ErrorKind::NotFound.into());
    }
    let is_executable = |path: &PathBuf| {
        std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file())
            && rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS).is_ok()
    };
    if found.any(is_executable) { Ok(()) } else { Err(ErrorKind::PermissionDenied.into()) }
}

/// COMMAND, to be tied to this process.
pub(super) fn tied(program: &OsStr, arguments: &[OsString]) -> io::Result<Command> {
    if !cfg!(target_os = "linux") {
        return Err(ErrorKind::Unsupported.into());
    }
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(NAME).arg(getpid().to_string()).arg(program).args(arguments);
    Ok(command)
}

/// Becomes COMMAND, where that is what this process was started for; the exit code if it cannot.
pub(crate) fn become_command(
    mut arguments: impl Iterator<Item = OsString>,
    env: &Environment,
) -> Option<ExitCode> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_looked_for_as_a_shell_does() {
        let temp = tempfile::tempdir().unwrap();
        let plain = temp.path().join("plain");
        std::fs::write(&plain, "x").unwrap();
        let env = Environment::from_pairs([("PATH", "/nowhere:/bin:/usr/bin")]);
        let quiet = Progress::new(Level::Quiet, &env);
        let code =
            |program: &OsStr| find(program, &env).map_err(|error| not_runnable(program, &error, &quiet));
        assert_eq!(code(OsStr::new("sh")), Ok(()));
        assert_eq!(code(OsStr::new("/bin/sh")), Ok(()));
        assert_eq!(code(plain.as_os_str()), Err(126));
        assert_eq!(code(temp.path().as_os_str()), Err(126));
        assert_eq!(code(OsStr::new("no-such-command-here")), Err(127));
        assert_eq!(code(OsStr::new("/no/such")), Err(127));
        assert_eq!(code(OsStr::new("")), Err(127));
    }
}
