//! `policy.sha256`: which files a policy folder has, and the SHA-256 of each,
//! as `sha256sum` writes it. A writer that died leaves files that it does not list so.

use std::collections::BTreeMap;
use std::path::Path;

use ring::digest::{SHA256, digest};

use crate::authority::policy::Source;
use crate::error::Error;
use crate::text::{hex, shown};

/// Its name in the policy's folder.
pub(super) const NAME: &str = "policy.sha256";

/// How it is written.
const WRITE_IT: &str =
    "in the policy's folder: `sha256sum *.yaml > .policy.sha256 && mv .policy.sha256 policy.sha256`";

/// What is wrong with `sources` by their manifest: it lists each of them, and nothing else.
pub(super) fn check(manifest: &Source, sources: &[Source]) -> Vec<Error> {
    let wrong = |place: &dyn std::fmt::Display, why: &str| {
        Error::usage(format!("{}:{place}: {why}", manifest.name)).hint(WRITE_IT)
    };
    let mut mistakes = Vec::new();
    let mut unlisted: BTreeMap<String, &Source> = BTreeMap::new();
    for source in sources {
        // Names that are no text may be shown the same, and a list could mean either.
        if unlisted.insert(file_name(source), source).is_some() {
            let why = format!("two files have names that read as `{}`", shown(&file_name(source)));
            mistakes.push(
                Error::usage(format!("{}: {why}", manifest.name)).hint("give each a name of plain text"),
            );
        }
    }
    for (line, number) in manifest.text.split_inclusive('\n').zip(1_usize..) {
        let Some(line) = line.strip_suffix('\n') else {
            mistakes.push(wrong(&number, "the last line has no end"));
            break;
        };
        let Some((listed, name)) = entry(line) else {
            mistakes.push(wrong(&number, "this is no line of `sha256sum`, with a plain name"));
            continue;
        };
        let Some(source) = unlisted.remove(name) else {
            let why = format!("`{}` is no policy file of this folder, or is listed twice", shown(name));
            mistakes.push(wrong(&number, &why));
            continue;
        };
        if !listed.eq_ignore_ascii_case(&hash(&source.text)) {
            let why = format!("`{}` holds something else than is listed here", shown(name));
            mistakes.push(wrong(&number, &why).hint("a writer that has not ended? it writes this file last"));
        }
    }
    let missing = |name: &String| {
        Error::usage(format!("{}: `{}` is not listed", manifest.name, shown(name))).hint(WRITE_IT)
    };
    mistakes.extend(unlisted.keys().map(missing));
    mistakes
}

/// `HASH  NAME`, or `HASH *NAME`. A name with a backslash or a line feed is
/// written in another way, which no policy needs.
fn entry(line: &str) -> Option<(&str, &str)> {
    let (hash, rest) = line.split_at_checked(64)?;
    let name = rest.strip_prefix("  ").or_else(|| rest.strip_prefix(" *"))?;
    let is_hash = hash.bytes().all(|b| b.is_ascii_hexdigit());
    is_hash.then(|| (hash, name.strip_prefix("./").unwrap_or(name)))
}

fn file_name(source: &Source) -> String {
    Path::new(&source.name).file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// SHA-256 in hexadecimal.
pub fn hash(text: &str) -> String {
    hex(digest(&SHA256, text.as_bytes()).as_ref())
}

#[cfg(test)]
pub(super) fn of(sources: &[Source]) -> String {
    sources.iter().map(|source| format!("{}  {}\n", hash(&source.text), file_name(source))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources() -> Vec<Source> {
        let source = |name: &str, text: &str| Source { name: format!("p/{name}"), text: text.to_owned() };
        vec![source("a.yaml", ""), source("b b.yml", "b\n")]
    }

    const A: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const B: &str = "0263829989b6fd954f72baaf2fc64bc2e2f01d692d4de72986ea808f6e99813f";

    fn said(text: &str) -> Vec<String> {
        let manifest = Source { name: "p/policy.sha256".to_owned(), text: text.to_owned() };
        check(&manifest, &sources()).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_sha256sum_writes_is_read() {
        let upper = A.to_uppercase();
        for text in [
            of(&sources()),
            format!("{A}  a.yaml\n{B}  b b.yml\n"),
            format!("{B} *b b.yml\n{A} *a.yaml\n"),
            format!("{upper}  ./a.yaml\n{B} *./b b.yml\n"),
        ] {
            assert_eq!(said(&text), [""; 0], "{text}");
        }
    }

    #[test]
    fn two_files_of_one_name_as_text_are_not_told_apart() {
        let source = |text: &str| Source { name: "p/\u{fffd}.yaml".to_owned(), text: text.to_owned() };
        let manifest = Source { name: "p/policy.sha256".to_owned(), text: of(&[source("a\n")]) };
        let said: Vec<String> =
            check(&manifest, &[source("b\n"), source("a\n")]).iter().map(ToString::to_string).collect();
        assert_eq!(said, ["p/policy.sha256: two files have names that read as `\u{fffd}.yaml`"]);
    }

    #[test]
    fn each_file_is_listed_as_it_is_and_nothing_else() {
        let whole = format!("{A}  a.yaml\n{B}  b b.yml\n");
        let no_line = |line: usize| {
            format!("p/policy.sha256:{line}: this is no line of `sha256sum`, with a plain name")
        };
        let stranger = |name: &str| {
            format!("p/policy.sha256:3: `{name}` is no policy file of this folder, or is listed twice")
        };
        for (text, wanted) in [
            (
                String::new(),
                vec!["p/policy.sha256: `a.yaml` is not listed", "p/policy.sha256: `b b.yml` is not listed"],
            ),
            (format!("{A}  a.yaml\n"), vec!["p/policy.sha256: `b b.yml` is not listed"]),
            (
                whole.replace(B, A),
                vec!["p/policy.sha256:2: `b b.yml` holds something else than is listed here"],
            ),
            (
                whole.trim_end().to_owned(),
                vec![
                    "p/policy.sha256:2: the last line has no end",
                    "p/policy.sha256: `b b.yml` is not listed",
                ],
            ),
            (format!("{whole}{A}  c.yaml\n"), vec![&stranger("c.yaml")]),
            (format!("{whole}{A}  policy.sha256\n"), vec![&stranger("policy.sha256")]),
            (format!("{whole}{A}  sub/a.yaml\n"), vec![&stranger("sub/a.yaml")]),
            (format!("{whole}{A}  a.yaml\n"), vec![&stranger("a.yaml")]),
            (format!("{whole}\n"), vec![&no_line(3)]),
            (format!("{whole}# all\n"), vec![&no_line(3)]),
            (format!("{whole}SHA256 (a.yaml) = {A}\n"), vec![&no_line(3)]),
            (format!("{whole}\\{A}  a\\n.yaml\n"), vec![&no_line(3)]),
            (format!("{whole}{}  a.yaml\n", &A[1..]), vec![&no_line(3)]),
            (
                whole.replace('\n', "\r\n"),
                vec![
                    "p/policy.sha256:1: `a.yaml\\u{d}` is no policy file of this folder, or is listed twice",
                    "p/policy.sha256:2: `b b.yml\\u{d}` is no policy file of this folder, or is listed twice",
                    "p/policy.sha256: `a.yaml` is not listed",
                    "p/policy.sha256: `b b.yml` is not listed",
                ],
            ),
        ] {
            assert_eq!(said(&text), wanted, "{text}");
        }
    }
}
