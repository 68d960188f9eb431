//! The one connection of a watcher: line by line, each within a limit, and made anew when it is lost, silent, or brings what
//! cannot be believed.

use std::cell::Cell;
use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, timeout_at};

use super::fetch::{Fetcher, MAX_LINE};
use super::lists::useless;
use crate::error::{Error, Kind, Result};
use crate::net::RequestError;
use crate::retry::Backoff;
use crate::wire::{HEARTBEAT, Watched};

pub(super) const WATCH_PATH: &str = "/v1/watch";

/// After how much silence a connection is dead: that of three heartbeats.
const SILENCE: Duration = Duration::from_secs(3 * HEARTBEAT);

/// The first pause before it is made anew, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// A statement, as a JWS, and whether who said it was verified by the given options.
pub(super) type Said = (String, bool);

/// What both ends know.
#[derive(Default)]
pub(super) struct Shared {
    /// The number of the lists that are there, for what to begin with.
    pub(super) since: Cell<Option<u64>>,
    /// What came last was not believed, or is of no use: the connection is to be made anew.
    pub(super) refused: Notify,
    /// Whether the authority believes which host this is, or why not, where it was said and not told yet.
    pub(super) proven: Cell<Option<Result<()>>>,
}

impl Shared {
    /// Passes on whether it was believed.
    pub(super) fn heard_of_proof(&self, fetcher: &Fetcher<'_>) {
        if let Some(proven) = fetcher.proven.take() {
            self.proven.set(Some(proven));
        }
    }
}

/// Makes the connection, again and again, and passes on each statement, or why there is none.
pub(super) async fn run(
    first: &Fetcher<'_>,
    shared: &Shared,
    told: mpsc::Sender<Result<Said>>,
) -> Infallible {
    let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
    loop {
        let begun = Instant::now();
        let error = match listen(first, shared, &told).await {
            Ok(never) => match never {},
            Err(error) => error,
        };
        // One that held is not what fails now.
        if begun.elapsed() >= SILENCE {
            backoff = Backoff::new(PAUSES.0, PAUSES.1);
        }
        if let Some(error) = error {
            let _ = told.send(Err(error)).await;
        }
        sleep(backoff.pause()).await;
    }
}

/// Listens until that comes to an end; no error where the other half knows why.
async fn listen(
    first: &Fetcher<'_>,
    shared: &Shared,
    told: &mpsc::Sender<Result<Said>>,
) -> Result<Infallible, Option<Error>> {
    let fetcher = first.again()?;
    let path = match shared.since.get() {
        Some(since) => format!("{WATCH_PATH}?since={since}"),
        None => WATCH_PATH.to_owned(),
    };
    let response = fetcher.ask_by_name(&path, false).await;
    shared.heard_of_proof(&fetcher);
    let response = response?;
    if response.status() == 404 {
        return Err(Some(useless(WATCH_PATH, "it is of a version that cannot be watched")));
    }
    fetcher.check(&response, WATCH_PATH)?;
    let lost = |why: &LineError| fetcher.unreachable(&RequestError::Other(why.to_string()));
    let mut was_good = false;
    let mut lines = Lines { response, buffer: Vec::new(), searched: 0 };
    loop {
        let line = tokio::select! {
            line = timeout_at(Instant::now() + SILENCE, lines.next()) => line,
            () = shared.refused.notified() => return Err(None),
        };
        let why = match line {
            Ok(Ok(line)) => Ok(line),
            Ok(Err(LineError::TooLong)) => {
                // The next one begins with whole lists.
                shared.since.set(None);
                return Err(Some(lost(&LineError::TooLong)));
            }
            Ok(Err(why)) => Err(lost(&why)),
            Err(_) => Err(fetcher.unreachable(&RequestError::Timeout)),
        };
        // One that was good is made anew, which will tell what is wrong.
        let line = why.map_err(|error| Some(error).filter(|_| !was_good))?;
        was_good = true;
        let watched: Watched = serde_json::from_slice(&line)
            .map_err(|_| useless(WATCH_PATH, "a line is not the JSON of an authority"))?;
        if told.send(Ok((watched.statement, fetcher.is_by_given()))).await.is_err() {
            return Err(Some(Error::new(Kind::Internal, "nobody watches")));
        }
    }
}

/// The lines of an answer.
struct Lines {
    response: reqwest::Response,
    buffer: Vec<u8>,
    /// So much of it has no end of a line.
    searched: usize,
}

#[derive(Debug, PartialEq, Eq)]
enum LineError {
    TooLong,
    Ended,
    Broken(String),
}

impl std::fmt::Display for LineError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooLong => write!(f, "a line is longer than {MAX_LINE} bytes"),
            Self::Ended => f.write_str("the connection was closed"),
            Self::Broken(why) => write!(f, "the connection broke off: {why}"),
        }
    }
}

impl Lines {
    /// The next one; nothing is lost where it is not waited for to the end.
    async fn next(&mut self) -> Result<Vec<u8>, LineError> {
        loop {
            let rest = self.buffer.get(self.searched..).unwrap_or_default();
            if let Some(at) = rest.iter().position(|byte| *byte == b'\n') {
                let tail = self.buffer.split_off(self.searched + at + 1);
                self.searched = 0;
                let line = std::mem::replace(&mut self.buffer, tail);
                // Nothing but its end: somebody on the way keeps the connection alive.
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return Ok(line);
            }
            self.searched = self.buffer.len();
            if self.buffer.len() > MAX_LINE {
                return Err(LineError::TooLong);
            }
            match self.response.chunk().await {
                Ok(Some(chunk)) => self.buffer.extend_from_slice(&chunk),
                Ok(None) => return Err(LineError::Ended),
                Err(error) => return Err(LineError::Broken(RequestError::from(error).to_string())),
            }
        }
    }
}
