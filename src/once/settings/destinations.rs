//! The destinations of `once`, from what was asked for to absolute paths that
//! can stand in `ssh_config`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::destination::manifest::{Manifest, ManifestOutput};
use crate::destination::wipe::Found;
use crate::destination::{ssh, wipe};
use crate::environment::Environment;
use crate::error::{Error, Kind, Result};
use crate::folder::{Unfit, absolute, replace, trust};
use crate::once::settings::output::Output;
use crate::random;
use crate::text::{is_inert, shown};

/// The variable that names a destination: to `once` by hand, and to later
/// steps by `once`.
pub(crate) const VARIABLE: &str = "MACHINE_ID_DESTINATION";

/// What `once` sets with it, and nobody by hand.
pub(crate) const EXPIRES_AT: &str = "MACHINE_ID_EXPIRES_AT";

/// A destination and the outputs in it.
pub(crate) struct Destination {
    /// Absolute, and UTF-8.
    pub path: PathBuf,
    /// At least one.
    pub outputs: Vec<Output>,
}

impl Destination {
    /// The folder of an output in it; none, ``, for one that is alone.
    pub(crate) fn folder(&self, output: &Output) -> String {
        if self.outputs.len() == 1 { String::new() } else { output.name.clone() }
    }

    /// The path of that folder.
    pub(crate) fn folder_path(&self, output: &Output) -> String {
        let path: PathBuf = self.path.join(self.folder(output)).components().collect();
        path.to_string_lossy().into_owned()
    }
}

/// What is asked for, as far as it says whether one issuance is as good as another.
pub(crate) struct Asked<'a> {
    pub authority: &'a str,
    pub token: &'a str,
    /// Whether there is a COMMAND.
    pub wrapped: bool,
}

impl Asked<'_> {
    /// Whether with these outputs what that manifest is of would be there anew.
    pub(crate) fn renews(&self, manifest: &Manifest, outputs: &[&Output]) -> bool {
        manifest.authority == self.authority
            && manifest.token == self.token
            && manifest.outputs.len() + manifest.missing.len() == outputs.len()
            && outputs.iter().all(|output| {
                let at = output.at.as_deref();
                manifest.missing.iter().any(|it| it.name == output.name && Some(it.at.as_str()) == at)
                    || manifest.outputs.iter().any(|it| manifest.leaf_of(it) == at && is_same(it, output))
            })
    }
}

fn is_same(written: &ManifestOutput, output: &Output) -> bool {
    let sorted = |roles: &[String]| roles.iter().cloned().collect::<BTreeSet<_>>();
    written.name == output.name
        && written.kind == output.kind.declaration.name
        && written.options == output.options
        // A leaf cluster has roles of its own, whatever they are called here.
        && (output.at.is_some() || output.roles.is_empty() || sorted(&written.roles) == sorted(&output.roles))
}

/// The destination of an earlier `once` of this job, if [`VARIABLE`] is there
/// for later steps to find it: `once` sets [`EXPIRES_AT`] with it.
fn of_an_earlier_once(env: &Environment) -> Option<Found> {
    env.get(EXPIRES_AT)?;
    wipe::find(&absolute(env.get(VARIABLE)?).ok()?).ok()?
}

