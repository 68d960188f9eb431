//! What servers need of an authority, kept up to date: fetched, checked as the
//! servers would, and put in place whole. What has not changed is left alone,
//! so that its time says when it last did.

use super::fetch::{Fetcher, RefreshSettings, STATEMENT_PATH};
use super::lists::useless;
use super::round::{ATTEMPTS, Refreshed, Round};
use super::store;
use crate::error::{Error, Result};
use crate::folder::Folder;

/// Brings the files up to date.
///
/// # Errors
/// `Kind::Destination` where the folder cannot be used, or another run goes on there. What fails later is in
/// [`Refreshed::errors`]: `Kind::Unreachable` where the authority cannot be
/// asked, or gives an answer that is no good; `Kind::Destination` where a file
/// cannot be read or written.
pub async fn run(settings: &RefreshSettings) -> Result<Refreshed> {
    let store = store::open(&settings.directory)?;
    let fetcher = Fetcher::new(settings, &store)?;
    let mut done = Refreshed::default();
    for attempt in 1..=ATTEMPTS {
        let overtaken = bring(&fetcher, &store, &mut done).await?;
        if overtaken.is_empty() {
            break;
        }
        if attempt == ATTEMPTS {
            done.join(Refreshed { errors: overtaken, ..Refreshed::default() });
        }
    }
    if !done.changed.is_empty() {
        fetcher.tell().await;
    }
    // A host that cannot say which it is hears of revocations all the same.
    done.add(fetcher.proven.take().unwrap_or(Ok(())).map(|()| None));
    Ok(done)
}

/// Does so once; which lists are of a later statement by now.
async fn bring(fetcher: &Fetcher<'_>, store: &Folder, done: &mut Refreshed) -> Result<Vec<Error>> {
    let begin = || Round::begin(fetcher.settings, store, fetcher.deadline());
    let jws = match fetcher.statement().await {
        Ok(jws) => jws,
        Err(error) => {
            done.add(Err(error));
            return Ok(Vec::new());
        }
    };
    let by_given = fetcher.is_by_given();
    let mut round = begin().await?;
    let Some(jws) = jws else {
        if round.heard.is_some() {
            // Whoever leaves it out could give any lists.
            round.done.add(Err(useless(STATEMENT_PATH, "it is not there any more")));
        } else {
            // Under the lock, since nothing but that says which of two runs has the later lists; and in this order, so that
            // the KRL is not from before a CA.
            let cas = fetcher.trust().await;
            let lists = fetcher.lists(None, true, &[], None).await;
            round.put(None, cas, lists);
        }
        done.join(round.end());
        return Ok(Vec::new());
    };
    let told = round.hear(&jws, by_given).map_err(|error| round.done.add(Err(error)));
    let has_krl = told.as_ref().is_ok_and(|told| round.step(told));
    done.join(round.end());
    let Ok(told) = told else { return Ok(Vec::new()) };
    // Not under the lock: a watcher beside this goes on.
    let lists = fetcher.lists(Some(told.statement.number), !has_krl, &told.statement.crls, None).await;
    let mut round = begin().await?;
    let cas = round.trust();
    round.put(Some(&told), Ok(cas), lists);
    let overtaken = std::mem::take(&mut round.overtaken);
    done.join(round.end());
    Ok(overtaken)
}
