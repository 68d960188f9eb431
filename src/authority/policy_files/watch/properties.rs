//! Whatever a writer does, and whenever it is looked at: nothing is granted
//! that neither the old nor the new whole policy grants.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::authority::policy::{PolicyRequest, Source};
use crate::authority::policy_files::manifest;
use crate::join::verify::Identity;
use crate::wire::{OutputRequest, SshRequest};

const FILES: [&str; 3] = ["a.yaml", "b.yaml", "c.yml"];
const SECOND: u64 = 1000;
/// When the writer begins, in milliseconds; what was there is old by then.
const BEGINNING: u64 = 10 * SECOND;

/// Files by name: what they hold.
type Whole = BTreeMap<&'static str, String>;

/// A small policy in one to three files: every line of it can be its last.
fn whole() -> impl Strategy<Value = Whole> {
    let rule = (prop::option::of(0..2_u8), prop::option::of(0..2_u8));
    let role = (1..8_u8, 0..8_u8, any::<bool>(), any::<bool>(), 1..3_u8);
    let parts = (
        prop::collection::vec(rule, 1..3),
        role.clone(),
        prop::option::of(role),
        prop::option::of(any::<bool>()),
    );
    (parts, prop::collection::vec(0..FILES.len(), 5)).prop_map(|((rules, first, second, mfa), places)| {
        let mut token = String::from(
            "kind: token\nversion: v2\nmetadata:\n  name: ci\nspec:\n  roles: [Bot]\n  bot_name: deployer\n  \
             join_method: github\n  github:\n    allow:\n",
        );
        for (reference, environment) in rules {
            token.push_str("      - repository: octo-org/app\n");
            token.extend(reference.map(|at| format!("        ref: refs/heads/{}\n", ["main", "next"][usize::from(at)])));
            token.extend(environment.map(|at| format!("        environment: {}\n", ["prod", "test"][usize::from(at)])));
        }
        let roles = if second.is_some() { "    - first\n    - second\n" } else { "    - first\n" };
        let bot =
            format!("kind: bot\nversion: v1\nmetadata:\n  name: deployer\nspec:\n  roles:\n{roles}  max_session_ttl: 2h\n");
        let mut documents = vec![token, bot, role_text("first", first)];
        documents.extend(second.map(|second| role_text("second", second)));
        documents.extend(mfa.map(|mfa| {
            format!(
                "kind: cluster_auth_preference\nversion: v2\nmetadata:\n  name: cluster-auth-preference\nspec:\n  \
                 require_session_mfa: {mfa}\n"
            )
        }));
        let mut whole = Whole::new();
        for (document, place) in documents.into_iter().zip(places) {
            whole.entry(FILES[place]).or_default().push_str(&format!("---\n{document}"));
        }
        whole
    })
}

fn role_text(name: &str, (allow, deny, pty, mfa, hours): (u8, u8, bool, bool, u8)) -> String {
    let logins = |bits: u8| {
        let named = ["deploy", "root", "ubuntu"].into_iter().enumerate();
        named
            .filter(|(at, _)| bits >> at & 1 == 1)
            .map(|(_, login)| format!("      - {login}\n"))
            .collect::<String>()
    };
    let mut text = format!(
        "kind: role\nversion: v7\nmetadata:\n  name: {name}\nspec:\n  allow:\n    node_labels: {{'*': '*'}}\n    logins:\n{}",
        logins(allow)
    );
    if deny > 0 {
        text.push_str(&format!("  deny:\n    logins:\n{}", logins(deny)));
    }
    text.push_str(&format!("  options:\n    max_session_ttl: {hours}h\n"));
    if !pty {
        text.push_str("    permit_pty: false\n");
    }
    if mfa && name == "second" {
        text.push_str("    require_session_mfa: true\n");
    }
    text
}

fn sources(whole: &Whole) -> Vec<Source> {
    whole.iter().map(|(name, text)| Source { name: format!("/p/{name}"), text: text.clone() }).collect()
}

/// What jobs get: who, and what of it, to how many seconds.
type Granted = BTreeMap<(String, String), u64>;

