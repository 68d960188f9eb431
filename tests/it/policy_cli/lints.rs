//! Every lint has a policy that triggers it, one that does not, and a page.

use machine_id::authority::policy::{LINTS, Policy, Report, Source};

use crate::support::{fixture, repository};

fn lint(name: &str, text: &str) -> Report {
    let source = Source { name: name.to_owned(), text: text.to_owned() };
    Policy::parse(&[source]).unwrap_or_else(|mistakes| panic!("{name}: {mistakes:?}")).lint()
}

#[test]
fn each_finds_what_is_bad_and_nothing_else() {
    for known in LINTS {
        let file = format!("lints/{}/bad.yaml", known.name);
        let report = lint(&file, &fixture(&file));
        let found: Vec<&str> = report.findings.iter().map(|finding| finding.lint).collect();
        assert!(!found.is_empty() && found.iter().all(|found| *found == known.name), "{file}: {report:#?}");
        for finding in report.findings {
            assert_eq!(&*finding.origin.file, file);
            assert!(finding.origin.place.line > 0 && !finding.hint.is_empty());
            assert!(!finding.message.ends_with('.') && !finding.hint.ends_with('.'), "{finding:?}");
        }
    }
}

#[test]
fn what_is_good_is_left_alone() {
    for known in LINTS {
        let file = format!("lints/{}/good.yaml", known.name);
        let report = lint(&file, &fixture(&file));
        assert!(report.findings.is_empty(), "{file}: {:#?}", report.findings);
    }
}

#[test]
fn what_is_bad_can_be_silenced() {
    for known in LINTS {
        let text = fixture(&format!("lints/{}/bad.yaml", known.name));
        let before = lint(known.name, &text);
        let silenced: String = text
            .lines()
            .map(|line| match line.strip_prefix("metadata: {").and_then(|rest| rest.strip_suffix('}')) {
                Some(inner) if !inner.contains("allow_lints") => {
                    format!("metadata: {{{inner}, allow_lints: [{}]}}\n", known.name)
                }
                _ => format!("{line}\n"),
            })
            .collect();
        let after = lint(known.name, &silenced);
        assert!(after.findings.is_empty(), "{}: {:#?}", known.name, after.findings);
        assert_eq!(after.silenced, before.findings.len(), "{}", known.name);
    }
}

#[test]
fn a_leaking_trait_says_which_login_where_and_what_to_write() {
    let report = lint("p.yaml", &fixture("lints/trait-leak/bad.yaml"));
    let finding = &report.findings[0];
    assert_eq!(
        finding.message,
        "the trait `logins` of bot `deployer` gives `ubuntu` through role `db` on hosts with env=db \
         and through role `web` on hosts with env=web"
    );
    assert!(finding.hint.contains("`allow: {logins: [ubuntu], node_labels: {env: db}}`"), "{}", finding.hint);
}

#[test]
fn a_role_that_needs_mfa_is_told_in_the_words_of_the_exchange() {
    let report = lint("p.yaml", &fixture("lints/session-mfa/bad.yaml"));
    assert_eq!(
        report.findings[0].message,
        "role `admin` of bot `deployer` needs per-session MFA, which a machine cannot pass, and is never issued"
    );
}

/// Patterns and names that look as if they said which, and do not.
#[test]
fn rules_that_seem_to_bind_are_told_one_by_one() {
    for (name, rules) in [("any-ref", 2), ("any-workflow", 3)] {
        let report = lint("p.yaml", &fixture(&format!("lints/{name}/bad.yaml")));
        assert_eq!(report.findings.len(), rules, "{name}: {:#?}", report.findings);
    }
}

/// The page has a section for each lint, in the order of the registry, and none for any other.
#[test]
fn each_has_its_page() {
    let page = std::fs::read_to_string(repository("docs/lints.md")).unwrap();
    let sections: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("## `").and_then(|rest| rest.strip_suffix('`')))
        .collect();
    let lints: Vec<&str> = LINTS.iter().map(|lint| lint.name).collect();
    assert_eq!(sections, lints);
    for section in page.split("\n## `").skip(1) {
        assert!(section.contains("\nFix: "), "no fix in {section:.40}");
    }
}

