//! The heads of requests, line by line. The HTTP library takes lines that end in LF alone, which others may read as no
//! end (RFC 9112, section 2.2): so it does not get to see such a line.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncBufRead as _, AsyncRead, BufReader, ReadBuf};

/// How much of a connection is read at once, in bytes: few requests are longer.
const BUFFER: usize = 4 << 10;

/// How many bytes of a body are still to come, as the HTTP library understood the head.
#[derive(Clone, Debug, Default)]
pub struct BodyLeft(Arc<AtomicU64>);

impl BodyLeft {
    /// A body of this length begins; all that comes where it has none, and then the connection must end with it.
    pub fn begin(&self, length: Option<u64>) {
        self.0.store(length.unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// Reads heads and bodies. In a head, an LF without CR becomes a NUL, which no head may have and is answered with 400.
/// It is read to the end of its lines and no further until the library has seen it and says how long its body is.
#[derive(Debug)]
pub struct StrictHead<R> {
    reader: BufReader<R>,
    body: BodyLeft,
    /// The two last bytes of the head so far.
    last: [u8; 2],
}

impl<R: AsyncRead> StrictHead<R> {
    /// Reads from this connection, each time as long a body as that says.
    pub fn new(reader: R, body: BodyLeft) -> Self {
        Self { reader: BufReader::with_capacity(BUFFER, reader), body, last: *b"\r\n" }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for StrictHead<R> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let Self { reader, body, last } = self.get_mut();
        let bytes = ready!(Pin::new(&mut *reader).poll_fill_buf(cx))?;
        let bytes = bytes.get(..buf.remaining()).unwrap_or(bytes);
        let left = body.0.load(Ordering::Relaxed);
        let mut taken = 0;
        if left > 0 {
            let part = bytes.get(..usize::try_from(left).unwrap_or(usize::MAX)).unwrap_or(bytes);
            buf.put_slice(part);
            taken = part.len();
            if left < u64::MAX {
                body.0.fetch_sub(u64::try_from(taken).unwrap_or(left), Ordering::Relaxed);
            }
        } else {
            for &byte in bytes {
                let [before, previous] = *last;
                let is_bare = byte == b'\n' && previous != b'\r';
                buf.put_slice(&[if is_bare { 0 } else { byte }]);
                taken += 1;
                *last = [previous, byte];
                if (before, previous, byte) == (b'\n', b'\r', b'\n') {
                    break;
                }
            }
        }
        Pin::new(reader).consume(taken);
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    /// What is read of it at a time; each time that a head ends, a body of that length begins.
    async fn parts(bytes: &[u8], length: Option<u64>) -> Vec<String> {
        let body = BodyLeft::default();
        let (mut reader, mut parts) = (StrictHead::new(bytes, body.clone()), Vec::new());
        loop {
            let mut part = vec![0; 1000];
            let read = reader.read(&mut part).await.unwrap();
            if read == 0 {
                return parts;
            }
            parts.push(String::from_utf8(part[..read].to_vec()).unwrap());
            if parts.last().unwrap().ends_with("\r\n\r\n") {
                body.begin(length);
            }
        }
    }

    #[tokio::test]
    async fn lines_of_heads_end_in_cr_lf_and_bodies_are_left_alone() {
        let two = b"POST / HTTP/1.1\r\nA: b\r\n\r\n{\n}\nGET / HTTP/1.1\r\n\r\n\n}\n\n";
        let head = ["POST / HTTP/1.1\r\nA: b\r\n\r\n", "{\n}\n", "GET / HTTP/1.1\r\n\r\n", "\n}\n\n"];
        assert_eq!(parts(two, Some(4)).await, head);
        assert_eq!(parts(b"GET / HTTP/1.1\nA: b\n\n", None).await, ["GET / HTTP/1.1\0A: b\0\0"]);
        assert_eq!(parts(b"GET / HTTP/1.1\r\nA: b\n\r\n", None).await, ["GET / HTTP/1.1\r\nA: b\0\r\n"]);
        assert_eq!(parts(b"\nGET /", None).await, ["\0GET /"]);
        assert_eq!(parts(b"A\r\n\r\n\n\n", None).await, ["A\r\n\r\n", "\n\n"], "to the connection's end");
    }
}
