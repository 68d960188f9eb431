//! `machine-id authority sign-host`: a host certificate for an `sshd`.

use super::data_dir::{open, record, ttl};
use crate::authority::issue::ssh::HostPlan;
use crate::cli::authority::SignHost;
use crate::clock::Clock;
use crate::error::Result;
use crate::folder::read::{self, Limit, Trust};
use crate::terminal::print;

/// Signs, and prints the certificate.
pub(super) fn run(args: SignHost) -> Result<()> {
    let line = read::text(&args.key, Trust::Anyone, Limit::FILE)?;
    let plan = HostPlan::new(&line, args.principals, Clock::system().now(), ttl(&args.ttl)?)
        .map_err(|error| error.context(format!("cannot certify {}", args.key.display())))?;
    let (keys, store) = open(&args.data.data_dir)?;
    print(&format!("{}\n", record(&store, "sign-host", plan)?.sign(&keys)?))
}
