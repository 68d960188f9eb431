//! What is asked for an output, and what of a proof may be named.

use crate::once::exchange::keys::JobKeys;
use crate::once::settings::output::Output;
use crate::wire::{OutputRequest, SshRequest, TlsRequest};

/// What an authority is asked for.
pub(super) fn output_request(output: &Output, keys: &JobKeys) -> OutputRequest {
    OutputRequest {
        name: output.name.clone(),
        kind: output.kind.declaration.name.to_owned(),
        roles: output.roles.clone(),
        options: output.asked(),
        ssh: keys.ssh.as_ref().map(|key| SshRequest { public_key: key.public_line.clone() }),
        tls: keys.tls.as_ref().map(|key| TlsRequest { csr: key.csr.clone() }),
    }
}

/// The signature part of a JWT in compact form.
pub(super) fn signature_of(token: &str) -> Option<&str> {
    let (rest, signature) = token.rsplit_once('.')?;
    (rest.contains('.') && !signature.is_empty()).then_some(signature)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_signature_is_masked() {
        assert_eq!(signature_of("eyJh.eyJp.c2ln"), Some("c2ln"));
        for other in ["secret", "a.b", "a.b.", ""] {
            assert_eq!(signature_of(other), None, "{other}");
        }
    }
}
