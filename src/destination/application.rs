//! The output `application`: what an mTLS client wants.

use super::output_files::OutputFiles;
use crate::output::APPLICATION;

pub(super) static FILES: OutputFiles =
    OutputFiles::new(&APPLICATION, &["tls.key", "tls.crt", "ca.crt"], |material| material.tls_files());
