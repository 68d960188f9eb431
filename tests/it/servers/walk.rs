//! `docs/high-availability.md`, word for word: from one authority on SQLite to three on PostgreSQL, through a failover,
//! and back. Jobs go on from the first step to the last, and none is refused or ends without certificates.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tempfile::TempDir;

use crate::support::authority::Authority;
use crate::support::balancer::Balancer;
use crate::support::cluster::Cluster;
use crate::support::issuer::Issuer;
use crate::support::load::Load;
use crate::support::once::{Job, Outcome};
use crate::support::port::free_port;
use crate::support::process::{self, command};
use crate::support::{page, policies, wait_for};

const JOBS: usize = 8;

/// The database owner's password file.
const OWNER: &str = "owner.password";

/// A shell on the page's machines: its names and paths are the test's, and what only root may do there is done here by whoever runs it.
struct Shell {
    folder: TempDir,
    names: Vec<(&'static str, String)>,
}

impl Shell {
    /// On `id-1`, from which the others are reached by `ssh`; a machine's data directory is `authority` in its folder.
    fn new(cluster: &Cluster, machines: [&Path; 3]) -> Self {
        let hosts: Vec<String> = cluster.addresses().iter().map(ToString::to_string).collect();
        let [first, second, third] = machines.map(|folder| folder.join("authority").display().to_string());
        let shell = Self {
            folder: TempDir::new().unwrap(),
            names: vec![
                ("/var/lib/machine-id", first.clone()),
                ("db-1.example.com,db-2.example.com", hosts.join(",")),
                ("192.0.2.0/24", "127.0.0.1/32".to_owned()),
                ("db_2", "standby".to_owned()),
            ],
        };
        let elsewhere = format!(
            "#!/bin/sh\ncase $1 in id-2.example.com) to={second};; id-3.example.com) to={third};; esac\n\
             exec sh -euc \"$(printf '%s' \"$2\" | sed \"s|{first}|$to|g\")\"\n"
        );
        for (name, text) in [
            ("sudo", "#!/bin/sh\n[ \"$1\" != -u ] || shift 2\nexec \"$@\"\n"),
            // The test itself starts authorities, where the page does.
            ("systemctl", "#!/bin/sh\n"),
            (
                "install",
                "#!/bin/sh\nleft=$#\nwhile [ $left -gt 0 ]; do\n    case $1 in\n        -o | -g) shift; left=$((left - 1)) ;;\n        \
                 *) set -- \"$@\" \"$1\" ;;\n    esac\n    shift\n    left=$((left - 1))\ndone\nexec /usr/bin/install \"$@\"\n",
            ),
            ("ssh", &elsewhere),
        ] {
            let path = shell.folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            process::succeed(command("chmod").arg("755").arg(path));
        }
        std::os::unix::fs::symlink(process::MACHINE_ID, shell.folder.path().join("machine-id")).unwrap();
        std::fs::copy(cluster.ca_file(), shell.folder.path().join("database-ca.crt")).unwrap();
        shell
    }

    /// A block of the page.
    fn block(&self, name: &str) -> String {
        let text = page::file("../high-availability.md", name);
        self.names.iter().fold(text, |text, (theirs, ours)| text.replace(theirs, ours))
    }

    fn command(&self, name: &str) -> Command {
        let path = format!("{}:{}", self.folder.path().display(), std::env::var("PATH").unwrap());
        let mut shell = command("sh");
        shell.args(["-euc", &self.block(name)]).env("PATH", path).current_dir(self.folder.path());
        shell
    }

    /// Types it; what it prints.
    #[track_caller]
    fn types(&self, name: &str) -> String {
        process::succeed(&mut self.command(name))
    }

    /// The same on a server of the database, whose administrator comes in by these variables.
    #[track_caller]
    fn types_at(&self, name: &str, server: &[(&'static str, String)]) {
        process::succeed(self.command(name).envs(server.iter().cloned()));
    }
}

/// Jobs with the real client, one after the other, while `work` lasts, which hears how many have ended well.
fn with_real_jobs(job: &Job, work: impl FnOnce(&AtomicUsize)) {
    struct End<'e>(&'e AtomicBool);
    impl Drop for End<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let (is_over, count) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let _end = End(&is_over);
        scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                Outcome::of(&process::run(&mut job.command(["once", "--", "true"]))).good();
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        work(&count);
    });
}

