//! Claims that every token has (RFC 7519, section 4.1), judged in one place:
//! when it is good, and for whom.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::clock::{Held, LEEWAY, rfc3339};
use crate::denial::{Denial, Reason};
use crate::text::shown_exactly;
use crate::wire::bound_audience;

/// The longest `jti` that is taken, in bytes.
pub const MAX_JTI: usize = 256;

/// A claim that is text; empty where it is missing or something else.
pub fn text<'c>(claims: &'c Map<String, Value>, name: &str) -> &'c str {
    claims.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// A claim that must be text.
pub fn need_text<'c>(claims: &'c Map<String, Value>, name: &str) -> Result<&'c str, Denial> {
    match claims.get(name) {
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(Denial::new(Reason::ClaimInvalid, format!("{name} is not text"))),
        None => Err(Denial::new(Reason::ClaimInvalid, format!("{name} is missing"))),
    }
}

/// A claim that must be a whole number.
pub fn need_number(claims: &Map<String, Value>, name: &str) -> Result<i64, Denial> {
    let wrong = || Denial::new(Reason::ClaimInvalid, format!("{name} is missing or not a whole number"));
    claims.get(name).and_then(Value::as_i64).ok_or_else(wrong)
}

/// Every one of `names` must be text that is not empty.
pub fn require_texts(claims: &Map<String, Value>, names: &[&str]) -> Result<(), String> {
    match names.iter().find(|name| text(claims, name).is_empty()) {
        Some(name) => Err(format!("{name} is missing or not text")),
        None => Ok(()),
    }
}

/// What is asked of a token's times. `exp` and `iat` must be there.
#[derive(Debug)]
pub struct TimeRules {
    /// How long it may live, from `iat` to `exp`, in seconds.
    pub lifetime: RangeInclusive<i64>,
    /// Whether `nbf` is heeded, where it is there.
    pub not_before: bool,
}

/// The one check of a token's times. How long it must be remembered where it may be used once.
pub fn check_times(claims: &Map<String, Value>, rules: &TimeRules, now: i64) -> Result<Held, Denial> {
    let (expires, issued) = (need_time(claims, "exp")?, need_time(claims, "iat")?);
    let until = check_end(expires, ("it expired at", expires), now)?;
    check_start(("it was issued at", issued), now)?;
    if rules.not_before && claims.contains_key("nbf") {
        check_start(("it is valid from", need_time(claims, "nbf")?), now)?;
    }
    // Both ends of an i64 can be claimed.
    let lifetime = expires.saturating_sub(issued);
    if !rules.lifetime.contains(&lifetime) {
        let detail = format!("lives {lifetime} s, at most {} s are accepted", rules.lifetime.end());
        return Err(Denial::new(Reason::LifetimeTooLong, detail));
    }
    Ok(Held { until, lasts: lifetime.saturating_add(2 * LEEWAY) })
}

/// A `NumericDate`, which may have a fraction (RFC 7519, section 2): the second in which it is.
pub fn time(claims: &Map<String, Value>, name: &str) -> Option<i64> {
    let time = claims.get(name)?;
    time.as_i64().or_else(|| Duration::try_from_secs_f64(time.as_f64()?).ok()?.as_secs().try_into().ok())
}

fn need_time(claims: &Map<String, Value>, name: &str) -> Result<i64, Denial> {
    let wrong = || format!("{name} is missing or not a number of seconds since 1970");
    time(claims, name).ok_or_else(|| Denial::open(Reason::ClaimInvalid, wrong()))
}

/// Holds a proof to its end, where clocks may differ by [`LEEWAY`]; `named` is
/// the time that is told, and what it is. Until when it is good.
pub fn check_end(end: i64, named: (&str, i64), now: i64) -> Result<i64, Denial> {
    let good_until = end.saturating_add(LEEWAY);
    if good_until <= now { Err(untimely(Reason::TokenExpired, named, now)) } else { Ok(good_until) }
}

/// Holds a proof to its beginning, where clocks may differ by [`LEEWAY`].
pub fn check_start(named: (&str, i64), now: i64) -> Result<(), Denial> {
    let has_come = named.1 <= now.saturating_add(LEEWAY);
    if has_come { Ok(()) } else { Err(untimely(Reason::TokenNotYetValid, named, now)) }
}

