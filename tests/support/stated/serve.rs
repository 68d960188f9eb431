//! Its connections: one request after another, and watchers.

use std::io::{self, BufReader, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use machine_id::wire::TRUSTS_HEADER;
use rustls::{ServerConnection, StreamOwned};

use super::State;

pub fn serve(socket: TcpStream, state: &Mutex<State>) {
    let _ = socket.set_read_timeout(Some(Duration::from_secs(60)));
    let _ = socket.set_nodelay(true);
    let server = Arc::clone(&state.lock().unwrap().server);
    let Ok(connection) = ServerConnection::new(server) else { return };
    let mut stream = BufReader::new(StreamOwned::new(connection, socket));
    while let Ok((path, trusts)) = read(&mut stream) {
        let to = stream.get_mut();
        {
            let mut state = state.lock().unwrap();
            state.asked.push(path.clone());
            state.trusts.push(trusts);
        }
        if let Some(query) = path.strip_prefix("/v1/watch") {
            let _ = watched(to, state, query);
            return;
        }
        let (status, body) = state.lock().unwrap().answer(&path);
        let head = format!("HTTP/1.1 {status} Test\r\nContent-Length: {}\r\n\r\n", body.len());
        if give(to, state, &path, &[head.as_bytes(), &body].concat()).is_err() {
            return;
        }
    }
}

fn give(to: &mut impl Write, state: &Mutex<State>, path: &str, mut answer: &[u8]) -> io::Result<()> {
    while let Some((byte, rest)) = answer.split_first()
        && state.lock().unwrap().slow.contains(&path)
    {
        to.write_all(&[*byte])?;
        to.flush()?;
        answer = rest;
        std::thread::sleep(Duration::from_millis(100));
    }
    to.write_all(answer)?;
    to.flush()
}

fn watched(to: &mut impl Write, state: &Mutex<State>, query: &str) -> io::Result<()> {
    let (sender, lines): (_, Receiver<Vec<u8>>) = channel();
    let first = {
        let mut state = state.lock().unwrap();
        if state.lies.iter().any(|lie| lie.0 == "/v1/watch") {
            return to.write_all(b"HTTP/1.1 503 Test\r\nContent-Length: 0\r\n\r\n");
        }
        let since = query.strip_prefix("?since=").and_then(|since| since.parse().ok());
        let is_known = since == Some(state.number);
        state.watchers.push(sender);
        (!state.is_silent).then(|| state.line(&state.statement(since.filter(|_| is_known), Vec::new())))
    };
    to.write_all(b"HTTP/1.1 200 Test\r\nTransfer-Encoding: chunked\r\n\r\n")?;
    to.flush()?;
    for line in first.into_iter().chain(lines.iter()) {
        write!(to, "{:x}\r\n", line.len())?;
        to.write_all(&line)?;
        to.write_all(b"\r\n")?;
        to.flush()?;
    }
    Ok(())
}

/// The path of a request, and what it says of whom it believes.
fn read(stream: &mut impl io::BufRead) -> io::Result<(String, Option<String>)> {
    let (mut path, mut trusts) = (None, None);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if line.trim_end().is_empty() {
            return Ok((path.ok_or(io::ErrorKind::InvalidData)?, trusts));
        }
        if let Some((name, value)) = line.split_once(": ")
            && name.eq_ignore_ascii_case(TRUSTS_HEADER)
        {
            trusts = Some(value.trim_end().to_owned());
        }
        path.get_or_insert_with(|| line.split(' ').nth(1).unwrap_or_default().to_owned());
    }
}
