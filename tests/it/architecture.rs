//! What `docs/architecture.md` says stays true: rooms and what they may name,
//! no circles, short files, tables and documents that agree. That methods are
//! named in one place, the conformance suite shows.

mod circles;
mod documents;
mod floors;
mod meaning;
mod pages;
mod size;
mod tree;
mod violations;
mod walls;
mod written;

use std::path::{Path, PathBuf};

use self::meaning::Meaning;

/// CA keys are seen in `keys/` alone; the key of the authority's own HTTPS
/// certificate is in `tls.rs`.
#[test]
fn one_place_sees_the_keys() {
    let types = ["KeyPair", "PrivateKey", "Keypair", "PrivateKeyDer", "PrivatePkcs8KeyDer"];
    let may = ["crate::authority::keys", "crate::authority::tls"];
    let product = Meaning::product();
    let outside = product.modules.iter().filter(|(module, _)| {
        walls::is_under(module, "crate::authority") && !may.iter().any(|may| walls::is_under(module, may))
    });
    for (module, (_, names)) in outside {
        let found: Vec<&String> =
            names.words().filter(|word| types.iter().any(|name| word.ends_with(name))).collect();
        assert!(found.is_empty(), "{module} names {found:?}");
    }
}

/// The files below a folder that end so.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}
