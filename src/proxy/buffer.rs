//! Buffers bodies so that no client occupies an app: a request before connecting to the app, a response before its
//! client requests it; in memory, or in a spool. Which bodies, and what the client is told, is decided elsewhere.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

use super::blocks::Blocks;
use super::spool::{SpoolError, SpoolReader, SpoolShare, SpoolWriter, spool};
use crate::message::body::BodyError;

/// Why a request body could not be buffered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TakeInError {
    /// It could not be stored.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// It was interrupted, or is too long.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// It is longer than the most that is stored per client, which this contains.
    #[error("the body exceeds {0} bytes, the most that is stored per client")]
    NeverFits(u64),
    /// It arrives so slowly that it occupies its space for too long.
    #[error("the body arrives too slowly")]
    Slow,
}

/// The minimum rate of a body in a spool: bytes per period. Slower ones occupy space that others need.
const SLOWEST: (u64, Duration) = (30 << 10, Duration::from_secs(30));

/// Checks whether a stored body arrives fast enough.
#[derive(Debug)]
struct Pace {
    until: Pin<Box<Sleep>>,
    came: u64,
}

impl Pace {
    /// Starts now.
    fn begin() -> Self {
        Self {
            until: Box::pin(sleep(SLOWEST.1)),
            came: 0,
        }
    }

    /// Ready when it has been too slow.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.until.as_mut().poll(cx));
            if self.came < SLOWEST.0 {
                return Poll::Ready(());
            }
            self.came = 0;
            self.until.as_mut().reset(Instant::now() + SLOWEST.1);
        }
    }
}

/// A body whose beginning is in memory, or all of it.
#[derive(Debug)]
pub(crate) struct Held<B> {
    blocks: Blocks,
    /// What follows, if not all of it is in memory.
    rest: Option<B>,
    trailers: Option<HeaderMap>,
}

/// Reads `body` into memory until it has ended, or has more than `memory` bytes. It then holds at most `memory` bytes
/// and one piece.
///
/// # Errors
/// Those of the body.
pub(crate) async fn hold<B>(body: B, memory: usize) -> Result<Held<B>, BodyError>
where
    B: Body<Data = Bytes, Error = BodyError> + Unpin,
{
    let mut body = body;
    let mut held = Held {
        blocks: Blocks::default(),
        rest: None,
        trailers: None,
    };
    while held.trailers.is_none() && !body.is_end_stream() {
        let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await else {
            break;
        };
        match frame?.into_data() {
            Ok(piece) => held.blocks.push(piece),
            Err(frame) => held.trailers = frame.into_trailers().ok(),
        }
        if held.blocks.len > memory {
            held.rest = Some(body);
            break;
        }
    }
    Ok(held)
}

impl<B> Held<B> {
    /// All of the body, if it is one piece in memory and nothing more.
    pub(crate) fn as_one(&self) -> Option<&Bytes> {
        let whole = self.rest.is_none() && self.trailers.is_none();
        self.blocks.as_one().filter(|_| whole)
    }

    /// The same body once more, if all of it is in memory.
    pub(crate) fn again(&mut self) -> Option<Self> {
        self.rest.is_none().then(|| Self {
            blocks: self.blocks.again(),
            rest: None,
            trailers: self.trailers.clone(),
        })
    }
}

impl<B> Body for Held<B>
where
    B: Body<Data = Bytes, Error = BodyError> + Unpin,
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
        if let Some(rest) = &mut self.rest {
            return Pin::new(rest).poll_frame(cx);
        }
        Poll::Ready(
            self.trailers
                .take()
                .map(|trailers| Ok(Frame::trailers(trailers))),
        )
    }

    fn is_end_stream(&self) -> bool {
        let rest = self.rest.as_ref();
        self.blocks.len == 0
            && self.trailers.is_none()
            && rest.is_none_or(|rest| rest.is_end_stream())
    }

    /// Exact if all is in memory, or announced. HTTP/1.1 sends trailers only in a message without a length.
    fn size_hint(&self) -> SizeHint {
        let held = self.blocks.len as u64;
        let rest = match &self.rest {
            Some(rest) => rest.size_hint().exact(),
            None => Some(0).filter(|_| self.trailers.is_none()),
        };
        match rest {
            Some(rest) => SizeHint::with_exact(held.saturating_add(rest)),
            None => {
                let mut hint = SizeHint::new();
                hint.set_lower(held);
                hint
            }
        }
    }
}

