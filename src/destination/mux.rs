//! Connections that `ssh` shares through a socket in a destination
//! (`ControlMaster`): they would outlive the certificate that opened them, so
//! they are told to end, as `ssh -O exit` does (OpenSSH's PROTOCOL.mux).

use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use crate::rfc4251::{Decoder, put_string};

const HELLO: u32 = 1;
const VERSION: u32 = 4;
const TERMINATE: u32 = 0x1000_0005;
/// The longest greeting that is read, in bytes.
const MAX_HELLO: usize = 4096;

/// Whether there is such a socket, which is gone now. What is at work behind
/// another one is neither told nor asked anything, and waited for no longer
/// than until the deadline.
pub(super) fn is_ended(path: &Path, deadline: Instant) -> bool {
    if !std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket()) {
        return false;
    }
    let (tell, told) = mpsc::channel();
    let socket: PathBuf = path.to_owned();
    // Even a connection may be waited for without end.
    thread::spawn(move || tell.send(end(&socket)));
    let ended = told.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    matches!(ended, Ok(Ok(()))) && std::fs::symlink_metadata(path).is_err()
}

/// Returns once the other side has hung up, as it does when it is gone with its socket.
fn end(socket: &Path) -> io::Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    // It speaks first; whatever does not greet like this is something else.
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > MAX_HELLO {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut hello = vec![0; length];
    stream.read_exact(&mut hello)?;
    let mut greeting = Decoder::new(&hello);
    if (greeting.u32(), greeting.u32()) != (Ok(HELLO), Ok(VERSION)) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = Vec::new();
    for [kind, number] in [[HELLO, VERSION], [TERMINATE, 0]] {
        put_string(&mut message, &[kind.to_be_bytes(), number.to_be_bytes()].concat());
    }
    stream.write_all(&message)?;
    io::copy(&mut stream, &mut io::sink()).map(drop)
}
