//! Texts about a run, made of its claims.
//!
//! `{claim}` stands for the claim's text, `[one|another]` for the first of
//! those whose claims are all there, or for nothing.

/// The text that `template` makes of claims, and whether all were there but for
/// those in brackets. What a claim says is never read as a template.
pub(super) fn fill(template: &str, of: &dyn Fn(&str) -> String) -> (String, bool) {
    let (mut text, mut is_whole) = (String::new(), true);
    for part in template.split_inclusive(']') {
        let (plain, choice) =
            part.strip_suffix(']').and_then(|part| part.split_once('[')).unwrap_or((part, ""));
        let (filled, whole) = fill_claims(plain, of);
        text.push_str(&filled);
        is_whole &= whole;
        let mut choices = choice.split('|').map(|one| fill_claims(one, of));
        text.extend(choices.find_map(|(filled, whole)| whole.then_some(filled)));
    }
    (text, is_whole)
}

fn fill_claims(template: &str, of: &dyn Fn(&str) -> String) -> (String, bool) {
    let mut parts = template.split('{');
    let (mut text, mut is_whole) = (parts.next().unwrap_or_default().to_owned(), true);
    for (claim, plain) in parts.filter_map(|part| part.split_once('}')) {
        let filled = of(claim);
        is_whole &= !filled.is_empty();
        text.extend([filled.as_str(), plain]);
    }
    (text, is_whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_that_are_missing_leave_out_what_depends_on_them() {
        let of = |claim: &str| match claim {
            "a" => "1".to_owned(),
            "b" => "[{a}|x]".to_owned(),
            _ => String::new(),
        };
        for (template, text, is_whole) in [
            ("", "", true),
            ("x:{a}@{b}", "x:1@[{a}|x]", true),
            ("x:{a}@{c}!", "x:1@!", false),
            ("x[@{a}]y[@{c}]z", "x@1yz", true),
            ("[{c}{a}|{b}|n]", "[{a}|x]", true),
            ("[{c}|n] {c}", "n ", false),
        ] {
            assert_eq!(fill(template, &of), (text.to_owned(), is_whole), "{template}");
        }
    }
}
