//! Where the CA keys are, and what follows from it.

mod awskms;
mod pkcs11;
