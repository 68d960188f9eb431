//! GitHub Actions: github.com, an enterprise's own issuer, GitHub Enterprise
//! Server and `*.ghe.com`.

use futures_util::future::FutureExt as _;

use super::endpoint::{self, Endpoint};
use super::method::{Configured, Method};
use super::oidc::{Oidc, TokenProfile, host};
use super::prove::{Job, Presented};
use super::rules::{
    self, CHOSEN_WORKFLOW, COMMIT, Constraint, EVENT_NAME, FULL_REF, Field, Grammar, KIND, Labels, Match,
    NAME, NUMBER, OWNER, REF, SHORT_REF, Saying, Shape, URLS, WORKFLOW,
};
use crate::document::{Mapping, Mistake};
use crate::environment::Environment;
use crate::error::{Error, Kind, Result};

mod example;
mod subject;

const URL_VARIABLE: &str = "ACTIONS_ID_TOKEN_REQUEST_URL";
const REQUEST_TOKEN_VARIABLE: &str = "ACTIONS_ID_TOKEN_REQUEST_TOKEN";
/// How hosts of GitHub's own service end, for enterprises that choose where their data are.
const CLOUD: &str = ".ghe.com";
/// The issuer of github.com; an enterprise's own has its slug behind it.
const ISSUER: &str = "https://token.actions.githubusercontent.com";

static REPOSITORY: Grammar = Grammar::Forms(&["{owner}/{name}"]);
static WORKFLOW_REF: Grammar = Grammar::Forms(&["{owner}/{name}/.github/workflows/{file}@{ref*}"]);
/// A reusable workflow is of its own repository's ref, not of the caller's.
static JOB_WORKFLOW_REF: Grammar =
    Grammar::Forms(&["{job_owner}/{job_name}/.github/workflows/{job_file}@{job_ref*}"]);

/// The default, or a template of any claims; `:` in values is escaped.
static SUBJECT: Grammar = subject(&[]);
/// GitHub Enterprise Server escapes it since 3.19 alone, and nobody tells us its version.
/// In names of repositories, people and refs there is none anyway.
static SERVER_SUBJECT: Grammar = subject(&["environment", "workflow", "workflow_ref", "job_workflow_ref"]);

const PARTED: &[(&str, &Grammar)] = &[
    ("repo", &REPOSITORY),
    ("repository", &REPOSITORY),
    ("workflow_ref", &WORKFLOW_REF),
    ("job_workflow_ref", &JOB_WORKFLOW_REF),
];

const fn subject(unescaped: &'static [&'static str]) -> Grammar {
    Grammar::Labelled(Labels { alone: &["pull_request"], parted: PARTED, unescaped })
}

/// Whether a subject says none of these parts.
fn leaves_open(subject: &str, parts: &[&str]) -> bool {
    !parts.iter().any(|part| SUBJECT.says(subject, part).is_some())
}

static FIELDS: &[Field] = &FIELDS_OF_CLOUD;
static SERVER_FIELDS: &[Field] = &{
    let mut fields = FIELDS_OF_CLOUD;
    let [subject, ..] = &mut fields;
    subject.matches = Match::Parts(&SERVER_SUBJECT);
    fields
};

const OF_REPOSITORY: Shape =
    Shape::new(&["{word}/{name}"], "`OWNER/NAME`, without the address of a server and without `.git`")
        .never(URLS);
/// By its commit where a reusable workflow is called so, or where the run has no ref; what GitHub runs by itself is `dynamic`.
const FILE: Shape = Shape::new(
    &[
        "{word}/{name}/.github/workflows/{any}@refs/{any}",
        "{word}/{name}/.github/workflows/{any}@{hex:40}",
        "{word}/{name}/dynamic/{any}@refs/{any}",
    ],
    "`OWNER/NAME/.github/workflows/FILE@REF`, with the full ref: `…/deploy.yml@refs/heads/main`",
);

