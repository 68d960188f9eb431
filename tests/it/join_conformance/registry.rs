//! Adding a method touches one new source file, one line of the registry, its
//! fixtures and its page: nothing else in the product names one.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use machine_id::join::{METHODS, method::Method};

use crate::support::repository;

/// Names that mean something else as well, so that only paths to the method's
/// module are looked for.
const HOMONYMS: &[(&str, &str)] = &[
    ("oidc", "the engine that all methods with OIDC tokens share"),
    ("kubernetes", "also a type of output"),
    ("token", "also what a join token, a proof and half of everything else is called"),
];

/// Files that may name a method all the same.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    ("commands/demo", "github", "the demo shows one platform's loop from end to end, and says which"),
    ("join/rules/guard.rs", "circleci", "a claim has its platform's host in its name, on every server"),
];

/// A method, and the module that the registry has for it.
struct Entry {
    name: &'static str,
    module: String,
}

/// The registry's line as it is written.
fn entries() -> Vec<Entry> {
    let text = std::fs::read_to_string(repository("src/join.rs")).unwrap();
    let (_, line) = text.split_once("pub static METHODS: &[&Method] =").unwrap();
    let (line, _) = line.split_once("];").unwrap();
    let written: Vec<&str> = line
        .split(',')
        .filter_map(|one| one.trim_start_matches(['&', '[', ' ', '\n']).strip_suffix("::METHOD"))
        .collect();
    assert_eq!(written.len(), METHODS.len(), "an entry is `&module::METHOD`: {written:?}");
    let entry = |(method, module): (&&Method, &str)| Entry { name: method.name, module: module.to_owned() };
    METHODS.iter().zip(written).map(entry).collect()
}

/// Every source file of the product, by its path below `src`, without comments and unit tests.
fn sources() -> Vec<(String, String)> {
    let src = repository("src");
    let mut files = Vec::new();
    walk(&src, &mut files);
    let texts: Vec<(String, String)> = files
        .into_iter()
        .map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            (path.strip_prefix(&src).unwrap().to_str().unwrap().to_owned(), text)
        })
        .collect();
    let tests = modules_of_tests(&texts);
    let product = texts.into_iter().filter(|(path, _)| !tests.iter().any(|test| path.starts_with(test)));
    product.map(|(path, text)| (path, code(&text))).collect()
}

fn walk(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, into);
        } else if path.extension().is_some_and(|end| end == "rs") {
            // What else lies there is data: a dictionary of words that events have.
            into.push(path);
        }
    }
}

/// Where the files stand that are compiled for tests alone.
fn modules_of_tests(texts: &[(String, String)]) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in texts {
        let folder = path.trim_end_matches(".rs");
        for part in text.split("#[cfg(test)]\n").skip(1) {
            let line = part.lines().next().unwrap_or_default().trim();
            if let Some(name) = line.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';')) {
                found.extend([format!("{folder}/{name}.rs"), format!("{folder}/{name}/")]);
            } else if let Some(file) =
                line.strip_prefix("#[path = \"").and_then(|rest| rest.strip_suffix("\"]"))
            {
                found.push(Path::new(path).with_file_name(file).to_str().unwrap().to_owned());
            }
        }
    }
    found
}

fn code(text: &str) -> String {
    // Unit tests stand at a file's end.
    let tests = text.match_indices("#[cfg(test)]\n").map(|(place, _)| place).find(|place| {
        let module = text[*place..].lines().nth(1).unwrap_or_default();
        module.contains("mod ") && module.ends_with('{')
    });
    let product = &text[..tests.unwrap_or(text.len())];
    product
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .map(|line| format!("{line}\n"))
        .collect()
}

fn words(code: &str) -> BTreeSet<&str> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_').collect()
}

