//! What holds a watcher up, or keeps from it what it was told of.

use std::time::Instant;

use rustix::process::Signal;

use super::{SOON, log, principals, stderr};
use crate::support::process::{Running, run};
use crate::support::stated::Stated;
use crate::support::{now, wait_for};

const CRL: &str = "/v1/revoked/tls.crl";
const KRL: &str = "/v1/revoked/ssh.krl";

/// Revokes a certificate of SSH, and tells nobody.
fn revoke_untold(authority: &Stated, serial: u64) {
    let mut state = authority.state();
    state.ssh.push((serial, now() + 3600));
    state.number += 1;
}

#[test]
fn a_list_that_dribbles_in_holds_up_nothing_else() {
    let authority = Stated::start();
    let ours = authority.certificate(8);
    let watch = authority.watch(["--fail-closed", "3s"]);
    wait_for("the lists", || (authority.asked(CRL) == 1).then_some(()));
    authority.state().slow.push(CRL);
    authority.revoke(false, 9, true);
    wait_for("the other list is on its way", || (authority.asked(CRL) == 2).then_some(()));
    let begun = Instant::now();
    authority.revoke(true, 7, false);
    wait_for("the KRL", || (authority.serials() == [7]).then_some(()));
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    // Nor does a timer's run, which waits for the same.
    let mut refresh = authority.host("refresh");
    let refresh = Running::start(refresh.stdout(std::process::Stdio::piped()));
    wait_for("its list is on its way", || (authority.asked(CRL) == 3).then_some(()));
    let begun = Instant::now();
    authority.revoke(true, 11, false);
    wait_for("the KRL", || (authority.serials() == [7, 11]).then_some(()));
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    // Nor is silence noticed later for it.
    wait_for("the end", || authority.refuses(&ours).then_some(()));
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    assert_eq!(authority.asked(CRL), 3);
    // Heard again, it opens; and what is on its way is taken when it is there.
    authority.revoke(false, 13, true);
    wait_for("a login", || {
        authority.beat();
        (!authority.refuses(&ours)).then_some(())
    });
    authority.state().slow.clear();
    wait_for("both", || {
        authority.beat();
        (!authority.refuses(&ours) && authority.has_crl()).then_some(())
    });
    drop((refresh, watch));
}

