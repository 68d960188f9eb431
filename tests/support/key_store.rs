//! Every place where CA keys may be, for what has to hold of each.

use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;

use super::authority::Builder;
use super::issuer::Issuer;
use super::kms::Kms;
use super::policies;
use super::process::{command, read, succeed};
use super::softhsm::{CONF, PIN, SoftHsm};

/// A SoftHSM with one token, `ca`.
pub struct Token {
    /// Which it is.
    pub hsm: SoftHsm,
    _folder: TempDir,
}

impl Token {
    /// A new one.
    #[track_caller]
    pub fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let hsm = SoftHsm::new(folder.path());
        hsm.add("ca");
        Self { hsm, _folder: folder }
    }

    /// An authority whose keys are in it.
    pub fn authority(&self, issuer: &Issuer) -> Builder {
        policies::ours(issuer).keys(&self.hsm.uri("ca"), &[(CONF, self.hsm.conf().to_str().unwrap())])
    }

    /// Puts another key in the place of one.
    #[track_caller]
    pub fn exchange(&self, name: &str, pem: &Path) {
        let label = format!("machine-id-{name}");
        for class in ["privkey", "pubkey"] {
            self.tool(&["--delete-object", "--type", class, "--label", &label]);
        }
        let id: String = name.bytes().map(|byte| format!("{byte:02x}")).collect();
        let mut import = self.hsm.command("softhsm2-util");
        import.args(["--token", "ca", "--pin", PIN, "--label", &label, "--id", &id, "--import"]).arg(pem);
        succeed(&mut import);
    }

    /// What OpenSC's tool says of it.
    pub fn tool(&self, args: &[&str]) -> String {
        succeed(self.hsm.tool("ca").args(args))
    }
}

/// What an authority's keys are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Modern,
    Compatible,
    P384,
    /// But for statements.
    Rsa,
}

/// A place of CA keys.
pub enum KeyStore {
    Files,
    Sealed(TempDir),
    Token(Arc<Token>),
    Kms(Arc<Kms>),
}

impl KeyStore {
    /// Files under a passphrase.
    #[track_caller]
    pub fn sealed() -> Self {
        let folder = TempDir::new().unwrap();
        let make = "umask 077 && openssl rand -base64 32 > passphrase";
        succeed(command("sh").args(["-euc", make]).current_dir(folder.path()));
        Self::Sealed(folder)
    }

    /// A token.
    #[track_caller]
    pub fn token() -> Self {
        Self::Token(Arc::new(Token::new()))
    }

    /// AWS KMS.
    #[track_caller]
    pub fn kms() -> Self {
        Self::Kms(Arc::new(Kms::start()))
    }

    /// An authority whose keys are there, which lets in jobs as [`policies::ours`] does.
    #[track_caller]
    pub fn authority(&self, issuer: &Issuer, kind: Kind) -> Builder {
        let suite = if kind == Kind::Modern { "modern" } else { "compatible" };
        let builder = match self {
            Self::Files => policies::ours(issuer).init(["--suite", suite]),
            Self::Sealed(folder) => {
                let passphrase = folder.path().join("passphrase");
                let options = ["--suite", suite, "--key-passphrase-file", passphrase.to_str().unwrap()];
                policies::ours(issuer).init(options)
            }
            Self::Token(token) => token.authority(issuer).init(["--suite", suite]),
            Self::Kms(kms) => kms.authority(issuer, suite),
        };
        if matches!(kind, Kind::Modern | Kind::Compatible) {
            return builder;
        }
        let here = match self {
            Self::Token(token) => Self::Token(Arc::clone(token)),
            Self::Kms(kms) => Self::Kms(Arc::clone(kms)),
            Self::Files | Self::Sealed(_) => panic!("files are exchanged as docs/keys.md says"),
        };
        builder.exchanging_keys(move |keys| {
            let made = made(kind);
            std::fs::copy(made.path().join("tls_ca.crt"), keys.with_file_name("tls_ca.crt")).unwrap();
            for name in names(kind) {
                here.exchange(name, kind, &made.path().join(name));
            }
        })
    }

    /// What opens it, where that is another place than files.
    pub fn secret(&self) -> Option<String> {
        match self {
            Self::Token(_) => Some(PIN.to_owned()),
            Self::Kms(kms) => {
                let secret = |(name, value)| (name == "AWS_SECRET_ACCESS_KEY").then_some(value);
                kms.environment().into_iter().find_map(secret)
            }
            Self::Files | Self::Sealed(_) => None,
        }
    }

    fn exchange(&self, name: &str, kind: Kind, pem: &Path) {
        match self {
            Self::Token(token) => token.exchange(name, pem),
            Self::Kms(kms) => {
                let spec = if kind == Kind::Rsa { "RSA_3072" } else { "ECC_NIST_P384" };
                kms.exchange(&format!("alias/ca-{name}"), spec, &read(pem));
            }
            Self::Files | Self::Sealed(_) => {}
        }
    }

    /// It is gone for the authorities that use it.
    pub fn take_away(&self) {
        match self {
            Self::Token(token) => token.hsm.take_away(),
            Self::Kms(kms) => kms.moto.kill(),
            Self::Files | Self::Sealed(_) => panic!("files do not go"),
        }
    }

    /// It is back.
    pub fn put_back(&self) {
        match self {
            Self::Token(token) => token.hsm.put_back(),
            Self::Kms(kms) => kms.moto.start_again(),
            Self::Files | Self::Sealed(_) => {}
        }
    }
}

/// The keys that are of it.
fn names(kind: Kind) -> impl Iterator<Item = &'static str> {
    ["ssh-user", "ssh-host", "tls", "statement"].into_iter().take(if kind == Kind::Rsa { 3 } else { 4 })
}

/// Keys by OpenSSL, and the certificate of the TLS CA.
fn made(kind: Kind) -> TempDir {
    let folder = TempDir::new().unwrap();
    let how = match kind {
        Kind::Rsa => "RSA -pkeyopt rsa_keygen_bits:3072",
        _ => "EC -pkeyopt ec_paramgen_curve:P-384",
    };
    let script = format!(
        "for key in {}; do openssl genpkey -algorithm {how} -out $key; done; \
         openssl req -x509 -days 3650 -key tls -out tls_ca.crt -subj '/CN=id.test machine-id CA' \
         -addext basicConstraints=critical,CA:true,pathlen:0 -addext keyUsage=critical,keyCertSign,cRLSign",
        names(kind).collect::<Vec<_>>().join(" ")
    );
    succeed(command("sh").args(["-euc", &script]).current_dir(folder.path()));
    folder
}
