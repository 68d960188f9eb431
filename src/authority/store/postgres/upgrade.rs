//! What the owner of the database does: makes the tables, and says which roles may do what with them.
//!
//! A *server* inserts, changes the columns that change, and removes what has expired; it cannot touch the
//! trail, nor change a table or its triggers. A *reader* sees the trail and no secret. Neither is the owner,
//! who alone closes a store and lets go of its trail, and can do everything but make rows that grant something
//! (`store/seal.rs`).

use std::time::{Duration, Instant};

use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use super::super::version;
use super::failure::Failure;
use super::schema::{self, MIGRATIONS};
use super::transaction;
use crate::error::{Error, Result};
use crate::text::shown_exactly;

/// Who asks, who is the owner, and whether that is the same.
macro_rules! owner {
    () => {
        "current_user::text AS me,
        (SELECT pg_get_userbyid(nspowner)::text FROM pg_namespace WHERE nspname = 'machine_id') AS owner,
        (SELECT pg_has_role(nspowner, 'USAGE') FROM pg_namespace WHERE nspname = 'machine_id') AS is_owner"
    };
}

/// What a server may do with each table.
const SERVER: &[(&str, &str)] = &[
    ("versions", "SELECT"),
    ("events", "SELECT, INSERT"),
    ("certificates", "SELECT, INSERT, UPDATE (revoked, instance)"),
    ("proofs", "SELECT, INSERT, DELETE"),
    ("assertions", "SELECT, INSERT, DELETE"),
    (
        "instances",
        "SELECT, INSERT, UPDATE (token, bot, key, generation, base, attempt, tries, last, replaces, registered, \
         seen, locked, reason, mac)",
    ),
    ("secrets", "SELECT, INSERT, UPDATE (instance, mac), DELETE"),
    ("strangers", "SELECT, INSERT, DELETE"),
    ("locks", "SELECT, INSERT, UPDATE (until, held_to_run, message, met, lifted, lifted_by, mac)"),
    (
        "state",
        "SELECT, UPDATE (list_number, list_what, list_made, revocations, run, forgotten, restored, restored_mac, lost, \
         seal_check, locks, cas, cas_mac, oldest)",
    ),
    ("ca_keys", "SELECT, INSERT, UPDATE (state, endorsements, crossed, sealed, since, mac)"),
    ("probes", "SELECT, INSERT, UPDATE"),
    ("usage", "SELECT, INSERT, UPDATE, DELETE"),
    ("replicas", "SELECT, INSERT, UPDATE, DELETE"),
    ("cas", "SELECT, INSERT"),
    ("hosts", "SELECT, INSERT, UPDATE, DELETE"),
    #[cfg(feature = "next-schema")]
    super::super::next_schema::SERVER,
];

/// What a reader may: the trail, and of instances what a list shows.
const READER: &[(&str, &str)] = &[
    ("versions", "SELECT"),
    ("events", "SELECT"),
    ("strangers", "SELECT"),
    ("hosts", "SELECT"),
    ("instances", "SELECT (number, id, token, bot, generation, registered, seen, locked, reason)"),
    ("state", "SELECT (id, oldest, store, closed, kept_from)"),
];

/// How long it is tried to take the tables, and what lies between two tries: in that time servers go on.
const TAKE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(1));

/// How long it is waited for another upgrade.
const ALONE: &str = if cfg!(test) { "2s" } else { "60s" };

/// Who may do what beside the owner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roles {
    /// Those whom authorities serve as.
    pub server: Vec<String>,
    /// Those who read the trail.
    pub reader: Vec<String>,
}

/// What an upgrade has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgraded {
    /// The version of the tables before; 0 where there were none.
    pub from: i64,
    /// The version that they are of.
    pub to: i64,
    /// Who may do what: those that were named, and those that were known.
    pub roles: Roles,
}

/// Makes the tables, or brings them up to this version, and gives the roles what they need and nothing else: these,
/// and those that had it before. Where another does so too, it waits.
///
/// # Errors
/// `Kind::Usage` where this role is not the owner, another does not exist or could do more than it should, or
/// the database is none that can be used. Nothing is changed then.
pub(super) async fn upgrade(client: &Client, roles: &Roles) -> Result<Upgraded> {
    let done = run(client, roles).await;
    match &done {
        Ok(_) => client.batch_execute("COMMIT").await,
        Err(_) => client.batch_execute("ROLLBACK").await,
    }
    .map_err(told)
    .or_else(|error| if done.is_ok() { Err(error) } else { Ok(()) })?;
    done
}

