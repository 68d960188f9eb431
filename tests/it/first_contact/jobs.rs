//! A policy of `init --example` lets in exactly the job that it names: real exchanges, each with one thing otherwise,
//! and `authority check` over the same tokens.

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{CIRCLECI, policy_of};
use crate::support::authority::Authority;
use crate::support::issuer::{Endpoint, Fault, Issuer};
use crate::support::once::Job;
use crate::support::process::{machine_id, run};
use crate::support::template;

/// A platform, its API, an authority with the policy that `init` wrote, and what it says of the platform's usual job.
struct Stage {
    issuer: Issuer,
    authority: Authority,
    folder: TempDir,
    platform: &'static str,
    token: String,
    iss: &'static str,
}

impl Stage {
    /// With what the platform's API says of the project, if it says anything.
    fn new(platform: &'static str, iss: &'static str, args: &[&str], api: Option<Value>) -> Self {
        let issuer = Issuer::start();
        if let Some(body) = api {
            issuer.fail(Endpoint::Other, Fault::Body(body.to_string()));
        }
        let policy = policy_of(args, Some(&issuer));
        let token = policy.split("bot_name: ").nth(1).unwrap().split('\n').next().unwrap().to_owned();
        let authority = Authority::with_policy(&policy).issuer(&issuer).proxy(&issuer.proxy()).start();
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("policy.yaml"), policy).unwrap();
        Self { issuer, authority, folder, platform, token, iss }
    }

    /// The platform's job, which mints a token for its keys where the platform can, with these claims otherwise.
    fn job(&self, otherwise: &Value) -> (Job, String) {
        let (issuer, url) = (&self.issuer, self.authority.url());
        let mut claims = template::claims(self.platform);
        claims.insert("iss".to_owned(), self.iss.into());
        claims.extend(otherwise.as_object().unwrap().clone());
        issuer.change_claims(self.platform, |all| *all = claims);
        let minted = issuer.token(self.platform, &url).mint();
        let job = Job::new().told(&self.authority, &self.token);
        let job = match self.platform {
            "github" => job.envs(issuer.github_environment()),
            "circleci" => {
                let folder = job.path("bin");
                std::fs::create_dir(&folder).unwrap();
                let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
                job.envs(issuer.circleci_environment(Some(&folder))).env("PATH", path)
            }
            _ => job.env("GITLAB_CI", "true").env("CI_JOB_ID", "1").env("MACHINE_ID_ID_TOKEN", &minted),
        };
        (job, minted)
    }

    /// Gets in, or is refused as no rule's; in an exchange, and by `authority check`.
    #[track_caller]
    fn judge(&self, name: &str, otherwise: &Value, gets_in: bool) {
        let (job, minted) = self.job(otherwise);
        let outcome = job.once(["--output", "ssh"]);
        let wanted = if gets_in { 0 } else { 4 };
        assert_eq!(outcome.code, wanted, "{name}: {}", outcome.stderr);
        let token = self.folder.path().join("token");
        std::fs::write(&token, minted).unwrap();
        let mut check =
            machine_id(["authority", "check", "policy.yaml", "--token", &self.token, "--claims", "token"]);
        let checked = run(check.args(["--output", "ssh"]).current_dir(self.folder.path()));
        assert_eq!(
            checked.status.code(),
            Some(wanted),
            "{name}: {}",
            String::from_utf8_lossy(&checked.stdout)
        );
    }
}

