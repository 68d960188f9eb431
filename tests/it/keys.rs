//! Where the CA keys are, and what follows from it.

mod pkcs11;
