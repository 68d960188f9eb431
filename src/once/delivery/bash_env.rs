//! `$BASH_ENV` for COMMAND.
//!
//! bash reads the file that `$BASH_ENV` names before each script. On CircleCI
//! it carries variables from step to step, and an earlier `once` has put its
//! own there: a COMMAND that is a bash script would find those in place of the
//! variables that it was started with. So where there is a `$BASH_ENV`, COMMAND
//! gets one in the destination, which reads the old one and then exports ours.
//! What COMMAND appends for later steps is carried over when it ends.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::destination;
use crate::destination::material::File;
use crate::environment::Environment;
use crate::error::Result;
use crate::folder::read::{self, Limit, Trust};
use crate::folder::{Addition, Unfit};
use crate::once::delivery::ci::exports;
use crate::text::shell_quoted;

pub(crate) const VARIABLE: &str = "BASH_ENV";

/// The most that COMMAND may leave for later steps, in bytes.
const MAX_APPENDED: usize = 1 << 20;

/// How long a pipe is waited for that COMMAND has put in its place.
const PATIENCE: Duration = Duration::from_secs(1);

/// COMMAND's file, and the one that it stands for.
pub(super) struct BashEnv {
    old: String,
    path: PathBuf,
    text: String,
}

impl BashEnv {
    /// For a destination and the variables of this run; nothing where there is no `$BASH_ENV`.
    pub(super) fn new(
        env: &Environment,
        destination: &Path,
        variables: &[(&'static str, String)],
    ) -> Result<Option<Self>> {
        let Some(old) = env.get(VARIABLE) else { return Ok(None) };
        let name = sourced(old);
        let text = format!("if [ -r {name} ]; then . {name}; fi\n{}", exports(variables)?);
        Ok(Some(Self { old: old.to_owned(), path: destination.join(destination::BASH_ENV), text }))
    }

    /// The file; it stays as it is when certificates are renewed, since COMMAND may have added to it.
    pub(super) fn file(&self) -> File {
        File::key(destination::BASH_ENV, self.text.clone())
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends to the old file what COMMAND appended to its own.
    pub(super) fn carry_over(&self) -> Result<(), Unfit> {
        let limit = Limit::bytes(self.text.len().saturating_add(MAX_APPENDED)).within(PATIENCE);
        let read = read::raw(&self.path, Trust::Anyone, limit).and_then(read::utf8);
        let text = match read {
            Ok(text) => text,
            Err(unfit) if unfit.is_missing() => return Ok(()),
            Err(unfit) => return Err(unfit),
        };
        let appended = text.strip_prefix(&self.text).filter(|rest| !rest.is_empty());
        let Some(appended) = appended else { return Ok(()) };
        // The next one to add to it may not look whether the last line has an end.
        let end = if appended.ends_with('\n') { "" } else { "\n" };
        Ok(Addition::open(Path::new(&self.old))?.add(&format!("{appended}{end}"))?)
    }
}

/// The old value as a word of shell that names the same file. bash expands
/// variables and commands in it, and does not look for it in `$PATH`.
fn sourced(old: &str) -> String {
    let here = if old.contains('/') { "" } else { "./" };
    if old.contains(['$', '`']) {
        format!("\"{}\"", old.replace('"', "\\\""))
    } else {
        shell_quoted(&format!("{here}{old}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn bash(path: &Path, script: &str) -> String {
        let output = Command::new("bash").args(["-c", script]).env(VARIABLE, path).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn ours_come_last_and_additions_are_carried_over() {
        let temp = tempfile::tempdir().unwrap();
        let old = temp.path().join("it's old");
        std::fs::write(&old, "export MACHINE_ID_DESTINATION=/earlier\nexport OTHER=kept").unwrap();
        let env = Environment::from_pairs([(VARIABLE, old.to_str().unwrap())]);
        let variables = [("MACHINE_ID_DESTINATION", "/ours".to_owned())];
        let file = BashEnv::new(&env, temp.path(), &variables).unwrap().unwrap();
        std::fs::write(file.path(), &*file.file().content).unwrap();
        // The last line has no end, neither there nor here.
        let script = "echo \"$MACHINE_ID_DESTINATION $OTHER\"; bash -c 'echo $MACHINE_ID_DESTINATION'; printf 'export NEW=1' >> \"$BASH_ENV\"";
        assert_eq!(bash(file.path(), script), "/ours kept\n/ours\n");
        file.carry_over().unwrap();
        assert!(std::fs::read_to_string(&old).unwrap().ends_with("OTHER=kept\nexport NEW=1\n"));
        std::fs::remove_file(file.path()).unwrap();
        file.carry_over().unwrap();
    }

    #[test]
    fn the_old_one_may_be_missing_or_an_expression() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::write(temp.path().join("rc"), "export FOUND=yes\n").unwrap();
        let variables = [("X", "1".to_owned())];
        for (old, says) in [("/no/such/file", "1-\n"), ("$ROOT/rc", "1-yes\n")] {
            let env = Environment::from_pairs([(VARIABLE, old)]);
            let file = BashEnv::new(&env, temp.path(), &variables).unwrap().unwrap();
            std::fs::write(file.path(), &*file.file().content).unwrap();
            let output = Command::new("bash")
                .args(["-c", "echo $X-$FOUND"])
                .env(VARIABLE, file.path())
                .env("ROOT", temp.path())
                .output()
                .unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), says, "{old}");
        }
        assert!(BashEnv::new(&Environment::default(), temp.path(), &variables).unwrap().is_none());
    }
}
