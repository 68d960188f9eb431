//! The TLS CA as another's root has certified it: a certificate of the same name and key, and those up to that root. Who trusts
//! that root alone then believes the servers that we certify; whom servers let in stays ours to say.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, GeneralSubtree, ParsedExtension};
use x509_parser::public_key::PublicKey;
use x509_parser::x509::X509Version;

use crate::authority::validity::{Ending, Validity};
use crate::error::{Error, Result};
use crate::folder;
use crate::folder::read::{self, Limit, Trust};
use crate::folder::trust::Owner;
use crate::pem;
use crate::text::{hex, shown};

/// Its name, beside the CA's own certificate.
const CROSS: &str = "tls_ca_cross.crt";
/// What that of a later CA begins with.
const LATER: &str = "tls_ca_cross-";
/// As many as OpenSSL, GnuTLS and Java follow by themselves.
const MOST: usize = 8;
/// Extensions that all who verify know: a critical one that they do not know would have them refuse every server.
const KNOWN: [&str; 4] = ["2.5.29.15", "2.5.29.19", "2.5.29.30", "2.5.29.37"];
/// Signatures that nobody believes any more.
const BROKEN: [&str; 4] =
    ["1.2.840.113549.1.1.4", "1.2.840.113549.1.1.5", "1.3.14.3.2.29", "1.2.840.10045.4.1"];

/// The certificates up to another's root: ours first, the root last.
#[derive(Clone, Debug)]
pub struct Cross {
    /// As they stand in the file.
    pub pem: String,
    /// Those that servers send: all but the root, which is of no use to whoever has it not.
    pub(super) sent: String,
    /// The subject of the root.
    pub root: String,
    /// When all of them are good.
    pub validity: Validity,
    /// Each of them, by its subject.
    endings: Vec<Ending>,
}

impl Cross {
    /// Where the one of the CA whose key has that name lies: beside the first CA's certificate.
    pub fn path(certificate: &Path, name: &str) -> PathBuf {
        let later = name.strip_prefix("tls-").map(|digits| format!("{LATER}{digits}.crt"));
        certificate.with_file_name(later.as_deref().unwrap_or(CROSS))
    }

    /// The one of a later CA beside that certificate, where its key's name is not known: what it holds is that CA's.
    pub(super) fn of_later(
        certificate: &Path,
        owner: Owner,
        is_its: impl Fn(&str) -> bool,
    ) -> Option<PathBuf> {
        let folder = certificate.parent()?;
        let names = folder::names(folder, 1000).unwrap_or_default().into_iter();
        let later = names.filter(|name| name.to_str().is_some_and(|name| name.starts_with(LATER)));
        let text = |path: &PathBuf| read::text(path, Trust::Operators(owner), Limit::FILE);
        later.map(|name| folder.join(name)).find(|path| text(path).is_ok_and(|text| is_its(&text)))
    }

    /// The one in that file, if there is one.
    ///
    /// # Errors
    /// `Kind::Usage` where it cannot be read, or is not of that CA.
    pub(super) fn find(path: &Path, ca: &[u8], owner: Owner) -> Result<Option<Arc<Self>>> {
        if !path.exists() {
            return Ok(None);
        }
        let text = read::text(path, Trust::Operators(owner), Limit::FILE)?;
        let read = Self::read(&text, ca, None).map_err(|why| {
            Error::usage(format!("{} {why}", path.display())).hint(
                "import the right one again, or remove it: servers are then believed by whoever has this CA",
            )
        });
        Ok(Some(Arc::new(read?)))
    }

    /// Reads one of that CA, good for an authority of that host, where one is named.
    ///
    /// # Errors
    /// Why it is none, in words that follow the file's name.
    pub fn read(text: &str, ca: &[u8], host: Option<&str>) -> Result<Self, String> {
        let blocks = pem::certificates(text).map_err(|why| format!("cannot be used: {why}"))?;
        let chain = blocks.iter().map(|der| parse(der)).collect::<Result<Vec<_>, _>>()?;
        judge(&chain, &parse(ca)?, host)?;
        let endings: Vec<_> = chain
            .iter()
            .zip(&blocks)
            .enumerate()
            .map(|(at, (one, der))| {
                let what = match at {
                    0 => "the cross-certificate of the TLS CA".to_owned(),
                    _ => format!("the CA `{}` above the TLS CA", shown(&one.subject().to_string())),
                };
                Ok(Ending { what, validity: Validity::of(der)? })
            })
            .collect::<Result<_, String>>()?;
        let all = |all: Validity, one: &Ending| all.both(one.validity);
        let validity = endings.iter().fold(Validity { from: 0, until: i64::MAX }, all);
        let encoded = |blocks: &[Vec<u8>]| -> String {
            blocks.iter().map(|der| pem::encode("CERTIFICATE", der).to_string()).collect()
        };
        let sent = blocks.split_last().map_or(&[][..], |(_, sent)| sent);
        let root = chain.last().map(|root| shown(&root.subject().to_string())).unwrap_or_default();
        Ok(Self { pem: encoded(&blocks), sent: encoded(sent), root, validity, endings })
    }

