//! `host watch`, `host refresh` and `host principals --fail-closed`, with an authority that states what it gives, and whoever
//! stands in between.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::disk::SmallDisk;
use crate::support::process::{Running, command, machine_id, read, run, succeed};
use crate::support::stated::{Stated, statement_key};
use crate::support::{now, wait_for};

mod held_up;
mod rotation;

const SECOND: Duration = Duration::from_secs(1);
/// A second is promised; a busy machine may take more, and what need not be at once takes half a minute.
const SOON: Duration = Duration::from_secs(10);

fn stderr(output: &Output, code: i32) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    stderr
}

/// What `sshd` asks at a login.
fn principals(trust: &Path, certificate: &Path, after: &str) -> Output {
    let text = read(certificate);
    let mut command =
        machine_id(["host", "principals", "--labels", "env=prod", "--fail-closed", after, "--dir"]);
    run(command.arg(trust).args(["deploy", text.split(' ').nth(1).unwrap()]))
}

fn log(path: &Path) -> usize {
    std::fs::read_to_string(path).unwrap_or_default().len()
}

#[test]
fn a_revocation_is_there_at_once_and_whole_lists_are_fetched_seldom() {
    let authority = Stated::start();
    let reloads = authority.path("reloads");
    let watch = authority.watch(["--reload", &format!("printf x >> {}", reloads.display())]);
    wait_for("the first reload", || (log(&reloads) == 1).then_some(()));
    let (ours, others) = (authority.certificate(7), authority.certificate(8));
    assert!(!authority.refuses(&ours));
    let fetched = || ["/v1/revoked/ssh.krl", "/v1/revoked/tls.crl"].map(|path| authority.asked(path));
    assert_eq!(fetched(), [1, 1]);

    // A job gives back what it had: told, and nothing is fetched for it.
    let begun = Instant::now();
    authority.revoke(true, 7, false);
    wait_for("the KRL", || authority.refuses(&ours).then_some(()));
    assert!(begun.elapsed() < SOON && !authority.refuses(&others), "{:?}", begun.elapsed());
    authority.revoke(false, 9, false);
    authority.revoke(true, 11, false);
    wait_for("the KRL", || (authority.serials() == [7, 11]).then_some(()));
    assert_eq!((fetched(), log(&reloads)), ([1, 1], 1));

    // An operator: the other list is fetched and told at once, and its servers with it.
    let begun = Instant::now();
    authority.revoke(false, 13, true);
    wait_for("a reload", || (log(&reloads) == 2).then_some(()));
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    assert_eq!(fetched(), [1, 2]);
    let seen: serde_json::Value = serde_json::from_str(&read(authority.path("trust/revoked.seen"))).unwrap();
    let told = seen.as_object().unwrap().values().flat_map(|of| of.as_object().unwrap().values());
    assert_eq!(told.filter(|end| end["told"].is_i64()).count(), 4, "{seen}");
    let changed = watch.stdout();
    assert!(changed.ends_with("/trust/tls.crl\n") && changed.contains("/trust/revoked.krl\n"), "{changed}");
    assert_eq!(watch.stderr(), "");
    // A timer beside it goes on, and finds nothing to do.
    assert_eq!(succeed(&mut authority.host("refresh")), "");
}

