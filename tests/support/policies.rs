//! Policies for tests that are not about policies.

use super::authority::{Authority, Builder};
use super::issuer::Issuer;
use super::page;
use super::replicas::QUOTAS;
use super::sshd::login;

/// A bot `deployer` whose role `deploy` lets it log in as `deploy` and, through
/// its traits, as `ubuntu` on every host; join tokens `github-deploy`, for
/// `octo-org/octo-repo` of the loopback issuer as a GitHub Enterprise Server,
/// and `circleci-deploy`, for the organisation of the CircleCI fixture with its
/// keys given (no network) and the default audience accepted.
pub fn basic(issuer: &Issuer) -> String {
    issuer.variables().text(BASIC)
}

/// An authority of it whose jobs log in as whoever runs the tests, and to PostgreSQL as `deploy`, with no quota in their way.
pub fn ours(issuer: &Issuer) -> Builder {
    let policy = basic(issuer)
        .replace("values: [ubuntu]", &format!("values: ['{}']", login()))
        .replace("roles: [deploy]", "roles: [deploy, orders]");
    let policy = format!("{policy}---\n{}", page::file("postgresql.md", "policy.yaml"));
    Authority::with_policy(&policy).issuer(issuer).config(QUOTAS)
}

const BASIC: &str = r#"kind: bot
version: v1
metadata: {name: deployer}
spec:
  roles: [deploy]
  traits: [{name: logins, values: [ubuntu]}]
---
kind: role
version: v7
metadata: {name: deploy}
spec:
  options: {max_session_ttl: 2h}
  allow:
    logins: ['{{internal.logins}}', deploy]
    node_labels: {'*': '*'}
---
kind: token
version: v2
metadata: {name: github-deploy}
spec:
  roles: [Bot]
  bot_name: deployer
  join_method: github
  github:
    enterprise_server_host: {{issuer_host}}
    allow:
      - repository: octo-org/octo-repo
---
kind: token
version: v2
metadata: {name: circleci-deploy}
spec:
  roles: [Bot]
  bot_name: deployer
  join_method: circleci
  circleci:
    organization_id: 3f1c2a54-7f0f-4f0b-9d5e-2b6f3a1c8d10
    accept_default_audience: true
    static_jwks: '{{static_jwks}}'
    allow:
      - project_id: a7d2b0f6-51c4-4a6e-8e0d-6f2f0c9b7e21
"#;
