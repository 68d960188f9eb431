//! A rule from a few words: what an operator calls one project's jobs, and the rule that lets in these and nobody
//! else. The platform is asked for what a name does not say; where it does not answer, the rule says how that is found.

use std::time::Duration;

use serde_json::Value;

use crate::net;
use crate::text::shown;

/// How long a platform is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest of its answers.
const MAX_ANSWER: usize = 256 << 10;
/// The branch of a project that nobody was asked about.
const USUAL_BRANCH: &str = "main";
/// What a rule without an id silences; it says so, and how the id is found.
pub(super) const WITHOUT_ID: &str = "mutable-names";

/// Reads the words, and the workflow that an option names. An error says what they must be.
pub type ReadWords = fn(&str, Option<&str>) -> Result<Box<dyn Named>, String>;

/// How one project's jobs are named in a few words, and what becomes of these.
#[derive(Debug)]
pub struct Example {
    /// The form of the words: `OWNER/REPO[@BRANCH]`.
    pub form: &'static str,
    /// See [`ReadWords`].
    pub read: ReadWords,
}

/// Whose jobs these are.
pub trait Named {
    /// What the resources for them are called by, such as the repository's name.
    fn name(&self) -> &str;

    /// Where the platform says more of it.
    fn url(&self) -> Option<String> {
        None
    }

    /// The rule for its jobs, with what the platform said if it did. An error says why that is no answer.
    fn rule(&self, answer: Option<&Value>) -> Result<ExampleRule, String>;
}

/// A rule, as a join token has it.
#[derive(Debug, Default)]
pub struct ExampleRule {
    /// Whom it lets in, in words.
    pub whom: String,
    /// The section of the join method in YAML, below its name; empty where it has none.
    pub section: String,
    /// The lints that the join token silences: each stands with what to do about it in the section.
    pub allow_lints: Vec<&'static str>,
    /// What it leaves open, in a sentence about it, where that cannot be known.
    pub leaves_open: Option<&'static str>,
    /// The fields that depend on whether the platform answered.
    pub asked_for: &'static [&'static str],
}

/// What a platform says there.
///
/// # Errors
/// Why that is nothing, for a person.
pub async fn ask(client: &reqwest::Client, url: &str) -> Result<Value, String> {
    let host = url.split('/').nth(2).unwrap_or_default();
    let asked = async {
        let response = net::send(client.get(url).header("Accept", "application/json")).await;
        let response = response.map_err(|why| why.to_string())?;
        match response.status().as_u16() {
            200 => {}
            301 | 302 | 307 | 308 => return Err("it has another name there by now".to_owned()),
            401 | 403 | 429 => {
                return Err("it does not say without a login, or was asked too often".to_owned());
            }
            404 => return Err("it is not there, or not for everybody to see".to_owned()),
            other => return Err(format!("status {other}")),
        }
        let body = net::body(response, MAX_ANSWER).await.map_err(|why| why.to_string())?;
        serde_json::from_slice(&body).map_err(|_| "the answer is not JSON".to_owned())
    };
    let late = |_| Err(format!("no answer within {} seconds", PATIENCE.as_secs()));
    tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(late).map_err(|why| format!("{host}: {why}"))
}

/// Takes `@BRANCH` from the end of the words.
pub(super) fn branch(words: &str) -> Result<(&str, Option<String>), String> {
    let Some((what, branch)) = words.split_once('@') else { return Ok((words, None)) };
    let branch = branch.strip_prefix("refs/heads/").unwrap_or(branch);
    if is_branch(branch) {
        Ok((what, Some(branch.to_owned())))
    } else {
        Err(format!("`{}` is not the name of a branch", shown(branch)))
    }
}

/// As Git has them (git-check-ref-format(1)), so that none is a pattern.
fn is_branch(name: &str) -> bool {
    let is_part = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock");
    let is_odd = |c: char| c.is_control() || c.is_whitespace() || "~^:?*[\\".contains(c);
    !name.contains(is_odd)
        && !name.contains("..")
        && !name.contains("@{")
        && !name.ends_with('.')
        && !name.starts_with(['-', '@'])
        && !name.starts_with("refs/")
        && name.len() <= 255
        && name.split('/').all(is_part)
}

/// The ref of that branch; of the project's default one where none was named and it is known.
pub(super) fn git_ref(named: Option<&str>, answered: Option<&Value>) -> (String, String) {
    let default = answered.and_then(|branch| branch.as_str()).filter(|branch| is_branch(branch));
    let branch = named.or(default).unwrap_or(USUAL_BRANCH).to_owned();
    (format!("refs/heads/{branch}"), branch)
}

/// A part of a project's path.
pub(super) fn is_segment(part: &str) -> bool {
    let is_letter = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    !part.is_empty()
        && part.len() <= 255
        && part.bytes().all(is_letter)
        && !part.starts_with(['-', '.'])
        && !part.ends_with('.')
        && !part.ends_with(".git")
}

/// A UUID in small letters.
pub(super) fn is_uuid(text: &str) -> bool {
    let is_digit = |b: u8| b == b'-' || b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    text.split('-').map(str::len).eq([8, 4, 4, 4, 12]) && text.bytes().all(is_digit)
}

/// An answer's id, as claims have it.
pub(super) fn id(answer: &Value) -> Result<String, String> {
    let id = answer.get("id").and_then(Value::as_u64).filter(|id| *id > 0);
    id.map(|id| id.to_string()).ok_or_else(|| "the answer has no id".to_owned())
}

/// The name in an answer, which is of what was asked for: capitals may be others than were typed.
pub(super) fn same_name(asked: &str, answer: &Value, key: &str) -> Result<String, String> {
    let name = answer.get(key).and_then(Value::as_str).unwrap_or_default();
    if name.eq_ignore_ascii_case(asked) {
        return Ok(name.to_owned());
    }
    Err(format!("the answer is about `{}`", shown(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_are_no_patterns() {
        for good in ["main", "release/1.x", "feature/a@b", "it's", "refs/heads/main", "ünïcode"] {
            assert!(branch(&format!("o/r@{good}")).is_ok(), "{good}");
        }
        assert_eq!(branch("o/r@refs/heads/main").unwrap(), ("o/r", Some("main".to_owned())));
        for bad in [
            "",
            "*",
            "release/*",
            "a?",
            "[a]",
            "a b",
            "a\nb",
            "refs/tags/v1",
            "a..b",
            "/a",
            "a/",
            "a//b",
            ".a",
            "a.lock",
            "a.",
            "-a",
            "a@{1}",
            "a:b",
            "a\\b",
            "@",
        ] {
            assert!(branch(&format!("o/r@{bad}")).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_default_branch_is_believed_only_as_a_name() {
        assert_eq!(git_ref(None, Some(&"*".into())).0, "refs/heads/main");
        assert_eq!(git_ref(None, Some(&"trunk".into())).0, "refs/heads/trunk");
        assert_eq!(git_ref(Some("dev"), Some(&"trunk".into())).0, "refs/heads/dev");
    }
}
