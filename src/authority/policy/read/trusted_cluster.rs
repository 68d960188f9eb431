//! A trusted cluster's `spec`: whom it believes, its join method reads; here is what comes of it.

use super::bot;
use super::role::read_ttl;
use crate::authority::policy::resources::{Bot, JoinToken, MapLine, Origin, Policy, RoleMap};
use crate::document::{Mistake, Mistakes, Node, unknown};
use crate::join::{self, trusted_cluster};
use crate::text::shown_exactly;

/// The shortest `stale_after`, in seconds.
const MIN_STALE: u64 = 30;

/// All that a `spec` may have.
const KEYS: [&str; 9] = [
    "enabled",
    "url",
    "ca_pin",
    "static_jwks",
    "role_map",
    "max_session_ttl",
    "stale_after",
    "allow",
    "deny",
];

/// What Teleport has beside.
const ELSEWHERE: [(&str, &str); 5] = [
    (
        "token",
        "leave it out: nothing secret is exchanged; `ca_pin` and `url`, or `static_jwks`, say whom to believe",
    ),
    ("web_proxy_addr", "it is `url` here, the `public_url` of the root's own authority"),
    (
        "tunnel_addr",
        "leave it out: there is no tunnel; jobs reach this authority and its hosts by themselves",
    ),
    ("roles", "it is `role_map` here: which of the root's roles is which of these"),
    ("status", "leave it out: `tctl get` writes it, and it says nothing here"),
];

/// Reads it, as a join token of its method.
pub(super) fn read(name: String, origin: Origin, spec: &Node) -> Result<JoinToken, Mistakes> {
    let mut spec = spec.mapping("the `spec` of `trusted_cluster`")?;
    let verifier = trusted_cluster::read(&name, &mut spec);
    let lines = spec.require("role_map", read_map).unwrap_or_default();
    let max_ttl = spec.read("max_session_ttl", read_ttl);
    spec.read("stale_after", read_stale);
    for (key, _) in spec.rest() {
        let hint = ELSEWHERE.iter().find(|(other, _)| *other == key.text).map(|(_, hint)| *hint);
        let mistake = unknown(key, "the `spec` of `trusted_cluster`", &KEYS);
        spec.mistakes.add(hint.map_or_else(|| mistake.clone(), |hint| mistake.clone().hint(hint)));
    }
    let place = spec.place;
    spec.finish()?;
    let (Some(verifier), Some(method)) = (verifier, join::find(trusted_cluster::NAME)) else {
        return Err(Mistake::new(place, "the trusted cluster cannot be read").into());
    };
    let map = Some(RoleMap { lines, max_ttl });
    Ok(JoinToken { name, origin, bot: String::new(), method, verifier, max_uses: 1, map })
}

fn read_map(node: &Node, key: &'static str) -> Result<Vec<MapLine>, Mistakes> {
    let mut mistakes = Mistakes::default();
    let lines = node.list(key)?.iter();
    let lines = lines.filter_map(|line| mistakes.keep(read_line(line))).collect();
    mistakes.or(lines)
}

fn read_line(node: &Node) -> Result<MapLine, Mistakes> {
    let mut line = node.mapping("a line of `role_map`")?;
    let remote = line.require("remote", read_remote);
    let listed = line.require("local", Node::list).unwrap_or_default();
    let mut local = Vec::new();
    for node in listed {
        let Some(role) = line.mistakes.keep(node.text("local")) else { continue };
        if local.iter().any(|(name, _)| name == role) {
            let message = format!("the role `{}` is listed twice", shown_exactly(role));
            line.mistakes.add(Mistake::new(node.place, message));
        } else {
            local.push((role.to_owned(), node.place));
        }
    }
    line.finish()?;
    Ok(MapLine { place: node.place, remote: remote.unwrap_or_default(), local })
}

/// What could take no role would give nobody anything, whatever its author meant.
fn read_remote(node: &Node, key: &str) -> Result<String, Mistake> {
    let text = node.text(key)?;
    let is_letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_.-*?".contains(&b);
    if text.len() <= 64 && text.bytes().all(is_letter) {
        return Ok(text.to_owned());
    }
    let message = format!("`{}` can take no role of another cluster", shown_exactly(text));
    Err(Mistake::new(node.place, message)
        .hint("name a role, with the globs `*` and `?`; there are no regular expressions here"))
}

