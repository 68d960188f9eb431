//! From a refused job to its cause: the denial id, `explain`, `audit`.

use std::process::Output;

use serde_json::Value;

use crate::support::authority::Authority;
use crate::support::client::Keys;
use crate::support::issuer::Issuer;
use crate::support::{policies, process, wait_for};

struct Refused {
    authority: Authority,
    policy: String,
    id: String,
}

/// A job of `octo-org/octo-repo` that a rule of another repository refuses.
fn refused() -> Refused {
    let issuer = Issuer::start();
    let policy = policies::basic(&issuer)
        .replace("- repository: octo-org/octo-repo", "- repository: octo-org/another");
    let authority = Authority::trusting(&issuer, &policy);
    let keys = Keys::fresh();
    let token = issuer.token("github", &keys.audience(&authority.url())).mint();
    let id = authority.client().exchange(&keys.request("github-deploy", "github", &token)).denial(403);
    Refused { authority, policy, id }
}

impl Refused {
    #[track_caller]
    fn explain(&self) -> String {
        process::succeed(&mut self.authority.command(["explain", &self.id]))
    }

    fn write(&self, policy: &str) {
        std::fs::write(self.authority.data_dir().join("policy/test.yaml"), policy).unwrap();
    }

    #[track_caller]
    fn audit(&self, args: [&str; 5]) -> Vec<Value> {
        let lines = process::succeed(&mut self.authority.command(args));
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

#[test]
fn explain_tells_the_rule_and_what_the_policy_would_say_now() {
    let refused = refused();
    let page = refused.explain();
    assert!(page.starts_with(&format!("{} at ", refused.id)), "{page}");
    for said in [
        "reason: no_rule_matches (the job was told: no rule of this authority lets this job in)\n",
        "join token: github-deploy, join method: github, from 127.0.0.1\n",
        "  `repository`: got `octo-org/octo-repo`, wanted `octo-org/another`\n",
        "with the policy as it is now, such a job with a good proof is denied: no_rule_matches: no rule of join token",
        "claims, verified:\n",
        "  repository: octo-org/octo-repo\n",
    ] {
        assert!(page.contains(said), "no {said:?} in {page}");
    }
    let today = |policy: &str, said: &str| {
        refused.write(policy);
        let page = refused.explain();
        assert!(page.contains(&format!("with the policy as it is now, {said}")), "no {said:?} in {page}");
    };
    today(
        &refused.policy.replace("octo-org/another", "octo-org/octo-repo"),
        "such a job with a good proof is allowed: the job would be bot `deployer`\n",
    );
    today(
        &refused.policy.replace("github-deploy", "other"),
        "such a job is denied: token_unknown: there is no join token of that name\n",
    );
    today("kind: x\n", "nothing can be said: it does not load: ");
}

/// Two names that look alike, in `explain`, in `audit` and to the job; and which form a subject has.
#[test]
fn what_looks_alike_is_told_apart_and_the_form_of_a_subject_is_said() {
    let issuer = Issuer::start();
    let policy = policies::basic(&issuer).replace(
        "- repository: octo-org/octo-repo",
        "- environment: production\n        sub: repo:octo-org/octo-repo:ref:refs/heads/main",
    );
    let authority = Authority::trusting(&issuer, &policy);
    let keys = Keys::fresh();
    let token = issuer.token("github", &keys.audience(&authority.url()));
    let token = token.claim("environment", "pr\u{43e}duction").mint();
    let id = authority.client().exchange(&keys.request("github-deploy", "github", &token)).denial(403);
    let page = process::succeed(&mut authority.command(["explain", &id]));
    let audit = process::succeed(&mut authority.command(["audit", "--id", &id]));
    let apart = "`environment`: got `pr\\u{43e}duction`, wanted `production`";
    assert!(page.contains(apart) && page.contains("  environment: pr\\u{43e}duction\n"), "{page}");
    assert!(audit.contains(apart), "{audit}");
    let form = "this job's `sub` has GitHub's form for a job with an environment, which says no ref, `repo:…:environment:…`, with ids";
    assert!(page.contains(form) && audit.contains(form), "{page}{audit}");
    // A join token that nobody has, however it looks.
    let id = authority.client().exchange(&keys.request("github-d\u{435}ploy", "github", &token)).denial(403);
    let page = process::succeed(&mut authority.command(["explain", &id]));
    assert!(page.contains("join token: github-d\\u{435}ploy, join method: github"), "{page}");
}

#[test]
fn explain_of_what_is_not() {
    let refused = refused();
    let Output { status, stderr, .. } =
        refused.authority.run(["explain", "d-00000000000000000000000000000000"]);
    let stderr = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(2));
    assert!(stderr.starts_with("error: there is no refusal `d-0"), "{stderr}");
    assert!(stderr.contains("hint: a refused job prints its denial id"), "{stderr}");
}

#[test]
fn audit_filters() {
    let refused = refused();
    for (args, found) in [
        (["audit", "--format", "json", "--id", &refused.id], 1),
        (["audit", "--format", "json", "--id", "d-0"], 0),
        (["audit", "--format", "json", "--event", "refused"], 1),
        (["audit", "--format", "json", "--event", "issued"], 0),
        (["audit", "--format", "json", "--bot", "deployer"], 1),
        (["audit", "--format", "json", "--bot", "another"], 0),
        (["audit", "--format", "json", "--token", "github-deploy"], 1),
        (["audit", "--format", "json", "--token", "circleci-deploy"], 0),
        (["audit", "--format", "json", "--since", "1h"], 2),
        (["audit", "--format", "json", "--since", "2999-01-01"], 0),
    ] {
        let events = refused.audit(args);
        assert_eq!(events.len(), found, "{args:?}");
        // Its own certificate was signed too.
        for event in events.into_iter().filter(|event| event["event"] != "signed") {
            assert_eq!(
                (&event["event"], &event["denial_id"]),
                (&"refused".into(), &refused.id.as_str().into())
            );
            assert_eq!(event["reason"], "no_rule_matches");
        }
    }
}

#[test]
fn serve_says_how_much_the_lints_find() {
    let issuer = Issuer::start();
    let policy = policies::basic(&issuer);
    let authority = Authority::trusting(&issuer, &policy);
    let start = authority.stderr();
    let count = |said: &str| said.lines().filter(|line| line.starts_with("policy: ")).count();
    assert!(start.starts_with("policy: 1 bot, 1 role, 2 join tokens from 1 file\n"), "{start}");
    assert_eq!(count(&start), 2, "{start}");
    assert!(start.contains(" warnings, which `machine-id authority check` tells\nlistening on "), "{start}");
    std::fs::write(authority.data_dir().join("policy/test.yaml"), format!("{policy}# changed\n")).unwrap();
    wait_for("the policy to be read anew", || (count(&authority.stderr()) == 4).then_some(()));
}
