//! Under a company's root: who trusts that alone believes the servers that the authority certifies, and nobody else's
//! certificates let anybody in.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use machine_id::clock::rfc3339;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
    KeyIdMethod, KeyPair, KeyUsagePurpose, NameConstraints, PublicKeyData as _,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tempfile::TempDir;
use x509_parser::parse_x509_certificate;

use crate::support::client::Client;
use crate::support::company::{Ca, Company, DAYS, ca_params, tls_ca};
use crate::support::once::World;
use crate::support::postgres::Postgres;
use crate::support::process::{command, machine_id, read, run, succeed};
use crate::support::servers::world_of;

mod rotated;

/// What an operator of a company's CA does with the request, by OpenSSL: a root, a CA below it, the certificate and its chain.
const CERTIFY: &str = "
    new='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'
    openssl req -x509 $new -keyout root.key -out root.crt -days 3650 -subj '/O=Company/CN=Root'
    openssl req $new -keyout issuing.key -out issuing.csr -subj '/O=Company/CN=Issuing'
    printf 'basicConstraints=critical,CA:TRUE\\nkeyUsage=critical,keyCertSign,cRLSign\\nsubjectKeyIdentifier=hash\\n' > ca.ext
    openssl x509 -req -in issuing.csr -CA root.crt -CAkey root.key -CAcreateserial -days 1800 -extfile ca.ext -out issuing.crt
    openssl req -in tls-ca.csr -noout -verify
    openssl x509 -req -in tls-ca.csr -CA issuing.crt -CAkey issuing.key -CAcreateserial -days 300 -copy_extensions copyall -out copied.crt
    openssl x509 -req -in tls-ca.csr -CA issuing.crt -CAkey issuing.key -CAcreateserial -days 300 -extfile ca.ext -out cross.crt
    cat copied.crt issuing.crt root.crt > copied.pem
    cat cross.crt issuing.crt root.crt > chain.pem
";

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn end_of(pem: &str) -> i64 {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    parse_x509_certificate(&der).unwrap().1.validity().not_after.timestamp()
}

/// A data directory that nothing serves, with the request for its TLS CA.
struct Data(TempDir);

impl Data {
    fn new() -> Self {
        let data = Self(TempDir::new().unwrap());
        let init =
            ["authority", "init", "--cluster", "id.test", "--public-url", "https://id.test", "--data-dir"];
        let mut init = machine_id(init);
        let told = succeed(init.arg(data.path("")).arg("--tls-ca-csr").arg(data.beside("tls-ca.csr")));
        assert!(
            told.contains(" authority import --data-dir ") && told.contains(" --tls-ca CHAIN.pem"),
            "{told}"
        );
        let role = "kind: role\nversion: v7\nmetadata: {name: deploy}\nspec: {allow: {logins: [deploy]}}\n";
        std::fs::write(data.path("policy/role.yaml"), role).unwrap();
        data
    }

    fn path(&self, name: &str) -> PathBuf {
        self.beside("data").join(name)
    }

