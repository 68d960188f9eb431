//! What the lints make of rules, platform by platform.

use machine_id::authority::policy::{Policy, Source};

/// The lints about rules that a section provokes, in the order of the registry.
fn lints(method: &str, section: &str) -> Vec<&'static str> {
    let text = format!(
        "kind: bot\nversion: v1\nmetadata: {{name: b}}\nspec: {{roles: [r]}}\n---\n\
         kind: role\nversion: v7\nmetadata: {{name: r}}\nspec: {{allow: {{logins: [deploy], node_labels: {{env: prod}}}}}}\n---\n\
         kind: token\nversion: v2\nmetadata: {{name: t}}\n\
         spec: {{roles: [Bot], bot_name: b, join_method: {method}, {method}: {{{section}}}}}\n"
    );
    let source = Source { name: "p".to_owned(), text };
    let policy =
        Policy::parse(&[source]).unwrap_or_else(|mistakes| panic!("{method} {section}: {mistakes:?}"));
    policy.lint().findings.iter().map(|finding| finding.lint).collect()
}

#[test]
fn names_refs_and_workflows_that_are_left_open() {
    const AZURE: &str =
        "organization_id: 0ca3ddd9-f0b0-4635-a98c-5866526961b6, accept_default_audience: true";
    const BITBUCKET: &str = "identity_provider_url: 'https://api.bitbucket.org/x'";
    const SPACELIFT: &str = "hostname: a.app.spacelift.io, accept_default_audience: true";
    const BOUND: &str = "require_key_binding: true";
    let (name, a_ref, workflow, risky) = ("mutable-names", "any-ref", "any-workflow", "risky-event");
    let cases: &[(&str, &str, &str, &[&str])] = &[
        ("gitlab", "", "project_path: g/p", &[name, a_ref, workflow]),
        ("gitlab", "", "project_path: g/p, project_id: '2', ref_protected: true, environment: prod", &[]),
        ("gitlab", "", "project_id: '2', ref_protected: false, environment: '*'", &[a_ref, workflow]),
        ("gitlab", "", "project_id: '2', ref_path: 'refs/heads/*', environment: prod", &[a_ref]),
        (
            "gitlab",
            "",
            "project_id: '2', ci_config_ref_uri: 'gitlab.com/g/p//.gitlab-ci.yml@refs/heads/main'",
            &[],
        ),
        ("gitlab", "", "project_id: '2', ci_config_ref_uri: 'gitlab.com/g/p//*'", &[a_ref]),
        ("gitlab", "", "project_id: '2', job_id: '7', user_login: root", &[name]),
        ("gitlab", "", "sub: 'project_path:g/p:ref_type:branch:ref:main', job_id: '7'", &[name]),
        ("gitlab", "", "project_id: '2', job_id: '7', pipeline_source: merge_request_event", &[risky]),
        ("buildkite", BOUND, "organization_slug: o", &[name, a_ref, workflow]),
        (
            "buildkite",
            BOUND,
            "organization_slug: o, organization_id: x, pipeline_id: p1, build_branch: main",
            &[],
        ),
        ("buildkite", BOUND, "organization_id: x, pipeline_slug: p, build_branch: '*'", &[name, a_ref]),
        (
            "buildkite",
            BOUND,
            "sub: 'organization:o:pipeline:p:ref:refs/heads/main:*', organization_id: x",
            &[],
        ),
        ("buildkite", "", "pipeline_id: p1, build_branch: main", &["no-key-binding"]),
        ("bitbucket", BITBUCKET, "repository_uuid: '{x}'", &[a_ref, workflow]),
        ("bitbucket", BITBUCKET, "repository_uuid: '{x}', deployment_environment_uuid: '{y}'", &[]),
        ("azure-devops", AZURE, "project_name: p", &[name, a_ref, workflow]),
        (
            "azure-devops",
            AZURE,
            "project_name: p, project_id: x, definition_id: '1', repository_ref: refs/heads/main",
            &[],
        ),
        (
            "azure-devops",
            AZURE,
            "project_id: x, pipeline_name: deploy, repository_ref: 'refs/heads/*'",
            &[name, a_ref],
        ),
        ("azure-devops", AZURE, "sub: 'sc://o/p/c', project_id: x", &[]),
        (
            "azure-devops",
            AZURE,
            "project_id: x, definition_id: '1', repository_ref: 'refs/pull/*'",
            &[a_ref, risky],
        ),
        ("spacelift", SPACELIFT, "space_id: s", &[workflow]),
        ("spacelift", SPACELIFT, "space_id: s, caller_id: c", &[]),
        ("spacelift", SPACELIFT, "caller_id: c, run_type: PROPOSED", &[risky]),
        ("terraform_cloud", "", "organization_name: o, workspace_name: w", &[name]),
        ("terraform_cloud", "", "organization_name: o, workspace_name: w, workspace_id: x", &[]),
        ("terraform_cloud", "", "organization_id: o, project_id: p", &[workflow]),
        ("terraform_cloud", "", "organization_id: o, workspace_id: w, run_phase: plan", &[risky]),
    ];
    for (method, more, rule, expected) in cases {
        let comma = if more.is_empty() { "" } else { ", " };
        let mut found = lints(method, &format!("{more}{comma}allow: [{{{rule}}}]"));
        // Short ids, which no platform has.
        found.retain(|lint| *lint != "never-matches");
        let mut expected = expected.to_vec();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected, "{method}: {rule}");
    }
}
