//! What `docs/architecture.md` says stays true: data flows one way, tables and
//! documents agree. That methods are named in one place, the conformance suite shows.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use machine_id::authority::policy;
use machine_id::denial::REASONS;
use machine_id::error::EXIT_CODES;
use machine_id::{destination, output};

/// The longest that a file may be, its unit tests included.
const MAX_LINES: usize = 500;

/// A module, and the paths that it may not name.
struct Wall {
    module: &'static str,
    forbidden: &'static [&'static str],
    /// Exceptions: data that flows along.
    but: &'static [&'static str],
}

const BOTH_SIDES: &[&str] =
    &["crate::authority", "crate::once", "crate::destination", "crate::commands", "crate::cli"];

const WALLS: &[Wall] = &[
    // `join` knows neither side.
    Wall { module: "crate::join", forbidden: BOTH_SIDES, but: &[] },
    // What both sides share knows neither.
    Wall { module: "crate::wire", forbidden: BOTH_SIDES, but: &[] },
    Wall { module: "crate::error", forbidden: BOTH_SIDES, but: &[] },
    Wall { module: "crate::denial", forbidden: BOTH_SIDES, but: &[] },
    Wall { module: "crate::secret", forbidden: BOTH_SIDES, but: &[] },
    Wall { module: "crate::clock", forbidden: BOTH_SIDES, but: &[] },
    Wall { module: "crate::document", forbidden: BOTH_SIDES, but: &[] },
    Wall { module: "crate::text", forbidden: BOTH_SIDES, but: &[] },
    Wall { module: "crate::environment", forbidden: BOTH_SIDES, but: &[] },
    Wall { module: "crate::net", forbidden: BOTH_SIDES, but: &[] },
    Wall { module: "crate::jws", forbidden: BOTH_SIDES, but: &[] },
    Wall { module: "crate::output", forbidden: BOTH_SIDES, but: &[] },
    Wall { module: "crate::principal", forbidden: BOTH_SIDES, but: &[] },
    Wall { module: "crate::rfc4251", forbidden: BOTH_SIDES, but: &[] },
    // A server's side knows the authority by its API alone.
    Wall {
        module: "crate::host",
        forbidden: &["crate::authority", "crate::commands", "crate::cli", "crate::join"],
        but: &[],
    },
    // The client: cli → join::prove → exchange → destination.
    Wall { module: "crate::once", forbidden: &["crate::authority", "crate::commands"], but: &[] },
    Wall {
        module: "crate::destination",
        forbidden: &["crate::authority", "crate::once", "crate::join", "crate::commands", "crate::cli"],
        but: &[],
    },
    // The authority knows no client.
    Wall {
        module: "crate::authority",
        forbidden: &["crate::once", "crate::destination", "crate::commands", "crate::cli"],
        but: &[],
    },
    // `policy` does no I/O and knows neither keys nor store nor HTTP.
    Wall {
        module: "crate::authority::policy",
        forbidden: &[
            "std::fs",
            "std::net",
            "std::io",
            "std::process",
            "std::env",
            "tokio",
            "reqwest",
            "axum",
            "hyper",
            "rusqlite",
            "rustix",
            "crate::net",
            "crate::authority::store",
            "crate::authority::keys",
            "crate::authority::issue",
            "crate::authority::http",
            "crate::authority::enroll",
        ],
        but: &["std::net::IpAddr"],
    },
    // `issue` takes a grant, and nothing else of the policy or of who the job is.
    Wall {
        module: "crate::authority::issue",
        forbidden: &[
            "crate::authority::policy",
            "crate::authority::store",
            "crate::authority::http",
            "crate::authority::enroll",
            "crate::authority::config",
            "crate::join",
        ],
        but: &[
            "crate::authority::policy::Grant",
            "crate::authority::policy::OutputGrant",
            "crate::authority::policy::SshGrant",
            "crate::authority::policy::TlsGrant",
            // The record's shape, which the store keeps.
            "crate::authority::store::CertificateKind",
            "crate::authority::store::NewCertificate",
            "crate::authority::store::PlanRecord",
            "crate::authority::store::record",
            "crate::join::verify::Provenance",
        ],
    },
    // The store keeps what it is given.
    Wall {
        module: "crate::authority::store",
        forbidden: &[
            "crate::authority::policy",
            "crate::authority::keys",
            "crate::authority::issue",
            "crate::authority::http",
            "crate::authority::enroll",
        ],
        but: &[],
    },
    Wall {
        module: "crate::authority::keys",
        forbidden: &[
            "crate::authority::policy",
            "crate::authority::store",
            "crate::authority::http",
            "crate::authority::enroll",
            "crate::join",
        ],
        // Without one, nothing is signed.
        but: &["crate::authority::store::record::Recorded"],
    },
];

