//! `machine-id authority rotate`: another CA in the place of one, step by step.
//!
//! What a step needs outside of the store, a key, is made before it, under a name that the same step finds again; what it
//! leaves behind is taken away after it, by this or by `serve`. Between them stands one transaction: who is interrupted says the
//! same again.

use place::Place;

use super::data_dir;
use crate::authority::ca::CaKind;
use crate::authority::keys::{CaKeys, NewCa};
use crate::authority::rotation::{self, Phase, Progress, Step};
use crate::authority::store::Store;
use crate::authority::store::cas::{CaChange, CaChanged};
use crate::cli::rotate::{Rotate, RotateCommand, RotatePhase, RotatedCa};
use crate::clock::{Clock, LEEWAY};
use crate::environment::Environment;
use crate::error::{Error, Kind, Result};
use crate::folder::PUBLIC_FILE;
use crate::folder::replace::write_new;
use crate::runtime::block_on;
use crate::terminal;

mod compromised;
mod place;
mod status;
mod waiting;

/// How often a step is planned anew, where another's comes between.
const PLANS: usize = 5;

/// Says how far rotations are, or goes on with one.
pub(super) fn run(args: &Rotate, env: &Environment) -> Result<()> {
    match (&args.command, &args.data_dir, args.ca, args.phase) {
        (Some(RotateCommand::Status { data, format }), ..) => {
            let at = Place::new(&data.data_dir, String::new())?;
            let store = data_dir::open_store(&at.config)?;
            let keys = at.keys(store.as_ref())?;
            status::print(&at, store.as_ref(), &keys, &CaKind::ALL, *format)
        }
        (None, Some(data_dir), Some(ca), Some(phase)) => {
            let at = Place::new(data_dir, data_dir::user(env))?;
            take(&at, (kind_of(ca), phase_of(phase)), args)
        }
        _ => Err(Error::usage("neither a step nor `status`")),
    }
}

fn kind_of(ca: RotatedCa) -> CaKind {
    match ca {
        RotatedCa::SshUser => CaKind::SshUser,
        RotatedCa::SshHost => CaKind::SshHost,
        RotatedCa::Tls => CaKind::Tls,
        RotatedCa::Statement => CaKind::Statement,
        RotatedCa::Federation => CaKind::Federation,
    }
}

fn phase_of(phase: RotatePhase) -> Phase {
    match phase {
        RotatePhase::Start => Phase::Start,
        RotatePhase::Activate => Phase::Activate,
        RotatePhase::Finish => Phase::Finish,
        RotatePhase::Rollback => Phase::Rollback,
        RotatePhase::Compromised => Phase::Compromised,
    }
}

/// Takes a step, and says what is so then.
fn take(at: &Place, (kind, phase): (CaKind, Phase), args: &Rotate) -> Result<()> {
    let store = data_dir::open_store(&at.config)?;
    let csr = args.tls_ca_csr.as_deref();
    if csr.is_some() && (kind, phase) != (CaKind::Tls, Phase::Start) {
        return Err(Error::usage("`--tls-ca-csr` is for `--ca tls --phase start`"));
    }
    if let Some(csr) = csr.filter(|csr| csr.exists()) {
        return Err(Error::usage(format!("{} exists already", csr.display()))
            .hint("nothing was changed; move it away first"));
    }
    let mut before = None;
    for _ in 0..PLANS {
        let keys = at.keys(store.as_ref())?;
        let all: Vec<_> = keys.set().of(kind).cloned().collect();
        // Of two who go back at once, one does: it was one step that both meant.
        if before.get_or_insert_with(|| all.clone()) != &all {
            return Err(Error::usage("somebody else has taken a step of this rotation meanwhile")
                .hint("`machine-id authority rotate status` says which, and what is next"));
        }
        // A request is to be had once more: whoever was interrupted has begun, and has none.
        let has_begun = csr.is_some() && keys.next_tls_request()?.is_some();
        if has_begun || plan(at, store.as_ref(), &keys, (kind, phase), args)? {
            let keys = at.keys(store.as_ref())?;
            if let Some((csr, request)) = csr.zip(keys.next_tls_request()?) {
                write_new(csr, request.as_bytes(), PUBLIC_FILE)?;
            }
            for told in keys.tidy(&at.config.key_source()?) {
                match told {
                    Ok(done) => terminal::log(&done),
                    Err(error) => data_dir::warn(&error),
                }
            }
            return status::print(at, store.as_ref(), &keys, &[kind], args.format);
        }
    }
    Err(Error::new(Kind::Unreachable, "the CAs are changed by somebody else all the while"))
}

/// Plans and takes a step; whether it was taken, which it is not where the CAs are others by now.
fn plan(
    at: &Place,
    store: &dyn Store,
    keys: &CaKeys,
    (kind, phase): (CaKind, Phase),
    args: &Rotate,
) -> Result<bool> {
    let now = Clock::system().now();
    let all = keys.written(kind, now)?;
    let progress = Progress::of(&all)?;
    rotation::check(progress, phase)?;
    match (phase, progress) {
        (Phase::Activate, Progress::Started(_, next)) => {
            let waits = waiting::for_activation(store, keys, next, now)?;
            waiting::refuse(&waits, (kind, phase), args.force)?;
        }
        (Phase::Finish, Progress::Activated(current, former)) => {
            let waits = waiting::for_finish(store, keys, (current, former), now)?;
            waiting::refuse(&waits, (kind, phase), args.force)?;
        }
        (Phase::Compromised, _) => {
            compromised::tell(store, kind, &all, now)?;
            if !args.yes {
                return Err(Error::usage("nothing was done").hint("the same again with --yes does it"));
            }
        }
        _ => {}
    }
    let occasion = match (phase, store.restored()) {
        // The key that an interrupted start has left may be known to whoever knows the one that signs.
        (Phase::Compromised, _) => format!("compromised {now}"),
        // A key of before is in nobody's way, and known to those who refuse it by now.
        (_, restored) => format!("start {}", restored.map_or(0, |restored| restored.time)),
    };
    let new = (0..phase.needs(kind)).map(|place| {
        let occasion = if place == 0 { occasion.clone() } else { format!("{occasion} ahead") };
        keys.make_next(&at.config.key_source()?, NewCa { kind, occasion: &occasion, now })
    });
    let Step { keys: after, ends } = rotation::step(&all, phase, new.collect::<Result<_>>()?, now)?;
    let change = CaChange {
        kind,
        phase: phase.name(),
        expected: keys.set().number,
        keys: after,
        none_live: ends.filter(|_| !args.force).map(|ca| (ca, now.saturating_sub(LEEWAY))),
        at: now,
        by: at.by.clone(),
    };
    if let (Some(ca), true) = (ends, args.force) {
        let live = block_on(store.live(ca, now.saturating_sub(LEEWAY)))??;
        waiting::tell_broken(&live, kind);
    }
    match block_on(store.change_cas(change))?? {
        CaChanged::Done(_) => Ok(true),
        CaChanged::Outdated => Ok(false),
        CaChanged::Live(live) => Err(waiting::live(&live, (kind, phase))),
    }
}
