//! Outputs against real servers, applications behind nginx and hosts with
//! sshd, and several outputs in one run.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::nginx::Nginx;
use crate::support::once::{Job, World, heredocs, manifest};
use crate::support::page;
use crate::support::process::{command, read, run, succeed};
use crate::support::servers::{Folder, world_of};
use crate::support::sshd::{Sshd, login};

#[track_caller]
fn output(world: &World, output: &str) -> (Job, PathBuf) {
    let job = world.github();
    let destination = job.once(["--output", output]).good().destination();
    (job, destination)
}

/// The status that nginx answers, or nothing where it answers none.
fn status(nginx: &Nginx, destination: &Path) -> String {
    let file = |name: &str| destination.join(name).display().to_string();
    let mut curl = command("curl");
    curl.args([
        "-s",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        "--cert",
        &file("tls.crt"),
        "--key",
        &file("tls.key"),
    ]);
    String::from_utf8(run(curl.args(["--cacert", &file("ca.crt"), &nginx.url()])).stdout).unwrap()
}

#[test]
fn nginx_lets_in_the_application_that_it_is() {
    let world = world_of(&["nginx.md"], &["orders-app"], "");
    let folder = Folder::new(&world.authority, "root");
    std::fs::create_dir(folder.path("srv")).unwrap();
    std::fs::write(folder.path("srv/index.html"), "orders").unwrap();
    let nginx = Nginx::with_site(|address| {
        let site = page::file_in("nginx.md", "site.conf", &folder.tls());
        assert!(site.contains("listen 443 ssl;") && site.contains("/srv/orders"));
        let site = site.replace("listen 443 ssl;", &format!("listen {address} ssl;"));
        site.replace("/srv/orders", folder.path("srv").to_str().unwrap())
    });
    let (_job, orders) = output(&world, "application,app=orders");
    assert_eq!(status(&nginx, &orders), "200", "{}", nginx.log());
    let subject =
        succeed(command("openssl").args(["x509", "-noout", "-subject", "-in"]).arg(orders.join("tls.crt")));
    assert_eq!(subject, "subject=CN = app:orders\n");
    // Other certificates of the same authority, and one of another.
    for other in ["application,app=billing", "identity"] {
        let (_job, destination) = output(&world, other);
        assert_eq!(status(&nginx, &destination), "403", "{other}");
    }
    let stranger = world_of(&["nginx.md"], &["orders-app"], "");
    let (_job, strange) = output(&stranger, "application,app=orders");
    std::fs::copy(orders.join("ca.crt"), strange.join("ca.crt")).unwrap();
    assert_eq!(status(&nginx, &strange), "400");
    let refused = world.github().once(["--output", "application,app=vault"]).failed(4);
    refused.says(&["the application `vault` is not granted by its roles (`deploy`, `orders-app`)"]);
}

/// A world whose user logs in with `ssh`, and where hosts get certificates.
fn hosts() -> World {
    let page = page::file("ssh-hosts.md", "policy.yaml");
    World::with_policy(|policy| {
        let user = login();
        policy
            .replace("values: [ubuntu]", &format!("values: ['{user}']"))
            .replace("roles: [deploy]", "roles: [deploy, image-builder]")
            + "---\n"
            + &page
    })
}

fn sshd_of(destination: &Path) -> Sshd {
    Sshd::with_config(&page::file_in("ssh-hosts.md", "sshd_config", destination))
}

