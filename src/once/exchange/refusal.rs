//! What a person is told when there are no certificates: what happened, why,
//! and what to do about it.

use serde_json::{Map, Value};

use crate::clock::{LEEWAY, parse_rfc3339, rfc3339};
use crate::denial::Reason;
use crate::error::{Error, Kind};
use crate::net::{AuthorityTrust, Trouble};
use crate::text::{shown, shown_long};
use crate::wire::Problem;

/// Claims worth showing whatever the method, before its own; the rest only fills a log.
const TELLING: &[&str] = &["iss", "aud", "sub"];

/// The authority's answer when it is no `200`.
#[derive(Debug)]
pub struct Answer<'a> {
    /// The authority's URL.
    pub authority: &'a str,
    /// The status.
    pub status: u16,
    /// The body, where it is `application/problem+json`.
    pub problem: Option<&'a Problem>,
    /// The authority's clock by its `Date` header.
    pub date: Option<i64>,
    /// Our clock.
    pub now: i64,
    /// The audience that was asked for; none where the token was there already,
    /// by hand or by the platform.
    pub audience: Option<&'a str>,
    /// Whether the platform gave the job one token and no way to another.
    pub one_token: bool,
    /// The method's claims that are worth showing, the most telling first.
    pub telling: &'static [&'static str],
}

/// The error of an answer that is final.
#[must_use]
pub fn refused(answer: &Answer<'_>) -> Error {
    let Some(problem) = answer.problem else {
        return Error::new(
            Kind::Unreachable,
            format!("{} does not answer like an authority: status {}", answer.authority, answer.status),
        )
        .hint("--authority (MACHINE_ID_AUTHORITY) is the `public_url` of its authority.yaml, without a path")
        .hint("a proxy or load balancer in between may have answered in its place");
    };
    let mut error = Error::new(Kind::Refused, words(problem)).context("the authority refused");
    if is(problem, Reason::AudienceWrong) {
        error = audience(error, answer, problem);
    } else if answer.one_token && is(problem, Reason::TokenUsed) {
        error = error.hint("this job has one token for all its exchanges: ask for everything in one (several --output), or have the join token allow more with `max_uses`");
    } else if !problem.hint.is_empty() {
        error = error.hint(shown_long(&problem.hint));
    }
    error = clocks(error, answer, problem);
    if let Some(table) = problem.claims.as_ref().and_then(|claims| claims_table(claims, answer.telling)) {
        error = error.hint(table);
    }
    if let Some(id) = &problem.denial_id {
        let id = shown(id);
        error = error.hint(format!(
            "denial {id}: the authority's operator sees why with `machine-id authority explain {id}`"
        ));
    }
    error
}

/// The problem's title and detail, each once.
#[must_use]
pub fn words(problem: &Problem) -> String {
    let (title, detail) = (shown(&problem.title), shown_long(&problem.detail));
    match (title.is_empty(), detail.is_empty()) {
        (false, false) if title != detail => format!("{title}: {detail}"),
        (true, true) => format!("status {}", problem.status),
        (true, false) => detail,
        _ => title,
    }
}

fn is(problem: &Problem, reason: Reason) -> bool {
    let row = reason.row();
    problem.kind.ends_with(row.code)
        || [&problem.title, &problem.detail].into_iter().any(|text| text.starts_with(row.told))
}

fn audience(error: Error, answer: &Answer<'_>, problem: &Problem) -> Error {
    let claim = problem.claims.as_ref().and_then(|claims| claims.get("aud"));
    let chosen = claim.filter(|claim| answer.audience.is_some() && !is_for_an_authority(claim));
    if let Some(chosen) = chosen {
        // Ours was not asked for, or not listened to.
        return error
            .hint(format!(
                "this token has the audience {}, which the platform chose: have the platform mint one for the authority, {}",
                value_words(chosen),
                shown(answer.authority)
            ))
            .hint(WHERE_IT_CANNOT);
    }
    let has = claim.map(value_words).map_or_else(String::new, |aud| format!(", and this token has {aud}"));
    match answer.audience {
        Some(asked) => error.hint(format!(
            "the authority takes tokens for its own `public_url`, and {} was asked for{has}: spell --authority as in its authority.yaml",
            shown(asked)
        )),
        None => {
            let error = error.hint(format!(
                "the authority takes tokens for its own `public_url`, such as {}{has}: have the platform mint one for it",
                shown(answer.authority)
            ));
            if claim.is_some_and(|claim| !is_for_an_authority(claim)) { error.hint(WHERE_IT_CANNOT) } else { error }
        }
    }
}

/// For an audience that is no authority's.
const WHERE_IT_CANNOT: &str = "where the platform cannot, the join token may have `accept_default_audience: true` or an `audience`, if its method knows that";

