//! A rule for one project's deployments from `[HOST/]GROUP/PROJECT[@BRANCH]`.

use serde_json::Value;

use crate::document::written;
use crate::join::example::{self, Example, ExampleRule, Named, WITHOUT_ID};

pub(super) static EXAMPLE: Example = Example { form: "[HOST/]GROUP/PROJECT[@BRANCH]", read };

/// The host of GitLab's own service.
pub(super) const HOST: &str = "gitlab.com";
/// The file of all pipelines, where none is named.
const USUAL_FILE: &str = ".gitlab-ci.yml";

struct Project {
    host: String,
    path: String,
    branch: Option<String>,
    file: String,
}

fn read(words: &str, workflow: Option<&str>) -> Result<Box<dyn Named>, String> {
    let (whole, branch) = example::branch(words)?;
    // A group may have a dot in its name too: then its host is written.
    let is_host = |first: &str, rest: &str| first.contains(['.', ':']) && rest.contains('/');
    let (host, path) = match whole.split_once('/') {
        Some((first, rest)) if is_host(first, rest) => (first, rest),
        _ => (HOST, whole),
    };
    let (name, port) = host.split_once(':').unwrap_or((host, "443"));
    let is_host = name.split('.').all(example::is_segment) && port.parse::<u16>().is_ok_and(|port| port > 0);
    if !is_host || !path.contains('/') || !path.split('/').all(example::is_segment) {
        return Err(
            "it must be GROUP/PROJECT or HOST/GROUP/PROJECT, and @BRANCH, as octo-group/app@main".to_owned()
        );
    }
    let file = workflow.unwrap_or(USUAL_FILE);
    let part = |part: &str| example::is_segment(part.strip_prefix('.').unwrap_or(part));
    if !file.split('/').all(part) {
        return Err(format!("`--workflow` must be the file of the project's pipelines, as {USUAL_FILE}"));
    }
    let [host, path, file] = [host.to_ascii_lowercase(), path.to_owned(), file.to_owned()];
    Ok(Box::new(Project { host, path, branch, file }))
}

impl Named for Project {
    fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }

    fn url(&self) -> Option<String> {
        Some(format!("https://{}/api/v4/projects/{}", self.host, self.path.replace('/', "%2F")))
    }

    fn rule(&self, answer: Option<&Value>) -> Result<ExampleRule, String> {
        let id = answer.map(example::id).transpose()?;
        let path =
            answer.map(|answer| example::same_name(&self.path, answer, "path_with_namespace")).transpose()?;
        let path = path.unwrap_or_else(|| self.path.clone());
        let default = answer.and_then(|answer| answer.get("default_branch"));
        let (git_ref, branch) = example::git_ref(self.branch.as_deref(), default);
        let domain = match self.host.as_str() {
            HOST => String::new(),
            host => format!("    domain: {}\n", written(host)),
        };
        let project_id = match &id {
            Some(id) => format!("project_id: '{id}'  # a name can change hands, an id does not"),
            None => format!(
                "# project_id: 'ID'  # on the project's page, under its name or in its menu; then take `{WITHOUT_ID}` out above"
            ),
        };
        let definition = format!("{}/{path}//{}@{git_ref}", self.host, self.file);
        Ok(ExampleRule {
            whom: format!("jobs of {path}, pipelines of {} on branch {branch}", self.file),
            section: format!(
                "{domain}    allow:\n      # Of the project itself and no fork, that branch, that file. A pipeline of a merge request\n      \
                 # would have to be named (`pipeline_source`) to get in.\n      - project_path: {}\n        {project_id}\n        \
                 ref_path: {}\n        ci_config_ref_uri: {}\n",
                written(&path),
                written(&git_ref),
                written(&definition),
            ),
            allow_lints: if id.is_none() { vec![WITHOUT_ID] } else { Vec::new() },
            asked_for: &["project_id"],
            leaves_open: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_told_from_a_group() {
        let url = |words: &str| read(words, None).unwrap().url().unwrap();
        assert_eq!(url("octo-group/app"), "https://gitlab.com/api/v4/projects/octo-group%2Fapp");
        assert_eq!(url("octo.group/app"), "https://gitlab.com/api/v4/projects/octo.group%2Fapp");
        assert_eq!(
            url("Git.example.com:8443/g/s/p@x"),
            "https://git.example.com:8443/api/v4/projects/g%2Fs%2Fp"
        );
        assert_eq!(
            url("gitlab.com/octo.group/s/app"),
            "https://gitlab.com/api/v4/projects/octo.group%2Fs%2Fapp"
        );
        for bad in [
            "",
            "app",
            "g/*",
            "g//p",
            "https://gitlab.com/g/p",
            "h.x:0/g/p",
            "h.x:y/g/p",
            "g/p.git",
            "g/p@a*",
        ] {
            assert!(read(bad, None).is_err(), "{bad}");
        }
        for (file, is_good) in
            [("ci/deploy.yml", true), (".gitlab-ci.yml", true), ("a*", false), ("../x", false)]
        {
            assert_eq!(read("g/p", Some(file)).is_ok(), is_good, "{file}");
        }
    }
}
