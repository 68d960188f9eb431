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
        "bot `deployer` never gets its role `admin`: it needs per-session MFA, which a machine cannot pass"
    );
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
