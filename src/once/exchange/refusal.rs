//! What a person is told when there are no certificates: what happened, why,
//! and what to do about it.

use serde_json::{Map, Value};

use crate::clock::{LEEWAY, parse_rfc3339, rfc3339};
use crate::denial::Reason;
use crate::error::{Error, Kind};
use crate::join::method::Method;
use crate::text::{shown, shown_exactly, shown_long};
use crate::wire::Problem;

/// Claims worth showing whatever the method, before its own; the rest only fills a log.
const TELLING: &[&str] = &["iss", "aud", "sub"];

/// The authority's answer when it is no `200`, and what is known of the request.
pub(super) struct Refusal<'a> {
    pub authority: &'a str,
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
    /// The method, which knows the claims that are worth showing and the forms of a subject; none where the proof is
    /// another authority's word.
    pub method: Option<&'static Method>,
}

impl Refusal<'_> {
    /// The error of an answer that may be another soon.
    pub(super) fn trouble(&self) -> Error {
        let said = self.problem.map_or_else(String::new, |problem| format!(": {}", words(problem)));
        let cause = format!("the authority {} answers with status {}{said}", self.authority, self.status);
        Error::new(Kind::Unreachable, cause)
            .hint("it may be busy or in trouble: see its log and GET /readyz, or run the job again")
    }

    /// The error of an answer that is final.
    pub(super) fn error(&self) -> Error {
        let Some(problem) = self.problem else {
            return Error::new(
                Kind::Unreachable,
                format!("{} does not answer like an authority: status {}", self.authority, self.status),
            )
            .hint(if self.method.is_some() {
                "--authority (MACHINE_ID_AUTHORITY) is the `public_url` of its authority.yaml, without a path"
            } else {
                "the authority's policy has the leaf's `public_url` as the `url` of its `leaf_cluster`"
            })
            .hint("a proxy or load balancer in between may have answered in its place");
        };
        let reason = Reason::of_problem(problem);
        let hints = match reason {
            Some(Reason::AudienceWrong) if self.method.is_some() => self.audience_hints(problem),
            Some(Reason::TokenUsed) if self.one_token => vec!["this job has one token for all its exchanges: ask for everything in one (several --output), or have the join token allow more with `max_uses`".to_owned()],
            _ if problem.hint.is_empty() => Vec::new(),
            _ => vec![shown_long(&problem.hint)],
        };
        let table = problem
            .claims
            .as_ref()
            .and_then(|claims| claims_table(claims, self.method.map_or(&[], |method| method.telling)));
        let denial = problem.denial_id.as_deref().map(shown).map(|id| {
            format!("denial {id}: the authority's operator sees why with `machine-id authority explain {id}`")
        });
        let form = self.form(problem, reason);
        let clocks = self.clocks(problem, reason.is_some_and(Reason::is_of_time));
        let error = Error::new(Kind::Refused, words(problem)).context("the authority refused");
        hints.into_iter().chain(clocks).chain(table).chain(form).chain(denial).fold(error, Error::hint)
    }

    fn audience_hints(&self, problem: &Problem) -> Vec<String> {
        let authority = shown(self.authority);
        let claim = problem.claims.as_ref().and_then(|claims| claims.get("aud"));
        let has = claim.map(value_words);
        let and_has = has.as_ref().map_or_else(String::new, |aud| format!(", and this token has {aud}"));
        // Not an authority's: ours was not asked for, or not listened to.
        let chosen = has.filter(|_| claim.is_some_and(|claim| !is_for_an_authority(claim, self.authority)));
        let hint = match (self.audience, &chosen) {
            (Some(_), Some(chosen)) => format!(
                "this token has the audience {chosen}, which the platform chose: have the platform mint one for the authority, {authority}"
            ),
            (Some(asked), None) => format!(
                "the authority takes tokens for its own `public_url`, and {} was asked for{and_has}: spell --authority as in its authority.yaml",
                shown(asked)
            ),
            (None, _) => format!(
                "the authority takes tokens for its own `public_url`, such as {authority}{and_has}: have the platform mint one for it{}",
                if claim.and_then(Value::as_array).is_some_and(|list| list.len() > 1) {
                    " alone"
                } else {
                    ""
                }
            ),
        };
        [hint].into_iter().chain(chosen.map(|_| WHERE_IT_CANNOT.to_owned())).collect()
    }

    /// Which of the platform's forms the job's own subject has, where rules let it in nowhere. Whether one of them
    /// is about the subject, nobody is told.
    fn form(&self, problem: &Problem, reason: Option<Reason>) -> Option<String> {
        let subject = problem.claims.as_ref().filter(|_| reason.is_none())?.get("sub")?.as_str()?;
        (self.method?.subject)(subject)
    }

    /// Both clocks, where time may be what failed.
    fn clocks(&self, problem: &Problem, of_time: bool) -> Option<String> {
        let told = problem.authority_time.as_deref();
        let theirs = told.and_then(parse_rfc3339).or(self.date)?;
        (of_time || told.is_some() || (theirs - self.now).abs() > LEEWAY).then(|| {
            format!(
                "clocks: the authority's says {}, this machine's {}{}",
                rfc3339(theirs),
                rfc3339(self.now),
                apart(theirs, self.now)
            )
        })
    }
}

