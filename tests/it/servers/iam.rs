//! The join method `iam`, whole: the real client finds credentials and signs,
//! the real authority forwards through a proxy and TLS, and `moto` verifies
//! with botocore. Requests that no client of ours makes are signed by botocore.

mod renewal;
mod rules;

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::authority::Authority;
use crate::support::client::{Keys, timed};
use crate::support::issuer::{Endpoint, Fault, Issuer};
use crate::support::once::{Job, Outcome, World};
use crate::support::policies;
use crate::support::port::free_port;
use crate::support::sts::{ACCOUNT, Sts, request};

const HOST: &str = "sts.eu-central-1.amazonaws.com";

const TOKENS: &str = r#"
---
kind: token
version: v2
metadata: {name: aws-deploy}
spec:
  roles: [Bot]
  bot_name: deployer
  join_method: iam
  iam:
    allow:
      - aws_account: "123456789012"
        aws_arn: "arn:aws:sts::123456789012:assumed-role/deploy/*"
      - aws_arn: "arn:aws:iam::123456789012:user/ci/*"
---
kind: token
version: v2
metadata: {name: aws-as-teleport}
spec:
  roles: [Bot]
  bot_name: deployer
  join_method: iam
  allow: [{aws_account: "123456789012"}]
---
kind: token
version: v2
metadata: {name: aws-other-account}
spec: {roles: [Bot], bot_name: deployer, join_method: iam, iam: {allow: [{aws_account: "210987654321"}]}}
---
kind: token
version: v2
metadata: {name: aws-other-role}
spec:
  roles: [Bot]
  bot_name: deployer
  join_method: iam
  iam: {allow: [{aws_account: "123456789012", aws_arn: "arn:aws:sts::*:assumed-role/deployer/*"}]}
"#;

/// moto behind the issuer's TLS and proxy, and an authority that reaches it there.
struct Aws {
    sts: Sts,
    world: World,
}

impl Aws {
    fn start() -> Self {
        let (issuer, sts) = (Issuer::start(), Sts::start());
        sts.behind(&issuer);
        let policy = policies::basic(&issuer) + TOKENS;
        let authority = Authority::with_policy(&policy).issuer(&issuer).proxy(&issuer.proxy()).start();
        Self { sts, world: World { issuer, authority } }
    }

    /// A job that has no credentials yet, and no instance under it. Its proxy
    /// for plain HTTP is dead: endpoints of the machine must not be asked through it.
    fn job(&self) -> Job {
        Job::new()
            .told(&self.world.authority, "aws-deploy")
            .env("MACHINE_ID_JOIN_METHOD", "iam")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("HTTP_PROXY", format!("http://{}", free_port()))
            .env("HTTPS_PROXY", self.world.issuer.proxy())
            .env("NO_PROXY", "127.0.0.1")
            .env("SSL_CERT_FILE", self.world.issuer.ca_file().display().to_string())
    }

    /// One with a user's credentials in its environment.
    fn user(&self) -> Job {
        self.job().envs(self.sts.environment("user")).env("AWS_REGION", "eu-central-1")
    }

    fn asked(&self) -> usize {
        self.world.issuer.count(Endpoint::Other)
    }

    /// The hosts that were asked.
    fn hosts(&self) -> Vec<String> {
        let requests = self.world.issuer.requests();
        requests.into_iter().filter(|r| r.endpoint == Endpoint::Other).map(|r| r.host).collect()
    }

    fn provenance(&self, outcome: &Outcome) -> String {
        let destination = outcome.clone().good().destination();
        let manifest = crate::support::once::manifest(&destination);
        let record = self.world.authority.issuance(manifest["issuance_id"].as_str().unwrap());
        assert_eq!(record["join_method"], "iam");
        record["provenance"].as_str().unwrap().to_owned()
    }

    /// What the authority recorded for a refused job.
    fn reason(&self, outcome: &Outcome) -> Value {
        outcome.clone().failed(4);
        let line = outcome.stderr.lines().find_map(|line| line.strip_prefix("hint: denial ")).unwrap();
        self.world.authority.refusal(line.split(':').next().unwrap())["reason"].clone()
    }
}

const USER: &str = "iam:arn:aws:iam::123456789012:user/ci/deployer";
const SESSION: &str = "iam:arn:aws:sts::123456789012:assumed-role/deploy/i-0123";

