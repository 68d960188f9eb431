//! A join token for workers that stay: all that there is to it is a name.

use serde_json::Value;

use crate::join::example::{self, Example, ExampleRule, Named};

pub(super) static EXAMPLE: Example = Example { form: "NAME", read };

struct Workers(String);

fn read(words: &str, workflow: Option<&str>) -> Result<Box<dyn Named>, String> {
    if workflow.is_some() {
        return Err("workers have no workflow: leave `--workflow` out".to_owned());
    }
    let is_small = |b: u8| !b.is_ascii_uppercase();
    if !example::is_segment(words)
        || words.len() > 60
        || !words.bytes().all(is_small)
        || words.starts_with('_')
    {
        return Err(
            "it must be a name of at most 60 small letters, digits, `_`, `.` and `-`, as build-workers"
                .to_owned(),
        );
    }
    Ok(Box::new(Workers(words.to_owned())))
}

impl Named for Workers {
    fn name(&self) -> &str {
        &self.0
    }

    fn rule(&self, _: Option<&Value>) -> Result<ExampleRule, String> {
        Ok(ExampleRule {
            whom: "each worker that registers with a secret of yours".to_owned(),
            ..ExampleRule::default()
        })
    }
}
