//! Certificates of hosts and servers, and lists, whose end comes near: who is told of it, and when.

use super::*;
use crate::authority::host_ends::HostEnds;
use crate::authority::issue::ssh::HostPlan;
use crate::authority::validity::{FORMER_TLS_CA, NEXT_TLS_CA, TLS_CA};

const LIFE: i64 = 360 * DAY;

impl Serving<'_> {
    /// Signs for a server of that name, as an operator does; its serial, and its key again.
    fn sign_server(&self, name: &str, spki: &[u8]) {
        let (keys, now) = (self.authority.keys(), self.data.clock.now());
        let plan = ServerPlan::new(spki.to_vec(), vec![name.to_owned()], (now, LIFE), keys.tls_signer());
        let recorded = record::command(self.authority.store.as_ref(), "sign-server", now, 0, plan.unwrap());
        self.data.runtime.block_on(recorded).unwrap();
    }

    /// What the log says, without serials.
    fn logged(&self) -> Vec<String> {
        let warnings = self.keeper.current().log_warnings(&self.authority);
        warnings.iter().map(CertificateWarning::told).map(|told| without_serial(&told)).collect()
    }

    /// What `check` says, by another process.
    fn checked(&self) -> Vec<String> {
        let (store, now) = (self.authority.store.as_ref(), self.data.clock.now());
        let (ends, list) = self.data.runtime.block_on(async {
            (HostEnds::look(store, now).await.unwrap(), store.last_list().await.unwrap())
        });
        let list = list.map(crate::authority::revocation::ending_of);
        let told = store_warnings(&ends, list.as_ref(), now);
        assert!(told.iter().all(|one| !one.is_fault));
        told.iter().map(CertificateWarning::told).map(|told| without_serial(&told)).collect()
    }
}

fn without_serial(told: &str) -> String {
    let (before, behind) = told.split_once(" (serial ").unwrap_or((told, ""));
    behind.split_once(')').map_or_else(|| told.to_owned(), |(_, behind)| format!("{before}{behind}"))
}

