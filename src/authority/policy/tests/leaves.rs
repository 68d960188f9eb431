//! Leaf clusters: what is read, and what a job is vouched for.

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::json;

use super::fixture::{NOTHING, bot, identity, output, output_with, parse, policy, role};
use crate::authority::policy::{Grant, Policy, PolicyRequest};
use crate::denial::{Denial, Reason};
use crate::wire::LeafRequest;

const PIN: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// A leaf cluster.
fn leaf(name: &str, spec: &str) -> String {
    format!("\n---\nkind: leaf_cluster\nversion: v1\nmetadata: {{name: {name}}}\nspec: {spec}\n")
}

/// One with these hosts, whose URL is its own.
fn with_hosts(name: &str, hosts: &[impl AsRef<str>]) -> String {
    let hosts: Vec<String> = hosts.iter().map(|host| format!("'{}'", host.as_ref())).collect();
    leaf(name, &format!("{{url: 'https://{name}', hosts: [{}], roles: [x]}}", hosts.join(", ")))
}

fn asked(name: &str, roles: &[&str]) -> LeafRequest {
    let roles = roles.iter().map(|role| (*role).to_owned()).collect();
    LeafRequest { name: name.to_owned(), binding: "b".repeat(43), roles }
}

fn decide(policy: &Policy, leaves: &[LeafRequest]) -> Result<Grant, Denial> {
    let asked = PolicyRequest { outputs: &[], leaves, ttl_seconds: 3600, public_url: None };
    policy.decide(policy.token("ci").unwrap(), &identity(json!({})), &asked)
}

#[test]
fn the_contract_is_read() {
    let spec = "{url: 'https://Leaf.example.com:443/', ca_pin: '".to_owned()
        + &PIN.to_uppercase().replace("SHA", "sha")
        + "', hosts: ['*.leaf.example.com', db], roles: [x], static: true}";
    let policy = parse(&format!("{}{}", leaf("leaf.example.com", &spec), role("x", NOTHING))).unwrap();
    let leaf = policy.leaves().next().unwrap();
    assert_eq!((leaf.url.as_str(), leaf.ca_pin.as_deref()), ("https://leaf.example.com", Some(PIN)));
    let hosts: Vec<&str> = leaf.hosts.iter().map(|(host, _)| host.as_str()).collect();
    assert_eq!((hosts.as_slice(), leaf.is_static), (["*.leaf.example.com", "db"].as_slice(), true));
    assert!(leaf.roles.iter().eq(["x"]));
    assert_eq!(policy.summary(), "0 bots, 1 role, 0 join tokens, 1 leaf cluster from 1 file");
    assert!(policy.has("leaf.example.com") && !policy.has("other"));
}

#[test]
fn mistakes_of_a_leaf_cluster() {
    let x = role("x", NOTHING);
    let good = "{url: 'https://l', hosts: [db], roles: [x]}";
    parse(&format!("{}{x}", leaf("l", good))).unwrap();
    let form = "| a DNS name in lower case, or `*.DOMAIN` for all names below a domain of two labels or more";
    for (from, to, wanted) in [
        ("url: 'https://l', ", "", "p.yaml:6:7: the `spec` of `leaf_cluster` lacks `url`".to_owned()),
        ("hosts: [db], ", "", "p.yaml:6:7: the `spec` of `leaf_cluster` lacks `hosts`".to_owned()),
        (", roles: [x]", "", "p.yaml:6:7: the `spec` of `leaf_cluster` lacks `roles`".to_owned()),
        (
            "[x]",
            "[zz]",
            "p.yaml:6:47: there is no role `zz` | define it: `kind: role`".to_owned(),
        ),
        ("[x]", "[x, x]", "p.yaml:6:50: the role `x` is listed twice".to_owned()),
        ("[x]", "['*']", "p.yaml:6:47: there is no role `*` | define it: `kind: role`".to_owned()),
        (
            "roles:",
            "role: x, roles:",
            "p.yaml:6:39: the `spec` of `leaf_cluster` has no `role` | did you mean `roles`?".to_owned(),
        ),
        (
            "https:",
            "http:",
            "p.yaml:6:13: `url` must be https://HOST or https://HOST:PORT: it is not https | it is the `public_url` of the leaf's authority.yaml"
                .to_owned(),
        ),
        (
            "https://l",
            "https://l/x",
            "p.yaml:6:13: `url` must be https://HOST or https://HOST:PORT: something follows the host and port | it is the `public_url` of the leaf's authority.yaml"
                .to_owned(),
        ),
        (
            "hosts:",
            "ca_pin: 'sha256:0', hosts:",
            "p.yaml:6:34: `ca_pin`: the CA pin `sha256:0` is not `sha256:` and 64 hexadecimal digits | `machine-id authority export tls-ca-pin` prints the authority's; several have commas between them"
                .to_owned(),
        ),
        ("roles:", "static: maybe, roles:", "p.yaml:6:47: `static` must be true or false, not text".to_owned()),
        ("[db]", "[db, db]", "p.yaml:6:38: the host `db` is listed twice".to_owned()),
        ("[db]", "['*']", format!("p.yaml:6:34: `*` cannot stand in `hosts` of a leaf cluster {form}")),
        ("[db]", "['*.com']", format!("p.yaml:6:34: `*.com` cannot stand in `hosts` of a leaf cluster {form}")),
        ("[db]", "['db-*.a.b']", format!("p.yaml:6:34: `db-*.a.b` cannot stand in `hosts` of a leaf cluster {form}")),
        ("[db]", "[10.0.0.1]", format!("p.yaml:6:34: `10.0.0.1` cannot stand in `hosts` of a leaf cluster {form}")),
        ("[db]", "[DB.a.b]", format!("p.yaml:6:34: `DB.a.b` cannot stand in `hosts` of a leaf cluster {form}")),
    ] {
        assert!(good.contains(from));
        let text = format!("{}{x}", leaf("l", &good.replacen(from, to, 1)));
        assert_eq!(parse(&text).map(|_| ()).expect_err(&wanted), [wanted], "{text}");
    }
}

