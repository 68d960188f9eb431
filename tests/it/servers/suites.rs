//! Suites and types of keys, with an sshd whose policy is narrow, and with keys that others have made.

use std::path::Path;

use crate::support::authority::Authority;
use crate::support::issuer::Issuer;
use crate::support::once::World;
use crate::support::policies;
use crate::support::process::{command, machine_id, read, run, succeed};
use crate::support::sshd::{Sshd, login};
use crate::support::wait_for;

/// Lets jobs log in as whoever runs the tests.
fn ours(policy: String) -> String {
    policy.replace("values: [ubuntu]", &format!("values: ['{}']", login()))
}

#[track_caller]
fn key_type(destination: &Path) -> String {
    read(destination.join("key.pub")).split(' ').next().unwrap().to_owned()
}

/// What OpenSSL says of a certificate's key.
#[track_caller]
fn tls_key(destination: &Path) -> String {
    let mut show = command("openssl");
    let text = succeed(show.args(["x509", "-noout", "-text", "-in"]).arg(destination.join("tls.crt")));
    text.lines().find_map(|line| line.trim().strip_prefix("ASN1 OID: ")).unwrap_or("none").to_owned()
}

#[test]
fn an_sshd_of_a_fips_policy_takes_the_jobs_of_a_compatible_authority_and_no_others() {
    let world = World::of_suite("compatible", ours);
    let sshd = Sshd::of_fips(&world.authority);
    let job = world.github();
    let usual = job.once([]).good().destination();
    assert_eq!((key_type(&usual).as_str(), tls_key(&usual).as_str()), ("ecdsa-sha2-nistp256", "prime256v1"));
    sshd.logs_in(&usual);
    let larger = job.once(["--key-type", "ecdsa-p384"]).good().destination();
    assert_eq!((key_type(&larger).as_str(), tls_key(&larger).as_str()), ("ecdsa-sha2-nistp384", "secp384r1"));
    sshd.logs_in(&larger);
    let other = job.once(["--key-type", "ed25519"]).good().destination();
    assert_eq!((key_type(&other).as_str(), tls_key(&other).as_str()), ("ssh-ed25519", "prime256v1"));
    assert_eq!(sshd.try_login(&other, &login()).status.code(), Some(255), "{}", sshd.log());

    let world = World::of_suite("modern", ours);
    let sshd = Sshd::of_fips(&world.authority);
    let job = world.github();
    let usual = job.once([]).good().destination();
    assert_eq!((key_type(&usual).as_str(), tls_key(&usual).as_str()), ("ssh-ed25519", "prime256v1"));
    assert_eq!(sshd.try_login(&usual, &login()).status.code(), Some(255), "{}", sshd.log());
    // It is the CA's key as well.
    let of_p256 = job.once(["--key-type", "ecdsa-p256"]).good().destination();
    sshd.refuses(&of_p256, "signature algorithm ssh-ed25519");
}

/// With an agent, through a renewal, and given back; by each kind of assertion.
#[test]
fn keys_of_each_type_log_in_are_renewed_and_given_back() {
    let world = World::of_suite("modern", ours);
    let sshd = Sshd::start(&world.authority);
    let named = [
        ("ed25519", "ssh-ed25519", "ED25519"),
        ("ecdsa-p256", "ecdsa-sha2-nistp256", "ECDSA"),
        ("ecdsa-p384", "ecdsa-sha2-nistp384", "ECDSA"),
    ];
    std::thread::scope(|scope| {
        for (name, algorithm, short) in named {
            let (world, sshd) = (&world, &sshd);
            scope.spawn(move || {
                let job = world.github().env("MACHINE_ID_KEY_TYPE", name);
                sshd.lets_in_an_agent(&job, algorithm);
                for output in ["identity", "ssh"] {
                    let destination = job.once(["--output", output]).good().destination();
                    assert_eq!(key_type(&destination), algorithm);
                    let told = succeed(machine_id(["inspect"]).arg(&destination));
                    assert!(told.contains(&format!("  key: {algorithm}\n")), "{told}");
                    let listed =
                        succeed(command("ssh-keygen").args(["-l", "-f"]).arg(destination.join("key")));
                    assert!(listed.contains(&format!("({short})")), "{listed}");
                    sshd.logs_in(&destination);
                    job.gives_back(&destination);
                    sshd.refresh_revoked(&world.authority);
                    sshd.refuses(&destination, "revoked");
                }
            });
        }
    });
    let events = world.authority.audit();
    let count = |kind: &str| events.iter().filter(|event| event["event"] == kind).count();
    assert_eq!(count("issued"), count("revoked"));
}

/// Puts keys in the place of those that `init` made, as docs/keys.md says.
fn keys_of_others(folder: &Path, keys: &str) {
    let script = format!(
        "cd '{}' && umask 077 && for key in ssh_user_ca ssh_host_ca; do openssl genpkey {keys} -out $key; done && \
         openssl genpkey {keys} -out tls_ca.key && openssl req -x509 -days 3650 -key tls_ca.key -out tls_ca.crt \
         -subj '/CN=id.test machine-id CA' -addext basicConstraints=critical,CA:true,pathlen:0 \
         -addext keyUsage=critical,keyCertSign,cRLSign",
        folder.display()
    );
    succeed(command("sh").args(["-euc", &script]));
}

