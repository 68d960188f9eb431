//! The store of a running authority is the one that stands there, and one that was put back is known.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Data, chmod, said};
use crate::support::authority::Authority;
use crate::support::client::{Keys, Response};
use crate::support::issuer::Issuer;
use crate::support::process::{command, machine_id, run, succeed};
use crate::support::{now, policies, wait_for};

pub(super) const HOST_KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0YqhzPp1iPXzqmYNcW4Q2a9ZDWCN1GjkXuYv8VZTxk a-host\n";

struct Bench {
    issuer: Issuer,
    authority: Authority,
}

impl Bench {
    fn start() -> Self {
        let issuer = Issuer::start();
        let authority = Authority::trusting(&issuer, &policies::basic(&issuer));
        Self { issuer, authority }
    }

    fn store(&self, end: &str) -> PathBuf {
        self.authority.data_dir().join(format!("authority.db{end}"))
    }

    fn token(&self, keys: &Keys) -> String {
        self.issuer.token("github", &keys.audience(&self.authority.url())).mint()
    }

    fn present(&self, token: &str, keys: &Keys) -> Response {
        self.authority.client().exchange(&keys.request("github-deploy", "github", token))
    }

    fn ask(&self) -> Response {
        let keys = Keys::fresh();
        self.present(&self.token(&keys), &keys)
    }

    fn ready(&self) -> Response {
        self.authority.client().get("/readyz")
    }

    /// Nothing is given, taken or listed, and whoever asks hears why.
    #[track_caller]
    fn has_lost(&self) {
        let (exchange, ready) = (self.ask(), self.ready());
        assert_eq!((exchange.status, ready.status), (503, 503), "{} {}", exchange.text(), ready.text());
        for told in [&exchange, &ready] {
            assert!(told.text().contains("urn:machine-id:store-lost-commits"), "{}", told.text());
        }
        assert!(!exchange.text().contains("event"), "{}", exchange.text());
        for word in ["the store ends with ", "authority resume"] {
            assert!(ready.text().contains(word), "{}", ready.text());
        }
        for path in ["/v1/revoked", "/v1/revoked/ssh.krl", "/v1/revoked/tls.crl"] {
            // One that was made before is served for as long as nobody would ask the store anyway.
            let list = || Some(self.authority.client().get(path)).filter(|list| list.status != 200);
            let list = wait_for("no list", list);
            assert!(
                list.problem(503)["type"] == "urn:machine-id:store-lost-commits",
                "{path}: {}",
                list.text()
            );
        }
        assert_eq!(self.authority.client().get("/healthz").status, 200);
        // Commands that sign do not, and those that read do.
        let key = self.authority.data_dir().join("host.pub");
        std::fs::write(&key, HOST_KEY).unwrap();
        let (out, key) = (self.store(".out"), key.to_str().unwrap().to_owned());
        let (host, server) = (
            ["sign-host", "--principal", "x.test", &key],
            ["sign-server", "--name", "x.test", "--out", out.to_str().unwrap()],
        );
        for output in [self.authority.run(host), self.authority.run(server)] {
            assert_eq!(output.status.code(), Some(2), "{}", said(&output));
            assert!(said(&output).contains("the store ends with "), "{}", said(&output));
            assert!(
                said(&output).contains("hint: nothing is issued, signed or revoked"),
                "{}",
                said(&output)
            );
        }
        assert!(!out.exists());
        for reading in [["audit"], ["instances"], ["check"]] {
            assert!(self.authority.run(reading).status.success(), "{reading:?}");
        }
        let told = self.authority.run(["resume"]);
        assert_eq!(told.status.code(), Some(2), "{}", said(&told));
        for word in ["the store ends with ", "cannot be revoked", "resume --accept-loss --data-dir "] {
            assert!(said(&told).contains(word), "{}", said(&told));
        }
    }

    /// The operator's word, which a running authority hears.
    fn resume(&self) {
        let told = succeed(&mut self.authority.command(["resume", "--accept-loss"]));
        assert!(told.starts_with("resumed: "), "{told}");
        if !self.authority.stderr().is_empty() {
            wait_for("that it goes on", || (self.ready().status == 200).then_some(()));
            assert!(self.ready().text().contains("was put back from a copy"), "{}", self.ready().text());
        }
        let told = succeed(&mut self.authority.command(["resume", "--accept-loss"]));
        assert!(told.contains("has lost nothing"), "{told}");
    }

