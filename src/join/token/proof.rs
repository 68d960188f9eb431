//! The shape of a proof, which both halves know.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};

use crate::text::hex;

/// The field of a proof that is the assertion.
pub(super) const ASSERTION: &str = "assertion";
/// The field of a proof that is the registration secret.
pub(super) const SECRET: &str = "registration_secret";
/// The field of a proof that is another instance's word that the new one takes its place.
pub(super) const REPLACES: &str = "replaces";
/// The claim of that word that is the new one's id.
pub(super) const REPLACED_BY: &str = "replaced_by";
/// The longest that an assertion lives, in seconds.
pub(super) const MAX_LIFETIME: i64 = 120;

/// An Ed25519 public key's id: the JWK thumbprint (RFC 7638), so that nobody
/// can have the id of another's key.
pub(super) fn instance_id(key: &[u8]) -> String {
    let jwk = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, URL_SAFE_NO_PAD.encode(key));
    let hash = digest(&SHA256, jwk.as_bytes());
    // As all ids here: a letter, and 128 bits that read the same in any case of letters.
    format!("w-{}", hex(hash.as_ref().get(..16).unwrap_or_default()))
}
