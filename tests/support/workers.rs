//! Workers that stay, as the real client: a policy, secrets, what the
//! authority lists.

use serde_json::Value;

use super::authority::Authority;
use super::once::Job;
use super::process::succeed;

/// The bot `deployer`, which logs in as `deploy`; join tokens `jenkins` and
/// `agents` for its workers.
pub const POLICY: &str = "kind: bot
version: v1
metadata: {name: deployer}
spec: {roles: [deploy]}
---
kind: role
version: v7
metadata: {name: deploy}
spec: {allow: {logins: [deploy], node_labels: {'*': '*'}}}
---
kind: token
version: v2
metadata: {name: jenkins}
spec: {roles: [Bot], bot_name: deployer, join_method: token, token: {}}
---
kind: token
version: v2
metadata: {name: agents}
spec: {roles: [Bot], bot_name: deployer, join_method: token}
";

/// The variable with the secret.
pub const SECRET: &str = "MACHINE_ID_REGISTRATION_SECRET";

/// A new registration secret for the join token `jenkins`.
#[track_caller]
pub fn secret(authority: &Authority) -> String {
    let mut add = authority.command(["token", "add", "--token", "jenkins", "--format", "json"]);
    let added: Value = serde_json::from_str(&succeed(&mut add)).unwrap();
    added["secret"].as_str().unwrap().to_owned()
}

/// A worker of `jenkins` with its storage in `storage`, not registered yet.
pub fn worker(authority: &Authority) -> Job {
    let job = Job::new().told(authority, "jenkins").env("MACHINE_ID_JOIN_METHOD", "token");
    let storage = job.text_path("storage");
    job.env("MACHINE_ID_STORAGE", storage)
}

/// A registered one.
#[track_caller]
pub fn registered(authority: &Authority) -> Job {
    let job = worker(authority).env(SECRET, secret(authority));
    job.once(["--output", "ssh"]).good();
    job.without(SECRET)
}

/// `authority instances --format json`.
#[track_caller]
pub fn instances(authority: &Authority) -> Vec<Value> {
    let list = succeed(&mut authority.command(["instances", "--format", "json"]));
    serde_json::from_str(&list).unwrap()
}

/// The id of the instance in a storage.
#[track_caller]
pub fn instance(job: &Job) -> String {
    let state = super::process::read(job.path("storage/state.json"));
    let state: Value = serde_json::from_str(&state).unwrap();
    state["current"]["id"].as_str().unwrap().to_owned()
}
