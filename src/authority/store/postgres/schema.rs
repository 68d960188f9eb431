//! The tables, as the owner of the database makes them: all in the schema
//! `machine_id`, and always named with it, so that nobody's `search_path` decides which are meant.

/// One version of the schema.
pub(super) struct Migration {
    /// The oldest version whose servers go on beside it: what they do is right on these tables too.
    pub(super) oldest: i64,
    /// What leads to it from the one before.
    pub(super) sql: &'static str,
}

/// Every version, from 1 on. One that was released never changes.
///
/// Tables and columns are SQLite's (`sqlite/schema.rs`), which says what each is for. Nothing references
/// another table: what would is written in one statement with what it references, and goes with it, and each
/// check would lock the row that it looks at.
pub(super) const MIGRATIONS: &[Migration] = &[
    Migration {
        oldest: 1,
        sql: r#"
    CREATE FUNCTION machine_id.refuse() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
        BEGIN RAISE EXCEPTION 'machine-id: %', TG_ARGV[0] USING ERRCODE = 'insufficient_privilege'; END $$;

    -- What `retain` lets go is what the owner has said in `state.kept_from`, and nobody else takes it away.
    CREATE FUNCTION machine_id.stay() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
        DECLARE is_over boolean;
        BEGIN
            IF pg_has_role((SELECT relowner FROM pg_class WHERE oid = TG_RELID), 'USAGE') THEN
                IF TG_TABLE_NAME = 'certificates' THEN
                    SELECT old.expires < kept_from INTO is_over FROM machine_id.state;
                ELSE
                    SELECT old.time < kept_from AND old.sequence < (SELECT max(sequence) FROM machine_id.events)
                        AND NOT EXISTS (SELECT FROM machine_id.certificates WHERE issuance = old.sequence)
                    INTO is_over FROM machine_id.state;
                END IF;
                IF is_over THEN RETURN old; END IF;
            END IF;
            RAISE EXCEPTION 'machine-id: %', TG_ARGV[0] USING ERRCODE = 'insufficient_privilege';
        END $$;

    -- The time by which things expire, in seconds since 1970.
    CREATE FUNCTION machine_id.clock() RETURNS bigint LANGUAGE sql STABLE SET search_path = pg_catalog
        AS $$ SELECT floor(extract(epoch FROM statement_timestamp()))::bigint $$;

    CREATE TABLE machine_id.events (
        sequence bigint PRIMARY KEY CHECK (sequence > 0),
        time bigint NOT NULL,
        event text NOT NULL,
        id text NOT NULL,
        bot text,
        token text,
        body bytea NOT NULL
    );
    CREATE INDEX events_id ON machine_id.events (id);
    CREATE INDEX events_time ON machine_id.events (time);
    CREATE TRIGGER events_stay BEFORE DELETE ON machine_id.events
        FOR EACH ROW EXECUTE FUNCTION machine_id.stay('the audit trail is append-only');
    CREATE TRIGGER events_stay_the_same BEFORE UPDATE OR TRUNCATE ON machine_id.events
        EXECUTE FUNCTION machine_id.refuse('the audit trail is append-only');

    CREATE TABLE machine_id.certificates (
        serial bigint PRIMARY KEY CHECK (serial >= 0),
        issuance bigint NOT NULL,
        kind bigint NOT NULL CHECK (kind IN (0, 1)),
        expires bigint NOT NULL,
        revoked bigint,
        key_hash bytea NOT NULL CHECK (octet_length(key_hash) = 32),
        instance bigint
    );
    CREATE INDEX certificates_issuance ON machine_id.certificates (issuance);
    CREATE INDEX certificates_revoked ON machine_id.certificates (expires) WHERE revoked IS NOT NULL;
    CREATE INDEX certificates_instance ON machine_id.certificates (instance, expires) WHERE instance IS NOT NULL;
    CREATE TRIGGER certificates_stay BEFORE DELETE ON machine_id.certificates
        FOR EACH ROW EXECUTE FUNCTION machine_id.stay('certificates stay on record');
    CREATE TRIGGER certificates_stay_all BEFORE TRUNCATE ON machine_id.certificates
        EXECUTE FUNCTION machine_id.refuse('certificates stay on record');
    CREATE TRIGGER certificates_stay_revoked BEFORE UPDATE ON machine_id.certificates
        FOR EACH ROW WHEN (old.revoked IS NOT NULL AND new.revoked IS DISTINCT FROM old.revoked)
        EXECUTE FUNCTION machine_id.refuse('what is revoked stays revoked');

    CREATE TABLE machine_id.proofs (
        key bytea PRIMARY KEY CHECK (octet_length(key) = 32),
        fingerprint bytea NOT NULL,
        certificate bigint NOT NULL,
        held_until bigint NOT NULL,
        held_to_run bigint NOT NULL,
        generation bigint,
        mac bytea
    );
    CREATE INDEX proofs_held ON machine_id.proofs (held_until);
    -- Whoever has a server's password makes no proof good again, nor does a clock that is ahead.
    CREATE TRIGGER proofs_are_held BEFORE DELETE ON machine_id.proofs
        FOR EACH ROW WHEN (old.held_until >= machine_id.clock())
        EXECUTE FUNCTION machine_id.refuse('a proof is kept until it has expired');
    CREATE TRIGGER proofs_stay BEFORE TRUNCATE ON machine_id.proofs
        EXECUTE FUNCTION machine_id.refuse('a proof is kept until it has expired');

    CREATE TABLE machine_id.assertions (
        issuance bigint NOT NULL,
        id text COLLATE "C" NOT NULL,
        held_until bigint NOT NULL,
        held_to_run bigint NOT NULL,
        PRIMARY KEY (issuance, id)
    );

    CREATE TABLE machine_id.instances (
        number bigint PRIMARY KEY,
        id text NOT NULL UNIQUE,
        token text NOT NULL,
        bot text NOT NULL,
        key bytea NOT NULL,
        generation bigint NOT NULL,
        base bigint NOT NULL,
        attempt text NOT NULL,
        tries bigint NOT NULL,
        last text NOT NULL,
        replaces text,
        registered bigint NOT NULL,
        seen bigint NOT NULL,
        locked bigint,
        reason text,
        mac bytea
    );

    CREATE TABLE machine_id.secrets (
        hash bytea PRIMARY KEY CHECK (octet_length(hash) = 32),
        id text NOT NULL,
        token text NOT NULL,
        expires bigint NOT NULL,
        made bigint NOT NULL,
        held_to_run bigint NOT NULL,
        instance text,
        mac bytea
    );

    CREATE TABLE machine_id.strangers (
        number bigint PRIMARY KEY,
        ring bigint NOT NULL CHECK (ring IN (0, 1)),
        nth bigint NOT NULL,
        ends bigint NOT NULL,
        behind bigint NOT NULL,
        time bigint NOT NULL,
        event text NOT NULL,
        id text NOT NULL,
        bot text,
        token text,
        body bytea NOT NULL,
        UNIQUE (ring, nth)
    );

    -- One row, whose lock is what serialises all writes. `oldest` says which servers may go on;
    -- `revocations` is another once something was revoked, `closed` why nothing is written (`store/closed.rs`),
    -- `moving` where the records are being carried to.
    CREATE TABLE machine_id.state (
        id bigint PRIMARY KEY CHECK (id = 1),
        oldest bigint NOT NULL,
        store text NOT NULL,
        list_number bigint NOT NULL DEFAULT 0,
        revocations bigint NOT NULL DEFAULT 0,
        run bigint NOT NULL DEFAULT 0,
        forgotten bigint NOT NULL DEFAULT 0,
        restored bigint,
        lost text,
        seal_check bytea,
        list_what bytea,
        list_made bigint NOT NULL DEFAULT 0,
        closed text,
        moving text,
        kept_from bigint NOT NULL DEFAULT 0,
        kept_run bigint NOT NULL DEFAULT 0
    );
    CREATE TRIGGER state_stays BEFORE DELETE OR TRUNCATE ON machine_id.state
        EXECUTE FUNCTION machine_id.refuse('the state stays');
    CREATE TRIGGER state_rises BEFORE UPDATE ON machine_id.state
        FOR EACH ROW WHEN (new.list_number < old.list_number OR new.revocations < old.revocations
            OR new.run < old.run OR new.forgotten < old.forgotten OR new.kept_from < old.kept_from OR new.store IS DISTINCT FROM old.store)
        EXECUTE FUNCTION machine_id.refuse('these numbers only rise');
    INSERT INTO machine_id.state (id, oldest, store) VALUES (1, 1, gen_random_uuid()::text);

    CREATE TABLE machine_id.probes (
        id bigint PRIMARY KEY CHECK (id = 1),
        body bytea NOT NULL
    );

    CREATE TABLE machine_id.usage (
        key bytea PRIMARY KEY,
        level double precision NOT NULL,
        at bigint NOT NULL
    );

    CREATE TABLE machine_id.replicas (
        id text PRIMARY KEY,
        name text NOT NULL,
        keys text NOT NULL,
        policy text NOT NULL,
        version text NOT NULL,
        seen bigint NOT NULL
    );

    CREATE TABLE machine_id.cas (
        key text COLLATE "C" PRIMARY KEY,
        since bigint NOT NULL
    );
    "#,
    },
    #[cfg(feature = "next-schema")]
    Migration { oldest: 1, sql: super::super::next_schema::POSTGRES },
];

/// The version that this machine-id writes.
pub(super) fn newest() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}
