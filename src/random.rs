//! Random numbers: secrets, serials, ids, nonces; names for temporary files,
//! directories, delimiters. All fail with `Kind::Internal` where the system gives none.

use std::time::{SystemTime, UNIX_EPOCH};

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

/// A name that nobody guesses: `PREFIX-` and 128 bits in hexadecimal. The first
/// 48 are the time in milliseconds, as in UUIDs of version 7 (RFC 9562), so that
/// an index of names grows at its end; 80 are random.
pub fn id(prefix: &str) -> Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let time = u64::try_from(now).unwrap_or(u64::MAX) & 0xffff_ffff_ffff;
    Ok(format!("{prefix}-{time:012x}{}", hex::<10>()?))
}

/// How many serials stand together.
const BLOCK: u64 = 1 << 6;

/// Ascending serials of 63 bits, never zero, for certificates that are issued
/// together: at a random place, and next to one another, so that a table of
/// serials has them on one page.
pub fn serials() -> Result<impl Iterator<Item = u64>> {
    let first = ((u64::from_be_bytes(bytes()?) >> 1) & !(BLOCK - 1)).max(BLOCK);
    Ok(first..first | (BLOCK - 1))
}

/// A random serial of 63 bits, never zero.
pub fn serial() -> Result<u64> {
    Ok((u64::from_be_bytes(bytes()?) >> 1).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serials_ascend_fit_and_are_elsewhere_each_time() {
        let all: Vec<Vec<u64>> = (0..200).map(|_| serials().unwrap().collect()).collect();
        for block in &all {
            assert!(block.len() >= 32, "as many as an exchange has");
            assert!(block.windows(2).all(|pair| pair[0] < pair[1]));
            assert!(block[0] > 0 && i64::try_from(block[block.len() - 1]).is_ok());
        }
        let mut firsts: Vec<u64> = all.iter().map(|block| block[0] >> 32).collect();
        firsts.sort_unstable();
        firsts.dedup();
        assert!(firsts.len() > 195, "they are random");
    }

    #[test]
    fn ids_ascend_with_time_and_are_not_guessed() {
        let (one, other) = (id("i").unwrap(), id("i").unwrap());
        assert!(one[..14] <= other[..14], "{one} {other}");
        assert_eq!((one.len(), other.len()), (34, 34));
        assert_ne!(one[14..], other[14..]);
    }
}