#[test]
fn sshd_shows_its_certificate_and_lets_users_in() {
    let world = hosts();
    let (_host, destination) =
        output(&world, "ssh-host,principals=127.0.0.1+web.example.com,roles=image-builder");
    let sshd = sshd_of(&destination);
    let (_job, user) = output(&world, "ssh,roles=deploy");
    sshd.logs_in(&user);
    assert_eq!(
        manifest(&destination)["outputs"][0]["principals"],
        serde_json::json!(["127.0.0.1", "web.example.com"])
    );

    // A certificate for another host: the client refuses it.
    let (_host, elsewhere) = output(&world, "ssh-host,principals=web.example.com");
    let login = sshd_of(&elsewhere).try_login(&user, &login());
    assert!(String::from_utf8_lossy(&login.stderr).contains("name is not a listed principal"), "{login:?}");
    // A user's certificate is no host's, and a host's no user's.
    let said = succeed(command("ssh-keygen").arg("-L").arg("-f").arg(destination.join("ssh_host-cert.pub")));
    assert!(said.contains("host certificate") && said.contains("Critical Options: (none)"), "{said}");
    let job = world.github();
    for (principals, says) in [
        ("vault.example.com", "the host name `vault.example.com` is not granted"),
        ("web.example.com+example.org", "the host name `example.org` is not granted"),
        ("VAULT.example.com", "cannot be a host name"),
        ("*.example.com", "cannot be a host name"),
    ] {
        job.once(["--output", &format!("ssh-host,principals={principals}")]).failed(4).says(&[says]);
    }
    job.once(["--output", "ssh-host,principals=127.0.0.1,roles=deploy"]).failed(4).says(&["is not granted"]);
    assert!(job.left().is_empty(), "{:?}", job.left());
}

