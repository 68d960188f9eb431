//! Platforms that put one token into a variable of the job.

use std::collections::BTreeMap;

use super::{events, joined_by};
use crate::support::once::{Job, World, manifest};

/// A platform, as its jobs see it.
struct Platform {
    method: &'static str,
    marker: (&'static str, &'static str),
    variable: &'static str,
    section: &'static str,
    /// The audience that it chooses, if it does.
    audience: Option<&'static str>,
}

const PLATFORMS: &[Platform] = &[
    Platform {
        method: "gitlab",
        marker: ("GITLAB_CI", "true"),
        variable: "MACHINE_ID_ID_TOKEN",
        section: "allow: [{project_path: octo-group/platform/app, ref_protected: true}]",
        audience: None,
    },
    Platform {
        method: "bitbucket",
        marker: ("BITBUCKET_BUILD_NUMBER", "7"),
        variable: "BITBUCKET_STEP_OIDC_TOKEN",
        section: "identity_provider_url: 'https://api.bitbucket.org/2.0/workspaces/octo/pipelines-config/identity/oidc', \
                  audience: 'ari:cloud:bitbucket::workspace/37f7aa0f', allow: [{repository_uuid: '{1d397906-81bf-459e-9a8d-eae79c0bc5f3}'}]",
        audience: Some("ari:cloud:bitbucket::workspace/37f7aa0f"),
    },
    Platform {
        method: "spacelift",
        marker: ("TF_VAR_spacelift_run_id", "01HXYZRUN0001"),
        variable: "SPACELIFT_OIDC_TOKEN",
        section: "hostname: octo.app.spacelift.io, accept_default_audience: true, allow: [{caller_id: infra-eu}]",
        audience: Some("octo.app.spacelift.io"),
    },
    Platform {
        method: "terraform_cloud",
        marker: ("TFC_RUN_ID", "run-X3n1AUXNGWbfECsJ"),
        variable: "TFC_WORKLOAD_IDENTITY_TOKEN_MACHINE_ID",
        section: "allow: [{organization_name: octo-org, workspace_name: production-eu, run_phase: apply}]",
        audience: None,
    },
];

impl Platform {
    fn world(&self, more: &str) -> World {
        joined_by(self.method, more, self.section)
    }

    fn token(&self, world: &World) -> String {
        let audience = self.audience.map_or_else(|| world.authority.url().to_owned(), str::to_owned);
        world.issuer.token(self.method, &audience).mint()
    }

    fn job(&self, world: &World) -> Job {
        let job = Job::new().told(&world.authority, "here").env(self.marker.0, self.marker.1);
        job.env(self.variable, self.token(world))
    }
}

#[test]
fn the_platform_is_detected_and_its_token_used_once() {
    for platform in PLATFORMS {
        let world = platform.world("");
        let job = platform.job(&world);
        let outcome = job.once(["-v"]).good();
        assert_eq!(manifest(&outcome.destination())["join_method"], platform.method);
        let token = &job.environment()[platform.variable];
        assert!(!outcome.stderr.contains(token.as_str()), "{}", outcome.stderr);
        // Another run has other keys.
        let again = job.once([]).failed(4);
        again.says(&[
            "the token has been used before",
            "hint: this job has one token for all its exchanges",
            "`max_uses`",
        ]);
        assert!(!again.stderr.contains(token.as_str()), "{}", again.stderr);
        let provenance = events(&world, "issued")[0]["provenance"].as_str().unwrap().to_owned();
        assert!(provenance.starts_with(&format!("{}:", platform.method)), "{provenance}");
    }
}

#[test]
fn max_uses_lets_one_token_serve_several_steps() {
    for platform in PLATFORMS {
        let world = platform.world("  max_uses: 2\n");
        let job = platform.job(&world);
        job.once([]).good();
        job.once([]).good();
        job.once([]).failed(4).says(&["the token has been used before"]);
    }
}

#[test]
fn a_command_is_told_that_nothing_will_be_renewed() {
    for platform in PLATFORMS {
        let world = platform.world("");
        let job = platform.job(&world);
        let words =
            format!("cannot renew: the token in {} stays the same for the whole job", platform.variable);
        job.once(["--ttl", "60s", "--", "true"]).good().says(&[&words]);
    }
}

