//! The architecture: every room of the product from the ground up, and what it
//! may name. What is not listed is a violation. A room is a module with
//! everything below it that is no room of its own.

/// `ROOM: what it may name`, which stands above it in this list: rooms, whole
/// (`join`), or a module or an item of them (`join::verify`, `join::Provenance`).
pub const FLOORS: &str = "
# words, bytes, times: known to all, knowing nothing
clock:
elsewhere:
environment:
rfc4251:
secret:
suite:
text:
error: text
pem: error
jws: error secret
assertion: error jws pem secret
krl: rfc4251
principal: text
openssh: pem rfc4251
random: error text
wire: secret
denial: clock wire

# the ground floor: files, documents, the network, the terminal
document: elsewhere error text
folder: clock error random text
net: clock document environment error folder pem text wire::TRUSTS_HEADER
process: folder
runtime: error
retry: net random
terminal: environment error text
aws: clock environment error folder net retry text

# what can be asked for, and who a job is: the registries
output: document wire
join::source: environment error folder secret text wire
# The client's half of a join method, and the authority's: neither names the other.
join::prove: environment error join::source net secret wire
join::command: environment error join::prove join::source secret text
join::endpoint: clock error join::prove join::source net retry secret text wire
join::handed_over: environment error join::prove join::source text
join::issuers: clock net random text
join::jwt: clock denial jws secret text wire
join::instance: clock error
join::rules: document text
join::verify: clock denial error join::instance join::issuers join::rules wire
join::example: net text
join::method: denial document environment error join::example join::jwt join::prove join::rules join::source
    join::verify wire
join::oidc: clock denial document join::issuers join::jwt join::rules join::verify secret
    text wire
join: aws clock denial document environment error join::command join::endpoint join::example join::handed_over
    join::instance join::issuers join::jwt join::method join::oidc join::prove join::rules
    join::source join::verify jws net random retry secret text wire

# the client
cli: elsewhere text
destination: clock error folder output pem principal rfc4251 text wire
once::settings: cli destination document environment error folder join::detect join::elsewhere join::find join::method
    join::METHODS join::names join::prove join::source net output random secret suite text wire
once::exchange::keys: error output pem random rfc4251 suite wire
# What every stage is given.
once::run: environment once::exchange::keys once::settings suite terminal
once::runs: environment error folder process random
once::exchange: clock denial destination environment error join::method join::prove join::source krl net
    once::exchange::keys once::run once::settings output pem retry secret suite terminal text wire
once::revoke: assertion clock destination environment error net once::exchange once::exchange::keys
    once::run openssh pem random secret terminal wire
once::delivery: destination environment error folder join::method net once::exchange
    once::exchange::keys once::revoke once::run once::settings output random rfc4251 secret terminal text wire
once::command: clock environment error folder join::method once::delivery once::exchange
    once::exchange::keys once::revoke once::run once::settings process retry terminal text
    wire
once: cli destination environment error join::job join::method net once::command once::delivery once::exchange
    once::exchange::keys once::revoke once::run once::runs once::settings output runtime suite terminal
    text

# a server's side: it knows the authority by its API alone
host: assertion clock destination::known_hosts document error folder krl net openssh pem principal process retry secret terminal text wire

# the authority
authority::limits:
authority::head:
authority::connections: authority::limits
authority::validity: clock text
authority::ca: wire
authority::rotation: authority::ca error
authority::old_trust:
authority::store: authority::ca authority::limits clock environment error folder join::behind join::find join::instance
    join::METHODS join::trusted_cluster join::verify net output::SSH_HOST pem random secret terminal text wire
# Of the store, only the proof that something is recorded.
authority::keys: authority::ca authority::store::CertificateKind authority::store::Recorded authority::store::RevokedCertificate
    authority::validity aws clock environment error folder jws net openssh pem random retry runtime secret suite terminal text wire
authority::policy: denial document elsewhere error join::elsewhere join::find join::method join::METHODS join::names
    join::of_issuer join::rules join::trusted_cluster join::verify net::authority_origin net::lies_under net::read_pins output principal text wire
authority::policy_files: authority::policy error folder text
authority::config: authority::ca authority::keys authority::limits authority::policy authority::policy_files authority::store::STORE_KEY
    authority::store::StoreKey authority::store::StorePlace document environment error folder net secret suite
