//! The engine that every OIDC method shares: is this token its issuer's, for
//! us, now, and for these keys?
//!
//! A method describes its tokens as a [`TokenProfile`]; nothing here knows a platform.

use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt as _};
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

use super::issuers::KeySet;
use super::jwt::{self, AudienceRules, Jwt, MAX_JTI, TimeRules, need_text, require_texts, text};
use super::rules::{self, Condition, Constraint, Field, Rule, claim};
use super::verify::{Failure, Identity, Provenance, Replay, Verifier, VerifyContext};
use crate::clock::Held;
use crate::denial::{Denial, Reason};
use crate::document::{Mapping, Mistake, Mistakes, Node};
use crate::text::{shown_exactly, word};
use crate::wire::{ID_TOKEN, Proof};

mod section;
mod template;

pub use section::{host, issuer_url, key_set, organization_id};

/// Texts by the names that templates have for them.
pub type DerivedClaims = Vec<(&'static str, String)>;

/// How a platform's tokens look, whichever its issuer, and what they say of a run.
#[derive(Debug)]
pub struct TokenProfile {
    /// What their header says that they are, where that is another thing than a JWT.
    pub typ: Option<&'static str>,
    /// The algorithms that they are signed with.
    pub algorithms: &'static [Algorithm],
    /// The longest that they live, in seconds.
    pub max_lifetime: i64,
    /// Claims that must be text that is not empty.
    pub required: &'static [&'static str],
    /// What is asked of the claims beyond that.
    pub check: fn(&Map<String, Value>) -> Result<(), String>,
    /// The mistake of a rule that does not say whose jobs it is about (see
    /// [`Constraint::Owner`]), with its hint; none where it need not.
    pub ownerless: Option<(&'static str, &'static str)>,
    /// One line about the run, made of claims, each a word: a template, which
    /// may also name `{server}`, `{host}` and what is [derived](Self::derived).
    pub run: &'static str,
    /// Templates for the extensions that Fulcio defines for CI beside the issuer: the last arc
    /// and the text, left out where a claim is missing
    /// (<https://github.com/sigstore/fulcio/blob/main/docs/oid-info.md>).
    pub fulcio: &'static [(u64, &'static str)],
    /// What else templates may name, made of claims.
    pub derived: fn(&Map<String, Value>) -> DerivedClaims,
}

impl TokenProfile {
    /// Signed with RS256, as nearly all platforms do.
    pub const RS256: Self = Self {
        typ: None,
        algorithms: &[Algorithm::RS256],
        max_lifetime: 0,
        required: &["sub"],
        check: |_| Ok(()),
        ownerless: None,
        run: "",
        fulcio: &[],
        derived: |_| Vec::new(),
    };

    /// Which run the claims are of; `server` is the URL of the platform's pages.
    pub(super) fn provenance(&self, server: &str, claims: &Map<String, Value>) -> Provenance {
        let derived = (self.derived)(claims);
        let of = |name: &str| match (name, derived.iter().find(|(derived, _)| *derived == name)) {
            (_, Some((_, text))) => text.clone(),
            ("server", _) => server.to_owned(),
            ("host", _) => server.trim_start_matches("https://").to_owned(),
            _ => claim(claims, name).and_then(Value::as_str).unwrap_or_default().to_owned(),
        };
        let extension = |(arc, template): &(u64, &str)| {
            let (text, is_whole) = template::fill(template, &of);
            is_whole.then_some((*arc, text))
        };
        let fulcio = [(8, "{iss}")].iter().chain(self.fulcio).filter_map(extension).collect();
        let (line, _) = template::fill(self.run, &|name| word(&of(name)));
        Provenance { line, fulcio }
    }
}

