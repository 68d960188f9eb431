//! Random numbers: serials, ids, nonces.

use ring::rand::{SecureRandom as _, SystemRandom};

use crate::error::{Error, Result};

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
