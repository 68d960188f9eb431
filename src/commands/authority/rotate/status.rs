//! `machine-id authority rotate status`: how far each rotation is, what it waits for, and what is next.

use serde_json::{Value, json};

use super::place::Place;
use super::waiting;
use crate::authority::ca::CaKind;
use crate::authority::keys::CaKeys;
use crate::authority::policy::Policy;
use crate::authority::rotation::{self, Progress};
use crate::authority::store::Store;
use crate::authority::store::replicas::Replica;
use crate::cli::Format;
use crate::clock::{Clock, LEEWAY, rfc3339};
use crate::error::Result;
use crate::runtime::block_on;
use crate::terminal;
use crate::text::{counted, shell_quoted, shown};

/// How far one is.
struct Status {
    kind: CaKind,
    phase: &'static str,
    current: String,
    next: Option<String>,
    former: Option<String>,
    /// Of the federation key: published, and signs after the next.
    ahead: Option<String>,
    waiting_for: Vec<String>,
    /// What is worth a word and holds nothing up.
    notes: Vec<String>,
    next_step: Option<String>,
}

/// Prints those of these kinds.
pub(super) fn print(
    at: &Place,
    store: &dyn Store,
    keys: &CaKeys,
    kinds: &[CaKind],
    format: Format,
) -> Result<()> {
    let mut page = String::new();
    for kind in kinds {
        // Of a data directory from before there were any.
        let is_lacking = match kind {
            CaKind::Statement => keys.statement_key().is_none(),
            CaKind::Federation => keys.federation_keys()?.is_empty(),
            CaKind::SshUser | CaKind::SshHost | CaKind::Tls => false,
        };
        if is_lacking {
            continue;
        }
        let status = look(at, store, keys, *kind)?;
        page += &match format {
            Format::Text => text(&status),
            Format::Json => format!("{}\n", json(&status)),
        };
    }
    terminal::print(&page)
}

fn look(at: &Place, store: &dyn Store, keys: &CaKeys, kind: CaKind) -> Result<Status> {
    let now = Clock::system().now();
    let all = keys.written(kind, now)?;
    let progress = Progress::of(&all)?;
    let dir = shell_quoted(&at.data_dir.display().to_string());
    let step = |phase: &str| {
        format!("machine-id authority rotate --data-dir {dir} --ca {} --phase {phase}", kind.name())
    };
    let mut status = Status {
        kind,
        phase: progress.name(),
        current: progress.current().id.clone(),
        next: None,
        former: None,
        ahead: rotation::newest(&all).filter(|_| kind == CaKind::Federation).map(|key| key.id.clone()),
        waiting_for: Vec::new(),
        notes: Vec::new(),
        next_step: None,
    };
    match progress {
        Progress::Settled(_) => {}
        Progress::Started(_, next) => {
            status.next = Some(next.id.clone());
            status.notes.extend(old_trust(store, kind)?);
            status.waiting_for = waiting::for_activation(store, keys, next, now)?;
            status.next_step = Some(step("activate"));
        }
        Progress::Activated(_, former) => {
            status.former = Some(former.id.clone());
            status.notes.extend(old_trust(store, kind)?);
            status.waiting_for = waiting::for_finish(store, keys, (progress.current(), former), now)?;
            let live = block_on(store.live(former.number, now.saturating_sub(LEEWAY)))??;
            if live.count > 0 {
                let count = usize::try_from(live.count).unwrap_or(usize::MAX);
                let end = rfc3339(live.last_end);
                let words = format!("{} of the old one, the last until {end}", counted(count, "certificate"));
                status.waiting_for.push(words);
                status.waiting_for.extend(live.some.iter().map(waiting::certificate));
            }
            status.next_step = Some(step("finish"));
        }
    }
    if kind == CaKind::Federation {
        // A policy with a mistake is the business of others.
        let policy = at.config.policy_files().policy().ok();
        let copied = policy.iter().flat_map(Policy::leaves).filter(|leaf| leaf.is_static);
        let copied: Vec<String> = copied.map(|leaf| leaf.name.clone()).collect();
        status.notes.extend(waiting::copies(&copied));
    }
    for lack in keys.lacks().iter().filter(|lack| all.iter().any(|key| key.name == lack.name)) {
        status.notes.push(lack.words());
    }
    Ok(status)
}

/// How many jobs of the last day know the old TLS CA alone.
fn old_trust(store: &dyn Store, kind: CaKind) -> Result<Option<String>> {
    if kind != CaKind::Tls {
        return Ok(None);
    }
    let jobs: u64 = block_on(store.replicas())??.iter().map(Replica::of_old_trust).sum();
    let words = counted(usize::try_from(jobs).unwrap_or(usize::MAX), "job");
    Ok(Some(format!(
        "{words} of the last day said nothing of the new one, and would not believe this authority after `finish`"
    )))
}

fn json(status: &Status) -> Value {
    json!({
        "ca": status.kind.name(),
        "phase": status.phase,
        "current": status.current,
        "next": status.next,
        "former": status.former,
        "ahead": status.ahead,
        "waiting_for": status.waiting_for,
        "notes": status.notes,
        "next_step": status.next_step,
    })
}

fn text(status: &Status) -> String {
    let Status { kind, phase, current, next, former, ahead, .. } = status;
    let mut page = format!("{}: {phase}, {} signs\n", kind.name(), shown(current));
    let mut line = |line: String| page.push_str(&format!("  {line}\n"));
    next.iter().for_each(|next| line(format!("{} is trusted, and signs next", shown(next))));
    former.iter().for_each(|former| line(format!("{} is trusted, and signed before", shown(former))));
    ahead.iter().for_each(|ahead| line(format!("{} is published ahead, and signs after that", shown(ahead))));
    status.notes.iter().for_each(|note| line(note.clone()));
    status.waiting_for.iter().for_each(|wait| line(format!("waits: {wait}")));
    status.next_step.iter().for_each(|step| line(format!("next: {step}")));
    page
}
