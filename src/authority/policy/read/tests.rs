use crate::authority::policy::tests::fixture::{NOTHING, TOKEN, bot, parse, role};
use crate::authority::policy::{Policy, Source};

/// The contract's example, with everything in it that this issue knows.
const EXAMPLE: &str = r#"
kind: bot
version: v1
metadata: {name: deployer, description: deploys, labels: {team: web}}
spec:
  roles: [deploy, orders]
  traits: [{name: logins, values: [ubuntu]}]
  max_session_ttl: 12h
---
kind: role
version: v7
metadata: {name: deploy}
spec:
  options: {max_session_ttl: 1h, require_session_mfa: no, forward_agent: false, port_forwarding: true,
    permit_x11_forwarding: off, permit_pty: yes, pin_source_ip: true, force_command: /usr/bin/deploy --now}
  allow:
    logins: ['{{internal.logins}}', deploy]
    node_labels: {env: prod}
    app_labels: {'*': '*'}
    db_users: ['{{internal.db_users}}', app]
    db_names: ['*']
    kubernetes_users: ['{{external.kube}}']
    kubernetes_groups: ['system:masters']
    ssh_host_principals: ['*.example.com']
  deny: {logins: [root, 'adm*'], db_users: [postgres]}
---
kind: role
version: v7
metadata: {name: orders}
spec: {options: {permit_pty: yes}}
---
kind: token
version: v2
metadata: {name: github-deploy}
spec:
  roles: [Bot]
  bot_name: deployer
  join_method: github
  github:
    require_key_binding: true
    allow:
      - repository: octo-org/app
        ref: refs/heads/main
        environment: production
---
kind: cluster_auth_preference
version: v2
metadata: {name: cluster-auth-preference}
spec: {require_session_mfa: false}
"#;

#[test]
fn the_contract_is_read() {
    let policy = parse(EXAMPLE).unwrap();
    let token = policy.token("github-deploy").unwrap();
    assert_eq!(
        (token.name.as_str(), token.bot.as_str(), token.method.name),
        ("github-deploy", "deployer", "github")
    );
    assert_eq!(token.origin.to_string(), "p.yaml:34:18");
    assert_eq!(token.verifier.rules().len(), 1);
    assert_eq!(policy.tokens().count(), 1);
    assert!(policy.token("other").is_none());
    assert!(format!("{token:?}").contains("\"github\""));
}

/// One mistake and no other; `|` stands before a hint.
fn told(text: &str, wanted: &str) {
    let mistakes = parse(text).map(|_| ()).expect_err(wanted);
    assert_eq!(mistakes, [wanted], "{text}");
}

/// As [`told`], where only the beginning matters.
fn begins(text: &str, wanted: &str) {
    let mistakes = parse(text).map(|_| ()).expect_err(wanted);
    assert_eq!(mistakes.len(), 1, "{mistakes:?}");
    assert!(mistakes[0].starts_with(wanted), "{mistakes:?}");
}