#[test]
fn of_github() {
    let api = json!({"id": 740_074, "full_name": "octo-org/octo-repo", "default_branch": "main"});
    let stage = Stage::new(
        "github",
        "https://token.actions.githubusercontent.com",
        &["github:Octo-Org/octo-repo"],
        Some(api),
    );
    let file = |repository: &str, file: &str, git_ref: &str| {
        format!("{repository}/.github/workflows/{file}@{git_ref}")
    };
    let main = "refs/heads/main";
    stage.judge("the job", &json!({}), true);
    stage.judge("the job by hand", &json!({"event_name": "workflow_dispatch"}), true);
    for (name, otherwise) in [
        (
            "a fork",
            json!({
                "repository": "evil-org/octo-repo", "repository_owner": "evil-org", "repository_id": "99",
                "repository_owner_id": "98", "sub": "repo:evil-org/octo-repo:ref:refs/heads/main",
                "workflow_ref": file("evil-org/octo-repo", "deploy.yml", main),
            }),
        ),
        ("one that has the name by now", json!({"repository_id": "99", "repository_owner_id": "98"})),
        (
            "another branch",
            json!({
                "ref": "refs/heads/feature", "workflow_ref": file("octo-org/octo-repo", "deploy.yml", "refs/heads/feature"),
            }),
        ),
        (
            "a tag with the branch's name",
            json!({
                "ref": "refs/tags/main", "ref_type": "tag",
                "workflow_ref": file("octo-org/octo-repo", "deploy.yml", "refs/tags/main"),
            }),
        ),
        (
            "a pull request",
            json!({
                "event_name": "pull_request", "ref": "refs/pull/7/merge", "base_ref": "main",
                "sub": "repo:octo-org/octo-repo:pull_request",
                "workflow_ref": file("octo-org/octo-repo", "deploy.yml", "refs/pull/7/merge"),
            }),
        ),
        (
            "a pull request that is merged",
            json!({"event_name": "pull_request", "head_ref": "feature", "base_ref": "main"}),
        ),
        ("a pull request's target", json!({"event_name": "pull_request_target"})),
        ("what runs after a pull request", json!({"event_name": "workflow_run"})),
        ("a comment", json!({"event_name": "issue_comment"})),
        (
            "another repository of the owner",
            json!({
                "repository": "octo-org/other", "repository_id": "740075", "sub": "repo:octo-org/other:ref:refs/heads/main",
                "workflow_ref": file("octo-org/other", "deploy.yml", main),
            }),
        ),
        ("another workflow", json!({"workflow_ref": file("octo-org/octo-repo", "test.yml", main)})),
        (
            "a workflow of the name in another repository",
            json!({"workflow_ref": file("octo-org/other", "deploy.yml", main)}),
        ),
    ] {
        stage.judge(name, &otherwise, false);
    }
    // One that anybody may have read, for keys of their own.
    let (job, minted) = stage.job(&json!({}));
    job.env("STOLEN", minted).once(["--output", "ssh", "--id-token-env", "STOLEN"]).failed(4);
}

/// Nobody was asked: the name alone binds the repository.
#[test]
fn of_github_without_a_network() {
    let issuer = "https://token.actions.githubusercontent.com";
    let stage = Stage::new(
        "github",
        issuer,
        &["github:octo-org/octo-repo@release", "--workflow", "release.yaml"],
        None,
    );
    let of = |repository: &str, branch: &str| {
        json!({
            "repository": repository, "ref": format!("refs/heads/{branch}"),
            "workflow_ref": format!("{repository}/.github/workflows/release.yaml@refs/heads/{branch}"),
        })
    };
    stage.judge("the job", &of("octo-org/octo-repo", "release"), true);
    stage.judge("another branch", &of("octo-org/octo-repo", "main"), false);
    stage.judge("a branch that begins alike", &of("octo-org/octo-repo", "release/x"), false);
    stage.judge("another repository", &of("octo-org/octo-repo-2", "release"), false);
    stage.judge("another owner", &of("octo-org-2/octo-repo", "release"), false);
}

#[test]
fn of_gitlab() {
    let api =
        json!({"id": 200_020, "path_with_namespace": "octo-group/platform/app", "default_branch": "main"});
    let stage = Stage::new("gitlab", "https://gitlab.com", &["gitlab:octo-group/platform/app"], Some(api));
    stage.judge("the job", &json!({}), true);
    let definition =
        |project: &str, file: &str, git_ref: &str| format!("gitlab.com/{project}//{file}@{git_ref}");
    let (app, usual, main) = ("octo-group/platform/app", ".gitlab-ci.yml", "refs/heads/main");
    for (name, otherwise) in [
        (
            "a fork",
            json!({
                "project_path": "evil/app", "project_id": "66", "namespace_path": "evil", "namespace_id": "67",
                "sub": "project_path:evil/app:ref_type:branch:ref:main",
                "ci_config_ref_uri": definition("evil/app", usual, main),
            }),
        ),
        ("one that has the path by now", json!({"project_id": "66"})),
        (
            "another branch",
            json!({
                "ref": "feature", "ref_path": "refs/heads/feature", "ref_protected": "false",
                "sub": "project_path:octo-group/platform/app:ref_type:branch:ref:feature",
                "ci_config_ref_uri": definition(app, usual, "refs/heads/feature"),
            }),
        ),
        (
            "a tag with the branch's name",
            json!({
                "ref_type": "tag", "ref_path": "refs/tags/main", "ci_config_ref_uri": definition(app, usual, "refs/tags/main"),
                "sub": "project_path:octo-group/platform/app:ref_type:tag:ref:main",
            }),
        ),
        (
            "a merge request",
            json!({
                "pipeline_source": "merge_request_event", "ref_path": "refs/merge-requests/7/head", "ref": "feature",
                "ci_config_ref_uri": definition(app, usual, "refs/merge-requests/7/head"),
            }),
        ),
        ("a merge request that says it is of the branch", json!({"pipeline_source": "merge_request_event"})),
        ("a pull request from elsewhere", json!({"pipeline_source": "external_pull_request_event"})),
        (
            "another project of the group",
            json!({
                "project_path": "octo-group/platform/other", "project_id": "200021",
                "sub": "project_path:octo-group/platform/other:ref_type:branch:ref:main",
                "ci_config_ref_uri": definition("octo-group/platform/other", usual, main),
            }),
        ),
        ("another pipeline", json!({"ci_config_ref_uri": definition(app, "other.yml", main)})),
        (
            "a pipeline that another project defines",
            json!({"ci_config_ref_uri": definition("evil/app", usual, main)}),
        ),
    ] {
        stage.judge(name, &otherwise, false);
    }
}

