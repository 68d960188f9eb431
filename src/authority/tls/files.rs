//! A certificate and its key from files of an operator's, and what a client would say of them.

use std::path::PathBuf;
use std::sync::Arc;

use ring::digest::{SHA256, digest};
use rustls::client::verify_server_name;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::ParsedCertificate;
use zeroize::Zeroizing;

use super::served::{FileFacts, Served, certified};
use crate::authority::config::Config;
use crate::authority::validity::Validity;
use crate::error::{Context as _, Error, Kind, Result};
use crate::folder::read::{self, Limit, Trust};
use crate::pem;

/// What the files of `tls:` hold.
pub(super) struct Contents {
    files: (PathBuf, PathBuf),
    chain: Zeroizing<String>,
    key: Zeroizing<String>,
}

impl Contents {
    /// Reads them, where there are any.
    pub(super) fn read(config: &Config) -> Result<Option<Self>> {
        let read = |files: &(PathBuf, PathBuf)| {
            let chain = read::text(&files.0, Trust::Operators(config.owner), Limit::FILE)?;
            let key = read::text(&files.1, Trust::ServerKey(config.owner), Limit::FILE)?;
            Ok(Self { files: files.clone(), chain, key })
        };
        config.tls.as_ref().map(read).transpose()
    }

    /// What tells them from others.
    pub(super) fn hash(&self) -> Vec<u8> {
        [&self.chain, &self.key]
            .iter()
            .flat_map(|text| digest(&SHA256, text.as_bytes()).as_ref().to_vec())
            .collect()
    }

    /// As they can be served.
    ///
    /// # Errors
    /// `Kind::Usage` where they cannot: no certificate, no key, or one that does not fit.
    pub(super) fn served(&self, config: &Config) -> Result<Served> {
        let (file, key_file) = &self.files;
        let of_file = |why: String| Error::usage(format!("{} {why}", file.display()));
        let chain = pem::decode_all(&self.chain, "CERTIFICATE").unwrap_or_default();
        let chain: Vec<_> = chain.into_iter().map(|der| CertificateDer::from(der.to_vec())).collect();
        let [leaf, rest @ ..] = chain.as_slice() else {
            return Err(of_file("is not a certificate chain in PEM".to_owned()));
        };
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes())
            .context(Kind::Usage, format!("{} is not a private key in PEM", key_file.display()))?;
        let validity = Validity::of(leaf).map_err(of_file)?;
        let files = FileFacts {
            other_name: other_name(leaf, &config.public_host()),
            lacks_chain: lacks_chain(leaf, rest).map_err(of_file)?,
            chain: rest.iter().map(|one| Validity::of(one)).collect::<Result<_, _>>().map_err(of_file)?,
        };
        let key = Arc::new(certified(chain, key)?);
        Ok(Served { key, validity, files: Some(files) })
    }
}

/// That clients would not take it for the host, as they look for its name.
fn other_name(leaf: &CertificateDer<'_>, host: &str) -> Option<String> {
    let name = ServerName::try_from(host).ok()?;
    let fits = ParsedCertificate::try_from(leaf).is_ok_and(|leaf| verify_server_name(&leaf, &name).is_ok());
    (!fits).then(|| format!("the certificate in `cert_file` is not for {host}, the host of `public_url`"))
}

/// Whether it is another's, and that one's is not next. That may be a root
/// which clients know, so nothing hangs on it.
fn lacks_chain(leaf: &[u8], rest: &[CertificateDer<'_>]) -> Result<bool, String> {
    let names = |der: &[u8]| {
        let (_, read) =
            x509_parser::parse_x509_certificate(der).map_err(|error| format!("is no chain: {error}"))?;
        Ok::<_, String>((read.subject().as_raw().to_vec(), read.issuer().as_raw().to_vec()))
    };
    let (subject, issuer) = names(leaf)?;
    let next = rest.first().map(|next| names(next)).transpose()?;
    Ok(issuer != subject && next.is_none_or(|(next, _)| next != issuer))
}