#[test]
fn two_leaves_have_nothing_in_common() {
    let told = |one: &[&str], other: &[&str]| {
        let text = format!("{}{}{}", with_hosts("a", one), with_hosts("b", other), role("x", NOTHING));
        parse(&text).map(|_| ()).err().unwrap_or_default()
    };
    assert_eq!(
        told(&["*.example.com"], &["db.example.com"]),
        [
            "p.yaml:12:34: `db.example.com` of leaf cluster `b` is a host of leaf cluster `a` too | `*.example.com` at p.yaml:6:34 covers it; a host is one cluster's, so that one CA is believed for it"
        ]
    );
    assert_eq!(told(&["x.y"], &["x.y"]).len(), 1);
    assert!(told(&["*.a.example.com", "db"], &["a.example.com", "*.b.example.com", "db-1"]).is_empty());
    // One leaf's own may.
    assert!(told(&["*.example.com", "db.example.com"], &["z"]).is_empty());
    let same = format!(
        "{}{}{}",
        leaf("a", "{url: 'https://l', hosts: [a], roles: [x]}"),
        leaf("b", "{url: 'https://L:443', hosts: [b], roles: [x]}"),
        role("x", NOTHING)
    );
    assert_eq!(
        parse(&same).map(|_| ()).unwrap_err(),
        [
            "p.yaml:11:18: leaf clusters `a` and `b` have the same `url` | the other is at p.yaml:5:18; an authority has one cluster"
        ]
    );
}

#[test]
fn no_authority_is_a_leaf_of_its_own() {
    let policy = parse(&format!("{}{}", with_hosts("leaf", &["db"]), role("x", NOTHING))).unwrap();
    let told =
        |cluster, url| policy.mistakes_at(cluster, url).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert!(told("root", "https://root").is_empty());
    assert_eq!(
        told("leaf", "https://root"),
        ["p.yaml:5:18: the leaf cluster `leaf` has this authority's own cluster"]
    );
    assert_eq!(
        told("root", "https://leaf"),
        ["p.yaml:5:18: the leaf cluster `leaf` has this authority's own `public_url`"]
    );
}

/// A bot of four roles, three of which go to the one leaf and two to the other.
fn company() -> Policy {
    policy(&[
        bot("{roles: [deploy, orders, admin, pinned], max_session_ttl: 2h}"),
        role("deploy", "{options: {max_session_ttl: 30m}}"),
        role("orders", "{options: {max_session_ttl: 12h}}"),
        role("admin", "{options: {require_session_mfa: true}}"),
        role("pinned", "{options: {pin_source_ip: true}}"),
        role("other", NOTHING),
        leaf("one", "{url: 'https://one', hosts: [db.one], roles: [deploy, orders, admin]}"),
        leaf("two", "{url: 'https://two', hosts: [db.two], roles: [admin, pinned]}"),
        leaf("far", "{url: 'https://far', hosts: [db.far], roles: [other]}"),
    ])
}

#[test]
fn a_job_is_vouched_for_with_the_roles_that_go_there() {
    let policy = company();
    let grant = decide(&policy, &[asked("one", &[])]).unwrap();
    let [leaf] = grant.leaves.as_slice() else { panic!("{grant:?}") };
    assert_eq!((leaf.roles.join(" "), leaf.ttl), ("deploy orders".to_owned(), 1800));
    assert_eq!((leaf.url.as_str(), leaf.hosts.as_slice()), ("https://one", ["db.one".to_owned()].as_slice()));
    assert_eq!(leaf.binding, "b".repeat(43));
    assert_eq!(grant.warnings.len(), 1, "{:?}", grant.warnings);
    // What is asked for by name, and of that what goes there.
    let grant = decide(&policy, &[asked("one", &["pinned", "orders"])]).unwrap();
    assert_eq!((grant.leaves[0].roles.join(" "), grant.leaves[0].ttl), ("orders".to_owned(), 3600));
    // Beside outputs, which are what they are without.
    let outputs = [output("identity", &["orders"])];
    let asked = PolicyRequest {
        outputs: &outputs,
        leaves: &[asked("one", &["orders"])],
        ttl_seconds: 600,
        public_url: None,
    };
    let grant = policy.decide(policy.token("ci").unwrap(), &identity(json!({})), &asked).unwrap();
    assert_eq!((grant.outputs[0].ttl, grant.leaves[0].ttl), (600, 600));
    let going = policy.leaves_of("deployer").into_iter().map(|(leaf, roles)| (leaf.name.as_str(), roles));
    assert_eq!(going.collect::<Vec<_>>(), [("one", vec!["deploy", "orders"])]);
}

