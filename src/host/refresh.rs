//! What servers need of an authority, kept up to date: fetched, checked as the
//! servers would, and put in place whole. All of it is checked before any of it
//! is written, and what has not changed is left alone, so that its time says
//! when it last did.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::crl::Crl;
use super::krl::{self, Krl};
use super::store::Store;
use crate::clock::Clock;
use crate::destination::{pem, ssh};
use crate::error::{Error, Kind, Result};
use crate::net::{self, AuthorityTrust, Trouble};
use crate::once::{check, refusal};
use crate::text::shown;
use crate::wire::Trust;

/// `TrustedUserCAKeys` of `sshd`.
pub const USER_CA: &str = "ssh_user_ca.pub";
/// `RevokedKeys` of `sshd`.
pub const KRL: &str = "revoked.krl";
/// The CAs of host certificates, one key a line.
pub const HOST_CA: &str = "ssh_host_ca.pub";
/// The same for `ssh`, as `GlobalKnownHostsFile`.
pub const KNOWN_HOSTS: &str = "known_hosts";
/// The CAs of client certificates, for TLS servers.
pub const TLS_CA: &str = "tls_ca.crt";
/// Their revocation list, in PEM as nginx and PostgreSQL want it.
pub const CRL: &str = "tls.crl";

/// The largest answers that are read, in bytes; a list grows by tens of bytes a revocation.
const MAX_TRUST: usize = 1 << 20;
const MAX_LIST: usize = 64 << 20;

/// What is to be fetched, and where it is kept.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The authority's URL, without a slash at the end.
    pub authority: String,
    /// How its certificate is judged.
    pub trust: AuthorityTrust,
    /// Where the files are kept.
    pub directory: PathBuf,
    /// The time for all of it.
    pub timeout: Duration,
}

/// Brings the files up to date; returns the paths of those that changed.
///
/// # Errors
/// `Kind::Unreachable` where the authority cannot be asked, or gives an answer
/// that is no good; `Kind::Destination` where a file cannot be written. The
/// files stay as they are then.
pub async fn run(settings: &Settings) -> Result<Vec<PathBuf>> {
    let store = Store::open(&settings.directory)?;
    let source = Source {
        client: net::authority_client(&settings.trust)?,
        settings,
        deadline: Instant::now() + settings.timeout,
    };
    let trust = source.get("/v1/trust", MAX_TRUST).await?;
    let krl = source.get("/v1/revoked/ssh.krl", MAX_LIST).await?;
    let crl = source.get("/v1/revoked/tls.crl", MAX_LIST).await?;
    let now = Clock::system().now();
    let trust = read_trust(&trust).map_err(|why| useless("/v1/trust", &why))?;
    let new_krl = fresh_krl(&store, &krl).map_err(|why| useless("/v1/revoked/ssh.krl", &why))?;
    let new_crl = fresh_crl(&store, &crl, &trust, now).map_err(|why| useless("/v1/revoked/tls.crl", &why))?;
    // What is revoked comes first: no new CA is trusted without its list.
    let files = [
        (KRL, new_krl.then_some(krl)),
        (CRL, new_crl.then(|| pem::encode("X509 CRL", &crl).as_bytes().to_vec())),
        (USER_CA, fresh(&store, USER_CA, lines(&trust.wire.ssh_user_cas))),
        (HOST_CA, fresh(&store, HOST_CA, lines(&trust.wire.ssh_host_cas))),
        (KNOWN_HOSTS, fresh(&store, KNOWN_HOSTS, ssh::known_hosts(&trust.wire))),
        (TLS_CA, fresh(&store, TLS_CA, trust.wire.tls_cas.concat())),
    ];
    files
        .into_iter()
        .filter_map(|(name, content)| Some((name, content?)))
        .map(|(name, content)| store.write(name, &content))
        .collect()
}

struct Source<'s> {
    client: reqwest::Client,
    settings: &'s Settings,
    deadline: Instant,
}

impl Source<'_> {
    async fn get(&self, path: &str, limit: usize) -> Result<Vec<u8>> {
        let authority = &self.settings.authority;
        let unreachable = |trouble: &Trouble| {
            refusal::unreachable(authority, trouble, &self.settings.trust, Clock::system().now())
        };
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(unreachable(&Trouble::Timeout));
        }
        let sent = self.client.get(format!("{authority}{path}")).timeout(left).send().await;
        let response = sent.map_err(|error| unreachable(&net::trouble(&error)))?;
        let status = response.status().as_u16();
        if status != 200 {
            return Err(Error::new(
                Kind::Unreachable,
                format!("the authority {authority} answers {path} with status {status}"),
            )
            .hint("it may be busy or in trouble: see its log and GET /readyz; the files stay as they are"));
        }
        net::body(response, limit).await.map_err(|why| unreachable(&Trouble::Other(why)))
    }
}

fn useless(path: &str, why: &str) -> Error {
    Error::new(Kind::Unreachable, why.to_owned())
        .context(format!("what the authority gives at {path} cannot be used"))
        .hint("the files stay as they are; check that --authority is the right one, and see its log")
}

/// The CAs, checked and brought into one form.
struct Checked {
    /// Without comments, each with one line end.
    wire: Trust,
    tls_ders: Vec<Vec<u8>>,
}

