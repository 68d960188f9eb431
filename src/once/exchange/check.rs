//! The authority's answer, checked before anything is written: is each
//! certificate for our key, of the right kind, and of any use?

use std::borrow::Borrow;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Map, Value};
use ssh_key::Certificate;
use ssh_key::certificate::CertType;
use zeroize::Zeroizing;

use crate::clock::parse_rfc3339;
use crate::error::{Error, Kind, Result};
use crate::krl;
use crate::once::exchange::keys::JobKeys;
use crate::pem;
use crate::text::shown;
use crate::wire::{ExchangeResponse, OutputResponse};

/// An answer that passed.
pub(crate) struct Issuance {
    pub response: ExchangeResponse,
    /// The revoked host certificates, as a KRL, where the authority tells.
    pub revoked_hosts: Option<Vec<u8>>,
    /// When the first certificate expires, in seconds since 1970.
    pub expires_at: i64,
}

/// Checks the answer of the authority at `issuer` against the keys that are to be certified.
///
/// # Errors
/// `Kind::Unreachable`: this is not how an authority answers.
pub(crate) fn check<K: Borrow<JobKeys>>(
    mut response: ExchangeResponse,
    keys: &[K],
    issuer: &str,
) -> Result<Issuance> {
    let keys: Vec<&JobKeys> = keys.iter().map(Borrow::borrow).collect();
    let wrong = |why: String| {
        Error::new(Kind::Unreachable, why)
            .context("the authority's answer does not fit the request")
            .hint("the authority and this program may be of versions that do not fit together")
    };
    if !response.outputs.iter().map(|output| &output.name).eq(keys.iter().map(|keys| &keys.output)) {
        return Err(wrong("it has other outputs".to_owned()));
    }
    if !is_plain(&response.issuance_id) || !is_plain(&response.cluster) || !is_plain(&response.bot) {
        return Err(wrong("its names are not plain text".to_owned()));
    }
    let expires_at =
        parse_rfc3339(&response.expires_at).ok_or_else(|| wrong("`expires_at` is not a time".to_owned()))?;
    for (output, keys) in response.outputs.iter_mut().zip(&keys) {
        check_output(output, keys, issuer, expires_at)
            .map_err(|why| wrong(format!("output `{}`: {why}", keys.output)))?;
    }
    for key in response.trust.ssh_host_cas.iter().chain(&response.trust.ssh_user_cas) {
        if key.trim().contains(['\n', '\r']) || ssh_key::PublicKey::from_openssh(key).is_err() {
            return Err(wrong("a CA is not an SSH public key".to_owned()));
        }
    }
    for ca in &response.trust.tls_cas {
        pem::certificates(ca).map_err(|why| wrong(format!("a CA: {why}")))?;
    }
    // With one that it cannot read, `ssh` believes no host.
    let revoked_hosts = response
        .revoked_hosts
        .take()
        .map(|text| STANDARD.decode(text).ok().filter(|list| krl::read(list).is_ok()));
    let revoked_hosts = match revoked_hosts {
        Some(None) => {
            return Err(wrong("its list of revoked hosts is not one that OpenSSH reads".to_owned()));
        }
        known => known.flatten(),
    };
    Ok(Issuance { expires_at, response, revoked_hosts })
}

/// Fit for a file of one line, a log and a workflow command.
fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.len() <= 256 && shown(text) == text
}

fn check_output(
    output: &mut OutputResponse,
    keys: &JobKeys,
    issuer: &str,
    expires_at: i64,
) -> Result<(), String> {
    match (&keys.ssh, &output.ssh_certificate) {
        // What the certificate says counts, not what is said about it.
        (Some(key), Some(certificate)) => {
            output.principals = check_ssh(certificate, &key.blob, keys.ssh_type)?;
        }
        // An identity whose roles grant no login has its X.509 half alone; the authority warns.
        (Some(_), None) if keys.tls.is_some() => output.principals.clear(),
        (Some(_), None) => return Err("there is no SSH certificate".to_owned()),
        (None, _) => {}
    }
    if let Some((audience, _)) = &keys.jwt {
        let token = output.jwt.as_ref().ok_or("there is no token")?;
        check_jwt(token.expose(), audience, issuer, expires_at)?;
        if output.tls_certificate_chain.is_some() {
            return Err("there is a certificate beside the token".to_owned());
        }
        output.principals = vec![audience.clone()];
    } else if let Some(key) = &keys.tls {
        let chain = output.tls_certificate_chain.as_deref().ok_or("there is no X.509 certificate")?;
        let common_name = check_tls(chain, &key.spki)?;
        if keys.ssh.is_none() {
            output.principals = common_name.into_iter().collect();
        }
    }
    Ok(())
}

