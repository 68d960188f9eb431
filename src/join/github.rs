//! GitHub Actions: github.com, an enterprise's own issuer, GitHub Enterprise
//! Server and `*.ghe.com`.

use futures_util::future::FutureExt as _;
use serde_json::{Map, Value};

use super::endpoint::{self, Endpoint};
use super::jwt::text;
use super::method::{Configured, Method};
use super::oidc::{Common, Oidc, TokenProfile};
use super::prove::{Job, Presented};
use super::rules::{self, Condition, Constraint, Field, Guard, Match, REF, REF_PATH, WORKFLOW, Want};
use super::verify::Provenance;
use crate::document::{Mapping, Mistake};
use crate::environment::Environment;
use crate::error::{Error, Kind, Result};

const URL_VARIABLE: &str = "ACTIONS_ID_TOKEN_REQUEST_URL";
const REQUEST_TOKEN_VARIABLE: &str = "ACTIONS_ID_TOKEN_REQUEST_TOKEN";
/// The issuer of github.com; an enterprise's own has its slug behind it.
const ISSUER: &str = "https://token.actions.githubusercontent.com";
/// GitHub's tokens live for five minutes, in seconds; anything over an hour is not one.
const MAX_LIFETIME: i64 = 3600;

const REPOSITORY: Constraint = Constraint::name(&["repository_id", "repository_owner_id"]);
/// A workflow's file, with the ref that it is of: `OWNER/NAME/.github/workflows/FILE@REF`.
const WORKFLOW_FILE: Constraint = Constraint::Workflow(|path| {
    rules::literal_prefix(path).split("/.github/workflows/").nth(1).is_none_or(str::is_empty)
});
const WORKFLOW_REF: Constraint =
    Constraint::Ref(|path| path.rsplit_once('@').is_none_or(|(_, of)| rules::is_open_ref(of)));

/// Every claim that GitHub documents, as a field of a rule. Wildcards where
/// Teleport has them and in names and refs of our own; ids, kinds and hashes are exact.
static FIELDS: &[Field] = &[
    Field::glob("sub").constrains(&[
        Constraint::Name {
            pinned_by: &["repository_id", "repository_owner_id"],
            // `repo:OWNER@ID/…`, or a template with an id in it.
            pins_itself: |sub| {
                let owner = rules::literal_prefix(sub).split('/').next().unwrap_or_default();
                owner.contains('@') || sub.contains("repository_id:") || sub.contains("repository_owner_id:")
            },
        },
        Constraint::Ref(|sub| sub.ends_with('*')),
        Constraint::Workflow(|sub| !["environment:", "workflow"].iter().any(|part| sub.contains(part))),
    ]),
    Field::glob("repository").constrains(&[REPOSITORY]),
    Field::exact("repository_id"),
    Field::glob("repository_owner")
        .constrains(&[Constraint::name(&["repository_owner_id", "repository_id"])]),
    Field::exact("repository_owner_id"),
    Field::exact("repository_visibility"),
    // The name that a file gives itself: any other can give itself the same.
    Field::glob("workflow"),
    Field::glob("workflow_ref").constrains(&[WORKFLOW_FILE, WORKFLOW_REF]),
    Field::exact("workflow_sha").constrains(&[WORKFLOW, REF]),
    // A reusable workflow is of its own repository's ref, not of the caller's.
    Field::glob("job_workflow_ref").constrains(&[WORKFLOW_FILE]),
    Field::exact("job_workflow_sha").constrains(&[WORKFLOW]),
    // An environment has rules of its own about refs and reviewers.
    Field::glob("environment").constrains(&[REF_PATH, WORKFLOW]),
    Field::glob("actor").constrains(&[Constraint::name(&["actor_id"])]),
    Field::exact("actor_id"),
    Field::glob("ref").constrains(&[REF_PATH]),
    Field::exact("ref_type"),
    Field::new("ref_protected", Match::Boolean).constrains(&[Constraint::Ref(|value| value != "true")]),
    Field::exact("sha").constrains(&[REF]),
    Field::glob("head_ref").constrains(&[REF_PATH]),
    // Who opens a pull request chooses the base, not what is in it.
    Field::glob("base_ref"),
    Field::exact("event_name"),
    Field::exact("runner_environment"),
    Field::glob("enterprise").constrains(&[Constraint::name(&["enterprise_id"])]),
    Field::exact("enterprise_id"),
    Field::exact("run_id").constrains(&[WORKFLOW, REF]),
    Field::exact("run_number"),
    Field::exact("run_attempt"),
    Field::exact("check_run_id").constrains(&[WORKFLOW, REF]),
    Field::new("repo_property_*", Match::Property),
];

/// Events that run with the repository's rights on code or data of strangers.
static GUARDS: &[Guard] = &[Guard {
    field: "event_name",
    claim: "event_name",
    values: &["pull_request_target", "workflow_run"],
    risk: "the job has the rights of the repository and may run the code or data of strangers",
}];

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
    guards: GUARDS,
    can_bind: true,
    ..Method::new(
        "github",
        "GitHub Actions: github.com, GitHub Enterprise Cloud and Server",
        |job| prove(job).boxed(),
        configure,
    )
};

/// `event_name` is guarded, so it must be there; the others make the provenance.
static PROFILE: TokenProfile = TokenProfile::rs256(
    MAX_LIFETIME,
    &["sub", "repository", "repository_owner", "event_name", "run_id"],
    describe,
);

