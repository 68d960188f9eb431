//! Violations that somebody might write, each in a module of its own at a place
//! in the product: the walls see them all. And what is honest passes.

use super::meaning::Meaning;
use super::{tree, walls};

/// A module of the product, and a text for a new module in it.
type Text = (&'static str, &'static str);

/// What the walls say of these texts, each a new module in the module named.
fn told(texts: &[Text]) -> Vec<String> {
    let mut meaning = Meaning::product().clone();
    let mut new = Vec::new();
    for (number, (parent, text)) in texts.iter().enumerate() {
        assert!(meaning.modules.contains_key(*parent), "there is no {parent}");
        let added = tree::module(&format!("{parent}::new_{number}"), text);
        new.extend(added.iter().map(|module| module.path.clone()));
        meaning.add(&added);
    }
    new.iter().flat_map(|module| walls::violations(&meaning, module)).collect()
}

/// What it is, what the walls say of the first text, and the texts.
const VIOLATIONS: &[(&str, &str, &[Text])] = &[
    (
        "a policy that reaches the store",
        "crate::authority::store::Store",
        &[("crate::authority::policy", "use crate::authority::store::Store;\nfn f(_: &dyn Store) {}")],
    ),
    (
        "a policy that does so by a chain of super",
        "crate::authority::store::Store",
        &[("crate::authority::policy", "fn f(store: &dyn super::super::store::Store) {}")],
    ),
    (
        "a policy that reaches the store through a field of what it is given",
        "crate::authority::store::Store",
        &[
            (
                "crate::authority::policy",
                "pub struct Given { pub desk: crate::denial::new_1::Desk }\nfn f(given: &Given) { given.desk.store.put(); }",
            ),
            ("crate::denial", "pub struct Desk { pub store: Box<dyn crate::authority::store::Store> }"),
        ],
    ),
    (
        "a policy that reads a file",
        "std::fs::read",
        &[("crate::authority::policy", "use std as s;\nfn f() { let _ = s::fs::read(\"x\"); }")],
    ),
    (
        "a host that exchanges",
        "crate::once::exchange::exchange",
        &[("crate::host", "use crate::once::{self, exchange};\nfn f() { exchange::exchange(); }")],
    ),
    (
        "a command line that names the authority",
        "crate::authority::config::Config",
        &[("crate::cli", "use crate::authority::config::Config;")],
    ),
    (
        "a wire that names join methods",
        "crate::join::prove::Presented",
        &[("crate::wire", "pub struct Body { proof: crate::join::prove::Presented }")],
    ),
    (
        "a client that names the authority's half of a join method",
        "crate::join::verify::Verifier",
        &[("crate::once::exchange", "fn f(_: &dyn crate::join::verify::Verifier) {}")],
    ),
    (
        "an alias of a module",
        "crate::authority::store::open",
        &[("crate::join", "use crate::authority as a;\nfn f() { a::store::open(); }")],
    ),
    (
        "the crate under another name",
        "crate::once::run",
        &[("crate::join", "extern crate self as me;\nfn f() -> me::once::Settings { me::once::run() }")],
    ),
    (
        "the crate under its own name",
        "crate::authority::serve::serve",
        &[("crate::destination", "fn f() { ::machine_id::authority::serve::serve(); }")],
    ),
    (
        "a glob",
        "crate::once::settings::Settings",
        &[("crate::destination", "use crate::once::settings::*;\nfn f(_: &Settings) {}")],
    ),
    (
        "a re-export that hides where it comes from",
        "crate::once::exchange::Exchanger",
        &[
            ("crate::destination", "use crate::text::new_1::Client;\nfn f(_: Client) {}"),
            ("crate::text", "pub use crate::once::exchange::Exchanger as Client;"),
        ],
    ),
    (
        "join that names the client, inside a macro",
        "crate::once::run",
        &[(
            "crate::join",
            "fn f() { let x = vec![1, crate::once::run()]; assert!(super::super::once::run() == x[0]); }",
        )],
    ),
    (
        "a client that names the authority by way of the commands",
        "crate::commands::authority::serve",
        &[("crate::once", "fn f() { crate::commands::authority::serve(); }")],
    ),
    (
        "a store that names the policy, in a module inside it",
        "crate::authority::policy",
        &[("crate::authority::store", "mod inner { use super::super::super::policy::Policy; }")],
    ),
    (
        "issue that takes the configuration",
        "crate::authority::config::Config",
        &[("crate::authority::issue", "use super::super::config::Config;\nfn f(config: &Config) {}")],
    ),
    (
        "keys that open the store",
        "crate::authority::store::sqlite::Sqlite",
        &[("crate::authority::keys", "type Db = crate::authority::store::sqlite::Sqlite;")],
    ),
    (
        "printing outside the terminal",
        "std::io::stdout",
        &[(
            "crate::once",
            "use std::io::{self as out, Write as _};\nfn f() { let _ = out::stdout().write_all(b\"x\"); }",
        )],
    ),
    (
        "printing by macro",
        "eprintln!",
        &[("crate::authority::store", "fn f() { std::println!(\"x\"); eprintln!(\"y\"); }")],
    ),
    (
        "an attribute that names a function",
        "crate::once::settings",
        &[(
            "crate::wire",
            "#[derive(serde::Serialize)]\nstruct S { #[serde(with = \"crate::once::settings\")] x: u8 }",
        )],
    ),
    (
        "a use inside a function",
        "crate::error::Error",
        &[("crate::text", "fn f() { use crate::error::Error as E; E::usage(\"x\"); }")],
    ),
    (
        "a policy that reaches the store through a method's result",
        "crate::authority::store::sqlite::Sqlite",
        &[
            (
                "crate::authority::policy",
                "use crate::denial::new_1::Desk;\nfn f(desk: &Desk) { desk.store().put(); }",
            ),
            (
                "crate::denial",
                "pub struct Desk;\nimpl Desk { pub fn store(&self) -> &crate::authority::store::sqlite::Sqlite { todo!() } }",
            ),
        ],
    ),
    ("text that is put in by the compiler", "include!", &[("crate::text", "include!(\"../once.rs\");")]),
    ("a module of nowhere", "no room", &[("crate", "fn f() {}")]),
];

