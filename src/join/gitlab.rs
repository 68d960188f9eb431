//! GitLab CI: gitlab.com and self-managed.

use serde_json::{Map, Value};

use super::handed_over::HandedOver;
use super::jwt::text;
use super::method::{Configured, Method};
use super::oidc::{Oidc, TokenProfile, host};
use super::rules::{
    self, CHOSEN_WORKFLOW, COMMIT, Constraint, Field, Grammar, KIND, Match, NUMBER, ONE_RUN, OWNER,
    PIPELINE_SOURCE, REF, SHORT_REF, Saying, Shape, URLS, WORKFLOW,
};
use crate::document::Mapping;

mod example;

use example::HOST;

const PROJECT: Constraint = Constraint::name(&["project_id", "namespace_id"]);
const JOB_PROJECT: Constraint = Constraint::name(&["job_project_id", "job_namespace_id"]);
const USER: Constraint = Constraint::name(&["user_id"]);
const IF_PROTECTED: Constraint = Constraint::Ref(|value| value != "true");

/// As projects may have it. Git takes no `:` in a ref.
static SUBJECT: Grammar = Grammar::Forms(&[
    "project_path:{project/}:ref_type:{type}:ref:{ref/}",
    "project_path:{project/}:ref:{ref/}:ref_type:{type}",
    "project_path:{project/}:ref:{ref/}",
    "project_path:{project/}:ref_type:{type}",
]);
/// The file of another host, or of another project, has other forms.
static CONFIG: Grammar = Grammar::Forms(&["{project*}//{file/}@refs/{ref/}"]);
/// `GROUP/…/PROJECT`.
static PATH: Grammar = Grammar::Separated('/', 2);
/// `GROUP/…`.
static NAMESPACE: Grammar = Grammar::Separated('/', 1);

const OF_PROJECT: Shape =
    Shape::new(&["{name}/{path}"], "`GROUP/PROJECT`, without the address of a server and without `.git`")
        .never(URLS);
const OF_GROUP: Shape =
    Shape::new(&["{path}"], "the group's path, such as `octo-group/platform`").never(&["*/", "/*"]);
const REF_PATHS: Shape = Shape::new(&["refs/{ref}"], "the full ref: `refs/heads/main` or `refs/tags/v1`")
    .never(&["refs/head/*", "refs/tag/*"]);
const DEFINITION: Shape = Shape::new(
    &["{host}/{path}//{any}@refs/{any}"],
    "`HOST/GROUP/PROJECT//FILE@REF`, the host in small letters and the ref in full",
)
.never(&["*://*"]);

