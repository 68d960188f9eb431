//! Real databases: PostgreSQL, MariaDB and Redis let in whom the authority
//! certified, as their pages in `docs/resources` configure them, and nobody else.

use std::path::PathBuf;
use std::process::Output;

use crate::support::mariadb::Mariadb;
use crate::support::once::{Job, World, heredocs, manifest};
use crate::support::page;
use crate::support::postgres::Postgres;
use crate::support::process::{command, run, succeed};
use crate::support::redis::Redis;
use crate::support::servers::world_of;

const OTHER: &str =
    "---\nkind: role\nversion: v7\nmetadata: {name: others}\nspec: {allow: {db_users: [other, reporter]}}\n";

#[track_caller]
fn output(world: &World, output: &str) -> (Job, PathBuf) {
    let job = world.github();
    let destination = job.once(["--output", output]).good().destination();
    (job, destination)
}

/// The authority refuses, and says this; nothing is written.
#[track_caller]
fn refused(world: &World, output: &str, says: &str) {
    let job = world.github();
    let outcome = job.once(["--output", output]).failed(4);
    outcome.says(&[says]);
    assert!(job.left().is_empty(), "{:?}", job.left());
}

#[track_caller]
fn fails(output: &Output, says: &str) {
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!output.status.success() && said.contains(says), "{}: {said}", output.status);
}

#[test]
fn postgresql_takes_the_common_name_for_the_user() {
    let world = world_of(&["postgresql.md"], &["orders", "others"], OTHER);
    let postgres = Postgres::start(&world.authority);

    // A wrapped command needs nothing but its environment.
    let job = world.github();
    let wanted = "database,service=orders,database=orders";
    let mut args: Vec<String> = ["once", "--output", wanted, "--"].map(str::to_owned).to_vec();
    args.extend(postgres.psql("SELECT current_user, current_database()"));
    assert_eq!(job.run(&args).good().stdout, "deploy|orders\n", "{}", postgres.log());
    assert!(job.left().is_empty(), "{:?}", job.left());

    // Later steps have the same variables.
    let (job, destination) = output(&world, wanted);
    let told = heredocs(&job.said("GITHUB_ENV"));
    assert_eq!((told["PGUSER"].as_str(), told["PGDATABASE"].as_str()), ("deploy", "orders"));
    assert_eq!(told["PGSSLMODE"], "verify-full");
    assert_eq!(told["PGSSLKEY"], destination.join("tls.key").display().to_string());
    assert_eq!(manifest(&destination)["outputs"][0]["principals"][0], "deploy");
    assert_eq!(succeed(&mut postgres.psql_with(&destination, "deploy", "orders")), "deploy\n");

    // Another user or database than the certificate's and the server's rules have.
    let log_in = |user: &str, database: &str| run(&mut postgres.psql_with(&destination, user, database));
    fails(&log_in("reporter", "orders"), "certificate authentication failed for user \"reporter\"");
    fails(&log_in("deploy", "postgres"), "no pg_hba.conf entry");
    let (_job, other) = output(&world, "database,service=orders,user=other");
    fails(&run(&mut postgres.psql_with(&other, "other", "orders")), "no pg_hba.conf entry");
    fails(&run(&mut postgres.psql_with(&other, "deploy", "orders")), "certificate authentication failed");
    // The bot's own certificate is no database user's.
    let (_job, identity) = output(&world, "identity");
    fails(&run(&mut postgres.psql_with(&identity, "deploy", "orders")), "certificate authentication failed");
    // A certificate of another authority.
    let stranger = world_of(&["postgresql.md"], &["orders"], "");
    let (_job, strange) = output(&stranger, "database,service=orders");
    std::fs::copy(destination.join("ca.crt"), strange.join("ca.crt")).unwrap();
    fails(&run(&mut postgres.psql_with(&strange, "deploy", "orders")), "unknown ca");
}

