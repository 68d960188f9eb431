//! The JSON of events, as it is stored and as `audit --format json` shows it;
//! built once, by the caller, so that a database's writer only copies it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::instances::NewSecret;
use super::{CertificateKind, NewCertificate, NewIssuance, NewRefusal, NewRevocation, NewSigned};
use crate::clock::rfc3339;
use crate::error::{Context as _, Kind, Result};
use crate::join::instance::InstanceJoin;

/// One event. Serials are decimal text: they exceed what JSON numbers hold elsewhere.
#[derive(Default, Serialize)]
struct EventBody<'a> {
    time: String,
    event: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    issuance_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    denial_id: Option<&'a str>,
    /// A registered instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<&'a str>,
    /// The instance whose place a registered one takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    replaces: Option<&'a str>,
    /// The instance that took this one's place.
    #[serde(skip_serializing_if = "Option::is_none")]
    replaced_by: Option<&'a str>,
    /// The id of a registration secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bot: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    join_method: Option<&'a str>,
    /// The command that signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    serials: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    provenance: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    /// Whether the claims of a refusal were.
    #[serde(skip_serializing_if = "Option::is_none")]
    verified: Option<bool>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    outputs: Vec<Output<'a>>,
    /// When the first of the certificates expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<&'a str>,
}

/// One certificate of an event.
#[derive(Serialize)]
struct Output<'a> {
    name: &'a str,
    /// The output's type; events from before it was recorded have none.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    output_type: Option<&'a str>,
    /// What was asked for that is not on the certificate: the database, the cluster, the application.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    options: &'a BTreeMap<String, String>,
    kind: &'static str,
    serial: String,
    principals: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    groups: &'a [String],
    expires_at: String,
}

/// What an event of an issuance says that its revocation repeats.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct IssuanceOrigin {
    join_method: Option<String>,
    by: Option<String>,
    serials: Vec<String>,
    provenance: Option<String>,
}

/// The reason of a revocation by the job itself.
const GIVEN_BACK: &str = "given_back";

/// The `issued` event.
pub(super) fn issued(entry: &NewIssuance) -> Result<String> {
    let mut body = EventBody {
        issuance_id: Some(&entry.plan.id),
        instance: entry.join.as_ref().map(|join| join.instance.as_str()),
        bot: Some(&entry.bot),
        token: Some(&entry.token),
        join_method: Some(&entry.join_method),
        provenance: Some(&entry.provenance),
        peer: Some(&entry.peer),
        ..event("issued", entry.time)
    };
    body.carry(&entry.plan.certificates);
    text(&body, Some(&entry.claims))
}

/// The `signed` event.
pub(super) fn signed(entry: &NewSigned) -> Result<String> {
    let mut body =
        EventBody { issuance_id: Some(&entry.id), by: Some(entry.by), ..event("signed", entry.time) };
    body.carry(std::slice::from_ref(&entry.certificate));
    text(&body, None)
}

/// The `refused` event.
pub(super) fn refused(entry: &NewRefusal) -> Result<String> {
    let body = EventBody {
        denial_id: Some(&entry.id),
        bot: entry.bot.as_deref(),
        token: Some(&entry.token),
        join_method: Some(&entry.join_method),
        reason: Some(entry.reason),
        detail: Some(&entry.detail),
        verified: Some(entry.verified),
        peer: Some(&entry.peer),
        ..event("refused", entry.time)
    };
    text(&body, entry.claims.as_deref())
}

/// The `revoked` event of an issuance that began as `origin`.
pub(super) fn revoked(
    entry: &NewRevocation,
    bot: Option<&str>,
    token: Option<&str>,
    origin: IssuanceOrigin,
) -> Result<String> {
    let body = EventBody {
        issuance_id: Some(&entry.issuance_id),
        bot,
        token,
        join_method: origin.join_method.as_deref(),
        by: origin.by.as_deref(),
        serials: Some(origin.serials),
        provenance: origin.provenance.as_deref(),
        reason: Some(GIVEN_BACK),
        peer: Some(&entry.peer),
        ..event("revoked", entry.time)
    };
    text(&body, None)
}

/// The `secret_added` event.
pub(super) fn secret_added(entry: &NewSecret) -> Result<String> {
    let body = EventBody {
        secret_id: Some(&entry.id),
        bot: Some(&entry.bot),
        token: Some(&entry.token),
        by: Some("token add"),
        expires_at: Some(rfc3339(entry.expires)),
        ..event("secret_added", entry.time)
    };
    text(&body, None)
}