/// Wildcards where Teleport has them and in names and refs; ids, kinds and hashes are exact.
static FIELDS: &[Field] = &[
    Field::parted("sub", &SUBJECT)
        .constrains(&[
            PROJECT,
            Constraint::Ref(|sub| SUBJECT.says(sub, "ref").is_none() || SUBJECT.says(sub, "type").is_none()),
            Constraint::Owner(|sub| !rules::names_part(sub, "project_path:", '/')),
        ])
        .says(|sub| {
            let fields = [("project", "project_path"), ("type", "ref_type"), ("ref", "ref")];
            rules::of_parts(&SUBJECT, sub, &fields)
        }),
    Field::parted("project_path", &PATH)
        .constrains(&[PROJECT, Constraint::Owner(|path| !rules::names_part(path, "", '/'))])
        .shape(OF_PROJECT)
        .says(|path| of_path("namespace_path", path)),
    Field::exact("project_id").constrains(&[OWNER]).shape(NUMBER),
    Field::parted("namespace_path", &NAMESPACE)
        .constrains(&[
            PROJECT,
            Constraint::Owner(|path| {
                rules::literal_prefix(path) != path && !rules::names_part(path, "", '/')
            }),
        ])
        .shape(OF_GROUP),
    Field::exact("namespace_id").constrains(&[OWNER]).shape(NUMBER),
    Field::exact("project_visibility")
        .shape(Shape::new(&["private", "internal", "public"], "`private`, `internal` or `public`")),
    Field::glob("ref").constrains(&[Constraint::RefName("ref_type")]).shape(SHORT_REF),
    Field::exact("ref_type").shape(Shape::new(&["branch", "tag"], "`branch` or `tag`")),
    Field::glob("ref_path").constrains(&[REF]).shape(REF_PATHS).says(of_ref_path),
    Field::new("ref_protected", Match::Boolean).constrains(&[IF_PROTECTED]),
    Field::exact("sha").constrains(&[REF]).shape(COMMIT),
    Field::exact("pipeline_source")
        .guarded(&[PIPELINE_SOURCE])
        .shape(KIND)
        // Nobody merges a tag.
        .says(|source| match source {
            "merge_request_event" | "external_pull_request_event" => {
                vec![Saying::new("ref_type", &["branch"])]
            }
            _ => Vec::new(),
        }),
    Field::exact("pipeline_id").constrains(ONE_RUN).shape(NUMBER),
    Field::exact("job_id").constrains(ONE_RUN).shape(NUMBER),
    Field::exact("job_source").shape(KIND),
    // Anybody who can push a branch can name an environment, unless it is protected.
    Field::glob("environment").constrains(&[CHOSEN_WORKFLOW]),
    Field::new("environment_protected", Match::Boolean).constrains(&[IF_PROTECTED]),
    Field::exact("environment_action").shape(KIND),
    Field::exact("deployment_tier").shape(KIND),
    Field::glob("user_login").constrains(&[USER]),
    Field::exact("user_id").shape(NUMBER),
    Field::exact("user_email").constrains(&[USER]),
    Field::exact("user_access_level").shape(KIND),
    Field::parted("ci_config_ref_uri", &CONFIG)
        .constrains(&[
            Constraint::Workflow(|uri| CONFIG.says(uri, "file").is_none()),
            Constraint::Ref(|uri| CONFIG.says(uri, "ref").is_none()),
        ])
        .shape(DEFINITION)
        .says(of_definition),
    Field::exact("ci_config_sha").constrains(&[WORKFLOW, REF]).shape(COMMIT),
    Field::exact("runner_environment")
        .shape(Shape::new(&["gitlab-hosted", "self-hosted"], "`gitlab-hosted` or `self-hosted`")),
    // Where the job runs, which for a fork's merge request is not whose code it is.
    Field::parted("job_project_path", &PATH)
        .constrains(&[JOB_PROJECT])
        .shape(OF_PROJECT)
        .says(|path| of_path("job_namespace_path", path)),
    Field::exact("job_project_id").shape(NUMBER),
    Field::parted("job_namespace_path", &NAMESPACE).constrains(&[JOB_PROJECT]).shape(OF_GROUP),
    Field::exact("job_namespace_id").shape(NUMBER),
];

/// The join method `gitlab`.
pub(super) static METHOD: Method = Method {
    detects: |env| env.is_true("GITLAB_CI"),
    source: |env| HANDED_OVER.source(env),
    telling: &[
        "project_path",
        "project_id",
        "namespace_path",
        "namespace_id",
        "ref",
        "ref_type",
        "ref_protected",
        "pipeline_source",
        "environment",
        "environment_protected",
        "ci_config_ref_uri",
        "runner_environment",
        "user_login",
        "pipeline_id",
        "job_id",
    ],
    fields: FIELDS,
    issuers: &["https://gitlab.com"],
    job: &["CI_JOB_ID", "CI_SERVER_URL"],
    repositories: &["project_path"],
    repository_ids: &["project_id"],
    runs: &["pipeline_id", "job_id"],
    example: Some(&example::EXAMPLE),
    ..Method::new("gitlab", "GitLab CI: gitlab.com and self-managed", |job| HANDED_OVER.none(job), configure)
};