/// Whether an audience is a URL, as that of an authority is. What platforms
/// choose by themselves is the name or number of an organisation.
fn is_for_an_authority(audience: &Value) -> bool {
    let texts: &[Value] = match audience {
        Value::Array(list) => list,
        one => std::slice::from_ref(one),
    };
    texts.iter().filter_map(Value::as_str).any(|text| text.starts_with("https://"))
}

/// Both clocks, where time may be what failed.
fn clocks(error: Error, answer: &Answer<'_>, problem: &Problem) -> Error {
    let of_time =
        [Reason::TokenExpired, Reason::TokenNotYetValid].into_iter().any(|reason| is(problem, reason));
    let theirs = problem.authority_time.as_deref().and_then(parse_rfc3339).or(answer.date);
    match theirs {
        Some(theirs)
            if of_time || problem.authority_time.is_some() || (theirs - answer.now).abs() > LEEWAY =>
        {
            error.hint(format!(
                "clocks: the authority's says {}, this machine's {}{}",
                rfc3339(theirs),
                rfc3339(answer.now),
                apart(theirs, answer.now)
            ))
        }
        _ => error,
    }
}

fn apart(theirs: i64, ours: i64) -> String {
    match theirs - ours {
        off if off.abs() <= LEEWAY => String::new(),
        off if off > 0 => format!(", {off} s behind"),
        off => format!(", {} s ahead", -off),
    }
}

/// A warning where certificates were issued but the clocks are apart.
#[must_use]
pub fn clock_warning(theirs: Option<i64>, ours: i64) -> Option<String> {
    let theirs = theirs.filter(|theirs| (theirs - ours).abs() > LEEWAY)?;
    Some(format!(
        "this machine's clock is off: it says {}, the authority's {}{}; certificates may seem expired or not valid yet",
        rfc3339(ours),
        rfc3339(theirs),
        apart(theirs, ours)
    ))
}

/// The job's own claims, one a line; nothing where none is worth showing.
/// The claims as read; where nobody knows which of them tell, as many as a person reads.
fn claims_table(claims: &Map<String, Value>, telling: &[&str]) -> Option<String> {
    const MOST: usize = 20;
    let known = TELLING.iter().chain(telling).filter_map(|name| claims.get_key_value(*name));
    let others = claims.iter().filter(|(name, _)| telling.is_empty() && !TELLING.contains(&name.as_str()));
    let line = |(name, value): (&String, &Value)| format!("\n  {}: {}", shown(name), value_words(value));
    let lines: String = known.chain(others).take(MOST + TELLING.len()).map(line).collect();
    (!lines.is_empty()).then(|| format!("the token says:{lines}"))
}

fn value_words(value: &Value) -> String {
    match value {
        Value::String(text) => shown(text),
        other => shown(&other.to_string()),
    }
}

/// The error of a request without an answer.
#[must_use]
pub fn unreachable(authority: &str, trouble: &Trouble, trust: &AuthorityTrust, now: i64) -> Error {
    let cannot = format!("cannot reach the authority {authority}");
    let error = |why: String| Error::new(Kind::Unreachable, why).context(cannot.clone());
    match trouble {
        Trouble::Untrusted(why) => untrusted(error(format!("its certificate is not trusted: {}", shown(why))), why, trust, now),
        Trouble::Timeout => error("it did not answer in time".to_owned())
            .hint("check --authority, and that this job's network lets it through (HTTPS_PROXY, NO_PROXY); --timeout waits longer"),
        Trouble::Connect(why) => error(shown(why))
            .hint("check --authority, and that this job's network lets it through (HTTPS_PROXY, NO_PROXY)"),
        Trouble::Other(why) => error(shown(why)).hint("check that --authority is an authority, and see its log"),
    }
}

