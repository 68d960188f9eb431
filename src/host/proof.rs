//! Saying which host this is: an assertion by its host key, or by the key of its TLS certificate, in a header
//! ([`crate::wire::HOST_HEADER`]) of what it asks the authority for; and what of the authority's it has by then.

use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::json;
use ssh_key::{HashAlg, PublicKey};
use zeroize::Zeroizing;

use super::heard::Heard;
use super::lists::{KRL, MAX_FILE};
use super::store::{HOST_CA, MAX_TRUST, TLS_CA, USER_CA};
use crate::assertion::{AssertionKey, LIFETIME};
use crate::error::{Error, Kind, Result};
use crate::folder::Folder;
use crate::folder::read::{self, Limit, Trust};
use crate::krl;
use crate::net::pin_of;
use crate::openssh;
use crate::pem;
use crate::secret::Secret;
use crate::text::shown;
use crate::wire::Problem;

/// A key of this host with its certificate.
pub struct HostProof {
    key: AssertionKey,
    path: PathBuf,
}

impl fmt::Debug for HostProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostProof").field("path", &self.path).finish_non_exhaustive()
    }
}

impl HostProof {
    /// Reads the key in that file, and the certificate beside it: `FILE-cert.pub` where it is an SSH key, and else the file
    /// of its name that ends with `.crt`.
    ///
    /// # Errors
    /// `Kind::Usage` where there is none that can be used.
    pub fn read(path: &Path) -> Result<Self> {
        let key = read::text(path, Trust::Ours, Limit::FILE)?;
        let key = if key.contains("-----BEGIN OPENSSH PRIVATE KEY-----") {
            of_ssh(path, &key)
        } else {
            of_tls(path, &key)
        };
        let key =
            key.map_err(|error| error.context(format!("cannot use the host key {}", path.display())))?;
        Ok(Self { key, path: path.to_owned() })
    }

    /// What the header of a request to that URL says at that time, in seconds since 1970. What follows the path is not in it.
    pub fn header(&self, url: &str, has: &HostHas, now: i64) -> Result<Secret> {
        let audience = url.split(['?', '#']).next().unwrap_or(url);
        let HostHas { list, cas } = has;
        let claims = json!({"aud": audience, "iat": now, "exp": now + LIFETIME, "list": list, "cas": cas});
        self.key.sign(&claims)
    }
}

fn of_ssh(path: &Path, text: &str) -> Result<AssertionKey> {
    let private = openssh::private(text).map_err(|why| Error::usage(why.to_string()))?;
    if private.is_encrypted() {
        return Err(Error::usage("it has a passphrase").hint("sshd's own have none"));
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push("-cert.pub");
    let certificate =
        beside_it(Path::new(&beside), "`machine-id authority sign-host` makes one for FILE.pub")?;
    let parsed = ssh_key::Certificate::from_openssh(certificate.trim())
        .map_err(|why| Error::usage(format!("its certificate cannot be read: {why}")))?;
    if parsed.public_key() != private.public_key().key_data() {
        return Err(Error::usage("the certificate beside it is of another key"));
    }
    AssertionKey::ssh(&private, &certificate).ok_or_else(|| {
        Error::usage(format!("it is of {}", private.algorithm()))
            .hint("name one of Ed25519, of ECDSA with 256 or 384 bits, or of RSA with 2048 to 4096: ssh_host_ed25519_key")
    })
}

fn of_tls(path: &Path, text: &str) -> Result<AssertionKey> {
    let pkcs8 = pem::decode_all(text, "PRIVATE KEY").and_then(|mut keys| keys.pop());
    let pkcs8 = pkcs8.ok_or_else(|| {
        Error::usage("it is no private key in OpenSSH's format, and none in PKCS#8 (`BEGIN PRIVATE KEY`)")
    })?;
    let chain = beside_it(&path.with_extension("crt"), "`machine-id authority sign-server` makes one")?;
    AssertionKey::tls(pkcs8, &chain).ok_or_else(|| Error::usage("its certificate is not PEM"))
}

/// The certificate in that file.
fn beside_it(path: &Path, hint: &'static str) -> Result<Zeroizing<String>> {
    read::text(path, Trust::Anyone, Limit::FILE).map_err(|error| error.hint(hint))
}

/// What this host has of the authority's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostHas {
    /// The number up to which it has both revocation lists.
    pub list: Option<u64>,
    /// Its CAs, as `authority hosts` shows them: `ssh-user SHA256:…`.
    pub cas: Vec<String>,
}

impl HostHas {
    /// By the files in its folder. What cannot be read it has not.
    pub fn of(store: &Folder) -> Self {
        let file = |name: &str| String::from_utf8(store.read(name, MAX_TRUST).ok()??).ok();
        let ssh = |(kind, name): (&str, &str)| -> Vec<String> {
            let named = |line: &str| {
                let key = PublicKey::from_openssh(line).ok()?;
                Some(format!("{kind} {}", key.fingerprint(HashAlg::Sha256)))
            };
            file(name).unwrap_or_default().lines().filter_map(named).collect()
        };
        let tls = file(TLS_CA).and_then(|cas| pem::certificates(&cas).ok()).unwrap_or_default();
        let tls = tls.iter().filter_map(|ca| Some(format!("tls {}", pin_of(ca).ok()?)));
        let in_file = || Some(krl::read(&store.read(KRL, MAX_FILE).ok()??).ok()?.number);
        // A list that lacks nothing of a statement stays as it is, under the number that it has.
        let list = match Heard::read(store) {
            Ok(Some(heard)) => heard.lists.number(),
            Ok(None) => in_file(),
            Err(_) => None,
        };
        Self {
            list,
            cas: [("ssh-user", USER_CA), ("ssh-host", HOST_CA)]
                .into_iter()
                .flat_map(ssh)
                .chain(tls)
                .collect(),
        }
    }
}

