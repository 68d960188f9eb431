//! What people bring from other tools is taken, or told what it is here.

use machine_id::authority::policy::{Policy, Source};

use super::platforms::with_section;
use crate::support::once::{Job, Outcome};
use crate::support::process::{machine_id, run};

fn parse(text: String) -> Result<Policy, String> {
    Policy::parse(&[Source { name: "p".to_owned(), text }]).map_err(|mistakes| {
        mistakes.iter().map(|one| format!("{one} | {}\n", one.hints().join(" | "))).collect()
    })
}

/// A role of `v8` differs from one of `v7` in fields that are not taken here.
#[test]
fn a_role_of_v8_is_one_of_v7() {
    let policy = with_section("github", "allow: [{repository_id: '7'}]");
    let (old, new) = (parse(policy.clone()).unwrap(), parse(policy.replace("v7", "v8")).unwrap());
    assert_eq!(format!("{:?}", old.lint()), format!("{:?}", new.lint()));
    for (version, hint) in [
        ("v6", "p:7:10: a role of version `v6` is not known here | write `version: v7`\n"),
        (
            "v3",
            "write `version: v7`, and the labels that it holds on: where it says none, it gives nothing here",
        ),
        ("v9", "write `version: v7`\n"),
    ] {
        let said = parse(policy.replace("v7", version)).err().unwrap();
        assert!(said.contains(hint), "{said}");
    }
}

#[test]
fn join_methods_of_other_tools_are_told_what_they_are_here() {
    for (method, hint) in [
        ("azure_devops", "write `azure-devops`: so is its section called"),
        ("bound_keypair", "write `token`: a worker registers once, with a secret"),
        ("tpm", "write `token`: a worker registers once"),
        ("oracle", "write `token`: a worker registers once"),
        ("static", "write `token`: no secret is good twice here"),
        ("generic_oidc", "write `oidc`: its section has `issuer`"),
        ("jwt", "write `oidc`: its section has `issuer`"),
        ("gcp", "write `oidc`: a machine asks its cloud for an identity token"),
        ("azure", "write `oidc`: a machine asks its cloud for an identity token"),
        ("env0", "write `oidc`: its token is one of its own issuer"),
        ("ec2", "write `iam`: a machine of AWS joins by the role of its instance profile"),
        ("aws", "write `iam`: "),
        ("github_actions", "did you mean `github`?"),
    ] {
        let said = parse(with_section(method, "allow: [{}]")).err().unwrap();
        assert!(said.contains(&format!("there is no join method `{method}` | {hint}")), "{method}: {said}");
        // Its section is no mistake of its own.
        assert!(method == "github_actions" || !said.contains("`spec` has no"), "{said}");
        let job = Job::new().env("MACHINE_ID_AUTHORITY", "https://127.0.0.1:1").env("MACHINE_ID_TOKEN", "t");
        let refused = job.once(["--join-method", method]).failed(2);
        refused.says(&[&format!("there is no join method `{method}`"), hint]);
    }
}

#[test]
fn fields_of_other_tools_are_told_what_they_are_here() {
    let policy = with_section("github", "allow: [{repository_id: '7'}]");
    let spec = |more: &str| policy.replace("spec: {roles: [Bot],", &format!("spec: {{{more}, roles: [Bot],"));
    let role =
        |more: &str| policy.replace("spec: {allow: {", &format!("spec: {{options: {{{more}}}, allow: {{"));
    let allow = |more: &str| policy.replace("spec: {allow: {", &format!("spec: {{allow: {{{more}, "));
    let section = |more: &str| policy.replace("github: {allow", &format!("github: {{{more}, allow"));
    for (text, said) in [
        (
            policy.replace("metadata: {", "metadata: {revision: x, "),
            "has no `revision` | leave it out: `tctl get`",
        ),
        (
            policy.replace("metadata: {", "metadata: {expires: x, "),
            "has no `expires` | no resource ends by itself here",
        ),
        (
            policy.replace("kind: role", "kind: user"),
            "no kind of resource `user` | people do not log in here",
        ),
        (policy.replace("kind: role", "kind: node"), "`node` | servers are no resources here"),
        (policy.replace("kind: token", "kind: scoped_token"), "`scoped_token` | write `kind: token`"),
        (spec("suggested_labels: {a: b}"), "has no `suggested_labels` | leave it out: it is for servers"),
        (
            role("record_session: {default: off}"),
            "has no `record_session` | leave it out, if you can do without",
        ),
        (allow("rules: [{resources: [x]}]"), "has no `rules` | leave it out: a role here gives certificates"),
        (allow("kubernetes_resources: [x]"), "`kubernetes_resources` | leave it out, if the server itself"),
        (allow("node_labels_expression: x"), "`node_labels_expression` | there are no expressions here"),
        (section("bound_claims: {a: b}"), "github` has no `bound_claims` | it is `allow` here"),
        (section("audiences: [x]"), "has no `audiences` | leave it out: jobs ask for a token"),
        (section("jwks_uri: x"), "has no `jwks_uri` | leave it out: keys are found by the issuer"),
        (
            policy.replace("{repository_id:", "{subject: x, repository_id:"),
            "has no `subject` | it is `sub` here",
        ),
    ] {
        assert_ne!(text, policy, "{said}");
        let mistakes = parse(text).err().unwrap();
        assert!(mistakes.contains(said), "{said} is not in {mistakes}");
    }
}

/// `tbot`'s, of version 2.
#[test]
fn a_configuration_of_another_client_is_told_what_it_is_here() {
    let job = Job::new();
    let config = "version: v2\nproxy_server: tele.example.com:443\nonboarding: {join_method: github, token: t}\n\
        credential_ttl: 1h\noneshot: true\nservices: [{type: identity}]\n";
    std::fs::write(job.path("tbot.yaml"), config).unwrap();
    job.once(["--config", &job.text_path("tbot.yaml")]).failed(2).says(&[
        ":1:10: `version` must be v1",
        "2:1: the configuration has no `proxy_server`",
        "3:1: the configuration has no `onboarding`",
        "6:1: the configuration has no `services`",
    ]);
    for (line, hint) in [
        ("proxy_server: x", "it is `authority` here"),
        ("onboarding: {token: t}", "it is `join` here: {method: NAME, token: NAME}"),
        ("credential_ttl: 1h", "it is `ttl` here"),
        ("oneshot: true", "leave it out: `machine-id once` is one shot"),
        ("services: []", "it is `outputs` here"),
    ] {
        std::fs::write(job.path("c.yaml"), format!("version: v1\n{line}\n")).unwrap();
        job.once(["--config", &job.text_path("c.yaml")]).failed(2).says(&[hint]);
    }
}

#[test]
fn options_of_another_client_are_told_what_they_are_here() {
    for (option, hint) in [
        ("--proxy-server=tele.example.com:443", "it is `authority` here"),
        ("--auth-server", "it is `authority` here"),
        ("--certificate-ttl", "it is `ttl` here"),
        ("--destination-dir=/x", "it is `destination` here"),
        ("--oneshot", "leave it out: `machine-id once` is one shot"),
        ("--destinaton=/x", "a similar argument exists: '--destination'"),
    ] {
        let refused = Outcome::of(&run(&mut machine_id(["once", option]))).failed(2);
        let name = option.split('=').next().unwrap();
        refused.says(&[&format!("unexpected argument '{name}' found"), hint]);
        let tips = refused.stderr.matches("tip:").count();
        assert!(tips == 1 || option == "--destinaton=/x", "{}", refused.stderr);
    }
}
