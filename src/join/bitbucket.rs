//! Bitbucket Pipelines: an issuer for each workspace, a token for each step.

use serde_json::{Map, Value};

use super::oidc::{Audience, Common, Describe, Oidc, audience, extensions, issuer_url, require_texts, text};
use super::rules::{self, Condition, Field, ONE_RUN, Says, Want};
use super::source::{self, Source};
use super::{BoxFuture, Job, JoinMethod, Presented, Provenance, Verifier};
use crate::document::{Mapping, Mistake};
use crate::environment::Environment;
use crate::error::Result;
use crate::text::shown;

/// The join method `bitbucket`.
#[derive(Debug)]
pub struct Bitbucket;

/// The variable with a step's token.
const VARIABLE: &str = "BITBUCKET_STEP_OIDC_TOKEN";
/// The variable that marks a step.
const MARKER: &str = "BITBUCKET_BUILD_NUMBER";
/// A token lives no longer than a step can run: twelve hours, in seconds.
const MAX_LIFETIME: i64 = 12 * 3600;

const REF: Says = Says::Ref { open: rules::is_open };

/// Nothing here is a name that somebody else could have: workspaces and repositories are told by ids.
static FIELDS: &[Field] = &[
    Field::exact("workspace_uuid").claim("workspaceUuid"),
    Field::exact("repository_uuid").claim("repositoryUuid"),
    // An environment has rules of its own about branches and who may deploy.
    Field::exact("deployment_environment_uuid")
        .claim("deploymentEnvironmentUuid")
        .says(&[REF, Says::Workflow { open: rules::is_open }]),
    Field::glob("branch_name").claim("branchName").says(&[REF]),
    Field::exact("pipeline_uuid").claim("pipelineUuid").says(ONE_RUN),
    Field::exact("step_uuid").claim("stepUuid").says(ONE_RUN),
    // `{REPOSITORY}:{STEP}`, or `{REPOSITORY}:{ENVIRONMENT}:{STEP}`.
    Field::glob("sub"),
];

impl JoinMethod for Bitbucket {
    fn name(&self) -> &'static str {
        "bitbucket"
    }

    fn summary(&self) -> &'static str {
        "Bitbucket Pipelines"
    }

    fn detects(&self, env: &Environment) -> bool {
        env.get(MARKER).is_some()
    }

    fn source(&self, env: &Environment) -> Option<Source> {
        env.get(VARIABLE).map(|_| Source::variable(VARIABLE))
    }

    fn prove<'a>(&'a self, job: &'a Job<'a>) -> BoxFuture<'a, Result<Presented>> {
        let hints = [format!(
            "give the step one in bitbucket-pipelines.yml:\n    - step:\n        oidc:\n          audiences: ['{}']",
            shown(job.authority())
        )];
        let error = source::gave_none("a Bitbucket step", (self.detects(job.env), MARKER), VARIABLE, hints);
        Box::pin(async move { Err(error) })
    }

    fn telling(&self) -> &'static [&'static str] {
        &[
            "workspaceUuid",
            "repositoryUuid",
            "deploymentEnvironmentUuid",
            "branchName",
            "pipelineUuid",
            "stepUuid",
        ]
    }

    fn fields(&self) -> &'static [Field] {
        FIELDS
    }

    fn configure(&self, mut section: Mapping<'_>) -> Result<Box<dyn Verifier>, Mistake> {
        let issuer = issuer_url(section.need("identity_provider_url")?, "identity_provider_url")?;
        let beside = section.take("audience").map(audience).transpose()?;
        let common = Common::read(section, FIELDS, &[])?;
        for rule in &common.rules {
            if let Some(bare) = rule.conditions.iter().find(|condition| is_bare(condition)) {
                let message = format!("`{}` is not in braces", bare.field);
                return Err(
                    Mistake::new(rule.place, message).hint("Bitbucket writes them so: '{1d397906-…}'")
                );
            }
        }
        rules::anchor(
            &common.rules,
            |condition| matches!(condition.field.as_str(), "workspace_uuid" | "repository_uuid"),
            "a rule does not say whose repositories may join",
            "add `repository_uuid` or `workspace_uuid`",
        )?;
        let provenance = Describe { server: String::new(), describe };
        // A step may name several; the claim is then a list, of which one is taken alone.
        let audience = Audience { beside, in_list: true, ..Audience::default() };
        Ok(Box::new(Oidc { audience, ..common.rs256(issuer, MAX_LIFETIME, check, provenance) }))
    }
}

/// Without its braces, a UUID would match nothing.
fn is_bare(condition: &Condition) -> bool {
    matches!(&condition.want, Want::Exact(uuid) if condition.field.ends_with("_uuid") && !uuid.starts_with('{'))
}

fn check(claims: &Map<String, Value>) -> Result<(), String> {
    require_texts(claims, &["sub", "workspaceUuid", "repositoryUuid", "pipelineUuid", "stepUuid"])
}

fn describe(_: &str, claims: &Map<String, Value>) -> Provenance {
    let of = |name: &str| text(claims, name).to_owned();
    let branch = of("branchName");
    let at = if branch.is_empty() { String::new() } else { format!("@refs/heads/{branch}") };
    Provenance {
        line: shown(&format!(
            "bitbucket:{}{at} pipeline {} step {}",
            of("repositoryUuid"),
            of("pipelineUuid"),
            of("stepUuid")
        )),
        fulcio: extensions([
            (8, of("iss")),
            (14, at.trim_start_matches('@').to_owned()),
            (15, of("repositoryUuid")),
            (17, of("workspaceUuid")),
        ]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document;

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
            let nodes = document::parse(&section).unwrap();
            let mistake = Bitbucket.configure(nodes[0].mapping_or_empty("bitbucket").unwrap()).unwrap_err();
            assert_eq!(mistake.message, message, "{section}");
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
