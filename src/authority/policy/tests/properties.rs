//! Properties of the decision, against a model of its own: what may be granted
//! is asked one login, one host and one extension at a time, never added up.

use std::fmt::Write as _;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use serde_json::json;

use super::fixture::{bot, decide, output, parse, policy, role};
use crate::authority::policy::PolicyRequest;
use crate::denial::Reason;
use crate::join::verify::Identity;

const ROLES: &[&str] = &["r0", "r1", "r2", "r3"];
/// What roles allow; the model knows what each can become.
const LOGINS: &[&str] = &["a", "ab", "root", "{{internal.logins}}", "x-{{external.team}}"];
/// What they deny.
const DENIES: &[&str] = &["root", "a*", "?", "x-*", "*b", "*", "u1"];
/// Every login that there can be.
const UNIVERSE: &[&str] = &["a", "ab", "root", "u1", "u2", "x-d", "x-w"];
/// The switches of a role and what each permits.
const SWITCHES: &[(&str, &str)] = &[
    ("permit_x11_forwarding", "permit-X11-forwarding"),
    ("forward_agent", "permit-agent-forwarding"),
    ("port_forwarding", "permit-port-forwarding"),
    ("permit_pty", "permit-pty"),
];

#[derive(Clone, Debug)]
struct RoleModel {
    allows: Vec<&'static str>,
    denies: Vec<&'static str>,
    /// Hosts: nowhere, everywhere, or these values of `env`.
    everywhere: bool,
    environments: Vec<&'static str>,
    switches: Vec<&'static str>,
    ttl: u64,
    mfa: bool,
    pin: bool,
    command: Option<&'static str>,
}

#[derive(Clone, Debug)]
struct Model {
    roles: Vec<RoleModel>,
    held: Vec<usize>,
    logins: Vec<&'static str>,
    teams: Vec<&'static str>,
    bot_ttl: u64,
    mfa_everywhere: bool,
    asked: Vec<&'static str>,
    asked_ttl: i64,
}

fn some(of: &'static [&'static str]) -> impl Strategy<Value = Vec<&'static str>> {
    subsequence(of, 0..=of.len())
}

/// An entry of a mapping, after others; none where the list is empty.
fn entry(key: &str, list: &[&str]) -> String {
    if list.is_empty() { String::new() } else { format!(", {key}: {list:?}") }
}

fn rarely() -> impl Strategy<Value = bool> {
    prop::bool::weighted(0.1)
}

fn role_model() -> impl Strategy<Value = RoleModel> {
    let switches: &[&str] = &["permit_x11_forwarding", "forward_agent", "port_forwarding", "permit_pty"];
    (
        (some(LOGINS), subsequence(DENIES, 0..=2), any::<bool>(), some(&["dev", "prod"])),
        (some(switches), 10_u64..100_000, rarely(), rarely()),
        prop::option::weighted(0.2, select(&["id", "ls"][..])),
    )
        .prop_map(|((allows, denies, everywhere, environments), (switches, ttl, mfa, pin), command)| {
            RoleModel { allows, denies, everywhere, environments, switches, ttl, mfa, pin, command }
        })
}

fn model() -> impl Strategy<Value = Model> {
    (
        prop::collection::vec(role_model(), ROLES.len()),
        subsequence(vec![0, 1, 2, 3], 1..=4).prop_shuffle(),
        (some(&["u1", "u2", "root"]), some(&["d", "w"])),
        10_u64..100_000,
        prop::bool::weighted(0.02),
        subsequence(ROLES, 0..=2).prop_shuffle(),
        10_i64..200_000,
    )
        .prop_map(|(roles, held, (logins, teams), bot_ttl, mfa_everywhere, asked, asked_ttl)| Model {
            roles,
            held,
            logins,
            teams,
            bot_ttl,
            mfa_everywhere,
            asked,
            asked_ttl,
        })
}

impl Model {
    /// As a policy file.
    fn parts(&self) -> Vec<String> {
        let held: Vec<&str> = self.held.iter().map(|index| ROLES[*index]).collect();
        let traits = [("name: logins", "values", &self.logins), ("name: team", "values", &self.teams)];
        let traits = traits.map(|(name, key, values)| format!("{{{name}{}}}", entry(key, values)));
        let mut parts = vec![bot(&format!(
            "{{roles: {held:?}, max_session_ttl: {}s, traits: [{}]}}",
            self.bot_ttl,
            traits.join(", ")
        ))];
        for (name, model) in ROLES.iter().zip(&self.roles) {
            let mut spec =
                format!("{{options: {{max_session_ttl: {}s, require_session_mfa: {}", model.ttl, model.mfa);
            for (switch, _) in SWITCHES {
                write!(spec, ", {switch}: {}", model.switches.contains(switch)).unwrap();
            }
            write!(spec, ", pin_source_ip: {}", model.pin).unwrap();
            if let Some(command) = model.command {
                write!(spec, ", force_command: {command}").unwrap();
            }
            let mut allow = entry("logins", &model.allows);
            if model.everywhere {
                allow.push_str(", node_labels: {'*': '*'}");
            } else if !model.environments.is_empty() {
                write!(allow, ", node_labels: {{env: {:?}}}", model.environments).unwrap();
            }
            spec.push('}');
            for (key, side) in [("allow", allow), ("deny", entry("logins", &model.denies))] {
                if let Some(entries) = side.strip_prefix(", ") {
                    write!(spec, ", {key}: {{{entries}}}").unwrap();
                }
            }
            spec.push('}');
            parts.push(role(name, &spec));
        }
        parts.push(format!(
            "\n---\nkind: cluster_auth_preference\nversion: v2\nmetadata: {{name: cluster-auth-preference}}\n\
             spec: {{require_session_mfa: {}}}\n",
            self.mfa_everywhere
        ));
        parts
    }

