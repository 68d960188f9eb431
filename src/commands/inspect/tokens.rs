//! Tokens: header and claims of a JWT, never its signature.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::item::{Item, when};
use crate::join::jwt;

/// Claims that are times.
const TIMES: &[(&str, &str)] = &[("iat", "issued"), ("nbf", "valid_from"), ("exp", "valid_until")];

pub(super) fn jwt(line: &str, now: i64) -> Option<Item> {
    let mut parts = line.split('.');
    let (header, claims, _signature) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let object = |part: &str| -> Option<Map<String, Value>> {
        serde_json::from_slice(&zeroize::Zeroizing::new(URL_SAFE_NO_PAD.decode(part).ok()?)).ok()
    };
    let (header, claims) = (object(header)?, object(claims)?);
    let mut item = Item::new("token (JWT)").with("signature", "not verified, not shown");
    for (claim, name) in TIMES {
        if let Some(time) = jwt::time(&claims, claim) {
            item = item.with(name, when(time, now));
        }
    }
    Some(item.with("header", header).with("claims", claims))
}
