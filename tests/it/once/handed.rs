//! Jobs whose token somebody else puts there: a kubelet, or whoever knows how
//! their issuer gives one.

use std::os::unix::fs::symlink;

use super::{all_revoked, events};
use crate::support::authority::Authority;
use crate::support::issuer::Issuer;
use crate::support::once::{Job, World, manifest};
use crate::support::process::read;
use crate::support::token::Token;
use crate::support::{policies, wait_for};

const POLICY: &str = r#"---
kind: token
version: v2
metadata: {name: pod-deploy}
spec:
  roles: [Bot]
  bot_name: deployer
  join_method: kubernetes
  kubernetes:
    type: oidc
    oidc: {issuer: "https://{{issuer_host}}/clusters/a"}
    allow: [{service_account: "ci-deploys:deployer"}]
---
kind: token
version: v2
metadata: {name: any-deploy}
spec:
  roles: [Bot]
  bot_name: deployer
  join_method: oidc
  oidc:
    issuer: https://{{issuer_host}}/oidc
    allow: [{claims: {sub: "job/deploy/*", build_number: 4711}}]
"#;

fn world() -> World {
    let issuer = Issuer::start();
    let policy = policies::basic(&issuer) + &issuer.variables().text(POLICY);
    let authority = Authority::trusting(&issuer, &policy);
    World { issuer, authority }
}

fn pod_token(world: &World) -> Token {
    world.issuer.token("kubernetes", &world.authority.url()).claim("iss", world.issuer.url("/clusters/a"))
}

pub(super) fn any_token(world: &World) -> Token {
    world.issuer.token("oidc", &world.authority.url()).claim("iss", world.issuer.url("/oidc"))
}

/// A pod with a projected volume, as the kubelet makes them: the file is a link
/// through `..data`, which is exchanged as a whole.
fn pod(world: &World) -> Job {
    let job = Job::new().told(&world.authority, "pod-deploy").env("KUBERNETES_SERVICE_HOST", "10.0.0.1");
    std::fs::create_dir(job.path("tokens")).unwrap();
    project(&job, &pod_token(world));
    symlink("..data/machine-id", job.path("tokens/machine-id")).unwrap();
    let path = job.text_path("tokens/machine-id");
    job.env("KUBERNETES_TOKEN_PATH", path)
}

/// Puts a token into the volume.
fn project(job: &Job, token: &Token) {
    let folder = crate::support::fresh();
    std::fs::create_dir(job.path(&format!("tokens/{folder}"))).unwrap();
    std::fs::write(job.path(&format!("tokens/{folder}/machine-id")), token.mint()).unwrap();
    symlink(&folder, job.path("tokens/..data_tmp")).unwrap();
    std::fs::rename(job.path("tokens/..data_tmp"), job.path("tokens/..data")).unwrap();
}

#[test]
fn a_pod_is_known_by_its_projected_token() {
    let world = world();
    pod(&world).once([]).good();
    let issued = &events(&world, "issued")[0];
    assert_eq!(issued["join_method"], "kubernetes");
    assert_eq!(
        issued["provenance"],
        "kubernetes:ci-deploys:deployer pod deploy-29384756-x7k2p node pool-a-7f3c"
    );
}

#[test]
fn a_pod_keeps_its_keys_in_an_empty_dir() {
    // As the kubelet makes them: everybody's, and without the bit that keeps others from renaming.
    use std::os::unix::fs::PermissionsExt as _;
    let world = world();
    let job = pod(&world).without("RUNNER_TEMP").without("XDG_RUNTIME_DIR").without("HOME");
    std::fs::set_permissions(job.path("tmp"), std::fs::Permissions::from_mode(0o777)).unwrap();
    job.once(["--", "sh", "-c", "test -s \"$MACHINE_ID_IDENTITY_FILE\""]).good();
    assert!(job.left().is_empty());
}

