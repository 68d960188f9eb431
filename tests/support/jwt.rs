//! Whoever believes an authority as an OIDC issuer, as PyPI has them: two JWT libraries that share no line with this one.
//! Needs `tests/support/jwt/install`.

use std::path::Path;

use serde_json::Value;

use super::process::{command, succeed};
use super::repository;

/// Both of them.
pub const LIBRARIES: [&str; 2] = ["pyjwt", "joserfc"];

/// The claims of the token in a file for that audience, by the issuer's own discovery; or why it is refused.
#[track_caller]
pub fn verify(
    library: &str,
    (issuer, ca): (&str, &Path),
    audience: &str,
    token: &Path,
) -> Result<Value, String> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository("target"), Into::into);
    let python = target.join("tools/jwt/bin/python");
    assert!(python.exists(), "there is no {}: run tests/support/jwt/install", python.display());
    let mut verify = command(python);
    verify
        .arg(repository("tests/support/jwt/verify.py"))
        .args([library, issuer])
        .arg(ca)
        .arg(audience)
        .arg(token);
    let said = succeed(verify.env("PYTHONDONTWRITEBYTECODE", "1"));
    match said.strip_prefix("refused: ") {
        Some(why) => Err(why.trim_end().to_owned()),
        None => Ok(serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))),
    }
}
