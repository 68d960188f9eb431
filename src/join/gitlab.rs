//! GitLab CI: gitlab.com and self-managed.

use serde_json::{Map, Value};

use super::handed_over::HandedOver;
use super::jwt::text;
use super::method::{Configured, Method};
use super::oidc::{Oidc, TokenProfile, host};
use super::rules::{
    self, CHOSEN_WORKFLOW, Constraint, Field, Grammar, Match, ONE_RUN, OWNER, PIPELINE_SOURCE, REF, WORKFLOW,
};
use crate::document::Mapping;

/// The host of GitLab's own service.
const HOST: &str = "gitlab.com";

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

/// Wildcards where Teleport has them and in names and refs; ids, kinds and hashes are exact.
static FIELDS: &[Field] = &[
    Field::parted("sub", &SUBJECT).constrains(&[
        PROJECT,
        Constraint::Ref(|sub| SUBJECT.says(sub, "ref").is_none() || SUBJECT.says(sub, "type").is_none()),
        Constraint::Owner(|sub| !rules::names_part(sub, "project_path:", '/')),
    ]),
    Field::parted("project_path", &PATH)
        .constrains(&[PROJECT, Constraint::Owner(|path| !rules::names_part(path, "", '/'))]),
    Field::exact("project_id").constrains(&[OWNER]),
    Field::parted("namespace_path", &NAMESPACE).constrains(&[
        PROJECT,
        Constraint::Owner(|path| rules::literal_prefix(path) != path && !rules::names_part(path, "", '/')),
    ]),
    Field::exact("namespace_id").constrains(&[OWNER]),
    Field::exact("project_visibility"),
    Field::glob("ref").constrains(&[Constraint::RefName("ref_type")]),
    Field::exact("ref_type"),
    Field::glob("ref_path").constrains(&[REF]),
    Field::new("ref_protected", Match::Boolean).constrains(&[IF_PROTECTED]),
    Field::exact("sha").constrains(&[REF]),
    Field::exact("pipeline_source").guarded(&[PIPELINE_SOURCE]),
    Field::exact("pipeline_id").constrains(ONE_RUN),
    Field::exact("job_id").constrains(ONE_RUN),
    Field::exact("job_source"),
    // Anybody who can push a branch can name an environment, unless it is protected.
    Field::glob("environment").constrains(&[CHOSEN_WORKFLOW]),
    Field::new("environment_protected", Match::Boolean).constrains(&[IF_PROTECTED]),
    Field::exact("environment_action"),
    Field::exact("deployment_tier"),
    Field::glob("user_login").constrains(&[USER]),
    Field::exact("user_id"),
    Field::exact("user_email").constrains(&[USER]),
    Field::exact("user_access_level"),
    Field::parted("ci_config_ref_uri", &CONFIG).constrains(&[
        Constraint::Workflow(|uri| CONFIG.says(uri, "file").is_none()),
        Constraint::Ref(|uri| CONFIG.says(uri, "ref").is_none()),
    ]),
    Field::exact("ci_config_sha").constrains(&[WORKFLOW, REF]),
    Field::exact("runner_environment"),
    // Where the job runs, which for a fork's merge request is not whose code it is.
    Field::parted("job_project_path", &PATH).constrains(&[JOB_PROJECT]),
    Field::exact("job_project_id"),
    Field::parted("job_namespace_path", &NAMESPACE).constrains(&[JOB_PROJECT]),
    Field::exact("job_namespace_id"),
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
    ],
    derived: |claims| vec![("git_ref", git_ref(claims))],
    ..TokenProfile::RS256
};

fn configure(mut section: Mapping<'_>) -> Configured {
    let host = section.take("domain").map_or(Ok(HOST), |node| host(node, "domain"))?;
    Ok(Box::new(Oidc::new(&PROFILE, format!("https://{host}")).read(FIELDS, section)?))
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
            ("allow: [{project_path: g/p, ref_type: 'b*'}]", "`ref_type` takes no wildcards"),
            ("allow: [{project_path: g/p, project: 7}]", "a rule has no `project`"),
        ] {
            assert_eq!(METHOD.configured(section).unwrap_err().message, message, "{section}");
        }
    }

    #[test]
    fn provenance_names_the_job() {
        let claims = serde_json::json!({"iss": "https://gitlab.com", "project_path": "g/s/p", "ref": "v1", "ref_type": "tag",
            "pipeline_id": "5", "job_id": "6", "ci_config_ref_uri": null});
        let provenance = PROFILE.provenance("https://gitlab.com", claims.as_object().unwrap());
        assert_eq!(provenance.line, "gitlab:g/s/p@refs/tags/v1 pipeline 5 job 6");
        assert!(provenance.fulcio.contains(&(21, "https://gitlab.com/g/s/p/-/jobs/6".to_owned())));
        assert!(provenance.fulcio.iter().all(|(arc, _)| ![9, 18, 22].contains(arc)));
    }
}
