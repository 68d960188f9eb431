//! `machine-id authority sign-host`: a host certificate for an `sshd`.

use std::path::Path;

use super::data_dir::{certificate_ttl, open, read_input, record, warn_of_ca};
use crate::authority::issue::ssh::HostPlan;
use crate::clock::Clock;
use crate::error::Result;
use crate::terminal::print;

pub(super) fn run(data_dir: &Path, principals: Vec<String>, ttl: &str, key: &Path) -> Result<()> {
    let line = read_input(key)?;
    let times = (Clock::system().now(), certificate_ttl(ttl)?);
    let (keys, store) = open(data_dir)?;
    let plan = HostPlan::new(&line, principals, times, keys.signing())
        .map_err(|error| error.context(format!("cannot certify {}", key.display())))?;
    // Its own CA has no end, but what fetches lists and certificates trusts the other.
    warn_of_ca(&keys);
    print(&format!("{}\n", record(store.as_ref(), &keys, "sign-host", plan)?.sign(&keys)?))
}