#[test]
fn a_watcher_that_was_away_misses_nothing() {
    let authority = Stated::start();
    let mut watch = authority.watch([]);
    authority.revoke(true, 7, false);
    wait_for("the KRL", || (authority.serials() == [7]).then_some(()));
    // The connection is lost: it begins where it was.
    let number = authority.state().number;
    authority.hang_up();
    wait_for("a watcher", || (authority.last_watch() == format!("/v1/watch?since={number}")).then_some(()));
    assert_eq!(authority.asked("/v1/revoked/ssh.krl"), 1);
    // It is away itself, for as long as one likes.
    watch.signal(Signal::KILL);
    watch.wait();
    authority.revoke(true, 9, false);
    authority.revoke(true, 11, true);
    let watch = authority.begin([]);
    wait_for("the KRL", || (authority.serials() == [7, 9, 11]).then_some(()));
    assert_eq!(authority.last_watch(), format!("/v1/watch?since={number}"));
    // The authority is away, and comes back.
    authority.state().lies.push(("/v1/watch", 503, Vec::new()));
    authority.hang_up();
    wait_for("a warning", || watch.stderr().contains("answers /v1/watch with status 503").then_some(()));
    authority.revoke(true, 13, false);
    authority.state().lies.clear();
    wait_for("the KRL", || (authority.serials() == [7, 9, 11, 13]).then_some(()));
    // What somebody has put in its place is found when it begins anew.
    std::fs::write(authority.path("trust/revoked.krl"), machine_id::krl::write(1, 1, vec![])).unwrap();
    drop(watch);
    let _watch = authority.begin([]);
    wait_for("the KRL", || (authority.serials() == [7, 9, 11, 13]).then_some(()));
    assert_eq!(authority.last_watch(), "/v1/watch");
}

/// Whoever stands in between: a thief of one key, somebody who repeats, swaps, cuts.
#[test]
fn what_is_not_the_authoritys_word_changes_nothing() {
    let authority = Stated::start();
    let watch = authority.watch([]);
    authority.revoke(true, 7, true);
    wait_for("the KRL", || (authority.serials() == [7]).then_some(()));
    let files = || {
        ["revoked.krl", "tls.crl", "ssh_user_ca.pub", "tls_ca.crt", "authority_ca.crt"]
            .map(|name| std::fs::read(authority.path("trust").join(name)).unwrap())
    };
    wait_for("the other list", || (authority.asked("/v1/revoked/tls.crl") == 2).then_some(()));
    authority.beat();
    let honest = authority.state().statement(None, Vec::new());
    let line = |change: &dyn Fn(&mut machine_id::wire::Statement), signer: u8| {
        let mut statement = honest.clone();
        change(&mut statement);
        let mut state = authority.state();
        state.signer = signer;
        let line = state.line(&statement);
        state.signer = 0;
        line
    };
    let cut = line(&|_| {}, 0);
    let huge = [vec![b'x'; 9 << 20], b"\n".to_vec()].concat();
    let lies: Vec<(Vec<u8>, &str)> = vec![
        (line(&|_| {}, 1), "none of its keys has signed it"),
        (
            line(&|lie| (lie.number, lie.statement_keys) = (u64::MAX, vec![statement_key(1)]), 1),
            "the key that has signed it, ",
        ),
        (
            line(&|lie| lie.statement_keys.push(statement_key(1)), 0),
            "is not known, and no TLS CA that is known vouches for it",
        ),
        (
            line(&|lie| lie.cluster = "other".to_owned(), 0),
            "it is of the cluster other, and not of id.example.com",
        ),
        (line(&|lie| lie.number -= 1, 0), "it is older than what was heard before"),
        (line(&|lie| lie.made -= 90, 0), "it is older than what was heard before"),
        (line(&|lie| lie.made = now() + 120, 0), "it is from the future: made at"),
        (line(&|lie| (lie.number, lie.until) = (u64::MAX, now() - 61), 0), "it is an old one: good until"),
        (
            line(&|lie| lie.trust.ssh_user_cas.clone_from(&lie.trust.ssh_host_cas), 0),
            "it has a new CA (ssh-user), and none that is known vouches for it",
        ),
        (b"<html>\n".to_vec(), "a line is not the JSON of an authority"),
        ([&cut[..40], b"\n"].concat(), "a line is not the JSON of an authority"),
        (huge, "a line is longer than 8388608 bytes"),
    ];
    drop(watch);
    authority.hang_up();
    let stepped = files();
    let mut watch = authority.watch([]);
    // It fetches the list whole, which says the same in other words.
    wait_for("the whole list", || (files() != stepped).then_some(()));
    let before = files();
    for (lie, words) in lies {
        let asked = authority.watched();
        authority.say(&lie);
        wait_for(&format!("{words} in {}", watch.stderr()), || watch.stderr().contains(words).then_some(()));
        // It makes the connection anew.
        wait_for("a watcher", || (authority.watched() > asked).then_some(()));
        assert!(files() == before, "{words}");
        drop(watch);
        authority.hang_up();
        watch = authority.watch([]);
    }
    authority.revoke(true, 9, false);
    wait_for("the KRL", || (authority.serials() == [7, 9]).then_some(()));
    // A higher number counts, whatever the other replica's clock says.
    authority.state().made = Some(now() - 30);
    authority.revoke(true, 11, false);
    wait_for("the KRL", || (authority.serials() == [7, 9, 11]).then_some(()));
}

