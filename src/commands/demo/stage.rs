//! Where the demo plays: an authority and an issuer on loopback, and this very
//! binary as the steps run it.

use std::ffi::OsStr;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::issuer::{DemoIssuer, REQUEST_TOKEN};
use crate::error::{Context as _, Error, Kind, Result};
use crate::folder::read::{self, Limit, Trust};
use crate::folder::trust::Owner;
use crate::terminal::print;

/// How long a server may take to answer.
const START_TIME: Duration = Duration::from_secs(10);

/// A server on loopback, which ends when the demo does, however it ends.
pub(super) struct Server(Child);

impl Server {
    /// Starts it and waits until the port answers; `log` gets what it says.
    pub(super) fn start(command: &mut Command, port: u16, log: &Path) -> Result<Self> {
        let file = fs::File::create(log).context(Kind::Destination, "cannot write a server's log")?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        let mut server = Self(command.spawn().context(Kind::Internal, "cannot start a server")?);
        let deadline = Instant::now() + START_TIME;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if Instant::now() > deadline || !matches!(server.0.try_wait(), Ok(None)) {
                let said = read::text(log, Trust::Anyone, Limit::FILE).unwrap_or_default();
                return Err(Error::internal(format!("a server did not start: {}", said.trim())));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What every step needs.
pub(super) struct Stage {
    binary: PathBuf,
    pub(super) dir: PathBuf,
    pub(super) data: PathBuf,
    authority: String,
    port: u16,
    issuer: Arc<DemoIssuer>,
}

/// A command's words, and the paths behind them.
pub(super) fn words<'a>(words: &[&'a str], paths: &[&'a Path]) -> Vec<&'a OsStr> {
    let paths = paths.iter().map(|path| path.as_os_str());
    words.iter().map(|word| OsStr::new(*word)).chain(paths).collect()
}

pub(super) fn say(title: &str) -> Result<()> {
    print(&format!("\n== {title}\n"))
}

impl Stage {
    /// An authority's data directory, its policy, and the issuer it believes.
    pub(super) fn set(dir: &Path, login: &str) -> Result<Self> {
        let issuer = DemoIssuer::start(dir)?;
        let port = free_port()?;
        let stage = Self {
            binary: std::env::current_exe().context(Kind::Internal, "this binary's path")?,
            dir: dir.to_owned(),
            data: dir.join("authority"),
            authority: format!("https://127.0.0.1:{port}"),
            port,
            issuer,
        };
        say("An operator creates an authority")?;
        let init = ["authority", "init", "--cluster", "id.example.com", "--public-url"];
        let init = [&init[..], &[&stage.authority, "--data-dir"]].concat();
        stage.show(&words(&init, &[&stage.data]))?;
        let configuration = stage.data.join("authority.yaml");
        let text = read::text(&configuration, Trust::Operators(Owner::me()), Limit::FILE)?;
        let text = format!(
            "{}issuer_ca_file: {}\n",
            text.replace("127.0.0.1:8443", &format!("127.0.0.1:{port}")),
            stage.issuer.ca_file.display()
        );
        write(&configuration, &text)?;
        say("and writes down who may have what")?;
        let policy = policy(&stage.issuer.host, login);
        print(&format!("{policy}\n"))?;
        write(&stage.data.join("policy/demo.yaml"), &policy)?;
        write(&stage.dir.join("ca.crt"), &stage.quietly(&stage.export("tls-ca"))?)?;
        Ok(stage)
    }

    pub(super) fn export<'a>(&'a self, what: &'a str) -> Vec<&'a OsStr> {
        words(&["authority", "export", what, "--data-dir"], &[&self.data])
    }

    pub(super) fn start_authority(&self) -> Result<Server> {
        let arguments = words(&["authority", "serve", "--data-dir"], &[&self.data]);
        self.prompt(&arguments, " &")?;
        let server =
            Server::start(&mut self.command(&arguments), self.port, &self.dir.join("authority.log"))?;
        print(&format!("listening on {}\n", self.authority))?;
        Ok(server)
    }

    /// The job's one command.
    pub(super) fn once<'a>(&'a self, destination: &'a Path) -> Vec<&'a OsStr> {
        let once =
            ["once", "--join-method", "github", "--token", "github-deploy", "--ttl", "10m", "--authority"];
        words(&[&once[..], &[&self.authority, "--destination"]].concat(), &[destination])
    }

    /// One token, twice, for different keys.
    pub(super) fn replay(&self) -> Result<()> {
        let token = self.dir.join("stolen-token");
        write(&token, &self.issuer.mint(&self.authority)?)?;
        let by_hand = words(&["--id-token-file"], &[&token]);
        let (first, second) = (self.dir.join("first"), self.dir.join("second"));
        self.quietly(&[&self.once(&first)[..], &by_hand].concat())?;
        let arguments = [&self.once(&second)[..], &by_hand].concat();
        self.prompt(&arguments, "")?;
        let output = self.command(&arguments).output().context(Kind::Internal, "cannot run once")?;
        print(&String::from_utf8_lossy(&output.stderr))?;
        if output.status.code() != Some(i32::from(Kind::Refused.code())) || second.join("key").exists() {
            return Err(Error::internal("a used token was not refused"));
        }
        self.quietly(&words(&["cleanup"], &[&first])).map(drop)
    }

    /// This binary, in a job's environment.
    fn command(&self, arguments: &[&OsStr]) -> Command {
        let mut command = Command::new(&self.binary);
        // The demo may itself run in a job and behind a proxy, and what it shows is for people.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy().to_ascii_uppercase();
            let is_of_a_job = text.starts_with("GITHUB_") || text.starts_with("MACHINE_ID_");
            if is_of_a_job || text.ends_with("_PROXY") || text == "BASH_ENV" || text == "CIRCLECI" {
                command.env_remove(name);
            }
        }
        command
            .args(arguments)
            .stdin(Stdio::null())
            .env("ACTIONS_ID_TOKEN_REQUEST_URL", self.issuer.request_url())
            .env("ACTIONS_ID_TOKEN_REQUEST_TOKEN", REQUEST_TOKEN)
            .env("SSL_CERT_FILE", &self.issuer.ca_file)
            .env("MACHINE_ID_CA_FILE", self.dir.join("ca.crt"))
            .env("RUNNER_TEMP", &self.dir);
        command
    }

    fn prompt(&self, arguments: &[&OsStr], end: &str) -> Result<()> {
        let words = arguments.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
        print(&format!("$ machine-id {words}{end}\n"))
    }

    /// Runs a step with its output shown.
    pub(super) fn show(&self, arguments: &[&OsStr]) -> Result<()> {
        self.prompt(arguments, "")?;
        let status = self.command(arguments).status().context(Kind::Internal, "cannot run a step")?;
        if status.success() { Ok(()) } else { Err(Error::internal(format!("the step ended with {status}"))) }
    }

    /// Runs a step for its output.
    pub(super) fn quietly(&self, arguments: &[&OsStr]) -> Result<String> {
        let output = self.command(arguments).output().context(Kind::Internal, "cannot run a step")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(Error::internal(format!("a step ended with {}: {said}", output.status)));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

pub(super) fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).context(Kind::Destination, format!("cannot write {}", path.display()))
}

pub(super) fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    Ok(listener.context(Kind::Internal, "no free port")?.port())
}

pub(super) fn login_name() -> Result<String> {
    let output = Command::new("id").arg("-un").output().context(Kind::Internal, "cannot run `id -un`")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn policy(host: &str, login: &str) -> String {
    format!(
        "kind: bot
version: v1
metadata: {{name: deployer}}
spec:
  roles: [deploy]
  traits: [{{name: logins, values: ['{login}']}}]
---
kind: role
version: v7
metadata: {{name: deploy}}
spec:
  options: {{max_session_ttl: 1h}}
  allow:
    logins: ['{{{{internal.logins}}}}']
    node_labels: {{'*': '*'}}
---
kind: token
version: v2
metadata: {{name: github-deploy}}
spec:
  roles: [Bot]
  bot_name: deployer
  join_method: github
  github:
    enterprise_server_host: {host}
    allow:
      - repository: octo-org/app
        ref: refs/heads/main
"
    )
}
