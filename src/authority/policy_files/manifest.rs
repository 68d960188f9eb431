//! `policy.sha256`: which files a policy folder has, and the SHA-256 of each,
//! as `sha256sum` writes it. A writer that died leaves files that it does not list so.

use std::collections::BTreeMap;
use std::path::Path;

use ring::digest::{SHA256, digest};

use crate::authority::policy::Source;
use crate::error::Error;
use crate::text::shown;

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
    let mut unlisted: BTreeMap<String, &Source> =
        sources.iter().map(|source| (file_name(source), source)).collect();
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
        if !listed.eq_ignore_ascii_case(&sha256(source)) {
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

fn sha256(source: &Source) -> String {
    let hash = digest(&SHA256, source.text.as_bytes());
    hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
pub(super) fn of(sources: &[Source]) -> String {
    sources.iter().map(|source| format!("{}  {}\n", sha256(source), file_name(source))).collect()
}
