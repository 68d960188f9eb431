//! Every message and exit code, as files: `tests/cli/*.toml`, each run in the
//! surroundings that its name begins with. `TRYCMD=overwrite` writes what the
//! binary says now; what differs from run to run is then to be made `[..]`.

use std::path::Path;
use std::time::Duration;

use crate::support::gateway::{Gateway, Trouble};
use crate::support::issuer::{Endpoint, Fault};
use crate::support::now;
use crate::support::once::{Job, World};
use crate::support::port::free_port;
use crate::support::process::{MACHINE_ID, read, succeed};

/// The surroundings of the cases whose names begin with `prefix`.
struct Cases {
    prefix: &'static str,
    cases: trycmd::TestCases,
    job: Job,
}

impl Cases {
    fn new(prefix: &'static str) -> Self {
        let cases = trycmd::TestCases::new();
        cases.register_bin("machine-id", Path::new(MACHINE_ID)).timeout(Duration::from_secs(60));
        cases.case(format!("tests/cli/{prefix}-*.toml"));
        Self { prefix, cases, job: Job::new() }.env("LC_ALL", "C")
    }

    fn env(self, name: &str, value: impl Into<String>) -> Self {
        self.cases.env(name, value);
        self
    }

    /// A value that stands under this name in the files.
    fn var(self, name: &'static str, value: impl Into<String>) -> Self {
        self.cases.insert_var(name, value.into()).unwrap();
        self
    }

    /// An authority and its CA, and folders of a job.
    fn told(self, world: &World) -> Self {
        let temp = self.job.text_path("temp");
        self.at(world.authority.url(), &world.authority.ca_file())
            .env("RUNNER_TEMP", &temp)
            .var("[TEMP]", temp)
            .var("[ISSUER]", world.issuer.url(""))
            .env("MACHINE_ID_TOKEN", "github-deploy")
    }

    fn at(self, authority: String, ca: &Path) -> Self {
        let ca = ca.display().to_string();
        self.env("MACHINE_ID_AUTHORITY", &authority)
            .var("[AUTHORITY]", authority)
            .env("MACHINE_ID_CA_FILE", &ca)
            .var("[CAFILE]", ca)
    }

    /// A GitHub job's environment.
    fn github(mut self, world: &World) -> Self {
        for (name, value) in world.issuer.github_environment() {
            self = self.env(&name, value);
        }
        self
    }

    /// Runs them; there must be one at least.
    fn run(self) {
        let files = std::fs::read_dir(crate::support::repository("tests/cli")).unwrap();
        let mine = |name: &str| name.starts_with(&format!("{}-", self.prefix)) && name.ends_with(".toml");
        assert!(files.map(|entry| entry.unwrap().file_name()).any(|name| mine(&name.to_string_lossy())));
        self.cases.run();
    }
}

#[test]
fn every_case_has_its_surroundings() {
    let known = [
        "usage",
        "proof",
        "good",
        "denied",
        "handed",
        "busy",
        "gone",
        "platform",
        "stranger",
        "untrusted",
        "pinned",
        "renamed",
        "operator",
    ];
    for entry in std::fs::read_dir(crate::support::repository("tests/cli")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let prefix = name.split('-').next().unwrap_or_default();
        assert!(known.contains(&prefix), "no test runs {name}");
    }
}

/// Wrong usage: nothing in the environment, nobody is asked for anything.
#[test]
fn usage() {
    Cases::new("usage").run();
}

/// A job that cannot prove who it is.
#[test]
fn proof() {
    Cases::new("proof")
        .env("MACHINE_ID_AUTHORITY", "https://127.0.0.1:1")
        .env("MACHINE_ID_TOKEN", "github-deploy")
        .run();
}

/// A GitHub job that gets what it asks for, and what it does wrong itself.
#[test]
fn good() {
    let world = World::start();
    let cases = Cases::new("good").told(&world).github(&world);
    std::fs::write(cases.job.path("used"), "").unwrap();
    cases.run();
}

/// A GitHub job that no rule lets in.
#[test]
fn denied() {
    let world = World::start();
    world.issuer.change_claims("github", |claims| {
        claims.insert("repository".into(), "octo-org/another".into());
        claims.insert("environment".into(), "prod\u{1b}[31m\n::error::forged".into());
    });
    Cases::new("denied").told(&world).github(&world).run();
}

