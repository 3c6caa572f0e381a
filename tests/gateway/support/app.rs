//! A scripted app behind the gateway: records requests and sends the scripted responses.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc::Receiver;
use tokio::task::{JoinHandle, JoinSet};

use super::wire::{Stream, parse_fields};
use super::{eventually, find, local};

/// The app's response to a request.
pub(crate) enum Answer {
    /// 200 with this body.
    Ok(&'static str),
    /// 200 with the received head and body.
    Echo,
    /// 200 with the received body.
    EchoBody,
    /// These bytes as they are; the connection stays open.
    Raw(Vec<u8>),
    /// The result of this function for the complete request, as it is; the connection stays open.
    Made(fn(&Seen) -> Vec<u8>),
    /// These bytes as they are, then closes the connection.
    RawThenClose(Vec<u8>),
    /// The channel's pieces, as they are; the connection closes with the channel.
    Stream(Receiver<Vec<u8>>),
    /// The same, before the request's body has arrived.
    Early(Receiver<Vec<u8>>),
    /// 101, then echoes every byte.
    Upgrade,
    /// 403 as soon as the head has arrived; a body is read and discarded.
    Refuse,
    /// No response, until the gateway closes.
    Silent,
    /// No response, and the body is not read.
    Stall,
    /// Closes the connection without a byte.
    Close,
}

/// A request as received by the app.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// The head without its last empty line.
    pub(crate) head: String,
    /// The body, dechunked.
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: String,
    /// How many requests preceded it on its connection.
    pub(crate) nth: usize,
    /// Whether the whole body arrived.
    pub(crate) complete: bool,
    /// Whether the whole response was sent.
    pub(crate) answered: bool,
    /// Whether the gateway closed before the end of the response.
    pub(crate) gone: bool,
}

impl Seen {
    /// The request line.
    pub(crate) fn line(&self) -> &str {
        self.head.lines().next().unwrap()
    }

    pub(crate) fn method(&self) -> &str {
        self.line().split(' ').next().unwrap()
    }

    pub(crate) fn target(&self) -> &str {
        self.line().split(' ').nth(1).unwrap()
    }

    /// The values of all fields of this name, given in lower case.
    pub(crate) fn all(&self, name: &str) -> Vec<String> {
        let fields = parse_fields(&self.head);
        fields
            .into_iter()
            .filter(|(known, _)| known == name)
            .map(|(_, value)| value)
            .collect()
    }

    /// The values of a field, joined.
    pub(crate) fn field(&self, name: &str) -> Option<String> {
        let all = self.all(name);
        (!all.is_empty()).then(|| all.join(", "))
    }
}

type Script = dyn Fn(&Seen) -> Answer + Send + Sync;

struct State {
    script: Box<Script>,
    seen: Mutex<Vec<Seen>>,
    connections: AtomicUsize,
    open: AtomicUsize,
}

/// The app. Dropping it closes its connections.
pub(crate) struct App {
    address: Option<SocketAddr>,
    state: Arc<State>,
    task: JoinHandle<()>,
}

impl App {
    /// Starts an app on a free port.
    pub(crate) async fn start(script: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Self {
        Self::start_on(0, script).await
    }

    /// Starts an app that echoes requests.
    pub(crate) async fn echo() -> Self {
        Self::start(|_| Answer::Echo).await
    }

    /// Starts an app on this port.
    pub(crate) async fn start_on(
        port: u16,
        script: impl Fn(&Seen) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(local(port)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = State::new(script);
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).ok();
                connections.spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        Self {
            address: Some(address),
            state,
            task,
        }
    }

    /// Starts an app on a Unix socket.
    pub(crate) fn start_unix(
        path: &Path,
        script: impl Fn(&Seen) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let state = State::new(script);
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        Self {
            address: None,
            state,
            task,
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.unwrap().port()
    }

    /// `http://127.0.0.1:PORT`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address.unwrap())
    }

    /// All requests so far, in the order of their heads.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }

    /// The last request.
    pub(crate) fn last(&self) -> Seen {
        self.seen().pop().expect("the app has seen nothing")
    }

    /// Waits for a request with this target that satisfies `wanted`.
    pub(crate) async fn saw(&self, target: &str, wanted: impl Fn(&Seen) -> bool) -> Seen {
        eventually(&format!("the app to see {target}"), async || {
            self.seen()
                .into_iter()
                .find(|seen| seen.target() == target && wanted(seen))
        })
        .await
    }

    /// The number of requests so far.
    pub(crate) fn requests(&self) -> usize {
        self.state.seen.lock().unwrap().len()
    }

    /// The number of connections ever accepted.
    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// The number of open connections.
    pub(crate) fn open(&self) -> usize {
        self.state.open.load(Ordering::SeqCst)
    }

    /// Stops the app at once, with all its connections, and frees its port.
    pub(crate) async fn stop(self) {
        self.task.abort();
        eventually("the app's end", async || {
            self.task.is_finished().then_some(())
        })
        .await;
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl State {
    fn new(script: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            script: Box::new(script),
            seen: Mutex::default(),
            connections: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
        })
    }
}

async fn serve(stream: impl Stream, state: Arc<State>) {
    state.connections.fetch_add(1, Ordering::SeqCst);
    state.open.fetch_add(1, Ordering::SeqCst);
    let open = Arc::clone(&state);
    let mut connection = Connection {
        stream,
        buffer: Vec::new(),
        at: 0,
        state,
    };
    let mut nth = 0;
    while connection.exchange(nth).await.is_some() {
        nth += 1;
    }
    open.open.fetch_sub(1, Ordering::SeqCst);
}

struct Connection<S> {
    stream: S,
    buffer: Vec<u8>,
    /// The index of the current request among all.
    at: usize,
    state: Arc<State>,
}

impl<S: Stream> Connection<S> {
    /// Handles one request; `None` when the connection is closed.
    async fn exchange(&mut self, nth: usize) -> Option<()> {
        let head = self.until(b"\r\n\r\n").await?;
        let head = String::from_utf8_lossy(&head[..head.len() - 4]).into_owned();
        let seen = Seen {
            head,
            nth,
            ..Seen::default()
        };
        self.at = {
            let mut all = self.state.seen.lock().unwrap();
            all.push(seen.clone());
            all.len() - 1
        };
        let answer = (self.state.script)(&seen);
        let answer = match answer {
            Answer::Close => return None,
            Answer::Stall => std::future::pending().await,
            Answer::Early(pieces) => return self.pour(pieces).await,
            Answer::Refuse => {
                let refusal = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno";
                if !self.answer(refusal).await {
                    return None;
                }
                return self.body(&seen).await;
            }
            later => later,
        };
        let complete = self.body(&seen).await.is_some();
        self.note(|seen| {
            if complete {
                seen.complete = true;
            } else {
                seen.gone = true;
            }
        });
        if !complete {
            return None;
        }
        let bytes = match answer {
            Answer::Ok(body) => ok(body.as_bytes()),
            Answer::Echo => {
                let seen = self.seen();
                ok(&[seen.head.as_bytes(), b"\r\n\r\n", &seen.body].concat())
            }
            Answer::EchoBody => ok(&self.seen().body),
            Answer::Raw(bytes) => bytes,
            Answer::Made(make) => make(&self.seen()),
            Answer::RawThenClose(bytes) => {
                self.answer(&bytes).await;
                return None;
            }
            Answer::Stream(pieces) => return self.pour(pieces).await,
            Answer::Upgrade => return self.tunnel().await,
            Answer::Silent | Answer::Stall | Answer::Close | Answer::Early(_) | Answer::Refuse => {
                while self.fill().await.is_some() {}
                self.note(|seen| seen.gone = true);
                return None;
            }
        };
        let end = find(&bytes, b"\r\n\r\n").map_or(bytes.len(), |at| at + 4);
        let bytes = if seen.method() == "HEAD" {
            &bytes[..end]
        } else {
            &bytes
        };
        self.answer(bytes).await.then_some(())
    }

