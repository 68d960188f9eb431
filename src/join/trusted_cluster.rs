//! Jobs of another cluster: the authority that they joined, their root, vouches for them here with a passport, a JWT for this
//! authority and the keys of one request (`docs/trusted-clusters.md`). Its word is a proof and no CA: what a job gets for it,
//! the policy here says.
//!
//! No platform hands passports out, so that this method is none of the registry's: a trusted cluster of the policy configures
//! it, and no join token.

use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt as _, ready};
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value, json};

use super::jwt::{Jwt, need_number, text};
use super::method::Method;
use super::oidc::{Oidc, TokenProfile, key_set};
use super::rules::{self, Field, Match, Rule};
use super::verify::{Failure, Identity, Provenance, Verifier, VerifyContext};
use crate::clock::rfc3339;
use crate::denial::{Denial, Reason};
use crate::document::{Mapping, Mistake, Node};
use crate::error::{Error, Kind};
use crate::net::{authority_origin, read_pins};
use crate::text::words;
use crate::wire::{ID_TOKEN, MIN_TTL, PASSPORT, Proof, TRUSTED_CLUSTER, is_name};

/// The method's name.
pub const NAME: &str = TRUSTED_CLUSTER;

/// How long a passport lives at most, in seconds.
const MAX_LIFETIME: i64 = 300;
/// What an X.509 common name holds (RFC 5280, `ub-common-name`).
const MAX_COMMON_NAME: usize = 64;
/// The longest line that says which run it is, and the longest text of an extension, in bytes.
const MAX_TEXT: usize = 1024;
/// The extensions that Fulcio has for CI, but for those that it has given up.
const FULCIO: std::ops::RangeInclusive<u64> = 8..=24;

/// Where a passport has the claims by which the job joined its root.
const PLATFORM_CLAIMS: &str = "/provenance/claims";

static ALLOW: &[Field] = &[
    Field::glob("bot"),
    Field::glob("join_method"),
    Field::new("provenance", Match::ClaimsIn { within: PLATFORM_CLAIMS, wide: false }),
];

/// What is denied is as wide as it is written.
static DENY: &[Field] = &[
    Field::glob("bot"),
    Field::glob("join_method"),
    Field::new("provenance", Match::ClaimsIn { within: PLATFORM_CLAIMS, wide: true }),
];

/// The join method `trusted_cluster`.
pub(super) static METHOD: Method = Method {
    unverified: |proof| Ok(Jwt::of_proof_as(proof, ID_TOKEN, Some(PASSPORT))?.claims),
    telling: &["cluster", "bot", "roles"],
    can_bind: true,
    is_ci: false,
    of_cluster: true,
    renews: |_| Err("a passport is good once".to_owned()),
    ..Method::new(
        NAME,
        "jobs of another cluster that this one trusts",
        |_| {
            let error = Error::new(
                Kind::Proof,
                "there is no passport: the authority of the job's own cluster gives it",
            );
            ready(Err(error.hint("ask that one, with `at=CLUSTER` for outputs of this one"))).boxed()
        },
        |section| Err(Mistake::new(section.place, "a join token is not for jobs of other clusters").into()),
    )
};

static PROFILE: TokenProfile = TokenProfile {
    typ: Some(PASSPORT),
    algorithms: &[Algorithm::ES256],
    max_lifetime: MAX_LIFETIME,
    required: &["sub", "jti", "cluster", "bot", "join_token", "join_method", "issuance_id"],
    check,
    ..TokenProfile::RS256
};