#[test]
fn an_audience_that_the_platform_chose_is_told() {
    let spacelift = &PLATFORMS[2];
    let section = spacelift.section.replace("accept_default_audience: true, ", "");
    let world = joined_by("spacelift", "", &section);
    let outcome = spacelift.job(&world).once([]).failed(4);
    outcome.says(&[
        "minted for another audience",
        "octo.app.spacelift.io",
        "`accept_default_audience: true`",
    ]);
}

#[test]
fn a_token_under_another_name_is_handed_over() {
    let gitlab = &PLATFORMS[0];
    let world = gitlab.world("");
    let job = gitlab.job(&world).without(gitlab.variable).env("DEPLOY_TOKEN", gitlab.token(&world));
    job.once(["--id-token-env", "DEPLOY_TOKEN"]).good();
    // It goes before the one that the platform's variable holds.
    let both = gitlab.job(&world).env(gitlab.variable, "not-a-token").env("OTHER", gitlab.token(&world));
    both.once(["--id-token-env", "OTHER"]).good();
}

/// What COMMAND has of the job's variables.
fn handed_on<const N: usize>(job: &Job, options: [&str; N]) -> BTreeMap<String, String> {
    let arguments = ["once"].into_iter().chain(options).chain(["--", "env"]);
    let said = job.run(arguments).good().stdout;
    let pairs = said.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[test]
fn a_token_for_us_alone_is_not_handed_on() {
    for platform in PLATFORMS {
        let world = platform.world("  max_uses: 3\n");
        let job = platform.job(&world).env("MACHINE_ID_REGISTRATION_SECRET", "mid-reg-x");
        let has = handed_on(&job, []);
        // The platform's own is between the two of them.
        let ours = platform.variable.contains("MACHINE_ID");
        assert_eq!(has.contains_key(platform.variable), !ours, "{}", platform.variable);
        assert!(has.contains_key(platform.marker.0) && !has.contains_key("MACHINE_ID_REGISTRATION_SECRET"));
        // One that was named outright, unless the platform named it.
        let job = job.env("DEPLOY_TOKEN", platform.token(&world));
        let has = handed_on(&job, ["--id-token-env", "DEPLOY_TOKEN"]);
        assert!(!has.contains_key("DEPLOY_TOKEN") && has.contains_key(platform.variable) != ours);
        let has = handed_on(&job, ["--id-token-env", "DEPLOY_TOKEN", "--keep-env", "DEPLOY_TOKEN"]);
        assert!(has.contains_key("DEPLOY_TOKEN"));
    }
    let world = PLATFORMS[1].world("");
    let job = PLATFORMS[1].job(&world);
    let has = handed_on(&job, ["--id-token-env", "BITBUCKET_STEP_OIDC_TOKEN"]);
    assert!(has.contains_key("BITBUCKET_STEP_OIDC_TOKEN"));
}

#[test]
fn a_cleared_environment_has_little_more_than_a_path() {
    let world = World::start();
    let job = world.github().env("LC_TIME", "C").env("KEPT", "x").env("SECRET", "y").env("USER", "me");
    let has = handed_on(&job, ["--clear-env", "--keep-env", "KEPT"]);
    let ours = ["MACHINE_ID_DESTINATION", "MACHINE_ID_EXPIRES_AT", "MACHINE_ID_IDENTITY_FILE"];
    let bare = ["HOME", "KEPT", "LC_ALL", "LC_TIME", "PATH", "TMPDIR", "USER"];
    let mut expected = [&ours[..], &bare[..]].concat();
    expected.sort_unstable();
    assert_eq!(has.keys().collect::<Vec<_>>(), expected);
    // bash would read what the job's other steps have left for one another.
    let job = world.circleci(true);
    std::fs::write(job.path("BASH_ENV"), "export SECRET=y\n").unwrap();
    let said = job.once(["--clear-env", "--", "bash", "-c", "echo -$SECRET-$BASH_ENV-"]).good();
    assert_eq!(said.stdout, "---\n");
    job.once(["--clear-env"]).failed(2).says(&["COMMAND"]);
}

#[test]
fn a_run_without_a_tag_of_ours_has_the_plain_variable() {
    let terraform = &PLATFORMS[3];
    let world = terraform.world("");
    let token = terraform.token(&world);
    let job = terraform.job(&world).without(terraform.variable).env("TFC_WORKLOAD_IDENTITY_TOKEN", token);
    job.once([]).good();
}
