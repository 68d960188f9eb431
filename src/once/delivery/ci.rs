//! Telling the CI system: outputs, variables for later steps, a summary.
//!
//! The formats are those of GitHub's runner (heredocs with a delimiter that
//! nobody can guess) and CircleCI's `$BASH_ENV` (lines of shell).

use std::path::Path;

use crate::environment::Environment;
use crate::error::{Error, Kind, Result};
use crate::folder::{Addition, Unfit};
use crate::random;
use crate::terminal::Progress;
use crate::text::{shell_quoted, shown};

/// What is told.
#[derive(Default)]
pub(crate) struct JobReport {
    /// Outputs of the step.
    pub outputs: Vec<(&'static str, String)>,
    /// Variables for later steps.
    pub variables: Vec<(&'static str, String)>,
    /// Rows of the summary.
    pub summary: Vec<(&'static str, String)>,
}

/// The files of the CI system that were added to.
#[derive(Default)]
pub(crate) struct Told(Vec<Addition>);

impl Told {
    /// Takes it back, so that no later step is led to what is not there.
    pub(crate) fn take_back(&self) {
        self.0.iter().for_each(Addition::undo);
    }
}

/// Tells the CI system of this environment, if it is one that listens: all of
/// it or nothing, but for the summary, which nobody's job hangs on.
///
/// # Errors
/// `Kind::Destination` where a file of the CI system cannot be written, or a
/// value would not stay one.
pub(crate) fn tell(report: &JobReport, env: &Environment, progress: &Progress) -> Result<Told> {
    let mut texts = Vec::new();
    if env.is_true("GITHUB_ACTIONS") {
        texts.push(("GITHUB_OUTPUT", heredocs(&report.outputs, &delimiter()?)?));
        texts.push(("GITHUB_ENV", heredocs(&report.variables, &delimiter()?)?));
    }
    if env.is_true("CIRCLECI") {
        texts.push(("BASH_ENV", exports(&report.variables)?));
    }
    // All of them are opened before any is written.
    let open = |(variable, text)| Some(open(env, variable)?.map(|file| (variable, text, file)));
    let open: Vec<_> = texts.into_iter().filter_map(open).collect::<Result<_>>()?;
    let mut told = Told::default();
    for (variable, text, mut file) in open {
        if let Err(error) = file.add(&text) {
            told.take_back();
            return Err(cannot(env, variable, error.into()));
        }
        told.0.push(file);
    }
    if env.is_true("GITHUB_ACTIONS") {
        match summarize(report, env) {
            Ok(file) => told.0.extend(file),
            Err(error) => progress.warning(&error.to_string()),
        }
    }
    Ok(told)
}

fn summarize(report: &JobReport, env: &Environment) -> Result<Option<Addition>> {
    const VARIABLE: &str = "GITHUB_STEP_SUMMARY";
    let Some(mut file) = open(env, VARIABLE).transpose()? else { return Ok(None) };
    file.add(&summary(&report.summary)).map_err(|error| cannot(env, VARIABLE, error.into()))?;
    Ok(Some(file))
}

/// The file that a variable names, if it does.
fn open(env: &Environment, variable: &str) -> Option<Result<Addition>> {
    let opened = Addition::open(Path::new(env.get(variable)?));
    Some(opened.map_err(|unfit| cannot(env, variable, unfit)))
}

fn cannot(env: &Environment, variable: &str, why: Unfit) -> Error {
    let path = shown(env.get(variable).unwrap_or_default());
    why.error(Kind::Destination, format!("cannot write to ${variable} ({path})"))
}

fn delimiter() -> Result<String> {
    Ok(format!("ghadelimiter_{}", random::hex::<16>()?))
}

fn heredocs(pairs: &[(&'static str, String)], delimiter: &str) -> Result<String> {
    let mut text = String::new();
    for (name, value) in pairs {
        if value.contains(delimiter) {
            return Err(unfit(name));
        }
        text.push_str(&format!("{name}<<{delimiter}\n{}\n{delimiter}\n", one_line(name, value)?));
    }
    Ok(text)
}

/// Lines of shell that export these.
pub(super) fn exports(pairs: &[(&'static str, String)]) -> Result<String> {
    let export = |(name, value): &(&str, String)| {
        Ok(format!("export {name}={}\n", shell_quoted(one_line(name, value)?)))
    };
    pairs.iter().map(export).collect()
}

fn one_line<'v>(name: &str, value: &'v str) -> Result<&'v str> {
    if value.contains(['\n', '\r', '\0']) { Err(unfit(name)) } else { Ok(value) }
}

fn unfit(name: &str) -> Error {
    Error::new(
        Kind::Destination,
        format!("the value of `{name}` holds a line end, which the CI system would take as its end"),
    )
}

fn summary(rows: &[(&'static str, String)]) -> String {
    let rows = rows.iter().map(|(name, value)| format!("| {name} | {} |\n", markdown(value)));
    format!("### Certificates from machine-id\n\n| | |\n|---|---|\n{}\n", rows.collect::<String>())
}

/// Everything that Markdown or HTML might take for more than text, as a character reference.
fn markdown(text: &str) -> String {
    let escape = |c: char| match c {
        '.' | ',' | '/' | ':' | '-' | '@' | '+' | '=' => c.to_string(),
        c if c.is_ascii_punctuation() => format!("&#{};", u32::from(c)),
        c => c.to_string(),
    };
    shown(text).chars().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terminal::Level;

    fn report(value: &str) -> JobReport {
        JobReport {
            outputs: vec![("destination", value.into())],
            variables: vec![("MACHINE_ID_DESTINATION", value.into())],
            summary: vec![("bot", value.into())],
        }
    }

    fn quiet() -> Progress {
        Progress::new(Level::Quiet, &Environment::default())
    }

    fn told(variable: &str, platform: &str, value: &str) -> Result<String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "before\n").unwrap();
        let path = file.path().to_str().unwrap();
        tell(&report(value), &Environment::from_pairs([(platform, "true"), (variable, path)]), &quiet())?;
        Ok(std::fs::read_to_string(path).unwrap())
    }

    #[test]
    fn heredocs_have_a_new_delimiter_each_time() {
        let text = told("GITHUB_OUTPUT", "GITHUB_ACTIONS", "/tmp/a b").unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let delimiter = lines[1].strip_prefix("destination<<").unwrap();
        assert!(delimiter.starts_with("ghadelimiter_") && delimiter.len() > 40);
        assert_eq!((lines[0], lines[2], lines[3]), ("before", "/tmp/a b", delimiter));
        assert_ne!(text, told("GITHUB_OUTPUT", "GITHUB_ACTIONS", "/tmp/a b").unwrap());
    }

    #[test]
    fn line_ends_and_delimiters_are_refused() {
        for (variable, platform) in [("GITHUB_ENV", "GITHUB_ACTIONS"), ("BASH_ENV", "CIRCLECI")] {
            for value in ["a\nLD_PRELOAD=/x", "a\rb"] {
                assert_eq!(told(variable, platform, value).unwrap_err().kind(), Kind::Destination);
            }
        }
        assert!(heredocs(&[("x", "has D inside".into())], "D").is_err());
    }

    #[test]
    fn shell_takes_a_value_as_it_is() {
        let value = "it's $(id) `id` \"x\" \\ ; !";
        let text = told("BASH_ENV", "CIRCLECI", value).unwrap();
        assert!(
            text.ends_with("export MACHINE_ID_DESTINATION='it'\\''s $(id) `id` \"x\" \\ ; !'\n"),
            "{text}"
        );
        let script = text.replace("before", "") + "printf %s \"$MACHINE_ID_DESTINATION\"";
        let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), value);
    }

    #[test]
    fn the_summary_is_text() {
        let text = told("GITHUB_STEP_SUMMARY", "GITHUB_ACTIONS", "a|b<img src=x>[x](y) `z`").unwrap();
        assert!(
            text.contains("| bot | a&#124;b&#60;img src=x&#62;&#91;x&#93;&#40;y&#41; &#96;z&#96; |\n"),
            "{text}"
        );
    }

    #[test]
    fn nobody_listens_elsewhere() {
        tell(&report("a\nb"), &Environment::default(), &quiet()).unwrap();
    }

    #[test]
    fn all_is_told_or_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        // A device that is always full can be opened; what is no folder cannot.
        for last in ["/dev/full", &path("none/env")] {
            std::fs::write(path("output"), "a=b").unwrap();
            let env = Environment::from_pairs([
                ("GITHUB_ACTIONS", "true"),
                ("GITHUB_OUTPUT", &path("output")),
                ("GITHUB_ENV", last),
                ("GITHUB_STEP_SUMMARY", &path("summary")),
            ]);
            let error = tell(&report("/d"), &env, &quiet()).err().unwrap();
            assert!(error.to_string().starts_with("cannot write to $GITHUB_ENV ("), "{error}");
            assert_eq!(std::fs::read_to_string(path("output")).unwrap(), "a=b", "{last}");
            assert!(!Path::new(&path("summary")).exists());
        }
    }
}
