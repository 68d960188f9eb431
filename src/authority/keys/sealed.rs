//! Keys in files that are sealed with a passphrase: PKCS#8 (RFC 5958) under PBES2 (RFC 8018), with PBKDF2 and AES-256, which
//! `openssl pkey` reads, in FIPS mode too.
//!
//! All that one authority makes are sealed under one salt, so that a process stretches the passphrase once: dear for
//! whoever guesses it, and not for each key again for who knows it.

use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};

use aes::Aes256;
use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockDecryptMut as _, BlockEncryptMut as _, KeyIvInit as _};
use der::{Decode as _, Encode as _};
use pkcs8::EncryptedPrivateKeyInfo;
use pkcs8::pkcs5::EncryptionScheme as Scheme;
use pkcs8::pkcs5::pbes2::{EncryptionScheme as Cipher, Kdf, Parameters, Pbkdf2Params, Pbkdf2Prf};
use ring::pbkdf2;
use zeroize::Zeroizing;

use crate::error::{Context as _, Error, Kind, Result};
use crate::pem;
use crate::random;
use crate::secret::Secret;

/// What a sealed key is called in PEM.
const LABEL: &str = "ENCRYPTED PRIVATE KEY";
/// How often the passphrase is hashed, as OWASP advises for PBKDF2 with HMAC-SHA-256.
const ROUNDS: NonZeroU32 = NonZeroU32::MIN.saturating_add(600_000 - 1);

/// Whether a key of that text is sealed.
pub fn is_sealed(text: &str) -> bool {
    text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----")
}

/// A passphrase, and what was last made of it.
#[derive(Debug)]
pub(super) struct Seal {
    passphrase: Secret,
    stretched: Mutex<Option<Stretched>>,
}

/// The key that a passphrase becomes with that salt and after so many rounds.
struct Stretched {
    salt: Vec<u8>,
    rounds: NonZeroU32,
    key: Zeroizing<[u8; 32]>,
}

impl std::fmt::Debug for Stretched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stretched").finish_non_exhaustive()
    }
}

impl Seal {
    pub(super) fn new(passphrase: Secret) -> Self {
        Self { passphrase, stretched: Mutex::default() }
    }

    /// The key for a salt and rounds, or for those of before, unless those are less than is due.
    fn stretch(
        &self,
        wanted: Option<(&[u8], NonZeroU32)>,
    ) -> Result<(Vec<u8>, NonZeroU32, Zeroizing<[u8; 32]>)> {
        let mut last = self.stretched.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |known: &Stretched| match wanted {
            Some(wanted) => wanted == (&*known.salt, known.rounds),
            None => known.rounds >= ROUNDS,
        };
        let known = match last.take().filter(fits) {
            Some(known) => known,
            None => {
                let salt = random::bytes::<16>()?;
                let (salt, rounds) = wanted.unwrap_or((&salt, ROUNDS));
                let mut key = Zeroizing::new([0; 32]);
                let passphrase = self.passphrase.expose().as_bytes();
                pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, salt, passphrase, &mut *key);
                Stretched { salt: salt.to_vec(), rounds, key }
            }
        };
        let Stretched { salt, rounds, key } = last.insert(known);
        Ok((salt.clone(), *rounds, key.clone()))
    }

    /// Seals a key of PKCS#8 in DER; in PEM.
    pub(super) fn close(&self, pkcs8: &[u8]) -> Result<Zeroizing<String>> {
        let failed = "cannot seal a CA key";
        let (salt, rounds, key) = self.stretch(None)?;
        let iv = random::bytes::<16>()?;
        let encryptor = cbc::Encryptor::<Aes256>::new((&*key).into(), (&iv).into());
        let encrypted_data = &encryptor.encrypt_padded_vec_mut::<Pkcs7>(pkcs8);
        let kdf = Pbkdf2Params::hmac_with_sha256(rounds.get(), &salt);
        let kdf = Kdf::Pbkdf2(kdf.map_err(|_| Error::internal(failed))?);
        let parameters = Parameters { kdf, encryption: Cipher::Aes256Cbc { iv: &iv } };
        let encryption_algorithm = Scheme::Pbes2(parameters);
        let sealed = EncryptedPrivateKeyInfo { encryption_algorithm, encrypted_data };
        Ok(pem::encode(LABEL, &sealed.to_der().context(Kind::Internal, failed)?))
    }

    /// The key that such a text holds, as PKCS#8 in DER.
    ///
    /// # Errors
    /// `Kind::Usage` where it is sealed in another way, or with another passphrase.
    pub(super) fn open(&self, text: &str) -> Result<Zeroizing<Vec<u8>>> {
        let der = pem::decode_all(text, LABEL).and_then(|mut all| all.pop());
        let der = der.ok_or_else(|| Error::usage("its PEM is broken"))?;
        let sealed = EncryptedPrivateKeyInfo::from_der(&der).ok();
        let of = sealed
            .as_ref()
            .and_then(|sealed| Some((parameters(&sealed.encryption_algorithm)?, sealed.encrypted_data)));
        let ((salt, rounds, iv), data) = of.ok_or_else(|| {
            Error::usage("it is not sealed by PBKDF2 with HMAC-SHA-256 and AES-256-CBC").hint(format!(
                "`openssl pkcs8 -topk8 -v2 aes-256-cbc -v2prf hmacWithSHA256 -iter {ROUNDS}` seals a key so"
            ))
        })?;
        let (.., key) = self.stretch(Some((salt, rounds)))?;
        let decryptor = cbc::Decryptor::<Aes256>::new((&*key).into(), iv.into());
        let opened = decryptor.decrypt_padded_vec_mut::<Pkcs7>(data).map(Zeroizing::new).ok();
        // What another passphrase makes of it has the padding once in 256 times; it is no sequence of its length then.
        let is_whole = |key: &Zeroizing<Vec<u8>>| der::AnyRef::from_der(key).is_ok();
        opened.filter(is_whole).ok_or_else(|| {
            Error::usage("the passphrase is not the one that it was sealed with")
                .hint("`openssl pkey -noout -in FILE -passin file:PASSPHRASE_FILE` tries one")
        })
    }
}

