//! Asking the authority, over TLS that is verified: as was given, or by the CAs that it was last believed to have.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::iter;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use reqwest::header::HeaderValue;
use tokio::sync::OnceCell;

use super::heard::{AUTHORITY_CA, Heard};
use super::lists::useless;
use super::proof::{self, HostHas, HostProof};
use super::statement::believe;
use super::store::MAX_TRUST;
use super::trust;
use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::folder::Folder;
use crate::net::{self, AuthorityTrust, RequestError, pin_of};
use crate::wire::{
    CrlHash, HOST_HEADER, LISTS_HEADER, MAX_LIST, RevokedEnds, TRUSTS_HEADER, TrustAnchors, Watched,
};

/// The longest line of the authority that is read, in bytes: tens of thousands of revocations at once.
pub const MAX_LINE: usize = 8 << 20;

/// The longest answer that is read where a host is not believed, in bytes.
const MAX_PROBLEM: usize = 64 << 10;

/// The longest statement that is read of somebody who has proved nothing, in bytes: how long it takes to judge one grows with the
/// square of that, and nothing else goes on meanwhile.
const MAX_UNPROVEN: usize = 128 << 10;

const NO_JSON: &str = "it is not the JSON of an authority";

const ENDS_PATH: &str = "/v1/revoked";
/// Where the present statement is.
pub(super) const STATEMENT_PATH: &str = "/v1/statement";

pub(super) const TRUST_PATH: &str = "/v1/trust";
pub(super) const KRL_PATH: &str = "/v1/revoked/ssh.krl";
pub(super) const CRL_PATH: &str = "/v1/revoked/tls.crl";

/// Where the list of a TLS CA is: of the one that signs now, or of another.
pub(super) fn crl_path(other: Option<&CrlHash>) -> String {
    other.map_or_else(|| CRL_PATH.to_owned(), |other| format!("{CRL_PATH}?ca={}", other.ca))
}

/// Lists, or why there are none.
pub(super) struct Fetched {
    /// Nothing where it was not asked for.
    pub(super) krl: Option<Result<Vec<u8>>>,
    /// That of the TLS CA that signs now, and of the other ones by the hash of their key.
    pub(super) crls: Vec<(Option<CrlHash>, Result<Vec<u8>>)>,
    /// When certificates end that were revoked since the last CRL; none where the authority does not tell.
    pub(super) ends: Result<Option<BTreeMap<u64, i64>>>,
}

/// What is to be fetched, and where it is kept.
#[derive(Clone, Debug)]
pub struct RefreshSettings {
    /// The authority's URL, without a slash at the end.
    pub authority: String,
    /// How its certificate is judged.
    pub trust: AuthorityTrust,
    /// The key that must have signed the first statement that is believed.
    pub statement_key: Option<String>,
    /// Where the files are kept.
    pub directory: PathBuf,
    /// The time for all of it.
    pub timeout: Duration,
    /// The key by which this host says which it is, if it does.
    pub host_key: Option<PathBuf>,
}

impl RefreshSettings {
    /// How the authority's certificate is judged, in words.
    pub(super) fn given(&self) -> String {
        let AuthorityTrust { ca_file, ca_pin } = &self.trust;
        format!("{ca_file:?} {ca_pin:?}")
    }
}

/// Asks the authority, until a deadline.
pub(super) struct Fetcher<'s> {
    pub(super) settings: &'s RefreshSettings,
    store: &'s Folder,
    clients: Vec<Client>,
    /// The heir of those that are known, behind them, where one was looked for and there is one.
    heir: OnceCell<Option<Client>>,
    /// What is said of the CAs that one of them believes.
    trusts: Option<HeaderValue>,
    /// By which of them the authority's certificate was verified last.
    by: Cell<usize>,
    deadline: Instant,
    /// Whether the authority believes which host this is, or why not, where that was said.
    pub(super) proven: Cell<Option<Result<()>>>,
}

/// What judges a certificate, and the pins of the CAs that it believes.
type Client = (reqwest::Client, Vec<String>);

fn client(settings: &RefreshSettings, trust: &AuthorityTrust) -> Result<Client> {
    net::believing(trust, &settings.authority, settings.timeout)
}

impl<'s> Fetcher<'s> {
    /// One whose time begins now.
    pub(super) fn new(settings: &'s RefreshSettings, store: &'s Folder) -> Result<Self> {
        Self::of(settings, client(settings, &settings.trust)?, store)
    }

    /// Another one, whose time begins now, and which knows the CAs of now.
    pub(super) fn again(&self) -> Result<Self> {
        let given = self.clients.first().cloned().ok_or_else(|| Error::internal("no client"))?;
        Self::of(self.settings, given, self.store)
    }

