//! From the text of all files to a [`Policy`]: each document is a resource;
//! names are unique over files, and what a resource names must be there.

use std::collections::HashMap;
use std::sync::Arc;

use super::bot::{self, Bot, RoleNames};
use super::origin::Origin;
use super::role::Role;
use super::section::Section;
use super::{JoinToken, Policy, Source, lints, token};
use crate::document::{self, Mistake, Node, Place};
use crate::error::Error;
use crate::text::shown;
use crate::wire::is_name;

/// After so many mistakes none is told what it may have meant.
const MOST_SUGGESTIONS: usize = 100;

/// Reads all files.
pub(super) fn load(sources: &[Source]) -> Result<Policy, Vec<Error>> {
    let mut loading = Loading::default();
    for (index, source) in sources.iter().enumerate() {
        loading.source(index, source);
    }
    loading.finish(sources)
}

/// A kind of resource.
struct ResourceKind {
    kind: &'static str,
    version: &'static str,
    /// The one name that a resource of this kind has, where it is not its author's choice.
    fixed_name: Option<&'static str>,
    read: fn(&mut Loading, Head, &Node, &mut Vec<Mistake>),
}

/// Every kind of resource. A new one is a line here and the function in it.
static KINDS: &[ResourceKind] = &[
    ResourceKind { kind: "bot", version: "v1", fixed_name: None, read: Loading::bot },
    ResourceKind { kind: "role", version: "v7", fixed_name: None, read: Loading::role },
    ResourceKind { kind: "token", version: "v2", fixed_name: None, read: Loading::token },
    ResourceKind {
        kind: "cluster_auth_preference",
        version: "v2",
        fixed_name: Some("cluster-auth-preference"),
        read: Loading::preference,
    },
    // Known, so that its author is told more than that it is not.
    ResourceKind { kind: "trusted_cluster", version: "v2", fixed_name: None, read: Loading::trusted_cluster },
];

/// What every resource begins with.
struct Head {
    name: String,
    origin: Origin,
    source: usize,
}

#[derive(Default)]
struct Loading {
    /// By the source's place in the list.
    mistakes: Vec<(usize, Mistake)>,
    /// Every name of every kind, readable resource or not, so that one mistake
    /// does not make others of all that name it.
    names: HashMap<(&'static str, String), Origin>,
    roles: HashMap<String, Arc<Role>>,
    bots: Vec<(usize, Bot, RoleNames)>,
    tokens: HashMap<String, JoinToken>,
    /// Which bot each token names: source, place, name.
    bot_names: Vec<(usize, Place, String)>,
    mfa_everywhere: bool,
    silenced: lints::Silenced,
}

/// A resource's `metadata`.
struct Metadata {
    name: String,
    place: Place,
    allow_lints: Vec<&'static str>,
}

impl Loading {
    fn source(&mut self, index: usize, source: &Source) {
        let documents = match document::parse(&source.text) {
            Ok(documents) => documents,
            Err(mistake) => return self.mistakes.push((index, mistake)),
        };
        let file: Arc<str> = Arc::from(source.name.as_str());
        for node in &documents {
            let mut mistakes = Vec::new();
            self.resource(index, &file, node, &mut mistakes);
            self.mistakes.extend(mistakes.into_iter().map(|mistake| (index, mistake)));
        }
    }

    fn resource(&mut self, source: usize, file: &Arc<str>, node: &Node, mistakes: &mut Vec<Mistake>) {
        let Some(mut top) = Section::open(node, "a resource", mistakes) else { return };
        let Some(kind) = top.need("kind").and_then(|node| top.keep(find_kind(node))) else { return };
        if let Some(node) = top.need("version") {
            top.keep(check_version(node, kind));
        }
        let metadata = top.need("metadata").and_then(|node| read_metadata(node, kind, top.mistakes()));
        let spec = top.need("spec");
        top.finish();
        // Without a name it is still read, for the mistakes in it.
        let Metadata { name, place, allow_lints } = metadata.unwrap_or_else(|| Metadata {
            name: String::new(),
            place: node.place,
            allow_lints: Vec::new(),
        });
        let origin = Origin { file: Arc::clone(file), place };
        if !allow_lints.is_empty() {
            self.silenced.entry(kind.kind).or_default().insert(name.clone(), allow_lints);
        }
        if !name.is_empty() {
            match self.names.get(&(kind.kind, name.clone())) {
                Some(first) => mistakes.push(
                    Mistake::new(place, format!("the {} `{name}` is defined twice", kind.kind))
                        .hint(format!("it is also at {first}; rename or remove one")),
                ),
                None => drop(self.names.insert((kind.kind, name.clone()), origin.clone())),
            }
        }
        if let Some(spec) = spec {
            (kind.read)(self, Head { name, origin, source }, spec, mistakes);
        }
    }

