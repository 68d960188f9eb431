//! An authority behind the real nginx.

use crate::support::nginx::Nginx;
use crate::support::once::World;
use crate::support::process::{machine_id, read, succeed};

#[test]
fn a_pin_holds_behind_a_proxy_with_a_certificate_of_sign_server() {
    let mut world = World::start();
    let job = world.github().without("MACHINE_ID_CA_FILE");
    let (tls, authority) = (job.text_path("tls"), world.authority.url());
    let mut sign =
        machine_id(["authority", "sign-server", "--name", "127.0.0.1", "--out", &tls, "--data-dir"]);
    succeed(sign.arg(world.authority.data_dir()));
    let nginx = Nginx::with_site(|address| {
        format!(
            "  server {{\n    listen {address} ssl;\n    ssl_certificate {tls}/server.crt;\n    \
             ssl_certificate_key {tls}/server.key;\n    location / {{ proxy_pass {authority}; }}\n  }}\n"
        )
    });
    let proxy = nginx.url().trim_end_matches('/').to_owned();
    let file = world.authority.data_dir().join("authority.yaml");
    let config = read(&file).replace(&format!("public_url: {authority}"), &format!("public_url: {proxy}"));
    assert!(config.contains(&proxy), "{config}");
    std::fs::write(&file, config).unwrap();
    world.authority.restart();
    let pin = succeed(&mut world.authority.command(["export", "tls-ca-pin"]));
    let job = job.env("MACHINE_ID_AUTHORITY", proxy);
    job.once(["--ca-pin", pin.trim()]).good();
    // It is the CA's, and no other certificate's in the chain will do.
    let wrong = format!("sha256:{}", "0".repeat(64));
    job.once(["--ca-pin", &wrong]).failed(5).says(&["no CA with the pin sha256:"]);
}
