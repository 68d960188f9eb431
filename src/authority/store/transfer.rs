//! From one store to another, while the first is served.
//!
//! The trail and its certificates are carried in pages, until there is hardly
//! anything left, and are compared. Then the source is closed, in a transaction
//! as every other write is, and none comes after it; what is left is carried,
//! and compared; then the target is opened. So at no time can both be written
//! to, and whatever ends this in between, the same again goes on from there.
//!
//! What changed of what was carried before is in the trail: a certificate
//! changes when it is revoked, and the event names its serials. All other
//! tables are small, and carried once nothing changes any more.

use futures_util::future::BoxFuture;
use serde_json::Value;

use super::closed::{ANEW, Closed};
use super::event;
use super::packed::unpack;
use super::seal::Seal;
use crate::error::{Error, Result};

pub(super) mod tables;
#[cfg(test)]
mod tests;

use tables::{CERTIFICATES, Cell, Digest, EVENTS, ISSUANCE, OTHERS, REVOKED, Row, Table};

/// How many rows are carried at once, certificates apart.
pub(super) const PAGE: usize = 500;

/// After how many events the operator hears how far it is.
const ROUND: i64 = 100_000;

/// What must be empty in a store that another's records are brought to.
pub(super) const RECORDS: [&str; 6] = ["events", "strangers", "proofs", "instances", "secrets", "ca_keys"];

/// A store, as rows.
pub(super) trait Archive: Send {
    /// What it is called in authority.yaml, without secrets.
    fn place(&self) -> String;

    /// What there is to know of it.
    fn standing(&mut self) -> BoxFuture<'_, Result<Standing>>;

    /// Rows, by ascending keys.
    fn rows<'a>(&'a mut self, table: &'static Table, which: Which<'a>) -> BoxFuture<'a, Result<Vec<Row>>>;

    /// What certificates come to: how many, how many are revoked, and a sum over when they were.
    fn certificates(&mut self) -> BoxFuture<'_, Result<[i64; 3]>>;

    /// Has every row that grants something judged: one whose seal does not hold is named in the log.
    fn judge<'a>(&'a mut self, seal: &'a Seal) -> BoxFuture<'a, Result<()>>;

    /// Whether the mark that authorities with this data directory would hold against it is that store's.
    fn is_marked_as(&self, _store: &str) -> Result<bool> {
        Ok(false)
    }

    /// Writes in one transaction, under the lock that every write takes, if the store is `closed` as that says.
    fn write<'a>(&'a mut self, closed: Option<&'a Closed>, what: Vec<Write>) -> BoxFuture<'a, Result<()>>;
}

/// Which rows.
#[derive(Debug)]
pub(super) enum Which<'a> {
    /// At most so many, with keys behind that one; none stands before all.
    After(&'a [Cell], usize),
    /// Certificates of the issuances behind the first number, up to the second.
    Of(i64, i64),
    /// Certificates with these serials.
    Serials(&'a [i64]),
    /// A page of certificates of no event, behind that serial.
    Strays(i64),
}

/// What is written.
#[derive(Debug)]
pub(super) enum Write {
    /// Rows; those that are there already become as they are here.
    Rows(&'static Table, Vec<Row>),
    /// What only rises.
    Numbers(Numbers),
    /// Whether it is closed from now on.
    Closed(Option<Closed>),
    /// Where its records are being carried to, if they are.
    Moving(Option<String>),
}

/// What `state` has beside the store's own identity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Numbers {
    pub(super) list_number: i64,
    pub(super) run: i64,
    pub(super) forgotten: i64,
    pub(super) restored: Option<i64>,
    /// What was let go, and when that was decided.
    pub(super) kept: (i64, i64),
    /// The number of the CAs, with the seal of all of them.
    pub(super) cas: (i64, Option<Vec<u8>>),
}

/// What there is to know of a store.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    pub(super) store: String,
    pub(super) closed: Option<Closed>,
    /// The number of the last event.
    pub(super) last: i64,
    /// Whether nothing was ever recorded in it.
    pub(super) is_empty: bool,
    pub(super) numbers: Numbers,
}

