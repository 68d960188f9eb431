//! The section of a join token, as far as OIDC methods share it.

use super::super::issuers::KeySet;
use super::super::rules::{self, Field, Guard, Rule};
use crate::document::{Mapping, Mistake, Mistakes, Node};

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
    /// Every mistake.
    pub fn read(
        mut section: Mapping<'_>,
        fields: &'static [Field],
        guards: &[Guard],
    ) -> Result<Self, Mistakes> {
        let static_keys = section.read("static_jwks", key_set);
        Self::with_keys(static_keys, section, fields, guards)
    }

    /// The same, where the method says in its own way which keys are given.
    ///
    /// # Errors
    /// Every mistake.
    pub fn with_keys(
        static_keys: Option<KeySet>,
        mut section: Mapping<'_>,
        fields: &'static [Field],
        guards: &[Guard],
    ) -> Result<Self, Mistakes> {
        let require_key_binding = section.read("require_key_binding", Node::boolean).unwrap_or_default();
        let rules = section.require("allow", |node, _| rules::read(node, fields, guards)).unwrap_or_default();
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

/// An audience, where the policy names one.
///
/// # Errors
/// Where it is no text.
pub fn audience(section: &mut Mapping<'_>) -> Result<Option<String>, Mistake> {
    Ok(section.text("audience")?.map(str::to_owned))
}

/// An organisation by its id; the hint says where that stands.
///
/// # Errors
/// Where it is missing or no UUID as platforms write them, in small letters.
pub fn organization_id(section: &mut Mapping<'_>, hint: &str) -> Result<String, Mistake> {
    let node = section.need("organization_id")?;
    let id = node.text("organization_id")?;
    let groups: Vec<usize> = id.split('-').map(str::len).collect();
    let letters = id.bytes().all(|b| b == b'-' || b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if groups != [8, 4, 4, 4, 12] || !letters {
        return Err(Mistake::new(node.place, "`organization_id` is not a UUID").hint(hint));
    }
    Ok(id.to_owned())
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
