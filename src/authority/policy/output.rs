//! The types of output: what each wants of a request, and what its roles become in it.

use super::grant::{SshGrant, TlsGrant};
use super::merge::Merged;
use crate::denial::{Denial, Reason};
use crate::text::shown;
use crate::wire::{OutputRequest, is_name};

/// The most outputs that one request can ask for.
pub const MAX_OUTPUTS: usize = 16;

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
    /// What its roles become.
    pub(super) grant: fn(&mut Merged<'_, '_>) -> Result<Halves, Denial>,
}

/// The certificates of an output.
pub(super) type Halves = (Option<SshGrant>, Option<TlsGrant>);

/// Every type of output. A new one is a line here and its function.
pub static OUTPUTS: &[OutputKind] = &[
    OutputKind {
        name: "identity",
        summary: "SSH and mTLS: logins, Git over SSH, Ansible, any service that takes client certificates",
        ssh: true,
        tls: true,
        options: &[],
        grant: identity,
    },
    OutputKind { name: "ssh", summary: "SSH alone", ssh: true, tls: false, options: &[], grant: ssh },
];

fn identity(merged: &mut Merged<'_, '_>) -> Result<Halves, Denial> {
    let ssh = merged.ssh()?;
    if ssh.is_none() {
        // Its X.509 half stands on its own.
        let name = &merged.request.name;
        merged.warnings.add(|| format!("output `{name}` has no SSH certificate: its roles grant no login"));
    }
    // Databases take the common name for the user, Kubernetes the organizations
    // for groups. A bot may be called `postgres` or `admin`; with `bot:` in
    // front it is never a user of that name, and it is in no group.
    let common_name = format!("bot:{}", merged.bot.name);
    Ok((ssh, Some(TlsGrant { common_name, organizations: Vec::new() })))
}

fn ssh(merged: &mut Merged<'_, '_>) -> Result<Halves, Denial> {
    match merged.ssh()? {
        Some(ssh) => Ok((Some(ssh), None)),
        None => Err(merged.nothing_granted("SSH login")),
    }
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
        let Some(kind) = OUTPUTS.iter().find(|kind| kind.name == output.kind) else {
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
