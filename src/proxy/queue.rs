//! Requests in flight at a server, over all workers: how many there are, how many there may be, and who waits for a place
//! while there is none. Only upstreams whose settings ask for it count. Who waits because no server can be connected to is
//! in `hold`.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use smallvec::SmallVec;
use tokio::sync::oneshot;

/// The requests in flight at one server. On cache lines of its own, because all workers write to it for each request;
/// nobody waits for it.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Load {
    count: AtomicUsize,
    /// How many there may be.
    most: AtomicUsize,
    /// How the server stands, as a number. Written with the queue locked.
    stands: AtomicU8,
    queue: Arc<Queue>,
}

/// Who may have a place at a server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(super) enum Stands {
    /// Everybody.
    In,
    /// Who has nowhere else to go: it is taken out after failures.
    Out,
    /// Nobody: checks have taken it out.
    Down,
}

/// The servers of an upstream, for who waits.
pub(super) type Seats = Arc<[Arc<Load>]>;

impl Load {
    /// Nothing is in flight; whoever finds as many as `most` waits in this queue, which is that of the upstream.
    pub(super) fn new(most: Option<usize>, queue: Arc<Queue>) -> Self {
        Self {
            count: AtomicUsize::new(0),
            most: AtomicUsize::new(most.unwrap_or(usize::MAX)),
            stands: AtomicU8::new(Stands::In as u8),
            queue,
        }
    }

    /// One more request is in flight, if there may be.
    pub(super) fn enter(&self) -> bool {
        let most = self.most.load(Ordering::Relaxed);
        if most == usize::MAX {
            self.count.fetch_add(1, Ordering::Relaxed);
            return true;
        }
        // In one order with the number of those who wait: see `Queue::wait`.
        let one_more = |count: usize| (count < most).then(|| count + 1);
        let order = Ordering::SeqCst;
        self.count.fetch_update(order, order, one_more).is_ok()
    }

    /// One of them has ended: its place is handed over to the first who waits for it.
    pub(super) fn leave(&self) {
        if self.queue.is_used() && self.queue.hand_over(self) {
            return;
        }
        self.count.fetch_sub(1, Ordering::SeqCst);
        if self.queue.is_used() {
            self.queue.offer(self);
        }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Whether there are as many as there may be.
    pub(super) fn is_full(&self) -> bool {
        self.count() >= self.most.load(Ordering::Relaxed)
    }

    /// From now on there may be this many. Those who wait get the places that this makes.
    pub(super) fn limit(&self, most: Option<usize>) {
        let most = most.unwrap_or(usize::MAX);
        if self.most.swap(most, Ordering::SeqCst) < most && self.queue.is_used() {
            self.queue.offer(self);
        }
    }

    /// The server is taken out, or is back; `how` tells, and is asked when nobody else writes it.
    pub(super) fn stands(&self, how: impl FnOnce() -> Stands) {
        {
            let _line = self.queue.line();
            self.stands.store(how() as u8, Ordering::Relaxed);
        }
        if self.queue.is_used() {
            self.queue.offer(self);
        }
    }
}

/// Who waits at an upstream, the first in front, over all workers. Whoever waits, and who ends a request while somebody
/// waits, locks it; nobody else.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// How many wait, for those who need not know more.
    waiting: AtomicUsize,
    line: Mutex<Line>,
}

#[derive(Debug, Default)]
struct Line {
    /// The number of the next who comes.
    next: u64,
    entries: BTreeMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    seats: Seats,
    /// The servers that it may not have, by their index.
    not: SmallVec<[usize; 4]>,
    /// Tells the index of the server that has a place for it.
    told: oneshot::Sender<usize>,
}

