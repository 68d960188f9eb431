//! A policy file that lets in the jobs of one project, from a few words: commented, and without anything that a lint
//! would find.

use std::path::PathBuf;

use crate::authority::policy::{Policy, Source};
use crate::document::written;
use crate::error::{Error, Result};
use crate::folder::trust::Owner;
use crate::join::example::{Example, ExampleRule, Named, ask};
use crate::join::method::Method;
use crate::join::{METHODS, find};
use crate::net;
use crate::principal::is_login;
use crate::runtime::block_on;
use crate::text::{shown, which_of};

/// The longest name that is made of a project's, in bytes: a bot's has 60 at most.
const LONGEST_NAME: usize = 50;

/// What an operator asked for.
pub(super) struct Wanted {
    pub(super) method: &'static Method,
    named: Box<dyn Named>,
    words: String,
    login: String,
}

/// What becomes of it.
pub(super) struct PolicyFile {
    /// The name of bot, role and join token.
    pub(super) name: String,
    pub(super) text: String,
    pub(super) whom: String,
    /// The fields that depend on whether the platform answered.
    pub(super) asked_for: &'static [&'static str],
    /// What the operator should know of it.
    pub(super) notes: Vec<String>,
}

/// The methods that have an example, and the form of its words.
fn kinds() -> impl Iterator<Item = (&'static Method, &'static Example)> {
    METHODS.iter().filter_map(|method| Some((*method, method.example?)))
}

/// What a command to type stands for, as an example of its form.
pub(super) fn usual_form() -> String {
    let (method, example) =
        kinds().next().map_or(("KIND", "WHAT"), |(method, example)| (method.name, example.form));
    format!("{method}:{}", example.split('[').find(|part| !part.is_empty()).unwrap_or_default())
}

impl Wanted {
    /// Reads `KIND:WHAT`.
    pub(super) fn read(words: &str, login: &str, workflow: Option<&str>) -> Result<Self> {
        let (kind, what) = words.split_once(':').unwrap_or((words, ""));
        let method = find(kind).and_then(|method| Some((method, method.example?)));
        let (method, example) = method.ok_or_else(|| {
            let known: Vec<&str> = kinds().map(|(method, _)| method.name).collect();
            let forms: Vec<String> =
                kinds().map(|(method, example)| format!("{}:{}", method.name, example.form)).collect();
            Error::usage(format!("`{}`: there is no example of the kind `{}`", shown(words), shown(kind)))
                .hint(which_of(kind, &known))
                .hint(format!("it is one of {}", forms.join(", ")))
        })?;
        let named = (example.read)(what, workflow).map_err(|why| {
            Error::usage(format!("`{}`: {why}", shown(words)))
                .hint(format!("the form is {}:{}", method.name, example.form))
        })?;
        if !is_login(login) {
            return Err(Error::usage(format!("`--login`: `{}` cannot be a login", shown(login)))
                .hint("letters, digits, `.`, `_` and `-`, as deploy"));
        }
        Ok(Self { method, named, words: words.to_owned(), login: login.to_owned() })
    }

    /// Writes the file. Its resources get a name that is not `taken`.
    ///
    /// # Errors
    /// Where the name must be that and is taken.
    pub(super) fn write(
        &self,
        roots: Option<&PathBuf>,
        owner: Owner,
        taken: impl Fn(&str) -> bool,
    ) -> Result<PolicyFile> {
        let (rule, unasked) = self.rule(roots, owner)?;
        let name = if self.method.registers { self.named.name().to_owned() } else { self.name(&taken)? };
        let mut notes: Vec<String> = Vec::new();
        if let Some(why) = unasked {
            let silenced: Vec<String> = rule.allow_lints.iter().map(|lint| format!("`{lint}`")).collect();
            let what = match silenced.as_slice() {
                [] => "the rule has what you named".to_owned(),
                lints => format!(
                    "the rule silences {} until you write an id into it, as the file says",
                    lints.join(", ")
                ),
            };
            notes.push(format!("{why}; {what}"));
        } else if !rule.allow_lints.is_empty() {
            notes.push(format!(
                "the rule silences `{}`, and says what would take its place",
                rule.allow_lints.join("`, `")
            ));
        }
        notes.extend(rule.leaves_open.map(str::to_owned));
        let text = self.text(&name, &rule);
        Ok(PolicyFile { name, text, whom: rule.whom, asked_for: rule.asked_for, notes })
    }