/// The salt, the rounds and the start of what is sealed as here.
fn parameters<'d>(scheme: &Scheme<'d>) -> Option<(&'d [u8], NonZeroU32, &'d [u8; 16])> {
    let Scheme::Pbes2(Parameters { kdf: Kdf::Pbkdf2(kdf), encryption: Cipher::Aes256Cbc { iv } }) = scheme
    else {
        return None;
    };
    let rounds = NonZeroU32::new(kdf.iteration_count)?;
    (kdf.prf == Pbkdf2Prf::HmacWithSha256 && matches!(kdf.key_length, None | Some(32)))
        .then_some((kdf.salt, rounds, *iv))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn seal(passphrase: &str) -> Seal {
        Seal::new(Secret::new(passphrase.to_owned()))
    }

    /// A key that `openssl` has made and sealed so.
    fn sealed_by_openssl(how: &str) -> String {
        let script = format!(
            "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 | \
             openssl pkcs8 -topk8 -passout pass:good {how}"
        );
        let done = Command::new("sh").args(["-c", &script]).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    }

    #[test]
    fn one_stretched_passphrase_opens_all_that_it_has_sealed() {
        let seal = seal("good");
        let texts = [b"one".as_slice(), b"another"].map(|key| {
            // A string in DER, in place of a key.
            let key = [&[4, u8::try_from(key.len()).unwrap()], key].concat();
            (seal.close(&key).unwrap(), key)
        });
        let salts = texts.each_ref().map(|(text, key)| {
            assert_eq!(&*seal.open(text).unwrap(), key);
            let der = pem::decode_all(text, LABEL).unwrap().pop().unwrap();
            let read = EncryptedPrivateKeyInfo::from_der(&der).unwrap();
            let (salt, rounds, iv) = parameters(&read.encryption_algorithm).unwrap();
            assert_eq!(rounds.get(), 600_000);
            (salt.to_vec(), *iv)
        });
        assert!(salts[0].0 == salts[1].0 && salts[0].1 != salts[1].1, "one salt, and never the same start");
        assert!(!format!("{seal:?}").contains("good"));
    }

    #[test]
    fn what_openssl_seals_is_opened_and_what_it_seals_otherwise_is_named() {
        let like_ours = "-v2 aes-256-cbc -v2prf hmacWithSHA256 -iter 1000";
        let text = sealed_by_openssl(like_ours);
        assert!(is_sealed(&text));
        let weak = seal("good");
        let key = weak.open(&text).unwrap();
        assert!(key.len() > 100);
        let again = pem::decode_all(&weak.close(&key).unwrap(), LABEL).unwrap().pop().unwrap();
        let again = EncryptedPrivateKeyInfo::from_der(&again).unwrap();
        let (_, rounds, _) = parameters(&again.encryption_algorithm).unwrap();
        assert_eq!(rounds, ROUNDS, "not as few as another's");
        for number in 0..600 {
            let refused = seal(&number.to_string()).open(&text).unwrap_err();
            assert_eq!(refused.to_string(), "the passphrase is not the one that it was sealed with");
        }
        for how in ["-scrypt", "-v2 aes-256-cbc -v2prf hmacWithSHA1", "-v2 aes-128-cbc", "-v2 des3"] {
            let refused = seal("good").open(&sealed_by_openssl(how)).unwrap_err();
            assert!(refused.to_string().starts_with("it is not sealed by PBKDF2"), "{how}: {refused}");
            assert!(refused.hints()[0].contains("-iter 600000"), "{:?}", refused.hints());
        }
        let cut = text.get(..text.len() / 2).unwrap();
        assert_eq!(seal("good").open(cut).unwrap_err().to_string(), "its PEM is broken");
    }
}
