use serde_json::{Value, json};

use crate::authority::policy::tests::fixture::{bot, decide, identity, output, parse, policy, role};
use crate::authority::policy::{MAX_OUTPUTS, Policy, PolicyRequest};
use crate::denial::{Denial, Reason};
use crate::wire::OutputRequest;

/// A role that opens everything to `deploy`.
const OPEN: &str = "{allow: {logins: [deploy], node_labels: {'*': '*'}}}";

fn simple() -> Policy {
    policy(&[bot("{roles: [x]}"), role("x", OPEN)])
}

fn refused(policy: &Policy, outputs: &[OutputRequest]) -> Denial {
    decide(policy, outputs, 3600).map(|_| ()).unwrap_err()
}

#[test]
fn an_identity_has_both_halves() {
    let grant = decide(&simple(), &[output("identity", &[])], 600).unwrap();
    assert_eq!((grant.bot.as_str(), grant.token.as_str()), ("deployer", "ci"));
    assert!(grant.warnings.is_empty());
    let [granted] = grant.outputs.as_slice() else { panic!("{grant:?}") };
    assert_eq!((granted.name.as_str(), granted.kind, granted.ttl), ("identity", "identity", 600));
    assert_eq!(granted.roles, ["x"]);
    assert_eq!(granted.ssh.as_ref().unwrap().principals, ["deploy"]);
    let tls = granted.tls.as_ref().unwrap();
    assert_eq!(tls.common_name, "bot:deployer");
    assert!(tls.organizations.is_empty());
}

#[test]
fn an_ssh_output_has_no_tls() {
    let grant = decide(&simple(), &[output("ssh", &["x"])], 600).unwrap();
    assert!(grant.outputs[0].tls.is_none());
}

// Rules.

fn with_rules(allow: &str, claims: Value) -> Result<(), Denial> {
    let token = format!(
        "\n---\nkind: token\nversion: v2\nmetadata: {{name: t}}\nspec:\n  roles: [Bot]\n  bot_name: deployer\n  \
         join_method: github\n  github:\n    allow:\n{allow}"
    );
    let policy = parse(&format!("{}{}{token}", bot("{roles: [x]}"), role("x", OPEN))).unwrap();
    let outputs = [output("ssh", &[])];
    let asked = PolicyRequest { outputs: &outputs, leaves: &[], ttl_seconds: 3600, public_url: None };
    policy.decide(policy.token("t").unwrap(), &identity(claims), &asked).map(|_| ())
}

const TWO_RULES: &str = "    - {repository: octo-org/app, ref: refs/heads/main, environment: production}
    - {repository: 'octo-org/*', ref: refs/heads/next}
";

#[test]
fn entries_are_ored_and_conditions_anded() {
    for (claims, lets_in) in [
        (json!({"environment": "production"}), true),
        (json!({"ref": "refs/heads/next"}), true),
        (json!({"ref": "refs/heads/next", "repository": "octo-org/other"}), true),
        (json!({}), false),
        (json!({"environment": "production", "repository": "octo-org/other"}), false),
        (json!({"environment": "production", "ref": "refs/heads/mainx"}), false),
        (json!({"ref": "refs/heads/next", "repository": "octo-organ/app"}), false),
        (json!({"ref": 7}), false),
    ] {
        assert_eq!(with_rules(TWO_RULES, claims.clone()).is_ok(), lets_in, "{claims}");
    }
}

#[test]
fn the_operator_hears_what_came_nearest_and_the_caller_does_not() {
    let denial = with_rules(TWO_RULES, json!({"environment": "staging\n", "extra": 1})).unwrap_err();
    assert_eq!(denial.reason, Reason::NoRuleMatches);
    assert_eq!(
        denial.detail,
        "no rule of join token `t` matches; the nearest is at p.yaml:24:7, with 2 of 3 conditions met\n\
         `environment`: got `staging\\u{a}`, wanted `production`"
    );
    assert_eq!(denial.told, None);
    assert!(denial.verified);
    assert_eq!(denial.claims.unwrap()["extra"], 1);

    let denial = with_rules(TWO_RULES, json!({"ref": 7, "environment": ["production"]})).unwrap_err();
    assert!(denial.detail.contains("at p.yaml:25:7, with 1 of 2"), "{}", denial.detail);
    assert!(
        denial.detail.ends_with("`ref`: got the number `7`, wanted `refs/heads/next`"),
        "{}",
        denial.detail
    );

    let denial = with_rules("    - {repository: octo-org/app, environment: prod}\n", json!({})).unwrap_err();
    assert!(denial.detail.ends_with("`environment`: got nothing, wanted `prod`"), "{}", denial.detail);
}

