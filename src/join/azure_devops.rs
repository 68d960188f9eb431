//! Azure DevOps pipelines: an issuer for each organisation, tokens from an endpoint.

use futures_util::future::FutureExt as _;
use serde_json::{Map, Value};

use super::endpoint::{self, Endpoint};
use super::jwt::text;
use super::method::{Configured, Method};
use super::oidc::{Oidc, TokenProfile, organization_id};
use super::prove::{Job, Presented};
use super::rules::{
    Condition, Constraint, FULL_REF, Field, Grammar, Guard, Match, NAME, NUMBER, ONE_RUN, OWNER, REF, Shape,
    UUID, WORKFLOW,
};
use crate::document::{Mapping, Mistake};
use crate::error::{Error, Kind, Result};

/// The audience of every token; the platform lets nobody choose another.
const AUDIENCE: &str = "api://AzureADTokenExchange";
const URL_VARIABLE: &str = "SYSTEM_OIDCREQUESTURI";
const ACCESS_TOKEN_VARIABLE: &str = "SYSTEM_ACCESSTOKEN";
/// The id of a service connection to have the token of, in place of the pipeline's own. Not
/// AZURESUBSCRIPTION_SERVICE_CONNECTION_ID, which some tasks set: who asks for it should mean it.
const CONNECTION_VARIABLE: &str = "MACHINE_ID_SERVICE_CONNECTION_ID";
const ORGANIZATION: &str = "org_id";
/// How the subject of a service connection begins; a pipeline's begins with `p://`.
const CONNECTION: &str = "sc://";

const PULL_REQUESTS: Guard = Guard::new(
    "repository_ref",
    &["refs/pull/*"],
    "the job runs the code of a pull request that nobody has merged",
)
.claim("rpo_ref");
const PROJECT: Constraint = Constraint::name(&["project_id"]);
/// Its approvals and checks say which branches and pipelines may use a service connection.
const IF_PIPELINE: fn(&str) -> bool = |sub| !sub.starts_with(CONNECTION);

/// `p://ORGANIZATION/PROJECT/PIPELINE`, with their names; see [`check_subject`].
static SUBJECT: Grammar =
    Grammar::Forms(&["p://{organization}/{project}/{name}", "sc://{organization}/{project}/{name}"]);
/// `https://HOST/OWNER/NAME`.
static REPOSITORY: Grammar = Grammar::Separated('/', 5);
const URL: Shape = Shape::new(&["{small}://{any}"], "the repository's URL, `https://HOST/…`");

static FIELDS: &[Field] = &[
    Field::parted("sub", &SUBJECT).constrains(&[
        PROJECT,
        Constraint::Ref(IF_PIPELINE),
        Constraint::Workflow(|sub| SUBJECT.says(sub, "name").is_none()),
        Constraint::Owner(|sub| {
            SUBJECT.says(sub, "organization").is_none() || SUBJECT.says(sub, "project").is_none()
        }),
    ]),
    Field::new("project_name", Match::Within("*://*/{}/*")).claim("sub").constrains(&[PROJECT, OWNER]),
    Field::new("pipeline_name", Match::Within("p://*/*/{}"))
        .claim("sub")
        .constrains(&[Constraint::name(&["definition_id"]), WORKFLOW]),
    Field::exact("project_id").claim("prj_id").constrains(&[OWNER]).shape(UUID),
    Field::exact("definition_id").claim("def_id").constrains(&[WORKFLOW]).shape(NUMBER),
    Field::parted("repository_uri", &REPOSITORY).claim("rpo_uri").shape(URL),
    Field::exact("repository_id").claim("rpo_id"),
    Field::exact("repository_version").claim("rpo_ver").constrains(&[REF]).shape(NAME),
    // Builds of pull requests, forks' among them where the pipeline takes those.
    Field::glob("repository_ref")
        .claim("rpo_ref")
        .constrains(&[REF])
        .guarded(&[PULL_REQUESTS])
        .shape(FULL_REF),
    Field::exact("run_id").constrains(ONE_RUN).shape(NUMBER),
];

