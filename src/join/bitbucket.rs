//! Bitbucket Pipelines: an issuer for each workspace, a token for each step.

use super::handed_over::HandedOver;
use super::method::{Configured, Method};
use super::oidc::{Oidc, TokenProfile, issuer_url};
use super::rules::{
    self, Condition, Field, Grammar, ONE_RUN, OWNER, REF, SHORT_REF, Saying, Shape, WORKFLOW,
};
use crate::document::Mapping;

/// `{REPOSITORY}:{STEP}`, or `{REPOSITORY}:{ENVIRONMENT}:{STEP}`.
static SUBJECT: Grammar = Grammar::Separated(':', 2);
const OF_STEP: Shape = Shape::new(
    &["{braced}:{any}"],
    "it as the step's token has it: `{REPOSITORY}:{STEP}` or `{REPOSITORY}:{ENVIRONMENT}:{STEP}`",
);
const BRACED: Shape =
    Shape::new(&["{braced}"], "the UUID as Bitbucket does, in braces and small letters: `'{1d397906-…}'`");

/// Nothing here is a name that somebody else could have: workspaces and repositories are told by ids.
static FIELDS: &[Field] = &[
    Field::exact("workspace_uuid").claim("workspaceUuid").constrains(&[OWNER]).shape(BRACED),
    Field::exact("repository_uuid").claim("repositoryUuid").constrains(&[OWNER]).shape(BRACED),
    // An environment has rules of its own about branches and who may deploy.
    Field::exact("deployment_environment_uuid")
        .claim("deploymentEnvironmentUuid")
        .constrains(&[REF, WORKFLOW])
        .shape(BRACED),
    Field::glob("branch_name").claim("branchName").constrains(&[REF]).shape(SHORT_REF),
    Field::exact("pipeline_uuid").claim("pipelineUuid").constrains(ONE_RUN).shape(BRACED),
    Field::exact("step_uuid").claim("stepUuid").constrains(ONE_RUN).shape(BRACED),
    Field::parted("sub", &SUBJECT).shape(OF_STEP).says(of_subject),
];

/// The join method `bitbucket`.
pub(super) static METHOD: Method = Method {
    detects: |env| env.get(HANDED_OVER.marker).is_some(),
    source: |env| HANDED_OVER.source(env),
    telling: &[
        "workspaceUuid",
        "repositoryUuid",
        "deploymentEnvironmentUuid",
        "branchName",
        "pipelineUuid",
        "stepUuid",
    ],
    fields: FIELDS,
    issuers: &["https://api.bitbucket.org/*"],
    job: &["BITBUCKET_STEP_UUID", "BITBUCKET_BUILD_NUMBER", "BITBUCKET_REPO_UUID"],
    repository_ids: &["repositoryUuid"],
    runs: &["pipelineUuid", "stepUuid"],
    ..Method::new("bitbucket", "Bitbucket Pipelines", |job| HANDED_OVER.none(job), configure)
};

static HANDED_OVER: HandedOver = HandedOver {
    job: "a Bitbucket step",
    marker: "BITBUCKET_BUILD_NUMBER",
    variables: &["BITBUCKET_STEP_OIDC_TOKEN"],
    hints: &[
        "give the step one in bitbucket-pipelines.yml:\n    - step:\n        oidc:\n          audiences: ['{authority}']",
    ],
};

static PROFILE: TokenProfile = TokenProfile {
    // A token lives no longer than a step can run.
    max_lifetime: 12 * 3600,
    // A step may name several audiences; the claim is then a list, of which one is taken alone.
    required: &["sub", "workspaceUuid", "repositoryUuid", "pipelineUuid", "stepUuid"],
    ownerless: Some((
        "a rule does not say whose repositories may join",
        "add `repository_uuid` or `workspace_uuid`",
    )),
    run: "bitbucket:{repositoryUuid}[@refs/heads/{branchName}] pipeline {pipelineUuid} step {stepUuid}",
    fulcio: &[(14, "refs/heads/{branchName}"), (15, "{repositoryUuid}"), (17, "{workspaceUuid}")],
    ..TokenProfile::RS256
};

fn configure(mut section: Mapping<'_>) -> Configured {
    let issuer = issuer_url(section.need("identity_provider_url")?, "identity_provider_url")?;
    let other_audience = section.text("audience")?.map(str::to_owned);
    let oidc = Oidc { other_audience, ..Oidc::new(&PROFILE, issuer) }.read(FIELDS, section)?;
    Ok(Box::new(oidc.refuse(is_bare, "is not in braces", "Bitbucket writes them so: '{1d397906-…}'")?))
}

/// What a subject says: `{REPOSITORY}:{STEP}`, or `{REPOSITORY}:{ENVIRONMENT}:{STEP}`.
fn of_subject(sub: &str) -> Vec<Saying> {
    let environment = |ids: &[&str]| Saying::new("deployment_environment_uuid", ids);
    let ids = |repository: &str, step: &str| {
        [Saying::new("repository_uuid", &[repository]), Saying::new("step_uuid", &[step])]
    };
    match *sub.split(':').collect::<Vec<_>>().as_slice() {
        // A wildcard may stand for an environment.
        [repository, step] if !rules::is_pattern(sub) => {
            ids(repository, step).into_iter().chain([environment(&[])]).collect()
        }
        [repository, of, step] => ids(repository, step).into_iter().chain([environment(&[of])]).collect(),
        [repository, ..] if !rules::is_pattern(repository) => {
            vec![Saying::new("repository_uuid", &[repository])]
        }
        _ => Vec::new(),
    }
}

/// Without its braces, a UUID would match nothing.
fn is_bare(condition: &Condition) -> bool {
    condition.field.ends_with("_uuid") && !condition.want.shown().starts_with('{')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_told() {
        let url = "identity_provider_url: 'https://api.bitbucket.org/2.0/workspaces/acme/pipelines-config/identity/oidc'";
        for (section, message) in [
            ("{}".to_owned(), "bitbucket lacks `identity_provider_url`"),
            (
                "{identity_provider_url: acme, allow: []}".to_owned(),
                "`identity_provider_url` is not an https URL",
            ),
            (format!("{{{url}}}"), "bitbucket lacks `allow`"),
            (format!("{{{url}, audience: '', allow: []}}"), "`audience` is empty"),
            (
                format!("{{{url}, allow: [{{branch_name: main}}]}}"),
                "a rule does not say whose repositories may join",
            ),
            (
                format!("{{{url}, allow: [{{sub: '{{x}}:*'}}]}}"),
                "a rule does not say whose repositories may join",
            ),
            (format!("{{{url}, allow: [{{repository_uuid: x}}]}}"), "`repository_uuid` is not in braces"),
            (
                format!("{{{url}, allow: [{{repository_uuid: '{{*}}'}}]}}"),
                "`repository_uuid` takes no wildcards",
            ),
        ] {
            assert_eq!(METHOD.configured(&section).unwrap_err().message, message, "{section}");
        }
    }

    #[test]
    fn provenance_names_the_step() {
        let claims = serde_json::json!({"iss": "i", "repositoryUuid": "{r}", "branchName": "main",
            "pipelineUuid": "{p}", "stepUuid": "{s}"});
        let provenance = PROFILE.provenance("", claims.as_object().unwrap());
        assert_eq!(provenance.line, "bitbucket:{r}@refs/heads/main pipeline {p} step {s}");
        assert!(provenance.fulcio.contains(&(14, "refs/heads/main".to_owned())));
    }
}
