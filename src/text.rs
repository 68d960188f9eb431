//! Text from outside, made fit to be shown.

/// The longest foreign text that a message repeats, in characters.
const MAX_SHOWN: usize = 200;
/// The longest text of [`shown_long`]: all groups of a certificate fit, and all that is said of a refusal.
const MAX_LONG: usize = 8192;

/// Foreign text for a terminal, a log or a CI system's output: control
/// characters, line ends and the marks that reverse text are escaped, so that
/// nothing in it acts; long text is cut. GitHub's workflow commands need a line
/// of their own, which this cannot start, but for the old form `##[command]`,
/// which is broken up.
pub fn shown(text: &str) -> String {
    cut(text, MAX_SHOWN)
}

/// The same for what is long without being foreign: reasons and warnings, which
/// end with what is to be done, and lists, whose last name may be the one that counts.
pub fn shown_long(text: &str) -> String {
    cut(text, MAX_LONG)
}

fn cut(text: &str, most: usize) -> String {
    let mut out = String::new();
    for (count, c) in text.chars().enumerate() {
        if count == most {
            out.push('…');
            break;
        }
        let commands = c == '[' && out.ends_with("##");
        if is_plain(c) && !commands { out.push(c) } else { out.extend(c.escape_unicode()) }
    }
    out
}

/// Foreign words for a message, as [`shown`], but nothing of them where they
/// may hold a secret: a service that echoes a request echoes its token.
pub fn shown_unless_secret(text: &str, secrets: &[&str]) -> String {
    let lower = text.to_ascii_lowercase();
    // A JWT begins with `eyJ`, which is `{"` in base64.
    let suspect = ["bearer", "authorization", "token=", "token:"].iter().any(|word| lower.contains(word))
        || text.contains("eyJ")
        || secrets.iter().any(|secret| !secret.is_empty() && text.contains(secret));
    if suspect { "(what it said may hold a secret and is not shown)".to_owned() } else { shown(text) }
}

/// What to do about a `name` that is not among the `known`: take the one that is
/// most like it, if any is.
pub fn did_you_mean(name: &str, known: &[&str]) -> Option<String> {
    let scored = known.iter().map(|known| (strsim::jaro_winkler(name, known), known));
    let nearest = scored.filter(|(score, _)| *score > 0.8).max_by(|a, b| a.0.total_cmp(&b.0));
    nearest.map(|(_, known)| format!("did you mean `{known}`?"))
}

/// The same, or all there are.
pub fn which_of(name: &str, known: &[&str]) -> String {
    did_you_mean(name, known).unwrap_or_else(|| format!("there are: {}", known.join(", ")))
}

/// `1 file`, `2 files`.
pub fn counted(count: usize, what: &str) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{count} {what}{s}")
}

/// Names for a message, at most so many of them.
pub fn listed<'n>(names: impl ExactSizeIterator<Item = &'n str>, most: usize) -> String {
    let more = names.len().saturating_sub(most);
    let some: Vec<String> = names.take(most).map(|name| format!("`{name}`")).collect();
    match more {
        0 => some.join(", "),
        _ => format!("{} and {more} more", some.join(", ")),
    }
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().map_or('0', char::from);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Neither a control character nor one that changes how its neighbours read.
fn is_plain(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_may_hold_a_secret_are_not_repeated() {
        for bad in
            ["{'authorization': 'x'}", "Bearer x", "eyJhbGciOi.x.y", "the s3cret", "debug token=sup.er"]
        {
            assert!(shown_unless_secret(bad, &["s3cret"]).starts_with("(what it said"), "{bad}");
        }
        assert_eq!(shown_unless_secret("no such\njob", &["", "s3cret"]), "no such\\u{a}job");
    }

    #[test]
    fn nothing_acts() {
        assert_eq!(shown("main\n::set-output\u{1b}[31m"), "main\\u{a}::set-output\\u{1b}[31m");
        assert_eq!(shown("a\u{202e}b"), "a\\u{202e}b");
        assert_eq!(shown("x ##[error]y [z]"), "x ##\\u{5b}error]y [z]");
        assert_eq!(shown("füße 🦀"), "füße 🦀");
        assert_eq!(shown(&"x".repeat(500)).chars().count(), 201);
        assert_eq!(shown_long(&"\n".repeat(500)), "\\u{a}".repeat(500));
        assert_eq!(shown_long(&"x".repeat(9000)).chars().count(), 8193);
    }
}
