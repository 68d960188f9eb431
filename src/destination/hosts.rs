//! Which hosts a cluster's host CAs are believed for, as `ssh` reads it.

use crate::principal::{is_host_pattern, wider_patterns};
use crate::text::shown;

/// The most patterns of one leaf cluster: they stand on one line of `ssh_config`.
const MOST: usize = 256;

/// The hosts of a cluster, by [patterns](is_host_pattern).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hosts {
    /// Every host but these, which are those of leaf clusters.
    AllBut(Vec<String>),
    /// These alone: a leaf cluster's.
    Only(Vec<String>),
}

/// Where there are no leaf clusters.
pub static EVERYWHERE: Hosts = Hosts::AllBut(Vec::new());

impl Hosts {
    /// The patterns of a line of `known_hosts`, which names a host on another port than 22 `[HOST]:PORT`, and by the dot
    /// at its end where it was typed so. Nothing for no host at all.
    pub fn known(&self) -> String {
        self.patterns(|p| vec![p.to_owned(), format!("[{p}]:*"), format!("{p}."), format!("[{p}.]:*")])
    }

    /// The same for `Match host`, which knows no ports.
    pub fn matched(&self) -> String {
        self.patterns(|p| vec![p.to_owned(), format!("{p}.")])
    }

    fn patterns(&self, forms: impl Fn(&str) -> Vec<String>) -> String {
        let all = |hosts: &[String]| hosts.iter().flat_map(|host| forms(host)).collect::<Vec<_>>();
        match self {
            Self::Only(hosts) => all(hosts).join(","),
            // A pattern that is negated counts wherever it stands.
            Self::AllBut(hosts) => {
                let others = all(hosts).into_iter().map(|pattern| format!("!{pattern}"));
                std::iter::once("*".to_owned()).chain(others).collect::<Vec<_>>().join(",")
            }
        }
    }
}

/// Checks what is said of a leaf cluster's hosts.
///
/// # Errors
/// In words, what is wrong with them.
pub fn check(hosts: &[String]) -> Result<(), String> {
    if hosts.len() > MOST {
        return Err(format!("has more than {MOST} `hosts`"));
    }
    match hosts.iter().find(|host| !is_host_pattern(host)) {
        Some(bad) => {
            Err(format!("has a host `{}`, which is neither a name in lower case nor `*.DOMAIN`", shown(bad)))
        }
        None => Ok(()),
    }
}

/// A host that two clusters have both, if there is one: each has whatever is below a `*.DOMAIN` of its own.
pub fn shared<'h>(one: &'h [String], other: &'h [String]) -> Option<&'h str> {
    let within = |host: &&String, hosts: &[String]| {
        hosts.contains(host) || wider_patterns(host).any(|wider| hosts.contains(&wider))
    };
    let found =
        one.iter().find(|host| within(host, other)).or_else(|| other.iter().find(|host| within(host, one)));
    found.map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(hosts: &[&str]) -> Vec<String> {
        hosts.iter().map(|host| (*host).to_owned()).collect()
    }

    #[test]
    fn each_pattern_stands_in_every_form_that_ssh_looks_for() {
        assert_eq!((EVERYWHERE.known(), EVERYWHERE.matched()), ("*".into(), "*".into()));
        let hosts = list(&["*.leaf.example.com"]);
        assert_eq!(
            Hosts::AllBut(hosts.clone()).known(),
            "*,!*.leaf.example.com,![*.leaf.example.com]:*,!*.leaf.example.com.,![*.leaf.example.com.]:*"
        );
        assert_eq!(
            Hosts::Only(hosts.clone()).known(),
            "*.leaf.example.com,[*.leaf.example.com]:*,*.leaf.example.com.,[*.leaf.example.com.]:*"
        );
        assert_eq!(Hosts::Only(hosts).matched(), "*.leaf.example.com,*.leaf.example.com.");
        assert_eq!(Hosts::Only(Vec::new()).known(), "");
    }

    #[test]
    fn no_host_is_of_two_clusters() {
        for (one, other) in [
            (&["db.a.example.com"][..], &["db.a.example.com"][..]),
            (&["db.a.example.com"], &["x.test", "*.example.com"]),
            (&["*.example.com"], &["*.a.example.com"]),
        ] {
            assert!(shared(&list(one), &list(other)).is_some(), "{one:?} {other:?}");
            assert!(shared(&list(other), &list(one)).is_some(), "{one:?} {other:?}");
        }
        // The domain itself is not below itself.
        assert_eq!(
            shared(&list(&["a.example.com", "*.b.test"]), &list(&["*.a.example.com", "xb.test"])),
            None
        );
    }

    #[test]
    fn what_is_no_host_is_named() {
        check(&list(&["*.a.example.com", "db"])).unwrap();
        for bad in ["*", "*.com", "a,*", "!a.b", "A.b", "a b", "a.b\n@cert-authority *", "10.0.0.1"] {
            assert!(check(&list(&[bad])).is_err(), "{bad}");
        }
        assert!(check(&vec!["a.b".to_owned(); MOST + 1]).is_err());
    }
}