/// The join method `azure-devops`.
pub(super) static METHOD: Method = Method {
    elsewhere: &[("azure_devops", "so is its section called; what is in that stays as it is")],
    detects: |env| env.is_true("TF_BUILD"),
    telling: &[ORGANIZATION, "prj_id", "def_id", "rpo_id", "rpo_uri", "rpo_ref", "rpo_ver", "run_id"],
    fields: FIELDS,
    issuers: &["https://vstoken.dev.azure.com/*"],
    job: &["SYSTEM_JOBID", "SYSTEM_PLANID", "SYSTEM_JOBATTEMPT"],
    repositories: &["rpo_uri"],
    repository_ids: &["rpo_id"],
    runs: &["run_id"],
    ..Method::new("azure-devops", "Azure DevOps pipelines", |job| prove(job).boxed(), configure)
};

/// A pipeline's own tokens. Those of service connections are what Azure's own tasks carry about.
static PIPELINES: TokenProfile = TokenProfile {
    // The ref is guarded, so it must be there.
    required: &["sub", ORGANIZATION, "prj_id", "def_id", "rpo_ref", "run_id"],
    check: |claims| check_subject(claims, "p://", "a pipeline's"),
    ..TOKENS
};
static CONNECTIONS: TokenProfile =
    TokenProfile { check: |claims| check_subject(claims, CONNECTION, "a service connection's"), ..TOKENS };
const TOKENS: TokenProfile = TokenProfile {
    // They live for five to ten minutes.
    max_lifetime: 3600,
    ownerless: Some((
        "a rule does not say which project may join",
        "add `project_id`, `project_name` or `sub`",
    )),
    run: "azure-devops:{project}/{name}[@{rpo_ref}] run {run_id}",
    fulcio: &[
        (12, "{rpo_uri}"),
        (13, "{rpo_ver}"),
        (14, "{rpo_ref}"),
        (15, "{rpo_id}"),
        (21, "https://dev.azure.com/{project}/_build/results?buildId={run_id}"),
    ],
    derived: |claims| {
        let (_, named) = text(claims, "sub").split_once("://").unwrap_or_default();
        let (project, name) = named.rsplit_once('/').unwrap_or_default();
        vec![("project", project.to_owned()), ("name", name.to_owned())]
    },
    ..TokenProfile::RS256
};

fn configure(mut section: Mapping<'_>) -> Configured {
    let place = section.place;
    let organization = organization_id(
        &mut section,
        "https://dev.azure.com/ORGANIZATION/_apis/connectionData shows it as `instanceId`; in small letters",
    )?;
    let other_audience = section.boolean("accept_default_audience")?.then(|| AUDIENCE.to_owned());
    let issuer = format!("https://vstoken.dev.azure.com/{organization}");
    let pinned = Some((ORGANIZATION, organization));
    let oidc = Oidc { other_audience, pinned, ..Oidc::new(&PIPELINES, issuer) }.read(FIELDS, section)?;
    let of_connection = |c: &Condition| c.field == "sub" && c.want.shown().starts_with(CONNECTION);
    match oidc.rules.iter().filter(|rule| rule.conditions.iter().any(of_connection)).count() {
        0 => Ok(Box::new(oidc)),
        // A service connection's token may lack the claim, and has the same issuer.
        all if all == oidc.rules.len() => Ok(Box::new(Oidc { profile: &CONNECTIONS, pinned: None, ..oidc })),
        _ => Err(Mistake::new(place, "some rules are for pipelines and some for service connections")
            .hint("write a join token for each")
            .into()),
    }
}

/// `KIND://ORGANIZATION/PROJECT/NAME`: no part may hold a slash, or names could pose as others.
fn check_subject(claims: &Map<String, Value>, kind: &str, whose: &str) -> Result<(), String> {
    let parts: Vec<&str> = text(claims, "sub").strip_prefix(kind).unwrap_or_default().split('/').collect();
    match parts.len() == 3 && !parts.contains(&"") {
        true => Ok(()),
        false => Err(format!("sub is not {whose}: {kind}ORGANIZATION/PROJECT/NAME")),
    }
}

