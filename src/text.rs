//! Text from outside, made fit to be shown.

use ring::digest::{SHA256, digest};
use serde_json::Value;

/// The longest foreign text that a message repeats, in characters.
const MAX_SHOWN: usize = 200;
/// The longest of [`word`], in bytes: AWS's longest name of a session fits, and those of repositories and refs.
/// Three of them and the names of bot and token leave room for a run's id in a line of `sshd`'s log, which
/// ends after 1024 bytes.
const MAX_WORD: usize = 192;
/// How much of a hash stands for what was cut, in bytes; and the mark in all.
const HASH: usize = 16;
const MARK: usize = '…'.len_utf8() + 2 * HASH;
/// The longest text of [`shown_long`]: all groups of a certificate fit, and all that is said of a refusal.
const MAX_LONG: usize = 8192;

/// Foreign text for a terminal, a log or a CI system's output: control
/// characters, line ends, the marks that reverse text, and what only looks like
/// a space or like nothing are escaped, and commands that a CI system takes
/// anywhere in a line are broken up, so that nothing in it acts; long text is
/// cut. What acts at the beginning of a line alone is for [`lines`].
pub fn shown(text: &str) -> String {
    cut(text, MAX_SHOWN, is_plain)
}

/// All that is printed, whoever wrote it: each line as [`shown`], but whole, and
/// without what CI systems and logs take as a command where a line begins. What
/// has been through here, or through [`shown`], does not change.
pub fn lines(text: &str) -> String {
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

/// JSON, without the detour of `Display`, which takes several times as long for the same.
pub fn json_text(value: &Value) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| value.to_string())
}

/// Whether nothing in a text acts wherever it is printed, so that it may be printed as it is.
pub fn is_inert(text: &str) -> bool {
    line(text) == text
}

fn line(text: &str) -> String {
    let mut line = cut(text, usize::MAX, is_plain);
    if begins_a_command(&line)
        && let Some((at, c)) = line.char_indices().find(|(_, c)| c.is_ascii_graphic())
    {
        line.replace_range(at..=at, &c.escape_unicode().to_string());
    }
    line
}

/// GitHub's `::name::` (blanks before it do not count), Buildkite's groups, and
/// the priority by which journald and syslog sort a line.
fn begins_a_command(line: &str) -> bool {
    // Some compare text as people do, and pass over characters: only ASCII counts.
    let ascii: String = line.chars().filter(char::is_ascii).collect();
    let text = ascii.trim_start();
    let is_priority =
        |(digits, _): (&str, &str)| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    ["::", "--- ", "+++ ", "~~~ ", "^^^ +++"].iter().any(|mark| text.starts_with(mark))
        || text.strip_prefix('<').and_then(|rest| rest.split_once('>')).is_some_and(is_priority)
}

/// Whether `c` completes, behind `before`, the mark of a command that may stand anywhere in a line: `##[`
/// (GitHub, Gitea, Azure), `##vso[` (Azure), `##teamcity[`, `##octopus[`, `travis_fold:` and `travis_time:`.
fn acts(before: &str, c: char) -> bool {
    // As above: only ASCII counts.
    let mut back = before.chars().rev().filter(char::is_ascii);
    match c {
        '[' => back.find(|c| !c.is_ascii_alphanumeric()) == Some('#') && back.next() == Some('#'),
        ':' => ["dlof_sivart", "emit_sivart"].contains(&back.take(11).collect::<String>().as_str()),
        _ => false,
    }
}

/// JSON in which nothing acts: what would is escaped as JSON escapes it, so that every value stays the same.
pub fn json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if c == '\n' || is_plain(c) && !acts(&out, c) {
            out.push(c);
        } else {
            let mut units = [0; 2];
            out.extend(c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    out
}

/// The same for what is long without being foreign: reasons and warnings, which
/// end with what is to be done, and lists, whose last name may be the one that counts.
pub fn shown_long(text: &str) -> String {
    cut(text, MAX_LONG, is_plain)
}

/// Foreign text in ASCII alone, so that two which look alike (`main` and one
/// with a Cyrillic `а`) can be told apart; what has been escaped before stays as it is.
pub fn shown_ascii(text: &str) -> String {
    cut(text, MAX_SHOWN, |c| c.is_ascii() && is_plain(c))
}

/// The same for what is compared with other text: what looks as if it had been escaped is told apart too.
pub fn shown_exactly(text: &str) -> String {
    shown_ascii(&text.replace("\\u{", "\\u{5c}u{"))
}

fn cut(text: &str, most: usize, plain: fn(char) -> bool) -> String {
    let mut out = String::new();
    for (count, c) in text.chars().enumerate() {
        if count == most {
            out.push('…');
            break;
        }
        if plain(c) && !acts(&out, c) { out.push(c) } else { out.extend(c.escape_unicode()) }
    }
    out
}

/// One foreign text among the words of a line that is put together: one word of ASCII, whatever is in it, so that
/// it says nothing but itself. All else is escaped, `\` too. A long one is cut with a mark and the
/// beginning of its SHA-256, so that two texts never read the same.
pub fn word(text: &str) -> String {
    let (mut out, mut end) = (String::new(), 0);
    for c in text.chars() {
        if c.is_ascii_graphic() && c != '\\' && !acts(&out, c) {
            out.push(c)
        } else {
            out.extend(c.escape_unicode())
        }
        // Where an escape ends, and the mark still fits.
        end = if out.len() <= MAX_WORD - MARK { out.len() } else { end };
    }
    if out.len() > MAX_WORD {
        out.truncate(end);
        let hash = digest(&SHA256, text.as_bytes());
        out.push('…');
        out.push_str(&hex(hash.as_ref().get(..HASH).unwrap_or_default()));
    }
    out
}

/// A foreign line that is put together of words: each is one, as [`word`] makes them. Those that are so already stay.
pub fn words(line: &str) -> String {
    let is_one = |text: &str| {
        let known = |c: char| c.is_ascii_graphic() || c == '…';
        text.len() <= MAX_WORD && text.chars().all(known) && shown(text) == text
    };
    let one = |text: &str| if is_one(text) { text.to_owned() } else { word(text) };
    line.split(' ').map(one).collect::<Vec<_>>().join(" ")
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

/// What stands in a URI, with its `%XX` resolved.
///
/// # Errors
/// What is wrong with it, as it stands behind the name of what it is.
pub fn percent_decoded(text: &str) -> Result<String, &'static str> {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let digits = part.get(..2).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        let (Some(byte), Some(rest)) = (byte, part.get(2..)) else {
            return Err("has a `%` without two hexadecimal digits");
        };
        bytes.push(byte);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8 where its `%XX` are resolved")
}

