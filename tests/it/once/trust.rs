//! Whom the client trusts, and the proxies in between.

use std::path::Path;

use super::world;
use crate::support::gateway::Gateway;
use crate::support::issuer::Endpoint;
use crate::support::once::{Job, World};
use crate::support::process::{read, succeed};

fn pin(world: &World) -> String {
    succeed(&mut world.authority.command(["export", "tls-ca-pin"])).trim().to_owned()
}

fn bare(world: &World) -> Job {
    world.github().without("MACHINE_ID_CA_FILE")
}

#[test]
fn a_ca_file_or_a_pin() {
    let world = world();
    let ca = world.authority.ca_file().display().to_string();
    bare(&world).once(["--ca-file", &ca]).good();
    bare(&world).once(["--ca-pin", &pin(&world)]).good();
    bare(&world).env("MACHINE_ID_CA_PIN", pin(&world)).once([]).good();
    // A flag stands in place of the environment, whichever of the two it is.
    let job = world.github().env("MACHINE_ID_CA_FILE", "/no/such/file");
    job.once(["--ca-pin", &pin(&world)]).good();
}

#[test]
fn the_systems_trust_store() {
    let world = world();
    let both = read(world.issuer.ca_file()) + &read(world.authority.ca_file());
    let job = bare(&world);
    std::fs::write(job.path("bundle.pem"), both).unwrap();
    let job = {
        let path = job.text_path("bundle.pem");
        job.env("SSL_CERT_FILE", path)
    };
    job.once([]).good();
}

#[test]
fn who_is_not_trusted_gets_nothing() {
    let world = world();
    let issuers = world.issuer.ca_file().display().to_string();
    let wrong_pin = format!("sha256:{}", "0".repeat(64));
    let cases: [(&[&str], &str); 3] = [
        (&[], "hint: an authority with its own certificate: give --ca-file"),
        (&["--ca-file", &issuers], "does not hold its CA"),
        (&["--ca-pin", &wrong_pin], "no CA with the pin sha256:"),
    ];
    for (arguments, hint) in cases {
        let job = bare(&world);
        let outcome = job.run(["once"].iter().chain(arguments)).failed(5);
        outcome.says(&["its certificate is not trusted: it is signed by an unknown authority", hint]);
        assert!(job.left().is_empty());
    }
    assert!(super::events(&world, "issued").is_empty() && super::events(&world, "refused").is_empty());
    let job =
        world.github().env("MACHINE_ID_AUTHORITY", world.authority.url().replace("127.0.0.1", "localhost"));
    job.once(["--timeout", "5s"])
        .failed(5)
        .says(&["it is for another name", "spell --authority as in the `public_url` of its authority.yaml"]);
}

#[test]
fn trust_that_cannot_be_read_is_a_usage_error() {
    let world = world();
    let empty = bare(&world);
    std::fs::write(empty.path("empty.pem"), "").unwrap();
    empty
        .once(["--ca-file", "empty.pem"])
        .failed(2)
        .says(&["holds no certificate", "authority export tls-ca"]);
    empty.once(["--ca-file", "/no/such"]).failed(2).says(&["cannot read the CA file /no/such"]);
    for pin in ["sha256:0f", "0f", &format!("sha1:{}", "0".repeat(64))] {
        empty.once(["--ca-pin", pin]).failed(2).says(&["is not `sha256:` and 64 hexadecimal digits"]);
    }
    assert_eq!(world.issuer.count(Endpoint::Token), 0);
    assert!(empty.left().is_empty());
}

#[test]
fn an_issuer_that_is_not_trusted_is_told() {
    let world = world();
    let job = world.github();
    let other = job.text_path("other.pem");
    std::fs::copy(world.authority.ca_file(), &other).unwrap();
    let job = job.env("SSL_CERT_FILE", other);
    job.once(["--timeout", "5s"])
        .failed(5)
        .says(&["GitHub's token endpoint is not trusted", "SSL_CERT_FILE"]);
}

#[test]
fn proxies_are_used_and_left_out() {
    let world = world();
    let gateway = Gateway::start(&world.authority);
    world.github().env("HTTPS_PROXY", gateway.url()).once([]).good();
    let mut asked = gateway.connects();
    asked.sort();
    let mut expected = vec![world.authority.address().to_string(), world.issuer.host()];
    expected.sort();
    assert_eq!(asked, expected, "one connection to each, through the proxy");
    world.github().env("https_proxy", gateway.url()).env("NO_PROXY", "127.0.0.1").once([]).good();
    assert_eq!(gateway.connects().len(), 2, "NO_PROXY");
    let dead = format!("http://{}", crate::support::port::free_port());
    let job = world.github().env("HTTPS_PROXY", dead);
    job.once(["--timeout", "1s"]).failed(5);
    assert!(!Path::new(&job.text_path("temp")).read_dir().unwrap().any(|_| true));
}
