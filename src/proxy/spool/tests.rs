//! Tests of one spool, and its invariant: what was written is read, in order, at any pace.

use std::future::poll_fn;
use std::path::Path;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use http_body::Body;
use proptest::prelude::*;
use tempfile::TempDir;
use tokio::task::yield_now;

use super::*;
use crate::net::client::Counted;

const KIB: usize = 1024;

fn space(bytes: usize) -> (TempDir, Arc<SpoolSpace>) {
    let dir = tempfile::tempdir().unwrap();
    let space = SpoolSpace::open(dir.path().join("spool"), bytes as u64).unwrap();
    (dir, Arc::new(space))
}

/// Bytes whose position can be told from their value.
fn pattern(from: u64, length: usize) -> Bytes {
    let from = usize::try_from(from % 251).unwrap();
    let round: Vec<u8> = (0..251).collect();
    Bytes::from(round.repeat(length / 251 + 2)).slice(from..from + length)
}

async fn next(reader: &mut SpoolReader) -> Option<Result<http_body::Frame<Bytes>, BodyError>> {
    poll_fn(|cx| Pin::new(&mut *reader).poll_frame(cx)).await
}

/// Reads to the end of the data; returns their length, and the trailers or the error after them.
async fn drain(
    reader: &mut SpoolReader,
    mut at: u64,
) -> (u64, Option<Result<HeaderMap, BodyError>>) {
    loop {
        match next(reader).await {
            None => return (at, None),
            Some(Err(error)) => {
                assert!(
                    next(reader).await.is_none(),
                    "an error is the last that is seen"
                );
                return (at, Some(Err(error)));
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(piece) => {
                    assert_eq!(piece, pattern(at, piece.len()), "at {at}");
                    at += piece.len() as u64;
                }
                Err(frame) => return (at, frame.into_trailers().ok().map(Ok)),
            },
        }
    }
}

/// Files are closed by blocking tasks: waits until the last of them has released its space.
async fn all_given_back(space: &SpoolSpace) {
    let back = async {
        while space.used() > 0 {
            yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), back)
        .await
        .expect("space is still in use");
}

fn files_in(dir: &Path) -> usize {
    std::fs::read_dir(dir).unwrap().count()
}

#[tokio::test]
async fn what_fits_into_memory_touches_no_disk() {
    let (_dir, space) = space(KIB);
    let (mut writer, mut reader) = spool(10, space.whole());
    writer.try_write(pattern(0, 4)).await.unwrap();
    writer.try_write(pattern(4, 6)).await.unwrap();
    assert_eq!((space.used(), reader.len()), (0, 10));
    assert_eq!(reader.size_hint().exact(), None);
    writer.finish(None);
    assert_eq!(reader.size_hint().exact(), Some(10));
    assert!(!reader.is_end_stream());
    assert!(matches!(drain(&mut reader, 0).await, (10, None)));
    assert!(reader.is_end_stream());
    assert_eq!(reader.size_hint().exact(), Some(0));
}

#[tokio::test]
async fn a_full_spool_refuses_the_piece_and_keeps_what_it_had() {
    let (_dir, space) = space(100 * KIB);
    let (mut writer, mut reader) = spool(KIB, space.whole());
    writer.try_write(pattern(0, 101 * KIB)).await.unwrap();
    assert_eq!(space.used(), 100 * KIB as u64);
    let refused = writer.try_write(pattern(101 * KIB as u64, 1)).await;
    assert!(matches!(refused, Err(SpoolError::Full)));
    writer.finish(None);
    assert!(matches!(drain(&mut reader, 0).await, (103_424, None)));
    all_given_back(&space).await;
}

#[tokio::test]
async fn without_space_memory_is_the_bound() {
    let (mut writer, reader) = spool(3, None);
    assert!(matches!(
        writer.try_write(pattern(0, 4)).await,
        Err(SpoolError::Full)
    ));
    assert_eq!(reader.len(), 0);
    writer.try_write(pattern(0, 3)).await.unwrap();
    assert!(matches!(
        writer.try_write(pattern(3, 1)).await,
        Err(SpoolError::Full)
    ));
}

