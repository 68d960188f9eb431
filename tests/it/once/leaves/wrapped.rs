//! COMMAND with certificates of several clusters: renewed, served by the agent, and given back everywhere.

use super::{Clusters, outputs};
use crate::once::WAIT;
use crate::support::fakes::Manner;
use crate::support::issuer::Endpoint;
use crate::support::process::read;
use crate::support::wait_for;

#[test]
fn all_clusters_are_renewed_by_one_token_and_given_everything_back() {
    let clusters = Clusters::start();
    for fake in [&clusters.root, &clusters.a, &clusters.b] {
        fake.state().life = 10;
    }
    let job = clusters.job();
    let mut running = job.start([
        "--ttl",
        "10s",
        "--agent",
        "--destination",
        "d",
        "--output",
        "ssh",
        "--output",
        "ssh,at=a.test",
        "--output",
        "application,app=x,at=b.test",
        "--",
        "sh",
        "-c",
        &format!("ssh-add -L > listed; {WAIT}"),
    ]);
    wait_for("COMMAND", || job.path("ready").exists().then_some(()));
    assert_eq!(job.said("listed").lines().count(), 2, "{}", job.said("listed"));
    let certificate = read(job.path("d/ssh-a.test/key-cert.pub"));
    wait_for("a renewal", || running.stderr().contains("renewed the certificates").then_some(()));
    assert_ne!(read(job.path("d/ssh-a.test/key-cert.pub")), certificate);
    let root = clusters.root.state().asked.len();
    assert_eq!((clusters.issuer.count(Endpoint::Token), clusters.a.state().asked.len()), (root, root));
    // One that is away is without its certificates once they have ended, and then has some again.
    clusters.b.state().manners = vec![Manner::Refuses("d-1")];
    wait_for("a warning", || {
        running.stderr().contains("leaf b.test: without application-b.test").then_some(())
    });
    wait_for("their end", || (outputs(&job.path("d"))[1] == ["application-b.test"]).then_some(()));
    assert!(!job.path("d/application-b.test/tls.key").exists());
    clusters.b.state().manners = vec![Manner::Grants];
    wait_for("new ones", || (outputs(&job.path("d"))[1].is_empty()).then_some(()));
    for name in ["tls.key", "tls.crt", "ca.crt"] {
        assert!(job.path("d/application-b.test").join(name).exists(), "{name}");
    }
    std::fs::write(job.path("end"), "").unwrap();
    assert!(running.wait().success(), "{}", running.stderr());
    assert!(!job.path("d").exists());
    for fake in [&clusters.root, &clusters.a, &clusters.b] {
        // Those before have ended by themselves.
        let state = fake.state();
        assert!(state.revoked.contains(state.issued.last().unwrap()), "{}", state.cluster);
    }
}

#[test]
fn what_a_dead_run_left_is_given_back_everywhere() {
    let clusters = Clusters::start();
    let job = clusters.job();
    let mut running = job.start([
        "--output",
        "ssh",
        "--output",
        "ssh,at=a.test,destination=a",
        "--output",
        "application,app=x,at=b.test,destination=b",
        "--",
        "sh",
        "-c",
        WAIT,
    ]);
    wait_for("COMMAND", || job.path("ready").exists().then_some(()));
    running.kill();
    std::fs::write(job.path("end"), "").unwrap();
    job.run(["cleanup"]).good();
    assert!(!job.path("a").exists() && !job.path("b").exists());
    assert_eq!(clusters.all_back(), [true; 3]);
}
