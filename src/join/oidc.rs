//! The engine that every OIDC method shares: is this token its issuer's, for
//! us, now, and for these keys?
//!
//! A method describes its tokens as an [`Oidc`]; nothing here knows a platform.

use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

use super::jwt::{self, Jwt};
use super::rules::{self, Field, Guard, Rule};
use super::{BoxFuture, Desk, Failure, Identity, Provenance, Replay, Supposed, Verifier};
use crate::clock::{LEEWAY, rfc3339};
use crate::denial::{Denial, Reason};
use crate::document::{Mapping, Mistake, Node};
use crate::text::shown;
use crate::wire::{Proof, bound_audience};

mod keys;

pub use keys::{Issuers, KeySet};

/// How one issuer's tokens look and what a join token asks of them.
#[derive(Debug)]
pub struct Oidc {
    /// The issuer, compared whole.
    pub issuer: String,
    /// Keys given in the policy; without them the issuer is asked.
    pub static_keys: Option<KeySet>,
    /// The algorithms it signs with.
    pub algorithms: Vec<Algorithm>,
    /// The longest that its tokens live, in seconds.
    pub max_lifetime: i64,
    /// Whether a token must be bound to the request's keys.
    pub require_key_binding: bool,
    /// Which audiences are accepted.
    pub audience: Audience,
    /// What the method checks of the claims.
    pub check: Check,
    /// Claims that must have a value: the organisation of a shared issuer.
    pub pinned: Vec<(&'static str, String)>,
    /// Which run the claims are of.
    pub provenance: Describe,
    /// The join token's rules.
    pub rules: Vec<Rule>,
}

/// Which audiences a method's tokens may have. By default, this authority's
/// URL as one text, plain or with the hash of the request's keys behind a `#`.
#[derive(Debug, Default)]
pub struct Audience {
    /// The one that is accepted in place of this authority's own.
    pub only: Option<String>,
    /// One that is accepted beside it.
    pub beside: Option<String>,
    /// Whether the claim may also be a list, with nothing else in it.
    pub in_list: bool,
}

/// What every OIDC method's section of a join token has.
#[derive(Debug)]
pub struct Common {
    /// `static_jwks`: the issuer's keys, so that it is never asked.
    pub static_keys: Option<KeySet>,
    /// `require_key_binding`.
    pub require_key_binding: bool,
    /// `allow`.
    pub rules: Vec<Rule>,
}

impl Common {
    /// Reads it, the last of the section: nothing may be left.
    ///
    /// # Errors
    /// The first mistake.
    pub fn read(
        mut section: Mapping<'_>,
        fields: &'static [Field],
        guards: &[Guard],
    ) -> Result<Self, Mistake> {
        let static_keys = section.take("static_jwks").map(|node| key_set(node, "static_jwks")).transpose()?;
        Self::with_keys(static_keys, section, fields, guards)
    }