/// Every claim that GitHub documents, as a field of a rule. Wildcards where
/// Teleport has them and in names and refs of our own; ids, kinds and hashes are exact.
const FIELDS_OF_CLOUD: [Field; 29] = [
    Field::parted("sub", &SUBJECT)
        .constrains(&[
            Constraint::Name {
                pinned_by: &["repository_id", "repository_owner_id"],
                // `repo:OWNER@ID/…`, or a template with an id in it.
                pins_itself: |sub| {
                    SUBJECT.says(sub, "owner").is_some_and(|owner| owner.contains('@'))
                        || !leaves_open(sub, &["repository_id", "repository_owner_id"])
                },
            },
            // `repo:OWNER/NAME:pull_request` is of every branch that has one.
            Constraint::Ref(|sub| {
                leaves_open(sub, &["ref", "environment", "sha", "workflow_sha", "run_id", "check_run_id"])
                    && SUBJECT.says(sub, "ref_protected").is_none_or(|value| value != "true")
            }),
            Constraint::Workflow(|sub| {
                const RUN: &[&str] =
                    &["environment", "file", "workflow_sha", "job_workflow_sha", "run_id", "check_run_id"];
                leaves_open(sub, RUN) && !is_reusable(&SUBJECT, sub)
            }),
            // Anybody can have their repository's subjects made by a template, such as `ref:refs/heads/main`.
            Constraint::Owner(|sub| {
                leaves_open(sub, &["owner", "repository_owner", "repository_owner_id", "repository_id"])
            }),
        ])
        .shape(subject::SHAPE)
        .says(|sub| if SUBJECT.admits(sub) { subject::says(sub) } else { Vec::new() }),
    Field::parted("repository", &REPOSITORY)
        .constrains(&[
            Constraint::name(&["repository_id", "repository_owner_id"]),
            Constraint::Owner(|name| REPOSITORY.says(name, "owner").is_none()),
        ])
        .shape(OF_REPOSITORY)
        .says(|name| rules::of_parts(&REPOSITORY, name, &[("owner", "repository_owner")])),
    Field::exact("repository_id").constrains(&[OWNER]).shape(NUMBER),
    Field::glob("repository_owner")
        .constrains(&[
            Constraint::name(&["repository_owner_id", "repository_id"]),
            Constraint::Owner(rules::is_pattern),
        ])
        .shape(NAME),
    Field::exact("repository_owner_id").constrains(&[OWNER]).shape(NUMBER),
    Field::exact("repository_visibility")
        .shape(Shape::new(&["public", "private", "internal"], "`public`, `private` or `internal`")),
    // The name that a file gives itself: any other can give itself the same.
    Field::glob("workflow"),
    Field::parted("workflow_ref", &WORKFLOW_REF)
        .constrains(&[
            Constraint::Workflow(|path| WORKFLOW_REF.says(path, "file").is_none()),
            Constraint::Ref(|path| WORKFLOW_REF.says(path, "ref").is_none()),
        ])
        .shape(FILE)
        .says(of_workflow_ref),
    Field::exact("workflow_sha").constrains(&[WORKFLOW, REF]).shape(COMMIT),
    Field::parted("job_workflow_ref", &JOB_WORKFLOW_REF)
        .constrains(&[Constraint::Workflow(|path| !is_reusable(&JOB_WORKFLOW_REF, path))])
        .shape(FILE),
    Field::exact("job_workflow_sha").constrains(&[WORKFLOW]).shape(COMMIT),
    // An environment has rules of its own about refs and reviewers; one of a name that
    // nobody has set up is made by the workflow that names it, and has none.
    Field::glob("environment").constrains(&[REF, CHOSEN_WORKFLOW]),
    Field::glob("actor")
        .constrains(&[Constraint::name(&["actor_id"])])
        .shape(Shape::new(&["{word}", "{word}[bot]"], "the login, such as `octocat` or `dependabot[bot]`")),
    Field::exact("actor_id").shape(NUMBER),
    Field::glob("ref").constrains(&[REF]).shape(FULL_REF),
    Field::exact("ref_type").shape(Shape::new(&["branch", "tag"], "`branch` or `tag`")).says(|kind| {
        // A pull request's is `branch`.
        let refs: &[&str] = if kind == "tag" { &["refs/tags/*"] } else { &["refs/heads/*", "refs/pull/*"] };
        vec![Saying::new("ref", refs)]
    }),
    Field::new("ref_protected", Match::Boolean)
        .constrains(&[Constraint::Ref(|value| value != "true")])
        // No rule protects what a pull request would be when merged.
        .says(|value| match value {
            "true" => vec![Saying::new("ref", &["refs/heads/*", "refs/tags/*"])],
            _ => Vec::new(),
        }),
    Field::exact("sha").constrains(&[REF]).shape(COMMIT),
    // Who opens a pull request chooses these, in a fork of their own even.
    Field::glob("head_ref").shape(SHORT_REF).says(of_pull_requests),
    Field::glob("base_ref").shape(SHORT_REF).says(of_pull_requests),
    Field::exact("event_name").guarded(&[EVENT_NAME]).shape(KIND).says(of_event),
    Field::exact("runner_environment")
        .shape(Shape::new(&["github-hosted", "self-hosted"], "`github-hosted` or `self-hosted`")),
    Field::glob("enterprise").constrains(&[Constraint::name(&["enterprise_id"])]).shape(NAME),
    Field::exact("enterprise_id").shape(NUMBER),
    Field::exact("run_id").constrains(&[WORKFLOW, REF]).shape(NUMBER),
    Field::exact("run_number").shape(NUMBER),
    Field::exact("run_attempt").shape(NUMBER),
    Field::exact("check_run_id").constrains(&[WORKFLOW, REF]).shape(NUMBER),
    Field::new("repo_property_*", Match::Property),
];

