//! Certificates of long jobs.

use serde_json::json;

use super::Aws;

#[test]
fn a_long_command_renews_again_and_again() {
    let aws = Aws::start();
    let outcome = aws.user().once(["--ttl", "10s", "--", "sleep", "16"]).good();
    assert_eq!(outcome.stderr.matches("renewed the certificates").count(), 2, "{}", outcome.stderr);
    let audit = aws.world.authority.audit();
    let count = |kind: &str| audit.iter().filter(|event| event["event"] == kind).count();
    assert_eq!((count("issued"), count("refused"), aws.asked()), (3, 0, 3));
}

/// A long job renews, with whatever credentials there are by then; that there
/// are none for a moment, as of a metadata service that has no time, passes.
#[test]
fn a_long_job_renews() {
    let aws = Aws::start();
    let keys = [aws.sts.told("/user/access_key"), aws.sts.told("/user/secret_key")];
    let job = aws.job();
    let told = json!({"Version": 1, "AccessKeyId": keys[0], "SecretAccessKey": keys[1]});
    std::fs::write(job.path("told"), told.to_string()).unwrap();
    let config = format!("[default]\ncredential_process = cat {}\n", job.text_path("told"));
    std::fs::write(job.path("config"), config).unwrap();
    let config = job.text_path("config");
    let job = job.env("AWS_CONFIG_FILE", config).env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null");
    let script = "touch ready; while ! [ -e end ]; do sleep 0.05; done";
    let mut running = job.start(["--ttl", "12s", "--", "sh", "-c", script]);
    crate::support::wait_for("COMMAND", || job.path("ready").exists().then_some(()));
    std::fs::rename(job.path("told"), job.path("gone")).unwrap();
    let said = |what: &str| running.stderr().contains(what).then_some(());
    crate::support::wait_for("the warning", || {
        said("the profile's credential process gave no AWS credentials")
    });
    std::fs::rename(job.path("gone"), job.path("told")).unwrap();
    crate::support::wait_for("the renewal", || said("renewed the certificates"));
    std::fs::write(job.path("end"), "").unwrap();
    assert!(running.wait().success());
    assert!(running.stderr().contains("cannot renew the certificates, trying again"), "{}", running.stderr());
    assert!(aws.asked() >= 2);
}
