//! The files that stand in `docs/resources`: a server in a test has what its page says.

use std::path::Path;

use super::process::read;
use super::repository;

/// Where the pages put what a server needs. `/etc/machine-id` itself is a file of systemd's.
const FOLDERS: [&str; 2] = ["/etc/ssl/machine-id", "/etc/ssh/machine-id-host"];

/// A file of a page: the fenced block behind `<!-- file: NAME -->`.
#[track_caller]
pub fn file(page: &str, name: &str) -> String {
    let text = read(repository("docs/resources").join(page));
    let mark = format!("<!-- file: {name} -->\n```");
    let (_, rest) = text.split_once(&mark).unwrap_or_else(|| panic!("{page} has no {name}"));
    let (_, rest) = rest.split_once('\n').unwrap();
    rest.split_once("```").unwrap_or_else(|| panic!("{page}: {name} does not end")).0.to_owned()
}

/// The same, with the server's files where they are in the test.
#[track_caller]
pub fn file_in(page: &str, name: &str, folder: &Path) -> String {
    let text = file(page, name);
    let named = FOLDERS.into_iter().find(|folder| text.contains(folder));
    let named = named.unwrap_or_else(|| panic!("{page}: {name} names none of {FOLDERS:?}"));
    text.replace(named, folder.to_str().unwrap())
}