    /// The same, where the method says in its own way which keys are given.
    ///
    /// # Errors
    /// The first mistake.
    pub fn with_keys(
        static_keys: Option<KeySet>,
        mut section: Mapping<'_>,
        fields: &'static [Field],
        guards: &[Guard],
    ) -> Result<Self, Mistake> {
        let require_key_binding = section.boolean("require_key_binding")?;
        let rules = rules::read(section.need("allow")?, fields, guards)?;
        section.finish()?;
        Ok(Self { static_keys, require_key_binding, rules })
    }
}

/// A key set as a policy holds it: the text of its JSON.
///
/// # Errors
/// Where it is none, or has no usable key.
pub fn key_set(node: &Node, key: &str) -> Result<KeySet, Mistake> {
    KeySet::parse(node.text(key)?.as_bytes())
        .map_err(|why| Mistake::new(node.place, format!("`{key}` is not a key set: {why}")))
}

/// An issuer's URL as a policy names it, compared whole with `iss`.
///
/// # Errors
/// Where it is no https URL with nothing but a path behind its host.
pub fn issuer_url(node: &Node, key: &str) -> Result<String, Mistake> {
    let text = node.text(key)?;
    let wrong = || {
        Mistake::new(node.place, format!("`{key}` is not an https URL")).hint(
            "write it as tokens have it in `iss`: https://HOST, with :PORT and /PATH where they have those",
        )
    };
    if !text.starts_with("https://") || text.contains(['?', '#', ' ', '@']) {
        return Err(wrong());
    }
    reqwest::Url::parse(text).ok().filter(reqwest::Url::has_host).ok_or_else(wrong)?;
    Ok(text.to_owned())
}

/// An audience as a policy names it.
///
/// # Errors
/// Where it is empty: a token of no audience is for nobody.
pub fn audience(node: &Node) -> Result<String, Mistake> {
    node.text("audience").map(str::to_owned)
}

/// A host as a policy names it: `HOST` or `HOST:PORT`.
///
/// # Errors
/// Where it is something else.
pub fn host<'n>(node: &'n Node, key: &str) -> Result<&'n str, Mistake> {
    let text = node.text(key)?;
    let letters = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.:[]".contains(&b));
    // Nobody could ever be asked at another, and that would be told to jobs alone.
    let is_host = reqwest::Url::parse(&format!("https://{text}")).is_ok_and(|url| url.has_host());
    if !letters || !is_host || text.ends_with(':') {
        return Err(Mistake::new(node.place, format!("`{key}` must be HOST or HOST:PORT")));
    }
    Ok(text)
}

