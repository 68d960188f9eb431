//! What a job that logs in somewhere is told of revoked host certificates.

use std::sync::{self, Arc, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::ASKED;
use super::list::{krl_date, with_revoked};
use crate::authority::keys::CaKeys;
use crate::authority::store::Store;
use crate::clock::LEEWAY;
use crate::error::Result;
use crate::krl;

/// How many revoked host certificates a job is told of at most (64 KiB): those that last longest.
const MAX_HOSTS: usize = 8192;

/// Keeps the list of revoked host certificates, which each job is given that logs in somewhere.
#[derive(Debug, Default)]
pub struct HostListCache(sync::Mutex<Option<HostList>>);

#[derive(Debug)]
struct HostList {
    krl: Arc<str>,
    asked: i64,
    revocations: u64,
    cas: i64,
}

impl HostListCache {
    /// The list as of `now`, in base64: of the host CA.
    pub async fn list(&self, store: &dyn Store, keys: &CaKeys, now: i64) -> Result<Arc<str>> {
        // Not held while the store is asked: nobody waits for an answer that another does not get.
        let cached = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let revocations = store.revocations();
        if let Some(known) = cached().as_ref()
            && known.revocations == revocations
            && known.cas == keys.set().number
            && ASKED.contains(&now.saturating_sub(known.asked))
        {
            return Ok(Arc::clone(&known.krl));
        }
        let serials = store.revoked_hosts(now.saturating_sub(LEEWAY), MAX_HOSTS).await?;
        let (hosts, made) = (keys.ssh_cas()?.into_iter().filter(|ca| ca.is_host), krl_date(now));
        let hosts: Vec<_> = hosts.collect();
        // Serials are those of no other: of each CA all.
        let of_cas = hosts.iter().filter(|ca| !ca.is_revoked).map(|ca| (ca.key.clone(), serials.clone()));
        let krl = with_revoked(krl::write(made, made, of_cas.collect()), &hosts)?;
        let krl: Arc<str> = STANDARD.encode(krl).into();
        *cached() = Some(HostList { krl: Arc::clone(&krl), asked: now, revocations, cas: keys.set().number });
        Ok(krl)
    }
}