#[tokio::test]
async fn two_bodies_share_one_space() {
    let (_dir, space) = space(100);
    let (mut one, mut one_out) = spool(0, space.whole());
    let (mut two, _two_out) = spool(0, space.whole());
    one.try_write(pattern(0, 60)).await.unwrap();
    assert!(matches!(
        two.try_write(pattern(0, 60)).await,
        Err(SpoolError::Full)
    ));
    assert!(next(&mut one_out).await.is_some());
    two.try_write(pattern(0, 60)).await.unwrap();
    assert_eq!(space.used(), 60);
}

#[tokio::test]
async fn a_write_waits_for_the_reader_and_goes_on() {
    let (_dir, space) = space(70 * KIB);
    let (mut writer, mut reader) = spool(KIB, space.whole());
    writer.write(pattern(0, 71 * KIB)).await.unwrap();
    let mut more = Box::pin(writer.write(pattern(71 * KIB as u64, 2 * KIB)));
    assert!(
        poll_fn(|cx| Poll::Ready(more.as_mut().poll(cx)))
            .await
            .is_pending()
    );
    let mut at = 0;
    for _ in 0..3 {
        let piece = next(&mut reader)
            .await
            .unwrap()
            .unwrap()
            .into_data()
            .unwrap();
        assert_eq!(piece, pattern(at, piece.len()));
        at += piece.len() as u64;
    }
    tokio::time::timeout(Duration::from_secs(20), more)
        .await
        .unwrap()
        .unwrap();
    writer.finish(None);
    assert!(matches!(drain(&mut reader, at).await, (74_752, None)));
    all_given_back(&space).await;
}

