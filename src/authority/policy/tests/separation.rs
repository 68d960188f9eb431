//! Tests of what keeps the certificates of one CA apart: what cannot be pinned,
//! denies that hold for the same name elsewhere, groups and their users,
//! databases that no certificate carries, addresses and names.

use super::fixture::{NOTHING, TOKEN, bot, decide, output, output_with, parse, policy, role};
use crate::authority::policy::{Grant, Policy};
use crate::denial::{Denial, Reason};

const SSH: &str = "allow: {logins: [a], node_labels: {'*': '*'}}";

fn two(one: &str, other: &str) -> Policy {
    policy(&[bot("{roles: [x, z]}"), role("x", one), role("z", other)])
}

fn ask(policy: &Policy, kind: &str, options: &[(&str, &str)]) -> Result<Grant, Denial> {
    decide(policy, &[output_with(kind, &[], options)], 3600)
}

#[track_caller]
fn subject(policy: &Policy, kind: &str, options: &[(&str, &str)]) -> (String, Vec<String>) {
    let grant = ask(policy, kind, options).unwrap();
    let tls = grant.outputs[0].tls.as_ref().unwrap();
    (tls.common_name.clone(), tls.organizations.clone())
}

#[track_caller]
fn refused(policy: &Policy, kind: &str, options: &[(&str, &str)], reason: Reason, words: &str) -> Denial {
    let denial = ask(policy, kind, options).unwrap_err();
    assert_eq!(denial.reason, reason, "{}", denial.detail);
    let told = denial.told.as_deref().unwrap();
    assert!(told.contains(words), "{told}");
    denial
}

#[test]
fn an_identity_of_pinned_roles_alone_is_refused() {
    let pinned = format!("{{options: {{pin_source_ip: true}}, {SSH}}}");
    let all = two(&pinned, &pinned);
    let denial = refused(&all, "identity", &[], Reason::NothingGranted, "ask for the output `ssh`");
    let words = "output `identity`: its roles (`x`, `z`) pin the source address, which its X.509 \
                 certificate cannot; ask for the output `ssh` instead";
    assert_eq!(denial.told.unwrap(), words);
    let ssh = decide(&all, &[output("ssh", &[])], 3600).unwrap();
    assert!(ssh.outputs[0].ssh.as_ref().unwrap().pin_source_ip && ssh.warnings.is_empty());
    // Asked for by name, one pinned role is all of them.
    let some = two(&pinned, &format!("{{{SSH}}}"));
    assert!(decide(&some, &[output("identity", &["x"])], 3600).is_err());
    assert!(decide(&some, &[output("identity", &["z"])], 3600).unwrap().warnings.is_empty());
}

#[test]
fn an_identity_of_some_pinned_roles_says_what_is_not_pinned() {
    let policy = two(&format!("{{options: {{pin_source_ip: true}}, {SSH}}}"), &format!("{{{SSH}}}"));
    let grant = decide(&policy, &[output("identity", &[])], 3600).unwrap();
    let output = &grant.outputs[0];
    assert!(output.ssh.as_ref().unwrap().pin_source_ip && output.tls.is_some());
    assert_eq!(
        grant.warnings,
        ["role `x` pins the source address, which holds for the SSH certificate of output `identity` \
          and not for its X.509 certificate"]
    );
}

/// Nothing is left of these but the warnings, and no empty list of roles is told.
#[test]
fn other_outputs_of_pinned_roles_alone_are_refused() {
    let pinned = "{options: {pin_source_ip: true}, allow: {app_labels: {'*': '*'}, db_users: [a], \
                  kubernetes_users: [a], ssh_host_principals: ['*']}}";
    let policy = two(pinned, pinned);
    for (kind, options) in [
        ("application", &[("app", "a")][..]),
        ("database", &[("service", "s")]),
        ("database", &[("service", "s"), ("user", "a")]),
        ("kubernetes", &[("cluster", "c")]),
        ("ssh-host", &[("principals", "a")]),
    ] {
        let denial = refused(&policy, kind, options, Reason::NothingGranted, "role `x` is left out: it pins");
        let told = denial.told.unwrap();
        assert!(told.contains("role `z` is left out") && !told.contains("()"), "{told}");
    }
}

#[test]
fn a_database_must_be_named_where_some_are_denied() {
    let policy = two("{allow: {db_users: [a], db_names: ['*']}}", "{deny: {db_names: [users]}}");
    let words = "output `database`: its roles deny databases; say which it is for with `database=…`";
    for options in [&[("service", "s")][..], &[("service", "s"), ("user", "a")]] {
        let denial = refused(&policy, "database", options, Reason::OutputInvalid, words);
        assert!(denial.detail.contains("role `z` at p.yaml"), "{}", denial.detail);
    }
    // Not asking for the role that denies does not shed the deny.
    let request = [output_with("database", &["x"], &[("service", "s")])];
    assert_eq!(decide(&policy, &request, 3600).unwrap_err().reason, Reason::OutputInvalid);
    assert_eq!(subject(&policy, "database", &[("service", "s"), ("database", "orders")]).0, "a");
    refused(
        &policy,
        "database",
        &[("service", "s"), ("database", "users")],
        Reason::NothingGranted,
        "`users`",
    );
}

