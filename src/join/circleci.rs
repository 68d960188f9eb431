//! CircleCI: cloud, with an organisation's own issuer or the one that all
//! share, and CircleCI server.

use std::time::Duration;

use futures_util::future::FutureExt as _;
use serde_json::Value;

use super::command::{self, Minter};
use super::method::{Configured, Method};
use super::oidc::{Oidc, TokenProfile, issuer_url, organization_id};
use super::prove::{Job, Presented};
use super::rules::{
    self, Constraint, FULL_REF, Field, Grammar, Match, ONE_RUN, REF, SSH_RERUN, Shape, URLS, UUID, WORKFLOW,
};
use super::source::token as found_token;
use crate::document::Mapping;
use crate::error::{Error, Kind, Result};
use crate::retry::Backoff;
use crate::secret::Secret;
use crate::wire::Proof;

mod example;

/// The tokens of a job, newest form first.
const VARIABLES: [&str; 2] = ["CIRCLE_OIDC_TOKEN_V2", "CIRCLE_OIDC_TOKEN"];
const COMMAND: &str = "circleci";
/// How often it is asked: what it cannot do now it may do in a moment, and what comes in its place is worth less.
const ATTEMPTS: u32 = 3;
const ORGANIZATION: &str = "oidc.circleci.com/org-id";
const PROJECT: &str = "oidc.circleci.com/project-id";

/// Where the newer form begins, in front of repository and ref, `/` in these is not escaped.
static SUBJECT: Grammar = Grammar::Forms(&[
    "org/{organization}/project/{project}/user/{user}",
    "org/{organization}/project/{project}/user/{user}/vcs-origin/{origin*}/vcs-ref/{ref*}",
]);
/// `HOST/OWNER/NAME`.
static ORIGIN: Grammar = Grammar::Separated('/', 3);
const ON_HOST: Shape =
    Shape::new(&["{host}/{any}"], "`HOST/OWNER/NAME`, the host in small letters").never(URLS);

static FIELDS: &[Field] = &[
    Field::exact("project_id").claim(PROJECT).shape(UUID),
    // Who may use a context is said in the context's own settings.
    Field::new("context_id", Match::Member)
        .claim("oidc.circleci.com/context-ids")
        .constrains(&[WORKFLOW])
        .shape(UUID),
    Field::parted("vcs_origin", &ORIGIN)
        .claim("oidc.circleci.com/vcs-origin")
        .constrains(&[Constraint::name(&["project_id", "pipeline_definition_id"])])
        .shape(ON_HOST),
    Field::glob("vcs_ref").claim("oidc.circleci.com/vcs-ref").constrains(&[REF]).shape(FULL_REF),
    Field::exact("pipeline_definition_id")
        .claim("oidc.circleci.com/pipeline-definition-id")
        .constrains(&[WORKFLOW])
        .shape(UUID),
    Field::exact("pipeline_id").claim("oidc.circleci.com/pipeline-id").constrains(ONE_RUN).shape(UUID),
    Field::exact("workflow_id").claim("oidc.circleci.com/workflow-id").constrains(ONE_RUN).shape(UUID),
    Field::exact("job_id").claim("oidc.circleci.com/job-id").constrains(ONE_RUN).shape(UUID),
    Field::new("ssh_rerun", Match::Boolean).claim(SSH_RERUN.claim).guarded(&[SSH_RERUN]),
    Field::parted("sub", &SUBJECT)
        .constrains(&[Constraint::Ref(|sub| SUBJECT.says(sub, "ref").is_none())])
        .says(|sub| {
            rules::of_parts(
                &SUBJECT,
                sub,
                &[("project", "project_id"), ("origin", "vcs_origin"), ("ref", "vcs_ref")],
            )
        }),
];

/// The join method `circleci`.
pub(super) static METHOD: Method = Method {
    detects: |env| env.is_true("CIRCLECI"),
    renews: |env| {
        command::find(env, COMMAND).map_err(|why| format!("{why}, and CIRCLE_OIDC_TOKEN stays the same"))
    },
    telling: &[
        ORGANIZATION,
        PROJECT,
        "oidc.circleci.com/context-ids",
        "oidc.circleci.com/vcs-origin",
        "oidc.circleci.com/vcs-ref",
        SSH_RERUN.claim,
    ],
    fields: FIELDS,
    issuers: &["https://oidc.circleci.com", "https://oidc.circleci.com/*"],
    can_bind: true,
    job: &["CIRCLE_WORKFLOW_JOB_ID", "CIRCLE_NODE_INDEX"],
    repositories: &["oidc.circleci.com/vcs-origin"],
    repository_ids: &[PROJECT],
    runs: &["oidc.circleci.com/pipeline-id", "oidc.circleci.com/workflow-id", "oidc.circleci.com/job-id"],
    example: Some(&example::EXAMPLE),
    ..Method::new("circleci", "CircleCI: cloud and server", |job| prove(job).boxed(), configure)
};

