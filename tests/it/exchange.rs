//! The exchange, the revocation and everything around them, over the wire,
//! against the real authority.

mod cas;
mod certificates;
mod ends;
mod floods;
mod hosts;
mod keys;
mod leaves;
mod locks;
mod mfa;
mod options;
mod outages;
mod policy_files;
mod quotas;
mod replicas;
mod requests;
mod retries;
mod revocation;
mod serving;
mod single_use;
mod statements;
mod tokens;
mod trusted;

use serde_json::Value;

use crate::support::authority::Authority;
use crate::support::client::{Keys, Response};
use crate::support::issuer::Issuer;
use crate::support::token::Token;

/// An issuer and an authority that believes it.
struct Bench {
    issuer: Issuer,
    authority: Authority,
}

impl Bench {
    fn start() -> Self {
        let issuer = Issuer::start();
        let authority = Authority::trusting(&issuer, &policy(&issuer));
        Self { issuer, authority }
    }

    /// A GitHub token, not bound to keys.
    fn unbound(&self) -> Token {
        self.issuer.token("github", &self.authority.url())
    }

    /// A GitHub token bound to these keys.
    fn bound(&self, keys: &Keys) -> Token {
        self.issuer.token("github", &keys.audience(&self.authority.url()))
    }

    /// Asks for the usual output with a fresh token, through this join token.
    fn ask(&self, join_token: &str, keys: &Keys) -> Response {
        self.authority.client().exchange(&keys.request(join_token, "github", &self.bound(keys).mint()))
    }

    /// Certificates for these keys.
    #[track_caller]
    fn grant(&self, keys: &Keys) -> Value {
        self.ask("github-deploy", keys).granted()
    }

    /// Asks for the usual output with this token and these keys.
    fn present(&self, token: &str, keys: &Keys) -> Response {
        self.authority.client().exchange(&keys.request("github-deploy", "github", token))
    }

    /// The recorded reason of a refusal with this status.
    #[track_caller]
    fn reason(&self, response: &Response, status: u16) -> String {
        let id = response.denial(status);
        self.authority.refusal(&id)["reason"].as_str().expect("a reason").to_owned()
    }
}

/// Roles and join tokens that these tests need, beside the basic policy's.
fn policy(issuer: &Issuer) -> String {
    let mut policy = crate::support::policies::basic(issuer);
    policy.push_str(ROLES);
    for (bot, roles) in [
        ("brief", "short"),
        ("both", "deploy, short"),
        ("mixed", "deploy, mfa"),
        ("guarded", "mfa"),
        ("hollow", "hollow"),
        ("pinned", "pinned"),
        ("hostile", "hostile"),
        ("hosts", "hosts"),
    ] {
        policy.push_str(&format!(
            "---\nkind: bot\nversion: v1\nmetadata: {{name: {bot}}}\nspec: {{roles: [{roles}]}}\n\
             ---\nkind: token\nversion: v2\nmetadata: {{name: github-{bot}}}\nspec:\n  roles: [Bot]\n  bot_name: {bot}\n  \
             join_method: github\n  github:\n    enterprise_server_host: {}\n    allow: [{{repository: octo-org/octo-repo}}]\n",
            issuer.host()
        ));
    }
    policy.push_str(&format!(
        "---\nkind: token\nversion: v2\nmetadata: {{name: github-thrice}}\nspec:\n  roles: [Bot]\n  bot_name: both\n  \
         join_method: github\n  max_uses: 3\n  github:\n    enterprise_server_host: {}\n    allow: [{{repository: octo-org/octo-repo}}]\n",
        issuer.host()
    ));
    // The same claims from another issuer, whose keys are given.
    policy.push_str(&issuer.variables().text(
        "---\nkind: token\nversion: v2\nmetadata: {name: github-cloud}\nspec:\n  roles: [Bot]\n  bot_name: deployer\n  \
         join_method: github\n  github:\n    static_jwks: '{{static_jwks}}'\n    allow: [{repository: octo-org/octo-repo}]\n",
    ));
    policy
}

const ROLES: &str = r"---
kind: role
version: v7
metadata: {name: short}
spec:
  options: {max_session_ttl: 10m, forward_agent: true}
  allow: {logins: [short], node_labels: {'*': '*'}}
---
kind: role
version: v7
metadata: {name: mfa}
spec:
  options: {require_session_mfa: yes}
  allow: {logins: [guarded], node_labels: {'*': '*'}}
---
kind: role
version: v7
metadata: {name: hosts}
spec:
  allow: {ssh_host_principals: ['ci-*']}
---
kind: role
version: v7
metadata: {name: hollow}
spec:
  allow: {node_labels: {'*': '*'}}
---
kind: role
version: v7
metadata: {name: pinned}
spec:
  options: {pin_source_ip: true, force_command: /usr/bin/uptime}
  allow: {logins: [pinned, root], node_labels: {'*': '*'}}
  deny: {logins: [root]}
---
kind: role
version: v7
metadata: {name: hostile}
spec:
  allow: {logins: [good], node_labels: {'*': '*'}}
  deny: {logins: ['*']}
";
