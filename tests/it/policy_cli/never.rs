//! Rules that no job meets: each kind is found and told with what would match,
//! and none that the jobs of a platform meet is.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use machine_id::authority::policy::{Policy, Source};
use machine_id::join::METHODS;
use machine_id::join::rules::{Match, Pattern};
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Map, Value, json};

use super::documents::{blocks, completed, documents};
use crate::support::fixture;
use crate::support::template::Variables;

const NEVER: [&str; 2] = ["never-matches", "contradiction"];

/// What the two lints find in a policy, as `message | hint`.
fn found(name: &str, text: &str) -> Vec<String> {
    let source = Source { name: name.to_owned(), text: text.to_owned() };
    let policy = Policy::parse(&[source]).unwrap_or_else(|mistakes| panic!("{name}: {mistakes:?}\n{text}"));
    let findings = policy.lint().findings.into_iter().filter(|finding| NEVER.contains(&finding.lint));
    findings.map(|finding| format!("{} | {}", finding.message, finding.hint)).collect()
}

/// A policy with one join token of these rules, as JSON, which is YAML.
fn policy(method: &str, section: &Value, rules: &Value) -> String {
    let mut section = section.clone();
    section["allow"] = rules.clone();
    let token = json!({"kind": "token", "version": "v2", "metadata": {"name": "t"},
        "spec": {"roles": ["Bot"], "bot_name": "b", "join_method": method, method: section}});
    let bot = json!({"kind": "bot", "version": "v1", "metadata": {"name": "b"}, "spec": {"roles": ["r"]}});
    let role = json!({"kind": "role", "version": "v7", "metadata": {"name": "r"}, "spec": {"allow": {"logins": ["l"]}}});
    format!("{bot}\n---\n{role}\n---\n{token}\n")
}

fn section(method: &str) -> Value {
    let uuid = "0184990a-477b-4fa8-9968-496074483c77";
    match method {
        "circleci" => json!({"organization_id": "3f1c2a54-7f0f-4f0b-9d5e-2b6f3a1c8d10"}),
        "azure-devops" => json!({"organization_id": uuid, "accept_default_audience": true}),
        "bitbucket" => json!({"identity_provider_url": "https://api.bitbucket.org/x"}),
        "spacelift" => json!({"hostname": "octo.app.spacelift.io", "enable_glob_matching": true}),
        "kubernetes" => json!({"type": "oidc", "oidc": {"issuer": "https://issuer.example"}}),
        "oidc" => json!({"issuer": "https://issuer.example"}),
        _ => json!({}),
    }
}

/// What is found in one rule, which is completed with what every rule of the method must have.
fn of_rule(method: &str, rule: &str) -> Vec<String> {
    let mut conditions: Map<String, Value> = serde_saphyr::from_str(&format!("{{{rule}}}")).unwrap();
    let anchor: Map<String, Value> = match method {
        "github" => json!({"repository_id": "74"}),
        "gitlab" => json!({"project_id": "74"}),
        "buildkite" => json!({"pipeline_id": "0184990a-477b-4fa8-9968-496074483c77"}),
        "bitbucket" => json!({"repository_uuid": "{1d397906-81bf-459e-9a8d-eae79c0bc5f3}"}),
        "azure-devops" => json!({"project_id": "0184990a-477b-4fa8-9968-496074483c77"}),
        "spacelift" => json!({"space_id": "production"}),
        "terraform_cloud" => json!({"organization_name": "octo-org", "workspace_name": "prod"}),
        "kubernetes" => json!({"service_account": "ci:deploy"}),
        "iam" => json!({"aws_account": "123456789012"}),
        _ => json!({}),
    }
    .as_object()
    .unwrap()
    .clone();
    for (field, value) in anchor {
        conditions.entry(field).or_insert(value);
    }
    found(rule, &policy(method, &section(method), &json!([conditions])))
}

