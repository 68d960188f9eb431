//! Ports of loopback for servers that have to know theirs before they start, or come back to it.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{self as unix, UnixListener};
use std::sync::Mutex;

use ring::rand::{SecureRandom as _, SystemRandom};

/// An address that nobody listens on, and that no other test is given while this process lives.
///
/// It is below those that the system gives to connections: one of them could have it while a server is started again.
pub(crate) fn free_port() -> SocketAddr {
    static GIVEN: Mutex<Vec<UnixListener>> = Mutex::new(Vec::new());
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let lowest: u16 = range.split_whitespace().next().and_then(|port| port.parse().ok()).expect("a port");
    loop {
        let mut random = [0; 2];
        SystemRandom::new().fill(&mut random).unwrap();
        let port = 10_000 + u16::from_le_bytes(random) % (lowest.max(20_000) - 10_000);
        // A name that is gone with the process.
        let name = unix::SocketAddr::from_abstract_name(format!("machine-id test {port}")).unwrap();
        let Ok(claim) = UnixListener::bind_addr(&name) else { continue };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            GIVEN.lock().unwrap().push(claim);
            return address;
        }
    }
}