/// The problem's title and detail, each once.
pub(crate) fn words(problem: &Problem) -> String {
    let (title, detail) = (shown(&problem.title), shown_long(&problem.detail));
    match (title.is_empty(), detail.is_empty()) {
        (false, false) if title != detail => format!("{title}: {detail}"),
        (true, true) => format!("status {}", problem.status),
        (true, false) => detail,
        _ => title,
    }
}

/// For an audience that is no authority's.
const WHERE_IT_CANNOT: &str = "where the platform cannot, the join token may have `accept_default_audience: true` or an `audience`, if its method knows that";

/// Whether an audience is a URL, as that of an authority is, or was to become one: it has the authority's host, or a
/// variable that nobody put a value for. What platforms choose by themselves is the name or number of an organisation.
fn is_for_an_authority(audience: &Value, authority: &str) -> bool {
    let host = authority.trim_start_matches("https://");

    let texts: &[Value] = match audience {
        Value::Array(list) => list,
        one => std::slice::from_ref(one),
    };
    let is_url = |text: &str| {
        text.starts_with("https://")
            || text.trim_start_matches("http://").starts_with(host)
            || text.contains('$')
    };
    texts.iter().filter_map(Value::as_str).any(is_url)
}

fn apart(theirs: i64, ours: i64) -> String {
    match theirs - ours {
        off if off.abs() <= LEEWAY => String::new(),
        off if off > 0 => format!(", {off} s behind"),
        off => format!(", {} s ahead", -off),
    }
}

/// A warning where certificates were issued but the clocks are apart.
pub(super) fn clock_warning(theirs: Option<i64>, ours: i64) -> Option<String> {
    let theirs = theirs.filter(|theirs| (theirs - ours).abs() > LEEWAY)?;
    Some(format!(
        "this machine's clock is off: it says {}, the authority's {}{}; certificates may seem expired or not valid yet",
        rfc3339(ours),
        rfc3339(theirs),
        apart(theirs, ours)
    ))
}

/// The job's own claims, one a line, if any is worth showing; where nobody
/// knows which of them tell, as many as a person reads.
fn claims_table(claims: &Map<String, Value>, telling: &[&str]) -> Option<String> {
    const MOST: usize = 20;
    let known = TELLING.iter().chain(telling).filter_map(|name| claims.get_key_value(*name));
    let others = claims.iter().filter(|(name, _)| telling.is_empty() && !TELLING.contains(&name.as_str()));
    let line =
        |(name, value): (&String, &Value)| format!("\n  {}: {}", shown_exactly(name), value_words(value));
    let lines: String = known.chain(others).take(MOST + TELLING.len()).map(line).collect();
    (!lines.is_empty()).then(|| format!("the token says:{lines}"))
}

