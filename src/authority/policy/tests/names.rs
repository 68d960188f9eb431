//! Tests of the outputs that carry names: what is refused, and in which words.

use super::fixture::{NOTHING, bot, decide, output_with, parse, policy, role};
use crate::authority::policy::{Grant, Policy};
use crate::denial::{Denial, Reason};

fn with(spec: &str, other: &str) -> Policy {
    let traits = "traits: [{name: db_users, values: [alice]}, {name: g, values: [dev]}]";
    policy(&[bot(&format!("{{roles: [x, z], {traits}}}")), role("x", spec), role("z", other)])
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
fn told(policy: &Policy, kind: &str, options: &[(&str, &str)]) -> (Reason, String) {
    let denial = ask(policy, kind, options).unwrap_err();
    (denial.reason, denial.told.unwrap())
}

#[test]
fn a_database_user_is_the_common_name() {
    let one = with("{allow: {db_users: ['{{internal.db_users}}'], db_names: [orders]}}", NOTHING);
    assert_eq!(subject(&one, "database", &[("service", "s")]), ("alice".into(), vec![]));
    assert_eq!(subject(&one, "database", &[("service", "s"), ("database", "orders")]).0, "alice");
    let refused = |options: &[(&str, &str)], wanted: &str| {
        let mut all = vec![("service", "s")];
        all.extend(options);
        let (reason, told) = told(&one, "database", &all);
        assert_eq!((reason, told.as_str()), (Reason::NothingGranted, wanted));
    };
    refused(
        &[("user", "root")],
        "output `database`: the database user `root` is not granted by its roles (`x`, `z`)",
    );
    refused(
        &[("database", "users")],
        "output `database`: the database name `users` is not granted by its roles (`x`, `z`)",
    );
    let (reason, _) = told(&one, "database", &[("service", "s"), ("user", "a b")]);
    assert_eq!(reason, Reason::OutputInvalid);

    let several = with("{allow: {db_users: [a, b]}}", "{allow: {db_users: [b, c]}}");
    let (reason, said) = told(&several, "database", &[("service", "s")]);
    assert_eq!(reason, Reason::OutputInvalid);
    assert_eq!(said, "output `database`: its roles grant 3 database users; say which with `user=…`");
    let any = with("{allow: {db_users: ['*']}}", "{deny: {db_users: [postgres]}}");
    assert_eq!(subject(&any, "database", &[("service", "s"), ("user", "x")]).0, "x");
    assert_eq!(told(&any, "database", &[("service", "s")]).0, Reason::OutputInvalid);
    assert_eq!(told(&any, "database", &[("service", "s"), ("user", "postgres")]).0, Reason::NothingGranted);
    let none = told(&with(NOTHING, NOTHING), "database", &[("service", "s")]);
    assert_eq!(none.1, "output `database`: no database user is granted by its roles (`x`, `z`)");
}

#[test]
fn the_operator_hears_who_denies() {
    let policy = with("{allow: {db_users: [a]}}", "{deny: {db_users: ['?']}}");
    for options in [&[("service", "s")][..], &[("service", "s"), ("user", "a")]] {
        let denial = ask(&policy, "database", options).unwrap_err();
        assert!(denial.detail.contains("denied by role `z` at p.yaml:17:18"), "{}", denial.detail);
        assert!(!denial.told.unwrap().contains("denied"));
    }
    // Not asking for the role that denies does not shed the deny.
    let request = [output_with("database", &["x"], &[("service", "s"), ("user", "a")])];
    assert_eq!(decide(&policy, &request, 3600).unwrap_err().reason, Reason::NothingGranted);
}

#[test]
fn user_and_database_of_different_roles_do_not_mix() {
    let policy =
        with("{allow: {db_users: [a], db_names: [one]}}", "{allow: {db_users: [b], db_names: [two]}}");
    let ask = |user, database| {
        ask(&policy, "database", &[("service", "s"), ("user", user), ("database", database)])
    };
    assert!(ask("a", "one").is_ok() && ask("b", "two").is_ok());
    assert!(ask("a", "two").is_err() && ask("b", "one").is_err());
    assert_eq!(subject(&policy, "database", &[("service", "s"), ("database", "two")]).0, "b");
}

#[test]
fn kubernetes_groups_are_added_up() {
    let policy = with(
        "{allow: {kubernetes_users: ['ci:deployer'], kubernetes_groups: [viewers, 'team:{{external.g}}']}}",
        "{allow: {kubernetes_users: ['ci:deployer'], kubernetes_groups: ['system:masters', admins]}, \
          deny: {kubernetes_groups: ['a*']}}",
    );
    let (user, groups) = subject(&policy, "kubernetes", &[("cluster", "prod")]);
    assert_eq!(
        (user.as_str(), groups.join(" ").as_str()),
        ("ci:deployer", "system:masters team:dev viewers")
    );
    let request = [output_with("kubernetes", &["x"], &[("cluster", "prod")])];
    let grant = decide(&policy, &request, 3600).unwrap();
    assert_eq!(grant.outputs[0].tls.as_ref().unwrap().organizations, ["team:dev", "viewers"]);
}

#[test]
fn applications_are_known_by_name_alone() {
    let named = with("{allow: {app_labels: {name: [orders, billing]}}}", NOTHING);
    assert_eq!(subject(&named, "application", &[("app", "orders")]).0, "app:orders");
    assert_eq!(told(&named, "application", &[("app", "other")]).0, Reason::NothingGranted);
    assert_eq!(told(&named, "application", &[("app", "Orders")]).0, Reason::OutputInvalid);
    let all = with("{allow: {app_labels: {'*': '*'}}}", "{deny: {app_labels: {name: vault}}}");
    assert_eq!(subject(&all, "application", &[("app", "x")]).0, "app:x");
    assert_eq!(told(&all, "application", &[("app", "vault")]).0, Reason::NothingGranted);
    for labels in ["{env: prod}", "{name: orders, env: prod}"] {
        let other = with(&format!("{{allow: {{app_labels: {labels}}}}}"), NOTHING);
        assert_eq!(told(&other, "application", &[("app", "orders")]).0, Reason::NothingGranted);
    }
}

#[test]
fn hosts_have_one_spelling() {
    let policy = with(
        "{allow: {ssh_host_principals: ['*.example.com', '10.0.0.*', '2001:db8:*']}}",
        "{deny: {ssh_host_principals: [db.example.com]}}",
    );
    let ask = |names: &str| ask(&policy, "ssh-host", &[("principals", names)]);
    let grant = ask("web.example.com+10.0.0.7+2001:db8::1+web.example.com").unwrap();
    let ssh = grant.outputs[0].ssh.as_ref().unwrap();
    assert_eq!(ssh.principals, ["10.0.0.7", "2001:db8::1", "web.example.com"]);
    for refused in ["db.example.com", "web.example.com+db.example.com", "example.com", "10.0.1.1"] {
        assert_eq!(ask(refused).unwrap_err().reason, Reason::NothingGranted, "{refused}");
    }
    for bad in [
        "",
        "DB.example.com",
        "db.example.com.",
        "*.example.com",
        "?b.example.com",
        "10.0.0.07",
        "2001:DB8::1",
        "2001:db8:0::1",
        "a..example.com",
        "-a.example.com",
        "a,b.example.com",
        "web.example.com+",
        "x.0x10",
    ] {
        assert_eq!(ask(bad).unwrap_err().reason, Reason::OutputInvalid, "{bad}");
    }
}

#[test]
fn a_pinned_role_gives_nothing_that_cannot_be_pinned() {
    let policy = with(
        "{options: {pin_source_ip: true}, allow: {db_users: [a]}}",
        "{options: {max_session_ttl: 5m}, allow: {db_users: [b]}}",
    );
    let grant = ask(&policy, "database", &[("service", "s")]).unwrap();
    let output = &grant.outputs[0];
    assert_eq!((output.tls.as_ref().unwrap().common_name.as_str(), output.ttl), ("b", 300));
    assert_eq!(output.roles, ["z"]);
    assert!(grant.warnings[0].starts_with("role `x` is left out"), "{:?}", grant.warnings);
    let (reason, said) = told(&policy, "database", &[("service", "s"), ("user", "a")]);
    assert_eq!(reason, Reason::NothingGranted);
    assert!(said.contains("role `x` is left out"), "{said}");
}

#[test]
fn mistakes_are_told_where_they_stand() {
    for (spec, wanted) in [
        ("{allow: {db_users: ['a b']}}", "`db_users`: `a b` cannot be a database user"),
        ("{allow: {db_users: ['a*']}}", "`db_users`: `a*` is a pattern; the only one here is `*` alone"),
        ("{allow: {db_users: ['app:x']}}", "`db_users`: `app:x` cannot be a database user"),
        ("{allow: {kubernetes_users: ['*']}}", "`*` has a wildcard, which a Kubernetes user cannot have"),
        ("{allow: {kubernetes_users: ['bot:x']}}", "`bot:x` cannot be a Kubernetes user"),
        (
            "{allow: {kubernetes_users: ['system:{{external.g}}']}}",
            "makes a Kubernetes user of `dev` in role `x`",
        ),
        (
            "{allow: {kubernetes_groups: ['{{external.bad}}']}}",
            "makes a Kubernetes group of `system:masters`",
        ),
        ("{allow: {db_users: ['{{external.star}}']}}", "makes a database user of `*`"),
        ("{allow: {ssh_host_principals: ['{{external.star}}.x']}}", "makes a host name of `*`"),
        ("{allow: {ssh_host_principals: ['*.Example.com']}}", "`*.Example.com` cannot be a host name"),
        ("{allow: {app_labels: {name: Orders}}}", "`Orders` cannot be an application"),
        ("{deny: {app_labels: {env: prod}}}", "`env=prod` in `deny.app_labels` can match no application"),
        ("{deny: {db_users: ['a b']}}", "`a b` in `deny.db_users` can match no database user"),
        ("{deny: {db_names: ['{{internal.db_names}}']}}", "in `deny.db_names` can match no database name"),
        (
            "{deny: {kubernetes_groups: ['a,*']}}",
            "`a,*` in `deny.kubernetes_groups` can match no Kubernetes group",
        ),
        ("{deny: {ssh_host_principals: ['*.EXAMPLE.com']}}", "can match no host name"),
    ] {
        let traits = "traits: [{name: g, values: [dev]}, {name: bad, values: ['system:masters']}, {name: star, values: ['*']}]";
        let text = format!(
            "{}{}{}",
            bot(&format!("{{roles: [x], {traits}}}")),
            role("x", spec),
            super::fixture::TOKEN
        );
        let mistakes = parse(&text).map(|_| ()).unwrap_err();
        assert!(mistakes.len() == 1 && mistakes[0].contains(wanted), "{spec}: {mistakes:?}");
    }
}
