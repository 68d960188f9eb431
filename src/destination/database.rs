//! The output `database`: a client certificate in the files that database clients want.

use zeroize::Zeroizing;

use super::material::{File, Material, OptionValues, WrittenOutput, lines};
use super::output_files::{OutputFiles, ReadFile, concatenated};
use crate::error::{Error, Result};
use crate::output::DATABASE;
use crate::pem;

pub(super) static FILES: OutputFiles = OutputFiles {
    writes_also: |name| client_file(name).is_some(),
    check,
    variables,
    tls_pem,
    ..OutputFiles::new(&DATABASE, &["tls.key", "tls.crt", "ca.crt", "mongo.crt"], files)
};

/// Which files a client wants: `tls.key`, `tls.crt` and `ca.crt` (libpq,
/// MariaDB's and Redis' clients); key and certificate in one (`mongosh
/// --tlsCertificateKeyFile`); `client.USER.key` and `.crt` beside `ca.crt`
/// (`cockroach --certs-dir`).
const FORMATS: [&str; 3] = ["tls", "mongo", "cockroach"];

fn format(options: &OptionValues) -> &str {
    options.get("format").map_or("tls", String::as_str)
}

fn check(options: &OptionValues, files: &OptionValues) -> Result<(), String> {
    if !FORMATS.contains(&format(options)) {
        return Err(format!("`format` must be one of: {}", FORMATS.join(", ")));
    }
    check_server_ca(files)
}

fn files(material: &Material<'_>) -> Result<Vec<File>> {
    let tls = material.tls()?;
    let subject = user(material.subject)?;
    if material.options.get("user").is_some_and(|asked| asked != subject) {
        return Err(Error::internal("a certificate for another database user than was asked for"));
    }
    Ok(match format(material.options) {
        "mongo" => {
            // Half a key file is none: it is written anew with each certificate.
            let both = lines(&[tls.private_key, tls.chain]);
            vec![File::new("mongo.crt", both), File::new("ca.crt", material.server_cas())]
        }
        "cockroach" => vec![
            File::key(format!("client.{subject}.key"), lines(&[tls.private_key])),
            File::new(format!("client.{subject}.crt"), lines(&[tls.chain])),
            File::new("ca.crt", material.server_cas()),
        ],
        _ => material.tls_files()?,
    })
}

/// libpq's own. Other databases' clients take no files from variables.
fn variables(written: &WrittenOutput<'_>) -> Vec<(&'static str, String)> {
    let Some(user) = written.subject else { return Vec::new() };
    let pair = match format(written.options) {
        "mongo" => return Vec::new(),
        "cockroach" => format!("client.{user}"),
        _ => "tls".to_owned(),
    };
    let folder = written.folder;
    let mut variables = vec![
        ("PGSSLCERT", format!("{folder}/{pair}.crt")),
        ("PGSSLKEY", format!("{folder}/{pair}.key")),
        ("PGSSLROOTCERT", format!("{folder}/ca.crt")),
        ("PGSSLMODE", "verify-full".to_owned()),
        ("PGUSER", user.to_owned()),
    ];
    variables.extend(written.options.get("database").map(|name| ("PGDATABASE", name.clone())));
    variables
}

/// Of the formats that are not every output's.
fn tls_pem(names: &[String], read: ReadFile<'_>) -> Option<Zeroizing<String>> {
    let of_user = || {
        let key = names.iter().find(|name| client_file(name).is_some() && name.ends_with(".key"))?;
        concatenated(read, &[key, &format!("{}.crt", key.strip_suffix(".key")?)])
    };
    read("mongo.crt").or_else(of_user)
}

/// The user in a name `client.USER.crt` or `.key`.
fn client_file(name: &str) -> Option<&str> {
    let rest = name.strip_prefix("client.")?;
    let user = rest.strip_suffix(".crt").or_else(|| rest.strip_suffix(".key"))?;
    is_user(user).then_some(user)
}

/// What the authority certifies, once more: it becomes a file's name here.
fn is_user(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && !text.starts_with(['.', '-'])
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

fn user(subject: Option<&str>) -> Result<&str> {
    subject
        .filter(|subject| is_user(subject))
        .ok_or_else(|| Error::internal("the certificate names no database user"))
}

/// Whether `server-ca`, where it is given, holds certificates.
pub(super) fn check_server_ca(files: &OptionValues) -> Result<(), String> {
    let Some(text) = files.get("server-ca") else { return Ok(()) };
    // A key in it would be copied to where nobody takes it for one.
    let is_good = |piece: pem::Piece<'_>| match piece {
        pem::Piece::Block(label, block) => label == "CERTIFICATE" && pem::decode(block).is_some(),
        pem::Piece::Line(_) => true,
        pem::Piece::Broken(_) => false,
    };
    let has_any = pem::decode_all(text, "CERTIFICATE").is_some_and(|all| !all.is_empty());
    if has_any && pem::pieces(text).into_iter().all(is_good) {
        return Ok(());
    }
    Err("`server-ca` must name a file of certificates in PEM".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_are_those_of_plain_users() {
        for good in ["client.root.key", "client.a.b.crt", "tls.key", "mongo.crt"] {
            assert!(FILES.writes(good), "{good}");
        }
        for bad in [
            "client.crt",
            "client..crt",
            "client.../x.crt",
            "client.a/b.key",
            "client.a.pem",
            "client.-x.key",
        ] {
            assert!(!FILES.writes(bad), "{bad}");
        }
    }

    #[test]
    fn variables_are_of_one_user() {
        let options = OptionValues::from([("database".to_owned(), "orders".to_owned())]);
        let written = WrittenOutput { folder: "/d", options: &options, subject: Some("deploy") };
        let variables = super::variables(&written);
        assert!(variables.contains(&("PGSSLKEY", "/d/tls.key".to_owned())));
        assert!(variables.contains(&("PGUSER", "deploy".to_owned())));
        assert!(variables.contains(&("PGDATABASE", "orders".to_owned())));
        let cockroach = OptionValues::from([("format".to_owned(), "cockroach".to_owned())]);
        let variables = super::variables(&WrittenOutput { options: &cockroach, ..written });
        assert!(variables.contains(&("PGSSLCERT", "/d/client.deploy.crt".to_owned())));
        let mongo = OptionValues::from([("format".to_owned(), "mongo".to_owned())]);
        assert!(super::variables(&WrittenOutput { options: &mongo, ..written }).is_empty());
    }

    #[test]
    fn a_server_ca_is_certificates_and_nothing_else() {
        let check =
            |text: &str| check_server_ca(&OptionValues::from([("server-ca".to_owned(), text.to_owned())]));
        let (certificate, key) = (pem::encode("CERTIFICATE", b"x"), pem::encode("PRIVATE KEY", b"x"));
        check(&certificate).unwrap();
        check(&format!("# internal CA\n{}{}", *certificate, *certificate)).unwrap();
        let cut = format!("{}{}", *certificate, certificate.trim_end().trim_end_matches('-'));
        for bad in [String::new(), "junk".to_owned(), format!("{}{}", *certificate, *key), cut] {
            assert!(check(&bad).is_err(), "{bad}");
        }
    }
}
