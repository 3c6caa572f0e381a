//! HTTP/2 clients: hyper's, with prior knowledge over plain TCP, or over a TLS stream; and one that writes frames by
//! hand, and can misbehave.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http::Request;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::wire::Stream;
use super::{DEADLINE, Reply, within};

/// One connection.
#[derive(Clone)]
pub(crate) struct H2(SendRequest<UnsyncBoxBody<Bytes, Infallible>>);

impl H2 {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream).await
    }

    pub(crate) async fn over(stream: impl Stream + 'static) -> Self {
        let io = TokioIo::new(stream);
        let (send, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        Self(send)
    }

    /// Waits until the gateway ends the connection.
    pub(crate) async fn ended(&mut self) {
        let ended = async {
            while self.0.ready().await.is_ok() {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        within(DEADLINE, ended)
            .await
            .expect("the HTTP/2 connection goes on");
    }

    pub(crate) async fn get(&mut self, path: &str, fields: &[(&str, &str)]) -> Reply {
        self.send("GET", path, fields, Full::default()).await
    }

    /// Sends a request and reads the complete response.
    pub(crate) async fn send<B>(
        &mut self,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
        body: B,
    ) -> Reply
    where
        B: hyper::body::Body<Data = Bytes, Error = Infallible> + Send + 'static,
    {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://gateway.test{path}"));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = request.body(body.boxed_unsync()).unwrap();
        within(DEADLINE, async {
            self.0
                .ready()
                .await
                .expect("the HTTP/2 connection has ended");
            let response = self
                .0
                .send_request(request)
                .await
                .expect("no HTTP/2 response");
            let (parts, body) = response.into_parts();
            let body = body.collect().await.expect("the HTTP/2 response broke off");
            let trailers = body.trailers().map(pairs).unwrap_or_default();
            let body = body.to_bytes().to_vec();
            Reply {
                status: parts.status.as_u16(),
                fields: pairs(&parts.headers),
                body,
                trailers,
            }
        })
        .await
        .expect("no whole HTTP/2 response in time")
    }
}

fn pairs(map: &http::HeaderMap) -> Vec<(String, String)> {
    map.iter()
        .map(|(name, value)| {
            (
                name.to_string(),
                String::from_utf8_lossy(value.as_bytes()).into_owned(),
            )
        })
        .collect()
}

/// A frame: its type (RFC 9113 section 6), flags, stream and payload.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const WINDOW_UPDATE: u8 = 8;
    pub(crate) const CONTINUATION: u8 = 9;
    pub(crate) const END_STREAM: u8 = 1;
    pub(crate) const END_HEADERS: u8 = 4;

    pub(crate) fn new(kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Self {
        let payload = payload.into();
        Self {
            kind,
            flags,
            stream,
            payload,
        }
    }

    /// A complete head; it ends the stream if `ends`.
    pub(crate) fn head(stream: u32, ends: bool, fields: &[(&str, &[u8])]) -> Self {
        let flags = Self::END_HEADERS | u8::from(ends);
        Self::new(Self::HEADERS, flags, stream, block(fields))
    }

    pub(crate) fn get(stream: u32, path: &str) -> Self {
        Self::head(stream, true, &fields_of("GET", path))
    }

    pub(crate) fn reset(stream: u32) -> Self {
        Self::new(Self::RST_STREAM, 0, stream, 8_u32.to_be_bytes())
    }

    pub(crate) fn window(stream: u32, more: u32) -> Self {
        Self::new(Self::WINDOW_UPDATE, 0, stream, more.to_be_bytes())
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let length = u32::try_from(self.payload.len()).unwrap().to_be_bytes();
        let mut bytes = length[1..].to_vec();
        bytes.extend([self.kind, self.flags]);
        bytes.extend(self.stream.to_be_bytes());
        bytes.extend(&self.payload);
        bytes
    }

    pub(crate) fn is(&self, kind: u8, stream: u32) -> bool {
        (self.kind, self.stream) == (kind, stream)
    }

    pub(crate) fn ends_stream(&self) -> bool {
        self.kind <= Self::HEADERS && self.flags & Self::END_STREAM != 0
    }

    /// The last stream and the code of a GOAWAY; zero and the code of a RST_STREAM.
    pub(crate) fn codes(&self) -> (u32, u32) {
        let number = |at: usize| {
            let bytes = self.payload.get(at..at + 4)?;
            Some(u32::from_be_bytes(bytes.try_into().unwrap()))
        };
        match self.kind {
            Self::RST_STREAM => (0, number(0).unwrap()),
            _ => (number(0).unwrap(), number(4).unwrap()),
        }
    }
}

/// The pseudo-header fields of a well-behaved client's request.
pub(crate) fn fields_of<'a>(method: &'a str, path: &'a str) -> [(&'static str, &'a [u8]); 4] {
    [
        (":method", method.as_bytes()),
        (":scheme", b"http"),
        (":authority", b"gateway.test"),
        (":path", path.as_bytes()),
    ]
}

/// A block of literal fields (RFC 7541 section 6.2.2).
pub(crate) fn block(fields: &[(&str, &[u8])]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name.as_bytes(), value] {
            // A length of seven bits or more (section 5.1).
            if text.len() < 127 {
                block.push(u8::try_from(text.len()).unwrap());
            } else {
                block.push(127);
                let mut rest = text.len() - 127;
                while rest >= 128 {
                    block.push(u8::try_from(rest % 128).unwrap() | 0x80);
                    rest /= 128;
                }
                block.push(u8::try_from(rest).unwrap());
            }
            block.extend_from_slice(text);
        }
    }
    block
}

