//! `machine-id authority …`, as types.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

pub use super::data_dir::DataDir;
use super::format::Format;
use super::rotate::Rotate;

/// What to do with an authority.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a data directory: configuration, CA keys, a store, and a policy for what --example names.
    Init(Init),
    /// Add to the policy.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Say what is wrong with this authority: its clock, names, ports, files, disk, issuers, certificates, backups.
    Doctor(Doctor),
    /// Begin an empty store where the store is lost: what was issued can no longer be revoked.
    NewStore(DataDir),
    /// Carry all records from one store to another, while the first is served.
    Migrate(Migrate),
    /// Let go what is older than `retain` in authority.yaml; with SQLite `serve` goes on with that.
    Prune {
        /// Where its data is.
        #[command(flatten)]
        data: DataDir,
        /// Its store in place of the configuration's: in PostgreSQL, as the database's owner.
        #[arg(long, value_name = "STORE")]
        store: Option<String>,
    },
    /// Go on with a store that was put back, or has lost records otherwise; says first what that means.
    Resume {
        /// Where its data is.
        #[command(flatten)]
        data: DataDir,
        /// What was issued, used and revoked since is lost, and you go on without.
        #[arg(long)]
        accept_loss: bool,
    },
    /// Bring the tables of a store in PostgreSQL up to date, as its owner, and give roles what they need.
    Upgrade {
        /// Where its data is.
        #[command(flatten)]
        data: DataDir,
        /// The store, in place of the configuration's: as the database's owner, or one that is to be migrated to.
        #[arg(long, value_name = "STORE")]
        store: Option<String>,
        /// The role that authorities serve as: it inserts, and changes nothing that was recorded.
        #[arg(long, value_name = "ROLE")]
        server_role: Option<String>,
        /// The role that reads the audit trail.
        #[arg(long, value_name = "ROLE")]
        reader_role: Option<String>,
    },
    /// Serve HTTPS.
    Serve {
        /// Where its data is.
        #[command(flatten)]
        data: DataDir,
        /// Where to listen, in place of the configuration's `listen`.
        #[arg(long, value_name = "ADDR")]
        listen: Option<SocketAddr>,
    },
    /// Check a policy: mistakes, lints, and whether a job with given claims would get in.
    Check(Check),
    /// Print what servers and clients need to trust this authority.
    Export {
        /// Where its data is.
        #[command(flatten)]
        data: DataDir,
        /// What to print.
        what: Exported,
    },
    /// Take what another CA has certified: see `init --tls-ca-csr`.
    Import {
        /// Where its data is.
        #[command(flatten)]
        data: DataDir,
        /// The certificates of our TLS CA up to another's root, in PEM: ours first, the root last; or `-` for stdin.
        #[arg(long, value_name = "CHAIN.pem")]
        tls_ca: PathBuf,
    },
    /// Sign a host certificate for an sshd, on stdout.
    SignHost {
        /// Where its data is.
        #[command(flatten)]
        data: DataDir,
        /// A name or address of the host; may repeat.
        #[arg(long = "principal", value_name = "NAME", required = true)]
        principals: Vec<String>,
        /// How long it is valid.
        #[arg(long, value_name = "DURATION", default_value = "90d")]
        ttl: String,
        /// The host's public key, or `-` for stdin.
        #[arg(value_name = "KEY.pub")]
        key: PathBuf,
    },
    /// Sign a TLS server certificate.
    SignServer(SignServer),
    /// Show what was issued, refused and revoked, and for which run.
    Audit(Audit),
    /// Say why a job was refused, by the denial id that it printed.
    Explain {
        /// Where its data is.
        #[command(flatten)]
        data: DataDir,
        /// What the refused job printed: d-….
        #[arg(value_name = "DENIAL_ID")]
        id: String,
    },
    /// Shut somebody out: nothing is issued to them from now on, and what they hold is revoked, on every authority of the store.
    Lock(Lock),
    /// Let those in again whom a lock has shut out; what was revoked stays so.
    Unlock {
        /// Where its data is.
        #[command(flatten)]
        data: DataDir,
        /// Whom.
        #[command(flatten)]
        whom: Whom,
    },
    /// List the locks that hold.
    Locks {
        /// Where its data is.
        #[command(flatten)]
        data: DataDir,
        /// How to print them; in JSON one a line.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// List the hosts that have proved which they are: when each was last heard, and what it had then.
    Hosts {
        /// Where its data is.
        #[command(flatten)]
        data: DataDir,
        /// How to print them; in JSON one a line.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Throw a host out: its certificates are revoked, and none is signed for its name until `unlock --host NAME`.
    RevokeHost(RevokeHost),
    /// Put another CA in the place of one, step by step: start, activate, finish; or say how far that is.
    Rotate(Rotate),
    /// Let workers register that stay, such as a self-hosted Jenkins.
    #[command(subcommand)]
    Token(TokenCommand),
    /// List the registered workers.
    Instances {
        /// Where its data is.
        #[command(flatten)]
        data: DataDir,
        /// How to print them.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
}

/// `authority init`.
#[derive(Debug, Args)]
pub struct Init {
    /// Where its data will be.
    #[command(flatten)]
    pub data: DataDir,
    /// The cluster's name, such as id.example.com.
    #[arg(long, value_name = "NAME")]
    pub cluster: String,
    /// Where jobs reach it: the audience of their tokens.
    #[arg(long, value_name = "URL")]
    pub public_url: String,
    /// Where its store is: `sqlite:NAME`, or `postgres://USER@HOST/DATABASE` without a password.
    #[arg(long, value_name = "STORE", default_value = "sqlite:authority.db")]
    pub store: String,
    /// Which algorithms its keys and its jobs' have: modern (Ed25519, and P-256 for TLS), or compatible (P-256, as FIPS policies take it).
    #[arg(long, value_name = "SUITE", default_value = "modern")]
    pub suite: String,
    /// Seal the CA keys with the passphrase in this file, or else in systemd's credential machine-id-keys.
    #[arg(long, value_name = "FILE")]
    pub key_passphrase_file: Option<PathBuf>,
    /// Write a certificate request for the TLS CA there, for the CA of a root that exists; see `import`.
    #[arg(long, value_name = "FILE")]
    pub tls_ca_csr: Option<PathBuf>,
    /// Where its CA keys are made: `file:NAME`, or `pkcs11:token=LABEL?module-path=FILE&pin-source=file:FILE`,
    /// or `awskms:alias/PREFIX`.
    #[arg(long, value_name = "KEYS", default_value = "file:keys")]
    pub keys: String,
    /// Let these jobs in: `github:OWNER/REPO[@BRANCH]`, `gitlab:[HOST/]GROUP/PROJECT[@BRANCH]`,
    /// `circleci:ORG_ID/PROJECT_ID[@BRANCH]`, `token:NAME`.
    #[arg(long, value_name = "KIND:WHAT", requires = "login")]
    pub example: Option<String>,
    /// As whom they log in to hosts.
    #[arg(long, value_name = "LOGIN", requires = "example")]
    pub login: Option<String>,
    /// The file of the one workflow that is let in; of CircleCI, the id of a pipeline definition.
    #[arg(long, value_name = "FILE", requires = "example")]
    pub workflow: Option<String>,
    /// How to print the next commands.
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// `authority policy`.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Write one more file, which lets in the jobs of one project.
    Add(PolicyAdd),
}

/// `authority policy add`.
#[derive(Debug, Args)]
pub struct PolicyAdd {
    /// Where its data is.
    #[command(flatten)]
    pub data: DataDir,
    /// Whose jobs: `github:OWNER/REPO[@BRANCH]`, `gitlab:[HOST/]GROUP/PROJECT[@BRANCH]`,
    /// `circleci:ORG_ID/PROJECT_ID[@BRANCH]`, `token:NAME`.
    #[arg(value_name = "KIND:WHAT")]
    pub what: String,
    /// As whom they log in to hosts.
    #[arg(long, value_name = "LOGIN")]
    pub login: String,
    /// The file of the one workflow that is let in; of CircleCI, the id of a pipeline definition.
    #[arg(long, value_name = "FILE")]
    pub workflow: Option<String>,
    /// How to print what was done.
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// `authority doctor`.
#[derive(Debug, Args)]
pub struct Doctor {
    /// Where its data is.
    #[command(flatten)]
    pub data: DataDir,
    /// The folder that backups are put into, one below the other.
    #[arg(long, value_name = "DIR")]
    pub backups: Option<PathBuf>,
    /// How to print it.
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// `authority token`.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Print a secret that registers one worker, once.
    Add {
        /// Where its data is.
        #[command(flatten)]
        data: DataDir,
        /// The join token that the worker will name.
        #[arg(long, value_name = "NAME")]
        token: String,
        /// How long the secret is good.
        #[arg(long, value_name = "DURATION", default_value = "1h")]
        ttl: String,
        /// How to print it.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Withdraw the secrets of a join token that no worker has used yet.
    Revoke {
        /// Where its data is.
        #[command(flatten)]
        data: DataDir,
        /// The join token, which the policy need not have any more.
        #[arg(long, value_name = "NAME")]
        token: String,
    },
}

/// `authority lock`.
#[derive(Debug, Args)]
pub struct Lock {
    /// Where its data is.
    #[command(flatten)]
    pub data: DataDir,
    /// Whom.
    #[command(flatten)]
    pub whom: Whom,
    /// How long it holds; until it is lifted unless set.
    #[arg(long, value_name = "DURATION")]
    pub ttl: Option<String>,
    /// What a job that it refuses is told: one line.
    #[arg(long, value_name = "TEXT")]
    pub message: Option<String>,
    /// Say what would be refused and revoked, and do nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// `authority revoke-host`.
#[derive(Debug, Args)]
pub struct RevokeHost {
    /// Where its data is.
    #[command(flatten)]
    pub data: DataDir,
    /// The host's name, as its certificates have it; those for `*.` and the domain that it is in are its own too.
    #[arg(value_name = "NAME")]
    pub name: String,
    /// What whoever wants a certificate for it is told: one line.
    #[arg(long, value_name = "TEXT")]
    pub message: Option<String>,
    /// Say what would be revoked, and do nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// Whom a lock is about: one of these.
#[derive(Debug, Default, Args)]
#[group(required = true, multiple = false)]
pub struct Whom {
    /// A bot of the policy.
    #[arg(long, value_name = "NAME")]
    pub bot: Option<String>,
    /// A join token.
    #[arg(long, value_name = "NAME")]
    pub token: Option<String>,
    /// A join method.
    #[arg(long, value_name = "METHOD")]
    pub join_method: Option<String>,
    /// Whoever has tokens of that issuer.
    #[arg(long, value_name = "URL")]
    pub issuer: Option<String>,
    /// A registered worker, as `authority instances` lists it.
    #[arg(long, value_name = "ID")]
    pub instance: Option<String>,
    /// What was issued with the certificate of that serial: digits are decimal, 0x, a colon or a letter make it hexadecimal.
    #[arg(long, value_name = "SERIAL")]
    pub serial: Option<String>,
    /// What was issued at once, by the id that jobs print and the trail has: i-….
    #[arg(long, value_name = "ID")]
    pub issuance: Option<String>,
    /// A run or job of a CI system, by its id or by the line that certificates have of it.
    #[arg(long, value_name = "RUN")]
    pub run: Option<String>,
    /// A repository or project, by its name or its id; by name, also once it was renamed.
    #[arg(long, value_name = "REPOSITORY")]
    pub repository: Option<String>,
    /// Whoever has that key: `SHA256:…` of an SSH key, or the SHA-256 of a public key in DER in hexadecimal.
    #[arg(long, value_name = "FINGERPRINT")]
    pub key: Option<String>,
    /// A host that was thrown out: `revoke-host` does that.
    #[arg(long, value_name = "NAME")]
    pub host: Option<String>,
    /// Everybody.
    #[arg(long)]
    pub all: bool,
}

/// `authority migrate`.
#[derive(Debug, Args)]
pub struct Migrate {
    /// Where its data is.
    #[command(flatten)]
    pub data: DataDir,
    /// The store that is served now, as `store` in authority.yaml names it; in PostgreSQL, as the database's owner.
    #[arg(long, value_name = "STORE")]
    pub from: String,
    /// The one that is to be served: a new file, or a database in which `authority upgrade` has made empty tables.
    #[arg(long, value_name = "STORE")]
    pub to: String,
    /// Give a migration up that is not finished: the new store becomes void, and the old one goes on.
    #[arg(long)]
    pub give_up: bool,
}

/// `authority check`.
#[derive(Debug, Args)]
pub struct Check {
    /// The authority's data directory: its configuration, store and certificates are checked too.
    #[arg(
        long,
        value_name = "DIR",
        env = "MACHINE_ID_DATA_DIR",
        hide_env_values = true,
        required_unless_present = "policy"
    )]
    pub data_dir: Option<PathBuf>,
    /// Policy files or folders, read in place of the data directory's.
    #[arg(value_name = "POLICY")]
    pub policy: Vec<PathBuf>,
    /// Would a job with these claims get in? A token or its claims as JSON, in a file or on stdin (-).
    #[arg(long, value_name = "FILE", requires = "through")]
    pub claims: Option<PathBuf>,
    /// The join token that the job names.
    #[arg(long, value_name = "NAME", requires = "claims", group = "through")]
    pub token: Option<String>,
    /// The trusted cluster that the job comes from; the claims are those of its proof.
    #[arg(long, value_name = "CLUSTER", requires = "claims", group = "through")]
    pub from: Option<String>,
    /// The join method that the job uses, if not the token's.
    #[arg(long, value_name = "METHOD", requires = "claims")]
    pub join_method: Option<String>,
    /// What the job asks for; may repeat.
    #[arg(
        long = "output",
        value_name = "TYPE[,KEY=VALUE…]",
        default_value = "identity",
        requires = "claims"
    )]
    pub outputs: Vec<String>,
    /// A role that each output asks for, if not all; may repeat.
    #[arg(long = "role", value_name = "NAME", requires = "claims")]
    pub roles: Vec<String>,
    /// How long the job asks for.
    #[arg(long, value_name = "DURATION", default_value = "1h", requires = "claims")]
    pub ttl: String,
    /// What a lint finds is an error too.
    #[arg(long)]
    pub deny_lints: bool,
    /// How to print it.
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// What `authority export` prints.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Exported {
    /// For sshd's TrustedUserCAKeys.
    SshUserCa,
    /// The CA of host certificates.
    SshHostCa,
    /// For ssl_ca_file and friends, and for --ca-file.
    TlsCa,
    /// For --ca-pin.
    TlsCaPin,
    /// What an authority's statements to its servers are verified by.
    StatementKey,
    /// The key set that its tokens are verified by, for clouds and leaf clusters that fetch none: `static_jwks`.
    FederationJwks,
    /// A line for known_hosts.
    KnownHosts,
}

/// `authority sign-server`.
#[derive(Debug, Args)]
pub struct SignServer {
    /// Where its data is.
    #[command(flatten)]
    pub data: DataDir,
    /// A DNS name or IP address of the server; may repeat.
    #[arg(long = "name", value_name = "DNS_OR_IP", required = true)]
    pub names: Vec<String>,
    /// How long it is valid, at most until the CA ends.
    #[arg(long, value_name = "DURATION", default_value = "90d")]
    pub ttl: String,
    /// The folder for server.key, server.crt and ca.crt.
    #[arg(long, value_name = "DIR", required_unless_present = "csr", conflicts_with = "csr")]
    pub out: Option<PathBuf>,
    /// A certificate signing request, or `-` for stdin; the certificate goes to stdout, and the CA's behind it, or those up to another's root.
    #[arg(long, value_name = "FILE")]
    pub csr: Option<PathBuf>,
}

/// `authority audit`.
#[derive(Debug, Args)]
pub struct Audit {
    /// Where its data is.
    #[command(flatten)]
    pub data: DataDir,
    /// Not before this: 1h, 7d, or an RFC 3339 time.
    #[arg(long, value_name = "WHEN")]
    pub since: Option<String>,
    /// Of this bot.
    #[arg(long, value_name = "NAME")]
    pub bot: Option<String>,
    /// Of this join token.
    #[arg(long, value_name = "NAME")]
    pub token: Option<String>,
    /// Of this kind: issued, refused, revoked, signed, secret_added, secrets_withdrawn, registered, locked,
    /// unlocked, replaced, lost, restored, pruned, rotated.
    #[arg(long, value_name = "KIND")]
    pub event: Option<String>,
    /// With this denial or issuance id; or of a job of another cluster, with its issuance id there, or the `jti` of its proof.
    #[arg(long, value_name = "ID")]
    pub id: Option<String>,
    /// With this serial of a certificate, or `jti` of a token.
    #[arg(long, value_name = "SERIAL")]
    pub serial: Option<String>,
    /// How to print it.
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}
