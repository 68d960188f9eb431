//! Giving certificates back.
//!
//! `POST /v1/revoke` takes an assertion by a key of the issuance: whoever could use a certificate can end it.

use std::net::IpAddr;

use super::Authority;
use super::assertion::{Assertion, Unfit, Unproven, refuse};
use super::store::{NewRevocation, Revoked};
use crate::join::jwt::{MAX_JTI, text};
use crate::text::shown_exactly;
use crate::wire::RevokeRequest;

/// The reason of a refusal here, in the audit trail.
const ASSERTION_INVALID: &str = "assertion_invalid";

/// Revokes every certificate of the issuance.
///
/// # Errors
/// [`Unproven`]; a refusal has been recorded when this returns, among those of strangers.
pub async fn revoke(authority: &Authority, request: &RevokeRequest, peer: IpAddr) -> Result<(), Unproven> {
    match judge(authority, request, peer).await {
        // It is in the trail already, and whoever repeats it for ever makes us work.
        Ok(Revoked::Before) => authority.refusals.admit(peer, true).map_err(Unproven::TooMany),
        Ok(_) => Ok(()),
        Err(unfit) => {
            let what = format!("revocation of {}", shown_exactly(&request.issuance_id));
            Err(refuse(authority, unfit, (ASSERTION_INVALID, &what), peer).await)
        }
    }
}

/// Revokes, if the assertion is one by a key of the issuance.
async fn judge(authority: &Authority, request: &RevokeRequest, peer: IpAddr) -> Result<Revoked, Unfit> {
    let assertion = Assertion::read(authority, (request.assertion.expose(), true), |record| {
        let is_of_it = record.issuance_id == request.issuance_id;
        is_of_it.then_some(()).ok_or("the certificate is not of that issuance")
    });
    let (assertion, now) = (assertion.await?, authority.clock.now());
    let (claims, held) = assertion.claims(&format!("{}/v1/revoke", authority.config.public_url), now)?;
    let id = text(claims, "jti");
    if !(1..=MAX_JTI).contains(&id.len()) {
        return Err(Unfit::verified("no `jti`"));
    }
    let entry = NewRevocation {
        issuance_id: request.issuance_id.clone(),
        time: now,
        assertion_id: id.to_owned(),
        held,
        peer: peer.to_canonical().to_string(),
    };
    match authority.store.revoke(entry).await? {
        revoked @ (Revoked::Now | Revoked::Before) => Ok(revoked),
        Revoked::AssertionUsed => Err(Unfit::verified("the assertion was used before")),
        Revoked::Unknown => Err(Unfit::verified("no such issuance")),
    }
}