#[test]
fn java_gets_the_key_in_its_own_form_and_nothing_of_it_stays() {
    let world = world_of(&["postgresql.md"], &["orders"], "");
    let (job, destination) = output(&world, "database,service=orders,database=orders");
    let stub = "#!/bin/sh\nkey=${3##*&sslkey=}; key=${key%%&*}\nstat -c %a \"$key\"; openssl pkey -inform DER -in \"$key\" -pubout\necho \"$key\"\n";
    std::fs::write(job.path("java"), stub).unwrap();
    std::fs::set_permissions(job.path("java"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", job.path("").display(), std::env::var("PATH").unwrap());
    let mut jdbc = command("sh");
    jdbc.args(["-euc", &page::file("postgresql.md", "jdbc.sh")]).env("PATH", path);
    let said = succeed(jdbc.envs(heredocs(&job.said("GITHUB_ENV"))));
    let public =
        succeed(command("openssl").args(["pkey", "-pubout", "-in"]).arg(destination.join("tls.key")));
    let key = said.strip_prefix(&format!("600\n{public}")).unwrap_or_else(|| panic!("{said}")).trim_end();
    assert!(key.starts_with('/') && !PathBuf::from(key).exists(), "{key}");
}

#[test]
fn the_authority_refuses_what_no_role_grants() {
    let world = world_of(&["postgresql.md"], &["orders", "others"], OTHER);
    refused(&world, "database,service=orders,user=postgres", "the database user `postgres` is not granted");
    refused(&world, "database,service=orders,user=admin", "the database user `admin` is not granted");
    refused(&world, "database,service=orders,database=billing", "the database name `billing` is not granted");
    refused(
        &world,
        "database,service=orders,user=other,database=orders",
        "the database user `other` is not granted",
    );
    refused(&world, "database,service=orders", "grant 3 database users; say which with `user=…`");
    refused(
        &world,
        "database,service=orders,roles=deploy",
        "no database user is granted by its roles (`deploy`)",
    );
}

#[test]
fn mariadb_takes_the_subject() {
    let world = world_of(&["mariadb.md"], &["orders-mariadb"], "");
    let mariadb = Mariadb::start(&world.authority);
    let (_job, deploy) = output(&world, "database,service=orders,user=deploy,database=orders");
    let said = succeed(&mut mariadb.client(&deploy, "deploy"));
    assert_eq!(said, "deploy@%\n", "{}", mariadb.log());
    let (_job, other) = output(&world, "database,service=orders,user=other");
    let (_job, identity) = output(&world, "identity");
    for destination in [&other, &identity] {
        fails(&run(&mut mariadb.client(destination, "deploy")), "Access denied for user 'deploy'");
    }
    // A certificate makes no account.
    fails(&run(&mut mariadb.client(&other, "other")), "Access denied for user 'other'");
    refused(&world, "database,service=orders,user=root", "the database user `root` is not granted");
}

#[test]
fn redis_wants_a_certificate_and_its_acl_says_the_rest() {
    let world = world_of(&["redis.md"], &["cache"], "");
    let redis = Redis::start(&world.authority);
    let (_job, cache) = output(&world, "database,service=cache");
    let said = succeed(redis.client(&cache, true).args(["SET", "orders:1", "paid"]));
    assert_eq!(said.trim(), "OK", "{}", redis.log());
    let denied = succeed(redis.client(&cache, true).args(["CONFIG", "GET", "dir"]));
    assert!(denied.contains("NOPERM"), "{denied}");
    let without = run(redis.client(&cache, false).arg("PING"));
    assert!(!String::from_utf8_lossy(&without.stdout).contains("PONG"), "{without:?}");
    let stranger = world_of(&["redis.md"], &["cache"], "");
    let (_job, strange) = output(&stranger, "database,service=cache");
    std::fs::copy(cache.join("ca.crt"), strange.join("ca.crt")).unwrap();
    let strange = run(redis.client(&strange, true).arg("PING"));
    assert!(!String::from_utf8_lossy(&strange.stdout).contains("PONG"), "{strange:?}");
    refused(&world, "database,service=cache,user=default", "the database user `default` is not granted");
}

#[test]
fn each_format_has_the_files_that_its_client_wants() {
    let world = world_of(&["postgresql.md"], &["orders"], "");
    for (format, files) in [
        ("tls", &["ca.crt", "tls.crt", "tls.key"][..]),
        ("mongo", &["ca.crt", "mongo.crt"]),
        ("cockroach", &["ca.crt", "client.deploy.crt", "client.deploy.key"]),
    ] {
        let (job, destination) = output(&world, &format!("database,service=orders,format={format}"));
        let mut found: Vec<String> = std::fs::read_dir(&destination)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "manifest.json")
            .collect();
        found.sort();
        assert_eq!(found, files);
        // What it wrote it takes away, and gives back.
        let path = destination.display().to_string();
        job.run(["cleanup", "-v", &path]).good().says(&["revoked the certificates"]);
        assert!(!destination.exists(), "{format}");
    }
}
