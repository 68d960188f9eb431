//! What the tests share: a loopback issuer over TLS, the real authority, a
//! small HTTPS client, fixed keys. Everything lives in temporary folders and
//! ends with its value.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a helper that fails fails its test"
)]

pub mod authority;
pub mod balancer;
pub mod client;
pub mod cluster;
pub mod company;
pub mod cut;
pub mod disk;
pub mod fakes;
pub mod gateway;
pub mod host;
pub mod issuer;
pub mod jwt;
pub mod key_store;
pub mod keys;
pub mod kms;
pub mod kube;
pub mod load;
pub mod mariadb;
pub mod middle;
pub mod neighbour;
pub mod nginx;
pub mod once;
pub mod page;
pub mod policies;
pub mod port;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod redis;
pub mod replicas;
pub mod root;
pub mod servers;
pub mod shut_out;
pub mod softhsm;
pub mod sshd;
pub mod sshd_labels;
pub mod stated;
pub mod sts;
pub mod template;
pub mod thief;
pub mod token;
pub mod verifiers;
pub mod watcher;
pub mod workers;

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom as _, SystemRandom};

/// How long anything may take that ought to be quick; generous, for a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Seconds since 1970.
pub fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

/// Random bytes.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).unwrap();
    bytes
}

/// A random name: `jti`s, cases, files.
pub fn fresh() -> String {
    random::<16>().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Base64url without padding.
pub fn base64url(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Asks again and again, until `probe` answers or patience ends.
#[track_caller]
pub fn wait_for<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    wait_slowly_for(what, Duration::from_millis(10), probe)
}

/// The same, with this much time between two questions: the authority limits refusals.
#[track_caller]
pub fn wait_slowly_for<T>(what: &str, pause: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < end, "waited too long for {what}");
        std::thread::sleep(pause);
    }
}

/// A path in the repository.
pub fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A fixture's text.
#[track_caller]
pub fn fixture(path: &str) -> String {
    let path = repository("tests/fixtures").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
