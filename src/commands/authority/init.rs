//! `machine-id authority init`: a new data directory.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;

use super::example::{Wanted, usual_form};
use crate::authority::config;
use crate::authority::keys::{self, CaKeys, KeyPlace, KeySource, TLS_CERTIFICATE};
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
use crate::folder::{Aside, PRIVATE_FILE, PUBLIC_FILE, absolute};
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
    let (place, key_file) = key_place(keys, dir)?;
    if sealed_by.is_some() && key_file.is_none() {
        return Err(Error::usage("`--key-passphrase-file` is for keys in files"));
    }
    if dir.join(config::FILE).exists() {
        return Err(Error::usage(format!("{} is an authority's data directory already", dir.display()))
            .hint(
                "nothing was changed; choose another --data-dir, or delete that one if its CA keys may go",
            ));
    }
    config::unfinished(dir).map_or(Ok(()), Err)?;
    if let Some(csr) = args.tls_ca_csr.as_deref().filter(|csr| csr.exists()) {
        return Err(Error::usage(format!("{} exists already", csr.display()))
            .hint("nothing was changed; move it away first"));
    }
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
    // Behind what could go wrong here, since what is made elsewhere stays. Files of keys are put into their place with the rest.
    let place = key_file.as_ref().map_or(place, |name| KeyPlace::File(at(name)));
    let certificate = place.certificate(aside.path());
    let algorithms = (suite, passphrase.clone());
    let made = CaKeys::create(&place, &certificate, &cluster, algorithms, Clock::system().now())?;
    // Not as the configuration has them: paths in it are from where it is to be.
    let source =
        KeySource { place, certificate, cluster, owner: Owner::me(), suite, passphrase, sealing: None };
    let request = |_| CaKeys::open(&source, &Arc::default())?.tls_request();
    let request = args.tls_ca_csr.as_ref().map(request).transpose().map_err(|error| made.left_by(error))?;
    // Where the directory itself is there, keys are first: of two at once, only one can put them there. The
    // configuration is last: a directory without one is not finished.
    let is_shared = file.is_none();
    let files = file.map(|file| [format!("{file}{MARK}"), file]).unwrap_or_default();
    let store_files = files.iter().map(String::as_str).filter(|name| !name.is_empty());
    let keys = key_file.as_deref().unwrap_or(TLS_CERTIFICATE);
    let order: Vec<&str> =
        [keys, STORE_KEY].into_iter().chain(store_files).chain([POLICY, config::FILE]).collect();
    aside.put(&order, POLICY).context(Kind::Usage, cannot()).map_err(|error| made.left_by(error))?;
    log(&format!("created {}", dir.display()));
    if let Some((csr, request)) = args.tls_ca_csr.as_deref().zip(request) {
        // Afterwards: no request is left of an authority that there is not. What is printed is not lost.
        if let Err(error) = write_new(csr, request.as_bytes(), PUBLIC_FILE) {
            log(&format!("warning: {error}; the request is this:\n{request}"));
        }
    }
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
        args.tls_ca_csr.is_some().then(|| ("import", " --tls-ca CHAIN.pem".to_owned())),
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

/// Where the keys are; and the name of their folder, where it is one, which is put into the directory with the rest.
fn key_place(keys: &str, dir: &Path) -> Result<(KeyPlace, Option<String>)> {
    let place = KeyPlace::parse(keys, dir).map_err(|error| error.context("cannot use `--keys`"))?;
    let KeyPlace::File(_) = place else { return Ok((place, None)) };
    let name = Path::new(keys.strip_prefix("file:").unwrap_or_default());
    let is_name = name.file_name() == Some(name.as_os_str());
    let name = name.to_str().filter(|_| is_name).map(|name| Some(name.to_owned()));
    name.map(|name| (place, name)).ok_or_else(|| {
        Error::usage("`--keys file:NAME` is a folder of the data directory, without another")
            .hint("for another place, move it there afterwards, and write that into authority.yaml")
    })
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
