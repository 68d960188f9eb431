use crate::authority::policy::tests::fixture::{NOTHING, bot, decide, output, policy, principals, role};
use crate::authority::policy::{Policy, SshGrant};
use crate::denial::Reason;

/// The principals of a bot with the role `x` of this `spec`, and the role `z` that denies.
fn granted(bot_spec: &str, x: &str, y: &str) -> Vec<String> {
    principals(&policy(&[bot(bot_spec), role("x", x), role("z", y)]))
}

#[test]
fn templates_take_the_bots_traits() {
    let x = "{allow: {logins: [own, '{{internal.logins}}', 'ci-{{external.team}}.x', '{{external.none}}'], node_labels: {'*': '*'}}}";
    let traits = "traits: [{name: logins, values: [ubuntu, own, ubuntu]}, {name: team, values: [web, db]}]";
    assert_eq!(
        granted(&format!("{{roles: [x], {traits}}}"), x, NOTHING),
        ["ci-db.x", "ci-web.x", "own", "ubuntu"]
    );
    // A trait that the bot does not have gives nothing, and no template stays as text.
    assert_eq!(granted("{roles: [x]}", x, NOTHING), ["own"]);
}

#[test]
fn deny_wins_from_whichever_role_of_the_bot() {
    let x = "{allow: {logins: [root, deploy, '{{internal.logins}}'], node_labels: {'*': '*'}}}";
    let both = "{roles: [x, z], traits: [{name: logins, values: [admin]}]}";
    assert_eq!(granted(both, x, NOTHING), ["admin", "deploy", "root"]);
    assert_eq!(granted(both, x, "{deny: {logins: [root]}}"), ["admin", "deploy"]);
    assert_eq!(granted(both, x, "{deny: {logins: ['a*', 'r??t']}}"), ["deploy"]);
    assert_eq!(granted(both, x, "{deny: {logins: [roo]}}"), ["admin", "deploy", "root"]);
    // A role of other bots denies nothing here.
    assert_eq!(granted("{roles: [x]}", x, "{deny: {logins: [root]}}"), ["deploy", "root"]);

    // Not asking for the role that denies does not shed the deny.
    let policy = policy(&[bot(both), role("x", x), role("z", "{deny: {logins: [root]}}")]);
    let grant = decide(&policy, &[output("ssh", &["x"])], 3600).unwrap();
    assert_eq!(grant.outputs[0].ssh.as_ref().unwrap().principals, ["admin", "deploy"]);
}

#[test]
fn labels_say_where() {
    let with = |labels: &str| {
        granted("{roles: [x]}", &format!("{{allow: {{logins: [a, b], node_labels: {labels}}}}}"), NOTHING)
    };
    assert_eq!(with("{'*': '*'}"), ["a", "b"]);
    assert_eq!(with("{'*': ['*']}"), ["a", "b"]);
    assert_eq!(with("{team: web, env: prod}"), ["a@env=prod,team=web", "b@env=prod,team=web"]);
    assert_eq!(
        with("{env: [prod, dev, prod], team: web}"),
        ["a@env=dev,team=web", "a@env=prod,team=web", "b@env=dev,team=web", "b@env=prod,team=web"]
    );
    assert_eq!(with("{'k8s.io/zone:1': A_b-1}"), ["a@k8s.io/zone:1=A_b-1", "b@k8s.io/zone:1=A_b-1"]);
}

#[test]
fn deny_takes_a_login_with_all_its_labels() {
    let x = "{allow: {logins: [root, a], node_labels: {env: prod}}}";
    assert_eq!(granted("{roles: [x, z]}", x, "{deny: {logins: [root]}}"), ["a@env=prod"]);
}

#[test]
fn without_labels_a_login_opens_nothing() {
    let policy = policy(&[
        bot("{roles: [x, z]}"),
        role("x", "{allow: {logins: [a, b]}}"),
        role("z", "{allow: {logins: [c], node_labels: {'*': '*'}}}"),
    ]);
    assert_eq!(principals(&policy), ["c"]);
    let grant = decide(&policy, &[output("ssh", &[]), output("identity", &[])], 3600).unwrap();
    assert_eq!(grant.warnings, ["role `x` has no node_labels, so its logins open nothing"]);
}