#[test]
fn risky_events_need_naming() {
    let unnamed = "    - {repository: octo-org/app}\n";
    let named = "    - {repository: octo-org/app, event_name: pull_request_target}\n";
    let event = json!({"event_name": "pull_request_target"});
    let denial = with_rules(unnamed, event.clone()).unwrap_err();
    assert_eq!((denial.reason, denial.told), (Reason::RiskyEvent, None));
    assert!(
        denial
            .detail
            .ends_with("`event_name`: got `pull_request_target`, which a rule lets in only if it names it"),
        "{}",
        denial.detail
    );
    with_rules(named, event.clone()).unwrap();
    // Another rule may let it in.
    with_rules(&format!("{unnamed}{named}"), event.clone()).unwrap();
    // It is the guard alone that is told as a risky event.
    let other = "    - {repository: octo-org/other}\n";
    assert_eq!(with_rules(other, event.clone()).unwrap_err().reason, Reason::NoRuleMatches);
    let both = format!("{other}{unnamed}");
    assert_eq!(with_rules(&both, event).unwrap_err().reason, Reason::RiskyEvent);
}

#[test]
fn rules_come_before_anything_else() {
    let policy = simple();
    let asked = PolicyRequest { outputs: &[], leaves: &[], ttl_seconds: -1, public_url: None };
    let stranger = identity(json!({"repository": "evil/app"}));
    let denial = policy.decide(policy.token("ci").unwrap(), &stranger, &asked).unwrap_err();
    assert_eq!((denial.reason, denial.told), (Reason::NoRuleMatches, None));
}

#[test]
fn a_token_of_another_policy_gives_nothing() {
    let outputs = [output("ssh", &[])];
    let asked = PolicyRequest { outputs: &outputs, leaves: &[], ttl_seconds: 3600, public_url: None };
    let old = simple();
    let denial =
        Policy::default().decide(old.token("ci").unwrap(), &identity(json!({})), &asked).unwrap_err();
    assert_eq!((denial.reason, denial.told), (Reason::NoRuleMatches, None));
}

// Outputs.

#[test]
fn outputs_are_as_their_type_wants() {
    let policy = simple();
    let changed = |kind: &str, change: &dyn Fn(&mut OutputRequest)| {
        let mut output = output(kind, &[]);
        change(&mut output);
        refused(&policy, &[output])
    };
    let other_ssh = output("ssh", &[]).ssh;
    let other_tls = output("identity", &[]).tls;
    let names = "lower-case letters, digits, `_`, `.` and `-`, beginning with a letter or digit, at most 64";
    for (denial, told) in [
        (refused(&policy, &[]), "no output is asked for".to_owned()),
        (
            changed("ssh", &|o| o.name = "../x\n".into()),
            format!("`../x\\u{{a}}` cannot be the name of an output: {names}"),
        ),
        (
            changed("ssh", &|o| o.kind = "windows".into()),
            "output `ssh`: there is no type `windows`; there are: identity, ssh, application, database, \
             kubernetes, ssh-host, jwt"
                .to_owned(),
        ),
        (
            changed("ssh", &|o| drop(o.options.insert("user".into(), "root".into()))),
            "output `ssh`: type `ssh` has no option `user`; it takes none".to_owned(),
        ),
        (
            changed("database", &|_| ()),
            "output `database`: type `database` needs the option `service`".to_owned(),
        ),
        (changed("ssh", &|o| o.ssh = None), "output `ssh`: type `ssh` needs a key in `ssh`".to_owned()),
        (
            changed("ssh", &|o| o.tls = other_tls.clone()),
            "output `ssh`: type `ssh` takes no key in `tls`".to_owned(),
        ),
        (
            changed("identity", &|o| o.tls = None),
            "output `identity`: type `identity` needs a key in `tls`".to_owned(),
        ),
        (
            changed("identity", &|o| (o.ssh, o.tls) = (None, other_tls.clone())),
            "output `identity`: type `identity` needs a key in `ssh`".to_owned(),
        ),
        (
            refused(&policy, &[output("ssh", &[]), output("ssh", &[])]),
            "two outputs are named `ssh`".to_owned(),
        ),
    ] {
        assert_eq!((denial.reason, denial.told), (Reason::OutputInvalid, Some(told)));
        assert!(denial.verified);
    }
    assert!(other_ssh.is_some());
    let many = |count: usize| -> Vec<OutputRequest> {
        (0..count).map(|n| OutputRequest { name: format!("o{n}"), ..output("ssh", &[]) }).collect()
    };
    assert_eq!(decide(&policy, &many(MAX_OUTPUTS), 3600).unwrap().outputs.len(), MAX_OUTPUTS);
    let denial = refused(&policy, &many(MAX_OUTPUTS + 1));
    assert_eq!(denial.told.unwrap(), "17 outputs are asked for; at most 16 can be");
}