/// Why the lock of upgrades is not to be had: anybody who may connect can hold it.
async fn held(client: &Client, error: tokio_postgres::Error) -> Result<Error> {
    const HOLDER: &str = "SELECT coalesce(string_agg(format('process %s of the role `%s`', pid, usename), ', '), 'nobody by now')
        FROM pg_locks LEFT JOIN pg_stat_activity USING (pid)
        WHERE locktype = 'advisory' AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND (classid::bigint << 32) + objid::bigint = 7881693321889736553";
    if error.code() != Some(&SqlState::LOCK_NOT_AVAILABLE) {
        return Ok(told(error));
    }
    client.batch_execute("ROLLBACK TO SAVEPOINT unlocked").await.map_err(told)?;
    let found = client.query_typed(HOLDER, &[]).await.map_err(told)?;
    let holder: String = found.first().map_or(Ok(String::new()), |row| row.try_get(0)).map_err(told)?;
    Ok(Error::usage(format!(
        "another upgrade is under way, or somebody holds its lock: {}",
        shown_exactly(&holder)
    ))
    .hint("nothing was changed; where that is no upgrade, `SELECT pg_terminate_backend(…)` ends it"))
}

async fn run(client: &Client, roles: &Roles) -> Result<Upgraded> {
    const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL search_path = pg_catalog, pg_temp;
        SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0";
    const TAKEN: &str =
        "SET LOCAL idle_in_transaction_session_timeout = '10s'; SET LOCAL statement_timeout = '10min'";
    // The number is `machine_id` in ASCII, cut to eight bytes.
    const LOCK: &str = "SELECT pg_advisory_xact_lock(7881693321889736553)";
    client.batch_execute(BEGIN).await.map_err(told)?;
    client
        .batch_execute(&format!("SAVEPOINT unlocked; SET LOCAL lock_timeout = '{ALONE}'"))
        .await
        .map_err(told)?;
    if let Err(error) = client.batch_execute(LOCK).await {
        return Err(held(client, error).await?);
    }
    client.batch_execute("SET LOCAL lock_timeout = 0").await.map_err(told)?;
    check(client).await?;
    let from = version(client).await?;
    let to = schema::newest();
    version::know_all(from, to)?;
    let roles = with_known(client, roles).await?;
    if from > 0 && from < to {
        take(client).await?;
        // All servers stand still from now on, and not for longer where this machine is cut off.
        client.batch_execute(TAKEN).await.map_err(told)?;
    }
    if from == 0 {
        let made = client
            .batch_execute(
                "CREATE SCHEMA IF NOT EXISTS machine_id;
                 CREATE TABLE machine_id.versions (version bigint PRIMARY KEY, oldest bigint NOT NULL,
                    since timestamptz NOT NULL DEFAULT now())",
            )
            .await;
        made.map_err(|error| {
            told(error)
                .hint("`GRANT CREATE ON DATABASE … TO …` lets the owner-to-be make the schema `machine_id`")
        })?;
    }
    for (version, migration) in (1_i64..).zip(MIGRATIONS).filter(|(version, _)| *version > from) {
        client.batch_execute(migration.sql).await.map_err(told)?;
        let oldest = migration.oldest;
        client
            .batch_execute(&format!(
                "INSERT INTO machine_id.versions (version, oldest) VALUES ({version}, {oldest});
                 UPDATE machine_id.state SET oldest = greatest(oldest, {oldest})"
            ))
            .await
            .map_err(told)?;
    }
    client
        .batch_execute(
            "REVOKE ALL ON SCHEMA machine_id FROM PUBLIC;
             REVOKE ALL ON ALL TABLES IN SCHEMA machine_id FROM PUBLIC;
             REVOKE ALL ON ALL FUNCTIONS IN SCHEMA machine_id FROM PUBLIC",
        )
        .await
        .map_err(told)?;
    for (all, may) in [(&roles.server, SERVER), (&roles.reader, READER)] {
        for role in all {
            grant(client, role, may).await?;
        }
    }
    Ok(Upgraded { from, to, roles })
}

/// Adds the roles that may serve or read by now. They are known by what nothing else gives: rights in columns of `state`.
async fn with_known(client: &Client, named: &Roles) -> Result<Roles> {
    const SQL: &str = "SELECT DISTINCT rolname::text, attname = 'run' FROM pg_attribute, aclexplode(attacl)
        JOIN pg_roles ON pg_roles.oid = grantee
        WHERE attrelid = to_regclass('machine_id.state') AND NOT attisdropped
            AND (attname, privilege_type) IN (('run', 'UPDATE'), ('store', 'SELECT')) ORDER BY 1";
    if named.server.iter().any(|role| named.reader.contains(role)) {
        return Err(Error::usage("a server's role and a reader's are two"));
    }
    let mut roles = named.clone();
    for row in client.query_typed(SQL, &[]).await.map_err(told)? {
        let (role, serves): (String, bool) = (row.try_get(0).map_err(told)?, row.try_get(1).map_err(told)?);
        if !roles.server.contains(&role) && !roles.reader.contains(&role) {
            (if serves { &mut roles.server } else { &mut roles.reader }).push(role);
        }
    }
    Ok(roles)
}