/// `method | rule | what the message and its hint hold`: one finding each.
const NEVER_MATCHES: &str = r"
github | ref: main | its `ref` is `main`, which is no `ref` of any job | write the full ref: `refs/heads/main`
github | ref: refs/head/main | which is no `ref` | the full ref
github | 'ref: refs/heads/' | which is no `ref` | the full ref
github | ref: refs/heads/a b | which is no `ref` | the full ref
github | ref: refs/heads/a..b | which is no `ref` | the full ref
github | head_ref: refs/heads/fix | which is no `head_ref` | the short name, such as `main`
github | repository: octo-org/app.git | `octo-org/app.git`, which is no `repository` | write `OWNER/NAME`
github | repository: octo-org/app/x | which is no `repository` | write `OWNER/NAME`
github | 'repository: github.com/octo-org/app' | which is no `repository` | without the address of a server
github | repository: 'https://github.com/octo-org/app' | which is no `repository` | without the address of a server
github | repository: 'git@github.com:octo-org/app' | which is no `repository` | without the address of a server
github | repository_owner: octo-org/app | which is no `repository_owner` | the name alone, such as `octo-org`
github | repository_id: octo-org/app | which is no `repository_id` | the number
github | sha: 3f1c2a5 | which is no `sha` | the whole hash
github | ref_type: heads | which is no `ref_type` | `branch` or `tag`
github | event_name: pull-Request | which is no `event_name` | in small letters
github | runner_environment: self_hosted | which is no `runner_environment` | `github-hosted` or `self-hosted`
github | workflow_ref: .github/workflows/deploy.yml@refs/heads/main | which is no `workflow_ref` | `OWNER/NAME/.github/workflows/FILE@REF`
github | job_workflow_ref: octo-org/app/.github/workflows/deploy.yml@main | which is no `job_workflow_ref` | with the full ref
github | sub: 'octo-org/app:ref:refs/heads/main' | which is no `sub` | such as `repo:OWNER/NAME:ref:refs/heads/main`
github | sub: 'repo:octo-org/app:refs/heads/main' | which is no `sub` | such as `repo:OWNER/NAME:ref:refs/heads/main`
github | sub: 'repo:octo-org/app:ref:main' | with the part `main`, which is no `ref` | the full ref
github | sub: 'repo:octo-org/app.git:ref:refs/heads/main' | with the part `octo-org/app.git`, which is no `repository` | without `.git`
github | environment: 'production ' | with white space at an end, which no claim has | write `production`
github | environment: ' production' | with white space at an end | write `production`
github | ref: '^refs/heads/main$' | text of a regular expression, and rules have none | `*` stands for any run of characters
github | ref: 'refs/heads/.*' | text of a regular expression | write a rule for each alternative
github | ref: 'refs/heads/(main|dev)' | text of a regular expression | write a rule for each alternative
github | repository: 'octo-org/app\.x' | text of a regular expression | the whole claim is compared
github | environment: 'prod.+' | text of a regular expression | the whole claim is compared
github | repo_property_team: 'a|b' | text of a regular expression | a rule for each alternative
github | 'repository: осto-org/app' | `\u{43e}\u{441}to-org/app`, with `\u{43e}`, where the platform has ASCII alone | `OWNER/NAME`
github | 'ref: refs/heads/mаin' | `refs/heads/m\u{430}in`, in which `\u{430}`, a letter of another alphabet, stands among Latin ones | write the letter that it looks like
github | environment: 'prοd' | in which `\u{3bf}`, a letter of another alphabet | or silence the lint
github | environment: 'prod\u200bx' | text of a regular expression | the whole claim
circleci | vcs_ref: main | which is no `vcs_ref` | the full ref
circleci | vcs_origin: 'https://github.com/octo-org/app' | which is no `vcs_origin` | `HOST/OWNER/NAME`
circleci | vcs_origin: GitHub.com/octo-org/app | which is no `vcs_origin` | the host in small letters
circleci | project_id: octo-org/app | which is no `project_id` | the UUID
circleci | context_id: deploy | which is no `context_id` | the UUID
circleci | sub: 'org/3f1c2a54-7f0f-4f0b-9d5e-2b6f3a1c8d10/project/app/user/x' | with the part `app`, which is no `project_id` | the UUID
gitlab | ref: refs/heads/main | which is no `ref` | the short name
gitlab | ref_path: main | which is no `ref_path` | the full ref
gitlab | ref_path: refs/head/main | which is no `ref_path` | the full ref
gitlab | project_path: 'octo-group/app.git' | which is no `project_path` | `GROUP/PROJECT`
gitlab | ci_config_ref_uri: 'https://gitlab.com/octo-group/app//.gitlab-ci.yml@refs/heads/main' | which is no `ci_config_ref_uri` | `HOST/GROUP/PROJECT//FILE@REF`
gitlab | ci_config_ref_uri: 'GitLab.com/octo-group/app//.gitlab-ci.yml@refs/heads/main' | which is no `ci_config_ref_uri` | the host in small letters
gitlab | sub: 'project_path:octo-group/app:ref_type:branch:ref:refs/heads/main' | with the part `refs/heads/main`, which is no `ref` | the short name
gitlab | user_id: root | which is no `user_id` | the number
buildkite | build_branch: refs/heads/main | which is no `build_branch` | the short name
buildkite | build_tag: refs/tags/v1 | which is no `build_tag` | the short name
buildkite | organization_slug: Octo Org | which is no `organization_slug` | the name alone
buildkite | sub: 'organization:acme:pipeline:app:ref:main:commit:*' | which is no `sub` | with the full ref
buildkite | sub: 'organization:acme:pipeline:app:ref:refs/heads/main' | which is no `sub` | `organization:SLUG:pipeline:SLUG
bitbucket | branch_name: refs/heads/main | which is no `branch_name` | the short name
bitbucket | step_uuid: '{deploy}' | which is no `step_uuid` | in braces
azure-devops | repository_ref: main | which is no `repository_ref` | the full ref
azure-devops | repository_uri: octo-org/app | which is no `repository_uri` | the repository's URL
azure-devops | definition_id: deploy | which is no `definition_id` | the number
azure-devops | project_name: 'app ' | with white space at an end | write `app`
azure-devops | sub: 'p://octo-org/app' | which is no `sub` | write `p://{organization}/{project}/{name}`
spacelift | run_type: tracked | which is no `run_type` | in capitals
spacelift | sub: 'space:production' | which is no `sub` | write `space:{space}:{type}:{caller}:run_type:{run_type}:scope:{scope}`
terraform_cloud | run_phase: Apply | which is no `run_phase` | in small letters
terraform_cloud | workspace_id: production | which is no `workspace_id` | `ws-…`
kubernetes | pod_name: Deploy | which is no `pod_name` | in small letters
kubernetes | pod_uid: deploy-1 | which is no `pod_uid` | the UUID
iam | aws_arn: 'arn:aws:iam::123456789012:role/deploy' | which is no `aws_arn` | write `arn:{partition}:sts::{account}:assumed-role/{role}/{session}`
iam | aws_arn: 'arn:aws:sts::123456789012:assumed-role/ci/deploy/i-1' | which is no `aws_arn` | assumed-role/{role}/{session}`
iam | aws_arn: 'arn:aws:sts::123456789012:assumed-role/deploy' | which is no `aws_arn` | assumed-role/{role}/{session}`
oidc | claims: {sub: '^job/deploy$'} | text of a regular expression | the whole claim is compared
oidc | claims: {sub: 'job '} | with white space at an end | write `job`
oidc | claims: {team: [pаyments], sub: job} | its `team` is `p\u{430}yments`, in which `\u{430}` | silence the lint
";

