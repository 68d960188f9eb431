use std::fs;
use std::os::unix::fs::symlink;

use super::*;
use crate::authority::policy::Source;
use crate::authority::policy_files::PolicyFiles;
use crate::folder::read::Trust;

const ROLE: &str = "kind: role\nversion: v7\nmetadata: {name: deploy}\nspec: {options: {permit_pty: true}}\n";

/// A folder on the disk, under a clock that the test moves: ten seconds after what it has written.
struct Bench {
    folder: tempfile::TempDir,
    watch: Watch,
    time: u64,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.yaml"), ROLE).unwrap();
        let mut bench = Self { folder, watch: Watch::default(), time: 0 };
        let read = bench.files().read();
        bench.watch.start(bench.when(), bench.files().facts(), read, true).unwrap().unwrap();
        assert!(matches!(bench.look(), Look::Unchanged));
        bench
    }

    fn files(&self) -> PolicyFiles {
        PolicyFiles::new(self.folder.path().to_owned(), Trust::Anyone)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn when(&self) -> When {
        When { at: Duration::from_secs(self.time), now: stamp::now() + nanos(Duration::from_secs(10)) }
    }

    /// A second later.
    fn look(&mut self) -> Look {
        self.look_asked(false)
    }

    fn look_asked(&mut self, asked: bool) -> Look {
        self.time += 1;
        let (when, files) = (self.when(), self.files());
        self.watch.look(when, asked, files.facts(), || files.read())
    }

    /// The roles of what is taken at the second look; or why it is not.
    #[track_caller]
    fn settles(&mut self) -> Result<String, String> {
        assert!(matches!(self.look(), Look::Waits { .. }));
        let settled = match self.look() {
            Look::Taken(policy) => Ok(policy.summary()),
            Look::Refused(error) => {
                Err(error.hints().iter().fold(error.to_string(), |all, hint| format!("{all} | {hint}")))
            }
            other => panic!("{other:?}"),
        };
        assert!(matches!(self.look(), Look::Unchanged | Look::Waits { .. }), "it is judged once");
        settled.map_err(|said| said.replace(&self.folder.path().display().to_string(), "P"))
    }
}

#[test]
fn a_change_is_seen_whose_size_and_time_are_the_same() {
    let mut bench = Bench::new();
    let modified = fs::metadata(bench.path("a.yaml")).unwrap().modified().unwrap();
    bench.write("a.yaml", &ROLE.replace("deploy", "delpoy"));
    fs::File::options().append(true).open(bench.path("a.yaml")).unwrap().set_modified(modified).unwrap();
    assert_eq!(bench.settles().unwrap(), "0 bots, 1 role, 0 join tokens from 1 file");
    // Another file of the same, as `cp -p` and `mv` leave it.
    bench.write(".new", &ROLE.replace("deploy", "depoly"));
    fs::File::options().append(true).open(bench.path(".new")).unwrap().set_modified(modified).unwrap();
    assert!(matches!(bench.look(), Look::Unchanged), "what is hidden is no policy");
    fs::rename(bench.path(".new"), bench.path("a.yaml")).unwrap();
    bench.settles().unwrap();
}

#[test]
fn what_a_kubelet_or_a_link_swaps_is_taken_at_the_second_look() {
    let mut bench = Bench::new();
    for (version, roles) in [("..1", 1), ("..2", 2)] {
        fs::create_dir(bench.path(version)).unwrap();
        let more = ROLE.replace("deploy", "more");
        let text = if roles == 1 { ROLE.to_owned() } else { format!("{ROLE}---\n{more}") };
        fs::write(bench.path(version).join("a.yaml"), text).unwrap();
        symlink(version, bench.path("..data_tmp")).unwrap();
        fs::rename(bench.path("..data_tmp"), bench.path("..data")).unwrap();
        if roles == 1 {
            fs::remove_file(bench.path("a.yaml")).unwrap();
            symlink("..data/a.yaml", bench.path("a.yaml")).unwrap();
        }
        let s = if roles == 1 { "" } else { "s" };
        assert_eq!(bench.settles().unwrap(), format!("0 bots, {roles} role{s}, 0 join tokens from 1 file"));
    }
}

#[test]
fn what_moves_is_waited_for() {
    let mut bench = Bench::new();
    for looks in 1..30 {
        // Nothing else than that it is written again.
        bench.write("a.yaml", ROLE);
        let Look::Waits { looks: found, latest } = bench.look() else { panic!("taken while it moves") };
        assert_eq!((found, latest), (looks, Some(bench.path("a.yaml"))));
    }
    // A file appears, and goes.
    bench.write("b.yaml", &ROLE.replace("deploy", "b"));
    assert!(matches!(bench.look(), Look::Waits { .. }));
    fs::remove_file(bench.path("b.yaml")).unwrap();
    assert!(matches!(bench.look(), Look::Waits { .. }));
    // Somebody writes aside what will be renamed.
    bench.write(".b.yaml.new", "kind: ");
    assert!(matches!(bench.look(), Look::Waits { .. }));
    bench.write(".b.yaml.new", "kind: role");
    assert!(matches!(bench.look(), Look::Waits { .. }));
    assert!(matches!(bench.look(), Look::Taken(_)));
}

