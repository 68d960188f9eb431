//! Serving: connections in, bounded in number and time; the policy and the
//! certificate kept current; an orderly end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::StatusCode;
use hyper::body::Body as _;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
#[cfg(target_os = "linux")]
use rustix::net::sockopt::set_tcp_user_timeout;
use rustix::system::uname;
use tokio::io::{join, split};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::connections::{Connections, Counted, MAX_CONNECTIONS, MAX_WATCHERS, Place};
use super::head::{BodyLeft, StrictHead};
use super::http::{Peer, router};
use super::store::{is_displaced, lost};
use super::tls::{self, keeper::CertificateKeeper};
use super::{Authority, Looked, policy_watch};
use crate::error::{Context as _, Kind, Result};
use crate::terminal::{log, log_rarely};
use crate::wire;

/// Descriptors beside those of connections: store, keys, issuers.
const OTHER_DESCRIPTORS: u64 = 256;
/// The longest head of a request, in bytes; also how much of a body is read at once.
const MAX_HEAD: usize = 16 << 10;
/// Connections that may wait to be taken, where the system lets as many: beyond it one is dropped, and comes again only
/// a second later, a job's as well as one of a flood.
const BACKLOG: u32 = 4096;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Between connection and headers, and between two requests on a connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest that any connection lasts that does not watch.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(300);
/// How long what was sent may not be acknowledged, in milliseconds: three heartbeats. The system would go on for a quarter of an
/// hour, and a host that is away would look as if it were there.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: u32 = 45_000;
/// How often it is looked whether others who share the store have revoked something, while anybody watches.
const HEAR_EVERY: Duration = Duration::from_millis(200);
/// How long those who watch hear nothing more after they have: what jobs give back comes together.
const REST: Duration = Duration::from_millis(400);
/// How often those who watch hear something.
const HEARTBEAT: Duration = Duration::from_secs(wire::HEARTBEAT);
/// How long requests under way may take to end after SIGTERM.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);
/// How often the files of the policy and the certificate are looked at.
const WATCH_EVERY: Duration = Duration::from_secs(1);
/// How often what has expired is forgotten, and how long the authority has been running is written down.
const PRUNE_EVERY: Duration = Duration::from_secs(60);

/// How often it is looked whether CAs were rotated.
const LOOK_AT_KEYS_EVERY: Duration = Duration::from_millis(400);
/// How often it is told to those that share the store what was used of limits.
const SHARE_EVERY: Duration = Duration::from_secs(1);
/// After how many times it is said that this authority is there.
const STAY_AFTER: u32 = 5;
/// How long that is waited for at the end.
const LAST_SHARE: Duration = Duration::from_secs(2);

/// How often what keeps it from issuing is told anew.
const TELL_EVERY: Duration = Duration::from_secs(3600);

/// What keeps the authority from issuing, or will.
async fn log_readiness(authority: &Authority) {
    match authority.ready().await {
        Ok((warning, _)) => warning.iter().for_each(|warning| log(warning)),
        Err(error) => {
            log(&format!("not ready: {error}"));
            error.hints().iter().for_each(|hint| log(&format!("  {hint}")));
        }
    }
}

