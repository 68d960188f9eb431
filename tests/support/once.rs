//! A CI job around the real client: its folders, its environment, and what is
//! left of it afterwards.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::authority::Authority;
use super::issuer::Issuer;
use super::policies;
use super::process::{self, Running, machine_id};

/// The files in which a GitHub job tells its runner things, and CircleCI's.
pub const TOLD: &[&str] = &["GITHUB_OUTPUT", "GITHUB_ENV", "GITHUB_STEP_SUMMARY", "GITHUB_STATE", "BASH_ENV"];

/// Every file of an output `identity`.
pub const IDENTITY_FILES: &[&str] = &[
    "key",
    "key.pub",
    "key-cert.pub",
    "ssh_config",
    "known_hosts",
    "revoked_hosts.krl",
    "tls.key",
    "tls.crt",
    "ca.crt",
    "identity",
];

/// An issuer, and an authority that believes it.
pub struct World {
    /// The platform.
    pub issuer: Issuer,
    /// The authority.
    pub authority: Authority,
}

impl World {
    /// With the basic policy.
    #[track_caller]
    pub fn start() -> Self {
        Self::with_policy(|policy| policy)
    }

    /// With the basic policy, changed.
    #[track_caller]
    pub fn with_policy(change: impl FnOnce(String) -> String) -> Self {
        let issuer = Issuer::start();
        let authority = Authority::trusting(&issuer, &change(policies::basic(&issuer)));
        Self { issuer, authority }
    }

    /// With the basic policy and an authority of that suite.
    #[track_caller]
    pub fn of_suite(suite: &str, change: impl FnOnce(String) -> String) -> Self {
        let issuer = Issuer::start();
        let policy = change(policies::basic(&issuer));
        let authority = Authority::with_policy(&policy).issuer(&issuer).init(["--suite", suite]).start();
        Self { issuer, authority }
    }

    /// A GitHub job that is told of this authority by its environment.
    pub fn github(&self) -> Job {
        Job::new().envs(self.issuer.github_environment()).told(&self.authority, "github-deploy")
    }

    /// A CircleCI job; with `minting`, its command `circleci` works.
    pub fn circleci(&self, minting: bool) -> Job {
        let job = Job::new().told(&self.authority, "circleci-deploy");
        let folder = job.path("bin");
        std::fs::create_dir(&folder).unwrap();
        let variables = self.issuer.circleci_environment(minting.then_some(folder.as_path()));
        let path = std::env::var("PATH").unwrap();
        job.envs(variables).env("PATH", format!("{}:{path}", folder.display()))
    }
}

/// A job: a folder of its own, and its environment.
pub struct Job {
    directory: TempDir,
    environment: BTreeMap<String, String>,
}

impl Job {
    /// One on no platform that anybody knows.
    pub fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let mut environment = BTreeMap::new();
        for (variable, folder) in [("RUNNER_TEMP", "temp"), ("XDG_RUNTIME_DIR", "runtime"), ("TMPDIR", "tmp")]
        {
            let path = directory.path().join(folder);
            std::fs::create_dir(&path).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
            environment.insert(variable.to_owned(), path.display().to_string());
        }
        for file in TOLD {
            let path = directory.path().join(file);
            std::fs::write(&path, "").unwrap();
            environment.insert((*file).to_owned(), path.display().to_string());
        }
        Self { directory, environment }
    }

    /// With the authority, its CA and a join token in its environment.
    #[must_use]
    pub fn told(self, authority: &Authority, join_token: &str) -> Self {
        self.env("MACHINE_ID_AUTHORITY", authority.url())
            .env("MACHINE_ID_CA_FILE", authority.ca_file().display().to_string())
            .env("MACHINE_ID_TOKEN", join_token)
    }

    /// With this variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.insert(name.to_owned(), value.into());
        self
    }

    /// With these variables.
    #[must_use]
    pub fn envs(mut self, variables: Vec<(String, String)>) -> Self {
        self.environment.extend(variables);
        self
    }

    /// Without this variable.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.environment.remove(name);
        self
    }

    /// Its environment.
    pub fn environment(&self) -> &BTreeMap<String, String> {
        &self.environment
    }

    /// A path in its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The same as text.
    pub fn text_path(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// What it told its runner in this file.
    #[track_caller]
    pub fn said(&self, file: &str) -> String {
        process::read(self.path(file))
    }

    /// `machine-id ARGS` in this job.
    pub fn command<S: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = machine_id(args);
        command.current_dir(self.directory.path()).envs(&self.environment);
        command
    }

    /// Runs `machine-id ARGS` to its end.
    #[track_caller]
    pub fn run<S: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Outcome {
        Outcome::of(&process::run(&mut self.command(args)))
    }

    /// Runs `machine-id once ARGS` to its end.
    #[track_caller]
    pub fn once<const N: usize>(&self, args: [&str; N]) -> Outcome {
        self.run(["once"].into_iter().chain(args))
    }

    /// Starts `machine-id once ARGS`.
    #[track_caller]
    pub fn start<const N: usize>(&self, args: [&str; N]) -> Running {
        let mut command = self.command(["once"].into_iter().chain(args));
        Running::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()))
    }

    /// Revokes what is in a destination, which stays.
    #[track_caller]
    pub fn gives_back(&self, destination: &Path) {
        let spare = self.path("spare");
        copy(destination, &spare);
        self.run(["cleanup", "-v", spare.to_str().unwrap()]).good().says(&["revoked the certificates"]);
    }

    /// Everything under its temporary folders but the registry of runs, whose entries it names.
    pub fn left(&self) -> Vec<PathBuf> {
        let mut left = Vec::new();
        for folder in ["temp", "tmp", "runtime"] {
            walk(&self.path(folder), &mut left);
        }
        let registry = self.path("runtime/machine-id");
        left.retain(|path| *path != registry && *path != registry.join("runs"));
        left
    }
}