fn untimely(reason: Reason, (what, time): (&str, i64), now: i64) -> Denial {
    let told = format!("{what} {}, the authority's clock says {}", rfc3339(time), rfc3339(now));
    Denial::open(reason, told)
}

/// What an audience must be.
#[derive(Debug)]
pub struct AudienceRules<'a> {
    /// The audience that is ours.
    pub ours: &'a str,
    /// Whether that may be told to those who have another.
    pub is_public: bool,
    /// One that is accepted beside it.
    pub beside: Option<&'a str>,
    /// The hash over the request's keys, which may stand behind a `#`.
    pub binding: Option<&'a str>,
    /// Whether it must.
    pub requires_binding: bool,
}

impl<'a> AudienceRules<'a> {
    /// For proofs that a job makes itself, each bound to the request's keys.
    pub fn bound(ours: &'a str, binding: &'a str) -> Self {
        Self { ours, is_public: true, beside: None, binding: Some(binding), requires_binding: true }
    }
}

/// The audience of a token: one, since a list could hold somebody else's
/// beside ours. A list of one says the same as that one (RFC 7519, section 4.1.3).
pub fn audience(claims: &Map<String, Value>) -> Result<&str, Denial> {
    match claims.get("aud") {
        Some(Value::Array(list)) => match list.as_slice() {
            [Value::String(audience)] => Ok(audience),
            list => {
                let said =
                    format!("aud is a list of {}, and a token must be for one audience alone", list.len());
                Err(Denial::open(Reason::AudienceWrong, said))
            }
        },
        _ => need_text(claims, "aud").map_err(|denial| Denial { reason: Reason::AudienceWrong, ..denial }),
    }
}

