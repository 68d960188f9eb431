//! Labels of hosts: on which of them a role's logins hold.

use std::collections::{BTreeMap, BTreeSet};

use crate::document::{Mistake, Mistakes, Node, Place, Value};
use crate::principal::is_label;
use crate::text::shown_exactly;

/// The most sets of labels that a role stands for: each makes a principal of each login.
const MAX_SETS: usize = 64;

/// On which hosts a role's logins hold.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// None: no `node_labels`, so nobody said where.
    Nowhere,
    /// All: `{'*': '*'}`.
    Everywhere,
    /// Those with all labels of one of these, each `k=v,k2=v2`, keys sorted.
    /// What separates them is in no key and no value, so that no two sets of
    /// labels read the same.
    Labelled(Vec<String>),
}

impl Reach {
    /// How many principals a login becomes; one where it is not said, so that
    /// the bound on them is one on logins too.
    pub(crate) fn width(&self) -> usize {
        match self {
            Self::Nowhere | Self::Everywhere => 1,
            Self::Labelled(sets) => sets.len(),
        }
    }

    /// Reads labels: a mapping of texts or lists of texts, or `{'*': '*'}`.
    pub(crate) fn read(node: &Node, what: &'static str) -> Result<Self, Mistakes> {
        let mut mapping = node.mapping(&format!("`{what}`"))?;
        let entries = mapping.rest();
        let mut labels: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        let mut everywhere = false;
        for (key, node) in &entries {
            let Some(values) = mapping.mistakes.keep(label_values(node, &key.text)) else { continue };
            if key.text == "*" {
                everywhere = matches!(values.as_slice(), [("*", _)]) && entries.len() == 1;
                if !everywhere {
                    let message = format!("`*` in `{what}` stands alone, as `{{'*': '*'}}`");
                    let hint = "name the labels, or allow every host";
                    mapping.mistakes.add(Mistake::new(key.place, message).hint(hint));
                }
                continue;
            }
            if !is_label(&key.text) {
                mapping.mistakes.add(not_a_label("key", &key.text, what, key.place));
            }
            for (value, place) in values.iter().filter(|(value, _)| !is_label(value)) {
                mapping.mistakes.add(not_a_label("value", value, what, *place));
            }
            labels.insert(&key.text, values.into_iter().map(|(value, _)| value).collect());
        }
        let sets = labels.values().try_fold(1_usize, |sets, values| sets.checked_mul(values.len()));
        if sets.is_none_or(|sets| sets > MAX_SETS) {
            let message = format!("`{what}` stands for more than {MAX_SETS} sets of labels");
            let hint = "split the role, or use one label for them";
            mapping.mistakes.add(Mistake::new(node.place, message).hint(hint));
        }
        mapping.finish()?;
        Ok(if everywhere { Self::Everywhere } else { Self::Labelled(label_sets(&labels)) })
    }
}

fn label_values<'a>(node: &'a Node, key: &str) -> Result<Vec<(&'a str, Place)>, Mistakes> {
    let key = &shown_exactly(key);
    if !matches!(node.value, Value::List(_)) {
        return Ok(vec![(node.text(key)?, node.place)]);
    }
    let mut mistakes = Mistakes::default();
    let items = node.list(key)?.iter();
    let values = items.filter_map(|item| Some((mistakes.keep(item.text(key))?, item.place))).collect();
    mistakes.or(values)
}

fn not_a_label(which: &str, text: &str, what: &str, place: Place) -> Mistake {
    let message = format!("the {which} `{}` in `{what}` cannot be part of a label", shown_exactly(text));
    Mistake::new(place, message)
        .hint("a label has letters, digits, `_`, `.`, `/`, `:` and `-`; wildcards only as `{'*': '*'}`")
}

/// Every combination of one value of each label.
fn label_sets(labels: &BTreeMap<&str, BTreeSet<&str>>) -> Vec<String> {
    labels.iter().fold(vec![String::new()], |sets, (key, values)| {
        let longer = |set: &String, value: &&str| match set.as_str() {
            "" => format!("{key}={value}"),
            _ => format!("{set},{key}={value}"),
        };
        sets.iter().flat_map(|set| values.iter().map(move |value| longer(set, value))).collect()
    })
}
