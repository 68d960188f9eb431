//! The connections that there are, and which of them goes where there is no room for another. Those that watch statements
//! are a pool of their own: neither they nor the others take one another's places.
//!
//! A connection counts for its address and for the network about it. One whose request has come whole and is being
//! answered stays. Of the others, those of the network that has the most go first, the oldest of them before newer ones:
//! so whoever holds many takes their own place away, and a job that comes alone from somewhere is let in.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::oneshot;

use super::limits::{Network, networks};

/// Connections at once beside those that watch, where the system gives as many descriptors.
pub const MAX_CONNECTIONS: usize = 2048;
/// Connections at once that watch.
pub const MAX_WATCHERS: usize = 4096;
/// Connections at once from one address, which may be a whole site behind NAT.
const MAX_FROM_ADDRESS: usize = 256;
/// The same of the network about it.
const MAX_FROM_NETWORK: usize = 512;
/// Watchers at once from one address, which may be a data centre behind NAT.
const MAX_WATCHERS_FROM_ADDRESS: usize = 1536;
/// The same of the network about it.
const MAX_WATCHERS_FROM_NETWORK: usize = 2048;
/// All are ranked to find who goes, so one in so many of them goes at a time.
const BATCH: usize = 64;
/// Bytes that requests without an answer have sent, of all connections together.
const MAX_RECEIVED: usize = 32 << 20;

/// The connections of one listener.
#[derive(Debug)]
pub struct Connections {
    most: usize,
    most_watchers: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    asking: Pool,
    watching: Pool,
    /// What all that ask have received.
    received: usize,
    /// The next number: a higher one is younger.
    next: u64,
}

type Pool = HashMap<u64, Connection>;
/// Which of the pools.
type Which = fn(&mut Held) -> &mut Pool;

#[derive(Debug)]
struct Connection {
    networks: [Network; 2],
    /// A number of when it began, or was last answered.
    since: u64,
    /// Bytes of what is not answered yet.
    received: usize,
    is_under_way: bool,
    /// Whether it has proved which host it is: a watcher that has goes last.
    is_named: bool,
    /// When a watcher last took something.
    taken: Instant,
    /// The connection ends with this.
    _end: oneshot::Sender<()>,
}

impl Connections {
    /// For so many descriptors, of which watchers have half: at most [`MAX_WATCHERS`] and [`MAX_CONNECTIONS`].
    pub fn new(descriptors: usize) -> Self {
        let most_watchers = MAX_WATCHERS.min(descriptors / 2);
        let most = MAX_CONNECTIONS.min(descriptors.saturating_sub(most_watchers));
        Self { most, most_watchers, held: Mutex::default() }
    }

    /// A place for a connection from there, and what tells that it is taken away; nothing where each one there is
    /// has a request that is being answered.
    pub fn admit(self: &Arc<Self>, peer: IpAddr) -> Option<(Arc<Place>, oneshot::Receiver<()>)> {
        let networks = networks(peer);
        let (end, ended) = oneshot::channel();
        let mut held = self.held();
        let bounds = [MAX_FROM_ADDRESS, MAX_FROM_NETWORK, self.most];
        if !held.make_room(|held| &mut held.asking, bounds, networks, true) {
            return None;
        }
        let id = held.number();
        let connection = Connection {
            networks,
            since: id,
            received: 0,
            is_under_way: false,
            is_named: false,
            taken: Instant::now(),
            _end: end,
        };
        held.asking.insert(id, connection);
        Some((Arc::new(Place { connections: Arc::clone(self), id }), ended))
    }

