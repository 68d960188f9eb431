//! GitHub's subjects: `repo:OWNER/NAME:…`, with or without ids, and what
//! templates make in their place.

use crate::join::rules::{Saying, Shape, opened};

/// What templates can have in a subject and rules have as a field, beside the repository.
const KEYS: [&str; 15] = [
    "repository_id",
    "repository_owner",
    "repository_owner_id",
    "repository_visibility",
    "environment",
    "ref",
    "ref_type",
    "workflow",
    "workflow_ref",
    "job_workflow_ref",
    "actor",
    "actor_id",
    "event_name",
    "runner_environment",
    "enterprise",
];

/// What each part of it looks like, the fields say that the part is of. A
/// template can have any claim in front; `repo` is the only one without its name.
pub(super) const SHAPE: Shape = Shape::new(
    &[
        "repo:{named}/{named}",
        "repo:{named}/{named}:{small}",
        "repo:{named}/{named}:{small}:{any}",
        "repository{small}:{any}",
        "repository:{any}",
        "actor{any}",
        "enterprise{any}",
        "environment{any}",
        "event_name:{any}",
        "job_workflow_{any}",
        "ref{any}",
        "run{any}",
        "workflow{any}",
        "context:{any}",
    ],
    "it as the job's token has it, such as `repo:OWNER/NAME:ref:refs/heads/main` or `repo:OWNER/NAME:environment:ENVIRONMENT`",
);

/// What a subject says: `repo:OWNER/NAME:…`, with or without ids, or the
/// `KEY:VALUE`s of a template; `:` in values is escaped.
pub(super) fn says(sub: &str) -> Vec<Saying> {
    let mut said = Vec::new();
    let words: Vec<&str> = sub.split(':').collect();
    for pair in words.chunks(2) {
        // `pull_request` stands alone, and last.
        let [key, value] = pair else { break };
        let value = unescaped(value);
        if ["repo", "repository"].contains(key) {
            said.extend(of_repository(&value));
        } else if let Some(field) = KEYS.into_iter().find(|known| known == key) {
            said.push(Saying::new(field, &[&value]));
        }
    }
    // Without a template, a job with an environment has that there and nothing else.
    match behind_repository(sub) {
        Some("pull_request") => said.extend([
            Saying::new("environment", &[]),
            Saying::new("event_name", &["pull_request*"]),
            Saying::new("ref", &["refs/pull/*"]),
        ]),
        Some(behind) if behind.starts_with("ref:") && !behind.contains(":environment:") => {
            said.push(Saying::new("environment", &[]));
        }
        _ => {}
    }
    said
}

/// A value without its escapes. What a wildcard stands for can begin or end within one.
fn unescaped(value: &str) -> String {
    const WILD: [char; 2] = ['*', '?'];
    let plain = |text: &str| text.replace("%3A", ":");
    let (Some((begin, _)), Some((_, end))) = (value.split_once(WILD), value.rsplit_once(WILD)) else {
        return plain(value);
    };
    let begin = begin.strip_suffix("%3").or_else(|| begin.strip_suffix('%')).unwrap_or(begin);
    let end = end.strip_prefix("3A").or_else(|| end.strip_prefix('A')).unwrap_or(end);
    format!("{}*{}", plain(begin), plain(end))
}

/// `OWNER/NAME`, or `OWNER@ID/NAME@ID`. A wildcard may stand for an id too.
fn of_repository(value: &str) -> Vec<Saying> {
    let of = |text: &str| match text.split_once('@') {
        Some((name, id)) => (name.to_owned(), Some(id.to_owned())),
        None => (opened(text).unwrap_or_else(|| text.to_owned()), None),
    };
    let Some((owner, name)) = value.split_once('/') else { return Vec::new() };
    let ((owner, owner_id), (name, id)) = (of(owner), of(name));
    let ids = [("repository_owner_id", owner_id), ("repository_id", id)];
    [Saying::new("repository", &[&format!("{owner}/{name}")]), Saying::new("repository_owner", &[&owner])]
        .into_iter()
        .chain(ids.into_iter().filter_map(|(field, id)| Some(Saying::new(field, &[&id?]))))
        .collect()
}

