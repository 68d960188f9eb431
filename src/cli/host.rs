//! `machine-id host …`, as types.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::format::Format;

/// What to do on a server.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print the principals of a certificate that let a user in here: sshd's AuthorizedPrincipalsCommand.
    Principals(Principals),
    /// Fetch the authority's CA keys and revocation lists; for a timer.
    Refresh(Refresh),
    /// Keep CA keys and revocation lists up to date within a second, over one connection; end live sessions of what was revoked.
    Watch(Watch),
    /// Set this host's sshd up for an authority: CA keys and lists, a certificate, who may log in. Undone by `host uninstall`.
    Install(Box<Install>),
    /// Take back what `host install` wrote.
    Uninstall(Uninstall),
    /// Say whether certificates get in here, and why one does not.
    Check(Check),
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

    /// Note which of sshd's processes was offered the certificate, so that `host watch` ends its session when it is
    /// revoked. A folder of this command's user alone, in /run; who cannot be noted does not get in.
    #[arg(long, value_name = "DIR")]
    pub sessions: Option<PathBuf>,

    /// End it when any certificate is revoked that the connection has offered, and not the last one alone: where
    /// AuthenticationMethods wants several.
    #[arg(long, requires = "sessions")]
    pub every: bool,

    /// Let nobody in where `host watch` or `host refresh` has heard nothing of the authority for so long; needs --dir
    #[arg(long, value_name = "AFTER", requires = "dir")]
    pub fail_closed: Option<String>,

    /// The folder that `host watch` or `host refresh` keeps, for --fail-closed
    #[arg(long, value_name = "DIR", requires = "fail_closed")]
    pub dir: Option<PathBuf>,

    /// The user who wants in: sshd's %u.
    pub user: String,

    /// The certificate in base64: sshd's %k.
    pub cert_base64: String,
}

/// `host refresh`.
#[derive(Debug, Args)]
pub struct Refresh {
    /// The authority's URL, such as https://id.example.com
    #[arg(long, value_name = "URL", env = "MACHINE_ID_AUTHORITY", hide_env_values = true, required = true)]
    pub authority: Option<String>,

    /// Where the files are kept; created if need be.
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,

    /// Trust the authority by the CA certificates in this PEM file [env: MACHINE_ID_CA_FILE]
    #[arg(long, value_name = "PEM", conflicts_with = "ca_pin")]
    pub ca_file: Option<PathBuf>,

    /// Trust the authority by the hash of its CA's public key, or of several with commas [env: MACHINE_ID_CA_PIN]
    #[arg(long, value_name = "sha256:HEX")]
    pub ca_pin: Option<String>,

    /// Say which host this is, by its private key: sshd's, with FILE-cert.pub beside it, or a TLS server's, with its .crt.
    #[arg(long, value_name = "FILE")]
    pub host_key: Option<PathBuf>,

    /// The key that must have signed the first statement that is believed, as `authority export statement-key` prints it
    // In base64url it may begin with a dash.
    #[arg(long, value_name = "KEY", allow_hyphen_values = true)]
    pub statement_key: Option<String>,

    /// Give up after this long
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    pub timeout: String,
}

/// `host watch`.
#[derive(Debug, Args)]
#[command(mut_arg("authority", |arg| arg.required(false).required_unless_present("end_sessions")))]
pub struct Watch {
    /// What is kept up to date, as `host refresh` does.
    #[command(flatten)]
    pub refresh: Refresh,

    /// Run this by `sh -c` after files of TLS servers have changed, so that they read them; sshd needs none
    #[arg(long, value_name = "COMMAND")]
    pub reload: Option<String>,

    /// Let nobody in once nothing new was heard of the authority for so long, until it is heard again
    #[arg(long, value_name = "AFTER")]
    pub fail_closed: Option<String>,

    /// End each session of sshd's whose certificate --dir's revoked.krl refuses. Needs root, and no network: best without
    /// --authority, beside a watcher that has no rights.
    #[arg(long, requires = "sessions")]
    pub end_sessions: bool,

