//! AWS credentials that somebody set up and that cannot be used: the run ends, and the machine's own are not looked at.

use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;

use crate::support::issuer::Endpoint;
use crate::support::once::{Job, World};

/// A job of a machine with a role, which nobody may ask for it.
struct Machine {
    world: World,
    metadata: TcpListener,
}

impl Machine {
    fn start() -> Self {
        let metadata = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        metadata.set_nonblocking(true).unwrap();
        Self { world: World::start(), metadata }
    }

    /// A job with these shared files.
    fn job(&self, config: &str, credentials: &str) -> Job {
        let address = self.metadata.local_addr().unwrap();
        let job = Job::new()
            .told(&self.world.authority, "github-deploy")
            .env("MACHINE_ID_JOIN_METHOD", "iam")
            .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", format!("http://{address}"));
        let home = job.text_path("");
        std::fs::create_dir(job.path(".aws")).unwrap();
        for (file, text) in [("config", config), ("credentials", credentials)] {
            std::fs::write(job.path(&format!(".aws/{file}")), text).unwrap();
        }
        job.env("HOME", home)
    }

    #[track_caller]
    fn ends(&self, job: &Job, says: &[&str]) {
        let outcome = job.once(["--timeout", "10s"]).failed(3);
        outcome.says(says);
        outcome.says(&["gave no AWS credentials"]);
        assert!(!outcome.stderr.contains("hunter2"), "{}", outcome.stderr);
        assert!(self.metadata.accept().is_err(), "the machine was asked: {}", outcome.stderr);
        assert_eq!(self.world.issuer.count(Endpoint::Other), 0);
    }
}

#[test]
fn a_profile_that_is_named_is_used_or_ends_the_run() {
    let machine = Machine::start();
    let keys = "aws_access_key_id = AKIA\naws_secret_access_key = hunter2\n";
    for (config, credentials, says) in [
        ("", "", "there is no such profile in"),
        ("[ci]\ncredential_process = true\n", "", "there is no such profile in"),
        ("[profile ci]\nregion = eu-west-1\n", "", "it has neither keys nor a `credential_process`"),
        (
            "[profile ci]\nrole_arn = arn:x\nsource_profile = a\n",
            "",
            "it has a `role_arn`, and no role is assumed here",
        ),
        ("[profile ci]\nrole_arn = arn:x\n", &format!("[ci]\n{keys}"), "it has a `role_arn`"),
        ("", "[ci]\nrole_arn = arn:x\ncredential_source = Ec2InstanceMetadata\n", "it has a `role_arn`"),
        ("[profile ci]\nrole_arn = arn:x\nweb_identity_token_file = /t\n", "", "hint: set AWS_ROLE_ARN"),
        (
            "[profile ci]\nsso_session = x\nsso_account_id = 1\n",
            "",
            "it has `sso_session`, and nobody logs in here",
        ),
        (
            "[profile ci]\nsso_start_url = https://x\n",
            "",
            "hint: give another profile the line `credential_process = aws configure",
        ),
        ("", "[ci]\naws_access_key_id = AKIA\n", "it has `aws_access_key_id` without the other half"),
        (
            "",
            "[ci]\naws_secret_access_key = hunter2\n",
            "it has `aws_secret_access_key` without the other half",
        ),
        ("", "[ci]\naws_access_key_id = AKIA\nhunter2\n", ".aws/credentials is no AWS file: line "),
        ("[profile ci]\ncredential_process = false\n", "", "credential process failed with status 1"),
    ] {
        for variable in ["AWS_PROFILE", "AWS_DEFAULT_PROFILE"] {
            let job = machine.job(config, credentials).env(variable, "ci");
            let named = format!("the profile `ci` ({variable}) gave no AWS credentials");
            let whose = if says.starts_with("credential process") {
                "the profile's credential process"
            } else {
                &named
            };
            machine.ends(&job, &[whose, says]);
        }
    }
    // Named or not, a profile that says whose role to take means that.
    for config in ["[default]\nrole_arn = arn:x\n", "[profile default]\nsso_session = x\n"] {
        machine.ends(&machine.job(config, ""), &["the profile `default` gave no AWS credentials"]);
    }
    // A file that is named and cannot be read; one of nobody that is named is warned about.
    let job = machine.job("", "");
    let folder = job.text_path(".aws");
    let unreadable = machine.job("", "").env("AWS_CONFIG_FILE", &folder);
    machine.ends(&unreadable, &["the profile `default` gave no AWS credentials: cannot read"]);
    std::fs::remove_file(job.path(".aws/config")).unwrap();
    std::fs::create_dir(job.path(".aws/config")).unwrap();
    std::fs::set_permissions(job.path(".aws/config"), std::fs::Permissions::from_mode(0o700)).unwrap();
    let job = job.env("AWS_EC2_METADATA_DISABLED", "true");
    job.once([])
        .failed(3)
        .says(&["AWS's shared files are passed over: cannot read", "this job has no AWS credentials"]);
}

#[test]
fn half_of_a_pair_in_the_environment_is_not_passed_over() {
    let machine = Machine::start();
    for (set, unset) in [
        ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
        ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"),
        ("AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN"),
    ] {
        let job = machine.job("", "").env(set, "hunter2").env(unset, "");
        machine.ends(&job, &[&format!("{set} is set, and {unset} is not or is empty"), "hint: set both"]);
    }
}