    /// Runs `serve` on what is there now, which must end by itself.
    fn refused(&self) -> String {
        said(&run(&mut self.authority.command(["serve", "--listen", "192.0.2.1:1"])))
    }
}

#[test]
fn a_store_that_is_lost_stops_the_issuing() {
    let mut bench = Bench::start();
    bench.ask().granted();
    for (end, replaced) in [("", false), ("", true), ("-wal", false)] {
        let (file, away) = (bench.store(end), bench.store(".away"));
        std::fs::rename(&file, &away).unwrap();
        if replaced {
            std::fs::copy(&away, &file).unwrap();
        }
        let (exchange, ready) = (bench.ask(), bench.ready());
        assert_eq!(exchange.status, 503, "{}", exchange.text());
        assert!(exchange.text().contains("urn:machine-id:store-unavailable"), "{}", exchange.text());
        assert_eq!(ready.status, 503, "{}", ready.text());
        let why = format!(
            "the store's file {} was {} while it is open",
            file.display(),
            if replaced { "replaced" } else { "removed" }
        );
        bench.authority.wait_for_stderr(&why);
        bench.ask();
        assert_eq!(bench.authority.stderr().matches(&why).count(), 1, "{}", bench.authority.stderr());
        // The same file heals it without a restart.
        std::fs::rename(&away, &file).unwrap();
        bench.ask().granted();
        wait_for("a word that it is back", || {
            bench.authority.stderr().ends_with("the store is as it should be again\n").then_some(())
        });
    }
    // With a certificate that nobody would know of, nothing is served, nor signed by a command.
    std::fs::remove_file(bench.store("")).unwrap();
    assert_eq!(bench.ask().status, 503);
    bench.authority.kill();
    let lost = ["there is no such file", "authority new-store` begins an empty one"];
    let out = bench.store(".out");
    let signing = ["sign-server", "--name", "db.test", "--out", out.to_str().unwrap()];
    for refused in [said(&run(&mut bench.authority.command(signing))), bench.refused()] {
        assert!(lost.iter().all(|word| refused.contains(word)), "{refused}");
    }
    assert!(!out.exists());
    std::fs::write(bench.store(""), "").unwrap();
    let refused = bench.refused();
    assert!(refused.contains("the file is empty"), "{refused}");

    // The operator's own word, which everybody hears of.
    let told = succeed(&mut bench.authority.command(["new-store"]));
    assert!(told.contains("cannot be revoked any more"), "{told}");
    bench.authority.restart();
    assert!(bench.ready().text().contains("was put back from a copy"), "{}", bench.ready().text());
    assert!(bench.authority.stderr().contains("was put back from a copy or begun anew"));
    assert_eq!(bench.authority.audit()[0]["reason"], "new_store");
    assert!(!run(&mut bench.authority.command(["new-store"])).status.success());
    bench.ask().granted();
}

/// `cp` and `>` leave the file that it is, and change what is in it.
#[test]
fn a_store_that_is_written_over_stops_the_issuing() {
    let mut bench = Bench::start();
    std::fs::copy(bench.store(""), bench.store(".backup")).unwrap();
    // Until the file has grown by what its log has.
    let length = || std::fs::metadata(bench.store("")).unwrap().len();
    let before = length();
    while length() == before {
        bench.ask().granted();
        let other = rusqlite::Connection::open(bench.store("")).unwrap();
        other.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).unwrap();
    }
    bench.ask().granted();
    let said = format!("\"sequence\":{},", bench.authority.audit().len());
    let marked = || std::fs::read_to_string(bench.store(".mark")).unwrap();
    wait_for("the mark", || marked().contains(&said).then_some(()));

    let file = std::fs::File::options().write(true).open(bench.store("")).unwrap();
    file.set_len(0).unwrap();
    assert_eq!((bench.ask().status, bench.ready().status), (503, 503));
    let backup = std::fs::read(bench.store(".backup")).unwrap();
    std::io::Write::write_all(&mut &file, &backup).unwrap();
    assert_eq!((bench.ask().status, bench.ready().status), (503, 503));
    bench.authority.wait_for_stderr("was emptied or written over while it is open");
    // Its end leaves what was put there as it is.
    bench.authority.terminate();
    assert!(std::fs::read(bench.store("")).unwrap() == backup);
    for end in ["-wal", "-shm"] {
        std::fs::remove_file(bench.store(end)).unwrap();
    }
    bench.authority.restart();
    bench.has_lost();
    bench.resume();
    bench.ask().granted();
}

