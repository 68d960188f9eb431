//! A resource's `metadata`.

use crate::authority::policy::lints::LINTS;
use crate::document::{Mistake, Mistakes, Node, Place};
use crate::text::{shown_exactly, which_of};
use crate::wire::is_name;

/// The longest name of a bot: with `bot:` in front it must fit into an X.509
/// common name (RFC 5280, `ub-common-name` is 64).
const MAX_BOT_NAME: usize = 60;

/// What a resource's `metadata` says.
#[derive(Default)]
pub(super) struct Metadata {
    /// Empty where it cannot be read.
    pub(super) name: String,
    /// Where the name stands.
    pub(super) place: Place,
    pub(super) allow_lints: Vec<&'static str>,
}

impl Metadata {
    /// Reads it for a resource of this kind, whose names may all be the one that is fixed.
    pub(super) fn read(&mut self, node: &Node, kind: &str, fixed_name: Option<&str>) -> Result<(), Mistakes> {
        let mut metadata = node.mapping("`metadata`")?;
        if let Some(named) = metadata.require("name", |node, _| read_name(node, kind, fixed_name)) {
            (self.name, self.place) = named;
        }
        metadata.read("description", Node::text);
        metadata.read("labels", read_labels);
        for (lint, place) in metadata.texts("allow_lints") {
            self.allow_lints.extend(metadata.mistakes.keep(find_lint(&lint, place)));
        }
        if kind == "bot" && self.name.len() > MAX_BOT_NAME {
            let message = format!("the name of a bot has at most {MAX_BOT_NAME} bytes");
            let hint = "with `bot:` it must fit a certificate's common name";
            metadata.mistakes.add(Mistake::new(self.place, message).hint(hint));
        }
        metadata.finish()
    }
}

fn read_name(node: &Node, kind: &str, fixed_name: Option<&str>) -> Result<(String, Place), Mistake> {
    let name = node.text("name")?;
    match fixed_name {
        Some(fixed) if name != fixed => Err(Mistake::new(
            node.place,
            format!("the name of a {kind} is `{fixed}`, not `{}`", shown_exactly(name)),
        )),
        None if !is_name(name) => Err(Mistake::new(
            node.place,
            format!("`{}` cannot be the name of a {kind}", shown_exactly(name)),
        )
        .hint("lower-case letters, digits, `_`, `.` and `-`, beginning with a letter or digit, at most 64")),
        _ => Ok((name.to_owned(), node.place)),
    }
}

/// They are for people: any texts.
fn read_labels(node: &Node, key: &str) -> Result<(), Mistakes> {
    let mut labels = node.mapping(&format!("`{key}`"))?;
    for (_, value) in labels.rest() {
        labels.mistakes.keep(value.text(key));
    }
    labels.finish()
}

fn find_lint(name: &str, place: Place) -> Result<&'static str, Mistake> {
    let names: Vec<&'static str> = LINTS.iter().map(|lint| lint.name).collect();
    names.iter().copied().find(|known| *known == name).ok_or_else(|| {
        Mistake::new(place, format!("there is no lint `{}`", shown_exactly(name)))
            .hint(which_of(name, &names))
    })
}
