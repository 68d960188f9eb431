//! How much is kept of what others say, in bytes of JSON. Each part is bounded
//! for itself, so that no part decides what is left of another.

use serde_json::{Map, Value, json};

use crate::join::METHODS;

/// Somebody whom no rule has let in. What such people cause is kept within
/// bounds, those of each kind for themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stranger {
    /// Nobody vouches for the claims: this costs nothing to do.
    Unverified,
    /// An issuer does; on a public platform, anybody has an account.
    Verified,
}

impl Stranger {
    /// Which ring of refusals is theirs: newer ones of the same push theirs out.
    pub(super) fn ring(self) -> i64 {
        match self {
            Self::Unverified => 0,
            Self::Verified => 1,
        }
    }
}

/// The most that is kept of each kind of strangers, in rows and in bytes.
pub(super) const MAX_ROWS: i64 = 10_000;
pub(super) const MAX_BYTES: i64 = 8 << 20;

/// More than any row has: what the bounds below let through, and names from the policy.
pub(super) const MAX_ROW: i64 = 8 << 10;

/// The longest that a join token's or method's name is kept, as a caller wrote it.
pub(super) const NAME: usize = 128;

/// Claims that are kept before others.
const FIRST: &[&str] = &["iss", "sub", "aud", "iat", "exp", "cluster", "join_method", "provenance"];

/// The most that an event keeps of texts and claims.
pub(super) struct Bounds {
    pub(super) detail: usize,
    pub(super) claims: usize,
}

/// Of events that stay.
pub(super) const TRAIL: Bounds = Bounds { detail: 4096, claims: 8192 };
/// Of proofs that are good and let nobody in: the nearest rule's story is in it.
const VERIFIED: Bounds = Bounds { detail: 2048, claims: 4096 };
/// Of proofs that anybody can make up.
const UNVERIFIED: Bounds = Bounds { detail: 256, claims: 1024 };

impl Bounds {
    /// Those of a refusal.
    pub(super) fn of(stranger: Option<Stranger>) -> &'static Self {
        match stranger {
            None => &TRAIL,
            Some(Stranger::Verified) => &VERIFIED,
            Some(Stranger::Unverified) => &UNVERIFIED,
        }
    }
}

/// The beginning of a text that takes at most so many bytes.
pub(super) fn cut(text: &str, most: usize) -> &str {
    let mut used = 0;
    let end = text.char_indices().find(|(_, c)| {
        used += match c {
            '"' | '\\' => 2,
            c if c.is_ascii_control() => 6,
            c => c.len_utf8(),
        };
        used > most
    });
    end.and_then(|(end, _)| text.get(..end)).unwrap_or(text)
}

/// As many claims as take at most so many bytes, whole ones, as JSON, and how
/// many are left out: the longest, unless every token has them.
pub(super) fn fewer(claims: &Map<String, Value>, most: usize) -> (String, usize) {
    // As a rule all of them, for which each counts with the comma or the brace beside it.
    if let Ok(all) = serde_json::to_string(claims)
        && all.len() + claims.len() <= most + 1
    {
        return (all, 0);
    }
    let (lessened, mut left_out) = less_provenance(claims, most / 2);
    let claims = lessened.as_ref().unwrap_or(claims);
    let member = |(name, value): (&String, &Value)| format!("{}:{value}", Value::from(name.as_str()));
    // With the braces that each would have for itself.
    let mut members: Vec<_> = claims.iter().map(|claim| (member(claim), claim.0)).collect();
    if members.iter().map(|(member, _)| member.len() + 2).sum::<usize>() > most {
        let mut left = most;
        // What locks take somebody by is not to be pushed out by what he says beside.
        let is_first =
            |name: &str| FIRST.contains(&name) || METHODS.iter().any(|method| method.tells_by(name));
        members.sort_by_key(|(member, name)| (!is_first(name), member.len()));
        members.retain(|(member, _)| left.checked_sub(member.len() + 2).map(|rest| left = rest).is_some());
        members.sort_by_key(|(_, name)| *name);
    }
    left_out += claims.len().saturating_sub(members.len());
    let members: Vec<String> = members.into_iter().map(|(member, _)| member).collect();
    (format!("{{{}}}", members.join(",")), left_out)
}

/// Of what another cluster vouches for, the claims by which the job joined that one, which locks go by: of these as many as
/// fit for themselves, so that nothing beside them pushes them out. None where the claims have no such part.
fn less_provenance(claims: &Map<String, Value>, most: usize) -> (Option<Map<String, Value>>, usize) {
    let provenance = claims.get("provenance").and_then(Value::as_object);
    let inner = provenance.and_then(|all| Some((all.len(), all.get("claims")?.as_object()?)));
    let Some((members, inner)) = inner else { return (None, 0) };
    let (kept, left_out) = fewer(inner, most);
    let kept: Value = serde_json::from_str(&kept).unwrap_or_default();
    let mut claims = claims.clone();
    claims.insert("provenance".to_owned(), json!({"claims": kept}));
    (Some(claims), left_out + members.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_lock_takes_somebody_by_stays() {
        let claims = json!({"repository": "octo-org/".to_owned() + &"x".repeat(200), "repository_id": "74", "run_id": "7"});
        let mut claims = claims.as_object().unwrap().clone();
        claims.extend((0..500).map(|nth| (format!("a{nth}"), json!("short"))));
        let (kept, left_out) = fewer(&claims, 1024);
        let kept: Map<String, Value> = serde_json::from_str(&kept).unwrap();
        assert!(
            left_out > 0
                && ["repository", "repository_id", "run_id"].iter().all(|name| kept.contains_key(*name))
        );
    }

    #[test]
    fn a_cut_counts_what_json_makes_of_it() {
        assert_eq!(cut("plain", 5), "plain");
        assert_eq!(cut("plain", 4), "plai");
        assert_eq!(cut("äöü", 5), "äö");
        for text in ["\u{1}\u{1}\u{1}\u{7f}", "\"\"\"\\\\", "a\n\t\"é\u{2028}x", ""] {
            for most in 0..30 {
                assert!(json!(cut(text, most)).to_string().len() <= most + 2, "{text:?} {most}");
            }
        }
    }

    #[test]
    fn the_longest_claims_go_and_those_of_every_token_last() {
        let claims = json!({
            "iss": "https://issuer", "sub": "s".repeat(300), "long": "x".repeat(400), "run": "7",
            "nested": {"a": ["b".repeat(100)]},
        });
        let claims = claims.as_object().unwrap();
        let names = |claims: &str| {
            let claims: Map<String, Value> = serde_json::from_str(claims).unwrap();
            claims.keys().map(String::as_str).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(fewer(claims, 8192), (json!(claims).to_string(), 0));
        let (kept, left_out) = fewer(claims, 500);
        assert_eq!((names(&kept), left_out), ("iss nested run sub".to_owned(), 1));
        let (kept, left_out) = fewer(claims, 100);
        assert_eq!((names(&kept), left_out), ("iss run".to_owned(), 3));
        for most in 0..1000 {
            assert!(fewer(claims, most).0.len() <= most.max(2), "{most}");
        }
    }
}
