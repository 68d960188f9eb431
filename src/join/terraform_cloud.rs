//! HCP Terraform (Terraform Cloud) and Terraform Enterprise: one token for each phase of a run.

use super::handed_over::HandedOver;
use super::method::{Configured, Method};
use super::oidc::{Oidc, TokenProfile, host};
use super::rules::{self, Condition, Constraint, Field, Grammar, NAME, OWNER, RUN_PHASE, Shape, WORKFLOW};
use crate::document::Mapping;

/// The host of HCP Terraform.
const HOST: &str = "app.terraform.io";

const ORGANIZATION_ID: &str = "terraform_organization_id";
const ORGANIZATION_NAME: &str = "terraform_organization_name";
const PHASE: &str = "terraform_run_phase";

const PROJECT: Constraint = Constraint::name(&["project_id", "workspace_id"]);
const WORKSPACE: Constraint = Constraint::name(&["workspace_id"]);

static SUBJECT: Grammar = Grammar::Forms(&[
    "organization:{organization}:project:{project}:workspace:{workspace}:run_phase:{phase}",
]);

static FIELDS: &[Field] = &[
    Field::exact("organization_id")
        .claim(ORGANIZATION_ID)
        .constrains(&[OWNER])
        .shape(Shape::new(&["org-{word}"], "the id, `org-…`")),
    Field::exact("organization_name")
        .claim(ORGANIZATION_NAME)
        .constrains(&[Constraint::name(&["organization_id", "project_id", "workspace_id"]), OWNER])
        .shape(NAME),
    Field::exact("project_id")
        .claim("terraform_project_id")
        .shape(Shape::new(&["prj-{word}"], "the id, `prj-…`")),
    Field::glob("project_name").claim("terraform_project_name").constrains(&[PROJECT]),
    Field::exact("workspace_id")
        .claim("terraform_workspace_id")
        .constrains(&[WORKFLOW])
        .shape(Shape::new(&["ws-{word}"], "the id, `ws-…`")),
    Field::glob("workspace_name")
        .claim("terraform_workspace_name")
        .constrains(&[WORKSPACE, WORKFLOW])
        .shape(NAME),
    Field::exact("run_phase")
        .claim(PHASE)
        .guarded(&[RUN_PHASE])
        .shape(Shape::new(&["{small}"], "the phase in small letters, `plan` or `apply`")),
    Field::exact("run_id")
        .claim("terraform_run_id")
        .constrains(&[WORKFLOW])
        .shape(Shape::new(&["run-{word}"], "the id, `run-…`")),
    Field::parted("sub", &SUBJECT)
        .constrains(&[
            WORKSPACE,
            Constraint::Workflow(|sub| SUBJECT.says(sub, "workspace").is_none()),
            Constraint::Owner(|sub| !names_project(sub)),
        ])
        .says(|sub| {
            let fields = [
                ("organization", "organization_name"),
                ("project", "project_name"),
                ("workspace", "workspace_name"),
                ("phase", "run_phase"),
            ];
            rules::of_parts(&SUBJECT, sub, &fields)
        }),
];

/// The join method `terraform_cloud`.
pub(super) static METHOD: Method = Method {
    detects: |env| HANDED_OVER.detects(env),
    source: |env| HANDED_OVER.source(env),
    private_variables: &[TAGGED],
    telling: &[
        ORGANIZATION_ID,
        ORGANIZATION_NAME,
        "terraform_project_id",
        "terraform_project_name",
        "terraform_workspace_id",
        "terraform_workspace_name",
        PHASE,
        "terraform_run_id",
    ],
    fields: FIELDS,
    issuers: &["https://app.terraform.io", "https://app.eu.terraform.io"],
    job: &["TFC_RUN_ID"],
    repositories: &["terraform_workspace_name"],
    repository_ids: &["terraform_workspace_id"],
    runs: &["terraform_run_id"],
    ..Method::new(
        "terraform_cloud",
        "HCP Terraform and Terraform Enterprise",
        |job| HANDED_OVER.none(job),
        configure,
    )
};

/// The token with a tag of ours, which is for nobody else.
const TAGGED: &str = "TFC_WORKLOAD_IDENTITY_TOKEN_MACHINE_ID";

static HANDED_OVER: HandedOver = HandedOver {
    job: "an HCP Terraform run",
    marker: "TFC_RUN_ID",
    variables: &[TAGGED, "TFC_WORKLOAD_IDENTITY_TOKEN"],
    hints: &[
        "set the workspace's environment variable TFC_WORKLOAD_IDENTITY_AUDIENCE_MACHINE_ID to {authority}",
        "agents of your own must be of version 1.12 or later",
    ],
};

static PROFILE: TokenProfile = TokenProfile {
    // A token lives as long as its phase may take, which is a day for an apply.
    max_lifetime: 25 * 3600,
    // The phase is guarded, so it must be there.
    required: &["sub", ORGANIZATION_ID, ORGANIZATION_NAME, PHASE, "terraform_run_id"],
    ownerless: Some((
        "a rule does not say whose runs may join",
        "add `organization_id` or `organization_name`, or `sub: organization:ORG:project:PROJECT:…`",
    )),
    run: "terraform_cloud:{terraform_organization_name}/{terraform_workspace_name} \
        run {terraform_run_id} {terraform_run_phase}",
    fulcio: &[(
        21,
        "{server}/app/{terraform_organization_name}/workspaces/{terraform_workspace_name}/runs/{terraform_run_id}",
    )],
    ..TokenProfile::RS256
};

fn configure(mut section: Mapping<'_>) -> Configured {
    let host = section.take("hostname").map_or(Ok(HOST), |node| host(node, "hostname"))?;
    let other_audience = section.text("audience")?.map(str::to_owned);
    let oidc = Oidc { other_audience, ..Oidc::new(&PROFILE, format!("https://{host}")) };
    let oidc = oidc.read(FIELDS, section)?;
    let says_which = |condition: &Condition| match condition.field.as_str() {
        "project_id" | "project_name" | "workspace_id" | "workspace_name" => {
            !rules::is_open(&condition.want.shown())
        }
        "sub" => names_project(&condition.want.shown()),
        _ => false,
    };
    rules::anchor(
        &oidc.rules,
        says_which,
        "a rule does not say which project or workspace may join",
        "add `workspace_id`, `workspace_name`, `project_id` or `project_name`",
    )?;
    Ok(Box::new(oidc))
}

/// Whether it is a subject that says a whole organisation and project.
fn names_project(subject: &str) -> bool {
    SUBJECT.says(subject, "organization").is_some() && SUBJECT.says(subject, "project").is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::Environment;
    use crate::join::source::TokenSource;

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
        let both = [("TFC_WORKLOAD_IDENTITY_TOKEN_MACHINE_ID", "a"), ("TFC_WORKLOAD_IDENTITY_TOKEN", "b")];
        assert_eq!(source(&both), Some(TokenSource::variable(both[0].0)));
        assert_eq!(source(&both[1..]), Some(TokenSource::variable(both[1].0)));
        assert_eq!(source(&[]), None);
    }

    #[test]
    fn provenance_names_the_run() {
        let claims = serde_json::json!({"iss": "i", "terraform_organization_name": "o", "terraform_workspace_name": "w",
            "terraform_run_id": "run-1", "terraform_run_phase": "apply"});
        let provenance = PROFILE.provenance("https://app.terraform.io", claims.as_object().unwrap());
        assert_eq!(provenance.line, "terraform_cloud:o/w run run-1 apply");
        assert_eq!(provenance.fulcio.len(), 2);
    }
}
