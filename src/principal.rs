//! Principals of SSH certificates: how a login, and the labels of the hosts
//! that it holds on, are written as one text, and how that is read back; and
//! the names of hosts, which TLS servers' certificates have too.
//!
//! `deploy` holds on every host; `deploy@env=prod,team=web` only on hosts with
//! all of these labels. The grammar is strict on both sides, since `sshd` and
//! what reads its files give meaning to more than it seems: a comma separates
//! principals, white space separates options from them, `#` begins a comment.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use crate::text::{shown, shown_exactly};

/// The longest login; Linux has 32 and other systems up to 64.
pub const MAX_LOGIN: usize = 64;
/// The longest key or value of a label.
const MAX_LABEL: usize = 128;
/// The most principals that OpenSSH reads in a certificate
/// (`SSHKEY_CERT_MAX_PRINCIPALS`); with more, the whole certificate is refused.
pub const MAX_CERTIFICATE_PRINCIPALS: usize = 256;
/// What [`is_host`] wants, for hints.
pub const HOST_FORM: &str =
    "a DNS name in lower case without a dot at its end, or an IP address in its usual form";

/// Whether `text` can be a login: letters, digits, `.`, `_`, `-`, not led by a
/// dash, which would be an option, or a dot.
pub fn is_login(text: &str) -> bool {
    let mut bytes = text.bytes();
    text.len() <= MAX_LOGIN
        && bytes.next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// Whether `text` can be a label's key or value.
pub fn is_label(text: &str) -> bool {
    (1..=MAX_LABEL).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'/' | b':' | b'-'))
}

/// Whether `text` is a host's name: a DNS name or an IP address, in the one
/// spelling that clients look for (`ssh` makes what it is given small), so that
/// no other gets past a `deny` either. OpenSSH takes `*` in a host's principal
/// for a pattern: it is none of a name's characters.
pub fn is_host(text: &str) -> bool {
    if let Ok(address) = text.parse::<IpAddr>() {
        return address.to_canonical().to_string() == text;
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'))
    };
    // `127.1` and `0x7f000001` are addresses to some programs.
    let last = text.rsplit('.').next().unwrap_or_default();
    let numeric = last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x");
    text.len() <= 253 && !numeric && text.split('.').all(label)
}

/// Whether `text` names hosts of one owner: a DNS name, or `*.DOMAIN` for every name below a domain of two labels or more.
pub fn is_host_pattern(text: &str) -> bool {
    let is_dns = |name: &str| is_host(name) && name.parse::<IpAddr>().is_err();
    match text.strip_prefix("*.") {
        Some(domain) => is_dns(domain) && domain.contains('.'),
        None => is_dns(text),
    }
}

/// The patterns with a wildcard that cover all that a [pattern](is_host_pattern) covers, apart from itself, the nearest first.
pub fn wider_patterns(pattern: &str) -> impl Iterator<Item = String> {
    let name = pattern.strip_prefix("*.").unwrap_or(pattern);
    name.match_indices('.').filter_map(|(dot, _)| Some(format!("*{}", name.get(dot..)?)))
}

/// The principals of a host's certificate: sorted, each once.
///
/// # Errors
/// Where one is no [host's name](is_host), or OpenSSH would not read so many.
pub fn hosts(mut names: Vec<String>) -> Result<Vec<String>, String> {
    names.sort_unstable();
    names.dedup();
    if names.len() > MAX_CERTIFICATE_PRINCIPALS {
        return Err(format!("a certificate holds at most {MAX_CERTIFICATE_PRINCIPALS} principals"));
    }
    match names.iter().find(|name| !is_host(name)) {
        Some(bad) => Err(no_host(bad)),
        None => Ok(names),
    }
}

/// That `text` is no [host's name](is_host), and which was meant.
pub fn no_host(text: &str) -> String {
    let hint = usual_host(text).map_or_else(|| HOST_FORM.to_owned(), |usual| format!("write `{usual}`"));
    format!("`{}` cannot be a host name: {hint}", shown_exactly(text))
}

/// What is a host's name in all but its spelling: in capitals, with a dot, brackets or a port behind it.
fn usual_host(text: &str) -> Option<String> {
    let text = text.trim().to_ascii_lowercase();
    let port = |port: &str| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    let name = text.rsplit_once(':').filter(|(_, behind)| port(behind)).map_or(&*text, |(name, _)| name);
    let name = name.strip_suffix('.').unwrap_or(name);
    let unbracketed = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(&text);
    let address = text.parse().map(|address: SocketAddr| address.ip()).or_else(|_| unbracketed.parse());
    let usual =
        address.map_or_else(|_| name.to_owned(), |address: IpAddr| address.to_canonical().to_string());
    is_host(&usual).then_some(usual)
}