/// Carries everything from one store to the other; whether anything was left to do. What `say` is told is for the operator.
/// Rows whose `seal` does not hold are named, and carried as they are: they grant nothing there either.
pub(super) async fn migrate(
    from: &mut dyn Archive,
    to: &mut dyn Archive,
    seal: &Seal,
    say: &mut (dyn FnMut(String) + Send),
) -> Result<bool> {
    let (source, target) = (from.standing().await?, to.standing().await?);
    let (moved, filling) = marks(from, to, &source, &target);
    let has_moved = source.closed.as_ref().is_some_and(|closed| closed.is(&moved));
    let is_filling = target.closed.as_ref().is_some_and(|closed| closed.is(&filling));
    if source.store == target.store {
        return Err(Error::usage(format!("{} and {} are the same store", from.place(), to.place())));
    }
    match (source.closed, target.closed) {
        (Some(_), None) if has_moved => {
            // It was ended before the mark was written.
            if to.is_marked_as(&source.store)? {
                to.write(None, vec![Write::Closed(None)]).await?;
            }
            return Ok(false);
        }
        (Some(closed), _) if !has_moved => return Err(closed.error().context(cannot("from", from))),
        (_, Some(closed)) if !is_filling => {
            let error = closed.error().context(cannot("to", to));
            let is_said = error.hints().iter().any(|hint| hint == ANEW);
            return Err(if is_said { error } else { error.hint(ANEW) });
        }
        // As where the two were confused.
        (None, None) if source.is_empty => {
            return Err(Error::usage("nothing was ever recorded in it: is it the one that is served?")
                .context(cannot("from", from))
                .hint("where it is, there is nothing to carry: write the other one into authority.yaml"));
        }
        (None, None) if target.is_empty => {
            to.write(None, vec![Write::Closed(Some(filling.clone()))]).await?;
            if !to.standing().await?.is_empty {
                // Somebody was faster.
                to.write(Some(&filling), vec![Write::Closed(None)]).await?;
                return Err(is_used(to));
            }
        }
        (_, None) => return Err(is_used(to)),
        _ => {}
    }
    let mut compared = 0;
    if !has_moved {
        from.write(None, vec![Write::Moving(Some(to.place()))]).await?;
        // Twice, since to compare all of it takes a while.
        compared = follow(from, to, &filling, target.last, say).await?;
        compare(from, to, (0, compared), false).await?;
        strays(from, to, &filling, say).await?;
        from.judge(seal).await?;
        follow(from, to, &filling, compared, say).await?;
        from.write(None, vec![Write::Closed(Some(moved))]).await?;
        say(format!("{} issues nothing from now on", from.place()));
    }
    let begun = to.standing().await?.last;
    let carried = follow(from, to, &filling, begun, say).await?;
    for table in OTHERS {
        carry(from, to, &filling, table).await?;
    }
    if from.certificates().await? != to.certificates().await? {
        say("certificates are not as the trail has them: all are carried once more".to_owned());
        carry(from, to, &filling, &CERTIFICATES).await?;
        if from.certificates().await? != to.certificates().await? {
            return Err(differ("certificates", from, true));
        }
    }
    compare(from, to, (compared, carried), true).await?;
    let source = from.standing().await?;
    if to.standing().await?.last != source.last {
        return Err(differ("events", from, true));
    }
    let open = vec![Write::Numbers(source.numbers), Write::Closed(None)];
    to.write(Some(&filling), open).await?;
    Ok(true)
}

/// Gives a migration up that is not finished: the target is void for ever, and then the source goes on.
pub(super) async fn give_up(from: &mut dyn Archive, to: &mut dyn Archive) -> Result<()> {
    let (source, target) = (from.standing().await?, to.standing().await?);
    let (moved, filling) = marks(from, to, &source, &target);
    let void = Closed::void(&source.store, &from.place());
    match &target.closed {
        Some(closed) if closed.is(&void) => {}
        Some(closed) if closed.is(&filling) => {
            to.write(Some(&filling), vec![Write::Closed(Some(void))]).await?
        }
        Some(closed) => return Err(closed.clone().error().context(cannot("to", to))),
        None => {
            return Err(Error::usage(format!("no migration into {} is under way", to.place())).hint(
                "where it is finished, records may stand there that stand nowhere else: migrate from there to a new store",
            ));
        }
    }
    match source.closed {
        Some(closed) if closed.is(&moved) => {
            from.write(Some(&moved), vec![Write::Closed(None), Write::Moving(None)]).await
        }
        Some(closed) => Err(closed.error().context(cannot("from", from))),
        None => from.write(None, vec![Write::Moving(None)]).await,
    }
}