#[test]
fn nothing_granted_is_a_refusal_for_ssh_and_a_warning_for_an_identity() {
    let policy = policy(&[
        bot("{roles: [x]}"),
        role("x", "{allow: {logins: [deploy, root]}, deny: {logins: [root]}}"),
    ]);
    let denial = refused(&policy, &[output("ssh", &[])]);
    assert_eq!(denial.reason, Reason::NothingGranted);
    let told = "output `ssh`: no SSH login is granted by its roles (`x`); role `x` has no node_labels, so its logins open nothing";
    assert_eq!(denial.told.as_deref(), Some(told));
    assert_eq!(
        denial.detail,
        format!("{told}; login `root` of role `x` is denied by role `x` at p.yaml:11:18")
    );

    let grant = decide(&policy, &[output("identity", &[])], 3600).unwrap();
    assert!(grant.outputs[0].ssh.is_none());
    assert!(grant.outputs[0].tls.is_some());
    assert_eq!(
        grant.warnings,
        [
            "role `x` has no node_labels, so its logins open nothing",
            "output `identity` has no SSH certificate: its roles grant no login"
        ]
    );
    // One output that cannot be had refuses all.
    assert_eq!(
        refused(&policy, &[output("identity", &[]), output("ssh", &[])]).reason,
        Reason::NothingGranted
    );
}

// Roles.

#[test]
fn an_output_has_the_roles_it_asks_for_or_all_of_the_bot() {
    let policy = policy(&[
        bot("{roles: [b, a]}"),
        role("a", "{allow: {logins: [a], node_labels: {'*': '*'}}}"),
        role("b", "{allow: {logins: [b], node_labels: {'*': '*'}}}"),
        role("c", "{allow: {logins: [c], node_labels: {'*': '*'}}}"),
    ]);
    for (asked, roles) in
        [(&[][..], &["a", "b"][..]), (&["a"], &["a"]), (&["b", "a"], &["a", "b"]), (&["b", "b"], &["b"])]
    {
        let grant = decide(&policy, &[output("ssh", asked)], 3600).unwrap();
        let granted = &grant.outputs[0];
        assert_eq!(granted.roles, roles);
        assert_eq!(granted.ssh.as_ref().unwrap().principals, roles);
    }
    // Each output for itself.
    let second = OutputRequest { name: "second".into(), ..output("ssh", &["b"]) };
    let grant = decide(&policy, &[output("ssh", &["a"]), second], 3600).unwrap();
    assert_eq!(grant.outputs[0].ssh.as_ref().unwrap().principals, ["a"]);
    assert_eq!(grant.outputs[1].ssh.as_ref().unwrap().principals, ["b"]);

    // Whether there is such a role makes no difference.
    for name in ["c", "zzz", "", "A", "a\n"] {
        let denial = refused(&policy, &[output("ssh", &["a", name])]);
        assert_eq!(denial.reason, Reason::RoleNotHeld);
        let told = format!("output `ssh`: the role `{}` is not one of this bot's", crate::text::shown(name));
        assert_eq!(denial.told, Some(told));
    }
}

// Per-session MFA.

fn with_mfa(roles: &str, everywhere: bool) -> Policy {
    let preference = format!(
        "\n---\nkind: cluster_auth_preference\nversion: v2\nmetadata: {{name: cluster-auth-preference}}\n\
         spec: {{require_session_mfa: {everywhere}}}\n"
    );
    policy(&[
        bot(roles),
        role("plain", OPEN),
        role(
            "mfa",
            "{options: {require_session_mfa: yes}, allow: {logins: [admin], node_labels: {'*': '*'}}}",
        ),
        role("mfa2", "{options: {require_session_mfa: true}}"),
        preference,
    ])
}

