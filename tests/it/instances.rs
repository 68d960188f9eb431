//! Workers that stay, with the real client: registration, storage, copies,
//! recovery, rotation.

mod forged;
mod mistakes;
mod trouble;

use serde_json::json;

use crate::support::authority::Authority;
use crate::support::once::copy;
use crate::support::process::{machine_id, run, succeed};
use crate::support::wait_for;
use crate::support::workers::{POLICY, SECRET, instance, instances, registered, secret, worker};

#[test]
fn a_worker_registers_once_and_joins_without_the_secret() {
    let mut authority = Authority::start(POLICY);
    let job = worker(&authority);
    let refused = job.once([]).failed(3);
    refused.says(&[
        "no worker is registered in",
        "authority token add",
        SECRET,
        "--registration-secret-file",
    ]);
    let once = secret(&authority);
    let job = job.env(SECRET, &once);
    job.once(["-v"]).good().says(&["registering as instance w-"]);
    // It may lie around.
    let again = job.once(["-v"]).good();
    again.says(&["this worker is registered, so its registration secret is not needed any more"]);
    assert!(!again.stderr.contains(&once));
    let job = job.without(SECRET);
    job.once([]).good();
    authority.restart();
    job.once([]).good();
    let list = instances(&authority);
    assert_eq!(list.len(), 1);
    let [one] = &list[..] else { panic!("{list:?}") };
    assert_eq!(
        (&one["instance"], &one["bot"], &one["token"], &one["generation"], &one["locked"]),
        (&json!(instance(&job)), &json!("deployer"), &json!("jenkins"), &json!(4), &json!(false))
    );
    let page = succeed(&mut authority.command(["instances"]));
    assert!(page.contains(&format!("{}  deployer  jenkins  4 ", instance(&job))), "{page}");
    // The key id, and so sshd's log, names the worker.
    let ssh = job.once(["--output", "ssh", "--destination", &job.text_path("d")]).good().destination();
    let certificate = crate::support::process::read(ssh.join("key-cert.pub"));
    let id = ssh_key::Certificate::from_openssh(&certificate).unwrap().key_id().to_owned();
    assert_eq!(id, format!("deployer jenkins token:jenkins instance {} generation 4", instance(&job)));
}

#[test]
fn a_secret_in_a_file_may_be_gone_later() {
    let authority = Authority::start(POLICY);
    let job = worker(&authority);
    std::fs::write(job.path("secret"), format!("{}\n", secret(&authority))).unwrap();
    let file = job.text_path("secret");
    job.once(["--registration-secret-file", &file]).good();
    std::fs::remove_file(job.path("secret")).unwrap();
    job.once(["--registration-secret-file", &file, "-v"]).good().says(&["it goes on without the secret"]);
    let other = worker(&authority);
    other.once(["--registration-secret-file", &file]).failed(2).says(&["--registration-secret-file"]);
}

#[test]
fn the_command_does_not_get_the_secret_and_renewals_are_joins() {
    let authority = Authority::start(POLICY);
    let job = worker(&authority).env(SECRET, secret(&authority));
    let script = format!("test -z \"${SECRET}\" && sleep 16");
    job.once(["--ttl", "10s", "--", "sh", "-c", &script]).good().says(&["renewed the certificates"]);
    // Registered, and renewed twice.
    assert_eq!(instances(&authority)[0]["generation"], 3);
    job.without(SECRET).once([]).good();
}