/// What the source says once it has moved, and the target until it is whole.
fn marks(from: &dyn Archive, to: &dyn Archive, source: &Standing, target: &Standing) -> (Closed, Closed) {
    (Closed::moved(&target.store, &to.place()), Closed::filling(&source.store, &from.place()))
}

fn is_used(to: &dyn Archive) -> Error {
    Error::usage("records stand there already")
        .context(cannot("to", to))
        .hint("name a store that does not exist yet, or an empty one")
        .hint(ANEW)
}

fn cannot(way: &str, archive: &dyn Archive) -> String {
    format!("cannot migrate {way} {}", archive.place())
}

/// Carries the trail behind that event until there is hardly anything left; the last event that the target has then.
async fn follow(
    from: &mut dyn Archive,
    to: &mut dyn Archive,
    filling: &Closed,
    mut after: i64,
    say: &mut (dyn FnMut(String) + Send),
) -> Result<i64> {
    let all = from.standing().await?.last;
    loop {
        let events = from.rows(&EVENTS, Which::After(&[Cell::Integer(after)], PAGE)).await?;
        let Some(last) = events.last().and_then(sequence) else { return Ok(after) };
        let (is_nearly_all, is_round) = (events.len() < PAGE, last / ROUND != after / ROUND);
        let unreadable = page(from, to, filling, events, (after, last)).await?;
        if !unreadable.is_empty() {
            say(format!("{} cannot be read, and are carried as they are", some("events", &unreadable)));
        }
        if is_round {
            say(format!("{last} of {} events are carried", all.max(last)));
        }
        after = last;
        if is_nearly_all {
            return Ok(after);
        }
    }
}

/// Carries a page of the trail, with its certificates and those of before that it says are revoked. Which of its events
/// say nothing, since they cannot be read.
async fn page(
    from: &mut dyn Archive,
    to: &mut dyn Archive,
    filling: &Closed,
    events: Vec<Row>,
    (after, last): (i64, i64),
) -> Result<Vec<i64>> {
    let mut certificates = from.rows(&CERTIFICATES, Which::Of(after, last)).await?;
    let (mut all, mut unreadable) = (Vec::new(), Vec::new());
    for event in &events {
        match changed(event) {
            Some(serials) => all.extend(serials),
            None => unreadable.extend(sequence(event)),
        }
    }
    let is_before =
        |row: &Row| row.get(ISSUANCE).and_then(Cell::integer).is_some_and(|issuance| issuance <= after);
    for serials in all.chunks(PAGE) {
        certificates
            .extend(from.rows(&CERTIFICATES, Which::Serials(serials)).await?.into_iter().filter(is_before));
    }
    // Each once: no engine changes a row twice in one statement.
    certificates.sort_by_key(|row| row.first().and_then(Cell::integer));
    certificates.dedup_by_key(|row| row.first().and_then(Cell::integer));
    to.write(Some(filling), vec![Write::Rows(&EVENTS, events), Write::Rows(&CERTIFICATES, certificates)])
        .await?;
    Ok(unreadable)
}

/// The number that a row of the trail or a certificate is known by.
fn sequence(row: &Row) -> Option<i64> {
    row.first().and_then(Cell::integer)
}

/// The serials of certificates of before that an event has changed, which are those that it revoked; nothing where it cannot
/// be read.
fn changed(event: &Row) -> Option<Vec<i64>> {
    let [_, _, Cell::Text(name), .., Cell::Bytes(body)] = event.as_slice() else { return None };
    let body = event::read(&unpack(body).ok()?).ok()?;
    if ["issued", "signed", "refused"].contains(&name.as_str()) {
        return Some(Vec::new());
    }
    let serials = body.get("serials").and_then(Value::as_array).into_iter().flatten();
    Some(serials.filter_map(|serial| serial.as_str()?.parse().ok()).collect())
}

