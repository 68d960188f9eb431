//! The client end to end: the real binary, in jobs of both platforms, against
//! the real authority and a loopback issuer.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a helper that fails fails its test"
)]

#[path = "../support/mod.rs"]
mod support;

mod azure_devops;
mod buildkite;
mod cleanup;
mod destinations;
mod handed;
mod inspect;
mod outages;
mod platforms;
mod renewal;
mod signals;
mod trust;
mod variables;
mod wrapped;

use std::path::Path;

use serde_json::Value;
use support::once::World;
use support::wait_for;

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
    let issuer = support::issuer::Issuer::start();
    let keys = issuer.key_set();
    let policy = support::policies::basic(&issuer)
        + &format!(
            "---\nkind: token\nversion: v2\nmetadata: {{name: here}}\nspec:\n  roles: [Bot]\n  bot_name: deployer\n  \
             join_method: {method}\n{more}  {method}: {{static_jwks: '{keys}', {section}}}\n"
        );
    let authority = support::authority::Authority::trusting(&issuer, &policy);
    World { issuer, authority }
}

/// The audit's events of this kind.
fn events(world: &World, kind: &str) -> Vec<Value> {
    world.authority.audit().into_iter().filter(|event| event["event"] == kind).collect()
}

/// Waits until every issuance that there was is revoked; returns how many.
#[track_caller]
fn all_revoked(world: &World) -> usize {
    let ids = |kind: &str| -> std::collections::BTreeSet<String> {
        events(world, kind).iter().map(|event| event["issuance_id"].as_str().unwrap().to_owned()).collect()
    };
    wait_for("the revocation of all certificates", || (ids("issued") == ids("revoked")).then_some(()));
    ids("issued").len()
}

/// Permissions of a path.
fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::symlink_metadata(path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        .permissions()
        .mode()
        & 0o7777
}