    fn beside(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn authority(&self, args: &[&str]) -> Output {
        run(machine_id(["authority"]).args(args).arg("--data-dir").arg(self.path("")))
    }

    fn import(&self, chain: &Path) -> Output {
        self.authority(&["import", "--tls-ca", &chain.display().to_string()])
    }

    fn ca(&self) -> String {
        read(self.path("keys/tls_ca.crt"))
    }
}

#[test]
fn a_request_comes_back_as_a_certificate_that_everybody_believes() {
    let data = Data::new();
    succeed(command("bash").args(["-euc", CERTIFY]).current_dir(data.0.path()).stderr(Stdio::null()));
    for chain in ["copied.pem", "chain.pem"] {
        let output = data.import(&data.beside(chain));
        assert!(output.status.success(), "{}", said(&output));
        assert!(said(&output).contains("whoever trusts `O=Company, CN=Root` alone believes"), "{output:?}");
    }
    assert_eq!(read(data.path("keys/tls_ca_cross.crt")), read(data.beside("chain.pem")));

    let out = data.beside("server");
    let mut sign = vec!["sign-server", "--name", "db.test", "--ttl", "3650d", "--out"];
    let place = out.display().to_string();
    sign.push(&place);
    let output = data.authority(&sign);
    assert!(
        output.status.success() && said(&output).contains("or what certifies it, before --ttl"),
        "{output:?}"
    );
    let server = read(out.join("server.crt"));
    assert_eq!(end_of(&server), end_of(&read(data.beside("cross.crt"))), "nothing ends later than that");
    assert!(server.ends_with(&format!(
        "{}{}",
        read(data.beside("cross.crt")),
        read(data.beside("issuing.crt"))
    )));
    assert_eq!(read(out.join("ca.crt")), data.ca(), "who lets clients in trusts nobody else");
    let exported = data.authority(&["export", "tls-ca"]);
    assert_eq!(String::from_utf8_lossy(&exported.stdout), data.ca());

    // One that has nothing but the root, and one that has nothing but ours.
    for trusted in [data.beside("root.crt"), data.path("keys/tls_ca.crt")] {
        let mut openssl = command("openssl");
        openssl.args(["verify", "-no-CApath", "-CAfile"]).arg(trusted);
        succeed(openssl.arg("-untrusted").arg(out.join("server.crt")).arg(out.join("server.crt")));
    }

    let check = String::from_utf8(data.authority(&["check"]).stdout).unwrap();
    for what in [
        "the TLS CA ends at ",
        "the cross-certificate of the TLS CA ends at ",
        "the CA `O=Company, CN=Issuing` above the TLS CA ends at ",
    ] {
        assert!(check.lines().any(|line| line.starts_with(what) && line.ends_with(" days left")), "{check}");
    }

    // The request is written where there is nothing, or `init` does nothing.
    let again =
        run(machine_id(["authority", "init", "--cluster", "x", "--public-url", "https://x", "--data-dir"])
            .arg(data.beside("other"))
            .arg("--tls-ca-csr")
            .arg(data.beside("tls-ca.csr")));
    assert!(
        again.status.code() == Some(2) && said(&again).contains("tls-ca.csr exists already"),
        "{again:?}"
    );
    assert!(!data.beside("other").exists());
}

/// The parameters of the CA's certificate, changed.
fn with(
    ours: &(CertificateParams, Vec<u8>),
    change: impl FnOnce(&mut CertificateParams),
) -> (CertificateParams, Vec<u8>) {
    let mut ours = ours.clone();
    change(&mut ours.0);
    ours
}

/// One that permits servers below these names alone.
fn below(names: &[&str]) -> NameConstraints {
    let names = names.iter().map(|name| GeneralSubtree::DnsName((*name).to_owned())).collect();
    NameConstraints { permitted_subtrees: names, excluded_subtrees: Vec::new() }
}

#[test]
fn nothing_else_is_taken_for_it() {
    let data = Data::new();
    let (company, ours) = (Company::new(), tls_ca(&data.ca()));
    let chain = company.chain(&ours);
    let Company { root, issuing } = &company;
    let first = issuing.certify(&ours.0, &ours.1);
    let changed = |change: fn(&mut CertificateParams)| company.chain(&with(&ours, change));
    // An issuing CA that is another than it should be.
    let under = |params: CertificateParams| {
        let issuing = root.below(params);
        format!("{}{}{}", issuing.certify(&ours.0, &ours.1), issuing.pem, root.pem)
    };
    let issuing_with = |change: fn(&mut CertificateParams)| {
        let mut params = ca_params("Issuing", 100);
        change(&mut params);
        under(params)
    };
    // Roots that are another than they should be.
    let by = |root: &Ca| format!("{}{}", root.certify(&ours.0, &ours.1), root.pem);
    let root_with = |change: fn(&mut CertificateParams)| {
        let mut params = ca_params("Root", 3650);
        change(&mut params);
        by(&Ca::root(params))
    };
    let stranger = KeyPair::generate().unwrap().subject_public_key_info();
    let twin = Ca::root(ca_params("Company Issuing", 100));
    let impostor = Ca::root(ca_params("Company Root", 100));
    let deep = (0..8).fold((String::new(), Ca::root(ca_params("Top", 3650))), |(above, ca), at| {
        let next = ca.below(ca_params(&format!("CA {at}"), 100));
        (format!("{}{above}", ca.pem), next)
    });
    let deep = format!("{}{}{}", deep.1.certify(&ours.0, &ours.1), deep.1.pem, deep.0);
    let refused: Vec<(String, &str)> = vec![
        // What it begins with.
        (company.chain(&(ours.0.clone(), stranger)), "begins with a certificate of another key"),
        (
            company.chain(&(ca_params("Another CA", 100), ours.1.clone())),
            "begins with a certificate of another name",
        ),
        (format!("{}{first}{}", issuing.pem, root.pem), "begins with a certificate of another key"),
        (data.ca(), "does not lead to another root"),
        (data.ca() + &root.pem, "does not lead to another root"),
        (first.clone(), "does not lead to another root"),
        // Its order, and whose each is.
        (format!("{first}{}", root.pem), "that is not signed by the next one"),
        (format!("{first}{}", issuing.pem), "that is not signed by itself, as a root is"),
        (format!("{first}{}{}", root.pem, issuing.pem), "that is not signed by the next one"),
        (format!("{first}{}{}", twin.pem, root.pem), "that is not signed by the next one"),
        (format!("{first}{}{}", issuing.pem, impostor.pem), "that is not signed by the next one"),
        (format!("{chain}{}", root.pem), "has a CA twice"),
        (format!("{first}{chain}"), "has the TLS CA's key a second time"),
        (deep, "holds more than 8 certificates"),
        // What each of them may do.
        (changed(|ours| ours.is_ca = IsCa::ExplicitNoCa), "that is no CA's"),
        (changed(|ours| ours.is_ca = IsCa::NoCa), "that is no CA's"),
        (
            changed(|ours| ours.key_usages = vec![KeyUsagePurpose::DigitalSignature]),
            "whose key usage is not that of a CA",
        ),
        (changed(|ours| ours.key_usages = vec![KeyUsagePurpose::KeyCertSign]), "for the TLS CA `cRLSign`"),
        (changed(|ours| ours.key_usages = Vec::new()), "without a key usage"),
        (
            changed(|ours| ours.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]),
            "that is not for TLS servers",
        ),
        (changed(|ours| ours.key_identifier_method = KeyIdMethod::Sha256), "`subjectKeyIdentifier = "),
        (
            changed(|ours| {
                let mut unknown = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
                unknown.set_criticality(true);
                ours.custom_extensions.push(unknown);
            }),
            "with the critical extension 1.2.3.4",
        ),
        (issuing_with(|ca| ca.is_ca = IsCa::ExplicitNoCa), "that is no CA's"),
        (
            issuing_with(|ca| ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0))),
            "that permits no CA below it",
        ),
        (
            issuing_with(|ca| ca.key_usages = vec![KeyUsagePurpose::CrlSign]),
            "whose key usage is not that of a CA",
        ),
        (root_with(|ca| ca.is_ca = IsCa::NoCa), "that is no CA's"),
        (
            root_with(|ca| ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0))),
            "that permits no CA below it",
        ),
        // For which names.
        (
            changed(|ours| ours.name_constraints = Some(below(&["example.com"]))),
            "do not permit id.test, the host of `public_url`",
        ),
        (issuing_with(|ca| ca.name_constraints = Some(below(&["d.test"]))), "do not permit id.test"),
        (
            changed(|ours| {
                let NameConstraints { permitted_subtrees, excluded_subtrees } = below(&["test"]);
                ours.name_constraints = Some(NameConstraints {
                    permitted_subtrees: excluded_subtrees,
                    excluded_subtrees: permitted_subtrees,
                });
            }),
            "do not permit id.test",
        ),
        (
            changed(|ours| {
                let mut organization = rcgen::DistinguishedName::new();
                organization.push(rcgen::DnType::OrganizationName, "Company");
                let permitted_subtrees = vec![GeneralSubtree::DirectoryName(organization)];
                ours.name_constraints =
                    Some(NameConstraints { permitted_subtrees, excluded_subtrees: Vec::new() });
            }),
            "do not permit id.test",
        ),
        // When.
        (changed(|ours| ours.not_after = ours.not_before), "has a certificate that ended at "),
        (changed(|ours| ours.not_before = ours.not_after), "has a certificate that is not valid before "),
        (issuing_with(|ca| ca.not_after = ca.not_before), "has a certificate that ended at "),
        (root_with(|ca| ca.not_after = ca.not_before), "has a certificate that ended at "),
        // What is no chain at all.
        (String::new(), "it is not certificates in PEM"),
        (format!("{chain}{}", KeyPair::generate().unwrap().serialize_pem()), "it is not certificates in PEM"),
        (chain.replace("MII", "!!!"), "its PEM is broken"),
        (chain.trim_end().trim_end_matches('-').to_owned(), "it is not certificates in PEM"),
    ];
    let place = data.beside("chain.pem");
    for (text, why) in &refused {
        std::fs::write(&place, text).unwrap();
        let output = data.import(&place);
        let told = said(&output);
        assert!(output.status.code() == Some(2) && told.contains(why), "{why}: {told}{text}");
        assert!(told.contains("hint: nothing was changed"), "{told}");
        assert!(!data.path("keys/tls_ca_cross.crt").exists(), "{why}");
    }
    // These differ in what nobody minds.
    for text in [
        chain.clone(),
        by(root),
        changed(|ours| ours.name_constraints = Some(below(&["test"]))),
        changed(|ours| ours.name_constraints = Some(below(&["id.test"]))),
        changed(|ours| ours.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
        issuing_with(|ca| ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(1))),
        root_with(|ca| ca.key_usages = Vec::new()),
    ] {
        std::fs::write(&place, &text).unwrap();
        let output = data.import(&place);
        assert!(output.status.success(), "{}{text}", said(&output));
    }
    // One that was put there by hand is judged too, and stops what it would spoil.
    std::fs::write(data.path("keys/tls_ca_cross.crt"), &refused[0].0).unwrap();
    for args in [&["export", "ssh-user-ca"][..], &["check"]] {
        let output = data.authority(args);
        assert!(
            output.status.code() == Some(2) && said(&output).contains("tls_ca_cross.crt begins with"),
            "{output:?}"
        );
    }
}

