//! CA keys in files of a folder: `ssh_user_ca`, `ssh_host_ca` and `statement_key` in OpenSSH's format where they are of
//! Ed25519, the others in PKCS#8; all in PKCS#8 where they are sealed with a passphrase. All 0600, in a folder that is 0700.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ring::rand::SystemRandom;
use ring::signature::{
    self as algorithms, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RsaKeyPair,
};
use rustls::pki_types::PrivateKeyDer;
use ssh_key::LineEnding;
use ssh_key::private::{EcdsaKeypair, Ed25519Keypair, KeypairData};
use zeroize::Zeroizing;

use super::private::{Algorithm, KeyStore, PrivateKey, Public};
use super::sealed::{Seal, is_sealed};
use crate::error::{Context as _, Error, Kind, Result};
use crate::folder::Folder;
use crate::folder::read::{self, Limit, Trust};
use crate::folder::trust::Owner;
use crate::openssh;
use crate::pem;
use crate::random;
use crate::secret::Secret;

/// What the keys of `init` are called here.
const FILES: [(&str, &str); 6] = [
    ("ssh-user", "ssh_user_ca"),
    ("ssh-host", "ssh_host_ca"),
    ("tls", "tls_ca.key"),
    ("statement", "statement_key"),
    ("federation", "federation_key"),
    ("federation-next", "federation_next_key"),
];

/// The keys in a folder.
#[derive(Debug)]
pub(super) struct FileStore {
    folder: PathBuf,
    owner: Owner,
    /// What new keys are sealed with, and those that are.
    seal: Option<Seal>,
}

impl FileStore {
    /// That folder, of that owner; new keys are sealed with the passphrase, where there is one.
    pub(super) fn new(folder: &Path, owner: Owner, passphrase: Option<Secret>) -> Self {
        Self { folder: folder.to_owned(), owner, seal: passphrase.map(Seal::new) }
    }

    fn file<'n>(&self, name: &'n str) -> &'n str {
        FILES.iter().find(|(known, _)| *known == name).map_or(name, |(_, file)| *file)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(self.file(name))
    }

    /// Reads OpenSSH's format without a passphrase, or PKCS#8.
    fn read(&self, text: &str) -> Result<FileKey> {
        match &self.seal {
            Some(seal) if is_sealed(text) => FileKey::of_der(&seal.open(text)?),
            None if is_sealed(text) => Err(Error::usage("it is sealed with a passphrase, and none is given")
                .hint("name its file in authority.yaml, `key_passphrase_file: FILE`, or have systemd hand it over: `LoadCredential=machine-id-keys:FILE`")),
            _ if text.contains("-----BEGIN OPENSSH PRIVATE KEY-----") => FileKey::openssh(text),
            _ => FileKey::pkcs8(text),
        }
    }
}

impl KeyStore for FileStore {
    fn is_local(&self) -> bool {
        true
    }

    fn open(&self, name: &str) -> Result<Option<Arc<dyn PrivateKey>>> {
        let path = self.path(name);
        if !path.exists() {
            return Ok(None);
        }
        let cannot = format!("cannot use the CA key {}", path.display());
        let text = read::text(&path, Trust::Secret(self.owner), Limit::FILE)?;
        let key = self.read(&text).map_err(|error| error.context(cannot))?;
        Ok(Some(Arc::new(key)))
    }

    fn create(&self, name: &str, algorithm: Algorithm) -> Result<Arc<dyn PrivateKey>> {
        let is_tls = name == "tls" || name.starts_with("tls-");
        let text = match (&self.seal, algorithm) {
            (Some(seal), _) => seal.close(&new_pkcs8(algorithm)?)?,
            // Which OpenSSH reads in its own format alone, before 9.6.
            (None, Algorithm::Ed25519) if !is_tls => new_openssh(name)?,
            (None, _) => pem::encode("PRIVATE KEY", &new_pkcs8(algorithm)?),
        };
        self.write(name, &text)?;
        let made = self.open(name)?;
        made.ok_or_else(|| Error::internal(format!("{} is not there", self.place(name))))
    }

    fn destroy(&self, name: &str) -> Result<()> {
        let removed = Folder::remove_inside(&self.folder, self.file(name)).map_err(Error::usage);
        removed.map_err(|why| why.context(format!("cannot remove {}", self.place(name))))
    }

