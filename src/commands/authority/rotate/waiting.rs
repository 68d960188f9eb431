//! Who is not ready for a step of a rotation: authorities, hosts and jobs that do not know the new CA, and certificates of the old.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::authority::ca::{CaKey, CaKind};
use crate::authority::discovery;
use crate::authority::keys::CaKeys;
use crate::authority::rotation::Phase;
use crate::authority::store::cas::{Live, LiveCertificate};
use crate::authority::store::locks::LockKind;
use crate::authority::store::replicas::ROOT_OF;
use crate::authority::store::{Cursor, Event, EventFilter, Store};
use crate::clock::{LEEWAY, parse_rfc3339, rfc3339};
use crate::error::{Error, Kind, Result};
use crate::runtime::block_on;
use crate::terminal;
use crate::text::{counted, shown};
use crate::wire::MAX_TTL;

/// For how long a host is waited for that is not heard any more, in seconds: what it lacks it fetches first when it is there again.
const HOST_AWAY: i64 = 7 * 86_400;
/// The longest that a token lives that was issued to a job, in seconds.
const TOKEN: i64 = 3600;
/// How many are named.
const NAMED: usize = 20;
/// How many events are read at once.
const PAGE: usize = 500;

/// Who lacks the next CA.
pub(super) fn for_activation(
    store: &dyn Store,
    keys: &CaKeys,
    next: &CaKey,
    now: i64,
) -> Result<Vec<String>> {
    let mut waits = for_replicas(store, keys)?;
    let replicas = block_on(store.replicas())??;
    let lacking = replicas.iter().filter(|replica| replica.lacks(&next.name));
    waits.extend(lacking.map(|replica| format!("{} lacks the key {}", shown(&replica.name), next.name)));
    let under = replicas.iter().filter(|replica| replica.lacks(&format!("{ROOT_OF}{}", next.name)));
    waits.extend(
        under.map(|replica| format!("{} lacks what was imported for the new one", shown(&replica.name))),
    );
    if let Some((root, _)) = keys.wants_root().filter(|_| next.kind == CaKind::Tls) {
        waits.push(format!(
            "whoever trusts `{root}` alone, under which the old one stands, believes no server that the new one certifies, nor this \
             authority: `machine-id authority import --tls-ca CHAIN.pem` takes what that root's CA makes of the request by `--tls-ca-csr`"
        ));
    }
    let known = next.since.saturating_add(discovery::KEPT);
    if next.kind == CaKind::Federation && known > now {
        waits.push(format!(
            "whoever has fetched the key set before it was there may keep it, {}",
            until(known)
        ));
    }
    waits.extend(hosts(store, next, now)?);
    waits.extend(jobs(store, next, now)?);
    Ok(waits)
}

/// Who would be left with nobody to believe: one that was not waited for before may be there again.
pub(super) fn for_finish(
    store: &dyn Store,
    keys: &CaKeys,
    (current, former): (&CaKey, &CaKey),
    now: i64,
) -> Result<Vec<String>> {
    let mut waits = for_replicas(store, keys)?;
    let over = former.since.saturating_add(TOKEN).saturating_add(LEEWAY);
    if current.kind == CaKind::Federation && over > now {
        waits.push(format!("tokens that the old one signed may live, {}", until(over)));
    }
    if current.kind != CaKind::Statement {
        waits.extend(hosts(store, current, now)?);
    }
    Ok(waits)
}

/// The clusters that hold a copy of the federation keys, which nobody waits for: what is to be done there by hand.
pub(super) fn copies(leaves: &[String]) -> Option<String> {
    let names = leaves.iter().map(|leaf| shown(leaf)).collect::<Vec<_>>().join(", ");
    (!leaves.is_empty()).then(|| {
        format!("no rotation by itself: {names} hold a copy of the keys, and need `export federation-jwks` after `start`, before the next `activate`")
    })
}

/// The authorities that have not heard of the last step.
fn for_replicas(store: &dyn Store, keys: &CaKeys) -> Result<Vec<String>> {
    let set = keys.set().number;
    let replicas = block_on(store.replicas())??;
    Ok(replicas
        .iter()
        .filter_map(|replica| match replica.cas() {
            Some(number) if number >= set => None,
            Some(_) => Some(format!("{} has not heard of the last step yet", shown(&replica.name))),
            None => Some(format!(
                "{} runs version {}, which rotates nothing",
                shown(&replica.name),
                shown(&replica.version)
            )),
        })
        .collect())
}

/// The hosts that do not have it.
fn hosts(store: &dyn Store, next: &CaKey, now: i64) -> Result<Vec<String>> {
    // No host ever hears of those.
    if next.kind == CaKind::Federation {
        return Ok(Vec::new());
    }
    let name = format!("{} {}", next.kind.name(), next.id);
    let thrown_out: BTreeSet<String> = block_on(store.locks(now))??
        .into_iter()
        .filter(|lock| lock.kind == LockKind::Host)
        .map(|lock| lock.value)
        .collect();
    let hosts = block_on(store.hosts())??;
    let lacks = hosts.iter().filter(|host| match next.kind {
        // Of statement keys a host says nothing; what it has heard since says both.
        CaKind::Statement => host.seen <= next.since.saturating_add(1),
        _ => !host.cas.contains(&name),
    });
    Ok(lacks
        .filter(|host| now.saturating_sub(host.seen) < HOST_AWAY && !thrown_out.contains(&host.name))
        .map(|host| format!("the host {} lacks it, last seen at {}", shown(&host.name), rfc3339(host.seen)))
        .collect())
}