    fn of(settings: &'s RefreshSettings, given: Client, store: &'s Folder) -> Result<Self> {
        let mut clients = vec![given];
        // Another pin or file than what was once right is one that an operator means.
        if Heard::read(store)?.is_some_and(|heard| heard.given == settings.given()) {
            let kept = AuthorityTrust { ca_file: Some(store.path().join(AUTHORITY_CA)), ca_pin: None };
            // Where it is lost or damaged it is written anew with what is heard next.
            clients.extend(client(settings, &kept));
        }
        let mut believed: Vec<String> = clients.iter().flat_map(|(_, pins)| pins.clone()).collect();
        believed.sort();
        believed.dedup();
        let trusts = net::trusts(&believed);
        let (by, proven, deadline) = (Cell::new(0), Cell::new(None), Instant::now() + settings.timeout);
        Ok(Self { settings, store, clients, heir: OnceCell::new(), trusts, by, deadline, proven })
    }

    /// One that is known, or behind those the heir, for which whoever needs it first looks.
    async fn client(&self, by: usize) -> Option<&reqwest::Client> {
        let client = match self.clients.get(by) {
            Some(known) => Some(known),
            None => self.heir.get_or_init(|| self.heir()).await.as_ref(),
        };
        client.map(|(client, _)| client)
    }

    /// Looks for TLS CAs that have taken the place of all that are known, as where those were stolen: where whoever
    /// answers states some by a key that is known, and one that is known vouches for them. Nothing else comes of what he says: all
    /// of it is asked anew, over a connection by one of them.
    async fn heir(&self) -> Option<Client> {
        // What was heard by another pin or file than this one is of no account.
        let heard = Heard::read(self.store).ok()?.filter(|heard| heard.given == self.settings.given())?;
        let left = self.deadline.saturating_duration_since(Instant::now());
        let anybodys = net::believing_anybody(&self.settings.authority).ok()?;
        let asked = anybodys.get(format!("{}{STATEMENT_PATH}", self.settings.authority)).timeout(left);
        let response = net::send(asked).await.ok().filter(|response| response.status() == 200)?;
        let told: Watched = serde_json::from_slice(&net::body(response, MAX_UNPROVEN).await.ok()?).ok()?;
        let stated = believe(&told.statement, Some(&heard.known), None, Clock::system().now()).ok()?;
        let pins =
            trust::tls_ders(&stated.trust).iter().map(|ca| pin_of(ca).ok()).collect::<Option<Vec<_>>>()?;
        client(self.settings, &AuthorityTrust { ca_file: None, ca_pin: Some(pins.join(",")) }).ok()
    }

    /// Whether the authority was verified as was given, the last time.
    pub(super) fn is_by_given(&self) -> bool {
        self.by.get() == 0
    }

    /// When its time is over.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The CAs of an authority that states nothing.
    pub(super) async fn trust(&self) -> Result<TrustAnchors> {
        let json = self.get(TRUST_PATH, MAX_TRUST).await?;
        let cas = serde_json::from_slice(&json).map_err(|_| NO_JSON.to_owned());
        cas.and_then(|cas| trust::plain(&cas)).map_err(|why| useless(TRUST_PATH, &why))
    }

    /// The lists, of that number where one is stated: the KRL too, if it is wanted, those of the `other` TLS CAs, and `ends`,
    /// unless they are known.
    pub(super) async fn lists(
        &self,
        number: Option<u64>,
        krl: bool,
        other: &[CrlHash],
        ends: Option<BTreeMap<u64, i64>>,
    ) -> Fetched {
        let number = number.map(|number| number.to_string());
        let said = number.as_deref().map(|number| (LISTS_HEADER, number));
        let get = async |path: &str| self.body(self.ask(path, true, said).await?, path, MAX_LIST).await;
        let krl = async { if krl { Some(get(KRL_PATH).await) } else { None } };
        // In this order, so that what the list has is told.
        let tls = async {
            let mut crls = vec![(None, get(CRL_PATH).await)];
            for other in other {
                let list = get(&crl_path(Some(other))).await;
                crls.push((Some(other.clone()), list));
            }
            (crls, if ends.is_some() { Ok(ends) } else { self.ends().await })
        };
        let (krl, (crls, ends)) = tokio::join!(krl, tls);
        Fetched { krl, crls, ends }
    }

    /// When what is revoked ends; none where the authority is of a version that does not tell.
    pub(super) async fn ends(&self) -> Result<Option<BTreeMap<u64, i64>>> {
        let response = self.ask(ENDS_PATH, true, None).await?;
        if response.status() == 404 {
            return Ok(None);
        }
        let json = self.body(response, ENDS_PATH, MAX_LIST).await?;
        let told: RevokedEnds = serde_json::from_slice(&json).map_err(|_| useless(ENDS_PATH, NO_JSON))?;
        Ok(Some(told.expires))
    }

