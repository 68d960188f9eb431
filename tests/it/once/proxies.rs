//! Proxies: whom they are trusted by, what is not understood of them, and what they refuse.

use std::time::Duration;

use super::{events, world};
use crate::support::authority::Authority;
use crate::support::client::timed;
use crate::support::issuer::{Endpoint, Issuer};
use crate::support::once::{Job, World};
use crate::support::policies;
use crate::support::process::{machine_id, read, run, succeed};
use crate::support::proxy::ForwardProxy;

/// With these files in its trust store.
fn trusting(job: Job, files: &[std::path::PathBuf]) -> Job {
    std::fs::write(job.path("bundle.pem"), files.iter().map(read).collect::<String>()).unwrap();
    let path = job.text_path("bundle.pem");
    job.env("SSL_CERT_FILE", path)
}

#[test]
fn a_proxy_is_trusted_by_the_system_and_the_authority_behind_it_by_its_own_ca() {
    let (world, proxy) = (world(), ForwardProxy::with_tls(&[200]));
    let (system, authority) = ([world.issuer.ca_file(), proxy.ca_file()], world.authority.ca_file());
    let job = || trusting(world.github(), &system).env("HTTPS_PROXY", proxy.url());
    job().once([]).good();
    let mut asked = proxy.asked();
    asked.sort();
    let mut expected = vec![world.authority.address().to_string(), world.issuer.host()];
    expected.sort();
    assert_eq!(asked, expected);
    let pin = succeed(&mut world.authority.command(["export", "tls-ca-pin"]));
    job().without("MACHINE_ID_CA_FILE").once(["--ca-pin", pin.trim()]).good();
    let hosts = job();
    let mut refresh = hosts.command(["host", "refresh", "--dir"]);
    succeed(refresh.arg(hosts.path("trust")).args(["--authority", &world.authority.url()]));

    // Neither vouches for the other.
    let untrusted = format!("the certificate of the proxy localhost:{} is not trusted", &proxy.host()[10..]);
    let job = trusting(world.github(), &[world.issuer.ca_file()]).env("NO_PROXY", world.issuer.host());
    let both = job.path("both.pem");
    std::fs::write(&both, read(&authority) + &read(proxy.ca_file())).unwrap();
    let job = job.env("HTTPS_PROXY", proxy.url()).env("MACHINE_ID_CA_FILE", both.display().to_string());
    let (outcome, took) = timed(|| job.once([]));
    outcome.failed(5).says(&["cannot reach the authority", &untrusted, "point SSL_CERT_FILE at a bundle"]);
    assert!(took < Duration::from_secs(10), "{took:?}");
    let job = trusting(world.github(), &[world.issuer.ca_file(), proxy.ca_file(), authority.clone()]);
    let job =
        job.env("HTTPS_PROXY", proxy.url()).env("MACHINE_ID_CA_FILE", proxy.ca_file().display().to_string());
    job.once([]).failed(5).says(&["its certificate is not trusted", "does not hold its CA"]);
    // One host for both: the authority's rule.
    let job = trusting(world.github(), &system).env("NO_PROXY", world.issuer.host());
    job.env("HTTPS_PROXY", format!("https://{}", proxy.host())).once([]).failed(5).says(&["is not trusted"]);
    assert_eq!(events(&world, "issued").len(), 2);
}