/// As `sqlite3 authority.db '.restore copy.db'` does it.
#[test]
fn a_store_that_goes_back_stops_the_issuing() {
    let bench = Bench::start();
    for _ in 0..3 {
        bench.ask().granted();
    }
    let said = format!("\"sequence\":{},", bench.authority.audit().len());
    let marked = || std::fs::read_to_string(bench.store(".mark")).unwrap();
    wait_for("the mark", || marked().contains(&said).then_some(()));
    let other = rusqlite::Connection::open(bench.store("")).unwrap();
    other.pragma_update(None, "foreign_keys", false).unwrap();
    other.execute_batch("DROP TRIGGER events_stay; DELETE FROM events WHERE sequence > 2").unwrap();
    drop(other);
    assert_eq!(bench.ask().problem(503)["type"], "urn:machine-id:store-lost-commits", "at once");
    bench.authority.wait_for_stderr("the store ends with event 2 of ");
    bench.has_lost();
    assert!(marked().contains(&said), "{}", marked());
    // Without a restart.
    bench.resume();
    bench.authority.wait_for_stderr("the store is as it should be again\nwarning: the store was put back");
    let keys = Keys::fresh();
    let token = bench.issuer.token("github", &keys.audience(&bench.authority.url())).claim("iat", now() - 30);
    let refused = bench.present(&token.mint(), &keys);
    assert_eq!(bench.authority.refusal(&refused.denial(401))["reason"], "token_used");
    wait_for("a token of after it", || (bench.ask().status == 200).then_some(()));
}

#[test]
fn a_store_that_was_put_back_is_known() {
    let mut bench = Bench::start();
    bench.ask().granted();
    assert_eq!(bench.authority.terminate().code(), Some(0));
    std::fs::copy(bench.store(""), bench.store(".backup")).unwrap();
    bench.authority.restart();
    let keys = Keys::fresh();
    let used = bench.issuer.token("github", &bench.authority.url()).claim("iat", now() - 1);
    let bound = bench.issuer.token("github", &keys.audience(&bench.authority.url())).claim("iat", now() - 1);
    for token in [&used, &bound] {
        bench.present(&token.mint(), &keys).granted();
    }
    // The mark is at most a second behind, so that the end of the authority need not be an orderly one.
    let marked = || std::fs::read_to_string(bench.store(".mark")).unwrap();
    let events = bench.authority.audit().len();
    wait_for("the mark", || marked().contains(&format!("\"sequence\":{events},")).then_some(()));
    bench.authority.kill();
    // No alarm over that.
    bench.authority.restart();
    assert!(!bench.ready().text().contains("put back"), "{}", bench.ready().text());
    bench.authority.kill();

    for end in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(bench.store(end));
    }
    std::fs::copy(bench.store(".backup"), bench.store("")).unwrap();
    bench.authority.restart();
    assert!(bench.authority.stderr().contains("not ready: "), "{}", bench.authority.stderr());
    bench.has_lost();
    assert_eq!(bench.present(&bound.mint(), &keys).status, 503);
    // Nor by itself at another start.
    bench.authority.restart();
    bench.has_lost();
    bench.resume();
    let trail = bench.authority.audit();
    let of = |kind: &str| trail.iter().filter(|event| event["event"] == kind).cloned().collect::<Vec<_>>();
    assert_eq!((of("lost").len(), &of("restored")[0]["reason"]), (1, &"accepted_loss".into()));
    assert_eq!(of("lost")[0]["detail"], of("restored")[0]["detail"]);
    // Used before, which nobody remembers; and one that was not.
    for token in [used.mint(), bound.mint(), used.claim("jti", "another").mint()] {
        let refused = bench.present(&token, &Keys::fresh());
        let refusal = bench.authority.refusal(&refused.denial(401));
        assert!(
            ["token_used", "binding_wrong"].iter().any(|reason| refusal["reason"] == *reason),
            "{refusal}"
        );
    }
    // Nor does one of a job that no rule lets in get into the trail so.
    let stranger = bench
        .issuer
        .token("github", &bench.authority.url())
        .claim("iat", now() - 60)
        .claim("repository", "stranger/app");
    let refused = bench.present(&stranger.mint(), &Keys::fresh());
    assert_eq!(bench.authority.refusal(&refused.denial(403))["reason"], "no_rule_matches");
    let refused = bench.present(&bound.mint(), &keys);
    let refusal = bench.authority.refusal(&refused.denial(401));
    assert_eq!(refusal["reason"], "token_used");
    assert!(refused.text().contains("from before the authority's store was put back"), "{}", refused.text());
    // Of a job that no rule lets in, nothing is said of the store, nor kept in the trail for ever.
    let stranger = bound.claim("repository", "stranger/app").claim("jti", "a stranger's");
    let refused = bench.present(&stranger.mint(), &keys);
    assert_eq!(bench.authority.refusal(&refused.denial(403))["reason"], "no_rule_matches");
    // What a job mints now is taken.
    wait_for("a token of after it", || (bench.ask().status == 200).then_some(()));
    bench.authority.restart();
    assert!(bench.ready().text().contains("was put back from a copy"), "for as long as it matters");
}

