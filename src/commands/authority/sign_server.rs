//! `machine-id authority sign-server`: a certificate for a TLS server.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;

use rcgen::PublicKeyData as _;

use super::data_dir::{open, record, ttl, write_new};
use crate::authority::issue::{request, x509::ServerPlan};
use crate::cli::authority::SignServer;
use crate::clock::Clock;
use crate::error::{Context as _, Error, Kind, Result};
use crate::terminal::print;

/// Signs for a CSR, or for a new key; writes or prints what the server needs.
///
/// # Errors
/// `Kind::Usage` where the CSR or the names are no good, or a file cannot be written.
pub(super) fn run(args: SignServer) -> Result<()> {
    let (now, ttl) = (Clock::system().now(), ttl(&args.ttl)?);
    if let Some(csr) = &args.csr {
        let text = fs::read_to_string(csr).context(Kind::Usage, format!("cannot read {}", csr.display()))?;
        let spki = request::csr_key(&text)
            .map_err(|why| Error::usage(format!("cannot certify {}: {why}", csr.display())))?;
        let plan = ServerPlan::new(spki, args.names, now, ttl)?;
        let (keys, store) = open(&args.data.data_dir)?;
        return print(&record(&store, "sign-server", plan)?.sign(&keys)?);
    }
    let out = args.out.unwrap_or_default();
    let pair = rcgen::KeyPair::generate().context(Kind::Internal, "cannot make a TLS key")?;
    let plan = ServerPlan::new(pair.subject_public_key_info(), args.names, now, ttl)?;
    let (keys, store) = open(&args.data.data_dir)?;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&out)
        .context(Kind::Usage, format!("cannot create {}", out.display()))?;
    // Nothing is signed for files that cannot be written.
    let key = zeroize::Zeroizing::new(pair.serialize_pem());
    write_new(&out.join("server.key"), key.as_bytes(), 0o600)?;
    let certificate = record(&store, "sign-server", plan)?.sign(&keys)?;
    write_new(&out.join("server.crt"), certificate.as_bytes(), 0o644)?;
    write_new(&out.join("ca.crt"), keys.trust().tls_cas.concat().as_bytes(), 0o644)
}
