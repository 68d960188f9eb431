//! A certificate from our own CA.

use std::sync::Arc;

use rcgen::PublicKeyData as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::served::{Served, certified};
use crate::authority::Authority;
use crate::authority::issue::x509::ServerPlan;
use crate::authority::keys::CaKeys;
use crate::authority::store::hosts::SERVE;
use crate::authority::store::record;
use crate::authority::validity::Validity;
use crate::error::{Context as _, Error, Kind, Result};
use crate::pem;

/// How long it is valid, in seconds.
pub(super) const LIFETIME: i64 = 7 * 86_400;
/// When it is renewed: with a third of its time left.
pub(super) const RENEW_BEFORE: i64 = LIFETIME / 3;

/// One of our own.
pub(super) struct Own {
    pub(super) served: Served,
    /// When to renew it, in seconds since 1970.
    pub(super) renew_at: i64,
    /// What stands behind it: where that is to be another, it is made anew.
    pub(super) chain: String,
}

/// A certificate from our own CA for the public URL's host. The CA's follows it in the chain, so that
/// `--ca-pin` has something to be compared with.
pub(super) async fn own(authority: &Authority) -> Result<Own> {
    authority.hear().await?;
    loop {
        let keys = authority.keys();
        match by(authority, &keys).await {
            // A CA was rotated meanwhile, and another signs.
            Err(_) if authority.hear().await?.cas != keys.set().number => {}
            made => return made,
        }
    }
}

async fn by(authority: &Authority, keys: &Arc<CaKeys>) -> Result<Own> {
    let now = authority.clock.now();
    let ca = keys.tls_validity();
    // A clock that is not set yet, at boot: what is made then waits for its time, and is made again.
    let from = now.max(ca.from);
    let pair = rcgen::KeyPair::generate().context(Kind::Internal, "cannot make a TLS key")?;
    let names = vec![authority.config.public_host()];
    let plan = ServerPlan::new(pair.subject_public_key_info(), names, (from, LIFETIME), keys.tls_signer())?;
    // Where it ends with the CA, another would end no later.
    let renew_at = if plan.is_cut() { i64::MAX } else { from + LIFETIME - RENEW_BEFORE };
    let recorded = record::command(authority.store.as_ref(), SERVE, now, keys.set().number, plan).await?;
    let behind = keys.tls_chain();
    let chain = keys.work(move |keys| recorded.sign(keys)).await?;
    let chain = pem::certificates(&chain).map_err(Error::internal)?;
    let validity = Validity::of(chain.first().map_or(&[], Vec::as_slice)).map_err(Error::internal)?;
    let chain = chain.into_iter().map(CertificateDer::from).collect();
    let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(pair.serialize_der()));
    let served = Served { key: Arc::new(certified(chain, private)?), validity, files: None };
    Ok(Own { served, renew_at, chain: behind })
}