    /// Where `host principals --sessions` notes sessions
    #[arg(long, value_name = "DIR", requires = "end_sessions")]
    pub sessions: Option<PathBuf>,

    /// End PostgreSQL's sessions too whose certificate --dir's tls.crl has, reached by this URL through a socket or on this machine
    #[arg(long, value_name = "URL", requires = "end_sessions")]
    pub postgres: Option<String>,
}

/// `host install`.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("certificate").required(true).args(["host_certificate", "token"])))]
pub struct Install {
    /// The authority's URL, such as https://id.example.com
    #[arg(long, value_name = "URL", env = "MACHINE_ID_AUTHORITY", hide_env_values = true, required = true)]
    pub authority: Option<String>,

    /// Trust the authority by the CA certificates in this PEM file, of which a copy is kept [env: MACHINE_ID_CA_FILE]
    #[arg(long, value_name = "PEM", conflicts_with = "ca_pin")]
    pub ca_file: Option<PathBuf>,

    /// Trust the authority by the hash of its CA's public key [env: MACHINE_ID_CA_PIN]
    #[arg(long, value_name = "sha256:HEX")]
    pub ca_pin: Option<String>,

    /// The key that must have signed the first statement that is believed, as `authority export statement-key` prints it
    // In base64url it may begin with a dash.
    #[arg(long, value_name = "KEY", allow_hyphen_values = true)]
    pub statement_key: Option<String>,

    /// This host's labels; a role with `node_labels` lets in only where they hold
    #[arg(long, value_name = "K=V,…")]
    pub labels: Vec<String>,

    /// A name or address by which jobs know this host, of a certificate that it gets by --token; may repeat. The host's full name unless given
    #[arg(long = "principal", value_name = "NAME", requires = "token")]
    pub principals: Vec<String>,

    /// This host's certificate, as `authority sign-host` has signed it; of which a copy is kept. It is not renewed
    #[arg(long, value_name = "FILE")]
    pub host_certificate: Option<PathBuf>,

    /// The join token by which this host gets its certificate, and has it renewed
    #[arg(long, value_name = "NAME", requires = "join_method")]
    pub token: Option<String>,

    /// How this host proves which it is: `token`, `iam` or another join method
    #[arg(long, value_name = "METHOD", requires = "token")]
    pub join_method: Option<String>,

    /// Register this host with the secret in this file, the first time
    #[arg(long, value_name = "FILE", requires = "token")]
    pub registration_secret_file: Option<PathBuf>,

    /// Which of sshd's HostKeys is certified; that of the certificate, or the Ed25519 key, unless given
    #[arg(long, value_name = "FILE")]
    pub host_key: Option<PathBuf>,

    /// End sessions whose certificate is revoked: sshd has each login noted, and a unit of root's looks after them
    #[arg(long)]
    pub end_sessions: bool,

    /// Let nobody in once nothing new was heard of the authority for so long
    #[arg(long, value_name = "AFTER", conflicts_with = "timer")]
    pub fail_closed: Option<String>,

    /// Fetch lists each minute, in place of a connection by which they are heard of within a second
    #[arg(long)]
    pub timer: bool,

    /// Give up after this long, for each thing that is asked of the authority
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    pub timeout: String,

    /// How to say what was written
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// `host uninstall`.
#[derive(Debug, Args)]
pub struct Uninstall {
    /// How to say what was taken away
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// `host check`.
#[derive(Debug, Args)]
pub struct Check {
    /// A user as whom somebody wants in
    #[arg(long, value_name = "USER", requires = "certificate")]
    pub user: Option<String>,

    /// The certificate by which: `key-cert.pub` of a job's destination, or - for stdin
    #[arg(long, value_name = "FILE", requires = "user")]
    pub certificate: Option<PathBuf>,

    /// How to say it
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}