#[test]
fn jobs_and_browsers_that_know_the_companys_root_alone_reach_the_authority() {
    let mut world = World::start();
    let ours = world.authority.ca_file();
    let company = Company::new();
    let root = company.adopt(&mut world.authority);
    let client = Client::trusting(world.authority.address(), &read(&root));
    let ready = client.get("/readyz").granted();
    let cross = &ready["expires"][1];
    assert_eq!(cross["what"], "the cross-certificate of the TLS CA");
    assert!((DAYS - 1..=DAYS).contains(&cross["days_left"].as_i64().unwrap()), "{cross}");
    // And so do those that know what they knew before.
    let pin = succeed(&mut world.authority.command(["export", "tls-ca-pin"]));
    let job = |change: fn(crate::support::once::Job) -> crate::support::once::Job| change(world.github());
    for (name, value) in [
        ("MACHINE_ID_CA_FILE", root.display().to_string()),
        ("MACHINE_ID_CA_FILE", ours.display().to_string()),
        ("MACHINE_ID_CA_PIN", pin.trim().to_owned()),
    ] {
        let job = job(|job| job.without("MACHINE_ID_CA_FILE")).env(name, value);
        let destination = job.once(["--output", "identity"]).good().destination();
        // What a job gets ends in time too, and its servers' CA is ours.
        assert_eq!(read(destination.join("ca.crt")), read(&ours));
    }
    // A host as well.
    let trust = root.with_file_name("trust");
    succeed(
        machine_id(["host", "refresh", "--authority", &world.authority.url(), "--ca-file"])
            .arg(&root)
            .arg("--dir")
            .arg(&trust),
    );
    assert_eq!(read(trust.join("tls_ca.crt")), read(&ours));
}

