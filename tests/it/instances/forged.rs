//! Somebody writes into the store of an authority, while it serves and while it does not, and holds nothing else of it.

use std::path::PathBuf;

use machine_id::join::instance::secret_hash;

use crate::support::authority::Authority;
use crate::support::once::copy;
use crate::support::process::run;
use crate::support::workers::{POLICY, SECRET, instance, registered, worker};

struct Attack {
    authority: Authority,
}

impl Attack {
    fn key(&self) -> PathBuf {
        self.authority.data_dir().join("store.key")
    }

    fn write(&self, sql: &str, values: impl rusqlite::Params) {
        let store = rusqlite::Connection::open(self.authority.data_dir().join("authority.db")).unwrap();
        store.busy_timeout(std::time::Duration::from_secs(5)).unwrap();
        assert!(store.execute(sql, values).unwrap() > 0, "{sql}");
    }

    /// The row is in the log, and `readyz` warns without taking the authority out.
    fn is_told(&self, row: &str) {
        self.authority.wait_for_stderr(&format!("the store's row {row}"));
        let ready = self.authority.client().get("/readyz");
        assert_eq!(ready.status, 200);
        assert!(ready.text().contains("rows that no authority left so"), "{}", ready.text());
    }
}

#[test]
fn what_is_written_into_the_store_lets_nobody_in() {
    let mut attack = Attack { authority: Authority::start(POLICY) };
    let (honest, thief) = (registered(&attack.authority), registered(&attack.authority));
    let (honest_id, thief_id) = (instance(&honest), instance(&thief));
    assert!(attack.authority.client().get("/readyz").text().ends_with("\"status\":\"ready\"}"));

    // A secret of the attacker's own.
    let known = "mid-reg-known-to-the-attacker-alone-0123456789abcdef";
    attack.write(
        "INSERT INTO secrets (hash, id, token, expires, made, held_to_run, mac)
         SELECT ?1, 'k-evil', token, expires, made, held_to_run, mac FROM secrets LIMIT 1",
        [secret_hash(known)],
    );
    let refused = worker(&attack.authority).env(SECRET, known).once([]).failed(4);
    refused.says(&["the registration secret"]);
    attack.is_told("secrets ");

    // A worker that is locked, since its storage was copied, has its row unlocked.
    copy(&thief.path("storage"), &thief.path("copy"));
    thief.once(["--storage", &thief.text_path("copy")]).good();
    thief.once([]).failed(4).says(&["locked"]);
    attack.write("UPDATE instances SET locked = NULL, reason = NULL WHERE id = ?1", [&thief_id]);
    thief.once(["--storage", &thief.text_path("copy")]).failed(4);
    attack.is_told(&format!("instances {thief_id}"));
    // A row that was whole once is put back by nobody who did not keep it: this one's seal is of another row.
    attack.write(
        "UPDATE instances SET mac = (SELECT mac FROM instances WHERE id = ?2) WHERE id = ?1",
        [&thief_id, &honest_id],
    );
    thief.once(["--storage", &thief.text_path("copy")]).failed(4);
    honest.once([]).good();

    // While it is down: the honest worker's key is exchanged for the attacker's. Both are refused from then on.
    attack.authority.terminate();
    attack.write(
        "UPDATE instances SET key = (SELECT key FROM instances WHERE id = ?2), locked = NULL WHERE id = ?1",
        [&honest_id, &thief_id],
    );
    attack.authority.restart();
    honest.once([]).failed(4);
    attack.is_told(&format!("instances {honest_id}"));
    registered(&attack.authority).once([]).good();
}

#[test]
fn a_store_without_its_key_is_not_served() {
    let mut attack = Attack { authority: Authority::start(POLICY) };
    let job = registered(&attack.authority);
    attack.authority.terminate();
    let (key, away) = (attack.key(), attack.key().with_extension("away"));
    std::fs::rename(&key, &away).unwrap();
    let refused = |why: &str, hint: &str| {
        for mut command in [
            attack.authority.command(["serve", "--listen", "192.0.2.1:1"]),
            attack.authority.command(["token", "add", "--token", "jenkins"]),
        ] {
            let output = run(&mut command);
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{said}");
            assert!(said.contains(why) && said.contains(hint), "{said}");
        }
        assert!(!std::fs::exists(&key).unwrap() || why != "there is no ", "none is made in its place");
    };
    refused("there is no ", "hint: put it back from the backup");
    std::fs::write(&key, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n").unwrap();
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    refused("is not the key that the store's rows are sealed with", "hint: put back the one that belongs");
    std::fs::rename(&away, &key).unwrap();
    attack.authority.restart();
    job.once([]).good();
    // The trail is read without it, as by an auditor.
    std::fs::rename(&key, &away).unwrap();
    assert!(!attack.authority.audit().is_empty());
}
