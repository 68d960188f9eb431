//! The destinations of `once`, from what was asked for to absolute paths that
//! can stand in `ssh_config`.

use std::path::{Path, PathBuf};

use crate::destination::{ssh, wipe};
use crate::environment::Environment;
use crate::error::{Error, Kind, Result};
use crate::folder::absolute;
use crate::folder::trust;
use crate::once::settings::output::Output;
use crate::random;
use crate::text::{is_inert, shown};

/// The variable that names a destination: to `once` by hand, and to later
/// steps by `once`.
const VARIABLE: &str = "MACHINE_ID_DESTINATION";

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

/// Where the outputs without a destination of their own go, if it was said: a
/// flag beats the environment, which beats the file. For a COMMAND, a variable
/// that an earlier `once` has set for later steps says where *its* certificates
/// are, not where others are to be put: they would replace them, and take them
/// away when COMMAND ends.
pub(super) fn common_destination(
    flag: Option<String>,
    env: &Environment,
    file: Option<String>,
    wrapped: bool,
    notes: &mut Vec<String>,
) -> Option<String> {
    let earlier = |path: &str| absolute(path).is_ok_and(|path| matches!(wipe::find(&path), Ok(Some(_))));
    match (flag, env.get(VARIABLE)) {
        (None, Some(path)) if wrapped && earlier(path) => {
            let path = shown(path);
            notes.push(format!("{VARIABLE} is that of an earlier `once`, which is left alone: {path}"));
            file
        }
        (flag, variable) => flag.or(variable.map(str::to_owned)).or(file),
    }
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
/// the host, which is not there, or belongs to the host's user.
fn default_parent(env: &Environment, notes: &mut Vec<String>) -> Result<String> {
    let variables = ["RUNNER_TEMP", "XDG_RUNTIME_DIR", "TMPDIR"];
    let named = variables.iter().filter_map(|name| Some((*name, env.get(name)?)));
    for (name, place) in named.chain([("the default", "/tmp")]) {
        match trust::fit(Path::new(place)).map(|fit| fit.to_str().map(str::to_owned)) {
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