#[test]
fn three_authorities_take_the_place_of_one_and_no_job_fails() {
    let issuer = Issuer::start();
    let mut first = Authority::trusting(&issuer, &policies::basic(&issuer));
    let folders = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let addresses = [first.address(), free_port(), free_port()];
    let balancer = Balancer::before(addresses);
    let url = format!("https://{}", balancer.address());
    first.configure("public_url", &url);
    first.restart();
    let cluster = Cluster::bare();
    let data = first.data_dir();
    let shell = Shell::new(&cluster, [data.parent().unwrap(), folders[0].path(), folders[1].path()]);
    let job = Job::new()
        .envs(issuer.github_environment())
        .told(&first, "github-deploy")
        .env("MACHINE_ID_AUTHORITY", url.clone());
    let clients = addresses.map(|address| first.client().of(address));
    let load = Load::new(&issuer, &url, clients.to_vec());
    let restart = |authority: &mut Authority| {
        assert!(authority.terminate().success(), "{}", authority.stderr());
        authority.restart();
        assert!(!authority.stderr().contains("warning: "), "{}", authority.stderr());
    };
    with_real_jobs(&job, |finished| {
        let others = load.during(JOBS, || {
            let go_on = || {
                let before = finished.load(Ordering::SeqCst);
                load.goes_on(20);
                wait_for("a real job", || (finished.load(Ordering::SeqCst) > before).then_some(()));
            };
            go_on();
            let servers = cluster.administrators();
            shell.types_at("roles", &servers[0]);
            let password = std::fs::read(shell.folder.path().join(OWNER)).unwrap();
            let again = process::run(shell.command("roles").envs(servers[0].clone()));
            let kept = std::fs::read(shell.folder.path().join(OWNER)).unwrap();
            assert!(
                !again.status.success() && kept == password,
                "typed twice, it makes no password that is none"
            );
            cluster.let_in(&shell.block("pg_hba.conf"));
            servers.iter().for_each(|server| shell.types_at("reload", server));
            shell.types_at("synchronous", &servers[0]);
            cluster.wait_for_standby();
            shell.types("tables");
            go_on();
            shell.types("records");
            restart(&mut first);
            shell.types("forget");
            assert!(!data.join(OWNER).exists());
            // As from where the roles were made.
            std::fs::write(shell.folder.path().join(OWNER), password).unwrap();
            go_on();
            shell.types("replicas");
            let mut others = folders.into_iter().zip(&addresses[1..]).map(|(folder, address)| {
                let mut replica = first.replica_in(folder, *address);
                replica.restart();
                replica
            });
            let others = [others.next().unwrap(), others.next().unwrap()];
            for client in &clients {
                assert!(client.get("/readyz").text().ends_with(r#""status":"ready"}"#));
            }
            go_on();
            cluster.kill();
            shell.types_at("promote", &servers[1]);
            go_on();
            load.steal_what_was_used();
            assert!(shell.types("reader").contains(" issued "), "the trail");
            assert!(shell.types("prune").contains("let go 0 events"));
            process::succeed(&mut first.command(["check"]));
            others
        });
        load.holds(|| first.audit());
        let before = load.granted();
        // Back, with the jobs that know one address alone.
        let load = Load::new(&issuer, &url, vec![clients[0].clone()]);
        load.during(JOBS, || {
            load.goes_on(20);
            for mut other in others {
                assert!(other.terminate().success(), "{}", other.stderr());
            }
            shell.types("back");
            restart(&mut first);
            load.goes_on(20);
            load.steal_what_was_used();
        });
        load.holds(|| first.audit());
        // Jobs still end while the trail is read.
        let acknowledged = before + load.granted() + finished.load(Ordering::SeqCst);
        let issued = first.audit().iter().filter(|event| event["event"] == "issued").count();
        assert!(issued >= acknowledged);
    });
}
