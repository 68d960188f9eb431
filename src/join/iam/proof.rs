//! The shape of a proof, which both halves know.

use ring::digest::{SHA256, digest};

use crate::text::hex;

/// The field of a proof that is the signed request.
pub(super) const FIELD: &str = "sts_request";
/// The body that is signed, and sent.
pub(super) const ACTION: &str = "Action=GetCallerIdentity&Version=2011-06-15";
/// Its SHA-256, in hexadecimal digits.
pub(super) const ACTION_HASH: &str = "ab821ae955788b0e33ebd34c208442ccfc2d406e2edc5e7a39bd6458fbb4f843";
/// How old a signature may be, in seconds; AWS itself takes them for a quarter of an hour.
pub(super) const MAX_AGE: i64 = 300;
/// The header that says whom the request is for, and for which keys.
pub(super) const AUDIENCE_HEADER: &str = "x-machine-id-audience";

/// The SHA-256 of a text, in hexadecimal digits.
pub(super) fn hex_hash(text: &str) -> String {
    hex(digest(&SHA256, text.as_bytes()).as_ref())
}