#[test]
fn mistakes_of_any_resource() {
    for (text, wanted) in [
        ("- a\n", "p.yaml:1:1: a resource must be a mapping, not a list"),
        ("version: v1\n", "p.yaml:1:1: a resource lacks `kind`"),
        ("kind: rule\n", "p.yaml:1:7: there is no kind of resource `rule` | did you mean `role`?"),
        (
            "kind: xyz\n",
            "p.yaml:1:7: there is no kind of resource `xyz` | there are: bot, role, token, cluster_auth_preference, leaf_cluster, trusted_cluster",
        ),
        ("kind: 7\n", "p.yaml:1:7: `kind` must be text, not a number | put the value of `kind` in quotes"),
        (
            "{kind: role, version: v9, metadata: {name: a}, spec: {deny: {logins: [a]}}}",
            "p.yaml:1:23: a role of version `v9` is not known here | write `version: v7`",
        ),
        (
            "{kind: role, metadata: {name: a}, spec: {deny: {logins: [a]}}}",
            "p.yaml:1:1: a resource lacks `version`",
        ),
        ("{kind: role, version: v7, spec: {deny: {logins: [a]}}}", "p.yaml:1:1: a resource lacks `metadata`"),
        ("{kind: role, version: v7, metadata: {name: a}}", "p.yaml:1:1: a resource lacks `spec`"),
        (
            "{kind: role, version: v7, metadata: {labels: {a: b}}, spec: {deny: {logins: [a]}}}",
            "p.yaml:1:37: `metadata` lacks `name`",
        ),
        (
            "{kind: role, version: v7, metadata: {name: a}, spec: {deny: {logins: [a]}}, specs: {a: b}}",
            "p.yaml:1:77: a resource has no `specs` | did you mean `spec`?",
        ),
        (
            "{kind: role, version: v7, metadata: {name: a, expires: never}, spec: {deny: {logins: [a]}}}",
            "p.yaml:1:47: `metadata` has no `expires` | no resource ends by itself here: leave it out, and take the resource out of the policy in time",
        ),
        (
            "{kind: role, version: v7, metadata: {name: a, labels: {x: 1}}, spec: {deny: {logins: [a]}}}",
            "p.yaml:1:59: `labels` must be text, not a number | put the value of `labels` in quotes",
        ),
        (
            "{kind: role, version: v7, metadata: {name: A}, spec: {deny: {logins: [a]}}}",
            "p.yaml:1:44: `A` cannot be the name of a role | lower-case letters, digits, `_`, `.` and `-`, beginning with a letter or digit, at most 64",
        ),
        (
            "{kind: cluster_auth_preference, version: v2, metadata: {name: mine}, spec: {require_session_mfa: no}}",
            "p.yaml:1:63: the name of a cluster_auth_preference is `cluster-auth-preference`, not `mine`",
        ),
        (
            "{kind: cluster_auth_preference, version: v2, metadata: {name: cluster-auth-preference}, spec: {type: local}}",
            "p.yaml:1:96: the `spec` of `cluster_auth_preference` has no `type` | it may have: require_session_mfa",
        ),
        (
            "{kind: trusted_cluster, version: v2, metadata: {name: root.example.com}, spec: {url: 'https://r', role_map: [{remote: a, local: [b]}]}}",
            "p.yaml:1:130: there is no role `b` | define it: `kind: role`",
        ),
    ] {
        told(text, wanted);
    }
    begins("kind: [\n", "p.yaml:");
    begins("kind: role\nkind: role\n", "p.yaml:2:1: ");
}

#[test]
fn names_are_unique_over_files() {
    let file = |name: &str, text: String| Source { name: name.to_owned(), text };
    let errors = Policy::parse(&[
        file("a.yaml", role("x", NOTHING)),
        file("b.yaml", format!("# again{}", role("x", NOTHING))),
        // Of another kind, it is another name.
        file("c.yaml", "{kind: bot, version: v1, metadata: {name: x}, spec: {roles: [x]}}\n".to_owned()),
    ])
    .unwrap_err();
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0].to_string(), "b.yaml:5:18: the role `x` is defined twice");
    assert_eq!(errors[0].hints(), ["it is also at a.yaml:5:18; rename or remove one"]);
}

#[test]
fn every_mistake_of_every_file_is_told_in_order() {
    let file = |name: &str, text: String| Source { name: name.to_owned(), text };
    let errors = Policy::parse(&[
        file(
            "a.yaml",
            format!(
                "{}{}",
                bot("{roles: [depoly], max_session_ttl: 1d1, trait: []}"),
                role("deploy", "{x: 1, y: 2}")
            ),
        ),
        file("b.yaml", "kind: [\n".to_owned()),
        file("c.yaml", TOKEN.replace("deployer", "deplyer").replace("ci", "Ci")),
    ])
    .unwrap_err();
    let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let begins = [
        "a.yaml:6:16: there is no role `depoly`",
        "a.yaml:6:42: `max_session_ttl`: `1d1` is not a duration",
        "a.yaml:6:47: the bot's `spec` has no `trait`",
        "a.yaml:12:8: the role's `spec` has no `x`",
        "a.yaml:12:14: the role's `spec` has no `y`",
        "b.yaml:",
        "c.yaml:5:18: `Ci` cannot be the name of a token",
        "c.yaml:8:13: there is no bot `deplyer`",
    ];
    assert_eq!(told.len(), begins.len(), "{told:#?}");
    for (told, begin) in told.iter().zip(begins) {
        assert!(told.starts_with(begin), "{told} / {begin}");
    }
    assert_eq!(errors[0].hints(), ["did you mean `deploy`?"]);
    assert_eq!(errors[7].hints(), ["did you mean `deployer`?"]);
}

