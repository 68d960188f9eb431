//! What the tests of the policy share.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::authority::policy::{Grant, Policy, PolicyRequest, Source};
use crate::denial::Denial;
use crate::join::verify::Identity;
use crate::wire::{OutputRequest, SshRequest, TlsRequest};

/// A token that lets in `octo-org/app` as the bot `deployer`, for policies that are about something else.
pub(in crate::authority::policy) const TOKEN: &str = "
---
kind: token
version: v2
metadata: {name: ci}
spec:
  roles: [Bot]
  bot_name: deployer
  join_method: github
  github: {allow: [{repository: octo-org/app}]}
";

/// The `spec` of a role that allows and denies nothing.
pub(in crate::authority::policy) const NOTHING: &str = "{options: {permit_pty: true}}";

/// A role.
pub(in crate::authority::policy) fn role(name: &str, spec: &str) -> String {
    format!("\n---\nkind: role\nversion: v7\nmetadata: {{name: {name}}}\nspec: {spec}\n")
}

/// The bot `deployer`, with its `spec`.
pub(in crate::authority::policy) fn bot(spec: &str) -> String {
    format!("\n---\nkind: bot\nversion: v1\nmetadata: {{name: deployer}}\nspec: {spec}\n")
}

/// What `parse` makes of one file, `p.yaml`, whose last line it ends.
pub(in crate::authority::policy) fn parse(text: &str) -> Result<Policy, Vec<String>> {
    let sources = [Source { name: "p.yaml".to_owned(), text: format!("{text}\n") }];
    Policy::parse(&sources).map_err(|errors| {
        let with_hints = |error: &crate::error::Error| {
            assert_eq!(error.kind(), crate::error::Kind::Usage);
            error.hints().iter().fold(error.to_string(), |all, hint| format!("{all} | {hint}"))
        };
        errors.iter().map(with_hints).collect()
    })
}

/// A policy of parts, with [`TOKEN`].
pub(in crate::authority::policy) fn policy(parts: &[String]) -> Policy {
    parse(&format!("{}{TOKEN}", parts.concat())).unwrap()
}

/// Claims that [`TOKEN`] lets in, and others beside them.
pub(in crate::authority::policy) fn identity(more: Value) -> Identity {
    let mut claims = json!({"repository": "octo-org/app", "ref": "refs/heads/main"});
    let claims = claims.as_object_mut().unwrap();
    claims.extend(more.as_object().unwrap().clone());
    Identity::for_test(claims.clone())
}

/// An output with the keys that its type wants, without options.
pub(in crate::authority::policy) fn output(kind: &str, roles: &[&str]) -> OutputRequest {
    let known = crate::output::find(kind);
    let (ssh, tls) = known.map_or((true, false), |known| (known.has_ssh(), known.keys.tls));
    OutputRequest {
        name: kind.to_owned(),
        kind: kind.to_owned(),
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        options: BTreeMap::new(),
        ssh: ssh.then(|| SshRequest { public_key: "ssh-ed25519 AAAA".to_owned() }),
        tls: tls.then(|| TlsRequest { csr: "csr".to_owned() }),
    }
}

/// An output of the bot's every role, with these options.
pub(in crate::authority::policy) fn output_with(
    kind: &str,
    roles: &[&str],
    options: &[(&str, &str)],
) -> OutputRequest {
    let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    OutputRequest { options, ..output(kind, roles) }
}

/// The authority's own URL.
pub(in crate::authority::policy) const URL: &str = "https://id.example.com";

/// The decision over a job of `octo-org/app`.
pub(in crate::authority::policy) fn decide(
    policy: &Policy,
    outputs: &[OutputRequest],
    ttl_seconds: i64,
) -> Result<Grant, Denial> {
    let token = policy.token("ci").unwrap();
    policy.decide(
        token,
        &identity(json!({})),
        &PolicyRequest { outputs, leaves: &[], ttl_seconds, public_url: Some(URL) },
    )
}

/// The principals of one `ssh` output with all roles.
pub(in crate::authority::policy) fn principals(policy: &Policy) -> Vec<String> {
    let grant = decide(policy, &[output("ssh", &[])], 3600).unwrap();
    grant.outputs[0].ssh.as_ref().unwrap().principals.clone()
}
