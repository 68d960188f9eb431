//! `docs/rotation.md`, word for word, where somebody has the TLS CA's key: each kind of server lets in whoever he certifies, until
//! the page's steps for it, and nobody of his from then on.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::support::authority::Authority;
use crate::support::kube::Kube;
use crate::support::mariadb::Mariadb;
use crate::support::nginx::Nginx;
use crate::support::once::{Job, World};
use crate::support::page;
use crate::support::postgres::Postgres;
use crate::support::process::{self, Running, command, machine_id, read, run, succeed};
use crate::support::redis::Redis;
use crate::support::servers::{Folder, world_of};
use crate::support::thief::Thief;
use crate::support::{PATIENCE, wait_for};

/// A shell on the page's machines: what only root may do there is done by whoever runs the test, which restarts servers itself.
pub(super) struct Shell {
    folder: TempDir,
    names: Vec<(&'static str, String)>,
}

impl Shell {
    #[track_caller]
    pub(super) fn of(authority: &Authority) -> Self {
        let names = vec![
            ("/var/lib/machine-id", authority.data_dir().display().to_string()),
            ("https://id.example.com", authority.url()),
        ];
        let shell = Self { folder: TempDir::new().unwrap(), names };
        shell.program("sudo", "[ \"$1\" != -u ] || shift 2\nexec \"$@\"");
        shell.program("nginx", "[ \"$1\" = -t ]");
        shell.program("systemctl", "echo \"$*\" >> systemctl.log");
        shell.program(
            "install",
            "left=$#\nwhile [ $left -gt 0 ]; do\n    case $1 in\n        -o | -g) shift; left=$((left - 1)) ;;\n        \
             *) set -- \"$@\" \"$1\" ;;\n    esac\n    shift\n    left=$((left - 1))\ndone\nexec /usr/bin/install \"$@\"",
        );
        std::os::unix::fs::symlink(process::MACHINE_ID, shell.path("machine-id")).unwrap();
        shell
    }

