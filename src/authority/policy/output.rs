//! The types of output: what each wants of a request, and what its roles become in it.
//!
//! A type is one file here and one line in [`OUTPUTS`]; the fields of roles
//! that it issues stand in its file too.

use super::field::Field;
use super::grant::{SshGrant, TlsGrant};
use super::merge::Merged;
use crate::denial::{Denial, Reason};
use crate::text::shown;
use crate::wire::{OutputRequest, is_name};

mod application;
mod database;
mod identity;
mod kubernetes;
mod ssh;
mod ssh_host;

/// Every type of output. A new one is a file and a line here.
pub static OUTPUTS: &[&OutputKind] =
    &[&identity::KIND, &ssh::KIND, &application::KIND, &database::KIND, &kubernetes::KIND, &ssh_host::KIND];

/// The most outputs that one request can ask for.
pub const MAX_OUTPUTS: usize = 16;
/// The longest value of an option, in bytes: as long as all principals of a host may be.
const MAX_OPTION: usize = 16 << 10;

/// A type of output.
#[derive(Debug)]
pub struct OutputKind {
    /// Its name: `--output NAME`, `"type": "NAME"`.
    pub name: &'static str,
    /// What it is for, for help and the documentation.
    pub summary: &'static str,
    /// Whether it carries an SSH certificate, and so wants an SSH key.
    pub ssh: bool,
    /// Whether it carries an X.509 certificate, and so wants a CSR.
    pub tls: bool,
    /// The options that it takes.
    pub options: &'static [&'static str],
    /// Those of them that it cannot do without.
    pub needs: &'static [&'static str],
    /// Those of them that the record repeats: what decided the certificate and
    /// is not on it.
    pub recorded: &'static [&'static str],
    /// The fields of roles that it issues: the name on the certificate first,
    /// then what a role gives with that name.
    pub(super) fields: &'static [&'static Field],
    /// What its roles become.
    pub(super) grant: fn(&mut Merged<'_, '_>) -> Result<Halves, Denial>,
}

/// The certificates of an output.
pub(super) type Halves = (Option<SshGrant>, Option<TlsGrant>);

/// Every field of roles that some output issues.
pub(super) fn fields() -> impl Iterator<Item = &'static Field> {
    OUTPUTS.iter().flat_map(|kind| kind.fields.iter().copied())
}

/// Checks the outputs of a request against their types, and finds these.
pub(super) fn check(outputs: &[OutputRequest]) -> Result<Vec<&'static OutputKind>, Denial> {
    let invalid = |told: String| Err(Denial::new(Reason::OutputInvalid, told.clone()).tell(told));
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
