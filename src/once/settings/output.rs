//! Outputs as asked for with `--output` or `--config`, and as checked.

use std::path::Path;
use std::time::Duration;

use crate::destination::material::OptionValues;
use crate::destination::output_files::OutputFiles;
use crate::destination::ssh::{KNOWN_HOSTS, SSH_CONFIG};
use crate::destination::ssh_host::PUBLIC_KEY;
use crate::destination::{self, manifest};
use crate::error::{Error, Kind, Result};
use crate::folder::read::{self, Limit, Trust};
use crate::output::{self, OutputType, UsedBy};
use crate::text::{did_you_mean, shown};
use crate::wire::is_name;

/// One output.
pub(crate) struct Output {
    /// Unique in the run.
    pub name: String,
    /// The leaf cluster that issues it; none for the authority itself.
    pub at: Option<String>,
    pub kind: &'static OutputFiles,
    /// The roles it asks for; none means all.
    pub roles: Vec<String>,
    /// The type's own options.
    pub options: OptionValues,
    /// The texts of the files that some of them name.
    pub files: OptionValues,
}

impl Output {
    /// The options that the authority decides on; the others say what is done here.
    pub(crate) fn asked(&self) -> OptionValues {
        let value = |name: &str| Some((name.to_owned(), self.options.get(name)?.clone()));
        self.kind.declaration.asked().filter_map(|option| value(option.name)).collect()
    }

    /// The audience of a token, and its life in seconds where somebody says, if it is one.
    pub(crate) fn jwt(&self) -> Option<(String, Option<u64>)> {
        let is_token = self.kind.declaration.name == output::JWT.name;
        let audience = self.options.get(output::AUDIENCE).filter(|_| is_token)?;
        let ttl = self.options.get(output::TTL).and_then(|text| output::jwt_ttl(text).ok());
        Some((audience.clone(), ttl))
    }

    /// The public key that is certified in place of a new one.
    pub(crate) fn given_key(&self) -> Option<&str> {
        self.files.get(PUBLIC_KEY).map(|text| text.trim())
    }
}

/// An output as asked for, before it is checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RawOutput {
    pub kind: String,
    /// The type's, if it has none of its own, with the leaf cluster's behind it.
    pub name: Option<String>,
    pub at: Option<String>,
    pub roles: Vec<String>,
    pub destination: Option<String>,
    /// The type's own options.
    pub options: OptionValues,
}

/// `TYPE[,KEY=VALUE…]`.
pub(crate) fn parse_output(text: &str) -> Result<RawOutput> {
    let wrong = |why: String| Error::usage(format!("--output {}: {why}", shown(text)));
    let mut parts = text.split(',');
    let mut output = RawOutput { kind: parts.next().unwrap_or_default().to_owned(), ..RawOutput::default() };
    let mut seen = Vec::new();
    for part in parts {
        let (key, value) =
            part.split_once('=').ok_or_else(|| wrong(format!("`{}` is not KEY=VALUE", shown(part))))?;
        if seen.contains(&key) {
            return Err(wrong(format!("`{}` is there twice", shown(key))));
        }
        seen.push(key);
        match key {
            _ if value.is_empty() => return Err(wrong(format!("`{}` has no value", shown(key)))),
            "name" => output.name = Some(value.to_owned()),
            "at" => output.at = Some(value.to_owned()),
            "roles" => output.roles = value.split('+').map(str::to_owned).collect(),
            "destination" => output.destination = Some(value.to_owned()),
            _ => {
                output.options.insert(key.to_owned(), value.to_owned());
            }
        }
    }
    Ok(output)
}

/// Checks the outputs; the destination of its own stands beside each. `patience`
/// is for a pipe that an option names.
pub(super) fn check_outputs(
    mut raw: Vec<RawOutput>,
    (at, roles): (Option<&str>, &[String]),
    patience: Duration,
) -> Result<Vec<(Output, Option<String>)>> {
    if raw.is_empty() {
        raw.push(RawOutput { kind: "identity".to_owned(), ..RawOutput::default() });
    }
    let mut all: Vec<(Output, Option<String>)> = Vec::new();
    for mut raw in raw {
        let own = raw.destination.take();
        raw.at = raw.at.or_else(|| at.map(str::to_owned));
        let output = check_output(raw, roles, patience)?;
        if let Some((other, _)) = all.iter().find(|(it, _)| it.at == output.at && it.roles != output.roles)
            && let Some(leaf) = &output.at
        {
            return Err(Error::usage(format!(
                "the outputs `{}` and `{}` at {leaf} ask for different roles",
                other.name, output.name
            ))
            .hint("a job is vouched for once at each leaf cluster: give both outputs the same roles, or use two runs"));
        }
        if all.iter().any(|(other, _)| other.name == output.name) {
            return Err(Error::usage(format!("two outputs are named `{}`", output.name))
                .hint("give one of them another with name=…"));
        }
        all.push((output, own));
    }
    Ok(all)
}