fn untrusted(error: Error, why: &str, trust: &AuthorityTrust, now: i64) -> Error {
    if why.contains("another name") {
        return error.hint("spell --authority as in the `public_url` of its authority.yaml");
    }
    if why.contains("expired") || why.contains("not valid yet") {
        return error.hint(format!(
            "this machine's clock says {}: check it, or have the authority's certificate renewed",
            rfc3339(now)
        ));
    }
    match (&trust.ca_file, &trust.ca_pin) {
        (Some(file), _) => error.hint(format!(
            "{} does not hold its CA: replace it with the output of `machine-id authority export tls-ca`",
            file.display()
        )),
        (_, Some(_)) => error.hint("no CA with that pin signed it: `machine-id authority export tls-ca-pin` prints the right one"),
        _ => error
            .hint("an authority with its own certificate: give --ca-file with the output of `machine-id authority export tls-ca`")
            .hint("or --ca-pin with that of `machine-id authority export tls-ca-pin`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn problem(extra: Value) -> Problem {
        let mut value = json!({"type": "urn:machine-id:no_rule_matches", "title": "refused", "status": 403,
            "detail": "no rule of this authority lets this job in"});
        value.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        serde_json::from_value(value).unwrap()
    }

    fn answer(problem: Option<&Problem>) -> Answer<'_> {
        Answer {
            authority: "https://a",
            status: 403,
            problem,
            date: Some(1000),
            now: 1000,
            audience: Some("https://a#x"),
            one_token: false,
            telling: &["repository", "ref"],
        }
    }

    #[test]
    fn a_refusal_shows_the_jobs_claims_and_the_denial() {
        let problem = problem(
            json!({"denial_id": "d-1", "claims": {"repository": "o/app\n::error::x", "x": 1, "ref": "r"}}),
        );
        let error = refused(&answer(Some(&problem)));
        assert_eq!(error.kind(), Kind::Refused);
        assert_eq!(
            error.to_string(),
            "the authority refused: refused: no rule of this authority lets this job in"
        );
        let hints = error.hints().join("\n");
        assert!(
            hints.starts_with("the token says:\n  repository: o/app\\u{a}::error::x\n  ref: r\ndenial d-1"),
            "{hints}"
        );
        assert!(hints.contains("authority explain d-1") && !hints.contains("clocks"), "{hints}");
    }

    #[test]
    fn a_wrong_audience_says_both() {
        let problem =
            problem(json!({"type": "urn:machine-id:audience_wrong", "claims": {"aud": "https://b"}}));
        let hints = refused(&answer(Some(&problem))).hints().join("\n");
        assert!(hints.contains("https://a#x was asked for, and this token has https://b"), "{hints}");
        let by_hand = Answer { audience: None, ..answer(Some(&problem)) };
        assert!(refused(&by_hand).hints()[0].contains("such as https://a, and this token has https://b"));
    }

    #[test]
    fn an_audience_of_the_platforms_choice_is_not_said_to_be_ours() {
        for aud in [json!("3f1c2a54-7f0f"), json!(["3f1c2a54-7f0f"])] {
            let problem = problem(json!({"type": "urn:machine-id:audience_wrong", "claims": {"aud": aud}}));
            let hints = refused(&answer(Some(&problem))).hints().join("\n");
            assert!(hints.contains("3f1c2a54-7f0f") && hints.contains("which the platform chose"), "{hints}");
            assert!(hints.contains("accept_default_audience") && !hints.contains("was asked for"), "{hints}");
        }
    }

    #[test]
    fn a_job_with_one_token_is_told_what_to_do_with_it() {
        let used = problem(
            json!({"type": "urn:machine-id:token-used", "hint": "get a fresh token", "detail": "the token has been used before"}),
        );
        let hints = |one_token| refused(&Answer { one_token, ..answer(Some(&used)) }).hints().join("\n");
        assert!(hints(true).contains("`max_uses`") && !hints(true).contains("fresh"), "{}", hints(true));
        assert!(hints(false).contains("fresh") && !hints(false).contains("max_uses"));
    }

    #[test]
    fn clocks_that_are_off_are_shown() {
        let late = problem(
            json!({"type": "urn:machine-id:token_expired", "authority_time": "1970-01-01T01:00:00Z"}),
        );
        let hints = refused(&answer(Some(&late))).hints().join("\n");
        assert!(
            hints.contains("1970-01-01T01:00:00Z, this machine's 1970-01-01T00:16:40Z, 2600 s behind"),
            "{hints}"
        );
        assert!(clock_warning(Some(1030), 1000).is_none() && clock_warning(None, 1000).is_none());
        assert!(clock_warning(Some(900), 1000).unwrap().contains("100 s ahead"));
    }

    #[test]
    fn something_else_that_answers_is_not_an_authority() {
        let error = refused(&answer(None));
        assert_eq!(error.kind(), Kind::Unreachable);
        assert!(error.to_string().contains("does not answer like an authority: status 403"));
    }

    #[test]
    fn an_untrusted_certificate_says_how_to_trust_it() {
        let trust = AuthorityTrust::default();
        let error = unreachable(
            "https://a",
            &Trouble::Untrusted("it is signed by an unknown authority".into()),
            &trust,
            0,
        );
        assert_eq!(error.kind(), Kind::Unreachable);
        let hints = error.hints().join("\n");
        assert!(
            hints.contains("--ca-file") && hints.contains("--ca-pin") && hints.contains("authority export"),
            "{hints}"
        );
    }
}
