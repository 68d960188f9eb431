//! Every chain that the authority makes, as others verify it, with lists on.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use machine_id::pem;

use crate::support::client::Client;
use crate::support::company::Company;
use crate::support::once::World;
use crate::support::process::{command, read, succeed};
use crate::support::verifiers::{ALL, Verifier, verify};

/// What is revoked now, in PEM.
fn list(world: &World) -> String {
    let client = Client::trusting(world.authority.address(), &read(world.authority.ca_file()));
    let list = client.get("/v1/revoked/tls.crl");
    pem::encode("X509 CRL", &list.body).to_string()
}

fn put(folder: &Path, name: &str, text: &str) -> PathBuf {
    let file = folder.join(name);
    std::fs::write(&file, text).unwrap();
    file
}

/// A server's chain, signed now.
fn server(world: &World, folder: &Path, name: &str) -> PathBuf {
    let out = folder.join(name);
    let mut sign = world.authority.command(["sign-server", "--name", "db.test"]);
    succeed(sign.arg("--out").arg(&out));
    out.join("server.crt")
}

/// Of the certificates in a file, the first one's serial in hexadecimal.
fn serial(chain: &Path) -> String {
    let der = pem::certificates(&read(chain)).unwrap().remove(0);
    let (_, certificate) = x509_parser::parse_x509_certificate(&der).unwrap();
    format!("0x{}", certificate.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

#[track_caller]
fn takes(by: Verifier, trust: &Path, lists: &Path, chain: &Path, is_server: bool) {
    let (is_good, said) = verify(by, trust, lists, chain, is_server);
    assert!(is_good, "{by:?} refuses {} by {}: {said}", chain.display(), trust.display());
}

#[track_caller]
fn refuses(by: Verifier, trust: &Path, lists: &Path, chain: &Path, why: &str) {
    let (is_good, said) = verify(by, trust, lists, chain, true);
    assert!(!is_good && said.to_lowercase().contains(why), "{by:?}: {said}");
}

/// Servers and jobs of one authority: by its own CA, and then under a company's root. Jobs' keys are of that type.
#[track_caller]
fn everybody_verifies(mut world: World, key_type: &str) {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let ours = world.authority.ca_file();
    let before = server(&world, folder, "before");
    let job = world.github();
    let job = job.once(["--output", "identity", "--key-type", key_type]).good().destination().join("tls.crt");
    let lists = put(folder, "ours.crl", &list(&world));
    for by in ALL {
        takes(by, &ours, &lists, &before, true);
        takes(by, &ours, &lists, &job, false);
    }

    let company = Company::new();
    let root = company.adopt(&mut world.authority);
    let after = server(&world, folder, "after");
    let all = [list(&world), company.issuing.crl(), company.root.crl()].concat();
    let lists = put(folder, "all.crl", &all);
    for by in ALL {
        takes(by, &root, &lists, &after, true);
        // What has been signed before is verified as ever, and so are jobs; the root says nothing for either.
        takes(by, &ours, &lists, &before, true);
        takes(by, &ours, &lists, &job, false);
        assert!(
            !verify(by, &root, &lists, &before, true).0 && !verify(by, &root, &lists, &job, false).0,
            "{by:?}"
        );
    }
    takes(Verifier::OpenSsl, &ours, &lists, &after, true);
    takes(Verifier::Java, &ours, &lists, &after, true);
    // GnuTLS follows the chain that it is sent, and no other: it needs the root, be it beside ours.
    assert!(!verify(Verifier::GnuTls, &ours, &lists, &after, true).0, "docs/keys.md says otherwise");
    let both = put(folder, "both.pem", &(read(&ours) + &read(&root)));
    takes(Verifier::GnuTls, &both, &lists, &after, true);

    // Without a list of the CA's nobody says that one is good; on one that has it, all say that it is not.
    let without = put(folder, "without.crl", &[company.issuing.crl(), company.root.crl()].concat());
    refuses(Verifier::OpenSsl, &root, &without, &after, "unable to get certificate crl");
    refuses(Verifier::Java, &root, &without, &after, "could not determine revocation status");
    succeed(&mut world.authority.command(["lock", "--serial", &serial(&after)]));
    let revoked = [list(&world), company.issuing.crl(), company.root.crl()].concat();
    let revoked = put(folder, "revoked.crl", &revoked);
    for by in ALL {
        refuses(by, &root, &revoked, &after, "revoked");
        takes(by, &ours, &revoked, &before, true);
    }
}

/// A TLS CA of another key, as an operator makes it by OpenSSL: see docs/keys.md.
const OTHER_CA: &str = "
    printf '[req]\ndistinguished_name=dn\nstring_mask=utf8only\nx509_extensions=ca\n[dn]\n[ca]\n%s\n%s\n%s\n' \
        basicConstraints=critical,CA:TRUE,pathlen:0 keyUsage=critical,keyCertSign,cRLSign subjectKeyIdentifier=hash > ../ca.cnf
    openssl genpkey $KEY -out tls_ca.key
    openssl req -x509 -config ../ca.cnf -key tls_ca.key -subj '/CN=id.test machine-id CA' -days 3650 -out tls_ca.crt
    chmod 600 tls_ca.key tls_ca.crt
";

/// An authority whose TLS CA's key is made by these options of `openssl genpkey`.
#[track_caller]
fn world_of_key(options: &str) -> World {
    let mut world = World::start();
    assert!(world.authority.terminate().success());
    let keys = world.authority.data_dir().join("keys");
    succeed(
        command("bash").args(["-euc", OTHER_CA]).env("KEY", options).current_dir(&keys).stderr(Stdio::null()),
    );
    // It is no other authority, but for what the store knows of its keys.
    let store = rusqlite::Connection::open(world.authority.data_dir().join("authority.db")).unwrap();
    store.execute("DELETE FROM cas", []).unwrap();
    std::fs::copy(keys.join("tls_ca.crt"), world.authority.ca_file()).unwrap();
    world.authority.restart();
    world
}

#[test]
fn everybody_verifies_what_is_signed_by_the_usual_keys() {
    everybody_verifies(World::start(), "ed25519");
}

#[test]
fn everybody_verifies_what_is_signed_by_a_compatible_authority() {
    everybody_verifies(World::of_suite("compatible", |policy| policy), "ecdsa-p256");
}

#[test]
fn everybody_verifies_what_is_signed_by_p384() {
    everybody_verifies(world_of_key("-algorithm EC -pkeyopt ec_paramgen_curve:P-384"), "ecdsa-p384");
}

#[test]
fn everybody_verifies_what_is_signed_by_rsa() {
    everybody_verifies(world_of_key("-algorithm RSA -pkeyopt rsa_keygen_bits:3072"), "ecdsa-p256");
}

#[test]
fn everybody_verifies_what_is_signed_by_ed25519() {
    everybody_verifies(world_of_key("-algorithm ED25519"), "ed25519");
}
