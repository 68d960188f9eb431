//! Connections by the thousand that say little, and slowly.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::authority::Authority;
use crate::support::issuer::Issuer;
use crate::support::replicas::Replicas;

const SLOW: usize = 10_000;
/// Of them, those that get as far as a request.
const OVER_TLS: usize = 500;
/// The longest that an exchange may take meanwhile, on a machine with other things to do.
const FAST: Duration = Duration::from_secs(5);

/// A socket for each, and for whatever else there is.
fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    let enough = u64::try_from(SLOW + 1000).unwrap();
    assert!(limit.current.is_none_or(|most| most >= enough), "{SLOW} connections need `ulimit -Hn {enough}`");
}

/// From as many addresses as a botnet has in one country.
fn source(number: usize) -> Ipv4Addr {
    let [.., high, low] = number.to_be_bytes();
    Ipv4Addr::new(127, 1 + low % 64, high, low)
}

async fn connect(number: usize, server: SocketAddr) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((source(number), 0).into()).unwrap();
    let mut stream = socket.connect(server).await.ok()?;
    // It may have been sent away already.
    let _ = stream.write_all(HELLO).await;
    Some(stream)
}

/// The head of a TLS handshake that never ends.
const HELLO: &[u8] = &[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3];

#[test]
fn ten_thousand_slow_connections_hold_nobody_up() {
    raise_descriptor_limit();
    let issuer = Issuer::start();
    let mut replicas = Replicas::alone(&issuer, &std::env::temp_dir());
    let load = replicas.load(&issuer);
    let authority = replicas.one(0);
    let before = authority.resident();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let slow = load.during(2, || {
        load.goes_on(10);
        let server = authority.address();
        let begun = Instant::now();
        let requests = endless_requests(authority);
        let slow = runtime.block_on(async {
            let all = futures_util::stream::iter((0..SLOW - OVER_TLS).map(|number| connect(number, server)));
            all.buffer_unordered(100).filter_map(|stream| async { stream }).collect::<Vec<_>>().await
        });
        println!("{} connections after {:.1?}", slow.len() + requests.len(), begun.elapsed());
        assert_eq!(slow.len() + requests.len(), SLOW);
        for _ in 0..20 {
            let begun = Instant::now();
            load.goes_on(2);
            assert!(begun.elapsed() < FAST, "{:?}", begun.elapsed());
        }
        slow
    });
    let grown = authority.resident().saturating_sub(before);
    println!("{before} KiB before, {grown} KiB more");
    // 2,048 connections of at most 32 KiB each.
    assert!(grown < 96 << 10, "{grown} KiB more");
    // Most of them were sent away, and none of them was answered.
    let left = runtime.block_on(async {
        let mut left = 0;
        for mut stream in slow {
            let read = tokio::time::timeout(Duration::from_millis(1), stream.read(&mut [0; 64])).await;
            left += usize::from(read.is_err());
        }
        left
    });
    println!("{left} are left");
    assert!(left <= 2048, "{left}");
    load.holds(|| replicas.audit());
}

/// Requests over TLS whose body never ends.
fn endless_requests(authority: &Authority) -> Vec<impl Sized> {
    let some = (0..OVER_TLS).map(|number| {
        let mut stream = authority.client().connect_from(source(SLOW + number)).unwrap();
        let head = "POST /v1/exchange HTTP/1.1\r\nHost: authority\r\nContent-Length: 90000\r\n\r\n{";
        stream.write_all(head.as_bytes()).and_then(|()| stream.flush()).unwrap();
        stream
    });
    some.collect()
}