fn granted(policy: &Policy) -> Granted {
    let mut granted = Granted::new();
    let Some(token) = policy.token("ci") else { return granted };
    let output = OutputRequest {
        name: "ssh".to_owned(),
        kind: "ssh".to_owned(),
        roles: Vec::new(),
        options: BTreeMap::new(),
        ssh: Some(SshRequest { public_key: "ssh-ed25519 AAAA".to_owned() }),
        tls: None,
    };
    for (repository, reference, environment) in [
        ("app", "main", "prod"),
        ("app", "main", ""),
        ("app", "next", "test"),
        ("app", "stray", "prod"),
        ("app", "stray", "stray"),
        ("app", "stray", ""),
        ("other", "main", "prod"),
    ] {
        let mut claims =
            json!({"repository": format!("octo-org/{repository}"), "ref": format!("refs/heads/{reference}")});
        let claims = claims.as_object_mut().unwrap();
        if !environment.is_empty() {
            claims.insert("environment".to_owned(), environment.into());
        }
        let identity = Identity::for_test(claims.clone());
        let request = PolicyRequest {
            outputs: std::slice::from_ref(&output),
            leaves: &[],
            ttl_seconds: 4 * 3600,
            public_url: None,
        };
        let Ok(grant) = policy.decide(token, &identity, &request) else { continue };
        for output in &grant.outputs {
            let ssh = output.ssh.as_ref().unwrap();
            for what in ssh.principals.iter().cloned().chain(ssh.extensions.iter().map(ToString::to_string)) {
                granted.insert((format!("{repository} {reference} {environment}"), what), output.ttl);
            }
        }
    }
    granted
}

/// The folder as it is at one time.
#[derive(Clone, Default)]
struct Folder {
    files: BTreeMap<&'static str, (String, Stamp)>,
    changed: Nanos,
}

