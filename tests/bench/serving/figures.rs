//! What was measured, and how it is told.

use std::fmt;
use std::time::Duration;

/// Requests answered, the time that it took, and the share of it that the
/// server's core and the clients' were at work.
#[derive(Clone, Copy, Default)]
pub(crate) struct Rate {
    pub(crate) requests: usize,
    pub(crate) wall: Duration,
    pub(crate) server: Duration,
    /// The part of the server's that its store's threads take.
    pub(crate) store: Duration,
    pub(crate) clients: Duration,
    /// How long half of the clients waited at most, and 99 of a hundred.
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
}

/// Several measurements; the median counts.
#[derive(Default)]
pub(crate) struct Rates(Vec<Rate>);

impl Rates {
    pub(crate) fn add(&mut self, rate: Rate) {
        self.0.push(rate);
    }

    fn median(&self, of: impl Fn(&Rate) -> f64) -> f64 {
        let mut all: Vec<f64> = self.0.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        f64::midpoint(all[(all.len() - 1) / 2], all[all.len() / 2])
    }

    /// The processor's time that an exchange takes, in microseconds.
    pub(crate) fn cost(&self) -> f64 {
        self.median(|rate| rate.server.as_secs_f64() * 1e6 / rate.requests as f64)
    }

    /// What is left of it without the store's threads: what an exchange would take if it needed no store.
    pub(crate) fn cost_without_a_store(&self) -> f64 {
        self.median(|rate| (rate.server - rate.store).as_secs_f64() * 1e6 / rate.requests as f64)
    }

    /// The same over all measurements, what happens seldom among it.
    pub(crate) fn cost_of_all(&self) -> f64 {
        let all = |of: fn(&Rate) -> f64| self.0.iter().map(of).sum::<f64>();
        all(|rate| rate.server.as_secs_f64()) * 1e6 / all(|rate| rate.requests as f64)
    }

    pub(crate) fn per_second(&self) -> f64 {
        self.median(|rate| rate.requests as f64 / rate.wall.as_secs_f64())
    }

    /// How much longer than half of the clients the last of a hundred waits.
    pub(crate) fn spread(&self) -> f64 {
        self.median(|rate| rate.p99.as_secs_f64() / rate.p50.as_secs_f64())
    }
}

impl fmt::Display for Rates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = |part: Duration, rate: &Rate| part.as_secs_f64() / rate.wall.as_secs_f64() * 100.0;
        write!(
            f,
            "{:.0}/s ({:.0} us cpu each, {:.0} without the store's threads, p50 {:.1} ms, p99 {:.1} ms; server {:.0} % busy, clients {:.0} %)",
            self.per_second(),
            self.cost(),
            self.cost_without_a_store(),
            self.median(|rate| rate.p50.as_secs_f64() * 1e3),
            self.median(|rate| rate.p99.as_secs_f64() * 1e3),
            self.median(|rate| share(rate.server, rate)),
            self.median(|rate| share(rate.clients, rate)),
        )
    }
}
