//! The lint over whom tokens are for.

use super::findings::{Findings, named};
use crate::authority::policy::resources::{AUDIENCES, Policy, Template};

/// Roles that leave it to the job who is to believe its token: a pattern whose host, or whose whole, is nothing but wildcards.
pub(super) fn any_audience(policy: &Policy, findings: &mut Findings<'_>) {
    for role in policy.roles.values() {
        let patterns = role.allowed(&AUDIENCES).iter().filter_map(|allowed| match allowed {
            Template::Literal(pattern) if is_open(pattern) => Some(pattern),
            _ => None,
        });
        let patterns: Vec<&String> = patterns.collect();
        if !patterns.is_empty() {
            let what = format!(
                "gives tokens for whatever host a job names: its `jwt_audiences` say {}",
                named(&patterns)
            );
            findings.role(role, what, "name each audience, or at least its host");
        }
    }
}

/// Whether nothing of a pattern says whose audience it is: not its host, or of one that is no URL not its first part.
fn is_open(pattern: &str) -> bool {
    let rest = pattern.split_once("//").map_or(pattern, |(_, rest)| rest);
    let host = rest.split('/').next().unwrap_or_default();
    host.contains('*') && host.chars().all(|c| matches!(c, '*' | '?' | '.' | ':' | '@'))
}

#[cfg(test)]
mod tests {
    use super::is_open;

    #[test]
    fn a_host_is_said_or_it_is_not() {
        for open in
            ["*", "https://*", "https://*/x", "*/x", "*://*", "//*/a", "https://*:*", "https://*.*/x", "**"]
        {
            assert!(is_open(open), "{open}");
        }
        for said in [
            "sts.amazonaws.com",
            "https://*.example.com",
            "https://x/*",
            "api://*x",
            "//iam.googleapis.com/*",
            "a*",
        ] {
            assert!(!is_open(said), "{said}");
        }
    }
}
