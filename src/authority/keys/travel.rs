//! A private key on its way through the store to the other authorities that share it: sealed under a key that is derived from
//! `store.key`, which their folders have and the database lacks.

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::random;

/// What the key is derived for.
pub const SEALS_CA_KEYS: &str = "machine-id sealed CA keys 1";

/// The key that private keys are sealed with.
pub type SealingKey = Zeroizing<[u8; 32]>;

/// Seals a private key; `whose` is the cluster with the key's name, and is told with it.
pub(super) fn seal(key: &SealingKey, whose: &str, private: &str) -> Result<Vec<u8>> {
    let nonce: [u8; NONCE_LEN] = random::bytes()?;
    let mut sealed = Zeroizing::new(private.as_bytes().to_vec());
    let tag = cipher(key)?
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(whose), &mut sealed)
        .map_err(|_| Error::internal("sealing a CA key"))?;
    Ok([nonce.as_slice(), &sealed, tag.as_ref()].concat())
}

/// The private key, where that one sealed it for that name.
pub(super) fn unseal(key: &SealingKey, whose: &str, sealed: &[u8]) -> Result<Zeroizing<String>> {
    let other = || Error::usage("it was sealed with another `store.key`, or for another cluster");
    let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>().ok_or_else(other)?;
    let mut opened = Zeroizing::new(sealed.to_vec());
    let nonce = Nonce::assume_unique_for_key(*nonce);
    let private = cipher(key)?.open_in_place(nonce, Aad::from(whose), &mut opened).map_err(|_| other())?;
    std::str::from_utf8(private).map(|text| Zeroizing::new(text.to_owned())).map_err(|_| other())
}

/// Whose a sealed key is.
pub(super) fn sealed_for(cluster: &str, name: &str) -> String {
    format!("{cluster} {name}")
}

fn cipher(key: &SealingKey) -> Result<LessSafeKey> {
    let key = UnboundKey::new(&CHACHA20_POLY1305, &**key);
    key.map(LessSafeKey::new).map_err(|_| Error::internal("sealing a CA key"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_is_for_that_name_and_key_alone() {
        let (key, other) = (Zeroizing::new([1; 32]), Zeroizing::new([2; 32]));
        let sealed = seal(&key, "id.test tls-1", "private").unwrap();
        assert_ne!(sealed, seal(&key, "id.test tls-1", "private").unwrap());
        assert!(!sealed.windows(7).any(|part| part == b"private"));
        assert_eq!(*unseal(&key, "id.test tls-1", &sealed).unwrap(), "private");
        for (key, whose) in [(&other, "id.test tls-1"), (&key, "id.test tls-2")] {
            assert!(unseal(key, whose, &sealed).is_err());
        }
        for at in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1;
            assert!(unseal(&key, "id.test tls-1", &damaged).is_err());
        }
        assert!(unseal(&key, "id.test tls-1", &sealed[..9]).is_err());
    }
}