#[test]
fn every_violation_is_seen() {
    for (what, said, texts) in VIOLATIONS {
        let told = told(texts);
        let seen = told.iter().any(|told| told.contains("new_0") && told.contains(said));
        assert!(seen, "{what}: {told:?}");
    }
}

#[test]
fn what_is_honest_passes() {
    for (place, text) in [
        (
            "crate::authority::policy",
            "use crate::join::{self, verify::Identity};\nuse super::*;\nuse std::{collections::BTreeMap, net::IpAddr};\nfn f(_: &Identity, _: IpAddr) -> Option<crate::denial::Denial> { None }",
        ),
        (
            "crate::authority::issue",
            "use crate::authority::policy::Grant;\nfn f(grant: &Grant) { println(grant); }",
        ),
        (
            "crate::once",
            "use crate::{destination, join::{method as methods}};\nmod inner { use super::super::super::text; pub(in crate::once) fn g() { let store = 1; store.policy(); } }",
        ),
        (
            "crate::wire",
            "// crate::authority::store\n/// `crate::once::run`\nfn f() { let text = \"crate::once is elsewhere\"; }\n#[cfg(test)]\nmod tests { use crate::once::run; }\n#[cfg(test)]\nuse crate::authority::Authority;",
        ),
        ("crate::host", "fn f() { let once = 1; let join = once; print(join); let _ = crate::net::host(); }"),
    ] {
        assert_eq!(told(&[(place, text)]), Vec::<String>::new(), "{text}");
    }
}
