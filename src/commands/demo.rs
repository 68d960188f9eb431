//! `machine-id demo`: the whole loop on this machine, with the real commands:
//! each step runs this very binary, as a workflow or an operator would. Only
//! the platform is played, by a loopback issuer over TLS.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Instant;

use crate::error::{Context as _, Error, Kind, Result};
use crate::folder::read::{self, Limit, Trust};
use crate::terminal::print;

mod issuer;
mod sshd;

/// Ends a server when the demo ends, however it ends.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What every step needs.
struct Stage {
    binary: PathBuf,
    dir: PathBuf,
    data: PathBuf,
    authority: String,
    issuer: issuer::Issuer,
}

/// Runs it.
///
/// # Errors
/// Where a step does not do what it shows.
pub fn run() -> Result<ExitCode> {
    let began = Instant::now();
    let temporary = tempfile::Builder::new()
        .prefix("machine-id-demo-")
        .tempdir()
        .context(Kind::Destination, "cannot create a temporary directory")?;
    let login = login_name()?;
    let stage = Stage::set(temporary.path(), &login)?;
    let _authority = stage.start_authority()?;

    say("A job proves who it is, and gets certificates for ten minutes")?;
    let destination = stage.dir.join("job");
    stage.show(&stage.once(&destination))?;
    say("What it got")?;
    stage.show(&[OsStr::new("inspect"), destination.as_os_str()])?;

    match sshd::find() {
        Some(program) => {
            say("A login to a real sshd, which knows nothing but the authority's CA")?;
            sshd::login(&stage, &program, &destination, &login)?;
        }
        None => say("No sshd is installed here, so there is no login to show")?,
    }

    say("A token that somebody copied out of a log buys nothing")?;
    stage.replay()?;

    say("The job ends: everything is wiped and revoked")?;
    let cleanup = [OsStr::new("cleanup"), destination.as_os_str()];
    stage.show(&cleanup)?;
    if destination.exists() {
        return Err(Error::internal("the destination is still there"));
    }
    say("What the operator sees afterwards")?;
    let audit = ["authority", "audit", "--data-dir"].map(OsStr::new);
    stage.show(&[&audit[..], &[stage.data.as_os_str()]].concat())?;
    say(&format!("Done in {:.1} s; nothing is left behind", began.elapsed().as_secs_f64()))?;
    Ok(ExitCode::SUCCESS)
}

fn say(title: &str) -> Result<()> {
    print(&format!("\n== {title}\n"))
}

impl Stage {
    /// An authority's data directory, its policy, and the issuer it believes.
    fn set(dir: &Path, login: &str) -> Result<Self> {
        let issuer = issuer::Issuer::start(dir)?;
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .context(Kind::Internal, "no free port")?
            .port();
        let stage = Self {
            binary: std::env::current_exe().context(Kind::Internal, "this binary's path")?,
            dir: dir.to_owned(),
            data: dir.join("authority"),
            authority: format!("https://127.0.0.1:{port}"),
            issuer,
        };
        say("An operator creates an authority")?;
        let init = ["authority", "init", "--cluster", "id.example.com", "--public-url", &stage.authority];
        stage.show(
            &[&init.map(OsStr::new)[..], &[OsStr::new("--data-dir"), stage.data.as_os_str()]].concat(),
        )?;
        let configuration = stage.data.join("authority.yaml");
        let text = read::text(&configuration, Trust::Operators, Limit::FILE)?;
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

    fn export<'a>(&'a self, what: &'a str) -> [&'a OsStr; 5] {
        let words = ["authority", "export", "--data-dir"].map(OsStr::new);
        [words[0], words[1], words[2], self.data.as_os_str(), OsStr::new(what)]
    }