/// Carries certificates that the trail does not lead to: somebody made them, or took their event away. One that is revoked
/// stays so.
async fn strays(
    from: &mut dyn Archive,
    to: &mut dyn Archive,
    filling: &Closed,
    say: &mut (dyn FnMut(String) + Send),
) -> Result<()> {
    let mut after = -1;
    loop {
        let rows = from.rows(&CERTIFICATES, Which::Strays(after)).await?;
        let serials: Vec<i64> = rows.iter().filter_map(sequence).collect();
        let Some(last) = serials.last() else { return Ok(()) };
        after = *last;
        say(format!("{} are of no event, and are carried as they are", some("certificates", &serials)));
        to.write(Some(filling), vec![Write::Rows(&CERTIFICATES, rows)]).await?;
    }
}

/// How many of what, and the first of their numbers.
fn some(what: &str, numbers: &[i64]) -> String {
    let first: Vec<String> = numbers.iter().take(10).map(ToString::to_string).collect();
    let more = if numbers.len() > first.len() { ", …" } else { "" };
    format!("{} {what} ({}{more})", numbers.len(), first.join(", "))
}

/// Carries a whole table.
async fn carry(
    from: &mut dyn Archive,
    to: &mut dyn Archive,
    filling: &Closed,
    table: &'static Table,
) -> Result<()> {
    let mut after = Row::new();
    loop {
        let rows = from.rows(table, Which::After(&after, PAGE)).await?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = table.key_of(last);
        to.write(Some(filling), vec![Write::Rows(table, rows)]).await?;
    }
}

/// Compares what both have of events behind the first number, up to the second; once the source `is_closed`, all else too.
async fn compare(
    from: &mut dyn Archive,
    to: &mut dyn Archive,
    events: (i64, i64),
    is_closed: bool,
) -> Result<()> {
    if trail(from, events, is_closed).await? != trail(to, events, is_closed).await? {
        return Err(differ("events and certificates", from, is_closed));
    }
    if !is_closed {
        return Ok(());
    }
    for table in OTHERS {
        if whole(from, table).await? != whole(to, table).await? {
            return Err(differ(table.name, from, is_closed));
        }
    }
    Ok(())
}

fn differ(what: &'static str, from: &dyn Archive, is_closed: bool) -> Error {
    let error = Error::internal(format!(
        "the two stores differ in {what}: something else writes to one of them, or has changed it"
    ));
    let hint = match is_closed {
        true => "nothing is issued by either: run the same command again".to_owned(),
        false => format!("{} goes on as before, and cannot be carried into this target", from.place()),
    };
    error
        .hint(hint)
        .hint("`--give-up` makes the target void, and lets the source go on: then name another one")
}

/// A digest over part of the trail with its certificates. When these were revoked counts only where that
/// `is_settled`.
async fn trail(archive: &mut dyn Archive, events: (i64, i64), is_settled: bool) -> Result<(u64, Vec<u8>)> {
    let ((mut after, end), mut digest) = (events, Digest::default());
    while after < end {
        let page = archive.rows(&EVENTS, Which::After(&[Cell::Integer(after)], PAGE)).await?;
        let page: Vec<Row> =
            page.into_iter().filter(|event| sequence(event).is_some_and(|number| number <= end)).collect();
        let Some(last) = page.last().and_then(sequence) else { break };
        let mut certificates = archive.rows(&CERTIFICATES, Which::Of(after, last)).await?;
        if !is_settled {
            certificates
                .iter_mut()
                .filter_map(|row| row.get_mut(REVOKED))
                .for_each(|revoked| *revoked = Cell::Null);
        }
        page.iter().chain(&certificates).for_each(|row| digest.add(row));
        after = last;
    }
    Ok(digest.finish())
}

/// A digest over a table.
async fn whole(archive: &mut dyn Archive, table: &'static Table) -> Result<(u64, Vec<u8>)> {
    let (mut after, mut digest) = (Row::new(), Digest::default());
    loop {
        let rows = archive.rows(table, Which::After(&after, PAGE)).await?;
        let Some(last) = rows.last() else { return Ok(digest.finish()) };
        after = table.key_of(last);
        rows.iter().for_each(|row| digest.add(row));
    }
}
