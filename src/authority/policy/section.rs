//! A mapping of the policy that is read on after a mistake, so that an
//! operator sees all of them at once.

use crate::document::{self, Mapping, Mistake, Node, Place};

/// A [`Mapping`] that keeps its mistakes in the list it was opened with.
pub(super) struct Section<'a, 'm> {
    mapping: Mapping<'a>,
    what: String,
    known: Vec<&'static str>,
    mistakes: &'m mut Vec<Mistake>,
}

impl<'a, 'm> Section<'a, 'm> {
    /// Opens `node`, which `what` names in mistakes; none where it is no mapping.
    pub(super) fn open(
        node: &'a Node,
        what: impl Into<String>,
        mistakes: &'m mut Vec<Mistake>,
    ) -> Option<Self> {
        let what = what.into();
        match node.mapping(&what) {
            Ok(mapping) => Some(Self { mapping, what, known: Vec::new(), mistakes }),
            Err(mistake) => {
                mistakes.push(mistake);
                None
            }
        }
    }

    /// Where it stands.
    pub(super) fn place(&self) -> Place {
        self.mapping.place
    }

    /// The list of mistakes, for what is read beside the section.
    pub(super) fn mistakes(&mut self) -> &mut Vec<Mistake> {
        self.mistakes
    }

    /// Notes a mistake.
    pub(super) fn mistake(&mut self, mistake: Mistake) {
        self.mistakes.push(mistake);
    }

    /// The value of `key`, if it is there.
    pub(super) fn take(&mut self, key: &'static str) -> Option<&'a Node> {
        self.known.push(key);
        self.mapping.take(key)
    }

    /// The value of `key`; a mistake where it is missing.
    pub(super) fn need(&mut self, key: &'static str) -> Option<&'a Node> {
        self.known.push(key);
        match self.mapping.need(key) {
            Ok(node) => Some(node),
            Err(mistake) => {
                self.mistakes.push(mistake);
                None
            }
        }
    }

    /// The value of `key` as `read` has it, if it is there and as it should be.
    pub(super) fn read<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&'a Node, &'static str) -> Result<T, Mistake>,
    ) -> Option<T> {
        let node = self.take(key)?;
        self.keep(read(node, key))
    }

    /// A boolean, if it is there.
    pub(super) fn boolean(&mut self, key: &'static str) -> Option<bool> {
        self.read(key, Node::boolean)
    }

    /// The texts of a list, with their places; none where `key` is absent.
    pub(super) fn texts(&mut self, key: &'static str) -> Vec<(&'a str, Place)> {
        let items = self.read(key, Node::list).unwrap_or_default();
        items.iter().filter_map(|item| Some((self.keep(item.text(key))?, item.place))).collect()
    }

    /// Everything that no one took, as data.
    pub(super) fn rest(&mut self) -> Vec<(&'a document::Key, &'a Node)> {
        self.mapping.rest()
    }

    /// The value of a result, or its mistake in the list.
    pub(super) fn keep<T>(&mut self, result: Result<T, Mistake>) -> Option<T> {
        result.map_err(|mistake| self.mistakes.push(mistake)).ok()
    }

    /// Nothing may be left: each key that is, is a mistake.
    pub(super) fn finish(mut self) {
        for (key, _) in self.mapping.rest() {
            self.mistakes.push(document::unknown(key, &self.what, &self.known));
        }
    }
}