/// Takes all tables until the end of the transaction: `state` first, as whoever writes does. While it waits for
/// somebody who reads them for long, servers wait behind it; so it lets go after a second, and tries again.
pub(super) async fn take(client: &Client) -> Result<()> {
    const LOCK: &str = "SAVEPOINT untaken; SET LOCAL lock_timeout = '1s'; DO $$ DECLARE name text; BEGIN
        LOCK TABLE machine_id.state IN ACCESS EXCLUSIVE MODE;
        FOR name IN SELECT relname FROM pg_class
            WHERE relnamespace = 'machine_id'::regnamespace AND relkind = 'r' ORDER BY relname
        LOOP EXECUTE format('LOCK TABLE machine_id.%I IN ACCESS EXCLUSIVE MODE', name); END LOOP; END $$";
    let since = Instant::now();
    loop {
        let Err(error) = client.batch_execute(LOCK).await else { return Ok(()) };
        let is_held = [&SqlState::LOCK_NOT_AVAILABLE, &SqlState::T_R_DEADLOCK_DETECTED]
            .map(Some)
            .contains(&error.code());
        if !is_held || since.elapsed() > TAKE.0 {
            return Err(told(error)
                .hint("nothing was changed; where somebody else uses the tables, a dump or a transaction that was left open, pg_stat_activity names who"));
        }
        client.batch_execute("ROLLBACK TO SAVEPOINT untaken").await.map_err(told)?;
        tokio::time::sleep(TAKE.1).await;
    }
}

/// Whether this database can hold a store, and this role is its owner.
async fn check(client: &Client) -> Result<()> {
    const SQL: &str = concat!(
        "SELECT current_setting('server_version_num')::int, current_setting('server_encoding'), ",
        owner!()
    );
    let row = client.query_typed(SQL, &[]).await.map_err(told)?;
    let row = row.first().ok_or_else(|| Error::internal("the database answers nothing"))?;
    let get = |error: tokio_postgres::Error| told(error);
    let (server, encoding): (i32, String) = (row.try_get(0).map_err(get)?, row.try_get(1).map_err(get)?);
    if server < 130_000 {
        return Err(Error::usage(format!("the database's server is PostgreSQL {}", server / 10_000))
            .hint("PostgreSQL 13 or newer is needed"));
    }
    if encoding != "UTF8" {
        return Err(Error::usage(format!("the database's encoding is {encoding}"))
            .hint("make one with `CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0`"));
    }
    is_owner(row).map_err(told)?
}

/// Whether the role that asked is the owner; in words, where it is not.
fn is_owner(row: &Row) -> Result<Result<()>, tokio_postgres::Error> {
    let (me, owner, is_owner): (String, Option<String>, Option<bool>) =
        (row.try_get("me")?, row.try_get("owner")?, row.try_get("is_owner")?);
    Ok(match owner {
        Some(owner) if is_owner != Some(true) => Err(Error::usage(format!(
            "the schema `machine_id` belongs to the role `{}`, and this connection is `{}`'s",
            shown_exactly(&owner),
            shown_exactly(&me)
        ))
        .hint("run it as the owner, whom the URL of `--store`, `--from` or `--to` names, or else `PGUSER`")),
        _ => Ok(()),
    })
}

/// That this role is the owner, who alone can do what is being done.
///
/// # Errors
/// `Kind::Usage` inside, in words, where it is not.
pub(super) async fn check_owner(client: &Client) -> Result<Result<()>, Failure> {
    let rows = transaction::read(client, &[(concat!("SELECT ", owner!()), &[])]).await?;
    rows.iter().flatten().next().map_or_else(|| Ok(Ok(())), |row| Ok(is_owner(row)?))
}

/// The version of the tables; 0 where there are none.
async fn version(client: &Client) -> Result<i64> {
    const THERE: &str = "SELECT to_regclass('machine_id.versions') IS NOT NULL,
        (SELECT count(*) FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace WHERE nspname = 'machine_id')";
    const VERSION: &str = "SELECT coalesce(max(version), 0) FROM machine_id.versions";
    let there = client.query_typed(THERE, &[]).await.map_err(told)?;
    let there = there.first().ok_or_else(|| Error::internal("the database answers nothing"))?;
    if there.try_get(0).map_err(told)? {
        let rows = client.query_typed(VERSION, &[]).await.map_err(told)?;
        return rows.first().map_or(Ok(0), |row| row.try_get(0).map_err(told));
    }
    match there.try_get::<_, i64>(1).map_err(told)? {
        0 => Ok(0),
        _ => Err(Error::usage(
            "the schema `machine_id` is there, and holds something else than an authority's store",
        )
        .hint("nothing was changed; use another database")),
    }
}

