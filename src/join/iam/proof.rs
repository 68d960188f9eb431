//! The shape of a proof, which both halves know.

use std::sync::LazyLock;

use ring::digest::{SHA256, digest};

use crate::text::hex;

/// The field of a proof that is the signed request.
pub(super) const FIELD: &str = "sts_request";
/// The body that is signed, and sent.
pub(super) const ACTION: &str = "Action=GetCallerIdentity&Version=2011-06-15";
/// The header that says whom the request is for, and for which keys.
pub(super) const AUDIENCE_HEADER: &str = "x-machine-id-audience";

/// The SHA-256 of [`ACTION`], in hexadecimal digits.
pub(super) fn body_hash() -> &'static str {
    static HASH: LazyLock<String> = LazyLock::new(|| hex_hash(ACTION));
    &HASH
}

/// The SHA-256 of a text, in hexadecimal digits.
pub(super) fn hex_hash(text: &str) -> String {
    hex(digest(&SHA256, text.as_bytes()).as_ref())
}