/// The labels of a host, each key once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// Adds the labels of `k=v,k2=v2`; white space around them does not count,
    /// and an empty text adds none.
    pub fn add(&mut self, text: &str) -> Result<(), String> {
        if text.trim().is_empty() {
            return Ok(());
        }
        for label in text.split(',') {
            let (key, value) =
                label.trim().split_once('=').ok_or_else(|| format!("`{}` is not KEY=VALUE", shown(label)))?;
            if !is_label(key) || !is_label(value) {
                return Err(format!(
                    "`{}` is no label: keys and values have letters, digits, `_`, `.`, `/`, `:` and `-`, and at most {MAX_LABEL} of them",
                    shown(label)
                ));
            }
            // Which of two values would count, nobody could say.
            if self.0.insert(key.to_owned(), value.to_owned()).is_some() {
                return Err(format!("the label `{key}` is given twice"));
            }
        }
        Ok(())
    }

    /// Adds the labels of a file: lines of `k=v,k2=v2`, empty ones, and
    /// comments behind `#`.
    pub fn add_lines(&mut self, text: &str) -> Result<(), String> {
        for (number, line) in (1_usize..).zip(text.lines()) {
            let line = line.split('#').next().unwrap_or_default();
            self.add(line).map_err(|why| format!("line {number}: {why}"))?;
        }
        Ok(())
    }

    /// Whether a host with these labels has all of `set`, as a principal has
    /// them: `k=v,k2=v2`, keys ascending, no white space.
    fn have(&self, set: &str) -> bool {
        let mut last = None;
        set.split(',').all(|label| {
            let Some((key, value)) = label.split_once('=') else { return false };
            // The authority writes them so; what is otherwise is none of its own.
            let ascending = last.replace(key).is_none_or(|last| last < key);
            ascending && self.0.get(key).is_some_and(|own| own == value)
        })
    }
}