    fn needs_mfa(&self, index: usize) -> bool {
        self.mfa_everywhere || self.roles[index].mfa
    }

    /// The roles that an output gets, or why not.
    fn merged(&self) -> Result<Vec<usize>, Reason> {
        let mut held = self.held.clone();
        held.sort_unstable();
        if self.asked.is_empty() {
            held.retain(|index| !self.needs_mfa(*index));
            return if held.is_empty() { Err(Reason::MfaRequired) } else { Ok(held) };
        }
        let mut merged = Vec::new();
        for name in &self.asked {
            let index = ROLES.iter().position(|role| role == name).unwrap();
            if !held.contains(&index) {
                return Err(Reason::RoleNotHeld);
            }
            if self.needs_mfa(index) {
                return Err(Reason::MfaRequired);
            }
            merged.push(index);
        }
        merged.sort_unstable();
        Ok(merged)
    }

    fn allows(&self, index: usize, login: &str) -> bool {
        self.roles[index].allows.iter().any(|allow| match *allow {
            "{{internal.logins}}" => self.logins.contains(&login),
            "x-{{external.team}}" => login.strip_prefix("x-").is_some_and(|team| self.teams.contains(&team)),
            literal => literal == login,
        })
    }

    fn denied(&self, login: &str) -> bool {
        self.held.iter().flat_map(|index| &self.roles[*index].denies).any(|deny| match *deny {
            "*" => true,
            "?" => login.len() == 1,
            "a*" => login.starts_with('a'),
            "x-*" => login.starts_with("x-"),
            "*b" => login.ends_with('b'),
            literal => literal == login,
        })
    }

    /// Whether a role gives that login on that host; no host is the plain login.
    fn gives(&self, index: usize, login: &str, host: Option<&str>) -> bool {
        let role = &self.roles[index];
        let reaches = match host {
            None => role.everywhere,
            Some(host) => !role.everywhere && role.environments.contains(&host),
        };
        reaches && self.allows(index, login) && !self.denied(login)
    }

    fn principals(&self, merged: &[usize]) -> Vec<String> {
        let mut principals = Vec::new();
        for login in UNIVERSE {
            for host in [None, Some("dev"), Some("prod")] {
                if merged.iter().any(|index| self.gives(*index, login, host)) {
                    principals.push(host.map_or((*login).to_owned(), |host| format!("{login}@env={host}")));
                }
            }
        }
        principals.sort();
        principals
    }

    fn extensions(&self, merged: &[usize]) -> Vec<&'static str> {
        let gives_any = |index: &&usize| {
            UNIVERSE.iter().any(|login| {
                [None, Some("dev"), Some("prod")].iter().any(|host| self.gives(**index, login, *host))
            })
        };
        let givers: Vec<&usize> = merged.iter().filter(gives_any).collect();
        let by_all = |switch: &str| givers.iter().all(|index| self.roles[**index].switches.contains(&switch));
        SWITCHES.iter().filter(|(switch, _)| by_all(switch)).map(|(_, extension)| *extension).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_grant_is_what_the_model_says_and_no_more(model in model()) {
        let policy = policy(&model.parts());
        let decided = decide(&policy, &[output("ssh", &model.asked)], model.asked_ttl);
        let merged = match model.merged() {
            Ok(merged) => merged,
            Err(reason) => {
                prop_assert_eq!(decided.unwrap_err().reason, reason);
                return Ok(());
            }
        };
        let principals = model.principals(&merged);
        if principals.is_empty() {
            prop_assert_eq!(decided.unwrap_err().reason, Reason::NothingGranted);
            return Ok(());
        }
        let mut commands: Vec<&str> = merged.iter().filter_map(|index| model.roles[*index].command).collect();
        commands.sort_unstable();
        commands.dedup();
        if commands.len() > 1 {
            prop_assert_eq!(decided.unwrap_err().reason, Reason::OutputInvalid);
            return Ok(());
        }
        let grant = decided.unwrap();
        let granted = &grant.outputs[0];
        let ssh = granted.ssh.as_ref().unwrap();
        prop_assert_eq!(&ssh.principals, &principals);
        prop_assert_eq!(&ssh.extensions, &model.extensions(&merged));
        prop_assert_eq!(ssh.force_command.as_deref(), commands.first().copied());
        prop_assert_eq!(ssh.pin_source_ip, merged.iter().any(|index| model.roles[*index].pin));
        prop_assert_eq!(&granted.roles, &merged.iter().map(|index| ROLES[*index].to_owned()).collect::<Vec<_>>());
        // No time outlives what was asked for, the bot's limit or a role's.
        let shortest = merged.iter().map(|index| model.roles[*index].ttl).min().unwrap();
        prop_assert_eq!(granted.ttl, shortest.min(model.bot_ttl).min(u64::try_from(model.asked_ttl).unwrap()));
    }

