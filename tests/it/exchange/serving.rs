//! The process: health, policy, floods, the end.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;

use super::Bench;
use crate::support::authority::Authority;
use crate::support::client::{Client, Keys, Response, timed};
use crate::support::issuer::{Endpoint, Fault, Issuer};
use crate::support::{policies, process, wait_for};

#[test]
fn health_is_told() {
    let bench = Bench::start();
    for path in ["/healthz", "/readyz"] {
        let response = bench.authority.client().get(path);
        assert_eq!(response.status, 200, "{path}: {}", response.text());
    }
}

#[test]
fn the_servers_certificate_is_by_its_own_ca() {
    let bench = Bench::start();
    let stranger = Client::trusting(bench.authority.address(), &process::read(bench.issuer.ca_file()));
    assert!(stranger.connect().is_err());
}

#[test]
fn the_policy_is_read_anew_when_its_file_changes() {
    let issuer = Issuer::start();
    let bench = Bench { authority: Authority::trusting(&issuer, &policies::basic(&issuer)), issuer };
    bench.grant(&Keys::fresh());
    let other = policies::basic(&bench.issuer).replace("octo-org/octo-repo", "octo-org/moved");
    bench.authority.write_policy(&other);
    wait_for("the new policy", || (bench.ask("github-deploy", &Keys::fresh()).status == 403).then_some(()));
    bench.authority.write_policy(&policies::basic(&bench.issuer));
    wait_for("the old policy", || (bench.ask("github-deploy", &Keys::fresh()).status == 200).then_some(()));
    // Another file, and none at all: that is no policy.
    let folder = bench.authority.data_dir().join("policy");
    std::fs::rename(folder.join("test.yaml"), folder.join("renamed.yml")).unwrap();
    bench.authority.hup();
    wait_for("the renamed file", || bench.authority.stderr().contains("anew").then_some(()));
    assert_eq!(bench.ask("github-deploy", &Keys::fresh()).status, 200);
    std::fs::remove_file(folder.join("renamed.yml")).unwrap();
    bench.authority.wait_for_stderr("policy not taken, the old one stays: no policy in ");
    assert_eq!(bench.ask("github-deploy", &Keys::fresh()).status, 200);
}

#[test]
fn a_bad_policy_is_refused_and_the_old_one_stays() {
    let issuer = Issuer::start();
    let good = policies::basic(&issuer);
    let bench = Bench { authority: Authority::trusting(&issuer, &good), issuer };
    let bad = [
        ("syntax", "kind: [\n".to_owned(), "bracket"),
        ("an unknown field", good.replace("roles: [deploy]", "rolls: [deploy]"), "rolls"),
        ("an unknown role", good.replace("roles: [deploy]", "roles: [nobody]"), "nobody"),
        ("an unknown kind", good.replace("kind: bot", "kind: robot"), "robot"),
        ("two of one name", format!("{good}---\n{good}"), "deployer"),
        ("a principal with a comma", good.replace(", deploy]", ", 'a,b']"), "a,b"),
        ("a principal with a line feed", good.replace(", deploy]", ", \"a\\nb\"]"), "logins"),
        ("a trait with a space", good.replace("values: [ubuntu]", "values: ['a b']"), "a b"),
        ("a rule for everybody", good.replace("- repository: octo-org/octo-repo", "- {}"), "everybody"),
    ];
    let aside = bench.authority.data_dir().join("aside");
    std::fs::create_dir(&aside).unwrap();
    for (what, policy, named) in &bad {
        std::fs::write(aside.join("test.yaml"), policy).unwrap();
        let output = process::run(process::machine_id(["authority", "check"]).arg(&aside));
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{what}: {said}");
        assert!(said.contains("test.yaml") && said.contains(named), "{what}: {said}");
    }
    // Both ways in which it is looked at.
    for (asked, (what, policy, named)) in [false, true].into_iter().zip(&bad) {
        let said = bench.authority.stderr().len();
        bench.authority.write_policy(policy);
        if asked {
            bench.authority.hup();
        }
        let heard = wait_for(what, || {
            let news = bench.authority.stderr().get(said..).unwrap_or_default().to_owned();
            news.contains("test.yaml").then_some(news)
        });
        assert!(
            heard.contains("policy not taken, the old one stays: ") && heard.contains(named),
            "{what}: {heard}"
        );
        assert_eq!(bench.ask("github-deploy", &Keys::fresh()).status, 200, "{what}");
    }
    bench.authority.write_policy(&good.replace("octo-org/octo-repo", "octo-org/moved"));
    bench.authority.hup();
    wait_for("a good policy", || (bench.ask("github-deploy", &Keys::fresh()).status == 403).then_some(()));
}

