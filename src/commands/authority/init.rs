//! `machine-id authority init`: a new data directory.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::example::{Wanted, usual_form};
use crate::authority::config;
use crate::authority::keys::{self, CaKeys, KeyPlace};
use crate::authority::store::StorePlace;
use crate::authority::store::seal::{STORE_KEY, StoreKey};
use crate::authority::store::sqlite::{MARK, Sqlite};
use crate::cli::Format;
use crate::cli::authority::Init;
use crate::clock::Clock;
use crate::document::written;
use crate::environment::Environment;
use crate::error::{Context as _, Error, Kind, Result};
use crate::folder::replace::{make_private, write_new};
use crate::folder::trust::Owner;
use crate::folder::{Aside, PRIVATE_FILE, absolute};
use crate::terminal::{log, print};
use crate::text::{json as inert_json, shell_quoted};

const POLICY: &str = "policy";

pub(super) fn run(args: &Init) -> Result<()> {
    let Init { cluster, public_url, store, keys, .. } = args;
    let dir = args.data.data_dir.as_path();
    let wanted = args.example.as_deref().zip(args.login.as_deref());
    let wanted =
        wanted.map(|(what, login)| Wanted::read(what, login, args.workflow.as_deref())).transpose()?;
    let cluster = config::check_cluster(cluster)
        .map_err(|why| Error::usage(format!("`--cluster` {why}")).hint("for example id.example.com"))?;
    let public_url =
        config::check_public_url(public_url).map_err(|why| Error::usage(format!("`--public-url` {why}")))?;
    let suite = config::check_suite(&args.suite).map_err(|why| Error::usage(format!("`--suite` {why}")))?;
    // Whoever serves is in another folder.
    let sealed_by =
        args.key_passphrase_file.as_deref().map(|path| absolute(&path.to_string_lossy())).transpose()?;
    let passphrase = keys::passphrase(sealed_by.as_deref(), Owner::me(), &Environment::of_process())?;
    let file = store_file(store)?;
    check_keys(keys, sealed_by.is_some())?;
    if dir.join(config::FILE).exists() {
        return Err(Error::usage(format!("{} is an authority's data directory already", dir.display()))
            .hint(
                "nothing was changed; choose another --data-dir, or delete that one if its CA keys may go",
            ));
    }
    config::unfinished(dir).map_or(Ok(()), Err)?;
    if wanted.is_some() && dir.join(POLICY).exists() {
        return Err(Error::usage(format!(
            "{} is there already, which `--example` does not add to",
            dir.join(POLICY).display()
        ))
        .hint("run it without `--example`, and then `machine-id authority policy add`"));
    }
    let example = wanted.as_ref().map(|wanted| wanted.write(None, Owner::me(), |_| false)).transpose()?;
    if let Some(file) = &example {
        file.beside(&[])?;
    }
    let cannot = || format!("cannot use {}", dir.display());
    let aside = Aside::of(dir).map_err(|unfit| unfit.error(Kind::Usage, cannot()))?;
    let at = |name: &str| aside.path().join(name);
    make_private(&at(POLICY))?;
    if let Some(file) = &example {
        write_new(&at(POLICY).join(file.file()), file.text.as_bytes(), PRIVATE_FILE)?;
    }
    let key = StoreKey::new(aside.path(), Owner::me(), &cluster);
    match &file {
        Some(file) => Sqlite::create(&at(file), &key)?,
        None => key.create().map(drop)?,
    }
    let sealed_by =
        sealed_by.map(|path| format!("key_passphrase_file: {}\n", written(&path.to_string_lossy())));
    let text = format!(
        "version: v1\ncluster: '{cluster}'\npublic_url: {public_url}  # the audience that OIDC tokens must carry\n\
         listen: 127.0.0.1:8443\nstore: {}\nkeys: {}\n{}suite: {}\npolicy: {POLICY}\n",
        written(store),
        written(keys),
        sealed_by.unwrap_or_default(),
        suite.name()
    );
    write_new(&at(config::FILE), text.as_bytes(), PRIVATE_FILE)?;
    // Behind all that could go wrong here: what is made elsewhere stays.
    let place = KeyPlace::parse(keys, aside.path())?;
    let certificate = place.certificate(aside.path());
    CaKeys::create(&place, &certificate, &cluster, (suite, passphrase), Clock::system().now())?;
    let first = certificate.strip_prefix(aside.path()).ok().and_then(|path| path.iter().next()?.to_str());
    // Where the directory itself is there, keys are first: of two at once, only one can put them there. The
    // configuration is last: a directory without one is not finished.
    let is_shared = file.is_none();
    let files = file.map(|file| [format!("{file}{MARK}"), file]).unwrap_or_default();
    let store_files = files.iter().map(String::as_str).filter(|name| !name.is_empty());
    let order: Vec<&str> = [first.unwrap_or(config::KEYS), STORE_KEY]
        .into_iter()
        .chain(store_files)
        .chain([POLICY, config::FILE])
        .collect();
    let put = aside.put(&order, POLICY).context(Kind::Usage, cannot());
    put.map_err(|error| CaKeys::leftover(&place, error))?;
    log(&format!("created {}", dir.display()));
    if let Some(file) = &example {
        log(&format!("join token `{}` lets in {}", file.name, file.whom));
        file.notes.iter().for_each(|note| log(&format!("note: {note}")));
    }
    log("next:");
    let registers = wanted.filter(|wanted| wanted.method.registers).and(example.as_ref());
    let at = |command: &'static str, rest: &str| Some((command, rest.to_owned()));
    let commands = [
        // The tables of a database are for its owner to make.
        is_shared
            .then(|| ("upgrade", " --store postgres://OWNER@HOST/DATABASE --server-role ROLE".to_owned())),
        example.is_none().then(|| ("policy add", format!(" {} --login LOGIN", usual_form()))),
        at("doctor", ""),
        at("serve", ""),
        at("export", " tls-ca-pin"),
        registers.map(|file| ("token add", format!(" --token {}", file.name))),
    ];
    let (program, data) = (program(), std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned()));
    let (data, word) = (data.to_string_lossy(), shell_word(&data.to_string_lossy()));
    let line = |(command, rest)| format!("{program} authority {command} --data-dir {word}{rest}");
    let lines: Vec<String> = commands.into_iter().flatten().map(line).collect();
    match args.format {
        Format::Text => print(&lines.iter().map(|line| format!("{line}\n")).collect::<String>()),
        Format::Json => {
            let join_token = example.as_ref().map(|file| &file.name);
            print(&inert_json(&format!(
                "{:#}\n",
                json!({"data_dir": data, "join_token": join_token, "next": lines})
            )))
        }
    }
}

