//! An HTTP/1.1 connection to an app (RFC 9112), written for this one use: a head and the first piece of its body are
//! sent in one write; a response's header values and the first piece of its body are slices of the read buffer, whose
//! memory is reused once they are dropped; and no task, channel or lock stands between the request and its socket.
//! Which connection a request gets, and what its fields are, is decided elsewhere.

mod answer;
mod head;
#[cfg(any(test, fuzzing))]
mod properties;
#[cfg(test)]
mod tests;

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, Method};
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, Sleep};

pub(super) use self::answer::AnswerFrames;
pub(super) use self::head::AnswerHead;
use self::head::Parsed;
#[cfg(any(test, fuzzing))]
pub(crate) use self::properties::answer_holds;
use super::headers::Fields;
use super::outgoing::Outgoing;
use crate::message::body::BodyError;
use crate::net::stream::Stream;
use crate::wire::{SPARE_FIELDS, SendFault, Sending, poll_until};

/// The first read of a response: its head, and for most responses all of it.
const FIRST_READ: usize = 8 * 1024;
/// The longest head of a response.
const LONGEST_HEAD: usize = 64 * 1024;
/// How many interim responses (1xx) may come before the final one.
const MOST_INTERIM: usize = 16;

/// A connection to an app.
#[derive(Debug)]
pub(super) struct Connection {
    stream: Stream,
    /// The part of the response's head that was read; empty between two requests.
    read: BytesMut,
    /// Output that is not sent yet; empty between two requests, but its memory is kept.
    write: Vec<u8>,
    /// The progress of sending the current request.
    sending: Sending<Outgoing>,
    /// How many pieces of its body had been sent when the last one was, and when that was.
    last_piece: Option<(u64, Instant)>,
    /// The current request cannot be sent completely; a response may still arrive.
    deaf: bool,
    /// Not a byte of the current request could be sent.
    unsent: bool,
    /// An empty map for the fields of the next response.
    spare: Option<HeaderMap>,
    /// The deadline of the response's head. It is reset when it fires, not for each request.
    timer: Option<Pin<Box<Sleep>>>,
    /// Whether the last response might be followed by a body that it must not have.
    suspect: bool,
    /// How long the app announced that it keeps the connection.
    rests: Option<Duration>,
}

impl Connection {
    /// A connection over an open stream.
    pub(super) fn new(stream: Stream) -> Self {
        Self {
            stream,
            read: BytesMut::new(),
            write: Vec::new(),
            sending: Sending::nothing(),
            last_piece: None,
            deaf: false,
            unsent: false,
            spare: None,
            timer: None,
            suspect: false,
            rests: None,
        }
    }

    /// Whether the app has sent nothing since its last response, nor closed, as far as the event loop knows.
    pub(super) fn is_quiet(&self) -> bool {
        self.read.is_empty() && self.stream.is_quiet()
    }

    /// The same, by querying the system.
    pub(super) fn is_silent(&self) -> bool {
        self.read.is_empty() && self.stream.is_silent()
    }

    /// Whether the app has sent bytes after its last response.
    pub(super) fn has_bytes(&self) -> bool {
        !self.read.is_empty() || self.stream.has_bytes()
    }

    /// Whether the last response has no body by its status alone. Such a connection should not be reused at once: a
    /// body that was sent all the same would be read as the next response.
    pub(super) fn is_suspect(&self) -> bool {
        self.suspect
    }

    /// How long the connection may be idle according to the last response.
    pub(super) fn rests(&self) -> Option<Duration> {
        self.rests
    }
}

/// The head of a request as it is sent to the app.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestHead<'a> {
    /// The method.
    pub(super) method: &'a Method,
    /// Path and query.
    pub(super) target: &'a str,
    /// The fields, without those that frame the body.
    pub(super) fields: &'a Fields<'a>,
}

/// Why there is no response.
#[derive(Debug)]
pub(super) enum Fault {
    /// The connection ended before the first byte of a response.
    Gone(io::Error),
    /// The response is not HTTP, or ends within its head.
    Malformed(&'static str),
    /// The response did not arrive in time.
    Late,
    /// The client's side of the request failed.
    Client(BodyError),
}

/// One request on one connection, and its response. Dropping it closes the connection, which tells the app that the
/// response is no longer wanted.
///
/// All of its state is in the box, so that it is cheap to move.
#[derive(Debug)]
pub(super) struct Exchange {
    connection: Box<Connection>,
}

impl Exchange {
    /// Starts a request; nothing is written until the response is awaited.
    pub(super) fn begin(
        mut connection: Box<Connection>,
        head: RequestHead<'_>,
        body: Outgoing,
    ) -> Self {
        connection.read.clear();
        connection.write.clear();
        let framing = head::write(&mut connection.write, head, &body);
        connection.sending = Sending::new(body, framing);
        connection.last_piece = None;
        connection.deaf = false;
        connection.unsent = false;
        Self { connection }
    }

    /// Whether the app accepted not a byte of the request, so that it cannot have processed it.
    pub(super) fn is_unsent(&self) -> bool {
        self.connection.unsent
    }