    fn bot(&mut self, head: Head, spec: &Node, mistakes: &mut Vec<Mistake>) {
        if head.name.len() > bot::MAX_NAME {
            let message = format!("the name of a bot has at most {} bytes", bot::MAX_NAME);
            mistakes.push(
                Mistake::new(head.origin.place, message)
                    .hint("with `bot:` it must fit a certificate's common name"),
            );
        }
        let (bot, roles) = Bot::read(head.name, head.origin, spec, mistakes);
        self.bots.push((head.source, bot, roles));
    }

    fn role(&mut self, head: Head, spec: &Node, mistakes: &mut Vec<Mistake>) {
        let role = Role::read(head.name, head.origin, spec, mistakes);
        self.roles.insert(role.name.clone(), Arc::new(role));
    }

    fn token(&mut self, head: Head, spec: &Node, mistakes: &mut Vec<Mistake>) {
        let (token, bot) = token::read(head.name, head.origin, spec, mistakes);
        if let Some(bot) = bot {
            self.bot_names.push((head.source, bot.node.place, bot.name.to_owned()));
        }
        self.tokens.extend(token.map(|token| (token.name.clone(), token)));
    }

    fn preference(&mut self, _head: Head, spec: &Node, mistakes: &mut Vec<Mistake>) {
        let Some(mut spec) = Section::open(spec, "the `spec` of `cluster_auth_preference`", mistakes) else {
            return;
        };
        self.mfa_everywhere |= spec.boolean("require_session_mfa").unwrap_or_default();
        spec.finish();
    }

    fn trusted_cluster(&mut self, head: Head, _spec: &Node, mistakes: &mut Vec<Mistake>) {
        mistakes.push(
            Mistake::new(head.origin.place, "trusted clusters are not supported yet")
                .hint("remove the resource; an authority trusts no other one"),
        );
    }

    /// Resolves what resources name, and gives the policy if there was no mistake.
    fn finish(mut self, sources: &[Source]) -> Result<Policy, Vec<Error>> {
        for (source, place, name) in std::mem::take(&mut self.bot_names) {
            if !self.is_known("bot", &name) {
                let mistake = self.missing("bot", &name, place);
                self.mistakes.push((source, mistake));
            }
        }
        let mut bots = HashMap::with_capacity(self.bots.len());
        for (source, mut bot, names) in std::mem::take(&mut self.bots) {
            for (name, place) in names {
                match self.roles.get(&name) {
                    Some(role) => bot.roles.push(Arc::clone(role)),
                    // It is there, and has mistakes of its own.
                    None if self.is_known("role", &name) => {}
                    None => {
                        let mistake = self.missing("role", &name, place);
                        self.mistakes.push((source, mistake));
                    }
                }
            }
            bot.roles.sort_unstable_by(|a, b| a.name.cmp(&b.name));
            let mut mistakes = Vec::new();
            bot.check(&mut mistakes);
            self.mistakes.extend(mistakes.into_iter().map(|mistake| (source, mistake)));
            bots.insert(bot.name.clone(), bot);
        }
        if self.mistakes.is_empty() {
            return Ok(Policy {
                tokens: self.tokens,
                bots,
                roles: self.roles,
                mfa_everywhere: self.mfa_everywhere,
                silenced: self.silenced,
            });
        }
        self.mistakes.sort_by_key(|(source, Mistake { place, .. })| (*source, place.line, place.column));
        let file = |index: usize| sources.get(index).map_or("", |source| source.name.as_str());
        Err(self.mistakes.iter().map(|(source, mistake)| mistake.in_file(file(*source))).collect())
    }

