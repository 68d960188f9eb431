//! What `authority doctor` says of one thing.

use serde_json::{Value, json};

use crate::error::{Error, Kind};

/// What becomes of the exit code by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Ok,
    /// Worth a word, and nothing wrong.
    Note,
    Finding,
    /// What is not here was not reached, and may be sound.
    Unreached,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Finding => "finding",
            Self::Unreached => "unreached",
        }
    }
}

/// What there is to say of one thing.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) about: &'static str,
    pub(super) verdict: Verdict,
    message: String,
    hints: Vec<String>,
}

impl Told {
    pub(super) fn new(about: &'static str, verdict: Verdict, message: impl Into<String>) -> Self {
        Self { about, verdict, message: message.into(), hints: Vec::new() }
    }

    /// Of what ends a command elsewhere.
    pub(super) fn error(about: &'static str, error: &Error) -> Self {
        let verdict = if error.kind() == Kind::Unreachable { Verdict::Unreached } else { Verdict::Finding };
        Self { about, verdict, message: error.to_string(), hints: error.hints().to_vec() }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    pub(super) fn text(&self) -> String {
        let hints = self.hints.iter().map(|hint| format!("  hint: {}\n", hint.replace('\n', "\n        ")));
        format!("{}: {}: {}\n{}", self.verdict.word(), self.about, self.message, hints.collect::<String>())
    }

    pub(super) fn json(&self) -> Value {
        let Self { about, verdict, message, hints } = self;
        json!({"about": about, "verdict": verdict.word(), "message": message, "hints": hints})
    }
}
