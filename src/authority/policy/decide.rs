//! The decision over one request, step by step.

use serde_json::{Map, Value};

use super::output::{self, OutputPolicy};
use super::resources::{JoinToken, Policy};
use crate::denial::{Denial, Reason};
use crate::join::trusted_cluster;
use crate::join::verify::{AssumedIdentity, Identity};
use crate::wire::{LeafRequest, MIN_TTL, OutputRequest};

mod asked;
pub(super) mod grant;
mod leaves;
pub(super) mod matching;
pub(super) mod remote;
pub(super) mod role_set;

use grant::{Grant, OutputGrant, Preview};
use role_set::{RoleSet, Warnings};

/// What a job asks a policy for.
#[derive(Clone, Copy, Debug)]
pub struct PolicyRequest<'a> {
    /// The outputs.
    pub outputs: &'a [OutputRequest],
    /// The leaf clusters that it is to be vouched for at.
    pub leaves: &'a [LeafRequest],
    /// How long the certificates should live, in seconds.
    pub ttl_seconds: i64,
    /// The authority's own URL, where it is known.
    pub public_url: Option<&'a str>,
}

impl Policy {
    /// Decides what a job gets that has proved to be `identity` to `token`'s verifier.
    ///
    /// # Errors
    /// Why it gets nothing; the identity's claims are in it. A request is
    /// granted as a whole or not at all.
    pub fn decide(
        &self,
        token: &JoinToken,
        identity: &Identity,
        request: &PolicyRequest<'_>,
    ) -> Result<Grant, Denial> {
        let claims = identity.claims();
        let granted = self.evaluate(token, claims, request).and_then(|preview| {
            leaves::check_binding(&preview.leaves, identity.is_bound()).map(|()| Grant(preview))
        });
        granted.map_err(|denial| denial.with_claims(claims, true))
    }

    /// What would become of a job with claims that nobody verified; see
    /// [`Verifier::assume`](crate::join::verify::Verifier::assume). The answer is [`Policy::decide`]'s own.
    ///
    /// # Errors
    /// Why it would get nothing.
    pub fn preview(
        &self,
        token: &JoinToken,
        assumed: &AssumedIdentity,
        request: &PolicyRequest<'_>,
    ) -> Result<Preview, Denial> {
        let claims = assumed.claims();
        self.evaluate(token, claims, request).map_err(|denial| denial.with_claims(claims, false))
    }

    /// The one decision, over claims that are proved or not. The rules come
    /// first: who is not let in learns nothing about outputs, roles or bots.
    fn evaluate(
        &self,
        token: &JoinToken,
        claims: &Map<String, Value>,
        request: &PolicyRequest<'_>,
    ) -> Result<Preview, Denial> {
        matching::admit(token, claims)?;
        // Always there, unless the token is of another policy than this one.
        let gone = || {
            let detail = format!("join token `{}` is for bot `{}`, which is gone", token.name, token.bot);
            Denial::new(Reason::NoRuleMatches, detail)
        };
        let remote = token.map.as_ref().map(|map| self.remote_bot(token, map, claims)).transpose()?;
        let bot = match &remote {
            Some(bot) => bot,
            None => self.bots.get(&token.bot).ok_or_else(gone)?,
        };
        let ttl = ttl(request.ttl_seconds)?;
        // Who goes to leaves alone needs nothing here.
        let types = match request.outputs {
            [] if !request.leaves.is_empty() => Vec::new(),
            outputs => output::check(outputs)?,
        };
        let mut warnings = Warnings::default();
        let mut outputs = Vec::with_capacity(types.len());
        // Proofs are taken there: no token is for them.
        let leaves = self.leaves().map(|leaf| leaf.url.as_str());
        let urls: Vec<&str> = request.public_url.into_iter().chain(leaves).collect();
        for (output, output_policy) in request.outputs.iter().zip(types) {
            let what = format!("output `{}`", output.name);
            let roles = asked::roles(self, bot, (&what, &output.roles), &mut warnings)?;
            let (join_method, urls) = (token.method.name, urls.as_slice());
            let set = RoleSet { bot, request: output, join_method, urls, roles, warnings: &mut warnings };
            outputs.push(grant_output(output_policy, set, ttl)?);
        }
        let leaves =
            request.leaves.iter().map(|leaf| leaves::grant(self, (token, bot), leaf, ttl, &mut warnings));
        let leaves = leaves.collect::<Result<_, _>>()?;
        let until = remote.as_ref().and_then(|_| trusted_cluster::granted_until(claims));
        let (bot, token) = (bot.name.clone(), token.name.clone());
        Ok(Preview { bot, token, until, outputs, leaves, warnings: warnings.0 })
    }
}

/// The API answers a malformed time before it comes here; this keeps what was
/// not caught there from becoming a certificate.
fn ttl(asked: i64) -> Result<u64, Denial> {
    u64::try_from(asked).ok().filter(|seconds| *seconds >= u64::from(MIN_TTL)).ok_or_else(|| {
        let told = format!("certificates cannot be asked for {asked} seconds: at least {MIN_TTL}");
        Denial::open(Reason::OutputInvalid, told)
    })
}

fn grant_output(
    policy: &'static OutputPolicy,
    mut set: RoleSet<'_, '_>,
    ttl: u64,
) -> Result<OutputGrant, Denial> {
    let (ssh, tls, jwt) = (policy.grant)(&mut set)?;
    let options = set.request.options.iter().filter(|(name, _)| policy.recorded.contains(&name.as_str()));
    Ok(OutputGrant {
        options: options.map(|(name, value)| (name.clone(), value.clone())).collect(),
        name: set.request.name.clone(),
        kind: policy.declaration.name,
        roles: set.roles.iter().map(|role| role.name.clone()).collect(),
        ttl: set.ttl(ttl).min(jwt.as_ref().map_or(u64::MAX, |jwt| jwt.ttl)),
        ssh,
        tls,
        jwt,
    })
}

#[cfg(test)]
mod tests;
