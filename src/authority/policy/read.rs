//! From the text of all files to a [`Policy`]: each document is a resource;
//! names are unique over files, and what a resource names must be there.

use std::collections::HashMap;
use std::sync::Arc;

use super::resources::{Bot, JoinToken, LeafCluster, Origin, Policy, Role};
use crate::document::{self, Mistake, Mistakes, Node, Place};
use crate::elsewhere;
use crate::error::Error;
use crate::text::{did_you_mean, shown_exactly, which_of};

mod bot;
mod leaf_cluster;
mod metadata;
mod role;
mod token;
mod trusted_cluster;

use bot::RoleNames;
use metadata::Metadata;

/// Where a file begins.
const BEGINNING: Place = Place { line: 1, column: 1 };
/// After so many mistakes none is told what it may have meant.
const MOST_SUGGESTIONS: usize = 100;

/// A policy file's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The file's name, for messages.
    pub name: String,
    /// What is in it.
    pub text: String,
}

impl Policy {
    /// Reads policy files: every document of each is one resource.
    ///
    /// # Errors
    /// All mistakes of all files, each `FILE:LINE:COL: message` with what to do
    /// about it, in the order of the files.
    pub fn parse(sources: &[Source]) -> Result<Self, Vec<Error>> {
        let mut reading = Reading::default();
        for (index, source) in sources.iter().enumerate() {
            reading.source(index, source);
        }
        reading.finish(sources)
    }
}

/// A kind of resource.
struct ResourceKind {
    kind: &'static str,
    /// The first is the one to write; the others say the same of all that is read here.
    versions: &'static [&'static str],
    /// The one name that a resource of this kind has, where it is not its author's choice.
    fixed_name: Option<&'static str>,
    read: fn(&mut Reading, Head, &Node) -> Result<(), Mistakes>,
}

/// Every kind of resource. A new one is a line here and the function in it.
static KINDS: &[ResourceKind] = &[
    ResourceKind { kind: "bot", versions: &["v1"], fixed_name: None, read: Reading::bot },
    ResourceKind { kind: "role", versions: &["v7", "v8"], fixed_name: None, read: Reading::role },
    ResourceKind { kind: "token", versions: &["v2"], fixed_name: None, read: Reading::token },
    ResourceKind {
        kind: "cluster_auth_preference",
        versions: &["v2"],
        fixed_name: Some("cluster-auth-preference"),
        read: Reading::preference,
    },
    ResourceKind { kind: "leaf_cluster", versions: &["v1"], fixed_name: None, read: Reading::leaf_cluster },
    ResourceKind {
        kind: "trusted_cluster",
        versions: &["v2"],
        fixed_name: None,
        read: Reading::trusted_cluster,
    },
];

/// What every resource begins with.
struct Head {
    name: String,
    origin: Origin,
    source: usize,
}

#[derive(Default)]
struct Reading {
    /// By the source's place in the list.
    mistakes: Vec<(usize, Mistake)>,
    /// Every name of every kind, readable resource or not, so that one mistake
    /// does not make others of all that name it.
    names: HashMap<(&'static str, String), Origin>,
    /// What is read so far; the bots come when their roles are known.
    policy: Policy,
    bots: Vec<(usize, Bot, RoleNames)>,
    /// Trusted clusters, whose roles are known when all is read.
    clusters: Vec<(usize, JoinToken)>,
    /// The same of leaf clusters.
    leaves: Vec<(usize, LeafCluster, RoleNames)>,
    /// Which bot each token names: source, place, name.
    bot_names: Vec<(usize, Place, String)>,
}

impl Reading {
    fn source(&mut self, index: usize, source: &Source) {
        self.mistakes.extend(check_end(&source.text).err().map(|mistake| (index, mistake)));
        let documents = match document::parse(&source.text) {
            Ok(documents) => documents,
            Err(mistake) => return self.mistakes.push((index, mistake)),
        };
        let file: Arc<str> = Arc::from(source.name.as_str());
        for node in &documents {
            let read = self.resource(index, &file, node);
            self.told(index, read);
        }
    }

    fn told(&mut self, source: usize, read: Result<(), Mistakes>) {
        let mistakes = read.err().into_iter().flatten();
        self.mistakes.extend(mistakes.map(|mistake| (source, mistake)));
    }

