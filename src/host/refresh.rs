//! What servers need of an authority, kept up to date: fetched, checked as the
//! servers would, and put in place whole. What has not changed is left alone,
//! so that its time says when it last did.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::lists::{CRL, KRL, fresh_crl, fresh_krl, useless};
use super::proof::{self, HostHas, HostProof};
use super::seen::Seen;
use super::store;
pub use super::store::{HOST_CA, KNOWN_HOSTS, TLS_CA, USER_CA};
use crate::clock::Clock;
use crate::destination::ssh;
use crate::error::{Error, Kind, Result};
use crate::folder::Folder;
use crate::net::{self, AuthorityTrust, RequestError};
use crate::pem;
use crate::secret::Secret;
use crate::text::shown;
use crate::wire::{HOST_HEADER, MAX_LIST, Problem, RevokedEnds, TrustAnchors};

/// The largest list of CAs that is read, in bytes.
const MAX_TRUST: usize = 1 << 20;

const TRUST_PATH: &str = "/v1/trust";
const KRL_PATH: &str = "/v1/revoked/ssh.krl";
const CRL_PATH: &str = "/v1/revoked/tls.crl";
const ENDS_PATH: &str = "/v1/revoked";

/// How long another run is waited for.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// What is to be fetched, and where it is kept.
#[derive(Clone, Debug)]
pub struct RefreshSettings {
    /// The authority's URL, without a slash at the end.
    pub authority: String,
    /// How its certificate is judged.
    pub trust: AuthorityTrust,
    /// Where the files are kept.
    pub directory: PathBuf,
    /// The time for all of it.
    pub timeout: Duration,
    /// The key by which this host says which it is, if it does.
    pub host_key: Option<PathBuf>,
}

/// What a run did.
#[derive(Debug, Default)]
pub struct Refreshed {
    /// The paths of the files that changed.
    pub changed: Vec<PathBuf>,
    /// What went wrong, each thing once; files that are not of it changed all the same.
    pub errors: Vec<Error>,
}

/// Brings the files up to date. What is revoked counts most, so each list is
/// fetched, checked and put in place on its own: one that is no good, be it
/// its own fault or the clock's, does not hold up the other. New CAs are
/// trusted once the list of what they signed is there.
///
/// # Errors
/// `Kind::Destination` where the folder cannot be used, or another run goes on there. What fails later is in
/// [`Refreshed::errors`]: `Kind::Unreachable` where the authority cannot be
/// asked, or gives an answer that is no good; `Kind::Destination` where a file
/// cannot be read or written.
pub async fn run(settings: &RefreshSettings) -> Result<Refreshed> {
    let store = store::open(&settings.directory)?;
    let client = net::authority_client(&settings.trust, &settings.authority, settings.timeout)?;
    let start = Instant::now();
    // Before anything is asked for: what is fetched under it is no older than what is there.
    let _lock = store::lock(&store, start + settings.timeout.min(LOCK_PATIENCE)).await?;
    let fetcher = Fetcher { client, settings, deadline: start + settings.timeout };
    let mut done = Refreshed::default();
    // A host that cannot say which it is hears of revocations all the same.
    let named = settings.host_key.as_deref().map(|key| fetcher.named(&store, key)).transpose();
    let named = named.unwrap_or_else(|error| {
        done.add(Err(error));
        None
    });
    let mut seen = Seen::read(&store).unwrap_or_else(|error| {
        done.add(Err(error));
        Seen::default()
    });
    fetcher.refresh(&store, named, &mut seen, &mut done).await;
    done.add(seen.write(&store, Clock::system().now()).map(|()| None));
    Ok(done)
}

/// Replaces a file, if there is something to put in its place; returns its path then.
fn put(store: &Folder, name: &str, content: Option<Vec<u8>>) -> Result<Option<PathBuf>> {
    content.map(|content| store::write(store, name, &content)).transpose()
}

impl Refreshed {
    /// Adds what came of a file, each thing once; returns whether it is good.
    fn add(&mut self, put: Result<Option<PathBuf>>) -> bool {
        match put {
            Ok(path) => {
                self.changed.extend(path.filter(|path| !self.changed.contains(path)));
                true
            }
            Err(error) => {
                // The files are fetched one by one, and may all meet the same.
                if self.errors.iter().all(|known| known.to_string() != error.to_string()) {
                    self.errors.push(error);
                }
                false
            }
        }
    }
}