static HANDED_OVER: HandedOver = HandedOver {
    job: "a GitLab job",
    marker: "GITLAB_CI",
    variables: &["MACHINE_ID_ID_TOKEN"],
    hints: &[
        "give the job one in .gitlab-ci.yml:\n    id_tokens:\n      MACHINE_ID_ID_TOKEN:\n        aud: {authority}",
        "a token under another name is handed over with --id-token-env NAME",
    ],
};

/// Everybody may have a project on gitlab.com, and a branch `main` in it.
static PROFILE: TokenProfile = TokenProfile {
    // A token lives as long as its job may run, by the project's timeout.
    max_lifetime: 24 * 3600,
    // `pipeline_source` is guarded, so it must be there.
    required: &[
        "sub",
        "project_path",
        "project_id",
        "namespace_path",
        "pipeline_source",
        "pipeline_id",
        "job_id",
    ],
    ownerless: Some((
        "a rule does not say whose projects may join",
        "add `project_path: GROUP/PROJECT`, `namespace_path: GROUP`, `project_id`, `namespace_id` or \
         `sub: project_path:GROUP/…`; wildcards only behind `GROUP/`",
    )),
    run: "gitlab:{project_path}@{git_ref} pipeline {pipeline_id} job {job_id}",
    fulcio: &[
        (9, "https://{ci_config_ref_uri}"),
        (10, "{ci_config_sha}"),
        (11, "{runner_environment}"),
        (12, "{server}/{project_path}"),
        (13, "{sha}"),
        (14, "{git_ref}"),
        (15, "{project_id}"),
        (16, "{server}/{namespace_path}"),
        (17, "{namespace_id}"),
        (18, "https://{ci_config_ref_uri}"),
        (19, "{ci_config_sha}"),
        (20, "{pipeline_source}"),
        (21, "{server}/{project_path}/-/jobs/{job_id}"),
        (22, "{project_visibility}"),
        (23, "{environment}"),
    ],
    derived: |claims| vec![("git_ref", git_ref(claims))],
    ..TokenProfile::RS256
};

fn configure(mut section: Mapping<'_>) -> Configured {
    let host = section.take("domain").map_or(Ok(HOST), |node| host(node, "domain"))?;
    // Where its pipelines' definitions are, with a port or without.
    let fixed = Some(("ci_config_ref_uri", format!("{}*", host.split(':').next().unwrap_or_default())));
    Ok(Box::new(Oidc { fixed, ..Oidc::new(&PROFILE, format!("https://{host}")) }.read(FIELDS, section)?))
}

/// Whose project it is: of one by its path, or of those that a pattern matches.
fn of_path(field: &'static str, path: &str) -> Vec<Saying> {
    let Some((namespace, name)) = path.rsplit_once('/') else { return Vec::new() };
    // A wildcard stands for `/` too, and then for groups below.
    let below = rules::opened(path).filter(|_| rules::is_pattern(name));
    let groups: Vec<&str> = [namespace].into_iter().chain(below.as_deref()).collect();
    vec![Saying::new(field, &groups)]
}

fn of_ref_path(path: &str) -> Vec<Saying> {
    let of = |kind, name| vec![Saying::new("ref_type", &[kind]), Saying::new("ref", &[name])];
    let branch = path.strip_prefix("refs/heads/").map(|name| of("branch", name));
    branch.or_else(|| path.strip_prefix("refs/tags/").map(|name| of("tag", name))).unwrap_or_default()
}

/// A definition of another project's has no such claim, so it is the job's own project and ref.
fn of_definition(uri: &str) -> Vec<Saying> {
    let said = rules::of_parts(&CONFIG, uri, &[("project", "project_path"), ("ref", "ref_path")]);
    let one = |said: Saying| match (said.field, said.one_of.as_slice()) {
        ("project_path", [project]) => {
            let named = project.split_once('/').filter(|(host, _)| !rules::is_pattern(host));
            named.map(|(_, path)| Saying::new("project_path", &[path])).into_iter().collect()
        }
        (_, [of]) => {
            let path = format!("refs/{of}");
            [Saying::new("ref_path", &[&path])].into_iter().chain(of_ref_path(&path)).collect()
        }
        _ => Vec::new(),
    };
    said.into_iter().flat_map(one).collect()
}