/// Whether it says one reusable workflow: whose, and of which ref, for a caller chooses both.
fn is_reusable(grammar: &'static Grammar, value: &str) -> bool {
    ["job_owner", "job_name", "job_file", "job_ref"].iter().all(|part| grammar.says(value, part).is_some())
}

/// The join method `github`.
pub(super) static METHOD: Method = Method {
    detects: |env| env.is_true("GITHUB_ACTIONS"),
    telling: &[
        "repository",
        "repository_id",
        "repository_owner",
        "repository_owner_id",
        "ref",
        "ref_protected",
        "environment",
        "event_name",
        "job_workflow_ref",
        "workflow_ref",
        "runner_environment",
        "run_id",
        "run_attempt",
    ],
    fields: FIELDS,
    subject: subject::form,
    issuers: &[
        ISSUER,
        "https://token.actions.githubusercontent.com/*",
        "https://token.actions.*.ghe.com",
        "https://token.actions.*.ghe.com/*",
        "https://*/_services/token",
    ],
    can_bind: true,
    job: &[
        "GITHUB_RUN_ID",
        "GITHUB_RUN_ATTEMPT",
        "GITHUB_JOB",
        "GITHUB_SERVER_URL",
        "RUNNER_NAME",
        "RUNNER_TRACKING_ID",
    ],
    repositories: &["repository"],
    repository_ids: &["repository_id"],
    runs: &["run_id"],
    example: Some(&example::EXAMPLE),
    ..Method::new(
        "github",
        "GitHub Actions: github.com, GitHub Enterprise Cloud and Server",
        |job| prove(job).boxed(),
        configure,
    )
};

/// github.com has one issuer for everybody, and anybody may have a `refs/heads/main`.
static PROFILE: TokenProfile = TokenProfile {
    // They live for five minutes; anything over an hour is not one of them.
    max_lifetime: 3600,
    // `event_name` is guarded, so it must be there.
    required: &["sub", "repository", "repository_owner", "event_name", "run_id"],
    ownerless: Some((
        "a rule does not say whose repositories may join",
        "add `repository: OWNER/NAME`, `repository_owner: OWNER`, `repository_id`, `repository_owner_id` or `sub`; wildcards only behind `OWNER/`",
    )),
    run: "github:{repository}@{ref} run {run_id} attempt [{run_attempt}|1]",
    fulcio: &[
        (9, "{server}/{job_workflow_ref}"),
        (10, "{job_workflow_sha}"),
        (11, "{runner_environment}"),
        (12, "{server}/{repository}"),
        (13, "{sha}"),
        (14, "{ref}"),
        (15, "{repository_id}"),
        (16, "{server}/{repository_owner}"),
        (17, "{repository_owner_id}"),
        (18, "{server}/{workflow_ref}"),
        (19, "{workflow_sha}"),
        (20, "{event_name}"),
        (21, "{server}/{repository}/actions/runs/{run_id}/attempts/[{run_attempt}|1]"),
        (22, "{repository_visibility}"),
        (23, "{environment}"),
    ],
    ..TokenProfile::RS256
};

fn configure(mut section: Mapping<'_>) -> Configured {
    let place = section.place;
    let host = section.take("enterprise_server_host").map(|node| host(node, "enterprise_server_host"));
    let slug = section.text("enterprise_slug")?;
    let host = host.transpose()?;
    let fields = if host.is_none_or(|host| host.ends_with(CLOUD)) { FIELDS } else { SERVER_FIELDS };
    let (issuer, server) = issuer(host, slug).map_err(|why| Mistake::new(place, why))?;
    Ok(Box::new(Oidc { server, ..Oidc::new(&PROFILE, issuer) }.read(fields, section)?))
}

