//! The TLS CA under a root that exists, while it is rotated.

use super::*;

/// The company certifies the next one too, before it signs.
#[test]
fn a_tls_ca_under_the_root_is_rotated() {
    let data = Data::new();
    succeed(command("bash").args(["-euc", CERTIFY]).current_dir(data.0.path()).stderr(Stdio::null()));
    let rotate = |phase: &str, more: &[&str]| {
        let output = data.authority(&[&["rotate", "--ca", "tls", "--phase", phase], more].concat());
        assert!(output.status.success(), "{phase}: {}", said(&output));
    };
    let import = || {
        let output = data.import(&data.beside("chain.pem"));
        assert!(output.status.success(), "{}", said(&output));
    };
    import();
    rotate("start", &["--tls-ca-csr", &data.beside("next.csr").display().to_string()]);
    let again = CERTIFY.lines().filter(|line| line.contains("tls-ca.csr") || line.contains(" > chain.pem"));
    let again = again
        .collect::<Vec<_>>()
        .join("\n")
        .replace("-days 300", "-days 400")
        .replace("tls-ca.csr", "next.csr");
    succeed(command("bash").args(["-euc", &again]).current_dir(data.0.path()).stderr(Stdio::null()));
    import();
    let old = data.ca();
    for phase in ["activate", "finish"] {
        rotate(phase, &["--force"]);
        let out = data.beside(phase);
        let place = out.display().to_string();
        let signed = data.authority(&["sign-server", "--name", "db.test", "--out", &place]);
        assert!(signed.status.success(), "{}", said(&signed));
        let mut openssl = command("openssl");
        openssl.args(["verify", "-no-CApath", "-CAfile"]).arg(data.beside("root.crt"));
        succeed(openssl.arg("-untrusted").arg(out.join("server.crt")).arg(out.join("server.crt")));
        assert_eq!(
            read(out.join("server.crt")).ends_with(&old),
            phase == "activate",
            "for who looks further"
        );
        let check = data.authority(&["check"]);
        assert!(check.status.success(), "{phase}: {}", said(&check));
    }
    assert_ne!(data.ca(), old);
    assert!(!data.path("keys/tls_ca_cross.crt").exists(), "what certified the old one is gone with it");
}

/// Where the TLS CA stands under a root, the next one is to stand there before it signs.
#[test]
fn the_next_ca_waits_until_it_stands_under_the_root() {
    let (data, company) = (Data::new(), Company::new());
    let import = |ca: &str| {
        std::fs::write(data.beside("chain.pem"), company.chain(&tls_ca(ca))).unwrap();
        let output = data.import(&data.beside("chain.pem"));
        assert!(output.status.success(), "{}", said(&output));
    };
    let rotate = |ca: &str, phase: &str, more: &[&str], code: i32, words: &str| {
        let output = data.authority(&[&["rotate", "--ca", ca, "--phase", phase][..], more].concat());
        assert_eq!(output.status.code(), Some(code), "{phase}: {}", said(&output));
        assert!(said(&output).contains(words), "{phase}: no {words:?} in {}", said(&output));
    };
    let tls = |phase: &str, more: &[&str], code: i32, words: &str| rotate("tls", phase, more, code, words);
    // A server's certificate is believed by who has this alone.
    let signs = |name: &str, trusted: &[&str]| {
        let out = data.beside(name);
        let output = data.authority(&["sign-server", "--name", "db.test", "--out", out.to_str().unwrap()]);
        assert!(output.status.success(), "{}", said(&output));
        let server = out.join("server.crt");
        for trusted in trusted {
            let mut openssl = command("openssl");
            openssl.args(["verify", "-no-CApath", "-CAfile"]).arg(data.beside(trusted));
            succeed(openssl.arg("-untrusted").arg(&server).arg(&server));
        }
    };
    std::fs::write(data.beside("root.crt"), &company.root.pem).unwrap();
    let first = data.ca();
    std::fs::write(data.beside("first.crt"), &first).unwrap();
    import(&first);

    let [csr, again] = ["next.csr", "again.csr"].map(|name| data.beside(name).display().to_string());
    rotate("ssh-user", "start", &["--tls-ca-csr", &csr], 2, "is for `--ca tls --phase start`");
    tls("activate", &["--tls-ca-csr", &csr], 2, "is for `--ca tls --phase start`");
    std::fs::write(&csr, "").unwrap();
    tls("start", &["--tls-ca-csr", &csr], 2, "next.csr exists already");
    tls("activate", &[], 2, "no rotation of it has begun");
    std::fs::remove_file(&csr).unwrap();
    tls("start", &["--tls-ca-csr", &csr], 0, "tls: started");
    // Whoever has lost it, or was interrupted.
    tls("start", &["--tls-ca-csr", &again], 0, "tls: started");
    tls("start", &[], 2, "a rotation of it has begun");
    let exported = String::from_utf8(data.authority(&["export", "tls-ca"]).stdout).unwrap();
    let next = exported.strip_prefix(&first).unwrap();
    std::fs::write(data.beside("next.crt"), next).unwrap();
    let subject = |args: &[&str], file: &str| {
        succeed(command("openssl").args(args).args(["-noout", "-subject", "-in"]).arg(data.beside(file)))
    };
    for csr in ["next.csr", "again.csr"] {
        assert_eq!(subject(&["req", "-verify"], csr), subject(&["x509"], "next.crt"));
    }

    let waits = "whoever trusts `CN=Company Root` alone, under which the old one stands, believes no server";
    tls("activate", &[], 4, waits);
    tls("activate", &["--force"], 0, waits);
    tls("rollback", &[], 0, "tls: started");
    tls("activate", &[], 4, "import --tls-ca CHAIN.pem");
    signs("before", &["root.crt", "first.crt"]);
    import(next);
    tls("activate", &[], 0, "tls: activated");
    signs("between", &["root.crt", "next.crt"]);
    tls("finish", &[], 4, "1 certificate of the CA");
    tls("finish", &["--force"], 0, "tls: settled");

    // What those read who ask no store is of the one that signs.
    signs("after", &["root.crt", "next.crt"]);
    import(next);
    assert_eq!(data.ca(), next);
    let check = String::from_utf8(data.authority(&["check"]).stdout).unwrap();
    assert!(check.contains("the cross-certificate of the TLS CA ends at "), "{check}");
    signs("again", &["root.crt", "next.crt"]);
}