#[test]
fn of_circleci() {
    let (organization, project) =
        ("3f1c2a54-7f0f-4f0b-9d5e-2b6f3a1c8d10", "a7d2b0f6-51c4-4a6e-8e0d-6f2f0c9b7e21");
    let api = json!({
        "id": project, "organization_id": organization, "name": "octo-repo",
        "vcs_info": {"vcs_url": "https://github.com/octo-org/octo-repo", "provider": "GitHub", "default_branch": "main"},
    });
    let iss = "https://oidc.circleci.com/org/3f1c2a54-7f0f-4f0b-9d5e-2b6f3a1c8d10";
    let definition = "9b8a7c6d-5e4f-4a3b-8c2d-1e0f9a8b7c6d";
    let stage = Stage::new("circleci", iss, &[CIRCLECI, "--workflow", definition], Some(api));
    stage.judge("the job", &json!({}), true);
    let sub = |project: &str, origin: &str, git_ref: &str| {
        format!(
            "org/{organization}/project/{project}/user/5e6f7a8b-1c2d-4e3f-9a0b-7c8d9e0f1a2b/vcs-origin/{origin}/vcs-ref/{git_ref}"
        )
    };
    let (origin, main) = ("github.com/octo-org/octo-repo", "refs/heads/main");
    let (evil, other) = ("github.com/evil-org/octo-repo", "b7d2b0f6-51c4-4a6e-8e0d-6f2f0c9b7e21");
    for (name, otherwise) in [
        ("a fork", json!({"oidc.circleci.com/vcs-origin": evil, "sub": sub(project, evil, main)})),
        (
            "another branch",
            json!({"oidc.circleci.com/vcs-ref": "refs/heads/feature", "sub": sub(project, origin, "refs/heads/feature")}),
        ),
        (
            "a pull request",
            json!({"oidc.circleci.com/vcs-ref": "refs/pull/7/head", "sub": sub(project, origin, "refs/pull/7/head")}),
        ),
        (
            "another project of the organisation",
            json!({"oidc.circleci.com/project-id": other, "sub": sub(other, origin, main)}),
        ),
        ("another pipeline", json!({"oidc.circleci.com/pipeline-definition-id": other})),
        ("somebody at a shell", json!({"oidc.circleci.com/ssh-rerun": true})),
    ] {
        stage.judge(name, &otherwise, false);
    }
}

/// A worker gets in with a secret for its own join token, and then with its key.
#[test]
fn of_workers() {
    let policy = policy_of(&["token:build-workers"], None);
    let authority = Authority::start(&policy);
    let secret = |authority: &Authority| -> String {
        let args = ["token", "add", "--token", "build-workers", "--format", "json"];
        let made: Value = serde_json::from_slice(&authority.run(args).stdout).unwrap();
        made["secret"].as_str().unwrap().to_owned()
    };
    let worker = |secret: Option<String>| {
        let job = Job::new().told(&authority, "build-workers");
        let job =
            secret.into_iter().fold(job, |job, secret| job.env("MACHINE_ID_REGISTRATION_SECRET", secret));
        let storage = job.text_path("storage");
        (job.once(["--join-method", "token", "--storage", &storage, "--output", "ssh"]), job)
    };
    let (outcome, job) = worker(Some(secret(&authority)));
    outcome.good();
    let storage = job.text_path("storage");
    job.once(["--join-method", "token", "--storage", &storage, "--output", "ssh"]).good();
    let another = Authority::start(&policy);
    worker(Some(secret(&another))).0.failed(4);
    worker(None).0.failed(3);
}