/// One issuer's tokens, and what a join token asks of them.
#[derive(Debug)]
pub struct Oidc {
    /// How they look.
    pub profile: &'static TokenProfile,
    /// The issuer, compared whole.
    pub issuer: String,
    /// Where the platform's pages are: `https://github.com`.
    pub server: String,
    /// The algorithms that it signs with.
    pub algorithms: Vec<Algorithm>,
    /// The audience that is accepted in place of this authority's own URL.
    pub only_audience: Option<String>,
    /// One that is accepted beside it.
    pub other_audience: Option<String>,
    /// The value that a claim must have where it is there, as the profile may [require](TokenProfile::required):
    /// the organisation of a shared issuer.
    pub pinned: Option<(&'static str, String)>,
    /// What the section fixes of another claim, as a glob: for the lints.
    pub fixed: Option<(&'static str, String)>,
    /// The pins of the CA that vouches for the issuer, where that is none that this machine knows.
    pub ca_pin: Option<String>,
    /// The issuer's keys, where it is never asked for them.
    pub static_keys: Option<Arc<KeySet>>,
    /// `require_key_binding`.
    pub require_key_binding: bool,
    /// `allow`.
    pub rules: Vec<Rule>,
}

impl Oidc {
    /// An issuer that has its pages at the same URL, and tokens for this
    /// authority's own. Its rules are still to be [read](Self::read).
    pub fn new(profile: &'static TokenProfile, issuer: String) -> Self {
        Self {
            profile,
            server: issuer.clone(),
            issuer,
            algorithms: profile.algorithms.to_vec(),
            only_audience: None,
            other_audience: None,
            pinned: None,
            fixed: None,
            ca_pin: None,
            static_keys: None,
            require_key_binding: false,
            rules: Vec::new(),
        }
    }

    /// Reads what every OIDC method's section has, the last of it: nothing may be left.
    pub fn read(mut self, fields: &'static [Field], mut section: Mapping<'_>) -> Result<Self, Mistakes> {
        self.static_keys = section.read("static_jwks", key_set).map(Arc::new);
        self.read_rules(fields, section)
    }

    /// The same, where the method says in its own way which keys are given.
    pub fn read_rules(
        mut self,
        fields: &'static [Field],
        mut section: Mapping<'_>,
    ) -> Result<Self, Mistakes> {
        self.require_key_binding = section.read("require_key_binding", Node::boolean).unwrap_or_default();
        let read = |node: &Node, _| rules::read(node, fields);
        self.rules = section.require("allow", read).unwrap_or_default();
        section.finish()?;
        let names_owner = |condition: &Condition| {
            let value = condition.want.shown();
            condition.constrains.iter().any(|one| matches!(one, Constraint::Owner(open) if !open(&value)))
        };
        if let Some((message, hint)) = self.profile.ownerless {
            rules::anchor(&self.rules, names_owner, message, hint)?;
        }
        Ok(self)
    }

    /// Refuses a condition that its field takes and the platform never means.
    pub fn refuse(self, wrong: impl Fn(&Condition) -> bool, why: &str, hint: &str) -> Result<Self, Mistake> {
        let mut conditions = self
            .rules
            .iter()
            .flat_map(|rule| rule.conditions.iter().map(|condition| (rule.place, condition)));
        match conditions.find(|(_, condition)| wrong(condition)) {
            Some((place, Condition { field, .. })) => {
                Err(Mistake::new(place, format!("`{field}` {why}")).hint(hint))
            }
            None => Ok(self),
        }
    }

    /// Algorithm, issuer and times; how long the token must be remembered.
    fn precheck(&self, jwt: &Jwt<'_>, context: &VerifyContext<'_>) -> Result<Held, Denial> {
        if !self.algorithms.contains(&jwt.algorithm) {
            let detail = format!("signed with {:?}, this issuer uses {:?}", jwt.algorithm, self.algorithms);
            return Err(Denial::new(Reason::AlgorithmRefused, detail));
        }
        self.check_issuer(&jwt.claims)?;
        let times = TimeRules { lifetime: i64::MIN..=self.profile.max_lifetime, not_before: true };
        jwt::check_times(&jwt.claims, &times, context.clock.now())
    }

    fn check_issuer(&self, claims: &Map<String, Value>) -> Result<(), Denial> {
        let issuer = need_text(claims, "iss")?;
        if issuer == self.issuer {
            return Ok(());
        }
        let detail = format!("issuer is {}, expected {}", shown_exactly(issuer), self.issuer);
        Err(Denial::new(Reason::IssuerWrong, detail))
    }

    /// What the method asks of every token, whichever rule it is for. That is
    /// in the documentation, and no secret.
    fn check_platform(&self, claims: &Map<String, Value>) -> Result<(), Denial> {
        require_texts(claims, self.profile.required)
            .and_then(|()| (self.profile.check)(claims))
            .map_err(|why| Denial::new(Reason::ClaimInvalid, why.clone()).tell(why))?;
        let is_other =
            |(name, value): &&(_, String)| claims.contains_key(*name) && text(claims, name) != value;
        match self.pinned.as_ref().filter(is_other) {
            Some((claim, value)) => {
                Err(Denial::new(Reason::NoRuleMatches, format!("{claim} is not {value}")))
            }
            None => Ok(()),
        }
    }

    /// Whether the token is for us, and bound to the request's keys.
    fn check_audience(
        &self,
        claims: &Map<String, Value>,
        context: &VerifyContext<'_>,
    ) -> Result<bool, Denial> {
        let rules = AudienceRules {
            ours: self.only_audience.as_deref().unwrap_or(context.public_url),
            // Another than this authority's own is the policy's business.
            is_public: self.only_audience.is_none(),
            beside: self.other_audience.as_deref(),
            binding: Some(context.binding),
            requires_binding: self.require_key_binding,
        };
        jwt::check_audience(jwt::audience(claims)?, &rules)
    }

    async fn check_signature(&self, jwt: &Jwt<'_>, context: &VerifyContext<'_>) -> Result<(), Failure> {
        let kid = jwt.kid.as_deref();
        let is_signed = |keys: &KeySet| keys.find(kid, jwt.algorithm).iter().any(|key| jwt.is_signed_by(key));
        // A key without a name may be another than it was: then only the signature tells.
        let has_its_key = |keys: &KeySet| kid.is_some_and(|kid| keys.has(kid)) || is_signed(keys);
        let keys = match &self.static_keys {
            Some(keys) => Arc::clone(keys),
            None => context
                .issuers
                .keys((&self.issuer, self.ca_pin.as_deref()), &jwt.content_id(), &has_its_key)
                .await
                .map_err(Failure::Unavailable)?,
        };
        if is_signed(&keys) {
            return Ok(());
        }
        let denial = match (keys.find(kid, jwt.algorithm).is_empty(), kid) {
            (false, _) => Denial::new(Reason::SignatureInvalid, "the signature does not verify"),
            (true, Some(kid)) => {
                let place = if self.static_keys.is_some() { " in `static_jwks`" } else { "" };
                let named = shown_exactly(kid);
                let detail = format!("no usable {:?} key with kid {named}{place}", jwt.algorithm);
                Denial::new(Reason::KeyUnknown, detail)
            }
            (true, None) => Denial::open(Reason::KeyUnknown, UNNAMED.to_owned()),
        };
        Err(denial.with_claims(&jwt.claims, false).into())
    }
}

impl Verifier for Oidc {
    fn verify<'a>(
        &'a self,
        proof: &'a Proof,
        context: &'a VerifyContext<'a>,
    ) -> BoxFuture<'a, Result<Identity, Failure>> {
        async move {
            let jwt = Jwt::of_proof_as(proof, ID_TOKEN, self.profile.typ)?;
            // What costs nothing comes first: another issuer's token, or an old
            // one, never makes us ask for keys.
            let held =
                self.precheck(&jwt, context).map_err(|denial| denial.with_claims(&jwt.claims, false))?;
            self.check_signature(&jwt, context).await?;
            // What depends on the join token is told to those alone who hold a token of its issuer.
            let believed = self.check_audience(&jwt.claims, context).and_then(|bound| {
                self.check_platform(&jwt.claims)?;
                Ok((bound, replay_id(&jwt)?))
            });
            let (bound, id) = believed.map_err(|denial| denial.with_claims(&jwt.claims, true))?;
            let replay = Replay { issuer: self.issuer.clone(), id, held };
            let provenance = self.provenance(&jwt.claims, context.join_token);
            Ok(Identity { claims: jwt.claims.into(), bound, replay, provenance, join: None })
        }
        .boxed()
    }

