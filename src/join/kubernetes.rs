//! Kubernetes: pods, by the service account tokens that the kubelet puts into
//! their projected volumes.

use std::path::Path;
use std::sync::Arc;

use futures_util::future::{FutureExt as _, ready};
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

use super::issuers::KeySet;
use super::jwt::text;
use super::method::{Configured, Method};
use super::oidc::{Oidc, TokenProfile, issuer_url, key_set};
use super::rules::{Condition, Field, Match, OWNER, Saying, Shape, UUID, claim};
use super::source::TokenSource;
use crate::document::{Mapping, Mistake};
use crate::environment::Environment;
use crate::error::{Error, Kind};
use crate::text::{shown, which_of};

/// Where the projected volume's token is, unless [`PATH_VARIABLE`] says otherwise.
const TOKEN_PATH: &str = "/var/run/secrets/tokens/machine-id";
/// Teleport's name for it.
const PATH_VARIABLE: &str = "KUBERNETES_TOKEN_PATH";
/// What the kubelet tells every container.
const HOST_VARIABLE: &str = "KUBERNETES_SERVICE_HOST";
/// The issuer of kubeadm, k3s and kind; managed clusters have URLs of their own.
const DEFAULT_ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// The issuer of tokens that are kept in secrets and never end.
const LEGACY_ISSUER: &str = "kubernetes/serviceaccount";
const SUBJECT: &str = "system:serviceaccount:";
const NAMESPACE: &str = "/kubernetes.io/namespace";
const ACCOUNT: &str = "/kubernetes.io/serviceaccount/name";
const ACCOUNT_UID: &str = "/kubernetes.io/serviceaccount/uid";
const POD: &str = "/kubernetes.io/pod/name";
const POD_UID: &str = "/kubernetes.io/pod/uid";

/// A name of RFC 1123.
const OBJECT: Shape = Shape::new(&["{host}"], "the object's name, in small letters");

/// Names of pods end at random and nodes come in pools, so these take wildcards.
static FIELDS: &[Field] = &[
    // `NAMESPACE:NAME`, as Teleport has it; compared with the whole subject.
    Field::new(SERVICE_ACCOUNT, Match::Within("system:serviceaccount:{}"))
        .claim("sub")
        .constrains(&[OWNER])
        .says(of_subject),
    Field::exact("service_account_uid").claim(ACCOUNT_UID).constrains(&[OWNER]).shape(UUID),
    Field::exact("namespace").claim(NAMESPACE).constrains(&[OWNER]).shape(OBJECT),
    Field::glob("pod_name").claim(POD).shape(OBJECT),
    Field::exact("pod_uid").claim(POD_UID).shape(UUID),
    // Since Kubernetes 1.30.
    Field::glob("node_name").claim("/kubernetes.io/node/name").shape(OBJECT),
    Field::exact("node_uid").claim("/kubernetes.io/node/uid").shape(UUID),
];
const SERVICE_ACCOUNT: &str = "service_account";

/// The join method `kubernetes`.
pub(super) static METHOD: Method = Method {
    detects: |env| env.get(HOST_VARIABLE).is_some() && source(env).is_some(),
    source,
    telling: &["kubernetes.io"],
    fields: FIELDS,
    issuers: &[DEFAULT_ISSUER],
    is_ci: false,
    runs: &["/kubernetes.io/pod/uid"],
    ..Method::new(
        "kubernetes",
        "Kubernetes: pods with a projected service account token",
        |job| ready(Err(no_token(job.env))).boxed(),
        configure,
    )
};

/// Whoever may run a pod in any namespace has a token of this issuer.
static PROFILE: TokenProfile = TokenProfile {
    // What kube-apiserver signs with, but for ES512.
    algorithms: &[Algorithm::RS256, Algorithm::ES256, Algorithm::ES384],
    // A volume's live an hour unless it says otherwise; those for the API server,
    // that are stretched to a year, are not for us.
    max_lifetime: 2 * 3600,
    // kube-apiserver writes a list, of one where one was asked for.
    required: &[],
    check,
    ownerless: Some((
        "a rule does not say whose pods may join",
        "add `service_account: NAMESPACE:NAME`, or `namespace`",
    )),
    run: "kubernetes:{/kubernetes.io/namespace}:{/kubernetes.io/serviceaccount/name} \
        pod {/kubernetes.io/pod/name}[ node {/kubernetes.io/node/name}]",
    ..TokenProfile::RS256
};

fn source(env: &Environment) -> Option<TokenSource> {
    let path = path(env);
    Path::new(path).exists().then(|| TokenSource::file(path))
}

fn no_token(env: &Environment) -> Error {
    if env.get(HOST_VARIABLE).is_none() {
        return Error::new(Kind::Proof, format!("this is no pod of a cluster: {HOST_VARIABLE} is not set"))
            .hint(
                "choose another --join-method, or run this in a pod with a projected service account token",
            );
    }
    Error::new(Kind::Proof, format!("this pod has no service account token at {}", shown(path(env))))
        .hint("give the pod a projected volume with `serviceAccountToken: {path: machine-id, audience: AUTHORITY_URL, expirationSeconds: 3600}`, mounted at /var/run/secrets/tokens")
        .hint(format!("{PATH_VARIABLE} or --id-token-file say where it is, where it is elsewhere"))
        .hint("the token in /var/run/secrets/kubernetes.io is for the cluster's API server, and no authority takes it")
}