# A grant, and nothing else of the policy or of who the job is; of the store what is recorded.
authority::issue: authority::ca::CaKind authority::ca::OWN authority::keys authority::policy::decide::grant authority::store::CertificateKind
    authority::store::CommandPlan authority::store::Earlier authority::store::EarlierCertificate authority::store::ExchangePlan
    authority::store::NewCertificate authority::store::PlanRecord authority::store::Recorded
    authority::validity clock error join::verify::Provenance output principal random secret text wire
authority::audit: authority::store clock error text
authority::replicas: authority::store error text
authority::hosts: authority::store
authority::host_ends: authority::store authority::validity error text
authority::revocation: authority::ca authority::keys authority::store authority::validity clock error krl text wire
authority::statements: authority::ca authority::keys authority::revocation authority::store error wire
authority: authority::ca authority::config authority::host_ends authority::hosts authority::keys authority::limits authority::old_trust authority::policy
    authority::policy_files authority::replicas authority::revocation authority::statements authority::store authority::validity clock error
    folder::trust::Owner join::issuers net random suite
authority::tls: authority authority::ca authority::config authority::host_ends authority::issue authority::keys authority::revocation::Lists authority::store
    authority::validity clock error folder pem terminal text
authority::enroll: authority authority::ca authority::config authority::issue authority::keys authority::limits
    authority::policy authority::store authority::validity clock denial error join::find join::instance join::issuers join::method join::verify random secret wire
authority::assertion: assertion authority authority::store clock denial error join::jwt random
authority::revoke: authority authority::assertion authority::config authority::store clock error join::jwt secret text wire
authority::host_proof: authority authority::assertion authority::config authority::store clock error text
authority::served_list: authority authority::revocation error wire
authority::discovery: authority authority::config authority::keys error terminal wire
authority::http: authority authority::assertion authority::connections authority::discovery authority::enroll authority::host_proof
    authority::keys::CaKeys authority::keys::is_away authority::limits
    authority::revocation authority::revoke authority::served_list authority::statements authority::store::closed::closed authority::store::is_away authority::store::is_displaced
    authority::store::lost authority::store::no_room authority::tls authority::validity error join::issuers terminal wire
authority::policy_watch: authority authority::config authority::policy authority::policy_files error terminal text
authority::serve: authority authority::connections authority::head authority::http authority::policy_watch
    authority::store::cas::Heard authority::store::is_displaced authority::store::lost authority::tls authority::validity error terminal wire

# the commands
commands: authority authority::audit authority::ca authority::config authority::discovery authority::host_ends authority::issue authority::keys
    authority::policy authority::policy_files authority::revocation::alarm_of authority::revocation::ending_of authority::rotation authority::serve authority::store authority::tls authority::validity cli clock denial destination document
    environment error folder host join join::example join::instance::is_id join::instance::secret_hash join::issuers::pinned join::issuers::probe join::jwt join::method
    join::verify krl net once once::command once::revoke once::runs once::settings openssh output pem principal process random runtime
    secret suite terminal text wire
main: cli commands environment net secret terminal
";

/// Names that go up, against the order above. One that is gone leaves this list.
pub const UP: &[(&str, &str)] = &[];

/// What has a home: only these rooms may name it. A room's name covers those in it.
pub const HOMES: &[(&str, &[&str])] = &[
    (
        "axum",
        &[
            "authority::discovery",
            "authority::http",
            "authority::serve",
            "authority::served_list",
            "commands",
        ],
    ),
    ("clap", &["cli", "commands", "main"]),
    ("cryptoki", &["authority::keys"]),
    ("hyper", &["authority::serve", "commands"]),
    ("rusqlite", &["authority::store"]),
    ("rustls_native_certs", &["net"]),
    ("serde_saphyr", &["document"]),
    ("tokio_postgres", &["authority::store", "host"]),
    ("std::env", &["environment", "commands", "join", "main", "once::command"]),
    ("std::io::stderr", &["terminal"]),
    ("std::io::stdout", &["terminal"]),
    ("eprint!", &[]),
    ("std::eprint!", &[]),
    ("eprintln!", &[]),
    ("std::eprintln!", &[]),
    ("print!", &[]),
    ("std::print!", &[]),
    ("println!", &[]),
    ("std::println!", &[]),
];

/// Rooms without I/O: of the standard library and of other crates they name this and nothing else.
pub const PURE: &[(&str, &[&str])] = &[(
    "authority::policy",
    &[
        "humantime::format_duration",
        "serde_json",
        "std::borrow::Cow",
        "std::cmp",
        "std::collections",
        "std::fmt",
        "std::mem",
        "std::net::IpAddr",
        "std::ops",
        "std::sync::Arc",
        "std::time::Duration",
    ],
)];
