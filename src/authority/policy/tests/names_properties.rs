//! Properties of the outputs that carry names, against a model of its own: each
//! name is asked for alone, of every role, trait and deny.

use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::fixture::{bot, decide, output_with, policy, role};
use crate::authority::policy::Grant;
use crate::denial::{Denial, Reason};

/// A field, what roles allow in it, what they deny, and every name there is.
struct FieldModel {
    key: &'static str,
    allows: &'static [&'static str],
    denies: &'static [&'static str],
    universe: &'static [&'static str],
}

/// Application, database user and name, Kubernetes user and group, host. The
/// trait `t` is the same for all.
const FIELDS: [FieldModel; 6] = [
    FieldModel {
        key: "app_labels",
        allows: &["*", "a", "ab"],
        denies: &["*", "a", "ab"],
        universe: &["a", "ab", "u1"],
    },
    FieldModel {
        key: "db_users",
        allows: &["*", "a", "ab", "{{external.t}}", "a{{external.t}}"],
        denies: &["*", "a*", "?", "u1"],
        universe: &["a", "ab", "u1", "au1", "aab"],
    },
    FieldModel {
        key: "db_names",
        allows: &["*", "a", "{{external.t}}"],
        denies: &["a", "u?"],
        universe: &["a", "ab", "u1"],
    },
    FieldModel {
        key: "kubernetes_users",
        allows: &["a", "system:a", "{{external.t}}"],
        denies: &["system:*", "a", "u?"],
        universe: &["a", "ab", "u1", "system:a"],
    },
    FieldModel {
        key: "kubernetes_groups",
        allows: &["a", "system:masters", "x:{{external.t}}"],
        denies: &["*:*", "a", "system:*"],
        universe: &["a", "system:masters", "x:ab", "x:u1"],
    },
    FieldModel {
        key: "ssh_host_principals",
        allows: &["*", "a.x", "*.x", "{{external.t}}.x", "*.{{external.t}}"],
        denies: &["a*", "*.x", "?.x"],
        universe: &["a", "a.x", "ab.x", "u1.x", "b.u1"],
    },
];
const TRAITS: &[&str] = &["ab", "u1"];
const ROLES: [&str; 3] = ["r0", "r1", "r2"];

#[derive(Clone, Debug)]
struct RoleModel {
    allows: Vec<Vec<&'static str>>,
    denies: Vec<Vec<&'static str>>,
    pin: bool,
}

#[derive(Clone, Debug)]
struct Model {
    roles: Vec<RoleModel>,
    traits: Vec<&'static str>,
    /// How many of the roles the bot holds.
    held: usize,
    /// Those asked for; none means all.
    asked: Vec<usize>,
}

fn role_model() -> impl Strategy<Value = RoleModel> {
    let allows: Vec<_> = FIELDS.iter().map(|f| subsequence(f.allows, 0..=2)).collect();
    let denies: Vec<_> =
        FIELDS.iter().map(|f| prop_oneof![3 => Just(Vec::new()), 1 => subsequence(f.denies, 1)]).collect();
    (allows, denies, prop::bool::weighted(0.1)).prop_map(|(allows, denies, pin)| RoleModel {
        allows,
        denies,
        pin,
    })
}

fn model() -> impl Strategy<Value = Model> {
    (prop::collection::vec(role_model(), 3), subsequence(TRAITS, 0..=2), 1_usize..=3).prop_flat_map(
        |(roles, traits, held)| {
            let all: Vec<usize> = (0..held).collect();
            subsequence(all, 0..=1).prop_map(move |asked| Model {
                roles: roles.clone(),
                traits: traits.clone(),
                held,
                asked,
            })
        },
    )
}

/// One `*` or `?` at most, and so by hand.
fn matches(pattern: &str, name: &str) -> bool {
    match (pattern.split_once('*'), pattern.split_once('?')) {
        (Some((before, after)), _) => {
            let after = after.trim_start_matches(":*");
            let extra = if pattern == "*:*" { name.contains(':') } else { true };
            extra
                && name.len() >= before.len() + after.len()
                && name.starts_with(before)
                && name.ends_with(after)
        }
        (None, Some((before, after))) => {
            name.len() == before.len() + 1 + after.len() && name.starts_with(before) && name.ends_with(after)
        }
        (None, None) => pattern == name,
    }
}

