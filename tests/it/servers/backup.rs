//! `docs/backup.md`, word for word: its commands against a real authority.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tempfile::TempDir;

use crate::support::authority::Authority;
use crate::support::client::Keys;
use crate::support::issuer::Issuer;
use crate::support::process::{command, installed, read, run, succeed};
use crate::support::{now, policies, repository, wait_for};

/// A block of the page, by its name.
fn block(name: &str) -> String {
    let page = read(repository("docs/backup.md"));
    let (_, rest) =
        page.split_once(&format!("<!-- file: {name} -->\n```sh\n")).unwrap_or_else(|| panic!("no {name}"));
    rest.split_once("```").unwrap().0.to_owned()
}

/// The page's machine: its paths, and programs that only root may run there.
struct Machine<'a> {
    here: TempDir,
    data: &'a Path,
}

impl<'a> Machine<'a> {
    fn new(data: &'a Path) -> Self {
        assert!(installed("sqlite3"), "sqlite3 is not installed; tests/run installs it");
        let machine = Self { here: TempDir::new().unwrap(), data };
        machine.program("systemctl", "#!/bin/sh\n");
        machine.program("sudo", "#!/bin/sh\n[ \"$1\" != -u ] || shift 2\nexec \"$@\"\n");
        machine.program(
            "install",
            "#!/bin/sh\nwhile [ \"$1\" != -m ]; do shift; done\nexec /usr/bin/install -d \"$@\"\n",
        );
        let backup = machine.of_here(&block("machine-id-backup"));
        machine.program("machine-id-backup", &backup);
        std::os::unix::fs::symlink(
            crate::support::process::MACHINE_ID,
            machine.here.path().join("machine-id"),
        )
        .unwrap();
        machine
    }

    fn program(&self, name: &str, text: &str) {
        let path = self.here.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn of_here(&self, block: &str) -> String {
        let (data, backups) = (self.data.to_str().unwrap(), self.here.path().join("backups"));
        block
            .replace("/var/lib/machine-id", data)
            .replace("/var/backups/machine-id", backups.to_str().unwrap())
    }

    #[track_caller]
    fn run(&self, name: &str) -> String {
        let path = format!("{}:{}", self.here.path().display(), std::env::var("PATH").unwrap());
        succeed(command("sh").args(["-euc", &self.of_here(&block(name))]).env("PATH", path))
    }
}

#[test]
fn a_backup_of_a_running_authority_is_put_back_as_the_page_says() {
    let issuer = Issuer::start();
    let mut authority = Authority::trusting(&issuer, &policies::basic(&issuer));
    let keys = Keys::fresh();
    // Made before whatever start comes, on a machine that is faster than a second.
    let token = issuer.token("github", &keys.audience(&authority.url())).claim("iat", now() - 5).mint();
    let present = |authority: &Authority, keys: &Keys, token: &str| {
        authority.client().exchange(&keys.request("github-deploy", "github", token))
    };
    let ask = |authority: &Authority| {
        let keys = Keys::fresh();
        let token = issuer.token("github", &keys.audience(&authority.url())).mint();
        present(authority, &keys, &token)
    };
    ask(&authority).granted();
    let data = authority.data_dir();
    let machine = Machine::new(&data);
    machine.run("back-up");
    let copies: Vec<_> = std::fs::read_dir(machine.here.path().join("backups")).unwrap().collect();
    let copy = copies.into_iter().next().unwrap().unwrap().path();
    assert_eq!(std::fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o700);
    let names = |folder: &Path| succeed(command("ls").arg(folder)).replace('\n', " ");
    assert_eq!(names(&copy), "authority.db authority.yaml keys policy store.key ");
    assert!(machine.run("look").contains(" issued "), "the audit trail of the copy");
    assert_eq!(
        names(&copy),
        "authority.db authority.yaml keys policy store.key ",
        "nothing was left beside it"
    );

    // Used after the copy was made, which does not know it.
    present(&authority, &keys, &token).granted();
    assert!(authority.terminate().success());
    machine.run("put-back");
    authority.restart();
    authority.wait_for_stderr("it was put back from a copy");
    assert_eq!(ask(&authority).status, 503);
    machine.run("resume");
    let said = "the store was put back from a copy";
    authority.wait_for_stderr(said);
    assert!(authority.client().get("/readyz").text().contains(said));
    let again = present(&authority, &keys, &token);
    assert_eq!(again.status, 401, "{}", again.text());
    assert!(again.text().contains("token has been used before"), "{}", again.text());
    let lost = succeed(command("sh").args(["-c", "echo lost.*/*"]).current_dir(&data));
    assert!(lost.contains("/authority.db"), "{lost}");
    let restored = succeed(&mut authority.command(["audit", "--event", "restored"]));
    assert!(restored.contains("it was put back from a copy"), "{restored}");
    wait_for("a token of after the start", || (ask(&authority).status == 200).then_some(()));

    // And all of it, where there is nothing any more.
    assert!(authority.terminate().success());
    std::fs::remove_dir_all(&data).unwrap();
    machine.run("put-all-back");
    authority.restart();
    authority.wait_for_stderr("no mark stands beside the store");
    assert_eq!(present(&authority, &keys, &token).status, 503);
    machine.run("resume");
    authority.wait_for_stderr(said);
    assert_eq!(present(&authority, &keys, &token).status, 401);
    let restored = succeed(&mut authority.command(["audit", "--event", "restored"]));
    assert!(restored.contains("no mark stands beside the store"), "{restored}");
    wait_for("a token of after the start", || (ask(&authority).status == 200).then_some(()));
    assert!(run(&mut authority.command(["check"])).status.success());

    // A key that is lost, where nobody kept a copy of it.
    assert!(authority.terminate().success());
    std::fs::remove_file(data.join("store.key")).unwrap();
    assert!(!run(&mut authority.command(["serve"])).status.success());
    machine.run("seal-anew");
    authority.restart();
    assert!(data.join("store.key").exists());
    assert_eq!(present(&authority, &keys, &token).status, 401);
    ask(&authority).granted();
}
