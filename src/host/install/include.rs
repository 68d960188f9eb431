//! The line by which `sshd`'s own file reads the folder of drop-ins, where it has none.

use std::path::Path;

use crate::error::{Context as _, Error, Kind, Result};
use crate::folder::{Folder, PUBLIC_FILE};
use crate::host::sshd::CONFIG;

use super::places::SNIPPET;

/// What is put in front, and taken out again.
const LINES: &str =
    "# machine-id host install: this and the next line\nInclude /etc/ssh/sshd_config.d/50-machine-id.conf\n";
/// In bytes.
const MOST: usize = 1 << 20;

/// Whether a configuration reads the drop-in: outside of any `Match`.
fn reads(text: &str) -> bool {
    let words = |line: &str| -> Vec<String> {
        line.split([' ', '\t', '='])
            .filter(|word| !word.is_empty())
            .map(|word| word.trim_matches('"').to_owned())
            .collect()
    };
    let mut lines = text.lines().map(words);
    let is = |words: &[String], keyword: &str| {
        words.first().is_some_and(|word| word.eq_ignore_ascii_case(keyword))
    };
    let global = lines.by_ref().take_while(|words| !is(words, "match"));
    let patterns = [
        "/etc/ssh/sshd_config.d/*.conf",
        "/etc/ssh/sshd_config.d/*",
        "sshd_config.d/*.conf",
        "sshd_config.d/*",
        SNIPPET,
    ];
    global.filter(|words| is(words, "include")).flatten().any(|word| patterns.contains(&word.as_str()))
}

fn read() -> Result<(Folder, &'static str, String)> {
    let path = Path::new(CONFIG);
    let what = || format!("cannot read {CONFIG}");
    let (folder, name) = path
        .parent()
        .zip(path.file_name().and_then(|name| name.to_str()))
        .ok_or_else(|| Error::internal(what()))?;
    let folder = Folder::open(folder).map_err(|unfit| unfit.error(Kind::Usage, what()))?;
    let bytes = folder.read(name, MOST).map_err(|why| Error::usage(why).context(what()))?;
    let bytes = bytes.ok_or_else(|| Error::usage("there is no such file").context(what()))?;
    let text = String::from_utf8(bytes).context(Kind::Usage, what())?;
    Ok((folder, name, text))
}

fn write(folder: &Folder, name: &str, text: &str) -> Result<()> {
    // Its own mode, since it may be root's alone.
    let mode = folder.mode_of(name).unwrap_or(PUBLIC_FILE);
    folder.replace_durably(name, text.as_bytes(), mode).context(Kind::Usage, format!("cannot write {CONFIG}"))
}

/// Whether `sshd` reads the drop-in.
pub(super) fn is_read() -> Result<bool> {
    Ok(reads(&read()?.2))
}

/// Has it read the drop-in.
pub(super) fn add() -> Result<()> {
    let (folder, name, text) = read()?;
    write(&folder, name, &format!("{LINES}{text}"))
}

/// Takes the line out again; whether it was there.
pub(super) fn remove() -> Result<bool> {
    let (folder, name, text) = read()?;
    match text.strip_prefix(LINES) {
        None => Ok(false),
        Some(rest) => write(&folder, name, rest).map(|()| true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_reads_the_drop_in() {
        for (text, is_read) in [
            ("", false),
            ("Include /etc/ssh/sshd_config.d/*.conf\n", true),
            ("# Include /etc/ssh/sshd_config.d/*.conf\n", false),
            ("Port 22\ninclude \"sshd_config.d/*.conf\"\n", true),
            ("Include=/etc/ssh/a.conf /etc/ssh/sshd_config.d/50-machine-id.conf\n", true),
            ("Include /etc/ssh/other.d/*.conf\n", false),
            ("Match User a\nInclude /etc/ssh/sshd_config.d/*.conf\n", false),
            (&format!("{LINES}Match all\n"), true),
        ] {
            assert_eq!(reads(text), is_read, "{text}");
        }
    }
}
