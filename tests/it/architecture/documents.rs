//! Tables that must agree: those in the documents with those in the code, and these with one another.

use std::collections::BTreeSet;
use std::path::PathBuf;

use machine_id::authority::policy;
use machine_id::denial::REASONS;
use machine_id::error::EXIT_CODES;
use machine_id::join::METHODS;
use machine_id::{destination, output};

use super::{files, tree};
use crate::support::repository;

/// The rows of every table in a document: their cells, without Markdown's backquotes.
fn rows(document: &str) -> Vec<Vec<String>> {
    let path = repository("docs").join(document);
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

/// Which claims a lock goes by, of each method.
#[test]
fn what_locks_go_by_is_documented() {
    let named = |claims: &[&str]| -> BTreeSet<String> {
        claims.iter().filter_map(|claim| Some(claim.rsplit('/').next()?.to_owned())).collect()
    };
    let real: BTreeSet<(String, [BTreeSet<String>; 3])> = METHODS
        .iter()
        .map(|method| (method.name.to_owned(), [method.repositories, method.repository_ids, method.runs]))
        .filter(|(_, claims)| claims.iter().any(|claims| !claims.is_empty()))
        .map(|(name, claims)| (name, claims.map(named)))
        .collect();
    let methods: BTreeSet<&str> = METHODS.iter().map(|method| method.name).collect();
    let cell = |row: &Vec<String>, at: usize| -> BTreeSet<String> {
        let words = row.get(at).map(String::as_str).unwrap_or_default().split([',', ' ']);
        words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
    };
    let documented = rows("revocation.md")
        .into_iter()
        .filter(|row| row.first().is_some_and(|name| methods.contains(name.as_str())))
        .map(|row| (row[0].clone(), [1, 2, 3].map(|at| cell(&row, at))))
        .collect();
    assert_eq!(real, documented);
}

#[test]
fn every_reason_is_provoked_by_a_test() {
    let mut tests: Vec<PathBuf> = files(&repository("tests/fixtures"), "yaml");
    tests.extend(files(&repository("tests"), "rs"));
    let all: String = tests.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    for row in REASONS {
        assert!(all.contains(row.code), "no test provokes {}", row.code);
    }
}

/// Each type of output is declared once, and has a half on each side.
#[test]
fn every_output_type_has_both_halves() {
    let client: Vec<&str> = destination::OUTPUTS.iter().map(|half| half.declaration.name).collect();
    let authority: Vec<&str> = policy::OUTPUTS.iter().map(|half| half.declaration.name).collect();
    assert_eq!(client, output::names());
    assert_eq!(authority, output::names());
}

/// What a document says is where it says. `NAME`, `METHOD` and `*` stand for more than one.
#[test]
fn documents_name_paths_that_are_there() {
    let mut pages = files(&repository("docs"), "md");
    pages.extend(files(&repository("tests"), "md"));
    pages.extend(["README.md", "CONTRIBUTING.md", "SECURITY.md"].map(repository));
    let mut missing = Vec::new();
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap();
        for path in text.split('`').filter(|word| word.starts_with("src/") || word.starts_with("tests/")) {
            let path = path.split([' ', ':']).next().unwrap_or_default();
            let stands_for_more = path.contains(['*', '{', '…'])
                || path.split('/').any(|part| {
                    part.trim_end_matches(".rs").chars().all(|c| c.is_ascii_uppercase()) && !part.is_empty()
                });
            if !stands_for_more && !repository(path).exists() {
                missing.push(format!("{}: {path}", page.display()));
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

/// What is promised of a fault is shown by a test that is there, and each of those tests is a promise's.
#[test]
fn every_fault_has_its_test() {
    let rows: Vec<Vec<String>> = rows("high-availability.md")
        .into_iter()
        .filter(|row| row.last().is_some_and(|cell| cell.contains("tests/")))
        .collect();
    let mut named = BTreeSet::new();
    for row in &rows {
        assert!(row.len() == 3 && row.iter().all(|cell| !cell.is_empty()), "fault, promise, test: {row:?}");
        for test in row[2].split(", ") {
            let (file, name) = test.split_once(' ').unwrap_or_else(|| panic!("a file and a test: {test}"));
            let text =
                std::fs::read_to_string(repository(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
            assert!(text.contains(&format!("#[test]\nfn {name}() {{\n")), "{file} has no test {name}");
            assert!(named.insert((file.to_owned(), name.to_owned())), "{name} of {file} is there twice");
        }
    }
    for file in files(&repository("tests/it/servers/faults"), "rs") {
        let text = std::fs::read_to_string(&file).unwrap();
        let file = file.strip_prefix(repository("")).unwrap().display().to_string();
        for name in text.split("#[test]\nfn ").skip(1).filter_map(|rest| rest.split('(').next()) {
            let is_there = named.contains(&(file.clone(), name.to_owned()));
            assert!(is_there || file.ends_with("/stage.rs"), "{name} of {file} is in no row");
        }
    }
    assert!(rows.len() > 12, "{rows:?}");
}

/// The paths that the map in `docs/architecture.md` names: a line is a folder's
/// depth, names that end in `.rs` or `/`, and what they are for.
fn mapped() -> BTreeSet<PathBuf> {
    let text = std::fs::read_to_string(repository("docs/architecture.md")).unwrap();
    let map = text.split("```text\nsrc/\n").nth(1).and_then(|rest| rest.split("\ntests/").next()).unwrap();
    let (mut folders, mut found) = (vec![PathBuf::new()], BTreeSet::new());
    for line in map.lines() {
        folders.truncate((line.len() - line.trim_start().len()) / 2);
        let here =
            folders.last().unwrap_or_else(|| panic!("the map's line `{line}` is in no folder")).clone();
        let names = line.split_whitespace().take_while(|word| word.ends_with(".rs") || word.ends_with('/'));
        for name in names {
            if name.ends_with('/') {
                folders.push(here.join(name));
            } else {
                assert!(found.insert(here.join(name)), "{name} is there twice");
            }
        }
    }
    found
}

#[test]
fn every_file_is_on_the_map() {
    let real: BTreeSet<PathBuf> = tree::modules().into_iter().map(|module| module.file.into()).collect();
    let mapped = mapped();
    let (new, gone) = (real.difference(&mapped), mapped.difference(&real));
    assert!(
        real == mapped,
        "not on the map: {:?}; only there: {:?}",
        Vec::from_iter(new),
        Vec::from_iter(gone)
    );
}

/// What a constant's expression says, as documents say it: 96 KiB, 30 s, 2048, or 2,048.
fn spellings(expression: &syn::Expr) -> Vec<String> {
    let number = |expression: &syn::Expr| value(expression).map(|value| value.to_string());
    match expression {
        syn::Expr::Struct(rate) => rate.fields.iter().filter_map(|field| number(&field.expr)).collect(),
        syn::Expr::Call(call) => {
            let seconds = call.args.first().and_then(value).unwrap_or_default();
            vec![
                format!("{seconds} s"),
                format!("{} minutes", seconds / 60),
                format!("{} hours", seconds / 3600),
            ]
        }
        plain => {
            let value = value(plain).unwrap_or_else(|| panic!("a constant that cannot be read"));
            let thousands = format!("{},{:03}", value / 1000, value % 1000);
            vec![value.to_string(), thousands, format!("{} KiB", value >> 10), format!("{} MiB", value >> 20)]
        }
    }
}

fn value(expression: &syn::Expr) -> Option<u64> {
    match expression {
        syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Int(number), .. }) => number.base10_parse().ok(),
        syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Float(number), .. }) => {
            number.base10_digits().trim_end_matches(".0").parse().ok()
        }
        syn::Expr::Binary(both) => {
            let (left, right) = (value(&both.left)?, value(&both.right)?);
            match both.op {
                syn::BinOp::Shl(_) => Some(left << right),
                syn::BinOp::Mul(_) => Some(left * right),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Of these files, every constant that is named like a limit must be in the table.
const LIMITED: &[&str] = &["http.rs", "serve.rs", "connections.rs"];

/// The table of limits names constants and their files, and has their values.
#[test]
fn limits_are_documented() {
    let rows: Vec<Vec<String>> =
        rows("protocol.md").into_iter().filter(|row| row.len() == 3 && row[2].starts_with("src/")).collect();
    let (mut wrong, mut named) = (Vec::new(), BTreeSet::new());
    for row in &rows {
        for file in row[2].split(", ") {
            let text = std::fs::read_to_string(repository(file)).unwrap();
            for item in syn::parse_file(&text).unwrap().items {
                let syn::Item::Const(constant) = item else { continue };
                let name = constant.ident.to_string();
                let words = |text: &str| -> Vec<String> {
                    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').map(str::to_owned).collect()
                };
                if words(&row[1]).contains(&name) {
                    named.insert((file.to_owned(), name.clone()));
                    let spellings = spellings(&constant.expr);
                    let text = format!(" {} ", row[1].replace(['(', ')', ';'], " ").replace(", ", " "));
                    let said = |one: &String| text.contains(&format!(" {one} "));
                    let is_rate = matches!(*constant.expr, syn::Expr::Struct(_));
                    let good = if is_rate { spellings.iter().all(said) } else { spellings.iter().any(said) };
                    if !good {
                        wrong.push(format!("{name} of {file} is {spellings:?}, the table says {}", row[1]));
                    }
                }
            }
        }
    }
    for file in LIMITED {
        let file = format!("src/authority/{file}");
        for item in syn::parse_file(&std::fs::read_to_string(repository(&file)).unwrap()).unwrap().items {
            let syn::Item::Const(constant) = item else { continue };
            let name = constant.ident.to_string();
            if (name.starts_with("MAX_") || name.ends_with("_TIMEOUT"))
                && !named.contains(&(file.clone(), name.clone()))
            {
                wrong.push(format!("{name} of {file} is not in the table"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(named.len() > 25, "{named:?}");
}