    fn place(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn copy(&self, name: &str) -> Result<Option<Zeroizing<String>>> {
        // Sealed as it lies here: a copy of the store with its key is not to give away what the folder alone does not.
        read::text(&self.path(name), Trust::Secret(self.owner), Limit::FILE).map(Some)
    }

    fn put(&self, name: &str, key: &str) -> Result<()> {
        match &self.seal {
            Some(seal) if !is_sealed(key) => self.write(name, &seal.close(&as_pkcs8(key)?)?),
            _ => self.write(name, key),
        }
    }
}

impl FileStore {
    fn write(&self, name: &str, key: &str) -> Result<()> {
        Folder::add_inside(&self.folder, self.file(name), key.as_bytes())
            .context(Kind::Usage, format!("cannot write {}", self.place(name)))
    }
}

/// A key that was read from a file.
struct FileKey {
    algorithm: Algorithm,
    pair: Pair,
    spki: Vec<u8>,
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    Ecdsa(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

impl fmt::Debug for FileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileKey").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

/// How each curve signs.
const CURVES: [(Algorithm, &EcdsaSigningAlgorithm); 2] = [
    (Algorithm::EcdsaP256, &algorithms::ECDSA_P256_SHA256_ASN1_SIGNING),
    (Algorithm::EcdsaP384, &algorithms::ECDSA_P384_SHA384_ASN1_SIGNING),
];

impl FileKey {
    fn new(algorithm: Algorithm, pair: Pair) -> Self {
        let raw = match &pair {
            Pair::Ed25519(pair) => pair.public_key().as_ref(),
            Pair::Ecdsa(pair) => pair.public_key().as_ref(),
            Pair::Rsa(pair) => pair.public_key().as_ref(),
        };
        let spki = Public::new(algorithm, raw).spki();
        Self { algorithm, pair, spki }
    }

    fn openssh(text: &str) -> Result<Self> {
        let key = openssh::private(text).context(Kind::Usage, "OpenSSH")?;
        let apart = || Error::usage("private and public key do not belong together");
        let ecdsa = |algorithm, private: &[u8], public: &[u8]| {
            let curve = CURVES.iter().find(|(known, _)| *known == algorithm).map(|(_, curve)| *curve);
            let random = SystemRandom::new();
            let pair = curve.and_then(|curve| {
                EcdsaKeyPair::from_private_key_and_public_key(curve, private, public, &random).ok()
            });
            Ok(Self::new(algorithm, Pair::Ecdsa(pair.ok_or_else(apart)?)))
        };
        match key.key_data() {
            KeypairData::Ed25519(pair) => {
                let pair = Ed25519KeyPair::from_seed_and_public_key(&pair.private.to_bytes(), &pair.public.0)
                    .map_err(|_| apart())?;
                Ok(Self::new(Algorithm::Ed25519, Pair::Ed25519(pair)))
            }
            KeypairData::Ecdsa(EcdsaKeypair::NistP256 { public, private }) => {
                ecdsa(Algorithm::EcdsaP256, private.as_slice(), public.as_bytes())
            }
            KeypairData::Ecdsa(EcdsaKeypair::NistP384 { public, private }) => {
                ecdsa(Algorithm::EcdsaP384, private.as_slice(), public.as_bytes())
            }
            _ => Err(Error::usage("it is not a key of Ed25519, P-256 or P-384 without a passphrase")
                .hint("where it has one, `ssh-keygen -p -f FILE` takes it away")
                .hint("one of RSA is read in PKCS#8: `ssh-keygen -p -m PKCS8 -f FILE`")),
        }
    }

    fn pkcs8(text: &str) -> Result<Self> {
        let key = pem::private_keys(text)?.into_iter().next();
        match key.ok_or_else(|| Error::usage("there is no private key"))? {
            PrivateKeyDer::Pkcs8(der) => Self::of_der(der.secret_pkcs8_der()),
            _ => Err(unfit()),
        }
    }

    /// Reads PKCS#8 in DER.
    fn of_der(der: &[u8]) -> Result<Self> {
        let random = SystemRandom::new();
        for (algorithm, curve) in CURVES {
            if let Ok(pair) = EcdsaKeyPair::from_pkcs8(curve, der, &random) {
                return Ok(Self::new(algorithm, Pair::Ecdsa(pair)));
            }
        }
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
            return Ok(Self::new(Algorithm::Ed25519, Pair::Ed25519(pair)));
        }
        let pair = RsaKeyPair::from_pkcs8(der).map_err(|_| unfit())?;
        if pair.public().modulus_len() < 384 {
            return Err(unfit());
        }
        Ok(Self::new(Algorithm::Rsa3072, Pair::Rsa(pair)))
    }
}

impl PrivateKey for FileKey {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    fn spki(&self) -> &[u8] {
        &self.spki
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
        let random = SystemRandom::new();
        let failed = || Error::internal("a CA key did not sign");
        match &self.pair {
            Pair::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            Pair::Ecdsa(pair) => {
                pair.sign(&random, message).map(|signed| signed.as_ref().to_vec()).map_err(|_| failed())
            }
            Pair::Rsa(pair) => {
                let mut signed = vec![0; pair.public().modulus_len()];
                pair.sign(&algorithms::RSA_PKCS1_SHA256, &random, message, &mut signed)
                    .map_err(|_| failed())?;
                Ok(signed)
            }
        }
    }
}

fn unfit() -> Error {
    Error::usage("it is not a key of Ed25519, P-256, P-384, or RSA of 3072 to 4096 bits, in PKCS#8")
        .hint("`openssl pkcs8 -topk8 -nocrypt -in FILE -out NEW` turns one of another form into PKCS#8")
}

/// The seed of a new key of Ed25519.
fn new_seed() -> Result<Zeroizing<[u8; 32]>> {
    let mut seed = Zeroizing::new([0; 32]);
    random::fill(&mut *seed)?;
    Ok(seed)
}

/// A new key of Ed25519 in OpenSSH's format.
fn new_openssh(comment: &str) -> Result<Zeroizing<String>> {
    let pair = KeypairData::from(Ed25519Keypair::from_seed(&*new_seed()?));
    ssh_key::PrivateKey::new(pair, comment)
        .and_then(|key| key.to_openssh(LineEnding::LF))
        .context(Kind::Internal, CANNOT)
}

/// What a failure to make a key was.
const CANNOT: &str = "cannot make a CA key";
/// What stands before the seed of Ed25519 in PKCS#8 (RFC 8410, section 7): without the public key, as every OpenSSL takes it.
const ED25519: [u8; 16] = [0x30, 46, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 34, 4, 32];

/// A key of Ed25519 in PKCS#8, in DER.
fn ed25519_pkcs8(seed: &[u8; 32]) -> Zeroizing<Vec<u8>> {
    Zeroizing::new([&ED25519[..], seed].concat())
}

/// A key as one of these stores has made it, in PKCS#8, in DER.
fn as_pkcs8(key: &str) -> Result<Zeroizing<Vec<u8>>> {
    if let Some(pkcs8) = pem::decode_all(key, "PRIVATE KEY").and_then(|mut all| all.pop()) {
        return Ok(pkcs8);
    }
    let read = openssh::private(key).ok();
    let pair = read.as_ref().and_then(|key| key.key_data().ed25519());
    Ok(ed25519_pkcs8(&Zeroizing::new(pair.ok_or_else(unfit)?.private.to_bytes())))
}

/// A new key in PKCS#8, in DER.
fn new_pkcs8(algorithm: Algorithm) -> Result<Zeroizing<Vec<u8>>> {
    if algorithm == Algorithm::Ed25519 {
        return Ok(ed25519_pkcs8(&*new_seed()?));
    }
    let curve = CURVES.iter().find(|(known, _)| *known == algorithm).map(|(_, curve)| *curve);
    let curve = curve.ok_or_else(|| {
        Error::usage("a key of RSA is not made here").hint(
            "make it by `openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:3072`, and put it there",
        )
    })?;
    let made = EcdsaKeyPair::generate_pkcs8(curve, &SystemRandom::new());
    Ok(Zeroizing::new(made.context(Kind::Internal, CANNOT)?.as_ref().to_vec()))
}