/// Returns the principals.
fn check_ssh(line: &str, blob: &[u8], wanted: CertType) -> Result<Vec<String>, String> {
    if line.trim_end().contains(['\n', '\r']) {
        return Err("the SSH certificate is not one line".to_owned());
    }
    let certificate = Certificate::from_openssh(line.trim_end())
        .map_err(|error| format!("the SSH certificate: {error}"))?;
    let public = ssh_key::PublicKey::from(certificate.public_key().clone());
    if public.to_bytes().ok().as_deref() != Some(blob) {
        return Err("the SSH certificate is for another key".to_owned());
    }
    if certificate.cert_type() != wanted {
        let whose = if wanted == CertType::Host { "host" } else { "user" };
        return Err(format!("the SSH certificate is not a {whose}'s"));
    }
    // Without principals, a certificate holds for everyone.
    if certificate.valid_principals().is_empty()
        || certificate.valid_principals().iter().any(String::is_empty)
    {
        return Err("the SSH certificate has no principals".to_owned());
    }
    Ok(certificate.valid_principals().to_vec())
}

/// Whether it is a token as was asked for, by what it says of itself: that it is the authority's own, TLS says.
fn check_jwt(token: &str, audience: &str, issuer: &str, expires_at: i64) -> Result<(), String> {
    let mut parts = token.split('.');
    let (Some(header), Some(payload), Some(signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err("the token is not one".to_owned());
    };
    // What is in it is as secret as the token.
    let object = |part: &str| -> Option<Map<String, Value>> {
        serde_json::from_slice(&Zeroizing::new(URL_SAFE_NO_PAD.decode(part).ok()?)).ok()
    };
    let (Some(header), Some(claims)) = (object(header), object(payload)) else {
        return Err("the token is not one".to_owned());
    };
    let is =
        |of: &Map<String, Value>, name: &str, text: &str| of.get(name).and_then(Value::as_str) == Some(text);
    let is_whole = URL_SAFE_NO_PAD.decode(signature).is_ok_and(|bytes| bytes.len() == 64);
    if !is_whole || !is(&header, "alg", "ES256") {
        return Err("the token is not signed as tokens are".to_owned());
    }
    if !is(&claims, "aud", audience) {
        return Err("the token is for another audience".to_owned());
    }
    if !is(&claims, "iss", issuer) {
        return Err(format!(
            "the token is of another issuer than {issuer}: spell --authority as its `public_url`"
        ));
    }
    match claims.get("exp").and_then(Value::as_i64) {
        Some(end) if end >= expires_at => Ok(()),
        _ => Err("the token ends before the answer says".to_owned()),
    }
}

/// Returns the common name.
fn check_tls(chain: &str, spki: &[u8]) -> Result<Option<String>, String> {
    let chain = pem::certificates(chain)?;
    let leaf = chain.first().ok_or("there is no X.509 certificate")?;
    let (_, leaf) = x509_parser::parse_x509_certificate(leaf)
        .map_err(|error| format!("the X.509 certificate: {error}"))?;
    if leaf.public_key().raw != spki {
        return Err("the X.509 certificate is for another key".to_owned());
    }
    if leaf.is_ca() {
        return Err("the X.509 certificate is a CA's".to_owned());
    }
    let common_name = leaf.subject().iter_common_name().next().map(|name| name.as_str());
    let common_name = common_name.transpose().map_err(|error| format!("its common name: {error}"))?;
    if !common_name.is_none_or(is_plain) {
        return Err("its common name is not plain text".to_owned());
    }
    Ok(common_name.map(str::to_owned))
}

#[cfg(test)]
mod tests;
