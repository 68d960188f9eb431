//! The encodings of SSH (RFC 4251, section 5), read and written by hand where
//! no type of `ssh-key` covers a message.

/// What a message that ends too early is.
pub const CUT: &str = "it breaks off";

/// Takes values off the front of bytes; each is an error, [`CUT`], where too few are left.
#[derive(Clone, Copy, Debug)]
pub struct Decoder<'b>(&'b [u8]);

impl<'b> Decoder<'b> {
    /// Over these bytes.
    pub fn new(bytes: &'b [u8]) -> Self {
        Self(bytes)
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// So many bytes.
    pub fn take(&mut self, length: usize) -> Result<&'b [u8], &'static str> {
        let (head, tail) = self.0.split_at_checked(length).ok_or(CUT)?;
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        self.take(N)?.try_into().map_err(|_| CUT)
    }

    /// A `byte`.
    pub fn u8(&mut self) -> Result<u8, &'static str> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    /// A `uint32`.
    pub fn u32(&mut self) -> Result<u32, &'static str> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// A `uint64`.
    pub fn u64(&mut self) -> Result<u64, &'static str> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// A `string`.
    pub fn string(&mut self) -> Result<&'b [u8], &'static str> {
        let length = usize::try_from(self.u32()?).map_err(|_| CUT)?;
        self.take(length)
    }
}

/// Appends a `string`.
pub fn put_string(out: &mut Vec<u8>, bytes: &[u8]) {
    // Nothing here comes near four gigabytes.
    out.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut bytes = vec![7];
        put_string(&mut bytes, b"abc");
        let mut reader = Decoder::new(&bytes);
        assert_eq!((reader.u8(), reader.string()), (Ok(7), Ok(b"abc".as_slice())));
        assert!(reader.is_empty() && reader.u8() == Err(CUT) && reader.u64() == Err(CUT));
        assert_eq!(Decoder::new(&[0xff; 8]).string(), Err(CUT));
    }
}
