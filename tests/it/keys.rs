//! The CA keys: where they are, what stands above them, and who verifies what they sign.

mod awskms;
mod page;
mod pkcs11;
mod root;
mod stores;
mod verifiers;