#[test]
fn a_bad_policy_does_not_start() {
    let mut bench = Bench::start();
    assert!(bench.authority.terminate().success());
    bench.authority.write_policy("kind: robot\n");
    let address = bench.authority.address().to_string();
    let output = bench.authority.run(["serve", "--listen", &address]);
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout.is_empty());
}

#[test]
fn two_cannot_listen_on_one_port_and_init_overwrites_nothing() {
    let bench = Bench::start();
    let address = bench.authority.address().to_string();
    let second = bench.authority.run(["serve", "--listen", &address]);
    assert_eq!(second.status.code(), Some(2), "{}", String::from_utf8_lossy(&second.stderr));
    let again = bench.authority.run(["init", "--cluster", "x.test", "--public-url", "https://x.test"]);
    assert_eq!(again.status.code(), Some(2), "{}", String::from_utf8_lossy(&again.stderr));
    bench.grant(&Keys::fresh());
}

#[test]
fn sigterm_lets_what_is_under_way_end() {
    let issuer = Issuer::start();
    let mut bench = Bench { authority: Authority::trusting(&issuer, &policies::basic(&issuer)), issuer };
    bench.issuer.fail(Endpoint::Keys, Fault::Delay(Duration::from_millis(1500)));
    // One that says nothing more must not hold it up for long.
    let idle = bench.authority.client().connect().unwrap();
    let keys = Keys::fresh();
    let request = keys.request("github-deploy", "github", &bench.bound(&keys).mint());
    let client = bench.authority.client().clone();
    let slow = std::thread::spawn(move || client.try_exchange(&request));
    wait_for("the slow request", || (bench.issuer.count(Endpoint::Keys) == 1).then_some(()));
    bench.authority.term();
    wait_for("the port to close", || TcpStream::connect(bench.authority.address()).is_err().then_some(()));
    slow.join().unwrap().expect("an answer").granted();
    let (status, took) = timed(|| bench.authority.wait());
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(15), "{took:?}");
    drop(idle);
}

#[test]
fn no_secret_is_said() {
    let bench = Bench::start();
    let keys = Keys::fresh();
    let token = bench.bound(&keys).mint();
    bench.present(&token, &keys).granted();
    bench.present(&token, &Keys::fresh()).problem(401);
    let audit: String = bench.authority.audit().iter().map(ToString::to_string).collect();
    let said = bench.authority.stderr() + &audit;
    let signature = token.rsplit('.').next().unwrap();
    for secret in [token.as_str(), signature, "PRIVATE KEY"] {
        assert!(!said.contains(secret), "{said}");
    }
    let mut files = vec![bench.authority.data_dir()];
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        let found = bytes.windows(signature.len()).any(|window| window == signature.as_bytes());
        assert!(!found, "a whole token is kept in {}", path.display());
    }
}

#[test]
fn private_files_are_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let bench = Bench::start();
    bench.grant(&Keys::fresh());
    let mut files = vec![bench.authority.data_dir()];
    while let Some(path) = files.pop() {
        let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        if path.is_dir() {
            files.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        let name = path.to_string_lossy().into_owned();
        if name.contains("/keys") || name.contains(".db") {
            assert_eq!(mode & 0o077, 0, "{name} has mode {mode:o}");
        }
    }
}

#[test]
fn slow_clients_are_cut_off() {
    let bench = Bench::start();
    let host = bench.authority.address();
    let header = |head: String| {
        // Over TLS: a request that never ends.
        let mut stream = bench.authority.client().connect().unwrap();
        stream.sock.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        stream.flush().unwrap();
        let mut rest = Vec::new();
        let (_, took) = timed(|| stream.read_to_end(&mut rest));
        (took, String::from_utf8_lossy(&rest).into_owned())
    };
    let patience = Duration::from_secs(50);
    std::thread::scope(|scope| {
        let headers =
            scope.spawn(|| header(format!("POST /v1/exchange HTTP/1.1\r\nHost: {host}\r\nX-Slow: ")));
        let body = scope.spawn(|| {
            header(format!(
                "POST /v1/exchange HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: 1000\r\n\r\n{{"
            ))
        });
        let handshake = scope.spawn(|| {
            let mut stream = TcpStream::connect(host).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            timed(|| stream.read_to_end(&mut Vec::new())).1
        });
        // They hold nobody up.
        bench.grant(&Keys::fresh());
        let (took, _) = headers.join().unwrap();
        assert!(took < patience, "headers: {took:?}");
        let (took, said) = body.join().unwrap();
        assert!(took < patience, "body: {took:?}");
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 408"), "{said}");
        assert!(handshake.join().unwrap() < Duration::from_secs(20));
    });
}

