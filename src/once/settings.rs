//! Options, parsed a second time: what was typed, the environment and the
//! `--config` file become one value that the rest takes and nobody checks again.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use crate::cli::Format;
use crate::cli::once::Args;
use crate::destination::AGENT_SOCKET;
use crate::document::parse_duration;
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::folder::absolute;
use crate::join::source::TokenSource;
use crate::join::{self, method::Method};
use crate::net::{AuthorityTrust, authority_url, timeout};
use crate::once::settings::config_file::ConfigFile;
use crate::once::settings::destinations::{
    Asked, Destination, common_destination, destinations, earlier_destination,
};
use crate::once::settings::inherited::Inherited;
use crate::once::settings::leaf::{PinnedLeaf, pinned};
use crate::once::settings::output::{Output, check_outputs, parse_output, unknown};
use crate::once::settings::storage::StorageOptions;
use crate::suite::KeyType;
use crate::text::shown;
use crate::wire::{MIN_TTL, USUAL_TTL};

mod config_file;
pub(crate) mod destinations;
mod inherited;
pub(crate) mod leaf;
pub(crate) mod output;
pub(crate) mod storage;

/// The longest path of a socket: `sun_path` has 104 bytes on some systems, with its end.
const MAX_SOCKET_PATH: usize = 103;

/// What `once` is to do.
pub(crate) struct Settings {
    /// The authority's URL: scheme, host and port, without a slash at the end.
    pub authority: String,
    pub trust: AuthorityTrust,
    pub method: &'static Method,
    /// Where the job's token is, if the method does not ask for one.
    pub source: Option<TokenSource>,
    /// Whether the user said so.
    pub by_hand: bool,
    pub storage: StorageOptions,
    /// The join token's name.
    pub token: String,
    /// How long the certificates should live, in seconds.
    pub ttl_seconds: i64,
    /// The keys that are made, where somebody says which.
    pub key_type: Option<KeyType>,
    /// The time for an exchange, retries included.
    pub timeout: Duration,
    /// What is written where; at least one, each path once.
    pub destinations: Vec<Destination>,
    /// What is known of leaf clusters, whatever the authority says.
    pub leaves: Vec<PinnedLeaf>,
    /// Whether outputs that a leaf cluster does not give are a failure.
    pub require_all: bool,
    /// The destination of an earlier `once` of this job, from which ours takes `$MACHINE_ID_DESTINATION`.
    pub earlier: Option<String>,
    /// What to say about them.
    pub notes: Vec<String>,
    pub format: Format,
    /// The socket on which COMMAND is served the SSH keys, which are in no file then.
    pub agent: Option<String>,
    /// What of this process's environment COMMAND gets.
    pub inherited: Inherited,
    /// COMMAND; empty where there is none.
    pub command: Vec<OsString>,
}

impl Settings {
    /// Joins and checks them; a flag beats the environment, which beats the file.
    ///
    /// # Errors
    /// `Kind::Usage`, naming the flag and the variable.
    pub(crate) fn new(args: Args, env: &Environment) -> Result<Self> {
        let timeout = timeout(&args.timeout)?;
        let file = match args.config.as_deref().or_else(|| env.get("MACHINE_ID_CONFIG")) {
            Some(path) => ConfigFile::read(Path::new(path), timeout)?,
            None => ConfigFile::default(),
        };
        let pick = |flag: &Option<String>, variable: &str, file: &Option<String>| {
            flag.clone().or_else(|| env.get(variable).map(str::to_owned)).or_else(|| file.clone())
        };
        let authority = pick(&args.authority, "MACHINE_ID_AUTHORITY", &file.authority)
            .ok_or_else(|| missing("the authority", "--authority URL", "MACHINE_ID_AUTHORITY"))
            .and_then(|url| authority_url(&url))?;
        let method =
            method(pick(&args.join_method, "MACHINE_ID_JOIN_METHOD", &file.join_method).as_deref(), env)?;
        let token = pick(&args.token, "MACHINE_ID_TOKEN", &file.token)
            .ok_or_else(|| missing("the join token", "--token NAME", "MACHINE_ID_TOKEN"))
            .and_then(join_token)?;
        let ttl = pick(&args.ttl, "MACHINE_ID_TTL", &file.ttl);
        let key_type = pick(&args.key_type, "MACHINE_ID_KEY_TYPE", &file.key_type);
        let trust = trust(&args, env, &file)?;
        let mut notes = Vec::new();
        let typed = args.outputs.iter().map(|text| parse_output(text)).collect::<Result<Vec<_>>>()?;
        let outputs = if typed.is_empty() { file.outputs } else { typed };
        let at = args.at.as_deref().or(file.at.as_deref());
        let outputs = check_outputs(outputs, (at, &args.roles), timeout)?;
        let asked = Asked { authority: &authority, token: &token, wrapped: !args.command.is_empty() };
        let said = args.destination.clone();
        let common = common_destination(said, env, file.destination, (&asked, &outputs), &mut notes);
        let destinations = destinations(outputs, common, env, &mut notes)?;
        let earlier = earlier_destination(env, &asked, &destinations);
        let storage = StorageOptions::join(method, &args, env, file.storage, &mut notes)?;
        storage.stands_apart(&destinations)?;
        let by_hand = by_hand(method, args.id_token_env, args.id_token_file)?;
        let inherited = Inherited::new(args.clear_env, args.keep_env, by_hand.as_ref());
        let agent = args.agent.then(|| agent_socket(&destinations, &args.command)).transpose()?;
        Ok(Self {
            authority,
            trust,
            method,
            by_hand: by_hand.is_some(),
            storage,
            token,
            ttl_seconds: ttl.map_or(Ok(i64::from(USUAL_TTL)), |ttl| ttl_seconds(&ttl))?,
            key_type: key_type.as_deref().map(self::key_type).transpose()?,
            timeout,
            destinations,
            leaves: pinned(file.leaves)?,
            require_all: args.require_all,
            earlier,
            inherited,
            agent,
            source: by_hand.or_else(|| (method.source)(env)),
            notes,
            format: args.format,
            command: args.command,
        })
    }

