//! A rule for one repository's deployments from `OWNER/REPO[@BRANCH]`.

use serde_json::Value;

use crate::document::written;
use crate::join::example::{self, Example, ExampleRule, Named, WITHOUT_ID};

pub(super) static EXAMPLE: Example = Example { form: "OWNER/REPO[@BRANCH]", read };

/// The folder of all workflows.
const FOLDER: &str = ".github/workflows/";
/// The file of the workflow, where none is named.
const USUAL_FILE: &str = "deploy.yml";
/// The events for which a workflow runs because its people want it to: others are theirs to add.
const EVENTS: &[(&str, &str)] = &[
    (
        "push",
        "Of the repository itself and no fork, that branch and no pull request, that file and no other workflow.",
    ),
    ("workflow_dispatch", "The same started by hand. For `schedule`, say, add another entry like it."),
];

struct Repository {
    path: String,
    name: String,
    branch: Option<String>,
    file: String,
}

fn read(words: &str, workflow: Option<&str>) -> Result<Box<dyn Named>, String> {
    let (path, branch) = example::branch(words)?;
    let parts =
        path.split_once('/').filter(|(owner, name)| example::is_segment(owner) && example::is_segment(name));
    let (_, name) = parts.ok_or("it must be OWNER/REPO or OWNER/REPO@BRANCH, as octo-org/app@main")?;
    let file = workflow.unwrap_or(USUAL_FILE);
    let file = file.strip_prefix(FOLDER).unwrap_or(file);
    if !example::is_segment(file) || !(file.ends_with(".yml") || file.ends_with(".yaml")) {
        return Err(format!("`--workflow` must be a file of {FOLDER}, as {USUAL_FILE}"));
    }
    Ok(Box::new(Repository { path: path.to_owned(), name: name.to_owned(), branch, file: file.to_owned() }))
}

impl Named for Repository {
    fn name(&self) -> &str {
        &self.name
    }

    fn url(&self) -> Option<String> {
        Some(format!("https://api.github.com/repos/{}", self.path))
    }

    fn rule(&self, answer: Option<&Value>) -> Result<ExampleRule, String> {
        let id = answer.map(example::id).transpose()?;
        let path = answer.map(|answer| example::same_name(&self.path, answer, "full_name")).transpose()?;
        let path = path.unwrap_or_else(|| self.path.clone());
        let default = answer.and_then(|answer| answer.get("default_branch"));
        let (git_ref, branch) = example::git_ref(self.branch.as_deref(), default);
        let repository_id = match &id {
            Some(id) => format!("repository_id: '{id}'  # a name can change hands, an id does not"),
            None => format!(
                "# repository_id: 'ID'  # as `gh api repos/{path} --jq .id` prints it; then take `{WITHOUT_ID}` out above"
            ),
        };
        let entry = |(event, why): &(&str, &str)| {
            format!(
                "      # {why}\n      - repository: {}\n        {repository_id}\n        ref: {}\n        \
                 workflow_ref: {}\n        event_name: {event}\n",
                written(&path),
                written(&git_ref),
                written(&format!("{path}/{FOLDER}{}@{git_ref}", self.file)),
            )
        };
        Ok(ExampleRule {
            whom: format!("jobs of {path}, workflow {} on branch {branch}", self.file),
            section: format!(
                "    # A token that somebody reads in a log is worth nothing without the keys of its job.\n    \
                 require_key_binding: true\n    allow:\n{}",
                EVENTS.iter().map(entry).collect::<String>()
            ),
            allow_lints: if id.is_none() { vec![WITHOUT_ID] } else { Vec::new() },
            asked_for: &["repository_id"],
            leaves_open: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_a_repository_or_a_mistake() {
        for good in ["octo-org/app", "o/a.b_c-d@release/1", "user_emu/x"] {
            assert!(read(good, None).is_ok(), "{good}");
        }
        for bad in [
            "",
            "app",
            "a/b/c",
            "octo-org/*",
            "*/app",
            "o/",
            "/r",
            "o/r@",
            "o/r@*",
            "https://github.com/o/r",
            "o/r.git",
            "o/r'x",
            "o/..",
        ] {
            assert!(read(bad, None).is_err(), "{bad}");
        }
        for (file, is_good) in [
            ("x.yaml", true),
            (".github/workflows/x.yml", true),
            ("*.yml", false),
            ("a/b.yml", false),
            ("x", false),
        ] {
            assert_eq!(read("o/r", Some(file)).is_ok(), is_good, "{file}");
        }
    }

    #[test]
    fn an_answer_about_another_is_none() {
        let asked = read("Octo-Org/App", None).unwrap();
        let answer = |name: &str| serde_json::json!({"full_name": name, "id": 7, "default_branch": "trunk"});
        let rule = asked.rule(Some(&answer("octo-org/app"))).unwrap();
        assert_eq!(rule.whom, "jobs of octo-org/app, workflow deploy.yml on branch trunk");
        assert!(asked.rule(Some(&answer("evil/app"))).is_err());
        assert!(asked.rule(Some(&serde_json::json!({"full_name": "octo-org/app", "id": "7\n"}))).is_err());
    }
}
