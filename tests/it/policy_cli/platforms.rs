//! What the lints make of rules, platform by platform.

use machine_id::authority::policy::{Policy, Source};
use serde_json::json;

/// A policy whose join token `t` has that section.
pub fn with_section(method: &str, section: &str) -> String {
    format!(
        "kind: bot\nversion: v1\nmetadata: {{name: b}}\nspec: {{roles: [r]}}\n---\n\
         kind: role\nversion: v7\nmetadata: {{name: r}}\nspec: {{allow: {{logins: [deploy], node_labels: {{env: prod}}}}}}\n---\n\
         kind: token\nversion: v2\nmetadata: {{name: t}}\n\
         spec: {{roles: [Bot], bot_name: b, join_method: {method}, {method}: {{{section}}}}}\n"
    )
}

/// The mistakes of a section, each with its hints.
fn mistake(method: &str, section: &str) -> String {
    let source = Source { name: "p".to_owned(), text: with_section(method, section) };
    let mistakes = Policy::parse(&[source]).err().unwrap_or_default();
    mistakes.iter().map(|one| format!("{one} | {}\n", one.hints().join(" | "))).collect()
}

/// The lints about rules that a section provokes, in the order of the registry.
fn lints(method: &str, section: &str) -> Vec<&'static str> {
    let text = with_section(method, section);
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
    const CIRCLE: &str = "organization_id: 0ca3ddd9-f0b0-4635-a98c-5866526961b6, require_key_binding: true";
    const BOUND: &str = "require_key_binding: true";
    let (name, a_ref, workflow, risky) = ("mutable-names", "any-ref", "any-workflow", "risky-event");
    let cases: &[(&str, &str, &str, &[&str])] = &[
        ("github", BOUND, "repository_id: '7', environment: production", &[]),
        // GitHub makes an environment of any name that a workflow writes.
        ("github", BOUND, "repository_id: '7', environment: 'prod*'", &[a_ref, workflow]),
        ("github", BOUND, "repository_id: '7', sub: 'repo:o/r:environment:prod'", &[]),
        ("github", BOUND, "repository_id: '7', sub: 'repo:o/r:environment:prod*'", &[a_ref, workflow]),
        ("github", BOUND, "repository_id: '7', sub: 'repo:o/r:pull_request'", &[a_ref, workflow]),
        ("github", BOUND, "repository_id: '7', sub: 'repo:o/r:ref:refs/heads/main'", &[workflow]),
        ("github", BOUND, "repository_id: '7', sub: 'repo:o/r:ref:refs/heads/main*'", &[a_ref, workflow]),
        ("github", BOUND, "repository_id: '7', sub: 'repo:o/r:*'", &[a_ref, workflow]),
        ("github", BOUND, "sub: 'repo:o@1/r@2:environment:prod'", &[]),
        (
            "github",
            BOUND,
            "repository_id: '7', workflow_ref: 'o/r/.github/workflows/*@refs/heads/main'",
            &[workflow],
        ),
        (
            "github",
            BOUND,
            "repository_id: '7', workflow_ref: 'o/r/.github/workflows/deploy.yml@refs/heads/release/*'",
            &[a_ref],
        ),
        ("github", BOUND, "repository_id: '7', workflow_ref: 'o/r/.github/workflows/d*'", &[a_ref, workflow]),
        // Whose workflow is called, and of which ref, is the caller's choice.
        (
            "github",
            BOUND,
            "repository_id: '7', sha: x, job_workflow_ref: 'o/ci/.github/workflows/d.yml@*'",
            &[workflow],
        ),
        (
            "github",
            BOUND,
            "repository_id: '7', sha: x, job_workflow_ref: '*/ci/.github/workflows/d.yml@refs/heads/main'",
            &[workflow],
        ),
        ("github", BOUND, "repository_id: '7', workflow_sha: x, ref: 'refs/heads/release/*'", &[]),
        ("github", BOUND, "repository_id: '7', job_workflow_sha: x, ref: 'refs/tags/v*'", &[a_ref]),
        (
            "github",
            BOUND,
            "repository_id: '7', job_workflow_sha: x, ref: 'refs/tags/v*', ref_protected: true",
            &[],
        ),
        // Anybody's fork may have such a branch.
        ("github", BOUND, "repository_id: '7', job_workflow_sha: x, head_ref: main", &[a_ref]),
        ("circleci", CIRCLE, "context_id: c, vcs_ref: refs/heads/main", &[]),
        ("circleci", CIRCLE, "context_id: c, vcs_ref: 'refs/heads/release/*'", &[a_ref]),
        ("circleci", CIRCLE, "context_id: c, sub: 'org/o/project/p/user/*'", &[a_ref]),
        (
            "circleci",
            CIRCLE,
            "context_id: c, sub: 'org/o/project/p/user/*/vcs-origin/github.com/o/r/vcs-ref/refs/heads/main'",
            &[],
        ),
        ("gitlab", "", "project_id: '2', environment: 'prod*', ref_protected: true", &[workflow]),
        // A tag may be called `main` too.
        ("gitlab", "", "project_id: '2', environment: prod, ref: main", &[a_ref]),
        ("gitlab", "", "project_id: '2', environment: prod, ref: main, ref_type: branch", &[]),
        ("gitlab", "", "project_id: '2', environment: prod, ref: 'release/*', ref_type: branch", &[a_ref]),
        ("gitlab", "", "project_id: '2', environment: prod, sub: 'project_path:g/p:ref:main'", &[a_ref]),
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
        ("gitlab", "", "project_id: '2', ci_config_ref_uri: 'gitlab.com/g/p//*'", &[a_ref, workflow]),
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

/// What was put together from parts is refused where a wildcard could stand for several, with what to write.
#[test]
fn wildcards_over_several_parts_are_mistakes() {
    const PARTS: &str = "has a wildcard that could stand for several parts";
    let github = "`{owner}/{name}/.github/workflows/{file}@{ref}`";
    for (method, section, field, message, hint) in [
        ("github", "repository_id: '7', workflow_ref: 'o/*@refs/heads/main'", "workflow_ref", PARTS, github),
        (
            "github",
            "repository_id: '7', job_workflow_ref: '*@refs/heads/main'",
            "job_workflow_ref",
            PARTS,
            "{job_file}",
        ),
        ("github", "repository_id: '7', sub: 'repo:o/*main'", "sub", PARTS, "`LABEL:VALUE:LABEL:VALUE`"),
        (
            "github",
            "repository_id: '7', sub: 'repo:o/r:*:refs/heads/main'",
            "sub",
            PARTS,
            "labels without wildcards",
        ),
        ("github", "repository_id: '7', repository: '*app'", "repository", PARTS, "`{owner}/{name}`"),
        (
            "gitlab",
            "project_id: '7', ci_config_ref_uri: '*@refs/heads/main'",
            "ci_config_ref_uri",
            PARTS,
            "//{file}@refs/{ref}",
        ),
        (
            "gitlab",
            "project_id: '7', sub: '*:ref:main'",
            "sub",
            PARTS,
            "`project_path:{project}:ref_type:{type}:ref:{ref}` or ",
        ),
        (
            "gitlab",
            "project_id: '7', project_path: '*app'",
            "project_path",
            PARTS,
            "parts with `/` between them",
        ),
        (
            "buildkite",
            "organization_id: x, sub: '*:ref:refs/heads/main:*'",
            "sub",
            PARTS,
            ":step:{step}` or `{id}`",
        ),
        (
            "iam",
            "aws_account: '123456789012', aws_arn: '*:assumed-role/x/*'",
            "aws_arn",
            PARTS,
            ":assumed-role/{role}/{session}`",
        ),
        (
            "oidc",
            "claims: {sub: 'repo:*:ref:refs/heads/main'}",
            "sub",
            "has a wildcard in front of other text",
            "write `*` at the very end alone, and bind another claim beside it",
        ),
        (
            "oidc",
            "claims: {groups: ['*@example.com']}",
            "groups",
            "has a wildcard in front of other text",
            "such as a branch",
        ),
    ] {
        let issuer = if method == "oidc" { "issuer: 'https://i.example', " } else { "" };
        let mistake = mistake(method, &format!("{issuer}allow: [{{{section}}}]"));
        assert!(
            mistake.contains(&format!("`{field}` {message}")) && mistake.contains(hint),
            "{section}: {mistake}"
        );
    }
    // A server before 3.19 may have an environment called `x:ref:refs/heads/main`.
    let rule = "allow: [{sub: 'repo:o/*:environment:prod:ref:refs/heads/main'}]";
    assert!(!lints("github", rule).contains(&"any-ref"));
    assert!(mistake("github", &format!("enterprise_server_host: g.example, {rule}")).contains(PARTS));
}

/// Another method's issuer is refused by its name, whichever method has it.
#[test]
fn issuers_belong_to_the_methods_that_know_them() {
    for (issuer, method) in [
        ("https://token.actions.githubusercontent.com", "github"),
        ("https://token.actions.githubusercontent.com/", "github"),
        ("https://token.actions.GitHubUserContent.com", "github"),
        ("https://token.actions.githubusercontent.com/octo", "github"),
        ("https://token.actions.octo.ghe.com", "github"),
        ("https://token.actions.octo.ghe.com/eng", "github"),
        ("https://git.example.com/_services/token", "github"),
        ("https://gitlab.com", "gitlab"),
        ("https://oidc.circleci.com", "circleci"),
        ("https://oidc.circleci.com/org/8f1f3a5e-6a2c-4a3b-9d57-2f0d0b7e5c11", "circleci"),
        ("https://agent.buildkite.com", "buildkite"),
        ("https://api.bitbucket.org/2.0/workspaces/octo/pipelines-config/identity/oidc", "bitbucket"),
        ("https://vstoken.dev.azure.com/8f1f3a5e-6a2c-4a3b-9d57-2f0d0b7e5c11", "azure-devops"),
        ("https://octo.app.spacelift.io", "spacelift"),
        ("https://app.terraform.io", "terraform_cloud"),
        ("https://app.eu.terraform.io", "terraform_cloud"),
        ("https://kubernetes.default.svc.cluster.local", "kubernetes"),
    ] {
        let said = format!(
            "`{issuer}` is an issuer of the join method `{method}` | write `join_method: {method}` with a section `{method}`"
        );
        let section = format!(
            "issuer: '{issuer}', allow: [{{claims: {{sub: 'repo:octo-org/app:ref:refs/heads/main'}}}}]"
        );
        let mistake = mistake("oidc", &section);
        assert!(mistake.contains(&said), "{issuer}: {mistake}");
    }
    let elsewhere =
        mistake("terraform_cloud", "hostname: gitlab.com, allow: [{organization_id: o, project_id: p}]");
    assert!(
        elsewhere.contains("`https://gitlab.com` is an issuer of the join method `gitlab`"),
        "{elsewhere}"
    );
    for of_ones_own in
        ["https://gitlab.example.com", "https://accounts.google.com", "https://jenkins.example.com/oidc"]
    {
        lints("oidc", &format!("issuer: '{of_ones_own}', allow: [{{claims: {{sub: x}}}}]"));
    }
}

/// A first word alone, which all of an issuer's subjects have, says nobody's jobs.
#[test]
fn patterns_that_let_in_anybody() {
    let found = |sub: &str| {
        lints("oidc", &format!("issuer: 'https://i.example', allow: [{{claims: {{sub: '{sub}'}}}}]"))
            .contains(&"anybody")
    };
    for open in ["*", "?*", "repo:*", "organization:*", "project_path:*", "job/*", "https://*"]
        .into_iter()
        .chain(["repo*", "re?o:octo-org/*", "organi*", "space*", "system:serviceaccount:*", "system:serv*"])
    {
        assert!(found(open), "{open}");
    }
    for bound in ["repo:octo-org/*", "repo:octo-org*", "job/deploy/*", "deploy-*", "1234567890", "repo:"]
        .into_iter()
        .chain(["system:serviceaccount:ci:*", "reporter-*", "https://ci.example/*"])
    {
        assert!(!found(bound), "{bound}");
    }
}

/// What a guard keeps out gets in by its name, and not by a pattern that fits it too.
#[test]
fn a_pattern_that_fits_more_names_no_risky_value() {
    const ID: &str = "8f1f3a5e-6a2c-4a3b-9d57-2f0d0b7e5c11";
    let azure = |rule: &str| {
        (format!("organization_id: {ID}, allow: [{{project_id: p, repository_ref: '{rule}'}}]"), "rpo_ref")
    };
    let oidc = |name: &'static str, rule: &str| {
        (format!("issuer: 'https://i.example', allow: [{{claims: {{project_id: p, {name}: {rule}}}}}]"), name)
    };
    let rerun = "oidc.circleci.com/ssh-rerun";
    for (method, (section, claim), value, admitted) in [
        ("azure-devops", azure("refs/*"), json!("refs/pull/7/merge"), false),
        ("azure-devops", azure("*"), json!("refs/pull/7/merge"), false),
        ("azure-devops", azure("refs/*"), json!("refs/heads/main"), true),
        ("azure-devops", azure("refs/pull/*"), json!("refs/pull/7/merge"), true),
        ("azure-devops", azure("refs/pull/7?/*"), json!("refs/pull/77/merge"), true),
        ("azure-devops", azure("refs/pull/7/merge"), json!("refs/pull/7/merge"), true),
        ("oidc", oidc("event_name", "'pull_request*'"), json!("pull_request_target"), false),
        ("oidc", oidc("event_name", "'pull_request*'"), json!("pull_request"), true),
        ("oidc", oidc("event_name", "'*'"), json!("workflow_run"), false),
        ("oidc", oidc("event_name", "workflow_run"), json!("workflow_run"), true),
        ("oidc", oidc("ref", "main"), json!("main"), true),
        ("oidc", oidc(rerun, "true"), json!(true), true),
        ("oidc", oidc(rerun, "false"), json!(false), true),
    ] {
        let source = Source { name: "p".to_owned(), text: with_section(method, &section) };
        let policy = Policy::parse(&[source]).unwrap();
        let claims = json!({"project_id": "p", "prj_id": "p", claim: value});
        let trials = Policy::trial(policy.token("t").unwrap(), claims.as_object().unwrap());
        assert_eq!(trials[0].admits, admitted, "{section} {claims}");
    }
}