    /// Ends watchers that have taken nothing since, for which everything would pile up.
    pub fn end_stuck(&self, since: Instant) {
        self.held().watching.retain(|_, one| one.taken >= since);
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn number(&mut self) -> u64 {
        self.next = self.next.wrapping_add(1);
        self.next
    }

    fn find(&mut self, id: u64) -> Option<&mut Connection> {
        self.asking.get_mut(&id).or_else(|| self.watching.get_mut(&id))
    }

    /// Whether there is room for one more from there, by the bounds of an address, of a network and of all; or others of
    /// those have made it, which are named only where that one `is_named`.
    fn make_room(
        &mut self,
        which: Which,
        bounds: [usize; 3],
        networks: [Network; 2],
        is_named: bool,
    ) -> bool {
        let ([of_address, of_network, all], [address, network]) = (bounds, networks);
        let bounds =
            [(of_address, 1, Some(address)), (of_network, 1, Some(network)), (all, all / BATCH, None)];
        bounds.into_iter().all(|(most, batch, whose)| {
            let of = |one: &Connection| whose.is_none_or(|whose| one.networks.contains(&whose));
            let count = which(self).values().filter(|one| of(one)).count();
            count < most || self.take(which, batch, |one| of(one) && (is_named || !one.is_named), |_| 1)
        })
    }

    /// Takes so many away, one at least, whose request has not come whole: of the network that weighs most, there of the
    /// address that does, the oldest. Whether there was one.
    fn take(
        &mut self,
        which: Which,
        count: usize,
        of: impl Fn(&Connection) -> bool,
        weight: fn(&Connection) -> usize,
    ) -> bool {
        let pool = which(self);
        let candidates = || pool.iter().filter(|(_, one)| !one.is_under_way && of(one));
        let mut weights: HashMap<Network, usize> = HashMap::new();
        for (_, one) in candidates() {
            for network in one.networks {
                *weights.entry(network).or_default() += weight(one);
            }
        }
        let rank = |one: &Connection| {
            let [address, network] = one.networks.map(|network| weights.get(&network).copied());
            (one.is_named, Reverse((network, address, Reverse(one.since))))
        };
        let mut ranked: Vec<_> = candidates().map(|(id, one)| (rank(one), *id)).collect();
        let count = count.clamp(1, ranked.len().max(1));
        if count < ranked.len() {
            ranked.select_nth_unstable(count);
        }
        ranked.truncate(count);
        ranked.into_iter().fold(false, |_, (_, id)| self.remove(id))
    }

    fn remove(&mut self, id: u64) -> bool {
        let Some(one) = self.asking.remove(&id) else { return self.watching.remove(&id).is_some() };
        self.received = self.received.saturating_sub(one.received);
        true
    }
}

/// A connection's place; it is given back when this goes.
#[derive(Debug)]
pub struct Place {
    connections: Arc<Connections>,
    id: u64,
}

impl Place {
    /// Its request has come whole: the place is its own until the answer is there.
    pub fn under_way(self: Arc<Self>) -> UnderWay {
        if let Some(one) = self.connections.held().find(self.id) {
            one.is_under_way = true;
        }
        UnderWay(self)
    }

    /// It watches from now on; `is_named` where it has proved which host it is. Nothing where there is no room, but for
    /// those that have.
    pub fn watch(self: Arc<Self>, is_named: bool) -> Option<Watching> {
        let bounds = [MAX_WATCHERS_FROM_ADDRESS, MAX_WATCHERS_FROM_NETWORK, self.connections.most_watchers];
        let mut held = self.connections.held();
        let networks = held.asking.get(&self.id)?.networks;
        if !held.make_room(|held| &mut held.watching, bounds, networks, is_named) {
            return None;
        }
        let one = held.asking.remove(&self.id)?;
        held.received = held.received.saturating_sub(one.received);
        let since = held.number();
        let one = Connection { since, received: 0, is_named, taken: Instant::now(), ..one };
        held.watching.insert(self.id, one);
        drop(held);
        Some(Watching(self))
    }

    /// Whether it watches.
    pub fn watches(&self) -> bool {
        self.connections.held().watching.contains_key(&self.id)
    }

