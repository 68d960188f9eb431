//! What an operator has to understand a policy by: `authority check` and its
//! lints, `explain`, `audit`, and the documents.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a helper that fails fails its test"
)]

#[path = "../support/mod.rs"]
mod support;

mod check;
mod claims;
mod documents;
mod lints;
mod platforms;
mod refusals;
