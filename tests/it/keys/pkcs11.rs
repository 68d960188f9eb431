//! CA keys in a token, by the real SoftHSM: `docs/keys.md`.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use crate::support::client::timed;
use crate::support::cluster::{Cluster, Role};
use crate::support::issuer::Issuer;
use crate::support::key_store::Token;
use crate::support::page;
use crate::support::process::{MACHINE_ID, command, machine_id, run, succeed};
use crate::support::replicas::Replicas;
use crate::support::softhsm::{CONF, PIN, SoftHsm, module};
use crate::support::wait_for;

const JOBS: usize = 24;
/// The objects of an authority's keys, in the order of `init`.
const LABELS: [&str; 4] =
    ["machine-id-ssh-user", "machine-id-ssh-host", "machine-id-statement", "machine-id-tls"];

#[test]
fn a_token_may_come_back_in_another_slot() {
    let (token, issuer) = (Token::new(), Issuer::start());
    let replicas = Replicas::of(vec![token.authority(&issuer).start()]);
    let load = replicas.load(&issuer);
    let mut replicas = replicas;
    load.during(JOBS, || {
        load.goes_on(100);
        token.hsm.take_away();
        load.fails_with("keys-unavailable");
        wait_for("not to be ready", || (!replicas.one(0).is_ready()).then_some(()));
        token.hsm.move_slots();
        token.hsm.put_back();
        load.goes_on(100);
        wait_for("to be ready", || replicas.one(0).is_ready().then_some(()));
        load.steal_what_was_used();
    });
    load.holds(|| replicas.audit());
    let said = replicas.one(0).stderr();
    assert!(said.contains("the token ca cannot be used") && !said.contains(PIN), "{said}");
    assert!(replicas.one(0).terminate().success());
}

#[test]
fn a_call_that_hangs_holds_up_nobody_for_long() {
    let (token, issuer) = (Token::new(), Issuer::start());
    let mut replicas = Replicas::of(vec![token.authority(&issuer).start()]);
    let load = replicas.load(&issuer);
    load.during(JOBS, || {
        load.goes_on(100);
        let hanging = token.hsm.hang();
        wait_for("not to be ready", || (!replicas.one(0).is_ready()).then_some(()));
        let (_, time) = timed(|| load.fails_with("keys-unavailable"));
        assert!(time < Duration::from_secs(15), "{time:?}");
        drop(hanging);
        load.goes_on(100);
    });
    load.holds(|| replicas.audit());
    let said = replicas.one(0).stderr();
    assert!(said.contains("the token ca did not answer within 8 seconds"), "{said}");
}

#[test]
fn authorities_share_a_token_and_a_store() {
    let (token, issuer, cluster) = (Token::new(), Issuer::start(), Cluster::start());
    let urls = [Role::Owner, Role::Server].map(|role| cluster.url(role));
    let first = token.authority(&issuer).store(&urls[0], &urls[1]).start();
    let second = first.replica();
    let mut replicas = Replicas::of(vec![first, second]);
    let load = replicas.load(&issuer);
    load.during(JOBS, || {
        load.goes_on(200);
        token.hsm.take_away();
        load.fails_with("keys-unavailable");
        replicas.one(1).kill();
        token.hsm.put_back();
        replicas.one(1).restart();
        load.goes_on(200);
    });
    load.holds(|| replicas.audit());
}

#[test]
fn an_authority_without_its_keys_does_not_start() {
    let (token, issuer) = (Token::new(), Issuer::start());
    let mut authority = token.authority(&issuer).start();
    let private = token.tool(&["--list-objects", "--type", "privkey"]);
    for label in LABELS {
        assert_eq!(private.matches(&format!("label:      {label}\n")).count(), 1, "{private}");
    }
    assert!(authority.terminate().success());
    token.hsm.write_pin("99999999");
    let said = authority.refuses_to_start();
    assert!(said.contains("exit status: 2") && said.contains("it refuses the PIN of"), "{said}");
    token.hsm.write_pin(PIN);
    token.hsm.take_away();
    let said = authority.refuses_to_start();
    assert!(said.contains("exit status: 5") && said.contains("the token ca cannot be used"), "{said}");
    assert_eq!(authority.run(["export", "tls-ca"]).status.code(), Some(5));
    token.hsm.put_back();
    token.tool(&["--delete-object", "--type", "privkey", "--label", "machine-id-ssh-host"]);
    let said = authority.refuses_to_start();
    assert!(said.contains("exit status: 2") && said.contains("no private key of that label"), "{said}");
    token.tool(&["--delete-object", "--type", "pubkey", "--label", "machine-id-ssh-host"]);
    let said = authority.refuses_to_start();
    assert!(said.contains("object machine-id-ssh-host in the token ca is missing"), "{said}");
}

