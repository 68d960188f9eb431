//! The store as it is found: put back, lost, exchanged, in nobody's hands, read where nothing can be written.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use proptest::prelude::*;
use rusqlite::Connection;
use serde_json::json;

use super::super::outside::{beside, read_mark};
use super::super::schema::{APPLICATION_ID, MIGRATIONS};
use super::*;
use crate::authority::store::loss::Mark;
use crate::authority::store::{Event, lost};
use crate::error::Kind;

mod lost;

/// A store as the version before marks left it, with one event.
pub(super) fn old_store(path: &Path) {
    let old = Connection::open(path).unwrap();
    old.execute_batch(MIGRATIONS[0]).unwrap();
    old.execute_batch(MIGRATIONS[1]).unwrap();
    old.pragma_update(None, "application_id", APPLICATION_ID).unwrap();
    old.pragma_update(None, "user_version", 2).unwrap();
    old.execute(
        "INSERT INTO events (time, event, id, body) VALUES (1, 'signed', 's1', '{\"event\":\"signed\"}')",
        [],
    )
    .unwrap();
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn open(path: &Path) -> Result<Sqlite> {
    Sqlite::open(path, &StoreKey::beside(path), NOW)
}

fn mark(path: &Path) -> Mark {
    read_mark(path, Owner::me()).unwrap().unwrap()
}

fn all(store: &dyn Trail) -> Vec<Event> {
    wait(store.events(EventFilter::default(), Cursor::default(), 100)).unwrap()
}

fn refuse(store: &Sqlite, id: &str) {
    wait(store.refuse(refusal(id, None))).unwrap();
}

/// When it was last put back.
fn restored(store: &dyn Store) -> Option<i64> {
    store.restored().map(|restored| restored.time)
}

/// What it says that it has lost.
fn loss(store: &dyn Store) -> Option<String> {
    wait(store.mark()).err().map(|error| lost(&error).unwrap_or_else(|| panic!("{error}")).to_string())
}

fn hints(error: &crate::error::Error) -> String {
    error.hints().join("\n")
}

struct Home {
    dir: TempDir,
}

impl Home {
    fn new() -> Self {
        let home = Self { dir: tempfile::tempdir().unwrap() };
        Sqlite::create(&home.path(), &StoreKey::beside(&home.path())).unwrap();
        home
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("authority.db")
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn copy(&self, from: &str, to: &str) {
        fs::copy(self.at(from), self.at(to)).unwrap();
    }

    fn names(&self) -> Vec<String> {
        let names = fs::read_dir(self.dir.path()).unwrap();
        let mut names: Vec<_> =
            names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// What befalls a store.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Event,
    Mark,
    Restart,
    Kill,
    Backup,
    PutBack(usize),
}

fn fates() -> impl Strategy<Value = Vec<Fate>> {
    let fate = prop_oneof![
        4 => Just(Fate::Event),
        2 => Just(Fate::Mark),
        1 => Just(Fate::Restart),
        1 => Just(Fate::Kill),
        2 => Just(Fate::Backup),
        2 => (0..4_usize).prop_map(Fate::PutBack),
    ];
    prop::collection::vec(fate, 4..14)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever copy is put back, of whichever past, is known where it lacks something; nothing else is an
    /// alarm; and no two events ever have one number.
    #[test]
    fn a_copy_is_known_whatever_went_before(fates in fates()) {
        let (mut home, mut now) = (Home::new(), NOW);
        let mut opened = Some(open(&home.path()).unwrap());
        let (mut last, mut copies, mut seen) = (0, Vec::new(), std::collections::BTreeMap::new());
        for fate in fates {
            now += 1;
            let mut lacks = false;
            let store = opened.take().unwrap();
            match fate {
                Fate::Event => {
                    refuse(&store, &format!("d-{now}"));
                    opened = Some(store);
                }
                Fate::Mark => {
                    wait(store.mark()).unwrap();
                    opened = Some(store);
                }
                Fate::Restart => drop(store),
                Fate::Kill => {
                    let killed = Home { dir: tempfile::tempdir().unwrap() };
                    for end in ["", "-wal", ".mark"] {
                        fs::copy(beside(&home.path(), end), beside(&killed.path(), end)).unwrap();
                    }
                    fs::copy(home.at("store.key"), killed.at("store.key")).unwrap();
                    drop(store);
                    home = killed;
                }
                Fate::Backup => {
                    let read = |end| fs::read(beside(&home.path(), end)).unwrap();
                    copies.push((last, ["", "-wal"].map(|end| (end, read(end)))));
                    opened = Some(store);
                }
                Fate::PutBack(nth) => {
                    drop(store);
                    if let Some((had, files)) = copies.get(nth) {
                        files.iter().for_each(|(end, bytes)| fs::write(beside(&home.path(), end), bytes).unwrap());
                        lacks = *had < last;
                    }
                }
            }
            let store = match opened.take() {
                Some(store) => store,
                None => {
                    let store = Sqlite::open(&home.path(), &StoreKey::beside(&home.path()), now).unwrap();
                    prop_assert_eq!(loss(&store).is_some(), lacks, "{:?}", fate);
                    if lacks {
                        wait(store.resume(now)).unwrap();
                        prop_assert_eq!((loss(&store), restored(&store)), (None, Some(now)));
                    }
                    store
                }
            };
            for event in all(&store) {
                let id = event.body.get("denial_id").cloned().unwrap_or_else(|| event.body["time"].clone());
                prop_assert_eq!(seen.entry(event.cursor.event).or_insert_with(|| id.clone()), &id);
                last = event.cursor.event;
            }
            opened = Some(store);
        }
    }
}

#[test]
fn whatever_ends_an_authority_is_no_alarm() {
    let home = Home::new();
    let store = open(&home.path()).unwrap();
    ["d-1", "d-2"].iter().for_each(|id| refuse(&store, id));
    // As kill -9 leaves them: the log beside it, the mark behind; or one of any earlier time.
    let killed = tempfile::tempdir().unwrap();
    let path = killed.path().join("authority.db");
    for end in ["", "-wal", ".mark"] {
        fs::copy(beside(&home.path(), end), beside(&path, end)).unwrap();
    }
    fs::copy(home.at("store.key"), killed.path().join("store.key")).unwrap();
    assert_eq!(mark(&path).reached.sequence, 0);
    let again = open(&path).unwrap();
    assert_eq!((loss(&again), all(&again).len()), (None, 2));
    // Two at once, each of which leaves marks.
    let beside_it = open(&home.path()).unwrap();
    refuse(&beside_it, "d-3");
    wait(store.mark()).unwrap();
    refuse(&store, "d-4");
    drop(beside_it);
    drop(store);
    assert_eq!(loss(&open(&home.path()).unwrap()), None);
}

#[test]
fn an_old_store_is_adopted_and_its_older_copies_are_known() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("authority.db");
    old_store(&path);
    fs::copy(&path, dir.path().join("backup")).unwrap();
    let store = open(&path).unwrap();
    assert_eq!((restored(&store), mark(&path).reached.sequence), (None, 1));
    refuse(&store, "d-2");
    drop(store);
    let named = mark(&path).store;
    // A backup of the time before the upgrade.
    fs::copy(dir.path().join("backup"), &path).unwrap();
    // Whoever can put it there could have written to it: that nobody has, the operator says.
    let error = open(&path).unwrap_err();
    assert!(error.to_string().contains("from before its rows were sealed"), "{error}");
    assert!(hints(&error).contains("nobody else can have written to it, remove /"), "{error:?}");
    fs::remove_file(dir.path().join("store.key")).unwrap();
    let store = open(&path).unwrap();
    assert!(loss(&store).is_some());
    drop(store);
    assert_eq!(mark(&path).store, named);
}

#[test]
fn a_store_that_is_lost_does_not_begin_anew_by_itself() {
    let home = Home::new();
    let store = open(&home.path()).unwrap();
    refuse(&store, "d-1");
    drop(store);
    let before = mark(&home.path());
    let empty_database = |path: &Path| {
        let connection = Connection::open(path).unwrap();
        connection.execute_batch("CREATE TABLE a (b); DROP TABLE a").unwrap();
    };
    type Make<'a> = &'a dyn Fn(&Path);
    let make: [(&str, Make<'_>); 3] = [
        ("there is no such file", &|_| ()),
        ("the file is empty", &|path| fs::write(path, "").unwrap()),
        ("the database is empty", &empty_database),
    ];
    for (why, make) in make {
        fs::remove_file(home.path()).unwrap();
        make(&home.path());
        for error in
            [open(&home.path()).unwrap_err(), SqliteTrail::open(&home.path(), Owner::me()).unwrap_err()]
        {
            assert!(error.to_string().ends_with(why), "{error}");
            assert!(hints(&error).contains("authority new-store` begins an empty one"), "{error:?}");
        }
        fs::write(home.path(), "").unwrap();
    }
    Sqlite::begin_anew(&home.path(), &StoreKey::beside(&home.path()), NOW).unwrap();
    let store = open(&home.path()).unwrap();
    let events = all(&store);
    assert_eq!((restored(&store), loss(&store), events[0].cursor.event), (Some(NOW), None, 2));
    assert_eq!(events[0].body["reason"], "new_store");
    assert_ne!(mark(&home.path()).store, before.store);
    drop(store);
    let error = Sqlite::begin_anew(&home.path(), &StoreKey::beside(&home.path()), NOW).unwrap_err();
    assert!(error.to_string().ends_with("there is a file already"), "{error}");
}

#[test]
fn another_store_is_not_taken() {
    let (home, other) = (Home::new(), Home::new());
    fs::copy(other.path(), home.path()).unwrap();
    let error = open(&home.path()).unwrap_err();
    assert_eq!(error.kind(), Kind::Usage);
    assert!(error.to_string().contains("it is another store ("), "{error}");
    assert!(hints(&error).contains("where this one is meant, remove the mark"), "{error:?}");
    fs::write(home.at("authority.db.mark"), "{\"store\":").unwrap();
    let error = open(&home.path()).unwrap_err();
    assert!(error.to_string().contains("mark: it is damaged"), "{error}");
    fs::remove_file(home.at("authority.db.mark")).unwrap();
    let error = open(&home.path()).unwrap_err();
    assert!(
        error.to_string().ends_with("store.key is not the key that the store's rows are sealed with"),
        "{error}"
    );
    fs::copy(other.at("store.key"), home.at("store.key")).unwrap();
    assert!(loss(&open(&home.path()).unwrap()).unwrap().contains("no mark stands beside the store"));
}

#[test]
fn nothing_is_committed_to_a_file_that_is_gone() {
    for (end, replaced) in [("", false), ("", true), ("-wal", false), ("-shm", true)] {
        let home = Home::new();
        let store = open(&home.path()).unwrap();
        refuse(&store, "d-1");
        let (file, away) = (beside(&home.path(), end), home.at("away"));
        fs::rename(&file, &away).unwrap();
        if replaced {
            fs::copy(&away, &file).unwrap();
        }
        for error in [
            wait(store.refuse(refusal("d-2", None))).unwrap_err(),
            wait(store.ready()).unwrap_err(),
            wait(store.mark()).unwrap_err(),
        ] {
            assert_eq!(error.kind(), Kind::Usage, "{error}");
            let why = if replaced { "was replaced while it is open" } else { "was removed while it is open" };
            assert!(error.to_string().contains(why), "{error}");
        }
        // The very file heals it.
        fs::rename(&away, &file).unwrap();
        refuse(&store, "d-3");
        wait(store.mark()).unwrap();
    }
}

#[test]
fn closing_a_lost_store_takes_nothing_of_another_away() {
    let home = Home::new();
    let store = open(&home.path()).unwrap();
    fs::rename(home.path(), home.at("away")).unwrap();
    home.copy("away", "authority.db");
    fs::rename(home.at("authority.db-wal"), home.at("away-wal")).unwrap();
    fs::write(home.at("authority.db-wal"), "the right store's").unwrap();
    drop(store);
    assert_eq!(fs::read_to_string(home.at("authority.db-wal")).unwrap(), "the right store's");
}

#[test]
fn reading_makes_and_changes_nothing() {
    let home = Home::new();
    let store = open(&home.path()).unwrap();
    refuse(&store, "d-1");
    let read = |path: &Path| {
        let store = SqliteTrail::open(path, Owner::me()).unwrap();
        (all(&store).len(), wait(store.instances()).unwrap().len())
    };
    let state = |home: &Home| {
        let facts = |name: String| (fs::read(home.at(&name)).unwrap(), name);
        home.names().into_iter().filter(|name| !name.ends_with("-shm")).map(facts).collect::<Vec<_>>()
    };
    // One that is open elsewhere; one that was killed, with its log and without `-shm`.
    assert_eq!(read(&home.path()), (1, 0));
    let killed = Home { dir: tempfile::tempdir().unwrap() };
    for end in ["", "-wal"] {
        fs::copy(beside(&home.path(), end), beside(&killed.path(), end)).unwrap();
    }
    let before = state(&killed);
    assert_eq!(read(&killed.path()), (1, 0));
    assert_eq!(state(&killed), before);
    drop(store);
    // One that stands still, for its owner to read alone, under a name that means something in a URI.
    let odd = home.at("a?immutable=0#%41.db");
    fs::rename(home.path(), &odd).unwrap();
    fs::set_permissions(&odd, fs::Permissions::from_mode(0o400)).unwrap();
    let before = state(&home);
    assert_eq!(read(&odd), (1, 0));
    assert_eq!(state(&home), before);
    // An older one.
    let old = Home { dir: tempfile::tempdir().unwrap() };
    old_store(&old.path());
    let before = state(&old);
    assert_eq!(read(&old.path()), (1, 0));
    assert_eq!(state(&old), before);
}

#[test]
fn one_that_changes_while_it_is_read_is_not_believed() {
    let home = Home::new();
    let reading = SqliteTrail::open(&home.path(), Owner::me()).unwrap();
    let store = open(&home.path()).unwrap();
    refuse(&store, "d-1");
    assert_eq!(all(&reading).len(), 0, "the log alone has grown");
    drop(store);
    let error = wait(reading.events(EventFilter::default(), Cursor::default(), 100)).unwrap_err();
    assert!(error.to_string().ends_with("was changed while it was read"), "{error}");
}
