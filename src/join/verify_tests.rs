//! Properties of the line that says which run a certificate is of, of every method.

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value};

use super::{Provenance, Verifier};
use crate::join;

/// What makes two runs of a method's jobs two.
#[derive(Clone, Copy, Debug)]
struct RunIds {
    method: &'static str,
    section: &'static str,
    /// Claims, as JSON pointers.
    ids: &'static [&'static str],
    /// Where they stand among the words of the line: from its front, or behind its end.
    places: &'static [isize],
}

const ORGANIZATION: &str =
    "{organization_id: 3f1c2a54-7f0f-4f0b-9d5e-2b6f3a1c8d10, allow: [{project_id: x}]}";
const RUNS: &[RunIds] = &[
    RunIds {
        method: "github",
        section: "allow: [{repository: o/r}]",
        ids: &["/run_id", "/run_attempt"],
        places: &[2, 4],
    },
    RunIds {
        method: "circleci",
        section: ORGANIZATION,
        ids: &["/oidc.circleci.com~1workflow-id", "/oidc.circleci.com~1job-id"],
        places: &[-3, -1],
    },
    RunIds {
        method: "gitlab",
        section: "allow: [{project_path: g/p}]",
        ids: &["/pipeline_id", "/job_id"],
        places: &[2, 4],
    },
    RunIds {
        method: "buildkite",
        section: "allow: [{organization_slug: a, pipeline_slug: b}]",
        ids: &["/job_id"],
        places: &[4],
    },
    RunIds {
        method: "bitbucket",
        section: "{identity_provider_url: 'https://x/oidc', allow: [{repository_uuid: '{x}'}]}",
        ids: &["/pipelineUuid", "/stepUuid"],
        places: &[2, 4],
    },
    RunIds { method: "azure-devops", section: ORGANIZATION, ids: &["/run_id"], places: &[2] },
    RunIds {
        method: "spacelift",
        section: "{hostname: x.app.spacelift.io, allow: [{caller_id: x}]}",
        ids: &["/runId"],
        places: &[2],
    },
    RunIds {
        method: "terraform_cloud",
        section: "allow: [{organization_id: o, workspace_id: w}]",
        ids: &["/terraform_run_id"],
        places: &[2],
    },
    RunIds {
        method: "iam",
        section: "allow: [{aws_account: '123456789012'}]",
        ids: &["/aws_arn"],
        places: &[0],
    },
    RunIds { method: "token", section: "{}", ids: &["/iss"], places: &[2] },
    RunIds {
        method: "oidc",
        section: "{issuer: 'https://x', allow: [{claims: {sub: x}}]}",
        ids: &["/sub"],
        places: &[1],
    },
    RunIds {
        method: "kubernetes",
        section: "{type: oidc, oidc: {issuer: 'https://x'}, allow: [{namespace: x}]}",
        ids: &["/kubernetes.io/pod/name"],
        places: &[2],
    },
];

impl RunIds {
    fn verifier(&self) -> Box<dyn Verifier> {
        join::find(self.method).unwrap().configured(self.section).unwrap()
    }

    /// The claims of its fixture, every text in them another, but for its ids.
    fn claims(&self, texts: &[String], ids: &[String]) -> Map<String, Value> {
        let path = format!("{}/tests/fixtures/join/{}/claims.json", env!("CARGO_MANIFEST_DIR"), self.method);
        let mut claims: Value = std::fs::read(path)
            .map_or_else(|_| Map::new().into(), |json| serde_json::from_slice(&json).unwrap());
        replace(&mut claims, &mut texts.iter().cycle());
        for (pointer, id) in self.ids.iter().zip(ids) {
            match claims.pointer_mut(pointer) {
                Some(claim) => *claim = id.as_str().into(),
                None => claims[&pointer[1..]] = id.as_str().into(),
            }
        }
        claims.as_object().unwrap().clone()
    }

