//! The same with an authority, from whose lists `host watch` ends sessions of `sshd` and PostgreSQL.

use std::fs::{Permissions, create_dir, set_permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{FOR_EVER, begun, ends, says, watch};
use crate::support::once::manifest;
use crate::support::postgres::Postgres;
use crate::support::process::{machine_id, succeed};
use crate::support::servers::world_of;
use crate::support::shut_out::{Stage, Way};
use crate::support::sshd_labels::{Estate, LabelledSshd};
use crate::support::wait_for;

/// One process that fetches, reloads and ends, over two authorities: `tests/logins` does it often, and measures.
#[test]
fn whoever_is_shut_out_is_out_soon_and_servers_are_reloaded() {
    let mut stage = Stage::start();
    for way in [Way::Cleanup, Way::LockAtOne, Way::LockAtOther] {
        let before = stage.reloads();
        let took = stage.shut_out(way);
        assert!(took.iter().all(|(_, time)| *time < Duration::from_secs(10)), "{way:?}: {took:?}");
        if way != Way::Cleanup {
            wait_for("servers to be told", || (stage.reloads() > before).then_some(()));
        }
    }
}

#[test]
fn a_lock_ends_what_is_open() {
    let estate = Estate::start("{env: test}", "{max_session_ttl: 2h}");
    let sessions = estate.path("sessions");
    create_dir(&sessions).unwrap();
    set_permissions(&sessions, Permissions::from_mode(0o700)).unwrap();
    let sshd = LabelledSshd::start(&estate, &format!("env=test --sessions {}", sessions.display()), "");
    let watch = watch(&sshd.trust(), &sessions, []);
    let (one, two) = (estate.certificates("one"), estate.certificates("two"));
    let start = |destination| begun(&mut sshd.ssh(destination, [], FOR_EVER), || sshd.log());
    let (mut first, mut second) = (start(&one), start(&two));
    let serial = manifest(&one)["outputs"][0]["serial"].as_str().unwrap().to_owned();
    succeed(&mut estate.authority.command(["lock", "--serial", &serial]));
    let heard = || {
        // The lists that are served have it within a second.
        wait_for("the list", || (!succeed(&mut estate.refresh(&sshd.trust())).is_empty()).then_some(()));
        Instant::now()
    };
    ends("the session", &mut first, heard());
    assert!(second.ended().is_none());
    says(&watch, &format!("serial {serial} ("));
    // A job that gives its certificates back ends its own.
    succeed(machine_id(["cleanup"]).arg(&two));
    ends("the job's", &mut second, heard());
}

#[test]
fn sessions_of_postgresql_end_by_serial() {
    let world = world_of(&["postgresql.md"], &["orders"], "");
    let postgres = Postgres::start(&world.authority);
    let folder = TempDir::new().unwrap();
    let (trust, sessions) = (folder.path().join("trust"), folder.path().join("sessions"));
    create_dir(&sessions).unwrap();
    set_permissions(&sessions, Permissions::from_mode(0o700)).unwrap();
    let refresh = || {
        let mut refresh = machine_id(["host", "refresh", "--authority", &world.authority.url(), "--dir"]);
        succeed(refresh.arg(&trust).arg("--ca-file").arg(world.authority.ca_file()))
    };
    let job = || {
        let job = world.github();
        let destination =
            job.once(["--output", "database,service=orders,database=orders"]).good().destination();
        let mut psql = postgres.psql_with(&destination, "deploy", "orders");
        psql.args(["-c", r"\echo up", "-c", "SELECT pg_sleep(600)"]);
        let session = begun(&mut psql, || postgres.log());
        let serial = manifest(&destination)["outputs"][0]["serial"].as_str().unwrap().to_owned();
        (job, session, serial)
    };
    let (_one, mut first, serial) = job();
    let (_two, mut second, _) = job();
    refresh();
    succeed(&mut world.authority.command(["lock", "--serial", &serial]));
    wait_for("the list", || (!refresh().is_empty()).then_some(()));
    // Who may see nobody's sessions says so.
    let blind = watch(&trust, &sessions, ["--postgres", &postgres.url("reporter")]);
    says(&blind, "GRANT pg_read_all_stats, pg_signal_backend");
    drop(blind);
    assert!(first.ended().is_none());
    let watch = watch(&trust, &sessions, ["--postgres", &postgres.url("admin")]);
    ends("the session", &mut first, Instant::now());
    says(&watch, &format!("serial {serial}, which is revoked"));
    assert!(
        first.stderr().contains("terminating connection due to administrator command"),
        "{}",
        first.stderr()
    );
    assert!(second.ended().is_none(), "{}", second.stderr());
}
