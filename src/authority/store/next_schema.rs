//! A step of the schema such as the next version may have, for the tests of two versions side by side: a table that this
//! version uses, a column that has a default, and a trigger by which servers of the version before write to both.
//! No release has it.

#[cfg(not(debug_assertions))]
compile_error!("`next-schema` is for tests: a store that it has written is of a version that never was");

/// SQLite's step.
pub(super) const SQLITE: &str = "
    CREATE TABLE next (name TEXT PRIMARY KEY, seen INTEGER NOT NULL DEFAULT 1) STRICT, WITHOUT ROWID;
    ALTER TABLE certificates ADD COLUMN next TEXT NOT NULL DEFAULT 'as before';
    CREATE TRIGGER next_counts AFTER INSERT ON events
        BEGIN INSERT INTO next VALUES (new.event, 1) ON CONFLICT (name) DO UPDATE SET seen = seen + 1; END;
";

/// PostgreSQL's.
pub(super) const POSTGRES: &str = "
    CREATE TABLE machine_id.next (name text PRIMARY KEY, seen bigint NOT NULL DEFAULT 1);
    ALTER TABLE machine_id.certificates ADD COLUMN next text NOT NULL DEFAULT 'as before';
    CREATE FUNCTION machine_id.count_next() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$ BEGIN
        INSERT INTO machine_id.next AS known VALUES (new.event, 1)
            ON CONFLICT (name) DO UPDATE SET seen = known.seen + 1;
        RETURN new; END $$;
    CREATE TRIGGER next_counts AFTER INSERT ON machine_id.events
        FOR EACH ROW EXECUTE FUNCTION machine_id.count_next();
";

/// What a server may do with it.
pub(super) const SERVER: (&str, &str) = ("next", "SELECT, INSERT, UPDATE");

/// An authority of this version is there.
pub(super) const SEEN_SQLITE: &str =
    "INSERT INTO next VALUES (?1, 1) ON CONFLICT (name) DO UPDATE SET seen = seen + 1";
/// The same.
pub(super) const SEEN_POSTGRES: &str = "INSERT INTO machine_id.next AS known VALUES ($1, 1)
    ON CONFLICT (name) DO UPDATE SET seen = known.seen + 1";
