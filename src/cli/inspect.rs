//! `machine-id inspect`: the options as typed.

use super::format::Format;

/// What was typed.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// A destination, an identity file, a certificate, a key or a token; `-` for stdin
    #[arg(value_name = "PATH")]
    pub path: String,

    /// In words, or as JSON
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}