/// One thing that a writer does at once.
#[derive(Clone, Debug)]
enum Step {
    /// Bytes from here on; the file gets longer, if need be.
    Write(&'static str, usize, String),
    /// What is behind that is cut off.
    Cut(&'static str, usize),
    /// Another file in its place.
    Rename(&'static str, String),
    Remove(&'static str),
}

impl Folder {
    fn step(&mut self, step: &Step, now: Nanos) {
        let new = |text: String| {
            let (length, inode) = (u64::try_from(text.len()).unwrap(), u64::try_from(now).unwrap());
            (text, Stamp { device: 1, inode, length, modified: now, changed: now })
        };
        let mut change = |name: &'static str, change: &dyn Fn(&mut String)| {
            let mut made = false;
            let (text, stamp) = self.files.entry(name).or_insert_with(|| {
                made = true;
                new(String::new())
            });
            change(text);
            stamp.length = u64::try_from(text.len()).unwrap();
            // As `rsync -t` and `cp -p` would have it: only the last change is true.
            stamp.changed = now;
            if made {
                self.changed = now;
            }
        };
        match step {
            Step::Write(name, at, more) => change(name, &|text| {
                let rest = text.get(at + more.len()..).unwrap_or_default().to_owned();
                text.truncate(*at);
                text.push_str(more);
                text.push_str(&rest);
            }),
            Step::Cut(name, length) => change(name, &|text| text.truncate(*length)),
            Step::Rename(name, text) => {
                self.files.insert(name, new(text.clone()));
                self.changed = now;
            }
            Step::Remove(name) => {
                self.files.remove(name);
                self.changed = now;
            }
        }
    }

    fn facts(&self) -> Facts {
        let of = |(name, (_, stamp)): (&&str, &(String, Stamp))| (Path::new("/p").join(name), Some(*stamp));
        let folder = Stamp { device: 1, inode: 1, length: 1, modified: self.changed, changed: self.changed };
        Facts { files: self.files.iter().map(of).collect(), beside: vec![("/p".into(), Some(folder))] }
    }
}

/// What becomes of the folder, each state with the milliseconds from which it is so.
struct Story(Vec<(u64, Folder)>);

impl Story {
    /// `skew`: how far the file system's clock is ahead.
    fn new(old: &[(&'static str, String)], steps: &[(u64, Step)], skew: i64) -> Self {
        let stamp = |time: u64| {
            (Nanos::from(time) + Nanos::from(skew)) * 1_000_000 + nanos(Duration::from_secs(3600))
        };
        let mut folder = Folder::default();
        for (name, text) in old {
            folder.step(&Step::Rename(name, text.clone()), stamp(0));
        }
        let mut story = vec![(0, folder.clone())];
        let mut time = BEGINNING;
        for (pause, step) in steps {
            time += pause;
            folder.step(step, stamp(time));
            story.push((time, folder.clone()));
        }
        Self(story)
    }

    fn end(&self) -> u64 {
        self.0.last().unwrap().0
    }

    fn at(&self, time: u64) -> &Folder {
        &self.0.iter().rev().find(|(from, _)| *from <= time).unwrap().1
    }

    /// One file after another is read, each a while after the one before.
    fn read(&self, time: u64, pause: u64) -> Result<PolicyText> {
        let names: Vec<&str> = self.at(time).files.keys().copied().collect();
        let mut text = PolicyText { sources: Vec::new(), manifest: None };
        for (name, number) in names.into_iter().zip(1..) {
            let (content, _) =
                self.at(time + number * pause).files.get(name).ok_or_else(|| Error::usage("gone"))?;
            let source = Source { name: format!("/p/{name}"), text: content.clone() };
            if name == manifest::NAME { text.manifest = Some(source) } else { text.sources.push(source) }
        }
        if text.sources.is_empty() { Err(Error::usage("no policy")) } else { Ok(text) }
    }

    fn when(time: u64) -> When {
        let at = Duration::from_millis(time);
        When { at, now: nanos(at + Duration::from_secs(3600)) }
    }
}

/// How a whole is written over another.
#[derive(Clone, Debug)]
struct Writer {
    /// In which order, and each in which way: renamed, cut to nothing first, or written over.
    order: Vec<(usize, u8)>,
    /// Where the texts are cut into pieces.
    cuts: Vec<prop::sample::Index>,
    pauses: Vec<u64>,
    /// Whether the manifest is written first, last, or anywhere by renaming, and whether the old one goes first.
    listing: (u8, prop::sample::Index, bool),
    /// How many steps are done.
    dies_after: prop::sample::Index,
}

fn writer(longest_pause: u64) -> impl Strategy<Value = Writer> {
    let order = Just((0..FILES.len()).collect::<Vec<_>>()).prop_shuffle();
    (
        (order, prop::collection::vec(0..3_u8, FILES.len())),
        prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        // Mostly nearly as long as it may be.
        prop::collection::vec(
            prop_oneof![1 => 0..=longest_pause, 3 => longest_pause * 9 / 10..=longest_pause],
            1..8,
        ),
        (0..3_u8, any::<prop::sample::Index>(), any::<bool>()),
        any::<prop::sample::Index>(),
    )
        .prop_map(|((order, ways), cuts, pauses, listing, dies_after)| Writer {
            order: order.into_iter().zip(ways).collect(),
            cuts,
            pauses,
            listing,
            dies_after,
        })
}

impl Writer {
    /// A file, in this way.
    fn file(&self, name: &'static str, text: &str, way: u8) -> Vec<Step> {
        if way == 0 {
            return vec![Step::Rename(name, text.to_owned())];
        }
        let mut steps = Vec::new();
        if way == 1 {
            steps.push(Step::Cut(name, 0));
        }
        // Most cuts that load are at a line's end.
        let ends: Vec<usize> = text.match_indices('\n').map(|(at, _)| at + 1).collect();
        let cut = |(number, cut): (usize, &prop::sample::Index)| {
            if number % 4 == 3 { cut.index(text.len()) } else { ends[cut.index(ends.len())] }
        };
        let cuts: BTreeSet<usize> = self.cuts.iter().enumerate().map(cut).chain([0, text.len()]).collect();
        let cuts: Vec<usize> = cuts.into_iter().collect();
        for piece in cuts.windows(2) {
            steps.push(Step::Write(name, piece[0], text[piece[0]..piece[1]].to_owned()));
        }
        steps.push(Step::Cut(name, text.len()));
        steps
    }

    fn steps(&self, old: &Whole, new: &Whole, listed: bool) -> Vec<(u64, Step)> {
        let mut files: Vec<Vec<Step>> = self
            .order
            .iter()
            .filter_map(|(at, way)| match (new.get(FILES[*at]), old.contains_key(FILES[*at])) {
                (Some(text), _) => Some(self.file(FILES[*at], text, *way)),
                (None, true) => Some(vec![Step::Remove(FILES[*at])]),
                (None, false) => None,
            })
            .collect();
        if listed {
            let text = manifest::of(&sources(new));
            let (place, anywhere, away) = self.listing;
            let (at, way) = match place {
                0 => (0, 1),
                1 => (files.len(), 1),
                _ => (anywhere.index(files.len() + 1), 0),
            };
            files.insert(at, self.file(manifest::NAME, &text, way));
            if away {
                files.insert(0, vec![Step::Remove(manifest::NAME)]);
            }
        }
        files
            .into_iter()
            .flatten()
            .zip(self.pauses.iter().cycle())
            .map(|(step, pause)| (*pause, step))
            .collect()
    }
}

/// What is found at each look from `from` on, until long after the end.
fn looks(story: &Story, mut watch: Watch, plan: &[(u64, bool)], reading: u64) -> Vec<Arc<Policy>> {
    let (mut time, mut taken) = (BEGINNING - SECOND, Vec::new());
    // A clock that is five seconds ahead may make it wait once more for as long.
    let end = story.end() + 8 * SECOND;
    for (more, asked) in plan.iter().cycle() {
        // Without SIGHUP it is a second and a little; with it any time before.
        time += if *asked { more * 3 } else { SECOND + more };
        let facts = story.at(time).facts();
        if let Look::Taken(policy) =
            watch.look(Story::when(time), *asked, facts, || story.read(time, reading))
        {
            taken.push(policy);
        }
        time += 3 * reading;
        if time > end {
            return taken;
        }
    }
    taken
}

/// A watch that has started with what was there first.
fn started(story: &Story) -> Watch {
    let (time, mut watch) = (BEGINNING / 2, Watch::default());
    let facts = story.at(time).facts();
    let mut start = |time| watch.start(Story::when(time), facts.clone(), story.read(time, 0), true);
    // Its stamps may be ahead of us.
    let started = start(time).or_else(|| start(time + SECOND)).expect("a policy that stands still");
    started.unwrap();
    watch
}

fn parse(whole: &Whole) -> Policy {
    Policy::parse(&sources(whole)).unwrap_or_else(|mistakes| panic!("{whole:?}: {mistakes:?}"))
}

fn check_granted(taken: &Policy, old: &Granted, new: &Granted) -> Result<(), TestCaseError> {
    for (what, ttl) in granted(taken) {
        let may = [old, new].iter().any(|whole| whole.get(&what).is_some_and(|longest| *longest >= ttl));
        prop_assert!(may, "{what:?} for {ttl} s, which no whole policy grants");
    }
    Ok(())
}

/// Looks as the authority takes them: SIGHUP among them.
fn plan() -> impl Strategy<Value = Vec<(u64, bool)>> {
    let look = (0..200_u64, prop::bool::weighted(0.5));
    prop::collection::vec(look, 1..8)
        .prop_filter("every second, too", |plan| plan.iter().any(|(_, asked)| !asked))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 160, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn of_a_writer_that_never_pauses_for_a_second_the_old_or_the_new_is_taken(
        (old, new, writer) in (whole(), whole(), writer(SECOND - 1)),
        (plan, reading, skew) in (plan(), 0..150_u64, prop::sample::select(vec![0_i64, 400, 5000, -5000])),
    ) {
        let before: Vec<(&str, String)> = old.clone().into_iter().collect();
        let story = Story::new(&before, &writer.steps(&old, &new, false), skew);
        let (was, is) = (granted(&parse(&old)), granted(&parse(&new)));
        let taken = looks(&story, started(&story), &plan, reading);
        for policy in &taken {
            check_granted(policy, &was, &is)?;
        }
        // And it is taken, once it is there.
        prop_assert_eq!(taken.last().map(|policy| granted(policy)), Some(is));
    }

    #[test]
    fn a_start_takes_the_old_or_the_new(
        (old, new, writer) in (whole(), whole(), writer(SECOND - 1)),
        (begun, skew) in (any::<prop::sample::Index>(), prop::sample::select(vec![0_i64, 400, 5000])),
    ) {
        let before: Vec<(&str, String)> = old.clone().into_iter().collect();
        let story = Story::new(&before, &writer.steps(&old, &new, false), skew);
        let (was, is) = (granted(&parse(&old)), granted(&parse(&new)));
        let mut watch = Watch::default();
        let begun = BEGINNING + u64::try_from(begun.index(usize::try_from(story.end() - BEGINNING).unwrap() + 1)).unwrap();
        for look in 0..400 {
            let time = begun + look * 110;
            let (facts, read) = (story.at(time).facts(), story.read(time, 20));
            let unmoved = story.at(time + 80).facts() == facts;
            match watch.start(Story::when(time), facts, read, unmoved) {
                None => {}
                Some(Ok(policy)) => return check_granted(&policy, &was, &is),
                // A folder without files is not waited for.
                Some(Err(error)) => {
                    prop_assert!(time <= story.end(), "{error}");
                    return Ok(());
                }
            }
        }
        prop_assert!(false, "it never starts");
    }

    #[test]
    fn with_a_manifest_no_writer_has_half_a_policy_taken(
        (old, new, writer) in (whole(), whole(), writer(5 * SECOND)),
        (plan, dies) in (plan(), any::<bool>()),
    ) {
        let mut before: Vec<(&str, String)> = old.clone().into_iter().collect();
        before.push((manifest::NAME, manifest::of(&sources(&old))));
        let mut steps = writer.steps(&old, &new, true);
        if dies {
            steps.truncate(writer.dies_after.index(steps.len() + 1));
        }
        let story = Story::new(&before, &steps, 0);
        let (was, is) = (granted(&parse(&old)), granted(&parse(&new)));
        let taken = looks(&story, started(&story), &plan, 0);
        for policy in &taken {
            check_granted(policy, &was, &is)?;
        }
        if !dies {
            prop_assert_eq!(taken.last().map(|policy| granted(policy)), Some(is));
        }
    }
}