#[test]
fn mistakes_of_a_bot() {
    let x = role("x", "{allow: {logins: ['{{internal.logins}}'], node_labels: {'*': '*'}}}");
    let give = "give it a value, or leave it out";
    let shape =
        "a login has letters, digits, `.`, `_` and `-`, and begins with a letter, a digit or `_`, at most 64";
    for (spec, wanted) in [
        ("[a]", "p.yaml:6:7: the bot's `spec` must be a mapping, not a list".to_owned()),
        ("{max_session_ttl: 1h}", "p.yaml:6:7: the bot's `spec` lacks `roles`".to_owned()),
        ("{roles: []}", format!("p.yaml:6:15: `roles` is empty | {give}")),
        ("{roles: x}", "p.yaml:6:15: `roles` must be a list, not text".to_owned()),
        ("{roles: [x, x]}", "p.yaml:6:19: the role `x` is listed twice".to_owned()),
        ("{roles: [zzz]}", "p.yaml:6:16: there is no role `zzz` | define it: `kind: role`".to_owned()),
        (
            "{roles: [x], max_session_ttl: 8d}",
            "p.yaml:6:37: `max_session_ttl` must be between 10s and 7 days".to_owned(),
        ),
        ("{roles: [x], traits: [a]}", "p.yaml:6:29: a trait must be a mapping, not text".to_owned()),
        ("{roles: [x], traits: [{values: [a]}]}", "p.yaml:6:29: a trait lacks `name`".to_owned()),
        (
            "{roles: [x], traits: [{name: a b, values: [a]}]}",
            "p.yaml:6:36: `a b` cannot be the name of a trait | letters, digits, `_` and `-`, at most 64"
                .to_owned(),
        ),
        (
            "{roles: [x], traits: [{name: a, value: [a]}]}",
            "p.yaml:6:39: a trait has no `value` | did you mean `values`?".to_owned(),
        ),
        (
            "{roles: [x], traits: [{name: a, values: [a]}, {name: a, values: [b]}]}",
            "p.yaml:6:53: the trait `a` is listed twice".to_owned(),
        ),
        (
            "{roles: [x], traits: [{name: a, values: ['']}]}",
            format!("p.yaml:6:48: `values` is empty | {give}"),
        ),
        (
            "{roles: [x], traits: [{name: logins, values: ['*']}]}",
            format!(
                "p.yaml:6:53: the trait `logins` makes a login of `*` in role `x`, which cannot be one | {shape}"
            ),
        ),
        (
            "{roles: [x], traits: [{name: logins, values: ['a,b']}]}",
            format!(
                "p.yaml:6:53: the trait `logins` makes a login of `a,b` in role `x`, which cannot be one | {shape}"
            ),
        ),
    ] {
        told(&format!("{}{x}", bot(spec)), &wanted);
    }
    let long = "x".repeat(61);
    told(
        &format!("{}{x}", bot("{roles: [x]}").replace("deployer", &long)),
        "p.yaml:5:18: the name of a bot has at most 60 bytes | with `bot:` it must fit a certificate's common name",
    );
    // A value that no login is made of may be anything printable.
    parse(&format!("{}{x}", bot("{roles: [x], traits: [{name: kube, values: ['system:masters']}]}")))
        .unwrap();
}

#[test]
fn a_role_gives_no_more_principals_than_its_bound() {
    let logins = |count: usize| (0..count).map(|n| format!("u{n}")).collect::<Vec<_>>().join(", ");
    let wanted = "p.yaml:5:18: the role `x` gives the bot `deployer` more than 64 principals";
    for (labels, count) in [("{'*': '*'}", 64), ("{env: [a, b]}", 32)] {
        let x =
            role("x", &format!("{{allow: {{logins: ['{{{{internal.logins}}}}'], node_labels: {labels}}}}}"));
        let with = |count| {
            format!(
                "{}{x}",
                bot(&format!("{{roles: [x], traits: [{{name: logins, values: [{}]}}]}}", logins(count)))
            )
        };
        parse(&with(count)).unwrap();
        begins(&with(count + 1), wanted);
    }
}