fn check_output(raw: RawOutput, roles: &[String], patience: Duration) -> Result<Output> {
    let kind = destination::output_files(&raw.kind)
        .ok_or_else(|| unknown("output type", &raw.kind, &output::names()))?;
    let declared = kind.declaration;
    if let Some(leaf) = &raw.at {
        check_leaf(leaf, declared)?;
    }
    let usual = || raw.at.iter().fold(raw.kind.clone(), |name, leaf| format!("{name}-{leaf}"));
    let name = raw.name.clone().unwrap_or_else(usual);
    if !is_name(&name) || [manifest::FILE_NAME, SSH_CONFIG, KNOWN_HOSTS].contains(&name.as_str()) {
        let error = Error::usage(format!("`{}` cannot be the name of an output", shown(&name)))
            .hint("names are small letters, digits, `-`, `_` and `.`, at most 64 of them");
        return Err(match raw.name {
            Some(_) => error,
            None => error.hint("give it another with name=…"),
        });
    }
    let mut known = vec!["name", "at", "roles", "destination"];
    known.extend(declared.options.iter().map(|option| option.name));
    if let Some(option) = raw.options.keys().find(|option| !known.contains(&option.as_str())) {
        return Err(unknown(&format!("option of `{}`", declared.name), option, &known));
    }
    if let Some(missing) = declared.options.iter().find(|o| o.required && !raw.options.contains_key(o.name)) {
        let (kind, missing) = (declared.name, missing.name);
        return Err(Error::usage(format!("output `{name}`: type `{kind}` needs `{missing}=…`")));
    }
    let files = option_files(declared, &raw.options, &name, patience)?;
    (kind.check)(&raw.options, &files).map_err(|why| Error::usage(format!("output `{name}`: {why}")))?;
    let roles = if raw.roles.is_empty() { roles.to_vec() } else { raw.roles };
    if let Some(role) =
        roles.iter().find(|role| role.is_empty() || role.len() > 128 || role.chars().any(char::is_control))
    {
        return Err(Error::usage(format!("`{}` cannot be the name of a role", shown(role))));
    }
    Ok(Output { name, at: raw.at, kind, roles, options: raw.options, files })
}

/// Whether that can be a leaf cluster which issues outputs of this type.
fn check_leaf(name: &str, declared: &OutputType) -> Result<()> {
    if !is_cluster(name) {
        return Err(Error::usage(format!("`{}` cannot be the name of a leaf cluster", shown(name))).hint(
            "it is the `cluster` of the leaf's authority.yaml, by which the authority's policy names it",
        ));
    }
    // A token of the authority as an issuer, which no leaf can speak for.
    if declared.name == output::JWT.name {
        return Err(Error::usage(format!("an output `jwt` is never at a leaf cluster, such as {name}"))
            .hint("give at=LEAF to the other outputs alone, in place of --at"));
    }
    Ok(())
}

/// As the name of a cluster is, which stands in SPIFFE ids.
pub(super) fn is_cluster(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
    (1..=255).contains(&name.len()) && name.bytes().all(allowed) && !name.starts_with(['.', '-'])
}

/// Reads the files that options name, before anything is asked for.
fn option_files(
    declared: &OutputType,
    options: &OptionValues,
    name: &str,
    patience: Duration,
) -> Result<OptionValues> {
    let named = declared.options.iter().filter(|option| option.used_by == UsedBy::ClientFile);
    let named = named.filter_map(|option| Some((option.name, options.get(option.name)?)));
    let read = |(option, path): (&str, &String)| {
        let text = read::raw(Path::new(path), Trust::Anyone, Limit::FILE.within(patience));
        let what = || format!("output `{name}`: cannot read `{option}` {}", shown(path));
        let text = text.and_then(read::utf8).map_err(|unfit| unfit.error(Kind::Usage, what()))?;
        Ok((option.to_owned(), text.to_string()))
    };
    named.map(read).collect()
}

/// A name that is none of those that are known.
pub(super) fn unknown(what: &str, name: &str, known: &[&str]) -> Error {
    let error = Error::usage(format!("there is no {what} `{}`", shown(name)));
    let error = did_you_mean(name, known).into_iter().fold(error, Error::hint);
    error.hint(format!("there is: {}", known.join(", ")))
}
