//! A client with control over every byte: HTTP/1.1 by hand over TCP or TLS.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{DEADLINE, Reply, find, within};

/// A stream over TCP or TLS.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A connection, and its received but unread bytes.
pub(crate) struct Wire {
    stream: Box<dyn Stream>,
    pub(crate) buffer: Vec<u8>,
}

impl Wire {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream)
    }

    pub(crate) fn over(stream: impl Stream + 'static) -> Self {
        Self {
            stream: Box::new(stream),
            buffer: Vec::new(),
        }
    }

    /// Sends all bytes.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes)
            .await
            .expect("the gateway closed while bytes were sent");
    }

    /// Sends all bytes; an error if the peer has closed.
    pub(crate) async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        let send = async {
            self.stream.write_all(bytes.as_ref()).await?;
            self.stream.flush().await
        };
        within(DEADLINE, send)
            .await
            .expect("the gateway took no bytes in time")
    }

    /// Shuts down the sending side of the connection.
    pub(crate) async fn finish(&mut self) {
        self.stream.shutdown().await.ok();
    }

    /// Sends a GET and reads the response.
    pub(crate) async fn get(&mut self, target: &str, fields: &[(&str, &str)]) -> Reply {
        self.send(request("GET", target, fields, "")).await;
        self.reply().await
    }

    /// Reads more; false at the end.
    pub(crate) async fn fill(&mut self) -> bool {
        let read = self.stream.read_buf(&mut self.buffer);
        let read = within(DEADLINE, read).await.expect("nothing came in time");
        matches!(read, Ok(1..))
    }

    /// Reads until `needle`; returns everything up to its end.
    pub(crate) async fn until(&mut self, needle: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = find(&self.buffer, needle) {
                return self.buffer.drain(..at + needle.len()).collect();
            }
            let more = self.fill().await;
            assert!(
                more,
                "the connection ended before {:?}; there was {:?}",
                String::from_utf8_lossy(needle),
                String::from_utf8_lossy(&self.buffer)
            );
        }
    }

    /// Reads a response head, including interim ones.
    pub(crate) async fn head(&mut self) -> Reply {
        let head = self.until(b"\r\n\r\n").await;
        let head = String::from_utf8_lossy(&head).into_owned();
        let (line, fields) = head.split_once("\r\n").unwrap();
        let status = line
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        let status = status.unwrap_or_else(|| panic!("a strange status line: {line}"));
        Reply {
            status,
            fields: parse_fields(fields),
            ..Reply::default()
        }
    }

    /// Whether any response arrives before the connection closes.
    pub(crate) async fn answers(&mut self) -> bool {
        !self.buffer.is_empty() || self.fill().await
    }

    /// Reads a complete final response to any method but HEAD.
    pub(crate) async fn reply(&mut self) -> Reply {
        let mut reply = self.head().await;
        while (100..200).contains(&reply.status) && reply.status != 101 {
            reply = self.head().await;
        }
        if matches!(reply.status, 101 | 204 | 304) {
            return reply;
        }
        if reply.field("transfer-encoding").is_some() {
            assert_eq!(reply.all("transfer-encoding"), ["chunked"]);
            assert_eq!(reply.field("content-length"), None);
            while let Some(chunk) = self.chunk().await {
                reply.body.extend(chunk);
            }
            let mut trailers = String::new();
            while !trailers.ends_with("\r\n\r\n") && trailers != "\r\n" {
                trailers += &String::from_utf8(self.until(b"\r\n").await).unwrap();
            }
            reply.trailers = parse_fields(&trailers);
        } else if let Some(length) = reply.field("content-length") {
            let length = length.parse().unwrap();
            reply.body = self.take(length).await;
        } else {
            while self.fill().await {}
            reply.body = std::mem::take(&mut self.buffer);
        }
        reply
    }

    /// Reads this many bytes.
    pub(crate) async fn take(&mut self, length: usize) -> Vec<u8> {
        while self.buffer.len() < length {
            assert!(
                self.fill().await,
                "the connection ended in the middle of a body"
            );
        }
        self.buffer.drain(..length).collect()
    }

    /// Reads one chunk; `None` for the last, whose trailers follow.
    pub(crate) async fn chunk(&mut self) -> Option<Vec<u8>> {
        let line = String::from_utf8(self.until(b"\r\n").await).unwrap();
        let length = usize::from_str_radix(line.trim_end(), 16).unwrap();
        if length == 0 {
            return None;
        }
        let chunk = self.take(length).await;
        assert_eq!(self.take(2).await, b"\r\n");
        Some(chunk)
    }

    /// Reads until the connection closes; returns the remaining bytes.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        while self.fill().await {}
        std::mem::take(&mut self.buffer)
    }

    /// Waits for the connection to close, before which no bytes may arrive.
    #[track_caller]
    pub(crate) fn closed(&mut self) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let rest = self.rest().await;
            assert!(
                rest.is_empty(),
                "{caller}: {:?} came",
                String::from_utf8_lossy(&rest)
            );
        }
    }
}

/// One GET on a new connection.
pub(crate) async fn get(address: SocketAddr, target: &str, fields: &[(&str, &str)]) -> Reply {
    Wire::connect(address).await.get(target, fields).await
}

/// The bytes of a request; a missing Host, and the Content-Length of a body, are added.
pub(crate) fn request(
    method: &str,
    target: &str,
    fields: &[(&str, &str)],
    body: impl AsRef<[u8]>,
) -> Vec<u8> {
    let body = body.as_ref();
    let mut head = format!("{method} {target} HTTP/1.1\r\n");
    if !fields
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("host"))
    {
        head += "Host: gateway.test\r\n";
    }
    for (name, value) in fields {
        head += &format!("{name}: {value}\r\n");
    }
    if !body.is_empty() {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    head += "\r\n";
    [head.as_bytes(), body].concat()
}

/// A chunk.
pub(crate) fn chunked(data: impl AsRef<[u8]>) -> Vec<u8> {
    let data = data.as_ref();
    [format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat()
}

/// The lines of a head as lower-case names and values.
pub(crate) fn parse_fields(text: &str) -> Vec<(String, String)> {
    text.split("\r\n")
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect()
}