/// `method | rule | what the message holds`: of conditions that exclude each other, one finding each.
const CONTRADICTIONS: &str = r"
github | environment: production, sub: 'repo:octo-org/app:ref:refs/heads/main' | `environment` is `production`, and `sub` is of jobs that have no `environment`
github | environment: '*', sub: 'repo:octo-org/*:ref:refs/heads/main' | and `sub` is of jobs that have no `environment`
github | environment: production, sub: 'repo:octo-org/app:pull_request' | and `sub` is of jobs that have no `environment`
github | environment: production, sub: 'repo:octo-org/app:environment:staging' | `environment` is `production`, and `sub` is of jobs whose `environment` is `staging`
github | ref: refs/heads/main, sub: 'repo:octo-org/app:ref:refs/heads/dev' | `ref` is `refs/heads/main`, and `sub` is of jobs whose `ref` is `refs/heads/dev`
github | ref: 'refs/tags/*', sub: 'repo:octo-org/app:ref:refs/heads/*' | and `sub` is of jobs whose `ref` is `refs/heads/*`
github | ref: refs/heads/main, sub: 'repo:octo-org/app:pull_request' | and `sub` is of jobs whose `ref` is `refs/pull/*`
github | repository: octo-org/app, sub: 'repo:octo-org/other:ref:refs/heads/main' | `repository` is `octo-org/app`, and `sub` is of jobs whose `repository` is `octo-org/other`
github | repository_id: '75', sub: 'repo:octo-org@65/app@74:ref:refs/heads/main' | `repository_id` is `75`, and `sub` is of jobs whose `repository_id` is `74`
github | repository_owner_id: '66', sub: 'repo:octo-org@65/app@74:ref:refs/heads/main' | `repository_owner_id` is `66`
github | repository_owner: other, sub: 'repository_owner:octo-org:environment:production' | whose `repository_owner` is `octo-org`
github | repository: octo-org/app, repository_owner: octo | `repository_owner` is `octo`, and `repository` is of jobs whose `repository_owner` is `octo-org`
github | event_name: pull_request, ref: refs/heads/main | `ref` is `refs/heads/main`, and `event_name` is of jobs whose `ref` is `refs/pull/*`
github | event_name: release, ref: refs/heads/main | whose `ref` is `refs/tags/*`
github | event_name: merge_group, ref: refs/heads/main | whose `ref` is `refs/heads/gh-readonly-queue/*`
github | event_name: push, ref: refs/pull/7/merge | whose `ref` is `refs/heads/*` or `refs/tags/*`
github | event_name: push, head_ref: fix | and `head_ref` is of jobs whose `event_name` is `pull_request*`
github | event_name: pull_request, sub: 'repo:octo-org/app:ref:refs/heads/main' | `sub` is of jobs whose `ref` is `refs/heads/main`
github | event_name: push, sub: 'repo:octo-org/app:pull_request' | whose `event_name` is `pull_request*`
github | ref_type: tag, ref: refs/heads/main | `ref_type` is of jobs whose `ref` is `refs/tags/*`
github | ref_type: branch, ref: refs/tags/v1 | whose `ref` is `refs/heads/*` or `refs/pull/*`
github | ref_protected: true, ref: refs/pull/7/merge | `ref_protected` is of jobs whose `ref` is `refs/heads/*` or `refs/tags/*`
github | workflow_ref: octo-org/app/.github/workflows/d.yml@refs/heads/main, ref: refs/tags/v1 | `workflow_ref` is of jobs whose `ref` is `refs/heads/main` or
circleci | project_id: 0184990a-477b-4fa8-9968-496074483c77, sub: 'org/*/project/1184990a-477b-4fa8-9968-496074483c77/user/*' | whose `project_id` is `1184990a-
circleci | vcs_ref: refs/heads/main, sub: 'org/*/project/*/user/*/vcs-origin/github.com/octo-org/app/vcs-ref/refs/heads/dev' | `vcs_ref` is `refs/heads/main`, and `sub` is of jobs whose `vcs_ref` is `refs/heads/dev`
gitlab | project_path: octo-group/app, namespace_path: octo-group/app | `namespace_path` is `octo-group/app`, and `project_path` is of jobs whose `namespace_path` is `octo-group`
gitlab | project_path: 'octo-group/*', namespace_path: other | whose `namespace_path` is `octo-group` or `octo-group/*`
gitlab | project_path: octo-group/app, sub: 'project_path:octo-group/other:ref_type:branch:ref:main' | whose `project_path` is `octo-group/other`
gitlab | ref_type: tag, sub: 'project_path:octo-group/app:ref_type:branch:ref:main' | whose `ref_type` is `branch`
gitlab | ref: dev, sub: 'project_path:octo-group/*:ref_type:branch:ref:main' | whose `ref` is `main`
gitlab | ref_path: refs/heads/main, ref: dev | `ref_path` is of jobs whose `ref` is `main`
gitlab | ref_path: refs/heads/main, ref_type: tag | `ref_path` is of jobs whose `ref_type` is `branch`
gitlab | pipeline_source: merge_request_event, ref_type: tag | whose `ref_type` is `branch`
gitlab | project_path: octo-group/app, ci_config_ref_uri: gitlab.com/octo-group/ci//x.yml@refs/heads/main | whose `project_path` is `octo-group/ci`
gitlab | ref: dev, ci_config_ref_uri: gitlab.com/octo-group/ci//x.yml@refs/heads/main | whose `ref` is `main`
gitlab | job_project_path: octo-group/app, job_namespace_path: other | whose `job_namespace_path` is `octo-group`
buildkite | pipeline_slug: other, sub: 'organization:acme:pipeline:app:*' | whose `pipeline_slug` is `app`
buildkite | build_branch: dev, sub: 'organization:acme:pipeline:app:ref:refs/heads/main:commit:*' | whose `build_branch` is `main`
bitbucket | deployment_environment_uuid: '{8d1f3a52-0a4b-4b47-9d3e-2c5b1f6a7e90}', sub: '{1d397906-81bf-459e-9a8d-eae79c0bc5f3}:{4a8f9c1e-5d2b-4c7a-8e3f-1b2c3d4e5f60}' | `sub` is of jobs that have no `deployment_environment_uuid`
azure-devops | project_name: app, sub: 'p://octo-org/other/deploy' | `project_name` is `app`, and `sub` is `p://octo-org/other/deploy`
azure-devops | pipeline_name: deploy, sub: 'sc://octo-org/app/deploy' | and `sub` is `sc://octo-org/app/deploy`
spacelift | caller_type: module, sub: 'space:production:stack:infra:run_type:TRACKED:scope:write' | whose `caller_type` is `stack`
spacelift | scope: read, sub: 'space:production:stack:*:run_type:TRACKED:scope:write' | whose `scope` is `write`
terraform_cloud | run_phase: plan, sub: 'organization:octo-org:project:P:workspace:prod:run_phase:apply' | whose `run_phase` is `apply`
kubernetes | service_account: 'ci:deploy', namespace: prod | `namespace` is `prod`, and `service_account` is of jobs whose `namespace` is `ci`
iam | aws_account: '123456789012', aws_arn: 'arn:aws:sts::210987654321:assumed-role/deploy/*' | whose `aws_account` is `210987654321`
";

fn cases(table: &'static str) -> impl Iterator<Item = (&'static str, String, Vec<&'static str>)> {
    table.lines().filter(|line| !line.is_empty()).map(|line| {
        let mut parts = line.split(" | ");
        let (method, rule) = (parts.next().unwrap(), parts.next().unwrap());
        // A whole condition in quotes would be a key.
        let rule = rule.strip_prefix('\'').and_then(|rule| rule.strip_suffix('\'')).unwrap_or(rule);
        (method, rule.to_owned(), parts.collect())
    })
}

#[test]
fn what_no_job_has_is_told_with_what_would_match() {
    for (method, rule, said) in cases(NEVER_MATCHES) {
        let found = of_rule(method, &rule);
        let all = found.len() == 1 && said.iter().all(|said| found[0].contains(said));
        assert!(all, "{method} {rule}: {found:#?}, not {said:?}");
        assert!(found[0].contains("the rule of join token `t` never matches: "), "{}", found[0]);
    }
}

#[test]
fn what_cannot_be_seen_is_told() {
    for c in ["\u{200b}", "\u{a0}", "\u{ad}", "\u{3164}"] {
        let found = of_rule("github", &format!("environment: 'pro{c}d'"));
        let escaped = c.escape_unicode();
        assert!(found[0].contains(&format!("not to be seen, `{escaped}` | write it again")), "{found:?}");
    }
}

#[test]
fn conditions_that_exclude_each_other_are_told_with_both() {
    for (method, rule, said) in cases(CONTRADICTIONS) {
        let found = of_rule(method, &rule);
        let all = found.len() == 1 && said.iter().all(|said| found[0].contains(said));
        assert!(all, "{method} {rule}: {found:#?}, not {said:?}");
        assert!(found[0].contains(" | no job has both: take one of them out"), "{}", found[0]);
    }
}

/// One finding for each rule of the page's examples, at its place.
#[test]
fn each_rule_is_told_once() {
    let text = fixture("lints/contradiction/bad.yaml");
    let policy = Policy::parse(&[Source { name: "p".to_owned(), text: text.clone() }]).unwrap();
    let lines: Vec<usize> =
        policy.lint().findings.iter().map(|one| one.origin.place.line.try_into().unwrap()).collect();
    let comments = text.lines().enumerate().filter(|(_, line)| line.starts_with("      # "));
    assert_eq!(lines, comments.map(|(index, _)| index + 2).collect::<Vec<_>>());
}

/// What the section says for all of its rules.
#[test]
fn conditions_that_the_section_excludes_are_told() {
    let uuid = "1184990a-477b-4fa8-9968-496074483c77";
    for (method, rule, fixed) in [
        ("circleci", format!("sub: 'org/{uuid}/project/*'"), "org/3f1c2a54-7f0f-4f0b-9d5e-2b6f3a1c8d10/*"),
        (
            "gitlab",
            "ci_config_ref_uri: gitlab.example.com/g/p//x.yml@refs/heads/main".to_owned(),
            "gitlab.com*",
        ),
        ("iam", "aws_arn: 'arn:aws-cn:sts::123456789012:assumed-role/deploy/*'".to_owned(), "arn:aws:*"),
        ("oidc", "claims: {iss: 'https://other.example', sub: job}".to_owned(), "https://issuer.example"),
    ] {
        let found = of_rule(method, &rule);
        let said = format!(", and its join token takes `{fixed}` alone there | write a join token for each");
        assert!(found.len() == 1 && found[0].contains(&said), "{method}: {found:#?}");
    }
}

/// Such an issuer is nobody's, unless a server is configured so.
#[test]
fn a_host_as_no_issuer_writes_it_is_told() {
    for (method, section, host) in [
        ("github", json!({"enterprise_server_host": "GHES.example.com"}), "ghes.example.com"),
        ("gitlab", json!({"domain": "GitLab.example.com:8443"}), "gitlab.example.com:8443"),
        ("gitlab", json!({"domain": "gitlab.example.com."}), "gitlab.example.com"),
        ("gitlab", json!({"domain": "gitlab.example.com:443"}), "gitlab.example.com"),
        ("oidc", json!({"issuer": "https://Issuer.example/Path"}), "issuer.example"),
        ("oidc", json!({"issuer": "https://issuer.example.:443/Path"}), "issuer.example"),
        (
            "oidc",
            json!({"issuer": "https://issuer.example/.well-known/openid-configuration"}),
            "https://issuer.example",
        ),
    ] {
        let rule = if method == "oidc" {
            json!({"claims": {"sub": "x"}})
        } else {
            json!({"sub": "repo:o/r:x:y", "project_id": "7"})
        };
        let rule = match method {
            "github" => json!({"repository_id": "7"}),
            "gitlab" => json!({"project_id": "7"}),
            _ => rule,
        };
        let found = found(method, &policy(method, &section, &json!([rule])));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            (found[0].contains("and issuers write hosts in small letters") || found[0].contains("discovery"))
                && found[0].contains(&format!("write `{host}`")),
            "{found:?}"
        );
    }
    let lower = json!({"issuer": "https://issuer.example/Path"});
    assert!(found("oidc", &policy("oidc", &lower, &json!([{"claims": {"sub": "x"}}]))).is_empty());
}

/// Every rule of the documents and of the honest tests. Some fixtures are of rules that must let nobody in.
#[test]
fn what_is_shown_and_tested_is_not_found() {
    for (path, text) in documents() {
        for (line, block) in blocks(&text) {
            let wrong = found(&path, &completed(&block));
            assert!(wrong.is_empty(), "{path}:{line}: {wrong:#?}");
        }
    }
    let jwks = r#"{"keys":[{"kty":"EC","crv":"P-256","kid":"k","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]}"#;
    let variables = Variables::new().with("issuer_host", "issuer.example").with("static_jwks", jwks);
    let mut refused = Vec::new();
    for method in METHODS {
        let file = format!("join/{}/policy.yaml", method.name);
        let bot = "---\nkind: bot\nversion: v1\nmetadata: {name: canary-bot}\nspec: {roles: [canary-role]}\n---\n\
            kind: role\nversion: v7\nmetadata: {name: canary-role}\nspec: {allow: {logins: [x]}}\n";
        let text = variables.text(&fixture(&file));
        let text = if text.contains("kind: bot") { text } else { format!("{text}\n{bot}") };
        let wrong = found(&file, &text).into_iter();
        refused.extend(wrong.map(|said| said.split('`').nth(1).unwrap_or_default().to_owned()));
    }
    assert_eq!(refused, ["role-prefix", "by-account-and-namespace"]);
}

/// The fields of rules that a job of the platform meets, with their values.
fn honest(method: &str, changes: &Value) -> BTreeMap<String, Value> {
    #[derive(serde::Deserialize)]
    struct File {
        fields: BTreeMap<String, String>,
        #[serde(default)]
        values: BTreeMap<String, Value>,
    }
    let file: File = serde_saphyr::from_str(&fixture(&format!("join/{method}/method.yaml"))).unwrap();
    let mut claims: Value = serde_json::from_str(&fixture(&format!("join/{method}/claims.json"))).unwrap();
    for (claim, value) in changes.as_object().unwrap() {
        claims[claim] = value.clone();
    }
    let mut fields = BTreeMap::new();
    for (field, claim) in &file.fields {
        let found = if claim.starts_with('/') { claims.pointer(claim) } else { claims.get(claim) };
        let value = match file.values.get(field).or(found) {
            Some(Value::Array(items)) => items[0].clone(),
            // What a job does not have, no rule that it meets names.
            None | Some(Value::Null) => continue,
            Some(value) => value.clone(),
        };
        fields.insert(field.clone(), value);
    }
    fields
}

/// Jobs as platforms have them. The fixtures' are one each, which has more than one job has at a time.
static JOBS: LazyLock<Vec<(&str, BTreeMap<String, Value>)>> = LazyLock::new(|| {
    let ids = json!({"sub": "repo:octo-org@650065/octo-repo@740074:environment:production", "head_ref": null, "base_ref": null});
    let with = |more: Value| {
        let mut all = ids.clone();
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        all
    };
    let file = "octo-org/octo-repo/.github/workflows/deploy.yml";
    vec![
        ("github", ids.clone()),
        ("github", with(json!({"sub": "repo:octo-org/octo-repo:ref:refs/heads/main", "environment": null}))),
        ("github", with(json!({"sub": "repo:octo-org/octo-repo:environment:a%3Ab", "environment": "a:b"}))),
        ("github", with(json!({"sub": "repository_owner:octo-org:environment:production:job_workflow_ref:octo-org/ci/.github/workflows/oidc.yml@refs/heads/main"}))),
        ("github", with(json!({"sub": "repo:octo-org@650065/octo-repo@740074:pull_request", "environment": null, "event_name": "pull_request",
            "ref": "refs/pull/7/merge", "ref_protected": "false", "head_ref": "fix", "base_ref": "main", "workflow_ref": format!("{file}@refs/pull/7/merge")}))),
        ("github", with(json!({"event_name": "pull_request_target", "head_ref": "fix", "base_ref": "main"}))),
        ("github", with(json!({"event_name": "release", "ref": "refs/tags/v1", "ref_type": "tag", "workflow_ref": format!("{file}@refs/tags/v1")}))),
        ("github", with(json!({"event_name": "pull_request", "ref": "refs/pull/7/merge", "ref_protected": "false",
            "workflow_ref": "octo-org/required/.github/workflows/x.yml@refs/heads/main"}))),
        ("circleci", json!({})),
        ("circleci", json!({"sub": "org/3f1c2a54-7f0f-4f0b-9d5e-2b6f3a1c8d10/project/a7d2b0f6-51c4-4a6e-8e0d-6f2f0c9b7e21/user/5e6f7a8b-1c2d-4e3f-9a0b-7c8d9e0f1a2b"})),
        ("gitlab", json!({})),
        ("gitlab", json!({"ref": "v1", "ref_type": "tag", "ref_path": "refs/tags/v1", "ci_config_ref_uri": null,
            "sub": "project_path:octo-group/platform/app:ref_type:tag:ref:v1"})),
        ("gitlab", json!({"pipeline_source": "merge_request_event", "ref_protected": "false"})),
        ("buildkite", json!({})),
        ("buildkite", json!({"build_branch": "octocat:main", "sub": "0184990a-4782-42b5-afc1-16715b10b1a0"})),
        ("bitbucket", json!({})),
        ("bitbucket", json!({"deploymentEnvironmentUuid": null, "sub": "{1d397906-81bf-459e-9a8d-eae79c0bc5f3}:{4a8f9c1e-5d2b-4c7a-8e3f-1b2c3d4e5f60}"})),
        ("azure-devops", json!({})),
        ("spacelift", json!({})),
        ("spacelift", json!({"callerType": "module", "runType": "TESTING", "scope": "read",
            "sub": "space:production-01HABCDEF:module:infra-eu:run_type:TESTING:scope:read"})),
        ("terraform_cloud", json!({})),
        ("kubernetes", json!({})),
    ]
    .into_iter()
    .map(|(method, changes)| (method, honest(method, &changes)))
    .collect()
});

/// Some of a job's fields, with their exact values or patterns that cover these.
fn rule(
    fields: &BTreeMap<String, Value>,
    chosen: &[bool],
    wild: Option<(Index, Index, Index)>,
    method: &str,
) -> Value {
    let anchor = [
        "repository_id",
        "project_id",
        "pipeline_id",
        "repository_uuid",
        "space_id",
        "organization_id",
        "workspace_id",
        "service_account",
    ];
    let taken = fields
        .iter()
        .zip(chosen.iter().cycle())
        .filter(|((field, _), chosen)| **chosen || anchor.contains(&field.as_str()));
    let mut rule: Map<String, Value> =
        taken.map(|((field, value), _)| (field.clone(), value.clone())).collect();
    // Where Azure has names as parts of the subject.
    if method == "azure-devops" && rule.contains_key("sub") {
        rule.insert("project_name".to_owned(), "octo-project".into());
    }
    if let Some((which, from, to)) = wild {
        let matches = |field: &str| {
            let methods = METHODS.iter().find(|known| known.name == method).unwrap();
            methods.fields.iter().find(|known| known.names(field)).unwrap().matches
        };
        let takes = |field: &&String| matches!(matches(field), Match::Glob | Match::Parts(_));
        let globs: Vec<String> = rule.keys().filter(takes).cloned().collect();
        if !globs.is_empty() {
            let field = which.get(&globs);
            let text: Vec<char> = rule[field].as_str().unwrap().chars().collect();
            let (mut from, mut to) = (from.index(text.len() + 1), to.index(text.len() + 1));
            (from, to) = (from.min(to), from.max(to));
            let pattern: String = text[..from].iter().chain(['*'].iter()).chain(text[to..].iter()).collect();
            // A wildcard over several parts covers nothing.
            let covers = match matches(field) {
                Match::Parts(grammar) => Pattern::read(&pattern, grammar)
                    .is_some_and(|read| read.fits(&text.iter().collect::<String>())),
                _ => true,
            };
            if covers {
                rule.insert(field.clone(), pattern.into());
            }
        }
    }
    rule.into()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    /// A rule that some job meets is neither of what no job has nor contradictory.
    #[test]
    fn no_rule_that_a_job_meets_is_found(
        job: Index,
        chosen in prop::collection::vec(any::<bool>(), 40),
        wild: Option<(Index, Index, Index)>,
    ) {
        let (method, fields) = job.get(&JOBS);
        let rule = rule(fields, &chosen, wild, method);
        let text = policy(method, &section(method), &json!([rule]));
        let source = Source { name: "p".to_owned(), text };
        // What a wildcard leaves open, the method may want said.
        if let Ok(policy) = Policy::parse(&[source]) {
            let mut found = policy.lint().findings;
            found.retain(|one| NEVER.contains(&one.lint) && !(wild.is_some() && one.message.contains("regular expression")));
            prop_assert!(found.is_empty(), "{rule}: {found:#?}");
        } else {
            prop_assert!(wild.is_some(), "{rule}");
        }
    }
}
