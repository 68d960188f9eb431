//! HCP Terraform (Terraform Cloud) and Terraform Enterprise: one token for each phase of a run.

use serde_json::{Map, Value};

use super::handed_over::HandedOver;
use super::jwt::text;
use super::method::{Configured, Method};
use super::oidc::{Common, Oidc, TokenProfile, audience, host};
use super::rules::{self, Condition, Constraint, Field, Guard, WORKFLOW, Want};
use super::source::TokenSource;
use super::verify::Provenance;
use crate::document::Mapping;
use crate::text::shown;

/// The host of HCP Terraform.
const HOST: &str = "app.terraform.io";
/// The variables with a run's tokens: one with a tag of ours first, which is for nobody else.
const VARIABLES: [&str; 2] = ["TFC_WORKLOAD_IDENTITY_TOKEN_MACHINE_ID", "TFC_WORKLOAD_IDENTITY_TOKEN"];
/// The variable that marks a run.
const MARKER: &str = "TFC_RUN_ID";
/// A token lives as long as its phase may take, which is a day for an apply; an hour more, in seconds.
const MAX_LIFETIME: i64 = 25 * 3600;

const ORGANIZATION_ID: &str = "terraform_organization_id";
const ORGANIZATION_NAME: &str = "terraform_organization_name";
const RUN_PHASE: &str = "terraform_run_phase";

const PROJECT: &[&str] = &["project_id", "workspace_id"];
const WORKSPACE: &[&str] = &["workspace_id"];

static FIELDS: &[Field] = &[
    Field::exact("organization_id").claim(ORGANIZATION_ID),
    Field::exact("organization_name").claim(ORGANIZATION_NAME).constrains(&[Constraint::name(&[
        "organization_id",
        "project_id",
        "workspace_id",
    ])]),
    Field::exact("project_id").claim("terraform_project_id"),
    Field::glob("project_name").claim("terraform_project_name").constrains(&[Constraint::name(PROJECT)]),
    Field::exact("workspace_id").claim("terraform_workspace_id").constrains(&[WORKFLOW]),
    Field::glob("workspace_name")
        .claim("terraform_workspace_name")
        .constrains(&[Constraint::name(WORKSPACE), WORKFLOW]),
    Field::exact("run_phase").claim(RUN_PHASE),
    Field::exact("run_id").claim("terraform_run_id").constrains(&[WORKFLOW]),
    // `organization:ORG:project:PROJECT:workspace:WORKSPACE:run_phase:PHASE`.
    Field::glob("sub").constrains(&[
        Constraint::name(WORKSPACE),
        Constraint::Workflow(|sub| {
            sub.split_once(":workspace:").is_none_or(|(_, of)| rules::literal_prefix(of).is_empty())
        }),
    ]),
];

/// Anybody who opens a pull request has its code planned.
static GUARDS: &[Guard] = &[Guard {
    field: "run_phase",
    claim: RUN_PHASE,
    values: &["plan"],
    risk: "the run may be a speculative plan, of a pull request that nobody has merged",
}];

/// The join method `terraform_cloud`.
pub(super) static METHOD: Method = Method {
    detects: |env| env.get(MARKER).is_some() || VARIABLES.iter().any(|name| env.get(name).is_some()),
    source: |env| TokenSource::in_variable(env, &VARIABLES),
    telling: &[
        ORGANIZATION_ID,
        ORGANIZATION_NAME,
        "terraform_project_id",
        "terraform_project_name",
        "terraform_workspace_id",
        "terraform_workspace_name",
        RUN_PHASE,
        "terraform_run_id",
    ],
    fields: FIELDS,
    guards: GUARDS,
    ..Method::new(
        "terraform_cloud",
        "HCP Terraform and Terraform Enterprise",
        |job| HANDED_OVER.none(job),
        configure,
    )
};

static HANDED_OVER: HandedOver = HandedOver {
    job: "an HCP Terraform run",
    marker: MARKER,
    is_one: |env| env.get(MARKER).is_some(),
    variable: VARIABLES[0],
    hints: |job| {
        vec![
            format!(
                "set the workspace's environment variable TFC_WORKLOAD_IDENTITY_AUDIENCE_MACHINE_ID to {}",
                shown(job.authority)
            ),
            "agents of your own must be of version 1.12 or later".to_owned(),
        ]
    },
};

/// The phase is guarded, so it must be there.
static PROFILE: TokenProfile = TokenProfile::rs256(
    MAX_LIFETIME,
    &["sub", ORGANIZATION_ID, ORGANIZATION_NAME, RUN_PHASE, "terraform_run_id"],
    describe,
);