fn value_words(value: &Value) -> String {
    match value {
        Value::String(text) => shown_exactly(text),
        other => shown_exactly(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::denial::Denial;
    use serde_json::json;

    /// What an authority sends that read these claims, at 1970-01-01T01:00:00Z by its clock.
    fn problem(reason: Reason, claims: Value) -> Problem {
        let claims = claims.as_object().unwrap();
        let sent = Denial::new(reason, "x").with_claims(claims, true).problem("d-1".into(), 3600);
        serde_json::from_slice(&serde_json::to_vec(&sent).unwrap()).unwrap()
    }

    fn answer(problem: Option<&Problem>) -> Refusal<'_> {
        Refusal {
            authority: "https://a",
            status: 403,
            problem,
            date: Some(1000),
            now: 1000,
            audience: Some("https://a#x"),
            one_token: false,
            method: crate::join::find("github"),
        }
    }

    fn hints(answer: &Refusal<'_>) -> String {
        answer.error().hints().join("\n")
    }

    #[test]
    fn a_refusal_shows_the_jobs_claims_and_the_denial() {
        let claims = json!({"repository": "o/app\n::error::x", "x": 1, "ref": "r"});
        let problem = problem(Reason::NoRuleMatches, claims);
        let error = answer(Some(&problem)).error();
        assert_eq!(error.kind(), Kind::Refused);
        assert_eq!(error.to_string(), "the authority refused: no rule of this authority lets this job in");
        let hints = error.hints()[1..].join("\n");
        assert!(
            hints.starts_with("the token says:\n  repository: o/app\\u{a}::error::x\n  ref: r\ndenial d-1"),
            "{hints}"
        );
        assert!(hints.contains("authority explain d-1") && !hints.contains("clocks"), "{hints}");
    }

    #[test]
    fn a_job_that_no_rule_lets_in_is_told_which_form_its_subject_has() {
        let sub = json!({"sub": "repo:o/r:environment:prod\u{43e}"});
        let said = hints(&answer(Some(&problem(Reason::NoRuleMatches, sub.clone()))));
        assert!(said.contains("  sub: repo:o/r:environment:prod\\u{43e}\n"), "{said}");
        assert!(
            said.contains(
                "\nthis job's `sub` has GitHub's form for a job with an environment, which says no ref"
            ),
            "{said}"
        );
        // Whatever keeps it out, and where that is another thing, not.
        let unknown = hints(&answer(Some(&problem(Reason::TokenUnknown, sub.clone()))));
        assert_eq!(unknown, said);
        assert!(!hints(&answer(Some(&problem(Reason::TokenUsed, sub)))).contains("GitHub's form"));
    }

    #[test]
    fn a_wrong_audience_says_both() {
        let problem = problem(Reason::AudienceWrong, json!({"aud": "https://b"}));
        let said = hints(&answer(Some(&problem)));
        assert!(said.contains("https://a#x was asked for, and this token has https://b"), "{said}");
        let by_hand = Refusal { audience: None, ..answer(Some(&problem)) };
        assert!(by_hand.error().hints()[0].contains("such as https://a, and this token has https://b"));
    }

    #[test]
    fn an_audience_of_the_platforms_choice_is_not_said_to_be_ours() {
        for aud in [json!("3f1c2a54-7f0f"), json!(["3f1c2a54-7f0f"])] {
            let problem = problem(Reason::AudienceWrong, json!({"aud": aud}));
            let hints = hints(&answer(Some(&problem)));
            assert!(hints.contains("3f1c2a54-7f0f") && hints.contains("which the platform chose"), "{hints}");
            assert!(hints.contains("accept_default_audience") && !hints.contains("was asked for"), "{hints}");
        }
    }

    #[test]
    fn a_job_with_one_token_is_told_what_to_do_with_it() {
        let used = problem(Reason::TokenUsed, json!({}));
        let hints = |one_token| hints(&Refusal { one_token, ..answer(Some(&used)) });
        assert!(hints(true).contains("`max_uses`") && !hints(true).contains("fresh"), "{}", hints(true));
        assert!(hints(false).contains("fresh") && !hints(false).contains("max_uses"));
    }

    #[test]
    fn the_type_says_which_refusal_it_is_and_the_words_do_not() {
        let aud = json!({"aud": "https://b"});
        let wrong =
            Problem { title: "falsches Publikum".into(), ..problem(Reason::AudienceWrong, aud.clone()) };
        assert!(hints(&answer(Some(&wrong))).contains("https://a#x was asked for"));
        let told = Reason::AudienceWrong.row().told.to_owned();
        let other = Problem { title: told.clone(), detail: told, ..problem(Reason::ClaimInvalid, aud) };
        assert!(!hints(&answer(Some(&other))).contains("was asked for"));
    }

    #[test]
    fn clocks_that_are_off_are_shown() {
        for reason in [Reason::TokenExpired, Reason::TokenNotYetValid] {
            let mut late = problem(reason, json!({}));
            let said = hints(&answer(Some(&late)));
            assert!(
                said.contains("1970-01-01T01:00:00Z, this machine's 1970-01-01T00:16:40Z, 2600 s behind"),
                "{said}"
            );
            late.authority_time = None;
            assert!(
                hints(&answer(Some(&late))).contains("clocks: the authority's says 1970-01-01T00:16:40Z")
            );
        }
        assert!(clock_warning(Some(1030), 1000).is_none() && clock_warning(None, 1000).is_none());
        assert!(clock_warning(Some(900), 1000).unwrap().contains("100 s ahead"));
    }

    #[test]
    fn something_else_that_answers_is_not_an_authority() {
        let error = answer(None).error();
        assert_eq!(error.kind(), Kind::Unreachable);
        assert!(error.to_string().contains("does not answer like an authority: status 403"));
    }
}
