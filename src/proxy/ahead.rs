//! An answer is read ahead while its client takes nothing, so that its app is free sooner. What is passed on is never
//! delayed; which answers are read ahead is decided elsewhere.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::blocks::Blocks;
use super::buffer::let_go;
use super::spool::SpoolReader;
use crate::body::{BodyError, Carry};

/// An answer that can be told to read less at a time.
pub(crate) trait Paced {
    /// Reads in small pieces for now: nobody waits for them.
    fn read_less(&mut self);
}

/// An answer that is read ahead while its client takes nothing, in the task that sends it.
#[derive(Debug)]
pub(crate) struct Ahead<A> {
    answer: A,
    blocks: Blocks,
    memory: usize,
    /// What came behind the blocks: trailers, or why there is no more.
    last: Option<Result<Frame<Bytes>, BodyError>>,
}

impl<A> Ahead<A> {
    /// Reads `memory` bytes ahead, and what comes with the last of them.
    pub(crate) fn new(answer: A, memory: usize) -> Self {
        Self {
            answer,
            blocks: Blocks::default(),
            memory,
            last: None,
        }
    }
}

impl<A> Body for Ahead<A>
where
    A: Body<Data = Bytes, Error = BodyError> + Unpin,
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

/// An answer that is read ahead by a task, for clients whose bodies are asked for only when they take something. Most
/// answers are here with their first piece, and need none.
#[derive(Debug)]
pub(crate) struct Handed<A> {
    /// `None` when it was handed over.
    answer: Option<A>,
    taken_in: Option<SpoolReader>,
    memory: usize,
}

impl<A> Handed<A> {
    /// Reads `memory` bytes ahead once the first piece was given.
    pub(crate) fn new(answer: A, memory: usize) -> Self {
        Self {
            answer: Some(answer),
            taken_in: None,
            memory,
        }
    }
}

impl<A> Body for Handed<A>
where
    A: Body<Data = Bytes, Error = BodyError> + Unpin + Send + 'static,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if let Some(reader) = &mut this.taken_in {
            return Pin::new(reader).poll_frame(cx);
        }
        let Some(answer) = &mut this.answer else {
            return Poll::Ready(None);
        };
        let frame = ready!(Pin::new(answer).poll_frame(cx));
        if matches!(&frame, Some(Ok(frame)) if frame.is_data()) {
            let rest = this.answer.take_if(|answer| !answer.is_end_stream());
            this.taken_in = rest.map(|rest| let_go(rest, this.memory, None));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let reader = self.taken_in.as_ref().map(Body::is_end_stream);
        reader
            .or_else(|| self.answer.as_ref().map(Body::is_end_stream))
            .unwrap_or(true)
    }

    fn size_hint(&self) -> SizeHint {
        let reader = self.taken_in.as_ref().map(Body::size_hint);
        reader
            .or_else(|| self.answer.as_ref().map(Body::size_hint))
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    /// Gives its pieces, then an end or a fault.
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
        fn read_less(&mut self) {
            self.1 += 1;
        }
    }

    /// Polls ahead so often; then reads all: its length, and whether it broke.
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
    async fn an_answer_in_several_pieces_is_handed_to_a_task() {
        for (pieces, tasks) in [(1, 0), (2, 0), (100, 1)] {
            let pieces = (0..pieces).map(|_| Ok(30)).collect::<Vec<_>>();
            let whole = 30 * pieces.len();
            let mut handed = Handed::new(Pieces(pieces, 0), 100);
            let mut length = 0;
            while let Some(frame) = poll_fn(|cx| Pin::new(&mut handed).poll_frame(cx)).await {
                if length == 0 {
                    let metrics = tokio::runtime::Handle::current().metrics();
                    assert_eq!(metrics.num_alive_tasks(), tasks);
                }
                length += frame.unwrap().into_data().unwrap().len();
            }
            assert_eq!(length, whole);
            assert!(handed.is_end_stream());
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
