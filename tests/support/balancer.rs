//! A TCP load balancer that knows nothing of what passes: each connection goes
//! to the next server that takes it.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// It ends with the value.
pub struct Balancer {
    address: SocketAddr,
    is_over: Arc<AtomicBool>,
}

impl Balancer {
    /// One before these.
    pub fn before(servers: Vec<SocketAddr>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (address, is_over) = (listener.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
        let ends = Arc::clone(&is_over);
        thread::spawn(move || {
            for (number, client) in listener.incoming().enumerate() {
                if ends.load(Ordering::SeqCst) {
                    return;
                }
                let servers = (0..servers.len()).map(|more| servers[(number + more) % servers.len()]);
                let server = servers.filter_map(|server| TcpStream::connect(server).ok()).next();
                // With nobody left, it is closed.
                if let (Ok(client), Some(server)) = (client, server) {
                    let [from, to] = [&client, &server].map(|socket| socket.try_clone().unwrap());
                    thread::spawn(move || pass(from, server));
                    thread::spawn(move || pass(to, client));
                }
            }
        });
        Self { address, is_over }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}