impl Model {
    fn parts(&self) -> Vec<String> {
        let mut parts = vec![bot(&format!(
            "{{roles: {:?}, traits: [{{name: t{}{}}}]}}",
            &ROLES[..self.held],
            if self.traits.is_empty() { "" } else { ", values: " },
            if self.traits.is_empty() { String::new() } else { format!("{:?}", self.traits) }
        ))];
        let side = |key: &str, names: &[Vec<&str>]| -> String {
            let entries = FIELDS.iter().zip(names).filter(|(_, names)| !names.is_empty());
            let entry = |(field, names): (&FieldModel, &Vec<&str>)| match (field.key, names.contains(&"*")) {
                ("app_labels", true) => "app_labels: {'*': '*'}".to_owned(),
                ("app_labels", false) => format!("app_labels: {{name: {names:?}}}"),
                (key, _) => format!("{key}: {names:?}"),
            };
            let entries = entries.map(entry).collect::<Vec<_>>().join(", ");
            if entries.is_empty() { entries } else { format!(", {key}: {{{entries}}}") }
        };
        for (name, model) in ROLES.iter().zip(&self.roles) {
            parts.push(role(
                name,
                &format!(
                    "{{options: {{pin_source_ip: {}}}{}{}}}",
                    model.pin,
                    side("allow", &model.allows),
                    side("deny", &model.denies)
                ),
            ));
        }
        parts
    }

    /// The roles that count for an output.
    fn merged(&self) -> Vec<usize> {
        let all: Vec<usize> =
            if self.asked.is_empty() { (0..self.held).collect() } else { self.asked.clone() };
        all.into_iter().filter(|role| !self.roles[*role].pin).collect()
    }

    fn gives(&self, role: usize, field: usize, name: &str) -> bool {
        let denied = |field: usize| {
            (0..self.held).any(|role| self.roles[role].denies[field].iter().any(|d| matches(d, name)))
        };
        // The users of databases and of clusters are the same to a server.
        let denied =
            denied(field) || field == 1 && denied(3) || field == 3 && !name.contains(':') && denied(1);
        let allowed = self.roles[role].allows[field].iter().any(|allow| {
            let Some((before, after)) = allow.split_once("{{external.t}}") else {
                return matches(allow, name);
            };
            self.traits.iter().any(|value| matches(&format!("{before}{value}{after}"), name))
        });
        allowed && !denied
    }

    fn given(&self, field: usize, name: &str) -> bool {
        self.merged().iter().any(|role| self.gives(*role, field, name))
    }

    /// Whether some role of the bot denies databases, so that one must be named.
    fn denies_databases(&self) -> bool {
        (0..self.held).any(|role| !self.roles[role].denies[2].is_empty())
    }

    fn decide(&self, kind: &str, options: &[(&str, &str)]) -> Result<Grant, Denial> {
        let asked: Vec<&str> = self.asked.iter().map(|role| ROLES[*role]).collect();
        decide(&policy(&self.parts()), &[output_with(kind, &asked, options)], 3600)
    }
}