fn read_trust(json: &[u8]) -> Result<Checked, String> {
    let trust: Trust = serde_json::from_slice(json).map_err(|_| "it is not the JSON of an authority")?;
    let keys = |what: &str, lines: &[String]| match lines {
        // A file without keys locks everybody out.
        [] => Err(format!("it has no {what}")),
        lines => lines.iter().map(|line| plain_key(line).map_err(|why| format!("{what}: {why}"))).collect(),
    };
    let mut tls_ders = Vec::new();
    for ca in &trust.tls_cas {
        tls_ders.extend(check::parse_chain(ca).map_err(|why| format!("TLS CA: {why}"))?);
    }
    let is_ca = |der: &Vec<u8>| x509_parser::parse_x509_certificate(der).is_ok_and(|(_, ca)| ca.is_ca());
    if tls_ders.is_empty() || !tls_ders.iter().all(is_ca) {
        return Err("it has no TLS CA, or one that is not a CA's certificate".to_owned());
    }
    let wire = Trust {
        ssh_host_cas: keys("SSH host CA", &trust.ssh_host_cas)?,
        ssh_user_cas: keys("SSH user CA", &trust.ssh_user_cas)?,
        tls_cas: tls_ders.iter().map(|der| pem::encode("CERTIFICATE", der).to_string()).collect(),
    };
    Ok(Checked { wire, tls_ders })
}

/// Type and key alone: what stands before or behind them in `sshd`'s files has meaning.
fn plain_key(line: &str) -> Result<String, String> {
    let key = ssh_key::PublicKey::from_openssh(line.trim()).map_err(|error| error.to_string())?;
    if line.trim().contains(['\n', '\r']) {
        return Err("it is more than one line".to_owned());
    }
    ssh_key::PublicKey::from(key.key_data().clone()).to_openssh().map_err(|error| error.to_string())
}

fn lines(keys: &[String]) -> String {
    keys.iter().map(|key| format!("{key}\n")).collect()
}

fn fresh(store: &Store, name: &str, content: String) -> Option<Vec<u8>> {
    let limit = u64::try_from(MAX_TRUST).unwrap_or(u64::MAX);
    (store.read(name, limit).as_deref() != Some(content.as_bytes())).then(|| content.into_bytes())
}

/// Whether this list is to replace the one that is there.
fn fresh_krl(store: &Store, new: &[u8]) -> Result<bool, String> {
    let read = Krl::parse(new)?;
    let Some(old) = store.read(KRL, limit()) else { return Ok(true) };
    let Ok(known) = Krl::parse(&old) else { return Ok(true) };
    if read.number < known.number {
        let why = format!("its number is {}, and that of the list here is {}", read.number, known.number);
        return Err(older(KRL, &why));
    }
    Ok(!krl::same(&old, new))
}

fn fresh_crl(store: &Store, new: &[u8], trust: &Checked, now: i64) -> Result<bool, String> {
    let read = Crl::parse(new, &trust.tls_ders)?;
    if read.until <= now {
        return Err("it is no longer good by this machine's clock".to_owned());
    }
    let old = store.read(CRL, limit()).and_then(|old| String::from_utf8(old).ok());
    let old = old.and_then(|old| pem::decode_all(&old, "X509 CRL")?.pop());
    // One of a CA that is no longer there is as good as none.
    let Some(known) = old.and_then(|old| Crl::parse(&old, &trust.tls_ders).ok()) else { return Ok(true) };
    if read.is_before(&known) {
        return Err(older(CRL, "its number is lower than that of the list here"));
    }
    Ok(!known.serves_like(&read, now))
}

fn limit() -> u64 {
    // PEM is a third longer.
    u64::try_from(MAX_LIST).unwrap_or(u64::MAX) * 2
}

/// Taking it would let in again what was revoked.
fn older(name: &str, why: &str) -> String {
    format!(
        "it is older than {name}: {}; if the authority was restored from a backup, remove that file",
        shown(why)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";

    #[test]
    fn keys_lose_what_stands_around_them() {
        assert_eq!(plain_key(&format!("{KEY} some comment\n")).unwrap(), KEY);
        for bad in [
            String::new(),
            "ssh-ed25519 AAAA".into(),
            format!("restrict {KEY}"),
            format!("cert-authority {KEY}"),
            format!("{KEY}\n{KEY}"),
            format!("{KEY} a\n{KEY} b"),
        ] {
            assert!(plain_key(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_trust_without_cas_is_refused() {
        crate::net::install_crypto();
        let json = |host: &str, user: &str, tls: &str| {
            format!(r#"{{"ssh_host_cas": [{host}], "ssh_user_cas": [{user}], "tls_cas": [{tls}]}}"#)
        };
        let key = format!("\"{KEY}\"");
        let why = |json: String| read_trust(json.as_bytes()).err().unwrap();
        assert!(why("<html>".into()).contains("not the JSON"));
        assert!(why(json(&key, &key, "")).contains("no TLS CA"));
        let params = rcgen::CertificateParams::new(vec!["x".into()]).unwrap();
        let leaf = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem();
        let leaf = serde_json::to_string(&leaf).unwrap();
        assert!(why(json(&key, &key, &leaf)).contains("not a CA's"));
    }
}