/// `docs/keys.md`, word for word: its paths are the test's, and there is no other user.
#[test]
fn the_page_leads_to_an_authority_with_its_keys_in_a_token() {
    let folder = TempDir::new().unwrap();
    let hsm = SoftHsm::new(folder.path());
    let (data, bin) = (folder.path().join("data"), folder.path().join("bin"));
    fs::create_dir(&bin).unwrap();
    fs::create_dir(&data).unwrap();
    fs::write(bin.join("sudo"), "#!/bin/sh\nshift 2\nexec \"$@\"\n").unwrap();
    succeed(command("chmod").arg("755").arg(bin.join("sudo")));
    succeed(command("chmod").arg("700").arg(&data));
    std::os::unix::fs::symlink(MACHINE_ID, bin.join("machine-id")).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let types = |block: &str| {
        let text = page::file("../keys.md", block).replace("/var/lib/machine-id", data.to_str().unwrap());
        let text = text.replace("/usr/lib/softhsm/libsofthsm2.so", module().to_str().unwrap());
        let mut shell = command("sh");
        run(shell.args(["-euc", &text]).env("PATH", &path).env(CONF, hsm.conf()))
    };
    for block in ["token", "init-token"] {
        let output = types(block);
        assert!(output.status.success(), "{output:?}");
    }
    let looked = String::from_utf8(types("look").stdout).unwrap();
    for said in LABELS.iter().chain(&["the CA keys sign, and belong to their public keys"]) {
        assert!(looked.contains(said), "{looked}");
    }
}

#[test]
fn what_a_failed_init_leaves_is_named() {
    let token = Token::new();
    let folder = TempDir::new().unwrap();
    let init = |name: &str, keys: &str| {
        let data: PathBuf = folder.path().join(name);
        let mut init = machine_id(["authority", "init", "--cluster", "id.test", "--keys", keys]);
        init.args(["--public-url", "https://id.test", "--data-dir"]).arg(&data).env(CONF, token.hsm.conf());
        let output = run(init.arg("--tls-ca-csr").arg(folder.path().join(format!("{name}.csr"))));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() == data.exists() && !said.contains(PIN), "{said}");
        (output.status.code().unwrap(), said)
    };
    let uri = token.hsm.uri("ca");
    token.tool(&["--keypairgen", "--key-type", "EC:secp256r1", "--label", "machine-id-tls"]);
    let (code, said) = init("one", &uri);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("cannot make the object machine-id-tls in the token ca"), "{said}");
    let left = LABELS[..3].iter().map(|label| format!("object {label} in the token ca"));
    let left = format!("are to be destroyed: {}", left.collect::<Vec<_>>().join(", "));
    assert!(said.contains(&left), "{said}");
    // What another has made is nobody's to destroy.
    let (code, said) = init("two", &uri);
    assert!(
        code == 2 && said.contains("object machine-id-ssh-user") && !said.contains("destroyed"),
        "{said}"
    );
    let other = uri.replacen('?', ";object=other?", 1);
    assert_eq!(init("three", &other).0, 0);
    for wrong in [format!("{uri}&pin-value={PIN}"), "pkcs11:token=ca".to_owned(), "file:a/b".to_owned()] {
        assert_eq!(init("four", &wrong).0, 2, "{wrong}");
    }
    assert_eq!(init("five", &uri.replace("=ca?", "=cb?")).0, 5);
    // A PIN is where it is, for the request as well.
    succeed(command("mkdir").args(["-m", "700"]).arg(folder.path().join("six")));
    fs::copy(token.hsm.pin(), folder.path().join("six/pin")).unwrap();
    let (near, _) = uri.split_once("file:").unwrap();
    let (code, said) = init("six", &format!("{}file:pin", near.replacen('?', ";object=six?", 1)));
    assert!(code == 0 && folder.path().join("six.csr").exists(), "{said}");
    let config = fs::read_to_string(folder.path().join("three/authority.yaml")).unwrap();
    assert!(config.contains(&format!("keys: '{other}'\n")), "{config}");
}