#[test]
fn credentials_are_found_where_the_sdks_find_them() {
    let aws = Aws::start();
    // The environment, for the region that it names; nothing secret is said, however much is.
    let user = aws.user();
    let outcome = user.once(["-v"]);
    assert_eq!(aws.provenance(&outcome), USER);
    outcome.says(&[
        "signing a request to sts.eu-central-1.amazonaws.com with the AWS credentials of the environment",
    ]);
    let said = format!("{}{}", outcome.stderr, aws.world.authority.stderr());
    for secret in [aws.sts.told("/user/secret_key"), "Signature=", "sts_request"] {
        assert!(!said.contains(secret), "{secret:?} in:\n{said}");
    }
    let session = aws.job().envs(aws.sts.environment("session"));
    assert_eq!(aws.provenance(&session.once([])), SESSION);

    // The shared files: keys of a profile, its region, and a command that prints some.
    let job = aws.job().env("AWS_PROFILE", "ci");
    let home = job.text_path("");
    let job = job.env("AWS_SHARED_CREDENTIALS_FILE", "/no/such/file").env("HOME", home);
    std::fs::create_dir(job.path(".aws")).unwrap();
    let keys = [aws.sts.told("/user/access_key"), aws.sts.told("/user/secret_key")];
    let [id, secret] = keys;
    let config = job.path(".aws/config");
    std::fs::write(&config, format!("[default]\nregion = us-east-1\n[profile ci]\nregion = eu-west-1\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n")).unwrap();
    assert_eq!(aws.provenance(&job.once([])), USER);
    let told = json!({"Version": 1, "AccessKeyId": id, "SecretAccessKey": secret});
    std::fs::write(job.path("told.json"), told.to_string()).unwrap();
    let command = format!("[profile ci]\ncredential_process = cat {}\n", job.text_path("told.json"));
    std::fs::write(&config, command).unwrap();
    assert_eq!(aws.provenance(&job.once([])), USER);
    let file = job.path("credentials");
    std::fs::write(&file, format!("[ci]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n"))
        .unwrap();
    let job = job.env("AWS_SHARED_CREDENTIALS_FILE", file.display().to_string());
    assert_eq!(aws.provenance(&job.once([])), USER);

    assert_eq!(
        aws.hosts(),
        [HOST, "sts.amazonaws.com", "sts.eu-west-1.amazonaws.com", "sts.amazonaws.com", "sts.amazonaws.com"]
    );
}

