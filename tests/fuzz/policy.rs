//! Policy files: whatever is in one, reading it ends with a policy or with
//! mistakes that have a place, and a policy that loads can be linted and asked.
//!
//! The input is a policy file; what follows a line `%%` is another one.

#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};
use machine_id::authority::policy::{Policy, Source};
use serde_json::{Map, Value};

/// Claims that some of the corpus's rules let in.
const CLAIMS: &str = include_str!("../fixtures/join/github/claims.json");

fuzz_target!(|text: &str| -> Corpus {
    let sources: Vec<Source> = text
        .split_inclusive("\n%%\n")
        .enumerate()
        .map(|(index, text)| Source {
            name: format!("{index}.yaml"),
            text: text.strip_suffix("%%\n").unwrap_or(text).to_owned(),
        })
        .collect();
    if sources.is_empty() {
        // A folder without files has no place to name; whoever reads it has said so before.
        return Corpus::Reject;
    }
    match Policy::parse(&sources) {
        Ok(policy) => judge(&policy),
        Err(mistakes) => {
            assert!(!mistakes.is_empty(), "refused without a mistake");
            for mistake in mistakes {
                let said = mistake.to_string();
                let mut parts = said.splitn(4, ':');
                let (file, line) = (parts.next(), parts.next().and_then(|line| line.parse::<u64>().ok()));
                assert!(file.is_some_and(|file| file.ends_with(".yaml")) && line.is_some(), "{said}");
                assert!(!said.chars().any(char::is_control), "{said:?}");
            }
        }
    }
    Corpus::Keep
});

fn judge(policy: &Policy) {
    let claims: Map<String, Value> = serde_json::from_str(CLAIMS).expect("the fixture");
    for finding in policy.lint().findings {
        assert!(!finding.message.chars().any(char::is_control), "{:?}", finding.message);
    }
    for token in policy.tokens() {
        let rules = Policy::trial(token, &claims);
        // Registered workers are let in by what they are, and by no rule.
        assert!(rules.is_empty() == token.verifier.admits_all(), "a token without rules");
        for rule in rules.iter().filter(|rule| rule.admits) {
            assert!(!rule.trials.is_empty() && rule.trials.iter().all(|trial| trial.met), "{rule:?}");
        }
    }
}