#[test]
fn a_pod_that_is_refused_sees_its_own_claims() {
    let world = world();
    let job = pod(&world);
    let other = pod_token(&world).claim("sub", "system:serviceaccount:ci-deploys:other");
    project(&job, &other);
    let words =
        "a claim of the token is missing or of the wrong type: sub and kubernetes.io do not name the same";
    job.once([]).failed(4).says(&[words]);
    let mut other = pod_token(&world).claim("sub", "system:serviceaccount:web:deployer");
    other.claims["kubernetes.io"]["namespace"] = "web".into();
    project(&job, &other);
    let refused = job.once([]).failed(4);
    refused.says(&["no rule of this authority lets this job in", "sub: system:serviceaccount:web:deployer"]);
    refused.says(&["\"namespace\":\"web\"", "\"name\":\"deploy-29384756-x7k2p\""]);
}

#[test]
fn a_ci_job_in_a_pod_is_a_ci_job() {
    let world = world();
    let job = pod(&world).envs(world.issuer.github_environment()).env("MACHINE_ID_TOKEN", "github-deploy");
    job.once([]).good();
    assert_eq!(events(&world, "issued")[0]["join_method"], "github");
    // Nor is every pod one that wants certificates.
    let plain = pod(&world).env("KUBERNETES_TOKEN_PATH", "/nowhere/token");
    plain.once([]).failed(2).says(&["--join-method"]);
}

#[test]
fn a_long_job_renews_when_the_kubelet_brings_another_token() {
    let world = world();
    let job = pod(&world);
    let destination = job.text_path("d");
    let wait = "touch ready; while ! [ -e end ]; do sleep 0.05; done";
    let mut running = job.start(["--ttl", "10s", "--destination", &destination, "--", "sh", "-c", wait]);
    wait_for("the certificates", || job.path("ready").exists().then_some(()));
    let old = manifest(&job.path("d"));
    let certificate = read(job.path("d/key-cert.pub"));
    wait_for("it to wait", || running.stderr().contains("waiting for another token").then_some(()));
    assert_eq!(events(&world, "refused").len() + events(&world, "issued").len(), 1, "nothing is asked for");
    for _ in 0..2 {
        // The second one comes before it is needed.
        project(&job, &pod_token(&world));
        let issued = events(&world, "issued").len();
        wait_for("a renewal", || (events(&world, "issued").len() > issued).then_some(()));
    }
    wait_for("other files", || (manifest(&job.path("d"))["issuance_id"] != old["issuance_id"]).then_some(()));
    assert_ne!(read(job.path("d/key-cert.pub")), certificate);
    std::fs::write(job.path("end"), "").unwrap();
    assert!(running.wait().success());
    assert!(running.stderr().contains("renewed the certificates"), "{}", running.stderr());
    assert_eq!(events(&world, "refused"), Vec::<serde_json::Value>::new());
    assert_eq!(all_revoked(&world), 3);
}

#[test]
fn a_token_of_any_issuer_is_handed_over() {
    let world = world();
    let job = |token: &Token| {
        let job = Job::new().told(&world.authority, "any-deploy");
        std::fs::write(job.path("token"), token.mint()).unwrap();
        job
    };
    let in_variable = job(&any_token(&world)).env("MACHINE_ID_ID_TOKEN", any_token(&world).mint());
    let warned = in_variable.once(["--ttl", "10s", "--", "true"]).good();
    warned.says(&["cannot renew: the token in MACHINE_ID_ID_TOKEN stays the same"]);
    // What the user says beats what is there.
    let method = ["--join-method", "oidc"];
    let in_file = job(&any_token(&world)).env("MACHINE_ID_ID_TOKEN", "not-this-one");
    in_file.once([method[0], method[1], "--id-token-file", "token"]).good();
    assert_eq!(events(&world, "issued").len(), 2);
    let issuer = world.issuer.url("/oidc");
    assert_eq!(events(&world, "issued")[0]["provenance"], format!("oidc:{issuer} job/deploy/main"));
    let number = any_token(&world).claim("build_number", "4711");
    let denied = job(&number).once([method[0], method[1], "--id-token-file", "token"]).failed(4);
    denied.says(&["no rule of this authority lets this job in"]);
    let id = events(&world, "refused")[0]["denial_id"].as_str().unwrap().to_owned();
    let told = String::from_utf8(world.authority.run(["explain", &id]).stdout).unwrap();
    assert!(told.contains("`build_number`: got `4711`, wanted the number `4711`"), "{told}");
}