/// Whoever watches the authority learns that a copy would not be known for one.
#[test]
fn a_mark_that_cannot_be_written_is_told() {
    let bench = Bench::start();
    std::fs::remove_file(bench.store(".mark")).unwrap();
    std::fs::create_dir_all(bench.store(".mark/in-its-place")).unwrap();
    bench.ask().granted();
    wait_for("a warning", || bench.ready().text().contains("cannot write the mark beside").then_some(()));
    assert_eq!(bench.ready().status, 200);
    std::fs::remove_dir_all(bench.store(".mark")).unwrap();
    wait_for("that it is over", || bench.ready().text().ends_with("\"status\":\"ready\"}").then_some(()));
}

fn as_another(command: &mut Command) -> String {
    let output = run(command.uid(4242).gid(4343));
    format!("{}{}", said(&output), String::from_utf8_lossy(&output.stdout))
}

/// What is wrong is said, with whose it is and who we are.
#[test]
fn a_store_that_cannot_be_opened_says_why() {
    let data = Data::new();
    std::fs::remove_dir_all(data.path("elsewhere")).unwrap_err();
    data.config("store: sqlite:elsewhere/a.db\n");
    data.is_refused(&["the folder ", "/elsewhere does not exist"]);
    data.config("store: sqlite:policy\n");
    data.is_refused(&["cannot open the store ", "it is not a plain file"]);
    data.config("store: sqlite:text.db\n");
    std::fs::write(data.path("text.db"), "text, and no database, for as long as it takes".repeat(30))
        .unwrap();
    data.is_refused(&["cannot open the database: it is not a database", "put it back from a backup"]);
    data.config("");
    data.is_good();
    if !rustix::process::geteuid().is_root() {
        return;
    }
    succeed(command("chown").args(["-R", "4242:4343"]).arg(data.path("")));
    chmod(data.0.path(), 0o755);
    let serve = || as_another(&mut data.serving());
    assert!(serve().contains("192.0.2.1:1"), "{}", serve());
    for (name, uid, mode, why, hint) in [
        (
            "authority.db",
            0,
            0o600,
            "authority.db belongs to uid 0, gid 0 (mode 600), and this process, of uid 4242, may not write to it",
            "hint: run it as the user of uid 0, or `chown 4242 /",
        ),
        (
            "authority.db",
            4242,
            0o400,
            "authority.db belongs to uid 4242, gid 0 (mode 400), and this process, of uid 4242, may not write to it",
            "hint: chmod u+rwX /",
        ),
        (
            "",
            4242,
            0o500,
            "belongs to uid 4242, gid 0 (mode 500), and this process, of uid 4242, may not make files in it",
            "hint: chmod u+rwX /",
        ),
    ] {
        let mode_before = if name.is_empty() { 0o700 } else { 0o600 };
        chown(data.path(name), Some(uid), Some(0)).unwrap();
        chmod(data.path(name), mode);
        let refused = serve();
        assert!(refused.contains(why) && refused.contains(hint), "{refused}");
        chmod(data.path(name), mode_before);
        chown(data.path(name), Some(4242), Some(4343)).unwrap();
    }
    // Root's commands leave nothing that the authority's user cannot use.
    succeed(
        machine_id(["authority", "sign-server", "--name", "x.test", "--out"])
            .arg(data.path("out"))
            .arg("--data-dir")
            .arg(data.path("")),
    );
    assert!(serve().contains("192.0.2.1:1"), "{}", serve());
}

