//! Finding a claim by name or by JSON pointer.

use serde_json::{Map, Value};

/// The claim of that name. A name that begins with `/` is a JSON pointer (RFC
/// 6901) into the claims: `/kubernetes.io/namespace`; any other is the
/// literal name of a claim, dots and slashes included: `oidc.example.com/org`.
/// A claim whose own name begins with `/` is `/~1…`.
pub fn claim<'c>(claims: &'c Map<String, Value>, name: &str) -> Option<&'c Value> {
    let Some(pointer) = name.strip_prefix('/') else { return claims.get(name) };
    let (first, rest) = pointer.split_at(pointer.find('/').unwrap_or(pointer.len()));
    claims.get(&first.replace("~1", "/").replace("~0", "~"))?.pointer(rest)
}