/// What a pipeline is defined by: its file, and where that comes from.
const DEFINITION: &str = "https://circleci.com/api/v2/projects/{oidc.circleci.com/project-id}/pipeline-definitions/\
    {oidc.circleci.com/pipeline-definition-id}";

const PROFILE: TokenProfile = TokenProfile {
    // They live for one.
    max_lifetime: 2 * 3600,
    required: &["sub", PROJECT, ORGANIZATION],
    // It is guarded, so it must be there.
    check: |claims| match claims.get(SSH_RERUN.claim) {
        Some(Value::Bool(_)) => Ok(()),
        _ => Err(format!("{} is missing or not a boolean", SSH_RERUN.claim)),
    },
    run: "circleci:[{oidc.circleci.com/vcs-origin}|project {oidc.circleci.com/project-id}]\
        [@{oidc.circleci.com/vcs-ref}] workflow {oidc.circleci.com/workflow-id} job {oidc.circleci.com/job-id}",
    fulcio: &[
        (9, DEFINITION),
        (11, "{rerun}"),
        (12, "{oidc.circleci.com/vcs-origin}"),
        (14, "{oidc.circleci.com/vcs-ref}"),
        (18, "https://circleci.com/api/v2/pipeline/{oidc.circleci.com/pipeline-id}/config"),
        // Two slashes: Fulcio's own, which verifiers compare with.
        (
            21,
            "https://app.circleci.com//workflow/{oidc.circleci.com/workflow-id}/job/{oidc.circleci.com/job-id}",
        ),
    ],
    derived: |claims| {
        let by_hand = claims.get(SSH_RERUN.claim) == Some(&Value::Bool(true));
        vec![("rerun", if by_hand { "ssh-rerun" } else { "" }.to_owned())]
    },
    ..TokenProfile::RS256
};

/// Tokens of an issuer that organisations share.
static SHARED: TokenProfile = PROFILE;
/// Tokens of an organisation's own issuer, which says whose they are: older ones have no claim that repeats it.
static OWN: TokenProfile = TokenProfile {
    required: &["sub", PROJECT],
    check: |claims| match claims.get(ORGANIZATION) {
        None | Some(Value::String(_)) => (PROFILE.check)(claims),
        Some(_) => Err(format!("{ORGANIZATION} is not text")),
    },
    ..PROFILE
};

fn configure(mut section: Mapping<'_>) -> Configured {
    let organization =
        organization_id(&mut section, "it stands in the organization's settings, under Overview")?;
    let issuer = match section.take("issuer") {
        // CircleCI server, or the issuer that all organisations share.
        Some(node) => issuer_url(node, "issuer")?,
        None => format!("https://oidc.circleci.com/org/{organization}"),
    };
    let other_audience = section.boolean("accept_default_audience")?.then(|| organization.clone());
    // An issuer may be shared, so the organisation is checked whichever it is; one that names it says it alone.
    let profile = if issuer.ends_with(&format!("/org/{organization}")) { &OWN } else { &SHARED };
    let fixed = Some(("sub", format!("org/{organization}/*")));
    let pinned = Some((ORGANIZATION, organization));
    Ok(Box::new(Oidc { other_audience, pinned, fixed, ..Oidc::new(profile, issuer) }.read(FIELDS, section)?))
}

