//! The decision over one request, step by step.

use serde_json::{Map, Value};

use super::bot::Bot;
use super::grant::{Grant, OutputGrant, Prospect};
use super::merge::{Merged, Warnings};
use super::output::OutputKind;
use super::role::{self, Role};
use super::{Asked, JoinToken, Policy, matching, output};
use crate::denial::{Denial, Reason};
use crate::join::verify::Identity;
use crate::text::shown;
use crate::wire::OutputRequest;

/// The shortest life that can be asked for, in seconds.
const MIN_TTL: u64 = 10;

/// Decides over a job that has proved who it is.
pub(super) fn decide(
    policy: &Policy,
    token: &JoinToken,
    identity: &Identity,
    asked: &Asked<'_>,
) -> Result<Grant, Denial> {
    let Prospect { bot, outputs, warnings } = settle(policy, token, identity.claims(), asked)?;
    Ok(Grant {
        bot,
        token: token.name.clone(),
        join_method: token.method.name,
        provenance: identity.provenance().clone(),
        outputs,
        warnings,
    })
}

/// What claims would get, proved or not: the one decision, for [`decide`] and
/// for whoever only asks. The rules come first: who is not let in learns
/// nothing about outputs, roles or bots.
pub(super) fn settle(
    policy: &Policy,
    token: &JoinToken,
    claims: &Map<String, Value>,
    asked: &Asked<'_>,
) -> Result<Prospect, Denial> {
    matching::admit(token, claims)?;
    // Always there, unless the token is of another policy than this one.
    let bot = policy.bots.get(&token.bot).ok_or_else(|| {
        Denial::new(
            Reason::NoRuleMatches,
            format!("join token `{}` is for bot `{}`, which is gone", token.name, token.bot),
        )
    })?;
    let ttl = ttl(asked.ttl_seconds)?;
    let kinds = output::check(asked.outputs)?;
    let mut warnings = Warnings::default();
    let mut outputs = Vec::with_capacity(kinds.len());
    for (request, kind) in asked.outputs.iter().zip(kinds) {
        let roles = roles(policy, bot, request, &mut warnings)?;
        outputs.push(grant(kind, Merged { bot, request, roles, warnings: &mut warnings }, ttl)?);
    }
    Ok(Prospect { bot: bot.name.clone(), outputs, warnings: warnings.0 })
}

/// The API answers a malformed time before it comes here; this keeps what was
/// not caught there from becoming a certificate.
fn ttl(asked: i64) -> Result<u64, Denial> {
    u64::try_from(asked).ok().filter(|seconds| *seconds >= MIN_TTL).ok_or_else(|| {
        let told = format!("certificates cannot be asked for {asked} seconds: at least {MIN_TTL}");
        Denial::new(Reason::OutputInvalid, told.clone()).tell(told)
    })
}

fn grant(kind: &'static OutputKind, mut merged: Merged<'_, '_>, ttl: u64) -> Result<OutputGrant, Denial> {
    let (ssh, tls) = (kind.grant)(&mut merged)?;
    let options = merged.request.options.iter().filter(|(name, _)| kind.recorded.contains(&name.as_str()));
    Ok(OutputGrant {
        options: options.map(|(name, value)| (name.clone(), value.clone())).collect(),
        name: merged.request.name.clone(),
        kind: kind.name,
        roles: merged.roles.iter().map(|role| role.name.clone()).collect(),
        ttl: merged.ttl(ttl),
        ssh,
        tls,
    })
}

/// The roles of an output, by name: those it asks for, or all of the bot's
/// that a machine can use.
fn roles<'p>(
    policy: &Policy,
    bot: &'p Bot,
    request: &OutputRequest,
    warnings: &mut Warnings,
) -> Result<Vec<&'p Role>, Denial> {
    let needs_mfa = |role: &Role| policy.needs_mfa(role);
    if request.roles.is_empty() {
        let (left_out, roles): (Vec<&Role>, Vec<&Role>) =
            bot.roles.iter().map(AsRef::as_ref).partition(|role| needs_mfa(role));
        if roles.is_empty() {
            return Err(mfa_required(bot, request, &left_out));
        }
        for role in left_out {
            warnings.add(|| format!("{}, and is left out", role::needs_mfa(&bot.name, &[role])));
        }
        return Ok(roles);
    }
    let mut roles = Vec::with_capacity(request.roles.len().min(bot.roles.len()));
    for name in &request.roles {
        // A role of other bots and one that nobody has read the same.
        let role = bot.role(name).ok_or_else(|| {
            let told =
                format!("output `{}`: the role `{}` is not one of this bot's", request.name, shown(name));
            Denial::new(Reason::RoleNotHeld, format!("{told} (`{}`)", bot.name)).tell(told)
        })?;
        if needs_mfa(role) {
            return Err(mfa_required(bot, request, &[role]));
        }
        roles.push(role);
    }
    roles.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    roles.dedup_by(|a, b| a.name == b.name);
    Ok(roles)
}

fn mfa_required(bot: &Bot, request: &OutputRequest, roles: &[&Role]) -> Denial {
    let told = format!("output `{}`: {}", request.name, role::needs_mfa(&bot.name, roles));
    Denial::new(Reason::MfaRequired, told.clone()).tell(told)
}

#[cfg(test)]
mod tests;
