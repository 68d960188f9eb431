//! The types of output: what each wants of a request, and what its roles become in it.
//!
//! A type is one file here and one line in [`OUTPUTS`].

use crate::denial::{Denial, Reason};
use crate::text::shown;
use crate::wire::{OutputRequest, is_name};

mod application;
mod database;
mod identity;
mod kind;
mod kubernetes;
mod ssh;
mod ssh_host;

pub use kind::OutputKind;

/// Every type of output. A new one is a file and a line here.
pub static OUTPUTS: &[&OutputKind] =
    &[&identity::KIND, &ssh::KIND, &application::KIND, &database::KIND, &kubernetes::KIND, &ssh_host::KIND];

/// The most outputs that one request can ask for.
pub const MAX_OUTPUTS: usize = 16;
/// The longest value of an option, in bytes: as long as all principals of a host may be.
const MAX_OPTION: usize = 16 << 10;

/// Checks the outputs of a request against their types, and finds these.
pub(super) fn check(outputs: &[OutputRequest]) -> Result<Vec<&'static OutputKind>, Denial> {
    let invalid = |told: String| Err(Denial::open(Reason::OutputInvalid, told));
    if outputs.is_empty() {
        return invalid("no output is asked for".to_owned());
    }
    if outputs.len() > MAX_OUTPUTS {
        return invalid(format!("{} outputs are asked for; at most {MAX_OUTPUTS} can be", outputs.len()));
    }
    let mut kinds = Vec::with_capacity(outputs.len());
    for (index, output) in outputs.iter().enumerate() {
        let name = shown(&output.name);
        if !is_name(&output.name) {
            return invalid(format!(
                "`{name}` cannot be the name of an output: lower-case letters, digits, `_`, `.` and `-`, \
                 beginning with a letter or digit, at most 64"
            ));
        }
        if outputs.iter().take(index).any(|other| other.name == output.name) {
            return invalid(format!("two outputs are named `{name}`"));
        }
        let Some(kind) = OUTPUTS.iter().copied().find(|kind| kind.name == output.kind) else {
            let names: Vec<&str> = OUTPUTS.iter().map(|kind| kind.name).collect();
            let (kind, names) = (shown(&output.kind), names.join(", "));
            return invalid(format!("output `{name}`: there is no type `{kind}`; there are: {names}"));
        };
        if let Some(option) = output.options.keys().find(|option| !kind.options.contains(&option.as_str())) {
            let takes = match kind.options {
                [] => "it takes none".to_owned(),
                options => format!("it takes: {}", options.join(", ")),
            };
            return invalid(format!(
                "output `{name}`: type `{}` has no option `{}`; {takes}",
                kind.name,
                shown(option)
            ));
        }
        if let Some(option) = kind.needs.iter().find(|option| !output.options.contains_key(**option)) {
            return invalid(format!("output `{name}`: type `{}` needs the option `{option}`", kind.name));
        }
        if let Some(option) = output.options.iter().find(|(_, value)| value.len() > MAX_OPTION) {
            return invalid(format!("output `{name}`: the option `{}` is too long", shown(option.0)));
        }
        for (key, wanted, given) in
            [("ssh", kind.ssh, output.ssh.is_some()), ("tls", kind.tls, output.tls.is_some())]
        {
            match (wanted, given) {
                (true, false) => {
                    return invalid(format!("output `{name}`: type `{}` needs a key in `{key}`", kind.name));
                }
                (false, true) => {
                    return invalid(format!("output `{name}`: type `{}` takes no key in `{key}`", kind.name));
                }
                _ => {}
            }
        }
        kinds.push(kind);
    }
    Ok(kinds)
}