#[test]
fn a_copy_locks_its_instance_and_no_other() {
    let authority = Authority::start(POLICY);
    let (job, other) = (registered(&authority), registered(&authority));
    copy(&job.path("storage"), &job.path("copy"));
    let in_copy = job.text_path("copy");
    job.once(["--storage", &in_copy]).good();
    let found = job.once([]).failed(4);
    found.says(&[
        "this worker's instance is locked: it presents an old generation (2 was expected)",
        "authority token add",
        SECRET,
        "generation: 1",
    ]);
    for storage in [&in_copy, &job.text_path("storage")] {
        job.once(["--storage", storage]).failed(4).says(&["this worker's instance is locked"]);
    }
    other.once([]).good();
    let locked: Vec<_> = instances(&authority).iter().map(|one| one["locked"].clone()).collect();
    assert_eq!(locked, [true, false]);
    let events: Vec<_> = authority.audit().into_iter().filter(|event| event["event"] == "locked").collect();
    assert_eq!((events.len(), &events[0]["instance"]), (1, &json!(instance(&job))));
    assert_eq!((&events[0]["bot"], &events[0]["join_method"]), (&json!("deployer"), &json!("token")));
    // An operator finds it by its name.
    let id = instance(&job);
    let line = succeed(&mut authority.command(["audit", "--id", &id, "--event", "locked"]));
    assert!(line.contains("two copies of its storage have joined"), "{line}");

    // Recovery: the same storage, a new secret, a new instance. The copy stays out.
    let job = job.env(SECRET, secret(&authority));
    job.once([]).good();
    let job = job.without(SECRET);
    job.once([]).good();
    assert_ne!(instance(&job), id);
    job.once(["--storage", &in_copy]).failed(4).says(&["locked"]);
    other.once([]).good();
    let locked: Vec<_> = instances(&authority).iter().map(|one| one["locked"].clone()).collect();
    assert_eq!(locked, [true, false, false]);
}

/// A server that has no certificate of a host, and is registered: it says that it is the worker.
#[test]
fn a_worker_is_a_host_by_what_it_was_issued_until_it_is_locked() {
    let authority = Authority::start(POLICY);
    let job = registered(&authority);
    let key = job.once(["--output", "identity", "--destination", &job.text_path("d")]).good().destination();
    let refresh = |key: &str| {
        let mut refresh = machine_id(["host", "refresh", "--authority", &authority.url(), "--dir"]);
        refresh.arg(job.path("trust")).arg("--ca-file").arg(authority.ca_file());
        run(refresh.arg("--host-key").arg(job.path("d").join(key)))
    };
    assert!(key.join("key-cert.pub").exists());
    for key in ["key", "tls.key"] {
        let refreshed = refresh(key);
        assert!(refreshed.status.success(), "{refreshed:?}");
    }
    let known = || -> Vec<serde_json::Value> {
        let hosts = succeed(&mut authority.command(["hosts", "--format", "json"]));
        hosts.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let one = wait_for("the worker", || known().pop());
    assert_eq!((known().len(), &one["name"]), (1, &json!(instance(&job))));
    succeed(&mut authority.command(["lock", "--instance", &instance(&job)]));
    let refused = refresh("key");
    let stderr = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(4) && stderr.contains("for a host's"), "{stderr}");
}

#[test]
fn an_old_copy_put_back_locks_too() {
    let authority = Authority::start(POLICY);
    let job = registered(&authority);
    copy(&job.path("storage"), &job.path("backup"));
    for _ in 0..3 {
        job.once([]).good();
    }
    std::fs::remove_dir_all(job.path("storage")).unwrap();
    copy(&job.path("backup"), &job.path("storage"));
    job.once([]).failed(4).says(&["it presents an old generation (4 was expected)"]);
}

#[test]
fn a_key_is_rotated_with_a_secret_and_the_old_one_ends() {
    let authority = Authority::start(POLICY);
    let (job, other) = (registered(&authority), registered(&authority));
    let old = instance(&job);
    copy(&job.path("storage"), &job.path("stolen"));
    let job = job.env(SECRET, secret(&authority));
    job.once([]).good();
    let new = instance(&job);
    assert_ne!(new, old);
    // The same secret is still set, and means nothing any more; the old key ends with the first join of the new.
    job.once([]).good();
    let job = job.without(SECRET);
    job.once([]).good();
    job.once(["--storage", &job.text_path("stolen")]).failed(4).says(&["this worker's instance is locked"]);
    other.once([]).good();
    let mine = |id: &str| instances(&authority).into_iter().find(|one| one["instance"] == id).unwrap();
    assert_eq!((&mine(&old)["reason"], &mine(&new)["locked"]), (&json!("replaced"), &json!(false)));
}

#[test]
fn a_bad_secret_leaves_a_registered_worker_as_it_is() {
    let authority = Authority::start(POLICY);
    let job = registered(&authority);
    let id = instance(&job);
    let job = job.env(SECRET, "mid-reg-of-somebody-else");
    job.once([])
        .failed(4)
        .says(&["the registration secret is not good, or not any more", "authority token add"]);
    let job = job.without(SECRET);
    job.once([]).good();
    assert_eq!((instance(&job), instances(&authority).len()), (id, 1));
}