    fn resource(&mut self, source: usize, file: &Arc<str>, node: &Node) -> Result<(), Mistakes> {
        let mut top = node.mapping("a resource")?;
        let Some(kind) = top.require("kind", find_kind) else { return Err(top.mistakes) };
        top.require("version", |node, _| check_version(node, kind));
        // Without a name it is still read, for the mistakes in it.
        let mut metadata = Metadata { place: node.place, ..Metadata::default() };
        top.require("metadata", |node, _| metadata.read(node, kind.kind, kind.fixed_name));
        let spec = top.require("spec", |node, _| Ok::<_, Mistake>(node));
        let mut mistakes = top.finish().err().unwrap_or_default();
        let Metadata { name, place, allow_lints } = metadata;
        let origin = Origin { file: Arc::clone(file), place };
        self.policy.silenced.extend(allow_lints.into_iter().map(|lint| (kind.kind, name.clone(), lint)));
        if !name.is_empty() {
            match self.names.get(&(kind.kind, name.clone())) {
                Some(first) => mistakes.add(
                    Mistake::new(place, format!("the {} `{name}` is defined twice", kind.kind))
                        .hint(format!("it is also at {first}; rename or remove one")),
                ),
                None => drop(self.names.insert((kind.kind, name.clone()), origin.clone())),
            }
        }
        if let Some(spec) = spec {
            mistakes.keep((kind.read)(self, Head { name, origin, source }, spec));
        }
        mistakes.or(())
    }

    fn bot(&mut self, head: Head, spec: &Node) -> Result<(), Mistakes> {
        let mut bot = Bot::new(head.name, head.origin);
        let mut roles = RoleNames::new();
        let read = bot::read(&mut bot, &mut roles, spec);
        self.bots.push((head.source, bot, roles));
        read
    }

    fn role(&mut self, head: Head, spec: &Node) -> Result<(), Mistakes> {
        let mut role = Role::new(head.name, head.origin);
        let read = role::read(&mut role, spec);
        self.policy.roles.insert(role.name.clone(), Arc::new(role));
        read
    }

    fn token(&mut self, head: Head, spec: &Node) -> Result<(), Mistakes> {
        let mut bot = None;
        let read = token::read(head.name, head.origin, spec, &mut bot);
        self.bot_names.extend(bot.map(|(name, place)| (head.source, place, name)));
        let token = read?;
        self.policy.tokens.insert(token.name.clone(), token);
        Ok(())
    }

    fn preference(&mut self, _head: Head, spec: &Node) -> Result<(), Mistakes> {
        let mut spec = spec.mapping("the `spec` of `cluster_auth_preference`")?;
        self.policy.mfa_everywhere |= spec.read("require_session_mfa", Node::boolean).unwrap_or_default();
        spec.finish()
    }

    fn leaf_cluster(&mut self, head: Head, spec: &Node) -> Result<(), Mistakes> {
        let mut leaf = LeafCluster::new(head.name, head.origin);
        let mut roles = RoleNames::new();
        let read = leaf_cluster::read(&mut leaf, &mut roles, spec);
        self.leaves.push((head.source, leaf, roles));
        read
    }

    fn trusted_cluster(&mut self, head: Head, spec: &Node) -> Result<(), Mistakes> {
        let cluster = trusted_cluster::read(head.name, head.origin, spec)?;
        self.clusters.push((head.source, cluster));
        Ok(())
    }

    /// Resolves what resources name, and gives the policy if there was no mistake.
    fn finish(mut self, sources: &[Source]) -> Result<Policy, Vec<Error>> {
        for (source, place, name) in std::mem::take(&mut self.bot_names) {
            self.check_known(source, "bot", name, place);
        }
        for (source, mut bot, names) in std::mem::take(&mut self.bots) {
            for (name, place) in names {
                bot.roles.extend(self.policy.roles.get(&name).cloned());
                self.check_known(source, "role", name, place);
            }
            bot.roles.sort_unstable_by(|a, b| a.name.cmp(&b.name));
            self.told(source, bot::check(&bot));
            self.policy.bots.insert(bot.name.clone(), bot);
        }
        self.finish_leaves();
        self.finish_clusters();
        if self.names.is_empty() && self.mistakes.is_empty() {
            // A policy that was there and is gone is not one that lets nobody in.
            let mistake = Mistake::new(BEGINNING, "no policy: no file holds a resource");
            self.mistakes
                .push((0, mistake.hint("put bots, roles and join tokens there: docs/policy.md shows each")));
        }
        if self.mistakes.is_empty() {
            self.policy.files = sources.len();
            return Ok(self.policy);
        }
        self.mistakes.sort_by_key(|(source, mistake)| (*source, mistake.place));
        let file = |index: usize| sources.get(index).map_or("", |source| source.name.as_str());
        Err(self.mistakes.iter().map(|(source, mistake)| mistake.in_file(file(*source))).collect())
    }