#[test]
fn a_role_that_needs_mfa_is_left_out_with_a_warning() {
    let policy = with_mfa("{roles: [plain, mfa]}", false);
    let second = OutputRequest { name: "second".into(), ..output("ssh", &[]) };
    let grant = decide(&policy, &[output("ssh", &[]), second], 3600).unwrap();
    assert_eq!(grant.outputs[0].roles, ["plain"]);
    assert_eq!(grant.outputs[0].ssh.as_ref().unwrap().principals, ["deploy"]);
    assert_eq!(
        grant.warnings,
        ["role `mfa` of bot `deployer` needs per-session MFA, which a machine cannot pass, and is left out"]
    );
    // The others go on without a word.
    assert!(decide(&policy, &[output("ssh", &["plain"])], 3600).unwrap().warnings.is_empty());
}

#[test]
fn a_role_that_needs_mfa_is_refused_by_name_or_if_nothing_else_is_left() {
    let cannot = "per-session MFA, which a machine cannot pass";
    for (roles, everywhere, asked, told) in [
        (
            "{roles: [plain, mfa]}",
            false,
            &["mfa"][..],
            format!("output `ssh`: role `mfa` of bot `deployer` needs {cannot}"),
        ),
        (
            "{roles: [plain, mfa]}",
            false,
            &["plain", "mfa"],
            format!("output `ssh`: role `mfa` of bot `deployer` needs {cannot}"),
        ),
        ("{roles: [mfa]}", false, &[], format!("output `ssh`: role `mfa` of bot `deployer` needs {cannot}")),
        (
            "{roles: [mfa2, mfa]}",
            false,
            &[],
            format!("output `ssh`: roles `mfa`, `mfa2` of bot `deployer` need {cannot}"),
        ),
        (
            "{roles: [plain]}",
            true,
            &[],
            format!("output `ssh`: role `plain` of bot `deployer` needs {cannot}"),
        ),
        (
            "{roles: [plain]}",
            true,
            &["plain"],
            format!("output `ssh`: role `plain` of bot `deployer` needs {cannot}"),
        ),
    ] {
        let denial = refused(&with_mfa(roles, everywhere), &[output("ssh", asked)]);
        assert_eq!((denial.reason, denial.told), (Reason::MfaRequired, Some(told)));
    }
}

#[test]
fn a_role_that_is_left_out_still_denies() {
    let policy = policy(&[
        bot("{roles: [plain, strict]}"),
        role("plain", OPEN),
        role("strict", "{options: {require_session_mfa: true}, deny: {logins: [deploy]}}"),
    ]);
    assert_eq!(refused(&policy, &[output("ssh", &[])]).reason, Reason::NothingGranted);
}

// TTL.

#[test]
fn the_shortest_time_wins() {
    let policy = |bot_ttl: &str, role_ttl: &str| {
        policy(&[
            bot(&format!("{{roles: [x, z]{bot_ttl}}}")),
            role(
                "x",
                &format!(
                    "{{options: {{permit_pty: true{role_ttl}}}, allow: {{logins: [a], node_labels: {{'*': '*'}}}}}}"
                ),
            ),
            role("z", "{options: {max_session_ttl: 168h}, allow: {logins: [b], node_labels: {'*': '*'}}}"),
        ])
    };
    for (bot_ttl, role_ttl, asked_roles, asked, granted) in [
        ("", "", &[][..], 86_400, 3600),
        ("", "", &[], 60, 60),
        ("", "", &[], 10, 10),
        ("", "", &["z"], 86_400, 12 * 3600),
        (", max_session_ttl: 30m", "", &[], 86_400, 1800),
        (", max_session_ttl: 168h", "", &["z"], i64::MAX, 7 * 86_400),
        (", max_session_ttl: 168h", ", max_session_ttl: 20s", &[], 3600, 20),
        (", max_session_ttl: 168h", ", max_session_ttl: 20s", &["z"], 3600, 3600),
    ] {
        let grant = decide(&policy(bot_ttl, role_ttl), &[output("ssh", asked_roles)], asked).unwrap();
        assert_eq!(grant.outputs[0].ttl, granted, "{bot_ttl} {role_ttl} {asked_roles:?} {asked}");
    }
    for asked in [9, 1, 0, -1, i64::MIN] {
        let denial = decide(&simple(), &[output("ssh", &[])], asked).unwrap_err();
        assert_eq!(denial.reason, Reason::OutputInvalid);
        assert_eq!(
            denial.told.unwrap(),
            format!("certificates cannot be asked for {asked} seconds: at least 10")
        );
    }
}