    /// When each of them ends.
    pub(super) fn endings(&self) -> impl Iterator<Item = Ending> {
        self.endings.iter().cloned()
    }
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, String> {
    let (rest, certificate) = x509_parser::parse_x509_certificate(der)
        .map_err(|error| format!("has a certificate that cannot be read: {error}"))?;
    if rest.is_empty() {
        Ok(certificate)
    } else {
        Err("has a certificate with something behind it".to_owned())
    }
}

/// What verifiers look at, and more, since what is put there is believed until somebody looks again.
fn judge(chain: &[X509Certificate<'_>], ca: &X509Certificate<'_>, host: Option<&str>) -> Result<(), String> {
    let (Some((first, above)), Some(root)) = (chain.split_first(), chain.last()) else {
        return Err("holds no certificate".to_owned());
    };
    if first.public_key().raw != ca.public_key().raw {
        return Err("begins with a certificate of another key than the TLS CA's".to_owned());
    }
    if first.subject().as_raw() != ca.subject().as_raw() {
        return Err("begins with a certificate of another name than the TLS CA's, or one that is written in another way: \
                    have it signed with the request's subject as it is"
            .to_owned());
    }
    if above.is_empty() || first.issuer().as_raw() == first.subject().as_raw() {
        return Err("does not lead to another root: the TLS CA's certificate for the request comes first, the root last".to_owned());
    }
    if chain.len() > MOST {
        return Err(format!("holds more than {MOST} certificates"));
    }
    if above.iter().any(|one| one.public_key().raw == ca.public_key().raw) {
        return Err("has the TLS CA's key a second time".to_owned());
    }
    let keys: BTreeSet<_> = chain.iter().map(|one| (one.subject().as_raw(), one.public_key().raw)).collect();
    if keys.len() < chain.len() {
        return Err("has a CA twice".to_owned());
    }
    // Of what certificates and lists of ours name, OpenSSL takes it that no other CA is meant.
    let (named, has) = (key_id(ca), key_id(first));
    if has.is_some() && has != named {
        return Err(format!(
            "begins with a certificate of another subject key identifier than the request's: have it signed with \
             `subjectKeyIdentifier = {}`",
            hex(named.unwrap_or_default())
        ));
    }
    for (below, one) in chain.iter().enumerate() {
        let is_root = below + 1 == chain.len();
        let fails =
            |why: String| format!("has a certificate for `{}` {why}", shown(&one.subject().to_string()));
        is_ca(one, below, is_root).map_err(fails)?;
        let issuer = chain.get(below + 1).unwrap_or(root);
        if one.issuer().as_raw() != issuer.subject().as_raw()
            || one.verify_signature(Some(issuer.public_key())).is_err()
        {
            let whose = if is_root { "itself, as a root is" } else { "the next one" };
            return Err(fails(format!("that is not signed by {whose}")));
        }
        if let Some(host) = host.filter(|host| !permits(one, host)) {
            return Err(fails(format!(
                "whose name constraints do not permit {host}, the host of `public_url`"
            )));
        }
    }
    Ok(())
}

/// Whether it may stand where it does: with so many CAs below it.
fn is_ca(one: &X509Certificate<'_>, below: usize, is_root: bool) -> Result<(), String> {
    let twice = |_| "that has an extension twice".to_owned();
    if one.version() != X509Version::V3 || one.extensions_map().is_err() {
        return Err("that is not of version 3, or has an extension twice".to_owned());
    }
    let constraints = one.basic_constraints().map_err(twice)?.filter(|constraints| constraints.value.ca);
    let constraints = constraints.ok_or("that is no CA's")?;
    let is_long = |most: u32| usize::try_from(most).is_ok_and(|most| below > most);
    if constraints.value.path_len_constraint.is_some_and(is_long) {
        return Err("that permits no CA below it, or fewer than there are".to_owned());
    }
    let usage = one.key_usage().map_err(twice)?;
    // The root is believed as it is; a CA's own lists are verified by its certificate.
    let may_sign =
        |usage: &x509_parser::extensions::KeyUsage| usage.key_cert_sign() && (below > 0 || usage.crl_sign());
    match usage {
        None if !is_root => return Err("without a key usage".to_owned()),
        Some(usage) if !may_sign(usage.value) => {
            return Err(
                "whose key usage is not that of a CA: `keyCertSign`, and for the TLS CA `cRLSign`".to_owned()
            );
        }
        _ => {}
    }
    if is_root {
        return Ok(());
    }
    let purpose = one.extended_key_usage().map_err(twice)?;
    if purpose.is_some_and(|purpose| !purpose.value.server_auth && !purpose.value.any) {
        return Err("that is not for TLS servers (extended key usage)".to_owned());
    }
    let is_unknown = |oid: &String| !KNOWN.contains(&oid.as_str());
    let mut critical = one.extensions().iter().filter(|one| one.critical).map(|one| one.oid.to_id_string());
    if let Some(oid) = critical.find(is_unknown) {
        return Err(format!("with the critical extension {oid}, over which verifiers refuse it"));
    }
    if BROKEN.contains(&one.signature_algorithm.algorithm.to_id_string().as_str()) {
        return Err("that is signed with SHA-1 or MD5".to_owned());
    }
    match one.public_key().parsed() {
        Ok(PublicKey::RSA(key)) if key.key_size() < 2048 => {
            Err("whose key of RSA has less than 2048 bits".to_owned())
        }
        Ok(_) => Ok(()),
        Err(error) => Err(format!("whose key cannot be read: {error}")),
    }
}

/// The subject key identifier, where it has one.
pub(super) fn key_id<'c>(one: &'c X509Certificate<'_>) -> Option<&'c [u8]> {
    one.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
        _ => None,
    })
}

