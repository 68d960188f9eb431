//! Which files an authority believes: those that nobody can change to whom the
//! operator did not give them.

mod init;
mod migrate;
mod sealed;
mod signed_names;
mod signing;
mod store;
mod tls;

use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::process::{command, machine_id, read, run, succeed};

const POLICY: &str = "kind: role\nversion: v7\nmetadata: {name: deploy}\nspec:\n  options: {max_session_ttl: 1h}\n  allow: {logins: [ubuntu], node_labels: {'*': '*'}}\n";

/// A data directory that nothing serves.
struct Data(TempDir);

impl Data {
    fn new() -> Self {
        let data = Self(TempDir::new().unwrap());
        let init =
            ["authority", "init", "--cluster", "id.test", "--public-url", "https://id.test", "--data-dir"];
        succeed(machine_id(init).arg(data.path("")));
        std::fs::write(data.path("policy/p.yaml"), POLICY).unwrap();
        data.config("");
        data
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join("data").join(name)
    }

    fn config(&self, more: &str) {
        let base = "version: v1\ncluster: id.test\npublic_url: https://id.test\nlisten: 127.0.0.1:1\n";
        std::fs::write(self.path("authority.yaml"), format!("{base}{more}")).unwrap();
    }

    /// Serving ends where everything was read, since nobody may listen there.
    fn serve(&self) -> String {
        said(&run(&mut self.serving()))
    }

    fn serving(&self) -> Command {
        let mut serve = machine_id(["authority", "serve", "--listen", "192.0.2.1:1", "--data-dir"]);
        serve.arg(self.path(""));
        serve
    }

    /// A folder like `/tmp` beside it, in which anybody may have put something.
    fn sticky(&self) -> PathBuf {
        let sticky = self.0.path().join("sticky");
        std::fs::create_dir_all(&sticky).unwrap();
        chmod(self.0.path(), 0o755);
        chmod(&sticky, 0o1777);
        sticky
    }

    fn export(&self) -> String {
        said(&run(machine_id(["authority", "export", "tls-ca", "--data-dir"]).arg(self.path(""))))
    }

    #[track_caller]
    fn is_good(&self) {
        let said = self.serve();
        assert!(said.contains("192.0.2.1:1"), "{said}");
    }

