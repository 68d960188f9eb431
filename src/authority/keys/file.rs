//! CA keys in files of the data directory: `ssh_user_ca`, `ssh_host_ca` and `statement_key` in
//! OpenSSH's format, `tls_ca.key` in PKCS#8, `tls_ca.crt` beside it. All
//! private ones 0600, in a folder that is 0700.

use std::path::Path;
use std::sync::OnceLock;

use rcgen::{BasicConstraints, DnType, IsCa, Issuer, KeyPair as TlsKey, KeyUsagePurpose};
use ring::signature::Ed25519KeyPair;
use rustls::pki_types::CertificateDer;
use ssh_key::private::{Ed25519Keypair, KeypairData};
use ssh_key::{LineEnding, PrivateKey};
use zeroize::Zeroizing;

use super::{CaKeys, SshCa, TlsCa, TlsCaCertificate};
use crate::authority::validity::Validity;
use crate::error::{Context as _, Error, Kind, Result};
use crate::folder::read::{self, Limit, Trust};
use crate::folder::trust::Owner;
use crate::folder::{Folder, PRIVATE_FILE, replace};
use crate::pem;
use crate::random;

const SSH_USER: &str = "ssh_user_ca";
const SSH_HOST: &str = "ssh_host_ca";
const STATEMENT: &str = "statement_key";
const TLS_KEY: &str = "tls_ca.key";
const TLS_CERTIFICATE: &str = "tls_ca.crt";
/// How long the TLS CA's own certificate is valid, in days.
const TLS_CA_DAYS: i64 = 3650;

/// Makes every CA key of a new authority in `dir`, which must not exist yet.
///
/// # Errors
/// `Kind::Usage` where it exists or cannot be written.
pub fn create(dir: &Path, cluster: &str, now: i64) -> Result<()> {
    replace::make_private(dir)?;
    for name in [SSH_USER, SSH_HOST, STATEMENT] {
        write(&dir.join(name), new_ed25519(name, cluster)?.as_bytes())?;
    }
    let key = TlsKey::generate().context(Kind::Internal, "new TLS CA key")?;
    let until = now.saturating_add(TLS_CA_DAYS * 86_400);
    let mut params = super::params(random::serial()?, now, until)?;
    params.distinguished_name.push(DnType::CommonName, format!("{cluster} machine-id CA"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key).context(Kind::Internal, "new TLS CA")?;
    write(&dir.join(TLS_KEY), Zeroizing::new(key.serialize_pem()).as_bytes())?;
    write(&dir.join(TLS_CERTIFICATE), certificate.pem().as_bytes())?;
    replace::sync(dir).context(Kind::Usage, format!("cannot sync {}", dir.display()))
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    replace::write_new(path, bytes, PRIVATE_FILE)
}

/// A new key in OpenSSH's format.
fn new_ed25519(name: &str, cluster: &str) -> Result<Zeroizing<String>> {
    let mut seed = Zeroizing::new([0; 32]);
    random::fill(&mut *seed)?;
    let pair = KeypairData::from(Ed25519Keypair::from_seed(&seed));
    PrivateKey::new(pair, format!("{name}@{cluster}"))
        .and_then(|key| key.to_openssh(LineEnding::LF))
        .context(Kind::Internal, format!("new {name}"))
}

/// Makes the statement key in `dir`, where these keys are from before there was one; whether that was so.
///
/// # Errors
/// `Kind::Usage` where it cannot be written.
pub fn add_statement_key(keys: &CaKeys, dir: &Path, cluster: &str, owner: Owner) -> Result<bool> {
    let is_missing = keys.statement.get().is_none();
    if is_missing {
        let text = new_ed25519(STATEMENT, cluster)?;
        Folder::replace_inside(dir, STATEMENT, text.as_bytes())
            .context(Kind::Usage, format!("cannot write {}", dir.join(STATEMENT).display()))?;
        // As the next start finds it.
        let _ = keys.statement.set(load_ssh(&dir.join(STATEMENT), owner)?);
    }
    Ok(is_missing)
}

/// Reads every CA key from `dir`.
///
/// # Errors
/// `Kind::Usage` where one is missing, unreadable, of another kind, another user's, or open to others.
pub fn load(dir: &Path, owner: Owner) -> Result<CaKeys> {
    let path = dir.join(STATEMENT);
    let statement = path.exists().then(|| load_ssh(&path, owner)).transpose()?;
    Ok(CaKeys {
        ssh_user: load_ssh(&dir.join(SSH_USER), owner)?,
        ssh_host: load_ssh(&dir.join(SSH_HOST), owner)?,
        tls: load_tls(dir, owner)?,
        statement: statement.map_or_else(OnceLock::new, OnceLock::from),
    })
}

fn load_ssh(path: &Path, owner: Owner) -> Result<SshCa> {
    let cannot = format!("cannot use the CA key {}", path.display());
    let text = read::text(path, Trust::Secret(owner), Limit::FILE)?;
    let key = PrivateKey::from_openssh(text.as_bytes()).context(Kind::Usage, cannot.clone())?;
    let KeypairData::Ed25519(pair) = key.key_data() else {
        return Err(Error::usage(format!("{cannot}: it is not an Ed25519 key without a passphrase"))
            .hint("where it has one, `ssh-keygen -p -f FILE` takes it away"));
    };
    let pair = Ed25519KeyPair::from_seed_and_public_key(&pair.private.to_bytes(), &pair.public.0)
        .map_err(|_| Error::usage(format!("{cannot}: private and public key do not belong together")))?;
    let line = key.public_key().to_openssh().context(Kind::Usage, cannot)?;
    Ok(SshCa { pair, public: key.public_key().clone(), line })
}

fn load_tls(dir: &Path, owner: Owner) -> Result<TlsCa> {
    let (key_path, path) = (dir.join(TLS_KEY), dir.join(TLS_CERTIFICATE));
    let cannot = format!("cannot use the CA key {}", key_path.display());
    let text = read::text(&key_path, Trust::Secret(owner), Limit::FILE)?;
    let key = pem::private_keys(&text).map_err(|error| error.context(cannot.clone()))?.into_iter().next();
    let key = key.ok_or_else(|| Error::usage(cannot.clone()))?;
    let key = TlsKey::try_from(&key).context(Kind::Usage, cannot.clone())?;
    let certificate = read_tls(&path, owner)?;
    let der = CertificateDer::from(certificate.der.clone());
    let (_, parsed) = x509_parser::parse_x509_certificate(&der).context(Kind::Usage, cannot.clone())?;
    if parsed.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
        return Err(Error::usage(format!("{cannot}: {} is of another key", path.display())));
    }
    let issuer = Issuer::from_ca_cert_der(&der, key).context(Kind::Usage, cannot)?;
    Ok(TlsCa { issuer, certificate })
}