    fn start_authority(&self) -> Result<Server> {
        let serve = ["authority", "serve", "--data-dir"].map(OsStr::new);
        let arguments = [&serve[..], &[self.data.as_os_str()]].concat();
        self.prompt(&arguments, " &")?;
        let child = self.command(&arguments).stderr(Stdio::piped()).spawn();
        let mut server = Server(child.context(Kind::Internal, "cannot start the authority")?);
        let stderr = server.0.stderr.take().ok_or_else(|| Error::internal("the authority has no stderr"))?;
        let mut lines = BufReader::new(stderr).lines();
        let mut said = String::from("it said nothing");
        loop {
            match lines.next() {
                Some(Ok(line)) if line.starts_with("listening on") => {
                    break print(&format!("{line}\n"))?;
                }
                // What it thinks of the policy, say, or why it ends.
                Some(Ok(line)) => said = line,
                _ => return Err(Error::internal(format!("the authority did not start: {said}"))),
            }
        }
        // Whatever else it says is read, so that it never waits for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(server)
    }

    /// The job's one command.
    fn once<'a>(&'a self, destination: &'a Path) -> Vec<&'a OsStr> {
        let words =
            ["once", "--join-method", "github", "--token", "github-deploy", "--ttl", "10m", "--authority"];
        let mut arguments = words.map(OsStr::new).to_vec();
        arguments.push(OsStr::new(&self.authority));
        arguments.extend([OsStr::new("--destination"), destination.as_os_str()]);
        arguments
    }

    /// One token, twice, for different keys.
    fn replay(&self) -> Result<()> {
        let token = self.dir.join("stolen-token");
        write(&token, &self.issuer.mint(&self.authority)?)?;
        let by_hand = [OsStr::new("--id-token-file"), token.as_os_str()];
        let (first, second) = (self.dir.join("first"), self.dir.join("second"));
        self.quietly(&[&self.once(&first)[..], &by_hand].concat())?;
        let arguments = [&self.once(&second)[..], &by_hand].concat();
        self.prompt(&arguments, "")?;
        let output = self.command(&arguments).output().context(Kind::Internal, "cannot run once")?;
        print(&String::from_utf8_lossy(&output.stderr))?;
        if output.status.code() != Some(i32::from(Kind::Refused.code())) || second.join("key").exists() {
            return Err(Error::internal("a used token was not refused"));
        }
        self.quietly(&[OsStr::new("cleanup"), first.as_os_str()]).map(drop)
    }

    /// This binary, in a job's environment.
    fn command(&self, arguments: &[&OsStr]) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .env("ACTIONS_ID_TOKEN_REQUEST_URL", self.issuer.request_url())
            .env("ACTIONS_ID_TOKEN_REQUEST_TOKEN", issuer::REQUEST_TOKEN)
            .env("SSL_CERT_FILE", &self.issuer.ca_file)
            .env("MACHINE_ID_CA_FILE", self.dir.join("ca.crt"))
            .env("RUNNER_TEMP", &self.dir);
        // The demo may itself run in a job and behind a proxy, and what it shows is for people.
        for name in [
            "GITHUB_ACTIONS",
            "HTTPS_PROXY",
            "https_proxy",
            "ALL_PROXY",
            "all_proxy",
            "MACHINE_ID_CONFIG",
            "MACHINE_ID_TTL",
            "MACHINE_ID_DESTINATION",
            "GITHUB_OUTPUT",
            "GITHUB_ENV",
            "GITHUB_STEP_SUMMARY",
            "BASH_ENV",
            "CIRCLECI",
            "MACHINE_ID_CA_PIN",
        ] {
            command.env_remove(name);
        }
        command
    }

    fn prompt(&self, arguments: &[&OsStr], end: &str) -> Result<()> {
        let words = arguments.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
        print(&format!("$ machine-id {words}{end}\n"))
    }

    /// Runs a step with its output shown.
    fn show(&self, arguments: &[&OsStr]) -> Result<()> {
        self.prompt(arguments, "")?;
        let status = self.command(arguments).status().context(Kind::Internal, "cannot run a step")?;
        if status.success() { Ok(()) } else { Err(Error::internal(format!("the step ended with {status}"))) }
    }

    /// Runs a step for its output.
    fn quietly(&self, arguments: &[&OsStr]) -> Result<String> {
        let output = self.command(arguments).output().context(Kind::Internal, "cannot run a step")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(Error::internal(format!("a step ended with {}: {said}", output.status)));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).context(Kind::Destination, format!("cannot write {}", path.display()))
}

fn login_name() -> Result<String> {
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
