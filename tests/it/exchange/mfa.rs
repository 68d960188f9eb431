//! Per-session MFA: `authority check`, the exchange and the client say the same
//! words, with the bot and the role in them.

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::client::{Keys, Response};
use crate::support::once::World;
use crate::support::process::{machine_id, run};

/// What is said of a role, wherever it is.
fn words(role: &str) -> String {
    format!("role `{role}` of bot `deployer` needs per-session MFA, which a machine cannot pass")
}

/// An authority whose policy is the basic one with these roles for its bot and
/// this resource beside them, and that policy in a folder.
fn world(roles: &str, resource: &str) -> (World, TempDir) {
    let folder = TempDir::new().unwrap();
    let world = World::with_policy(|policy| {
        assert!(policy.contains("roles: [deploy]"));
        let policy = policy.replace("roles: [deploy]", &format!("roles: [{roles}]"));
        let policy = format!("{policy}---\n{resource}");
        std::fs::write(folder.path().join("p.yaml"), &policy).unwrap();
        policy
    });
    (world, folder)
}

const GUARDED: &str = "kind: role\nversion: v7\nmetadata: {name: guarded}\nspec:\n  \
                       options: {require_session_mfa: true}\n  allow: {logins: [admin], node_labels: {'*': '*'}}\n";
const EVERY_ROLE: &str = "kind: cluster_auth_preference\nversion: v2\nmetadata: {name: cluster-auth-preference}\n\
                          spec: {require_session_mfa: true}\n";

/// What `authority check` says of the policy.
#[track_caller]
fn check(folder: &TempDir) -> String {
    let output = run(machine_id(["authority", "check", "p.yaml"]).current_dir(folder.path()));
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What the exchange answers a job that asks for these roles.
fn ask(world: &World, roles: &[&str]) -> Response {
    let keys = Keys::fresh();
    let token = world.issuer.token("github", &keys.audience(&world.authority.url())).mint();
    let mut request = keys.request("github-deploy", "github", &token);
    request["outputs"][0]["roles"] = json!(roles);
    world.authority.client().exchange(&request)
}

/// How the client ends that asks for these roles, and what it says.
fn once(world: &World, roles: &[&str]) -> (Option<i32>, String) {
    let args = roles.iter().flat_map(|role| ["--role", role]);
    let output = run(&mut world.github().command(["once"].into_iter().chain(args)));
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// Who asks for these roles is refused in these words, and recorded so.
#[track_caller]
fn refused(world: &World, roles: &[&str], words: &str) {
    let told = format!("output `identity`: {words}");
    let problem = ask(world, roles).problem(403);
    assert!(problem["detail"].as_str().unwrap().ends_with(&told), "{problem}");
    let record = world.authority.refusal(problem["denial_id"].as_str().unwrap());
    assert_eq!((&record["reason"], &record["detail"]), (&json!("mfa_required"), &Value::from(told.clone())));
    let (code, stderr) = once(world, roles);
    assert_eq!(code, Some(4), "{stderr}");
    assert!(stderr.contains(&format!(": {told}\n")), "{stderr}");
}

#[test]
fn a_role_that_needs_it_is_told_of_in_the_same_words_everywhere() {
    let (world, folder) = world("deploy, guarded", GUARDED);
    let words = words("guarded");
    let said = check(&folder);
    assert!(said.contains(&format!(": warning: {words}, and is never issued [session-mfa]\n")), "{said}");
    let granted = ask(&world, &[]).granted();
    assert_eq!(granted["warnings"], json!([format!("{words}, and is left out")]));
    assert_eq!(granted["outputs"][0]["roles"], json!(["deploy"]));
    let (code, stderr) = once(&world, &[]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains(&format!("{words}, and is left out\n")), "{stderr}");
    refused(&world, &["guarded"], &words);
    refused(&world, &["deploy", "guarded"], &words);
    // Who does not want it hears nothing of it.
    assert!(ask(&world, &["deploy"]).granted().get("warnings").is_none_or(|all| all == &json!([])));
}

#[test]
fn without_another_role_the_job_is_refused() {
    let (world, folder) = world("guarded", GUARDED);
    let words = words("guarded");
    let said = check(&folder);
    assert!(said.contains(&format!(": warning: {words}, and is never issued [session-mfa]\n")), "{said}");
    refused(&world, &[], &words);
}

#[test]
fn so_it_is_where_every_role_needs_it() {
    let (world, folder) = world("deploy", EVERY_ROLE);
    let words = words("deploy");
    let said = check(&folder);
    let why = " (`cluster_auth_preference` asks it of every role)";
    assert!(
        said.contains(&format!(": warning: {words}, and is never issued{why} [session-mfa]\n")),
        "{said}"
    );
    refused(&world, &[], &words);
    refused(&world, &["deploy"], &words);
}
