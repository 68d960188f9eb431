//! Spacelift: an issuer for each account, a token for each run.

use serde_json::{Map, Value};

use super::handed_over::HandedOver;
use super::jwt::text;
use super::method::{Configured, Method};
use super::oidc::{Common, Oidc, TokenProfile, host};
use super::rules::{self, Constraint, Field, Guard, WORKFLOW};
use super::source::TokenSource;
use super::verify::Provenance;
use crate::document::{Mapping, Mistake};

/// The variable with a run's token.
const VARIABLE: &str = "SPACELIFT_OIDC_TOKEN";
/// The variable that marks a run.
const MARKER: &str = "TF_VAR_spacelift_run_id";
/// Spacelift's tokens live for an hour; two at most, in seconds.
const MAX_LIFETIME: i64 = 2 * 3600;

/// An account's own people alone name its spaces and stacks.
static FIELDS: &[Field] = &[
    Field::glob("space_id").claim("spaceId"),
    Field::glob("caller_id").claim("callerId").constrains(&[WORKFLOW]),
    Field::exact("caller_type").claim("callerType"),
    Field::exact("scope"),
    Field::exact("run_type").claim("runType"),
    Field::exact("run_id").claim("runId").constrains(&[WORKFLOW]),
    // `space:SPACE:stack:STACK:run_type:TYPE:scope:SCOPE`.
    Field::glob("sub")
        .constrains(&[Constraint::Workflow(|sub| rules::literal_prefix(sub).split(':').count() < 4)]),
];

/// Runs of what nobody has merged.
static GUARDS: &[Guard] = &[Guard {
    field: "run_type",
    claim: "runType",
    values: &["PROPOSED", "TESTING"],
    risk: "the run may be of a pull request that nobody has merged",
}];

/// The join method `spacelift`.
pub(super) static METHOD: Method = Method {
    detects: |env| env.get(MARKER).is_some() || env.get(VARIABLE).is_some(),
    source: |env| TokenSource::in_variable(env, &[VARIABLE]),
    telling: &["spaceId", "callerType", "callerId", "runType", "runId", "scope"],
    fields: FIELDS,
    guards: GUARDS,
    ..Method::new("spacelift", "Spacelift: stacks and modules", |job| HANDED_OVER.none(job), configure)
};

static HANDED_OVER: HandedOver = HandedOver {
    job: "a Spacelift run",
    marker: MARKER,
    is_one: |env| env.get(MARKER).is_some(),
    variable: VARIABLE,
    hints: |_| {
        vec![
            "runs of paid accounts have it; a container or `env -i` must pass it on".to_owned(),
            "the same token is in /mnt/workspace/spacelift.oidc, for --id-token-file".to_owned(),
        ]
    },
};

static PROFILE: TokenProfile = TokenProfile {
    // Documented as one text; Go's libraries write a list of one as readily.
    audience_in_list: true,
    // The type of run is guarded, so it must be there.
    ..TokenProfile::rs256(
        MAX_LIFETIME,
        &["sub", "spaceId", "callerType", "callerId", "runType", "runId", "scope"],
        describe,
    )
};

fn configure(mut section: Mapping<'_>) -> Configured {
    let host = host(section.need("hostname")?, "hostname")?.to_owned();
    // Spacelift's tokens have the account's host for an audience and no other:
    // what the run's other services are shown is the same token.
    let other_audience = section.boolean("accept_default_audience")?.then(|| host.clone());
    let globs = section.boolean("enable_glob_matching")?;
    let common = Common::read(section, FIELDS, GUARDS)?;
    rules::anchor(
        &common.rules,
        |condition| match condition.field.as_str() {
            "space_id" | "caller_id" => !rules::is_open(&condition.want.shown()),
            "sub" => names_space(&condition.want.shown()),
            _ => false,
        },
        "a rule does not say which space or stack may join",
        "add `space_id`, `caller_id` or `sub: space:SPACE:…`",
    )?;
    for rule in common.rules.iter().filter(|_| !globs) {
        let wild = |field: &str| matches!(field, "space_id" | "caller_id");
        let found = rule.conditions.iter().find(|c| wild(&c.field) && c.want.shown().contains(['*', '?']));
        if let Some(condition) = found {
            let message = format!("`{}` takes no wildcards without `enable_glob_matching`", condition.field);
            return Err(Mistake::new(rule.place, message)
                .hint("write `enable_glob_matching: true` beside `allow`")
                .into());
        }
    }
    let issuer = format!("https://{host}");
    Ok(Box::new(Oidc { other_audience, ..Oidc::new(&PROFILE, issuer, common) }))
}

/// Whether it is a subject that begins with a whole space.
fn names_space(pattern: &str) -> bool {
    let behind = rules::literal_prefix(pattern).strip_prefix("space:");
    behind.and_then(|rest| rest.split_once(':')).is_some_and(|(space, _)| !space.is_empty())
}

fn describe(server: &str, claims: &Map<String, Value>) -> Provenance {
    let of = |name: &str| text(claims, name);
    let caller = format!("{}/{}", of("callerType"), of("callerId"));
    let account = server.trim_start_matches("https://");
    Provenance::new(
        &format!("spacelift:{account}/{caller} run {} {}", of("runId"), of("runType")),
        [(8, of("iss").to_owned()), (21, format!("{server}/{caller}/run/{}", of("runId")))],
    )
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
        let provenance = describe("https://demo.app.spacelift.io", claims.as_object().unwrap());
        assert_eq!(provenance.line, "spacelift:demo.app.spacelift.io/stack/infra run r1 TRACKED");
        assert!(
            provenance.fulcio.contains(&(21, "https://demo.app.spacelift.io/stack/infra/run/r1".to_owned()))
        );
    }
}
