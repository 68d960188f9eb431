//! Live sessions of what was revoked end.
//!
//! `sshd` looks at its list when somebody logs in, and never again. So
//! `host principals`, which it asks at each login, notes which of its processes
//! was offered which certificate, and whoever may end root's processes ends
//! those whose certificate a later list refuses. Which process it is comes from
//! `sshd` itself, its command's parent, and from no log, into which a
//! certificate's own words go.
//!
//! `sshd` asks before it has seen that the client holds the key, and again
//! when it has: so what a client merely offers is noted as well, and the
//! certificate that lets it in comes last.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::sleep;

use crate::error::{Context as _, Error, Kind, Result};
use crate::folder::Folder;
use crate::folder::read::{self, Limit, Trust};
use crate::folder::stamp::{self, Nanos, Stamp};
use crate::host::lists::MAX_FILE;
use crate::krl::Refusals;
use crate::process::Process;
use crate::text::shown;

mod cgroup;
mod notes;
mod postgres;
mod session;

pub use notes::note;
pub use postgres::Backends;

/// Ends sessions by a folder of notes and a list of revoked keys.
#[derive(Debug)]
pub struct Ender {
    notes: PathBuf,
    list: PathBuf,
    refusals: Refusals,
    /// What the list and the folder were when they were last looked at.
    seen: (Option<Stamp>, Option<Stamp>),
    /// Notes that the list says nothing against, or that are dealt with; as they were.
    judged: BTreeMap<String, Option<Stamp>>,
    /// Notes of sessions that were killed and are there yet, and what was said of them.
    lasting: BTreeMap<String, Ended>,
}

/// A note by name, its process and the time when it was noted, and which certificate is refused: serial and key id.
type Refused = (String, (Process, Nanos), (u64, String));

/// How often one looks whether the list, or a note, has changed.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How long the others wait for the end of one.
const PATIENCE: Duration = Duration::from_secs(1);

/// Ends sessions of revoked certificates from now on, and says so.
pub async fn run(mut ender: Ender, backends: Option<Backends>, say: impl Fn(&str)) {
    let of_sshd = async {
        let mut trouble = None;
        loop {
            let ended = ender.pass();
            tell(ended.map(|ended| ended.iter().map(ToString::to_string).collect()), &mut trouble, &say);
            sleep(LOOK_AGAIN).await;
        }
    };
    // A database that hangs holds up nobody else.
    let of_postgresql = async {
        let (Some(mut backends), mut trouble) = (backends, None) else { return };
        loop {
            tell(backends.pass().await, &mut trouble, &say);
            sleep(LOOK_AGAIN).await;
        }
    };
    tokio::join!(of_sshd, of_postgresql);
}

/// Says what was done; what is in the way is said once, until it is another thing or gone.
fn tell(done: Result<Vec<String>>, trouble: &mut Option<String>, say: impl Fn(&str)) {
    let (done, error) = done.map_or_else(|error| (Vec::new(), Some(error)), |done| (done, None));
    done.iter().for_each(|line| say(line));
    let error = error.map(|error| {
        let hints: String = error.hints().iter().map(|hint| format!("\nhint: {hint}")).collect();
        format!("warning: no session can be ended: {error}{hints}")
    });
    if error != *trouble {
        say(error.as_deref().unwrap_or("sessions are ended again"));
        *trouble = error;
    }
}

/// A session that was to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// `sshd`'s process.
    pub pid: u32,
    /// The serial of the certificate that is refused.
    pub serial: u64,
    /// Its key id, which is what a job is called.
    pub key_id: String,
    /// Why it was not ended.
    pub failed: Option<String>,
    /// What is left of it, or might be: number and name.
    pub remaining: Vec<(u32, String)>,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, serial, .. } = self;
        let which = format!("the session of process {pid}, serial {serial} (`{}`)", shown(&self.key_id));
        match &self.failed {
            Some(why) => write!(f, "warning: {which} is revoked and was not ended: {why}")?,
            None => write!(f, "ended {which}, which is revoked")?,
        }
        if !self.remaining.is_empty() {
            let names = self.remaining.iter().map(|(pid, name)| format!("{pid} (`{}`)", shown(name)));
            write!(f, "; still there: {}", names.collect::<Vec<_>>().join(", "))?;
        }
        Ok(())
    }
}

