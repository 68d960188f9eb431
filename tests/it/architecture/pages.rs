//! What a page says can be typed as it stands there, and what the command line
//! takes is in some page.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::Stdio;

use clap::CommandFactory as _;

use super::files;
use crate::support::process::{command, installed};
use crate::support::repository;

fn read(path: impl Into<PathBuf>) -> String {
    std::fs::read_to_string(repository("").join(path.into())).unwrap()
}

/// The pages for users and operators: where each is, and what it says.
fn pages() -> Vec<(String, String)> {
    let mut found = files(&repository("docs"), "md");
    found.extend(["README.md", "CONTRIBUTING.md", "ci-examples/README.md"].map(repository));
    found.into_iter().map(|path| (path.display().to_string(), read(path))).collect()
}

/// Whether it stands there as a word of its own: `--id` is not in `--id-token-env`.
fn names(text: &str, word: &str) -> bool {
    let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    text.match_indices(word)
        .any(|(at, _)| !text[..at].ends_with(part) && !text[at + word.len()..].starts_with(part))
}

/// Each option beside its command, in one paragraph, table or block.
#[test]
fn every_option_is_in_a_page() {
    fn walk(command: &clap::Command, said: &[&str], missing: &mut Vec<String>) {
        for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
            let Some(long) = argument.get_long() else { continue };
            let spelled: Vec<String> =
                [Some(format!("--{long}")), argument.get_short().map(|short| format!("-{short}"))]
                    .into_iter()
                    .flatten()
                    .collect();
            let here = |text: &&&str| {
                names(text, command.get_name()) && spelled.iter().any(|option| names(text, option))
            };
            if said.iter().find(here).is_none() {
                missing.push(format!("{} --{long}", command.get_name()));
            }
        }
        command.get_subcommands().for_each(|command| walk(command, said, missing));
    }
    let pages = pages();
    let said: Vec<&str> = pages.iter().flat_map(|(_, text)| text.split("\n\n")).collect();
    let mut missing = Vec::new();
    walk(&machine_id::cli::Cli::command(), &said, &mut missing);
    assert!(missing.is_empty(), "in no page beside their command:\n{}", missing.join("\n"));
}

#[test]
fn every_variable_and_command_is_in_a_page() {
    let all: String = pages().into_iter().map(|(_, text)| text).collect();
    let source: String = files(&repository("src"), "rs").into_iter().map(read).collect();
    let part = |c: char| !(c.is_ascii_uppercase() || c == '_');
    for variable in source.split(part).filter(|word| word.len() > 11 && word.starts_with("MACHINE_ID_")) {
        assert!(names(&all, variable), "{variable} is in no page");
    }
    fn walk(command: &clap::Command, above: &str, all: &str) {
        let path = format!("{above} {}", command.get_name());
        let last_two = path.rsplitn(3, ' ').collect::<Vec<_>>();
        assert!(names(all, &format!("{} {}", last_two[1], last_two[0])), "no page names `{}`", path.trim());
        command.get_subcommands().for_each(|command| walk(command, &path, all));
    }
    machine_id::cli::Cli::command().get_subcommands().for_each(|command| walk(command, "machine-id", &all));
}

/// What a shell that is no bash does not have.
const BASH_ALONE: &[&str] =
    &["[[", "<(", ">(", "<<<", "$'", "&>", "=(", "function ", "source ", "set -o pipefail"];

/// The fenced blocks of a page: what they are, and what is in them. Those of
/// `console` are what was typed and what came.
fn blocks(page: &str) -> Vec<(&str, String)> {
    let mut found: Vec<(&str, String)> = Vec::new();
    let mut open = false;
    for line in page.lines() {
        if let Some(kind) = line.trim_start().strip_prefix("```") {
            open = !open;
            if open {
                found.push((kind.split(' ').next().unwrap_or_default(), String::new()));
            }
        } else if let Some((_, text)) = found.last_mut().filter(|_| open) {
            text.push_str(line);
            text.push('\n');
        }
    }
    found
}

#[test]
fn what_pages_have_typed_is_of_the_shell_that_they_say() {
    let posix = if installed("dash") { "dash" } else { "sh" };
    for (page, text) in pages() {
        for (kind, block) in blocks(&text) {
            let (shell, block) = match kind {
                "sh" => (posix, block),
                "bash" => ("bash", block),
                "console" => {
                    let typed: String = block
                        .lines()
                        .filter_map(|line| line.strip_prefix("$ "))
                        .map(|line| format!("{line}\n"))
                        .collect();
                    assert!(!typed.is_empty(), "{page}: nothing behind `$ ` in\n{block}");
                    (posix, typed)
                }
                _ => continue,
            };
            let bash_alone = BASH_ALONE.iter().find(|word| shell != "bash" && block.contains(**word));
            assert_eq!(bash_alone, None, "{page}: marked as {kind}\n{block}");
            let mut check = command(shell);
            let mut check = check.arg("-n").stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            check.stdin.take().unwrap().write_all(block.as_bytes()).unwrap();
            let output = check.wait_with_output().unwrap();
            assert!(output.status.success(), "{page}: {}\n{block}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

/// An owner that nobody owns is somebody's tomorrow, who then runs in your jobs.
#[test]
fn examples_name_owners_that_say_that_they_are_none() {
    let mut all = pages();
    let examples =
        ["yml", "yaml", "sh", "mjs"].into_iter().flat_map(|kind| files(&repository("ci-examples"), kind));
    all.extend(examples.map(|path| (path.display().to_string(), read(path))));
    for (place, text) in all {
        for (before, owner) in [
            ("github.com/", &["your-org", "octo-org", "octo-org@65", "en", "_services"][..]),
            ("uses: ", &["actions", "$", "your-org"]),
            ("machine-id: ", &["your-org"]),
            ("ghcr.io/", &["your-org"]),
            ("registry.gitlab.com/", &["your-org"]),
        ] {
            for (_, rest) in text.match_indices(before).map(|(at, _)| text[at..].split_at(before.len())) {
                let word = rest.split_whitespace().next().unwrap_or_default();
                // `OWNER/NAME…`; other sentences go on behind the words.
                let Some((named, name)) = word.split_once('/') else { continue };
                let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
                if !named.is_empty() && named.chars().all(plain) && name.starts_with(plain) {
                    assert!(owner.contains(&named), "{place}: {before}{word}");
                }
            }
        }
        // systemd's file of that name is on every machine.
        assert!(!text.contains("/etc/machine-id/"), "{place}: /etc/machine-id is no folder");
    }
}

/// The headings of `troubleshooting.md` are messages that the binary has, in
/// its source or where a test has seen them.
#[test]
fn messages_that_are_explained_are_real() {
    let mut seen = files(&repository("src"), "rs");
    seen.extend(files(&repository("tests/cli"), "toml"));
    seen.push(repository("tests/it/data_dir/signing.rs"));
    let seen: String = seen.into_iter().map(read).collect();
    let page = read("docs/troubleshooting.md");
    let messages: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("### `")).collect();
    assert!(messages.len() > 8, "{messages:?}");
    for message in messages {
        let pieces = message.trim_end_matches('`').split('…').map(|piece| piece.trim_matches([' ', ':']));
        for piece in pieces.filter(|piece| !piece.is_empty()) {
            assert!(seen.contains(piece), "docs/troubleshooting.md: nothing says `{piece}`");
        }
    }
}