/// The issuer's URL, and where its pages are.
fn issuer(host: Option<&str>, slug: Option<&str>) -> Result<(String, String), &'static str> {
    let is_slug = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    if !slug.is_none_or(is_slug) {
        return Err("`enterprise_slug` must be the enterprise's name in URLs");
    }
    let server = format!("https://{}", host.unwrap_or("github.com"));
    let shared = match host.map(|host| host.strip_suffix(CLOUD)) {
        None => ISSUER.to_owned(),
        Some(Some(name)) => format!("https://token.actions.{name}{CLOUD}"),
        Some(None) if slug.is_none() => format!("{server}/_services/token"),
        Some(None) => {
            return Err("`enterprise_slug` is for github.com and `*.ghe.com`: a server is one enterprise's");
        }
    };
    // An enterprise may have one of its own.
    let issuer = slug.map_or_else(|| shared.clone(), |slug| format!("{shared}/{slug}"));
    Ok((issuer, server))
}

/// The refs that events have.
fn of_event(event: &str) -> Vec<Saying> {
    let refs: &[&str] = match event {
        "pull_request" | "pull_request_review" | "pull_request_review_comment" => &["refs/pull/*"],
        "pull_request_target" | "workflow_run" | "schedule" => &["refs/heads/*"],
        "merge_group" => &["refs/heads/gh-readonly-queue/*"],
        "release" => &["refs/tags/*"],
        "push" | "workflow_dispatch" => &["refs/heads/*", "refs/tags/*"],
        _ => return Vec::new(),
    };
    vec![Saying::new("ref", refs)]
}

/// A workflow's file is of the run's own ref, but where an organisation requires
/// it: then a pull request or the merge queue runs that of another repository.
fn of_workflow_ref(path: &str) -> Vec<Saying> {
    let mut said = rules::of_parts(&WORKFLOW_REF, path, &[("ref", "ref")]);
    // One that runs by its commit says none.
    said.retain(|said| said.one_of.iter().all(|of| of.starts_with("refs/")));
    for said in &mut said {
        said.one_of.extend(["refs/pull/*", "refs/heads/gh-readonly-queue/*"].map(str::to_owned));
    }
    said
}

/// Other events have no head and no base.
fn of_pull_requests(_: &str) -> Vec<Saying> {
    vec![Saying::new("event_name", &["pull_request*"])]
}

/// Asks GitHub for a token with our audience.
async fn prove(job: &Job<'_>) -> Result<Presented> {
    let (Some(url), Some(token)) = (job.env.get(URL_VARIABLE), job.env.get(REQUEST_TOKEN_VARIABLE)) else {
        return Err(no_endpoint(job.env));
    };
    let mut url = endpoint::url(url, URL_VARIABLE)?;
    url.query_pairs_mut().append_pair("audience", job.audience);
    let endpoint = Endpoint {
        platform: "GitHub",
        secret: token,
        pending: |body| body.contains("pending") || body.contains("delayed"),
        refused: "the job needs `permissions: id-token: write`, and its request token lasts as long as the job",
        untrusted: "GitHub Enterprise Server behind a private CA: point SSL_CERT_FILE at a bundle that holds it",
        status_page: "github.com's own troubles are on https://www.githubstatus.com",
    };
    let accept = "application/json; api-version=2.0";
    let request =
        |client: &reqwest::Client| client.get(url.clone()).bearer_auth(token).header("Accept", accept);
    endpoint.ask(job, &url, request).await
}

