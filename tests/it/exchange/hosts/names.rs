//! Which host is meant by a name, and what is said where it is none.

use super::*;

/// A certificate for a server of that name, if one is signed.
fn sign_server(bench: &Bench, host: &Host, name: &str) -> Option<i32> {
    let mut sign = bench.authority.command(["sign-server", "--name", name]);
    run(sign.arg("--csr").arg(host.path("host.csr"))).status.code()
}

#[test]
fn an_address_is_thrown_out_however_it_is_written() {
    let bench = Bench::start();
    let web = bench.host("web-1");
    for (signed, thrown_out, usual) in [
        ("2001:db8:0:0:0:0:0:2", "2001:db8::2", "2001:db8::2"),
        ("2001:db8::3", "2001:DB8:0::3", "2001:db8::3"),
        ("::ffff:10.0.0.1", "10.0.0.1", "10.0.0.1"),
        ("10.0.0.2", "::ffff:10.0.0.2", "10.0.0.2"),
    ] {
        assert_eq!(sign_server(&bench, &web, signed), Some(0));
        let said = succeed(&mut bench.authority.command(["revoke-host", thrown_out]));
        let revoked = "and 1 issuance with 1 certificate is revoked\n";
        assert!(said.starts_with(&format!("threw out host {usual}: ")) && said.ends_with(revoked), "{said}");
        for name in [signed, thrown_out, usual] {
            assert_eq!(sign_server(&bench, &web, name), Some(4), "{name}");
        }
        succeed(&mut bench.authority.command(["unlock", "--host", signed]));
        assert_eq!(sign_server(&bench, &web, signed), Some(0));
    }
}

/// How the command ends, and what it says beside what it has done.
fn throw_out(bench: &Bench, name: &str) -> (Option<i32>, String) {
    let ended = run(&mut bench.authority.command(["revoke-host", name]));
    (ended.status.code(), String::from_utf8(ended.stderr).unwrap())
}

#[test]
fn a_worker_is_not_thrown_out_as_a_host() {
    let bench = Bench::start();
    let worker = format!("w-{}", "0a".repeat(16));
    let (code, stderr) = throw_out(&bench, &worker.to_uppercase());
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains(&format!("authority lock --instance {worker}")), "{stderr}");
    assert_eq!(succeed(&mut bench.authority.command(["locks"])), "nobody is locked\n");
    assert_eq!(throw_out(&bench, "w-0a").0, Some(0), "another host may be called so");
}

#[test]
fn who_throws_out_a_pattern_hears_that_it_is_one_name() {
    let bench = Bench::start();
    let web = bench.host("web-9.dom.test");
    assert_eq!(sign_server(&bench, &web, "*.dom.test"), Some(0));
    let would = succeed(&mut bench.authority.command(["revoke-host", "*.dom.test", "--dry-run"]));
    assert!(would.contains("revoke 1 issuance with 1 certificate"), "the wildcard alone: {would}");
    let (code, stderr) = throw_out(&bench, "*.dom.test");
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("warning: `*.dom.test` is one name here, and no pattern"), "{stderr}");
    assert_eq!(sign_server(&bench, &web, "*.dom.test"), Some(4));
    assert_eq!(sign_server(&bench, &web, "web-9.dom.test"), Some(0));
}

#[test]
fn who_throws_out_a_host_that_has_nothing_hears_that_and_which_may_be_meant() {
    let bench = Bench::start();
    let (url, web) = (bench.authority.url(), bench.host("web-1.dom.test"));
    let said = web.keys.ssh_assertion(&web.ssh, &Host::claims(&format!("{url}/v1/trust")));
    assert_eq!(bench.get_as("/v1/trust", &[&said]).status, 200);
    bench.known(1);
    let warning = |name: &str| format!("warning: no certificate of the host `{name}` is good now");
    let (code, stderr) = throw_out(&bench, "web-l.dom.test");
    assert_eq!(code, Some(0), "a host may be thrown out before it has anything: {stderr}");
    assert!(stderr.contains(&warning("web-l.dom.test")), "{stderr}");
    assert!(stderr.contains("hint: did you mean `web-1.dom.test`?"), "{stderr}");
    assert_eq!(throw_out(&bench, "web-1.dom.test"), (Some(0), String::new()));
    let (_, stderr) = throw_out(&bench, "web-1.dom.test");
    assert!(stderr.contains(&warning("web-1.dom.test")) && !stderr.contains("hint"), "{stderr}");
}