fn configure(mut section: Mapping<'_>) -> Configured {
    let place = section.place;
    let host = section.text("enterprise_server_host")?;
    let slug = section.text("enterprise_slug")?;
    let common = Common::read(section, FIELDS, GUARDS)?;
    rules::anchor(
        &common.rules,
        anchors,
        "a rule does not say whose repositories may join",
        "add `repository: OWNER/NAME`, `repository_owner: OWNER`, `repository_id`, `repository_owner_id` or `sub`; wildcards only behind `OWNER/`",
    )?;
    let (issuer, server) = issuer(host, slug).map_err(|why| Mistake::new(place, why))?;
    Ok(Box::new(Oidc { server, ..Oidc::new(&PROFILE, issuer, common) }))
}

/// The issuer's URL, and where its pages are.
fn issuer(host: Option<&str>, slug: Option<&str>) -> Result<(String, String), String> {
    let plain = |text: &str, more: &[u8]| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || more.contains(&b))
    };
    match (host, slug) {
        (Some(_), Some(_)) => {
            Err("`enterprise_server_host` and `enterprise_slug` exclude each other".to_owned())
        }
        (Some(host), None) if !plain(host, b".:[]") => {
            Err("`enterprise_server_host` must be HOST or HOST:PORT".to_owned())
        }
        (Some(host), None) => Ok(match host.strip_suffix(".ghe.com") {
            Some(name) => (format!("https://token.actions.{name}.ghe.com"), format!("https://{host}")),
            None => (format!("https://{host}/_services/token"), format!("https://{host}")),
        }),
        (None, Some(slug)) if !plain(slug, b"_") => {
            Err("`enterprise_slug` must be the enterprise's name in URLs".to_owned())
        }
        (None, Some(slug)) => Ok((format!("{ISSUER}/{slug}"), "https://github.com".to_owned())),
        (None, None) => Ok((ISSUER.to_owned(), "https://github.com".to_owned())),
    }
}

/// A rule must say whose repositories it is about: github.com has one issuer
/// for everybody, and anybody may have a `refs/heads/main`.
fn anchors(condition: &Condition) -> bool {
    match (condition.field.as_str(), &condition.want) {
        ("repository_id" | "repository_owner_id", Want::Exact(_)) => true,
        ("repository_owner", Want::Glob(pattern)) => rules::literal_prefix(pattern) == pattern,
        ("repository", Want::Glob(pattern)) => rules::literal_prefix(pattern).contains('/'),
        ("sub", Want::Glob(pattern)) => names_owner(rules::literal_prefix(pattern)),
        _ => false,
    }
}

/// Whether a subject's beginning says whose it is. Anybody can have their
/// repository's subjects made by a template, such as `ref:refs/heads/main`; each
/// part begins with its key, and `:` in values is escaped, so a subject that
/// begins with an owner or repository is that owner's or repository's.
fn names_owner(prefix: &str) -> bool {
    let Some((key, value)) = prefix.split_once(':') else { return false };
    match key {
        // `OWNER/…`, or with ids `OWNER@ID/…`.
        "repo" | "repository" => value.split_once('/').is_some_and(|(owner, _)| !owner.is_empty()),
        // Whole, that is, up to the next part: `octo` is not `octo-org`.
        "repository_owner" | "repository_owner_id" | "repository_id" => {
            value.split_once(':').is_some_and(|(owner, _)| !owner.is_empty())
        }
        _ => false,
    }
}

/// The run, as text and in the extensions that Fulcio defines for CI
/// (<https://github.com/sigstore/fulcio/blob/main/docs/oid-info.md>).
fn describe(server: &str, claims: &Map<String, Value>) -> Provenance {
    let of = |name: &str| text(claims, name);
    let under = |name: &str| match of(name) {
        "" => String::new(),
        path => format!("{server}/{path}"),
    };
    let attempt = if of("run_attempt").is_empty() { "1" } else { of("run_attempt") };
    let run = format!("{server}/{}/actions/runs/{}/attempts/{attempt}", of("repository"), of("run_id"));
    let fulcio = [
        (8, of("iss").to_owned()),
        (9, under("job_workflow_ref")),
        (10, of("job_workflow_sha").to_owned()),
        (11, of("runner_environment").to_owned()),
        (12, under("repository")),
        (13, of("sha").to_owned()),
        (14, of("ref").to_owned()),
        (15, of("repository_id").to_owned()),
        (16, under("repository_owner")),
        (17, of("repository_owner_id").to_owned()),
        (18, under("workflow_ref")),
        (19, of("workflow_sha").to_owned()),
        (20, of("event_name").to_owned()),
        (21, run),
        (22, of("repository_visibility").to_owned()),
    ];
    let line = format!("github:{}@{} run {} attempt {attempt}", of("repository"), of("ref"), of("run_id"));
    Provenance::new(&line, fulcio)
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
    Error::new(Kind::Proof, format!("this job may not ask GitHub for an OIDC token: {URL_VARIABLE} is not set"))
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
        for (host, slug) in
            [(Some("a/b"), None), (Some("https://a"), None), (None, Some("a/..")), (Some("a"), Some("b"))]
        {
            assert!(url(host, slug).is_err());
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
        let provenance = describe("https://github.com", claims.as_object().unwrap());
        assert_eq!(provenance.line, "github:o/r@refs/heads/main\\u{a} run 5 attempt 2");
        let url = "https://github.com/o/r/actions/runs/5/attempts/2".to_owned();
        assert!(provenance.fulcio.contains(&(21, url)));
        assert!(provenance.fulcio.iter().all(|(arc, text)| *arc != 10 && !text.is_empty()));
    }
}