fn configure(mut section: Mapping<'_>) -> Configured {
    let (issuer, static_keys) = cluster(&mut section)?;
    let oidc = Oidc { static_keys, ..Oidc::new(&PROFILE, issuer) }.read_rules(FIELDS, section)?;
    let hint = "write it as in `service_account: ci:deploy`";
    Ok(Box::new(oidc.refuse(names_no_account, "must be NAMESPACE:NAME", hint)?))
}

fn path(env: &Environment) -> &str {
    env.get(PATH_VARIABLE).unwrap_or(TOKEN_PATH)
}

/// The cluster's issuer, and its keys where the policy has them.
fn cluster(section: &mut Mapping<'_>) -> Result<(String, Option<Arc<KeySet>>), Mistake> {
    let kind = section.need("type")?;
    let (keys, discovered) = (section.take("static_jwks"), section.take("oidc"));
    let name = kind.text("type")?;
    let (given, stray) = match name {
        "static_jwks" => (keys, discovered.map(|node| (node, "oidc"))),
        "oidc" => (discovered, keys.map(|node| (node, "static_jwks"))),
        "in_cluster" => return Err(Mistake::new(kind.place, "`type: in_cluster` is not taken: the authority asks no cluster about tokens")
            .hint("write `type: static_jwks` with the output of `kubectl get --raw /openid/v1/jwks`, or `type: oidc` where the cluster's issuer can be reached")),
        other => {
            let hint = which_of(other, &["static_jwks", "oidc"]);
            return Err(Mistake::new(kind.place, format!("there is no type `{}`", shown(other))).hint(hint));
        }
    };
    if let Some((node, stray)) = stray {
        return Err(Mistake::new(node.place, format!("`{stray}` is not for this `type`"))
            .hint(format!("leave it out, or write `type: {stray}`")));
    }
    let lacks =
        || Mistake::new(section.place, format!("kubernetes lacks `{name}`, where its `type` is `{name}`"));
    let mut given = given.ok_or_else(lacks)?.mapping(&format!("`{name}`"))?;
    let cluster = if name == "oidc" {
        // Teleport's; an issuer is asked over https alone.
        if given.boolean("insecure_allow_http_issuer")? {
            return Err(Mistake::new(given.place, "`insecure_allow_http_issuer` is not taken")
                .hint("write `type: static_jwks` with the cluster's key set instead"));
        }
        (issuer_url(given.need("issuer")?, "issuer")?, None)
    } else {
        let keys = key_set(given.need("jwks")?, "jwks")?;
        // Nobody asks it: whatever text the cluster has for it.
        let issuer = given.text("issuer")?.unwrap_or(DEFAULT_ISSUER).to_owned();
        if issuer == LEGACY_ISSUER {
            let message = format!("`{LEGACY_ISSUER}` issues tokens without an end, which are not taken");
            return Err(Mistake::new(given.place, message)
                .hint("`kubectl get --raw /.well-known/openid-configuration` shows the cluster's issuer"));
        }
        (issuer, Some(Arc::new(keys)))
    };
    given.finish()?;
    Ok(cluster)
}

/// Whose account it is.
fn of_subject(sub: &str) -> Vec<Saying> {
    let name = sub.strip_prefix(SUBJECT).and_then(|name| name.split_once(':'));
    name.map(|(namespace, _)| Saying::new("namespace", &[namespace])).into_iter().collect()
}

/// Whether it is a service account's name that none can have.
fn names_no_account(condition: &Condition) -> bool {
    let subject = condition.want.shown();
    let name = subject.strip_prefix(SUBJECT).and_then(|name| name.split_once(':'));
    condition.field == SERVICE_ACCOUNT
        && !name.is_some_and(|(namespace, account)| is_name(namespace) && is_name(account))
}

/// A name as Kubernetes has them (RFC 1123): no colon above all.
fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.'))
}