#[test]
fn mistakes_of_a_role() {
    for (spec, wanted) in [
        ("{option: {a: b}}", "p.yaml:6:8: the role's `spec` has no `option` | did you mean `options`?"),
        ("{options: [a]}", "p.yaml:6:17: `options` must be a mapping, not a list"),
        (
            "{options: {permit_pyt: true}}",
            "p.yaml:6:18: `options` has no `permit_pyt` | did you mean `permit_pty`?",
        ),
        ("{options: {permit_pty: maybe}}", "p.yaml:6:30: `permit_pty` must be true or false, not text"),
        (
            "{options: {require_session_mfa: hardware_key}}",
            "p.yaml:6:39: `require_session_mfa` must be true or false, not text",
        ),
        ("{options: {max_session_ttl: 9s}}", "p.yaml:6:35: `max_session_ttl` must be between 10s and 7 days"),
        (
            "{options: {max_session_ttl: 169h}}",
            "p.yaml:6:35: `max_session_ttl` must be between 10s and 7 days",
        ),
        ("{options: {max_session_ttl: 0s}}", "p.yaml:6:35: `max_session_ttl`: must be longer than zero"),
        ("{options: {force_command: ' '}}", "p.yaml:6:33: `force_command` is empty"),
        (
            "{options: {force_command: \"a\\nb\"}}",
            "p.yaml:6:33: `force_command` must be one line without control characters",
        ),
        ("{allow: {login: [a]}}", "p.yaml:6:16: `allow` has no `login` | did you mean `logins`?"),
        ("{allow: {logins: a}}", "p.yaml:6:24: `logins` must be a list, not text"),
        (
            "{allow: {logins: [ok, 7]}}",
            "p.yaml:6:29: `logins` must be text, not a number | put the value of `logins` in quotes",
        ),
        (
            "{allow: {logins: ['*']}}",
            "p.yaml:6:25: `logins`: `*` has a wildcard, which a login cannot have | name each login; no certificate can say \"any login\"",
        ),
        (
            "{allow: {logins: ['{{internal.login}}']}}",
            "p.yaml:6:25: `logins`: there is no internal trait `login` | did you mean `logins`?",
        ),
        (
            "{allow: {db_users: ['{{user.name}}']}}",
            "p.yaml:6:27: `db_users`: `{{user.name}}` is not a template that is known here | a template is `{{internal.NAME}}` or `{{external.NAME}}`",
        ),
        (
            "{allow: {kubernetes_groups: ['']}}",
            "p.yaml:6:36: `kubernetes_groups` is empty | give it a value, or leave it out",
        ),
        (
            "{deny: {logins: ['root,admin']}}",
            "p.yaml:6:24: `root,admin` in `deny.logins` can match no login | deny takes logins and globs (`*`, `?`), one an entry, and no templates",
        ),
        (
            "{deny: {logins: ['{{internal.logins}}']}}",
            "p.yaml:6:24: `{{internal.logins}}` in `deny.logins` can match no login | deny takes logins and globs (`*`, `?`), one an entry, and no templates",
        ),
        (
            "{deny: {node_labels: {env: prod}}}",
            "p.yaml:6:28: `deny.node_labels` is not supported | say in `allow.node_labels` where the role holds, and leave out the rest",
        ),
        (
            "{deny: {node_lables: {}}}",
            "p.yaml:6:15: `deny` has no `node_lables` | did you mean `node_labels`?",
        ),
    ] {
        told(&role("x", spec), wanted);
    }
    begins(
        &role("x", &format!("{{options: {{force_command: {}}}}}", "x".repeat(1025))),
        "p.yaml:6:33: `force_command` is longer",
    );
}

#[test]
fn mistakes_of_labels() {
    let shape = "a label has letters, digits, `_`, `.`, `/`, `:` and `-`; wildcards only as `{'*': '*'}`";
    let alone = "`*` in `node_labels` stands alone, as `{'*': '*'}` | name the labels, or allow every host";
    for (labels, wanted) in [
        ("[a]", "p.yaml:6:29: `node_labels` must be a mapping, not a list".to_owned()),
        (
            "{env: 1}",
            "p.yaml:6:35: `env` must be text, not a number | put the value of `env` in quotes".to_owned(),
        ),
        ("{env: []}", "p.yaml:6:35: `env` is empty | give it a value, or leave it out".to_owned()),
        ("{env: ['']}", "p.yaml:6:36: `env` is empty | give it a value, or leave it out".to_owned()),
        (
            "{env: '*'}",
            format!("p.yaml:6:35: the value `*` in `node_labels` cannot be part of a label | {shape}"),
        ),
        (
            "{env: 'a,b=c'}",
            format!("p.yaml:6:35: the value `a,b=c` in `node_labels` cannot be part of a label | {shape}"),
        ),
        (
            "{'e@v': a}",
            format!("p.yaml:6:30: the key `e@v` in `node_labels` cannot be part of a label | {shape}"),
        ),
        ("{'*': prod}", format!("p.yaml:6:30: {alone}")),
        ("{'*': '*', env: prod}", format!("p.yaml:6:30: {alone}")),
        ("{'*': ['*', a]}", format!("p.yaml:6:30: {alone}")),
    ] {
        told(&role("x", &format!("{{allow: {{node_labels: {labels}}}}}")), &wanted);
    }
    let five = "[a, b, c, d, e]";
    begins(
        &role("x", &format!("{{allow: {{node_labels: {{a: {five}, b: {five}, c: {five}}}}}}}")),
        "p.yaml:6:29: `node_labels` stands for more than 64 sets of labels",
    );
    begins(
        &role("x", "{allow: {app_labels: {a: 'x y'}}}"),
        "p.yaml:6:32: the value `x y` in `app_labels` cannot be part of a label",
    );
}