/// Buildkite gives a tag's build the tag's name for a branch.
#[test]
fn a_tag_passes_for_no_branch() {
    for (rule, tag, admitted) in [
        ("build_branch: main", json!(null), true),
        ("build_branch: main", json!("v1"), true),
        ("build_branch: main", json!("main"), false),
        ("build_branch: 'm*'", json!("main"), false),
        ("sub: 'organization:o:pipeline:p:ref:refs/heads/main:*'", json!("main"), false),
        ("sub: 'organization:o:pipeline:p:ref:refs/heads/main:*'", json!(null), true),
        ("sub: 'organization:o:pipeline:p:*'", json!("main"), true),
        ("build_tag: main", json!("main"), true),
        ("build_branch: main, build_tag: main", json!("main"), true),
    ] {
        let section = format!("allow: [{{organization_slug: o, {rule}}}]");
        let source = Source { name: "p".to_owned(), text: with_section("buildkite", &section) };
        let policy = Policy::parse(&[source]).unwrap();
        let sub = "organization:o:pipeline:p:ref:refs/heads/main:commit:1:step:";
        let claims = json!({"organization_slug": "o", "build_branch": "main", "build_tag": tag, "sub": sub});
        let trials = Policy::trial(policy.token("t").unwrap(), claims.as_object().unwrap());
        assert_eq!(trials[0].admits, admitted, "{rule} {tag}");
        let told = trials[0].trials.iter().find(|trial| !trial.met).map(|trial| trial.wanted.as_str());
        assert!(
            told.is_none_or(|told| told.ends_with(", and `build_tag` other than `build_branch`")),
            "{told:?}"
        );
    }
}

