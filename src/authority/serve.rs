//! Serving: connections in, bounded in number and time; the policy and the
//! certificate kept current; an orderly end.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::http::{Peer, router};
use super::tls::{self, keeper::CertificateKeeper};
use super::{Authority, limits, policy_watch};
use crate::error::{Context as _, Kind, Result};
use crate::terminal::{log, log_rarely};

/// Connections at once.
const MAX_CONNECTIONS: usize = 2048;
/// Connections at once from one address, which may be a whole site behind NAT.
const MAX_FROM_ADDRESS: usize = 256;
/// Descriptors beside those of connections: store, keys, issuers.
const OTHER_DESCRIPTORS: u64 = 256;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Between connection and headers, and between two requests on a connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest that any connection lasts.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(300);
/// How long requests under way may take to end after SIGTERM.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);
/// How often the files of the policy and the certificate are looked at.
const WATCH_EVERY: Duration = Duration::from_secs(1);
/// How often what has expired is forgotten, and how long the authority has been running is written down.
const PRUNE_EVERY: Duration = Duration::from_secs(60);

/// How often what keeps it from issuing is told anew.
const TELL_EVERY: Duration = Duration::from_secs(3600);

/// What keeps the authority from issuing, or will.
async fn log_readiness(authority: &Authority) {
    match authority.ready().await {
        Ok(warning) => warning.iter().for_each(|warning| log(warning)),
        Err(error) => {
            log(&format!("not ready: {error}"));
            error.hints().iter().for_each(|hint| log(&format!("  {hint}")));
        }
    }
}

/// Serves until SIGTERM or SIGINT, then lets what is under way end.
pub async fn serve(authority: Arc<Authority>, listen: SocketAddr) -> Result<()> {
    raise_descriptor_limit();
    let certificates = CertificateKeeper::start(&authority).await?;
    let current = certificates.current();
    let acceptor = TlsAcceptor::from(Arc::new(tls::server_config(Arc::clone(&current))?));
    let listener =
        TcpListener::bind(listen).await.context(Kind::Usage, format!("cannot listen on {listen}"))?;
    let address = listener.local_addr().context(Kind::Internal, "the listening address")?;
    let mut terminate = signal(SignalKind::terminate()).context(Kind::Internal, "SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context(Kind::Internal, "SIGINT")?;
    let hangup = signal(SignalKind::hangup()).context(Kind::Internal, "SIGHUP")?;
    policy_watch::tell(&authority);
    log_readiness(&authority).await;
    authority.restored_warning().iter().for_each(|warning| log(&format!("warning: {warning}")));
    log(&format!("listening on https://{address}"));

    let keeper = tokio::spawn(keep_current(Arc::clone(&authority), certificates, hangup));
    let (stop, stopping) = watch::channel(false);
    let accepting = accept(router(Arc::clone(&authority), current), listener, acceptor, stopping);
    tokio::select! {
        () = accepting => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    log("stopping");
    keeper.abort();
    let _ = stop.send(true);
    // Every connection holds a receiver until it ends.
    let _ = timeout(DRAIN_TIMEOUT, stop.closed()).await;
    Ok(())
}

/// Takes connections for ever.
async fn accept(
    app: axum::Router,
    listener: TcpListener,
    acceptor: TlsAcceptor,
    stopping: watch::Receiver<bool>,
) {
    let all = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut held = HashMap::new();
    let app = TowerToHyperService::new(app);
    loop {
        // Beyond the limit, connections wait in the kernel's queue.
        let Ok(permit) = Arc::clone(&all).acquire_owned().await else { return };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // No descriptors, say: it may pass.
                log_rarely(&format!("cannot accept a connection: {error}"));
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(place) = place(&mut held, limits::network(peer.ip())) else { continue };
        let (acceptor, app, stopping) = (acceptor.clone(), app.clone(), stopping.clone());
        let peer = Peer(peer.ip());
        tokio::spawn(async move {
            let _held = (permit, place);
            let _ = timeout(CONNECTION_TIMEOUT, connection(stream, peer, acceptor, app, stopping)).await;
        });
    }
}

/// One connection, from handshake to its last answer. Its failures are the peer's affair.
async fn connection(
    stream: TcpStream,
    peer: Peer,
    acceptor: TlsAcceptor,
    app: TowerToHyperService<axum::Router>,
    mut stopping: watch::Receiver<bool>,
) {
    let _ = stream.set_nodelay(true);
    let Ok(Ok(stream)) = timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await else { return };
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(64 << 10);
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(peer);
        app.call(request)
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

/// A place among the connections of an address: as many are taken as there are clones of its counter.
fn place(held: &mut HashMap<IpAddr, Arc<()>>, address: IpAddr) -> Option<Arc<()>> {
    if held.len() >= MAX_CONNECTIONS {
        held.retain(|_, counter| Arc::strong_count(counter) > 1);
    }
    let counter = held.entry(address).or_default();
    (Arc::strong_count(counter) <= MAX_FROM_ADDRESS).then(|| Arc::clone(counter))
}

/// Keeps the policy and the certificate current, by their files and on SIGHUP,
/// and forgets what has expired.
async fn keep_current(
    authority: Arc<Authority>,
    mut certificates: CertificateKeeper,
    mut hangup: tokio::signal::unix::Signal,
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
        policy_watch::look(&authority, asked).await;
        certificates.look(asked).await;
        if pruned.elapsed() >= PRUNE_EVERY {
            pruned = tokio::time::Instant::now();
            if let Err(error) = authority.forget().await {
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
/// the usual limit of 1024 is less.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    let wanted = u64::try_from(MAX_CONNECTIONS).unwrap_or(u64::MAX).saturating_add(OTHER_DESCRIPTORS);
    if limit.current.is_some_and(|current| current < wanted) {
        limit.current = Some(limit.maximum.map_or(wanted, |maximum| maximum.min(wanted)));
        // Without it connections wait in the kernel's queue a little earlier.
        let _ = setrlimit(Resource::Nofile, limit);
    }
}
