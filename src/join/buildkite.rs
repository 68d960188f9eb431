//! Buildkite: its agent mints tokens, of one issuer for all organisations.

use std::time::Duration;

use futures_util::future::FutureExt as _;
use serde_json::Value;

use super::command::{self, Minter};
use super::method::{Configured, Method};
use super::oidc::{Oidc, TokenProfile};
use super::prove::{Job, Presented};
use super::rules::{
    self, COMMIT, Constraint, Field, Grammar, KIND, Match, NAME, ONE_RUN, OWNER, REF, Saying, Shape, UUID,
    WORKFLOW,
};
use crate::document::Mapping;
use crate::error::{Error, Kind, Result};
use crate::wire::Proof;

/// The issuer that every organisation shares.
const ISSUER: &str = "https://agent.buildkite.com";
const AGENT: &str = "buildkite-agent";
/// Claims that a token has only if they are asked for: the ids behind the names.
const IDS: [&str; 2] = ["organization_id", "pipeline_id"];
/// More of them, as the agent itself takes them.
const CLAIMS_VARIABLE: &str = "BUILDKITE_OIDC_TOKEN_CLAIMS";

const PIPELINE: Constraint = Constraint::name(&["pipeline_id"]);

/// Of a build, or one id alone. Whoever creates a build by the API or a trigger chooses branch
/// and commit as text of any kind, and the keys of steps can hold `:`.
static SUBJECT: Grammar = Grammar::Forms(&[
    "organization:{organization}:pipeline:{pipeline}:ref:{ref*}:commit:{commit*}:step:{step*}",
    "{id}",
]);
const OF_BUILD: Shape = Shape::new(
    &["organization:{word}:pipeline:{word}:ref:refs/{any}:commit:{any}", "{word}"],
    "it as the job's token has it, `organization:SLUG:pipeline:SLUG:ref:REF:commit:SHA:step:KEY`, with the full ref",
);
/// Of a fork's, `USER:BRANCH`.
const BRANCH: Shape =
    Shape::new(&["{any}"], "the short name, such as `main`").never(&["refs/heads/*", "refs/tags/*"]);
const TAG: Shape =
    Shape::new(&["{any}"], "the short name, such as `v1`").never(&["refs/heads/*", "refs/tags/*"]);

/// A tag's build has the tag's name for a branch, and whoever may push a tag may call it `main`
/// (<https://github.com/buildkite/agent/issues/1196>).
const OF_TAG: [&str; 2] = ["build_tag", "build_branch"];

static FIELDS: &[Field] = &[
    Field::exact("organization_slug")
        .constrains(&[Constraint::name(&["organization_id", "pipeline_id"]), OWNER])
        .shape(NAME),
    Field::exact("organization_id").constrains(&[OWNER]).shape(UUID),
    Field::glob("pipeline_slug").constrains(&[PIPELINE, WORKFLOW]).shape(NAME),
    Field::exact("pipeline_id").constrains(&[WORKFLOW, OWNER]).shape(UUID),
    Field::glob("build_branch").constrains(&[REF]).shape(BRANCH).unless(OF_TAG, |_| true),
    Field::glob("build_tag").constrains(&[REF]).shape(TAG),
    Field::exact("build_commit").constrains(&[REF]).shape(COMMIT),
    Field::exact("build_source").shape(KIND),
    Field::glob("step_key"),
    Field::exact("job_id").constrains(ONE_RUN).shape(UUID),
    Field::exact("agent_id").shape(UUID),
    Field::exact("runner_environment")
        .shape(Shape::new(&["buildkite-hosted", "self-hosted"], "`buildkite-hosted` or `self-hosted`")),
    Field::exact("cluster_id").shape(UUID),
    Field::glob("cluster_name"),
    Field::exact("queue_id").shape(UUID),
    Field::glob("queue_key"),
    Field::new("agent_tag:*", Match::Property),
    Field::parted("sub", &SUBJECT)
        .constrains(&[
            Constraint::Name { pinned_by: &IDS, pins_itself: |sub| !sub.contains(':') },
            Constraint::Ref(|sub| SUBJECT.says(sub, "ref").is_none()),
            Constraint::Workflow(|sub| SUBJECT.says(sub, "pipeline").is_none()),
            Constraint::Owner(|sub| SUBJECT.says(sub, "organization").is_none()),
        ])
        .shape(OF_BUILD)
        .unless(OF_TAG, |sub| sub.contains(":ref:refs/heads/"))
        .says(of_subject),
];

/// The join method `buildkite`.
pub(super) static METHOD: Method = Method {
    detects: |env| env.is_true("BUILDKITE"),
    renews: |env| command::find(env, AGENT),
    telling: &[
        "organization_slug",
        "organization_id",
        "pipeline_slug",
        "pipeline_id",
        "build_branch",
        "build_tag",
        "build_commit",
        "build_source",
        "step_key",
        "runner_environment",
        "job_id",
    ],
    fields: FIELDS,
    issuers: &[ISSUER],
    can_bind: true,
    job: &["BUILDKITE_JOB_ID"],
    repositories: &["pipeline_slug"],
    repository_ids: &["pipeline_id"],
    runs: &["job_id"],
    ..Method::new("buildkite", "Buildkite: agents of version 3", |job| prove(job).boxed(), configure)
};