/// What every passport says, whoever made it.
fn check(claims: &Map<String, Value>) -> Result<(), String> {
    for name in ["cluster", "bot", "join_token", "join_method", "issuance_id"] {
        if !is_name(text(claims, name)) {
            return Err(format!("{name} is not a name"));
        }
    }
    let (cluster, bot) = (text(claims, "cluster"), text(claims, "bot"));
    if text(claims, "sub") != format!("spiffe://{cluster}/bot/{bot}") {
        return Err("sub is not that bot's of that cluster".to_owned());
    }
    let roles = claims.get("roles").and_then(Value::as_array).filter(|roles| !roles.is_empty());
    let roles = roles.ok_or("roles is missing or not a list of names")?;
    if !roles.iter().all(|role| role.as_str().is_some_and(is_name)) {
        return Err("roles is not a list of names".to_owned());
    }
    need_number(claims, "grant_expires_at").map_err(|denial| denial.detail)?;
    let provenance = claims.get("provenance").and_then(Value::as_object);
    let provenance = provenance.ok_or("provenance is missing or not an object")?;
    if !(1..=MAX_TEXT).contains(&text(provenance, "line").len()) {
        return Err(format!("provenance.line is not text of 1 to {MAX_TEXT} bytes"));
    }
    let of = |name| match provenance.get(name) {
        None => Ok(None),
        Some(Value::Object(object)) => Ok(Some(object)),
        Some(_) => Err(format!("provenance.{name} is not an object")),
    };
    let is_extension = |(arc, value): (&String, &Value)| {
        arc.parse::<u64>().is_ok_and(|number| number.to_string() == *arc)
            && value.as_str().is_some_and(|text| text.len() <= MAX_TEXT)
    };
    of("claims")?;
    match of("fulcio")? {
        Some(fulcio) if !fulcio.iter().all(is_extension) => {
            Err(format!("provenance.fulcio does not have numbers with texts of at most {MAX_TEXT} bytes"))
        }
        _ => Ok(()),
    }
}

/// Another cluster's passports, and what is asked of them.
#[derive(Debug)]
struct Vouched {
    oidc: Oidc,
    deny: Vec<Rule>,
    enabled: bool,
}

/// Reads whom a trusted cluster's `spec` believes, but for its role map; none where it cannot be read.
pub fn read(cluster: &str, spec: &mut Mapping<'_>) -> Option<Box<dyn Verifier>> {
    let enabled = spec.read("enabled", Node::boolean).unwrap_or(true);
    let url = spec.require("url", read_url);
    let ca_pin = spec.read("ca_pin", read_pins);
    let static_keys = spec.read("static_jwks", key_set).map(Arc::new);
    let rules = spec.read("allow", |node, key| rules::read_as(node, key, ALLOW)).unwrap_or_default();
    let deny = spec.read("deny", |node, key| rules::read_as(node, key, DENY)).unwrap_or_default();
    let oidc = Oidc {
        pinned: Some(("cluster", cluster.to_owned())),
        ca_pin,
        static_keys,
        require_key_binding: true,
        rules,
        ..Oidc::new(&PROFILE, url?)
    };
    Some(Box::new(Vouched { oidc, deny, enabled }))
}

/// It is compared whole with `iss`, so that it must have the one form of a `public_url`.
fn read_url(node: &Node, key: &str) -> Result<String, Mistake> {
    let said = node.text(key)?;
    let wrong = |why: &str| Mistake::new(node.place, format!("`{key}` is not an authority's URL: {why}"));
    match authority_origin(said) {
        Ok(url) if url == said => Ok(url),
        Ok(url) => Err(wrong("it is not as that one writes itself").hint(format!("write `{url}`"))),
        Err(why) => Err(wrong(&why).hint("it is the `public_url` of the root's authority.yaml")),
    }
}

impl Verifier for Vouched {
    fn verify<'a>(
        &'a self,
        proof: &'a Proof,
        context: &'a VerifyContext<'a>,
    ) -> BoxFuture<'a, Result<Identity, Failure>> {
        async move {
            // Before its signature: nobody is asked for the keys of a cluster that is believed no more.
            let claims = (METHOD.unverified)(proof)?;
            self.check_enabled().map_err(|denial| denial.with_claims(&claims, false))?;
            let mut identity = self.oidc.verify(proof, context).await?;
            let granted = check_name(&identity.claims)
                .and_then(|()| check_grant(&identity.claims, context.clock.now()));
            granted.map_err(|denial| denial.with_claims(&identity.claims, true))?;
            identity.provenance = provenance(&identity.claims);
            Ok(identity)
        }
        .boxed()
    }

    fn rules(&self) -> &[Rule] {
        self.oidc.rules()
    }

    fn denials(&self) -> &[Rule] {
        &self.deny
    }

    fn issuer(&self) -> Option<&str> {
        self.oidc.issuer()
    }

    fn asks(&self) -> Option<(&str, Option<&str>)> {
        self.oidc.asks().filter(|_| self.enabled)
    }

    fn fixed(&self) -> Vec<(&str, String)> {
        self.oidc.fixed()
    }

    // Without `allow`, the role map alone says who gets something.
    fn admits_all(&self) -> bool {
        self.oidc.rules().is_empty()
    }

    fn takes_unbound(&self) -> bool {
        false
    }

    fn provenance(&self, claims: &Map<String, Value>, _join_token: &str) -> Provenance {
        provenance(claims)
    }

    fn check_claims(&self, claims: &Map<String, Value>) -> Result<(), Denial> {
        self.check_enabled()?;
        self.oidc.check_claims(claims)?;
        check_name(claims)
    }
}