    fn is_known(&self, kind: &'static str, name: &str) -> bool {
        self.names.contains_key(&(kind, name.to_owned()))
    }

    fn missing(&self, kind: &'static str, name: &str, place: Place) -> Mistake {
        let mut names: Vec<&str> = Vec::new();
        // Likeness is dear: a bot renamed under thousands of tokens is told soon enough.
        if self.mistakes.len() < MOST_SUGGESTIONS {
            names.extend(self.names.keys().filter(|(k, _)| *k == kind).map(|(_, name)| name.as_str()));
        }
        // So that of two as near, it is always the same.
        names.sort_unstable();
        let mistake = Mistake::new(place, format!("there is no {kind} `{}`", shown(name)));
        match document::nearest(name, &names) {
            Some(near) => mistake.hint(format!("did you mean `{near}`?")),
            None => mistake.hint(format!("define it: `kind: {kind}`")),
        }
    }
}

fn find_kind(node: &Node) -> Result<&'static ResourceKind, Mistake> {
    let text = node.text("kind")?;
    KINDS.iter().find(|kind| kind.kind == text).ok_or_else(|| {
        let kinds: Vec<&str> = KINDS.iter().map(|kind| kind.kind).collect();
        let mistake = Mistake::new(node.place, format!("there is no kind of resource `{}`", shown(text)));
        match document::nearest(text, &kinds) {
            Some(near) => mistake.hint(format!("did you mean `{near}`?")),
            None => mistake.hint(format!("there are: {}", kinds.join(", "))),
        }
    })
}

fn check_version(node: &Node, kind: &ResourceKind) -> Result<(), Mistake> {
    let text = node.text("version")?;
    if text == kind.version {
        return Ok(());
    }
    let message = format!("a {} of version `{}` is not known here", kind.kind, shown(text));
    Err(Mistake::new(node.place, message).hint(format!("write `version: {}`", kind.version)))
}

fn read_metadata(node: &Node, kind: &ResourceKind, mistakes: &mut Vec<Mistake>) -> Option<Metadata> {
    let mut metadata = Section::open(node, "`metadata`", mistakes)?;
    let name = metadata.need("name").and_then(|node| {
        let name = metadata.keep(read_name(node, kind))?;
        Some((name, node.place))
    });
    metadata.read("description", Node::text);
    if let Some(mut labels) =
        metadata.take("labels").and_then(|node| Section::open(node, "`labels`", metadata.mistakes()))
    {
        for (_, value) in labels.rest() {
            labels.keep(value.text("labels"));
        }
    }
    let named = metadata.texts("allow_lints");
    let allow_lints =
        named.into_iter().filter_map(|(lint, place)| metadata.keep(find_lint(lint, place))).collect();
    metadata.finish();
    name.map(|(name, place)| Metadata { name, place, allow_lints })
}

fn find_lint(name: &str, place: Place) -> Result<&'static str, Mistake> {
    let names: Vec<&'static str> = lints::LINTS.iter().map(|lint| lint.name).collect();
    if let Some(known) = names.iter().find(|known| **known == name) {
        return Ok(known);
    }
    let mistake = Mistake::new(place, format!("there is no lint `{}`", shown(name)));
    Err(match document::nearest(name, &names) {
        Some(near) => mistake.hint(format!("did you mean `{near}`?")),
        None => mistake.hint(format!("there are: {}", names.join(", "))),
    })
}

fn read_name(node: &Node, kind: &ResourceKind) -> Result<String, Mistake> {
    let name = node.text("name")?;
    match kind.fixed_name {
        Some(fixed) if name != fixed => Err(Mistake::new(
            node.place,
            format!("the name of a {} is `{fixed}`, not `{}`", kind.kind, shown(name)),
        )),
        None if !is_name(name) => Err(Mistake::new(
            node.place,
            format!("`{}` cannot be the name of a {}", shown(name), kind.kind),
        )
        .hint("lower-case letters, digits, `_`, `.` and `-`, beginning with a letter or digit, at most 64")),
        _ => Ok(name.to_owned()),
    }
}

#[cfg(test)]
mod tests;
