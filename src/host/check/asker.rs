//! `AuthorizedPrincipalsCommand`: what `sshd` asks, and what it would hear.

use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::host::labels;
use crate::host::sshd::Effective;
use crate::principal::Labels;

/// The command, and who runs it.
#[derive(Debug)]
pub(super) struct Asker {
    pub(super) program: PathBuf,
    pub(super) user: String,
    args: Vec<String>,
}

impl Asker {
    /// The one that is in force, if there is one.
    pub(super) fn of(effective: &Effective) -> Option<Self> {
        let words = split(effective.one("authorizedprincipalscommand")?);
        let user = effective.one("authorizedprincipalscommanduser").unwrap_or_default().to_owned();
        let (program, args) = words.split_first()?;
        Some(Self { program: program.into(), user, args: args.to_vec() })
    }

    /// Whether that is `host principals`.
    pub(super) fn is_ours(&self) -> bool {
        self.args.windows(2).any(|pair| pair == ["host", "principals"])
    }

    /// The values of an option.
    pub(super) fn values<'a>(&'a self, option: &'a str) -> impl Iterator<Item = &'a str> {
        let behind = self.args.iter().skip(1).map(Some).chain([None]);
        self.args.iter().zip(behind).filter_map(move |(word, next)| match word.strip_prefix(option)? {
            "" => next.map(String::as_str),
            joined => joined.strip_prefix('='),
        })
    }

    /// The labels that it is given.
    pub(super) fn labels(&self) -> Result<Labels> {
        labels::read(self.values("--labels"), self.values("--labels-file").map(Path::new))
    }
}

/// Words as `sshd` takes them apart: quotes hold together, and a backslash is for quotes alone.
fn split(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\\', _) if chars.peek().is_some_and(|c| matches!(c, '"' | '\'' | '\\')) => {
                word.get_or_insert_default().extend(chars.next());
            }
            (' ' | '\t', None) => words.extend(word.take()),
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, Some(open)) if c == open => quote = None,
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_options_are_found() {
        assert_eq!(split(r#"/a  "b c" '' d"e f"g \"h"#), ["/a", "b c", "", "de fg", "\"h"]);
        let asker = Asker {
            program: "/usr/bin/env".into(),
            user: "nobody".to_owned(),
            args: split(
                "/x/machine-id host principals --labels a=b --labels=c=d --dir /e --labels-file /f %u %k",
            ),
        };
        assert!(asker.is_ours());
        assert_eq!(asker.values("--labels").collect::<Vec<_>>(), ["a=b", "c=d"]);
        assert_eq!(asker.values("--labels-file").collect::<Vec<_>>(), ["/f"]);
        assert_eq!(asker.values("--dir").next(), Some("/e"));
        assert_eq!(asker.values("--sessions").next(), None);
    }
}
