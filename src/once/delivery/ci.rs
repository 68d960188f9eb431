//! Telling the CI system: outputs, variables for later steps, a summary.
//!
//! The formats are those of GitHub's runner (heredocs with a delimiter that
//! nobody can guess) and CircleCI's `$BASH_ENV` (lines of shell).

use std::path::Path;

use crate::environment::Environment;
use crate::error::{Context as _, Error, Kind, Result};
use crate::folder::replace;
use crate::random;
use crate::text::shown;

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

/// Tells the CI system of this environment, if it is one that listens.
///
/// # Errors
/// `Kind::Destination` where a file of the CI system cannot be written, or a
/// value would not stay one.
pub(crate) fn tell(report: &JobReport, env: &Environment) -> Result<()> {
    if env.is_true("GITHUB_ACTIONS") {
        append(env, "GITHUB_OUTPUT", &heredocs(&report.outputs, &delimiter()?)?)?;
        append(env, "GITHUB_ENV", &heredocs(&report.variables, &delimiter()?)?)?;
        append(env, "GITHUB_STEP_SUMMARY", &summary(&report.summary))?;
    }
    if env.is_true("CIRCLECI") {
        append(env, "BASH_ENV", &exports(&report.variables)?)?;
    }
    Ok(())
}

fn append(env: &Environment, variable: &str, text: &str) -> Result<()> {
    let Some(path) = env.get(variable) else { return Ok(()) };
    replace::append(Path::new(path), text)
        .context(Kind::Destination, format!("cannot write to ${variable} ({})", shown(path)))
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

/// In single quotes, inside which only a single quote means anything.
pub(super) fn shell_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
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

    fn report(value: &str) -> JobReport {
        JobReport {
            outputs: vec![("destination", value.into())],
            variables: vec![("MACHINE_ID_DESTINATION", value.into())],
            summary: vec![("bot", value.into())],
        }
    }

    fn told(variable: &str, platform: &str, value: &str) -> Result<String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "before\n").unwrap();
        let path = file.path().to_str().unwrap();
        tell(&report(value), &Environment::from_pairs([(platform, "true"), (variable, path)]))?;
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
        tell(&report("a\nb"), &Environment::default()).unwrap();
    }
}