/// Another body's slow client holds all of the disk; this one still makes progress through its memory.
#[tokio::test]
async fn one_client_has_a_quarter_of_the_space_at_most() {
    let (_dir, space) = space(400);
    let [one, two] = ["192.0.2.1", "192.0.2.2"].map(|ip| Counted::of(ip.parse().ok()));
    let bodies = || {
        let (writer, reader) = spool(0, Some(space.share(one)));
        (writer, reader)
    };
    let ((mut first, mut first_out), (mut second, _second_out)) = (bodies(), bodies());
    first.try_write(pattern(0, 60)).await.unwrap();
    second.try_write(pattern(0, 40)).await.unwrap();
    let (mut third, _third_out) = bodies();
    let full = third.try_write(pattern(0, 1)).await;
    assert!(matches!(full, Err(SpoolError::Full)));
    let (mut other, _other_out) = spool(0, Some(space.share(two)));
    other.try_write(pattern(0, 100)).await.unwrap();
    let (mut nobodys, _nobodys_out) = spool(0, Some(space.share(Counted::of(None))));
    nobodys.try_write(pattern(0, 100)).await.unwrap();
    assert_eq!(space.used(), 300);

    // Released space can be reserved again, by the same client.
    first.finish(None);
    drain(&mut first_out, 0).await;
    drop(first_out);
    let again = async {
        while third.try_write(pattern(0, 60)).await.is_err() {
            yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), again)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_body_gets_on_with_its_own_reader_when_others_hold_the_space() {
    let (_dir, space) = space(128 * KIB);
    let (mut hog, _hog_out) = spool(0, space.whole());
    hog.write(pattern(0, 128 * KIB)).await.unwrap();
    for memory in [0, 1, 64 * KIB] {
        let (mut writer, mut reader) = spool(memory, space.whole());
        let write = async {
            writer.write(pattern(0, 200 * KIB)).await.unwrap();
            writer.finish(None);
        };
        let both = async { tokio::join!(write, drain(&mut reader, 0)).1 };
        let (length, end) = tokio::time::timeout(Duration::from_secs(20), both)
            .await
            .unwrap();
        assert_eq!(
            (length, end.is_none()),
            (200 * KIB as u64, true),
            "memory {memory}"
        );
    }
}

#[tokio::test]
async fn the_writer_is_told_that_the_reader_went_away() {
    let (_dir, space) = space(128 * KIB);
    let (mut writer, reader) = spool(0, space.whole());
    writer.write(pattern(0, 128 * KIB)).await.unwrap();
    {
        let mut blocked = Box::pin(writer.write(pattern(0, KIB)));
        assert!(
            poll_fn(|cx| Poll::Ready(blocked.as_mut().poll(cx)))
                .await
                .is_pending()
        );
        drop(reader);
        assert!(matches!(blocked.await, Err(SpoolError::ReaderGone)));
    }
    writer.reader_gone().await;
    assert!(matches!(
        writer.try_write(pattern(0, 1)).await,
        Err(SpoolError::ReaderGone)
    ));
    all_given_back(&space).await;
}

#[tokio::test]
async fn a_writer_dropped_early_is_never_a_clean_end() {
    for length in [0, 10, 100 * KIB] {
        let (_dir, space) = space(128 * KIB);
        let (mut writer, mut reader) = spool(KIB, space.whole());
        writer.try_write(pattern(0, length)).await.unwrap();
        drop(writer);
        assert!(!reader.is_end_stream());
        assert_eq!(reader.size_hint().exact(), None);
        let (read, end) = drain(&mut reader, 0).await;
        assert_eq!(read, length as u64);
        assert!(
            matches!(end, Some(Err(BodyError::Io(_)))),
            "after {length} bytes"
        );
        all_given_back(&space).await;
    }
}

#[tokio::test]
async fn a_waiting_reader_is_woken_by_the_loss_of_its_writer() {
    let (writer, mut reader) = spool(1, None);
    let read = tokio::spawn(async move { drain(&mut reader, 0).await });
    yield_now().await;
    drop(writer);
    assert!(matches!(read.await.unwrap(), (0, Some(Err(_)))));
}

#[tokio::test]
async fn a_write_cancelled_on_its_way_to_the_disk_is_never_a_clean_end() {
    let (_dir, space) = space(KIB * KIB);
    // The disk may be quicker than this thread; then nothing was cancelled.
    for _ in 0..100 {
        let (mut writer, mut reader) = spool(KIB, space.whole());
        let is_cancelled = {
            let mut write = Box::pin(writer.try_write(pattern(0, 80 * KIB)));
            poll_fn(|cx| Poll::Ready(write.as_mut().poll(cx)))
                .await
                .is_pending()
        };
        writer.finish(None);
        let drained = drain(&mut reader, 0).await;
        drop(reader);
        all_given_back(&space).await;
        if is_cancelled {
            assert!(matches!(drained, (1024, Some(Err(BodyError::Io(_))))));
            return;
        }
    }
    panic!("no write was cancelled");
}

#[tokio::test]
async fn a_disk_that_cannot_be_written_is_an_error_at_both_ends() {
    let (dir, space) = space(KIB * KIB);
    std::fs::remove_dir(dir.path().join("spool")).unwrap();
    let (mut writer, mut reader) = spool(KIB, space.whole());
    assert!(matches!(
        writer.try_write(pattern(0, 80 * KIB)).await,
        Err(SpoolError::Io(_))
    ));
    assert!(matches!(
        writer.try_write(pattern(0, 1)).await,
        Err(SpoolError::Io(_))
    ));
    writer.finish(None);
    assert!(matches!(
        drain(&mut reader, 0).await,
        (1024, Some(Err(BodyError::Io(_))))
    ));
    all_given_back(&space).await;
}

#[tokio::test]
async fn an_error_comes_after_what_was_stored() {
    let (mut writer, mut reader) = spool(KIB, None);
    writer.try_write(pattern(0, 7)).await.unwrap();
    writer.fail(BodyError::UpstreamIdle);
    assert!(matches!(
        drain(&mut reader, 0).await,
        (7, Some(Err(BodyError::UpstreamIdle)))
    ));
}

#[tokio::test]
async fn trailers_come_last_and_leave_the_length_open() {
    let (_dir, space) = space(KIB * KIB);
    let (mut writer, mut reader) = spool(0, space.whole());
    writer.try_write(pattern(0, 80 * KIB)).await.unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    writer.finish(Some(trailers.clone()));
    assert_eq!(reader.size_hint().exact(), None);
    let (length, end) = drain(&mut reader, 0).await;
    assert_eq!((length, end.unwrap().unwrap()), (80 * KIB as u64, trailers));
    assert!(next(&mut reader).await.is_none());
}

#[tokio::test]
async fn a_promised_length_counts_down() {
    let (mut writer, reader) = spool(KIB, None);
    let mut reader = reader.with_length(10);
    writer.try_write(pattern(0, 4)).await.unwrap();
    assert_eq!(reader.size_hint().exact(), Some(10));
    assert!(next(&mut reader).await.is_some());
    assert_eq!(reader.size_hint().exact(), Some(6));
}

#[tokio::test]
async fn fifty_mebibytes_stay_bounded_in_memory_and_have_no_name_on_disk() {
    const MIB: usize = KIB * KIB;
    let (dir, space) = space(64 * MIB);
    let (mut writer, mut reader) = spool(64 * KIB, space.whole());
    for at in (0..50 * MIB).step_by(16 * KIB) {
        writer
            .try_write(pattern(at as u64, 16 * KIB))
            .await
            .unwrap();
        let state = writer.shared.lock();
        assert!(state.head.len + state.tail.len <= 128 * KIB + 16 * KIB);
        assert!(state.files.len() <= 64);
    }
    assert_eq!(files_in(&dir.path().join("spool")), 0);
    assert_eq!(space.used(), (50 * MIB - 64 * KIB) as u64);
    writer.finish(None);
    assert_eq!(reader.size_hint().exact(), Some(50 * MIB as u64));
    assert!(matches!(drain(&mut reader, 0).await, (52_428_800, None)));
    all_given_back(&space).await;
}

/// A body far longer than the space flows through it, because files are released as they are read.
#[tokio::test]
async fn a_body_longer_than_the_space_flows_through_it() {
    let (_dir, space) = space(KIB * KIB);
    let (mut writer, mut reader) = spool(0, space.whole());
    let write = async {
        for at in (0..20 * KIB * KIB).step_by(100_000) {
            writer.write(pattern(at as u64, 100_000)).await.unwrap();
        }
        writer.finish(None);
    };
    let both = async { tokio::join!(write, drain(&mut reader, 0)).1 };
    let (length, _) = tokio::time::timeout(Duration::from_secs(20), both)
        .await
        .unwrap();
    assert_eq!(length, 21_000_000);
    all_given_back(&space).await;
}

#[tokio::test]
async fn tiny_pieces_are_kept_together() {
    let (mut writer, mut reader) = spool(KIB * KIB, None);
    for at in 0..200_000 {
        writer.try_write(pattern(at, 1)).await.unwrap();
    }
    assert!(writer.shared.lock().head.closed.len() < 20);
    writer.finish(None);
    assert!(matches!(drain(&mut reader, 0).await, (200_000, None)));
}

#[test]
fn a_missing_directory_is_made_for_the_owner_alone_and_a_bad_one_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/spool");
    SpoolSpace::open(path.clone(), 1).unwrap();
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o700
    );
    assert_eq!(files_in(&path), 0);
    std::fs::write(dir.path().join("file"), "").unwrap();
    assert!(SpoolSpace::open(dir.path().join("file"), 1).is_err());
}

