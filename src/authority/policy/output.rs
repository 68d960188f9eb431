//! The authority's half of each type of output: what its roles become.
//!
//! A type is one file here and one line in [`OUTPUTS`].

use std::collections::HashSet;

use crate::denial::{Denial, Reason};
use crate::output::{self as declared, OutputOption};
use crate::text::shown;
use crate::wire::{OutputRequest, is_name};

mod application;
mod database;
mod identity;
mod jwt;
mod kubernetes;
mod output_policy;
mod ssh;
mod ssh_host;

pub use output_policy::OutputPolicy;

/// Every type of output, in the order of [`crate::output::TYPES`]. A new one is a file and a line here.
pub static OUTPUTS: &[&OutputPolicy] = &[
    &identity::POLICY,
    &ssh::POLICY,
    &application::POLICY,
    &database::POLICY,
    &kubernetes::POLICY,
    &ssh_host::POLICY,
    &jwt::POLICY,
];

/// The most outputs that one request can ask for.
pub const MAX_OUTPUTS: usize = 16;
/// The longest value of an option, in bytes: as long as all principals of a host may be.
const MAX_OPTION: usize = 16 << 10;

/// Checks the outputs of a request against their types, and finds these.
pub(super) fn check(outputs: &[OutputRequest]) -> Result<Vec<&'static OutputPolicy>, Denial> {
    let invalid = |told: String| Denial::open(Reason::OutputInvalid, told);
    match outputs.len() {
        0 => return Err(invalid("no output is asked for".to_owned())),
        1..=MAX_OUTPUTS => {}
        count => {
            return Err(invalid(format!("{count} outputs are asked for; at most {MAX_OUTPUTS} can be")));
        }
    }
    let mut names = HashSet::new();
    let one = |output: &OutputRequest| {
        let name = shown(&output.name);
        if !is_name(&output.name) {
            return Err(invalid(format!(
                "`{name}` cannot be the name of an output: lower-case letters, digits, `_`, `.` and `-`, \
                 beginning with a letter or digit, at most 64"
            )));
        }
        if !names.insert(name.clone()) {
            return Err(invalid(format!("two outputs are named `{name}`")));
        }
        policy_of(output).map_err(|why| invalid(format!("output `{name}`: {why}")))
    };
    outputs.iter().map(one).collect()
}

/// The type of an output, where it has what that wants; or what is wrong.
fn policy_of(output: &OutputRequest) -> Result<&'static OutputPolicy, String> {
    let policy = OUTPUTS.iter().copied().find(|policy| policy.declaration.name == output.kind);
    let policy = policy.ok_or_else(|| {
        format!("there is no type `{}`; there are: {}", shown(&output.kind), declared::names().join(", "))
    })?;
    let (declaration, kind) = (policy.declaration, policy.declaration.name);
    let known: Vec<&str> = declaration.asked().map(|option| option.name).collect();
    if let Some(option) = output.options.keys().find(|option| !known.contains(&option.as_str())) {
        let takes = match known.as_slice() {
            [] => "it takes none".to_owned(),
            known => format!("it takes: {}", known.join(", ")),
        };
        return Err(format!("type `{kind}` has no option `{}`; {takes}", shown(option)));
    }
    let missing = |option: &&OutputOption| option.required && !output.options.contains_key(option.name);
    if let Some(option) = declaration.asked().find(missing) {
        return Err(format!("type `{kind}` needs the option `{}`", option.name));
    }
    if let Some((option, _)) = output.options.iter().find(|(_, value)| value.len() > MAX_OPTION) {
        return Err(format!("the option `{}` is too long", shown(option)));
    }
    for (key, wanted, given) in [
        ("ssh", declaration.has_ssh(), output.ssh.is_some()),
        ("tls", declaration.keys.tls, output.tls.is_some()),
    ] {
        if wanted != given {
            let takes = if wanted { "needs a key" } else { "takes no key" };
            return Err(format!("type `{kind}` {takes} in `{key}`"));
        }
    }
    Ok(policy)
}