/// The one check of an audience: whether it is bound to the request's keys.
pub fn check_audience(audience: &str, rules: &AudienceRules<'_>) -> Result<bool, Denial> {
    let ours = rules.ours;
    if rules.binding.is_some_and(|binding| audience == bound_audience(ours, binding)) {
        return Ok(true);
    }
    if audience == ours || rules.beside == Some(audience) {
        let unbound = || Denial::new(Reason::BindingRequired, "not bound to the request's keys");
        return if rules.requires_binding { Err(unbound()) } else { Ok(false) };
    }
    if audience.strip_prefix(ours).is_some_and(|rest| rest.starts_with('#')) {
        return Err(Denial::new(Reason::BindingWrong, "the audience carries the hash of other keys"));
    }
    let detail = format!("audience is {}, expected {ours}", shown_exactly(audience));
    let denial = Denial::new(Reason::AudienceWrong, detail);
    Err(if rules.is_public { denial.tell(format!("the audience must be {ours}")) } else { denial })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NOW: i64 = 1_000_000;
    const RULES: TimeRules = TimeRules { lifetime: 0..=100, not_before: true };

    #[test]
    fn times_have_two_ends_and_a_length() {
        let of = |claims: Value| {
            let checked = check_times(claims.as_object().unwrap(), &RULES, NOW);
            checked.map(|held| held.until).map_err(|denial| denial.reason)
        };
        let at = |iat: i64, exp: i64| json!({"iat": iat, "exp": exp});
        assert_eq!(of(at(NOW, NOW + 100)), Ok(NOW + 100 + LEEWAY));
        let held = check_times(at(NOW - 10, NOW + 70).as_object().unwrap(), &RULES, NOW).unwrap();
        assert_eq!(held, Held { until: NOW + 70 + LEEWAY, lasts: 80 + 2 * LEEWAY });
        assert_eq!(held.made(), NOW - 10);
        assert_eq!(of(at(NOW + LEEWAY, NOW + LEEWAY)), Ok(NOW + 2 * LEEWAY));
        assert_eq!(of(at(NOW - LEEWAY, NOW - LEEWAY + 1)), Ok(NOW + 1));
        for (claims, reason) in [
            (at(NOW - LEEWAY, NOW - LEEWAY), Reason::TokenExpired),
            (at(NOW + LEEWAY + 1, NOW + LEEWAY + 1), Reason::TokenNotYetValid),
            (at(NOW, NOW + 101), Reason::LifetimeTooLong),
            (at(NOW, NOW - 1), Reason::LifetimeTooLong),
            (at(i64::MIN, i64::MAX), Reason::LifetimeTooLong),
            (json!({"iat": NOW}), Reason::ClaimInvalid),
            (json!({"exp": NOW}), Reason::ClaimInvalid),
            (json!({"iat": NOW, "exp": 999_940.9}), Reason::TokenExpired),
            (json!({"iat": NOW, "exp": -0.5}), Reason::ClaimInvalid),
            (json!({"iat": NOW, "exp": 1e300}), Reason::ClaimInvalid),
            (json!({"iat": NOW, "exp": u64::MAX}), Reason::ClaimInvalid),
            (json!({"iat": NOW, "exp": NOW, "nbf": NOW + LEEWAY + 1}), Reason::TokenNotYetValid),
            (json!({"iat": NOW, "exp": NOW, "nbf": "now"}), Reason::ClaimInvalid),
        ] {
            assert_eq!(of(claims.clone()), Err(reason), "{claims}");
        }
        // RFC 7519, section 2: a time may have a fraction, and is in its second.
        let fractions = json!({"iat": 999_999.75, "nbf": 999_999.000_001, "exp": 1_000_050.5});
        assert_eq!(of(fractions), Ok(NOW + 50 + LEEWAY));
        assert_eq!(of(json!({"iat": 1e6, "exp": 1_000_000.0})), Ok(NOW + LEEWAY));
        let without = TimeRules { not_before: false, ..RULES };
        let later = json!({"iat": NOW, "exp": NOW, "nbf": NOW + 1000});
        assert!(check_times(later.as_object().unwrap(), &without, NOW).is_ok());
    }

    #[test]
    fn audiences_are_compared_whole() {
        let rules = |binding, requires_binding| AudienceRules {
            ours: "https://a",
            is_public: true,
            beside: Some("b"),
            binding,
            requires_binding,
        };
        let check = |text: &str, rules: AudienceRules<'_>| {
            check_audience(text, &rules).map_err(|denial| denial.reason)
        };
        for (text, reason) in [
            ("https://a#other", Reason::BindingWrong),
            ("https://a#", Reason::BindingWrong),
            ("https://a/", Reason::AudienceWrong),
            ("https://ab", Reason::AudienceWrong),
            ("b#hash", Reason::AudienceWrong),
            ("", Reason::AudienceWrong),
        ] {
            assert_eq!(check(text, rules(Some("hash"), false)), Err(reason), "{text}");
            assert_eq!(check(text, rules(Some("hash"), true)), Err(reason), "{text}");
            assert_eq!(check(text, rules(None, false)), Err(reason), "{text}");
        }
        for unbound in ["https://a", "b"] {
            assert_eq!(check(unbound, rules(Some("hash"), false)), Ok(false));
            assert_eq!(check(unbound, rules(Some("hash"), true)), Err(Reason::BindingRequired));
        }
        assert_eq!(check("https://a#hash", rules(Some("hash"), true)), Ok(true));
        assert_eq!(check("https://a#hash", rules(None, false)), Err(Reason::BindingWrong));
    }

    #[test]
    fn a_list_is_an_audience_where_it_is_one() {
        for (aud, is_one) in [
            (json!("a"), true),
            (json!(["a"]), true),
            (json!(["a", "b"]), false),
            (json!(["a", "a"]), false),
            (json!([["a"]]), false),
            (json!([]), false),
            (json!([7]), false),
            (json!(null), false),
        ] {
            let claims = json!({"aud": aud});
            let found = audience(claims.as_object().unwrap()).map_err(|denial| denial.reason);
            assert_eq!(found, if is_one { Ok("a") } else { Err(Reason::AudienceWrong) }, "{aud}");
        }
        let two = json!({"aud": ["a", "b"]});
        let told = audience(two.as_object().unwrap()).unwrap_err().told;
        assert_eq!(told.as_deref(), Some("aud is a list of 2, and a token must be for one audience alone"));
    }
}