#[test]
fn what_is_said_to_be_revoked_and_cannot_be_fetched_lets_nobody_in() {
    let authority = Stated::start();
    let (ours, others) = (authority.certificate(7), authority.certificate(8));
    let watch = authority.watch(["--fail-closed", "3s"]);
    let lets_in = || principals(&authority.path("trust"), &others, "3s").status.success();
    wait_for("it is heard", || {
        authority.beat();
        lets_in().then_some(())
    });
    // While it was away: what is new stands in the whole list alone, which somebody keeps back.
    authority.state().lies.push((KRL, 503, Vec::new()));
    revoke_untold(&authority, 7);
    authority.hang_up();
    wait_for("a warning", || watch.stderr().contains("ssh.krl with status 503").then_some(()));
    wait_for("the end for who asks", || {
        authority.beat();
        (!lets_in()).then_some(())
    });
    wait_for("the end", || {
        authority.beat();
        authority.refuses(&others).then_some(())
    });
    // Whatever is heard meanwhile, it stays so, and is not asked for more often.
    let asked = authority.asked(KRL);
    for _ in 0..20 {
        authority.beat();
        assert!(authority.refuses(&others) && !lets_in());
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert!(authority.asked(KRL) <= asked + 3, "{asked} {}", authority.asked(KRL));
    authority.state().lies.clear();
    wait_for("the list", || {
        authority.beat();
        let is_open = !authority.refuses(&others);
        assert!(authority.refuses(&ours), "what was revoked meanwhile");
        is_open.then_some(())
    });
    wait_for("a login", || {
        authority.beat();
        lets_in().then_some(())
    });
}

/// Nor is `sshd` to wait for a list that is none of its own.
#[test]
fn where_the_list_of_tls_servers_alone_cannot_be_fetched_they_alone_let_nobody_in() {
    let authority = Stated::start();
    let ours = authority.certificate(8);
    let watch = authority.watch([]);
    let [heard, ca] = ["trust/authority.heard", "trust/tls_ca.crt"].map(|name| authority.path(name));
    let mut aged = wait_for("that it is kept", || {
        let heard: serde_json::Value = serde_json::from_slice(&std::fs::read(&heard).ok()?).unwrap();
        heard["lists"]["crl"]["at"].is_object().then_some(heard)
    });
    drop(watch);
    // Time passes, and something is revoked.
    let at = &mut aged["lists"]["crl"]["at"];
    at["unix"] = (at["unix"].as_i64().unwrap() - 600).into();
    at["boot"][1] = (at["boot"][1].as_i64().unwrap() - 600).into();
    std::fs::write(&heard, aged.to_string()).unwrap();
    let before = std::fs::read(&ca).unwrap();
    authority.state().lies.push((CRL, 503, Vec::new()));
    authority.revoke(false, 9, true);
    let watch = authority.begin(["--fail-closed", "3s"]);
    wait_for("nobody's CA", || {
        authority.beat();
        (std::fs::read(&ca).unwrap() != before).then_some(())
    });
    let words = "warning: the list of TLS servers was not brought up to date for 10m";
    wait_for("a warning", || watch.stderr().contains(words).then_some(()));
    assert!(
        watch.stderr().contains(": nobody gets in by TLS until it can be fetched\n"),
        "{}",
        watch.stderr()
    );
    let trust = authority.path("trust");
    wait_for("a login", || {
        authority.beat();
        (!authority.refuses(&ours) && principals(&trust, &ours, "3s").status.success()).then_some(())
    });
    assert!(std::fs::read(&ca).unwrap() != before);
    authority.state().lies.clear();
    wait_for("the CA", || {
        authority.beat();
        (std::fs::read(&ca).unwrap() == before && authority.has_crl()).then_some(())
    });
    let again = || watch.stderr().contains("the authority is heard again: who may, gets in");
    wait_for("that it is told", || again().then_some(()));
}

#[test]
fn servers_are_told_of_files_that_another_run_has_put_there() {
    let authority = Stated::start();
    let reloads = authority.path("reloads");
    let reload = format!("printf x >> {}", reloads.display());
    let mut watch = authority.watch(["--reload", &reload]);
    wait_for("the first reload", || (log(&reloads) == 1).then_some(()));
    // A timer's run is faster.
    {
        let mut state = authority.state();
        state.x509.push((9, now() + 3600));
        state.number += 1;
        state.urgent = state.number;
    }
    stderr(&run(&mut authority.host("refresh")), 0);
    let begun = Instant::now();
    authority.beat();
    wait_for("a reload", || (log(&reloads) == 2).then_some(()));
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    authority.beat();
    // One that was killed may not have come to it.
    watch.signal(Signal::KILL);
    watch.wait();
    let _watch = authority.begin(["--reload", &reload]);
    wait_for("a reload", || (log(&reloads) == 3).then_some(()));
}

/// What replicas of one store are to a host behind a balancer.
#[test]
fn a_replica_whose_clock_is_behind_is_no_stranger() {
    let authority = Stated::start();
    let watch = authority.watch([]);
    wait_for("the lists", || (authority.asked(CRL) == 1).then_some(()));
    let known = || {
        let heard = std::fs::read(authority.path("trust/authority.heard")).unwrap();
        serde_json::from_slice::<serde_json::Value>(&heard).unwrap()["known"]["made"].as_i64().unwrap()
    };
    let before = known();
    authority.state().made = Some(before - 30);
    authority.hang_up();
    wait_for("a watcher", || (authority.watched() == 2).then_some(()));
    stderr(&run(&mut authority.host("refresh")), 0);
    assert_eq!(known(), before, "it is as good, and no later");
    authority.beat();
    authority.revoke(true, 7, true);
    wait_for("the KRL", || (authority.serials() == [7]).then_some(()));
    stderr(&run(&mut authority.host("refresh")), 0);
    assert_eq!((watch.stderr().as_str(), authority.watched()), ("", 2));
    // Its lists may be those of a moment before.
    let late = authority.state().answer(CRL).1;
    authority.state().lies.push((CRL, 200, late));
    authority.revoke(false, 9, true);
    wait_for("the list of before", || (authority.asked(CRL) >= 4).then_some(()));
    authority.state().lies.clear();
    wait_for("the list", || authority.has_crl().then_some(()));
    assert_eq!(watch.stderr(), "");
}

#[test]
fn silence_may_be_as_long_as_one_likes() {
    let authority = Stated::start();
    let watch = authority.begin(["--fail-closed", "500000000000years"]);
    wait_for("the files", || authority.path("trust/tls_ca.crt").exists().then_some(()));
    assert_eq!(watch.stderr(), "");
}

/// Whatever it was at, and though there are two of them in one folder.
#[test]
fn killed_at_any_moment_it_takes_nothing_back() {
    let authority = Stated::start();
    let mut watch = authority.watch([]);
    let mut all = Vec::new();
    for round in 0..20 {
        let mut other = authority.begin([]);
        for serial in [100 + 2 * round, 101 + 2 * round] {
            authority.revoke(true, serial, serial % 5 == 0);
            all.push(serial);
        }
        std::thread::sleep(std::time::Duration::from_micros(3137 * round));
        let before = authority.serials();
        watch.signal(Signal::KILL);
        watch.wait();
        let after = authority.serials();
        assert!(before.iter().all(|serial| after.contains(serial)), "{before:?} {after:?}");
        std::mem::swap(&mut watch, &mut other);
    }
    wait_for("all", || {
        authority.beat();
        (authority.serials() == all).then_some(())
    });
    wait_for("that it is kept", || {
        let heard = std::fs::read(authority.path("trust/authority.heard")).unwrap();
        let heard: serde_json::Value = serde_json::from_slice(&heard).unwrap();
        (heard["lists"]["krl"]["number"] == authority.state().number).then_some(())
    });
}
