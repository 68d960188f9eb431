//! CAs that a command changes beside a running authority.

use machine_id::authority::ca::{CaKey, CaKind, CaState};
use machine_id::authority::config::Config;
use machine_id::authority::store::cas::{CaChange, CaChanged};
use machine_id::authority::store::{Store, engine};
use machine_id::clock::Clock;

use super::Bench;
use crate::support::client::Keys;
use crate::support::process::{self, succeed};

/// The store of a running authority, and what waits for it.
struct Beside(tokio::runtime::Runtime, Box<dyn Store>);

impl Beside {
    fn of(bench: &Bench) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let config = Config::load(&bench.authority.data_dir()).unwrap();
        let (key, now) = (config.store_key(), Clock::system().now());
        let store = runtime.block_on(engine::open(&config.store, &key, now)).unwrap();
        Self(runtime, store)
    }

    /// Has another one of that kind trusted.
    fn start(&self, kind: CaKind) {
        let key = |name: String, state| CaKey {
            number: 0,
            kind,
            id: format!("SHA256:{name}"),
            is_first: name == kind.name(),
            state,
            public: "public".into(),
            endorsements: Vec::new(),
            cross: Vec::new(),
            sealed: None,
            since: 1,
            name,
        };
        let current = key(kind.name().into(), CaState::Current);
        let change = CaChange {
            kind,
            phase: "start",
            expected: self.0.block_on(self.1.cas()).unwrap().number,
            keys: vec![current, key(format!("{}-0a0b0c0d", kind.name()), CaState::Next)],
            none_live: None,
            at: Clock::system().now(),
            by: "anna".into(),
        };
        assert!(matches!(self.0.block_on(self.1.change_cas(change)).unwrap(), CaChanged::Done(_)));
    }
}

#[test]
fn what_was_planned_by_former_cas_is_planned_anew_and_no_job_hears_of_it() {
    let mut bench = Bench::start();
    bench.grant(&Keys::fresh());
    let beside = Beside::of(&bench);
    for kind in CaKind::ALL {
        beside.start(kind);
        // Most likely before the authority has heard of it.
        bench.grant(&Keys::fresh());
    }
    let key = bench.authority.data_dir().join("host.pub");
    std::fs::write(&key, Keys::fresh().ssh).unwrap();
    succeed(bench.authority.command(["sign-host", "--principal", "web.test"]).arg(&key));
    drop(beside);
    let rotated = bench.authority.run(["audit", "--event", "rotated"]);
    assert_eq!(String::from_utf8(rotated.stdout).unwrap().lines().count(), 4);
    bench.authority.restart();
    bench.grant(&Keys::fresh());

    // What somebody else has made of them signs nothing, and says so.
    let database = bench.authority.data_dir().join("authority.db");
    let evil = "UPDATE ca_keys SET public = 'evil' WHERE number = 2";
    process::succeed(process::command("sqlite3").arg("-cmd").arg(".timeout 5000").arg(database).arg(evil));
    let mut refused = bench.authority.command(["sign-host", "--principal", "web.test"]);
    let refused = process::run(refused.arg(&key));
    let told = "the store's CAs are not as an authority left them: ssh-user-0a0b0c0d without a good seal";
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.status.code() == Some(2) && said.contains(told), "{said}");
    let said = bench.authority.refuses_to_start();
    assert!(said.contains(told) && said.contains("who can write to the database?"), "{said}");
}
