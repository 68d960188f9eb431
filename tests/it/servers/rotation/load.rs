//! All five keys go round while jobs, workers, hosts and servers use them, over two authorities: not one failure.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Output;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{Host, key_files, refused, rotate, status, step};
use crate::support::authority::Authority;
use crate::support::cluster::{Cluster, Role};
use crate::support::issuer::Issuer;
use crate::support::load::Load;
use crate::support::nginx::Nginx;
use crate::support::once::{Job, Outcome};
use crate::support::postgres::Postgres;
use crate::support::process::succeed;
use crate::support::replicas::QUOTAS;
use crate::support::{PATIENCE, page, policies, sshd, workers};

/// A machine with `nginx` and PostgreSQL, whose files a watcher keeps.
struct Servers {
    host: Host,
    nginx: Nginx,
    postgres: Postgres,
}

impl Servers {
    #[track_caller]
    fn start(authority: &Authority) -> Self {
        let mut host = Host::new(authority, &["servers.test"]);
        let open = |path: &Path| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        };
        open(host.folder.path());
        std::fs::write(host.path("pids"), "").unwrap();
        let reload = format!("xargs -r kill -HUP < '{}'", host.path("pids").display());
        host.watch(authority, &["--reload", &reload]);
        Self::certify(&host, authority);
        let dir = host.folder.path().display().to_string();
        let postgres = Postgres::with(
            authority,
            &format!("ssl_ca_file = '{dir}/trust/tls_ca.crt'\nssl_crl_file = '{dir}/trust/tls.crl'\n"),
        );
        let nginx = Nginx::with_workers(|address| {
            format!(
                "  server {{\n    listen {address} ssl;\n    ssl_certificate {dir}/server.crt;\n    ssl_certificate_key {dir}/server.key;\n    \
                 ssl_client_certificate {dir}/trust/tls_ca.crt;\n    ssl_crl {dir}/trust/tls.crl;\n    ssl_verify_client on;\n    \
                 location / {{ return 200 \"hello $ssl_client_s_dn\"; }}\n  }}\n"
            )
        });
        std::fs::write(host.path("pids"), format!("{} {}\n", nginx.id(), postgres.id())).unwrap();
        Self { host, nginx, postgres }
    }

    /// A certificate by the TLS CA that signs now.
    #[track_caller]
    fn certify(host: &Host, authority: &Authority) {
        let mut sign = authority.command(["sign-server", "--name", "localhost", "--name", "127.0.0.1"]);
        let new = tempfile::TempDir::new().unwrap();
        succeed(sign.arg("--out").arg(new.path().join("tls")));
        for name in ["server.crt", "server.key"] {
            std::fs::copy(new.path().join("tls").join(name), host.path(name)).unwrap();
        }
    }

    #[track_caller]
    fn certify_anew(&self, authority: &Authority) {
        Self::certify(&self.host, authority);
        self.nginx.reload();
        self.postgres.certify_anew(authority);
    }
}

/// What is done again and again.
struct Errand<'e> {
    name: &'static str,
    turn: Box<dyn Fn() -> Outcome + Send + Sync + 'e>,
    done: AtomicUsize,
}

impl<'e> Errand<'e> {
    fn new(name: &'static str, turn: impl Fn() -> Outcome + Send + Sync + 'e) -> Self {
        Self { name, turn: Box::new(turn), done: AtomicUsize::new(0) }
    }
}

