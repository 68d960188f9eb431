//! Somebody who has copied the keys of an authority, and signs with them whatever he likes.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Header;
use machine_id::jws::sign_eddsa;
use machine_id::wire::STATEMENT;
use rcgen::{CertificateRevocationListParams, Issuer, KeyIdMethod, KeyPair, SerialNumber};
use serde_json::{Value, json};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};

use super::authority::Authority;
use super::process::{command, read, succeed};

/// What lay in `keys/` of a data directory once, and what he makes of it.
pub struct Thief(TempDir);

impl Thief {
    /// He copies it now.
    #[track_caller]
    pub fn of(authority: &Authority) -> Self {
        let folder = TempDir::new().unwrap();
        succeed(command("cp").arg("-a").arg(authority.data_dir().join("keys")).arg(folder.path()));
        Self(folder)
    }

    /// A path in his folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A key `NAME/key` with a certificate by one of the SSH CAs.
    #[track_caller]
    fn ssh(&self, name: &str, sign: &[&str]) -> PathBuf {
        let folder = self.path(name);
        std::fs::create_dir(&folder).unwrap();
        succeed(command("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(folder.join("key")));
        let mut keygen = command("ssh-keygen");
        keygen.current_dir(self.0.path()).args(["-q", "-I", "nobody", "-V", "-1m:+520w", "-s"]).args(sign);
        succeed(keygen.arg(folder.join("key.pub")));
        folder
    }

    /// A login for a user, by a certificate with that serial: a folder for `ssh -F FOLDER/ssh_config`, which believes any host.
    #[track_caller]
    pub fn login(&self, name: &str, user: &str, serial: u64) -> PathBuf {
        let folder = self.ssh(name, &["keys/ssh_user_ca", "-z", &serial.to_string(), "-n", user]);
        let config = format!(
            "Host *\nIdentityFile {0}/key\nCertificateFile {0}/key-cert.pub\nIdentitiesOnly yes\nIdentityAgent none\n\
             StrictHostKeyChecking no\nUserKnownHostsFile /dev/null\n",
            folder.display()
        );
        std::fs::write(folder.join("ssh_config"), config).unwrap();
        folder
    }

    /// A host's key and certificate for a name.
    #[track_caller]
    pub fn host(&self, name: &str) -> PathBuf {
        self.ssh("host", &["keys/ssh_host_ca", "-h", "-n", name])
    }

    /// A client of TLS, and the CA that he knows its servers by.
    #[track_caller]
    pub fn client(&self, name: &str, subject: &str, serial: u64) -> PathBuf {
        let folder = self.path(name);
        std::fs::create_dir(&folder).unwrap();
        let openssl = |args: &[&str]| succeed(command("openssl").current_dir(&folder).args(args));
        let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc"];
        openssl(
            &[&["req", "-new", "-subj", subject, "-keyout", "tls.key", "-out", "csr"], &curve[..]].concat(),
        );
        std::fs::write(folder.join("kind"), "basicConstraints=CA:false\nextendedKeyUsage=clientAuth\n")
            .unwrap();
        let ca =
            ["-CA", "../keys/tls_ca.crt", "-CAkey", "../keys/tls_ca.key", "-set_serial", &serial.to_string()];
        let request = ["x509", "-req", "-in", "csr", "-days", "365", "-extfile", "kind", "-out", "tls.crt"];
        openssl(&[&request[..], &ca].concat());
        std::fs::copy(self.path("keys/tls_ca.crt"), folder.join("ca.crt")).unwrap();
        folder
    }

    /// A list of TLS on which nothing is, of that number.
    pub fn list(&self, number: u64) -> Vec<u8> {
        let key = KeyPair::from_pem(&read(self.path("keys/tls_ca.key"))).unwrap();
        let issuer = Issuer::from_ca_cert_pem(&read(self.path("keys/tls_ca.crt")), key).unwrap();
        let now = OffsetDateTime::now_utc();
        let params = CertificateRevocationListParams {
            this_update: now - Duration::minutes(2),
            next_update: now + Duration::days(3650),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&issuer).unwrap().der().to_vec()
    }

    /// A line that states what was stated, changed, by the statement key.
    #[track_caller]
    pub fn states(&self, truth: &str, change: impl FnOnce(&mut Value)) -> Vec<u8> {
        let told: Value = serde_json::from_str(truth).unwrap();
        let claims = told["statement"].as_str().unwrap().split('.').nth(1).unwrap();
        let mut claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
        change(&mut claims);
        let key =
            ssh_key::PrivateKey::read_openssh_file(Path::new(&self.path("keys/statement_key"))).unwrap();
        let seed = key.key_data().ed25519().unwrap().private.to_bytes();
        let header = Header { typ: Some(STATEMENT.to_owned()), ..Header::default() };
        let jws = sign_eddsa(&seed, header, &claims).unwrap();
        format!("{}\n", json!({"statement": jws.expose()})).into_bytes()
    }
}
