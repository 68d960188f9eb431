//! The lint over values that no job has: rules with one never match.

use super::findings::Findings;
use super::rules::each_rule;
use crate::authority::policy::resources::Policy;
use crate::join::method::Method;
use crate::join::rules::{Condition, Field, Match, Saying};
use crate::text::{shown, shown_exactly};

/// What is wrong with a text, in words that follow it; and what to do about it.
pub(super) type Wrong = (String, String);

/// Rules with a condition that no claim of the platform meets, and join tokens of an issuer that nobody is.
pub(super) fn never_matches(policy: &Policy, findings: &mut Findings<'_>) {
    for (token, rule) in each_rule(policy) {
        for (condition, (what, hint)) in
            rule.conditions.iter().filter_map(|one| Some((one, wrong(token.method, one)?)))
        {
            let text = condition.want.shown();
            let written =
                field(token.method, &condition.field).map_or(text.as_str(), |field| field.written(&text));
            let (name, value) = (shown_exactly(&condition.field), shown_exactly(written));
            findings.rule((token, rule), format!("never matches: its `{name}` is `{value}`, {what}"), hint);
        }
    }
    for token in policy.tokens() {
        let Some(issuer) = token.verifier.issuer() else { continue };
        if let Some((what, hint)) = no_issuer(issuer) {
            let what = format!("takes tokens of `{}` alone, {what}", shown_exactly(issuer));
            findings.token(token, what, format!("write `{hint}`, if its tokens have that in `iss`"));
        }
    }
}

/// Why nobody is of that name, and what may have been meant.
fn no_issuer(issuer: &str) -> Option<(&'static str, String)> {
    if let Some(issuer) = issuer.strip_suffix("/.well-known/openid-configuration") {
        return Some(("which is the address of an issuer's discovery", issuer.to_owned()));
    }
    let host = issuer.split('/').nth(2).unwrap_or_default();
    let usual = host.strip_suffix(":443").unwrap_or(host);
    let usual = usual.strip_suffix('.').unwrap_or(usual).to_ascii_lowercase();
    let what = "and issuers write hosts in small letters, without a dot at the end and without the port 443";
    (host != usual).then_some((what, usual))
}

/// What is wrong with a condition by itself, whatever stands beside it.
pub(super) fn wrong(method: &'static Method, condition: &Condition) -> Option<Wrong> {
    let text = condition.want.text()?;
    let Some(of) = field(method, &condition.field) else {
        return anywhere(text, false).or_else(|| mixed(text));
    };
    let written = of.written(text);
    // What the text says of other fields must be what they can be.
    let part = |said: Saying| match said.one_of.as_slice() {
        [part] => {
            let (what, hint) = misfit(field(method, said.field)?, part)?;
            Some((format!("with the part `{}`, {what}", shown_exactly(part)), hint))
        }
        _ => None,
    };
    let wrong = anywhere(written, true).or_else(|| misfit(of, text));
    wrong.or_else(|| (of.says)(text).into_iter().find_map(part)).or_else(|| mixed(written))
}

/// The field of a condition; none where a policy names a claim itself.
pub(super) fn field(method: &'static Method, name: &str) -> Option<&'static Field> {
    method.fields.iter().find(|field| field.names(name))
}

/// What is meant in no text, whatever the claim; of issuers that nobody `knows`, `|` may be.
fn anywhere(text: &str, knows: bool) -> Option<Wrong> {
    let trimmed = text.trim();
    if trimmed != text {
        return Some((
            "with white space at an end, which no claim has".to_owned(),
            format!("write `{}`", shown_exactly(trimmed)),
        ));
    }
    if let Some(hidden) = text.chars().find(|c| is_hidden(*c)) {
        return Some((
            format!("with a character that is not to be seen, `{}`", hidden.escape_unicode()),
            "write it again by hand: it was pasted".to_owned(),
        ));
    }
    is_regular_expression(text, knows).then(|| {
        (
            "which is text of a regular expression, and rules have none".to_owned(),
            "the whole claim is compared; `*` stands for any run of characters and `?` for one; write a rule for each alternative"
                .to_owned(),
        )
    })
}

/// What no message shows as it is; line ends and the like are no mistake of the eye.
fn is_hidden(c: char) -> bool {
    !c.is_ascii() && shown(c.encode_utf8(&mut [0; 4])).starts_with('\\')
}

/// Whether it has what makes regular expressions and stands in hardly any name. `v1.*` is a glob like others.
fn is_regular_expression(text: &str, knows: bool) -> bool {
    // `.*` for "anything": in front, or behind what separates.
    let anything = text.match_indices(".*").any(|(at, _)| {
        text.get(..at).is_some_and(|before| {
            !before.ends_with(|c: char| c.is_alphanumeric() || c == ')' || c == '*' || c == '?')
        })
    });
    let parts = [r"\", ".+", "[^", "[0-9", "[a-z", "[A-Z", "(?", ").*"];
    text.starts_with('^')
        || text.ends_with('$')
        || parts.iter().any(|part| text.contains(part))
        || knows && text.contains('|')
        || anything
}

/// What no claim of the field looks like.
fn misfit(field: &Field, text: &str) -> Option<Wrong> {
    let Some(shape) = field.shape else {
        let Match::Parts(grammar) = field.matches else { return None };
        let no_form = || (format!("which is no `{}` of any job", field.name), format!("write {grammar}"));
        return (!grammar.admits(text)).then(no_form);
    };
    if shape.admits(text) {
        return None;
    }
    let foreign = text.chars().find(|c| !c.is_ascii()).filter(|_| shape.is_ascii());
    let what = match foreign {
        Some(c) => format!("with `{}`, where the platform has ASCII alone", c.escape_unicode()),
        None => format!("which is no `{}` of any job", field.name),
    };
    Some((what, format!("write {}", shape.such_as)))
}

/// A word in which another alphabet's letters stand among Latin ones, which some of them look like.
fn mixed(text: &str) -> Option<Wrong> {
    let mut words = text.split(|c: char| !c.is_alphanumeric());
    let word =
        words.find(|word| word.contains(|c: char| c.is_ascii_alphabetic()) && word.contains(looks_latin))?;
    let c = word.chars().find(|c| looks_latin(*c))?;
    Some((
        format!("in which `{}`, a letter of another alphabet, stands among Latin ones", c.escape_unicode()),
        "write the letter that it looks like, or silence the lint where the name is so".to_owned(),
    ))
}

/// Letters of Greek, Cyrillic, Armenian and Cherokee, IPA's, and Latin ones in other dress.
fn looks_latin(c: char) -> bool {
    matches!(c, '\u{131}' | '\u{250}'..='\u{2af}' | '\u{370}'..='\u{58f}' | '\u{13a0}'..='\u{13ff}'
        | '\u{1f00}'..='\u{1fff}' | '\u{2100}'..='\u{218f}' | '\u{ab70}'..='\u{abbf}' | '\u{ff00}'..='\u{ff5f}'
        | '\u{1d400}'..='\u{1d7ff}')
}