    fn rules(&self) -> &[Rule] {
        &self.rules
    }

    fn issuer(&self) -> Option<&str> {
        Some(&self.issuer)
    }

    fn asks(&self) -> Option<(&str, Option<&str>)> {
        self.static_keys.is_none().then_some((self.issuer.as_str(), self.ca_pin.as_deref()))
    }

    fn fixed(&self) -> Vec<(&str, String)> {
        let claims = self.pinned.iter().chain(&self.fixed).map(|(claim, value)| (*claim, value.clone()));
        claims.chain([("iss", self.issuer.clone())]).collect()
    }

    fn takes_unbound(&self) -> bool {
        !self.require_key_binding
    }

    fn provenance(&self, claims: &Map<String, Value>, _join_token: &str) -> Provenance {
        self.profile.provenance(&self.server, claims)
    }

    fn check_claims(&self, claims: &Map<String, Value>) -> Result<(), Denial> {
        self.check_issuer(claims)?;
        self.check_platform(claims)
    }
}

const UNNAMED: &str =
    "the token's header has no `kid`, and its issuer has not exactly one key that it can be signed with";

/// What names a token among its issuer's.
fn replay_id(jwt: &Jwt<'_>) -> Result<String, Denial> {
    match jwt.claims.get("jti") {
        None => Ok(jwt.content_id()),
        Some(Value::String(jti)) if (1..=MAX_JTI).contains(&jti.len()) => Ok(format!("jti:{jti}")),
        Some(_) => Err(Denial::new(Reason::ClaimInvalid, format!("jti is not text of 1 to {MAX_JTI} bytes"))),
    }
}