/// All organisations have the same issuer.
static PROFILE: TokenProfile = TokenProfile {
    // They live for five minutes unless somebody asks for more.
    max_lifetime: 3600,
    required: &["sub", "organization_slug", "pipeline_slug", "job_id"],
    ownerless: Some((
        "a rule does not say whose pipelines may join",
        "add `organization_slug`, `organization_id`, `pipeline_id` or `sub: organization:SLUG:…`",
    )),
    run: "buildkite:{organization_slug}/{pipeline_slug}\
        [@refs/tags/{build_tag}|@refs/heads/{build_branch}] build {build} job {job_id}",
    fulcio: &[
        (11, "{runner_environment}"),
        (13, "{build_commit}"),
        (20, "{build_source}"),
        (21, "https://buildkite.com/{organization_slug}/{pipeline_slug}/builds/{build}#{job_id}"),
    ],
    // It is a number.
    derived: |claims| vec![("build", claims.get("build_number").map(Value::to_string).unwrap_or_default())],
    ..TokenProfile::RS256
};

fn configure(section: Mapping<'_>) -> Configured {
    Ok(Box::new(Oidc::new(&PROFILE, ISSUER.to_owned()).read(FIELDS, section)?))
}

/// What a subject says, but where it is one id.
fn of_subject(sub: &str) -> Vec<Saying> {
    let fields = [
        ("organization", "organization_slug"),
        ("pipeline", "pipeline_slug"),
        ("ref", "build_branch"),
        ("commit", "build_commit"),
        ("step", "step_key"),
    ];
    let said = rules::of_parts(&SUBJECT, sub, &fields);
    let one = |Saying { field, one_of }| match one_of.as_slice() {
        [of] if field == "build_branch" => {
            let branch = of.strip_prefix("refs/heads/").map(|name| Saying::new(field, &[name]));
            branch.or_else(|| of.strip_prefix("refs/tags/").map(|name| Saying::new("build_tag", &[name])))
        }
        // A step without a key.
        [empty] if empty.is_empty() => None,
        _ => Some(Saying { field, one_of }),
    };
    said.into_iter().filter_map(one).collect()
}

/// Has the agent mint a token with our audience, and with the ids in it.
async fn prove(job: &Job<'_>) -> Result<Presented> {
    if !job.env.is_true("BUILDKITE") {
        return Err(Error::new(Kind::Proof, "this is not a Buildkite job: BUILDKITE is not `true`")
            .hint("choose another --join-method, or run this in a pipeline"));
    }
    let mut options = vec!["--audience".to_owned(), job.audience.to_owned()];
    let more = job.env.get(CLAIMS_VARIABLE).unwrap_or_default();
    let more = more.split(',').map(str::trim).filter(|claim| !claim.is_empty() && !IDS.contains(claim));
    for claim in IDS.into_iter().chain(more) {
        options.extend(["--claim".to_owned(), claim.to_owned()]);
    }
    let minter = Minter {
        words: &[AGENT, "oidc", "request-token"],
        options,
        // The authority is to be asked afterwards.
        share: 1,
        // It asks Buildkite up to five times.
        longest: Duration::from_secs(40),
        secrets: &["BUILDKITE_AGENT_ACCESS_TOKEN", "BUILDKITE_AGENT_TOKEN", "BUILDKITE_AGENT_JOB_API_TOKEN"],
    };
    let minted = minter.mint(job).await.map_err(|error| {
        error
            .context("this Buildkite job has no OIDC token")
            .hint("in a container, mount the agent (the docker plugin's `mount-buildkite-agent: true`) and pass BUILDKITE, BUILDKITE_JOB_ID, BUILDKITE_AGENT_ACCESS_TOKEN and BUILDKITE_AGENT_ENDPOINT on")
            .hint("an agent too old for `--claim` must be updated")
    })?;
    Ok(Proof::id_token(minted).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_says_whose_pipelines() {
        for good in [
            "organization_slug: acme",
            "organization_id: x",
            "pipeline_id: x",
            "sub: 'organization:acme:pipeline:*'",
        ] {
            assert!(METHOD.configured(&format!("allow: [{{{good}}}]")).is_ok(), "{good}");
        }
        for bad in
            ["pipeline_slug: app", "sub: '*'", "sub: 'organization:*'", "sub: 'organization:acme*'", "sub: x"]
        {
            let mistake = METHOD.configured(&format!("allow: [{{{bad}}}]")).unwrap_err();
            assert_eq!(mistake.message, "a rule does not say whose pipelines may join", "{bad}");
        }
    }

    #[test]
    fn mistakes_are_told() {
        for (section, message) in [
            ("{}", "buildkite lacks `allow`"),
            ("allow: [{organization_slug: 'a*'}]", "`organization_slug` takes no wildcards"),
            ("{organization_slug: a, allow: [{pipeline_id: x}]}", "buildkite has no `organization_slug`"),
        ] {
            assert_eq!(METHOD.configured(section).unwrap_err().message, message, "{section}");
        }
    }

    #[test]
    fn provenance_names_the_build() {
        let claims = serde_json::json!({"iss": ISSUER, "organization_slug": "acme", "pipeline_slug": "app",
            "build_branch": "main", "build_number": 7, "job_id": "j"});
        let provenance = PROFILE.provenance("", claims.as_object().unwrap());
        assert_eq!(provenance.line, "buildkite:acme/app@refs/heads/main build 7 job j");
        assert!(provenance.fulcio.contains(&(21, "https://buildkite.com/acme/app/builds/7#j".to_owned())));
    }
}
