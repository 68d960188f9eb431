//! What was heard of the authority, kept beside the files that it is about: whom to believe, how far the lists are, and when
//! something new was heard last. `sshd` asks for that at each login, so anybody may read it; nothing in it is secret.

use std::path::Path;
use std::time::Duration;

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::statement::Known;
use crate::clock::{Clock, LEEWAY};
use crate::error::{Context as _, Error, Kind, Result};
use crate::folder::read::{self, Limit, Trust};
use crate::folder::{Folder, PUBLIC_FILE};
use crate::text::hex;

/// The file's name.
pub const HEARD: &str = "authority.heard";
/// The CAs of the authority's own certificate, whatever becomes of `tls_ca.crt`.
pub const AUTHORITY_CA: &str = "authority_ca.crt";
const MAX_HEARD: usize = 1 << 20;

/// The file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Heard {
    /// What the last statement says that was believed.
    pub known: Known,
    /// The options that its certificate was verified by, the last time that they did it alone.
    pub given: String,
    /// Which lists are in the folder.
    pub lists: InPlace,
}

/// The lists that are in the folder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InPlace {
    /// Of which statement the KRL is.
    pub krl: Current,
    /// Its SHA-256 as it was put there, in hexadecimal.
    pub hash: String,
    /// Of which statement the CRL is.
    pub crl: Current,
}

impl InPlace {
    /// The number of the statement that both follow; none where one does not follow any.
    pub fn number(&self) -> Option<u64> {
        let all = [&self.krl, &self.crl];
        let stated = all.iter().all(|list| list.at.is_some());
        all.iter().map(|list| list.number).min().filter(|_| stated)
    }
}

/// The last statement by which a list is of now: what is heard and cannot be followed does not count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Current {
    /// Its number; that of nothing where there is none.
    pub number: u64,
    /// When it was made.
    pub made: i64,
    /// When it was heard.
    pub at: Option<Moment>,
}

impl Current {
    /// Which of two is later.
    pub fn order(&self) -> (u64, i64) {
        (self.number, self.made)
    }

    /// The list is of that statement, too.
    pub fn raise(&mut self, other: Self) {
        if self.order() < other.order() {
            *self = other;
        }
    }

    /// Whether the list is of a later statement too, since that has the same number.
    pub fn goes_on(&self, later: &Self) -> bool {
        self.number == later.number && self.order() < later.order()
    }

    /// How long ago the statement was heard; none where there is none, or the clock says that it is to come.
    pub fn age(&self, now: &Moment) -> Option<Duration> {
        self.at.as_ref()?.age(now)
    }
}

/// A moment, by the clock, and by a time that no step of it changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moment {
    unix: i64,
    /// The boot that it was in, and seconds since then, with those asleep.
    boot: Option<(String, i64)>,
}

impl Moment {
    /// This one.
    pub fn now(clock: &Clock) -> Self {
        Self { unix: clock.now(), boot: boot() }
    }

    /// The moment at which a statement is heard that was made then: what was on its way for longer than clocks are apart is
    /// as old as that.
    pub fn of(now: &Self, made: i64) -> Self {
        let late = now.unix.saturating_sub(made.saturating_add(LEEWAY)).max(0);
        let boot = now.boot.as_ref().map(|(id, since)| (id.clone(), since.saturating_sub(late)));
        Self { unix: now.unix.saturating_sub(late), boot }
    }

    /// How long ago it was; none where the clock says that it is to come.
    pub fn age(&self, now: &Self) -> Option<Duration> {
        let by_clock = now.unix.saturating_sub(self.unix);
        let seconds = match (&self.boot, &now.boot) {
            // A machine that was paused from outside, or goes on from a snapshot, knows of that by its clock alone.
            (Some((then, since)), Some((boot, now))) if then == boot => {
                let by_boot = now.saturating_sub(*since);
                if by_boot < 0 { by_boot } else { by_boot.max(by_clock) }
            }
            _ => by_clock,
        };
        u64::try_from(seconds).ok().map(Duration::from_secs)
    }
}

#[cfg(target_os = "linux")]
fn boot() -> Option<(String, i64)> {
    let id = read::raw(Path::new("/proc/sys/kernel/random/boot_id"), Trust::Anyone, Limit::FILE).ok()?;
    let since = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Some((String::from_utf8_lossy(&id).trim().to_owned(), since.tv_sec))
}

#[cfg(not(target_os = "linux"))]
fn boot() -> Option<(String, i64)> {
    None
}

impl Heard {
    /// What the file says; none where there is none.
    ///
    /// # Errors
    /// `Kind::Destination` where it cannot be read, or is damaged: nobody knows then whom to believe.
    pub fn read(store: &Folder) -> Result<Option<Self>> {
        let read = store.read(HEARD, MAX_HEARD);
        read.and_then(|bytes| bytes.map(|bytes| Self::parse(&bytes)).transpose())
            .map_err(|why| unreadable(&store.path().join(HEARD), why))
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(bytes).map_err(|error| format!("it is damaged: {error}"))
    }

