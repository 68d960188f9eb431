//! An empty value is a mistake at its place, wherever it stands: what a
//! template leaves of a policy is never a policy that grants more.

use super::fixture::parse;
use crate::document::emptied::emptied;
use crate::join::METHODS;
use crate::join::rules::Match;

/// Every kind of resource with every field, and a token of each join method
/// with every field of its section and of its rules.
fn full() -> String {
    let mut text = r"
kind: bot
version: v1
metadata: {name: deployer, description: deploys, labels: {team: web}, allow_lints: [root-login]}
spec:
  roles: [deploy, other]
  traits: [{name: logins, values: [ubuntu, ci]}, {name: kube, values: [dev]}]
  max_session_ttl: 12h
---
kind: role
version: v7
metadata: {name: deploy}
spec:
  options: {max_session_ttl: 1h, require_session_mfa: false, forward_agent: false, port_forwarding: true,
    permit_x11_forwarding: false, permit_pty: true, pin_source_ip: true, force_command: /usr/bin/deploy}
  allow:
    logins: ['{{internal.logins}}', deploy, root]
    node_labels: {env: prod, zone: [a, b]}
    app_labels: {name: [orders, billing]}
    db_users: ['{{internal.db_users}}', app]
    db_names: ['*']
    kubernetes_users: ['{{external.kube}}']
    kubernetes_groups: ['system:masters']
    ssh_host_principals: ['*.example.com']
    jwt_audiences: ['https://*.example.com']
  deny:
    logins: [root, 'adm*']
    app_labels: {name: billing}
    db_users: [postgres]
    db_names: [secrets]
    kubernetes_users: [admin]
    kubernetes_groups: ['system:*']
    ssh_host_principals: [ca.example.com]
    jwt_audiences: ['https://ca.example.com']
---
kind: role
version: v7
metadata: {name: other}
spec: {options: {require_session_mfa: true}, allow: {app_labels: {'*': '*'}}}
---
kind: cluster_auth_preference
version: v2
metadata: {name: cluster-auth-preference}
spec: {require_session_mfa: false}
---
kind: leaf_cluster
version: v1
metadata: {name: leaf.example.com}
spec:
  url: https://id.leaf.example.com
  ca_pin: sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
  hosts: ['*.leaf.example.com', db]
  roles: [deploy, other]
  static: true
"
    .to_owned();
    for method in METHODS {
        let section = section(method.name);
        text.push_str(&format!(
            "---\nkind: token\nversion: v2\nmetadata: {{name: ci-{}}}\nspec:\n  roles: [Bot]\n  bot_name: deployer\n  \
             join_method: {}\n",
            method.name.replace('_', "-"),
            method.name
        ));
        // A worker proves its own key, so its proofs are counted by themselves.
        if !["token", "iam", "github"].contains(&method.name) {
            text.push_str("  max_uses: 2\n");
        }
        if method.fields.is_empty() {
            continue;
        }
        let rule: String = method
            .fields
            .iter()
            .filter(|field| field.matches != Match::Claims)
            .map(|field| {
                let value = match (field.matches, field.name) {
                    (Match::Boolean, _) => "true",
                    (_, "aws_account") => "'123456789012'",
                    (_, "aws_arn") => "arn:aws:sts::123456789012:*",
                    (_, "service_account") => "ci:deploy",
                    (_, "sub") if method.name == "azure-devops" => "'p://o/x/x'",
                    (_, name) if name.ends_with("_uuid") => "'{x}'",
                    _ => "x",
                };
                format!("        '{}': {value}\n", field.name.replace('*', "x"))
            })
            .collect();
        let claims = "        claims: {sub: a, groups: [b, c], n: 7, protected: true}\n";
        let rule = if rule.is_empty() { claims } else { &rule };
        text.push_str(&format!("  {}:\n{section}    allow:\n      -\n{rule}", method.name));
    }
    // Rules directly in the `spec`, as Teleport has them.
    text.push_str(
        "---\nkind: token\nversion: v2\nmetadata: {name: beside}\nspec:\n  roles: [Bot]\n  bot_name: deployer\n  \
         join_method: iam\n  allow: [{aws_account: '123456789012'}]\n",
    );
    for section in [
        "join_method: kubernetes\n  kubernetes: {type: oidc, oidc: {issuer: 'https://k', insecure_allow_http_issuer: false}, \
         allow: [{namespace: ci}]}\n",
        "join_method: github\n  github: {enterprise_slug: octo, allow: [{repository: o/r}]}\n",
    ] {
        text.push_str(&format!(
            "---\nkind: token\nversion: v2\nmetadata: {{name: more-{}}}\nspec:\n  roles: [Bot]\n  bot_name: deployer\n  {section}",
            section.len()
        ));
    }
    text
}