#[test]
fn sighup_asks_for_a_look_and_gets_what_stands_still() {
    let mut bench = Bench::new();
    assert!(matches!(bench.look_asked(true), Look::Waits { .. }));
    bench.write("a.yaml", &ROLE.replace("deploy", "other"));
    assert!(matches!(bench.look_asked(true), Look::Waits { .. }));
    assert!(matches!(bench.look_asked(true), Look::Taken(_)));
    assert!(matches!(bench.look(), Look::Unchanged));
    // Less than a second apart is no second look.
    bench.write("a.yaml", ROLE);
    assert!(matches!(bench.look(), Look::Waits { .. }));
    bench.time -= 1;
    assert!(matches!(bench.look_asked(true), Look::Waits { .. }));
    assert!(matches!(bench.look(), Look::Taken(_)));
}

#[test]
fn what_is_younger_than_a_second_is_waited_for_and_a_clock_ahead_is_not() {
    let bench = Bench::new();
    let facts = bench.files().facts();
    let changed = facts.stamps().map(|(_, stamp)| stamp.changed).max().unwrap();
    for (age, young, old) in [
        (Duration::ZERO, true, false),
        (STILL - Duration::from_nanos(1), true, false),
        // The folder and its file were made within the second.
        (STILL, false, true),
    ] {
        let now = changed + nanos(age);
        assert_eq!((facts.is_young(now), facts.is_old(now)), (young, old), "{age:?}");
    }
    // Though two looks a second apart are the same: a clock was set back, or is a little ahead.
    let mut watch = Watch::default();
    let mut look = |at: u64, age: Duration| {
        let when = When { at: Duration::from_secs(at), now: changed + nanos(age) };
        watch.look(when, false, bench.files().facts(), || bench.files().read())
    };
    for (at, age) in [(0, Duration::ZERO), (1, Duration::ZERO), (2, STILL / 2)] {
        assert!(matches!(look(at, age), Look::Waits { .. }));
    }
    assert!(matches!(look(3, STILL * 3 / 2), Look::Taken(_)));
    let long_before = changed - nanos(Duration::from_secs(100));
    assert!(!facts.is_young(long_before) && !facts.is_old(long_before));
    let mut watch = Watch::default();
    let mut start = |at: u64| {
        let when = When { at: Duration::from_secs(at), now: long_before };
        watch.start(when, bench.files().facts(), bench.files().read(), true)
    };
    assert!(start(0).is_none());
    start(1).unwrap().unwrap();
}

#[test]
fn a_policy_that_is_gone_is_none() {
    let mut bench = Bench::new();
    fs::remove_file(bench.path("a.yaml")).unwrap();
    let none = "no policy in P: it holds no `*.yaml` or `*.yml` file | put bots, roles and join tokens there: \
                docs/policy.md shows each | `machine-id authority policy add` writes a file for one project's jobs | hidden files and subfolders are passed over";
    assert_eq!(bench.settles().unwrap_err(), none);
    bench.write("a.yaml", "# nothing here\n");
    assert!(bench.settles().unwrap_err().starts_with("P/a.yaml:1:1: no policy: no file holds a resource | "));
    fs::remove_dir_all(bench.folder.path()).unwrap();
    assert!(bench.settles().unwrap_err().starts_with("cannot read the policy P: No such file"));
    fs::create_dir(bench.folder.path()).unwrap();
    bench.write("a.yaml", ROLE);
    bench.settles().unwrap();
}

#[test]
fn what_could_not_be_read_is_read_again_and_told_once() {
    let mut bench = Bench::new();
    fs::remove_file(bench.path("a.yaml")).unwrap();
    fs::create_dir(bench.path("a.yaml")).unwrap();
    assert!(bench.settles().unwrap_err().starts_with("cannot read P/a.yaml"));
    for _ in 0..5 {
        assert!(!matches!(bench.look(), Look::Refused(_)));
    }
    let facts = bench.files().facts();
    let text =
        || Ok(PolicyText { sources: vec![Source { name: "a".into(), text: ROLE.into() }], manifest: None });
    bench.time += 2;
    let when = bench.when();
    assert!(matches!(bench.watch.look(when, false, facts.clone(), text), Look::Waits { .. }));
    bench.time += 2;
    let when = bench.when();
    assert!(
        matches!(bench.watch.look(when, false, facts, text), Look::Taken(_)),
        "nothing of it had changed"
    );
}

#[test]
fn a_manifest_holds_from_then_on() {
    let mut bench = Bench::new();
    let list = |bench: &Bench| manifest::of(&bench.files().read().unwrap().sources);
    bench.write("policy.sha256", &list(&bench));
    bench.settles().unwrap();
    // Half of a new policy.
    bench.write("b.yaml", &ROLE.replace("deploy", "b"));
    let said = bench.settles().unwrap_err();
    assert!(
        said.starts_with("P/policy.sha256: `b.yaml` is not listed | in the policy's folder: `sha256sum"),
        "{said}"
    );
    fs::remove_file(bench.path("policy.sha256")).unwrap();
    let gone = "`policy.sha256` is gone from the policy's folder | write it again; an authority that is restarted does \
                without it";
    assert_eq!(bench.settles().unwrap_err(), gone);
    bench.write("policy.sha256", &list(&bench));
    assert_eq!(bench.settles().unwrap(), "0 bots, 2 roles, 0 join tokens from 2 files");
}

#[test]
fn a_start_that_waited_in_vain_says_so() {
    let mut bench = Bench::new();
    bench.write("a.yaml", "kind: ");
    bench.look();
    let error = bench.watch.still_written(bench.folder.path());
    let said = error.to_string().replace(&bench.folder.path().display().to_string(), "P");
    assert_eq!(said, "the policy P does not stand still");
    assert!(error.hints()[0].ends_with("a.yaml is still being changed"), "{:?}", error.hints());
}
