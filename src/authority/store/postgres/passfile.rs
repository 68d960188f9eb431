//! A password file, as libpq reads it (PostgreSQL's documentation, section 34.16).

use std::path::Path;

use crate::error::{Kind, Result};
use crate::folder::read::{self, Limit, Trust};
use crate::folder::trust::Owner;
use crate::secret::Secret;

/// The password for these fields (host, port, database, user) in the file; none where no line is for them.
///
/// # Errors
/// `Kind::Usage` where the file cannot be read, or others can.
pub fn password(path: &Path, owner: Owner, fields: &[&str; 4]) -> Result<Option<Secret>> {
    let cannot = || format!("cannot use the password file {}", path.display());
    let text = read::raw(path, Trust::Secret(owner), Limit::FILE).and_then(read::utf8);
    let text = text.map_err(|unfit| match unfit.is_missing() {
        true => unfit
            .error(Kind::Usage, cannot())
            .hint("put it there, or name it in the store's URL: `passfile=FILE`"),
        false => unfit.error(Kind::Usage, cannot()),
    })?;
    Ok(text.lines().find_map(|line| of_line(line, fields)))
}

/// Whether there is such a file, for one that nobody has named.
pub fn is_there(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok()
}

/// `host:port:database:user:password`: `*` is anything, and `\` takes a `:` or `\` for itself.
fn of_line(line: &str, fields: &[&str; 4]) -> Option<Secret> {
    if line.starts_with('#') {
        return None;
    }
    let mut rest = line;
    for field in fields {
        let (written, behind) = field_of(rest);
        rest = behind?;
        if written.1 && written.0 == "*" || written.0 == *field {
            continue;
        }
        return None;
    }
    Some(Secret::new(unescaped(rest))).filter(|password| !password.expose().is_empty())
}

/// The field before the next `:`, whether it stands there as it is, and what is behind.
fn field_of(text: &str) -> ((String, bool), Option<&str>) {
    let mut is_escaped = false;
    let end = text.char_indices().find(|(_, c)| {
        let ends = !is_escaped && *c == ':';
        is_escaped = !is_escaped && *c == '\\';
        ends
    });
    let (field, behind) = match end {
        Some((at, _)) => {
            (text.get(..at).unwrap_or_default(), text.get(at..).and_then(|rest| rest.strip_prefix(':')))
        }
        None => (text, None),
    };
    ((unescaped(field), !field.contains('\\')), behind)
}

fn unescaped(text: &str) -> String {
    let (mut out, mut chars) = (String::new(), text.chars());
    while let Some(c) = chars.next() {
        out.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: [&str; 4] = ["db.example.com", "5432", "machine_id", "machine-id"];

    #[test]
    fn lines_are_read_as_libpq_reads_them() {
        for (line, password) in [
            ("db.example.com:5432:machine_id:machine-id:secret", Some("secret")),
            ("*:*:*:*:a:b", Some("a:b")),
            (r"*:*:*:*:a\:b\\c\d", Some(r"a:b\cd")),
            (r"db\.example.com:*:*:machine\-id:x", Some("x")),
            (r"\*:*:*:*:x", None),
            ("#*:*:*:*:x", None),
            ("*:*:*:*:", None),
            ("*:*:*:*", None),
            ("", None),
            ("*:5433:*:*:x", None),
            ("*:*:*:*: x ", Some(" x ")),
            ("::1:5432:*:*:x", None),
        ] {
            let found = of_line(line, &FIELDS);
            assert_eq!(found.as_ref().map(Secret::expose), password, "{line}");
        }
        let found = of_line(r"\:\:1:5432:*:*:x", &["::1", "5432", "d", "u"]);
        assert_eq!(found.as_ref().map(Secret::expose), Some("x"));
    }
}