#[test]
fn lists_that_are_swapped_are_noticed() {
    let authority = Stated::start();
    let refresh = || run(&mut authority.host("refresh"));
    stderr(&refresh(), 0);
    let old: Vec<_> = {
        let state = authority.state();
        ["/v1/revoked/ssh.krl", "/v1/revoked/tls.crl"].map(|path| (path, 200, state.answer(path).1)).into()
    };
    authority.revoke(true, 7, false);
    authority.revoke(false, 9, false);
    authority.state().lies = old;
    let said = stderr(&refresh(), 5);
    assert!(
        said.contains("/v1/revoked/ssh.krl cannot be used: it is not the list that the authority states"),
        "{said}"
    );
    authority.state().lies.remove(0);
    let said = stderr(&refresh(), 5);
    assert!(
        said.contains("/v1/revoked/tls.crl cannot be used: it is not the list that the authority states"),
        "{said}"
    );
    // The other one is there all the same.
    assert_eq!(authority.serials(), [7]);
    // Another trust is not even asked for; and who leaves the statement out could give any.
    let trust = br#"{"ssh_user_cas": []}"#.to_vec();
    authority.state().lies = vec![("/v1/trust", 200, trust)];
    stderr(&refresh(), 0);
    authority.state().lies = vec![("/v1/statement", 404, Vec::new())];
    let said = stderr(&refresh(), 5);
    assert!(said.contains("/v1/statement cannot be used: it is not there any more"), "{said}");
    authority.state().lies = vec![("/v1/statement", 200, b"x".to_vec())];
    assert!(
        stderr(&refresh(), 5).contains("/v1/statement cannot be used: it is not the JSON of an authority")
    );
    // Nor does it help to say what was so.
    authority.state().lies.clear();
    let replayed = authority.state().answer("/v1/statement").1;
    authority.revoke(true, 11, false);
    stderr(&refresh(), 0);
    authority.state().lies = vec![("/v1/statement", 200, replayed)];
    let said = stderr(&refresh(), 5);
    assert!(said.contains("cannot be believed: it is older than what was heard before"), "{said}");
    assert!(said.contains("hint: the files of it stay as they are; where the clocks are right"), "{said}");
    assert_eq!(authority.serials(), [7, 11]);
    // A damaged memory is no memory of nothing.
    std::fs::write(authority.path("trust/authority.heard"), "{}").unwrap();
    let said = stderr(&refresh(), 6);
    assert!(
        said.contains("authority.heard: it is damaged: ") && said.contains("removed, the next one"),
        "{said}"
    );
}

#[test]
fn the_first_one_may_be_given() {
    let authority = Stated::start();
    let refresh = |key: &str| run(authority.host("refresh").args(["--statement-key", key]));
    let said = stderr(&refresh(&statement_key(1)), 5);
    assert!(said.contains("the key that --statement-key names has not signed it"), "{said}");
    assert!(
        !authority.path("trust/ssh_user_ca.pub").exists()
            && !authority.path("trust/authority.heard").exists()
    );
    stderr(&refresh(&statement_key(0)), 0);
    // Once it is known, keys follow one another as the TLS CA says.
    {
        let mut state = authority.state();
        state.keys = vec![0, 1];
        state.endorse("statement", &statement_key(1));
        state.number += 1;
    }
    stderr(&refresh(&statement_key(0)), 0);
    authority.state().signer = 1;
    authority.state().number += 1;
    authority.state().keys = vec![1];
    stderr(&refresh(&statement_key(0)), 0);
    authority.state().signer = 0;
    authority.state().keys = vec![0, 1];
    assert!(stderr(&refresh(&statement_key(0)), 5).contains("is not known"));
}

