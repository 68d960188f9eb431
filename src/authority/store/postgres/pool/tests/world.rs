//! A server with TLS and roles that are let in in different ways.

use std::net::TcpListener;
use std::path::Path;
use std::sync::OnceLock;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use super::super::{Pool, Settings};
use crate::authority::store::testing::{Server, succeed};
use crate::environment::Environment;
use crate::error::{Kind, Result};
use crate::folder::trust::Owner;

/// Every role's, so that it can be looked for in whatever is said.
pub(super) const MARKED: &str = "mark3d-s3cret";

const HBA: &str = "local all all trust
hostssl all certified 127.0.0.1/32 cert
hostssl all scram,crowd,stranger 127.0.0.1/32 scram-sha-256
hostnossl all plain 127.0.0.1/32 scram-sha-256
host all clear 127.0.0.1/32 password
host all hashed 127.0.0.1/32 md5
";

/// A server with TLS, and what its clients have.
pub(super) struct World {
    pub(super) server: Server,
    pub(super) files: tempfile::TempDir,
}

/// The one of this process.
pub(super) fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let files = tempfile::tempdir().unwrap();
        for ca in ["ca", "other"] {
            certify(files.path(), ca, &[("server", "db"), ("client", "certified")]);
        }
        let server = Server::start(
            "ssl = on\nssl_cert_file = 'ca-server.crt'\nssl_key_file = 'ca-server.key'\nssl_ca_file = 'ca.crt'\n",
            HBA,
            |folder| {
                for name in ["ca-server.crt", "ca-server.key", "ca.crt"] {
                    std::fs::copy(files.path().join(name), folder.join("data").join(name)).unwrap();
                }
            },
        );
        for user in ["certified", "scram", "plain", "clear", "hashed", "crowd"] {
            let encryption = if user == "hashed" { "md5" } else { "scram-sha-256" };
            server.sql("postgres", &format!("SET password_encryption = '{encryption}'; CREATE ROLE {user} LOGIN PASSWORD '{MARKED}'"));
        }
        for sql in [
            "ALTER ROLE crowd CONNECTION LIMIT 0",
            "CREATE DATABASE closed",
            "REVOKE CONNECT ON DATABASE closed FROM PUBLIC",
            "CREATE DATABASE standing",
            "ALTER DATABASE standing SET default_transaction_read_only = on",
        ] {
            server.sql("postgres", sql);
        }
        World { server, files }
    })
}

/// `CA.crt`, and `CA-NAME.crt` and `.key` that it signed, for 127.0.0.1 and localhost.
fn certify(folder: &Path, ca: &str, leaves: &[(&str, &str)]) {
    let write = |name: String, text: String| {
        std::fs::write(folder.join(&name), text).unwrap();
        if name.ends_with(".key") {
            succeed(std::process::Command::new("chmod").arg("600").arg(folder.join(name)));
        }
    };
    let params = |name: &str, names: &[&str]| {
        let mut params =
            CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params
    };
    let mut root = params(ca, &[]);
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root_key = KeyPair::generate().unwrap();
    write(format!("{ca}.crt"), root.self_signed(&root_key).unwrap().pem());
    let issuer = Issuer::from_params(&root, &root_key);
    for (file, name) in leaves {
        let key = KeyPair::generate().unwrap();
        let leaf = params(name, &["localhost", "127.0.0.1"]).signed_by(&key, &issuer).unwrap();
        write(format!("{ca}-{file}.crt"), leaf.pem());
        write(format!("{ca}-{file}.key"), key.serialize_pem());
    }
}

impl World {
    /// A pool for a URL in which PORT is the server's, with paths below the folder of files.
    pub(super) fn pool(&self, url: &str) -> Result<Pool> {
        let url = url.replace("PORT", &self.server.port().to_string()).replace("MARKED", MARKED);
        let env = Environment::from_pairs([]);
        Settings::parse(&url, &env, self.files.path(), Owner::me()).map(Pool::new)
    }

    /// Why there is no connection.
    pub(super) async fn trouble(&self, url: &str) -> (Kind, String, Vec<String>) {
        let error = match self.pool(url) {
            Ok(pool) => pool.get().await.expect_err(url),
            Err(error) => error,
        };
        let (said, hints) = (error.to_string(), error.hints().to_vec());
        assert!(!format!("{said}{hints:?}{error:?}").contains(MARKED), "{said} {hints:?}");
        (error.kind(), said.replace(&self.server.port().to_string(), "PORT"), hints)
    }
}

/// A port that nobody listens on.
pub(super) fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