/// The jobs that were told whom to trust before it was there: they know the servers that it will certify by the old one alone.
fn jobs(store: &dyn Store, next: &CaKey, now: i64) -> Result<Vec<String>> {
    // One that has it since the last rollback has it for long.
    if !matches!(next.kind, CaKind::SshHost | CaKind::Tls)
        || now.saturating_sub(next.since) > i64::from(MAX_TTL)
    {
        return Ok(Vec::new());
    }
    let since = Some(now.saturating_sub(i64::from(MAX_TTL)));
    let filter = EventFilter { since, event: Some("issued".to_owned()), ..EventFilter::default() };
    let (mut after, mut waits) = (Cursor::default(), Vec::new());
    loop {
        let page = block_on(store.events(filter.clone(), after, PAGE))??;
        let Some(last) = page.last() else { return Ok(waits) };
        after = last.cursor;
        for event in &page {
            let (time, ends) = (seconds(event, "time"), seconds(event, "expires_at"));
            // What was issued in the second of the start may have come before it.
            if time.is_none_or(|time| time > next.since.saturating_add(1)) {
                return Ok(waits);
            }
            if ends.is_some_and(|ends| ends > now.saturating_sub(LEEWAY)) && lives(store, event, now)? {
                waits.push(format!("{} knows the old one alone, {}", job(event), until(ends.unwrap_or(now))));
                if waits.len() >= NAMED {
                    return Ok(waits);
                }
            }
        }
    }
}

fn job(event: &Event) -> String {
    let text = |name: &str| event.body.get(name).and_then(Value::as_str).map(shown).unwrap_or_default();
    format!("the job {} ({})", text("issuance_id"), text("provenance"))
}

fn until(time: i64) -> String {
    format!("until {}", rfc3339(time))
}

fn seconds(event: &Event, name: &str) -> Option<i64> {
    parse_rfc3339(event.body.get(name)?.as_str()?)
}

/// Whether a certificate of that event is neither over nor revoked.
fn lives(store: &dyn Store, event: &Event, now: i64) -> Result<bool> {
    let serials = event.body.get("serials").and_then(Value::as_array).into_iter().flatten();
    for serial in serials.filter_map(|serial| serial.as_str()?.parse().ok()) {
        let record = block_on(store.certificate(serial))??;
        let lives =
            record.is_some_and(|one| one.revoked.is_none() && one.expires > now.saturating_sub(LEEWAY));
        if lives {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Refuses a step for that, unless it is forced: then says what it breaks.
pub(super) fn refuse(waits: &[String], (kind, phase): (CaKind, Phase), force: bool) -> Result<()> {
    if waits.is_empty() {
        return Ok(());
    }
    if force {
        terminal::log(&format!("warning: {}, and these are not ready:", breaks(kind)));
        waits.iter().for_each(|wait| terminal::log(&format!("  {wait}")));
        return Ok(());
    }
    let named = waits.iter().take(NAMED).cloned();
    let error = Error::new(
        Kind::Refused,
        format!(
            "{} not ready for it",
            match waits.len() {
                1 => "one is".to_owned(),
                count => format!("{count} are"),
            }
        ),
    )
    .context(format!("cannot {} the rotation of {} yet", phase.name(), kind.name()));
    let error = named.fold(error, Error::hint);
    Err(error.hint("it is refused for so long; --force does it all the same, and says what that breaks"))
}

/// What a step breaks for those who are not ready.
fn breaks(kind: CaKind) -> &'static str {
    match kind {
        CaKind::SshUser => "hosts that lack the CA refuse whoever logs in by it",
        CaKind::SshHost => "jobs that lack the CA refuse the hosts that it certifies",
        CaKind::Tls => "servers that lack the CA refuse its certificates, and jobs that lack it the servers",
        CaKind::Statement => "hosts that lack the key hear nothing of what is revoked until they refresh",
        CaKind::Federation => "clouds and leaf clusters that lack the key refuse the tokens that it signs",
    }
}

/// Why a step is refused while certificates live of the CA that would be trusted no more.
pub(super) fn live(live: &Live, (kind, phase): (CaKind, Phase)) -> Error {
    let count = usize::try_from(live.count).unwrap_or(usize::MAX);
    let words = format!(
        "{} of the CA that would be trusted no more, the last until {}",
        counted(count, "certificate"),
        rfc3339(live.last_end)
    );
    let error = Error::new(Kind::Refused, words).context(format!(
        "cannot {} the rotation of {} yet",
        phase.name(),
        kind.name()
    ));
    let error = live.some.iter().map(certificate).fold(error, Error::hint);
    error.hint("they end, are renewed, or are revoked (`machine-id authority lock --serial`); --force does it all the same")
}

/// Says what is refused from now on, of a step that is forced.
pub(super) fn tell_broken(live: &Live, kind: CaKind) {
    if live.count > 0 {
        let count = usize::try_from(live.count).unwrap_or(usize::MAX);
        let words = counted(count, "certificate");
        terminal::log(&format!(
            "warning: {words} of the old {} CA live, and are refused from now on:",
            kind.name()
        ));
        live.some.iter().for_each(|one| terminal::log(&format!("  {}", certificate(one))));
    }
}

/// A certificate in words.
pub(super) fn certificate(one: &LiveCertificate) -> String {
    let whose = if one.is_host { "the host" } else { "the job" };
    let names = shown(&one.names.join(", "));
    format!("{whose} {names}: serial {}, of {}, {}", one.serial, shown(&one.issuance_id), until(one.expires))
}