/// Whether its name constraints (RFC 5280, section 4.2.1.10) permit a server of that name.
fn permits(one: &X509Certificate<'_>, host: &str) -> bool {
    let Ok(Some(constraints)) = one.name_constraints() else { return true };
    let is_kind = |name: &GeneralName<'_>| match host.parse::<IpAddr>() {
        Ok(_) => matches!(name, GeneralName::IPAddress(_)),
        Err(_) => matches!(name, GeneralName::DNSName(_)),
    };
    let of = |trees: &Option<Vec<GeneralSubtree<'_>>>| -> Vec<bool> {
        let trees = trees.iter().flatten().filter(|tree| is_kind(&tree.base));
        trees.map(|tree| holds(&tree.base, host)).collect()
    };
    let (permitted, excluded) =
        (of(&constraints.value.permitted_subtrees), of(&constraints.value.excluded_subtrees));
    // Subjects of ours are a name alone, below nobody's organization.
    let mut trees = constraints.value.permitted_subtrees.iter().flatten();
    let is_of_subjects = trees.any(|tree| matches!(tree.base, GeneralName::DirectoryName(_)));
    !is_of_subjects && (permitted.is_empty() || permitted.contains(&true)) && !excluded.contains(&true)
}

fn holds(tree: &GeneralName<'_>, host: &str) -> bool {
    match tree {
        GeneralName::DNSName(domain) => {
            let (host, domain) = (host.to_ascii_lowercase(), domain.to_ascii_lowercase());
            let above = host.strip_suffix(domain.trim_start_matches('.'));
            above.is_some_and(|above| domain.is_empty() || above.is_empty() || above.ends_with('.'))
        }
        GeneralName::IPAddress(range) => {
            let address = match host.parse() {
                Ok(IpAddr::V4(address)) => address.octets().to_vec(),
                Ok(IpAddr::V6(address)) => address.octets().to_vec(),
                Err(_) => return false,
            };
            let (network, mask) = range.split_at(range.len() / 2);
            range.len() == 2 * address.len()
                && address.iter().zip(network).zip(mask).all(|((one, net), mask)| one & mask == net & mask)
        }
        _ => false,
    }
}
