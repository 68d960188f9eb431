//! Authorities that have a core for themselves, clients that have the other, and what one exchange costs.

pub(crate) mod figures;
pub(crate) mod load;
pub(crate) mod server;

use figures::Rates;
use server::{Server, measure};

use super::support::issuer::Issuer;

/// The two cores: one for authorities alone, one for their clients.
pub(crate) const AUTHORITY_CORE: &str = "0";
pub(crate) const CLIENTS_CORE: &str = "1";

/// Measures each, one after the other, with so many clients and requests, while it goes on; the first round does not count.
pub(crate) fn in_turn<const N: usize>(
    issuer: &Issuer,
    servers: &[Server; N],
    (clients, requests): (usize, usize),
    goes_on: impl Fn(usize) -> bool,
) -> [Rates; N] {
    let scratch = tempfile::TempDir::new().unwrap();
    let mut rates = [(); N].map(|()| Rates::default());
    for round in (0..).take_while(|round| goes_on(*round)) {
        for (server, rates) in servers.iter().zip(&mut rates) {
            let requests = server.mint(issuer, requests, &scratch.path().join("requests"));
            let rate = measure(&[server], "new", clients, &requests);
            if round > 0 {
                rates.add(rate);
            }
        }
    }
    rates
}
