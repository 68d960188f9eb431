//! The step of the schema that came with rotation, for each engine: which CAs there are, and which signed a certificate.
//!
//! A machine-id from before it does right by these tables until the first rotation, which therefore has `state.oldest` rise.

/// The oldest version of SQLite's schema whose machine-id knows of rotations.
pub(super) const ROTATES_SQLITE: i64 = 6;
/// Of PostgreSQL's.
pub(super) const ROTATES_POSTGRES: i64 = 2;

/// SQLite's step.
pub(super) const SQLITE: &str = "
    -- The CAs of each kind that was ever rotated (`store/cas.rs`): `is_first` is 1 where certificates that name none are its,
    -- `endorsements` and `crossed` are JSON, `sealed` is a private key under a key that the database does not hold.
    -- `state.cas` is another with each change, and `cas_mac` seals it with the rows.
    CREATE TABLE ca_keys (
        number INTEGER PRIMARY KEY,
        kind TEXT NOT NULL,
        name TEXT NOT NULL UNIQUE,
        id TEXT NOT NULL,
        is_first INTEGER NOT NULL,
        state TEXT NOT NULL,
        public TEXT NOT NULL,
        endorsements TEXT NOT NULL,
        crossed TEXT NOT NULL,
        sealed BLOB,
        since INTEGER NOT NULL,
        mac BLOB
    ) STRICT;
    CREATE TRIGGER ca_keys_stay BEFORE DELETE ON ca_keys
        BEGIN SELECT RAISE(ABORT, 'CAs stay, also those that have ended'); END;
    ALTER TABLE state ADD COLUMN cas INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE state ADD COLUMN cas_mac BLOB;
    CREATE TRIGGER cas_rises BEFORE UPDATE OF cas ON state WHEN new.cas < old.cas
        BEGIN SELECT RAISE(ABORT, 'the number of the CAs only rises'); END;

    -- The CA that signed it: none where that was the first of its kind, before a rotation of it.
    ALTER TABLE certificates ADD COLUMN ca INTEGER;
";

/// PostgreSQL's.
pub(super) const POSTGRES: &str = "
    CREATE TABLE machine_id.ca_keys (
        number bigint PRIMARY KEY CHECK (number > 0),
        kind text NOT NULL CHECK (length(kind) <= 100),
        name text NOT NULL UNIQUE CHECK (length(name) <= 100),
        id text NOT NULL CHECK (length(id) <= 1000),
        is_first bigint NOT NULL CHECK (is_first IN (0, 1)),
        state text NOT NULL CHECK (length(state) <= 100),
        public text NOT NULL CHECK (length(public) <= 100000),
        endorsements text NOT NULL CHECK (length(endorsements) <= 1000000),
        crossed text NOT NULL CHECK (length(crossed) <= 1000000),
        sealed bytea CHECK (octet_length(sealed) <= 100000),
        since machine_id.seconds NOT NULL,
        mac bytea
    );
    CREATE TRIGGER ca_keys_follow AFTER INSERT ON machine_id.ca_keys REFERENCING NEW TABLE AS added
        EXECUTE FUNCTION machine_id.follow('number', '0');
    -- Nor is a row put back whole that has a good seal and was trusted once.
    CREATE TRIGGER ca_keys_go_on BEFORE UPDATE ON machine_id.ca_keys
        FOR EACH ROW WHEN (old.state IN ('ended', 'revoked') AND new.state NOT IN ('ended', 'revoked'))
        EXECUTE FUNCTION machine_id.withhold('a CA that has ended is not trusted again');
    CREATE TRIGGER ca_keys_stay BEFORE DELETE ON machine_id.ca_keys
        FOR EACH ROW EXECUTE FUNCTION machine_id.withhold('CAs stay, also those that have ended');
    CREATE TRIGGER ca_keys_stay_all BEFORE TRUNCATE ON machine_id.ca_keys
        EXECUTE FUNCTION machine_id.refuse('CAs stay, also those that have ended');
    ALTER TABLE machine_id.state ADD COLUMN cas bigint NOT NULL DEFAULT 0;
    ALTER TABLE machine_id.state ADD COLUMN cas_mac bytea CHECK (octet_length(cas_mac) = 32);
    CREATE TRIGGER state_cas_rises BEFORE UPDATE ON machine_id.state
        FOR EACH ROW WHEN (new.cas < old.cas)
        EXECUTE FUNCTION machine_id.refuse('these numbers only rise');
    -- A server has the version rise to this one with the first rotation, and no further.
    CREATE TRIGGER state_cas_rises_slowly BEFORE UPDATE ON machine_id.state
        FOR EACH ROW WHEN (new.cas > old.cas + 2147483648
            OR (new.oldest IS DISTINCT FROM old.oldest AND (new.oldest <> 2 OR old.oldest > 2)))
        EXECUTE FUNCTION machine_id.withhold('these numbers rise no further');
    ALTER TABLE machine_id.certificates ADD COLUMN ca bigint;
";