    /// The present statement, as a JWS; none where the authority is of a version that makes none.
    pub(super) async fn statement(&self) -> Result<Option<String>> {
        let response = self.ask_by_name(STATEMENT_PATH, true).await?;
        if response.status() == 404 {
            return Ok(None);
        }
        let json = self.body(response, STATEMENT_PATH, MAX_LINE).await?;
        let told: Watched = serde_json::from_slice(&json).map_err(|_| useless(STATEMENT_PATH, NO_JSON))?;
        Ok(Some(told.statement))
    }

    /// What is at a path.
    pub(super) async fn get(&self, path: &str, limit: usize) -> Result<Vec<u8>> {
        self.body(self.ask(path, true, None).await?, path, limit).await
    }

    /// Has the authority hear what this host has by now; where that fails, it hears of it the next time.
    pub(super) async fn tell(&self) {
        if self.settings.host_key.is_some() {
            let _ = self.ask_by_name(STATEMENT_PATH, true).await;
        }
    }

    /// Asks for a path and says which host this is, where it does. It is answered where that is not believed, too.
    pub(super) async fn ask_by_name(&self, path: &str, whole: bool) -> Result<reqwest::Response> {
        let Some(key) = self.settings.host_key.as_deref() else { return self.ask(path, whole, None).await };
        let url = format!("{}{path}", self.settings.authority);
        let said = HostProof::read(key)
            .and_then(|proof| proof.header(&url, &HostHas::of(self.store), Clock::system().now()));
        let proven = match said {
            Ok(said) => {
                let response = self.ask(path, whole, Some((HOST_HEADER, said.expose()))).await?;
                // The limit is of refusals, too.
                if !matches!(response.status().as_u16(), 401 | 429) {
                    self.proven.set(Some(Ok(())));
                    return Ok(response);
                }
                let left = self.deadline.saturating_duration_since(Instant::now());
                let problem = tokio::time::timeout(left, net::body(response, MAX_PROBLEM)).await;
                Err(proof::unproven(key, &problem.ok().and_then(Result::ok).unwrap_or_default()))
            }
            Err(error) => Err(error),
        };
        self.proven.set(Some(proven));
        self.ask(path, whole, None).await
    }

    /// Asks for a path, where something is `said` in a header; where not the whole answer is to be there in time, its head is.
    async fn ask(&self, path: &str, whole: bool, said: Option<(&str, &str)>) -> Result<reqwest::Response> {
        let url = format!("{}{path}", self.settings.authority);
        // Others ask beside this, and each has its own turn.
        let (first, count) = (self.by.get(), self.clients.len() + 1);
        let mut untrusted = Error::internal("no client");
        for by in iter::once(first).chain((0..count).filter(|by| *by != first)) {
            let Some(client) = self.client(by).await else { continue };
            let left = self.deadline.saturating_duration_since(Instant::now());
            let request = client.get(&url);
            let request = if whole { request.timeout(left) } else { request };
            let request = match said {
                Some((name, value)) => request.header(name, value),
                None => request,
            };
            let request = match &self.trusts {
                Some(trusts) => request.header(TRUSTS_HEADER, trusts),
                None => request,
            };
            let sent = tokio::time::timeout(left, net::send(request)).await;
            match sent.unwrap_or(Err(RequestError::Timeout)) {
                Ok(response) => {
                    self.by.set(by);
                    return Ok(response);
                }
                Err(error @ RequestError::Untrusted(_)) => untrusted = self.unreachable(&error),
                Err(error) => return Err(self.unreachable(&error)),
            }
        }
        Err(untrusted)
    }

    async fn body(&self, response: reqwest::Response, path: &str, limit: usize) -> Result<Vec<u8>> {
        self.check(&response, path)?;
        net::body(response, limit).await.map_err(|why| self.unreachable(&why))
    }

    /// That it answers with what was asked for.
    pub(super) fn check(&self, response: &reqwest::Response, path: &str) -> Result<()> {
        let status = response.status().as_u16();
        if status == 200 {
            return Ok(());
        }
        let answers =
            format!("the authority {} answers {path} with status {status}", self.settings.authority);
        Err(Error::new(Kind::Unreachable, answers).hint(
            "it may be busy or in trouble: see its log and GET /readyz; the files of it stay as they are",
        ))
    }

    /// That there was no answer.
    pub(super) fn unreachable(&self, why: &RequestError) -> Error {
        net::unreachable(&self.settings.authority, why, &self.settings.trust, Clock::system().now())
    }
}
