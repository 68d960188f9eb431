//! Policy: the resources that say which jobs are which bot, and what a bot may
//! have; and the decision over one request.
//!
//! [`Policy::parse`] reads the files' text, strictly and with every
//! mistake at its place. [`Policy::decide`] takes a verified
//! [`Identity`](crate::join::verify::Identity) and what it asks for, and gives a [`Grant`] or a
//! [`Denial`](crate::denial::Denial). Nothing here does I/O or knows of HTTP, keys or the store, and
//! no join method is known by name, but for that of trusted clusters, which are
//! resources themselves.
//!
//! It fails closed: nothing is allowed by default, deny wins over allow, the
//! shortest time wins, a restriction of any role holds for the certificate,
//! and a field that is not enforced yet is refused rather than ignored.

mod alike;
mod decide;
mod lints;
mod output;
mod read;
mod resources;

#[cfg(test)]
mod tests;

pub use decide::PolicyRequest;
pub use decide::grant::{Grant, JwtGrant, LeafGrant, OutputGrant, Preview, SshGrant, TlsGrant};
pub use decide::matching::{RuleTrial, Trial};
pub use decide::remote::MapTrial;
pub use lints::{Finding, LINTS, Lint, Report};
pub use output::{MAX_OUTPUTS, OUTPUTS, OutputPolicy};
pub use read::Source;
pub use resources::{JoinToken, LeafCluster, Origin, Policy};
