//! The two messages of the SSH agent protocol (draft-ietf-sshm-ssh-agent) that
//! are answered; every other one fails.

use crate::rfc4251::{Decoder, put_string};

const FAILURE: u8 = 5;
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;

/// A message to the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request<'b> {
    /// Which keys are there?
    List,
    /// Sign this.
    Sign {
        /// The blob of a key, or of a certificate for it.
        key: &'b [u8],
        /// What is to be signed.
        data: &'b [u8],
    },
    /// Anything else: adding, removing, locking, extensions, garbage.
    Other,
}

impl<'b> Request<'b> {
    /// Reads a message without its length.
    pub(super) fn parse(message: &'b [u8]) -> Self {
        Self::read(Decoder::new(message)).unwrap_or(Self::Other)
    }

    fn read(mut message: Decoder<'b>) -> Result<Self, &'static str> {
        let request = match message.u8()? {
            REQUEST_IDENTITIES => Self::List,
            SIGN_REQUEST => {
                let (key, data) = (message.string()?, message.string()?);
                // They choose the hash of an RSA signature, and mean nothing for Ed25519.
                let _flags = message.u32()?;
                Self::Sign { key, data }
            }
            _ => Self::Other,
        };
        Ok(if message.is_empty() { request } else { Self::Other })
    }
}

/// The answer to what is not done.
pub(super) fn failure() -> Vec<u8> {
    framed(vec![FAILURE])
}

/// The answer to [`Request::List`]: blobs and comments.
pub(super) fn identities(keys: &[(&[u8], &str)]) -> Vec<u8> {
    let mut answer = vec![IDENTITIES_ANSWER];
    answer.extend(u32::try_from(keys.len()).unwrap_or(u32::MAX).to_be_bytes());
    for (blob, comment) in keys {
        put_string(&mut answer, blob);
        put_string(&mut answer, comment.as_bytes());
    }
    framed(answer)
}

/// The answer to [`Request::Sign`]: a signature with its type before it (RFC 4253, section 6.6).
pub(super) fn signed(signature: &[u8]) -> Vec<u8> {
    let mut answer = vec![SIGN_RESPONSE];
    put_string(&mut answer, signature);
    framed(answer)
}

fn framed(message: Vec<u8>) -> Vec<u8> {
    let mut framed = Vec::with_capacity(message.len() + 4);
    put_string(&mut framed, &message);
    framed
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sign_request(key: &[u8], data: &[u8]) -> Vec<u8> {
        let mut message = vec![SIGN_REQUEST];
        put_string(&mut message, key);
        put_string(&mut message, data);
        message.extend([0; 4]);
        message
    }

    #[test]
    fn two_messages_are_known() {
        assert_eq!(Request::parse(&[11]), Request::List);
        let message = sign_request(b"key", b"data");
        assert_eq!(Request::parse(&message), Request::Sign { key: b"key", data: b"data" });
        for length in 0..message.len() {
            assert_eq!(Request::parse(&message[..length]), Request::Other, "{length}");
        }
        let longer = [message.as_slice(), &[0]].concat();
        for other in [longer.as_slice(), &[11, 0], &[], &[17], &[18], &[19], &[25], &[27], &[255]] {
            assert_eq!(Request::parse(other), Request::Other, "{other:?}");
        }
        assert_eq!(failure(), [0, 0, 0, 1, 5]);
    }

    proptest! {
        #[test]
        fn garbage_is_other(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            match Request::parse(&bytes) {
                Request::List => prop_assert_eq!(bytes, [11]),
                // Only what reads back whole is taken.
                Request::Sign { key, data } => {
                    let again = sign_request(key, data);
                    prop_assert_eq!(&bytes[..bytes.len() - 4], &again[..again.len() - 4]);
                }
                Request::Other => {}
            }
        }
    }
}