/// A source file of the product.
struct Source {
    path: PathBuf,
    module: String,
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn sources() -> Vec<Source> {
    let src = root().join("src");
    let source = |path: PathBuf| {
        let inner = path.strip_prefix(&src).unwrap().with_extension("");
        let module = match inner.to_str().unwrap() {
            "lib" | "main" => "crate".to_owned(),
            inner => format!("crate::{}", inner.replace('/', "::")),
        };
        Source { module, text: std::fs::read_to_string(&path).unwrap(), path }
    };
    files(&src, "rs").into_iter().map(source).collect()
}

/// What stands before the unit tests, without comments.
fn code(text: &str) -> String {
    let product = match text.find("#[cfg(test)]\nmod tests {") {
        Some(tests) => &text[..tests],
        None => text,
    };
    product
        .lines()
        .map(|line| match line.find("//") {
            // `://` stands in a text.
            Some(start) if !line[..start].ends_with(':') => &line[..start],
            _ => line,
        })
        .fold(String::new(), |all, line| all + line + "\n")
}

/// Whether a file is compiled for unit tests alone.
fn is_for_tests(source: &Source, all: &[Source]) -> bool {
    let Some((parent, name)) = source.module.rsplit_once("::") else { return false };
    let marked = format!("#[cfg(test)]\nmod {name};");
    all.iter().any(|other| other.module == parent && other.text.contains(&marked))
}

/// Every path that the code names, whole: `use` trees are unfolded, `self` and
/// `super` are resolved.
fn paths(source: &Source) -> BTreeSet<String> {
    let code = code(&source.text);
    let mut found = BTreeSet::new();
    for statement in code.split(';') {
        // Modules inside the file are not told apart; none of them holds a `super`.
        if let Some((_, tree)) = statement.rsplit_once("use ").filter(|(before, _)| {
            before.ends_with('\n')
                || before.is_empty()
                || before.trim_end().ends_with(')')
                || before.ends_with("pub ")
        }) {
            unfold(tree, "", &mut found);
        }
    }
    let word = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    for path in code.split(|c| !word(c)).filter(|path| path.contains("::") && !path.ends_with("::")) {
        found.insert(path.trim_matches(':').to_owned());
    }
    found.into_iter().map(|path| resolve(&path, &source.module)).collect()
}

fn unfold(tree: &str, prefix: &str, into: &mut BTreeSet<String>) {
    let tree: String = tree.split_whitespace().collect::<Vec<_>>().join(" ");
    let Some((before, inner)) = tree.split_once('{') else {
        let name = tree.split(" as ").next().unwrap_or_default().trim();
        into.insert(format!("{prefix}{name}").trim_end_matches("::self").to_owned());
        return;
    };
    let prefix = format!("{prefix}{}", before.trim());
    let inner = inner.rsplit_once('}').map_or(inner, |(inner, _)| inner);
    let (mut depth, mut start) = (0, 0);
    for (place, c) in inner.char_indices().chain([(inner.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                let part = inner[start..place].trim();
                if !part.is_empty() {
                    unfold(part, &prefix, into);
                }
                start = place + 1;
            }
            _ => {}
        }
    }
}

fn resolve(path: &str, module: &str) -> String {
    let mut module = module.to_owned();
    let mut rest = path;
    if let Some(inner) = rest.strip_prefix("self::") {
        return format!("{module}::{inner}");
    }
    while let Some(inner) = rest.strip_prefix("super::") {
        module = module.rsplit_once("::").map_or_else(|| "crate".to_owned(), |(parent, _)| parent.to_owned());
        rest = inner;
    }
    if rest.len() < path.len() { format!("{module}::{rest}") } else { rest.to_owned() }
}

/// Whether `path` is `prefix` or below it.
fn is_under(path: &str, prefix: &str) -> bool {
    path == prefix || path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with("::"))
}

