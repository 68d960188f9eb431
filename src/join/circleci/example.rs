//! A rule for one project's deployments from `ORG_ID/PROJECT_ID[/HOST/OWNER/REPO][@BRANCH]`.

use serde_json::Value;

use crate::document::written;
use crate::join::example::{self, Example, ExampleRule, Named};

pub(super) static EXAMPLE: Example = Example { form: "ORG_ID/PROJECT_ID[/HOST/OWNER/REPO][@BRANCH]", read };

/// What a rule silences that does not say by what its pipelines are defined.
const ANY_PIPELINE: &str = "any-workflow";

struct Project {
    organization: String,
    project: String,
    /// Where its commits come from.
    origin: Option<String>,
    branch: Option<String>,
    definition: Option<String>,
}

fn read(words: &str, workflow: Option<&str>) -> Result<Box<dyn Named>, String> {
    let (whole, branch) = example::branch(words)?;
    let mut parts = whole.splitn(3, '/');
    let [organization, project] =
        [parts.next(), parts.next()].map(|id| id.unwrap_or_default().to_ascii_lowercase());
    let origin = parts.next();
    if ![&organization, &project].into_iter().all(|id| example::is_uuid(id)) || !origin.is_none_or(is_origin)
    {
        return Err(
            "it must be ORG_ID/PROJECT_ID, two UUIDs from the settings of organization and project, \
                    perhaps /HOST/OWNER/REPO, and @BRANCH"
                .to_owned(),
        );
    }
    let definition = workflow.map(str::to_ascii_lowercase);
    if !definition.as_deref().is_none_or(example::is_uuid) {
        return Err(
            "`--workflow` must be the id of a pipeline definition, a UUID from the project's settings"
                .to_owned(),
        );
    }
    let origin = origin.map(str::to_owned);
    Ok(Box::new(Project { organization, project, origin, branch, definition }))
}

/// `HOST/OWNER/REPO`.
fn is_origin(text: &str) -> bool {
    text.split('/').count() == 3 && text.split('/').all(example::is_segment)
}

impl Named for Project {
    fn name(&self) -> &str {
        let last = self.origin.as_deref().and_then(|origin| origin.rsplit('/').next());
        last.or_else(|| self.project.get(..8)).unwrap_or_default()
    }

    fn url(&self) -> Option<String> {
        let (organization, project) = (&self.organization, &self.project);
        Some(format!("https://circleci.com/api/v2/project/circleci/{organization}/{project}"))
    }

    fn rule(&self, answer: Option<&Value>) -> Result<ExampleRule, String> {
        if let Some(answer) = answer {
            example::same_name(&self.project, answer, "id")?;
        }
        let said = |key: &str| answer.and_then(|answer| answer.get("vcs_info")?.get(key));
        let url = said("vcs_url")
            .and_then(|url| url.as_str()?.strip_prefix("https://"))
            .filter(|url| is_origin(url));
        let origin = self.origin.clone().or_else(|| url.map(str::to_owned));
        let (git_ref, branch) = example::git_ref(self.branch.as_deref(), said("default_branch"));
        let leaves_open = origin.is_none().then_some(
            "the rule lets in forks' jobs too where the project passes secrets to them, until it has a `vcs_origin`",
        );
        let origin = match origin {
            Some(origin) => format!("vcs_origin: {}  # where the project passes secrets to forks, not theirs", written(&origin)),
            None => "# vcs_origin: HOST/OWNER/REPO  # without it, also forks' where the project passes secrets to them"
                .to_owned(),
        };
        let definition = match &self.definition {
            Some(id) => format!("pipeline_definition_id: {}", written(id)),
            None => format!(
                "# pipeline_definition_id: 'ID'  # from the project's settings, under Project Setup; then take `{ANY_PIPELINE}` out above"
            ),
        };
        Ok(ExampleRule {
            whom: format!("jobs of project {} on branch {branch}", self.project),
            section: format!(
                "    organization_id: {}\n    \
                 # A token that somebody reads in a log is worth nothing without the keys of its job.\n    \
                 require_key_binding: true\n    allow:\n      \
                 # Of that project and branch; of a re-run with SSH, none.\n      - project_id: {}\n        {origin}\n        \
                 vcs_ref: {}\n        {definition}\n",
                written(&self.organization),
                written(&self.project),
                written(&git_ref),
            ),
            allow_lints: if self.definition.is_none() { vec![ANY_PIPELINE] } else { Vec::new() },
            asked_for: &["vcs_origin"],
            leaves_open,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDS: &str = "3f1c2a54-7f0f-4f0b-9d5e-2b6f3a1c8d10/a7d2b0f6-51c4-4a6e-8e0d-6f2f0c9b7e21";

    #[test]
    fn words_are_two_ids_or_a_mistake() {
        for good in ["", "@main", "/github.com/octo-org/app", "/github.com/octo-org/app@x"] {
            assert!(read(&format!("{IDS}{good}"), None).is_ok(), "{good}");
        }
        for bad in ["/x", "/github.com/o", "/github.com/*/app", "@*", "/"] {
            assert!(read(&format!("{IDS}{bad}"), None).is_err(), "{bad}");
        }
        assert!(read("gh/octo-org/app", None).is_err());
        assert!(read(IDS, Some("deploy")).is_err());
    }
}