/// What a refused pattern tells the operator.
#[test]
fn a_pattern_that_a_claim_only_seems_to_match_is_explained() {
    let rule = "require_key_binding: true, allow: [{repository_id: '7', workflow_ref: 'o/r/.github/workflows/*@refs/heads/main'}]";
    let source = Source { name: "p".to_owned(), text: with_section("github", rule) };
    let policy = Policy::parse(&[source]).unwrap();
    let claims = json!({"repository_id": "7", "workflow_ref": "o/r/.github/workflows/x.yml@refs/heads/x@refs/heads/main"});
    let trials = Policy::trial(policy.token("t").unwrap(), claims.as_object().unwrap());
    assert!(!trials[0].admits);
    assert_eq!(
        trials[0].trials[1].wanted,
        "`o/r/.github/workflows/*@refs/heads/main`, whose wildcards each stay within one part of the claim"
    );
}

/// Who may push what, in words.
#[test]
fn what_a_pushed_branch_reaches_is_told() {
    let told = |section: &str| {
        let source = Source { name: "p".to_owned(), text: with_section("github", section) };
        let report = Policy::parse(&[source]).unwrap().lint();
        let finding = report.findings.into_iter().find(|finding| finding.lint == "any-ref").unwrap();
        (finding.message, finding.hint)
    };
    let (message, hint) = told("allow: [{repository_id: '7', ref: 'refs/heads/release/*', actor: x}]");
    assert_eq!(
        message,
        "the rule of join token `t` lets in whoever may push a branch or tag, or open a pull request: what fits `ref: refs/heads/release/*` is theirs to choose"
    );
    assert!(hint.ends_with("or protect such names on the platform, and silence the lint"), "{hint}");
    let (message, _) = told("allow: [{sub: 'repo:o/r:pull_request'}]");
    assert_eq!(message, "the rule of join token `t` lets in jobs from every branch, tag and pull request");
}
