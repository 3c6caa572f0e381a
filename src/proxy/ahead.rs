//! Reads a response ahead while its client is not reading, so that the app is free sooner. Forwarding is never delayed;
//! which responses are read ahead is decided elsewhere.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::blocks::Blocks;
use crate::message::body::{BodyError, Carry};

/// How many bytes of a response are read at a time where many may wait for their clients.
const GENTLE: usize = 32 * 1024;

/// A response whose reads can be made smaller.
pub(crate) trait Paced {
    /// Limits the current read size to `most`.
    fn read_at_most(&mut self, most: usize);

    /// Reads in small pieces for now, because no client waits for them.
    fn read_less(&mut self);
}

/// A response that is read ahead while its client is not reading, by the task that sends it.
#[derive(Debug)]
pub(crate) struct Ahead<A> {
    answer: A,
    blocks: Blocks,
    memory: usize,
    /// Whether only little may be read ahead of the client.
    gentle: bool,
    /// What followed the blocks: trailers, or the error that ended the body.
    last: Option<Result<Frame<Bytes>, BodyError>>,
}

impl<A> Ahead<A> {
    /// Reads `memory` bytes ahead, and what arrives with the last of them.
    pub(crate) fn new(answer: A, memory: usize) -> Self {
        Self {
            answer,
            blocks: Blocks::default(),
            memory,
            gentle: false,
            last: None,
        }
    }
}

impl<A> Body for Ahead<A>
where
    A: Body<Data = Bytes, Error = BodyError> + Paced + Unpin,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(piece) = self.blocks.pop() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        if let Some(last) = self.last.take() {
            return Poll::Ready(Some(last));
        }
        if self.gentle {
            self.answer.read_at_most(GENTLE);
        }
        Pin::new(&mut self.answer).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.blocks.len == 0 && self.last.is_none() && self.answer.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let held = self.blocks.len as u64;
        match self.answer.size_hint().exact() {
            Some(rest) if self.last.is_none() => SizeHint::with_exact(held.saturating_add(rest)),
            _ => SizeHint::new(),
        }
    }
}

impl<A> Carry for Ahead<A>
where
    A: Body<Data = Bytes, Error = BodyError> + Paced + Unpin,
{
    fn go_gently(self: Pin<&mut Self>) {
        self.get_mut().gentle = true;
    }

    fn ahead(&self) -> usize {
        self.blocks.len
    }

    fn poll_ahead(self: Pin<&mut Self>, cx: &mut Context<'_>) {
        let this = self.get_mut();
        while this.last.is_none() && this.blocks.len < this.memory && !this.answer.is_end_stream() {
            this.answer.read_less();
            match Pin::new(&mut this.answer).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(piece) => this.blocks.push(piece),
                    Err(frame) => this.last = Some(Ok(frame)),
                },
                Poll::Ready(Some(Err(error))) => this.last = Some(Err(error)),
                Poll::Ready(None) | Poll::Pending => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    /// Yields its pieces, then the end or an error.
    struct Pieces(Vec<Result<usize, BodyError>>, usize);

    impl Body for Pieces {
        type Data = Bytes;
        type Error = BodyError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
            if self.0.is_empty() {
                return Poll::Ready(None);
            }
            let next = self.0.remove(0);
            Poll::Ready(Some(
                next.map(|length| Frame::data(vec![b'x'; length].into())),
            ))
        }

        fn is_end_stream(&self) -> bool {
            self.0.is_empty()
        }
    }

    impl Paced for Pieces {
        fn read_at_most(&mut self, _: usize) {}

        fn read_less(&mut self) {
            self.1 += 1;
        }
    }

    /// Polls ahead `polls` times, then reads everything: the bytes read ahead, the total, and whether it failed.
    async fn read(pieces: Vec<Result<usize, BodyError>>, polls: usize) -> (usize, usize, bool) {
        let mut ahead = Ahead::new(Pieces(pieces, 0), 100);
        for _ in 0..polls {
            poll_fn(|cx| {
                Pin::new(&mut ahead).poll_ahead(cx);
                Poll::Ready(())
            })
            .await;
        }
        let held = ahead.blocks.len;
        let mut length = 0;
        loop {
            match poll_fn(|cx| Pin::new(&mut ahead).poll_frame(cx)).await {
                Some(Ok(frame)) => length += frame.into_data().unwrap().len(),
                Some(Err(_)) => return (held, length, true),
                None => {
                    assert!(ahead.is_end_stream());
                    return (held, length, false);
                }
            }
        }
    }

    #[tokio::test]
    async fn so_much_is_read_ahead_and_all_is_given_in_order() {
        let many = || (0..100).map(|_| Ok(30)).collect::<Vec<_>>();
        assert_eq!(read(many(), 0).await, (0, 3000, false));
        for polls in [1, 5] {
            assert_eq!(read(many(), polls).await, (120, 3000, false));
            assert_eq!(read(vec![Ok(30)], polls).await, (30, 30, false));
            let broken = vec![Ok(30), Err(BodyError::UpstreamIdle)];
            assert_eq!(read(broken, polls).await, (30, 30, true));
        }
    }
}
