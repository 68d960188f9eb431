//! Faults under load: nothing that was acknowledged is lost, nothing is issued
//! unrecorded, no token is used twice. `docs/high-availability.md` has a row for
//! each; what holds of all of them is in `tests/support/load.rs`.

mod alone;
mod connections;
mod shared;
mod stage;
mod standby;
mod versions;
