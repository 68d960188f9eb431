//! A store behind which there is a past.

use std::path::Path;

use machine_id::clock::Clock;

/// Past issuances as exchanges leave them, two certificates each, and as many
/// used proofs whose time is up as are used while it is measured.
pub(crate) fn fill(store: &Path, count: u64, proofs: usize) {
    let database = rusqlite::Connection::open(store).unwrap();
    let now = Clock::system().now();
    database
        .execute_batch(&format!(
            "PRAGMA synchronous = off; PRAGMA foreign_keys = off; PRAGMA cache_size = -4000000;
             BEGIN;
             CREATE TEMP TABLE numbers AS
                 WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {count}) SELECT n FROM numbers;
             INSERT INTO events (time, event, id, bot, token, body, packed)
                 SELECT {now} - {count} / 100 + n / 100, 'issued', printf('i-%012x', 1700000000000 + n) || lower(hex(randomblob(10))),
                     'deployer', 'github-deploy', '', randomblob(700) FROM numbers;
             INSERT INTO certificates (serial, issuance, kind, expires, key_hash)
                 SELECT (random() & 0x3fffffffffffffc0) | (n & 1), (n + 1) / 2, n & 1, {now}, randomblob(32)
                 FROM (SELECT 2 * n - 1 AS n FROM numbers UNION ALL SELECT 2 * n FROM numbers);
             INSERT INTO proofs (key, fingerprint, certificate, held_until, held_to_run)
                 SELECT randomblob(32), randomblob(32), n, {now} - 100000, -1 FROM numbers WHERE n <= {proofs};
             COMMIT;"
        ))
        .unwrap();
}

/// So many certificates of one issuance, in turn of SSH and X.509, are revoked and good for a day.
pub(crate) fn revoke(store: &Path, count: u64) {
    let database = rusqlite::Connection::open(store).unwrap();
    let now = Clock::system().now();
    database
        .execute_batch(&format!(
            "PRAGMA synchronous = off; PRAGMA foreign_keys = off;
             BEGIN;
             INSERT INTO certificates (serial, issuance, kind, expires, revoked, key_hash)
                 WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {count})
                 SELECT (random() & 0x3fffffffffffffc0) | (n & 1), 1, n & 1, {now} + 86400 + n % 3600, {now} - 1, randomblob(32) FROM numbers;
             COMMIT;"
        ))
        .unwrap();
}