async fn prove(job: &Job<'_>) -> Result<Presented> {
    let why = match mint(job).await {
        Ok(token) => return Ok(Proof::id_token(token).into()),
        Err(why) => why,
    };
    if let Some((name, token)) = VARIABLES.into_iter().find_map(|name| Some((name, job.env.get(name)?))) {
        (job.warn)(&format!(
            "{why}; taking {name}, whose audience CircleCI chose: the join token must have `accept_default_audience`"
        ));
        let token = found_token(token, Kind::Proof).map_err(|error| error.context(name))?;
        return Ok(Proof::id_token(token).into());
    }
    if !job.env.is_true("CIRCLECI") {
        return Err(Error::new(Kind::Proof, "this is not a CircleCI job: CIRCLECI is not `true`")
            .hint("choose another --join-method, or run this in a pipeline"));
    }
    let cause = format!("this CircleCI job has no OIDC token: {why}, and {} is not set", VARIABLES[0]);
    Err(Error::new(Kind::Proof, cause)
        .hint("older versions of CircleCI server give tokens to jobs with a context alone (`context: NAME` in the workflow)")
        .hint("a build of a forked pull request gets no token unless the project passes secrets to forks")
        .hint("on CircleCI server, OIDC needs version 4.4 or later"))
}

/// Has CircleCI's own command mint a token with our audience. It finds what
/// it needs in the job's environment; the audience is no secret.
async fn mint(job: &Job<'_>) -> Result<Secret, String> {
    if !job.env.is_true("CIRCLECI") {
        return Err("this is not a CircleCI job".to_owned());
    }
    let claims = serde_json::json!({"aud": job.audience}).to_string();
    let mut backoff = Backoff::new(Duration::from_millis(300), Duration::from_millis(1500));
    let mut left = ATTEMPTS;
    loop {
        let minter = Minter {
            words: &[COMMAND, "run", "oidc", "get"],
            options: vec!["--claims".to_owned(), claims.clone()],
            // A command that hangs must leave time for the job's other tokens.
            share: 3,
            longest: Duration::from_secs(15),
            secrets: &VARIABLES,
        };
        let error = match minter.mint(job).await {
            Ok(token) => return Ok(token),
            Err(error) => error,
        };
        let is_late = error.kind() == Kind::Unreachable;
        left -= 1;
        if left == 0 || is_late || command::find(job.env, COMMAND).is_err() {
            return Err(error.to_string());
        }
        (job.say)(&format!("{error}, trying again"));
        tokio::time::sleep(backoff.pause()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORG: &str = "0a1b2c3d-0000-4000-8000-00000000abcd";

    #[test]
    fn mistakes_are_told() {
        for (section, message) in [
            ("allow: [{project_id: x}]".to_owned(), "circleci lacks `organization_id`"),
            (
                "{organization_id: acme, allow: [{project_id: x}]}".to_owned(),
                "`organization_id` is not a UUID in small letters",
            ),
            (
                format!("{{organization_id: {ORG}, issuer: 'http://x', allow: [{{project_id: x}}]}}"),
                "`issuer` is not an https URL",
            ),
            (format!("{{organization_id: {ORG}, allow: [{{project: x}}]}}"), "a rule has no `project`"),
            (format!("{{organization_id: {ORG}}}"), "circleci lacks `allow`"),
        ] {
            assert_eq!(METHOD.configured(&section).unwrap_err().message, message, "{section}");
        }
        assert!(
            METHOD
                .configured(&format!(
                    "{{organization_id: {ORG}, allow: [{{project_id: x, ssh_rerun: true}}]}}"
                ))
                .is_ok()
        );
    }

    #[test]
    fn provenance_names_the_job_as_fulcio_does() {
        let claims = serde_json::json!({"iss": "i", "oidc.circleci.com/vcs-origin": "github.com/o/r",
            "oidc.circleci.com/vcs-ref": "refs/heads/main", "oidc.circleci.com/workflow-id": "w", "oidc.circleci.com/job-id": "j",
            "oidc.circleci.com/project-id": "p", "oidc.circleci.com/pipeline-definition-id": "d",
            "oidc.circleci.com/pipeline-id": "n", "oidc.circleci.com/ssh-rerun": true});
        let provenance = PROFILE.provenance("", claims.as_object().unwrap());
        assert_eq!(provenance.line, "circleci:github.com/o/r@refs/heads/main workflow w job j");
        let definition = "https://circleci.com/api/v2/projects/p/pipeline-definitions/d".to_owned();
        assert_eq!(
            provenance.fulcio,
            [
                (8, "i".to_owned()),
                (9, definition),
                (11, "ssh-rerun".to_owned()),
                (12, "github.com/o/r".to_owned()),
                (14, "refs/heads/main".to_owned()),
                (18, "https://circleci.com/api/v2/pipeline/n/config".to_owned()),
                (21, "https://app.circleci.com//workflow/w/job/j".to_owned()),
            ]
        );
    }
}
