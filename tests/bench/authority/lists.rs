//! Lists of many revoked certificates: what they cost whoever makes them, and the hosts that follow them.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::past::revoke;
use super::serving::server::{Server, builder};
use super::support::client::{Keys, assertion_claims};
use super::support::issuer::Issuer;
use super::support::process::{self, Running, machine_id, succeed};
use super::support::wait_for;
use super::support::watcher::Watcher;
use super::{MACHINE_ID, STORE};

/// For how long nothing happens: some heartbeats.
const IDLE: Duration = Duration::from_secs(31);
/// Of jobs that give back, for five seconds.
const A_SECOND: u32 = 10;

/// So many certificates are revoked, half of each kind; then some more.
pub(crate) fn bench(count: u64, binary: &Path) {
    let issuer = Issuer::start();
    let fixture = builder(&issuer).start();
    let server = Server::start(fixture, binary, |data_dir| revoke(&data_dir.join(STORE), count));
    let authority = server.fixture();
    let (client, url) = (authority.client(), authority.url());
    let exchange = || {
        let keys = Keys::fresh();
        let token = issuer.token("github", &keys.audience(&url)).mint();
        (client.exchange(&keys.request("github-deploy", "github", &token)).granted(), keys)
    };
    let give_back = |(granted, keys): &(Value, Keys)| {
        let chain = granted["outputs"][0]["tls_certificate_chain"].as_str().unwrap();
        let assertion = keys.tls_assertion(chain, &assertion_claims(&url));
        let body = serde_json::json!({"issuance_id": granted["issuance_id"], "assertion": assertion});
        client.post("/v1/revoke", body.to_string()).granted();
    };
    let granted: Vec<_> = (0..A_SECOND * 6).map(|_| exchange()).collect();
    let (few, rest) = granted.split_at(10);
    let measured = |work: &mut dyn FnMut()| {
        let (cpu, begun) = (server.cpu(), Instant::now());
        work();
        (begun.elapsed(), server.cpu() - cpu)
    };
    println!("before any list: {} MiB", server.resident());
    let mut watcher = None;
    let (first, cpu) = measured(&mut || watcher = Some(Watcher::start(authority, None)));
    let mut watcher = watcher.unwrap();
    let mut known = watcher.next(Duration::from_secs(60));
    println!("first list of {count}: {first:.0?}, {cpu:.0?} of the processor; {}", server.memory());
    for path in ["/v1/revoked/ssh.krl", "/v1/revoked/tls.crl", "/v1/revoked"] {
        let mut size = 0;
        let (took, cpu) = measured(&mut || {
            let mut stream = client.connect().unwrap();
            write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            size = answer.len();
        });
        println!("{path}: {:.1} MiB in {took:.0?}, {cpu:.0?} of the processor", mib(size));
    }
    println!("after that {}", server.memory());
    let (took, cpu) = measured(&mut || std::thread::sleep(IDLE));
    println!("nothing happens: {:.2} % of a core", cpu.as_secs_f64() / took.as_secs_f64() * 100.0);
    for (number, one) in few.iter().enumerate() {
        std::thread::sleep(Duration::from_secs(2));
        let before = known["number"].clone();
        let mut after = None;
        let by = if number % 2 == 0 { "a job gave back" } else { "an operator revoked" };
        let (took, cpu) = measured(&mut || {
            if number % 2 == 0 {
                give_back(one);
            } else {
                succeed(&mut authority.command([
                    "lock",
                    "--issuance",
                    one.0["issuance_id"].as_str().unwrap(),
                ]));
            }
            let told = Duration::from_secs(60);
            after = Some(watcher.wait(told, |told| told["number"] != before));
        });
        known = after.unwrap();
        println!(
            "what {by} was heard within {took:.0?}, for {cpu:.0?} of the processor; {}",
            server.memory()
        );
    }
    let (took, cpu) = measured(&mut || {
        let begun = Instant::now();
        for (number, one) in rest.iter().enumerate() {
            give_back(one);
            let next = begun + Duration::from_secs(1) / A_SECOND * u32::try_from(number + 1).unwrap();
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    });
    println!(
        "{A_SECOND} given back a second: {:.1} % of a core; {}",
        cpu.as_secs_f64() / took.as_secs_f64() * 100.0,
        server.memory()
    );
    drop(watcher);

    let dir = tempfile::tempdir().unwrap();
    let of_host = |command: &str| {
        let mut host =
            if binary == Path::new(MACHINE_ID) { machine_id([""; 0]) } else { process::command(binary) };
        host.args(["host", command, "--authority", &url, "--ca-file"]).arg(authority.ca_file());
        host.arg("--dir").arg(dir.path().join("trust")).stdout(Stdio::piped()).stderr(Stdio::piped());
        host
    };
    for which in ["first", "second"] {
        let (begun, mut peak) = (Instant::now(), 0);
        let mut refresh = Running::start(&mut of_host("refresh"));
        while refresh.ended().is_none() {
            peak = peak.max(of_process(refresh.id(), "VmHWM"));
            std::thread::sleep(Duration::from_millis(2));
        }
        println!("{which} `host refresh`: {:.0?}, {peak} MiB at most {}", begun.elapsed(), refresh.stderr());
    }
    let notes = dir.path().join("sessions");
    std::fs::create_dir(&notes).unwrap();
    std::fs::set_permissions(&notes, std::fs::Permissions::from_mode(0o700)).unwrap();
    let watching = Running::start(of_host("watch").args(["--end-sessions", "--sessions"]).arg(notes));
    let krl = dir.path().join("trust/revoked.krl");
    let stamp = || std::fs::metadata(&krl).unwrap().modified().unwrap();
    std::thread::sleep(Duration::from_secs(10));
    let memory = || {
        format!(
            "{} MiB, at most {} MiB",
            of_process(watching.id(), "VmRSS"),
            of_process(watching.id(), "VmHWM")
        )
    };
    println!("`host watch --end-sessions`: {}; {}", memory(), watching.stderr());
    let cpu = || super::serving::server::cpu_times(watching.id())[0];
    for _ in 0..3 {
        let (one, before) = (exchange(), (stamp(), cpu()));
        let begun = Instant::now();
        give_back(&one);
        wait_for("the KRL", || (stamp() != before.0).then_some(()));
        let took = begun.elapsed();
        std::thread::sleep(Duration::from_secs(4));
        println!(
            "what a job gave back is in its KRL after {took:.0?}, {:.0?} of its processor; {}",
            cpu() - before.1,
            memory()
        );
    }
    let before = cpu();
    std::thread::sleep(IDLE);
    println!(
        "nothing happens: {:.2} % of a core",
        (cpu() - before).as_secs_f64() / IDLE.as_secs_f64() * 100.0
    );
    println!("files: {}", succeed(process::command("ls").arg("-l").arg(dir.path().join("trust"))));
    let certificate = dir.path().join("one-cert.pub");
    std::fs::write(&certificate, exchange().0["outputs"][0]["ssh_certificate"].as_str().unwrap()).unwrap();
    let begun = Instant::now();
    succeed(process::command("ssh-keygen").args(["-Q", "-f"]).arg(&krl).arg(&certificate));
    println!("OpenSSH reads that KRL within {:.0?}, as at each login", begun.elapsed());
    println!("in the end {}", server.memory());
}

fn mib(bytes: usize) -> f64 {
    f64::from(u32::try_from(bytes).unwrap()) / f64::from(1 << 20)
}

fn of_process(id: u32, what: &str) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(':'));
    line.map_or(0, |line| line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() / 1024)
}
