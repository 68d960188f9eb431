PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE events (
        sequence INTEGER PRIMARY KEY,
        time INTEGER NOT NULL,
        event TEXT NOT NULL,
        id TEXT NOT NULL,
        bot TEXT,
        token TEXT,
        body TEXT NOT NULL
    ) STRICT;
INSERT INTO events VALUES(1,1795348800,'issued','i1','deployer','github-deploy','{"time":"2026-11-22T12:00:00Z","event":"issued","issuance_id":"i1","bot":"deployer","token":"github-deploy","join_method":"github","serials":["998","101"],"provenance":"github:octo-org/app@refs/heads/main run 1 attempt 1","outputs":[{"name":"identity","type":"identity","kind":"ssh","serial":"998","principals":["deploy"],"expires_at":"2026-11-22T13:00:00Z"},{"name":"identity","type":"identity","kind":"tls","serial":"101","principals":["deployer"],"expires_at":"2026-11-22T13:00:00Z"}],"expires_at":"2026-11-22T13:00:00Z","peer":"192.0.2.7","claims":{"sub":"repo:octo-org/app"}}');
INSERT INTO events VALUES(2,1795348800,'issued','i2','deployer','github-deploy','{"time":"2026-11-22T12:00:00Z","event":"issued","issuance_id":"i2","bot":"deployer","token":"github-deploy","join_method":"github","serials":["996","102"],"provenance":"github:octo-org/app@refs/heads/main run 2 attempt 1","outputs":[{"name":"identity","type":"identity","kind":"ssh","serial":"996","principals":["deploy"],"expires_at":"2026-11-22T13:00:00Z"},{"name":"identity","type":"identity","kind":"tls","serial":"102","principals":["deployer"],"expires_at":"2026-11-22T13:00:00Z"}],"expires_at":"2026-11-22T13:00:00Z","peer":"192.0.2.7","claims":{"sub":"repo:octo-org/app"}}');
INSERT INTO events VALUES(3,1795348800,'issued','i3','deployer','github-deploy','{"time":"2026-11-22T12:00:00Z","event":"issued","issuance_id":"i3","bot":"deployer","token":"github-deploy","join_method":"github","serials":["994","103"],"provenance":"github:octo-org/app@refs/heads/main run 3 attempt 1","outputs":[{"name":"identity","type":"identity","kind":"ssh","serial":"994","principals":["deploy"],"expires_at":"2026-11-22T13:00:00Z"},{"name":"identity","type":"identity","kind":"tls","serial":"103","principals":["deployer"],"expires_at":"2026-11-22T13:00:00Z"}],"expires_at":"2026-11-22T13:00:00Z","peer":"192.0.2.7","claims":{"sub":"repo:octo-org/app"}}');
INSERT INTO events VALUES(4,1795348801,'refused','d-1',NULL,'other','{"time":"2026-11-22T12:00:01Z","event":"refused","denial_id":"d-1","token":"other","join_method":"github","reason":"no_rule_matches","detail":"the nearest rule wanted repository octo-org/app","verified":true,"peer":"192.0.2.8","claims":{"sub":"other"}}');
INSERT INTO events VALUES(5,1795348802,'revoked','i2','deployer','github-deploy','{"time":"2026-11-22T12:00:02Z","event":"revoked","issuance_id":"i2","bot":"deployer","token":"github-deploy","join_method":"github","serials":["996","102"],"provenance":"github:octo-org/app@refs/heads/main run 2 attempt 1","reason":"given_back","peer":"192.0.2.7"}');
INSERT INTO events VALUES(6,1795348800,'secret_added','k-1','deployer','github-deploy','{"time":"2026-11-22T12:00:00Z","event":"secret_added","secret_id":"k-1","bot":"deployer","token":"github-deploy","by":"token add","expires_at":"2026-11-22T13:00:00Z"}');
CREATE TABLE certificates (
        serial INTEGER PRIMARY KEY,
        issuance INTEGER NOT NULL REFERENCES events (sequence),
        kind INTEGER NOT NULL CHECK (kind IN (0, 1)),
        expires INTEGER NOT NULL,
        revoked INTEGER,
        key_hash BLOB NOT NULL CHECK (length(key_hash) = 32)
    , instance INTEGER REFERENCES instances (number)) STRICT;
INSERT INTO certificates VALUES(101,1,1,1795352400,NULL,X'0303030303030303030303030303030303030303030303030303030303030303',NULL);
INSERT INTO certificates VALUES(102,2,1,1795352400,1795348802,X'0505050505050505050505050505050505050505050505050505050505050505',NULL);
INSERT INTO certificates VALUES(103,3,1,1795352400,NULL,X'0707070707070707070707070707070707070707070707070707070707070707',NULL);
INSERT INTO certificates VALUES(994,3,0,1795352400,NULL,X'0606060606060606060606060606060606060606060606060606060606060606',NULL);
INSERT INTO certificates VALUES(996,2,0,1795352400,1795348802,X'0404040404040404040404040404040404040404040404040404040404040404',NULL);
INSERT INTO certificates VALUES(998,1,0,1795352400,NULL,X'0202020202020202020202020202020202020202020202020202020202020202',NULL);
CREATE TABLE proofs (
        number INTEGER PRIMARY KEY,
        key BLOB NOT NULL UNIQUE,
        fingerprint BLOB NOT NULL,
        certificate INTEGER NOT NULL,
        held_until INTEGER NOT NULL,
        plan TEXT NOT NULL
    , generation INTEGER, held_to_run INTEGER NOT NULL DEFAULT 90120) STRICT;
