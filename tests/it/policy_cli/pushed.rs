//! What somebody reaches who may push one branch or tag and no more: whatever a
//! rule lets in of theirs, the lint `any-ref` has said.

use machine_id::authority::policy::{Policy, Source};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};

use super::platforms::with_section;

const GITHUB: &[&str] = &[
    "ref: refs/heads/main",
    "ref: 'refs/heads/*'",
    "ref: 'refs/heads/release/*'",
    "ref: 'refs/tags/v?'",
    "sub: 'repo:octo-org/app:ref:refs/heads/main'",
    "sub: 'repo:octo-org/app:ref:refs/heads/ma*'",
    "sub: 'repo:octo-org/*:ref:refs/heads/main'",
    "sub: 'repo:octo-org/app:pull_request'",
    "sub: 'repo:octo-org/app:environment:production'",
    "sub: 'repo:octo-org/app:environment:prod*'",
    "sub: 'repo:octo-org/app:*'",
    "workflow_ref: 'octo-org/app/.github/workflows/deploy.yml@refs/heads/main'",
    "workflow_ref: 'octo-org/app/.github/workflows/*@refs/heads/main'",
    "workflow_ref: 'octo-org/app/.github/workflows/deploy.yml@*'",
    "workflow_ref: 'octo-org/*'",
    "job_workflow_ref: 'octo-org/ci/.github/workflows/deploy.yml@refs/heads/main'",
    "environment: production",
    "environment: 'prod*'",
    "head_ref: main",
    "base_ref: main",
    "workflow: deploy",
    "ref_protected: true",
    "event_name: push",
];
const GITLAB: &[&str] = &[
    "ref: main",
    "ref: 'release/*'",
    "ref_type: branch",
    "ref_path: refs/heads/main",
    "ref_path: 'refs/heads/*'",
    "ref_protected: true",
    "environment: production",
    "environment: 'prod*'",
    "sub: 'project_path:octo/app:ref_type:branch:ref:main'",
    "sub: 'project_path:octo/app:ref_type:*:ref:main'",
    "sub: 'project_path:octo/app:*'",
    "ci_config_ref_uri: 'gitlab.com/octo/app//.gitlab-ci.yml@refs/heads/main'",
    "ci_config_ref_uri: 'gitlab.com/octo/app//*@refs/heads/main'",
    "ci_config_ref_uri: 'gitlab.com/octo/app//.gitlab-ci.yml@*'",
];
const CIRCLECI: &[&str] = &[
    "vcs_ref: refs/heads/main",
    "vcs_ref: 'refs/heads/*'",
    "vcs_origin: github.com/octo-org/app",
    "sub: 'org/o/project/p/user/*/vcs-origin/github.com/octo-org/app/vcs-ref/refs/heads/main'",
    "sub: 'org/o/project/p/user/*'",
    "sub: 'org/o/project/p/user/u/vcs-origin/github.com/octo-org/*'",
];
const BUILDKITE: &[&str] = &[
    "build_branch: main",
    "build_branch: 'release/*'",
    "step_key: deploy",
    "sub: 'organization:octo:pipeline:app:ref:refs/heads/main:commit:*:step:*'",
    "sub: 'organization:octo:pipeline:app:ref:refs/heads/main:*'",
    "sub: 'organization:octo:pipeline:app:*'",
];
/// Names of branches, environments and steps; `main` is protected as a branch.
const NAMES: &[&str] = &[
    "x",
    "main2",
    "v1",
    "release/x",
    "x@refs/heads/main",
    "x/vcs-origin/github.com/octo-org/app/vcs-ref/refs/heads/main",
    "refs/heads/main",
    "main",
];

/// The claims of whoever pushed that name, as a tag or a branch, and wrote the workflow in it.
fn claims(method: &str, name: &str, is_tag: bool, chosen: &str) -> Value {
    let kind = if is_tag { "tag" } else { "branch" };
    let full = format!("refs/{}/{name}", if is_tag { "tags" } else { "heads" });
    match method {
        "github" => json!({
            "repository_id": "7",
            // The environment `production` is protected; others are made as they are named.
            "sub": match chosen {
                "" => format!("repo:octo-org/app:ref:{full}"),
                "pull_request" => "repo:octo-org/app:pull_request".to_owned(),
                name => format!("repo:octo-org/app:environment:prod-{}", name.replace(':', "%3A")),
            },
            "environment": format!("prod-{chosen}"),
            "ref": full,
            "ref_protected": "false",
            "event_name": "push",
            "head_ref": "main",
            "base_ref": "main",
            "workflow": "deploy",
            "workflow_ref": format!("octo-org/app/.github/workflows/deploy.yml@{full}"),
            "job_workflow_ref": "octo-org/ci/.github/workflows/deploy.yml@refs/heads/main",
        }),
        "gitlab" => json!({
            "project_id": "7",
            "sub": format!("project_path:octo/app:ref_type:{kind}:ref:{name}"),
            "ref": name,
            "ref_type": kind,
            "ref_path": full,
            "ref_protected": "false",
            "environment": "production",
            "ci_config_ref_uri": format!("gitlab.com/octo/app//.gitlab-ci.yml@{full}"),
            "pipeline_source": "push",
        }),
        "circleci" => json!({
            "oidc.circleci.com/project-id": "p",
            "oidc.circleci.com/ssh-rerun": false,
            "oidc.circleci.com/vcs-origin": "github.com/octo-org/app",
            "oidc.circleci.com/vcs-ref": full,
            "sub": format!("org/o/project/p/user/u/vcs-origin/github.com/octo-org/app/vcs-ref/{full}"),
        }),
        _ => json!({
            "organization_id": "x",
            "build_branch": name,
            "build_tag": if is_tag { json!(name) } else { Value::Null },
            "step_key": "deploy",
            "sub": format!("organization:octo:pipeline:app:ref:{full}:commit:1:step:{chosen}"),
        }),
    }
}

fn case() -> impl Strategy<Value = (&'static str, String, Vec<&'static str>)> {
    const CIRCLE: &str = "organization_id: 8f1f3a5e-6a2c-4a3b-9d57-2f0d0b7e5c11, allow: [{project_id: p";
    let rows = [
        ("github", "allow: [{repository_id: '7'", GITHUB),
        ("gitlab", "allow: [{project_id: '7'", GITLAB),
        ("circleci", CIRCLE, CIRCLECI),
        ("buildkite", "allow: [{organization_id: x", BUILDKITE),
    ];
    select(rows.to_vec())
        .prop_flat_map(|(method, head, pool)| (Just(method), Just(head.to_owned()), subsequence(pool, 0..=3)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn whoever_gets_in_by_a_name_was_told_of(
        (method, head, conditions) in case(),
        name in select(NAMES),
        is_tag in any::<bool>(),
        chosen in select(&["", "pull_request", "x", "x:commit:1:step:y", "mine"][..]),
    ) {
        // That branch is protected, and not the outsider's.
        prop_assume!(is_tag || name != "main");
        let rule = conditions.iter().map(|one| format!(", {one}")).collect::<String>();
        let text = with_section(method, &format!("{head}{rule}}}]"));
        // Two values for one field, or two rules about refs that cannot be one.
        let Ok(policy) = Policy::parse(&[Source { name: "p".to_owned(), text }]) else { return Ok(()) };
        let claims = claims(method, name, is_tag, chosen);
        let admits = Policy::trial(policy.token("t").unwrap(), claims.as_object().unwrap())[0].admits;
        let is_told = policy.lint().findings.iter().any(|finding| finding.lint == "any-ref");
        prop_assert!(!admits || is_told, "{method} {rule} lets in {claims}");
    }
}