fn git_ref(claims: &Map<String, Value>) -> String {
    match text(claims, "ref_type") {
        "branch" => format!("refs/heads/{}", text(claims, "ref")),
        "tag" => format!("refs/tags/{}", text(claims, "ref")),
        _ => text(claims, "ref_path").to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_says_whose_projects() {
        for good in [
            "project_path: g/p",
            "project_path: 'g/*'",
            "project_id: '7'",
            "namespace_path: g",
            "namespace_path: 'g/*'",
            "namespace_id: '7'",
            "sub: 'project_path:g/p:ref_type:branch:ref:*'",
        ] {
            assert!(METHOD.configured(&format!("allow: [{{{good}}}]")).is_ok(), "{good}");
        }
        for bad in [
            "ref: main",
            "project_path: '*'",
            "project_path: 'g*'",
            "project_path: 'g*/p'",
            "project_path: '/p'",
            "namespace_path: 'g*'",
            "sub: 'project_path:*'",
            "sub: '*'",
            "sub: 'ref:main'",
            "user_login: root",
            "job_project_id: '7'",
            "ci_config_ref_uri: 'gitlab.com/g/p//.gitlab-ci.yml@refs/heads/main'",
        ] {
            let mistake = METHOD.configured(&format!("allow: [{{{bad}}}]")).unwrap_err();
            assert_eq!(mistake.message, "a rule does not say whose projects may join", "{bad}");
        }
    }

    #[test]
    fn mistakes_are_told() {
        for (section, message) in [
            ("{}", "gitlab lacks `allow`"),
            ("{domain: 'https://g', allow: [{project_id: '7'}]}", "`domain` must be HOST or HOST:PORT"),
            ("{domain: '', allow: [{project_id: '7'}]}", "`domain` is empty"),
            ("{domain: 'g:', allow: [{project_id: '7'}]}", "`domain` must be HOST or HOST:PORT"),
            ("{domain: 'g:x', allow: [{project_id: '7'}]}", "`domain` must be HOST or HOST:PORT"),
            ("{domain: 'g:99999', allow: [{project_id: '7'}]}", "`domain` must be HOST or HOST:PORT"),
            ("{domain: '::1', allow: [{project_id: '7'}]}", "`domain` must be HOST or HOST:PORT"),
            (
                "{static_jwks: 'https://gitlab.com/oauth/discovery/keys', allow: [{project_id: '7'}]}",
                "`static_jwks` is not a key set: it is not JSON",
            ),
            ("allow: [{project_path: g/p, ref_type: 'b*'}]", "`ref_type` takes no wildcards"),
            ("allow: [{project_path: g/p, project: 7}]", "a rule has no `project`"),
        ] {
            assert_eq!(METHOD.configured(section).unwrap_err().message, message, "{section}");
        }
    }

    #[test]
    fn provenance_names_the_job() {
        let claims = serde_json::json!({"iss": "https://gitlab.com", "project_path": "g/s/p", "ref": "v1", "ref_type": "tag",
            "pipeline_id": "5", "job_id": "6", "environment": "prod", "ci_config_ref_uri": null});
        let provenance = PROFILE.provenance("https://gitlab.com", claims.as_object().unwrap());
        assert_eq!(provenance.line, "gitlab:g/s/p@refs/tags/v1 pipeline 5 job 6");
        assert!(provenance.fulcio.contains(&(21, "https://gitlab.com/g/s/p/-/jobs/6".to_owned())));
        assert!(provenance.fulcio.contains(&(23, "prod".to_owned())));
        assert!(provenance.fulcio.iter().all(|(arc, _)| ![9, 18, 22].contains(arc)));
    }
}