#[test]
fn data_flows_one_way() {
    let all = sources();
    let mut wrong = Vec::new();
    for wall in WALLS {
        let inside: Vec<&Source> = all
            .iter()
            .filter(|source| is_under(&source.module, wall.module) && !is_for_tests(source, &all))
            .collect();
        assert!(!inside.is_empty(), "there is no {}", wall.module);
        for source in inside {
            for path in paths(source) {
                let forbidden = wall.forbidden.iter().any(|prefix| is_under(&path, prefix));
                if forbidden && !wall.but.iter().any(|prefix| is_under(&path, prefix)) {
                    wrong.push(format!("{} names {path}", source.path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_walls_would_notice() {
    let source = |text: &str| Source {
        path: PathBuf::new(),
        module: "crate::authority::policy::decide".to_owned(),
        text: text.to_owned(),
    };
    let found = paths(&source(
        "use std::{fmt, fs::{self, File}};\nuse super::super::store::Store;\npub use crate::join::{Identity, rules::{Rule as R}};\n\
         // use crate::hidden::x;\nfn f() { crate::net::client(); super::x(); }\n#[cfg(test)]\nmod tests {\n use crate::once::x; }\n",
    ));
    for path in [
        "std::fs",
        "std::fs::File",
        "crate::authority::store::Store",
        "crate::join::Identity",
        "crate::join::rules::Rule",
        "crate::net::client",
        "crate::authority::policy::x",
    ] {
        assert!(found.contains(path), "{path} is not in {found:?}");
    }
    assert!(!found.iter().any(|path| path.contains("hidden") || path.contains("once")), "{found:?}");
}

/// CA keys are seen in `keys/` alone; the key of the authority's own HTTPS
/// certificate is in `tls.rs`.
#[test]
fn one_place_sees_the_keys() {
    let types = ["KeyPair", "PrivateKey", "Keypair", "PrivateKeyDer", "PrivatePkcs8KeyDer"];
    let all = sources();
    let outside = all.iter().filter(|source| {
        is_under(&source.module, "crate::authority")
            && !is_under(&source.module, "crate::authority::keys")
            && source.module != "crate::authority::tls"
            && !is_for_tests(source, &all)
    });
    for source in outside {
        let code = code(&source.text);
        let words: BTreeSet<&str> = code.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
        let found: Vec<_> =
            words.iter().filter(|word| types.iter().any(|name| word.ends_with(name))).collect();
        assert!(found.is_empty(), "{} names {found:?}", source.path.display());
    }
}

#[test]
fn files_are_short() {
    let long: Vec<String> = files(&root().join("src"), "rs")
        .into_iter()
        .chain(files(&root().join("tests"), "rs"))
        .filter_map(|path| {
            let lines = std::fs::read_to_string(&path).unwrap().lines().count();
            (lines > MAX_LINES).then(|| format!("{}: {lines}", path.display()))
        })
        .collect();
    assert!(long.is_empty(), "{long:?}");
}

#[test]
fn main_only_dispatches() {
    let lines = std::fs::read_to_string(root().join("src/main.rs")).unwrap().lines().count();
    assert!(lines < 60, "{lines} lines");
}

/// The rows of every table in a document: their cells, without Markdown's backquotes.
fn rows(document: &str) -> Vec<Vec<String>> {
    let path = root().join("docs").join(document);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let row = |line: &str| -> Vec<String> {
        line.trim().trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect()
    };
    text.lines().filter(|line| line.trim_start().starts_with('|')).map(row).collect()
}

#[test]
fn exit_codes_are_documented() {
    let documented: BTreeSet<(u8, String)> = rows("exit-codes.md")
        .into_iter()
        .filter_map(|row| Some((row.first()?.parse().ok()?, row.get(1)?.clone())))
        .filter(|(code, _)| (1..=6).contains(code))
        .collect();
    let real: BTreeSet<(u8, String)> =
        EXIT_CODES.iter().map(|(_, code, text)| (*code, (*text).to_owned())).collect();
    assert_eq!(documented, real);
}

#[test]
fn reasons_are_documented() {
    let is_code =
        |cell: &str| cell.contains('_') && cell.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    let documented: BTreeSet<(String, u16)> = rows("protocol.md")
        .into_iter()
        .filter_map(|row| Some((row.first()?.clone(), row.get(1)?.parse().ok()?)))
        .filter(|(code, _): &(String, u16)| is_code(code))
        .collect();
    let real: BTreeSet<(String, u16)> = REASONS.iter().map(|row| (row.code.to_owned(), row.status)).collect();
    assert_eq!(documented, real);
}

/// Each type of output is declared once, and has a half on each side.
#[test]
fn every_output_type_has_both_halves() {
    let client: Vec<&str> = destination::OUTPUTS.iter().map(|half| half.declaration.name).collect();
    let authority: Vec<&str> = policy::OUTPUTS.iter().map(|half| half.name).collect();
    assert_eq!(client, output::names());
    assert_eq!(authority, output::names());
}

#[test]
fn every_reason_is_provoked_by_a_test() {
    let mut tests: Vec<PathBuf> = files(&root().join("tests/fixtures"), "yaml");
    tests.extend(files(&root().join("tests"), "rs"));
    let all: String = tests.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    for row in REASONS {
        assert!(all.contains(row.code), "no test provokes {}", row.code);
    }
}
