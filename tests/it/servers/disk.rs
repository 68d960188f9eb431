//! A disk that is full, in earnest: a small file system of its own.

use std::fs;
use std::time::Duration;

use crate::support::authority::Authority;
use crate::support::client::{Keys, Response, assertion_claims};
use crate::support::disk::SmallDisk;
use crate::support::issuer::Issuer;
use crate::support::{policies, process, wait_slowly_for};

#[test]
fn a_full_disk_stops_the_issuing_and_goes_on_by_itself() {
    let disk = SmallDisk::mount(48);
    let issuer = Issuer::start();
    let mut authority =
        Authority::with_policy(&policies::basic(&issuer)).issuer(&issuer).within(disk.path()).start();
    let ask = |authority: &Authority, keys: &Keys| {
        let token = issuer.token("github", &keys.audience(&authority.url())).mint();
        authority.client().exchange(&keys.request("github-deploy", "github", &token))
    };
    let full = |response: &Response| {
        let problem = response.problem(503);
        assert_eq!(problem["type"], "urn:machine-id:disk-full", "{problem}");
        assert_eq!(response.header("retry-after"), Some("10"));
    };
    let keys = Keys::fresh();
    let first = ask(&authority, &keys).granted();

    let filler = disk.fill("filler");
    // What the log has room for is still taken.
    let granted = (0..2000).take_while(|_| ask(&authority, &Keys::fresh()).status == 200).count();
    full(&ask(&authority, &Keys::fresh()));
    full(&authority.client().get("/readyz"));
    let stranger = keys.request("github-deploy", "github", "a.b.c");
    full(&authority.client().exchange(&stranger));
    authority.wait_for_stderr("disk is full");
    let issued =
        |authority: &Authority| authority.audit().iter().filter(|event| event["event"] == "issued").count();
    assert_eq!(issued(&authority), 1 + granted, "nothing was signed that is not recorded");

    // It starts again in the room that it had set aside, and takes certificates back.
    authority.restart();
    authority.wait_for_stderr("not ready: cannot write to the store");
    authority.wait_for_stderr("free 16 MiB on the file system of the store");
    full(&ask(&authority, &Keys::fresh()));
    let chain = first["outputs"][0]["tls_certificate_chain"].as_str().unwrap();
    let assertion = keys.tls_assertion(chain, &assertion_claims(&authority.url()));
    let body = serde_json::json!({"issuance_id": first["issuance_id"], "assertion": assertion});
    assert_eq!(authority.client().post("/v1/revoke", body.to_string()).status, 200);

    // With none at all it says what to do.
    authority.kill();
    let rest = disk.fill("rest");
    let output = process::run(&mut authority.command(["serve", "--listen", "127.0.0.1:0"]));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && said.contains("hint: free 16 MiB on the file system of the store"),
        "{said}"
    );

    // Room for less than it sets aside is none yet.
    fs::remove_file(rest).unwrap();
    authority.restart();
    full(&ask(&authority, &Keys::fresh()));
    fs::remove_file(filler).unwrap();
    wait_slowly_for("the authority to go on", Duration::from_millis(100), || {
        (ask(&authority, &Keys::fresh()).status == 200).then_some(())
    });
    assert_eq!(authority.client().get("/readyz").status, 200);
    assert_eq!(issued(&authority), 2 + granted);
}
