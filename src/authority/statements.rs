//! What an authority states of itself to its servers: whom to trust, and what is revoked, signed by its statement key. What
//! is stated at a moment is signed once, for all who hear it.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::keys::CaKeys;
use super::revocation::{ListCache, Lists};
use super::store::Store;
use crate::error::{Context as _, Kind, Result};
use crate::wire::{STATEMENT_VALID, Statement, Watched};

/// For how long a statement is the present one to whoever asks, in seconds, where nothing else is revoked.
pub const PRESENT: Range<i64> = 0..1;
/// How many lines of one statement are kept: watchers have lists of few numbers, and strangers ask for any.
const MAX_LINES: usize = 64;

/// What is stated at one moment.
#[derive(Debug)]
pub struct Stated {
    /// For those who know nothing.
    statement: Statement,
    lists: Arc<Lists>,
    /// How much was revoked when it was made, by [`Store::revocations`].
    revocations: u64,
    /// The keys that it is of, and that sign it.
    keys: Arc<CaKeys>,
    /// Signed, by the number of the lists that they follow.
    lines: tokio::sync::Mutex<HashMap<Option<u64>, Bytes>>,
}

impl Stated {
    /// Which is the later of two: by the number of their lists, when they were made, and what is urgent.
    pub fn order(&self) -> (u64, i64, u64) {
        (self.statement.number, self.statement.made, self.statement.urgent)
    }

    /// As a line for whoever has the lists of that number.
    ///
    /// # Errors
    /// Where there is no statement key.
    pub async fn line(&self, since: Option<u64>) -> Result<Bytes> {
        // Held while it is signed: all others who hear it wait for that.
        let mut lines = self.lines.lock().await;
        if let Some(line) = lines.get(&since) {
            return Ok(line.clone());
        }
        let revoked = since.and_then(|number| self.lists.since(number));
        let since = since.filter(|_| revoked.is_some());
        if let Some(line) = lines.get(&since) {
            return Ok(line.clone());
        }
        let statement = Statement { since, revoked: revoked.unwrap_or_default(), ..self.statement.clone() };
        let statement = self.keys.work(move |keys| keys.sign_statement(&statement)).await?;
        let watched = Watched { statement };
        let mut line = serde_json::to_vec(&watched).context(Kind::Internal, "a statement")?;
        line.push(b'\n');
        let line = Bytes::from(line);
        if lines.len() < MAX_LINES {
            lines.insert(since, line.clone());
        }
        Ok(line)
    }

    /// Whether it says something that the other does not.
    fn is_news_after(&self, other: &Self) -> bool {
        let [ours, theirs] = [self, other].map(|stated| {
            let Statement { number, urgent, trust, statement_keys, revoked_cas, .. } = &stated.statement;
            (number, urgent, trust, statement_keys, revoked_cas)
        });
        ours != theirs
    }
}

/// What watchers are told last.
#[derive(Clone, Debug, Default)]
struct Told {
    stated: Option<Arc<Stated>>,
    is_over: bool,
}

/// The present statement, and those who are told each new one.
#[derive(Debug, Default)]
pub struct Statements {
    last: tokio::sync::Mutex<Last>,
    told: watch::Sender<Told>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Last {
    stated: Option<Arc<Stated>>,
    /// The numbers of the locks and of the CAs, as they were heard before those lists were made that have what they revoked: of
    /// that number.
    heard: Option<(i64, i64)>,
    urgent: u64,
}

impl Statements {
    /// What is stated at `now`: what was last, where that is of such an age and says what is true.
    ///
    /// # Errors
    /// Where the store cannot be used.
    pub async fn present(
        &self,
        (store, keys, lists): (&dyn Store, &Arc<CaKeys>, &ListCache),
        cluster: &str,
        now: i64,
        age: Range<i64>,
    ) -> Result<Arc<Stated>> {
        let mut last = self.last.lock().await;
        let is_present = |stated: &&Arc<Stated>| {
            stated.revocations == store.revocations()
                && stated.keys.state() == keys.state()
                && age.contains(&now.saturating_sub(stated.statement.made))
        };
        if let Some(stated) = last.stated.as_ref().filter(is_present) {
            return Ok(Arc::clone(stated));
        }
        // First: what was revoked by then is on the lists.
        let heard = Some((store.hear().await?.locks, keys.set().number));
        let urgent = last.heard != heard;
        let (lists, revocations) = lists.lists(store, keys, now, urgent).await?;
        if urgent {
            (last.heard, last.urgent) = (heard, lists.number);
        }
        let [krl, crl] = lists.hashes.clone();
        let statement = Statement {
            cluster: cluster.to_owned(),
            number: lists.number,
            made: now,
            until: now.saturating_add(STATEMENT_VALID),
            trust: keys.trust(),
            endorsements: keys.endorsements(),
            statement_keys: keys.statement_keys(),
            krl,
            crl,
            crls: lists.crls.clone(),
            revoked_cas: keys.revoked_cas(),
            since: None,
            revoked: Vec::new(),
            urgent: last.urgent,
        };
        let keys = Arc::clone(keys);
        let stated = Stated { statement, lists, revocations, keys, lines: Default::default() };
        Ok(Arc::clone(last.stated.insert(Arc::new(stated))))
    }

    /// Tells all who watch, where it is news or `due` though there is none; whether it did.
    pub fn tell(&self, stated: &Arc<Stated>, due: bool) -> bool {
        self.told.send_if_modified(|told| {
            let is_news = told.stated.as_ref().is_none_or(|before| stated.is_news_after(before));
            if is_news || due {
                told.stated = Some(Arc::clone(stated));
            }
            is_news || due
        })
    }

    /// Whether anybody watches.
    pub fn is_watched(&self) -> bool {
        self.told.receiver_count() > 0
    }

    /// Something was revoked here, which is not waited with.
    pub fn wake(&self) {
        self.news.notify_one();
    }

    /// Waits so long, or until something is revoked here.
    pub async fn wait(&self, pause: Duration) {
        let _ = timeout(pause, self.news.notified()).await;
    }

    /// Ends all that is told: they watch another authority.
    pub fn end(&self) {
        self.told.send_modify(|told| told.is_over = true);
    }

    /// What is told from now on.
    pub fn watch(&self) -> Watch {
        Watch { told: self.told.subscribe(), last: None }
    }
}

/// One who is told each statement that is later than the last that it had.
#[derive(Debug)]
pub struct Watch {
    told: watch::Receiver<Told>,
    last: Option<(u64, i64, u64)>,
}

impl Watch {
    /// It has heard this one, or hears it now.
    pub fn heard(&mut self, stated: &Stated) {
        self.last = Some(stated.order());
    }

    /// The number of the lists that it has heard of.
    pub fn number(&self) -> Option<u64> {
        self.last.map(|(number, ..)| number)
    }

    /// The next; none where there is none any more.
    pub async fn next(&mut self) -> Option<Arc<Stated>> {
        while !self.told.borrow().is_over {
            self.told.changed().await.ok()?;
            let told = self.told.borrow_and_update().clone();
            let is_later = |stated: &Arc<Stated>| self.last.is_none_or(|last| stated.order() > last);
            if let Some(stated) = told.stated.filter(is_later).filter(|_| !told.is_over) {
                self.heard(&stated);
                return Some(stated);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
