//! What authorities tell one another through the store: how far limits are used, and that they are there.
//! The statements are SQLite's (`sqlite/shared.rs`), for many at once.

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use super::super::replicas::{Announced, LIVE, Replica};
use super::failure::Failure;
use super::reads;
use super::transaction::{self, Judged, Parameter, Statement, locked};
use super::work::Shared;
use crate::authority::limits::{FREE, Level, Spent};

const LEVELS: &str =
    "SELECT key, level - greatest($1 - at, 0)::double precision / 1000 FROM machine_id.usage";

/// Adds what was used, in the time of the odometer, and forgets limits that are free; how far every limit is used. Of an odometer
/// that is behind another's no time has passed: it would else pass twice.
pub(super) async fn spend(client: &Client, shared: &Shared, spent: &[Spent]) -> Result<Vec<Level>, Failure> {
    const ADD: &str = concat!(
        "INSERT INTO machine_id.usage AS known (key, level, at)
         SELECT key, seconds - age, $4 FROM unnest($1::bytea[], $2::double precision[], $3::double precision[])
            AS spent (key, seconds, age) WHERE ",
        locked!(),
        " ON CONFLICT (key) DO UPDATE SET at = greatest(known.at, excluded.at),
            level = excluded.level + (SELECT age FROM unnest($1, $3) AS spent (key, age) WHERE spent.key = known.key)
                + greatest(known.level - greatest($4 - known.at, 0)::double precision / 1000,
                    -(SELECT age FROM unnest($1, $3) AS spent (key, age) WHERE spent.key = known.key))"
    );
    const FORGET: &str = concat!(
        "DELETE FROM machine_id.usage WHERE level - greatest($1 - at, 0)::double precision / 1000 < -$2 AND ",
        locked!()
    );
    let now = shared.known.millis();
    let at: [Parameter<'_>; 1] = [(&now, Type::INT8)];
    let levels = levels(reads::rows(client, LEVELS, &at).await?)?;
    // Nothing is written while nobody asks for anything.
    if spent.is_empty() && levels.iter().all(|level| level.seconds >= -FREE) {
        return Ok(levels);
    }
    let keys: Vec<&[u8]> = spent.iter().map(|spent| spent.key.as_slice()).collect();
    let seconds: Vec<f64> = spent.iter().map(|spent| spent.seconds).collect();
    let ages: Vec<f64> = spent.iter().map(|spent| spent.age).collect();
    let added: [Parameter<'_>; 4] = [
        (&keys, Type::BYTEA_ARRAY),
        (&seconds, Type::FLOAT8_ARRAY),
        (&ages, Type::FLOAT8_ARRAY),
        (&now, Type::INT8),
    ];
    let forgotten: [Parameter<'_>; 2] = [(&now, Type::INT8), (&FREE, Type::FLOAT8)];
    let statements: [Statement<'_>; 3] = [(ADD, &added), (FORGET, &forgotten), (LEVELS, &at)];
    let done = transaction::write(client, &shared.known, &statements).await?;
    self::levels(done.into_iter().last().unwrap_or_default())
}

fn levels(rows: Vec<tokio_postgres::Row>) -> Result<Vec<Level>, Failure> {
    let level = |row: tokio_postgres::Row| {
        let key: &[u8] = row.try_get(0)?;
        Ok(Level { key: key.try_into().unwrap_or_default(), seconds: row.try_get(1)? })
    };
    rows.into_iter().map(level).collect()
}

const OTHERS: &str = "SELECT id, name, keys, policy, version, seen FROM machine_id.replicas
    WHERE id <> $1 AND abs(machine_id.clock() - seen) <= $2 ORDER BY name, id LIMIT 1000";

/// All who are there.
pub(super) async fn replicas(client: &Client) -> Result<Vec<Replica>, Failure> {
    let others: [Parameter<'_>; 2] = [(&"", Type::TEXT), (&LIVE, Type::INT8)];
    reads::rows(client, OTHERS, &others).await?.iter().map(replica_of).collect()
}

fn replica_of(row: &Row) -> Result<Replica, Failure> {
    let texts = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?, row.try_get(4)?);
    let (id, name, lines, policy, version) = texts;
    Ok(Replica::of_row((id, name, lines, policy, version, row.try_get(5)?)))
}

/// Says that this authority is there, and tells who else is; the first that has keys of a kind says which the store is of.
pub(super) async fn announce(
    client: &Client,
    shared: &Shared,
    replica: &Replica,
) -> Result<Announced, Failure> {
    const FIRST: &str = concat!(
        "INSERT INTO machine_id.cas (key, since) SELECT key, machine_id.clock() FROM unnest($1::text[]) AS new (key)
         WHERE NOT EXISTS (SELECT FROM machine_id.cas WHERE split_part(cas.key, ' ', 1) = split_part(new.key, ' ', 1)) AND ",
        locked!()
    );
    const GONE: &str =
        concat!("DELETE FROM machine_id.replicas WHERE abs(machine_id.clock() - seen) > $1 AND ", locked!());
    const THERE: &str = concat!(
        "INSERT INTO machine_id.replicas (id, name, keys, policy, version, seen)
         SELECT $1, $2, $3, $4, $5, machine_id.clock() WHERE ",
        locked!(),
        " ON CONFLICT (id) DO UPDATE SET name = $2, keys = $3, policy = $4, version = $5, seen = excluded.seen"
    );
    const KEYS: &str = "SELECT key FROM machine_id.cas ORDER BY key";
    let Replica { id, name, keys, policy, version, .. } = replica;
    let lines = replica.lines();
    let first: [Parameter<'_>; 1] = [(keys, Type::TEXT_ARRAY)];
    let gone: [Parameter<'_>; 1] = [(&LIVE, Type::INT8)];
    let there: [Parameter<'_>; 5] = [
        (id, Type::TEXT),
        (name, Type::TEXT),
        (&lines, Type::TEXT),
        (policy, Type::TEXT),
        (version, Type::TEXT),
    ];
    let others: [Parameter<'_>; 2] = [(id, Type::TEXT), (&LIVE, Type::INT8)];
    let statements: &[Statement<'_>] = &[
        (FIRST, &first),
        (GONE, &gone),
        (THERE, &there),
        (KEYS, &[]),
        (OTHERS, &others),
        #[cfg(feature = "next-schema")]
        (super::super::next_schema::SEEN_POSTGRES, &[(id, Type::TEXT)]),
    ];
    let judged = Judged::now(&shared.known);
    let done = transaction::write_as_judged(client, &shared.known, statements, judged, true).await?;
    let mut announced = Announced::default();
    for row in done.get(3).into_iter().flatten() {
        announced.keys.push(row.try_get(0)?);
    }
    for row in done.get(4).into_iter().flatten() {
        announced.others.push(replica_of(row)?);
    }
    Ok(announced)
}
