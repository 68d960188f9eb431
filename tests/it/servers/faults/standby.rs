//! A standby that no commit waits for.

use std::process::Output;

use serde_json::Value;

use crate::support::authority::Authority;
use crate::support::client::{Client, Keys, Response};
use crate::support::cluster::{Cluster, Role};
use crate::support::issuer::Issuer;
use crate::support::process::succeed;
use crate::support::replicas::Replicas;
use crate::support::wait_for;

const REPLICAS: usize = 3;

/// A job's request, with a token bound to its keys.
fn job(issuer: &Issuer, url: &str) -> Value {
    let keys = Keys::fresh();
    keys.request("github-deploy", "github", &issuer.token("github", &keys.audience(url)).mint())
}

/// What a replica answers once it knows what the database that took over is.
fn answered(client: &Client, request: &Value) -> Response {
    wait_for("an answer", || {
        let response = client.try_exchange(request).ok()?;
        let kind = response.text();
        (!kind.contains("urn:machine-id:store-unavailable")
            && !kind.contains("urn:machine-id:not-ready")
            && !kind.contains("urn:machine-id:internal"))
        .then_some(response)
    })
}

/// Whether `check` says that no commit waits for a standby.
fn warns(authority: &Authority) -> bool {
    let checked: Output = authority.run(["check"]);
    assert!(checked.status.success(), "{}", said(&checked));
    let said = said(&checked);
    assert!(!said.contains("cannot be asked"), "{said}");
    let words = ["warning: no commit waits for a standby", "hint: name the standbys"];
    let found = words.map(|word| said.contains(word));
    assert_eq!(found[0], found[1], "{said}");
    found[0]
}

#[test]
fn one_that_takes_over_without_the_last_commits_issues_nothing_until_the_operator_says_so() {
    let issuer = Issuer::start();
    let mut cluster = Cluster::with_standby();
    let mut replicas = Replicas::sharing(&issuer, &cluster, REPLICAS);
    let url = replicas.one(0).url();
    assert!(!warns(replicas.one(0)), "each commit waits for it");
    cluster.make_asynchronous();
    assert!(warns(replicas.one(0)));
    replicas.one(0).client().exchange(&job(&issuer, &url)).granted();
    cluster.leave_standby_behind();
    // By one of them; all hear of it, when they write next or within a second.
    let used = job(&issuer, &url);
    let granted = replicas.one(1).client().exchange(&used).granted();
    for number in 0..REPLICAS {
        assert_eq!(
            answered(replicas.one(number).client(), &used).granted()["issuance_id"],
            granted["issuance_id"]
        );
    }
    cluster.fail_over();

    for number in 0..REPLICAS {
        for request in [&used, &job(&issuer, &url)] {
            let refused = answered(replicas.one(number).client(), request);
            assert_eq!(
                refused.problem(503)["type"],
                "urn:machine-id:store-lost-commits",
                "{}",
                refused.text()
            );
        }
        let ready = replicas.one(number).client().get("/readyz");
        assert!(ready.status == 503 && ready.text().contains("authority resume"), "{}", ready.text());
    }
    // One that starts anew hears of it from the store, and one that is new to it.
    replicas.one(2).kill();
    replicas.one(2).restart();
    assert_eq!(replicas.one(2).client().get("/readyz").status, 503);
    let told = replicas.one(0).run(["resume"]);
    assert!(said(&told).contains("cannot be revoked"), "{}", said(&told));

    succeed(&mut replicas.one(0).command(["resume", "--accept-loss"]));
    for number in 0..REPLICAS {
        let client = replicas.one(number).client();
        wait_for("that it goes on", || (client.get("/readyz").status == 200).then_some(()));
        assert_eq!(
            answered(client, &used).status,
            401,
            "nobody knows that it was used, but that it is of before"
        );
    }
    for number in 0..REPLICAS {
        let client = replicas.one(number).client();
        // Times of tokens are whole seconds, and one of the second in which it went on may be of before.
        wait_for("a job of after it", || {
            client.try_exchange(&job(&issuer, &url)).ok().filter(|one| one.status == 200)
        });
    }
    let events: Vec<Value> = replicas.audit();
    let of = |name: &str| events.iter().filter(|event| event["event"] == name).count();
    assert_eq!((of("issued"), of("lost"), of("restored")), (1 + REPLICAS, 1, 1), "{events:?}");
}

/// Whoever has a server's password can end that, as an administrator does who wants to get on.
#[test]
fn a_commit_that_was_kept_from_waiting_for_its_standby_is_not_acknowledged() {
    let issuer = Issuer::start();
    let cluster = Cluster::with_standby();
    let mut replicas = Replicas::sharing(&issuer, &cluster, 1);
    let one = replicas.one(0);
    let (request, client) = (job(&issuer, &one.url()), one.client());
    cluster.pause_standby(true);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| client.try_exchange(&request).unwrap());
        let mut ended = 0_u32;
        wait_for("what asks again", || {
            assert!(!asking.is_finished(), "{:?}", cluster.sql("SELECT event, id FROM machine_id.events"));
            let end =
                "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
            let cancelled = succeed(&mut cluster.psql(Role::Server, end));
            ended += cancelled.trim().parse::<u32>().unwrap();
            (ended >= 4).then_some(())
        });
        cluster.pause_standby(false);
        let granted = asking.join().unwrap().granted();
        let found = answered(client, &request).granted();
        assert_eq!(found["issuance_id"], granted["issuance_id"]);
    });
    assert_eq!(replicas.audit().iter().filter(|event| event["event"] == "issued").count(), 1);
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&*output.stdout, &output.stderr].concat()).into_owned()
}
