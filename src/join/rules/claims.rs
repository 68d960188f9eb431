//! Rules over claims that nobody knows beforehand: compared by type.

use super::grammar::{Grammar, Pattern};
use super::rule::{Condition, Field, Want};
use crate::document::{Mistake, Node, Value as Yaml};
use crate::text::shown;

/// What every token has and what says nothing of its job (RFC 7519, section 4.1, without `sub`).
const ABOUT_THE_TOKEN: [&str; 6] = ["iss", "aud", "exp", "nbf", "iat", "jti"];

/// The conditions of a mapping from names to values, of the claims or of what is `within` one of them; `wide` texts match
/// as globs without parts.
pub(super) fn read(field: &Field, node: &Node, within: &str, wide: bool) -> Result<Vec<Condition>, Mistake> {
    let mut conditions = Vec::new();
    for (key, node) in node.mapping(&format!("`{}`", field.name))?.rest() {
        let name = &key.text;
        if name.is_empty() {
            return Err(Mistake::new(key.place, "a claim's name is empty"));
        }
        if name.starts_with('/') && !is_pointer(name) {
            return Err(Mistake::new(key.place, format!("`{}` is not a JSON pointer", shown(name)))
                .hint("in one, `~0` stands for `~` and `~1` for `/`; a name that does not begin with `/` is taken as it is"));
        }
        let whose = !ABOUT_THE_TOKEN.contains(&name.trim_start_matches('/'));
        for want in wants(name, node, wide)? {
            let is_text = matches!(want, Want::Parts(_) | Want::Member(_));
            let constrains = if whose && is_text { field.constrains } else { &[] };
            let (shown, claim) = match within {
                "" => (name.clone(), name.clone()),
                within if name.starts_with('/') => {
                    (format!("{}.{name}", field.name), format!("{within}{name}"))
                }
                within => {
                    let escaped = name.replace('~', "~0").replace('/', "~1");
                    (format!("{}.{name}", field.name), format!("{within}/{escaped}"))
                }
            };
            conditions.push(Condition { field: shown, claim, want, constrains, unless: None });
        }
    }
    Ok(conditions)
}

fn is_pointer(name: &str) -> bool {
    name.split('~').skip(1).all(|behind| behind.starts_with(['0', '1']))
}

