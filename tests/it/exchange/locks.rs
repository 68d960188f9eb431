//! Locks by the operator's command, beside a running authority.

use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};

use super::Bench;
use crate::support::authority::Authority;
use crate::support::client::Keys;
use crate::support::issuer::Issuer;
use crate::support::policies;
use crate::support::process::{run, succeed};
use crate::support::token::Token;

impl Bench {
    /// What the command says, which goes well.
    fn operator<const N: usize>(&self, args: [&str; N]) -> String {
        succeed(&mut self.authority.command(args))
    }

    /// What the command says, which ends with 2.
    fn mistaken<const N: usize>(&self, args: [&str; N]) -> String {
        let ended = self.authority.run(args);
        assert_eq!(ended.status.code(), Some(2), "{args:?}");
        String::from_utf8(ended.stderr).unwrap()
    }

    /// Certificates for a job whose token says so.
    fn grant_as(&self, change: impl FnOnce(Token) -> Token) -> Value {
        let keys = Keys::fresh();
        self.present(&change(self.bound(&keys)).mint(), &keys).granted()
    }

    /// The serials on the lists, as hosts get them.
    fn listed(&self) -> Vec<String> {
        let ends = self.authority.client().get("/v1/revoked").json();
        ends["expires"].as_object().unwrap().keys().cloned().collect()
    }
}

fn serials(granted: &Value) -> Vec<String> {
    let output = &granted["outputs"][0];
    let ssh = ssh_key::Certificate::from_openssh(output["ssh_certificate"].as_str().unwrap()).unwrap();
    vec![ssh.serial().to_string()]
}