fn behind_repository(sub: &str) -> Option<&str> {
    sub.strip_prefix("repo:")?.split_once(':').map(|(_, behind)| behind)
}

/// Which of GitHub's forms a subject has, and what to bind in its place.
pub(super) fn form(sub: &str) -> Option<String> {
    let (form, bind) = match behind_repository(sub) {
        Some("pull_request") => {
            ("a pull request, `repo:…:pull_request`", "`repository_id`, `event_name` and `ref`")
        }
        Some(behind) if behind.starts_with("environment:") => (
            "a job with an environment, which says no ref, `repo:…:environment:…`",
            "`repository_id`, `environment` and `ref`",
        ),
        Some(behind) if behind.starts_with("ref:refs/tags/") => {
            ("a tag, without an environment, `repo:…:ref:refs/tags/…`", "`repository_id` and `ref`")
        }
        Some(behind) if behind.starts_with("ref:refs/heads/") => {
            ("a branch, without an environment, `repo:…:ref:refs/heads/…`", "`repository_id` and `ref`")
        }
        _ => ("a template of the repository's or organisation's own", "the claims that it is made of"),
    };
    let owner = sub.split('/').next().and_then(|owner| owner.strip_prefix("repo:"));
    let ids = if owner.is_some_and(|owner| owner.contains('@')) { ", with ids behind the names" } else { "" };
    Some(format!("this job's `sub` has GitHub's form for {form}{ids}: in its place, rules can bind {bind}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;
    use crate::join::rules::overlap;

    #[test]
    fn each_form_is_told_with_what_to_bind() {
        for (sub, told) in [
            (
                "repo:o/r:environment:prod",
                "a job with an environment, which says no ref, `repo:…:environment:…`: in its place, rules can bind `repository_id`, `environment` and `ref`",
            ),
            (
                "repo:o/r:ref:refs/heads/main",
                "a branch, without an environment, `repo:…:ref:refs/heads/…`: in its place, rules can bind `repository_id` and `ref`",
            ),
            (
                "repo:o/r:ref:refs/tags/v1",
                "a tag, without an environment, `repo:…:ref:refs/tags/…`: in its place, rules can bind `repository_id` and `ref`",
            ),
            (
                "repo:o/r:pull_request",
                "a pull request, `repo:…:pull_request`: in its place, rules can bind `repository_id`, `event_name` and `ref`",
            ),
            (
                "repo:o@65/r@74:pull_request",
                "a pull request, `repo:…:pull_request`, with ids behind the names: in its place, rules can bind `repository_id`, `event_name` and `ref`",
            ),
            (
                "repo:o/r:workflow:x",
                "a template of the repository's or organisation's own: in its place, rules can bind the claims that it is made of",
            ),
            (
                "repository_owner:o:ref:refs/heads/main",
                "a template of the repository's or organisation's own: in its place, rules can bind the claims that it is made of",
            ),
        ] {
            assert_eq!(form(sub).unwrap(), format!("this job's `sub` has GitHub's form for {told}"), "{sub}");
        }
    }

    proptest! {
        /// Whatever covers an escaped value covers the value without its escapes.
        #[test]
        fn a_wildcard_may_begin_and_end_within_an_escape(value in "[a3A:]{0,6}", from: Index, to: Index, one: bool) {
            let escaped: Vec<char> = value.replace(':', "%3A").chars().collect();
            let (from, to) = (from.index(escaped.len() + 1), to.index(escaped.len() + 1));
            let (from, to) = (from.min(to), from.max(to));
            let wild = if one { "?".repeat(to - from) } else { "*".to_owned() };
            let pattern: String =
                escaped[..from].iter().copied().chain(wild.chars()).chain(escaped[to..].iter().copied()).collect();
            let read = unescaped(&pattern);
            prop_assert!(overlap(&read, &value), "{pattern} is {read}");
        }
    }
}