fn no_endpoint(env: &Environment) -> Error {
    if env.get("GITHUB_ACTIONS").is_none() {
        return Error::new(
            Kind::Proof,
            format!("this is not a GitHub Actions job: {URL_VARIABLE} is not set"),
        )
        .hint("choose another --join-method, or run this in a workflow");
    }
    let missing = [URL_VARIABLE, REQUEST_TOKEN_VARIABLE].into_iter().find(|name| env.get(name).is_none());
    let missing = missing.unwrap_or(URL_VARIABLE);
    Error::new(Kind::Proof, format!("this job may not ask GitHub for an OIDC token: {missing} is not set"))
        .hint("give the job the permission (a job's `permissions` replace the workflow's):\n    permissions:\n      id-token: write\n      contents: read")
        .hint("a pull request from a fork gets no token, whatever the workflow says")
        .hint("a reusable workflow gets one only if the job that calls it has the permission too")
        .hint("in a container or with `env -i`, pass ACTIONS_ID_TOKEN_REQUEST_URL and ACTIONS_ID_TOKEN_REQUEST_TOKEN on")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issuers() {
        let url = |host, slug| issuer(host, slug).map(|(issuer, _)| issuer);
        assert_eq!(url(None, None).unwrap(), ISSUER);
        assert_eq!(url(None, Some("octo")).unwrap(), format!("{ISSUER}/octo"));
        assert_eq!(
            url(Some("ghes.example.com:8443"), None).unwrap(),
            "https://ghes.example.com:8443/_services/token"
        );
        assert_eq!(url(Some("octo.ghe.com"), None).unwrap(), "https://token.actions.octo.ghe.com");
        assert_eq!(url(Some("octo.ghe.com"), Some("eng")).unwrap(), "https://token.actions.octo.ghe.com/eng");
        for (section, message) in [
            ("enterprise_server_host: a/b", "`enterprise_server_host` must be HOST or HOST:PORT"),
            ("enterprise_server_host: 'https://a'", "`enterprise_server_host` must be HOST or HOST:PORT"),
            ("enterprise_server_host: 'a:'", "`enterprise_server_host` must be HOST or HOST:PORT"),
            ("enterprise_slug: a/..", "`enterprise_slug` must be the enterprise's name in URLs"),
            (
                "enterprise_server_host: a.ghe.com, enterprise_slug: ..",
                "`enterprise_slug` must be the enterprise's name in URLs",
            ),
            (
                "enterprise_server_host: a, enterprise_slug: b",
                "`enterprise_slug` is for github.com and `*.ghe.com`: a server is one enterprise's",
            ),
        ] {
            let section = format!("{{{section}, allow: [{{repository: o/r}}]}}");
            assert_eq!(METHOD.configured(&section).unwrap_err().message, message, "{section}");
        }
    }

    #[test]
    fn a_rule_says_whose_repositories() {
        for good in [
            "repository: o/r",
            "repository: o/*",
            "repository_owner: o",
            "repository_id: '7'",
            "sub: 'repo:o@1/r@2:environment:prod'",
            "sub: 'repo:o/*'",
            "sub: 'repository_owner:octo-org:ref:*'",
            "{sub: 'environment:production', repository: o/r}",
        ] {
            assert!(
                METHOD
                    .configured(&format!("allow: [{{{}}}]", good.trim_matches(|c| c == '{' || c == '}')))
                    .is_ok(),
                "{good}"
            );
        }
        for bad in [
            "ref: refs/heads/main",
            "repository: '*'",
            "repository: 'o*'",
            "repository: 'o*/r'",
            "repository_owner: 'o*'",
            "sub: 'repo:*'",
            "sub: '*'",
            "sub: 'repo:o'",
            "sub: 'ref:refs/heads/main'",
            "sub: 'ref:refs/heads/*'",
            "sub: 'environment:production'",
            "sub: 'repository_owner:octo*'",
            "sub: 'job_workflow_ref:o/r/.github/workflows/x.yml@refs/heads/main'",
            "job_workflow_ref: o/r/.github/workflows/x.yml@refs/heads/main",
        ] {
            let mistake = METHOD.configured(&format!("allow: [{{{bad}}}]")).unwrap_err();
            assert_eq!(mistake.message, "a rule does not say whose repositories may join", "{bad}");
        }
    }

    #[test]
    fn mistakes_are_told() {
        for (section, message) in [
            ("{}", "github lacks `allow`"),
            ("allow: []", "`allow` is empty"),
            ("allow: [{}]", "a rule without conditions would let everybody in"),
            ("allow: [{repositry: o/r}]", "a rule has no `repositry`"),
            ("allow: [{repository: o/r, ref_type: 'b*'}]", "`ref_type` takes no wildcards"),
            ("allow: [{repository_id: 74}]", "`repository_id` must be text, not a number"),
            ("allow: [{repository: ''}]", "`repository` is empty"),
            ("{allow: [{repository: o/r}], enterprise: x}", "github has no `enterprise`"),
            (
                "{allow: [{repository: o/r}], static_jwks: '{}'}",
                "`static_jwks` is not a key set: it has no list `keys`",
            ),
        ] {
            assert_eq!(METHOD.configured(section).unwrap_err().message, message, "{section}");
        }
    }

    #[test]
    fn provenance_names_the_run() {
        let claims = serde_json::json!({"iss": ISSUER, "repository": "o/r", "ref": "refs/heads/main\n", "run_id": "5",
            "run_attempt": "2", "workflow_ref": "o/r/.github/workflows/d.yml@refs/heads/main"});
        let provenance = PROFILE.provenance("https://github.com", claims.as_object().unwrap());
        assert_eq!(provenance.line, "github:o/r@refs/heads/main\\u{a} run 5 attempt 2");
        let url = "https://github.com/o/r/actions/runs/5/attempts/2".to_owned();
        assert!(provenance.fulcio.contains(&(21, url)));
        assert!(provenance.fulcio.iter().all(|(arc, text)| *arc != 10 && !text.is_empty()));
    }
}
