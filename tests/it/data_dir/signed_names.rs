//! What `sign-host` and `sign-server` sign, and what they refuse since nothing would come of it.

use std::process::Output;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::{Data, said};
use crate::support::client::Keys;
use crate::support::process::{command, machine_id, read, run, succeed};

fn sign_host(data: &Data, principals: &[String]) -> Output {
    let key = data.path("host.pub");
    std::fs::write(&key, Keys::fresh().ssh).unwrap();
    let flags = principals.iter().flat_map(|name| ["--principal", name]);
    run(machine_id(["authority", "sign-host"]).args(flags).arg("--data-dir").arg(data.path("")).arg(key))
}

#[test]
fn a_hosts_certificate_is_one_that_ssh_takes() {
    let data = Data::new();
    for (name, hint) in [
        ("LOCALHOST", "write `localhost`"),
        ("localhost.", "write `localhost`"),
        ("127.0.0.1:2299", "write `127.0.0.1`"),
        ("::0001", "write `::1`"),
        ("::ffff:192.0.2.1", "write `192.0.2.1`"),
        (
            "fe80::1%eth0",
            "a DNS name in lower case without a dot at its end, or an IP address in its usual form",
        ),
        ("010.0.0.1", "a DNS name in lower case"),
    ] {
        let refused = sign_host(&data, &["web.test".to_owned(), name.to_owned()]);
        assert_eq!(refused.status.code(), Some(2), "{name}");
        let said = said(&refused);
        assert!(said.contains(&format!("`{name}` cannot be a host name: {hint}")), "{said}");
    }
    let names = |count: usize| (0..count).map(|n| format!("web-{n}.test")).collect::<Vec<_>>();
    let refused = sign_host(&data, &names(257));
    assert_eq!(refused.status.code(), Some(2));
    assert!(said(&refused).contains("a certificate holds at most 256 principals"));
    // As many as OpenSSH reads.
    let signed = sign_host(&data, &names(256));
    assert!(signed.status.success(), "{}", said(&signed));
    std::fs::write(data.path("host-cert.pub"), signed.stdout).unwrap();
    let listed = succeed(command("ssh-keygen").arg("-L").arg("-f").arg(data.path("host-cert.pub")));
    assert!(listed.contains("web-255.test"), "{listed}");
}

/// Clients that know the CA by its pin alone look for it behind the certificate.
#[test]
fn a_servers_certificate_has_its_ca_behind_it() {
    let data = Data::new();
    let sign = |args: &[&str]| {
        let mut sign = machine_id(["authority", "sign-server"]);
        run(sign.args(args).arg("--data-dir").arg(data.path("")))
    };
    let out = data.path("out").display().to_string();
    let signed = sign(&["--name", "DB.test", "--name", "*.db.test", "--name", "::0001", "--out", &out]);
    assert!(signed.status.success(), "{}", said(&signed));
    let key = data.path("own.key").display().to_string();
    let csr = data.path("own.csr").display().to_string();
    let request =
        ["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/"];
    succeed(command("openssl").args(request).args(["-keyout", &key, "-out", &csr]));
    let of_csr = sign(&["--name", "db.test", "--csr", &csr]);
    for chain in [read(data.path("out/server.crt")).into_bytes(), of_csr.stdout] {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&chain).map(Result::unwrap).collect();
        let ca = CertificateDer::from_pem_file(data.path("keys/tls_ca.crt")).unwrap();
        assert_eq!(chain.len(), 2);
        assert_eq!(chain[1], ca);
    }
    let mut names = command("openssl");
    names.args(["x509", "-noout", "-ext", "subjectAltName", "-in"]);
    let names = succeed(names.arg(data.path("out/server.crt")));
    assert!(names.contains("DNS:db.test, DNS:*.db.test, IP Address:0:0:0:0:0:0:0:1"), "{names}");
    for (name, hint) in [
        ("db.test.", "write `db.test`"),
        ("db.test:5432", "write `db.test`"),
        ("127.1", "a DNS name in lower case"),
        ("*.10.0.0.1", "a DNS name in lower case"),
        ("*", "a DNS name in lower case"),
        ("https://db.test", "a DNS name in lower case"),
    ] {
        let refused = sign(&["--name", name, "--out", &data.path("none").display().to_string()]);
        assert_eq!(refused.status.code(), Some(2), "{name}");
        let said = said(&refused);
        assert!(said.contains(&format!("`{name}` cannot be a host name: {hint}")), "{said}");
    }
    assert!(!data.path("none").exists());
}