const RSA: &str = "-algorithm RSA -pkeyopt rsa_keygen_bits:3072";
const P384: &str = "-algorithm EC -pkeyopt ec_paramgen_curve:P-384";

/// An authority with such keys.
fn world_of_others(keys: &'static str) -> World {
    let issuer = Issuer::start();
    let builder = Authority::with_policy(&ours(policies::basic(&issuer))).issuer(&issuer);
    let exchange = move |folder: &Path| keys_of_others(folder, keys);
    let authority = builder.init(["--suite", "compatible"]).exchanging_keys(exchange).start();
    World { issuer, authority }
}

/// Of users, of hosts and of both lists of revoked ones; `tests/nspawn` has the OpenSSH of other releases of Debian do so.
#[test]
fn openssh_verifies_every_chain_of_every_suite() {
    type Start = fn() -> World;
    let worlds: [(Start, &str); 4] = [
        (|| World::of_suite("modern", ours), "ssh-ed25519"),
        (|| World::of_suite("compatible", ours), "ecdsa-sha2-nistp256"),
        (|| world_of_others(P384), "ecdsa-sha2-nistp384"),
        (|| world_of_others(RSA), "rsa-sha2-256"),
    ];
    std::thread::scope(|scope| {
        for (start, signed) in worlds {
            scope.spawn(move || {
                let world = start();
                let sshd = Sshd::start(&world.authority);
                let job = world.github();
                let once = |key_type| job.once(["--key-type", key_type]).good().destination();
                let list = job.path("list");
                let passes = |certificate: &Path| {
                    run(command("ssh-keygen").arg("-Qf").arg(&list).arg(certificate)).status.success()
                };
                for (name, algorithm) in [
                    ("ed25519", "ssh-ed25519"),
                    ("ecdsa-p256", "ecdsa-sha2-nistp256"),
                    ("ecdsa-p384", "ecdsa-sha2-nistp384"),
                ] {
                    let (destination, other) = (once(name), once(name));
                    assert_eq!(key_type(&destination), algorithm);
                    let certificate = destination.join("key-cert.pub");
                    let said = succeed(command("ssh-keygen").arg("-Lf").arg(&certificate));
                    assert!(said.contains(&format!("(using {signed})")), "{said}");
                    sshd.logs_in(&destination);
                    job.gives_back(&destination);
                    sshd.refresh_revoked(&world.authority);
                    sshd.refuses(&destination, "revoked");
                    sshd.logs_in(&other);
                    let krl = world.authority.client().get("/v1/revoked/ssh.krl").body;
                    std::fs::write(&list, krl).unwrap();
                    assert!(!passes(&certificate) && passes(&other.join("key-cert.pub")));
                }
                succeed(&mut world.authority.command(["revoke-host", "127.0.0.1"]));
                let told = wait_for("the list of hosts", || {
                    let told = once("ed25519");
                    let list = machine_id::krl::read(&std::fs::read(told.join("revoked_hosts.krl")).unwrap());
                    (!list.unwrap().serials.is_empty()).then_some(told)
                });
                let output = sshd.try_login(&told, &login());
                let stderr = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.code() == Some(255) && stderr.contains("revoked"), "{stderr}");
            });
        }
    });
}

#[test]
fn keys_of_rsa_and_of_p384_certify_jobs_for_a_fips_policy() {
    std::thread::scope(|scope| {
        for (keys, named, signed) in [
            (RSA, "ssh-rsa ", "sha256WithRSAEncryption"),
            (P384, "ecdsa-sha2-nistp384 ", "ecdsa-with-SHA384"),
        ] {
            scope.spawn(move || {
                let world = world_of_others(keys);
                let ca = succeed(&mut world.authority.command(["export", "ssh-user-ca"]));
                assert!(ca.starts_with(named), "{ca}");
                let sshd = Sshd::of_fips(&world.authority);
                let job = world.github();
                let destination = job.once([]).good().destination();
                sshd.logs_in(&destination);
                let file = |name: &str| destination.join(name).display().to_string();
                let text =
                    succeed(command("openssl").args(["x509", "-noout", "-text", "-in", &file("tls.crt")]));
                assert!(text.contains(signed), "{text}");
                succeed(command("openssl").args([
                    "verify",
                    "-x509_strict",
                    "-CAfile",
                    &file("ca.crt"),
                    &file("tls.crt"),
                ]));
                job.gives_back(&destination);
                sshd.refresh_revoked(&world.authority);
                sshd.refuses(&destination, "revoked");
                // What is stated, and by whom, is for its servers to verify.
                let trust = job.path("trust");
                let mut refresh =
                    machine_id(["host", "refresh", "--authority", &world.authority.url(), "--dir"]);
                succeed(refresh.arg(&trust).arg("--ca-file").arg(world.authority.ca_file()));
                let doctor = world.authority.run(["doctor"]);
                let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
                assert!(said.contains("ok: keys: "), "{said}");
            });
        }
    });
}
