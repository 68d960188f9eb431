//! `machine-id once`: the options as typed. `once::settings` joins
//! them with the environment and the `--config` file, and checks them.

use std::ffi::OsString;

use super::format::Format;

/// What was typed.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Args {
    /// The authority's URL, such as https://id.example.com [env: MACHINE_ID_AUTHORITY]
    #[arg(long, value_name = "URL")]
    pub authority: Option<String>,

    /// How this job proves who it is; detected where possible [env: MACHINE_ID_JOIN_METHOD]
    #[arg(long, value_name = "METHOD")]
    pub join_method: Option<String>,

    /// The join token whose rules apply (its name, no secret) [env: MACHINE_ID_TOKEN]
    #[arg(long, value_name = "NAME")]
    pub token: Option<String>,

    /// Where to write; by default a new private directory [env: MACHINE_ID_DESTINATION]
    #[arg(long, value_name = "DIR")]
    pub destination: Option<String>,

    /// What to write: identity (the default), ssh, application, database, kubernetes, ssh-host or jwt, with its options and name=…, at=LEAF, roles=A+B, destination=… behind commas
    #[arg(long = "output", value_name = "TYPE[,KEY=VALUE…]")]
    pub outputs: Vec<String>,

    /// Have the outputs that do not say at=LEAF issued by that leaf cluster, as the authority's policy names it
    #[arg(long, value_name = "LEAF")]
    pub at: Option<String>,

    /// Fail, and keep nothing, where a leaf cluster does not give its outputs
    #[arg(long)]
    pub require_all: bool,

    /// A role to ask for, in place of every role of the bot; may repeat
    #[arg(long = "role", value_name = "NAME")]
    pub roles: Vec<String>,

    /// How long the certificates should live, 1h by default [env: MACHINE_ID_TTL]
    #[arg(long, value_name = "DURATION")]
    pub ttl: Option<String>,

    /// Which keys to make: ed25519 (of TLS P-256), ecdsa-p256 or ecdsa-p384; by default as the authority's suite says [env: MACHINE_ID_KEY_TYPE]
    #[arg(long, value_name = "TYPE")]
    pub key_type: Option<String>,

    /// Trust the authority by the CA certificates in this PEM file [env: MACHINE_ID_CA_FILE]
    #[arg(long, value_name = "PEM", conflicts_with = "ca_pin")]
    pub ca_file: Option<String>,

    /// Trust the authority by the hash of its CA's public key, or of several with commas [env: MACHINE_ID_CA_PIN]
    #[arg(long, value_name = "sha256:HEX")]
    pub ca_pin: Option<String>,

    /// Read settings from this YAML file [env: MACHINE_ID_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub config: Option<String>,

    /// Take the platform's token from this environment variable
    #[arg(long, value_name = "NAME", conflicts_with = "id_token_file")]
    pub id_token_env: Option<String>,

    /// Take the platform's token from this file
    #[arg(long, value_name = "FILE")]
    pub id_token_file: Option<String>,

    /// Keep this worker's key and state in this private directory, for join methods that do [env: MACHINE_ID_STORAGE]
    #[arg(long, value_name = "DIR")]
    pub storage: Option<String>,

    /// Register this worker with the secret in this file [env: MACHINE_ID_REGISTRATION_SECRET, the secret itself]
    #[arg(long, value_name = "FILE")]
    pub registration_secret_file: Option<String>,

    /// Keep the SSH key in memory, and serve it to COMMAND on SSH_AUTH_SOCK
    #[arg(long)]
    pub agent: bool,

    /// Give COMMAND of this environment nothing but PATH, HOME, USER, LOGNAME, SHELL, LANG, LC_*, TERM, TZ and TMPDIR
    #[arg(long, requires = "command")]
    pub clear_env: bool,

    /// Give COMMAND this variable all the same; may repeat
    #[arg(long = "keep-env", value_name = "NAME", requires = "command")]
    pub keep_env: Vec<String>,

    /// Give up after this long, retries included
    #[arg(long, value_name = "DURATION", default_value = "60s")]
    pub timeout: String,

    /// What to print on stdout: the destination's path, or the manifest as JSON
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,

    /// Say each step
    #[arg(short, long, conflicts_with = "quiet")]
    pub verbose: bool,

    /// Say nothing but errors
    #[arg(short, long)]
    pub quiet: bool,

    /// Run this with the certificates, and take them away when it ends
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}