/// Where the outputs without a destination of their own go, if it was said: a
/// flag beats the environment, which beats the file. A variable that an earlier
/// `once` has set for later steps says where *its* certificates are, not where
/// others are to be put, which would replace them, nor those of a COMMAND,
/// which are taken away when it ends. The same ones may be had anew there.
pub(super) fn common_destination(
    flag: Option<String>,
    env: &Environment,
    file: Option<String>,
    (asked, outputs): (&Asked<'_>, &[(Output, Option<String>)]),
    notes: &mut Vec<String>,
) -> Option<String> {
    let holds = |path: &str| absolute(path).is_ok_and(|path| matches!(wipe::find(&path), Ok(Some(_))));
    let here: Vec<&Output> =
        outputs.iter().filter(|(_, own)| own.is_none()).map(|(output, _)| output).collect();
    let others = |found: &Found| {
        found.is_in_use() || found.manifest.is_live() && !asked.renews(&found.manifest, &here)
    };
    let is_left_alone = |path: &str| match asked.wrapped {
        true => holds(path),
        false => of_an_earlier_once(env).as_ref().is_some_and(others),
    };
    match (flag, env.get(VARIABLE)) {
        (None, Some(path)) if is_left_alone(path) => {
            notes.push(format!(
                "{VARIABLE} is that of an earlier `once`, which is left alone: {}",
                shown(path)
            ));
            // Both may have read it there.
            file.filter(|file| absolute(file).ok() != absolute(path).ok())
        }
        (flag, variable) => flag.or(variable.map(str::to_owned)).or(file),
    }
}

/// The destination from which ours takes [`VARIABLE`], so that `cleanup` finds it behind ours.
pub(super) fn earlier_destination(
    env: &Environment,
    asked: &Asked<'_>,
    ours: &[Destination],
) -> Option<String> {
    let found = of_an_earlier_once(env).filter(|_| !asked.wrapped)?;
    if ours.iter().any(|destination| destination.path == found.path()) {
        return found.manifest.earlier;
    }
    found.path().to_str().map(str::to_owned)
}

/// Groups the outputs by destination, the common one first: it is printed and handed on.
///
/// # Errors
/// `Kind::Usage`; `Kind::Destination` where there is no place for a new directory.
pub(super) fn destinations(
    outputs: Vec<(Output, Option<String>)>,
    said: Option<String>,
    env: &Environment,
    notes: &mut Vec<String>,
) -> Result<Vec<Destination>> {
    let mut all: Vec<Destination> = Vec::new();
    let mut common: Option<PathBuf> = None;
    for (output, own) in outputs {
        let path = match (own.as_deref(), &common) {
            (Some(own), _) => destination_path(own)?,
            (None, Some(common)) => common.clone(),
            (None, None) => common.insert(common_path(said.as_deref(), env, notes)?).clone(),
        };
        match all.iter_mut().find(|destination| destination.path == path) {
            Some(destination) => destination.outputs.push(output),
            None => all.push(Destination { path, outputs: vec![output] }),
        }
    }
    all.sort_by_key(|destination| Some(&destination.path) != common.as_ref());
    Ok(all)
}

fn common_path(said: Option<&str>, env: &Environment, notes: &mut Vec<String>) -> Result<PathBuf> {
    match said {
        Some(path) => destination_path(path),
        None => {
            let parent = default_parent(env, notes)?;
            destination_path(&format!("{parent}/machine-id-{}", random::hex::<8>()?))
        }
    }
}

/// Where a new destination stands: the first place in which nobody else could
/// put another directory in its stead. Variables may come from another user
/// (`sudo -E`), and in a container action `RUNNER_TEMP` names a directory of
/// the host, which is not there, belongs to the host's user, or cannot be written to.
fn default_parent(env: &Environment, notes: &mut Vec<String>) -> Result<String> {
    let variables = ["RUNNER_TEMP", "XDG_RUNTIME_DIR", "TMPDIR"];
    let named = variables.iter().filter_map(|name| Some((*name, env.get(name)?)));
    for (name, place) in named.chain([("the default", "/tmp")]) {
        let fit = trust::fit(Path::new(place)).and_then(|fit| {
            replace::try_making(&fit).map_err(|error| Unfit::new(format!("cannot write to it: {error}")))?;
            Ok(fit)
        });
        match fit.map(|fit| fit.to_str().map(str::to_owned)) {
            Ok(Some(fit)) => return Ok(fit.trim_end_matches('/').to_owned()),
            Ok(None) => notes.push(format!("not in {name} ({}): its path is not UTF-8", shown(place))),
            Err(why) => notes.push(format!("not in {name} ({}): {}", shown(place), shown(&why.to_string()))),
        }
    }
    Err(Error::new(Kind::Destination, notes.join("; "))
        .context("there is no place for a new destination")
        .hint("give --destination, below a directory that only this user can write to")
        .hint("in a pod, mount an `emptyDir: {medium: Memory}` at /tmp: unlike other volumes it keeps users apart"))
}

/// An absolute path that can stand in `ssh_config`, in a variable and on a line of its own.
fn destination_path(text: &str) -> Result<PathBuf> {
    let wrong = |why: &str| Error::usage(format!("cannot use the destination `{}`: {why}", shown(text)));
    // `components` drops what a slash or `/.` at the end would change.
    let path: PathBuf = absolute(text)?.components().collect();
    if path.file_name().is_none() {
        return Err(wrong("it has no name"));
    }
    let Some(plain) = path.to_str() else { return Err(wrong("it is not UTF-8")) };
    if !ssh::is_quotable(plain) {
        return Err(wrong("it holds a control character, `\"`, `\\` or `${`, which ssh_config cannot quote"));
    }
    if !is_inert(plain) {
        return Err(wrong("it holds what nobody sees, or what a CI system takes as a command"));
    }
    Ok(path)
}