    /// It has received so many bytes more; where that is too much, whoever holds the most goes.
    fn received(&self, bytes: usize) {
        let mut held = self.connections.held();
        // A watcher has sent what it had to.
        let Some(one) = held.asking.get_mut(&self.id) else { return };
        one.received = one.received.saturating_add(bytes);
        held.received = held.received.saturating_add(bytes);
        while held.received > MAX_RECEIVED
            && held.take(|held| &mut held.asking, 1, |_| true, |one| one.received)
        {}
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.held().remove(self.id);
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub struct UnderWay(Arc<Place>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut held = self.0.connections.held();
        let since = held.number();
        let Some(one) = held.find(self.0.id) else { return };
        let received = std::mem::take(&mut one.received);
        (one.since, one.is_under_way) = (since, false);
        held.received = held.received.saturating_sub(received);
    }
}

/// A place among those that watch.
#[derive(Debug)]
pub struct Watching(Arc<Place>);

impl Watching {
    /// It takes what it is told.
    pub fn takes(&self) {
        if let Some(one) = self.0.connections.held().watching.get_mut(&self.0.id) {
            one.taken = Instant::now();
        }
    }
}

/// Counts what a connection receives, TLS and all.
#[derive(Debug)]
pub struct Counted<R>(pub R, pub Arc<Place>);

impl<R: AsyncRead + Unpin> AsyncRead for Counted<R> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.0).poll_read(cx, buf))?;
        this.1.received(buf.filled().len().saturating_sub(before));
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Admitted = (Arc<Place>, oneshot::Receiver<()>);

    fn admit(connections: &Arc<Connections>, peer: &str) -> Admitted {
        connections.admit(peer.parse().unwrap()).expect("a place")
    }

    fn is_there((_, ended): &mut Admitted) -> bool {
        matches!(ended.try_recv(), Err(oneshot::error::TryRecvError::Empty))
    }

    #[test]
    fn whoever_holds_most_makes_room() {
        let connections = Arc::new(Connections::new(16));
        let mut quiet = admit(&connections, "192.0.2.1");
        let mut flood: Vec<_> = (0..7).map(|n| admit(&connections, &format!("198.51.100.{n}"))).collect();
        let mut honest = admit(&connections, "203.0.113.1");
        assert!(is_there(&mut quiet) && is_there(&mut honest));
        assert_eq!(
            flood.iter_mut().map(is_there).collect::<Vec<_>>(),
            [false, true, true, true, true, true, true]
        );
        // The flood's own next one is at the cost of its own, too.
        let mut another = admit(&connections, "198.51.100.99");
        assert!(is_there(&mut another) && is_there(&mut quiet) && !is_there(&mut flood[1]));
        // One from each network: the oldest goes.
        drop((flood, another, honest));
        let _many: Vec<_> = (0..8).map(|n| admit(&connections, &format!("10.0.{n}.1"))).collect();
        assert!(!is_there(&mut quiet));
    }

    #[test]
    fn what_is_under_way_stays_and_is_the_youngest_afterwards() {
        let connections = Arc::new(Connections::new(4));
        let (mut first, mut second) = (admit(&connections, "192.0.2.1"), admit(&connections, "198.51.100.1"));
        let under_way = [&first, &second].map(|(place, _)| Arc::clone(place).under_way());
        assert!(connections.admit("203.0.113.1".parse().unwrap()).is_none(), "each has its request");
        drop(under_way.into_iter().rev().collect::<Vec<_>>());
        let _third = admit(&connections, "203.0.113.1");
        assert!(is_there(&mut first) && !is_there(&mut second), "the second was answered before the first");
    }

    #[test]
    fn an_address_and_a_network_have_their_own_bounds() {
        let connections = Arc::new(Connections::new(2 * MAX_CONNECTIONS));
        let mut one: Vec<_> =
            (0..=MAX_FROM_ADDRESS).map(|_| admit(&connections, "2001:db8:1:1::1")).collect();
        assert_eq!(one.iter_mut().filter_map(|one| is_there(one).then_some(())).count(), MAX_FROM_ADDRESS);
        // A /64 each, in one /48.
        let mut site: Vec<_> =
            (0..MAX_FROM_NETWORK).map(|n| admit(&connections, &format!("2001:db8:1:a{n:03x}::1"))).collect();
        let left = [&mut one, &mut site]
            .map(|some| some.iter_mut().filter_map(|one| is_there(one).then_some(())).count());
        assert_eq!(left.iter().sum::<usize>(), MAX_FROM_NETWORK);
        assert!(left[0] <= 1, "those of the address that has the most went first: {left:?}");
    }

    #[test]
    fn whoever_has_sent_most_makes_room_for_what_others_send() {
        let connections = Arc::new(Connections::new(128));
        let mut honest: Vec<_> = (0..8).map(|_| admit(&connections, "192.0.2.1")).collect();
        let mut flood: Vec<_> = (0..5).map(|n| admit(&connections, &format!("10.0.{n}.1"))).collect();
        honest.iter().for_each(|(place, _)| place.received(4000));
        flood.iter().for_each(|(place, _)| place.received(MAX_RECEIVED / 5));
        assert!(honest.iter_mut().all(is_there));
        assert_eq!(flood.iter_mut().filter_map(|one| is_there(one).then_some(())).count(), 4);
        assert!(connections.held().received <= MAX_RECEIVED);
        drop((honest, flood));
        let held = connections.held();
        assert_eq!((held.received, held.asking.len()), (0, 0));
    }

    fn watch(connections: &Arc<Connections>, peer: &str, is_named: bool) -> (Admitted, Watching) {
        let admitted = admit(connections, peer);
        let watching = Arc::clone(&admitted.0).watch(is_named).expect("room");
        (admitted, watching)
    }

    #[test]
    fn watchers_and_jobs_take_nothing_from_one_another() {
        let connections = Arc::new(Connections::new(16));
        let mut watchers: Vec<_> =
            (0..8).map(|n| watch(&connections, &format!("10.0.{n}.1"), false)).collect();
        let mut jobs: Vec<_> = (0..8).map(|n| admit(&connections, &format!("10.1.{n}.1"))).collect();
        assert!(jobs.iter_mut().all(is_there) && watchers.iter_mut().all(|(one, _)| is_there(one)));
        // What they send counts for nobody.
        watchers.iter().for_each(|((place, _), _)| place.received(MAX_RECEIVED));
        assert!(jobs.iter_mut().all(is_there) && connections.held().received == 0);
        // One more of each is at the cost of its own.
        let _job = admit(&connections, "10.2.0.1");
        assert!(!is_there(&mut jobs[0]) && watchers.iter_mut().all(|(one, _)| is_there(one)));
        let _watcher = watch(&connections, "10.2.1.1", false);
        assert!(!is_there(&mut watchers[0].0), "the oldest");
        assert_eq!(jobs.iter_mut().filter_map(|one| is_there(one).then_some(())).count(), 6);
        drop((watchers, jobs, _job, _watcher));
        assert!(connections.held().asking.is_empty() && connections.held().watching.is_empty());
    }

    #[test]
    fn hosts_that_are_named_go_last_and_for_each_other_alone() {
        let connections = Arc::new(Connections::new(8));
        let mut named: Vec<_> = (0..3).map(|n| watch(&connections, &format!("192.0.2.{n}"), true)).collect();
        let mut stranger = watch(&connections, "10.0.0.1", false);
        let mut another = watch(&connections, "203.0.113.1", true);
        assert!(!is_there(&mut stranger.0), "though those have the fullest network");
        let late = admit(&connections, "10.0.0.2");
        assert!(Arc::clone(&late.0).watch(false).is_none() && !late.0.watches());
        assert!(named.iter_mut().all(|(one, _)| is_there(one)) && is_there(&mut another.0));
        let _one_more = watch(&connections, "203.0.113.2", true);
        assert!(!is_there(&mut named[0].0));
    }

    #[test]
    fn watchers_of_an_address_have_their_own_bound_and_stuck_ones_end() {
        let connections = Arc::new(Connections::new(2 * MAX_WATCHERS));
        let mut one: Vec<_> =
            (0..=MAX_WATCHERS_FROM_ADDRESS).map(|_| watch(&connections, "192.0.2.1", false)).collect();
        assert!(!is_there(&mut one[0].0));
        assert_eq!(connections.held().watching.len(), MAX_WATCHERS_FROM_ADDRESS);
        let since = Instant::now();
        one[7].1.takes();
        connections.end_stuck(since);
        assert_eq!(one.iter_mut().filter_map(|(one, _)| is_there(one).then_some(())).count(), 1);
        assert!(is_there(&mut one[7].0) && one[7].0.0.watches());
    }
}