    async fn answer(&mut self, bytes: &[u8]) -> bool {
        let taken = self.stream.write_all(bytes).await.is_ok() && self.stream.flush().await.is_ok();
        self.note(|seen| {
            if taken {
                seen.answered = true;
            } else {
                seen.gone = true;
            }
        });
        taken
    }

    /// Writes the channel's pieces, and detects when the gateway closes.
    async fn pour(&mut self, mut pieces: Receiver<Vec<u8>>) -> Option<()> {
        let mut nothing = [0; 16];
        let (mut read, mut write) = tokio::io::split(&mut self.stream);
        let gone = loop {
            tokio::select! {
                piece = pieces.recv() => {
                    let Some(piece) = piece else { break false };
                    if write.write_all(&piece).await.is_err() || write.flush().await.is_err() {
                        break true;
                    }
                }
                read = read.read(&mut nothing) => if !matches!(read, Ok(1..)) { break true }, // otherwise a late body
            }
        };
        self.note(|seen| {
            if gone {
                seen.gone = true;
            } else {
                seen.answered = true;
            }
        });
        None
    }

    async fn tunnel(&mut self) -> Option<()> {
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
            Upgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
        self.stream.write_all(answer).await.ok()?;
        loop {
            self.stream.write_all(&self.buffer).await.ok()?;
            self.buffer.clear();
            if self.fill().await.is_none() {
                self.note(|seen| seen.gone = true);
                return None;
            }
        }
    }

    /// Reads the body, and records each piece as it arrives.
    async fn body(&mut self, seen: &Seen) -> Option<()> {
        if seen.field("transfer-encoding").is_some() {
            loop {
                let line = String::from_utf8(self.until(b"\r\n").await?).ok()?;
                let length = usize::from_str_radix(line.trim_end(), 16).ok()?;
                if length == 0 {
                    break;
                }
                self.take(length).await?;
                self.until(b"\r\n").await?;
            }
            loop {
                let line = self.until(b"\r\n").await?;
                if line == b"\r\n" {
                    return Some(());
                }
                self.note(|seen| seen.trailers += &String::from_utf8_lossy(&line));
            }
        }
        let length = seen
            .field("content-length")
            .map_or(Some(0), |length| length.parse().ok())?;
        self.take(length).await
    }

    async fn take(&mut self, mut length: usize) -> Option<()> {
        while length > 0 {
            if self.buffer.is_empty() {
                self.fill().await?;
            }
            let here = length.min(self.buffer.len());
            let piece: Vec<u8> = self.buffer.drain(..here).collect();
            self.note(|seen| seen.body.extend(piece));
            length -= here;
        }
        Some(())
    }

    async fn until(&mut self, needle: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = find(&self.buffer, needle) {
                return Some(self.buffer.drain(..at + needle.len()).collect());
            }
            self.fill().await?;
        }
    }

    /// Reads more; `None` when the gateway has closed.
    async fn fill(&mut self) -> Option<()> {
        let read = self.stream.read_buf(&mut self.buffer).await;
        if matches!(read, Ok(1..)) {
            return Some(());
        }
        None
    }

    fn seen(&self) -> Seen {
        self.state.seen.lock().unwrap()[self.at].clone()
    }

    fn note(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.state.seen.lock().unwrap()[self.at]);
    }
}

fn ok(body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}
