//! The output `jwt`: a token for one audience.

use super::output_policy::{Certificates, OutputPolicy};
use crate::authority::policy::decide::grant::JwtGrant;
use crate::authority::policy::decide::role_set::RoleSet;
use crate::authority::policy::resources::AUDIENCES;
use crate::denial::{Denial, Reason};
use crate::net::lies_under;
use crate::output::{AUDIENCE, JWT, MAX_JWT_TTL, TTL, USUAL_JWT_TTL, jwt_ttl};
use crate::wire::TRUSTED_CLUSTER;

/// What its roles become.
pub(super) static POLICY: OutputPolicy =
    OutputPolicy { declaration: &JWT, recorded: &[AUDIENCE, TTL], fields: &[&AUDIENCES], grant };

fn grant(set: &mut RoleSet<'_, '_>) -> Result<Certificates, Denial> {
    let refused = |set: &RoleSet<'_, '_>, why: &str| {
        Denial::open(Reason::NothingGranted, format!("output `{}`: {why}", set.request.name))
    };
    // What this cluster knows of the job is another's word, which it does not pass on as its own.
    if set.join_method == TRUSTED_CLUSTER {
        return Err(refused(
            set,
            "a job that another cluster vouches for gets no token here: ask that cluster",
        ));
    }
    set.leave_out_pinned();
    let audience = set.named(&AUDIENCES, AUDIENCE)?.unwrap_or_default();
    let ttl = set.option(TTL).map_or(Ok(USUAL_JWT_TTL), jwt_ttl);
    let ttl = ttl.map_err(|why| set.invalid(&format!("`{TTL}` {why}")))?;
    // An authority takes proofs there: whatever roles allow, none is made of a token.
    if set.urls.iter().any(|url| lies_under(&audience, url)) {
        return Err(refused(set, "no token is for an authority's own URL, or for what lies under it"));
    }
    if set.granting(&AUDIENCES, &audience).is_empty() {
        return Err(set.refused(&AUDIENCES, &audience));
    }
    Ok((None, None, Some(JwtGrant { audience, ttl: ttl.min(MAX_JWT_TTL) })))
}
