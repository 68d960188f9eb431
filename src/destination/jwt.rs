//! The output `jwt`: a token alone, in a file.

use super::material::{File, Material, OptionValues};
use super::output_files::OutputFiles;
use crate::error::{Error, Result};
use crate::output::{JWT, TTL, jwt_ttl};

/// The token, without an end of line: some SDKs send the file as it is.
pub const TOKEN: &str = "token.jwt";

pub(super) static FILES: OutputFiles =
    OutputFiles { check, tls_pem: |_, _| None, ..OutputFiles::new(&JWT, &[TOKEN], files) };

fn check(options: &OptionValues, _: &OptionValues) -> Result<(), String> {
    options.get(TTL).map_or(Ok(()), |ttl| jwt_ttl(ttl).map(drop).map_err(|why| format!("`{TTL}` {why}")))
}

fn files(material: &Material<'_>) -> Result<Vec<File>> {
    let token = material.jwt.ok_or_else(|| Error::internal("an output without its token"))?;
    Ok(vec![File::new(TOKEN, token.to_owned())])
}