#[test]
fn a_flood_of_connections_from_one_address_leaves_room_for_others() {
    let bench = Bench::start();
    bench.grant(&Keys::fresh());
    let flood: Vec<TcpStream> =
        (0..600).filter_map(|_| TcpStream::connect(bench.authority.address()).ok()).collect();
    let start = Instant::now();
    let response = from_another_address(&bench, "/healthz");
    assert_eq!(response.status, 200);
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    drop(flood);
    wait_for("room for the first address", || {
        bench
            .authority
            .client()
            .try_send("GET", "/healthz", "", b"")
            .ok()
            .filter(|response| response.status == 200)
    });
    bench.grant(&Keys::fresh());
}

/// Eight addresses that hold every connection there is with requests that never end: whoever comes alone is let in, at
/// their cost, and so is one who was there before and said nothing meanwhile.
#[test]
fn requests_that_never_end_lock_nobody_out() {
    let mut bench = Bench::start();
    // With 576 descriptors there are 160 connections, beside those that watch.
    let (_serving, host) = (serve_after(&mut bench, "ulimit -n 576", |_| {}), bench.authority.address());
    let mut waiting = bench.authority.client().connect_from([127, 0, 0, 3].into()).unwrap();
    let mut flood = Vec::new();
    for each in 0..160 {
        let mut stream = bench.authority.client().connect_from([127, 0, 1 + each / 20, 1].into()).unwrap();
        write!(stream, "POST /v1/exchange HTTP/1.1\r\nHost: {host}\r\nContent-Length: 90000\r\n\r\n{{")
            .unwrap();
        stream.flush().unwrap();
        flood.push(stream.sock);
    }
    let (_, took) = timed(|| bench.grant(&Keys::fresh()));
    // Bodies have five times as long.
    assert!(took < Duration::from_secs(3), "{took:?}");
    write!(waiting, "GET /healthz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
    waiting.flush().unwrap();
    assert_eq!(Response::read(&mut waiting).unwrap().status, 200);
    let gone = |stream: &TcpStream| {
        stream.set_nonblocking(true).unwrap();
        // Beyond what TLS has sent already.
        let mut all = [0; 8192];
        let mut stream = stream;
        loop {
            match stream.read(&mut all) {
                Ok(1..) => {}
                Ok(0) => return true,
                Err(error) => return error.kind() != std::io::ErrorKind::WouldBlock,
            }
        }
    };
    let gone: Vec<usize> = (0..flood.len()).filter(|n| gone(&flood[*n])).collect();
    // Two at a time, of the network that has the most.
    assert!((1..16).contains(&gone.len()) && gone.iter().all(|n| n % 20 < 10), "the oldest go: {gone:?}");
}

/// The authority, served anew by a shell that does this first.
pub(super) fn serve_after(
    bench: &mut Bench,
    first: &str,
    change: impl Fn(&mut std::process::Command),
) -> process::Running {
    assert!(bench.authority.terminate().success());
    let mut serve = process::command("sh");
    serve.arg("-c").arg(format!("{first}; exec \"$1\" authority serve --data-dir \"$2\"")).arg("sh");
    serve.arg(process::MACHINE_ID).arg(bench.authority.data_dir()).stderr(std::process::Stdio::piped());
    change(&mut serve);
    let serving = process::Running::start(&mut serve);
    wait_for("it to listen", || serving.stderr().contains("listening on ").then_some(()));
    serving
}

/// One reading of a request alone (RFC 9112, sections 2.2 and 3.2).
#[test]
fn lines_end_in_cr_lf_and_there_is_one_host() {
    let bench = Bench::start();
    let host = bench.authority.address();
    let status = |request: &str| bench.authority.client().try_raw(request.as_bytes()).unwrap().status;
    let good = format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    assert_eq!(status(&good), 200);
    assert_eq!(status("GET /healthz HTTP/1.0\r\n\r\n"), 200, "which had none");
    for (what, request) in [
        ("LF alone", good.replace("\r\n", "\n")),
        ("LF alone behind a header", good.replacen(&format!("{host}\r\n"), &format!("{host}\n"), 1)),
        ("LF alone at the end", good.replace("\r\n\r\n", "\r\n\n")),
        ("LF alone in front", format!("\n{good}")),
        ("no host", good.replace("Host:", "Guest:")),
        ("two hosts", good.replace("Host:", "Host: other\r\nHost:")),
        ("a host that is none", good.replace("Host: ", "Host: user@")),
        ("an empty host", good.replace(&format!("Host: {host}"), "Host:")),
    ] {
        assert_eq!(status(&request), 400, "{what}");
    }
    // The second request on a connection is read like the first, also where they come together; a body is left alone.
    let body = "{\n}\n";
    let post = |rest: &str| format!("POST /v1/revoke HTTP/1.1\r\nHost: {host}\r\n{rest}");
    let both = post(&format!("Content-Length: {}\r\n\r\n{body}", body.len())) + &good.replace("\r\n", "\n");
    let mut stream = bench.authority.client().connect().unwrap();
    stream.write_all(both.as_bytes()).unwrap();
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said);
    let said = String::from_utf8(said).unwrap();
    assert_eq!(said.matches("HTTP/1.1 400").count(), 2, "{said}");
    assert!(said.contains("urn:machine-id:malformed"), "{said}");
    // In chunks, whose end nobody counts here: the connection ends with the answer.
    let chunks = post("Transfer-Encoding: chunked\r\n\r\n4\r\n{\n}\n\r\n0\r\n\r\n") + &good;
    let mut stream = bench.authority.client().connect().unwrap();
    stream.write_all(chunks.as_bytes()).unwrap();
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said);
    let said = String::from_utf8(said).unwrap();
    assert!(said.contains("connection: close") && said.matches("HTTP/1.1").count() == 1, "{said}");
}