#[derive(Clone, Debug)]
enum Step {
    Write(usize),
    Read,
    Yield,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..100_usize).prop_map(Step::Write),
        4 => (0..100 * KIB).prop_map(Step::Write),
        4 => Just(Step::Read),
        1 => Just(Step::Yield),
    ];
    proptest::collection::vec(step, 0..60)
}

fn memories() -> impl Strategy<Value = usize> {
    prop_oneof![Just(0), Just(1), Just(64 * KIB)]
}

fn run<F: Future>(story: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(20), story)
            .await
            .expect("the story stands still")
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Against a naive queue: a poll returns the first piece or nothing yet, a rejected piece leaves no trace and is
    /// rejected only for lack of space, and in the end nothing is missing.
    #[test]
    fn a_script_of_writes_and_reads_agrees_with_a_queue(
        script in steps(),
        memory in memories(),
        total in prop_oneof![Just(0_usize), Just(300 * KIB), Just(16 * KIB * KIB)],
        abort in any::<bool>(),
    ) {
        run(async move {
            let (dir, space) = space(total);
            let (mut writer, mut reader) = spool(memory, space.whole());
            let mut queue = VecDeque::new();
            let mut written = 0_u64;
            for step in script {
                match step {
                    Step::Write(length) => {
                        let piece = pattern(written, length);
                        let used = space.used();
                        match writer.try_write(piece.clone()).await {
                            Ok(()) => {
                                queue.extend(piece);
                                written += length as u64;
                            }
                            Err(SpoolError::Full) => assert!(used + length as u64 > total as u64),
                            Err(error) => panic!("{error}"),
                        }
                        assert_eq!(reader.len(), written);
                        assert!(space.used() <= total as u64);
                    }
                    Step::Read => {
                        let poll = poll_fn(|cx| Poll::Ready(Pin::new(&mut reader).poll_frame(cx))).await;
                        if let Poll::Ready(frame) = poll {
                            let piece = frame.unwrap().unwrap().into_data().unwrap();
                            assert!(!piece.is_empty());
                            assert!(piece.iter().copied().eq(queue.drain(..piece.len())));
                        }
                    }
                    Step::Yield => yield_now().await,
                }
            }
            if abort {
                drop(writer);
            } else {
                writer.finish(None);
                assert_eq!(reader.size_hint().exact(), Some(queue.len() as u64));
                let from = written - queue.len() as u64;
                assert!(matches!(drain(&mut reader, from).await, (end, None) if end == written));
            }
            drop(reader);
            all_given_back(&space).await;
            assert_eq!(files_in(&dir.path().join("spool")), 0);
        });
    }

    /// A waiting writer and a reader, each at its own pace: everything arrives, and nothing hangs.
    #[test]
    fn a_waiting_writer_and_any_reader_get_through(
        pieces in proptest::collection::vec((0..90 * KIB, 0..3_usize), 0..60),
        pauses in proptest::collection::vec(0..4_usize, 1..8),
        memory in memories(),
        total in prop_oneof![Just(0_usize), Just(1), Just(100 * KIB), Just(600 * KIB)],
    ) {
        run(async move {
            let (_dir, space) = space(total);
            let (mut writer, mut reader) = spool(memory, space.whole());
            let length: u64 = pieces.iter().map(|(length, _)| *length as u64).sum();
            let write = tokio::spawn(async move {
                let mut at = 0;
                for (length, pause) in pieces {
                    writer.write(pattern(at, length)).await.unwrap();
                    at += length as u64;
                    for _ in 0..pause {
                        yield_now().await;
                    }
                }
                writer.finish(None);
            });
            let mut at = 0;
            let mut pauses = pauses.iter().cycle();
            while let Some(frame) = next(&mut reader).await {
                let piece = frame.unwrap().into_data().unwrap();
                assert_eq!(piece, pattern(at, piece.len()));
                at += piece.len() as u64;
                for _ in 0..*pauses.next().unwrap() {
                    yield_now().await;
                }
            }
            write.await.unwrap();
            assert_eq!(at, length);
            all_given_back(&space).await;
        });
    }
}
