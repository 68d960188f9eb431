//! A certificate and its key from files of an operator's, and what a client would say of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ring::digest::{SHA256, digest};
use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::ParsedCertificate;
use rustls::sign::{CertifiedKey, SigningKey};
use zeroize::Zeroizing;

use super::served::{FileFacts, Served, provider};
use crate::authority::config::Config;
use crate::authority::validity::Validity;
use crate::error::{Error, Result};
use crate::folder::read::{self, Limit, Trust};
use crate::pem;

/// What the files of `tls:` hold.
pub(super) struct Contents {
    files: (PathBuf, PathBuf),
    chain: Vec<CertificateDer<'static>>,
    key: Zeroizing<String>,
}

impl Contents {
    /// Reads them, where there are any.
    pub(super) fn read(config: &Config) -> Result<Option<Self>> {
        let read = |files: &(PathBuf, PathBuf)| {
            let chain = read::text(&files.0, Trust::Operators(config.owner), Limit::FILE)?;
            // Before the other: where the two are exchanged, what is wrong with that is not its mode.
            let chain = certificates(&chain).map_err(|error| unread(error, &files.0))?;
            let key = read::text(&files.1, Trust::ServerKey(config.owner), Limit::FILE)?;
            Ok(Self { files: files.clone(), chain, key })
        };
        config.tls.as_ref().map(read).transpose()
    }

    /// What tells them from others.
    pub(super) fn hash(&self) -> Vec<u8> {
        let parts = self.chain.iter().map(AsRef::as_ref).chain([self.key.as_bytes()]);
        parts.flat_map(|part| digest(&SHA256, part).as_ref().to_vec()).collect()
    }

    /// As they can be served.
    ///
    /// # Errors
    /// `Kind::Usage` where they cannot: no certificate, no key, or one that does not fit.
    pub(super) fn served(&self, config: &Config) -> Result<Served> {
        let (file, key_file) = &self.files;
        let of_file = |why: String| Error::usage(format!("{} {why}", file.display()));
        let Some((leaf, rest)) = self.chain.split_first() else {
            return Err(of_file("holds no certificate".to_owned()));
        };
        let keys = pem::private_keys(&self.key).map_err(|error| unread(error, key_file))?;
        let key = self.fitting(leaf, rest, keys)?;
        let validity = Validity::of(leaf).map_err(of_file)?;
        let files = FileFacts {
            other_name: other_name(leaf, &config.public_host()),
            chain_fault: chain_fault(leaf, rest).map_err(of_file)?,
            chain: rest.iter().map(|one| Validity::of(one)).collect::<Result<_, _>>().map_err(of_file)?,
        };
        let key = Arc::new(CertifiedKey::new(self.chain.clone(), key));
        Ok(Served { key, validity, files: Some(files) })
    }

    /// The key of the first certificate, of those that are there.
    fn fitting(
        &self,
        leaf: &CertificateDer<'static>,
        rest: &[CertificateDer<'static>],
        keys: Vec<PrivateKeyDer<'static>>,
    ) -> Result<Arc<dyn SigningKey>> {
        let (file, key_file) = (self.files.0.display(), self.files.1.display());
        let load = |key| provider().key_provider.load_private_key(key).ok();
        let keys: Vec<Arc<dyn SigningKey>> = keys.into_iter().filter_map(load).collect();
        if keys.is_empty() {
            return Err(Error::usage(format!("{key_file} holds no key of a kind that can be served with"))
                .hint("there are RSA from 2048 bits on, ECDSA over P-256 and P-384, and Ed25519"));
        }
        let of = |certificate: &CertificateDer<'static>| {
            let fits = |key: &&Arc<dyn SigningKey>| {
                CertifiedKey::new(vec![certificate.clone()], Arc::clone(key)).keys_match().is_ok()
            };
            keys.iter().find(fits).cloned()
        };
        of(leaf).ok_or_else(|| {
            if rest.iter().any(|behind| of(behind).is_some()) {
                Error::usage(format!("{file} begins with another certificate than that of the key in {key_file}"))
                    .hint("put the server's own certificate first, then its issuer's, and so on, as `fullchain.pem` has them")
            } else {
                Error::usage(format!("the key in {key_file} is not that of the certificate in {file}"))
                    .hint("where they fit, `openssl pkey -pubout -in KEY` and `openssl x509 -noout -pubkey -in CERTIFICATE` print the same")
            }
        })
    }
}

/// The certificates of a PEM text, in its order, at least one.
fn certificates(text: &str) -> Result<Vec<CertificateDer<'static>>> {
    let chain = pem::decode_all(text, "CERTIFICATE").filter(|chain| !chain.is_empty());
    let chain = chain.ok_or_else(|| pem::lacks(text, "certificate"))?;
    Ok(chain.into_iter().map(|der| CertificateDer::from(der.to_vec())).collect())
}

/// A file of the two that holds something else.
fn unread(error: Error, file: &Path) -> Error {
    let error = error.context(format!("cannot use {}", file.display()));
    error.hint("`cert_file` names the certificate with its chain, `key_file` its private key; both in PEM")
}

/// That clients would not take it for the host, as they look for its name.
fn other_name(leaf: &CertificateDer<'_>, host: &str) -> Option<String> {
    let name = ServerName::try_from(host).ok()?;
    let fits = ParsedCertificate::try_from(leaf).is_ok_and(|leaf| verify_server_name(&leaf, &name).is_ok());
    (!fits).then(|| format!("the certificate in `cert_file` is not for {host}, the host of `public_url`"))
}

/// What is amiss where it is another's, and that one's is not next. That may be a root
/// which clients know, so nothing hangs on it.
fn chain_fault(leaf: &[u8], rest: &[CertificateDer<'_>]) -> Result<Option<&'static str>, String> {
    let names = |der: &[u8]| {
        let (_, read) =
            x509_parser::parse_x509_certificate(der).map_err(|error| format!("is no chain: {error}"))?;
        Ok::<_, String>((read.subject().as_raw().to_vec(), read.issuer().as_raw().to_vec()))
    };
    let (subject, issuer) = names(leaf)?;
    let behind = rest.iter().map(|one| Ok(names(one)?.0)).collect::<Result<Vec<_>, String>>()?;
    Ok(match behind.iter().position(|name| *name == issuer) {
        _ if issuer == subject => None,
        Some(0) => None,
        Some(_) => Some("`cert_file` does not hold its certificates in order"),
        None => Some("`cert_file` holds a certificate without its issuer's"),
    })
}