impl Vouched {
    fn check_enabled(&self) -> Result<(), Denial> {
        let off = || Denial::new(Reason::ClusterDisabled, "the trusted cluster has `enabled: false`");
        if self.enabled { Ok(()) } else { Err(off()) }
    }
}

/// Certificates name the bot with its cluster, and a common name holds little.
fn check_name(claims: &Map<String, Value>) -> Result<(), Denial> {
    let name = format!("bot:{}", bot(claims));
    if name.len() <= MAX_COMMON_NAME {
        return Ok(());
    }
    let told = format!("`{name}` has {} bytes, and {MAX_COMMON_NAME} are the most", name.len());
    Err(Denial::open(Reason::BotNameLong, told))
}

/// What is issued here ends with what the root has granted; for less than the shortest life, nothing is.
fn check_grant(claims: &Map<String, Value>, now: i64) -> Result<(), Denial> {
    let end = granted_until(claims).unwrap_or(i64::MIN);
    if end.saturating_sub(now) >= i64::from(MIN_TTL) {
        return Ok(());
    }
    let told = format!("it ends at {}, the authority's clock says {}", rfc3339(end), rfc3339(now));
    Err(Denial::open(Reason::GrantOver, told))
}

/// The bot that a job of another cluster is here, by its passport's claims: no bot of this cluster has such a name.
pub fn bot(claims: &Map<String, Value>) -> String {
    format!("{}@{}", text(claims, "bot"), text(claims, "cluster"))
}

/// The same, where these are names.
pub fn named_bot(claims: &Map<String, Value>) -> Option<String> {
    ["bot", "cluster"].iter().all(|name| is_name(text(claims, name))).then(|| bot(claims))
}

/// The roles that the root vouches for; none of them is one of this cluster's.
pub fn roles(claims: &Map<String, Value>) -> Vec<&str> {
    let roles = claims.get("roles").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    // What is none, `check` prints no more than it believes it.
    roles.filter(|role| is_name(role)).collect()
}

/// When what the root has granted ends, in seconds since 1970.
pub fn granted_until(claims: &Map<String, Value>) -> Option<i64> {
    claims.get("grant_expires_at").and_then(Value::as_i64)
}

/// Where a job comes from, for the audit trail: by any of these the root's own trail finds it.
pub fn origin(claims: &Map<String, Value>) -> Value {
    json!({
        "cluster": text(claims, "cluster"),
        "issuance_id": text(claims, "issuance_id"),
        "provenance": provenance(claims).line,
        "jti": text(claims, "jti"),
    })
}

/// How the job joined its root, and the claims that it did so by.
pub(super) fn platform(claims: &Map<String, Value>) -> Option<(&str, &Map<String, Value>)> {
    Some((text(claims, "join_method"), rules::claim(claims, PLATFORM_CLAIMS)?.as_object()?))
}

/// What the root says of the run: each word of its line is one, and of the extensions those that there are.
fn provenance(claims: &Map<String, Value>) -> Provenance {
    let none = Map::new();
    let said = claims.get("provenance").and_then(Value::as_object).unwrap_or(&none);
    let fulcio = said.get("fulcio").and_then(Value::as_object).unwrap_or(&none);
    let extension = |(arc, value): (&String, &Value)| {
        Some((arc.parse().ok().filter(|arc| FULCIO.contains(arc))?, value.as_str()?.to_owned()))
    };
    let mut fulcio: Vec<(u64, String)> = fulcio.iter().filter_map(extension).collect();
    fulcio.sort_unstable();
    Provenance { line: words(text(said, "line")), fulcio }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_name_is_no_role() {
        let claims = json!({"roles": ["deploy", "deploy\u{1b}[2J", "Deploy", 7]});
        assert_eq!(roles(claims.as_object().unwrap()), ["deploy"]);
    }
}
