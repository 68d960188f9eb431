//! Finding a claim by name or by JSON pointer.

use serde_json::{Map, Value};

/// The claim of that name. A name that begins with `/` is a JSON pointer (RFC
/// 6901) into the claims: `/kubernetes.io/namespace`; any other is the
/// literal name of a claim, dots and slashes included: `oidc.example.com/org`.
/// A claim whose own name begins with `/` is `/~1…`.
#[must_use]
pub fn claim<'c>(claims: &'c Map<String, Value>, name: &str) -> Option<&'c Value> {
    let Some(pointer) = name.strip_prefix('/') else { return claims.get(name) };
    let mut steps = pointer.split('/').map(|step| step.replace("~1", "/").replace("~0", "~"));
    let first = claims.get(&steps.next()?)?;
    steps.try_fold(first, |value, step| match value {
        Value::Object(members) => members.get(&step),
        Value::Array(items) => items.get(index(&step)?),
        _ => None,
    })
}

/// An index as RFC 6901 writes it: no sign, no zeros in front.
fn index(step: &str) -> Option<usize> {
    let plain = step == "0" || (!step.starts_with('0') && step.bytes().all(|byte| byte.is_ascii_digit()));
    if plain { step.parse().ok() } else { None }
}
