//! What each CI system, terminal and log takes as a command in what a job
//! prints, after their documentation and their parsers: each a small model.

use std::ops::RangeInclusive;

/// Every command that somebody finds in a log.
type Reader = fn(&str) -> Vec<String>;

/// Who reads logs.
const READERS: &[(&str, Reader)] = &[
    ("GitHub Actions, `::name::`", github),
    ("GitHub Actions of old, Gitea and Azure's formats, `##[name]`", |log| anywhere(log, "##[", ']')),
    ("Azure Pipelines", |log| anywhere(log, "##vso[", ']')),
    ("TeamCity", |log| anywhere(log, "##teamcity[", ']')),
    ("Octopus Deploy", |log| anywhere(log, "##octopus[", ']')),
    ("Travis CI, folds", |log| anywhere(log, "travis_fold:", ':')),
    ("Travis CI, times", |log| anywhere(log, "travis_time:", ':')),
    ("GitLab, a section's start", |log| anywhere(log, "section_start:", '\r')),
    ("GitLab, a section's end", |log| anywhere(log, "section_end:", '\r')),
    ("Buildkite", buildkite),
    ("Jenkins, console notes", |log| anywhere(log, "\u{1b}[8mha:", '\n')),
    ("journald and syslog", journald),
    ("a terminal, or a reader's eye", unseen),
];

/// A command of each kind, as documented, that must not come through.
pub const COMMANDS: &[&str] = &[
    "::set-env name=X::evil",
    "  ::add-mask::evil",
    "\u{a0}::stop-commands::evil",
    "x ##[add-path]evil",
    "##[group]evil",
    "x ##vso[task.setvariable variable=X]evil",
    "##v\u{ad}so[task.complete]evil",
    "##vso\u{fe0f}[task.complete]evil",
    "##v\u{488}so[task.complete]evil",
    "x ##teamcity[setParameter name='X' value='evil']",
    "##octopus[setVariable name='X' value='evil']",
    "travis_fold:start:evil",
    "x travis_time:end:evil",
    "section_start:1560896352:evil\r\u{1b}[0Kx",
    "section_end:1560896352:evil\r\u{1b}[0K",
    "--- evil",
    "+++ evil",
    "~~~ evil",
    "^^^ +++ evil",
    "\u{1b}]1339;url='https://evil'\u{7}",
    "\u{1b}]8;;https://evil\u{1b}\\x\u{1b}]8;;\u{1b}\\",
    "\u{1b}[8mha:evil\u{1b}[0m\n",
    "\u{9b}31mevil",
    "\u{202e}live",
    "\u{2066}live",
    "\u{61c}live",
    "\u{200b}\u{2060}\u{feff}",
    "\u{e0041}\u{e0042}",
    "<0>evil",
    "x\n::evil::x",
    "x\r::evil::x",
    "x\u{85}::evil::x",
    "x\u{2028}::evil::x",
    "x\u{2029}--- evil",
];

/// What looks a little like them, and is to be read as it is.
pub const HONEST: &[&str] = &[
    "arn:aws:iam::123456789012:role/deploy",
    "connected to https://[2001:db8::1]:8443",
    "crate::module::name",
    "feature/#12-[x]",
    "issue ##12",
    "a --- b, c +++ d",
    "-----BEGIN CERTIFICATE-----",
    "---",
    "x<1>y",
    "<html>",
    "größe 🦀 日本",
    "100% [done]",
];

/// Every command that anybody finds.
pub fn found(log: &str) -> Vec<String> {
    let of = |(name, read): &(&str, Reader)| {
        read(log).into_iter().map(move |command| format!("{name}: {command:?}")).collect::<Vec<_>>()
    };
    READERS.iter().flat_map(of).collect()
}

/// `ActionCommand.TryParseV2`: blanks before it do not count, and a second `::` ends its name.
pub fn github(log: &str) -> Vec<String> {
    let name = |line: String| Some(line.trim_start().strip_prefix("::")?.split_once("::")?.0.to_owned());
    split(log).filter_map(|line| name(as_people_compare(line))).collect()
}

fn anywhere(log: &str, mark: &str, end: char) -> Vec<String> {
    // What ends at a line end is looked for in the whole log.
    let parts: Vec<&str> = if end.is_control() { vec![log] } else { split(log).collect() };
    let in_part = |part: &str| {
        let part = if end.is_control() { part.to_owned() } else { as_people_compare(part) };
        let (_, rest) = part.split_once(mark)?;
        rest.contains(end).then(|| rest.to_owned())
    };
    parts.into_iter().filter_map(in_part).collect()
}

fn buildkite(log: &str) -> Vec<String> {
    let marks = ["---", "+++", "~~~", "^^^ +++"];
    let heads = |line: &&str| {
        let rests = marks.iter().filter_map(|mark| line.strip_prefix(mark));
        rests
            .into_iter()
            .any(|rest| rest.starts_with(char::is_whitespace) || rest.is_empty() && !line.starts_with("---"))
    };
    split(log).filter(heads).map(str::to_owned).collect()
}

fn journald(log: &str) -> Vec<String> {
    let priority = |line: &&str| {
        let digits = line.strip_prefix('<').and_then(|rest| rest.split_once('>')).map(|(digits, _)| digits);
        digits.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
    };
    split(log).filter(priority).map(str::to_owned).collect()
}

fn unseen(log: &str) -> Vec<String> {
    let acts = |c: &char| *c != '\n' && (c.is_control() || ignored(*c) || *c != ' ' && c.is_whitespace());
    log.chars().filter(acts).map(|c| c.escape_unicode().to_string()).collect()
}

/// Lines as the most generous reader has them.
fn split(log: &str) -> impl Iterator<Item = &str> {
    log.split(['\n', '\r', '\u{b}', '\u{c}', '\u{85}', '\u{2028}', '\u{2029}'])
}

/// As .NET's `IndexOf` and `StartsWith` see a line: by the rules of a language, in which these characters are nothing.
fn as_people_compare(line: &str) -> String {
    let nothing =
        |c: &char| ignored(*c) || c.is_control() && *c != '\t' || matches!(c, '\u{488}' | '\u{489}');
    line.chars().filter(|c| !nothing(c)).collect()
}

fn ignored(c: char) -> bool {
    const IGNORED: &[RangeInclusive<char>] = &[
        '\u{ad}'..='\u{ad}',
        '\u{34f}'..='\u{34f}',
        '\u{61c}'..='\u{61c}',
        '\u{180b}'..='\u{180f}',
        '\u{200b}'..='\u{200f}',
        '\u{202a}'..='\u{202e}',
        '\u{2060}'..='\u{206f}',
        '\u{fe00}'..='\u{fe0f}',
        '\u{feff}'..='\u{feff}',
        '\u{e0000}'..='\u{e0fff}',
    ];
    IGNORED.iter().any(|range| range.contains(&c))
}