/// What proves which host this is, and what it says.
type Named = (HostProof, Secret);

struct Fetcher<'s> {
    client: reqwest::Client,
    settings: &'s RefreshSettings,
    deadline: Instant,
}

impl Fetcher<'_> {
    async fn refresh(&self, store: &Folder, named: Option<Named>, seen: &mut Seen, done: &mut Refreshed) {
        let mut unproven = None;
        let trust = async {
            let json = self.trust(named, &mut unproven).await?;
            read_trust(&json).map_err(|why| useless(TRUST_PATH, &why))
        };
        // In this order, so that what the list has is told.
        let tls = async { (self.get(CRL_PATH, MAX_LIST).await, self.ends().await) };
        let (mut ssh_is_good, trust, (crl, ends)) =
            tokio::join!(self.krl_into(store, seen, done), trust, tls);
        done.add(unproven.map_or(Ok(None), Err));
        let ends = ends.unwrap_or_else(|error| {
            done.add(Err(error));
            Some(BTreeMap::new())
        });
        let (wire, tls_ders) = match trust {
            Ok(trust) => trust,
            Err(error) => {
                done.add(Err(error));
                done.add(crl.map(|_| None));
                return;
            }
        };
        let user_cas = wire.ssh_user_cas.concat();
        if ssh_is_good && !holds(store, USER_CA, &user_cas) {
            // The list may be from before this CA, and then says nothing of what it signed.
            ssh_is_good = self.krl_into(store, seen, done).await;
        }
        if ssh_is_good {
            done.add(update(store, USER_CA, user_cas));
            done.add(update(store, HOST_CA, wire.ssh_host_cas.concat()));
            done.add(update(store, KNOWN_HOSTS, ssh::known_hosts(&wire)));
        }
        let now = Clock::system().now();
        let crl = crl.and_then(|new| fresh_crl(store, seen, &new, &tls_ders, ends.as_ref(), now, CRL_PATH));
        if done.add(crl.and_then(|crl| put(store, CRL, crl))) {
            done.add(update(store, TLS_CA, wire.tls_cas.concat()));
        }
    }

    /// What proves which host this is, and what it says for one request: one is enough to be counted.
    fn named(&self, store: &Folder, key: &Path) -> Result<Named> {
        let (proof, url) = (HostProof::read(key)?, format!("{}{TRUST_PATH}", self.settings.authority));
        let said = proof.header(&url, &HostHas::of(store), Clock::system().now())?;
        Ok((proof, said))
    }

    /// The CAs, asked for as that host where there is one; `unproven` is why the authority does not believe it.
    async fn trust(&self, named: Option<Named>, unproven: &mut Option<Error>) -> Result<Vec<u8>> {
        let Some((proof, said)) = named else { return self.get(TRUST_PATH, MAX_TRUST).await };
        let response = self.ask_with(TRUST_PATH, Some(&said)).await?;
        if response.status() != 401 {
            return self.body(response, TRUST_PATH, MAX_TRUST).await;
        }
        let problem = net::body(response, MAX_TRUST).await.unwrap_or_default();
        let problem = serde_json::from_slice::<Problem>(&problem).ok().filter(Problem::is_ours);
        let why = problem.map_or_else(
            || "status 401".to_owned(),
            |problem| {
                let id = problem.denial_id.map_or_else(String::new, |id| format!(" ({})", shown(&id)));
                shown(&problem.title) + &id
            },
        );
        *unproven = Some(proof::unproven(&proof, &why));
        self.get(TRUST_PATH, MAX_TRUST).await
    }

    /// Whether the list is the authority's of now.
    async fn krl_into(&self, store: &Folder, seen: &mut Seen, done: &mut Refreshed) -> bool {
        let new = self.get(KRL_PATH, MAX_LIST).await;
        match new.and_then(|new| fresh_krl(store, seen, new, Clock::system().now(), KRL_PATH)) {
            Ok(fresh) => {
                done.add(fresh.wrong.map_or(Ok(None), Err));
                done.add(put(store, KRL, fresh.content)) && fresh.is_current
            }
            Err(error) => done.add(Err(error)),
        }
    }

    /// When what is revoked ends; none where the authority is of a version that does not tell.
    async fn ends(&self) -> Result<Option<BTreeMap<u64, i64>>> {
        let response = self.ask(ENDS_PATH).await?;
        if response.status() == 404 {
            return Ok(None);
        }
        let json = self.body(response, ENDS_PATH, MAX_LIST).await?;
        let told: RevokedEnds = serde_json::from_slice(&json)
            .map_err(|_| useless(ENDS_PATH, "it is not the JSON of an authority"))?;
        Ok(Some(told.expires))
    }

    async fn get(&self, path: &str, limit: usize) -> Result<Vec<u8>> {
        self.body(self.ask(path).await?, path, limit).await
    }

    async fn ask(&self, path: &str) -> Result<reqwest::Response> {
        self.ask_with(path, None).await
    }

    async fn ask_with(&self, path: &str, said: Option<&Secret>) -> Result<reqwest::Response> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(self.unreachable(&RequestError::Timeout));
        }
        let url = format!("{}{path}", self.settings.authority);
        let request = self.client.get(url).timeout(left);
        let request = match said {
            Some(said) => request.header(HOST_HEADER, said.expose()),
            None => request,
        };
        let sent = net::send(request).await;
        sent.map_err(|error| self.unreachable(&error))
    }

    async fn body(&self, response: reqwest::Response, path: &str, limit: usize) -> Result<Vec<u8>> {
        let status = response.status().as_u16();
        if status != 200 {
            let answers =
                format!("the authority {} answers {path} with status {status}", self.settings.authority);
            return Err(Error::new(Kind::Unreachable, answers).hint(
                "it may be busy or in trouble: see its log and GET /readyz; the files of it stay as they are",
            ));
        }
        net::body(response, limit).await.map_err(|why| self.unreachable(&why))
    }

    fn unreachable(&self, why: &RequestError) -> Error {
        net::unreachable(&self.settings.authority, why, &self.settings.trust, Clock::system().now())
    }
}