/// A connection with handwritten frames.
pub(crate) struct Framed {
    stream: Box<dyn Stream>,
    buffer: Vec<u8>,
}

impl Framed {
    /// Opens a connection with these settings (RFC 9113 section 6.5.2).
    pub(crate) async fn connect(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream, settings).await
    }

    pub(crate) async fn over(stream: impl Stream + 'static, settings: &[(u16, u32)]) -> Self {
        let mut framed = Self {
            stream: Box::new(stream),
            buffer: Vec::new(),
        };
        let mut payload = Vec::new();
        for (key, value) in settings {
            payload.extend(key.to_be_bytes());
            payload.extend(value.to_be_bytes());
        }
        framed.send_bytes(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        framed
            .send(&[Frame::new(Frame::SETTINGS, 0, 0, payload)])
            .await;
        framed
    }

    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        self.try_send(bytes).await.expect("the gateway has closed");
    }

    pub(crate) async fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let send = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        within(DEADLINE, send)
            .await
            .expect("the gateway took no bytes in time")
    }

    /// Sends frames in one write.
    pub(crate) async fn send(&mut self, frames: &[Frame]) {
        let bytes: Vec<u8> = frames.iter().flat_map(Frame::bytes).collect();
        self.send_bytes(&bytes).await;
    }

    /// The next frame; `None` at the end of the connection.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.take() {
                return Some(frame);
            }
            let read = within(DEADLINE, self.stream.read_buf(&mut self.buffer)).await;
            match read.expect("no frame came in time") {
                Ok(1..) => {}
                Ok(0) | Err(_) => return None,
            }
        }
    }

    fn take(&mut self) -> Option<Frame> {
        let head = self.buffer.get(..9)?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let (kind, flags) = (head[3], head[4]);
        let stream = u32::from_be_bytes(head[5..9].try_into().unwrap());
        let payload = self.buffer.get(9..9 + length)?.to_vec();
        self.buffer.drain(..9 + length);
        Some(Frame::new(kind, flags, stream, payload))
    }

    /// Reads until a frame matches.
    pub(crate) async fn until(&mut self, mut wanted: impl FnMut(&Frame) -> bool) -> Frame {
        loop {
            let frame = self.next().await.expect("the connection has ended");
            if wanted(&frame) {
                return frame;
            }
        }
    }

    /// Reads all frames until the connection closes.
    pub(crate) async fn rest(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.next().await {
            frames.push(frame);
        }
        frames
    }

    /// Reads a response to its end; returns its status, zero if it is not written literally, and its body. `None` if
    /// the stream is reset or the connection closes.
    pub(crate) async fn answer(&mut self, stream: u32) -> Option<(u16, Vec<u8>)> {
        let (mut status, mut body) = (0, Vec::new());
        loop {
            let frame = self.next().await?;
            if frame.stream != stream {
                continue;
            }
            match frame.kind {
                Frame::HEADERS => status = status_of(&frame.payload),
                Frame::DATA => body.extend(&frame.payload),
                Frame::RST_STREAM => return None,
                _ => {}
            }
            if frame.ends_stream() {
                return Some((status, body));
            }
        }
    }
}

/// The status at the start of a field block, as servers write it (RFC 7541 appendix A); zero if it refers to the
/// dynamic table.
pub(crate) fn status_of(block: &[u8]) -> u16 {
    // A table size update may come first.
    let block = if block[0] & 0xe0 == 0x20 {
        &block[1..]
    } else {
        block
    };
    match block[0] {
        0x88 => 200,
        0x89 => 204,
        0x8a => 206,
        0x8b => 304,
        0x8c => 400,
        0x8d => 404,
        0x8e => 500,
        // A literal with the name of entry 8; three digits, raw or Huffman-coded: digits have five or six bits.
        0x48 | 0x08 if block[1] == 3 => std::str::from_utf8(&block[2..5]).unwrap().parse().unwrap(),
        0x48 | 0x08 => {
            let length = usize::from(block[1] & 0x7f);
            let bits: Vec<bool> = block[2..2 + length]
                .iter()
                .flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1 == 1))
                .collect();
            let take = |at: usize, count: usize| {
                bits[at..at + count]
                    .iter()
                    .fold(0_u16, |sum, bit| sum << 1 | u16::from(*bit))
            };
            let (mut at, mut status) = (0, 0);
            for _ in 0..3 {
                let short = take(at, 5);
                let digit = if short < 3 {
                    at += 5;
                    short
                } else {
                    at += 6;
                    take(at - 6, 6) - 0x19 + 3
                };
                status = status * 10 + digit;
            }
            status
        }
        // A status sent before, now in the dynamic table.
        0xbe.. => 0,
        other => panic!("a strange status: {other:#x}"),
    }
}
