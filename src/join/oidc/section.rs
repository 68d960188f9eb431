//! The section of a join token, as far as OIDC methods share it.

use super::super::issuers::KeySet;
use crate::document::{Mapping, Mistake, Node};

/// A key set as a policy holds it: the text of its JSON.
pub fn key_set(node: &Node, key: &str) -> Result<KeySet, Mistake> {
    let set = || {
        let not = |why| Mistake::new(node.place, format!("`{key}` is not a key set: {why}"));
        KeySet::given(node.text(key)?.as_bytes()).map_err(not)
    };
    set().map_err(|mistake| {
        mistake.hint(
            "write what the `jwks_uri` of the issuer's discovery gives, as text: '{\"keys\": [{\"kty\": …}]}'",
        )
    })
}

/// An issuer's URL as a policy names it, compared whole with `iss`: https, and nothing but a path behind its host.
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

/// An organisation by its id, a UUID as platforms write them, in small letters; the hint says where it stands.
pub fn organization_id(section: &mut Mapping<'_>, hint: &str) -> Result<String, Mistake> {
    let node = section.need("organization_id")?;
    let id = node.text("organization_id")?;
    let groups: Vec<usize> = id.split('-').map(str::len).collect();
    let letters = id.bytes().all(|b| b == b'-' || b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if groups != [8, 4, 4, 4, 12] || !letters {
        return Err(Mistake::new(node.place, "`organization_id` is not a UUID in small letters").hint(hint));
    }
    Ok(id.to_owned())
}

/// A host as a policy names it: `HOST` or `HOST:PORT`.
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
