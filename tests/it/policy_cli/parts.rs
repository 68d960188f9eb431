//! Claims that platforms put together from parts: no name that somebody may
//! choose for one part passes for another part.

use machine_id::authority::policy::{Policy, Source};
use machine_id::join::METHODS;
use machine_id::join::rules::Match;
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Map, Value};

use super::platforms::with_section;

mod composites;

use composites::Chosen::{self, Branch, Escaped, File, Name, Set};
use composites::{COMPOSITES, Composite, Form, SERVER};

/// Parts with what stands in front of each.
type Parts = Vec<(&'static str, String)>;

fn joined(parts: &[(&'static str, String)]) -> String {
    parts.iter().map(|(before, text)| format!("{before}{text}")).collect()
}

fn has_wildcard(text: &str) -> bool {
    text.contains(['*', '?'])
}

/// The plainest definition of a pattern over one part.
fn model_glob(pattern: &[char], text: &[char]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some(('*', rest)), _) => {
            model_glob(rest, text) || text.split_first().is_some_and(|(_, text)| model_glob(pattern, text))
        }
        (Some(('?', rest)), Some((_, text))) => model_glob(rest, text),
        (Some((wanted, rest)), Some((found, text))) if wanted == found => model_glob(rest, text),
        _ => false,
    }
}

fn fits(pattern: &str, text: &str) -> bool {
    let chars = |text: &str| text.chars().collect::<Vec<_>>();
    model_glob(&chars(pattern), &chars(text))
}

/// Whether a job with these parts is one that the rule means: each part fits its own;
/// behind the rule's last part anything may follow where it is open.
fn is_meant(rule: &Parts, open: bool, job: &Parts) -> bool {
    let mut parts = rule.iter().enumerate();
    (open || rule.len() == job.len())
        && parts.all(|(index, (before, wanted))| {
            let is_last = open && index + 1 == rule.len();
            job.get(index).is_some_and(|(job_before, text)| match is_last {
                true if wanted.is_empty() => job_before.starts_with(before),
                true => before == job_before && fits(&format!("{wanted}*"), text),
                false => before == job_before && fits(wanted, text),
            })
        })
}

/// What `git check-ref-format` takes.
fn is_ref(text: &str) -> bool {
    let parts_are_good = |text: &str| {
        text.split('/').all(|part| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock"))
    };
    let bad = |c: char| c.is_control() || " ~^:?*[\\".contains(c);
    !text.contains(bad)
        && !text.contains("..")
        && !text.contains("@{")
        && !text.ends_with('.')
        && parts_are_good(text)
}

impl Chosen {
    fn takes(self, text: &str) -> bool {
        match self {
            Set => false,
            Branch => is_ref(text),
            Name => !text.is_empty() && !has_wildcard(text),
            Escaped => !text.is_empty() && !has_wildcard(text) && !text.contains([':', '/']),
            File => !text.is_empty() && !has_wildcard(text) && !text.contains('/'),
        }
    }
}

/// The rule's policy, where it loads.
fn policy(of: &Composite, pattern: &str) -> Option<Policy> {
    let pattern = serde_json::to_string(pattern).unwrap();
    let rule = match of.field {
        "claims" => format!("{{claims: {{{}: {pattern}}}}}", of.claim),
        field => format!("{{{}{field}: {pattern}}}", of.beside),
    };
    let text = with_section(of.method, &format!("{}allow: [{rule}]", of.section));
    Policy::parse(&[Source { name: "p".to_owned(), text }]).ok()
}

/// Whether the condition on the claim holds.
fn admits(of: &Composite, policy: &Policy, claim: &str) -> bool {
    let claims = Map::from_iter([(of.claim.to_owned(), Value::from(claim))]);
    let trials = Policy::trial(policy.token("t").unwrap(), &claims);
    let named = if of.field == "claims" { of.claim } else { of.field };
    trials[0].trials.iter().find(|trial| trial.field == named).unwrap().met
}

fn base(form: Form) -> Parts {
    form.iter().map(|(before, text, _)| (*before, (*text).to_owned())).collect()
}

/// How a rule's part is made of the honest one.
#[derive(Clone, Debug)]
enum Mask {
    Same,
    All,
    Begins(Index),
    Ends(Index),
    OneLetter(Index),
}

fn mask() -> impl Strategy<Value = Mask> {
    prop_oneof![
        8 => Just(Mask::Same),
        2 => Just(Mask::All),
        1 => any::<Index>().prop_map(Mask::Begins),
        1 => any::<Index>().prop_map(Mask::Ends),
        1 => any::<Index>().prop_map(Mask::OneLetter),
    ]
}

fn masked(text: &str, mask: &Mask) -> String {
    if text.is_empty() {
        return String::new();
    }
    match mask {
        Mask::Same => text.to_owned(),
        Mask::All => "*".to_owned(),
        Mask::Begins(at) => format!("{}*", &text[..at.index(text.len())]),
        Mask::Ends(at) => format!("*{}", &text[at.index(text.len())..]),
        Mask::OneLetter(at) => {
            let at = at.index(text.len());
            format!("{}?{}", &text[..at], &text[at + 1..])
        }
    }
}

#[derive(Clone, Debug)]
struct Case {
    composite: Index,
    form: Index,
    masks: Vec<Mask>,
    /// Where the rule is cut off and goes on with `*`; and whether it is so.
    cut: Option<(Index, Index)>,
    job_form: Index,
    /// Parts that are not those of the honest job, though nobody chooses them.
    others: Vec<bool>,
    /// Whose name is chosen, and of what: some fragments, and then the end of an honest claim.
    attack: (Index, Vec<Index>, Option<Index>),
}

fn case() -> impl Strategy<Value = Case> {
    let fragments = prop::collection::vec(any::<Index>(), 1..4);
    (
        (any::<Index>(), any::<Index>(), prop::collection::vec(mask(), 8)),
        prop::option::weighted(0.3, (any::<Index>(), any::<Index>())),
        (any::<Index>(), prop::collection::vec(prop::bool::weighted(0.05), 8)),
        (any::<Index>(), fragments, prop::option::of(any::<Index>())),
    )
        .prop_map(|((composite, form, masks), cut, (job_form, others), attack)| Case {
            composite,
            form,
            masks,
            cut,
            job_form,
            others,
            attack,
        })
}

/// The rule's own texts and separators, and a few more letters.
fn fragments(rule: &Parts, form: Form) -> Vec<String> {
    let mut found: Vec<String> = ["x", "evil", ":", "/", "@", "refs/heads/x"].map(str::to_owned).to_vec();
    for (before, text, _) in form {
        found.extend([(*before).to_owned(), (*text).to_owned(), format!("{before}{text}")]);
    }
    found.extend(rule.iter().map(|(_, text)| text.replace(['*', '?'], "")));
    found.retain(|fragment| !fragment.is_empty());
    found
}

impl Case {
    fn rule(&self, form: Form) -> (Parts, bool, String) {
        let mut rule = base(form);
        for ((_, text), mask) in rule.iter_mut().zip(&self.masks) {
            *text = masked(text, mask);
        }
        if let Some((part, at)) = &self.cut {
            let last = part.index(rule.len());
            rule.truncate(last + 1);
            let (before, text) = rule.pop().unwrap();
            // Where nothing of it is left, the part in front is cut.
            let at = at.index(before.len() + text.len()) + 1;
            match at.checked_sub(before.len()) {
                Some(at) if !has_wildcard(&text) => rule.push((before, text[..at].to_owned())),
                Some(_) => rule.push((before, text.trim_end_matches('*').to_owned())),
                None => rule.push((&before[..at], String::new())),
            }
            let pattern = format!("{}*", joined(&rule));
            return (rule, true, pattern);
        }
        let pattern = joined(&rule);
        // A wildcard at the very end is all that follows.
        let open = pattern.ends_with('*');
        if open && let Some((_, text)) = rule.last_mut() {
            *text = text.trim_end_matches('*').to_owned();
        }
        (rule, open, pattern)
    }

    fn job(&self, of: &Composite, rule: &Parts) -> Parts {
        let rules_form = of.forms[self.form.index(of.forms.len())];
        // Mostly of the rule's own form.
        let forms = [&[rules_form; 4], of.forms].concat();
        let form = forms[self.job_form.index(forms.len())];
        let mut job = base(form);
        for (((_, text), (_, _, who)), other) in job.iter_mut().zip(form).zip(&self.others) {
            if *other && *who == Set && !text.is_empty() {
                *text = format!("other-{text}");
            }
        }
        let (part, made, end) = &self.attack;
        let fragments = fragments(rule, rules_form);
        let mut name: String = made.iter().map(|at| fragments[at.index(fragments.len())].as_str()).collect();
        if let Some(end) = end {
            name.push_str(&joined(&base(rules_form)[end.index(rules_form.len())..]));
        }
        let mut chosen: Vec<_> =
            job.iter_mut().zip(form).filter(|(_, (_, _, who))| who.takes(&name)).collect();
        if !chosen.is_empty() {
            let index = part.index(chosen.len());
            chosen[index].0.1 = name;
        }
        job
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn no_name_passes_for_another_part(case in case()) {
        let of = &COMPOSITES[case.composite.index(COMPOSITES.len())];
        let (rule, open, pattern) = case.rule(of.forms[case.form.index(of.forms.len())]);
        // Another kind of service connection, or no policy at all.
        let Some(policy) = policy(of, &pattern) else { return Ok(()) };
        let job = case.job(of, &rule);
        let claim = joined(&job);
        if admits(of, &policy, &claim) && pattern != claim {
            prop_assert!(
                is_meant(&rule, open, &job),
                "{} `{}: {pattern}` takes {claim}", of.method, of.field
            );
        }
    }
}

/// Two parts that somebody chooses: what the first one says passes for the rest, were the second
/// one text that the form does not have.
#[test]
fn no_two_names_pass_for_other_parts() {
    let of = COMPOSITES.iter().find(|of| of.method == "buildkite").unwrap();
    let policy = policy(of, "organization:octo:pipeline:app:ref:refs/heads/main:commit:*:step:*").unwrap();
    let job = |branch: &str, commit: &str| {
        format!("organization:octo:pipeline:app:ref:refs/heads/{branch}:commit:{commit}:step:deploy")
    };
    assert!(admits(of, &policy, &job("main", "HEAD")));
    assert!(admits(of, &policy, &job("main", "refs/pull/7/head")));
    for commit in ["HEAD", "refs/pull/7/head", "a:b", "main:step:x"] {
        assert!(!admits(of, &policy, &job("main:commit:x:step:y", commit)), "{commit}");
    }
}

/// Each part a wildcard alone, or the claim cut off behind each part: such rules load, and take the honest job.
#[test]
fn honest_jobs_get_in() {
    for of in COMPOSITES.iter().filter(|of| of.field != "claims") {
        for form in of.forms {
            let honest = joined(&base(form));
            for index in 0..form.len() {
                let mut one = base(form);
                if !one[index].1.is_empty() {
                    one[index].1 = "*".to_owned();
                }
                let cut = joined(&base(form)[..=index]);
                for pattern in [joined(&one), format!("{cut}*"), honest.clone()] {
                    // What nobody can tell apart is refused when it is read, or matches nothing.
                    let ambiguous = of.section == SERVER && form.len() == 4 && of.field == "sub";
                    let took = policy(of, &pattern).is_some_and(|policy| admits(of, &policy, &honest));
                    assert_eq!(
                        took,
                        !ambiguous || pattern == honest,
                        "{} {}: {pattern}",
                        of.method,
                        of.field
                    );
                }
            }
        }
    }
}

#[test]
fn each_claim_of_parts_is_among_them() {
    let tried: Vec<_> = COMPOSITES.iter().map(|of| (of.method, of.field)).collect();
    let parted = METHODS.iter().flat_map(|method| {
        let fields = method.fields.iter().filter(|field| matches!(field.matches, Match::Parts(_)));
        fields.map(|field| (method.name, field.name))
    });
    let missing: Vec<_> = parted.filter(|one| !tried.contains(one)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