    /// The rule, and why it is without the platform's answer if it is.
    fn rule(&self, roots: Option<&PathBuf>, owner: Owner) -> Result<(ExampleRule, Option<String>)> {
        let alone = |why| Ok((self.named.rule(None).map_err(Error::internal)?, why));
        let Some(url) = self.named.url() else { return alone(None) };
        let asked = match net::issuer_client(roots, owner) {
            Ok(client) => block_on(ask(&client, &url))?,
            Err(error) => Err(error.to_string()),
        };
        match asked.and_then(|answer| self.named.rule(Some(&answer)).map_err(|why| format!("{url}: {why}"))) {
            Ok(rule) => Ok((rule, None)),
            Err(why) => alone(Some(why)),
        }
    }

    /// `KIND-PROJECT`, with a number where that is taken.
    fn name(&self, taken: &impl Fn(&str) -> bool) -> Result<String> {
        let fit = |c: char| {
            if c.is_ascii_alphanumeric() || matches!(c, '.' | '_') { c.to_ascii_lowercase() } else { '-' }
        };
        let project: String =
            self.named.name().chars().map(fit).take(LONGEST_NAME - self.method.name.len()).collect();
        let first = format!("{}-{project}", self.method.name);
        let others = (2..1000).map(|number| format!("{first}-{number}"));
        std::iter::once(first.clone())
            .chain(others)
            .find(|name| !taken(name))
            .ok_or_else(|| Error::usage(format!("every name like `{first}` is taken")))
    }

    fn text(&self, name: &str, rule: &ExampleRule) -> String {
        let Self { method, words, login, .. } = self;
        let (name, login) = (written(name), written(login));
        let lints = match rule.allow_lints.as_slice() {
            [] => String::new(),
            lints => format!(", allow_lints: [{}]", lints.join(", ")),
        };
        let section = match rule.section.as_str() {
            "" => String::new(),
            section => format!("  {}:\n{section}", method.name),
        };
        format!(
            "# Written for `{words}`: lets in {}.\n\
             # It is yours to change: docs/policy.md has every field, and `machine-id authority check` judges it.\n\
             kind: bot\nversion: v1\nmetadata: {{name: {name}}}\nspec:\n  roles: [{name}]\n\
             ---\n# What these jobs get, and for how long; `machine-id once -- COMMAND` renews while the command runs.\n\
             kind: role\nversion: v7\nmetadata: {{name: {name}}}\nspec:\n  options: {{max_session_ttl: 1h}}\n  allow:\n    \
             logins: [{login}]\n    \
             # On every host that trusts this authority. `{{env: prod}}` would be those whose sshd is told so (docs/resources/ssh.md).\n    \
             node_labels: {{'*': '*'}}\n\
             ---\n# Who gets in. A job names this join token (`MACHINE_ID_TOKEN`); it is no secret.\n\
             kind: token\nversion: v2\nmetadata: {{name: {name}{lints}}}\nspec:\n  roles: [Bot]\n  bot_name: {name}\n  \
             join_method: {}\n{section}",
            rule.whom, method.name,
        )
    }
}

impl PolicyFile {
    /// The file's name.
    pub(super) fn file(&self) -> String {
        format!("{}.yaml", self.name)
    }

    /// The policy that it is part of, once it is there: nothing of it may be a mistake, nor what a lint would find.
    pub(super) fn beside(&self, others: &[Source]) -> Result<Policy> {
        let source = Source { name: self.file(), text: self.text.clone() };
        let all: Vec<Source> = others.iter().cloned().chain([source]).collect();
        let policy = Policy::parse(&all).map_err(|mistakes| {
            let first = mistakes.into_iter().next().unwrap_or_else(|| Error::internal("no mistake was told"));
            first.context("this cannot be written")
        })?;
        let found = policy.lint().findings.into_iter().find(|finding| *finding.origin.file == *self.file());
        match found {
            Some(found) => {
                Err(Error::usage(format!("this is not written: {} [{}]", found.message, found.lint))
                    .hint(found.hint))
            }
            None => Ok(policy),
        }
    }
}