#[test]
fn cas_follow_one_another_and_the_way_to_the_authority_with_them() {
    let authority = Stated::start();
    let _watch = authority.watch([]);
    let before = read(authority.path("trust/tls_ca.crt"));
    authority.state().rotate_tls();
    authority.state().number += 1;
    authority.beat();
    wait_for("the new CA", || {
        (read(authority.path("trust/authority_ca.crt")).len() > before.len()).then_some(())
    });
    wait_for("its list first", || {
        (read(authority.path("trust/tls_ca.crt")).len() > before.len()).then_some(())
    });
    // The certificate is by the new one, which nobody gave: connections go on.
    authority.hang_up();
    wait_for("a watcher", || {
        authority.revoke(true, 7, true);
        authority.serials().contains(&7).then_some(())
    });
    // One that nobody vouches for is not taken, by whichever way.
    authority.state().ssh_user_cas = vec![0, 1];
    let said = stderr(&run(&mut authority.host("refresh")), 5);
    assert!(said.contains("it has a new CA (ssh-user), and none that is known vouches for it"), "{said}");
}

#[test]
fn nobody_gets_in_where_nothing_is_heard() {
    let authority = Stated::start();
    let (reloads, ours) = (authority.path("reloads"), authority.certificate(8));
    assert_eq!(
        stderr(&principals(&authority.path("trust"), &ours, "3s"), 5),
        "error: nobody gets in: nothing was heard of the authority yet\n\
         hint: see the log of `host watch`: is it running, and does it reach the authority?\n"
    );
    let reload = format!("printf x >> {}", reloads.display());
    let mut watch = authority.watch(["--fail-closed", "3s", "--reload", &reload]);
    authority.revoke(true, 7, false);
    wait_for("the KRL", || (authority.serials() == [7]).then_some(()));
    let [krl, ca] = ["trust/revoked.krl", "trust/tls_ca.crt"].map(|name| authority.path(name));
    let before = (std::fs::read(&krl).unwrap(), read(&ca));
    wait_for("a reload", || (log(&reloads) == 1).then_some(()));
    let lets_in = || principals(&authority.path("trust"), &ours, "3s").stdout == b"deploy\n";
    wait_for("a login", || {
        authority.beat();
        lets_in().then_some(())
    });

    // The connection is there, and nothing new comes: what was said already does not count.
    let repeated = {
        let state = authority.state();
        state.line(&state.statement(None, Vec::new()))
    };
    authority.say(&repeated);
    let begun = Instant::now();
    wait_for("the end", || {
        authority.say(&repeated);
        authority.refuses(&ours).then_some(())
    });
    assert!(begun.elapsed() > SECOND, "{:?}", begun.elapsed());
    wait_for("nobody's CA", || (read(&ca) != before.1).then_some(()));
    wait_for("a reload", || (log(&reloads) == 2).then_some(()));
    let said = stderr(&principals(&authority.path("trust"), &ours, "3s"), 5);
    assert!(said.starts_with("error: nobody gets in: nothing new was heard of the authority for "), "{said}");
    wait_for("a warning", || watch.stderr().contains("nobody gets in until it is heard again").then_some(()));

    // Neither a repetition nor lists alone open it.
    authority.state().lies.push(("/v1/statement", 200, repeated.clone()));
    let said = stderr(&run(&mut authority.host("refresh")), 5);
    assert!(said.contains("it is nothing new, and nobody is let in until something is"), "{said}");
    authority.say(&repeated);
    assert!(authority.refuses(&ours));
    authority.state().lies.clear();
    // Heard again, all is as it was, byte for byte.
    authority.beat();
    wait_for("the KRL", || (!authority.refuses(&ours)).then_some(()));
    wait_for("the CA", || ((std::fs::read(&krl).unwrap(), read(&ca)) == before).then_some(()));
    wait_for("a reload", || (log(&reloads) == 3).then_some(()));
    wait_for("a login", || {
        authority.beat();
        lets_in().then_some(())
    });

    // A watcher that was killed closes nothing itself.
    watch.signal(Signal::KILL);
    watch.wait();
    wait_for("the end", || {
        (principals(&authority.path("trust"), &ours, "3s").status.code() == Some(5)).then_some(())
    });
    // Nor does one that begins open anything before it hears; another run's hearing counts.
    authority.state().is_silent = true;
    let _watch = authority.begin(["--fail-closed", "1s"]);
    wait_for("the end", || authority.refuses(&ours).then_some(()));
    stderr(&run(&mut authority.host("refresh")), 0);
    assert!(!authority.refuses(&ours) && read(&ca) == before.1);
}