/// Every path below a folder.
pub fn walk(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        into.push(path.clone());
        if path.is_dir() && !path.is_symlink() {
            walk(&path, into);
        }
    }
}

/// How a command ended, and what it said.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its exit code; 128 and the number of the signal that killed it.
    pub code: i32,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Outcome {
    /// Of a command that has ended.
    pub fn of(output: &std::process::Output) -> Self {
        use std::os::unix::process::ExitStatusExt as _;
        Self {
            code: output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap_or(0)),
            stdout: String::from_utf8(output.stdout.clone()).unwrap(),
            stderr: String::from_utf8(output.stderr.clone()).unwrap(),
        }
    }

    /// That of a success.
    #[track_caller]
    pub fn good(self) -> Self {
        assert_eq!(self.code, 0, "{}", self.stderr);
        self
    }

    /// That of a failure with this exit code, which printed nothing on stdout.
    #[track_caller]
    pub fn failed(self, code: i32) -> Self {
        assert_eq!((self.code, self.stdout.as_str()), (code, ""), "{}", self.stderr);
        self
    }

    /// The destination that stands alone on stdout.
    #[track_caller]
    pub fn destination(&self) -> PathBuf {
        let path = self.stdout.strip_suffix('\n').unwrap_or_else(|| panic!("no line: {self:?}"));
        assert!(path.starts_with('/') && !path.contains('\n'), "{self:?}");
        PathBuf::from(path)
    }

    /// Asserts that stderr holds each of these.
    #[track_caller]
    pub fn says(&self, texts: &[&str]) {
        for text in texts {
            assert!(self.stderr.contains(text), "no {text:?} in:\n{}", self.stderr);
        }
    }
}

/// The manifest of a destination.
#[track_caller]
pub fn manifest(destination: &Path) -> Value {
    serde_json::from_str(&process::read(destination.join("manifest.json"))).unwrap()
}

/// The blocks of a runner's file: `name<<delimiter`, value, delimiter.
#[track_caller]
pub fn heredocs(text: &str) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let (name, delimiter) = line.split_once("<<").unwrap_or_else(|| panic!("no heredoc: {line}"));
        let value: Vec<&str> = lines.by_ref().take_while(|line| *line != delimiter).collect();
        values.insert(name.to_owned(), value.join("\n"));
    }
    values
}

/// The files below a folder with their content.
pub fn snapshot(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut paths = Vec::new();
    walk(folder, &mut paths);
    let files = paths.into_iter().filter(|path| path.is_file());
    files.map(|path| (path.clone(), std::fs::read(&path).unwrap())).collect()
}

/// Copies a folder with all that is in it.
pub fn copy(from: &Path, to: &Path) {
    let done = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(done.success());
}