#[test]
fn the_end_of_what_operators_sign_is_told_from_90_days_on() {
    let data = Data::new(NOW, NOW);
    let mut serving = data.serve().unwrap();
    let spki = KeyPair::generate().unwrap().subject_public_key_info();
    serving.sign_server("db.test", &spki);
    let key = ssh_key::PrivateKey::from(ssh_key::private::Ed25519Keypair::from_seed(&[7; 32]));
    let line = key.public_key().to_openssh().unwrap();
    let plan = HostPlan::new(
        &line,
        vec!["web.test".to_owned()],
        (NOW, LIFE + HOUR),
        serving.authority.keys().signing(),
    );
    let recorded = record::command(serving.authority.store.as_ref(), "sign-host", NOW, 0, plan.unwrap());
    data.runtime.block_on(recorded).unwrap();
    let end = NOW + LIFE;
    let told = |days: i64| {
        let s = if days == 1 { "" } else { "s" };
        let line = |what: &str, end| format!("the {what} ends at {}: {days} day{s} left", rfc3339(end));
        vec![
            line("TLS server certificate of db.test", end),
            line("SSH host certificate of web.test", end + HOUR),
        ]
    };
    let look = |serving: &mut Serving<'_>, at: i64| {
        data.clock.set(at);
        serving.look();
    };
    look(&mut serving, end - 91 * DAY);
    assert_eq!((serving.logged(), serving.checked()), (vec![], vec![]));
    serving.is_ready(true, WELL);
    for days in [89, 1] {
        look(&mut serving, end - days * DAY);
        // Who asks has made lists, which are good.
        let (_, body) = serving.readyz();
        assert_eq!((serving.logged(), serving.checked()), (told(days), told(days)));
        // Anybody may ask, and is not told which hosts there are.
        let what = "the first of 2 certificates of hosts and servers";
        let s = if days == 1 { "" } else { "s" };
        assert!(body.contains(&format!(r#""days_left":{days},"what":"{what}""#)), "{body}");
        let warning = format!(r#""warnings":["{what} ends at {}: {days} day{s} left"]"#, rfc3339(end));
        assert!(body.contains(&warning) && !body.contains(".test"), "{body}");
    }
    // What was found before is told as it is by now.
    data.clock.set(end + 60);
    serving.is_ready(true, r#""warnings":["a certificate of a host or server ends at "#);
    let web = format!("the SSH host certificate of web.test ends at {}: 0 days left", rfc3339(end + HOUR));
    assert_eq!(serving.logged(), [web]);
    look(&mut serving, end + HOUR);
    assert_eq!((serving.logged(), serving.checked()), (vec![], vec![]));
    serving.is_ready(true, WELL);
}

#[test]
fn what_was_signed_anew_is_not_told_any_more() {
    let data = Data::new(NOW, NOW);
    let mut serving = data.serve().unwrap();
    let spki = KeyPair::generate().unwrap().subject_public_key_info();
    serving.sign_server("db.test", &spki);
    data.clock.set(NOW + LIFE - 30 * DAY);
    serving.look();
    assert_eq!(serving.logged().len(), 1);
    serving.sign_server("db.test", &spki);
    // As it is each hour, or where the operator asks.
    data.runtime.block_on(serving.keeper.look(true));
    assert_eq!((serving.logged(), serving.checked()), (vec![], vec![]));
    serving.is_ready(true, WELL);
}

/// They are made anew each hour: one that is old says that none can be made.
#[test]
fn the_end_of_lists_is_told_in_their_last_hours() {
    let data = Data::new(NOW, NOW);
    let mut serving = data.serve().unwrap();
    assert_eq!((serving.logged(), serving.checked()), (vec![], vec![]));
    data.runtime.block_on(serving.authority.revocation_lists()).unwrap();
    let end = NOW + DAY;
    let list = "the list of revoked X.509 certificates";
    for (at, told) in [
        (end - 4 * HOUR - 60, vec![]),
        (end - 4 * HOUR, vec![format!("{list} ends at {}: 0 days left", rfc3339(end))]),
        (end, vec![format!("{list} ended at {}", rfc3339(end))]),
    ] {
        data.clock.set(at);
        assert_eq!((serving.logged(), serving.checked()), (told.clone(), told));
    }
    // One that can be made is made before it is told of.
    serving.look();
    assert_eq!((serving.logged(), serving.checked()), (vec![], vec![]));
}

/// Two are trusted while one takes the other's place, and neither is certified by anybody else for that.
#[test]
fn what_to_do_about_a_tls_ca_is_another_thing_than_about_who_certifies_it() {
    let ending =
        |what: &str| Ending { what: what.to_owned(), validity: Validity { from: 0, until: 30 * DAY } };
    let told = ca_warnings(&[TLS_CA, "the root", NEXT_TLS_CA, FORMER_TLS_CA].map(ending), DAY);
    let has = |words: &str| told.iter().map(|one| one.hint.contains(words)).collect::<Vec<_>>();
    assert_eq!(has("authority rotate --ca tls"), [true, false, true, true]);
    assert_eq!(has("authority import --tls-ca"), [false, true, false, false]);
}

#[test]
fn each_of_two_tls_cas_is_told_by_its_name() {
    let data = Data::new(NOW, NOW);
    let (dir, config) = (data.dir.path(), Config::load(data.dir.path()).unwrap());
    let mut set = CaSet::clone(&started(&keys_in(dir), dir, CaKind::Tls));
    for (states, names) in [
        ([CaState::Current, CaState::Next], [TLS_CA, NEXT_TLS_CA]),
        ([CaState::Former, CaState::Current], [FORMER_TLS_CA, TLS_CA]),
    ] {
        set.keys.iter_mut().zip(states).for_each(|(key, state)| key.state = state);
        let served = CaKeys::open(&source(dir), &Arc::new(set.clone())).unwrap().tls_endings();
        let (_, checked) = check(&config, NOW, &set.keys).unwrap();
        for told in [served, checked] {
            let mut told: Vec<_> = told.into_iter().map(|one| one.what).collect();
            told.sort_by_key(|what| names.iter().position(|name| name == what));
            assert_eq!(told, names);
        }
    }
}
