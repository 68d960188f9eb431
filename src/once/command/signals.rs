//! Signals, as values that the client waits for.
//!
//! HUP stays ignored, for us and for COMMAND, where the process was started so:
//! that is what `nohup` is for. INT is listened for even then, since a script's
//! `&` ignores it without meaning that keys should stay behind.

use std::future::poll_fn;
use std::path::Path;
use std::task::Poll;

use rustix::process::Signal;
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

use crate::error::{Context as _, Kind, Result};
use crate::folder::read::{self, Limit, Trust};

/// Those that end an exchange.
pub(crate) const ENDING: &[Signal] = &[Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT];

/// Those that are passed on to COMMAND.
pub(crate) const FORWARDED: &[Signal] =
    &[Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT, Signal::USR1, Signal::USR2];

/// Signals that are listened for.
pub(crate) struct Signals(Vec<(Signal, Stream)>);

impl Signals {
    /// Listens; from now on these signals no longer end the process.
    pub(crate) fn listen(signals: &[Signal]) -> Result<Self> {
        let left_alone = |signal: Signal| signal == Signal::HUP && is_in(signal, ignored());
        let mut streams = Vec::new();
        for wanted in signals.iter().filter(|wanted| !left_alone(**wanted)) {
            let stream = signal(SignalKind::from_raw(wanted.as_raw()))
                .context(Kind::Internal, "cannot listen for signals")?;
            streams.push((*wanted, stream));
        }
        Ok(Self(streams))
    }

    /// The next one.
    pub(crate) async fn next(&mut self) -> Signal {
        poll_fn(|context| {
            for (signal, stream) in &mut self.0 {
                if stream.poll_recv(context).is_ready() {
                    return Poll::Ready(*signal);
                }
            }
            Poll::Pending
        })
        .await
    }

    /// One that has come already.
    pub(crate) async fn pending(&mut self) -> Option<Signal> {
        tokio::select! {
            biased;
            signal = self.next() => Some(signal),
            () = tokio::task::yield_now() => None,
        }
    }
}

/// The status of a process that a signal ended: 128 and its number.
pub(crate) fn exit_status(signal: i32) -> u8 {
    u8::try_from(128 + signal).unwrap_or(255)
}

/// The mask of signals that this process was started with as ignored; only Linux tells.
fn ignored() -> u64 {
    let status = read::raw(Path::new("/proc/self/status"), Trust::Anyone, Limit::FILE).and_then(read::utf8);
    let mask = status.iter().flat_map(|status| status.lines()).find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

fn is_in(signal: Signal, mask: u64) -> bool {
    u32::try_from(signal.as_raw() - 1)
        .is_ok_and(|bit| mask.checked_shr(bit).is_some_and(|mask| mask & 1 == 1))
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

    #[test]
    fn masks() {
        // SIGHUP is 1, SIGINT is 2.
        assert!(is_in(Signal::HUP, 0b01) && !is_in(Signal::INT, 0b01) && is_in(Signal::INT, 0b10));
        assert_eq!(exit_status(15), 143);
    }

    #[tokio::test]
    async fn a_signal_is_a_value() {
        let mut signals = Signals::listen(&[Signal::USR2]).unwrap();
        assert_eq!(signals.pending().await, None);
        rustix::process::kill_process(rustix::process::getpid(), Signal::USR2).unwrap();
        assert_eq!(signals.next().await, Signal::USR2);
    }
}