    fn finish_leaves(&mut self) {
        let mut leaves = std::mem::take(&mut self.leaves);
        for (source, leaf, names) in &mut leaves {
            for (name, place) in std::mem::take(names) {
                leaf.roles.insert(name.clone());
                self.check_known(*source, "role", name, place);
            }
        }
        let all: Vec<&LeafCluster> = leaves.iter().map(|(_, leaf, _)| leaf).collect();
        for (index, mistake) in leaf_cluster::check(&all) {
            self.mistakes.extend(leaves.get(index).map(|(source, ..)| (*source, mistake)));
        }
        self.policy.leaves = leaves.into_iter().map(|(_, leaf, _)| (leaf.name.clone(), leaf)).collect();
    }

    fn finish_clusters(&mut self) {
        for (source, cluster) in std::mem::take(&mut self.clusters) {
            for (name, place) in cluster.map.iter().flat_map(|map| &map.lines).flat_map(|line| &line.local) {
                self.check_known(source, "role", name.clone(), *place);
            }
            // A request names either in the same field, and the trail too.
            if let Some(token) = self.names.get(&("token", cluster.name.clone())) {
                let message =
                    format!("the trusted cluster `{0}` has the name of the join token `{0}`", cluster.name);
                let hint = format!("that is at {token}; rename it, since the cluster's name is its root's");
                self.mistakes.push((source, Mistake::new(cluster.origin.place, message).hint(hint)));
            }
            self.told(source, trusted_cluster::check(&self.policy, &cluster));
            self.policy.clusters.insert(cluster.name.clone(), cluster);
        }
    }

    /// It is enough that it is there: it may have mistakes of its own.
    fn check_known(&mut self, source: usize, kind: &'static str, name: String, place: Place) {
        let key = (kind, name);
        if self.names.contains_key(&key) {
            return;
        }
        let mut names: Vec<&str> = Vec::new();
        // Likeness is dear: a bot renamed under thousands of tokens is told soon enough.
        if self.mistakes.len() < MOST_SUGGESTIONS {
            names.extend(self.names.keys().filter(|(k, _)| *k == kind).map(|(_, name)| name.as_str()));
        }
        // So that of two as near, it is always the same.
        names.sort_unstable();
        let hint = did_you_mean(&key.1, &names).unwrap_or_else(|| format!("define it: `kind: {kind}`"));
        let mistake = Mistake::new(place, format!("there is no {kind} `{}`", shown_exactly(&key.1)));
        self.mistakes.push((source, mistake.hint(hint)));
    }
}

/// A file that was cut off as it was written mostly ends within a line.
fn check_end(text: &str) -> Result<(), Mistake> {
    let again = "if it was cut off while it was written, write it anew";
    match text.split_inclusive('\n').zip(1..).last() {
        Some((last, line)) if !last.ends_with('\n') => {
            let column = u64::try_from(last.chars().count()).unwrap_or(u64::MAX).saturating_add(1);
            Err(Mistake::new(Place { line, column }, "the last line has no end")
                .hint(format!("end it with a line feed; {again}")))
        }
        Some(_) => Ok(()),
        None => Err(Mistake::new(BEGINNING, "the file is empty").hint(format!("remove it; {again}"))),
    }
}

fn find_kind(node: &Node, key: &str) -> Result<&'static ResourceKind, Mistake> {
    let text = node.text(key)?;
    KINDS.iter().find(|kind| kind.kind == text).ok_or_else(|| {
        let kinds: Vec<&str> = KINDS.iter().map(|kind| kind.kind).collect();
        Mistake::new(node.place, format!("there is no kind of resource `{}`", shown_exactly(text)))
            .hint(elsewhere::kind(text).map_or_else(|| which_of(text, &kinds), str::to_owned))
    })
}

fn check_version(node: &Node, kind: &ResourceKind) -> Result<(), Mistake> {
    let text = node.text("version")?;
    let [written, ..] = kind.versions else { return Ok(()) };
    if kind.versions.contains(&text) {
        return Ok(());
    }
    let message = format!("a {} of version `{}` is not known here", kind.kind, shown_exactly(text));
    let other = match (kind.kind, text) {
        // Where a role of these is silent on labels, Teleport takes that for all of them.
        ("role", "v1" | "v2" | "v3") => {
            ", and the labels that it holds on: where it says none, it gives nothing here"
        }
        _ => "",
    };
    Err(Mistake::new(node.place, message).hint(format!("write `version: {written}`{other}")))
}

#[cfg(test)]
mod tests;
