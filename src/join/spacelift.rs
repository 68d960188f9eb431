//! Spacelift: an issuer for each account, a token for each run.

use serde_json::{Map, Value};

use super::oidc::{Audience, Common, Describe, Oidc, extensions, host, require_texts, text};
use super::rules::{self, Field, Guard, Says};
use super::source::{self, Source};
use super::{BoxFuture, Job, JoinMethod, Presented, Provenance, Verifier};
use crate::document::{Mapping, Mistake};
use crate::environment::Environment;
use crate::error::Result;
use crate::text::shown;

/// The join method `spacelift`.
#[derive(Debug)]
pub struct Spacelift;

/// The variable with a run's token.
const VARIABLE: &str = "SPACELIFT_OIDC_TOKEN";
/// The variable that marks a run.
const MARKER: &str = "TF_VAR_spacelift_run_id";
/// Spacelift's tokens live for an hour; two at most, in seconds.
const MAX_LIFETIME: i64 = 2 * 3600;

const WHICH: Says = Says::Workflow { open: rules::is_open };

/// An account's own people alone name its spaces and stacks.
static FIELDS: &[Field] = &[
    Field::glob("space_id").claim("spaceId"),
    Field::glob("caller_id").claim("callerId").says(&[WHICH]),
    Field::exact("caller_type").claim("callerType"),
    Field::exact("scope"),
    Field::exact("run_type").claim("runType"),
    Field::exact("run_id").claim("runId").says(&[WHICH]),
    // `space:SPACE:stack:STACK:run_type:TYPE:scope:SCOPE`.
    Field::glob("sub")
        .says(&[Says::Workflow { open: |sub| rules::literal_prefix(sub).split(':').count() < 4 }]),
];

/// Runs of what nobody has merged.
static GUARDS: &[Guard] = &[Guard {
    field: "run_type",
    claim: "runType",
    values: &["PROPOSED", "TESTING"],
    risk: "the run may be of a pull request that nobody has merged",
}];

impl JoinMethod for Spacelift {
    fn name(&self) -> &'static str {
        "spacelift"
    }

    fn summary(&self) -> &'static str {
        "Spacelift: stacks and modules"
    }

    fn detects(&self, env: &Environment) -> bool {
        env.get(MARKER).is_some() || self.source(env).is_some()
    }

    fn source(&self, env: &Environment) -> Option<Source> {
        env.get(VARIABLE).map(|_| Source::variable(VARIABLE))
    }

    fn prove<'a>(&'a self, job: &'a Job<'a>) -> BoxFuture<'a, Result<Presented>> {
        let hints = [
            "runs of paid accounts have it; a container or `env -i` must pass it on".to_owned(),
            "the same token is in /mnt/workspace/spacelift.oidc, for --id-token-file".to_owned(),
        ];
        let is_one = job.env.get(MARKER).is_some();
        let error = source::gave_none("a Spacelift run", (is_one, MARKER), VARIABLE, hints);
        Box::pin(async move { Err(error) })
    }

    fn telling(&self) -> &'static [&'static str] {
        &["spaceId", "callerType", "callerId", "runType", "runId", "scope"]
    }

    fn fields(&self) -> &'static [Field] {
        FIELDS
    }

    fn guards(&self) -> &'static [Guard] {
        GUARDS
    }

    fn configure(&self, mut section: Mapping<'_>) -> Result<Box<dyn Verifier>, Mistake> {
        let host = host(section.need("hostname")?, "hostname")?.to_owned();
        // Spacelift's tokens have the account's host for an audience and no other:
        // what the run's other services are shown is the same token.
        let beside = section.boolean("accept_default_audience")?.then(|| host.clone());
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
            let found =
                rule.conditions.iter().find(|c| wild(&c.field) && c.want.shown().contains(['*', '?']));
            if let Some(condition) = found {
                let message =
                    format!("`{}` takes no wildcards without `enable_glob_matching`", condition.field);
                return Err(Mistake::new(rule.place, message)
                    .hint("write `enable_glob_matching: true` beside `allow`"));
            }
        }
        let issuer = format!("https://{host}");
        let provenance = Describe { server: issuer.clone(), describe };
        // Documented as one text; Go's libraries write a list of one as readily.
        let audience = Audience { beside, in_list: true, ..Audience::default() };
        Ok(Box::new(Oidc { audience, ..common.rs256(issuer, MAX_LIFETIME, check, provenance) }))
    }
}

/// Whether it is a subject that begins with a whole space.
fn names_space(pattern: &str) -> bool {
    let behind = rules::literal_prefix(pattern).strip_prefix("space:");
    behind.and_then(|rest| rest.split_once(':')).is_some_and(|(space, _)| !space.is_empty())
}

/// The type of run is guarded, so it must be there.
fn check(claims: &Map<String, Value>) -> Result<(), String> {
    require_texts(claims, &["sub", "spaceId", "callerType", "callerId", "runType", "runId", "scope"])
}

fn describe(server: &str, claims: &Map<String, Value>) -> Provenance {
    let of = |name: &str| text(claims, name);
    let caller = format!("{}/{}", of("callerType"), of("callerId"));
    let account = server.trim_start_matches("https://");
    Provenance {
        line: shown(&format!("spacelift:{account}/{caller} run {} {}", of("runId"), of("runType"))),
        fulcio: extensions([
            (8, of("iss").to_owned()),
            (21, format!("{server}/{caller}/run/{}", of("runId"))),
        ]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document;

    fn configure(section: &str) -> Result<Box<dyn Verifier>, Mistake> {
        let nodes = document::parse(section).unwrap();
        Spacelift.configure(nodes[0].mapping("spacelift").unwrap())
    }

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
            assert_eq!(configure(section).unwrap_err().message, message, "{section}");
        }
        for good in ["space_id: 'r*'", "caller_id: '*-prod'", "sub: 'space:root:*'"] {
            let section = format!("{{hostname: a, enable_glob_matching: true, allow: [{{{good}}}]}}");
            assert!(configure(&section).is_ok(), "{good}");
        }
        for bad in
            ["space_id: '*'", "caller_id: '?*'", "sub: '*'", "sub: 'space:*'", "sub: 'space:ro*'", "sub: x"]
        {
            let section = format!("{{hostname: a, enable_glob_matching: true, allow: [{{{bad}}}]}}");
            let message = configure(&section).unwrap_err().message;
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
