//! The documents: what they show loads, and they name every key that the
//! parser itself says there may be.

use machine_id::authority::policy::{Policy, Source};
use machine_id::join::METHODS;

use crate::support::repository;

/// Each block of a document that is marked as policy, with the line it begins at.
pub(super) fn blocks(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (index, line) in text.lines().enumerate() {
        match (&mut open, line) {
            (None, "```yaml policy") => open = Some((index + 2, String::new())),
            (Some(_), "```") => found.extend(open.take()),
            (Some((_, block)), line) => *block = format!("{block}{line}\n"),
            (None, _) => {}
        }
    }
    assert!(open.is_none(), "a block without an end");
    found
}

fn mistakes(text: &str) -> Vec<String> {
    let source = Source { name: "p".to_owned(), text: text.to_owned() };
    Policy::parse(&[source]).err().unwrap_or_default().iter().map(ToString::to_string).collect()
}

/// Bots and roles that a block names and does not define, in their shortest form.
pub(super) fn completed(block: &str) -> String {
    let mut text = block.to_owned();
    for kind in ["bot", "role"] {
        let mut names: Vec<String> = mistakes(&text)
            .iter()
            .filter_map(|mistake| Some(mistake.split_once(&format!("there is no {kind} `"))?.1.to_owned()))
            .collect();
        names.sort();
        names.dedup();
        for name in names {
            let name = name.trim_end_matches('`');
            let (version, spec) = if kind == "bot" {
                ("v1", "{roles: [stub]}")
            } else {
                ("v7", "{options: {permit_pty: true}}")
            };
            text.push_str(&format!(
                "---\nkind: {kind}\nversion: {version}\nmetadata: {{name: {name}}}\nspec: {spec}\n"
            ));
        }
    }
    text
}

pub(super) fn documents() -> Vec<(String, String)> {
    let read = std::fs::read_dir(repository("docs")).unwrap();
    let mut paths: Vec<_> = read.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    paths.sort();
    paths
        .into_iter()
        .map(|path| (path.display().to_string(), std::fs::read_to_string(&path).unwrap()))
        .collect()
}

#[test]
fn every_policy_in_the_documents_loads() {
    let mut kinds = Vec::new();
    for (path, text) in documents() {
        for (line, block) in blocks(&text) {
            let wrong = mistakes(&completed(&block));
            assert!(wrong.is_empty(), "{path}:{line}: {wrong:?}");
            kinds.extend(block.lines().filter_map(|line| line.strip_prefix("kind: ")).map(str::to_owned));
        }
        // One that is not marked is not read here.
        assert!(!text.contains("```yaml\nkind:"), "{path}: a policy that is not marked `yaml policy`");
    }
    for kind in ["bot", "role", "token", "cluster_auth_preference", "leaf_cluster", "trusted_cluster"] {
        assert!(kinds.iter().any(|found| found == kind), "no document shows a {kind}");
    }
}

/// The keys that a section may have, as the parser answers to one that no section has.
fn keys(text: &str) -> Vec<String> {
    let source = Source { name: "p".to_owned(), text: text.to_owned() };
    let errors = Policy::parse(&[source]).expect_err("an unknown key");
    let hint = errors
        .iter()
        .filter(|error| error.to_string().contains("`qqqq`"))
        .flat_map(|error| error.hints())
        .find_map(|hint| hint.strip_prefix("it may have: "));
    hint.unwrap_or_else(|| panic!("{text}: {errors:?}")).split(", ").map(str::to_owned).collect()
}

fn resource(kind: &str, version: &str, spec: &str) -> String {
    format!("kind: {kind}\nversion: {version}\nmetadata: {{name: a}}\nspec: {spec}\n")
}

/// Where each section can be provoked, and how its keys are written in the table.
fn sections() -> Vec<(String, &'static str)> {
    let token = "roles: [Bot], bot_name: b";
    let mut sections = vec![
        ("qqqq: 1".to_owned(), ""),
        ("kind: bot\nversion: v1\nmetadata: {qqqq: 1}\nspec: {}\n".to_owned(), "metadata."),
        (resource("bot", "v1", "{qqqq: 1}"), ""),
        (resource("bot", "v1", "{traits: [{qqqq: 1}]}"), ""),
        (resource("role", "v7", "{options: {qqqq: 1}}"), "options."),
        (resource("role", "v7", "{allow: {qqqq: 1}}"), "allow."),
        (resource("role", "v7", "{deny: {qqqq: 1}}"), "deny."),
        (resource("leaf_cluster", "v1", "{qqqq: 1}"), ""),
        (resource("token", "v2", &format!("{{{token}, join_method: github, qqqq: 1}}")), ""),
    ];
    for spec in ["{qqqq: 1}", "{role_map: [{qqqq: 1}]}", "{allow: [{qqqq: 1}]}", "{deny: [{qqqq: 1}]}"] {
        sections.push((resource("trusted_cluster", "v2", spec), ""));
    }
    let preference = resource("cluster_auth_preference", "v2", "{qqqq: 1}");
    sections.push((preference.replace("name: a", "name: cluster-auth-preference"), ""));
    sections
}

#[test]
fn the_page_names_every_key() {
    let page = std::fs::read_to_string(repository("docs/policy.md")).unwrap();
    let mut checked = 0;
    for (text, prefix) in sections() {
        // The top of a resource is read before its kind is known.
        let keys = if prefix.is_empty() && text.starts_with("qqqq") {
            ["kind", "version", "metadata", "spec"].map(str::to_owned).to_vec()
        } else {
            keys(&text)
        };
        // The sections of join methods have a page of their own.
        let is_method = |key: &String| METHODS.iter().any(|method| method.name == key);
        for key in keys.into_iter().filter(|key| !is_method(key)) {
            let whole = format!("`{prefix}{key}");
            let named = [format!("{whole}`"), format!("{whole}."), format!("`{key}`")];
            assert!(named.iter().any(|name| page.contains(name)), "docs/policy.md lacks {whole}`");
            checked += 1;
        }
    }
    assert!(checked > 40, "{checked} keys");
}

#[test]
fn every_field_of_a_rule_is_documented() {
    let page = std::fs::read_to_string(repository("docs/join-methods.md")).unwrap();
    for method in METHODS {
        let (_, section) = page.split_once(&format!("\n## `{}`", method.name)).expect("a section");
        let section = section.split("\n## `").next().unwrap();
        for field in method.fields {
            assert!(section.contains(&format!("| `{}` |", field.name)), "{}: {}", method.name, field.name);
        }
    }
}