/// Asks Azure DevOps for a token; its audience is not ours to choose.
async fn prove(job: &Job<'_>) -> Result<Presented> {
    let Some(url) = job.env.get(URL_VARIABLE) else {
        return Err(Error::new(
            Kind::Proof,
            format!("this is not an Azure DevOps job: {URL_VARIABLE} is not set"),
        )
        .hint("choose another --join-method, or run this in a pipeline")
        .hint("in a container or with `env -i`, pass it on"));
    };
    let Some(token) = job.env.get(ACCESS_TOKEN_VARIABLE) else {
        return Err(Error::new(
            Kind::Proof,
            format!(
                "this job may not ask Azure DevOps for an OIDC token: {ACCESS_TOKEN_VARIABLE} is not set"
            ),
        )
        .hint("pass it to the step:\n    env:\n      SYSTEM_ACCESSTOKEN: $(System.AccessToken)"));
    };
    let mut url = endpoint::url(url, URL_VARIABLE)?;
    url.query_pairs_mut().append_pair("api-version", "7.1");
    if let Some(connection) = job.env.get(CONNECTION_VARIABLE) {
        url.query_pairs_mut().append_pair("serviceConnectionId", connection);
    }
    let endpoint = Endpoint {
        platform: "Azure DevOps",
        secret: token,
        pending: |_| false,
        refused: "the access token ends with the job; a service connection must be allowed for this pipeline",
        untrusted: "a proxy that inspects TLS: point SSL_CERT_FILE at a bundle that holds its CA",
        status_page: "Azure DevOps' own troubles are on https://status.dev.azure.com",
    };
    let request = |client: &reqwest::Client| {
        let post = client.post(url.clone()).bearer_auth(token).header("Content-Type", "application/json");
        // Without these, a length is missing and a refusal is a page to sign in on.
        post.header("Content-Length", "0").header("X-TFS-FedAuthRedirect", "Suppress")
    };
    endpoint.ask(job, &url, request).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::join::verify::Verifier;

    const ORG: &str = "0a1b2c3d-0000-4000-8000-00000000abcd";

    fn allow(rules: &str) -> Result<Box<dyn Verifier>, Mistake> {
        METHOD.configured(&format!("{{organization_id: {ORG}, allow: [{rules}]}}"))
    }

    #[test]
    fn mistakes_are_told() {
        assert_eq!(
            METHOD.configured("allow: [{project_id: x}]").unwrap_err().message,
            "azure-devops lacks `organization_id`"
        );
        for (rules, message) in [
            ("{definition_id: '1'}", "a rule does not say which project may join"),
            ("{sub: '*'}", "a rule does not say which project may join"),
            ("{sub: 'p://o/p*'}", "a rule does not say which project may join"),
            ("{project_name: 'a*'}", "`project_name` takes no wildcards"),
            ("{definition_id: 1, project_id: x}", "`definition_id` must be text, not a number"),
            (
                "{sub: 'sc://o/p/c'}, {project_id: x}",
                "some rules are for pipelines and some for service connections",
            ),
        ] {
            assert_eq!(allow(rules).unwrap_err().message, message, "{rules}");
        }
        assert!(allow("{project_name: app}, {sub: 'p://o/p/*'}").is_ok());
        assert!(allow("{sub: 'sc://o/p/c'}").is_ok());
    }

    #[test]
    fn subjects_have_three_parts() {
        let check = |sub: &str| {
            let claims = serde_json::json!({"sub": sub, "org_id": ORG, "prj_id": "p", "def_id": "1", "rpo_ref": "r", "run_id": "1"});
            (
                (PIPELINES.check)(claims.as_object().unwrap()).is_ok(),
                (CONNECTIONS.check)(claims.as_object().unwrap()).is_ok(),
            )
        };
        assert_eq!(check("p://o/p/n"), (true, false));
        assert_eq!(check("sc://o/p/n"), (false, true));
        for bad in ["", "p://o/p", "p://o/p/n/m", "p://o//n", "p:///p/n", "P://o/p/n", "o/p/n", "xsc://o/p/n"]
        {
            assert_eq!(check(bad), (false, false), "{bad}");
        }
    }

    #[test]
    fn provenance_names_the_run() {
        let claims =
            serde_json::json!({"iss": "i", "sub": "p://o/p/n", "rpo_ref": "refs/heads/main", "run_id": "5"});
        let provenance = PIPELINES.provenance("https://dev.azure.com", claims.as_object().unwrap());
        assert_eq!(provenance.line, "azure-devops:o/p/n@refs/heads/main run 5");
        assert!(
            provenance
                .fulcio
                .contains(&(21, "https://dev.azure.com/o/p/_build/results?buildId=5".to_owned()))
        );
    }
}