/// The common name and the organizations, or why there are none.
fn subject(decided: Result<Grant, Denial>) -> Result<(String, Vec<String>), Reason> {
    let grant = decided.map_err(|denial| denial.reason)?;
    let [output] = grant.outputs.as_slice() else { panic!("{grant:?}") };
    assert!(output.ssh.is_none());
    let tls = output.tls.as_ref().unwrap();
    Ok((tls.common_name.clone(), tls.organizations.clone()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn an_application_is_what_some_role_names(model in model(), app in select(FIELDS[0].universe)) {
        let wanted = if model.given(0, app) {
            Ok((format!("app:{app}"), Vec::new()))
        } else {
            Err(Reason::NothingGranted)
        };
        prop_assert_eq!(subject(model.decide("application", &[("app", app)])), wanted);
    }

    #[test]
    fn a_database_user_is_given_with_the_database_by_one_role(
        model in model(),
        user in select(FIELDS[1].universe),
        database in prop::option::of(select(FIELDS[2].universe)),
    ) {
        let given = model.merged().iter().any(|role| {
            model.gives(*role, 1, user) && database.is_none_or(|database| model.gives(*role, 2, database))
        });
        let mut options = vec![("service", "orders"), ("user", user)];
        options.extend(database.map(|database| ("database", database)));
        let wanted = match database {
            None if model.denies_databases() => Err(Reason::OutputInvalid),
            _ if given => Ok((user.to_owned(), Vec::new())),
            _ => Err(Reason::NothingGranted),
        };
        prop_assert_eq!(subject(model.decide("database", &options)), wanted);
    }

    #[test]
    fn without_a_user_it_is_the_only_one(model in model()) {
        let patterns = model.merged().iter().any(|role| model.roles[*role].allows[1].contains(&"*"));
        match subject(model.decide("database", &[("service", "orders")])) {
            Ok((user, _)) => prop_assert!(model.given(1, &user) && !model.denies_databases()),
            Err(reason) if patterns || model.denies_databases() => prop_assert_eq!(reason, Reason::OutputInvalid),
            Err(reason) => {
                let given = FIELDS[1].universe.iter().filter(|user| model.given(1, user)).count();
                prop_assert_ne!(given, 1);
                let wanted = if given == 0 { Reason::NothingGranted } else { Reason::OutputInvalid };
                prop_assert_eq!(reason, wanted);
            }
        }
    }

    #[test]
    fn kubernetes_has_the_groups_of_roles_with_its_user_and_no_other(model in model(), user in select(FIELDS[3].universe)) {
        let given = |group: &&&str| {
            model.merged().iter().any(|role| model.gives(*role, 3, user) && model.gives(*role, 4, group))
        };
        let mut groups: Vec<String> = FIELDS[4].universe.iter().filter(given).map(|g| (*g).to_owned()).collect();
        groups.sort();
        let wanted = if model.given(3, user) { Ok((user.to_owned(), groups)) } else { Err(Reason::NothingGranted) };
        prop_assert_eq!(subject(model.decide("kubernetes", &[("cluster", "c"), ("user", user)])), wanted);
    }

    #[test]
    fn a_host_certificate_names_only_what_is_given(model in model(), names in subsequence(FIELDS[5].universe, 1..=3)) {
        let decided = model.decide("ssh-host", &[("principals", &names.join("+"))]);
        if !names.iter().all(|name| model.given(5, name)) {
            prop_assert_eq!(decided.unwrap_err().reason, Reason::NothingGranted);
            return Ok(());
        }
        let grant = decided.unwrap();
        let ssh = grant.outputs[0].ssh.as_ref().unwrap();
        let mut sorted = names.clone();
        sorted.sort_unstable();
        prop_assert!(ssh.host && ssh.extensions.is_empty() && grant.outputs[0].tls.is_none());
        prop_assert_eq!(&ssh.principals, &sorted);
    }

    /// Whatever is asked for, a certificate holds plain names.
    #[test]
    fn no_text_gets_into_a_certificate_that_means_more(text in "[ -~\\n\\t]{0,12}") {
        let all = "{allow: {app_labels: {'*': '*'}, db_users: ['*'], db_names: ['*'], kubernetes_users: [a], \
                   ssh_host_principals: ['*']}}";
        let policy = policy(&[bot("{roles: [x]}"), role("x", all)]);
        for (kind, options) in [
            ("application", vec![("app", text.as_str())]),
            ("database", vec![("service", "s"), ("user", &text), ("database", "d")]),
            ("database", vec![("service", "s"), ("user", "u"), ("database", &text)]),
            ("kubernetes", vec![("cluster", "c"), ("user", &text)]),
            ("ssh-host", vec![("principals", &text)]),
        ] {
            let Ok(grant) = decide(&policy, &[output_with(kind, &[], &options)], 3600) else { continue };
            let output = &grant.outputs[0];
            let mut names: Vec<&str> = output.ssh.iter().flat_map(|ssh| &ssh.principals).map(String::as_str).collect();
            names.extend(output.tls.iter().map(|tls| tls.common_name.as_str()));
            for name in names {
                let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':');
                prop_assert!(!name.is_empty() && name.chars().all(plain), "{:?}", name);
                prop_assert!(kind == "application" || !name.starts_with("app:") && !name.starts_with("bot:"));
            }
        }
    }
}

/// Which database it is must be said before it is known that nothing is given: a property above missed that once.
#[test]
fn a_database_is_to_be_named_where_a_role_denies_some() {
    let nothing = || RoleModel {
        allows: vec![Vec::new(); FIELDS.len()],
        denies: vec![Vec::new(); FIELDS.len()],
        pin: false,
    };
    let mut roles = vec![nothing(), nothing(), nothing()];
    roles[1].denies[2] = vec!["u?"];
    let model = Model { roles, traits: Vec::new(), held: 2, asked: Vec::new() };
    let decided = model.decide("database", &[("service", "orders"), ("user", "a")]);
    assert_eq!(subject(decided), Err(Reason::OutputInvalid));
}