#[test]
fn a_leaf_that_is_not_for_the_job_reads_as_one_that_is_not() {
    let policy = company();
    let refused = |leaf: LeafRequest| {
        // With one that it may go to: all or nothing.
        let denial = decide(&policy, &[asked("one", &[]), leaf]).map(|_| ()).unwrap_err();
        (
            denial.reason,
            denial.told.unwrap().replace("far", "NAME").replace("none-such", "NAME").replace("two", "NAME"),
        )
    };
    let [unknown, far, two] = ["none-such", "far", "two"].map(|name| refused(asked(name, &[])));
    assert_eq!(
        unknown,
        (Reason::LeafNotGranted, "leaf cluster `NAME`: none of this job's roles goes there".to_owned())
    );
    assert_eq!((&far, &two), (&unknown, &unknown));
    // So do roles: whether there is such a leaf, nobody hears who has none for it.
    for (role, reason) in
        [("other", Reason::RoleNotHeld), ("none", Reason::RoleNotHeld), ("admin", Reason::MfaRequired)]
    {
        let [unknown, far] = ["none-such", "far"].map(|name| refused(asked(name, &[role])));
        assert_eq!((unknown.0, &unknown), (reason, &far));
    }
    let detail = decide(&policy, &[asked("two", &[])]).map(|_| ()).unwrap_err().detail;
    assert!(detail.ends_with("name none of them but such as pin the source address"), "{detail}");
}

#[test]
fn no_token_is_for_a_leaf() {
    let policy = policy(&[
        bot("{roles: [x]}"),
        role("x", "{allow: {jwt_audiences: ['https://*', 'https://*/*', 'https://*#*']}}"),
        leaf("l", "{url: 'https://id.leaf.test:8443', hosts: [db], roles: [x]}"),
    ]);
    let ask = |audience: &str| {
        let outputs = [output_with("jwt", &[], &[("audience", audience)])];
        let asked = PolicyRequest { outputs: &outputs, leaves: &[], ttl_seconds: 600, public_url: None };
        policy.decide(policy.token("ci").unwrap(), &identity(json!({})), &asked).map(|_| ())
    };
    for audience in ["https://id.leaf.test", "https://sts.example.com"] {
        ask(audience).unwrap();
    }
    for audience in
        ["https://id.leaf.test:8443", "https://ID.leaf.test:8443/x", "https://id.leaf.test:8443#binding"]
    {
        assert_eq!(ask(audience).unwrap_err().reason, Reason::NothingGranted, "{audience}");
    }
}

/// Names and patterns of up to three labels, each of which is one of two.
fn pattern() -> impl Strategy<Value = String> {
    let labels = prop::collection::vec(select(&["a", "b"][..]), 1..=3);
    (labels, any::<bool>()).prop_map(|(labels, wild)| {
        let name = labels.join(".");
        if wild && labels.len() > 1 { format!("*.{name}") } else { name }
    })
}

/// Every name of up to four labels: below each pattern there is one.
fn names() -> Vec<String> {
    let mut all: Vec<String> = vec!["a".to_owned(), "b".to_owned()];
    for _ in 0..3 {
        let longer = all.iter().flat_map(|name| [format!("a.{name}"), format!("b.{name}")]);
        let longer: Vec<String> = longer.collect();
        all.extend(longer);
    }
    all
}

fn covers(pattern: &str, name: &str) -> bool {
    pattern.strip_prefix('*').map_or(pattern == name, |domain| name.ends_with(domain))
}

proptest! {
    /// A policy loads where no name is two leaves', and nowhere else.
    #[test]
    fn leaves_that_share_a_name_do_not_load(
        leaves in prop::collection::vec(prop::collection::btree_set(pattern(), 1..4), 1..4),
    ) {
        let leaves: Vec<Vec<String>> = leaves.into_iter().map(|hosts| hosts.into_iter().collect()).collect();
        let text: String = leaves.iter().enumerate().map(|(n, hosts)| with_hosts(&format!("l{n}"), hosts)).collect();
        let owners = |name: &String| leaves.iter().filter(|hosts| hosts.iter().any(|host| covers(host, name))).count();
        let shared: Vec<String> = names().into_iter().filter(|name| owners(name) > 1).collect();
        let loads = parse(&format!("{text}{}", role("x", NOTHING))).is_ok();
        prop_assert_eq!(loads, shared.is_empty(), "{:?} {:?}", leaves, shared);
    }
}