impl Ender {
    /// By the notes in a folder and a list of revoked keys; nothing is read yet.
    pub fn new(notes: &Path, list: &Path) -> Self {
        Self {
            notes: notes.to_owned(),
            list: list.to_owned(),
            refusals: Refusals::default(),
            seen: (None, None),
            judged: BTreeMap::new(),
            lasting: BTreeMap::new(),
        }
    }

    /// Ends each session that the list refuses, if the list or a note has changed since the last time. To be
    /// called often: it costs two looks at the file system.
    ///
    /// A login and a new list may cross: `sshd` saw the old one, and its note came after the new one was looked
    /// at. So each new note is judged as well.
    ///
    /// # Errors
    /// `Kind::Destination` where the list or the folder cannot be read: nobody is ended, and the next call tries again.
    pub fn pass(&mut self) -> Result<Vec<Ended>> {
        // Before anything is read: what changes meanwhile is looked at again.
        let now = (Stamp::of(&self.list), Stamp::of(&self.notes));
        if now == self.seen && self.lasting.is_empty() {
            return Ok(Vec::new());
        }
        if now.0 != self.seen.0 || now.0.is_none() {
            let list = read::raw(&self.list, Trust::Anyone, Limit::bytes(MAX_FILE))
                .map_err(|unfit| unfit.error(Kind::Destination, cannot_read(&self.list)))?;
            self.refusals = Refusals::read(&list)
                .map_err(|why| Error::new(Kind::Destination, why).context(cannot_read(&self.list)))?;
            self.judged.clear();
            self.seen = (now.0, None);
        }
        let folder = Folder::of_another(&self.notes).map_err(|unfit| {
            unfit.error(Kind::Destination, format!("cannot use {}", self.notes.display()))
        })?;
        let names: BTreeSet<String> =
            folder.entries().context(Kind::Destination, cannot_read(&self.notes))?.into_iter().collect();
        self.judged.retain(|name, _| names.contains(name));
        let before = std::mem::take(&mut self.lasting);
        let (mut fresh, mut again) = (Vec::new(), Vec::new());
        for (name, process) in names.iter().filter_map(|name| Some((name, Process::named(name)?))) {
            let stamp = Stamp::of(&self.notes.join(name));
            let lasts = before.contains_key(name);
            if lasts || self.judged.get(name) != Some(&stamp) {
                let noted = stamp.map_or(0, |stamp| stamp.modified);
                let refused = self.judge(&folder, name).map(|why| (name.clone(), (process, noted), why));
                if lasts {
                    again.extend(refused)
                } else {
                    fresh.extend(refused)
                }
                self.judged.insert(name.clone(), stamp);
            }
        }
        // What does not end holds up nobody else.
        let ended = [self.end(fresh, &before, PATIENCE), self.end(again, &before, Duration::ZERO)].concat();
        // What happens within one tick of the file system's clock has one time.
        let settled = now.1.filter(|stamp| !stamp.is_young(stamp::now()));
        self.seen = (now.0, settled);
        Ok(ended)
    }

    /// Ends these: what is to be said of them that was not said before.
    fn end(
        &mut self,
        refused: Vec<Refused>,
        before: &BTreeMap<String, Ended>,
        patience: Duration,
    ) -> Vec<Ended> {
        let processes: Vec<(Process, Nanos)> = refused.iter().map(|(_, process, _)| *process).collect();
        let mut said = Vec::new();
        for ((name, (process, _), (serial, key_id)), outcome) in
            refused.into_iter().zip(session::end(&processes, patience))
        {
            let (failed, remaining, lasts) = match outcome {
                Ok(remains) => (None, remains.named, remains.lasts),
                // It has ended by itself.
                Err(_) if process.is_over() => continue,
                Err(why) => (Some(why), Vec::new(), false),
            };
            let ended = Ended { pid: process.pid, serial, key_id, failed, remaining };
            if before.get(&name) != Some(&ended) {
                said.push(ended.clone());
            }
            if lasts {
                self.lasting.insert(name, ended);
            }
        }
        said
    }

    /// Which certificate of a note the list refuses: its serial and key id. A note that cannot be read is nobody's.
    fn judge(&self, folder: &Folder, name: &str) -> Option<(u64, String)> {
        let offered = notes::read(folder, name).ok().flatten()?;
        let refused = offered.counts().find(|certificate| self.refusals.refuse(certificate))?;
        Some((refused.serial(), refused.key_id().to_owned()))
    }
}

fn cannot_read(path: &Path) -> String {
    format!("cannot read {}", path.display())
}
