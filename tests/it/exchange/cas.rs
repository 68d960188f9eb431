//! CAs that a command changes beside a running authority.

use super::Bench;
use crate::support::client::Keys;
use crate::support::process::{self, succeed};

#[test]
fn what_was_planned_by_former_cas_is_planned_anew_and_no_job_hears_of_it() {
    let mut bench = Bench::start();
    bench.grant(&Keys::fresh());
    for ca in ["ssh-user", "ssh-host", "tls", "statement"] {
        succeed(&mut bench.authority.command(["rotate", "--ca", ca, "--phase", "start"]));
        // Most likely before the authority has heard of it.
        bench.grant(&Keys::fresh());
    }
    let key = bench.authority.data_dir().join("host.pub");
    std::fs::write(&key, Keys::fresh().ssh).unwrap();
    succeed(bench.authority.command(["sign-host", "--principal", "web.test"]).arg(&key));
    let rotated = bench.authority.run(["audit", "--event", "rotated"]);
    assert_eq!(String::from_utf8(rotated.stdout).unwrap().lines().count(), 4);
    bench.authority.restart();
    bench.grant(&Keys::fresh());

    // What somebody else has made of them signs nothing, and says so.
    let database = bench.authority.data_dir().join("authority.db");
    let evil = "UPDATE ca_keys SET public = 'evil' WHERE number = 2";
    process::succeed(process::command("sqlite3").arg("-cmd").arg(".timeout 5000").arg(database).arg(evil));
    let mut refused = bench.authority.command(["sign-host", "--principal", "web.test"]);
    let refused = process::run(refused.arg(&key));
    let (told, which) =
        ("the store's CAs are not as an authority left them: ssh-user-", "without a good seal");
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.status.code() == Some(2) && said.contains(told) && said.contains(which), "{said}");
    let said = bench.authority.refuses_to_start();
    assert!(said.contains(told) && said.contains("who can write to the database?"), "{said}");
}