    /// Sends, and waits for the head of the final response: until `response` after `since`, or after the last piece of
    /// the request that was ready to be sent, whichever is later.
    ///
    /// # Errors
    /// Why there will be no response.
    pub(super) async fn answer(
        &mut self,
        is_head: bool,
        since: Instant,
        response: Duration,
    ) -> Result<Box<AnswerHead>, Fault> {
        let mut interim = 0;
        poll_fn(|cx| self.poll_answer(cx, is_head, since, response, &mut interim)).await
    }

    fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
        is_head: bool,
        since: Instant,
        response: Duration,
        interim: &mut usize,
    ) -> Poll<Result<Box<AnswerHead>, Fault>> {
        if let Err(error) = self.poll_send(cx) {
            return Poll::Ready(Err(Fault::Client(error)));
        }
        loop {
            match self.poll_read_head(cx) {
                Poll::Ready(Ok(0)) => {
                    return Poll::Ready(Err(self.ended(io::ErrorKind::UnexpectedEof.into())));
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(self.ended(error))),
                Poll::Pending => {
                    ready!(self.poll_deadline(cx, since, response));
                    return Poll::Ready(Err(Fault::Late));
                }
            }
            loop {
                let mut all = self.connection.read.split().freeze();
                match head::parse(&all, is_head, &mut self.connection.spare) {
                    Ok(Parsed::Final(mut head, length)) => {
                        all.advance(length);
                        head.rest = all;
                        return Poll::Ready(Ok(head));
                    }
                    Ok(Parsed::Interim(length)) => {
                        // It is not forwarded: the client gets a 100 when its body is wanted.
                        *interim += 1;
                        if *interim > MOST_INTERIM {
                            return Poll::Ready(Err(Fault::Malformed("too many 1xx responses")));
                        }
                        all.advance(length);
                        self.put_back(all);
                    }
                    Ok(Parsed::Partial) if all.len() > LONGEST_HEAD => {
                        return Poll::Ready(Err(Fault::Malformed("the head is too long")));
                    }
                    Ok(Parsed::Partial) => {
                        self.put_back(all);
                        break;
                    }
                    Err(what) => return Poll::Ready(Err(Fault::Malformed(what))),
                }
            }
        }
    }

    /// Continues reading after these bytes, in their own memory.
    fn put_back(&mut self, bytes: Bytes) {
        self.connection.read = BytesMut::new();
        self.connection.read = BytesMut::from(bytes);
    }

    /// The connection ended before a complete head.
    fn ended(&self, error: io::Error) -> Fault {
        if self.connection.read.is_empty() {
            Fault::Gone(error)
        } else {
            Fault::Malformed("the head is incomplete")
        }
    }

    fn poll_read_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Connection { stream, read, .. } = &mut *self.connection;
        if read.capacity() - read.len() < FIRST_READ / 2 {
            read.reserve(FIRST_READ);
        }
        pin!(stream.read_buf(read)).poll(cx)
    }

    /// Ready when the response is late. It is not while the client still has to send, which has a deadline of its own.
    fn poll_deadline(
        &mut self,
        cx: &mut Context<'_>,
        since: Instant,
        response: Duration,
    ) -> Poll<()> {
        let Connection { sending, write, .. } = &*self.connection;
        if sending.waits_for_body(write) {
            return Poll::Pending;
        }
        let last_piece = self.connection.last_piece;
        let since = last_piece.map_or(since, |(_, at)| at.max(since));
        let deadline = since + response;
        poll_until(&mut self.connection.timer, cx, deadline)
    }

    /// Sends what can be sent now. It is not an error if the app does not read: it may have responded already.
    ///
    /// # Errors
    /// The client's side of the request failed.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Result<(), BodyError> {
        let Connection {
            stream,
            write,
            sending,
            last_piece,
            deaf,
            unsent,
            ..
        } = &mut *self.connection;
        if *deaf || sending.is_done() {
            return Ok(());
        }
        let sent = sending.poll(cx, stream, write);
        let pieces = sending.pieces();
        if pieces > last_piece.map_or(0, |(known, _)| known) {
            *last_piece = Some((pieces, Instant::now()));
        }
        match sent {
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
            Poll::Ready(Err(SendFault::Reader(error))) => {
                tracing::debug!(%error, "the app stopped reading a request");
                *deaf = true;
                *unsent = sending.taken() == 0;
                *sending = Sending::nothing();
                Ok(())
            }
            Poll::Ready(Err(SendFault::Body(error))) => {
                *deaf = true;
                *sending = Sending::nothing();
                Err(error)
            }
        }
    }

    /// The connection, if all of the request was sent over it.
    fn finish(self) -> Option<Box<Connection>> {
        let Self { mut connection } = self;
        if connection.deaf || !connection.sending.is_done() {
            return None;
        }
        connection.read.clear();
        connection.sending = Sending::nothing();
        Some(connection)
    }

    /// Keeps a map for the fields of the connection's next response.
    pub(super) fn keep_table(&mut self, mut table: HeaderMap) {
        if table.capacity() <= SPARE_FIELDS {
            table.clear();
            self.connection.spare = Some(table);
        }
    }

    /// The stream of a connection that switched protocols.
    pub(super) fn into_stream(self) -> Stream {
        self.connection.stream
    }
}