#[test]
fn a_certificate_holds_only_so_many_principals() {
    let logins = |prefix: &str| (0..64).map(|n| format!("{prefix}{n}")).collect::<Vec<_>>().join(", ");
    let names = ["a", "b", "c", "d", "e"];
    let mut parts = vec![bot("{roles: [a, b, c, d, e]}")];
    parts.extend(names.map(|name| {
        role(name, &format!("{{allow: {{logins: [{}], node_labels: {{'*': '*'}}}}}}", logins(name)))
    }));
    let policy = policy(&parts);
    let four = decide(&policy, &[output("ssh", &names[..4])], 3600).unwrap();
    assert_eq!(four.outputs[0].ssh.as_ref().unwrap().principals.len(), 256);
    let denial = decide(&policy, &[output("ssh", &[])], 3600).unwrap_err();
    assert_eq!(denial.reason, Reason::OutputInvalid);
    assert_eq!(
        denial.told.unwrap(),
        "output `ssh`: its roles give 320 principals and a certificate holds 256; ask for fewer roles"
    );
}

// Options.

fn with_options(x: &str, y: &str) -> Policy {
    let spec = |login: &str, options: &str| {
        let options = if options.is_empty() { String::new() } else { format!("options: {{{options}}}, ") };
        format!("{{{options}allow: {{logins: [{login}], node_labels: {{'*': '*'}}}}}}")
    };
    policy(&[bot("{roles: [x, z]}"), role("x", &spec("a", x)), role("z", &spec("b", y))])
}

fn ssh(policy: &Policy, roles: &[&str]) -> SshGrant {
    let request = [output("ssh", roles)];
    let grant = decide(policy, &request, 3600).unwrap();
    let ssh = grant.outputs[0].ssh.as_ref().unwrap();
    SshGrant {
        host: ssh.host,
        principals: ssh.principals.clone(),
        extensions: ssh.extensions.clone(),
        force_command: ssh.force_command.clone(),
        pin_source_ip: ssh.pin_source_ip,
    }
}

#[test]
fn an_extension_needs_every_role_that_gives_a_login() {
    let all = "forward_agent: true, port_forwarding: yes, permit_x11_forwarding: on, permit_pty: true";
    let sorted = ["permit-X11-forwarding", "permit-agent-forwarding", "permit-port-forwarding", "permit-pty"];
    assert!(sorted.is_sorted());
    assert_eq!(ssh(&with_options(all, all), &[]).extensions, sorted);
    let policy = with_options(all, "port_forwarding: true");
    assert_eq!(ssh(&policy, &[]).extensions, ["permit-port-forwarding", "permit-pty"]);
    assert_eq!(ssh(&policy, &["x"]).extensions, sorted);
    // Without options there is a terminal and nothing else.
    assert_eq!(ssh(&with_options("", ""), &[]).extensions, ["permit-pty"]);
    assert!(ssh(&with_options("permit_pty: false", all), &[]).extensions.is_empty());
}

#[test]
fn a_role_that_gives_no_login_has_no_say_in_extensions() {
    let x = "{options: {port_forwarding: true}, allow: {logins: [a], node_labels: {'*': '*'}}}";
    for y in [
        NOTHING,
        "{allow: {logins: [b]}}",
        "{allow: {logins: [b], node_labels: {'*': '*'}}, deny: {logins: [b]}}",
    ] {
        let policy = policy(&[bot("{roles: [x, z]}"), role("x", x), role("z", y)]);
        assert_eq!(ssh(&policy, &[]).extensions, ["permit-port-forwarding", "permit-pty"]);
    }
}

#[test]
fn a_restriction_of_one_role_holds_for_all() {
    let policy = with_options("pin_source_ip: true, force_command: /bin/deploy", "");
    let both = ssh(&policy, &[]);
    assert_eq!((both.pin_source_ip, both.force_command.as_deref()), (true, Some("/bin/deploy")));
    let one = ssh(&policy, &["z"]);
    assert_eq!((one.pin_source_ip, one.force_command), (false, None));
    // Even of one that gives no login of its own.
    let with = |x: &str| {
        let y = "{allow: {logins: [b], node_labels: {'*': '*'}}}";
        ssh(&self::policy(&[bot("{roles: [x, z]}"), role("x", x), role("z", y)]), &[])
    };
    assert!(with("{options: {pin_source_ip: true}}").pin_source_ip);
    assert_eq!(with("{options: {force_command: id}}").force_command.as_deref(), Some("id"));
}

#[test]
fn different_forced_commands_do_not_mix() {
    assert_eq!(
        ssh(&with_options("force_command: id", "force_command: id"), &[]).force_command.as_deref(),
        Some("id")
    );
    let policy = with_options("force_command: id", "force_command: ls");
    assert_eq!(ssh(&policy, &["z"]).force_command.as_deref(), Some("ls"));
    let denial = decide(&policy, &[output("ssh", &[])], 3600).unwrap_err();
    assert_eq!(denial.reason, Reason::OutputInvalid);
    assert_eq!(
        denial.told.unwrap(),
        "output `ssh`: roles `x` and `z` force different commands, and a certificate holds one; \
         ask for them in outputs of their own"
    );
}