/// Whether a principal lets `user` in on a host with these labels. True only
/// for a principal in the grammar of this module, whatever else the text is.
pub fn holds(principal: &str, user: &str, host: &Labels) -> bool {
    let parts = principal.split_once('@').map(|(login, set)| (login, Some(set)));
    let (login, set) = parts.unwrap_or((principal, None));
    is_login(login) && login == user && set.is_none_or(|set| host.have(set))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels(text: &str) -> Labels {
        let mut labels = Labels::default();
        labels.add(text).unwrap();
        labels
    }

    #[test]
    fn every_label_of_a_principal_must_be_the_hosts() {
        let host = labels("env=prod, team=web,zone=eu/1");
        for good in [
            "deploy",
            "deploy@env=prod",
            "deploy@env=prod,team=web",
            "deploy@env=prod,team=web,zone=eu/1",
            "deploy@zone=eu/1",
        ] {
            assert!(holds(good, "deploy", &host), "{good}");
            assert!(!holds(good, "root", &host) && !holds(good, "deplo", &host), "{good}");
        }
        for bad in [
            "deploy@",
            "deploy@env=dev",
            "deploy@env=prod,team=db",
            "deploy@env=prod,rack=1",
            "deploy@team=web,env=prod",
            "deploy@env=prod,env=prod",
            "deploy@env=prod,",
            "deploy@,env=prod",
            "deploy@env=prod ,team=web",
            "deploy@env=prod@team=web",
            "deploy@env",
            "deploy@env=pro",
            "deploy@*=*",
            "deploy ",
            " deploy",
            "deploy\n",
            "restrict deploy",
            "#deploy",
            "",
            "@env=prod",
        ] {
            assert!(!holds(bad, "deploy", &host), "{bad:?}");
        }
        assert!(!holds("deploy@env=prod", "deploy", &Labels::default()));
        assert!(!holds("", "", &host) && !holds("-x", "-x", &host) && !holds("a b", "a b", &host));
    }

    #[test]
    fn a_host_has_one_spelling() {
        let longest = format!("{0}.{0}.{0}.{1}", "a".repeat(63), "b".repeat(61));
        for good in
            ["localhost", "web-1.example.com", "a_b", "x", "10.0.0.1", "2001:db8::1", "::1", "1.x", &longest]
        {
            assert!(is_host(good), "{good}");
            assert_eq!(hosts(vec![good.to_owned()]).unwrap(), [good]);
        }
        for (bad, meant) in [
            ("LOCALHOST", Some("localhost")),
            ("Web.Example.com", Some("web.example.com")),
            ("localhost.", Some("localhost")),
            ("127.0.0.1:2299", Some("127.0.0.1")),
            ("web.example.com:22", Some("web.example.com")),
            ("::0001", Some("::1")),
            ("[::1]", Some("::1")),
            ("[::1]:22", Some("::1")),
            ("2001:DB8::1", Some("2001:db8::1")),
            ("::ffff:10.0.0.1", Some("10.0.0.1")),
            ("::ffff:a00:1", Some("10.0.0.1")),
            (" x ", Some("x")),
            ("fe80::1%eth0", None),
            ("127.1", None),
            ("010.0.0.1", None),
            ("10.0.0.256", None),
            ("0x7f000001", None),
            ("10.0.0.1.", Some("10.0.0.1")),
            ("*", None),
            ("*.example.com", None),
            ("web?", None),
            ("!web", None),
            ("a..b", None),
            (".a", None),
            ("-a", None),
            ("a-", None),
            ("a,b", None),
            ("a b", None),
            ("", None),
            ("https://web", None),
            ("m\u{fc}nchen.example", None),
            (&format!("{longest}b"), None),
            (&"a".repeat(64), None),
        ] {
            assert!(!is_host(bad), "{bad}");
            let why = hosts(vec![bad.to_owned()]).unwrap_err();
            let hint = meant.map_or_else(|| HOST_FORM.to_owned(), |meant| format!("write `{meant}`"));
            assert!(why.ends_with(&format!(" cannot be a host name: {hint}")), "{why}");
        }
    }

    #[test]
    fn hosts_of_one_owner_are_names_and_domains() {
        for good in ["db", "db-1.leaf.example.com", "*.example.com", "*.a.b.c", "*._x.y"] {
            assert!(is_host_pattern(good), "{good}");
        }
        for bad in [
            "",
            "*",
            "*.",
            "*.com",
            "*.*.example.com",
            "*example.com",
            "a*.example.com",
            "db-?.example.com",
            "!db.example.com",
            "*.Example.com",
            "*.example.com.",
            "*.10.0.0.1",
            "10.0.0.1",
            "::1",
            "[::1]:22",
            "db:22",
            "a,b",
            "a b",
            "*.a..b",
            "*.1.2",
            "*.-a.b",
        ] {
            assert!(!is_host_pattern(bad), "{bad}");
        }
        let wider = |pattern| wider_patterns(pattern).collect::<Vec<_>>();
        assert_eq!(wider("a.b.c"), ["*.b.c", "*.c"]);
        assert_eq!(wider("*.a.b.c"), ["*.b.c", "*.c"]);
        assert!(wider("a").is_empty());
    }

    #[test]
    fn a_hosts_certificate_has_no_more_principals_than_openssh_reads() {
        let names = |count: usize| (0..count).map(|n| format!("web-{n}")).collect::<Vec<_>>();
        assert_eq!(hosts(names(256)).unwrap().len(), 256);
        // Named twice is once.
        assert_eq!(hosts([names(256), names(256)].concat()).unwrap().len(), 256);
        assert_eq!(hosts(names(257)).unwrap_err(), "a certificate holds at most 256 principals");
    }

    #[test]
    fn labels_are_strict_and_files_have_comments() {
        let mut host = Labels::default();
        host.add_lines("# the host's\n\nenv=prod , team=web # both\r\nzone=a\n").unwrap();
        assert_eq!(host, labels("zone=a,team=web,env=prod"));
        assert_eq!(labels(" "), Labels::default());
        for bad in ["env", "env=", "=prod", "env=prod,", ",", "a=b,a=b", "a b=c", "a=b=c", "é=1", "a=*"] {
            assert!(Labels::default().add(bad).is_err(), "{bad:?}");
        }
        assert!(Labels::default().add(&format!("{}=x", "k".repeat(MAX_LABEL + 1))).is_err());
        let why = Labels::default().add_lines("env=prod\nenv=dev\n").unwrap_err();
        assert_eq!(why, "line 2: the label `env` is given twice");
    }

    proptest! {
        /// A principal written as the authority does it holds exactly where the sets say.
        #[test]
        fn subsets_hold_and_nothing_else(
            host in proptest::collection::btree_map("[a-d]{1,2}", "[x-z]{1}", 0..5),
            wanted in proptest::collection::btree_map("[a-d]{1,2}", "[x-z]{1}", 0..4),
            user in "[a-c]",
            login in "[a-c]",
        ) {
            let text: Vec<String> = wanted.iter().map(|(k, v)| format!("{k}={v}")).collect();
            let principal =
                if text.is_empty() { login.clone() } else { format!("{login}@{}", text.join(",")) };
            let subset = wanted.iter().all(|(k, v)| host.get(k) == Some(v));
            prop_assert_eq!(holds(&principal, &user, &Labels(host)), subset && login == user);
        }

        /// No host has two names: what is said to be meant is a name, and a name means itself.
        #[test]
        fn what_a_host_is_said_to_be_called_is_its_name(text in "[a-cA-C0-9.:\\[\\]%*-]{0,16}|\\PC{0,12}") {
            match usual_host(&text) {
                Some(usual) => prop_assert!(is_host(&usual) && usual_host(&usual) == Some(usual.clone())),
                None => prop_assert!(!is_host(&text)),
            }
            if is_host(&text) {
                prop_assert_eq!(usual_host(&text), Some(text));
            }
        }

        /// Nothing panics, and whatever holds is one word that `sshd` takes for one principal.
        #[test]
        fn only_plain_words_hold(principal in "\\PC{0,40}|[a-c@=, \t#\n]{0,12}", user in "\\PC{0,6}|[a-c]") {
            let host = labels("a=b,b=c");
            if holds(&principal, &user, &host) {
                prop_assert!(principal.bytes().all(|b| b.is_ascii_graphic() && b != b'#' && b != b'"'));
                prop_assert!(principal.starts_with(&user));
            }
            let _ = Labels::default().add(&principal);
            let _ = Labels::default().add_lines(&principal);
        }
    }
}
