//! Nothing leaves unrecorded, as a type: certificates are signed for a
//! [`Recorded`] plan alone, and only the two functions here make one, after
//! the store has said that the record is durable. What is recorded is what the
//! plan itself says of its certificates.
//!
//! Nobody else can say that a plan is recorded:
//!
//! ```
//! use machine_id::authority::{issue::ssh::HostPlan, keys::CaKeys, store::record::Recorded};
//! fn sign(keys: &CaKeys, plan: &Recorded<HostPlan>) { drop(plan.sign(keys)); }
//! ```
//! ```compile_fail
//! use machine_id::authority::{issue::ssh::HostPlan, keys::CaKeys, store::record::Recorded};
//! fn sign(keys: &CaKeys, plan: HostPlan) { drop(Recorded { plan, is_retry: false }.sign(keys)); }
//! ```
//! ```compile_fail
//! use machine_id::authority::{issue::ssh::HostPlan, keys::CaKeys};
//! fn sign(keys: &CaKeys, plan: &HostPlan) { drop(plan.sign(keys)); }
//! ```
//! The same for an exchange's and a server's:
//!
//! ```
//! use machine_id::authority::{issue::x509::ServerPlan, issue::Prepared, keys::CaKeys, store::record::Recorded};
//! fn sign(keys: &CaKeys, plan: &Recorded<ServerPlan>) { drop(plan.sign(keys)); }
//! fn issue(keys: &CaKeys, plan: Recorded<Prepared>) { drop(plan.sign(keys, "", None)); }
//! ```
//! ```compile_fail
//! use machine_id::authority::{issue::x509::ServerPlan, issue::Prepared, keys::CaKeys, store::record::Recorded};
//! fn sign(keys: &CaKeys, plan: &ServerPlan) { drop(plan.sign(keys)); }
//! ```
//! ```compile_fail
//! use machine_id::authority::{issue::x509::ServerPlan, issue::Prepared, keys::CaKeys, store::record::Recorded};
//! fn issue(keys: &CaKeys, plan: Prepared) { drop(plan.sign(keys, "", None)); }
//! ```
//! A plan is not read from anywhere, the store's own record included: it is made
//! for a request that is granted now, and where that was recorded before, it
//! takes from the record what tells it from others, serials and times:
//!
//! ```compile_fail
//! use machine_id::authority::issue::Prepared;
//! fn read(json: &str) { drop(serde_json::from_str::<Prepared>(json)); }
//! ```
//! ```compile_fail
//! use machine_id::authority::{issue::Prepared, keys::CaKeys, store::{Earlier, record::ExchangePlan}};
//! fn again(keys: &CaKeys, plan: Prepared, earlier: &Earlier) { drop(plan.again(earlier).unwrap().sign(keys, "", None)); }
//! ```
//! No other store than those of this crate is believed:
//!
//! ```compile_fail
//! #[derive(Debug)]
//! struct Forgetful;
//! impl machine_id::authority::store::sealed::Engine for Forgetful {}
//! ```
//! And the CA keys sign nothing by themselves:
//!
//! ```compile_fail
//! use machine_id::authority::keys::CaKeys;
//! fn sign(keys: &CaKeys, builder: ssh_key::certificate::Builder) { drop(builder.sign(&keys.ssh_user)); }
//! ```

use super::hosts::SERVE;
use super::locks::Lock;
use super::{Earlier, Issued, NewCertificate, NewIssuance, NewSigned, PlanRecord, Signed, Store};
use crate::authority::ca::OWN;
use crate::clock::rfc3339;
use crate::error::{Error, Kind, Result};
use crate::random;
use crate::text::{shown, shown_exactly};

/// A plan whose record is durable: it may be signed.
#[derive(Debug, PartialEq, Eq)]
pub struct Recorded<P> {
    plan: P,
    is_retry: bool,
}

impl<P> Recorded<P> {
    /// The plan.
    pub fn plan(&self) -> &P {
        &self.plan
    }

    /// Whether it was recorded before, for the same request.
    pub fn is_retry(&self) -> bool {
        self.is_retry
    }
}

/// The certificates of one exchange, before they are recorded.
pub trait ExchangePlan: Sized {
    /// What is recorded of it.
    fn record(&self) -> PlanRecord;

    /// The plan as it was when the same request was recorded `earlier`: with
    /// its id, its serials and times. None where something else was recorded.
    fn again(self, earlier: &Earlier) -> Option<Self>;
}

/// A certificate that a command signs, before it is recorded.
pub trait CommandPlan {
    /// What is recorded of it.
    fn record(&self) -> NewCertificate;
}

/// Uses the proof up and records the plan; or finds what the same request was
/// given before, and gives that.
pub async fn exchange<P: ExchangePlan>(
    store: &dyn Store,
    entry: NewIssuance,
    plan: P,
) -> Result<Issued<Recorded<P>>> {
    Ok(match store.issue(entry, plan.record()).await? {
        Issued::Accepted { plan: None, generation } => {
            Issued::Accepted { plan: Recorded { plan, is_retry: false }, generation }
        }
        Issued::Accepted { plan: Some(earlier), generation } => match plan.again(&earlier) {
            Some(plan) => Issued::Accepted { plan: Recorded { plan, is_retry: true }, generation },
            None => Issued::Used,
        },
        Issued::Used => Issued::Used,
        Issued::Refused(refusal) => Issued::Refused(refusal),
        Issued::Locked(refused) => Issued::Locked(refused),
        Issued::Outdated => Issued::Outdated,
    })
}

/// Records what the command `by` is about to sign by the CAs of that number.
///
/// # Errors
/// `Kind::Refused` where a lock takes it; `Kind::Unreachable` where the CAs are others by now.
pub async fn command<P: CommandPlan>(
    store: &dyn Store,
    by: &'static str,
    now: i64,
    cas: i64,
    plan: P,
) -> Result<Recorded<P>> {
    let mut certificate = plan.record();
    certificate.is_host &= by != SERVE;
    if by == SERVE {
        certificate.ca = Some(OWN);
    }
    let entry = NewSigned { id: random::id("s")?, time: now, by, certificate, cas };
    match store.record_signed(entry).await? {
        Signed::Recorded => Ok(Recorded { plan, is_retry: false }),
        Signed::Locked(refused) => Err(locked(&refused.lock)),
        Signed::Outdated => Err(Error::new(Kind::Unreachable, "a CA was rotated meanwhile")
            .context("nothing is signed")
            .hint("the same again is signed by the CA that signs now")),
    }
}

/// Why nothing is signed, and what would have to be done.
fn locked(lock: &Lock) -> Error {
    let words = shown_exactly(&lock.words());
    let message = lock.message.as_ref().map_or_else(String::new, |message| format!(": {}", shown(message)));
    let by = format!("{words} is locked, by {} at {}{message}", shown(&lock.by), rfc3339(lock.at));
    Error::new(Kind::Refused, by)
        .context("nothing is signed")
        .hint(format!("where it is to be trusted again, `machine-id authority unlock --{words}` lifts that"))
}
