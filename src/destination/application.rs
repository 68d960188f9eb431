//! The output `application`: what an mTLS client wants.

use super::{File, Keys, Material, Opt, OutputType, Used};
use crate::error::Result;

/// mTLS to a named application.
#[derive(Debug)]
pub struct Application;

impl OutputType for Application {
    fn name(&self) -> &'static str {
        "application"
    }

    fn summary(&self) -> &'static str {
        "a TLS key and certificate for one application, and the CA that its server is verified with"
    }

    fn keys(&self) -> Keys {
        Keys::TLS
    }

    fn options(&self) -> &'static [Opt] {
        &[Opt { name: "app", needed: true, used: Used::There }]
    }

    fn file_names(&self) -> &'static [&'static str] {
        &["tls.key", "tls.crt", "ca.crt"]
    }

    fn files(&self, material: &Material<'_>) -> Result<Vec<File>> {
        material.tls_files()
    }
}
