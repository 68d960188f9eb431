//! Files that are not whole, and policies that are none.

use super::fixture::{NOTHING, TOKEN, bot, parse, role};
use crate::authority::policy::{Policy, Source};

#[test]
fn what_holds_nothing_is_no_policy() {
    assert!(Policy::parse(&[]).is_err());
    let wanted = "p.yaml:1:1: no policy: no file holds a resource | put bots, roles and join tokens there: docs/policy.md shows each";
    for text in ["---\n---\n", "# kind: bot\n"] {
        assert_eq!(parse(text).map(drop).unwrap_err(), [wanted]);
    }
}

#[test]
fn a_file_that_was_cut_off_is_refused() {
    let again = "if it was cut off while it was written, write it anew";
    let two = |second: &str| {
        let file = |name: &str, text: String| Source { name: name.to_owned(), text };
        let whole = format!("{}{}{TOKEN}", bot("{roles: [a]}"), role("a", NOTHING));
        let errors = Policy::parse(&[file("a.yaml", whole), file("b.yaml", second.to_owned())]).map(drop);
        errors.map_err(|errors| {
            errors.iter().map(|error| format!("{error} | {:?}", error.hints())).collect::<Vec<_>>()
        })
    };
    let preference = "kind: cluster_auth_preference\nversion: v2\nmetadata: {name: cluster-auth-preference}\nspec: {require_session_mfa: yes}\n";
    assert_eq!(two(preference), Ok(()));
    assert_eq!(two("# all of it is in a.yaml\r\n"), Ok(()));
    for (cut, place, what) in [
        (preference.trim_end(), "4:33", "end it with a line feed"),
        ("# the é", "1:8", "end it with a line feed"),
    ] {
        let wanted = format!("b.yaml:{place}: the last line has no end | [\"{what}; {again}\"]");
        assert_eq!(two(cut), Err(vec![wanted]));
    }
    assert_eq!(two(""), Err(vec![format!("b.yaml:1:1: the file is empty | [\"remove it; {again}\"]")]));
}

#[test]
fn every_cut_within_a_line_is_refused() {
    let example = format!("{}{}{TOKEN}", bot("{roles: [a]}"), role("a", "{deny: {logins: [root]}}"));
    let source = |text: &str| [Source { name: "p.yaml".to_owned(), text: text.to_owned() }];
    for cut in (0..example.len()).filter(|cut| !example[..*cut].ends_with('\n')) {
        assert!(Policy::parse(&source(&example[..cut])).is_err(), "{}", &example[..cut]);
    }
    assert!(Policy::parse(&source(&example)).is_ok());
}
