//! Rows that no authority wrote: whoever has a server's password, or the file, makes no migration impossible.

use super::*;

/// Migrates while nothing else happens; what the operator hears.
fn told(stage: &Stage) -> Vec<String> {
    let mut told = Vec::new();
    stage.runtime.block_on(async {
        let mut from = stage.from.source(&stage.key).await.unwrap();
        let mut to = stage.to.target(&stage.key).await.unwrap();
        let seal = stage.key.load().unwrap();
        assert!(migrate(&mut *from, &mut *to, &seal, &mut |line| told.push(line)).await.unwrap());
    });
    told
}

/// These bytes, as an engine writes them.
fn bytes(engine: Engine, hex: &str) -> String {
    match engine {
        InFile => format!("x'{hex}'"),
        Shared => format!("'\\x{hex}'::bytea"),
    }
}

fn body(engine: Engine) -> &'static str {
    match engine {
        InFile => "packed",
        Shared => "body",
    }
}

#[test]
fn what_cannot_be_read_is_carried_byte_for_byte_and_named() {
    // A form that no version has, nothing, no JSON, no object, no text, gzip, and less than it says.
    const BODIES: [&str; 7] = ["09", "", "006e6f", "005b5d", "00ff", "1f8b0800", "01ffffffff41"];
    for ways in WAYS {
        let stage = Stage::new(ways);
        let first = stage.from.number("SELECT max(sequence) FROM events") + 1;
        let (column, more) = if ways[0] == InFile { ("body, packed", "'', ") } else { ("body", "") };
        let add = |name: &str, body: &str| {
            let sql = format!(
                "INSERT INTO events (sequence, time, event, id, {column}) SELECT max(sequence) + 1, 5, '{name}', 'x', {body} FROM events"
            );
            stage.from.sql(&sql).unwrap();
        };
        for (nth, hex) in BODIES.iter().enumerate() {
            add(["issued", "other"][nth % 2], &format!("{more}{}", bytes(ways[0], hex)));
        }
        if ways[0] == InFile {
            add("issued", "'no JSON', NULL");
            add("issued", "CAST(x'ff41' AS TEXT), NULL");
        }
        stage.from.sql(&format!(
            "INSERT INTO strangers (number, ring, nth, ends, behind, time, event, id, body)
             SELECT max(number) + 1, 0, max(nth) FILTER (WHERE ring = 0) + 1, max(ends), 0, 5, 'refused', 'x', {} FROM strangers",
            bytes(ways[0], "09")
        )).unwrap();
        let unreadable: Vec<String> =
            (first..=stage.from.number("SELECT max(sequence) FROM events")).map(|n| n.to_string()).collect();
        let wanted = format!(
            "{} events ({}) cannot be read, and are carried as they are",
            unreadable.len(),
            unreadable.join(", ")
        );
        let told = told(&stage);
        assert!(told.contains(&wanted), "{told:?}");
        for (nth, hex) in (first..).zip(BODIES) {
            let same = format!(
                "SELECT count(*) FROM events WHERE sequence = {nth} AND {} = {}",
                body(ways[1]),
                bytes(ways[1], hex)
            );
            assert_eq!(stage.to.number(&same), 1, "{hex}");
        }
        let same = format!("SELECT count(*) FROM strangers WHERE body = {}", bytes(ways[1], "09"));
        assert_eq!(stage.to.number(&same), 1);
        assert_eq!(stage.wait(stage.open(&stage.to).unwrap().dropped()), 0);
    }
}

#[test]
fn certificates_of_no_event_are_named_and_carried_and_what_is_revoked_stays_so() {
    for ways in WAYS {
        let stage = Stage::new(ways);
        let guard = if ways[0] == InFile { "PRAGMA foreign_keys = OFF;" } else { "" };
        let hash = bytes(ways[0], &"00".repeat(32));
        stage
            .from
            .sql(&format!(
                "{guard} INSERT INTO certificates (serial, issuance, kind, expires, revoked, key_hash)
             VALUES (9000, -1, 0, 9999999999, 77, {hash}), (9001, 5000000, 1, 9999999999, NULL, {hash})"
            ))
            .unwrap();
        let told = told(&stage);
        let wanted = "2 certificates (9000, 9001) are of no event, and are carried as they are";
        assert!(told.iter().any(|line| line == wanted), "{told:?}");
        assert!(!told.iter().any(|line| line.contains("once more")), "{told:?}");
        let revoked = stage.wait(stage.open(&stage.to).unwrap().revoked(0));
        assert!(
            revoked.iter().any(|one| one.serial == 9000) && !revoked.iter().any(|one| one.serial == 9001)
        );
        stage.check();
    }
}

/// Behind what was carried, with an event that says nothing, or none.
#[test]
fn what_was_revoked_without_a_word_in_the_trail_stays_so() {
    for ways in WAYS {
        let stage = Stage::new(ways);
        let mut steps = 0;
        while !stage.to.is_there() || stage.to.number("SELECT count(*) FROM certificates") == 0 {
            drop(stage.migrate(steps, false));
            steps += 3;
        }
        stage.from.sql("UPDATE certificates SET revoked = 5 WHERE serial = 8").unwrap();
        let told = told(&stage);
        let wanted = "certificates are not as the trail has them: all are carried once more";
        assert!(told.iter().any(|line| line == wanted), "{told:?}");
        assert_eq!(stage.to.number("SELECT count(*) FROM certificates WHERE serial = 8 AND revoked = 5"), 1);
        stage.check();
    }
}
