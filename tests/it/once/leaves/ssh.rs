//! Plain `ssh` takes the right certificate and believes the right host CA by the host's name.

use super::Clusters;
use crate::support::process::{command, succeed};

/// Ways to name a host of the leaf `a.test`: as it is typed, and the port.
const NAMES: [(&str, &str); 6] = [
    ("db-1.a.test", "22"),
    ("db-1.a.test", "2222"),
    ("db-1.a.test.", "22"),
    ("db-1.a.test.", "2222"),
    ("DB-1.A.test", "22"),
    ("a-bastion.test", "2222"),
];

/// What a host certificate needs for each of them.
const OF_A: [&str; 3] = ["db-1.a.test", "db-1.a.test.", "a-bastion.test"];

#[test]
fn each_host_ca_is_believed_for_its_own_clusters_hosts() {
    let clusters = Clusters::start();
    let job = clusters.job();
    job.run(super::mixed("d", &["--output", "ssh,at=b.test"])).good();
    let config = job.path("d/ssh_config");
    // A host of the leaf, which lets in its own users alone.
    let host = clusters.a.sshd(&OF_A, &clusters.a);
    for (name, port) in NAMES {
        host.login(&config, name, port)
            .unwrap_or_else(|why| panic!("{name} {port}: {why}\n{}", host.sshd.log()));
    }
    host.sshd.wait_for_log("ID deployer a.test ");
    assert!(!host.sshd.log().contains("ID deployer root.test"), "{}", host.sshd.log());
    // One that has its certificate from somebody else is not believed, though it would let everybody in.
    for other in [&clusters.root, &clusters.b] {
        let host = other.sshd(&OF_A, &clusters.a);
        for (name, port) in NAMES {
            let why = host.login(&config, name, port).expect_err(name);
            assert!(why.contains("Host key verification failed"), "{name} {port}: {why}");
        }
    }
    // Nor are leaves for hosts of the root's.
    let names = ["web.root.test", "a.test", "xa.test"];
    for (fake, is_believed) in [(&clusters.root, true), (&clusters.a, false)] {
        let host = fake.sshd(&names, &clusters.root);
        for name in names {
            assert_eq!(host.login(&config, name, "2222").is_ok(), is_believed, "{name}\n{}", host.sshd.log());
        }
    }
    // What stands in the folder of one output is no other cluster's either.
    let host = clusters.root.sshd(&OF_A, &clusters.root);
    host.login(&job.path("d/identity/ssh_config"), "db-1.a.test", "22").unwrap_err();
    let host = clusters.a.sshd(&["web.root.test"], &clusters.a);
    host.login(&job.path("d/ssh-a.test/ssh_config"), "web.root.test", "22").unwrap_err();
}

#[test]
fn ssh_itself_says_which_keys_it_would_take() {
    let clusters = Clusters::start();
    let job = clusters.job();
    job.run(super::mixed("d", &[])).good();
    let keys = |name: &str| {
        let said = succeed(command("ssh").arg("-G").arg("-F").arg(job.path("d/ssh_config")).arg(name));
        let keys = said.lines().filter_map(|line| line.strip_prefix("certificatefile "));
        keys.map(|path| path.rsplit('/').nth(1).unwrap().to_owned()).collect::<Vec<_>>()
    };
    for name in ["db-1.a.test", "DB-1.a.test", "db-1.a.test.", "x.y.a.test", "a-bastion.test"] {
        assert_eq!(keys(name), ["ssh-a.test"], "{name}");
    }
    for name in ["a.test", "xa.test", "web.example.com", "127.0.0.1"] {
        assert_eq!(keys(name), ["identity"], "{name}");
    }
    // A leaf that has no SSH output here: neither the root's key nor one of the user's own.
    assert!(keys("db.b.test").is_empty());
    let said = succeed(command("ssh").arg("-G").arg("-F").arg(job.path("d/ssh_config")).arg("db.b.test"));
    let identities: Vec<_> = said.lines().filter(|line| line.starts_with("identityfile ")).collect();
    assert_eq!(identities, ["identityfile none"]);
}