#[test]
fn nobody_of_the_company_logs_in_to_postgresql_by_the_name_of_a_bots_user() {
    let mut world = world_of(&["postgresql.md"], &["orders"], "");
    let company = Company::new();
    let root = company.adopt(&mut world.authority);
    let postgres = Postgres::start(&world.authority);
    let job = world.github();
    let deploy = job.once(["--output", "database,service=orders,database=orders"]).good().destination();
    // The job, by its own trust and by the company's.
    assert_eq!(succeed(&mut postgres.psql_with(&deploy, "deploy", "orders")), "deploy\n");
    let mut by_root = postgres.psql_with(&deploy, "deploy", "orders");
    assert_eq!(succeed(by_root.env("PGSSLROOTCERT", &root)), "deploy\n");

    let cross = read(world.authority.data_dir().join("keys/tls_ca_cross.crt"));
    let folder = root.with_file_name("strangers");
    let mut strangers = vec![company.client("deploy", &folder.join("plain"))];
    // With the company's certificate of our CA behind it.
    let with_cross = company.client("deploy", &folder.join("cross"));
    std::fs::write(with_cross.join("tls.crt"), read(with_cross.join("tls.crt")) + &cross).unwrap();
    strangers.push(with_cross);
    // By a CA of the company's that has the name of ours, and the company's root behind it.
    let twin = company.issuing.below(tls_ca(&read(world.authority.ca_file())).0);
    let twin = Company { root: Ca::root(ca_params("Company Root", 99)), issuing: twin };
    let of_twin = twin.client("deploy", &folder.join("twin"));
    strangers.push(of_twin);
    for stranger in strangers {
        std::fs::copy(deploy.join("ca.crt"), stranger.join("ca.crt")).unwrap();
        let output = run(&mut postgres.psql_with(&stranger, "deploy", "orders"));
        let told = said(&output);
        let is_refused =
            ["unknown ca", "decrypt error", "bad certificate"].iter().any(|why| told.contains(why));
        assert!(!output.status.success() && is_refused, "{}: {told}{}", stranger.display(), postgres.log());
    }
    // It is the certificate alone: with the company's root in its place, PostgreSQL would have let them in.
    assert_eq!(succeed(&mut postgres.psql_with(&deploy, "deploy", "orders")), "deploy\n");
}

