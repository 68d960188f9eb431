//! The integration tests, in one crate, so that what they share is compiled
//! once. Each module says what it is about; those that need servers are below
//! [`servers`].

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    unreachable_pub,
    reason = "a helper that fails fails its test"
)]

#[path = "../support/mod.rs"]
mod support;

mod architecture;
mod cli;
mod data_dir;
mod exchange;
mod first_contact;
mod hosts;
mod instances;
mod join_conformance;
mod logs;
mod once;
mod policy_cli;
mod secrets;
mod servers;
mod watch;
