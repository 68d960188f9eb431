//! An authority's first minutes: `init --example`, `policy add`, `doctor`; and that a policy written for one project's
//! jobs lets in these and nobody else.

mod doctor;
mod jobs;
mod written;

use std::path::{Path, PathBuf};
use std::process::Output;

use crate::support::issuer::Issuer;
use crate::support::once::Outcome;
use crate::support::process::{self, machine_id};

/// The organisation and the project of CircleCI's fixture.
const CIRCLECI: &str = "circleci:3f1c2a54-7f0f-4f0b-9d5e-2b6f3a1c8d10/a7d2b0f6-51c4-4a6e-8e0d-6f2f0c9b7e21";

/// `machine-id authority ARGS`, with that issuer in the place of every platform, if there is one.
fn authority(args: &[&str], platform: Option<&Issuer>) -> Output {
    let mut command = machine_id(["authority"]);
    command.args(args);
    if let Some(issuer) = platform {
        command.env("HTTPS_PROXY", issuer.proxy()).env("SSL_CERT_FILE", issuer.ca_file());
    } else {
        // Nobody listens there.
        command.env("HTTPS_PROXY", "http://127.0.0.1:1");
    }
    process::run(&mut command)
}

/// `authority init ARGS` in a new folder below `folder`.
fn init(folder: &Path, args: &[&str], platform: Option<&Issuer>) -> (PathBuf, Outcome) {
    let data = folder.join("data");
    let place = data.display().to_string();
    let fixed = ["init", "--cluster", "id.test", "--public-url", "https://127.0.0.1:9", "--data-dir", &place];
    (data, Outcome::of(&authority(&[&fixed, args].concat(), platform)))
}

/// What `init --example WHAT --login deploy` writes.
#[track_caller]
fn policy_of(args: &[&str], platform: Option<&Issuer>) -> String {
    let folder = tempfile::TempDir::new().unwrap();
    let (data, made) = init(folder.path(), &[&["--login", "deploy", "--example"], args].concat(), platform);
    made.good();
    let files: Vec<_> =
        std::fs::read_dir(data.join("policy")).unwrap().map(|file| file.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    process::read(&files[0])
}
