//! CA keys in files of a folder: `ssh_user_ca`, `ssh_host_ca` and `statement_key` in OpenSSH's format, `tls_ca.key` in
//! PKCS#8. All 0600, in a folder that is 0700.

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
use crate::error::{Context as _, Error, Kind, Result};
use crate::folder::Folder;
use crate::folder::read::{self, Limit, Trust};
use crate::folder::trust::Owner;
use crate::pem;
use crate::random;

/// What the keys of `init` are called here.
const FILES: [(&str, &str); 4] = [
    ("ssh-user", "ssh_user_ca"),
    ("ssh-host", "ssh_host_ca"),
    ("tls", "tls_ca.key"),
    ("statement", "statement_key"),
];

/// The keys in a folder.
#[derive(Clone, Debug)]
pub(super) struct FileStore {
    folder: PathBuf,
    owner: Owner,
}

impl FileStore {
    /// That folder, of that owner.
    pub(super) fn new(folder: &Path, owner: Owner) -> Self {
        Self { folder: folder.to_owned(), owner }
    }

    fn file<'n>(&self, name: &'n str) -> &'n str {
        FILES.iter().find(|(known, _)| *known == name).map_or(name, |(_, file)| *file)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(self.file(name))
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
        let key = FileKey::read(&text).map_err(|error| error.context(cannot))?;
        Ok(Some(Arc::new(key)))
    }

    fn create(&self, name: &str, algorithm: Algorithm) -> Result<Arc<dyn PrivateKey>> {
        let is_tls = name == "tls" || name.starts_with("tls-");
        let text = if is_tls { new_pkcs8(algorithm)? } else { new_openssh(algorithm, name)? };
        self.put(name, &text)?;
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
        read::text(&self.path(name), Trust::Secret(self.owner), Limit::FILE).map(Some)
    }

    fn put(&self, name: &str, key: &str) -> Result<()> {
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

    /// Reads OpenSSH's format or PKCS#8, without a passphrase.
    fn read(text: &str) -> Result<Self> {
        if text.contains("-----BEGIN OPENSSH PRIVATE KEY-----") {
            Self::openssh(text)
        } else {
            Self::pkcs8(text)
        }
    }

    fn openssh(text: &str) -> Result<Self> {
        let key = ssh_key::PrivateKey::from_openssh(text.as_bytes()).context(Kind::Usage, "OpenSSH")?;
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
        let key = key.ok_or_else(|| Error::usage("there is no private key"))?;
        let unfit = || {
            Error::usage("it is not a key of Ed25519, P-256, P-384, or RSA of 3072 bits or more, in PKCS#8")
        };
        let PrivateKeyDer::Pkcs8(der) = &key else { return Err(unfit()) };
        let der = der.secret_pkcs8_der();
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

/// A new key in OpenSSH's format.
fn new_openssh(algorithm: Algorithm, comment: &str) -> Result<Zeroizing<String>> {
    let failed = "cannot make a CA key";
    let pair = match algorithm {
        Algorithm::Ed25519 => {
            let mut seed = Zeroizing::new([0; 32]);
            random::fill(&mut *seed)?;
            KeypairData::from(Ed25519Keypair::from_seed(&seed))
        }
        _ => return Err(Error::usage("CA keys of SSH in files are of Ed25519")),
    };
    ssh_key::PrivateKey::new(pair, comment)
        .and_then(|key| key.to_openssh(LineEnding::LF))
        .context(Kind::Internal, failed)
}

/// A new key in PKCS#8, in PEM.
fn new_pkcs8(algorithm: Algorithm) -> Result<Zeroizing<String>> {
    let curve = match algorithm {
        Algorithm::Ed25519 => &rcgen::PKCS_ED25519,
        Algorithm::EcdsaP256 => &rcgen::PKCS_ECDSA_P256_SHA256,
        Algorithm::EcdsaP384 => &rcgen::PKCS_ECDSA_P384_SHA384,
        Algorithm::Rsa3072 => {
            return Err(Error::usage("a key of RSA is not made here").hint(
                "make it by `openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:3072`, and put it there",
            ));
        }
    };
    let key = rcgen::KeyPair::generate_for(curve).context(Kind::Internal, "cannot make a CA key")?;
    Ok(Zeroizing::new(key.serialize_pem()))
}