#[test]
fn a_job_gets_nothing_that_outlives_the_certificate_of_the_ca() {
    let mut world = World::start();
    let company = Company::new();
    let mut ours = tls_ca(&read(world.authority.ca_file()));
    ours.0.not_after = time::OffsetDateTime::now_utc() + time::Duration::minutes(20);
    let end = ours.0.not_after.unix_timestamp();
    let chain = world.authority.ca_file().with_file_name("short.pem");
    std::fs::write(&chain, company.chain(&ours)).unwrap();
    let told = run(world.authority.command(["import"]).arg("--tls-ca").arg(&chain));
    assert!(said(&told).contains(&format!("nothing is signed beyond {}", rfc3339(end))), "{told:?}");
    assert!(world.authority.terminate().success());
    world.authority.restart();
    let ends = format!("the cross-certificate of the TLS CA ends at {}: 0 days left", rfc3339(end));
    world.authority.wait_for_stderr(&format!("warning: {ends}"));
    let job = world.github();
    let destination = job.once(["--output", "identity", "--ttl", "1h"]).good().destination();
    assert_eq!(end_of(&read(destination.join("tls.crt"))), end);
    let check = world.authority.run(["check"]);
    assert!(check.status.success() && said(&check).contains(&format!("warning: {ends}")), "{check:?}");
    // It can be certified again, as often as is wanted.
    company.adopt(&mut world.authority);
    let job = world.github();
    let destination = job.once(["--output", "identity", "--ttl", "1h"]).good().destination();
    assert!(end_of(&read(destination.join("tls.crt"))) > end);
}