/// The TLS CA's certificate in `dir`, without its key; none where it is not there.
///
/// # Errors
/// `Kind::Usage` where it cannot be read, or is none.
pub fn tls_certificate(dir: &Path, owner: Owner) -> Result<Option<TlsCaCertificate>> {
    let path = dir.join(TLS_CERTIFICATE);
    path.exists().then(|| read_tls(&path, owner)).transpose()
}

fn read_tls(path: &Path, owner: Owner) -> Result<TlsCaCertificate> {
    let text = read::text(path, Trust::Operators(owner), Limit::FILE)?;
    let unfit = |why: &str| Error::usage(format!("{} {why}", path.display()));
    let der = pem::decode_all(&text, "CERTIFICATE").and_then(|all| all.into_iter().next());
    let der = der.ok_or_else(|| unfit("is not a certificate"))?.to_vec();
    let validity = Validity::of(&der).map_err(|why| unfit(&why))?;
    Ok(TlsCaCertificate { der, pem: text.trim_end().to_owned() + "\n", validity })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_is_created_loads_and_is_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let keys = dir.path().join("keys");
        create(&keys, "id.test", 1_800_000_000).unwrap();
        let loaded = load(&keys, Owner::me()).unwrap();
        assert!(loaded.trust().ssh_user_cas[0].ends_with("ssh_user_ca@id.test"));
        assert_ne!(loaded.trust().ssh_user_cas, loaded.trust().ssh_host_cas);
        assert!(!format!("{loaded:?}").contains("PRIVATE"));
        assert_eq!(create(&keys, "id.test", 0).unwrap_err().kind(), Kind::Usage);
        for name in [SSH_USER, SSH_HOST, STATEMENT, TLS_KEY] {
            assert_eq!(fs::metadata(keys.join(name)).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_statement_key_is_added_once_and_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let keys = dir.path().join("keys");
        create(&keys, "id.test", 1_800_000_000).unwrap();
        fs::remove_file(keys.join(STATEMENT)).unwrap();
        let before = load(&keys, Owner::me()).unwrap();
        assert_eq!((before.statement_key(), before.names().unwrap().len()), (None, 3));
        assert!(add_statement_key(&before, &keys, "id.test", Owner::me()).unwrap());
        let key = before.statement_key().unwrap();
        assert_eq!(load(&keys, Owner::me()).unwrap().statement_key().as_ref(), Some(&key));
        assert!(!add_statement_key(&before, &keys, "id.test", Owner::me()).unwrap());
        assert_eq!(fs::metadata(keys.join(STATEMENT)).unwrap().permissions().mode() & 0o777, 0o600);
        let names = before.names().unwrap();
        assert!(names.is_sorted() && names.contains(&format!("statement {key}")), "{names:?}");
    }

    #[test]
    fn keys_that_others_may_read_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let keys = dir.path().join("keys");
        create(&keys, "id.test", 1_800_000_000).unwrap();
        fs::set_permissions(keys.join(SSH_USER), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(load(&keys, Owner::me()).unwrap_err().to_string().contains("others than its owner"));
    }
}