    /// The line of those claims.
    fn line(&self, texts: &[String], ids: &[String]) -> String {
        let Provenance { line, .. } = self.verifier().provenance(&self.claims(texts, ids), "a-join-token");
        line
    }

    /// The ids, from a line.
    fn read<'l>(&self, line: &'l str) -> Vec<&'l str> {
        let words: Vec<&str> = line.split(' ').collect();
        let behind = |place: &isize| words[words.len() - place.unsigned_abs()];
        let word =
            |place: &isize| usize::try_from(*place).map_or_else(|_| behind(place), |front| words[front]);
        let bare = |word: &'l str| word.strip_prefix("iam:").unwrap_or(word);
        self.places.iter().map(word).map(bare).collect()
    }
}

fn replace<'t>(value: &mut Value, texts: &mut impl Iterator<Item = &'t String>) {
    match value {
        Value::String(text) => text.clone_from(texts.next().unwrap()),
        Value::Object(map) => map.values_mut().for_each(|value| replace(value, texts)),
        _ => {}
    }
}

/// Text that wants to be taken for something else: of the template's words, of spaces, of escapes, and of anything.
fn hostile() -> impl Strategy<Value = String> {
    let pieces = [
        " ",
        "\u{a0}",
        "\u{2003}",
        "\u{3000}",
        "\u{2028}",
        "\u{200b}",
        "\u{feff}",
        "\u{202e}",
        "\n",
        "run",
        "job",
        "5",
        "attempt",
        "pipeline",
        "build",
        "workflow",
        "step",
        "pod",
        "node",
        "instance",
        "generation",
        "github:o/r",
        "@refs/heads/main",
        "/",
        ":",
        "\\u{20}",
        "\\",
        "…",
        "{run_id}",
        "[",
        "]",
        "|",
        "##[error]",
    ];
    let long = "long".repeat(100);
    let woven = prop::collection::vec(select(pieces.to_vec()), 0..12).prop_map(|pieces| pieces.concat());
    prop_oneof![4 => woven, 1 => ".{0,40}", 1 => Just(long.clone()), 1 => "\\PC{1,3}".prop_map(move |end| long.clone() + &end)]
}

fn texts() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(hostile(), 1..8)
}

/// Ids as platforms have them.
fn ids() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec("[A-Za-z0-9{][A-Za-z0-9:/_.}-]{0,80}", 2)
}

#[test]
fn every_method_says_which_run() {
    let mut named: Vec<&str> = RUNS.iter().map(|run| run.method).collect();
    let mut methods = join::names();
    named.sort_unstable();
    methods.sort_unstable();
    assert_eq!(named, methods);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_run_is_read_back_whatever_the_other_claims(run in select(RUNS), texts in texts(), ids in ids()) {
        let line = run.line(&texts, &ids);
        let ids: Vec<&str> = ids.iter().take(run.ids.len()).map(String::as_str).collect();
        prop_assert_eq!(run.read(&line), ids, "{}", line);
    }

    #[test]
    fn two_runs_never_have_one_line(
        run in select(RUNS),
        texts in [texts(), texts()],
        ids in [[hostile(), hostile()], [hostile(), hostile()]],
    ) {
        let [first, second] = [0, 1].map(|n| ids[n][..run.ids.len()].to_vec());
        let is_whole = first.iter().chain(&second).all(|id| !id.is_empty());
        prop_assume!(is_whole && first != second);
        prop_assert_ne!(run.line(&texts[0], &first), run.line(&texts[1], &second));
    }

    #[test]
    fn a_line_is_short_and_of_plain_words(run in select(RUNS), texts in texts(), ids in [hostile(), hostile()]) {
        let line = run.line(&texts, &ids);
        prop_assert!(line.len() <= 4 * 192 + 64, "{} {}", line.len(), line);
        prop_assert!(line.chars().all(|c| c == ' ' || c == '…' || c.is_ascii_graphic()), "{}", line);
    }
}