/// A token of a pod, whose subject and nested claims agree on who it is.
fn check(claims: &Map<String, Value>) -> Result<(), String> {
    let of = |pointer: &str| claim(claims, pointer).and_then(Value::as_str).unwrap_or_default();
    for pointer in [NAMESPACE, ACCOUNT, ACCOUNT_UID] {
        if of(pointer).is_empty() {
            return Err(format!("{pointer} is missing or not text: this is no token of a projected volume"));
        }
    }
    for pointer in [POD, POD_UID] {
        if of(pointer).is_empty() {
            return Err(format!("{pointer} is missing or not text: this token is bound to no pod"));
        }
    }
    let (namespace, account) = (of(NAMESPACE), of(ACCOUNT));
    if !is_name(namespace) || !is_name(account) {
        return Err("the namespace or the service account has no name of Kubernetes".to_owned());
    }
    if text(claims, "sub") != format!("{SUBJECT}{namespace}:{account}") {
        return Err("sub and kubernetes.io do not name the same service account".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::METHODS;
    use super::*;
    use crate::join::verify::Verifier;

    const JWKS: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","kid":"k","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]}"#;

    fn with_allow(allow: &str) -> Result<Box<dyn Verifier>, Mistake> {
        METHOD.configured(&format!(
            "{{type: static_jwks, static_jwks: {{jwks: '{JWKS}'}}, allow: [{{{allow}}}]}}"
        ))
    }

    #[test]
    fn it_is_the_last_to_be_detected() {
        // Jobs of any CI system may run in pods.
        assert_eq!(METHODS.last().unwrap().name, METHOD.name);
    }

    #[test]
    fn mistakes_are_told() {
        let allow = "allow: [{service_account: 'ci:deploy'}]";
        for (section, message) in [
            (allow.to_owned(), "kubernetes lacks `type`"),
            (
                format!("{{type: in_cluster, {allow}}}"),
                "`type: in_cluster` is not taken: the authority asks no cluster about tokens",
            ),
            (format!("{{type: oidcc, {allow}}}"), "there is no type `oidcc`"),
            (format!("{{type: oidc, {allow}}}"), "kubernetes lacks `oidc`, where its `type` is `oidc`"),
            (
                format!("{{type: static_jwks, {allow}}}"),
                "kubernetes lacks `static_jwks`, where its `type` is `static_jwks`",
            ),
            (
                format!(
                    "{{type: oidc, static_jwks: {{jwks: '{JWKS}'}}, oidc: {{issuer: 'https://i'}}, {allow}}}"
                ),
                "`static_jwks` is not for this `type`",
            ),
            (
                format!(
                    "{{type: static_jwks, static_jwks: {{jwks: '{JWKS}'}}, oidc: {{issuer: 'https://i'}}, {allow}}}"
                ),
                "`oidc` is not for this `type`",
            ),
            (
                format!("{{type: oidc, oidc: {{issuer: 'http://i'}}, {allow}}}"),
                "`issuer` is not an https URL",
            ),
            (
                format!(
                    "{{type: oidc, oidc: {{issuer: 'https://i', insecure_allow_http_issuer: true}}, {allow}}}"
                ),
                "`insecure_allow_http_issuer` is not taken",
            ),
            (format!("{{type: static_jwks, static_jwks: {{}}, {allow}}}"), "`static_jwks` is empty"),
            (
                format!("{{type: static_jwks, static_jwks: {{jwks: '{{}}'}}, {allow}}}"),
                "`jwks` is not a key set: it has no list `keys`",
            ),
            (
                format!(
                    "{{type: static_jwks, static_jwks: {{jwks: '{JWKS}', issuer: kubernetes/serviceaccount}}, {allow}}}"
                ),
                "`kubernetes/serviceaccount` issues tokens without an end, which are not taken",
            ),
        ] {
            assert_eq!(METHOD.configured(&section).unwrap_err().message, message, "{section}");
        }
        assert!(
            METHOD.configured(&format!("{{type: oidc, oidc: {{issuer: 'https://i'}}, {allow}}}")).is_ok()
        );
    }

    #[test]
    fn a_rule_says_whose_pods() {
        for good in
            ["service_account: 'ci:deploy'", "namespace: ci, pod_name: 'deploy-*'", "service_account_uid: x"]
        {
            assert!(with_allow(good).is_ok(), "{good}");
        }
        for (bad, message) in [
            ("pod_name: deploy", "a rule does not say whose pods may join"),
            ("node_name: '*'", "a rule does not say whose pods may join"),
            ("namespace: 'ci*'", "`namespace` takes no wildcards"),
            ("service_account: 'ci:*'", "`service_account` takes no wildcards"),
            ("service_account: deploy", "`service_account` must be NAMESPACE:NAME"),
            ("service_account: 'ci:'", "`service_account` must be NAMESPACE:NAME"),
            ("service_account: ':deploy'", "`service_account` must be NAMESPACE:NAME"),
            ("service_account: 'a:b:c'", "`service_account` must be NAMESPACE:NAME"),
            ("service_account: 'ci/deploy'", "`service_account` must be NAMESPACE:NAME"),
        ] {
            assert_eq!(with_allow(bad).unwrap_err().message, message, "{bad}");
        }
    }

    #[test]
    fn provenance_names_the_pod() {
        let claims = serde_json::json!({"iss": DEFAULT_ISSUER, "kubernetes.io": {"namespace": "ci",
            "serviceaccount": {"name": "deploy"}, "pod": {"name": "deploy-1"}, "node": {"name": "n1"}}});
        let provenance = PROFILE.provenance("", claims.as_object().unwrap());
        assert_eq!(provenance.line, "kubernetes:ci:deploy pod deploy-1 node n1");
    }
}