    /// `check --claims` says what the exchange does, grants and refusals alike.
    #[test]
    fn what_is_foreseen_is_what_is_decided(model in model(), main in any::<bool>()) {
        let policy = policy(&model.parts());
        let token = policy.token("ci").unwrap();
        let claims = json!({
            "iss": "https://token.actions.githubusercontent.com", "sub": "s", "run_id": "1", "repository_owner": "octo-org",
            "repository": if main { "octo-org/app" } else { "octo-org/other" }, "event_name": "push",
        });
        let claims = claims.as_object().unwrap().clone();
        let outputs = [output("ssh", &model.asked), output("identity", &[])];
        let asked = PolicyRequest { outputs: &outputs, leaves: &[], ttl_seconds: model.asked_ttl, public_url: None };
        let foreseen = policy.preview(token, &token.verifier.assume(claims.clone()).unwrap(), &asked);
        match (policy.decide(token, &Identity::for_test(claims), &asked), foreseen) {
            (Ok(grant), Ok(prospect)) => {
                prop_assert_eq!(format!("{:?}", grant.outputs), format!("{:?}", prospect.outputs));
                prop_assert_eq!(&grant.warnings, &prospect.warnings);
                prop_assert_eq!(&grant.bot, &prospect.bot);
            }
            (Err(decided), Err(foreseen)) => {
                prop_assert_eq!((decided.reason, decided.detail), (foreseen.reason, foreseen.detail));
            }
            (decided, foreseen) => prop_assert!(false, "{decided:?} and {foreseen:?}"),
        }
        // Whatever loads can be linted, and each finding has its place.
        let places = policy.lint().findings.into_iter().map(|finding| finding.origin.place.line);
        prop_assert!(places.min().is_none_or(|line| line > 0));
    }

    #[test]
    fn another_deny_never_gives_more(model in model(), role in 0_usize..4, deny in select(DENIES)) {
        let principals = |model: &Model| {
            let grant = decide(&policy(&model.parts()), &[output("ssh", &model.asked)], model.asked_ttl);
            grant.map_or(Vec::new(), |grant| grant.outputs[0].ssh.as_ref().unwrap().principals.clone())
        };
        let mut stricter = model.clone();
        stricter.roles[role].denies.push(deny);
        let before = principals(&model);
        for principal in principals(&stricter) {
            prop_assert!(before.contains(&principal), "{} of {:?}", principal, before);
            if model.held.contains(&role) {
                let login = principal.split('@').next().unwrap();
                prop_assert!(!crate::join::rules::glob(deny, login), "{} despite {}", login, deny);
            }
        }
    }

    #[test]
    fn no_text_makes_a_principal_that_means_more(login in "[ -~\\n\\t]{0,12}", value in "[ -~\\n]{0,12}") {
        let quoted = |text: &str| serde_json::to_string(text).unwrap();
        let text = format!(
            "{}{}{}",
            bot(&format!("{{roles: [x], traits: [{{name: logins, values: [{}]}}]}}", quoted(&value))),
            role("x", &format!(
                "{{allow: {{logins: ['{{{{internal.logins}}}}', {}], node_labels: {{'*': '*'}}}}}}",
                quoted(&login)
            )),
            super::fixture::TOKEN,
        );
        let Ok(policy) = parse(&text) else { return Ok(()) };
        for principal in super::fixture::principals(&policy) {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
            prop_assert!(!principal.is_empty() && principal.chars().all(plain) && !principal.starts_with(['-', '.']));
        }
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "[a-z:{}\\[\\] ,'*\\n-]{0,80}", spec in "[a-z:{}\\[\\] ,'*_\\n-]{0,60}") {
        let _ = parse(&text);
        for kind in ["bot: v1", "role: v7", "token: v2"] {
            let (kind, version) = kind.split_once(": ").unwrap();
            let _ = parse(&format!("kind: {kind}\nversion: {version}\nmetadata: {{name: a}}\nspec: {spec}\n"));
        }
    }
}
