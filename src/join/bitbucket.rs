//! Bitbucket Pipelines: an issuer for each workspace, a token for each step.

use serde_json::{Map, Value};

use super::handed_over::HandedOver;
use super::jwt::text;
use super::method::{Configured, Method};
use super::oidc::{Common, Oidc, TokenProfile, audience, issuer_url};
use super::rules::{self, Condition, Field, ONE_RUN, REF, WORKFLOW, Want};
use super::source::TokenSource;
use super::verify::Provenance;
use crate::document::{Mapping, Mistake};
use crate::text::shown;

/// The variable with a step's token.
const VARIABLE: &str = "BITBUCKET_STEP_OIDC_TOKEN";
/// The variable that marks a step.
const MARKER: &str = "BITBUCKET_BUILD_NUMBER";
/// A token lives no longer than a step can run: twelve hours, in seconds.
const MAX_LIFETIME: i64 = 12 * 3600;

/// Nothing here is a name that somebody else could have: workspaces and repositories are told by ids.
static FIELDS: &[Field] = &[
    Field::exact("workspace_uuid").claim("workspaceUuid"),
    Field::exact("repository_uuid").claim("repositoryUuid"),
    // An environment has rules of its own about branches and who may deploy.
    Field::exact("deployment_environment_uuid")
        .claim("deploymentEnvironmentUuid")
        .constrains(&[REF, WORKFLOW]),
    Field::glob("branch_name").claim("branchName").constrains(&[REF]),
    Field::exact("pipeline_uuid").claim("pipelineUuid").constrains(ONE_RUN),
    Field::exact("step_uuid").claim("stepUuid").constrains(ONE_RUN),
    // `{REPOSITORY}:{STEP}`, or `{REPOSITORY}:{ENVIRONMENT}:{STEP}`.
    Field::glob("sub"),
];

/// The join method `bitbucket`.
pub(super) static METHOD: Method = Method {
    detects: |env| env.get(MARKER).is_some(),
    source: |env| TokenSource::in_variable(env, &[VARIABLE]),
    telling: &[
        "workspaceUuid",
        "repositoryUuid",
        "deploymentEnvironmentUuid",
        "branchName",
        "pipelineUuid",
        "stepUuid",
    ],
    fields: FIELDS,
    ..Method::new("bitbucket", "Bitbucket Pipelines", |job| HANDED_OVER.none(job), configure)
};

static HANDED_OVER: HandedOver = HandedOver {
    job: "a Bitbucket step",
    marker: MARKER,
    is_one: METHOD.detects,
    variable: VARIABLE,
    hints: |job| {
        vec![format!(
            "give the step one in bitbucket-pipelines.yml:\n    - step:\n        oidc:\n          audiences: ['{}']",
            shown(job.authority)
        )]
    },
};

/// A step may name several audiences; the claim is then a list, of which one is taken alone.
static PROFILE: TokenProfile = TokenProfile {
    audience_in_list: true,
    ..TokenProfile::rs256(
        MAX_LIFETIME,
        &["sub", "workspaceUuid", "repositoryUuid", "pipelineUuid", "stepUuid"],
        describe,
    )
};

fn configure(mut section: Mapping<'_>) -> Configured {
    let issuer = issuer_url(section.need("identity_provider_url")?, "identity_provider_url")?;
    let other_audience = audience(&mut section)?;
    let common = Common::read(section, FIELDS, &[])?;
    for rule in &common.rules {
        if let Some(bare) = rule.conditions.iter().find(|condition| is_bare(condition)) {
            let message = format!("`{}` is not in braces", bare.field);
            return Err(Mistake::new(rule.place, message)
                .hint("Bitbucket writes them so: '{1d397906-…}'")
                .into());
        }
    }
    rules::anchor(
        &common.rules,
        |condition| matches!(condition.field.as_str(), "workspace_uuid" | "repository_uuid"),
        "a rule does not say whose repositories may join",
        "add `repository_uuid` or `workspace_uuid`",
    )?;
    Ok(Box::new(Oidc { other_audience, ..Oidc::new(&PROFILE, issuer, common) }))
}

/// Without its braces, a UUID would match nothing.
fn is_bare(condition: &Condition) -> bool {
    matches!(&condition.want, Want::Exact(uuid) if condition.field.ends_with("_uuid") && !uuid.starts_with('{'))
}

fn describe(_: &str, claims: &Map<String, Value>) -> Provenance {
    let of = |name: &str| text(claims, name).to_owned();
    let branch = of("branchName");
    let at = if branch.is_empty() { String::new() } else { format!("@refs/heads/{branch}") };
    let (repository, pipeline, step) = (of("repositoryUuid"), of("pipelineUuid"), of("stepUuid"));
    Provenance::new(
        &format!("bitbucket:{repository}{at} pipeline {pipeline} step {step}"),
        [
            (8, of("iss")),
            (14, at.trim_start_matches('@').to_owned()),
            (15, repository.clone()),
            (17, of("workspaceUuid")),
        ],
    )
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
        let provenance = describe("", claims.as_object().unwrap());
        assert_eq!(provenance.line, "bitbucket:{r}@refs/heads/main pipeline {p} step {s}");
        assert!(provenance.fulcio.contains(&(14, "refs/heads/main".to_owned())));
    }
}
