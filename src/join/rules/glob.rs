//! Globs, and what a pattern leaves open.

/// Whether a pattern leaves everything open: for `Constraint`.
pub fn is_open(pattern: &str) -> bool {
    pattern.bytes().all(|b| matches!(b, b'*' | b'?'))
}

/// Whether it has wildcards: for `Constraint`, where whoever writes or pushes a job
/// chooses the name, and so one that fits.
pub fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?'])
}

/// Whether the whole of `text` matches `pattern`: `*` stands for any run of
/// characters, `?` for any one, everything else for itself. Linear in the
/// product of the lengths at worst.
pub fn glob(pattern: &str, text: &str) -> bool {
    let mut pattern = pattern.chars();
    let mut text = text.chars();
    // Where to go on when what followed the last `*` did not fit: that `*`
    // then takes one character more.
    let mut retry: Option<(std::str::Chars<'_>, std::str::Chars<'_>)> = None;
    loop {
        let rest = text.clone();
        match (pattern.next(), text.next()) {
            (None, None) => return true,
            (Some('*'), _) => {
                retry = Some((pattern.clone(), rest.clone()));
                text = rest;
                continue;
            }
            (Some('?'), Some(_)) => continue,
            (Some(wanted), Some(found)) if wanted == found => continue,
            _ => {}
        }
        let Some((after_star, taken)) = &mut retry else { return false };
        if taken.next().is_none() {
            return false;
        }
        pattern = after_star.clone();
        text = taken.clone();
    }
}

/// The part of a glob before its first wildcard.
pub fn literal_prefix(pattern: &str) -> &str {
    pattern.split(['*', '?']).next().unwrap_or_default()
}

/// Whether a pattern's matches all begin with `start` and the same text up to `end`, which is not empty.
pub fn names_part(pattern: &str, start: &str, end: char) -> bool {
    let behind = literal_prefix(pattern).strip_prefix(start);
    behind.and_then(|rest| rest.split_once(end)).is_some_and(|(named, _)| !named.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn globs() {
        for (pattern, text, fits) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("a*", "a/b/c", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*b*d", "abcbd", true),
            ("*b*d", "abcbx", false),
            ("octo-org/*", "octo-organisation/x", false),
            ("octo-org/*", "octo-org/x", true),
            ("refs/heads/main", "refs/heads/main2", false),
            ("refs/heads/main", "xrefs/heads/main", false),
            ("a|b", "a", false),
            ("[ab]", "a", false),
            ("**", "x", true),
        ] {
            assert_eq!(glob(pattern, text), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn a_pattern_of_wildcards_alone_leaves_everything_open() {
        for open in ["*", "**", "?*", "*?", "*?*", "???"] {
            assert!(is_open(open), "{open}");
        }
        for bound in ["a", "a*", "*a", "?-*"] {
            assert!(!is_open(bound), "{bound}");
        }
    }

    #[test]
    fn globs_do_not_explode() {
        assert!(!glob(&format!("{}b", "*a".repeat(100)), &"a".repeat(2_000)));
    }

    /// The plainest definition there is.
    fn model(pattern: &[char], text: &[char]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some(('*', rest)), _) => {
                model(rest, text) || text.split_first().is_some_and(|(_, t)| model(pattern, t))
            }
            (Some(('?', rest)), Some((_, t))) => model(rest, t),
            (Some((p, rest)), Some((c, t))) => p == c && model(rest, t),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn glob_agrees_with_its_model(pattern in "[ab*?]{0,8}", text in "[ab]{0,10}") {
            let chars = |s: &str| s.chars().collect::<Vec<_>>();
            prop_assert_eq!(glob(&pattern, &text), model(&chars(&pattern), &chars(&text)));
        }

        #[test]
        fn a_text_without_wildcards_matches_itself_alone(a in "[a-z/:@]{0,12}", b in "[a-z/:@]{0,12}") {
            prop_assert_eq!(glob(&a, &b), a == b);
        }
    }
}