/// Tokens handed over by hand, each wrong in its own way.
#[test]
fn handed() {
    let world = World::start();
    let token = |audience: &str| world.issuer.token("github", audience);
    let url = world.authority.url();
    let used = token(&url).mint();
    let job = Job::new().told(&world.authority, "github-deploy").env("JWT", &used);
    job.once(["--join-method", "github", "--id-token-env", "JWT"]).good();
    let late = token(&url).claim("nbf", now() - 7500).claim("iat", now() - 7200).claim("exp", now() - 6900);
    let early = token(&url).claim("nbf", now() + 7000).claim("iat", now() + 7200).claim("exp", now() + 7500);
    let forged = {
        let token = token(&url).mint();
        let (message, _) = token.rsplit_once('.').unwrap();
        format!("{message}.{}", crate::support::base64url([7; 256]))
    };
    Cases::new("handed")
        .told(&world)
        .env("JWT_USED", used)
        .env("JWT_AUDIENCE", token("https://id.example.com").mint())
        .env("JWT_EXPIRED", late.mint())
        .env("JWT_EARLY", early.mint())
        .env("JWT_FORGED", forged)
        .env("JWT_OTHER_KEYS", token(&format!("{url}#{}", crate::support::base64url([7; 32]))).mint())
        .env("JWT_NONE", "not-a-token")
        .run();
}

/// An authority that is busy until the time is up.
#[test]
fn busy() {
    let world = World::start();
    let body = r#"{"type":"urn:machine-id:busy","title":"too many requests","status":429}"#;
    let busy = Trouble::Answer(429, "Retry-After: 60".into(), body.into());
    let gateway = Gateway::with(&world.authority, &vec![busy; 100]);
    Cases::new("busy").told(&world).github(&world).env("HTTPS_PROXY", gateway.url()).run();
}

/// An authority that is not there.
#[test]
fn gone() {
    let world = World::start();
    let url = format!("https://{}", free_port());
    Cases::new("gone").github(&world).at(url, &world.authority.ca_file()).env("MACHINE_ID_TOKEN", "x").run();
}

/// A token endpoint that is broken until the time is up.
#[test]
fn platform() {
    let world = World::start();
    world.issuer.fail(Endpoint::Token, Fault::Status(503));
    Cases::new("platform").told(&world).github(&world).run();
}

/// Something else than an authority.
#[test]
fn stranger() {
    let world = World::start();
    Cases::new("stranger")
        .github(&world)
        .at(world.issuer.url(""), &world.issuer.ca_file())
        .env("MACHINE_ID_TOKEN", "github-deploy")
        .run();
}

/// An authority whose CA the job does not have.
#[test]
fn untrusted() {
    let world = World::start();
    Cases::new("untrusted")
        .github(&world)
        .at(world.authority.url(), &world.issuer.ca_file())
        .env("MACHINE_ID_TOKEN", "github-deploy")
        .env("WITHOUT", "")
        .run();
}

/// The same with nothing said of a CA.
#[test]
fn pinned() {
    let world = World::start();
    Cases::new("pinned")
        .github(&world)
        .env("MACHINE_ID_AUTHORITY", world.authority.url())
        .var("[AUTHORITY]", world.authority.url())
        .env("MACHINE_ID_TOKEN", "github-deploy")
        .run();
}

/// An authority under another name than its own.
#[test]
fn renamed() {
    let world = World::start();
    let url = world.authority.url().replace("127.0.0.1", "localhost");
    Cases::new("renamed")
        .github(&world)
        .at(url, &world.authority.ca_file())
        .env("MACHINE_ID_TOKEN", "x")
        .run();
}

/// What an operator types.
#[test]
fn operator() {
    let world = World::start();
    let job = world.github();
    job.once([]).good();
    let policy = world.authority.data_dir().join("policy/test.yaml");
    assert!(read(&policy).contains("github-deploy"));
    let pin = succeed(&mut world.authority.command(["export", "tls-ca-pin"]));
    Cases::new("operator")
        .env("MACHINE_ID_DATA_DIR", world.authority.data_dir().display().to_string())
        .var("[DATA]", world.authority.data_dir().display().to_string())
        .var("[PIN]", pin.trim())
        .run();
}