/// A field that is not obeyed is refused.
fn read_stale(node: &Node, key: &'static str) -> Result<(), Mistake> {
    if node.duration(key)? < MIN_STALE {
        return Err(Mistake::new(node.place, format!("`{key}` must be at least {MIN_STALE}s")));
    }
    Err(Mistake::new(node.place, format!("`{key}` is not supported yet")).hint(
        "leave it out: a lock at the root is not heard of here until its passports are no longer given",
    ))
}

/// Checks what the mapped roles give a bot that has no traits, once they are known.
pub(super) fn check(policy: &Policy, cluster: &JoinToken) -> Result<(), Mistakes> {
    let mut bot = Bot::new(format!("*@{}", cluster.name), cluster.origin.clone());
    let names = cluster.map.iter().flat_map(|map| &map.lines).flat_map(|line| &line.local);
    bot.roles.extend(names.filter_map(|(name, _)| policy.roles.get(name)).cloned());
    bot.roles.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    bot.roles.dedup_by(|a, b| a.name == b.name);
    bot::check(&bot)
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value, json};

    use crate::authority::policy::tests::fixture::{NOTHING, TOKEN, bot, output, parse, role};
    use crate::authority::policy::{Grant, Policy, PolicyRequest, Preview};
    use crate::denial::{Denial, Reason};
    use crate::join::verify::Identity;

    const MAP: &str = "role_map: [{remote: 'dep*', local: [one]}, {remote: '*', local: [two]}]";

    fn cluster(spec: &str) -> String {
        format!(
            "\n---\nkind: trusted_cluster\nversion: v2\nmetadata: {{name: root.test}}\nspec: {{{spec}}}\n"
        )
    }

    fn mistakes(spec: &str) -> Vec<String> {
        let roles = [role("one", NOTHING), role("two", NOTHING)].concat();
        let told = parse(&format!("{roles}{}", cluster(spec))).err().unwrap_or_default();
        told.into_iter().map(|mistake| mistake.split_once(": ").unwrap().1.to_owned()).collect()
    }

    #[test]
    fn mistakes_are_told() {
        let url = "url: 'https://root.test'";
        for spec in [
            format!("{url}, {MAP}"),
            format!("{url}, {MAP}, enabled: false, ca_pin: 'sha256:{0},sha256:{0}'", "a".repeat(64)),
            format!("{url}, {MAP}, max_session_ttl: 1h, deny: [{{provenance: {{ref: '*/evil/*', n: 7}}}}]"),
            format!(
                "{url}, {MAP}, allow: [{{bot: 'a?', join_method: '*'}}, {{provenance: {{a/b: 'x*', /c/d: true}}}}]"
            ),
        ] {
            assert_eq!(mistakes(&spec), Vec::<String>::new(), "{spec}");
        }
        let with = |more: &str| format!("{url}, {MAP}, {more}");
        let remote = "name a role, with the globs `*` and `?`; there are no regular expressions here";
        for (spec, wanted) in [
            (MAP.to_owned(), "the `spec` of `trusted_cluster` lacks `url`"),
            (url.to_owned(), "the `spec` of `trusted_cluster` lacks `role_map`"),
            (with("enabled: maybe"), "`enabled` must be true or false, not text"),
            (
                format!("url: 'http://root.test', {MAP}"),
                "`url` is not an authority's URL: it is not https | it is the `public_url` of the root's authority.yaml",
            ),
            (
                format!("url: 'https://root.test/', {MAP}"),
                "`url` is not an authority's URL: it is not as that one writes itself | write `https://root.test`",
            ),
            (
                format!("url: 'https://Root.test:443', {MAP}"),
                "`url` is not an authority's URL: it is not as that one writes itself | write `https://root.test`",
            ),
            (
                format!("url: 'https://root.test/x', {MAP}"),
                "`url` is not an authority's URL: something follows the host and port",
            ),
            (with("ca_pin: abc"), "`ca_pin`: the CA pin `abc` is not `sha256:` and 64 hexadecimal digits"),
            (with("static_jwks: '{}'"), "`static_jwks` is not a key set: it has no list `keys`"),
            (with("max_session_ttl: 8d"), "`max_session_ttl` must be between 10s and 7 days"),
            (with("stale_after: 29s"), "`stale_after` must be at least 30s"),
            (with("stale_after: 5m"), "`stale_after` is not supported yet | leave it out"),
            (with("allow: []"), "`allow` is empty"),
            (with("deny: []"), "`deny` is empty"),
            (with("allow: [{}]"), "a rule without conditions would let everybody in"),
            (with("deny: [{}]"), "a rule without conditions would keep everybody out"),
            (
                with("allow: [{repository: x}]"),
                "a rule has no `repository` | it may have: bot, join_method, provenance",
            ),
            (with("allow: [{provenance: {ref: '*/main'}}]"), "`ref` has a wildcard in front of other text"),
            (with("allow: [{provenance: {}}]"), "`provenance` is empty"),
            (with("deny: [{provenance: {a: ''}}]"), "`a` is empty"),
            (
                with("token: x"),
                "the `spec` of `trusted_cluster` has no `token` | leave it out: nothing secret is exchanged",
            ),
            (
                with("web_proxy_addr: 'r:443'"),
                "the `spec` of `trusted_cluster` has no `web_proxy_addr` | it is `url` here",
            ),
            (
                with("tunnel_addr: 'r:3024'"),
                "the `spec` of `trusted_cluster` has no `tunnel_addr` | leave it out: there is no tunnel",
            ),
            (with("roles: [x]"), "the `spec` of `trusted_cluster` has no `roles` | it is `role_map` here"),
            (
                with("enable: true"),
                "the `spec` of `trusted_cluster` has no `enable` | did you mean `enabled`?",
            ),
            (format!("{url}, role_map: []"), "`role_map` is empty"),
            (format!("{url}, role_map: [{{remote: a}}]"), "a line of `role_map` lacks `local`"),
            (format!("{url}, role_map: [{{local: [one]}}]"), "a line of `role_map` lacks `remote`"),
            (format!("{url}, role_map: [{{remote: a, local: []}}]"), "`local` is empty"),
            (
                format!("{url}, role_map: [{{remote: a, local: [one, one]}}]"),
                "the role `one` is listed twice",
            ),
            (
                format!("{url}, role_map: [{{remote: a, local: [ont]}}]"),
                "there is no role `ont` | did you mean `one`?",
            ),
            (
                format!("{url}, role_map: [{{remote: '^a$', local: [one]}}]"),
                &format!("`^a$` can take no role of another cluster | {remote}"),
            ),
            (
                format!("{url}, role_map: [{{remote: Deploy, local: [one]}}]"),
                "`Deploy` can take no role of another cluster",
            ),
        ] {
            let told = mistakes(&spec);
            assert!(told.len() == 1 && told[0].starts_with(wanted), "{spec}: {told:#?}");
        }
    }

    #[test]
    fn a_name_is_one_tokens_or_one_clusters_and_no_token_is_of_the_method() {
        let parts = [bot("{roles: [one]}"), role("one", NOTHING), role("two", NOTHING)].concat();
        let spec = format!("url: 'https://root.test', {MAP}");
        let same = cluster(&spec).replace("root.test}", "ci}");
        let told = parse(&format!("{parts}{TOKEN}{same}")).unwrap_err();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(
            told[0].contains(
                "the trusted cluster `ci` has the name of the join token `ci` | that is at p.yaml:"
            ),
            "{told:?}"
        );
        let token = TOKEN.replace("join_method: github", "join_method: trusted_cluster");
        let told = parse(&format!("{parts}{token}")).unwrap_err();
        assert!(
            told[0].ends_with("no join token is of the join method `trusted_cluster` | jobs of another cluster come by a resource of their own: `kind: trusted_cluster`"),
            "{told:?}"
        );
        let twice = format!("{parts}{0}{0}", cluster(&spec));
        assert!(parse(&twice).unwrap_err()[0].contains("the trusted_cluster `root.test` is defined twice"));
        let policy = parse(&format!("{parts}{TOKEN}{}", cluster(&spec))).unwrap();
        assert_eq!(policy.summary(), "1 bot, 2 roles, 1 join token, 1 trusted cluster from 1 file");
        for (cluster, url, what) in
            [("root.test", "https://x", "cluster"), ("x", "https://root.test", "`public_url`")]
        {
            let told = policy.mistakes_at(cluster, url);
            assert!(
                told.len() == 1 && told[0].to_string().ends_with(&format!("is this authority's own {what}")),
                "{told:?}"
            );
        }
        assert!(policy.mistakes_at("leaf.test", "https://leaf.test").is_empty());
    }

    fn claims(roles: &Value) -> Map<String, Value> {
        let claims = json!({
            "iss": "https://root.test", "sub": "spiffe://root.test/bot/deployer", "jti": "7", "cluster": "root.test",
            "bot": "deployer", "roles": roles, "join_token": "ci", "join_method": "github", "issuance_id": "i-1",
            "grant_expires_at": 7, "provenance": {"line": "github:o/r", "claims": {"a/b": "x"}},
        });
        claims.as_object().unwrap().clone()
    }

    fn granted(policy: &Policy, roles: &Value) -> Result<Grant, Denial> {
        let asked = PolicyRequest {
            outputs: &[output("ssh", &[])],
            leaves: &[],
            ttl_seconds: 3600,
            public_url: None,
        };
        policy.decide(policy.token("root.test").unwrap(), &Identity::for_test(claims(roles)), &asked)
    }

    fn policy(more: &str) -> Policy {
        let logs_in = |login: &str| {
            format!("{{allow: {{logins: [{login}, '{{{{internal.logins}}}}'], node_labels: {{'*': '*'}}}}}}")
        };
        let own = bot("{roles: [one], traits: [{name: logins, values: [secret]}]}");
        let parts = [own, role("one", &logs_in("a")), role("two", &logs_in("b")), TOKEN.to_owned()].concat();
        let map = "role_map: [{remote: 'dep*', local: [one]}, {remote: 'r?', local: [two]}]";
        parse(&format!("{parts}{}", cluster(&format!("url: 'https://root.test', {map}{more}")))).unwrap()
    }

    #[test]
    fn every_line_that_takes_a_role_gives_its_own_and_nothing_else_does() {
        let policy = policy("");
        for (roles, logins) in [
            (json!(["deploy"]), &["a"][..]),
            (json!(["dep", "rx"]), &["a", "b"]),
            (json!(["rx", "rx", "other"]), &["b"]),
        ] {
            let grant = granted(&policy, &roles).unwrap();
            assert_eq!(grant.bot, "deployer@root.test");
            assert_eq!(grant.spiffe_path(), "remote/root.test/bot/deployer");
            assert_eq!(grant.until, Some(7));
            assert_eq!(grant.outputs[0].ssh.as_ref().unwrap().principals, logins, "{roles}");
        }
        for roles in [json!(["one", "two", "r", "rxx", "xdep"]), json!([])] {
            let denial = granted(&policy, &roles).unwrap_err();
            assert_eq!(denial.reason, Reason::RoleNotMapped, "{roles}");
            assert!(denial.told.unwrap().starts_with("the proof has the roles"));
            assert!(
                denial.detail.contains("\nline at p.yaml:")
                    && denial.detail.contains("`dep*` would give one")
            );
        }
        // Of this cluster's own bots nothing is another.
        let own = Preview {
            bot: "deployer".to_owned(),
            ..granted(&policy, &json!(["dep"]))
                .map(|grant| Preview {
                    bot: String::new(),
                    token: String::new(),
                    until: grant.until,
                    outputs: Vec::new(),
                    leaves: Vec::new(),
                    warnings: Vec::new(),
                })
                .unwrap()
        };
        assert_eq!(own.spiffe_path(), "bot/deployer");
    }

    #[test]
    fn deny_wins_and_is_as_wide_as_it_is_written() {
        let is_let_in = |more: &str| match granted(&policy(&format!(", {more}")), &json!(["deploy"])) {
            Ok(_) => true,
            Err(denial) => {
                assert_eq!(denial.reason, Reason::NoRuleMatches, "{more}");
                false
            }
        };
        for (more, wanted) in [
            ("allow: [{bot: 'dep*'}]", true),
            ("allow: [{bot: dep}, {join_method: github}]", true),
            ("allow: [{bot: deployer, join_method: gitlab}]", false),
            ("allow: [{provenance: {a/b: x}}]", true),
            ("allow: [{provenance: {/a~1b: x}}]", true),
            ("allow: [{provenance: {a: x}}]", false),
            ("allow: [{provenance: {bot: deployer}}]", false),
            ("deny: [{bot: other}]", true),
            ("deny: [{bot: deployer, join_method: gitlab}]", true),
            ("deny: [{bot: '*'}]", false),
            ("deny: [{provenance: {a/b: '?'}}]", false),
            ("allow: [{bot: deployer}], deny: [{provenance: {a/b: '*x'}}]", false),
        ] {
            assert_eq!(is_let_in(more), wanted, "{more}");
        }
    }
}