/// For a shell: in single quotes, inside which only a single quote means anything.
pub fn shell_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().map_or('0', char::from);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Neither a control character nor one that changes how its neighbours read,
/// nor a space that is none: Unicode's `White_Space` and
/// `Default_Ignorable_Code_Point`, and the empty pattern of Braille.
fn is_plain(c: char) -> bool {
    let ignorable = matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}');
    !c.is_control() && (c == ' ' || !c.is_whitespace()) && !ignorable
}

/// Rows under one another, each cell as wide as the widest of its column.
pub fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
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
    fn a_word_says_nothing_but_itself() {
        assert_eq!(word("refs/heads/main"), "refs/heads/main");
        assert_eq!(word("{a8d2}@x:y~1"), "{a8d2}@x:y~1");
        assert_eq!(word("x run 5"), "x\\u{20}run\\u{20}5");
        assert_eq!(word("x\u{2003}run\u{a0}5 \\u{20}"), "x\\u{2003}run\\u{a0}5\\u{20}\\u{5c}u{20}");
        assert_eq!(word("größe##[x"), "gr\\u{f6}\\u{df}e##\\u{5b}x");
        assert_eq!(word(&"x".repeat(192)), "x".repeat(192));
        let long = word(&"x".repeat(193));
        assert!(long.starts_with(&format!("{}…", "x".repeat(157))) && long.len() == 192, "{long}");
        assert_ne!(long, word(&"x".repeat(194)));
        let escaped = word(&"\u{2003}".repeat(100));
        assert!(escaped.contains("\\u{2003}…") && escaped.len() <= 192, "{escaped}");
    }

    #[test]
    fn what_looks_alike_can_be_told_apart() {
        for (text, exactly) in [
            ("refs/heads/main", "refs/heads/main"),
            ("refs/heads/m\u{430}in", "refs/heads/m\\u{430}in"),
            ("refs/heads/m\\u{430}in", "refs/heads/m\\u{5c}u{430}in"),
            ("caf\u{e9}", "caf\\u{e9}"),
            ("cafe\u{301}", "cafe\\u{301}"),
            ("a\u{a0}b\u{3164}c…", "a\\u{a0}b\\u{3164}c\\u{2026}"),
            ("main\n", "main\\u{a}"),
            (r"^main\.x$", r"^main\.x$"),
        ] {
            assert_eq!(shown_exactly(text), exactly);
        }
        assert!(shown_exactly(&"x".repeat(500)).ends_with("x…"));
        assert_eq!(shown_ascii("m\\u{a}\u{430}"), "m\\u{a}\\u{430}");
    }

    #[test]
    fn nothing_acts() {
        assert_eq!(shown("main\n::set-output\u{1b}[31m"), "main\\u{a}::set-output\\u{1b}[31m");
        assert_eq!(shown("a\u{202e}b"), "a\\u{202e}b");
        for hidden in
            ["\u{a0}", "\u{2003}", "\u{3000}", "\u{2028}", "\u{feff}", "\u{ad}", "\u{3164}", "\u{e0041}"]
        {
            assert!(shown(hidden).starts_with("\\u{"), "{hidden:?}");
        }
        assert_eq!(shown("x ##[error]y [z]"), "x ##\\u{5b}error]y [z]");
        assert_eq!(shown("füße 🦀"), "füße 🦀");
        assert_eq!(shown(&"x".repeat(500)).chars().count(), 201);
        assert_eq!(shown_long(&"\n".repeat(500)), "\\u{a}".repeat(500));
        assert_eq!(shown_long(&"x".repeat(9000)).chars().count(), 8193);
    }
}