/// All of them at once, while `work` lasts; it is given what waits until each was begun anew and done, and looks that none failed.
fn during(errands: &[Errand<'_>], work: impl FnOnce(&dyn Fn(&str))) {
    struct End<'e>(&'e AtomicBool);
    impl Drop for End<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let (ended, failed) = (AtomicBool::new(false), Mutex::new(Vec::<String>::new()));
    std::thread::scope(|scope| {
        let _end = End(&ended);
        for errand in errands {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    let Outcome { code, stdout, stderr } = (errand.turn)();
                    if code != 0 {
                        let said = format!("{}: {code} {stdout} {stderr}", errand.name);
                        failed.lock().unwrap().push(said);
                    }
                    errand.done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        work(&|when| {
            let done = || errands.iter().map(|one| one.done.load(Ordering::Relaxed));
            let goals: Vec<usize> = done().map(|done| done + 2).collect();
            patiently(&format!("all of it: {when}, {goals:?}"), || {
                let failed = failed.lock().unwrap();
                assert!(failed.is_empty(), "{when}: {failed:#?}");
                done().zip(&goals).all(|(done, goal)| done >= *goal)
            });
        });
    });
}

/// As `wait_for`, where much is done beside it.
#[track_caller]
fn patiently(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + 3 * PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// `once ARGS -- sh -c SCRIPT` of a job.
fn wrapped(job: &Job, args: &[&str], script: &str) -> Outcome {
    job.run(["once"].iter().chain(args).chain(&["--", "sh", "-euc", script]))
}

fn script_of_login(port: &str) -> String {
    format!(
        "ssh -F \"$MACHINE_ID_DESTINATION/ssh_config\" -o BatchMode=yes -p {port} {}@127.0.0.1 true",
        sshd::login()
    )
}

fn policy(issuer: &Issuer) -> String {
    let basic = policies::basic(issuer)
        .replace("values: [ubuntu]", &format!("values: [{}]", sshd::login()))
        .replace("roles: [deploy]", "roles: [deploy, orders]");
    let workers = workers::POLICY.split("---\n").nth(2).unwrap();
    format!("{basic}---\n{}---\n{workers}", page::file("postgresql.md", "policy.yaml"))
}

#[test]
fn all_four_go_round_under_load_and_nothing_fails() {
    let (issuer, cluster) = (Issuer::start(), Cluster::start());
    let urls = [Role::Owner, Role::Server].map(|role| cluster.url(role));
    let first = &Authority::with_policy(&policy(&issuer))
        .issuer(&issuer)
        .config(QUOTAS)
        .store(&urls[0], &urls[1])
        .start();
    let second = &first.replica();
    // These know the first TLS CA alone.
    let load = Load::new(&issuer, &first.url(), vec![first.client().clone(), second.client().clone()]);

    let mut watching = Host::new(first, &["watches.test", "127.0.0.1"]);
    watching.watch(first, &[]);
    watching.start_sshd();
    let refreshing = Host::new(first, &["refreshes.test", "127.0.0.1"]);
    let output = refreshing.refresh(first);
    assert!(output.status.success(), "{output:?}");
    refreshing.start_sshd();
    let servers = Servers::start(first);

    let job = || Job::new().envs(issuer.github_environment()).told(first, "github-deploy");
    let holds = || {
        let job = job();
        let destination = job.once([]).good().destination();
        (job, destination)
    };
    let held = Mutex::new(vec![Arc::new(holds())]);
    let (short, database, visitor, worker) = (job(), job(), job(), workers::registered(first));
    let wanted = ["--output", "database,service=orders,database=orders"];
    let psql =
        servers.postgres.psql("SELECT current_user").join(" ").replace("SELECT current_user", "'SELECT 1'");
    let curl = format!(
        "cd \"$MACHINE_ID_DESTINATION\"; curl -sS --fail --cert tls.crt --key tls.key --cacert ca.crt {}",
        servers.nginx.url()
    );
    // One job that goes on and on: it renews its certificates, and logs in by what it has.
    let long = job();
    let logs_in = script_of_login("$(cat port)");
    let script = format!("while [ ! -e end ]; do {logs_in} || {{ touch failed; exit 7; }}; sleep 0.3; done");
    watching.write_port(&long.path("port"));
    let mut running = long.start(["--ttl", "15s", "--", "sh", "-euc", &script]);
    let renews = || {
        // One that has begun may be as before.
        let count = || running.stderr().matches("renewed the certificates").count();
        let goal = count() + 2;
        patiently("renewals", || count() >= goal);
    };

    let held_logs_in = |host: &Host| {
        // Nobody waits for another's login.
        let last = Arc::clone(held.lock().unwrap().last().unwrap());
        host.sshd().try_login(&last.1, &sshd::login())
    };
    let holds_anew = || {
        let new = Arc::new(holds());
        held.lock().unwrap().push(new);
    };
    let worker_logs_in = || {
        let had = worker.once(["--output", "ssh"]);
        if had.code != 0 {
            return had;
        }
        Outcome::of(&watching.sshd().try_login(&had.destination(), &sshd::login()))
    };
    let refreshes = || {
        // Lists that changed while they were fetched are fetched with the next turn of its timer.
        let is_overtaken = |output: &Output| {
            String::from_utf8_lossy(&output.stderr).contains("it is not the list that the authority states")
        };
        let refreshed = refreshing.refresh(first);
        let is_good = refreshed.status.success() || is_overtaken(&refreshed);
        Outcome::of(&if is_good { held_logs_in(&refreshing) } else { refreshed })
    };
    let errands = [
        Errand::new("a job that logs in", || wrapped(&short, &[], &script_of_login(&watching.sshd().port()))),
        Errand::new("a job from before", || Outcome::of(&held_logs_in(&watching))),
        Errand::new("a worker", worker_logs_in),
        Errand::new("a host that refreshes", refreshes),
        Errand::new("PostgreSQL", || wrapped(&database, &wanted, &psql)),
        Errand::new("nginx", || wrapped(&visitor, &[], &curl)),
    ];
    // Certificates of the load live for long: what is waited for is the rest.
    let forced = |ca: &str, phase: &str| {
        patiently(&format!("hosts, for {phase} of {ca}"), || {
            let waits = status(first, ca)["waiting_for"].to_string();
            // Which statement keys hosts have heard of the store learns within a minute.
            let lacks = if ca == "statement" { "lacks the key" } else { "lacks " };
            let is_late = ["has not heard", lacks].iter().any(|words| waits.contains(words));
            !is_late
        });
        let output = rotate(first, ca, phase, &["--force"]);
        assert!(output.status.success(), "{ca} {phase}: {output:?}");
    };
    const ALL: [&str; 5] = ["ssh-user", "ssh-host", "statement", "tls", "federation"];
    during(&errands, |goes_on| {
        load.during(2, || {
            ALL.iter().for_each(|ca| step(first, ca, "start"));
            goes_on("start");
            // Whoever was told whom to trust before that ends, or is told anew.
            renews();
            refused(&rotate(first, "tls", "activate", &[]), 4, "knows the old one alone");
            for phase in ["activate", "rollback"] {
                forced("ssh-user", phase);
                goes_on(phase);
            }
            forced("ssh-user", "activate");
            holds_anew();
            for ca in ["statement", "ssh-host", "tls", "federation"] {
                forced(ca, "activate");
            }
            [&watching, &refreshing].iter().for_each(|host| {
                host.certify(first);
                host.start_sshd();
            });
            watching.write_port(&long.path("port"));
            servers.certify_anew(first);
            goes_on("activate");
            renews();
            holds_anew();
            for ca in ["ssh-user", "ssh-host", "statement", "federation"] {
                forced(ca, "finish");
            }
            goes_on("finish");
            load.goes_on(8);
        });
        assert!(load.troubles().is_empty(), "{:?}", load.troubles());
        let old = status(first, "tls")["notes"].to_string();
        assert!(
            old.contains("of the last day said nothing of the new one") && !old.contains("\"0 jobs"),
            "{old}"
        );
        // Those that know the old one alone are given both.
        let both = succeed(&mut first.command(["export", "tls-ca"]));
        assert_eq!(both.matches("BEGIN CERT").count(), 2);
        let new = first.ca_file().with_extension("new");
        std::fs::write(&new, both).unwrap();
        std::fs::rename(new, first.ca_file()).unwrap();
        forced("tls", "finish");
        goes_on("the end");
    });
    std::fs::write(long.path("end"), "").unwrap();
    assert!(running.wait().success() && !long.path("failed").exists(), "{}", running.stderr());
    assert!(!running.stderr().contains("cannot renew"), "{}", running.stderr());
    ALL.iter().for_each(|ca| assert_eq!(status(first, ca)["phase"], "settled"));
    // Those that were are there no more: a certificate is none, and a federation key is ahead.
    let names = key_files(&first.data_dir());
    assert_eq!(names.len(), ALL.len() + 2, "{names:?}");
    patiently("what ended is gone there too", || key_files(&second.data_dir()) == names);
    for watcher in [&watching, &servers.host] {
        let said = watcher.said();
        assert!(!said.contains("refused"), "{said}");
    }
}
