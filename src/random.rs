//! Random numbers: secrets, serials, ids, nonces; names for temporary files,
//! directories, delimiters. All fail with `Kind::Internal` where the system gives none.

use ring::rand::{SecureRandom as _, SystemRandom};

use crate::error::{Error, Result};
use crate::text;

/// Fills the slice, for what is wiped afterwards.
pub fn fill(bytes: &mut [u8]) -> Result<()> {
    SystemRandom::new().fill(bytes).map_err(|_| Error::internal("the system gives no random numbers"))
}

/// `N` random bytes.
pub fn bytes<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    fill(&mut bytes)?;
    Ok(bytes)
}

/// `N` random bytes in hexadecimal.
pub fn hex<const N: usize>() -> Result<String> {
    Ok(text::hex(&bytes::<N>()?))
}

/// A name that nobody guesses: `PREFIX-` and 128 random bits in hexadecimal.
pub fn id(prefix: &str) -> Result<String> {
    Ok(format!("{prefix}-{}", hex::<16>()?))
}

/// A random serial of 63 bits, never zero.
pub fn serial() -> Result<u64> {
    Ok((u64::from_be_bytes(bytes()?) >> 1).max(1))
}
