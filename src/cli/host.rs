//! `machine-id host …`, as types.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// What to do on a server.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print the principals of a certificate that let a user in here: sshd's AuthorizedPrincipalsCommand.
    Principals(Principals),
    /// Fetch the authority's CA keys and revocation lists; for a timer.
    Refresh(Refresh),
}

/// `host principals`.
#[derive(Debug, Args)]
pub struct Principals {
    /// This host's labels; nothing between the quotes for a host that has none.
    #[arg(long, value_name = "K=V,…", required_unless_present = "labels_file")]
    pub labels: Vec<String>,

    /// Labels from a file: lines of K=V, comments behind #. Nobody but root and the user who runs this may write to it.
    #[arg(long, value_name = "FILE")]
    pub labels_file: Vec<PathBuf>,

    /// The user who wants in: sshd's %u.
    pub user: String,

    /// The certificate in base64: sshd's %k.
    pub cert_base64: String,
}

/// `host refresh`.
#[derive(Debug, Args)]
pub struct Refresh {
    /// The authority's URL, such as https://id.example.com
    #[arg(long, value_name = "URL", env = "MACHINE_ID_AUTHORITY", hide_env_values = true)]
    pub authority: String,

    /// Where the files are kept; created if need be.
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,

    /// Trust the authority by the CA certificates in this PEM file [env: MACHINE_ID_CA_FILE]
    #[arg(long, value_name = "PEM", conflicts_with = "ca_pin")]
    pub ca_file: Option<PathBuf>,

    /// Trust the authority by the hash of its CA's public key [env: MACHINE_ID_CA_PIN]
    #[arg(long, value_name = "sha256:HEX")]
    pub ca_pin: Option<String>,

    /// Say which host this is, by its private key: sshd's, with FILE-cert.pub beside it, or a TLS server's, with its .crt.
    #[arg(long, value_name = "FILE")]
    pub host_key: Option<PathBuf>,

    /// Give up after this long
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    pub timeout: String,
}