    /// Every output, in the order of the requests.
    pub(crate) fn outputs(&self) -> impl Iterator<Item = &Output> {
        self.destinations.iter().flat_map(|destination| &destination.outputs)
    }

    /// The leaf clusters that outputs are asked of, each once.
    pub(crate) fn leaves_asked(&self) -> Vec<&str> {
        let mut all = Vec::new();
        for leaf in self.outputs().filter_map(|output| output.at.as_deref()) {
            if !all.contains(&leaf) {
                all.push(leaf);
            }
        }
        all
    }
}

fn missing(what: &str, flag: &str, variable: &str) -> Error {
    Error::usage(format!("{what} is not given")).hint(format!("give {flag}, or set {variable}"))
}

fn method(name: Option<&str>, env: &Environment) -> Result<&'static Method> {
    let known = join::names();
    let Some(name) = name else {
        return join::detect(env).ok_or_else(|| {
            Error::usage(
                "this is not a CI job that machine-id knows, so how it proves who it is must be said",
            )
            .hint(format!(
                "give --join-method, or set MACHINE_ID_JOIN_METHOD, to one of: {}",
                known.join(", ")
            ))
        });
    };
    let none = || join::elsewhere(name).into_iter().fold(unknown("join method", name, &known), Error::hint);
    join::find(name).ok_or_else(none)
}

/// A token that the user says where to find.
fn by_hand(method: &Method, variable: Option<String>, file: Option<String>) -> Result<Option<TokenSource>> {
    let source = variable
        .map(|name| TokenSource::variable(name).by("--id-token-env"))
        .or_else(|| file.map(|path| TokenSource::file(path).by("--id-token-file")));
    if source.is_some() && !method.takes_id_token {
        return Err(Error::usage(format!("the join method `{}` takes no token by hand", method.name))
            .hint("leave --id-token-env and --id-token-file out, or choose another --join-method"));
    }
    Ok(source)
}

fn join_token(name: String) -> Result<String> {
    // A JWT in its place would be sent, logged and shown as if it were no secret.
    if name.len() > 128 || name.starts_with("eyJ") || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Error::usage("--token (MACHINE_ID_TOKEN) is not the name of a join token")
            .hint("it is a name of the authority's policy, not a secret; a token is handed over with --id-token-env or --id-token-file"));
    }
    Ok(name)
}

fn ttl_seconds(text: &str) -> Result<i64> {
    let wrong = |why: &str| Error::usage(format!("--ttl (MACHINE_ID_TTL): {why}"));
    let seconds = parse_duration(text).map_err(|why| wrong(&why))?;
    if seconds < u64::from(MIN_TTL) {
        return Err(wrong(&format!("must be at least {MIN_TTL}s")));
    }
    i64::try_from(seconds).map_err(|_| wrong("is too long"))
}

fn key_type(name: &str) -> Result<KeyType> {
    let wrong = || unknown("key type", name, &KeyType::ALL.map(|(name, _)| name));
    KeyType::named(name).ok_or_else(|| wrong().hint("--key-type (MACHINE_ID_KEY_TYPE) names it"))
}

fn trust(args: &Args, env: &Environment, file: &ConfigFile) -> Result<AuthorityTrust> {
    let trust = AuthorityTrust::new(args.ca_file.as_deref(), args.ca_pin.as_deref())
        .or(AuthorityTrust::of_environment(env))
        .or(AuthorityTrust::new(file.ca_file.as_deref(), file.ca_pin.as_deref()));
    let ca_file = trust.ca_file.map(|file| absolute(&file.to_string_lossy())).transpose()?;
    Ok(AuthorityTrust { ca_file, ..trust })
}

/// The agent's socket, in the destination that COMMAND is told of.
fn agent_socket(destinations: &[Destination], command: &[OsString]) -> Result<String> {
    if command.is_empty() {
        return Err(Error::usage("--agent serves the SSH key to COMMAND, and there is none")
            .hint("put `-- COMMAND` behind the options, or leave --agent out"));
    }
    if !destinations.iter().flat_map(|one| &one.outputs).any(|output| output.kind.declaration.keys.ssh) {
        return Err(Error::usage("--agent serves SSH keys, and no output has one")
            .hint("ask for an output `ssh` or `identity`, or leave --agent out"));
    }
    let folder = destinations.first().map(|one| one.path.to_string_lossy()).unwrap_or_default();
    let socket = format!("{folder}/{AGENT_SOCKET}");
    if socket.len() > MAX_SOCKET_PATH {
        return Err(Error::usage(format!(
            "the destination's path is too long for --agent: {} is longer than {MAX_SOCKET_PATH} bytes, the most that a socket's path can have",
            shown(&socket)
        ))
        .hint("choose a shorter --destination"));
    }
    Ok(socket)
}

#[cfg(test)]
mod tests;