#[test]
fn a_full_disk_lets_nobody_in_and_revokes_what_it_can_later() {
    let authority = Stated::start();
    let ours = authority.certificate(8);
    let disk = SmallDisk::mount(1);
    let trust = disk.path().join("trust");
    let mut watch = authority.host_in("watch", &trust);
    let watch = Running::start(watch.stderr(Stdio::piped()).stdout(Stdio::null()));
    wait_for("the files", || trust.join("tls_ca.crt").exists().then_some(()));
    let lets_in = || principals(&trust, &ours, "2s").status.success();
    wait_for("it is heard", || {
        authority.beat();
        lets_in().then_some(())
    });
    let filler = disk.fill("filler");
    let serials =
        || machine_id::krl::read(&std::fs::read(trust.join("revoked.krl")).unwrap()).unwrap().serials;
    authority.revoke(true, 7, true);
    wait_for("a warning", || watch.stderr().contains("cannot write ").then_some(()));
    wait_for("the end", || {
        authority.beat();
        (!lets_in()).then_some(())
    });
    assert!(serials().is_empty());
    std::fs::remove_file(filler).unwrap();
    wait_for("the KRL", || {
        authority.beat();
        (serials() == [7] && lets_in()).then_some(())
    });
}

#[test]
fn a_reload_that_fails_is_told_and_run_again() {
    let authority = Stated::start();
    let reloads = authority.path("reloads");
    let command = format!("printf x >> {0}; test $(wc -c < {0}) -gt 1", reloads.display());
    let watch = authority.watch(["--reload", &command]);
    wait_for("the second", || (log(&reloads) == 2).then_some(()));
    let said = watch.stderr();
    assert!(said.contains("warning: the command of --reload failed: it ended with exit status: 1"), "{said}");
    assert!(said.contains("hint: it is run again; until then servers have the lists of before"), "{said}");
}

#[test]
fn wrong_usage_ends_it() {
    let authority = Stated::start();
    let cases: [(&[&str], i32, &str); 3] = [
        (&["--fail-closed", "soon"], 2, "--fail-closed: `soon` is not a duration"),
        (&["--ca-pin", "sha256:x"], 2, "cannot be used with"),
        (&["--timeout", "2days"], 2, "--timeout: must be at most 24h"),
    ];
    for (args, code, words) in cases {
        let said = stderr(&run(authority.host("watch").args(args)), code);
        assert!(said.contains(words), "{said}");
    }
    std::fs::create_dir(authority.path("trust")).unwrap();
    succeed(command("chmod").arg("777").arg(authority.path("trust")));
    let said = stderr(&run(&mut authority.host("watch")), 6);
    assert!(said.contains("others can write to it"), "{said}");
}