#[test]
fn a_host_keeps_the_key_that_it_has() {
    let world = hosts();
    let job = world.github();
    succeed(command("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(job.path("old")));
    let wanted = format!("ssh-host,principals=127.0.0.1,public-key={}", job.text_path("old.pub"));
    let destination = job.once(["--output", &wanted]).good().destination();
    assert!(!destination.join("ssh_host").exists());
    let fingerprint = |file: &Path| {
        let said = succeed(command("ssh-keygen").arg("-l").arg("-f").arg(file));
        said.split(' ').nth(1).unwrap().to_owned()
    };
    assert_eq!(fingerprint(&destination.join("ssh_host-cert.pub")), fingerprint(&job.path("old.pub")));
    let key = page::file_in("ssh-hosts.md", "sshd_config", &destination)
        .replace(&format!("{}/ssh_host\n", destination.display()), &format!("{}\n", job.text_path("old")));
    let (_job, user) = output(&world, "ssh,roles=deploy");
    Sshd::with_config(&key).logs_in(&user);
    // The private key in its place is refused, and not shown.
    let wrong = format!("ssh-host,principals=127.0.0.1,public-key={}", job.text_path("old"));
    let outcome = job.once(["--output", &wrong]).failed(2);
    outcome.says(&["`public-key` must name an OpenSSH public key"]);
    assert!(!outcome.stderr.contains("PRIVATE KEY"));
}

#[test]
fn cleanup_gives_a_host_certificate_back() {
    let world = hosts();
    let (job, destination) = output(&world, "ssh-host,principals=127.0.0.1");
    let certificate = job.path("spare-cert.pub");
    std::fs::copy(destination.join("ssh_host-cert.pub"), &certificate).unwrap();
    job.run(["cleanup", "-v", &destination.display().to_string()]).good().says(&["revoked the certificates"]);
    let list = job.path("krl");
    let ask = || -> Command {
        std::fs::write(&list, world.authority.client().get("/v1/revoked/ssh.krl").body).unwrap();
        let mut ask = command("ssh-keygen");
        ask.arg("-Q").arg("-f").arg(&list).arg(&certificate);
        ask
    };
    crate::support::wait_for("the host certificate on the list", || {
        (!run(&mut ask()).status.success()).then_some(())
    });
}

/// How many exchanges the authority has had.
fn exchanges(world: &World) -> usize {
    let asked = |event: &serde_json::Value| event["event"] == "issued" || event["event"] == "refused";
    world.authority.audit().iter().filter(|event| asked(event)).count()
}

const SEVERAL: &str = "---\nkind: role\nversion: v7\nmetadata: {name: extra}\nspec:\n  options: {max_session_ttl: 10m}\n  allow: {db_users: [extra], kubernetes_groups: [extra]}\n";

#[test]
fn each_output_has_its_own_roles_and_destination_in_one_exchange() {
    let pages = ["postgresql.md", "kubernetes.md", "nginx.md", "ssh-hosts.md"];
    let world = world_of(&pages, &["orders", "kube", "orders-app", "image-builder", "extra"], SEVERAL);
    let job = world.github();
    let config = format!(
        "version: v1\ndestination: {all}\noutputs:\n\
         \x20 - {{type: identity, roles: [deploy]}}\n\
         \x20 - {{type: database, name: orders, roles: [orders], service: orders, database: orders}}\n\
         \x20 - {{type: database, name: second, roles: [extra], service: other}}\n\
         \x20 - {{type: kubernetes, roles: [kube], cluster: prod, server: 'https://k8s.example.com', destination: {kube}}}\n\
         \x20 - {{type: application, roles: [orders-app], app: orders}}\n\
         \x20 - {{type: ssh-host, roles: [image-builder], principals: [web.example.com, 127.0.0.1]}}\n",
        all = job.text_path("all"),
        kube = job.text_path("kube"),
    );
    std::fs::write(job.path("config.yaml"), config).unwrap();
    let outcome = job.once(["--config", "config.yaml"]).good();
    assert_eq!(outcome.stdout, format!("{}\n{}\n", job.text_path("all"), job.text_path("kube")));

    let all = manifest(&job.path("all"));
    let roles: Vec<(String, String)> = all["outputs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|output| (output["name"].as_str().unwrap().to_owned(), output["roles"].to_string()))
        .collect();
    let wanted = [
        ("identity", "[\"deploy\"]"),
        ("orders", "[\"orders\"]"),
        ("second", "[\"extra\"]"),
        ("application", "[\"orders-app\"]"),
        ("ssh-host", "[\"image-builder\"]"),
    ];
    assert_eq!(roles, wanted.map(|(name, roles)| (name.to_owned(), roles.to_owned())));
    let subject = |file: &str| {
        succeed(command("openssl").args(["x509", "-noout", "-subject", "-in"]).arg(job.path(file)))
    };
    assert_eq!(subject("all/identity/tls.crt"), "subject=CN = bot:deployer\n");
    assert_eq!(subject("all/orders/tls.crt"), "subject=CN = deploy\n");
    assert_eq!(subject("all/second/tls.crt"), "subject=CN = extra\n");
    assert_eq!(subject("all/application/tls.crt"), "subject=CN = app:orders\n");
    assert!(job.path("all/ssh-host/ssh_host-cert.pub").is_file());
    assert!(read(job.path("kube/kubeconfig.yaml")).contains("server: \"https://k8s.example.com\""));
    // One issuance, and the variables of one database whole.
    let issuance = all["issuance_id"].as_str().unwrap();
    assert_eq!(manifest(&job.path("kube"))["issuance_id"], issuance);
    assert_eq!(exchanges(&world), 1);
    let told = heredocs(&job.said("GITHUB_ENV"));
    assert_eq!(
        (told["PGUSER"].as_str(), told["PGSSLCERT"].as_str()),
        ("deploy", job.text_path("all/orders/tls.crt").as_str())
    );
    assert_eq!(told["KUBECONFIG"], job.text_path("kube/kubeconfig.yaml"));

    // One that is refused refuses all.
    let refused = world.github();
    refused.once(["--output", "identity", "--output", "database,service=s,user=postgres"]).failed(4);
    assert!(refused.left().is_empty(), "{:?}", refused.left());
}

#[test]
fn options_are_checked_before_anything_is_asked() {
    let world = hosts();
    let job = world.github();
    for (output, says) in [
        ("database", "type `database` needs `service=…`"),
        ("kubernetes,server=https://x", "type `kubernetes` needs `cluster=…`"),
        ("kubernetes,cluster=c,server=http://x", "`server` must be an https URL"),
        ("application", "type `application` needs `app=…`"),
        ("ssh-host", "type `ssh-host` needs `principals=…`"),
        ("database,service=s,format=pkcs12", "`format` must be one of: tls, mongo, cockroach"),
        ("database,service=s,server-ca=nowhere.pem", "cannot read `server-ca` nowhere.pem"),
        ("database,service=s,server-ca=GITHUB_ENV", "`server-ca` must name a file of certificates"),
        ("database,service=s,usr=x", "did you mean `user`?"),
    ] {
        job.once(["--output", output]).failed(2).says(&[says]);
    }
    assert_eq!(exchanges(&world), 0);
}
