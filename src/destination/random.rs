//! Random names: for temporary files, new directories, delimiters and the like.

use ring::rand::{SecureRandom as _, SystemRandom};

/// Random bytes; the system's generator does not fail once a process runs.
#[must_use]
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // A name that is not random collides with what is there, which every user of this notices.
    let _ = SystemRandom::new().fill(&mut bytes);
    bytes
}

/// `N` random bytes in hexadecimal.
#[must_use]
pub fn hex<const N: usize>() -> String {
    bytes::<N>().iter().map(|byte| format!("{byte:02x}")).collect()
}
