//! The output `application`: a certificate for one named application.
//!
//! Applications are not resources here, so a role's `app_labels` can be about
//! their name alone: `{name: orders}`, `{name: [orders, billing]}`, or
//! `{'*': '*'}` for all of them.

use super::{Halves, OutputKind};
use crate::authority::policy::field::{Field, Wildcard};
use crate::authority::policy::grant::TlsGrant;
use crate::authority::policy::merge::Merged;
use crate::authority::policy::role::{Reach, read_labels};
use crate::authority::policy::section::Section;
use crate::denial::Denial;
use crate::document::Place;
use crate::join::rules::glob;
use crate::wire::is_name;

/// The type.
pub(super) static KIND: OutputKind = OutputKind {
    name: "application",
    summary: "mTLS to a named application",
    ssh: false,
    tls: true,
    options: &["app"],
    needs: &["app"],
    recorded: &["app"],
    fields: &[&APPS],
    grant,
};

/// With `app:` in front it must fit a common name.
const MAX_NAME: usize = 60;

static APPS: Field = Field {
    key: "app_labels",
    noun: "application",
    shape: |text| text.len() <= MAX_NAME && is_name(text),
    hint: "an application is known by its `name` alone: lower-case letters, digits, `_`, `.` and `-`, at most 60",
    wildcard: Wildcard::Alone,
    covers: glob,
    same_as: None,
    // A set of labels; no name has a `=`.
    hollow: |set| set.contains('='),
    superusers: &[],
    literal_only: None,
    entries,
};

/// The names that labels stand for. A set with other labels than `name` is no
/// application's and stays as it is; in `deny` that is a mistake, in `allow` it gives nothing.
fn entries(section: &mut Section<'_, '_>, key: &'static str) -> Vec<(String, Place)> {
    let Some(node) = section.take(key) else { return Vec::new() };
    match read_labels(node, key, section.mistakes()) {
        Reach::Nowhere => Vec::new(),
        Reach::Everywhere => vec![("*".to_owned(), node.place)],
        Reach::Labelled(sets) => sets
            .into_iter()
            .map(|set| match set.strip_prefix("name=").filter(|name| !name.contains(',')) {
                Some(name) => (name.to_owned(), node.place),
                None => (set, node.place),
            })
            .collect(),
    }
}

fn grant(merged: &mut Merged<'_, '_>) -> Result<Halves, Denial> {
    merged.leave_out_pinned();
    let app = merged.named(&APPS, "app")?;
    let app = merged.choose(&APPS, "app", app, &merged.roles.clone())?;
    // Never the name of a database user or of a Kubernetes user.
    Ok((None, Some(TlsGrant { common_name: format!("app:{app}"), organizations: Vec::new() })))
}