#[test]
fn credentials_of_instances_containers_and_web_identities() {
    let aws = Aws::start();
    let machine = format!("http://{}", aws.sts.address());
    let instance =
        aws.job().without("AWS_EC2_METADATA_DISABLED").env("AWS_EC2_METADATA_SERVICE_ENDPOINT", &machine);
    assert_eq!(aws.provenance(&instance.once([])), SESSION);
    // A service without a home.
    assert_eq!(aws.provenance(&instance.env("HOME", "").once([])), SESSION);

    let container = aws
        .job()
        .env("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("{machine}/container"))
        .env("AWS_CONTAINER_AUTHORIZATION_TOKEN", aws.sts.told("/container_token"));
    assert_eq!(aws.provenance(&container.once([])), SESSION);
    let refused = container.env("AWS_CONTAINER_AUTHORIZATION_TOKEN", "wrong").once([]).failed(3);
    refused.says(&["the container endpoint gave no AWS credentials: ECS task not authorized"]);
    let elsewhere = aws.job().env("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://192.0.2.1/x").once([]);
    elsewhere.failed(3).says(&["credentials would travel in the clear"]);

    let web = aws
        .job()
        .env("AWS_ROLE_ARN", aws.sts.told("/role"))
        .env("AWS_ROLE_SESSION_NAME", "pod")
        .env("AWS_REGION", "eu-central-1");
    let token = web.path("token");
    std::fs::write(&token, "eyJhbGciOiJub25lIn0.e30.c2ln").unwrap();
    let web = web.env("AWS_WEB_IDENTITY_TOKEN_FILE", token.display().to_string());
    assert_eq!(aws.provenance(&web.once([])), "iam:arn:aws:sts::123456789012:assumed-role/deploy/pod");

    // The region is the instance's for its own credentials, and not asked for otherwise.
    let eu = "sts.eu-west-1.amazonaws.com";
    assert_eq!(aws.hosts(), [eu, eu, "sts.amazonaws.com", HOST, HOST]);
}

#[test]
fn a_job_without_credentials_hears_so_within_seconds() {
    let aws = Aws::start();
    let (outcome, _) = timed(|| aws.job().once([]));
    outcome.failed(3).says(&[
        "this job has no AWS credentials",
        "AWS_EC2_METADATA_DISABLED is set",
        "hint: give the instance, task, function or pod an IAM role",
    ]);
    // Nothing listens there; and something that never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    for address in [free_port(), silent.local_addr().unwrap()] {
        let endpoint = format!("http://{address}");
        let job = aws.job().without("AWS_EC2_METADATA_DISABLED");
        let (outcome, time) = timed(|| job.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", &endpoint).once([]));
        outcome.failed(3).says(&["the instance metadata service gave none: failed to connect to IMDS"]);
        assert!(time < Duration::from_secs(8), "{endpoint}: {time:?}");
    }
    // A file that nobody ever writes to.
    let job = aws.job();
    rustix::fs::mkfifoat(rustix::fs::CWD, job.path("pipe"), rustix::fs::Mode::RUSR).unwrap();
    let pipe = job.text_path("pipe");
    let (outcome, time) = timed(|| job.env("AWS_CONFIG_FILE", pipe).once(["--timeout", "2s"]));
    outcome.failed(5).says(&["iam gave no proof: time is up"]);
    assert!(time < Duration::from_secs(8), "{time:?}");
    let region = aws.user().env("AWS_REGION", "mars").once([]).failed(3);
    region.says(&["`mars` is no AWS region that has a known STS", "hint: set AWS_REGION"]);
    assert_eq!(aws.asked(), 0);
}

#[test]
fn the_rules_and_the_signature_decide() {
    let aws = Aws::start();
    let teleport = aws.user().env("MACHINE_ID_TOKEN", "aws-as-teleport");
    assert_eq!(aws.provenance(&teleport.once([])), USER);
    for (job, reason) in [
        (aws.user().env("MACHINE_ID_TOKEN", "aws-other-account"), "no_rule_matches"),
        (aws.user().env("MACHINE_ID_TOKEN", "aws-other-role"), "no_rule_matches"),
        (
            aws.job().envs(aws.sts.environment("session")).env("MACHINE_ID_TOKEN", "aws-other-role"),
            "no_rule_matches",
        ),
        (aws.user().env("AWS_SECRET_ACCESS_KEY", "wrong"), "signature_invalid"),
        (aws.user().env("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE"), "signature_invalid"),
        (aws.user().env("AWS_SESSION_TOKEN", "of-somebody-else"), "signature_invalid"),
    ] {
        let outcome = job.once([]);
        assert_eq!(aws.reason(&outcome), reason, "{}", outcome.stderr);
        assert!(!outcome.stderr.contains("210987654321") && !outcome.stderr.contains("Signature="));
    }
    aws.user()
        .env("AWS_SECRET_ACCESS_KEY", "wrong")
        .once([])
        .says(&["AWS does not take it: 403 SignatureDoesNotMatch"]);
    // A session that has expired: AWS says so.
    let expired = json!({"Error": {"Code": "ExpiredToken", "Message": "The security token has expired"}});
    aws.world.issuer.fail(Endpoint::Other, Fault::Answer(403, "X: y".to_owned(), expired.to_string()));
    let outcome = aws.user().once([]);
    outcome.says(&["AWS does not take it: 403 ExpiredToken"]);
    assert_eq!(aws.reason(&outcome), "signature_invalid");
}

#[test]
fn requests_signed_for_something_else_are_refused() {
    let aws = Aws::start();
    let authority = &aws.world.authority;
    let keys = Keys::fresh();
    let audience = keys.audience(&authority.url());
    let good = aws.sts.sign(HOST, &audience, &json!({}));
    // botocore's signature is as good as our client's, and good for one set of keys.
    let granted = authority.client().exchange(&request(&keys, "aws-deploy", &good)).granted();
    let again = authority.client().exchange(&request(&keys, "aws-deploy", &good)).granted();
    assert_eq!(granted["outputs"][0]["serial"], again["outputs"][0]["serial"]);
    let thief = authority.client().exchange(&request(&Keys::fresh(), "aws-deploy", &good));
    assert_eq!(authority.refusal(&thief.denial(401))["reason"], "binding_wrong");
    let asked = aws.asked();

    let changed = |changes: &[(&str, Value)], headers: &[(&str, &str)]| {
        let mut signed = aws.sts.sign(HOST, &audience, &json!({}));
        for (name, value) in changes {
            signed.insert((*name).to_owned(), value.clone());
        }
        for (name, value) in headers {
            signed["headers"][*name] = (*value).into();
        }
        signed
    };
    let other = Keys::fresh().audience(&authority.url());
    let url = |host: &str| json!(format!("https://{host}/"));
    // Refused here, before anything is forwarded.
    for (name, signed, reason) in [
        (
            "another body",
            aws.sts.sign(HOST, &audience, &json!({"body": "Action=GetAccessKeyInfo&Version=2011-06-15"})),
            "proof_malformed",
        ),
        ("another host", aws.sts.sign("sts.evil.example", &audience, &json!({})), "proof_malformed"),
        (
            "another service's host",
            aws.sts.sign("iam.amazonaws.com", &audience, &json!({"service": "iam"})),
            "proof_malformed",
        ),
        ("another service", aws.sts.sign(HOST, &audience, &json!({"service": "s3"})), "proof_malformed"),
        ("another region", aws.sts.sign(HOST, &audience, &json!({"region": "eu-west-1"})), "proof_malformed"),
        (
            "another partition",
            aws.sts.sign("sts.cn-north-1.amazonaws.com.cn", &audience, &json!({"region": "cn-north-1"})),
            "proof_malformed",
        ),
        ("other keys", aws.sts.sign(HOST, &other, &json!({})), "binding_wrong"),
        ("no keys", aws.sts.sign(HOST, &authority.url(), &json!({})), "binding_required"),
        ("another authority", aws.sts.sign(HOST, "https://other.example.com", &json!({})), "audience_wrong"),
    ] {
        let refused = authority.client().exchange(&request(&keys, "aws-deploy", &signed));
        let id = refused.problem(if reason == "binding_required" { 403 } else { 401 })["denial_id"].clone();
        assert_eq!(authority.refusal(id.as_str().unwrap())["reason"], reason, "{name}");
    }
    assert_eq!(aws.asked(), asked, "something was forwarded");
    // What was signed is not what is sent: AWS's verifier sees it.
    for (name, signed) in [
        ("a region's signature for another's host", {
            let mut moved = aws.sts.sign("sts.eu-west-1.amazonaws.com", &audience, &json!({}));
            moved["url"] = url(HOST);
            moved["headers"]["host"] = HOST.into();
            moved
        }),
        ("another body's signature", {
            let mut moved =
                aws.sts.sign(HOST, &audience, &json!({"body": "Action=GetAccessKeyInfo&Version=2011-06-15"}));
            moved["body"] = crate::support::sts::ACTION.into();
            moved
        }),
        ("other keys' signature", {
            let mut moved = aws.sts.sign(HOST, &other, &json!({}));
            moved["headers"]["x-machine-id-audience"] = audience.clone().into();
            moved
        }),
        ("a wrong secret", aws.sts.sign(HOST, &audience, &json!({"secret_key": "wrong"}))),
        (
            "a type that was not signed",
            changed(&[], &[("content-type", "application/x-www-form-urlencoded; charset=utf-8")]),
        ),
    ] {
        let refused = authority.client().exchange(&request(&keys, "aws-deploy", &signed));
        assert_eq!(authority.refusal(&refused.denial(401))["reason"], "signature_invalid", "{name}");
    }
    assert_eq!(aws.asked(), asked + 5);
    assert!(aws.hosts().iter().all(|host| host == HOST));
    assert!(!authority.stderr().contains("Signature="));
    assert_eq!(
        ACCOUNT,
        authority.issuance(granted["issuance_id"].as_str().unwrap())["claims"]["aws_account"]
    );
}

#[test]
fn an_sts_that_fails_or_lies_delays_its_own_joins_alone() {
    let aws = Aws::start();
    let (authority, issuer) = (&aws.world.authority, &aws.world.issuer);
    let keys = Keys::fresh();
    let signed = aws.sts.sign(HOST, &keys.audience(&authority.url()), &json!({}));
    let join = || authority.client().exchange(&request(&keys, "aws-deploy", &signed));
    let arn = "arn:aws:sts::123456789012:assumed-role/deploy/i-0123";
    let caller = |caller: Value| {
        Fault::Body(json!({"GetCallerIdentityResponse": {"GetCallerIdentityResult": caller}}).to_string())
    };
    let code = |code: &str| json!({"Error": {"Code": code}}).to_string();
    for (name, fault) in [
        ("a redirect", Fault::Redirect("https://sts.amazonaws.com/".to_owned())),
        ("a redirect to itself", Fault::Redirect(format!("https://{HOST}/"))),
        ("500", Fault::Status(500)),
        ("429", Fault::Status(429)),
        ("404", Fault::Status(404)),
        ("204", Fault::Answer(204, "X: y".to_owned(), String::new())),
        ("throttled", Fault::Answer(400, "X: y".to_owned(), code("Throttling"))),
        ("a dropped connection", Fault::Drop),
        ("HTML", Fault::Body("<html><body>Log in to the network</body></html>".to_owned())),
        (
            "XML",
            Fault::Body(format!("<GetCallerIdentityResponse><Arn>{arn}</Arn></GetCallerIdentityResponse>")),
        ),
        ("nothing", Fault::Body(String::new())),
        ("a lot", Fault::Huge(8 << 20)),
        ("another account in the ARN", caller(json!({"Account": "210987654321", "Arn": arn, "UserId": "A"}))),
        ("no account", caller(json!({"Arn": arn, "UserId": "A"}))),
        ("a list of accounts", caller(json!({"Account": [ACCOUNT], "Arn": arn, "UserId": "A"}))),
        (
            "another partition",
            caller(json!({"Account": ACCOUNT, "Arn": arn.replace(":aws:", ":aws-cn:"), "UserId": "A"})),
        ),
        ("an ARN with a line", caller(json!({"Account": ACCOUNT, "Arn": format!("{arn}\n"), "UserId": "A"}))),
    ] {
        issuer.fail(Endpoint::Other, fault);
        let asked = aws.asked();
        let (answer, time) = timed(join);
        answer.problem(503);
        assert!(time < Duration::from_secs(5), "{name}: {time:?}");
        assert_eq!(aws.asked(), asked + 1, "{name}");
    }
    assert!(aws.hosts().iter().all(|host| host == HOST), "{:?}", aws.hosts());

    // An STS that hangs: its joins wait, some of them; a flood is turned away at once; others go on.
    issuer.fail(Endpoint::Other, Fault::Hang);
    let asked = aws.asked();
    std::thread::scope(|scope| {
        let waiting: Vec<_> = (0..24).map(|_| scope.spawn(|| timed(join))).collect();
        crate::support::wait_for("the STS to be asked", || (aws.asked() > asked).then_some(()));
        std::thread::sleep(Duration::from_millis(500));
        let (github, time) = timed(|| aws.world.github().once([]));
        github.good();
        assert!(time < Duration::from_secs(3), "{time:?}");
        let times: Vec<Duration> = waiting
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .map(|(answer, time)| {
                answer.problem(503);
                time
            })
            .collect();
        let at_once = times.iter().filter(|time| **time < Duration::from_secs(4)).count();
        assert_eq!(at_once, 24 - 16, "{times:?}");
        assert!(times.iter().all(|time| *time < Duration::from_secs(14)), "{times:?}");
    });
    // Nothing of that used the proof up.
    aws.sts.behind(issuer);
    join().granted();
}

#[test]
fn the_example_for_codebuild_works() {
    let aws = Aws::start();
    let example = |file: &str| {
        std::fs::read_to_string(crate::support::repository(&format!("ci-examples/aws/{file}"))).unwrap()
    };
    aws.world.authority.write_policy(&example("policy.yaml"));
    aws.world.authority.hup();
    aws.world.authority.wait_for_stderr("policy read anew");
    let spec: Value = serde_saphyr::from_str(&example("buildspec.yml")).unwrap();
    // As CodeBuild has it: the service role's credentials at the container endpoint, the project's files.
    let mut job = aws.job().without("MACHINE_ID_JOIN_METHOD").without("MACHINE_ID_TOKEN");
    for (name, value) in spec["env"]["variables"].as_object().unwrap() {
        let url = aws.world.authority.url();
        job = job.env(name, if name == "MACHINE_ID_AUTHORITY" { &url } else { value.as_str().unwrap() });
    }
    let job = job
        .env("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("http://{}/container", aws.sts.address()))
        .env("AWS_CONTAINER_AUTHORIZATION_TOKEN", aws.sts.told("/container_token"));
    let script = job.path("deploy.sh");
    std::fs::write(&script, "#!/bin/sh\nexec ssh-keygen -L -f \"$MACHINE_ID_DESTINATION/key-cert.pub\"\n")
        .unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let binary = std::path::Path::new(crate::support::process::MACHINE_ID).parent().unwrap();
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap());
    for command in spec["phases"]["build"]["commands"].as_array().unwrap() {
        let mut bash = crate::support::process::command("bash");
        bash.args(["-ec", command.as_str().unwrap()]).current_dir(job.path("")).envs(job.environment());
        let said = crate::support::process::succeed(bash.env("PATH", &path));
        assert!(said.contains(SESSION) && said.contains("deploy@env=prod"), "{said}");
    }
}
