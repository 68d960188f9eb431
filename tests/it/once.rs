//! The client end to end: the real binary, in jobs of both platforms, against
//! the real authority and a loopback issuer.

mod aws_profiles;
mod azure_devops;
mod buildkite;
mod cancelled;
mod cleanup;
mod destinations;
mod handed;
mod inspect;
mod leaves;
mod memory;
mod mistakes;
mod outages;
mod places;
mod platforms;
mod proxies;
mod renewal;
mod retries;
mod reuse;
mod signals;
mod suites;
mod tokens;
mod told;
mod trust;
mod variables;
mod wrapped;

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::Value;

use crate::support::once::{World, manifest, walk};
use crate::support::wait_for;

/// Says that it is there, and ends when it is told to.
const WAIT: &str = "touch ready; while ! [ -e end ]; do sleep 0.05; done";

/// The basic world, whose bot also has the role `readers` (login `reader`).
fn world() -> World {
    World::with_policy(|policy| {
        policy.replace("roles: [deploy]", "roles: [deploy, readers]")
            + "---\nkind: role\nversion: v7\nmetadata: {name: readers}\nspec:\n  options: {max_session_ttl: 1h}\n  \
               allow: {logins: [reader], node_labels: {'*': '*'}}\n"
    })
}

/// A world whose bot can also join by this method, with this section and with
/// the issuer's keys given; the join token is named `here`.
fn joined_by(method: &str, more: &str, section: &str) -> World {
    let issuer = crate::support::issuer::Issuer::start();
    let keys = issuer.key_set();
    let policy = crate::support::policies::basic(&issuer)
        + &format!(
            "---\nkind: token\nversion: v2\nmetadata: {{name: here}}\nspec:\n  roles: [Bot]\n  bot_name: deployer\n  \
             join_method: {method}\n{more}  {method}: {{static_jwks: '{keys}', {section}}}\n"
        );
    let authority = crate::support::authority::Authority::trusting(&issuer, &policy);
    World { issuer, authority }
}

/// The audit's events of this kind.
fn events(world: &World, kind: &str) -> Vec<Value> {
    world.authority.audit().into_iter().filter(|event| event["event"] == kind).collect()
}

/// The issuances in the audit's events of this kind.
fn issuances(world: &World, kind: &str) -> BTreeSet<String> {
    events(world, kind).iter().map(|event| event["issuance_id"].as_str().unwrap().to_owned()).collect()
}

/// The issuance that a destination holds.
fn issuance(destination: &Path) -> String {
    manifest(destination)["issuance_id"].as_str().unwrap().to_owned()
}

/// Waits until every issuance that there was is revoked; returns how many.
#[track_caller]
fn all_revoked(world: &World) -> usize {
    let revoked = || issuances(world, "issued") == issuances(world, "revoked");
    wait_for("the revocation of all certificates", || revoked().then_some(()));
    issuances(world, "issued").len()
}

/// The files below a folder.
fn files(folder: &Path) -> BTreeSet<String> {
    let mut paths = Vec::new();
    walk(folder, &mut paths);
    let files = paths.into_iter().filter(|path| path.is_file());
    files.map(|path| path.strip_prefix(folder).unwrap().display().to_string()).collect()
}

/// Permissions of a path.
fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        .permissions()
        .mode()
        & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}
