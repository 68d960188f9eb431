//! The CA keys: what stands above them, and who verifies what they sign.

mod root;
mod verifiers;