/// What a claim must be: of the type that the value has.
fn wants(name: &str, node: &Node, wide: bool) -> Result<Vec<Want>, Mistake> {
    let name = shown(name);
    // One of a list is put together like any other text.
    let member = |name: &str, item: &Node| {
        Pattern::of(name, item, &Grammar::Unknown).map(|it| Want::Member(it.text().to_owned()))
    };
    Ok(match &node.value {
        Yaml::Text(_) if wide => vec![Want::Wide(node.text(&name)?.to_owned())],
        Yaml::Bool(value) if wide => vec![Want::Wide(value.to_string())],
        Yaml::Int(value) if wide => vec![Want::Wide(value.to_string())],
        // All conditions of an entry must hold: what is one of them would never be denied.
        Yaml::List(items) if wide && items.len() > 1 => {
            return Err(Mistake::new(node.place, format!("`{name}` must be one value where it is denied"))
                .hint("write an entry for each: any of them keeps the job out"));
        }
        Yaml::List(items) if wide && !items.is_empty() => {
            let one = |item: &Node| item.text(&name).map(|text| Want::Wide(text.to_owned()));
            items.iter().map(one).collect::<Result<_, _>>()?
        }
        Yaml::Text(_) => vec![Want::Parts(Pattern::of(&name, node, &Grammar::Unknown)?)],
        Yaml::Bool(value) => vec![Want::Value((*value).into())],
        Yaml::Int(value) => vec![Want::Value((*value).into())],
        Yaml::Float(_) => {
            return Err(Mistake::new(node.place, format!("`{name}` must be a whole number"))
                .hint("numbers with a fraction or an exponent are never compared"));
        }
        Yaml::List(items) if !items.is_empty() => {
            items.iter().map(|item| member(&name, item)).collect::<Result<_, _>>()?
        }
        Yaml::Null | Yaml::List(_) | Yaml::Map(_) => {
            let message = format!("`{name}` must be text, a number, a boolean or a list of texts");
            return Err(Mistake::new(node.place, message));
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value};

    use super::super::claim::claim;
    use super::super::glob::is_open;
    use super::super::read::read as read_rules;
    use super::super::rule::{Constraint, Match, Rule};
    use super::*;
    use crate::document;

    static FIELDS: &[Field] =
        &[Field::new("claims", Match::Claims).constrains(&[Constraint::Owner(is_open)])];

    fn rules(claims: &str) -> Result<Vec<Rule>, Mistake> {
        let nodes = document::parse(&format!("[{{claims: {claims}}}]")).unwrap();
        Ok(read_rules(&nodes[0], FIELDS)?)
    }

    fn holds(wanted: &str, claims: &str) -> bool {
        let claims = crate::join::jwt::strict_object(claims.as_bytes()).unwrap();
        let rules = rules(wanted).unwrap();
        rules[0].conditions.iter().all(|condition| condition.holds(&claims))
    }

    #[test]
    fn pointers_are_those_of_rfc_6901() {
        // Its section 5, but for the whole document.
        let claims = r#"{"foo": ["bar", "baz"], "": 0, "a/b": 1, "c%d": 2, "e^f": 3, "g|h": 4, "i\\j": 5,
            "k\"l": 6, " ": 7, "m~n": 8}"#;
        for (pointer, wanted) in [
            ("/foo/0", "bar"),
            ("/foo/1", "baz"),
            ("/", "0"),
            ("/a~1b", "1"),
            ("/c%d", "2"),
            ("/e^f", "3"),
            ("/g|h", "4"),
            ("/i\\j", "5"),
            ("/k\"l", "6"),
            ("/ ", "7"),
            ("/m~0n", "8"),
        ] {
            assert!(holds(&format!("{{'{pointer}': {wanted}}}"), claims), "{pointer}");
        }
        for pointer in ["/foo/2", "/foo/01", "/foo/+1", "/foo/-", "/foo/", "/foo/0/0", "/bar", "/a/b", "//"] {
            let claims = serde_json::from_str::<Map<String, Value>>(claims).unwrap();
            assert_eq!(claim(&claims, pointer), None, "{pointer}");
        }
        // `~01` is `~1`, not `/`.
        assert!(holds("{/a~01b: 1}", r#"{"a~1b": 1}"#) && !holds("{/a~01b: 1}", r#"{"a/b": 1}"#));
    }

    #[test]
    fn a_name_is_literal_unless_it_begins_with_a_slash() {
        let nested = r#"{"kubernetes.io": {"namespace": "ci"}}"#;
        let flat = r#"{"kubernetes.io/namespace": "ci"}"#;
        let slash = r#"{"/kubernetes.io/namespace": "ci"}"#;
        let by = |name: &str, claims: &str| holds(&format!("{{{name}: ci}}"), claims);
        assert!(by("/kubernetes.io/namespace", nested));
        assert!(!by("/kubernetes.io/namespace", flat) && !by("/kubernetes.io/namespace", slash));
        assert!(by("kubernetes.io/namespace", flat));
        assert!(!by("kubernetes.io/namespace", nested) && !by("kubernetes.io.namespace", nested));
        assert!(by("/~1kubernetes.io~1namespace", slash));
    }

    #[test]
    fn values_are_compared_by_type() {
        for (wanted, claim, fits) in [
            ("'7'", "\"7\"", true),
            ("'7'", "7", false),
            ("7", "7", true),
            ("7", "\"7\"", false),
            ("7", "7.0", false),
            ("7", "7e0", false),
            ("7", "70e-1", false),
            ("7", "8", false),
            ("7", "true", false),
            ("7", "[7]", false),
            ("1", "true", false),
            ("0", "-0", false),
            ("-7", "-7", true),
            // One beyond what a float tells apart.
            ("9007199254740993", "9007199254740993", true),
            ("9007199254740993", "9007199254740992", false),
            ("9007199254740993", "9007199254740993.0", false),
            ("9223372036854775807", "9223372036854775807", true),
            ("9223372036854775807", "9223372036854775808", false),
            ("true", "true", true),
            ("true", "\"true\"", false),
            ("true", "1", false),
            ("true", "false", false),
            ("false", "false", true),
            ("false", "null", false),
            ("'true'", "true", false),
            // YAML's other names of booleans are booleans.
            ("yes", "true", true),
            ("no", "\"no\"", false),
            ("'no'", "\"no\"", true),
            ("'*'", "\"\"", true),
            ("'*'", "null", false),
            ("'*'", "7", false),
            ("'*'", "[\"a\"]", false),
            ("'*'", "{}", false),
            ("'null'", "null", false),
            ("'a*'", "\"abc\"", true),
            ("a", "[\"a\"]", false),
            ("[a]", "[\"b\", \"a\"]", true),
            ("[a]", "\"a\"", false),
            ("[a]", "[[\"a\"]]", false),
            ("[a]", "[]", false),
            ("['a*', b]", "[\"b\", \"ab\"]", true),
            ("[a, b]", "[\"a\"]", false),
            ("['7']", "[7]", false),
        ] {
            let found = holds(&format!("{{c: {wanted}}}"), &format!("{{\"c\": {claim}}}"));
            assert_eq!(found, fits, "{wanted} {claim}");
        }
        assert!(!holds("{c: false}", "{}") && !holds("{/c/d: x}", r#"{"c": null}"#));
    }

    #[test]
    fn what_is_denied_is_so_whatever_type_its_author_took_it_for() {
        static DENIED: &[Field] = &[Field::new("claims", Match::ClaimsIn { within: "/p", wide: true })];
        let denies = |wanted: &str, claim: &str| {
            let nodes = document::parse(&format!("[{{claims: {{c: {wanted}}}}}]")).unwrap();
            let claims = format!("{{\"p\": {{\"c\": {claim}}}}}");
            let claims = crate::join::jwt::strict_object(claims.as_bytes()).unwrap();
            let rules = read_rules(&nodes[0], DENIED)?;
            Ok::<_, Mistake>(rules[0].conditions.iter().all(|condition| condition.holds(&claims)))
        };
        for (wanted, claim, fits) in [
            ("74", "74", true),
            ("74", "\"74\"", true),
            ("'74'", "74", true),
            ("'7*'", "74", true),
            ("true", "\"true\"", true),
            ("'true'", "true", true),
            ("74", "[\"73\", 74]", true),
            ("[a]", "\"a\"", true),
            ("a", "[\"a\"]", true),
            ("'*/evil'", "\"refs/heads/evil\"", true),
            ("74", "75", false),
            ("74", "null", false),
            ("'*'", "{}", false),
        ] {
            assert_eq!(denies(wanted, claim).unwrap(), fits, "{wanted} {claim}");
        }
        let mistake = denies("[a, b]", "\"a\"").unwrap_err();
        assert_eq!(mistake.message, "`c` must be one value where it is denied");
    }

    #[test]
    fn mistakes_are_told() {
        let too_large = "number too large";
        for (claims, message) in [
            ("{}", "`claims` is empty"),
            ("[sub]", "`claims` must be a mapping, not a list"),
            ("{sub: }", "`sub` must be text, a number, a boolean or a list of texts"),
            ("{sub: ''}", "`sub` is empty"),
            ("{sub: []}", "`sub` must be text, a number, a boolean or a list of texts"),
            ("{sub: {a: b}}", "`sub` must be text, a number, a boolean or a list of texts"),
            ("{groups: [7]}", "`groups` must be text, not a number"),
            ("{groups: [[a]]}", "`groups` must be text, not a list"),
            ("{n: 1.5}", "`n` must be a whole number"),
            ("{n: 1.0}", "`n` must be a whole number"),
            ("{n: 1e3}", "`n` must be a whole number"),
            ("{'': x}", "a claim's name is empty"),
            ("{/a~2: x}", "`/a~2` is not a JSON pointer"),
            ("{/a~: x}", "`/a~` is not a JSON pointer"),
        ] {
            assert_eq!(rules(claims).unwrap_err().message, message, "{claims}");
        }
        let wide = document::parse("[{claims: {n: 9223372036854775808}}]").unwrap_err();
        assert!(wide.message.contains(too_large), "{}", wide.message);
    }

    #[test]
    fn what_is_about_the_token_says_nothing_of_whose_it_is() {
        for (claims, says) in [
            ("{sub: x}", true),
            ("{groups: [x]}", true),
            ("{/a/b: x}", true),
            ("{iss: x}", false),
            ("{/aud: x}", false),
            ("{email_verified: true, n: 7}", false),
        ] {
            let rules = rules(claims).unwrap();
            assert_eq!(rules[0].conditions.iter().any(|one| !one.constrains.is_empty()), says, "{claims}");
        }
    }
}