/// A pin that cannot hold, a name that two servers know, groups without a user.
#[test]
fn what_is_no_certificate_of_its_own_is_told() {
    let messages = |name: &str| -> Vec<String> {
        let report = lint("p.yaml", &fixture(&format!("lints/{name}/bad.yaml")));
        report.findings.into_iter().map(|finding| finding.message).collect()
    };
    assert_eq!(
        messages("source-pin"),
        [
            "the X.509 certificate in an `identity` of bot `deployer` is good from any address, though its roles \
             (`deploy`) pin it",
            "role `deploy` pins the source address, so what it allows in `db_users` is never issued",
        ]
    );
    assert_eq!(
        messages("shared-user"),
        [
            "the database user `admin` of role `orders` is also a Kubernetes user (role `kube`), and a certificate for \
          one is good for the other"
        ]
    );
    assert_eq!(
        messages("no-user"),
        [
            "role `admins` has `kubernetes_groups` and no `kubernetes_users`, so they are never issued",
            "role `orders` has `db_names` and no `db_users`, so they are never issued",
        ]
    );
    let any = fixture("lints/shared-user/bad.yaml").replace("[admin, reader]", "['*']");
    assert!(
        lint("p.yaml", &any).findings[0].message.starts_with("the database user `admin` of role `orders`")
    );
    let denied = fixture("lints/shared-user/bad.yaml")
        .replace("db_names: [orders]}", "db_names: [orders]}\n  deny: {db_users: [admin]}");
    assert!(lint("p.yaml", &denied).findings.iter().all(|finding| finding.lint != "shared-user"));
    // What the one never issues, the other does.
    let shared = |role: &str, options: &str| {
        let spec = format!("metadata: {{name: {role}}}\nspec:\n");
        let text = fixture("lints/shared-user/bad.yaml")
            .replace(&spec, &format!("{spec}  options: {{{options}: true}}\n"));
        let found = lint("p.yaml", &text).findings;
        found.into_iter().filter(|finding| finding.lint == "shared-user").count()
    };
    for role in ["orders", "kube"] {
        for options in ["require_session_mfa", "pin_source_ip"] {
            assert_eq!(shared(role, options), 1, "{role} {options}");
        }
    }
    assert_eq!(shared("kube", "require_session_mfa: true, pin_source_ip"), 1);
    let neither = fixture("lints/shared-user/bad.yaml")
        .replace("spec:\n  allow:", "spec:\n  options: {pin_source_ip: true}\n  allow:");
    assert!(lint("p.yaml", &neither).findings.iter().all(|finding| finding.lint != "shared-user"));
    let all = fixture("lints/source-pin/bad.yaml").replace("roles: [deploy, orders]", "roles: [deploy]");
    let report = lint("p.yaml", &all);
    let pinned = report.findings.iter().find(|finding| finding.lint == "source-pin").unwrap();
    assert!(pinned.message.contains("never gets an `identity`: its roles (`deploy`) pin"), "{pinned:?}");
}

/// The messages of a lint about its bad policy, in the order of lines.
fn bad(name: &str) -> Vec<String> {
    let report = lint("p.yaml", &fixture(&format!("lints/{name}/bad.yaml")));
    report
        .findings
        .into_iter()
        .map(|finding| format!("{}: {}", finding.origin.place.line, finding.message))
        .collect()
}

#[test]
fn what_gives_nothing_is_told_with_the_reason() {
    assert_eq!(
        bad("gives-nothing"),
        [
            "3: role `deploy` gives bot `deployer` no login: all that it allows (`deploy`) is denied (role `deploy`)",
            "3: role `hosts` gives bot `deployer` no host name: all that it allows (`*.example.com`) is denied (role `hosts`)",
            "3: role `orders` gives bot `deployer` no database user: all that it allows (`orders`) is denied (role `no-clusters`)",
            "3: role `readers` gives bot `deployer` nothing: the bot has no values of the trait `readers`",
            "16: role `web` gives no application: its `app_labels` say `env=prod,team=billing`, `env=prod,team=shop`",
        ]
    );
}

#[test]
fn superusers_are_told_by_role_and_by_trait() {
    let what = "which may do anything where";
    assert_eq!(
        bad("superuser"),
        [
            format!(
                "3: a trait of bot `deployer` makes role `kube` give the Kubernetes group `kubeadm:cluster-admins`, {what} it is known"
            ),
            format!("10: role `orders` gives the database user `postgres`, {what} it is known"),
            format!("16: role `kube` gives the Kubernetes group `system:masters`, {what} it is known"),
            format!("22: role `any-user` gives the database users `postgres`, `root`, {what} they are known"),
        ]
    );
    // Of a role that is never issued, or without a user, nothing comes.
    let policy = fixture("lints/superuser/bad.yaml");
    for (from, to) in [
        ("kubernetes_users: ['ci:deployer'], ", ""),
        (
            "spec:\n  allow: {kubernetes_users",
            "spec:\n  options: {require_session_mfa: true}\n  allow: {kubernetes_users",
        ),
        (
            "spec:\n  allow: {kubernetes_users",
            "spec:\n  options: {pin_source_ip: true}\n  allow: {kubernetes_users",
        ),
        (
            "'{{external.groups}}']}\n",
            "'{{external.groups}}']}\n  deny: {kubernetes_groups: ['*masters', '*admins']}\n",
        ),
    ] {
        assert!(policy.contains(from), "{from}");
        let report = lint("p.yaml", &policy.replace(from, to));
        let about_groups = |finding: &machine_id::authority::policy::Finding| {
            finding.lint == "superuser" && finding.message.contains("Kubernetes")
        };
        assert!(!report.findings.iter().any(about_groups), "{to}: {:#?}", report.findings);
    }
}
