//! `machine-id cleanup`: the options as typed.

/// What was typed.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Args {
    /// What to wipe; by default $MACHINE_ID_DESTINATION and what dead wrapped runs of this user left, after this job's runs that go on were ended
    #[arg(value_name = "DESTINATION")]
    pub destination: Option<String>,

    /// Revoke at this authority, in place of the one that issued the certificates (as their manifest says)
    #[arg(long, value_name = "URL")]
    pub authority: Option<String>,

    /// Trust the authority by the CA certificates in this PEM file, in place of what the manifest says [env, where that says nothing: MACHINE_ID_CA_FILE]
    #[arg(long, value_name = "PEM", conflicts_with = "ca_pin")]
    pub ca_file: Option<String>,

    /// Trust the authority by the hash of its CA's public key, or of several with commas, likewise [env: MACHINE_ID_CA_PIN]
    #[arg(long, value_name = "sha256:HEX")]
    pub ca_pin: Option<String>,

    /// Give up revoking after this long
    #[arg(long, value_name = "DURATION", default_value = "10s")]
    pub timeout: String,

    /// Say each step
    #[arg(short, long, conflicts_with = "quiet")]
    pub verbose: bool,

    /// Say nothing but errors
    #[arg(short, long)]
    pub quiet: bool,
}