#[test]
fn mistakes_of_a_token() {
    let rest = format!("{}{}", bot("{roles: [x]}"), role("x", NOTHING));
    let good = "roles: [Bot], bot_name: deployer, join_method: github, github: {allow: [{repository: octo-org/app}]}";
    let token =
        |spec: &str| format!("kind: token\nversion: v2\nmetadata: {{name: ci}}\nspec: {{{spec}}}\n{rest}");
    parse(&token(good)).unwrap();
    for (from, to, wanted) in [
        ("roles: [Bot], ", "", "p.yaml:4:7: the token's `spec` lacks `roles`"),
        ("[Bot]", "[Node]", "p.yaml:4:15: `roles` of a token must be [Bot]"),
        ("[Bot]", "[Bot, Node]", "p.yaml:4:15: `roles` of a token must be [Bot]"),
        ("[Bot]", "[]", "p.yaml:4:15: `roles` is empty | give it a value, or leave it out"),
        ("bot_name: deployer, ", "", "p.yaml:4:7: the token's `spec` lacks `bot_name`"),
        ("deployer", "deploier", "p.yaml:4:32: there is no bot `deploier` | did you mean `deployer`?"),
        ("deployer", "zzz", "p.yaml:4:32: there is no bot `zzz` | define it: `kind: bot`"),
        (
            "join_method: github",
            "join_method: githab",
            "p.yaml:4:55: there is no join method `githab` | did you mean `github`?",
        ),
        ("bot_name", "max_uses: 0, bot_name", "p.yaml:4:32: `max_uses` must be a number from 1 to 100"),
        ("bot_name", "max_uses: many, bot_name", "p.yaml:4:32: `max_uses` must be a number from 1 to 100"),
        (
            "github: {",
            "max_uses: 2, github: {require_key_binding: true, ",
            "p.yaml:4:73: `max_uses` is for proofs that are not bound to keys, and this token takes no others | leave it out: each request of a job brings a proof of its own",
        ),
        (
            "github: {",
            "circleci: {a: b}, github: {",
            "p.yaml:4:73: `circleci` is not the section of this token | its `join_method` is `github`, so its section is `github`",
        ),
        (
            "bot_name",
            "bot_name: deployer, bot",
            "p.yaml:4:42: the token's `spec` has no `bot` | did you mean `bot_name`?",
        ),
    ] {
        assert!(good.contains(from));
        let mistakes = parse(&token(&good.replacen(from, to, 1))).map(|_| ()).expect_err(wanted);
        assert!(mistakes.iter().any(|told| told == wanted), "{mistakes:#?} / {wanted}");
    }
    // The section's own mistakes are the method's; here it is only that they arrive.
    for (spec, wanted) in [
        (
            "roles: [Bot], bot_name: deployer, join_method: github",
            "p.yaml:4:7: the token lacks its section `github` | `github` lacks `allow`",
        ),
        (
            "roles: [Bot], bot_name: deployer, join_method: github, github: [a]",
            "p.yaml:4:71: `github` must be a mapping, not a list",
        ),
    ] {
        // A mapping's place in the brackets of one line.
        told(&token(spec), wanted);
    }
    begins(
        &token("roles: [Bot], bot_name: deployer, join_method: zzz"),
        "p.yaml:4:55: there is no join method `zzz` | there are: github",
    );
    begins(&token(&good.replace("repository:", "repositry:")), "p.yaml:4:");
    begins(&token(&good.replace("{allow", "{allows: [], allow")), "p.yaml:4:");
}

#[test]
fn many_mistakes_are_all_told_and_the_first_explained() {
    let tokens: String = (0..150)
        .map(|n| TOKEN.replace("name: ci", &format!("name: t{n}")).replace("deployer", "deploier"))
        .collect();
    let mistakes = parse(&format!("{}{}{tokens}", bot("{roles: [x]}"), role("x", NOTHING))).unwrap_err();
    assert_eq!(mistakes.len(), 150);
    assert!(mistakes[0].ends_with("| did you mean `deployer`?"), "{}", mistakes[0]);
    assert!(mistakes[149].ends_with("| define it: `kind: bot`"), "{}", mistakes[149]);
}