#[test]
fn a_bot_that_is_locked_is_told_why_and_loses_what_it_holds() {
    let bench = Bench::start();
    let keys = Keys::fresh();
    let granted = bench.grant(&keys);
    let would = bench.operator(["lock", "--bot", "deployer", "--dry-run"]);
    let id = granted["issuance_id"].as_str().unwrap();
    assert!(
        would.contains("this would lock bot deployer, and revoke 1 issuance with 2 certificates")
            && would.contains(id),
        "{would}"
    );
    assert!(bench.listed().is_empty());

    let told = "the repository was taken over: see the channel #incidents";
    let said = bench.operator(["lock", "--bot", "deployer", "--message", told, "--ttl", "2h"]);
    let since = Instant::now();
    assert!(
        said.starts_with("locked bot deployer until 2")
            && said.contains("1 issuance with 2 certificates is revoked"),
        "{said}"
    );
    // At once, with a token that is used by nothing.
    let token = bench.bound(&keys).mint();
    let refused = bench.present(&token, &keys);
    let problem = refused.problem(403);
    assert_eq!(problem["type"], "urn:machine-id:locked-out", "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains(told), "{problem}");
    let denial = problem["denial_id"].as_str().unwrap();
    let story = bench.operator(["explain", denial]);
    assert!(
        story.contains("reason: locked_out") && story.contains("of bot deployer") && story.contains(told),
        "{story}"
    );
    while !serials(&granted).iter().all(|serial| bench.listed().contains(serial)) {
        assert!(since.elapsed().as_secs() < 2, "{:?}", bench.listed());
    }

    let locks = bench.operator(["locks"]);
    assert!(locks.starts_with("bot deployer until 2") && locks.trim_end().ends_with(told), "{locks}");
    let lock: Value = serde_json::from_str(&bench.operator(["locks", "--format", "json"])).unwrap();
    assert_eq!(
        (&lock["kind"], &lock["value"], &lock["message"]),
        (&json!("bot"), &json!("deployer"), &json!(told))
    );
    let user = String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
    assert!(lock["by"].as_str().unwrap().starts_with(user.trim()), "{lock}");

    let said = bench.operator(["unlock", "--bot", "deployer"]);
    assert_eq!(said, "unlocked bot deployer: what it has revoked stays revoked\n");
    bench.present(&token, &keys).granted();
    assert!(serials(&granted).iter().all(|serial| bench.listed().contains(serial)));
    assert_eq!(bench.operator(["locks"]), "nobody is locked\n");
    let events: Vec<Value> = bench.authority.audit();
    let of_lock: Vec<&str> = events
        .iter()
        .filter(|event| event["lock_id"] == lock["id"])
        .map(|event| event["event"].as_str().unwrap())
        .collect();
    assert_eq!(of_lock, ["locked", "revoked", "unlocked"]);
    let page = bench.operator(["audit"]);
    let line = page.lines().find(|line| line.contains(" locked l-")).unwrap();
    for part in ["bot=deployer", "kind=bot", "issuances_revoked=1", "certificates_revoked=2", "#incidents"] {
        assert!(line.contains(part), "{line}");
    }
    assert!(
        page.lines().any(|line| line.contains(" revoked l-") && line.contains(&format!("issuances={id}"))),
        "{page}"
    );
}

#[test]
fn a_serial_is_locked_as_tools_print_it() {
    let bench = Bench::start();
    let granted = bench.grant(&Keys::fresh());
    let serial: u64 = serials(&granted)[0].parse().unwrap();
    let hexadecimal = format!("{serial:X}");
    let pairs: Vec<String> = format!("{serial:016x}")
        .as_bytes()
        .chunks(2)
        .map(|pair| String::from_utf8_lossy(pair).into())
        .collect();
    for text in [serial.to_string(), format!("0x{hexadecimal}"), pairs.join(":")] {
        let would = bench.operator(["lock", "--serial", &text, "--dry-run"]);
        assert!(would.contains("1 issuance with 2 certificates"), "{text}: {would}");
    }
    for (text, said) in [
        ("1234", "in hexadecimal `0x1234` is 4660"),
        ("0x1234", "it was read as hexadecimal, 1234"),
        ("x", "is not the serial of a certificate of ours"),
    ] {
        let error = bench.mistaken(["lock", "--serial", text]);
        assert!(error.contains(said), "{text}: {error}");
    }
    assert!(bench.mistaken(["lock", "--issuance", "i-none"]).contains("issuance i-none was never issued"));
    let said = bench.operator(["lock", "--serial", &serial.to_string()]);
    assert_eq!(said, format!("locked serial {serial}: 1 issuance with 2 certificates is revoked\n"));
    // Of others it is none.
    bench.grant(&Keys::fresh());
}

/// By its name, and by that which it was given afterwards.
#[test]
fn a_repository_stays_locked_when_it_is_renamed() {
    let issuer = Issuer::start();
    let by_id = policies::basic(&issuer).replace("repository: octo-org/octo-repo", "repository_id: '740074'");
    let bench = Bench { authority: Authority::trusting(&issuer, &by_id), issuer };
    let granted = bench.grant(&Keys::fresh());
    let claims = &bench.authority.issuance(granted["issuance_id"].as_str().unwrap())["claims"];
    let (name, id) = (claims["repository"].as_str().unwrap(), claims["repository_id"].as_str().unwrap());
    let said = bench.operator(["lock", "--repository", name]);
    assert!(said.contains(&format!("its ids are locked with it: {id}")), "{said}");
    let keys = Keys::fresh();
    let renamed = bench.bound(&keys).claim("repository", "octo-org/other-name").mint();
    assert_eq!(bench.reason(&bench.present(&renamed, &keys), 403), "locked_out");
    bench.operator(["unlock", "--repository", name]);
    bench.grant_as(|token| token.claim("repository", "octo-org/other-name"));
}

#[test]
fn what_a_lock_is_about_is_looked_at() {
    let bench = Bench::start();
    for (args, said) in [
        (["lock", "--bot", "deployer", "--message", "two\nlines"], "`--message` is one line"),
        (["lock", "--bot", "", "--message", "x"], "`--bot` is empty"),
        (["lock", "--key", "SHA256:abc", "--message", "x"], "is not the SHA-256 of a key"),
        (["lock", "--bot", "deployer", "--ttl", "11y"], "`--ttl`"),
        (["lock", "--bot", "deployer", "--run", "7"], "cannot be used with"),
    ] {
        let error = bench.mistaken(args);
        assert!(error.contains(said), "{args:?}: {error}");
    }
    assert!(bench.mistaken(["lock"]).contains("required"));
    let error = bench.mistaken(["unlock", "--bot", "deployer"]);
    assert!(
        error.contains("there is no lock of bot deployer") && error.contains("nobody is locked"),
        "{error}"
    );
    bench.operator(["lock", "--all"]);
    assert!(bench.mistaken(["unlock", "--run", "7"]).contains("locked are: all"));
    let mistyped = bench.authority.run(["lock", "--bot", "deploier"]);
    let said = String::from_utf8(mistyped.stderr).unwrap();
    assert!(
        mistyped.status.success()
            && said.contains("the policy has no bot `deploier`")
            && said.contains("deployer"),
        "{said}"
    );
}

/// An operator in haste copies it from a browser.
#[test]
fn what_is_written_otherwise_is_told() {
    let bench = Bench::start();
    bench.grant(&Keys::fresh());
    let said = |value: &str, args: &[&str]| {
        let ended = run(bench.authority.command(["lock", "--repository", value]).args(args));
        assert!(ended.status.success());
        String::from_utf8(ended.stderr).unwrap()
    };
    for other in ["https://github.com/octo-org/octo-repo", "octo-org/octo-repo/", "octo-repo"] {
        for args in [&["--dry-run"][..], &[]] {
            let said = said(other, args);
            let warning =
                format!("warning: nothing was issued to repository {other} in the last ten days\nhint: ");
            assert!(said.contains(&warning), "{said}");
        }
    }
    assert_eq!(said(" Octo-Org/octo-repo ", &[]), "");
    bench.operator(["unlock", "--repository", "octo-org/Octo-repo"]);
}
