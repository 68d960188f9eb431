//! Spacelift: an issuer for each account, a token for each run.

use super::handed_over::HandedOver;
use super::method::{Configured, Method};
use super::oidc::{Oidc, TokenProfile, host};
use super::rules::{self, Condition, Constraint, Field, Grammar, NAME, OWNER, RUN_TYPE, Shape, WORKFLOW};
use crate::document::Mapping;

/// Of a stack or a module.
static SUBJECT: Grammar =
    Grammar::Forms(&["space:{space}:{type}:{caller}:run_type:{run_type}:scope:{scope}"]);

/// An account's own people alone name its spaces and stacks.
static FIELDS: &[Field] = &[
    Field::glob("space_id").claim("spaceId").constrains(&[OWNER]).shape(NAME),
    Field::glob("caller_id").claim("callerId").constrains(&[WORKFLOW, OWNER]),
    Field::exact("caller_type")
        .claim("callerType")
        .shape(Shape::new(&["stack", "module"], "`stack` or `module`")),
    Field::exact("scope").shape(Shape::new(&["read", "write"], "`read` or `write`")),
    Field::exact("run_type")
        .claim("runType")
        .guarded(&[RUN_TYPE])
        .shape(Shape::new(&["{capital}"], "the type in capitals, such as `TRACKED`")),
    Field::exact("run_id").claim("runId").constrains(&[WORKFLOW]).shape(NAME),
    Field::parted("sub", &SUBJECT)
        .constrains(&[
            Constraint::Workflow(|sub| SUBJECT.says(sub, "caller").is_none()),
            Constraint::Owner(|sub| SUBJECT.says(sub, "space").is_none()),
        ])
        .says(|sub| {
            let fields = [
                ("type", "caller_type"),
                ("space", "space_id"),
                ("caller", "caller_id"),
                ("run_type", "run_type"),
                ("scope", "scope"),
            ];
            rules::of_parts(&SUBJECT, sub, &fields)
        }),
];

/// The join method `spacelift`.
pub(super) static METHOD: Method = Method {
    detects: |env| HANDED_OVER.detects(env),
    source: |env| HANDED_OVER.source(env),
    telling: &["spaceId", "callerType", "callerId", "runType", "runId", "scope"],
    fields: FIELDS,
    issuers: &["https://*.spacelift.io"],
    job: &["TF_VAR_spacelift_run_id"],
    repositories: &["callerId"],
    runs: &["runId"],
    ..Method::new("spacelift", "Spacelift: stacks and modules", |job| HANDED_OVER.none(job), configure)
};

static HANDED_OVER: HandedOver = HandedOver {
    job: "a Spacelift run",
    marker: "TF_VAR_spacelift_run_id",
    variables: &["SPACELIFT_OIDC_TOKEN"],
    hints: &[
        "runs of paid accounts have it; a container or `env -i` must pass it on",
        "the same token is in /mnt/workspace/spacelift.oidc, for --id-token-file",
    ],
};

static PROFILE: TokenProfile = TokenProfile {
    // They live for one.
    max_lifetime: 2 * 3600,
    // Documented as one text; Go's libraries write a list of one as readily.
    // The type of run is guarded, so it must be there.
    required: &["sub", "spaceId", "callerType", "callerId", "runType", "runId", "scope"],
    ownerless: Some((
        "a rule does not say which space or stack may join",
        "add `space_id`, `caller_id` or `sub: space:SPACE:…`",
    )),
    run: "spacelift:{host}/{callerType}/{callerId} run {runId} {runType}",
    fulcio: &[(21, "{server}/{callerType}/{callerId}/run/{runId}")],
    ..TokenProfile::RS256
};

fn configure(mut section: Mapping<'_>) -> Configured {
    let host = host(section.need("hostname")?, "hostname")?;
    // Spacelift's tokens have the account's host for an audience and no other:
    // what the run's other services are shown is the same token.
    let other_audience = section.boolean("accept_default_audience")?.then(|| host.to_owned());
    let globs = section.boolean("enable_glob_matching")?;
    let oidc = Oidc { other_audience, ..Oidc::new(&PROFILE, format!("https://{host}")) };
    let wild = |condition: &Condition| {
        matches!(condition.field.as_str(), "space_id" | "caller_id")
            && rules::is_pattern(&condition.want.shown())
    };
    Ok(Box::new(oidc.read(FIELDS, section)?.refuse(
        |condition| !globs && wild(condition),
        "takes no wildcards without `enable_glob_matching`",
        "write `enable_glob_matching: true` beside `allow`",
    )?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_told() {
        for (section, message) in [
            ("{allow: [{space_id: root}]}", "spacelift lacks `hostname`"),
            ("{hostname: 'https://a', allow: [{space_id: root}]}", "`hostname` must be HOST or HOST:PORT"),
            ("{hostname: a, allow: [{scope: write}]}", "a rule does not say which space or stack may join"),
            (
                "{hostname: a, allow: [{space_id: 'r*'}]}",
                "`space_id` takes no wildcards without `enable_glob_matching`",
            ),
            (
                "{hostname: a, enable_glob_matching: true, allow: [{space_id: r, scope: 'w*'}]}",
                "`scope` takes no wildcards",
            ),
        ] {
            assert_eq!(METHOD.configured(section).unwrap_err().message, message, "{section}");
        }
        for good in ["space_id: 'r*'", "caller_id: '*-prod'", "sub: 'space:root:*'"] {
            let section = format!("{{hostname: a, enable_glob_matching: true, allow: [{{{good}}}]}}");
            assert!(METHOD.configured(&section).is_ok(), "{good}");
        }
        for bad in
            ["space_id: '*'", "caller_id: '?*'", "sub: '*'", "sub: 'space:*'", "sub: 'space:ro*'", "sub: x"]
        {
            let section = format!("{{hostname: a, enable_glob_matching: true, allow: [{{{bad}}}]}}");
            let message = METHOD.configured(&section).unwrap_err().message;
            assert_eq!(message, "a rule does not say which space or stack may join", "{bad}");
        }
    }

    #[test]
    fn provenance_names_the_run() {
        let claims = serde_json::json!({"iss": "https://demo.app.spacelift.io", "callerType": "stack", "callerId": "infra",
            "runId": "r1", "runType": "TRACKED"});
        let provenance = PROFILE.provenance("https://demo.app.spacelift.io", claims.as_object().unwrap());
        assert_eq!(provenance.line, "spacelift:demo.app.spacelift.io/stack/infra run r1 TRACKED");
        assert!(
            provenance.fulcio.contains(&(21, "https://demo.app.spacelift.io/stack/infra/run/r1".to_owned()))
        );
    }
}
