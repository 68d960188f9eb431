//! Random numbers: serials, ids, nonces; names for temporary files, directories, delimiters.

use ring::rand::{SecureRandom as _, SystemRandom};

use crate::error::{Error, Result};

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

/// A random serial of 63 bits, never zero.
///
/// # Errors
/// `Kind::Internal` where there are no random numbers.
pub fn serial() -> Result<u64> {
    let mut bytes = [0; 8];
    fill(&mut bytes)?;
    Ok((u64::from_be_bytes(bytes) >> 1).max(1))
}

/// A name that nobody guesses: `PREFIX-` and 128 random bits in hexadecimal.
///
/// # Errors
/// `Kind::Internal` where there are no random numbers.
pub fn id(prefix: &str) -> Result<String> {
    let mut bytes = [0; 16];
    fill(&mut bytes)?;
    Ok(format!("{prefix}-{:032x}", u128::from_be_bytes(bytes)))
}

/// Fills the slice.
///
/// # Errors
/// `Kind::Internal` where there are no random numbers.
pub fn fill(bytes: &mut [u8]) -> Result<()> {
    SystemRandom::new().fill(bytes).map_err(|_| Error::internal("the system gives no random numbers"))
}