/// Reads `body` to its end into a spool, with `memory` bytes in memory and the rest in `space`.
///
/// The returned reader knows the exact length, unless there are trailers. Stored bytes are released when the future is
/// dropped or fails.
pub(crate) async fn take_in<B>(
    body: B,
    memory: usize,
    space: Option<SpoolShare>,
) -> Result<SpoolReader, TakeInError>
where
    B: Body<Data = Bytes, Error = BodyError>,
{
    let most = space.as_ref().map_or(0, SpoolShare::most);
    let most = memory.saturating_add(most) as u64;
    if body.size_hint().lower() > most {
        return Err(TakeInError::NeverFits(most));
    }
    let (mut writer, reader) = spool(memory, space);
    let mut body = pin!(body);
    let mut trailers = None;
    let mut length = 0;
    let mut pace: Option<Pace> = None;
    while trailers.is_none() && !body.is_end_stream() {
        let next = poll_fn(|cx| {
            if let Poll::Ready(frame) = body.as_mut().poll_frame(cx) {
                return Poll::Ready(Ok(frame));
            }
            match &mut pace {
                Some(pace) => pace.poll(cx).map(|()| Err(TakeInError::Slow)),
                None => Poll::Pending,
            }
        });
        let Some(frame) = next.await? else {
            break;
        };
        match frame?.into_data() {
            Ok(piece) => {
                let came = piece.len() as u64;
                length += came;
                if length > most {
                    return Err(TakeInError::NeverFits(most));
                }
                writer.try_write(piece).await?;
                if length > memory as u64 {
                    pace.get_or_insert_with(Pace::begin).came += came;
                }
            }
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    writer.finish(trailers);
    Ok(reader)
}

/// Reads `body` as fast as it arrives, in a task of its own; the reader reads at its own pace.
///
/// A body that has already arrived needs no task. When memory and `space` are used up, the task waits for the reader.
/// It stops when the reader is dropped, and drops `body`, which cancels the upstream request. The reader announces the
/// exact length that `body` announces. Call it within a tokio runtime.
pub(crate) fn let_go<B>(body: B, memory: usize, space: Option<SpoolShare>) -> SpoolReader
where
    B: Body<Data = Bytes, Error = BodyError> + Send + 'static,
{
    let length = body.size_hint().exact();
    let (writer, reader) = spool(memory, space);
    let reader = match length {
        Some(length) => reader.with_length(length),
        None => reader,
    };
    if body.is_end_stream() {
        writer.finish(None);
        return reader;
    }
    let mut pump = Box::pin(pump(body, writer));
    // The usual small response arrived together with its head, and this first poll reads all of it. Otherwise the task
    // polls again at once, so that the wake-up lost by the no-op waker is not missed.
    if pump
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
        .is_pending()
    {
        drop(tokio::spawn(pump));
    }
    reader
}

async fn pump<B>(body: B, mut writer: SpoolWriter)
where
    B: Body<Data = Bytes, Error = BodyError>,
{
    let mut body = pin!(body);
    loop {
        let frame = tokio::select! {
            biased;
            frame = poll_fn(|cx| body.as_mut().poll_frame(cx)) => frame,
            () = writer.reader_gone() => return,
        };
        let piece = match frame.map(|frame| frame.map(Frame::into_data)) {
            Some(Ok(Ok(piece))) => piece,
            Some(Ok(Err(frame))) => return writer.finish(frame.into_trailers().ok()),
            Some(Err(error)) => return writer.fail(error),
            None => return writer.finish(None),
        };
        match writer.write(piece).await {
            Ok(()) => {}
            Err(SpoolError::ReaderGone) => return,
            Err(SpoolError::Full) => {
                return writer.fail(BodyError::Io(io::ErrorKind::StorageFull.into()));
            }
            Err(SpoolError::Io(error)) => return writer.fail(BodyError::Io(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Arc;

    use tokio::sync::oneshot;

    use super::super::spool::SpoolSpace;
    use super::*;
    use crate::net::client::Counted;

    /// Yields its frames; then ends, or stays silent. Signals when it is dropped.
    struct Script {
        frames: VecDeque<Result<Frame<Bytes>, BodyError>>,
        silent: bool,
        slow: bool,
        exact: Option<u64>,
        dropped: Option<oneshot::Sender<()>>,
    }

    fn script<const N: usize>(frames: [Result<Frame<Bytes>, BodyError>; N]) -> Script {
        Script {
            frames: frames.into(),
            silent: false,
            slow: false,
            exact: None,
            dropped: None,
        }
    }

    fn data(length: usize) -> Result<Frame<Bytes>, BodyError> {
        Ok(Frame::data(vec![b'a'; length].into()))
    }

    fn trailers() -> HeaderMap {
        HeaderMap::from_iter([(http::header::ETAG, http::HeaderValue::from_static("x"))])
    }

    impl Body for Script {
        type Data = Bytes;
        type Error = BodyError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
            if self.slow {
                self.slow = false;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            match self.frames.pop_front() {
                None if self.silent => Poll::Pending,
                frame => Poll::Ready(frame),
            }
        }

        fn size_hint(&self) -> SizeHint {
            self.exact.map_or_else(SizeHint::new, SizeHint::with_exact)
        }
    }

    impl Drop for Script {
        fn drop(&mut self) {
            if let Some(dropped) = self.dropped.take() {
                dropped.send(()).unwrap();
            }
        }
    }

    /// Reads to the end; returns the length of the data, and the last frame or error if it was not data.
    async fn read(mut reader: SpoolReader) -> (usize, Option<Result<HeaderMap, BodyError>>) {
        let mut length = 0;
        loop {
            match poll_fn(|cx| Pin::new(&mut reader).poll_frame(cx)).await {
                None => return (length, None),
                Some(Err(error)) => return (length, Some(Err(error))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(piece) => length += piece.len(),
                    Err(frame) => return (length, Some(Ok(frame.into_trailers().unwrap()))),
                },
            }
        }
    }

    fn space(bytes: u64) -> (tempfile::TempDir, Arc<SpoolSpace>) {
        let dir = tempfile::tempdir().unwrap();
        let space = SpoolSpace::open(dir.path().to_owned(), bytes).unwrap();
        (dir, Arc::new(space))
    }

    #[tokio::test]
    async fn a_request_is_taken_in_whole_with_its_length_and_trailers() {
        let (_dir, space) = space(1 << 20);
        let body = script([data(10), data(100_000)]);
        let reader = take_in(body, 16, space.whole()).await.unwrap();
        assert_eq!(
            (reader.len(), reader.size_hint().exact()),
            (100_010, Some(100_010))
        );
        assert!(matches!(read(reader).await, (100_010, None)));

        let body = script([data(10), Ok(Frame::trailers(trailers()))]);
        let (length, end) = read(take_in(body, 16, space.whole()).await.unwrap()).await;
        assert_eq!((length, end.unwrap().unwrap()), (10, trailers()));
    }

    #[tokio::test]
    async fn a_request_that_breaks_off_or_does_not_fit_is_refused() {
        let body = script([data(10), Err(BodyError::TooLarge(10))]);
        let broken = take_in(body, 16, None).await.err();
        assert!(matches!(
            broken,
            Some(TakeInError::Body(BodyError::TooLarge(10)))
        ));

        let full = take_in(script([data(10), data(10)]), 16, None).await.err();
        assert!(matches!(full, Some(TakeInError::NeverFits(16))));

        let (_dir, space) = space(200_000);
        let body = script([data(150_000), data(150_000)]);
        let full = take_in(body, 16, space.whole()).await.err();
        assert!(matches!(full, Some(TakeInError::NeverFits(200_016))));
        let mut body = script([data(10)]);
        body.exact = Some(200_017);
        let never = take_in(body, 16, space.whole()).await.err();
        assert!(matches!(never, Some(TakeInError::NeverFits(200_016))));
        let never = take_in(
            script([data(50_000), data(17)]),
            16,
            Some(space.share(Counted::of(None))),
        )
        .await;
        assert!(matches!(never.err(), Some(TakeInError::NeverFits(50_016))));

        // Space held by others now may be free later.
        while space.used() > 0 {
            tokio::task::yield_now().await;
        }
        let other = take_in(script([data(150_000)]), 16, space.whole())
            .await
            .unwrap();
        let ip = Counted::of("192.0.2.1".parse().ok());
        let mine = take_in(script([data(50_000)]), 16, Some(space.share(ip))).await;
        assert!(mine.is_ok());
        let full = take_in(script([data(50_000)]), 16, Some(space.share(ip)))
            .await
            .err();
        assert!(matches!(full, Some(TakeInError::Spool(SpoolError::Full))));
        drop((other, mine));
        while space.used() > 0 {
            tokio::task::yield_now().await;
        }
    }

    /// A body that yields this many bytes each second, without end.
    struct Trickle(u64, Pin<Box<Sleep>>);

    impl Body for Trickle {
        type Data = Bytes;
        type Error = BodyError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
            ready!(self.1.as_mut().poll(cx));
            let next = Instant::now() + Duration::from_secs(1);
            self.1.as_mut().reset(next);
            let length = usize::try_from(self.0).unwrap();
            Poll::Ready(Some(data(length)))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_holds_space_has_to_come_faster_than_a_kibibyte_a_second() {
        for (rate, memory, slow) in [
            (900, 100, true),
            (1100, 100, false),
            // Memory is the client's own.
            (900, 1 << 20, false),
        ] {
            let (_dir, space) = space(1 << 30);
            let body = Trickle(rate, Box::pin(sleep(Duration::ZERO)));
            let began = Instant::now();
            let taking = take_in(body, memory, space.whole());
            let taken = tokio::time::timeout(Duration::from_secs(90), taking).await;
            assert_eq!(matches!(taken, Ok(Err(TakeInError::Slow))), slow, "{rate}");
            assert_eq!(began.elapsed() < Duration::from_secs(40), slow, "{rate}");
        }
    }

    #[tokio::test]
    async fn an_answer_that_is_there_already_needs_no_task() {
        let reader = let_go(script([data(10), data(10)]), 64, None);
        assert_eq!(reader.size_hint().exact(), Some(20));
        assert_eq!(
            tokio::runtime::Handle::current()
                .metrics()
                .num_alive_tasks(),
            0
        );
        assert!(matches!(read(reader).await, (20, None)));

        let reader = let_go(crate::message::body::Body::Empty, 64, None);
        assert!(reader.is_end_stream());
    }

    #[tokio::test]
    async fn the_app_is_let_go_before_the_client_reads() {
        let (_dir, space) = space(1 << 20);
        let (dropped, gone) = oneshot::channel();
        let mut body = script([data(10), data(500_000), Ok(Frame::trailers(trailers()))]);
        body.slow = true;
        body.exact = Some(500_010);
        body.dropped = Some(dropped);
        let reader = let_go(body, 16, space.whole());
        assert_eq!(reader.size_hint().exact(), Some(500_010));
        gone.await.unwrap();
        assert_eq!(reader.len(), 500_010);
        let (length, end) = read(reader).await;
        assert_eq!((length, end.unwrap().unwrap()), (500_010, trailers()));
    }

    #[tokio::test]
    async fn an_answer_without_space_flows_at_the_readers_pace() {
        let reader = let_go(script([data(100_000), data(100_000)]), 70_000, None);
        assert_eq!(reader.len(), 70_000);
        assert!(matches!(read(reader).await, (200_000, None)));
    }

    #[tokio::test]
    async fn an_answer_that_breaks_off_is_no_clean_end() {
        let body = script([data(10), Err(BodyError::UpstreamIdle)]);
        let end = read(let_go(body, 64, None)).await;
        assert!(matches!(end, (10, Some(Err(BodyError::UpstreamIdle)))));
    }

    #[tokio::test]
    async fn a_client_that_leaves_cancels_the_answer() {
        for length in [0, 10, 100] {
            let (dropped, gone) = oneshot::channel();
            let mut body = script([data(length)]);
            (body.silent, body.dropped) = (true, Some(dropped));
            let reader = let_go(body, 64, None);
            drop(reader);
            gone.await.unwrap();
        }
    }

    #[test]
    fn both_can_run_in_a_task() {
        fn is_send<F: Future + Send>(_: F) {}
        is_send(take_in(crate::message::body::Body::Empty, 0, None));
    }
}