/// Whether that is a UUID as platforms write them, in small letters.
#[must_use]
pub fn is_uuid(text: &str) -> bool {
    let groups: Vec<usize> = text.split('-').map(str::len).collect();
    groups == [8, 4, 4, 4, 12]
        && text.bytes().all(|b| b == b'-' || b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// What a method asks of claims beyond what every token must have.
pub type Check = fn(&Map<String, Value>) -> Result<(), String>;

impl Common {
    /// A verifier of tokens that are signed with RS256, as nearly all platforms do.
    #[must_use]
    pub fn rs256(self, issuer: String, max_lifetime: i64, check: Check, provenance: Describe) -> Oidc {
        Oidc {
            issuer,
            static_keys: self.static_keys,
            algorithms: vec![Algorithm::RS256],
            max_lifetime,
            require_key_binding: self.require_key_binding,
            audience: Audience::default(),
            check,
            pinned: Vec::new(),
            provenance,
            rules: self.rules,
        }
    }
}

/// Turns claims into a [`Provenance`]; the text is the platform's URL.
#[derive(Debug)]
pub struct Describe {
    /// Where the platform's pages are: `https://github.com`.
    pub server: String,
    /// Does it.
    pub describe: fn(&str, &Map<String, Value>) -> Provenance,
}

impl Verifier for Oidc {
    fn verify<'a>(&'a self, proof: &'a Proof, at: &'a Desk<'a>) -> BoxFuture<'a, Result<Identity, Failure>> {
        Box::pin(async move {
            let jwt = Jwt::parse(jwt::token_of(proof)?)?;
            // What costs nothing comes first: another issuer's token, or an old
            // one, never makes us ask for keys.
            self.precheck(&jwt, at).map_err(|denial| denial.with_claims(&jwt.claims, false))?;
            self.check_signature(&jwt, at).await?;
            // What depends on the join token is told to those alone who hold a token of its issuer.
            let bound = self
                .check_audience(&jwt.claims, at)
                .map_err(|denial| denial.with_claims(&jwt.claims, true))?;
            self.identity(jwt, bound).map_err(Failure::Denied)
        })
    }

    fn rules(&self) -> &[Rule] {
        &self.rules
    }

    fn takes_unbound(&self) -> bool {
        !self.require_key_binding
    }

    fn suppose(&self, claims: Map<String, Value>) -> Result<Supposed, Denial> {
        match self.check_issuer(&claims).and_then(|()| self.check_claims(&claims)) {
            Ok(()) => Ok(Supposed { claims }),
            Err(denial) => Err(denial.with_claims(&claims, false)),
        }
    }
}

impl Oidc {
    /// Algorithm, issuer and times.
    fn precheck(&self, jwt: &Jwt<'_>, at: &Desk<'_>) -> Result<(), Denial> {
        if !self.algorithms.contains(&jwt.algorithm) {
            let detail = format!("signed with {:?}, this issuer uses {:?}", jwt.algorithm, self.algorithms);
            return Err(Denial::new(Reason::AlgorithmRefused, detail));
        }
        if jwt.kid.is_none() {
            return Err(Denial::new(Reason::HeaderRefused, "the header has no `kid`"));
        }
        self.check_issuer(&jwt.claims)?;
        self.check_times(&jwt.claims, at)
    }

    fn check_issuer(&self, claims: &Map<String, Value>) -> Result<(), Denial> {
        let issuer = text_claim(claims, "iss")?;
        if issuer == self.issuer {
            return Ok(());
        }
        let detail = format!("issuer is {}, expected {}", shown(issuer), self.issuer);
        Err(Denial::new(Reason::IssuerWrong, detail))
    }

    /// What the method asks of every token, whichever rule it is for.
    fn check_claims(&self, claims: &Map<String, Value>) -> Result<(), Denial> {
        // What a method wants of its platform's tokens is in the documentation, and no secret.
        (self.check)(claims).map_err(|why| Denial::new(Reason::ClaimInvalid, why.clone()).tell(why))?;
        match self.pinned.iter().find(|(claim, value)| text(claims, claim) != value) {
            Some((claim, value)) => {
                Err(Denial::new(Reason::NoRuleMatches, format!("{claim} is not {value}")))
            }
            None => Ok(()),
        }
    }

    /// The audience is one text: a list could hold somebody else's beside ours.
    fn check_audience(&self, claims: &Map<String, Value>, at: &Desk<'_>) -> Result<bool, Denial> {
        let audience = match claims.get("aud") {
            // RFC 7519, section 4.1.3: a list of one says the same as that one.
            Some(Value::Array(list)) if self.audience.in_list && list.len() == 1 => {
                list.first().and_then(Value::as_str).ok_or_else(|| {
                    Denial::new(Reason::AudienceWrong, "aud is a list of something else than text")
                })?
            }
            _ => text_claim(claims, "aud")
                .map_err(|denial| Denial { reason: Reason::AudienceWrong, ..denial })?,
        };
        let ours = self.audience.only.as_deref().unwrap_or(at.public_url);
        if audience == bound_audience(ours, at.binding) {
            Ok(true)
        } else if audience == ours || self.audience.beside.as_deref() == Some(audience) {
            if self.require_key_binding {
                return Err(Denial::new(
                    Reason::BindingRequired,
                    "the token is not bound to the request's keys",
                ));
            }
            Ok(false)
        } else if audience.strip_prefix(ours).is_some_and(|rest| rest.starts_with('#')) {
            Err(Denial::new(Reason::BindingWrong, "the audience carries the hash of other keys"))
        } else {
            let detail = format!("audience is {}, expected {ours}", shown(audience));
            let denial = Denial::new(Reason::AudienceWrong, detail);
            // Another than this authority's own is the policy's business.
            match self.audience.only {
                None => Err(denial.tell(format!("the audience must be {ours}"))),
                Some(_) => Err(denial),
            }
        }
    }

    /// `exp` and `iat` must be there, `nbf` is heeded; all whole numbers.
    fn check_times(&self, claims: &Map<String, Value>, at: &Desk<'_>) -> Result<(), Denial> {
        let now = at.clock.now();
        let (expires, issued) = (time_claim(claims, "exp")?, time_claim(claims, "iat")?);
        let told = |what: &str, time: i64| {
            format!("{what} {}, the authority's clock says {}", rfc3339(time), rfc3339(now))
        };
        if expires.saturating_add(LEEWAY) <= now {
            let told = told("it expired at", expires);
            return Err(Denial::new(Reason::TokenExpired, told.clone()).tell(told));
        }
        if issued > now.saturating_add(LEEWAY) {
            let told = told("it was issued at", issued);
            return Err(Denial::new(Reason::TokenNotYetValid, told.clone()).tell(told));
        }
        if claims.contains_key("nbf") {
            let from = time_claim(claims, "nbf")?;
            if from > now.saturating_add(LEEWAY) {
                let told = told("it is valid from", from);
                return Err(Denial::new(Reason::TokenNotYetValid, told.clone()).tell(told));
            }
        }
        // Both ends of an i64 can be claimed.
        let lifetime = expires.saturating_sub(issued);
        if lifetime > self.max_lifetime {
            let detail = format!("lives {lifetime} s, at most {} s are accepted", self.max_lifetime);
            return Err(Denial::new(Reason::LifetimeTooLong, detail));
        }
        Ok(())
    }

    async fn check_signature(&self, jwt: &Jwt<'_>, at: &Desk<'_>) -> Result<(), Failure> {
        let kid = jwt.kid.as_deref().unwrap_or_default();
        let discovered;
        let keys = match &self.static_keys {
            Some(keys) => keys,
            None => {
                discovered = at.issuers.keys(&self.issuer, kid).await.map_err(Failure::Unavailable)?;
                &discovered
            }
        };
        let denied = |reason, detail: String| {
            Failure::from(Denial::new(reason, detail).with_claims(&jwt.claims, false))
        };
        let mut found = keys.find(kid, jwt.algorithm).peekable();
        if found.peek().is_none() {
            let detail = format!("no usable {:?} key with kid {}", jwt.algorithm, shown(kid));
            return Err(denied(Reason::KeyUnknown, detail));
        }
        // An issuer that publishes two keys under one `kid` means either.
        if !found.any(|key| crate::jws::verify(jwt.signature, jwt.message.as_bytes(), key, jwt.algorithm)) {
            return Err(denied(Reason::SignatureInvalid, "the signature does not verify".to_owned()));
        }
        Ok(())
    }

    /// The claims are the issuer's from here on.
    fn identity(&self, jwt: Jwt<'_>, bound: bool) -> Result<Identity, Box<Denial>> {
        let invalid = |detail: String| {
            Box::new(Denial::new(Reason::ClaimInvalid, detail).with_claims(&jwt.claims, true))
        };
        self.check_claims(&jwt.claims).map_err(|denial| Box::new(denial.with_claims(&jwt.claims, true)))?;
        let id = match jwt.claims.get("jti") {
            None => jwt.content_id(),
            Some(Value::String(jti)) if !jti.is_empty() && jti.len() <= 256 => format!("jti:{jti}"),
            Some(_) => return Err(invalid("jti is not text of 1 to 256 bytes".to_owned())),
        };
        let expires = time_claim(&jwt.claims, "exp")?;
        let replay = Replay { issuer: self.issuer.clone(), id, held_until: expires.saturating_add(LEEWAY) };
        let provenance = (self.provenance.describe)(&self.provenance.server, &jwt.claims);
        Ok(Identity { claims: jwt.claims, bound, replay, provenance, membership: None })
    }
}

fn text_claim<'c>(claims: &'c Map<String, Value>, name: &str) -> Result<&'c str, Denial> {
    match claims.get(name) {
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(Denial::new(Reason::ClaimInvalid, format!("{name} is not text"))),
        None => Err(Denial::new(Reason::ClaimInvalid, format!("{name} is missing"))),
    }
}

fn time_claim(claims: &Map<String, Value>, name: &str) -> Result<i64, Denial> {
    claims.get(name).and_then(Value::as_i64).ok_or_else(|| {
        Denial::new(Reason::ClaimInvalid, format!("{name} is missing or not a whole number of seconds"))
    })
}

/// A claim as text for a [`Provenance`]; missing ones are empty.
#[must_use]
pub fn text<'c>(claims: &'c Map<String, Value>, name: &str) -> &'c str {
    claims.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// The extensions of a [`Provenance`] that have a text.
#[must_use]
pub fn extensions<const N: usize>(all: [(u64, String); N]) -> Vec<(u64, String)> {
    all.into_iter().filter(|(_, text)| !text.is_empty()).collect()
}

/// Every one of `names` must be text that is not empty.
///
/// # Errors
/// Names the first that is not.
pub fn require_texts(claims: &Map<String, Value>, names: &[&str]) -> Result<(), String> {
    match names.iter().find(|name| text(claims, name).is_empty()) {
        Some(name) => Err(format!("{name} is missing or not text")),
        None => Ok(()),
    }
}
