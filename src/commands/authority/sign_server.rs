//! `machine-id authority sign-server`: a certificate for a TLS server.

use rcgen::PublicKeyData as _;

use super::data_dir::{certificate_ttl, open, read_input, record, warn_of_ca};
use crate::authority::issue::{request, x509::ServerPlan};
use crate::authority::keys::CaKeys;
use crate::cli::authority::SignServer;
use crate::clock::{Clock, rfc3339};
use crate::error::{Context as _, Error, Kind, Result};
use crate::folder::replace::{make_private, write_new};
use crate::folder::{PRIVATE_FILE, PUBLIC_FILE};
use crate::terminal::{self, print};

/// Signs for a CSR, or for a new key; writes or prints what the server needs.
pub(super) fn run(args: SignServer) -> Result<()> {
    let (now, ttl) = (Clock::system().now(), certificate_ttl(&args.ttl)?);
    if let Some(csr) = &args.csr {
        let text = read_input(csr)?;
        let spki = request::csr_key(&text)
            .map_err(|why| Error::usage(format!("cannot certify {}: {why}", csr.display())))?;
        let (keys, store) = open(&args.data.data_dir)?;
        let plan = ServerPlan::new(spki, args.names, (now, ttl), keys.tls_signer())?;
        warn(&plan, &keys);
        return print(&record(store.as_ref(), &keys, "sign-server", plan)?.sign(&keys)?);
    }
    let out = args.out.unwrap_or_default();
    let pair = rcgen::KeyPair::generate().context(Kind::Internal, "cannot make a TLS key")?;
    let (keys, store) = open(&args.data.data_dir)?;
    let plan = ServerPlan::new(pair.subject_public_key_info(), args.names, (now, ttl), keys.tls_signer())?;
    warn(&plan, &keys);
    make_private(&out)?;
    // Nothing is signed for files that cannot be written.
    let key = zeroize::Zeroizing::new(pair.serialize_pem());
    write_new(&out.join("server.key"), key.as_bytes(), PRIVATE_FILE)?;
    let certificate = record(store.as_ref(), &keys, "sign-server", plan)?.sign(&keys)?;
    write_new(&out.join("server.crt"), certificate.as_bytes(), PUBLIC_FILE)?;
    write_new(&out.join("ca.crt"), keys.trust().tls_cas.concat().as_bytes(), PUBLIC_FILE)
}

/// Says where the certificate ends before it was to, or soon with its CA.
fn warn(plan: &ServerPlan, keys: &CaKeys) {
    if plan.is_cut() {
        let end = rfc3339(keys.tls_validity().until);
        terminal::log(&format!(
            "warning: the certificate ends at {end} with the TLS CA or what certifies it, before --ttl does"
        ));
    } else {
        warn_of_ca(keys);
    }
}