    /// The folder that its user is in.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    #[track_caller]
    fn program(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(self.path(name), std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Types a block of the page, where these names of it are others.
    #[track_caller]
    pub(super) fn types(&self, name: &str, more: &[(&str, &str)]) -> String {
        succeed(&mut self.command(&Self::block(name, more)))
    }

    /// A block of the page, where these names of it are others.
    #[track_caller]
    pub(super) fn block(name: &str, more: &[(&str, &str)]) -> String {
        more.iter().fold(page::file("../rotation.md", name), |text, (theirs, ours)| {
            assert!(text.contains(theirs), "no {theirs} in {name}");
            text.replace(theirs, ours)
        })
    }

    /// Types that.
    pub(super) fn command(&self, text: &str) -> Command {
        let text = self.names.iter().fold(text.to_owned(), |text, (theirs, ours)| text.replace(theirs, ours));
        let path = format!("{}:{}", self.folder.path().display(), std::env::var("PATH").unwrap());
        let mut shell = command("sh");
        shell.args(["-euc", &text]).env("PATH", path).current_dir(self.folder.path());
        shell
    }

    /// The same on a server with its files in that folder, of the certificate that it has got anew.
    #[track_caller]
    fn serves(&self, name: &str, tls: &Path) {
        let mut request = command("openssl");
        request.args(["req", "-new", "-subj", "/", "-key"]).arg(tls.join("server.key"));
        succeed(request.arg("-out").arg(self.path("server.csr")));
        self.types("sign-server", &[("db.example.com", "localhost --name 127.0.0.1")]);
        self.types(name, &[("/etc/ssl/machine-id", tls.to_str().unwrap())]);
    }
}

const ROLES: [&str; 6] = ["orders", "orders-mariadb", "cache", "orders-app", "kube", "kube-nothing"];
const PAGES: [&str; 5] = ["postgresql.md", "mariadb.md", "redis.md", "nginx.md", "kubernetes.md"];
const ALL: [&str; 6] = ["postgresql", "mariadb", "redis", "nginx", "a kept nginx", "kube-apiserver"];

/// Whose certificates they are: of a database's user, an application, and a user of Kubernetes.
struct Clients([PathBuf; 3]);

impl Clients {
    /// By the stolen CA, with serials of his own.
    #[track_caller]
    fn of(thief: &Thief) -> Self {
        let deployer = "/O=ci-viewers/CN=ci:deployer";
        Self([
            thief.client("database", "/CN=deploy", 1),
            thief.client("application", "/CN=app:orders", u64::MAX),
            thief.client("kubernetes", deployer, 3),
        ])
    }

    /// Of a job.
    #[track_caller]
    fn honest(world: &World, servers: &Servers) -> (Job, Self) {
        let (job, kube) = (world.github(), &servers.kube);
        let kube = format!("kubernetes,cluster=prod,server={},roles=kube", kube.url());
        let kube = format!("{kube},server-ca={}", servers.cluster_ca.display());
        let database = "database,service=orders,user=deploy,database=orders,roles=orders+orders-mariadb";
        let folders = [("database", database), ("app", "application,app=orders"), ("kube", &kube)].map(
            |(name, output)| {
                job.once(["--destination", &job.text_path(name), "--output", output]).good();
                job.path(name)
            },
        );
        (job, Self(folders))
    }
}

/// Each kind of server, as its page configures it.
struct Servers {
    postgres: Postgres,
    mariadb: Mariadb,
    redis: Redis,
    kube: Kube,
    cluster_ca: PathBuf,
    nginx: Nginx,
    nginx_files: Folder,
    _site: TempDir,
    /// Another one, by the files of a host that watches.
    kept: Nginx,
}

impl Servers {
    #[track_caller]
    fn start(authority: &Authority, trust: &Path) -> Self {
        let nginx_files = Folder::new(authority, "root");
        let tls = nginx_files.tls();
        // Its workers are nobody, where root runs it.
        let root = TempDir::new().unwrap();
        std::fs::set_permissions(root.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::write(root.path().join("index.html"), "orders").unwrap();
        let site = page::file_in("nginx.md", "site.conf", &tls)
            .replace("/srv/orders", root.path().to_str().unwrap());
        let at = |site: &str, address| site.replace("listen 443 ssl;", &format!("listen {address} ssl;"));
        let ours = format!("ssl_client_certificate {}/ca.crt;", tls.display());
        assert!(site.contains(&ours));
        let theirs =
            format!("ssl_client_certificate {0}/tls_ca.crt;\n    ssl_crl {0}/tls.crl;", trust.display());
        let kube = Kube::start(authority);
        let cluster_ca = kube.tls().join("cluster.crt");
        std::fs::copy(kube.ca(), &cluster_ca).unwrap();
        Self {
            postgres: Postgres::start(authority),
            mariadb: Mariadb::start(authority),
            redis: Redis::start(authority),
            kube,
            cluster_ca,
            nginx: Nginx::with_workers(|address| at(&site, address)),
            kept: Nginx::with_workers(|address| at(&site.replace(&ours, &theirs), address)),
            nginx_files,
            _site: root,
        }
    }

    fn kubectl(&self, folder: &Path) -> Command {
        let mut kubectl = command("kubectl");
        kubectl
            .arg("--cache-dir")
            .arg(folder.join("cache"))
            .args(["get", "pods", "-n", "orders", "-o", "name"]);
        if folder.join("kubeconfig.yaml").exists() {
            kubectl.arg("--kubeconfig").arg(folder.join("kubeconfig.yaml"));
        } else {
            kubectl.args([
                "--kubeconfig",
                "/dev/null",
                "--server",
                &self.kube.url(),
                "--certificate-authority",
            ]);
            kubectl.arg(&self.cluster_ca).arg("--client-certificate").arg(folder.join("tls.crt"));
            kubectl.arg("--client-key").arg(folder.join("tls.key"));
        }
        kubectl
    }

    /// Those that let them in.
    fn let_in(&self, Clients([database, app, kube]): &Clients) -> Vec<&'static str> {
        let says = |mut command: Command, words: &str| {
            let output = run(&mut command);
            String::from_utf8_lossy(&output.stdout).contains(words)
        };
        let curl = |nginx: &Nginx| {
            let mut curl = command("curl");
            curl.arg("-s").arg("--cert").arg(app.join("tls.crt")).arg("--key").arg(app.join("tls.key"));
            curl.arg("--cacert").arg(app.join("ca.crt")).arg(nginx.url());
            curl
        };
        let mut redis = self.redis.client(database, true);
        redis.args(["SET", "orders:1", "paid"]);
        let each = [
            says(self.postgres.psql_with(database, "deploy", "orders"), "deploy"),
            says(self.mariadb.client(database, "deploy"), "deploy@%"),
            says(redis, "OK"),
            says(curl(&self.nginx), "orders"),
            says(curl(&self.kept), "orders"),
            says(self.kubectl(kube), "pod/orders-1"),
        ];
        ALL.into_iter().zip(each).filter(|(_, is_in)| *is_in).map(|(name, _)| name).collect()
    }

    /// Sessions in databases.
    #[track_caller]
    fn sessions(&self, Clients([database, ..]): &Clients) -> [Running; 2] {
        let mut psql = self.postgres.psql_with(database, "deploy", "orders");
        psql.args(["-c", "SELECT pg_sleep(600)"]);
        let mut client = self.mariadb.client(database, "deploy");
        client.args(["--unbuffered", "--execute=; SELECT SLEEP(600)"]);
        [psql, client].map(|mut command| {
            let mut session = Running::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
            wait_for("the session", || {
                assert!(session.ended().is_none(), "{}", session.stderr());
                session.stdout().contains("deploy").then_some(())
            });
            session
        })
    }
}

#[test]
fn a_stolen_tls_ca_opens_no_server_once_its_steps_are_done() {
    let world = world_of(&PAGES, &ROLES, "");
    let authority = &world.authority;
    let (shell, thief) = (Shell::of(authority), Thief::of(authority));
    let host = |what: &str, folder: &str, ca: &str| {
        let mut host = machine_id(["host", what, "--authority", &authority.url(), "--dir"]);
        host.arg(shell.path(folder)).arg("--ca-file").arg(shell.path(ca));
        host
    };
    std::fs::copy(authority.ca_file(), shell.path("first-ca.crt")).unwrap();
    succeed(&mut host("refresh", "timed", "first-ca.crt"));
    let watch =
        Running::start(host("watch", "kept", "first-ca.crt").stdout(Stdio::null()).stderr(Stdio::piped()));
    let kept = shell.path("kept/tls_ca.crt");
    wait_for("the files", || kept.exists().then_some(()));
    let first = read(&kept);
    let mut servers = Servers::start(authority, &shell.path("kept"));
    let stolen = Clients::of(&thief);
    assert_eq!(servers.let_in(&stolen), ALL, "{}", servers.mariadb.log());
    let (_job, honest) = Clients::honest(&world, &servers);
    assert_eq!(servers.let_in(&honest), ALL);
    let mut sessions = servers.sessions(&stolen);

    // Those that are kept follow by themselves.
    shell.types("tls", &[]);
    wait_for("the files", || (read(&kept) != first && shell.path("kept/tls.crl").exists()).then_some(()));
    servers.kept.reload();
    // He believes whichever server.
    let believe = |Clients(folders): &Clients| {
        for folder in folders {
            std::fs::copy(shell.path("ca.crt"), folder.join("ca.crt")).unwrap();
        }
    };
    wait_for("the kept one", || (!servers.let_in(&stolen).contains(&"a kept nginx")).then_some(()));
    assert_eq!(servers.let_in(&stolen).len(), 5, "nobody else knows of it");

    shell.serves("nginx", &servers.nginx_files.tls());
    [&servers.nginx, &servers.kept].into_iter().for_each(Nginx::reload);
    shell.serves("redis", &servers.redis.tls());
    servers.redis.restart();
    let port = servers.postgres.port();
    let socket = servers.postgres.socket();
    shell.program(
        "psql",
        &format!(
            "PGHOST={} PGPORT={port} PGUSER=admin PGDATABASE=postgres exec /usr/bin/psql \"$@\"",
            socket.display()
        ),
    );
    shell.serves("postgresql", &servers.postgres.tls());
    let socket = servers.mariadb.socket();
    shell.program(
        "mariadb",
        &format!("exec /usr/bin/mariadb --no-defaults --socket={} --user=root \"$@\"", socket.display()),
    );
    shell.serves("mariadb", &servers.mariadb.tls());
    let [cluster, client] =
        ["cluster.crt", "ca.crt"].map(|name| servers.kube.tls().join(name).display().to_string());
    shell.types(
        "kubernetes",
        &[("/etc/kubernetes/pki/client-ca.crt", &client), ("/etc/kubernetes/pki/ca.crt", &cluster)],
    );
    // His CA is the cluster's in this test alone, which has no other for its server.
    std::fs::copy(shell.path("ca.crt"), &client).unwrap();
    assert_eq!(read(shell.path("systemctl.log")), "reload nginx\nrestart redis-server\n");
    believe(&stolen);
    wait_for("nobody", || servers.let_in(&stolen).is_empty().then_some(()));
    for session in &mut sessions {
        assert!(session.wait_at_most(PATIENCE).is_some(), "it goes on");
    }
    // What was issued before is good for nothing, and a job that knows the old CA alone believes nobody.
    believe(&honest);
    assert!(servers.let_in(&honest).is_empty());
    world.github().once([]).failed(5);
    std::fs::copy(shell.path("ca.crt"), authority.ca_file()).unwrap();
    let (_job, honest) = Clients::honest(&world, &servers);
    wait_for("everybody", || (servers.let_in(&honest) == ALL).then_some(()));
    assert!(servers.let_in(&stolen).is_empty());

    // A host that heard nothing meanwhile, and one that never did.
    succeed(&mut host("refresh", "timed", "first-ca.crt"));
    assert_eq!(read(shell.path("timed/tls_ca.crt")), read(&kept));
    let output = run(&mut host("refresh", "anew", "first-ca.crt"));
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    let anew = shell.path("anew");
    shell.types("refresh", &[("/etc/ssh/machine-id", anew.to_str().unwrap())]);
    assert_eq!(read(anew.join("tls_ca.crt")), read(&kept));
    assert!(!watch.stderr().contains("error"), "{}", watch.stderr());
}