    /// Keeps it, and the CAs beside it.
    ///
    /// # Errors
    /// `Kind::Destination` where it cannot be written.
    pub fn write(&self, store: &Folder) -> Result<()> {
        let cas = self.known.trust.tls_cas.concat().into_bytes();
        let bytes = serde_json::to_vec(self).context(Kind::Internal, HEARD)?;
        let put = |name: &str, bytes: &[u8]| {
            let cannot = || format!("cannot write {}", store.path().join(name).display());
            store.replace_durably(name, bytes, PUBLIC_FILE).context(Kind::Destination, cannot())
        };
        if store.read(AUTHORITY_CA, MAX_HEARD) != Ok(Some(cas.clone())) {
            put(AUTHORITY_CA, &cas)?;
        }
        put(HEARD, &bytes)
    }

    /// Whether what is in the folder is the KRL that was put there.
    pub fn has(&self, krl: &[u8]) -> bool {
        self.lists.hash == sha256(krl)
    }
}

/// In hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    hex(digest(&SHA256, bytes).as_ref())
}

/// That something was heard in the folder at `path` within that time.
///
/// # Errors
/// `Kind::Unreachable` where it was not; `Kind::Destination` where nobody knows.
pub fn within(path: &Path, after: Duration, clock: &Clock) -> Result<()> {
    let age = age(path, clock)?;
    if age.is_some_and(|age| age < after) {
        return Ok(());
    }
    Err(Error::new(Kind::Unreachable, silent(age))
        .context("nobody gets in")
        .hint("see the log of `host watch`: is it running, and does it reach the authority?"))
}

/// How long ago the last statement was heard by which the KRL in the folder at `path` is of now; none where nothing was, or
/// the clock says that it is to come.
///
/// # Errors
/// `Kind::Destination` where nobody knows.
pub fn age(path: &Path, clock: &Clock) -> Result<Option<Duration>> {
    let path = path.join(HEARD);
    match read::raw(&path, Trust::Anyone, Limit::bytes(MAX_HEARD)) {
        Err(unfit) if unfit.is_missing() => Ok(None),
        read => {
            let parsed = read.map_err(|unfit| unfit.to_string()).and_then(|bytes| Heard::parse(&bytes));
            let heard = parsed.map_err(|why| unreadable(&path, why))?;
            Ok(heard.lists.krl.age(&Moment::now(clock)))
        }
    }
}

/// That the authority has not been heard.
pub fn silent(age: Option<Duration>) -> String {
    match age {
        Some(age) => {
            format!("nothing new was heard of the authority for {}", humantime::format_duration(age))
        }
        None => "nothing was heard of the authority yet".to_owned(),
    }
}

/// That the list of TLS servers is not what the authority states.
pub fn behind(age: Option<Duration>) -> String {
    let age = age.map_or_else(|| "yet".to_owned(), |age| format!("for {}", humantime::format_duration(age)));
    format!("the list of TLS servers was not brought up to date {age}")
}

fn unreadable(path: &Path, why: String) -> Error {
    Error::new(Kind::Destination, why).context(format!("cannot read {}", path.display())).hint(
        "it says which authority is believed; removed, the next one that is reached by the pin or CA file is believed from then on",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(unix: i64, boot: Option<(&str, i64)>) -> Moment {
        Moment { unix, boot: boot.map(|(id, since)| (id.to_owned(), since)) }
    }

    #[test]
    fn age_is_of_the_boot_and_of_the_clock_after_one() {
        let age = |then: &Moment, now: &Moment| then.age(now).map(|age| age.as_secs());
        let then = moment(1000, Some(("a", 50)));
        // A clock that is put back makes nothing younger, and by one that is put forward it may be older.
        for (clock, old) in [(-7, 30), (0, 30), (1000, 30), (1029, 30), (1031, 31), (90_000, 89_000)] {
            assert_eq!(age(&then, &moment(clock, Some(("a", 80)))), Some(old), "{clock}");
        }
        assert_eq!(age(&then, &moment(1000, Some(("a", 49)))), None);
        for other in [Some(("b", 80)), None] {
            assert_eq!(age(&then, &moment(1300, other)), Some(300));
            assert_eq!(age(&then, &moment(999, other)), None, "a clock that was put back says nothing");
        }
        // What was held up is as old as it says, beyond what clocks may be apart.
        let now = moment(2000, Some(("a", 80)));
        for (made, late) in [(2060, 0), (2000, 0), (1940, 0), (1939, 1), (1400, 540)] {
            assert_eq!(age(&Moment::of(&now, made), &now), Some(late), "{made}");
            assert_eq!(age(&Moment::of(&now, made), &moment(2000, Some(("b", 1)))), Some(late), "{made}");
        }
    }

    #[test]
    fn this_boot_has_a_time() {
        let now = Moment::now(&Clock::held(7));
        assert_eq!((now.unix, now.boot.is_some()), (7, cfg!(target_os = "linux")));
        assert_eq!(now.age(&Moment::now(&Clock::held(7))).unwrap().as_secs(), 0);
    }

    #[test]
    fn what_was_never_heard_or_cannot_be_read_lets_nobody_in() {
        let folder = tempfile::tempdir().unwrap();
        let ask = || within(folder.path(), Duration::from_secs(60), &Clock::system()).unwrap_err();
        let error = ask();
        assert_eq!(error.to_string(), "nobody gets in: nothing was heard of the authority yet");
        assert_eq!(error.kind(), Kind::Unreachable);
        for damaged in ["", "{}", "[]", "{\"at\":"] {
            std::fs::write(folder.path().join(HEARD), damaged).unwrap();
            assert!(ask().to_string().contains("authority.heard: it is damaged: "), "{}", ask());
            assert_eq!(ask().kind(), Kind::Destination);
        }
    }
}