/// That the authority does not believe it, by its answer.
pub(super) fn unproven(key: &Path, answer: &[u8]) -> Error {
    let problem = serde_json::from_slice::<Problem>(answer).ok().filter(Problem::is_ours);
    let id = problem.as_ref().and_then(|problem| problem.denial_id.as_deref());
    let id = id.map_or_else(String::new, |id| format!(" ({})", shown(id)));
    let why = problem.as_ref().map_or("it says no", |problem| &problem.title);
    Error::new(Kind::Refused, shown(why) + &id)
        .context(format!("the authority does not take {} for a host's", key.display()))
        .hint("its certificate must be a host's (`sign-host`, `sign-server`, an output `ssh-host`) or a worker's (`--join-method token`) of this authority, neither expired nor revoked; --authority its `public_url`; and this machine's clock right")
        .hint("all is fetched all the same, and this host is not counted")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::join::jwt::Jwt;

    fn keygen(folder: &Path, name: &str, kind: &[&str]) -> PathBuf {
        let path = folder.join(name);
        let made = std::process::Command::new("ssh-keygen")
            .args(["-q", "-N", "", "-f"])
            .arg(&path)
            .args(kind)
            .status();
        assert!(made.unwrap().success());
        path
    }

    fn certify(folder: &Path, key: &Path) {
        let ca = folder.join("ca");
        if !ca.exists() {
            keygen(folder, "ca", &["-t", "ed25519"]);
        }
        let public = key.with_extension("pub");
        let signed = std::process::Command::new("ssh-keygen")
            .args(["-q", "-s"])
            .arg(&ca)
            .args(["-h", "-I", "x", "-n", "web-1", "-V", "+52w"])
            .arg(&public)
            .status();
        assert!(signed.unwrap().success());
    }

    /// That of a KRL is not told of revocations of TLS, and a CRL may be late.
    #[test]
    fn a_host_has_what_both_lists_follow() {
        let folder = tempfile::tempdir().unwrap();
        let store = crate::host::store::open(&folder.path().join("trust")).unwrap();
        let has = || HostHas::of(&store).list;
        assert_eq!(has(), None);
        std::fs::write(store.path().join(KRL), krl::write(7, 1, Vec::new())).unwrap();
        assert_eq!(has(), Some(7), "of an authority that states nothing");
        let at = json!({"unix": 1, "boot": null});
        let hear = |krl: serde_json::Value, crl: serde_json::Value| {
            let trust = json!({"ssh_user_cas": [], "ssh_host_cas": [], "tls_cas": []});
            let known = json!({"cluster": "x", "statement_keys": [], "trust": trust, "number": 9, "made": 1});
            let lists = json!({"krl": krl, "hash": "", "crl": crl});
            let heard = json!({"known": known, "given": "", "lists": lists});
            std::fs::write(store.path().join(super::super::heard::HEARD), heard.to_string()).unwrap();
            Heard::read(&store).unwrap();
        };
        let list = |number: u64| json!({"number": number, "made": 1, "at": at});
        for (krl, crl, both) in [(9, 9, 9), (9, 8, 8), (8, 9, 8)] {
            hear(list(krl), list(crl));
            assert_eq!(has(), Some(both));
        }
        hear(list(9), json!({"number": 0, "made": 0, "at": null}));
        assert_eq!(has(), None);
    }

    #[test]
    fn keys_of_hosts_are_read_with_their_certificates() {
        let folder = tempfile::tempdir().unwrap();
        let read = |path: &Path| HostProof::read(path).map_err(|error| error.to_string());
        for (name, kind, algorithm) in [
            ("a", &["-t", "ed25519"][..], "EdDSA"),
            ("b", &["-t", "ecdsa", "-b", "256"], "ES256"),
            ("c", &["-t", "ecdsa", "-b", "384"], "ES384"),
            ("d", &["-t", "rsa", "-b", "2048"], "PS256"),
            ("e", &["-t", "rsa", "-b", "3072"], "PS256"),
        ] {
            let path = keygen(folder.path(), name, kind);
            let without = read(&path).unwrap_err();
            assert!(without.contains(&format!("{name}-cert.pub")), "{without}");
            certify(folder.path(), &path);
            let has = HostHas { list: Some(u64::MAX), cas: vec!["tls x".into()] };
            let said = read(&path).unwrap().header("https://id/v1/watch?since=7", &has, 1000).unwrap();
            let said = Jwt::parse(said.expose()).unwrap();
            assert_eq!(format!("{:?}", said.algorithm), algorithm);
            let claims = json!({"aud": "https://id/v1/watch", "iat": 1000, "exp": 1060, "list": u64::MAX, "cas": ["tls x"]});
            assert_eq!(serde_json::Value::from(said.claims), claims);
        }
        let odd = keygen(folder.path(), "odd", &["-t", "ecdsa", "-b", "521"]);
        certify(folder.path(), &odd);
        let refused = read(&odd).unwrap_err();
        assert!(refused.ends_with("it is of ecdsa-sha2-nistp521"), "{refused}");
        let other = folder.path().join("a-cert.pub");
        std::fs::copy(folder.path().join("b-cert.pub"), other).unwrap();
        assert!(
            read(&folder.path().join("a"))
                .unwrap_err()
                .ends_with("the certificate beside it is of another key")
        );
        let open = folder.path().join("open.key");
        std::fs::write(&open, "no key").unwrap();
        assert!(read(&open).unwrap_err().contains("it is no private key"));
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o666)).unwrap();
        assert!(read(&open).unwrap_err().contains("others can write to it"));
    }
}