/// How a file names a method, if it does.
fn names(entry: &Entry, code: &str) -> Option<String> {
    let words = words(code);
    let is_homonym = HOMONYMS.iter().any(|(name, _)| *name == entry.name);
    // `join::{a, b}` and `join::a`, but not a module of that name elsewhere.
    let in_join = code.split("join::").skip(1).any(|behind| {
        let end = behind.find(if behind.starts_with('{') { ';' } else { ')' }).unwrap_or(behind.len());
        let path = &behind[..end.min(200).min(behind.len())];
        let first = path.split(|c: char| !c.is_alphanumeric() && c != '_').next();
        first == Some(&entry.module) || (path.starts_with('{') && path.split(&entry.module).count() > 1)
    });
    if in_join {
        return Some(format!("the module join::{}", entry.module));
    }
    (!is_homonym && words.contains(entry.name)).then(|| format!("the name {:?}", entry.name))
}

#[test]
fn nothing_else_names_a_method() {
    let sources = sources();
    assert!(sources.len() > 100, "only {} files", sources.len());
    for entry in entries() {
        let own = format!("join/{}.rs", entry.module);
        assert!(sources.iter().any(|(path, _)| *path == own), "{} is not one file", entry.name);
        let mine = |path: &str| {
            path == own
                || path == "join.rs"
                || path.starts_with(&format!("join/{}/", entry.module))
                || EXCEPTIONS.iter().any(|(file, name, _)| path.starts_with(file) && *name == entry.name)
        };
        for (path, code) in sources.iter().filter(|(path, _)| !mine(path)) {
            if let Some(how) = names(&entry, code) {
                panic!("src/{path} names {how} of the join method {}", entry.name);
            }
        }
        let (_, registry) = sources.iter().find(|(path, _)| path == "join.rs").unwrap();
        // A homonym may be the name of something else there, but of no module or path.
        let names_it = |line: &&str| {
            let module = &entry.module;
            let is_path = line.contains(&format!("mod {module};")) || line.contains(&format!("{module}::"));
            let is_homonym = HOMONYMS.iter().any(|(name, _)| *name == entry.name);
            is_path || (!is_homonym && words(line).contains(module.as_str()))
        };
        let lines = registry.lines().filter(names_it).count();
        assert_eq!(lines, 2, "{}: `pub mod` and the registry's line", entry.name);
    }
}

#[test]
fn a_file_that_names_one_would_be_noticed() {
    let entry = Entry { name: "github", module: "github".to_owned() };
    for bad in [
        "if method.name == \"github\" {",
        "use crate::join::github;",
        "use crate::join::{self, github::METHOD};",
        "match name { \"gitlab\" | \"github\" => 1 }",
        "println!(\"one of github, circleci\");",
        "let x = &github::METHOD;",
    ] {
        assert!(names(&entry, bad).is_some(), "{bad}");
    }
    let homonym = Entry { name: "oidc", module: "any_issuer".to_owned() };
    assert!(names(&homonym, "use crate::join::oidc::Oidc; fn f() { \"oidc\" }").is_none());
    assert!(names(&homonym, "crate::join::any_issuer::X").is_some());
    assert_eq!(code("// github\nfn f() {}\n#[cfg(test)]\nmod tests {\n\"github\"\n}"), "fn f() {}\n");
}

#[test]
fn every_method_has_its_page() {
    let page = std::fs::read_to_string(repository("docs/join-methods.md")).unwrap();
    for method in METHODS {
        let name = method.name;
        assert!(page.lines().any(|line| line.starts_with(&format!("| `{name}` |"))), "{name} has no row");
        let section = page.split("\n## ").find(|section| section.starts_with(&format!("`{name}`\n")));
        let section = section.unwrap_or_else(|| panic!("{name} has no section"));
        // `tests/it/policy_cli/documents.rs` loads every one of these.
        let example = section.split("```yaml policy").skip(1).any(|block| {
            block.split("```").next().unwrap_or_default().contains(&format!("join_method: {name}\n"))
        });
        assert!(example, "{name} has no policy in its section");
        for field in method.fields {
            assert!(
                section.contains(&format!("`{}`", field.name)),
                "{name}: nothing is said of `{}`",
                field.name
            );
        }
    }
}