fn configure(mut section: Mapping<'_>) -> Configured {
    let host = section.take("hostname").map_or(Ok(HOST), |node| host(node, "hostname"))?;
    let issuer = format!("https://{host}");
    let other_audience = audience(&mut section)?;
    let common = Common::read(section, FIELDS, GUARDS)?;
    rules::anchor(
        &common.rules,
        |condition| {
            matches!(condition.field.as_str(), "organization_id" | "organization_name")
                || names_place(condition)
        },
        "a rule does not say whose runs may join",
        "add `organization_id` or `organization_name`, or `sub: organization:ORG:project:PROJECT:…`",
    )?;
    rules::anchor(
        &common.rules,
        |condition| {
            let named = ["project_id", "project_name", "workspace_id", "workspace_name"];
            named.contains(&condition.field.as_str()) && !rules::is_open(&condition.want.shown())
                || names_place(condition)
        },
        "a rule does not say which project or workspace may join",
        "add `workspace_id`, `workspace_name`, `project_id` or `project_name`",
    )?;
    Ok(Box::new(Oidc { other_audience, ..Oidc::new(&PROFILE, issuer, common) }))
}

/// Whether it is a subject that begins with a whole organisation and project.
fn names_place(condition: &Condition) -> bool {
    let (field, Want::Glob(pattern)) = (condition.field.as_str(), &condition.want) else { return false };
    let parts: Vec<&str> = rules::literal_prefix(pattern).split(':').collect();
    let named = |part: &str| !part.is_empty();
    // What follows the last `:` may go on.
    matches!(parts.as_slice(), ["organization", org, "project", project, _, ..] if named(org) && named(project))
        && field == "sub"
}

fn describe(server: &str, claims: &Map<String, Value>) -> Provenance {
    let of = |name: &str| text(claims, &format!("terraform_{name}")).to_owned();
    let (organization, workspace, run) = (of("organization_name"), of("workspace_name"), of("run_id"));
    Provenance::new(
        &format!("terraform_cloud:{organization}/{workspace} run {run} {}", of("run_phase")),
        [
            (8, text(claims, "iss").to_owned()),
            (21, format!("{server}/app/{organization}/workspaces/{workspace}/runs/{run}")),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::Environment;

    #[test]
    fn a_rule_says_whose_runs_and_which() {
        for good in [
            "organization_id: org-x, workspace_id: ws-x",
            "organization_name: o, project_name: 'p*'",
            "sub: 'organization:o:project:p:*'",
            "sub: 'organization:o:project:Default Project:workspace:w:run_phase:apply'",
            "sub: 'organization:o:*', organization_name: o, project_id: p",
        ] {
            assert!(METHOD.configured(&format!("allow: [{{{good}}}]")).is_ok(), "{good}");
        }
        for (bad, message) in [
            ("workspace_id: ws-x", "a rule does not say whose runs may join"),
            ("sub: '*'", "a rule does not say whose runs may join"),
            ("sub: 'organization:o*:project:p:*'", "a rule does not say whose runs may join"),
            ("sub: 'organization:o:project:p*'", "a rule does not say whose runs may join"),
            ("organization_id: o", "a rule does not say which project or workspace may join"),
            (
                "organization_id: o, workspace_name: '*'",
                "a rule does not say which project or workspace may join",
            ),
            ("organization_id: 'o*', workspace_id: w", "`organization_id` takes no wildcards"),
        ] {
            assert_eq!(
                METHOD.configured(&format!("allow: [{{{bad}}}]")).unwrap_err().message,
                message,
                "{bad}"
            );
        }
    }

    #[test]
    fn a_tagged_token_goes_first() {
        let source = |pairs: &[(&'static str, &'static str)]| {
            (METHOD.source)(&Environment::from_pairs(pairs.iter().copied()))
        };
        let both = [(VARIABLES[0], "a"), (VARIABLES[1], "b")];
        assert_eq!(source(&both), Some(TokenSource::variable(VARIABLES[0])));
        assert_eq!(source(&both[1..]), Some(TokenSource::variable(VARIABLES[1])));
        assert_eq!(source(&[]), None);
    }

    #[test]
    fn provenance_names_the_run() {
        let claims = serde_json::json!({"iss": "i", "terraform_organization_name": "o", "terraform_workspace_name": "w",
            "terraform_run_id": "run-1", "terraform_run_phase": "apply"});
        let provenance = describe("https://app.terraform.io", claims.as_object().unwrap());
        assert_eq!(provenance.line, "terraform_cloud:o/w run run-1 apply");
        assert_eq!(provenance.fulcio.len(), 2);
    }
}
