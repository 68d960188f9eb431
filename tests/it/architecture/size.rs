//! How much there is to read.

use std::collections::BTreeSet;

use super::{files, tree};
use crate::support::repository;

/// The longest that a file may be, its unit tests included.
const MAX_LINES: usize = 500;
/// The most that the product may be, without its tests.
const MAX_PRODUCT: usize = 68_000;

fn lines(path: impl AsRef<std::path::Path>) -> usize {
    std::fs::read_to_string(path).unwrap().lines().count()
}

#[test]
fn files_are_short() {
    let long: Vec<String> = ["src", "tests"]
        .into_iter()
        .flat_map(|folder| files(&repository(folder), "rs"))
        .filter(|path| lines(path) > MAX_LINES)
        .map(|path| format!("{}: {}", path.display(), lines(&path)))
        .collect();
    assert!(long.is_empty(), "{long:?}");
}

#[test]
fn main_only_dispatches() {
    let lines = lines(repository("src/main.rs"));
    assert!(lines < 60, "{lines} lines");
}

/// `cargo test --test it product_lines -- --nocapture` says how many there are.
#[test]
fn product_lines_are_bounded() {
    let product: BTreeSet<String> = tree::modules().into_iter().map(|module| module.file).collect();
    let count = |file: &String| {
        let text = std::fs::read_to_string(repository("src").join(file)).unwrap();
        // Unit tests stand at a file's end.
        text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().lines().count()
    };
    let lines: usize = product.iter().map(count).sum();
    println!("{lines} lines in {} files of src, without tests", product.len());
    assert!(lines <= MAX_PRODUCT, "{lines} lines in src without tests: more than {MAX_PRODUCT}");
}