#[test]
fn what_is_not_understood_of_a_proxy_ends_the_run_before_anybody_is_asked() {
    let (world, proxy) = (world(), ForwardProxy::start(&[200]));
    for (variable, value) in [
        ("HTTPS_PROXY", "http://user:hunter2@pro xy:3128"),
        ("https_proxy", "http://user:hunter2@proxy:3128\nhttp://other:3128"),
        ("ALL_PROXY", "socks5h://user:hunter2@127.0.0.1:1080"),
        ("all_proxy", "\"http://user:hunter2@proxy:3128"),
    ] {
        let outcome = world.github().env(variable, value).once([]).failed(2);
        outcome
            .says(&[&format!("{variable} is not a proxy that can be used"), "hint: it is http://HOST:PORT"]);
        assert!(!outcome.stderr.contains("hunter2"), "{}", outcome.stderr);
        let data = world.authority.data_dir();
        let mut serve = machine_id(["authority", "serve", "--data-dir"]);
        let ended = run(serve.arg(data).env(variable, value));
        assert_eq!(ended.status.code(), Some(2), "{ended:?}");
    }
    assert_eq!((world.issuer.count(Endpoint::Token), proxy.asked().len()), (0, 0));
    // What can be meant in one way alone is.
    for value in [format!(" {}\r\n", proxy.url()), format!("\"{}/\"", proxy.url()), proxy.host()] {
        let asked = proxy.asked().len();
        world.github().env("HTTPS_PROXY", value).once([]).good();
        assert_eq!(proxy.asked().len(), asked + 2);
    }
    // A CGI variable makes nothing go out directly.
    world.github().env("REQUEST_METHOD", "GET").env("HTTPS_PROXY", proxy.url()).once([]).good();
    assert_eq!(proxy.asked().len(), 8);
}

#[test]
fn a_proxys_refusal_is_final_and_is_the_proxys() {
    let world = world();
    for (status, hint) in [(407, "HTTPS_PROXY must hold the name and password"), (403, "NO_PROXY")] {
        let proxy = ForwardProxy::start(&[status]);
        let said = format!("the proxy {} answered with status {status}", proxy.host());
        let refused = |job: Job, whose: &str| {
            let (outcome, took) = timed(|| job.env("HTTPS_PROXY", proxy.url()).once([]));
            outcome.clone().failed(5).says(&[whose, &said, hint]);
            assert!(!outcome.stderr.contains("githubstatus") && took < Duration::from_secs(10), "{took:?}");
        };
        refused(world.github(), "cannot reach GitHub's token endpoint");
        // Everything else is reached: an exception of one port.
        refused(world.github().env("NO_PROXY", world.issuer.host()), "cannot reach the authority");
        let job = world.github();
        let mut refresh = job.command(["host", "refresh", "--dir"]);
        refresh.arg(job.path("trust")).args(["--authority", &world.authority.url()]);
        let ended = run(refresh.env("HTTPS_PROXY", proxy.url()));
        assert!(String::from_utf8_lossy(&ended.stderr).contains(&said), "{ended:?}");
    }
    assert!(events(&world, "issued").is_empty());
}

#[test]
fn a_proxys_passing_trouble_is_waited_out_and_its_credentials_are_sent() {
    let world = world();
    let proxy = ForwardProxy::start(&[502, 502, 503, 503, 200]);
    let url = proxy.url().replace("http://", "http://us%65r:p%40ss@");
    let job = world.github().env("HTTPS_PROXY", url);
    let outcome = job.once(["-v"]).good();
    outcome.says(&[&format!("the proxy {} answered with status 50", proxy.host())]);
    // user:p@ss
    assert!(proxy.asked().iter().all(|asked| asked.ends_with(" Basic dXNlcjpwQHNz")), "{:?}", proxy.asked());
    assert!(!outcome.stderr.contains("p%40ss") && !outcome.stderr.contains("dXNlcjpwQHNz"));
    // One that is not there.
    let dead = crate::support::port::free_port();
    let job = world.github().env("HTTPS_PROXY", format!("http://{dead}"));
    let outcome = job.once(["--timeout", "1s"]).failed(5);
    outcome.says(&[&format!("no connection to the proxy {dead}"), "hint: check HTTPS_PROXY"]);
}

#[test]
fn an_authority_says_which_proxy_keeps_it_from_an_issuer() {
    let (issuer, proxy) = (Issuer::start(), ForwardProxy::start(&[403]));
    let policy = policies::basic(&issuer);
    let authority = Authority::with_policy(&policy).issuer(&issuer).proxy(&proxy.url()).start();
    let world = World { issuer, authority };
    world.github().once(["--timeout", "2s"]).failed(5);
    let said = world.authority.stderr();
    assert!(said.contains(&format!("the proxy {} answered with status 403", proxy.host())), "{said}");
    assert!(proxy.asked().iter().all(|asked| *asked == world.issuer.host()), "{:?}", proxy.asked());
}