/// This program, as it was called: by its path where that was given.
fn program() -> String {
    let called = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
    let is_path = called.components().count() > 1;
    let path = std::path::absolute(&called).ok().filter(|_| is_path);
    path.map_or_else(|| "machine-id".to_owned(), |path| shell_word(&path.to_string_lossy()))
}

/// In quotes where a shell could take it for more than a word.
fn shell_word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    if text.chars().all(is_plain) { text.to_owned() } else { shell_quoted(text) }
}

/// Keys in files are put into the directory with the rest; those that are elsewhere are made there.
fn check_keys(keys: &str, is_sealed: bool) -> Result<()> {
    match KeyPlace::parse(keys, Path::new("")).map_err(|error| error.context("--keys"))? {
        KeyPlace::File(folder) if folder != Path::new(config::KEYS) => {
            Err(Error::usage(format!("`--keys` of files is `file:{}`", config::KEYS))
                .hint("for another folder, write it into authority.yaml afterwards, and move them"))
        }
        KeyPlace::File(_) => Ok(()),
        _ if is_sealed => Err(Error::usage("`--key-passphrase-file` is for keys in files")),
        _ => Ok(()),
    }
}

/// The name of the store's file, where it is one. It is put into the directory with the rest.
fn store_file(store: &str) -> Result<Option<String>> {
    // A name and nothing else stays below any directory.
    match StorePlace::of_option("--store", store, Path::new(""))? {
        StorePlace::Sqlite(path) => {
            let is_name = path.file_name() == Some(path.as_os_str());
            path.to_str().filter(|_| is_name).map(|name| Some(name.to_owned())).ok_or_else(|| {
                Error::usage("`--store sqlite:NAME` is a file of the data directory, without a folder")
                    .hint("for another place, write it into authority.yaml afterwards, and run `machine-id authority new-store`")
            })
        }
        StorePlace::Postgres(_) => Ok(None),
    }
}