/// One CA signs both, so a name that is denied as one kind of user is denied as the other.
#[test]
fn denies_of_users_cross() {
    let both = "allow: {db_users: [admin, b], kubernetes_users: [admin, 'ci:x']}";
    for deny in ["db_users: [admin]", "kubernetes_users: [admin]", "db_users: ['a*']"] {
        let policy = two(&format!("{{{both}}}"), &format!("{{deny: {{{deny}}}}}"));
        for (kind, option) in [("database", "service"), ("kubernetes", "cluster")] {
            let asked = [(option, "s"), ("user", "admin")];
            let denial = refused(&policy, kind, &asked, Reason::NothingGranted, "`admin` is not granted");
            assert!(denial.detail.contains("denied by role `z`"), "{}", denial.detail);
        }
        // Nor is it one of those to choose from.
        assert_eq!(subject(&policy, "database", &[("service", "s")]).0, "b");
        assert_eq!(subject(&policy, "kubernetes", &[("cluster", "s")]).0, "ci:x");
    }
    // What cannot be a database user is nothing that `db_users` is about.
    let policy = two(&format!("{{{both}}}"), "{deny: {db_users: ['*']}}");
    assert_eq!(subject(&policy, "kubernetes", &[("cluster", "s")]).0, "ci:x");
    // What can be a Kubernetes user is.
    let policy = two(&format!("{{{both}}}"), "{deny: {kubernetes_users: ['*']}}");
    refused(&policy, "database", &[("service", "s"), ("user", "b")], Reason::NothingGranted, "`b`");
}

#[test]
fn groups_come_with_the_user_of_their_role() {
    let policy = two(
        "{allow: {kubernetes_users: [reader, shared], kubernetes_groups: [viewers]}}",
        "{allow: {kubernetes_users: [admin, shared], kubernetes_groups: [admins]}}",
    );
    let groups = |user| subject(&policy, "kubernetes", &[("cluster", "c"), ("user", user)]).1;
    assert_eq!(groups("reader"), ["viewers"]);
    assert_eq!(groups("admin"), ["admins"]);
    assert_eq!(groups("shared"), ["admins", "viewers"]);
    let grant = ask(&policy, "kubernetes", &[("cluster", "c"), ("user", "reader")]).unwrap();
    assert_eq!(
        grant.warnings,
        ["the Kubernetes groups of role `z` are left out: it does not grant the user `reader`"]
    );
    let alone = two("{allow: {kubernetes_users: [reader]}}", "{allow: {kubernetes_groups: [admins]}}");
    assert!(subject(&alone, "kubernetes", &[("cluster", "c")]).1.is_empty());
}

#[test]
fn globs_that_look_like_addresses_match_addresses_alone() {
    let asked = |pattern: &str, name: &str| {
        let spec = format!("{{allow: {{ssh_host_principals: ['{pattern}']}}}}");
        ask(&two(&spec, NOTHING), "ssh-host", &[("principals", name)]).is_ok()
    };
    for (pattern, name) in [
        ("10.0.0.*", "10.0.0.7"),
        ("10.*", "10.1.2.3"),
        ("10.0.0.?", "10.0.0.7"),
        ("2001:db8:*", "2001:db8::1"),
        ("fe80::*", "fe80::1"),
        ("*", "10.0.0.7"),
        ("*", "a.example.com"),
        ("web1*.example.com", "web10.example.com"),
        ("*.1.example.com", "a.1.example.com"),
    ] {
        assert!(asked(pattern, name), "{pattern} {name}");
    }
    for (pattern, name) in [
        ("10.0.0.*", "10.0.0.evil.example"),
        ("10.*", "10.0.0.7.evil.example"),
        ("1*", "1.evil.example"),
        ("1?.0.0.*", "10.0.0.evil.example"),
        ("10.0.0.*", "10.0.1.7"),
        // A label is one.
        ("web1*", "web10.example.com"),
        ("*.example.com", "a.web.example.com"),
    ] {
        assert!(!asked(pattern, name), "{pattern} {name}");
    }
    // A trait fills no pattern that is wider.
    let text = [
        bot("{roles: [x], traits: [{name: net, values: ['10.0.0']}]}"),
        role("x", "{allow: {ssh_host_principals: ['{{external.net}}.*']}}"),
        TOKEN.to_owned(),
    ];
    let policy = parse(&text.concat()).unwrap();
    assert!(ask(&policy, "ssh-host", &[("principals", "10.0.0.7")]).is_ok());
    assert!(ask(&policy, "ssh-host", &[("principals", "10.0.0.evil.example")]).is_err());
    // A deny is as wide as it is written.
    let policy = two("{allow: {ssh_host_principals: ['*']}}", "{deny: {ssh_host_principals: ['10.*']}}");
    assert!(ask(&policy, "ssh-host", &[("principals", "10.evil.example")]).is_err());
}