/// Gives the role what it may, and takes everything else of ours from it.
async fn grant(client: &Client, role: &str, may: &[(&str, &str)]) -> Result<()> {
    const SQL: &str = "SELECT rolsuper OR rolcreaterole OR rolbypassrls OR rolreplication
            OR EXISTS (SELECT FROM pg_auth_members WHERE member = oid)
            OR oid = (SELECT nspowner FROM pg_namespace WHERE nspname = 'machine_id')
        FROM pg_roles WHERE rolname = $1";
    let found = client.query_typed(SQL, &[(&role, Type::TEXT)]).await.map_err(told)?;
    let shown = shown_exactly(role);
    let Some(row) = found.first() else {
        return Err(Error::usage(format!("there is no role `{shown}`"))
            .hint(format!("make it first: `CREATE ROLE {} LOGIN`", quoted(role))));
    };
    if row.try_get(0).map_err(told)? {
        return Err(Error::usage(format!(
            "the role `{shown}` is a superuser, the owner, a member of another role, or has CREATEROLE, REPLICATION or BYPASSRLS"
        ))
        .hint("nothing could be kept from it: name a role of its own, which has LOGIN alone and is a member of no other"));
    }
    let (role_name, role) = (role, quoted(role));
    let mut sql = format!(
        "REVOKE ALL ON SCHEMA machine_id FROM {role};
         REVOKE ALL ON ALL TABLES IN SCHEMA machine_id FROM {role};
         REVOKE ALL ON ALL FUNCTIONS IN SCHEMA machine_id FROM {role};
         GRANT USAGE ON SCHEMA machine_id TO {role};
         GRANT EXECUTE ON FUNCTION machine_id.clock() TO {role};"
    );
    for (table, privileges) in may {
        sql.push_str(&format!("GRANT {privileges} ON machine_id.{table} TO {role};"));
    }
    client.batch_execute(&sql).await.map_err(told)?;
    compare(client, &shown, role_name, may).await
}

/// That the role can do nothing else by now: what another than this one has granted, this one does not take back.
async fn compare(client: &Client, shown: &str, role: &str, may: &[(&str, &str)]) -> Result<()> {
    const CAN: &str = "SELECT relname::text, privilege, '' FROM pg_class,
            unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) AS privilege
        WHERE relnamespace = 'machine_id'::regnamespace AND relkind IN ('r', 'v', 'm', 'f', 'p')
            AND has_table_privilege($1, pg_class.oid, privilege)
        UNION ALL SELECT relname::text, privilege, attname::text FROM pg_class
            JOIN pg_attribute ON attrelid = pg_class.oid AND attnum > 0 AND NOT attisdropped,
            unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'REFERENCES']) AS privilege
        WHERE relnamespace = 'machine_id'::regnamespace AND relkind IN ('r', 'v', 'm', 'f', 'p')
            AND NOT has_table_privilege($1, pg_class.oid, privilege)
            AND has_column_privilege($1, pg_class.oid, attnum, privilege)
        UNION ALL SELECT 'machine_id', 'CREATE', '' WHERE has_schema_privilege($1, 'machine_id', 'CREATE')";
    for row in client.query_typed(CAN, &[(&role, Type::TEXT)]).await.map_err(told)? {
        let [table, privilege, column] = [0, 1, 2].map(|nth| row.try_get::<_, &str>(nth));
        let (table, privilege, column) =
            (table.map_err(told)?, privilege.map_err(told)?, column.map_err(told)?);
        if !may.iter().any(|(of, list)| *of == table && allows(list, privilege, column)) {
            return Err(Error::usage(format!(
                "the role `{shown}` can {privilege} on `machine_id.{}`, which others than this owner have granted to it or to PUBLIC",
                shown_exactly(table)
            ))
            .hint("nothing was changed; have them take it back"));
        }
    }
    Ok(())
}

/// Whether such a list has the privilege, in the whole table or in that column.
fn allows(list: &str, privilege: &str, column: &str) -> bool {
    let (mut of, mut is_of_columns) = ("", false);
    list.split(", ").any(|word| {
        let mut name = word;
        if !is_of_columns {
            let (privilege, first) = word.split_once(" (").unwrap_or((word, ""));
            (of, name, is_of_columns) = (privilege, first, !first.is_empty());
        }
        let has = of == privilege && name.trim_end_matches(')') == column;
        is_of_columns &= !name.ends_with(')');
        has
    })
}

/// An identifier as SQL takes it.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn told(error: tokio_postgres::Error) -> Error {
    match error.code() {
        Some(&SqlState::INSUFFICIENT_PRIVILEGE) => Error::usage("this role may not do it")
            .context("cannot upgrade the store")
            .hint("run it as the owner, whom the URL of `--store` names, or else `PGUSER`"),
        _ => Failure::from(error).error("cannot upgrade the store"),
    }
}