/// What the events of an instance have in common.
fn of_instance<'a>(entry: &'a NewIssuance, name: &'a str, instance: &'a str) -> EventBody<'a> {
    EventBody {
        instance: Some(instance),
        bot: Some(&entry.bot),
        token: Some(&entry.token),
        join_method: Some(&entry.join_method),
        peer: Some(&entry.peer),
        ..event(name, entry.time)
    }
}

/// The `registered` event of an instance whose first issuance is `entry`.
pub(super) fn registered(entry: &NewIssuance, join: &InstanceJoin, secret_id: &str) -> Result<String> {
    let body = EventBody {
        secret_id: Some(secret_id),
        replaces: join.replaces.as_deref(),
        ..of_instance(entry, "registered", &join.instance)
    };
    text(&body, None)
}

/// The `replaced` event of an instance whose place `instance` has taken.
pub(super) fn replaced(entry: &NewIssuance, instance: &str, old: &str) -> Result<String> {
    text(&EventBody { replaced_by: Some(instance), ..of_instance(entry, "replaced", old) }, None)
}

/// The `locked` event of an instance, caused by the join that `entry` would have recorded.
pub(super) fn locked(
    entry: &NewIssuance,
    join: &InstanceJoin,
    expected: i64,
    serials: &[i64],
    reason: &'static str,
) -> Result<String> {
    let presented = join.claims.generation;
    let why = if presented > expected {
        "the storage is newer than what the authority remembers"
    } else {
        "two copies of its storage have joined"
    };
    let detail = format!("presented generation {presented}, {expected} was expected: {why}");
    let body = EventBody {
        provenance: Some(&entry.provenance),
        reason: Some(reason),
        detail: Some(&detail),
        serials: Some(serials.iter().map(ToString::to_string).collect()),
        ..of_instance(entry, "locked", &join.instance)
    };
    text(&body, None)
}

fn event(name: &str, time: i64) -> EventBody<'_> {
    EventBody { time: rfc3339(time), event: name, ..EventBody::default() }
}

impl<'a> EventBody<'a> {
    fn carry(&mut self, certificates: &'a [NewCertificate]) {
        let serials = certificates.iter().map(|certificate| certificate.serial.to_string());
        self.serials = Some(serials.collect());
        self.expires_at = certificates.iter().map(|certificate| certificate.expires).min().map(rfc3339);
        let outputs = certificates.iter().map(|certificate| Output {
            name: &certificate.output,
            output_type: certificate.output_type.as_deref(),
            options: &certificate.options,
            kind: match certificate.kind {
                CertificateKind::Ssh => "ssh",
                CertificateKind::Tls => "tls",
            },
            serial: certificate.serial.to_string(),
            principals: &certificate.principals,
            groups: &certificate.groups,
            expires_at: rfc3339(certificate.expires),
        });
        self.outputs = outputs.collect();
    }
}

/// The object as text, with the claims, which are JSON already, as its last
/// member. Claims that are no JSON object are kept as text: a refusal is
/// recorded whatever was sent.
fn text(body: &EventBody<'_>, claims: Option<&str>) -> Result<String> {
    let failed = "cannot write an event as JSON";
    let mut text = serde_json::to_string(body).context(Kind::Internal, failed)?;
    if let Some(claims) = claims {
        let object = claims.trim_start().starts_with('{')
            && serde_json::from_str::<serde::de::IgnoredAny>(claims).is_ok();
        text.pop();
        text.push_str(",\"claims\":");
        if object {
            text.push_str(claims.trim());
        } else {
            text.push_str(&serde_json::to_string(claims).context(Kind::Internal, failed)?);
        }
        text.push('}');
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_that_are_no_object_stay_text() {
        for (claims, wanted) in [
            (r#"{"sub":"a"}"#, r#","claims":{"sub":"a"}}"#),
            (r#"{"sub":"a"},"event":"issued""#, r#","claims":"{\"sub\":\"a\"},\"event\":\"issued\""}"#),
            ("7", r#","claims":"7"}"#),
        ] {
            let text = text(&event("refused", 0), Some(claims)).unwrap();
            assert!(text.ends_with(wanted), "{text}");
            serde_json::from_str::<serde_json::Value>(&text).unwrap();
        }
    }
}