/// The CA keys are in its memory, and SIGQUIT would write that to a disk.
#[test]
fn no_core_is_dumped() {
    use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
    let mut bench = Bench::start();
    let data = bench.authority.data_dir();
    let mut serving = serve_after(&mut bench, "ulimit -c unlimited; cd \"$2\"", |serve| {
        if rustix::process::geteuid().is_root() {
            // As the user that it has in its unit: what it reads of itself is root's then.
            process::succeed(process::command("chown").args(["-R", "4242:4343"]).arg(&data));
            process::succeed(process::command("chmod").arg("711").arg(data.parent().unwrap()));
            serve.uid(4242).gid(4343);
        }
    });
    bench.grant(&Keys::fresh());
    serving.signal(rustix::process::Signal::QUIT);
    let status = serving.wait();
    assert_eq!((status.signal(), status.core_dumped()), (Some(3), false));
}

/// `GET`, from 127.0.0.2.
fn from_another_address(bench: &Bench, path: &str) -> Response {
    let mut stream = bench.authority.client().connect_from([127, 0, 0, 2].into()).unwrap();
    let address = bench.authority.address();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    stream.flush().unwrap();
    Response::read(&mut stream).unwrap()
}

#[test]
fn a_connection_may_be_kept() {
    let bench = Bench::start();
    let mut stream = bench.authority.client().connect().unwrap();
    for _ in 0..3 {
        let keys = Keys::fresh();
        let request = keys.request("github-deploy", "github", &bench.bound(&keys).mint());
        bench.authority.client().exchange_over(&mut stream, &request).unwrap().granted();
    }
}

#[test]
fn hostile_headers_are_refused() {
    let bench = Bench::start();
    let host = bench.authority.address();
    let raw = |text: String| {
        bench.authority.client().try_raw(text.as_bytes()).map_or(0, |response| response.status)
    };
    let long = "x".repeat(200_000);
    assert!(matches!(
        raw(format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\nX: {long}\r\n\r\n")),
        0 | 400 | 431
    ));
    assert!(matches!(raw(format!("GET /{long} HTTP/1.1\r\nHost: {host}\r\n\r\n")), 0 | 400 | 414 | 431));
    let many: String = (0..2000).map(|number| format!("X-{number}: y\r\n")).collect();
    assert!(matches!(raw(format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\n{many}\r\n")), 0 | 400 | 431));
    assert!(matches!(raw("GARBAGE\r\n\r\n".to_owned()), 0 | 400));
    let smuggled = format!(
        "POST /v1/exchange HTTP/1.1\r\nHost: {host}\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n"
    );
    assert_eq!(raw(smuggled), 400);
    let client = bench.authority.client();
    let huge = client.try_raw(
        format!("POST /v1/exchange HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: 99999999999\r\n\r\n").as_bytes(),
    );
    assert!(huge.map_or(true, |response| matches!(response.status, 408 | 413)));
    client.post("/v1/exchange", json!({}).to_string()).problem(400);
}
