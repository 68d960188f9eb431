//! Where `host install` puts things, and as whom they run: the names that docs/revocation.md has.

use std::path::Path;

/// The folder of its own.
pub const FOLDER: &str = "/etc/ssh/machine-id";
/// Stands in it while something is half done.
pub const UNFINISHED: &str = "/etc/ssh/machine-id/unfinished";
/// The lines of `sshd`'s configuration.
pub const SNIPPET: &str = "/etc/ssh/sshd_config.d/50-machine-id.conf";
/// The copy of `--ca-file`.
pub const CA_FILE: &str = "/etc/ssh/machine-id/authority.pem";
/// The copy of `--host-certificate`.
pub const GIVEN: &str = "/etc/ssh/machine-id/ssh_host-cert.pub";
/// What `once` writes to.
pub const DESTINATION: &str = "/etc/ssh/machine-id-host";
/// The certificate there.
pub const JOINED: &str = "/etc/ssh/machine-id-host/ssh_host-cert.pub";
/// Where the host's own key as a worker is kept.
pub const STORAGE: &str = "/var/lib/machine-id-host-storage";
/// The watcher's.
pub const HOME: &str = "/var/lib/machine-id-host";
/// CA keys and lists, which the watcher keeps.
pub const TRUST: &str = "/var/lib/machine-id-host/trust";
/// The notes of sessions.
pub const SESSIONS: &str = "/run/machine-id-sessions";
/// The folder of notes, made at each boot.
pub const TMPFILES: &str = "/etc/tmpfiles.d/machine-id.conf";
/// Who speaks to the network.
pub const WATCH_USER: &str = "machine-id-host";
/// Whom `sshd` asks.
pub const SSHD_USER: &str = "machine-id-sshd";
/// What is said of a user that was made here.
pub const COMMENT: &str = "made by machine-id host install";

/// The watcher's unit.
pub const WATCH: &str = "machine-id-watch.service";
/// What a timer starts in its place.
pub const REFRESH: &str = "machine-id-refresh.service";
/// That timer.
pub const REFRESH_TIMER: &str = "machine-id-refresh.timer";
/// What renews the host's certificate.
pub const RENEW: &str = "machine-id-host-certificate.service";
/// When it does.
pub const RENEW_TIMER: &str = "machine-id-host-certificate.timer";
/// What ends sessions.
pub const END_SESSIONS: &str = "machine-id-end-sessions.service";

/// All units that there may be; those that are enabled first.
pub const UNITS: [&str; 6] = [WATCH, REFRESH_TIMER, RENEW_TIMER, END_SESSIONS, REFRESH, RENEW];
/// Users that there may be, and their homes.
pub const USERS: [(&str, &str); 2] = [(WATCH_USER, HOME), (SSHD_USER, "/nonexistent")];

/// The file of a unit.
pub fn unit(name: &str) -> String {
    format!("/etc/systemd/system/{name}")
}

/// Every file with a mark that there may be but `sshd`'s lines.
pub fn pieces() -> Vec<String> {
    let others = [CA_FILE, GIVEN, TMPFILES].map(str::to_owned);
    others.into_iter().chain(UNITS.map(unit)).collect()
}

/// Whether a path is among what is installed.
pub fn is_ours(path: &str) -> bool {
    [FOLDER, DESTINATION, HOME, SESSIONS].iter().any(|ours| Path::new(path).starts_with(ours))
}
