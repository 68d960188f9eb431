//! The way to a server, which can be stopped, cut and slowed down.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::time::sleep;

/// What becomes of what is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// It passes.
    Open,
    /// It passes, so much later.
    Slow(Duration),
    /// Nothing passes and nothing is closed, as behind a firewall that forgot the connection; what was sent meanwhile
    /// passes afterwards.
    Stopped,
    /// Every connection is reset, new ones too.
    Cut,
}

/// A proxy on loopback; it ends with the value.
pub struct Cut {
    address: SocketAddr,
    way: watch::Sender<Way>,
    lost: Arc<AtomicUsize>,
    runtime: Option<Runtime>,
}

impl Cut {
    /// One that passes everything on to this server.
    pub fn before(server: SocketAddr) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let (way, watched) = watch::channel(Way::Open);
        let lost = Arc::new(AtomicUsize::new(0));
        let to_lose = Arc::clone(&lost);
        runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(connection(client, server, watched.clone(), Arc::clone(&to_lose)));
            }
        });
        Self { address, way, lost, runtime: Some(runtime) }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on, this becomes of what is sent.
    pub fn set(&self, way: Way) {
        self.way.send_replace(way);
    }

    /// The next so many commits of PostgreSQL's reach it, and their replies are lost with their connections. Without
    /// TLS, which would hide them.
    pub fn lose_commits(&self, count: usize) {
        self.lost.store(count, Ordering::SeqCst);
    }

    /// How many are to be lost yet.
    pub fn commits_to_lose(&self) -> usize {
        self.lost.load(Ordering::SeqCst)
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn connection(
    client: TcpStream,
    server: SocketAddr,
    way: watch::Receiver<Way>,
    lost: Arc<AtomicUsize>,
) {
    // So that whatever ends it is a reset, and not an orderly end: that is what a cut is.
    reset_at_the_end(&client);
    let Ok(server) = TcpStream::connect(server).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let mut cut = way.clone();
    tokio::select! {
        _ = cut.wait_for(|way| *way == Way::Cut) => {}
        () = pass(from_client, to_server, way.clone(), None) => {}
        () = pass(from_server, to_client, way, Some(&lost)) => {}
    }
}

fn reset_at_the_end(socket: &TcpStream) {
    socket.set_zero_linger().unwrap();
}

/// The reply to a `COMMIT`: a message `C` of eleven bytes.
const COMMITTED: &[u8] = b"C\0\0\0\x0bCOMMIT\0";

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut way: watch::Receiver<Way>,
    lost: Option<&AtomicUsize>,
) {
    let mut chunk = vec![0; 16_384];
    // The end of what came before: a reply may come in two parts.
    let mut tail = Vec::new();
    loop {
        let Ok(read @ 1..) = from.read(&mut chunk).await else { return };
        let some = &chunk[..read];
        if let Some(lost) = lost {
            tail.extend_from_slice(some);
            let is_reply = tail.windows(COMMITTED.len()).any(|window| window == COMMITTED);
            let less = |left: usize| left.checked_sub(1);
            if is_reply && lost.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok() {
                return;
            }
            let kept = tail.len().min(COMMITTED.len() - 1);
            tail.drain(..tail.len() - kept);
        }
        let now = *way.borrow_and_update();
        if let Way::Slow(by) = now {
            sleep(by).await;
        }
        if way.wait_for(|way| *way != Way::Stopped).await.is_err() || to.write_all(some).await.is_err() {
            return;
        }
    }
}