impl Entry {
    /// The index of this server, if the request may have it.
    fn may_have(&self, load: &Load) -> Option<usize> {
        let mut seats = self.seats.iter();
        let at = seats.position(|seat| std::ptr::eq(&raw const **seat, load))?;
        if self.not.contains(&at) {
            return None;
        }
        let stands = |load: &Load, how: Stands| load.stands.load(Ordering::Relaxed) == how as u8;
        let in_elsewhere = || {
            let mut seats = self.seats.iter().enumerate();
            seats.any(|(at, seat)| !self.not.contains(&at) && stands(seat, Stands::In))
        };
        let may = stands(load, Stands::In) || stands(load, Stands::Out) && !in_elsewhere();
        may.then_some(at)
    }
}

/// A request that waits; it leaves the queue when this is dropped.
#[derive(Debug)]
pub(super) struct Waiting<'q> {
    queue: &'q Queue,
    number: u64,
    seats: Seats,
    told: oneshot::Receiver<usize>,
}

impl Queue {
    /// Whether somebody waits.
    pub(super) fn is_used(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// How many wait.
    pub(super) fn count(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// One more request waits, for a place at any of these servers but those of `not`; `None` if `most` wait already. If
    /// there is a place that nobody before it may have, it has that at once.
    pub(super) fn wait(
        &self,
        seats: &Seats,
        not: SmallVec<[usize; 4]>,
        most: usize,
    ) -> Option<Waiting<'_>> {
        let (told, hears) = oneshot::channel();
        let mut line = self.line();
        if line.entries.len() >= most {
            return None;
        }
        let number = line.next;
        line.next += 1;
        let entry = Entry {
            seats: Arc::clone(seats),
            not,
            told,
        };
        // Who ends a request gives up its place first and then looks whether somebody waits; this is the other way round:
        // one of both finds the other.
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let place = seats
            .iter()
            .find_map(|seat| entry.may_have(seat).filter(|_| seat.enter()));
        match place {
            Some(at) => {
                self.waiting.fetch_sub(1, Ordering::SeqCst);
                let told = entry.told.send(at);
                debug_assert!(told.is_ok(), "the receiver is here");
            }
            None => {
                line.entries.insert(number, entry);
            }
        }
        drop(line);
        Some(Waiting {
            queue: self,
            number,
            seats: Arc::clone(seats),
            told: hears,
        })
    }

    /// Whether the place of a request that has ended at this server is now another's.
    fn hand_over(&self, load: &Load) -> bool {
        // The limit may have been lowered.
        load.count() <= load.most.load(Ordering::Relaxed) && self.tell_first(&mut self.line(), load)
    }

    /// Gives the places that are free at this server to those who wait.
    fn offer(&self, load: &Load) {
        let mut line = self.line();
        while !line.entries.is_empty() && load.enter() {
            if !self.tell_first(&mut line, load) {
                load.count.fetch_sub(1, Ordering::SeqCst);
                return;
            }
        }
    }

    /// Tells the first of those who may have it that a place at this server is its own; `false` if there is nobody.
    fn tell_first(&self, line: &mut Line, load: &Load) -> bool {
        loop {
            let mut entries = line.entries.iter();
            let first = entries.find_map(|(number, entry)| Some((*number, entry.may_have(load)?)));
            let Some((number, at)) = first else {
                return false;
            };
            let Some(entry) = line.entries.remove(&number) else {
                return false;
            };
            self.waiting.fetch_sub(1, Ordering::SeqCst);
            if entry.told.send(at).is_ok() {
                return true;
            }
        }
    }

    /// Sends all away who wait: each finds out by itself what there is.
    pub(super) fn dismiss(&self) {
        let gone = std::mem::take(&mut self.line().entries);
        self.waiting.fetch_sub(gone.len(), Ordering::SeqCst);
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting<'_> {
    /// The index of the server that has a place for the request, which counts there from now on; `None` if all were sent
    /// away.
    pub(super) async fn place(&mut self) -> Option<usize> {
        (&mut self.told).await.ok()
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let entry = self.queue.line().entries.remove(&self.number);
        if entry.is_some() {
            self.queue.waiting.fetch_sub(1, Ordering::SeqCst);
        } else if let Ok(at) = self.told.try_recv()
            && let Some(seat) = self.seats.get(at)
        {
            // It was told, and did not hear it any more.
            seat.leave();
        }
    }
}