    #[track_caller]
    fn is_refused(&self, words: &[&str]) {
        let said = self.serve();
        assert!(!said.contains("192.0.2.1:1") && words.iter().all(|word| said.contains(word)), "{said}");
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn chmod(path: impl AsRef<Path>, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn what_everybody_can_write_to_is_not_believed() {
    let data = Data::new();
    data.is_good();
    let own_tls = "tls: {cert_file: server.crt, key_file: server.key}\nissuer_ca_file: issuers.pem\n";
    data.config(own_tls);
    let ca = run(machine_id(["authority", "export", "tls-ca", "--data-dir"]).arg(data.path(""))).stdout;
    std::fs::write(data.path("issuers.pem"), &ca).unwrap();
    std::fs::copy(data.path("keys/tls_ca.crt"), data.path("server.crt")).unwrap();
    std::fs::copy(data.path("keys/tls_ca.key"), data.path("server.key")).unwrap();
    data.is_good();
    for (name, mode, bad, why) in [
        ("authority.yaml", 0o644, 0o666, "anybody may write to it (mode 666)"),
        ("policy/p.yaml", 0o644, 0o666, "anybody may write to it (mode 666)"),
        ("policy", 0o755, 0o777, "anybody may write to it (mode 777)"),
        ("policy", 0o755, 0o1777, "anybody may write to it (mode 1777)"),
        ("keys", 0o700, 0o777, "can be written to by everybody"),
        ("keys/ssh_user_ca", 0o600, 0o644, "others than its owner may use it (mode 644)"),
        ("keys/tls_ca.crt", 0o644, 0o666, "anybody may write to it (mode 666)"),
        ("authority.db", 0o600, 0o666, "anybody may write to it (mode 666)"),
        ("issuers.pem", 0o644, 0o666, "anybody may write to it (mode 666)"),
        ("server.crt", 0o644, 0o666, "anybody may write to it (mode 666)"),
        ("server.key", 0o600, 0o644, "others than its owner may use it (mode 644)"),
        ("", 0o755, 0o777, "can be written to by everybody, so that another user"),
    ] {
        chmod(data.path(name), bad);
        data.is_refused(&[data.path(name).to_str().unwrap().trim_end_matches('/'), why, "hint: "]);
        chmod(data.path(name), mode);
        data.is_good();
    }
    // And what it stands in.
    chmod(data.0.path(), 0o777);
    data.is_refused(&[
        "can be written to by everybody, so that another user could put something else in its place",
    ]);
    assert!(data.export().contains("can be written to by everybody"));
    chmod(data.0.path(), 0o1777);
    data.is_good();
}

#[test]
fn init_makes_everything_so_that_it_is_believed() {
    let temp = TempDir::new().unwrap();
    let init = |umask: &str, path: &str| {
        let line = format!(
            "umask {umask}; exec \"$0\" authority init --cluster id.test --public-url https://id.test --data-dir \"$1\""
        );
        let program = crate::support::process::MACHINE_ID;
        run(command("sh").args(["-c", &line, program]).arg(temp.path().join(path)))
    };
    for (umask, path) in [("000", "a/b/data"), ("022", "c"), ("077", "d")] {
        let made = init(umask, path);
        assert!(made.status.success(), "{}", said(&made));
        let data = temp.path().join(path);
        for (name, mode) in [("", 0o700), ("policy", 0o700), ("keys", 0o700), ("authority.yaml", 0o600)] {
            let found = std::fs::metadata(data.join(name)).unwrap().permissions().mode() & 0o7777;
            assert_eq!(found, mode, "{umask}: {name}");
        }
        succeed(machine_id(["authority", "export", "tls-ca", "--data-dir"]).arg(&data));
        succeed(machine_id(["authority", "audit", "--data-dir"]).arg(&data));
    }
    std::fs::create_dir(temp.path().join("open")).unwrap();
    chmod(temp.path().join("open"), 0o777);
    for path in ["open", "open/data"] {
        let refused = init("022", path);
        assert!(!refused.status.success() && said(&refused).contains("cannot use "), "{}", said(&refused));
        assert!(!temp.path().join(path).join("keys").exists());
    }
}

/// A folder that a group of operators writes to, whatever their umask is.
#[test]
fn a_group_can_share_the_policy() {
    let data = Data::new();
    chmod(data.path("policy"), 0o2775);
    chmod(data.path("policy/p.yaml"), 0o664);
    data.is_good();
    if rustix::process::geteuid().is_root() {
        let alice = |name: &str| chown(data.path(name), Some(4242), Some(4343)).unwrap();
        alice("policy/p.yaml");
        data.is_good();
        // Where the group cannot put one there, its owner is no member of it.
        chmod(data.path("policy"), 0o755);
        data.is_refused(&["p.yaml: it belongs to another user (uid 4242)", "hint: chown 0 "]);
        chmod(data.path("policy"), 0o2775);
        alice("policy");
        data.is_refused(&["policy: it belongs to another user (uid 4242)", "hint: chown 0 "]);
    }
    let data = Data::new();
    chmod(data.path("policy"), 0o2775);
    // Everybody is no group.
    chmod(data.path("policy/p.yaml"), 0o666);
    data.is_refused(&["p.yaml", "anybody may write to it (mode 666)", "hint: chmod o-w "]);
}

#[test]
fn keys_may_be_where_systemd_and_debian_put_them() {
    let data = Data::new();
    let credentials = data.path("credentials");
    std::fs::create_dir(&credentials).unwrap();
    for name in ["ssh_user_ca", "ssh_host_ca", "tls_ca.key", "tls_ca.crt"] {
        std::fs::copy(data.path("keys").join(name), credentials.join(name)).unwrap();
        chmod(credentials.join(name), 0o400);
    }
    chmod(&credentials, 0o500);
    chmod(&credentials, 0o700);
    std::fs::copy(credentials.join("tls_ca.key"), data.path("server.key")).unwrap();
    data.config("keys: file:credentials\ntls: {cert_file: credentials/tls_ca.crt, key_file: server.key}\n");
    data.is_good();
    let open = ["others than its owner may use it (mode ", "hint: chmod 600 ", "`defaultMode: 0400`"];
    let root = rustix::process::geteuid().is_root();
    for mode in [0o440, 0o640] {
        // A server's key of root's may be for a group, nobody else's; a CA's is for none.
        chmod(data.path("server.key"), mode);
        let said = data.serve();
        assert_eq!(said.contains("192.0.2.1:1"), root, "{said}");
        chmod(data.path("server.key"), 0o600);
        for ca in ["ssh_user_ca", "ssh_host_ca", "tls_ca.key"] {
            chmod(credentials.join(ca), mode);
            data.is_refused(&[&[ca], &open[..]].concat());
            chmod(credentials.join(ca), 0o400);
        }
    }
    chmod(data.path("server.key"), 0o644);
    data.is_refused(&open);
}

/// An authority with a user of its own, and root's commands on its directory.
#[test]
fn a_user_of_its_own_and_root_get_on() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let data = Data::new();
    std::fs::copy(data.path("keys/tls_ca.crt"), data.path("server.crt")).unwrap();
    std::fs::copy(data.path("keys/tls_ca.key"), data.path("server.key")).unwrap();
    data.config("tls: {cert_file: server.crt, key_file: server.key}\n");
    data.is_good();
    data.sticky();
    succeed(command("chown").args(["-R", "4242:4343"]).arg(data.path("")));
    data.is_good();
    succeed(machine_id(["authority", "audit", "--data-dir"]).arg(data.path("")));
    assert_eq!(data.export(), "");
    let serve = || said(&run(data.serving().uid(4242).gid(4343)));
    assert!(serve().contains("192.0.2.1:1"), "{}", serve());
    // Debian's `ssl-cert`, of which it is a member, and which lets it read this; and one that it is not of.
    let (key, ca) = (data.path("server.key"), data.path("keys/tls_ca.key"));
    for (path, gid, mode, is_good) in [
        (&key, 4343, 0o640, true),
        (&key, 4343, 0o660, false),
        (&ca, 4343, 0o440, false),
        (&ca, 4343, 0o640, false),
    ] {
        chown(path, Some(0), Some(gid)).unwrap();
        chmod(path, mode);
        assert_eq!(serve().contains("192.0.2.1:1"), is_good, "{} {mode:o}: {}", path.display(), serve());
        chown(path, Some(4242), Some(4343)).unwrap();
        chmod(path, 0o600);
    }
    // A credential of a systemd unit is root's, and its group is as its ACL.
    chown(&ca, Some(0), Some(0)).unwrap();
    chmod(&ca, 0o440);
    let serve = || said(&run(data.serving().uid(4242).gid(0)));
    assert!(serve().contains("192.0.2.1:1"), "{}", serve());
    // From before there was a key of statements, where it has to put none.
    std::fs::remove_file(data.path("keys/statement_key")).unwrap();
    chmod(data.path("keys"), 0o500);
    let store = rusqlite::Connection::open(data.path("authority.db")).unwrap();
    store.execute("DELETE FROM cas WHERE key LIKE 'statement %'", []).unwrap();
    drop(store);
    let said = serve();
    let warning = "warning: without a statement key nothing is stated to servers, and without a federation key nothing is vouched for elsewhere: cannot write ";
    assert!(said.contains(warning) && said.contains("192.0.2.1:1"), "{said}");
}

/// Whoever made a file where anybody can does not vouch for it.
#[test]
fn what_another_user_put_into_a_sticky_folder_is_not_believed() {
    let data = Data::new();
    let sticky = data.sticky();
    let at = |name: &str| sticky.join(name).display().to_string();
    let ca = run(machine_id(["authority", "export", "tls-ca", "--data-dir"]).arg(data.path(""))).stdout;
    std::fs::write(at("issuers.pem"), ca).unwrap();
    std::fs::write(at("p.yaml"), POLICY).unwrap();
    succeed(command("cp").arg("-r").arg(data.path("keys")).arg(at("keys")));
    let config = format!(
        "store: sqlite:{}\npolicy: {}\nissuer_ca_file: {}\nkeys: file:{}\n",
        at("a.db"),
        at("p.yaml"),
        at("issuers.pem"),
        at("keys")
    );
    data.config(&config);
    succeed(machine_id(["authority", "new-store", "--data-dir"]).arg(data.path("")));
    data.is_good();
    if !rustix::process::geteuid().is_root() {
        return;
    }
    for name in [
        "a.db-wal",
        "a.db-shm",
        "a.db-journal",
        "a.db.mark",
        "a.db",
        "p.yaml",
        "issuers.pem",
        "keys/tls_ca.key",
        "keys",
    ] {
        let planted = !Path::new(&at(name)).exists();
        if planted {
            std::fs::write(at(name), "").unwrap();
        }
        chown(at(name), Some(4242), None).unwrap();
        data.is_refused(&[&at(name), "belongs to another user (uid 4242)"]);
        if planted {
            std::fs::remove_file(at(name)).unwrap();
        } else {
            chown(at(name), Some(0), None).unwrap();
        }
        data.is_good();
    }
    // A group that shares the store's folder can still not put a log there.
    chmod(&sticky, 0o2775);
    std::fs::write(at("a.db-wal"), "").unwrap();
    chown(at("a.db-wal"), Some(4242), None).unwrap();
    data.is_refused(&["a.db-wal: it belongs to another user (uid 4242)"]);
    // Nor is a data directory there that is another's, to begin with or later.
    chmod(&sticky, 0o1777);
    let auth = at("auth");
    std::fs::create_dir(&auth).unwrap();
    chown(&auth, Some(4242), None).unwrap();
    let mut init =
        machine_id(["authority", "init", "--cluster", "id.test", "--public-url", "https://id.test"]);
    let refused = said(&run(init.args(["--data-dir", &auth])));
    assert!(refused.contains("it belongs to another user (uid 4242)"), "{refused}");
    assert!(!Path::new(&auth).join("keys").exists());
    succeed(command("cp").arg("-r").arg(data.path(".")).arg(&auth));
    succeed(command("chown").args(["-R", "4242", &auth]));
    let refused = said(&run(&mut machine_id(["authority", "export", "ssh-user-ca", "--data-dir", &auth])));
    assert!(refused.contains("belongs to another user (uid 4242)"), "{refused}");
}

/// What was read while it was written, or was cut on its way here.
#[test]
fn half_a_file_of_certificates_is_not_believed() {
    let data = Data::new();
    let whole = read(data.path("keys/tls_ca.crt"));
    std::fs::copy(data.path("keys/tls_ca.key"), data.path("server.key")).unwrap();
    data.config("tls: {cert_file: server.crt, key_file: server.key}\nissuer_ca_file: issuers.pem\n");
    let half = format!("{whole}{}", &whole[..whole.len() / 2]);
    let files = ["server.crt", "issuers.pem", "keys/tls_ca.crt"];
    files.iter().for_each(|name| std::fs::write(data.path(name), &whole).unwrap());
    data.is_good();
    for name in files {
        std::fs::write(data.path(name), &half).unwrap();
        data.is_refused(&[name]);
        std::fs::write(data.path(name), &whole).unwrap();
    }
    std::fs::write(data.path("half.pem"), &half).unwrap();
    let once = [
        "once",
        "--authority",
        "https://127.0.0.1:1",
        "--token",
        "x",
        "--join-method",
        "github",
        "--ca-file",
    ];
    let refused = said(&run(machine_id(once).arg(data.path("half.pem"))));
    assert!(refused.contains("half.pem: its PEM is broken"), "{refused}");
}

/// What a kubelet mounts of a ConfigMap or a Secret: root's, everybody's by its
/// mode, the files through `..data`.
fn volume(at: &Path) {
    std::fs::create_dir_all(at.join("..2026_11_26")).unwrap();
    std::fs::write(at.join("..2026_11_26/p.yaml"), POLICY).unwrap();
    symlink("..2026_11_26", at.join("..data")).unwrap();
    symlink("..data/p.yaml", at.join("p.yaml")).unwrap();
    chmod(at, 0o777);
}

#[test]
fn a_volume_of_a_pod_is_believed_as_it_is_mounted() {
    let data = Data::new();
    volume(&data.path("config"));
    data.config("policy: config\n");
    // What others can write to is none, whatever its links are called.
    data.is_refused(&["config: anybody may write to it (mode 777)", "hint: "]);
    // A Secret's `tmpfs` has the sticky bit, and so has an `emptyDir` in memory; its folder is still everybody's.
    chmod(data.path("config"), 0o1777);
    data.config("policy: config/p.yaml\n");
    data.is_good();
    // Mounted for reading alone; only root can try.
    chmod(data.path("config"), 0o777);
    data.config("policy: config\n");
    let serve = "exec \"$0\" authority serve --listen 192.0.2.1:1 --data-dir \"$2\"";
    let mounted = |mount: &str| {
        let script = format!("{mount} && {serve}");
        let mut mounted = command("unshare");
        mounted.args(["--mount", "sh", "-c", &script, crate::support::process::MACHINE_ID]);
        said(&run(mounted.arg(data.path("config")).arg(data.path(""))))
    };
    let of_its_own = "cp -a \"$1\" \"$1.old\" && mount -t tmpfs -o mode=777 tmpfs \"$1\" && cp -a \"$1.old/.\" \"$1\" && rm -r \"$1.old\" && mount -o remount,ro \"$1\"";
    if rustix::process::geteuid().is_root()
        && run(command("unshare").args(["--mount", "true"])).status.success()
    {
        let believed = mounted(of_its_own);
        assert!(believed.contains("192.0.2.1:1"), "{believed}");
        // Not what merely cannot be written to from here, as with `ProtectSystem=strict`: somebody may have
        // moved a link of root's there.
        let refused = mounted("mount --bind \"$1\" \"$1\" && mount -o remount,bind,ro \"$1\"");
        assert!(refused.contains("config: anybody may write to it (mode 777)"), "{refused}");
        std::fs::remove_file(data.path("config/..data")).unwrap();
        std::fs::remove_file(data.path("config/p.yaml")).unwrap();
        let refused = mounted(of_its_own);
        assert!(refused.contains("config: anybody may write to it (mode 777)"), "{refused}");
    }
}

#[test]
fn a_pipe_in_the_policy_holds_nobody_up() {
    let data = Data::new();
    let pipe = data.path("policy/x.yaml");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();
    let started = Instant::now();
    data.is_refused(&["x.yaml: it is not a plain file"]);
    assert!(started.elapsed() < Duration::from_secs(8));
    std::fs::remove_file(&pipe).unwrap();
    std::fs::write(&pipe, "#".repeat((16 << 20) + 1)).unwrap();
    data.is_refused(&["x.yaml: it is longer than 16777216 bytes"]);
    std::fs::remove_file(&pipe).unwrap();
    data.is_good();
}

/// A job that checks a policy serves none; GitLab's checkouts are everybody's.
#[test]
fn a_policy_is_checked_wherever_it_is() {
    let temp = TempDir::new().unwrap();
    let policy = temp.path().join("policy");
    std::fs::create_dir(&policy).unwrap();
    std::fs::write(policy.join("p.yaml"), POLICY).unwrap();
    for path in [temp.path(), &policy, &policy.join("p.yaml")] {
        chmod(path, if path.is_dir() { 0o777 } else { 0o666 });
    }
    succeed(machine_id(["authority", "check"]).arg(&policy));
    let line = format!("exec \"$0\" authority check <(cat '{}')", policy.join("p.yaml").display());
    succeed(command("bash").args(["-c", &line, crate::support::process::MACHINE_ID]));
    assert_eq!(read(policy.join("p.yaml")), POLICY);
}
