#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods
)]

use std::time::Duration;

use smallvec::smallvec;
use tokio::time::timeout;

use super::*;

fn seats(most: &[Option<usize>]) -> (Arc<Queue>, Seats) {
    let queue = Arc::new(Queue::default());
    let load = |most: &Option<usize>| Arc::new(Load::new(*most, Arc::clone(&queue)));
    let seats = most.iter().map(load).collect();
    (queue, seats)
}

/// The place that this one has now, if any.
async fn now(waiting: &mut Waiting<'_>) -> Option<usize> {
    let place = timeout(Duration::ZERO, waiting.place()).await;
    place.ok().flatten()
}

#[tokio::test]
async fn the_first_who_may_have_a_place_gets_it() {
    let (queue, seats) = seats(&[Some(1), Some(1)]);
    assert!(seats[0].enter() && seats[1].enter());
    assert!(!seats[0].enter() && seats[0].is_full());
    let mut picky = queue.wait(&seats, smallvec![0], 9).unwrap();
    let mut second = queue.wait(&seats, smallvec![], 9).unwrap();
    let third = queue.wait(&seats, smallvec![], 9).unwrap();
    let mut fourth = queue.wait(&seats, smallvec![], 9).unwrap();
    assert!(queue.wait(&seats, smallvec![], 4).is_none(), "four wait");

    seats[0].leave();
    assert_eq!(now(&mut picky).await, None);
    assert_eq!(now(&mut second).await, Some(0));
    assert!(seats[0].is_full(), "it was handed over");
    // Who leaves without having heard of its place leaves it to the next.
    seats[0].leave();
    drop(third);
    assert_eq!(now(&mut fourth).await, Some(0));
    seats[1].leave();
    assert_eq!(now(&mut picky).await, Some(1));
    assert_eq!(
        (queue.count(), seats[0].count(), seats[1].count()),
        (0, 1, 1)
    );

    // Nobody before it may have what is free: it has it at once.
    let mut picky = queue.wait(&seats, smallvec![0, 1], 9).unwrap();
    seats[0].leave();
    let mut other = queue.wait(&seats, smallvec![], 9).unwrap();
    assert_eq!(now(&mut other).await, Some(0));
    assert_eq!(now(&mut picky).await, None);
    drop((picky, other));
    seats[0].leave();
    seats[1].leave();
    assert_eq!(
        (queue.count(), seats[0].count(), seats[1].count()),
        (0, 0, 0)
    );
}

#[tokio::test]
async fn a_limit_that_is_raised_lets_some_in_and_one_that_is_lowered_waits() {
    let (queue, seats) = seats(&[Some(1)]);
    assert!(seats[0].enter());
    let mut all: Vec<_> = (0..4)
        .map(|_| queue.wait(&seats, smallvec![], 9).unwrap())
        .collect();
    seats[0].limit(Some(3));
    for (nth, waiting) in all.iter_mut().enumerate() {
        assert_eq!(now(waiting).await.is_some(), nth < 2, "{nth}");
    }
    seats[0].limit(Some(1));
    for left in [2, 1] {
        seats[0].leave();
        assert_eq!((seats[0].count(), queue.count()), (left, 2));
    }
    seats[0].leave();
    assert_eq!((seats[0].count(), queue.count()), (1, 1));
    assert_eq!(now(&mut all[2]).await, Some(0));
    seats[0].limit(None);
    assert_eq!(now(&mut all[3]).await, Some(0));
}

#[tokio::test]
async fn a_server_that_is_out_serves_who_has_no_other() {
    let (queue, seats) = seats(&[Some(1), Some(1)]);
    assert!(seats[0].enter() && seats[1].enter());
    seats[0].stands(|| Stands::Out);
    let mut first = queue.wait(&seats, smallvec![], 9).unwrap();
    let mut last = queue.wait(&seats, smallvec![1], 9).unwrap();
    seats[0].leave();
    assert_eq!(now(&mut first).await, None);
    assert_eq!(now(&mut last).await, Some(0));
    seats[0].leave();
    assert_eq!(seats[0].count(), 0);
    // Nobody has a place where checks fail.
    seats[0].stands(|| Stands::Down);
    let mut lost = queue.wait(&seats, smallvec![1], 9).unwrap();
    assert_eq!((now(&mut lost).await, seats[0].count()), (None, 0));
    drop(lost);
    // It is back.
    seats[0].stands(|| Stands::In);
    assert_eq!(now(&mut first).await, Some(0));

    let mut sent = queue.wait(&seats, smallvec![], 9).unwrap();
    queue.dismiss();
    assert_eq!(sent.place().await, None);
    assert_eq!(queue.count(), 0);
}

/// On many threads, with clients that leave at any moment: never more than the limit, nobody forgotten, nothing left over.
#[test]
fn many_threads_never_exceed_the_limit_and_forget_nobody() {
    const THREADS: u64 = 4;
    const ROUNDS: u64 = 4_000;
    let most = [2, 1];
    let (queue, seats) = seats(&most.map(Some));
    let inside = [AtomicUsize::new(0), AtomicUsize::new(0)];
    let served = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (queue, seats, inside, served) = (&queue, &seats, &inside, &served);
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                runtime.block_on(async {
                    let tasks = (0..4).map(|task| async move {
                        for round in 0..ROUNDS / 4 {
                            let chance = (thread * 31 + task * 17 + round * 7) % 11;
                            let at = usize::from(chance % 3 == 0);
                            let at = if !queue.is_used() && seats[at].enter() {
                                at
                            } else {
                                let mut waiting = queue.wait(seats, smallvec![], 99).unwrap();
                                if chance == 5 {
                                    tokio::task::yield_now().await;
                                    continue;
                                }
                                let place = timeout(Duration::from_secs(20), waiting.place());
                                place.await.expect("somebody is forgotten").unwrap()
                            };
                            let now = inside[at].fetch_add(1, Ordering::SeqCst) + 1;
                            assert!(now <= most[at], "{now} at {at}");
                            if chance % 2 == 0 {
                                tokio::task::yield_now().await;
                            }
                            served.fetch_add(1, Ordering::Relaxed);
                            inside[at].fetch_sub(1, Ordering::SeqCst);
                            seats[at].leave();
                        }
                    });
                    futures_of(tasks.collect()).await;
                });
            });
        }
    });
    assert!(served.into_inner() > 1_000);
    assert_eq!(
        (queue.count(), seats[0].count(), seats[1].count()),
        (0, 0, 0)
    );
}

/// All of these, side by side on this thread.
async fn futures_of<F: Future<Output = ()>>(futures: Vec<F>) {
    let mut futures: Vec<_> = futures.into_iter().map(|it| Some(Box::pin(it))).collect();
    std::future::poll_fn(|cx| {
        for future in &mut futures {
            if let Some(running) = future
                && running.as_mut().poll(cx).is_ready()
            {
                *future = None;
            }
        }
        if futures.iter().all(Option::is_none) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
}