INSERT INTO proofs VALUES(1,X'52786832528cecde52a75cdddc2aa1c3e5401651e374a5bfeed37958abb3fd59',X'0707070707070707070707070707070707070707070707070707070707070707',998,1795349100,'{"issuance_id":"i1","bot":"deployer","token":"github-deploy","expires":1795352400,"outputs":[{"name":"identity","kind":"identity","roles":["deploy"],"ssh":{"serial":2,"host":false,"key":"AAAA","key_id":"k","principals":["deploy"],"extensions":[],"critical":{},"from":1795348740,"until":1795352400},"tls":null}],"fulcio":[],"warnings":[]}',NULL,300);
INSERT INTO proofs VALUES(2,X'01d3ef5f344e85fc3e30cc3c865d5871a6f4ae6791ab97ba1283506ba3845f7a',X'0707070707070707070707070707070707070707070707070707070707070707',996,1795349100,'{"issuance_id":"i2","bot":"deployer","token":"github-deploy","expires":1795352400,"outputs":[{"name":"identity","kind":"identity","roles":["deploy"],"ssh":{"serial":4,"host":false,"key":"AAAA","key_id":"k","principals":["deploy"],"extensions":[],"critical":{},"from":1795348740,"until":1795352400},"tls":null}],"fulcio":[],"warnings":[]}',NULL,300);
INSERT INTO proofs VALUES(3,X'5e1fbf1c8a9e2cc35c82a7f9091c9b2aae02dfcbb4f3dc36d86cec64de2e0f87',X'0707070707070707070707070707070707070707070707070707070707070707',994,1795349100,'{"issuance_id":"i3","bot":"deployer","token":"github-deploy","expires":1795352400,"outputs":[{"name":"identity","kind":"identity","roles":["deploy"],"ssh":{"serial":6,"host":false,"key":"AAAA","key_id":"k","principals":["deploy"],"extensions":[],"critical":{},"from":1795348740,"until":1795352400},"tls":null}],"fulcio":[],"warnings":[]}',NULL,300);
CREATE TABLE assertions (
        issuance INTEGER NOT NULL REFERENCES events (sequence),
        id TEXT NOT NULL,
        held_until INTEGER NOT NULL, held_to_run INTEGER NOT NULL DEFAULT 90120,
        PRIMARY KEY (issuance, id)
    ) STRICT, WITHOUT ROWID;
INSERT INTO assertions VALUES(2,'a',1795348862,62);
CREATE TABLE state (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        list_number INTEGER NOT NULL, run INTEGER NOT NULL DEFAULT 0, forgotten INTEGER NOT NULL DEFAULT 0, store TEXT, restored INTEGER) STRICT;
INSERT INTO state VALUES(1,0,0,0,'d5de64ae0c24b3d4b1d310b48684b6c5',NULL);
CREATE TABLE instances (
        number INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        token TEXT NOT NULL,
        bot TEXT NOT NULL,
        key BLOB NOT NULL,
        generation INTEGER NOT NULL,
        base INTEGER NOT NULL,
        attempt TEXT NOT NULL,
        tries INTEGER NOT NULL,
        last TEXT NOT NULL,
        replaces TEXT,
        registered INTEGER NOT NULL,
        seen INTEGER NOT NULL,
        locked INTEGER,
        reason TEXT
    ) STRICT;
CREATE TABLE secrets (
        hash BLOB PRIMARY KEY CHECK (length(hash) = 32),
        id TEXT NOT NULL,
        token TEXT NOT NULL,
        expires INTEGER NOT NULL,
        instance TEXT
    , made INTEGER NOT NULL DEFAULT 0, held_to_run INTEGER NOT NULL DEFAULT 90120) STRICT, WITHOUT ROWID;
INSERT INTO secrets VALUES(X'1515151515151515151515151515151515151515151515151515151515151515','k-1','github-deploy',1795352400,NULL,1795348800,3600);
CREATE TABLE strangers (
        number INTEGER PRIMARY KEY,
        ring INTEGER NOT NULL CHECK (ring IN (0, 1)),
        nth INTEGER NOT NULL,
        ends INTEGER NOT NULL,
        behind INTEGER NOT NULL,
        time INTEGER NOT NULL,
        event TEXT NOT NULL,
        id TEXT NOT NULL,
        bot TEXT,
        token TEXT,
        body TEXT NOT NULL
    ) STRICT;
INSERT INTO strangers VALUES(1,1,1,235,4,1795348801,'refused','d-2',NULL,'other','{"time":"2026-11-22T12:00:01Z","event":"refused","denial_id":"d-2","token":"other","join_method":"github","reason":"no_rule_matches","detail":"the nearest rule wanted repository octo-org/app","verified":true,"peer":"192.0.2.8"}');
CREATE TABLE probes (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        body BLOB NOT NULL
    ) STRICT;
CREATE INDEX events_id ON events (id);
CREATE INDEX events_time ON events (time);
CREATE TRIGGER events_stay BEFORE DELETE ON events
        BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END;
CREATE TRIGGER events_stay_the_same BEFORE UPDATE ON events
        BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END;
CREATE INDEX certificates_issuance ON certificates (issuance);
CREATE INDEX certificates_revoked ON certificates (expires) WHERE revoked IS NOT NULL;
CREATE INDEX proofs_held ON proofs (held_until);
CREATE INDEX certificates_instance ON certificates (instance, expires) WHERE instance IS NOT NULL;
CREATE UNIQUE INDEX strangers_nth ON strangers (ring, nth);
COMMIT;
