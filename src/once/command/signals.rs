//! Signals, and the end of a process that this one was started by, as values
//! that the client waits for.
//!
//! HUP stays ignored, for us and for COMMAND, where the process was started so:
//! that is what `nohup` is for. INT is listened for even then, since a script's
//! `&` ignores it without meaning that keys should stay behind.

use std::fmt;
use std::future::{pending, poll_fn};
use std::path::Path;
use std::task::Poll;

use rustix::process::Signal;
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

use crate::error::{Context as _, Kind, Result};
use crate::folder::read;
use crate::process::{self, Ancestors};

/// Those that end an exchange.
pub(crate) const ENDING: &[Signal] = &[Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT];

/// Those that are passed on to COMMAND.
pub(crate) const FORWARDED: &[Signal] =
    &[Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT, Signal::USR1, Signal::USR2];

/// How this process is told something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// By a signal.
    Signal(Signal),
    /// By the end of a process that it was started by.
    Orphaned,
}

impl Told {
    /// The signal that it counts as.
    pub(crate) fn signal(self) -> Signal {
        match self {
            Self::Signal(signal) => signal,
            Self::Orphaned => Signal::TERM,
        }
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signal(signal) => write!(f, "by signal {}", signal.as_raw()),
            Self::Orphaned => f.write_str(
                "with a process that started it, such as its shell (what is to outlive that is started with `setsid` or `nohup`)",
            ),
        }
    }
}

/// What is listened for.
pub(crate) struct Signals {
    streams: Vec<(Signal, Stream)>,
    /// Nothing once one of them has ended.
    ancestors: Option<Ancestors>,
}

impl Signals {
    /// Listens; from now on these signals no longer end the process.
    pub(crate) fn listen(signals: &[Signal]) -> Result<Self> {
        let left_alone = |signal: Signal| signal == Signal::HUP && process::ignores(signal);
        let mut streams = Vec::new();
        for wanted in signals.iter().filter(|wanted| !left_alone(**wanted)) {
            let stream = signal(SignalKind::from_raw(wanted.as_raw()))
                .context(Kind::Internal, "cannot listen for signals")?;
            streams.push((*wanted, stream));
        }
        Ok(Self { streams, ancestors: Some(Ancestors::watch()) })
    }

    /// The next one.
    pub(crate) async fn next(&mut self) -> Told {
        let Self { streams, ancestors } = self;
        let signal = poll_fn(|context| {
            for (signal, stream) in &mut *streams {
                if stream.poll_recv(context).is_ready() {
                    return Poll::Ready(*signal);
                }
            }
            Poll::Pending
        });
        let orphaned = async {
            match &*ancestors {
                Some(ancestors) => ancestors.one_ends().await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            signal = signal => return Told::Signal(signal),
            () = orphaned => {}
        }
        *ancestors = None;
        Told::Orphaned
    }

    /// One that has come already.
    pub(crate) async fn pending(&mut self) -> Option<Told> {
        tokio::select! {
            biased;
            told = self.next() => Some(told),
            () = tokio::task::yield_now() => None,
        }
    }
}

/// The status of a process that a signal ended: 128 and its number.
pub(crate) fn exit_status(signal: i32) -> u8 {
    u8::try_from(128 + signal).unwrap_or(255)
}

/// Whether the terminal's own INT and QUIT go to COMMAND as well as to us: we
/// are in the foreground of our terminal, and COMMAND is in our process group.
pub(crate) fn in_foreground() -> bool {
    let terminal = read::open(Path::new("/dev/tty"));
    let group = terminal.and_then(rustix::termios::tcgetpgrp);
    group.is_ok_and(|group| group == rustix::process::getpgrp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_signal_is_a_value() {
        let mut signals = Signals::listen(&[Signal::USR2]).unwrap();
        assert_eq!(signals.pending().await, None);
        rustix::process::kill_process(rustix::process::getpid(), Signal::USR2).unwrap();
        assert_eq!(signals.next().await, Told::Signal(Signal::USR2));
        assert_eq!((exit_status(15), Told::Orphaned.signal()), (143, Signal::TERM));
    }
}
