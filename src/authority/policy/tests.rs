//! Tests of the policy as a whole, and what they share.

pub(super) mod fixture;

mod cut;
mod empty_values;
mod leaves;
mod names;
mod names_properties;
mod properties;
mod separation;
mod tokens;