/// Serves until SIGTERM or SIGINT, then lets what is under way end.
pub async fn serve(authority: Arc<Authority>, listen: SocketAddr) -> Result<()> {
    let name = format!("{}:{}", uname().nodename().to_string_lossy(), listen.port());
    // Before anything is signed.
    authority.join(&name).await?.iter().for_each(|news| log(news));
    let mut limits = LIMITS;
    limits.look(authority.share().await);
    let connections = Arc::new(Connections::new(raise_descriptor_limit()));
    let watched = Arc::clone(&connections);
    let certificates = CertificateKeeper::start(&authority).await?;
    let current = certificates.current();
    let acceptor = TlsAcceptor::from(Arc::new(tls::server_config(Arc::clone(&current))?));
    let listener = listener(listen).context(Kind::Usage, format!("cannot listen on {listen}"))?;
    let address = listener.local_addr().context(Kind::Internal, "the listening address")?;
    let mut terminate = signal(SignalKind::terminate()).context(Kind::Internal, "SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context(Kind::Internal, "SIGINT")?;
    let hangup = signal(SignalKind::hangup()).context(Kind::Internal, "SIGHUP")?;
    policy_watch::tell(&authority);
    log_readiness(&authority).await;
    let warned = authority.restored_warning();
    warned.iter().for_each(|warning| log(&format!("warning: {warning}")));
    log(&format!("listening on https://{address}"));

    let keeper = tokio::spawn(keep_current(Arc::clone(&authority), certificates, hangup, warned));
    let keys = tokio::spawn(keep_keys(Arc::clone(&authority), name.clone()));
    let telling = tokio::spawn(keep_told(Arc::clone(&authority), watched));
    let together = tokio::spawn(keep_together(Arc::clone(&authority), name, limits));
    let (stop, stopping) = watch::channel(false);
    let app = TowerToHyperService::new(router(Arc::clone(&authority), current));
    let accepting = accept(app, listener, acceptor, connections, stopping);
    tokio::select! {
        () = accepting => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    log("stopping");
    keeper.abort();
    telling.abort();
    keys.abort();
    // They watch another authority from now on.
    authority.statements.end();
    let _ = stop.send(true);
    // Every connection holds a receiver until it ends.
    let _ = timeout(DRAIN_TIMEOUT, stop.closed()).await;
    together.abort();
    let _ = timeout(LAST_SHARE, authority.share()).await;
    Ok(())
}

/// What cannot be told to those that share the store: it is said once when that begins, and once when it is over.
struct Alone {
    begun: &'static str,
    over: &'static str,
    is_said: bool,
}

/// What was used of limits.
const LIMITS: Alone = Alone {
    begun: "limits are counted here alone",
    over: "limits are counted with other replicas again",
    is_said: false,
};

/// That this one is there.
const THERE: Alone = Alone {
    begun: "other replicas do not hear of this one",
    over: "other replicas hear of this one again",
    is_said: false,
};

impl Alone {
    /// What the log is to say of this try. What is wrong with the store itself is said by who leaves its mark.
    fn news(&mut self, tried: Result<()>) -> Option<String> {
        let error = tried.err().filter(|error| !is_displaced(error) && lost(error).is_none());
        let is_news = std::mem::replace(&mut self.is_said, error.is_some()) != self.is_said;
        let news = error.map_or_else(|| self.over.to_owned(), |error| format!("{}: {error}", self.begun));
        is_news.then_some(news)
    }

    fn look(&mut self, tried: Result<()>) {
        self.news(tried).iter().for_each(|news| log(news));
    }
}

/// Takes other CAs within a second, and says at once which it has: a rotation waits for that.
async fn keep_keys(authority: Arc<Authority>, name: String) {
    let mut looked = Looked::default();
    loop {
        sleep(LOOK_AT_KEYS_EVERY).await;
        match authority.look_at_keys(&mut looked).await {
            Ok(news) if news.is_empty() => {}
            Ok(news) => {
                news.iter().for_each(|news| log(news));
                // Where it cannot be said now, it is with the next.
                let _ = authority.stay(&name).await;
            }
            Err(error) if is_displaced(&error) || lost(&error).is_some() => {}
            Err(error) => log_rarely(&format!("it is not known which CAs there are: {error}")),
        }
    }
}

/// Keeps in touch with those that share the store. A store that does not answer holds up nothing else.
async fn keep_together(authority: Arc<Authority>, name: String, mut limits: Alone) {
    let mut there = THERE;
    loop {
        for _ in 0..STAY_AFTER {
            sleep(SHARE_EVERY).await;
            limits.look(authority.share().await);
            if let Err(error) = authority.hear().await {
                log_rarely(&format!("which CAs there are is not heard: {error}"));
            }
            if let Err(error) = authority.tell_hosts().await {
                log_rarely(&format!("hosts are not noted: {error}"));
            }
        }
        let stayed = authority.stay(&name).await;
        there.look(stayed.map(|news| news.iter().for_each(|news| log(news))));
    }
}

/// Tells those who watch what is new at once, and each heartbeat that nothing is. Where the store cannot be asked they hear
/// nothing, and know by that.
async fn keep_told(authority: Arc<Authority>, connections: Arc<Connections>) {
    // When they were told something, a heartbeat apart at least.
    let mut beats = [Instant::now(); 3];
    let mut told = Instant::now();
    loop {
        authority.statements.wait(HEAR_EVERY).await;
        if !authority.statements.is_watched() || authority.replicas.stopped().is_some() {
            continue;
        }
        let begun = Instant::now();
        let is_due = told.elapsed() >= HEARTBEAT;
        match authority.tell_watchers(is_due).await {
            Ok(true) => {
                told = begun;
                let [first, second, third] = beats;
                if third.elapsed() >= HEARTBEAT {
                    connections.end_stuck(first);
                    beats = [second, third, begun];
                }
                sleep(REST.max(begun.elapsed())).await;
            }
            Ok(false) => {}
            // What the mark is told by is told once.
            Err(error) if is_displaced(&error) || lost(&error).is_some() => {}
            Err(error) => log_rarely(&format!("watchers hear nothing: {error}")),
        }
    }
}

/// As `TcpListener::bind` does it, but for the backlog, which there is 128.
fn listener(listen: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if listen.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(listen)?;
    socket.listen(BACKLOG)
}

/// Takes connections for ever.
async fn accept(
    app: TowerToHyperService<axum::Router>,
    listener: TcpListener,
    acceptor: TlsAcceptor,
    connections: Arc<Connections>,
    stopping: watch::Receiver<bool>,
) {
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // No descriptors, say: it may pass.
                log_rarely(&format!("cannot accept a connection: {error}"));
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some((place, taken_away)) = connections.admit(peer.ip()) else { continue };
        let (acceptor, app, stopping) = (acceptor.clone(), app.clone(), stopping.clone());
        let peer = Peer(peer.ip());
        let held = Arc::clone(&place);
        tokio::spawn(async move {
            let serving = connection(stream, peer, place, acceptor, app, stopping);
            tokio::select! {
                () = serving => {}
                () = too_long(held) => {}
                _ = taken_away => {}
            }
        });
    }
}

/// Until a connection has lasted for as long as one may; one that watches may for ever.
async fn too_long(place: Arc<Place>) {
    sleep(CONNECTION_TIMEOUT).await;
    while place.watches() {
        sleep(CONNECTION_TIMEOUT).await;
    }
}

/// One connection, from handshake to its last answer. Its failures are the peer's affair.
async fn connection(
    stream: TcpStream,
    peer: Peer,
    place: Arc<Place>,
    acceptor: TlsAcceptor,
    app: TowerToHyperService<axum::Router>,
    mut stopping: watch::Receiver<bool>,
) {
    let _ = stream.set_nodelay(true);
    #[cfg(target_os = "linux")]
    let _ = set_tcp_user_timeout(&stream, UNACKNOWLEDGED);
    let (reader, writer) = stream.into_split();
    let stream = join(Counted(reader, Arc::clone(&place)), writer);
    let Ok(Ok(stream)) = timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await else { return };
    let (reader, writer) = split(stream);
    let body_left = BodyLeft::default();
    let stream = join(StrictHead::new(reader, body_left.clone()), writer);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(MAX_HEAD);
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        let length = request.body().size_hint().exact();
        body_left.begin(length);
        request.extensions_mut().insert(peer);
        request.extensions_mut().insert(Arc::clone(&place));
        let answer = app.call(request);
        async move {
            let mut answer = answer.await;
            // Where a body in chunks ends is not known here; and whoever hears 503 may come to another authority next time.
            if let Ok(answer) = &mut answer
                && (length.is_none() || answer.status() == StatusCode::SERVICE_UNAVAILABLE)
            {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            answer
        }
    });
    let connection = http.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        _ = &mut connection => {}
        () = async { drop(stopping.wait_for(|stop| *stop).await) } => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

/// Keeps the policy and the certificate current, by their files and on SIGHUP,
/// and forgets what has expired.
async fn keep_current(
    authority: Arc<Authority>,
    mut certificates: CertificateKeeper,
    mut hangup: tokio::signal::unix::Signal,
    mut warned: Option<String>,
) {
    let mut pruned = tokio::time::Instant::now();
    let mut told = pruned;
    loop {
        let asked = tokio::select! {
            _ = hangup.recv() => true,
            () = sleep(WATCH_EVERY) => false,
        };
        if let Some(trouble) = authority.mark().await {
            log(trouble.as_deref().unwrap_or("the store is as it should be again"));
        }
        let warning = authority.restored_warning();
        if warning != warned {
            warning.iter().for_each(|warning| log(&format!("warning: {warning}")));
            warned = warning;
        }
        policy_watch::look(&authority, asked).await;
        certificates.look(asked).await;
        if pruned.elapsed() >= PRUNE_EVERY {
            pruned = tokio::time::Instant::now();
            if let Err(error) = authority.forget().await
                && authority.unmarked().is_none()
            {
                log(&format!("nothing pruned: {error}"));
            }
        }
        if told.elapsed() >= TELL_EVERY {
            told = tokio::time::Instant::now();
            log_readiness(&authority).await;
        }
    }
}

/// Takes as many descriptors as connections need, where the system lets us;
/// the usual limit of 1024 is less. For how many connections there are some.
fn raise_descriptor_limit() -> usize {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    let most = MAX_CONNECTIONS + MAX_WATCHERS;
    let wanted = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(OTHER_DESCRIPTORS);
    if limit.current.is_some_and(|current| current < wanted) {
        limit.current = Some(limit.maximum.map_or(wanted, |maximum| maximum.min(wanted)));
        let _ = setrlimit(Resource::Nofile, limit);
    }
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(wanted);
    // Half of very few, so that there are some at all.
    let connections = descriptors.saturating_sub(OTHER_DESCRIPTORS).max(descriptors / 2);
    usize::try_from(connections).unwrap_or(most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn an_outage_is_told_when_it_begins_and_when_it_is_over() {
        let mut limits = LIMITS;
        let mut news = |tried: &[bool]| -> Vec<String> {
            let tried =
                tried.iter().map(|is_done| if *is_done { Ok(()) } else { Err(Error::internal("gone")) });
            tried.filter_map(|tried| limits.news(tried)).collect()
        };
        assert!(news(&[true, true]).is_empty());
        assert_eq!(news(&[false, false, false]), ["limits are counted here alone: gone"]);
        assert_eq!(news(&[true, true]), ["limits are counted with other replicas again"]);
        assert_eq!(news(&[false, true, false]).len(), 3);
    }
}
