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

    -- The same to everybody but the owner, who brings rows from elsewhere.
    CREATE FUNCTION machine_id.withhold() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
        BEGIN
            IF pg_has_role((SELECT relowner FROM pg_class WHERE oid = TG_RELID), 'USAGE') THEN
                IF TG_OP = 'DELETE' THEN RETURN old; END IF;
                RETURN new;
            END IF;
            RAISE EXCEPTION 'machine-id: %', TG_ARGV[0] USING ERRCODE = 'insufficient_privilege';
        END $$;

    -- Numbers follow those that are there, so that there is always a next one. What was lost may lie between.
    CREATE FUNCTION machine_id.follow() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
        DECLARE first bigint; last bigint; count bigint; before bigint; newest bigint;
        BEGIN
            EXECUTE format('SELECT min(%1$I), max(%1$I), count(*) FROM added', TG_ARGV[0]) INTO first, last, count;
            EXECUTE format('SELECT coalesce(max(%1$I) FILTER (WHERE %1$I < $1), 0), max(%1$I) FROM (
                (SELECT %1$I FROM machine_id.%2$I WHERE %1$I < $1 ORDER BY 1 DESC LIMIT 1) UNION ALL
                (SELECT %1$I FROM machine_id.%2$I ORDER BY 1 DESC LIMIT 1)) AS known', TG_ARGV[0], TG_TABLE_NAME)
                INTO before, newest USING first;
            IF (newest > last OR last - before > count + TG_ARGV[1]::bigint)
                AND NOT pg_has_role((SELECT relowner FROM pg_class WHERE oid = TG_RELID), 'USAGE') THEN
                RAISE EXCEPTION 'machine-id: what is added follows what is there' USING ERRCODE = 'insufficient_privilege';
            END IF;
            RETURN NULL;
        END $$;

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

    -- One that is revoked in the future is on no list, and cannot be revoked again.
    CREATE FUNCTION machine_id.revoke_now() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
        BEGIN
            IF NOT pg_has_role((SELECT relowner FROM pg_class WHERE oid = TG_RELID), 'USAGE') THEN
                new.revoked := machine_id.clock();
            END IF;
            RETURN new;
        END $$;

    -- Lists are made of what was revoked since the last (`state.revocations`): a number higher than any that was to be read
    -- before. The lock is there already, unless somebody without it revokes.
    CREATE FUNCTION machine_id.count_revoked() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
        BEGIN
            SELECT revocations + 1 INTO new.revocation FROM machine_id.state FOR UPDATE;
            RETURN new;
        END $$;

    -- Seconds since 1970, in years of four digits: sums of them are numbers, too.
    CREATE DOMAIN machine_id.seconds AS bigint CHECK (value BETWEEN 0 AND 253402300799);

    CREATE TABLE machine_id.events (
        sequence bigint PRIMARY KEY CHECK (sequence > 0),
        time machine_id.seconds NOT NULL,
        event text NOT NULL,
        id text NOT NULL,
        bot text,
        token text,
        body bytea NOT NULL
    );
    CREATE INDEX events_id ON machine_id.events (id);
    CREATE INDEX events_time ON machine_id.events (time, sequence);
    CREATE TRIGGER events_stay BEFORE DELETE ON machine_id.events
        FOR EACH ROW EXECUTE FUNCTION machine_id.stay('the audit trail is append-only');
    CREATE TRIGGER events_stay_the_same BEFORE UPDATE OR TRUNCATE ON machine_id.events
        EXECUTE FUNCTION machine_id.refuse('the audit trail is append-only');
    CREATE TRIGGER events_follow AFTER INSERT ON machine_id.events REFERENCING NEW TABLE AS added
        EXECUTE FUNCTION machine_id.follow('sequence', '100000000');

    CREATE TABLE machine_id.certificates (
        serial bigint PRIMARY KEY CHECK (serial >= 0),
        issuance bigint NOT NULL,
        kind bigint NOT NULL CHECK (kind IN (0, 1)),
        expires machine_id.seconds NOT NULL,
        revoked machine_id.seconds,
        key_hash bytea NOT NULL CHECK (octet_length(key_hash) = 32),
        instance bigint,
        host bigint CHECK (host = 1),
        revocation bigint
    );
    CREATE INDEX certificates_issuance ON machine_id.certificates (issuance);
    CREATE INDEX certificates_revoked ON machine_id.certificates (expires, serial) WHERE revoked IS NOT NULL;
    CREATE INDEX certificates_revocation ON machine_id.certificates (revocation, serial) WHERE revocation IS NOT NULL;
    CREATE INDEX certificates_hosts ON machine_id.certificates (expires) WHERE host IS NOT NULL;
    CREATE INDEX certificates_hosts_revoked ON machine_id.certificates (kind, expires)
        WHERE host IS NOT NULL AND revoked IS NOT NULL;
    CREATE INDEX certificates_instance ON machine_id.certificates (instance, expires) WHERE instance IS NOT NULL;
    CREATE TRIGGER certificates_stay BEFORE DELETE ON machine_id.certificates
        FOR EACH ROW EXECUTE FUNCTION machine_id.stay('certificates stay on record');
    CREATE TRIGGER certificates_stay_all BEFORE TRUNCATE ON machine_id.certificates
        EXECUTE FUNCTION machine_id.refuse('certificates stay on record');
    CREATE TRIGGER certificates_stay_revoked BEFORE UPDATE ON machine_id.certificates
        FOR EACH ROW WHEN (old.revoked IS NOT NULL AND new.revoked IS DISTINCT FROM old.revoked)
        EXECUTE FUNCTION machine_id.refuse('what is revoked stays revoked');
    CREATE TRIGGER certificates_revoked_now BEFORE UPDATE ON machine_id.certificates
        FOR EACH ROW WHEN (old.revoked IS NULL AND new.revoked > machine_id.clock())
        EXECUTE FUNCTION machine_id.revoke_now();
    CREATE TRIGGER certificates_are_counted BEFORE UPDATE ON machine_id.certificates
        FOR EACH ROW WHEN (old.revoked IS NULL AND new.revoked IS NOT NULL)
        EXECUTE FUNCTION machine_id.count_revoked();
    CREATE TRIGGER certificates_stay_counted BEFORE UPDATE ON machine_id.certificates
        FOR EACH ROW WHEN (old.revoked IS NOT NULL AND new.revocation IS DISTINCT FROM old.revocation)
        EXECUTE FUNCTION machine_id.withhold('what was revoked before stays so');
    CREATE TRIGGER certificates_stay_theirs BEFORE UPDATE ON machine_id.certificates
        FOR EACH ROW WHEN (old.instance IS NOT NULL AND new.instance IS DISTINCT FROM old.instance)
        EXECUTE FUNCTION machine_id.withhold('whose a certificate is does not change');

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
        number bigint PRIMARY KEY CHECK (number > 0),
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
    CREATE TRIGGER instances_follow AFTER INSERT ON machine_id.instances REFERENCING NEW TABLE AS added
        EXECUTE FUNCTION machine_id.follow('number', '0');
    -- Nor is a row put back whole that has a good seal and was so once.
    CREATE TRIGGER instances_go_on BEFORE UPDATE ON machine_id.instances
        FOR EACH ROW WHEN (new IS DISTINCT FROM old
            AND (old.locked IS NOT NULL OR new.generation < old.generation OR new.base < old.base))
        EXECUTE FUNCTION machine_id.withhold('what is locked stays locked, and generations only rise');

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
    CREATE TRIGGER secrets_stay_used BEFORE UPDATE ON machine_id.secrets
        FOR EACH ROW WHEN (old.instance IS NOT NULL AND new IS DISTINCT FROM old)
        EXECUTE FUNCTION machine_id.withhold('a secret that is used stays used');
    CREATE TRIGGER secrets_are_held BEFORE DELETE ON machine_id.secrets
        FOR EACH ROW WHEN (old.instance IS NOT NULL AND old.expires >= machine_id.clock())
        EXECUTE FUNCTION machine_id.withhold('a secret that is used is kept until it has expired');

    CREATE TABLE machine_id.strangers (
        number bigint PRIMARY KEY CHECK (number > 0),
        ring bigint NOT NULL CHECK (ring IN (0, 1)),
        nth bigint NOT NULL CHECK (nth BETWEEN 1 AND number),
        ends bigint NOT NULL CHECK (ends >= 0 AND ends / 1048576 <= number),
        behind bigint NOT NULL,
        time machine_id.seconds NOT NULL,
        event text NOT NULL,
        id text NOT NULL,
        bot text,
        token text,
        body bytea NOT NULL,
        UNIQUE (ring, nth)
    );
    CREATE TRIGGER strangers_follow AFTER INSERT ON machine_id.strangers REFERENCING NEW TABLE AS added
        EXECUTE FUNCTION machine_id.follow('number', '0');

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
        restored machine_id.seconds,
        restored_mac bytea,
        lost text CHECK (length(lost) <= 10000),
        seal_check bytea,
        list_what bytea CHECK (octet_length(list_what) = 32),
        list_made bigint NOT NULL DEFAULT 0,
        closed text,
        moving text,
        kept_from bigint NOT NULL DEFAULT 0,
        kept_run bigint NOT NULL DEFAULT 0,
        locks bigint NOT NULL DEFAULT 0
    );
    CREATE TRIGGER state_stays BEFORE DELETE OR TRUNCATE ON machine_id.state
        EXECUTE FUNCTION machine_id.refuse('the state stays');
    CREATE TRIGGER state_rises BEFORE UPDATE ON machine_id.state
        FOR EACH ROW WHEN (new.list_number < old.list_number OR new.revocations < old.revocations
            OR new.run < old.run OR new.forgotten < old.forgotten OR new.kept_from < old.kept_from OR new.locks < old.locks OR new.store IS DISTINCT FROM old.store)
        EXECUTE FUNCTION machine_id.refuse('these numbers only rise');
    -- By so much as an authority has them rise, if its clock is not ten years ahead, and what it came back to not a year old.
    CREATE TRIGGER state_rises_slowly BEFORE UPDATE ON machine_id.state
        FOR EACH ROW WHEN (new.list_number > greatest(old.list_number + 20000000, (machine_id.clock() + 315360000) * 1000000000)
            OR new.run > old.run + 31536000 OR new.forgotten > greatest(old.forgotten, machine_id.clock())
            OR new.revocations > old.revocations + 1 OR new.locks > old.locks + 2147483648
            OR (old.seal_check IS NOT NULL AND new.seal_check IS DISTINCT FROM old.seal_check))
        EXECUTE FUNCTION machine_id.withhold('these numbers rise no further, and the key of the seals stays');
    INSERT INTO machine_id.state (id, oldest, store) VALUES (1, 1, gen_random_uuid()::text);

    CREATE TABLE machine_id.locks (
        number bigint PRIMARY KEY CHECK (number > 0),
        id text NOT NULL UNIQUE,
        kind text NOT NULL,
        value text NOT NULL,
        until machine_id.seconds,
        held_to_run bigint,
        message text,
        put_by text NOT NULL,
        put_at machine_id.seconds NOT NULL,
        met text NOT NULL,
        lifted machine_id.seconds,
        lifted_by text,
        mac bytea
    );
    CREATE TRIGGER locks_follow AFTER INSERT ON machine_id.locks REFERENCING NEW TABLE AS added
        EXECUTE FUNCTION machine_id.follow('number', '0');
    CREATE TRIGGER locks_go_on BEFORE UPDATE ON machine_id.locks
        FOR EACH ROW WHEN (length(new.met) < length(old.met))
        EXECUTE FUNCTION machine_id.withhold('what a lock has met it takes');
    CREATE TRIGGER locks_stay BEFORE DELETE ON machine_id.locks
        FOR EACH ROW EXECUTE FUNCTION machine_id.withhold('locks stay, also those that were lifted');
    CREATE TRIGGER locks_stay_all BEFORE TRUNCATE ON machine_id.locks
        EXECUTE FUNCTION machine_id.refuse('locks stay, also those that were lifted');

    CREATE TABLE machine_id.probes (
        id bigint PRIMARY KEY CHECK (id = 1),
        body bytea NOT NULL
    );

    CREATE TABLE machine_id.usage (
        key bytea PRIMARY KEY CHECK (octet_length(key) <= 64),
        level double precision NOT NULL CHECK (level BETWEEN -1e300 AND 1e300),
        at bigint NOT NULL CHECK (abs(at / 1000) <= 253402300799)
    );

    CREATE TABLE machine_id.replicas (
        id text PRIMARY KEY CHECK (length(id) <= 1000),
        name text NOT NULL CHECK (length(name) <= 1000),
        keys text NOT NULL CHECK (length(keys) <= 10000),
        policy text NOT NULL CHECK (length(policy) <= 1000),
        version text NOT NULL CHECK (length(version) <= 1000),
        seen machine_id.seconds NOT NULL
    );

    CREATE TABLE machine_id.hosts (
        name text COLLATE "C" PRIMARY KEY CHECK (length(name) <= 1000),
        seen machine_id.seconds NOT NULL,
        list text CHECK (length(list) <= 20),
        cas text NOT NULL CHECK (length(cas) <= 10000),
        serial bigint NOT NULL
    );

    CREATE TABLE machine_id.cas (
        key text COLLATE "C" PRIMARY KEY CHECK (length(key) <= 1000),
        since bigint NOT NULL
    );
    "#,
    },
    Migration { oldest: 1, sql: super::super::ca_schema::POSTGRES },
    #[cfg(feature = "next-schema")]
    Migration { oldest: 1, sql: super::super::next_schema::POSTGRES },
];

/// The version that this machine-id writes.
pub(super) fn newest() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}