/// Everything there as it was before, by its names, sizes and times.
fn state(path: &Path) -> String {
    succeed(command("find").arg(path).args(["-printf", "%p %s %T@ %C@ %m %U\n"]))
}

/// A copy for an auditor, who can read it and nothing more.
#[test]
fn a_copy_is_read_as_it_is() {
    let bench = Bench::start();
    let refused = bench.present("x", &Keys::fresh());
    let denial = refused.denial(401);
    bench.ask().granted();
    let data = bench.authority.data_dir();
    let root = rustix::process::geteuid().is_root();
    let read = |copy: &Path, state: &dyn Fn(&Path) -> String, wrap: &dyn Fn(Command) -> Command| {
        let before = state(copy);
        let run_ = |args: &[&str]| {
            let mut plain = machine_id(["authority"]);
            plain.args(args).arg("--data-dir").arg(copy);
            let output = run(&mut wrap(plain));
            assert!(output.status.success(), "{args:?}: {}", said(&output));
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        assert!(run_(&["audit"]).contains(" issued "));
        assert!(run_(&["explain", &denial]).contains(&denial));
        assert!(run_(&["instances"]).contains("no worker is registered"));
        run_(&["check"]);
        assert_eq!(state(copy), before);
    };
    let another = |mut plain: Command| {
        if root {
            plain.uid(4242).gid(4343);
        }
        plain
    };
    // Beside the server, and of one that was killed, with or without `-shm`.
    read(&data, &|data| succeed(command("ls").arg("-ln").arg(data)), &|plain| plain);
    let temp = tempfile::tempdir().unwrap();
    chmod(temp.path(), 0o755);
    for (name, without) in [("with", &["none"][..]), ("shm", &["authority.db-shm"])] {
        let copy = temp.path().join(name);
        succeed(command("cp").arg("-r").arg(&data).arg(&copy));
        without.iter().for_each(|name| drop(std::fs::remove_file(copy.join(name))));
        if root {
            succeed(command("chown").args(["-R", "4242:4343"]).arg(&copy));
        }
        succeed(command("chmod").args(["-R", "a-w"]).arg(&copy));
        read(&copy, &state, &another);
        if root && run(command("unshare").args(["--mount", "true"])).status.success() {
            read(&copy, &state, &|plain| {
                let line =
                    "mount --bind \"$1\" \"$1\" && mount -o remount,bind,ro \"$1\" && shift && exec \"$@\"";
                let mut mounted = command("unshare");
                mounted
                    .args(["--mount", "sh", "-c", line, "sh"])
                    .arg(&copy)
                    .arg(plain.get_program())
                    .args(plain.get_args());
                mounted
            });
        }
        succeed(command("chmod").args(["-R", "u+w"]).arg(&copy));
    }
    // What signs says that it cannot, on a disk that is read-only.
    if root && run(command("unshare").args(["--mount", "true"])).status.success() {
        let line = "mount --bind \"$1\" \"$1\" && mount -o remount,bind,ro \"$1\" && shift && exec \"$@\"";
        let mut serve = command("unshare");
        serve.args(["--mount", "sh", "-c", line, "sh"]).arg(&data).arg(crate::support::process::MACHINE_ID);
        let refused = said(&run(serve.args(["authority", "serve", "--data-dir"]).arg(&data)));
        assert!(refused.contains("is on a file system that is mounted read-only"), "{refused}");
        assert!(
            refused
                .contains("hint: mount it for writing; `audit`, `explain` and `instances` read it as it is"),
            "{refused}"
        );
    }
}