/// The CAs, checked and brought into one form, without comments and each with
/// one line end; and those of TLS in DER.
fn read_trust(json: &[u8]) -> Result<(TrustAnchors, Vec<Vec<u8>>), String> {
    let trust: TrustAnchors =
        serde_json::from_slice(json).map_err(|_| "it is not the JSON of an authority")?;
    let keys = |what: &str, lines: &[String]| match lines {
        // A file without keys locks everybody out.
        [] => Err(format!("it has no {what}")),
        lines => lines
            .iter()
            .map(|line| Ok(plain_key(line).map_err(|why| format!("{what}: {why}"))? + "\n"))
            .collect(),
    };
    let mut tls_ders = Vec::new();
    for ca in &trust.tls_cas {
        tls_ders.extend(pem::certificates(ca).map_err(|why| format!("TLS CA: {why}"))?);
    }
    let is_ca = |der: &Vec<u8>| x509_parser::parse_x509_certificate(der).is_ok_and(|(_, ca)| ca.is_ca());
    if tls_ders.is_empty() || !tls_ders.iter().all(is_ca) {
        return Err("it has no TLS CA, or one that is not a CA's certificate".to_owned());
    }
    let wire = TrustAnchors {
        ssh_host_cas: keys("SSH host CA", &trust.ssh_host_cas)?,
        ssh_user_cas: keys("SSH user CA", &trust.ssh_user_cas)?,
        tls_cas: tls_ders.iter().map(|der| pem::encode("CERTIFICATE", der).to_string()).collect(),
    };
    Ok((wire, tls_ders))
}

/// Type and key alone: what stands before or behind them in `sshd`'s files has meaning.
fn plain_key(line: &str) -> Result<String, String> {
    let key = ssh_key::PublicKey::from_openssh(line.trim()).map_err(|error| error.to_string())?;
    if line.trim().contains(['\n', '\r']) {
        return Err("it is more than one line".to_owned());
    }
    ssh_key::PublicKey::from(key.key_data().clone()).to_openssh().map_err(|error| error.to_string())
}

/// Whatever stands there in place of a file of keys is replaced.
fn update(store: &Folder, name: &str, content: String) -> Result<Option<PathBuf>> {
    put(store, name, (!holds(store, name, &content)).then(|| content.into_bytes()))
}

fn holds(store: &Folder, name: &str, content: &str) -> bool {
    store.read(name, MAX_TRUST).is_ok_and(|old| old.as_deref() == Some(content.as_bytes()))
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