/// A join method's section but for its rules.
fn section(method: &str) -> String {
    let keys = r#"{"keys":[{"kty":"EC","crv":"P-256","kid":"k","alg":"ES256","use":"sig","x":"axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY","y":"T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU"}]}"#;
    let own = match method {
        "azure-devops" => {
            "organization_id: 0ca3ddd9-f0b0-4635-a98c-5866526961b6, accept_default_audience: true"
        }
        "bitbucket" => {
            "identity_provider_url: 'https://api.bitbucket.org/2.0/workspaces/o/pipelines-config/identity/oidc', audience: a"
        }
        "circleci" => {
            "organization_id: 3f1c2a54-7f0f-4f0b-9d5e-2b6f3a1c8d10, accept_default_audience: true, issuer: 'https://c'"
        }
        "github" => "enterprise_server_host: ghe.example.com",
        "gitlab" => "domain: gitlab.example.com",
        "kubernetes" => {
            return format!(
                "    type: static_jwks\n    static_jwks: {{issuer: 'https://k', jwks: '{keys}'}}\n    require_key_binding: false\n"
            );
        }
        "iam" => return "    partition: aws\n".to_owned(),
        "oidc" => "issuer: 'https://i', audience: a, algorithms: [RS256, ES256]",
        "spacelift" => {
            "hostname: o.app.spacelift.io, accept_default_audience: true, enable_glob_matching: true"
        }
        "terraform_cloud" => "hostname: app.terraform.io, audience: a",
        _ => "",
    };
    let mut lines: String =
        own.split(", ").filter(|key| !key.is_empty()).map(|key| format!("    {key}\n")).collect();
    lines = lines.replace("[RS256\n    ES256]", "[RS256, ES256]");
    format!("{lines}    static_jwks: '{keys}'\n    require_key_binding: false\n")
}

#[test]
fn every_empty_value_is_a_mistake_at_its_place() {
    let full = full();
    parse(&full).unwrap();
    let mut count = 0;
    // Each resource alone: what it names is not there then, and no mistake of that is at an empty value.
    for emptied in full.split("---\n").flat_map(emptied) {
        let mistakes = parse(&emptied.text).map(|_| ()).expect_err(&emptied.path);
        emptied.is_refused_by(&mistakes);
        count += 1;
    }
    assert!(count > 4 * 300, "{count}");
}

/// The one empty value that is taken: a section that has no fields, and says no
/// more than if it were not there.
#[test]
fn a_section_without_fields_may_be_empty() {
    let with = |section: &str| {
        format!(
            "kind: token\nversion: v2\nmetadata: {{name: ci}}\nspec:\n  roles: [Bot]\n  bot_name: deployer\n  \
             join_method: token\n{section}\n{}{}",
            super::fixture::bot("{roles: [x]}"),
            super::fixture::role("x", "{allow: {logins: [a], node_labels: {'*': '*'}}}")
        )
    };
    for section in ["", "  token: {}"] {
        let policy = parse(&with(section)).unwrap();
        assert_eq!(policy.token("ci").unwrap().verifier.rules().len(), 0);
        assert_eq!(super::fixture::principals(&policy), ["a"]);
    }
    for section in ["  token:", "  token: ''", "  token: []"] {
        parse(&with(section)).unwrap_err();
    }
}

/// What was issued before: restrictions that a template emptied.
#[test]
fn an_empty_restriction_does_not_load() {
    let text = include_str!("../../../../tests/fixtures/empty-values.yaml");
    let mistakes = parse(text).map(|_| ()).unwrap_err();
    let hint = "give it a value, or leave it out";
    assert_eq!(
        mistakes,
        [
            format!("p.yaml:13:5: `require_session_mfa` has no value | {hint}"),
            format!("p.yaml:14:5: `force_command` has no value | {hint}"),
            format!("p.yaml:15:5: `pin_source_ip` has no value | {hint}"),
            format!("p.yaml:20:5: `logins` has no value | {hint}"),
        ]
    );
}
