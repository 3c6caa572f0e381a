//! DNS resolution: each name is looked up once for all waiting callers, on threads of its own, and its addresses are
//! cached for a while. `dial` decides in which order they are tried. Names chosen by clients are never resolved.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;

/// How long addresses are cached.
const REMEMBERED: Duration = Duration::from_secs(10);
/// How long a failure is cached.
const FAILURE: Duration = Duration::from_secs(1);
/// How long stale addresses are used while the resolver fails: a short resolver outage must not make the apps
/// unreachable.
const LAST_GOOD: Duration = Duration::from_secs(300);
/// The limit for concurrent look-ups. A silent resolver blocks one thread for each.
const MOST_THREADS: usize = 16;
/// The limit for addresses of a name.
const MOST_ADDRESSES: usize = 32;
/// The limit for cached names. Only configurations and issuers name any.
const MOST_NAMES: usize = 4096;

type LookUp = dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// Why a name has no address.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unresolved(Arc<str>);

/// The cache of names. Clones share it.
#[derive(Clone)]
pub(crate) struct Names(Arc<Shared>);

struct Shared {
    look_up: Box<LookUp>,
    known: Mutex<HashMap<Box<str>, Known>>,
    work: Mutex<Work>,
}

/// The cache entry of a name.
#[derive(Default)]
struct Known {
    good: Option<(Arc<[SocketAddr]>, Instant)>,
    failed: Option<(Unresolved, Instant)>,
    /// Set while a look-up is running; the channel closes at its end.
    pending: Option<watch::Receiver<()>>,
    /// The address that last accepted a connection.
    best: Option<IpAddr>,
}

#[derive(Default)]
struct Work {
    queue: VecDeque<(Box<str>, watch::Sender<()>)>,
    threads: usize,
}

/// The immediate result of a query.
enum Told {
    Addresses(Arc<[SocketAddr]>),
    Failure(Unresolved),
    Wait(watch::Receiver<()>),
}

impl std::fmt::Debug for Names {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Names").finish_non_exhaustive()
    }
}

impl Names {
    /// Uses the system's resolver: hosts file, name servers, whatever nsswitch.conf says.
    pub(crate) fn system() -> Self {
        Self::new(|host| Ok((host, 0).to_socket_addrs()?.collect()))
    }

    /// Uses this function, which may block.
    pub(crate) fn new(
        look_up: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Shared {
            look_up: Box::new(look_up),
            known: Mutex::default(),
            work: Mutex::default(),
        }))
    }

    /// The addresses of a host, with port 0, at least one, in the resolver's order. Waits only where none are cached,
    /// so callers set a timeout.
    ///
    /// # Errors
    /// The name has no address, or the look-up failed.
    pub(crate) async fn find(&self, host: &str) -> Result<Arc<[SocketAddr]>, Unresolved> {
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(Arc::from([SocketAddr::new(ip, 0)]));
        }
        loop {
            match self.ask(host, Instant::now()) {
                Told::Addresses(addresses) => return Ok(addresses),
                Told::Failure(why) => return Err(why),
                // Waits for the channel to close; nothing is ever sent.
                Told::Wait(mut end) => while end.changed().await.is_ok() {},
            }
        }
    }

    /// The address of a host that last accepted a connection.
    pub(crate) fn best(&self, host: &str) -> Option<IpAddr> {
        self.0.known().get(host)?.best
    }

    /// Notes that an address accepted a connection.
    pub(crate) fn accepted(&self, host: &str, address: IpAddr) {
        if let Some(known) = self.0.known().get_mut(host) {
            known.best = Some(address);
        }
    }

    fn ask(&self, host: &str, now: Instant) -> Told {
        let mut all = self.0.known();
        if all.len() >= MOST_NAMES && !all.contains_key(host) {
            all.retain(|_, known| known.pending.is_some() || known.is_recent(now));
        }
        let known = all.entry(host.into()).or_default();
        let good = known.good.as_ref();
        let good = good.map(|(addresses, at)| (Arc::clone(addresses), now.duration_since(*at)));
        let last_good = match good {
            Some((addresses, age)) if age < REMEMBERED => return Told::Addresses(addresses),
            Some((addresses, age)) if age < LAST_GOOD => Some(addresses),
            Some(_) | None => None,
        };
        let failed = known.failed.as_ref();
        let failed = failed.filter(|(_, at)| now.duration_since(*at) < FAILURE);
        match (last_good, failed) {
            (Some(addresses), Some(_)) => Told::Addresses(addresses),
            (None, Some((why, _))) => Told::Failure(why.clone()),
            (last_good, None) => {
                let end = match &known.pending {
                    Some(end) => end.clone(),
                    None => {
                        let (sender, end) = watch::channel(());
                        known.pending = Some(end.clone());
                        drop(all);
                        self.0.begin(host, sender);
                        end
                    }
                };
                last_good.map_or(Told::Wait(end), Told::Addresses)
            }
        }
    }
}

impl Known {
    fn is_recent(&self, now: Instant) -> bool {
        let young = |at: &Instant| now.duration_since(*at) < LAST_GOOD;
        self.good.as_ref().is_some_and(|(_, at)| young(at))
    }
}

impl Shared {
    fn known(&self) -> MutexGuard<'_, HashMap<Box<str>, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a name, and starts a thread for it where the limit allows.
    fn begin(self: &Arc<Self>, host: &str, end: watch::Sender<()>) {
        let mut work = self.work();
        work.queue.push_back((host.into(), end));
        if work.threads >= MOST_THREADS {
            return;
        }
        let shared = Arc::clone(self);
        let asker = Handle::try_current().ok();
        let thread = std::thread::Builder::new().name("names".to_owned());
        let run = move || {
            // Uses the clock of the caller's runtime, which tests pause.
            let _entered = asker.as_ref().map(Handle::enter);
            shared.run();
        };
        match thread.spawn(run) {
            Ok(_) => work.threads += 1,
            // A running thread will take the name from the queue.
            Err(_) if work.threads > 0 => {}
            Err(error) => {
                let queue = std::mem::take(&mut work.queue);
                drop(work);
                for (host, end) in queue {
                    self.end(&host, Err(io::Error::new(error.kind(), error.to_string())));
                    drop(end);
                }
            }
        }
    }

    /// Looks up queued names until the queue is empty.
    fn run(&self) {
        loop {
            let next = {
                let mut work = self.work();
                let next = work.queue.pop_front();
                if next.is_none() {
                    work.threads -= 1;
                }
                next
            };
            let Some((host, end)) = next else { return };
            self.end(&host, (self.look_up)(&host));
            // Wakes the waiters only now, after the result is stored.
            drop(end);
        }
    }

    fn end(&self, host: &str, found: io::Result<Vec<SocketAddr>>) {
        let now = Instant::now();
        let mut all = self.known();
        let known = all.entry(host.into()).or_default();
        known.pending = None;
        match found {
            Ok(found) if !found.is_empty() => {
                let mut addresses: Vec<SocketAddr> = Vec::with_capacity(found.len());
                for address in found {
                    if addresses.len() < MOST_ADDRESSES && !addresses.contains(&address) {
                        addresses.push(address);
                    }
                }
                known.good = Some((addresses.into(), now));
                known.failed = None;
            }
            Ok(_) => known.failed = Some((Unresolved("the name has no address".into()), now)),
            Err(error) => known.failed = Some((Unresolved(error.to_string().into()), now)),
        }
    }
}

#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    reason = "the threads that look names up live in real time"
)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 0))
    }

    /// A resolver whose results come from the channel, with a counter of look-ups.
    fn scripted() -> (
        Names,
        mpsc::Sender<io::Result<Vec<SocketAddr>>>,
        Arc<AtomicUsize>,
    ) {
        let (sender, answers) = mpsc::channel();
        let answers = Mutex::new(answers);
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let names = Names::new(move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            answers.lock().unwrap().recv().unwrap()
        });
        (names, sender, count)
    }

    /// Waits, in real time, for the resolver thread.
    async fn until(mut condition: impl FnMut() -> bool) {
        for _ in 0..10_000 {
            if condition() {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
            tokio::task::yield_now().await;
        }
        panic!("waited in vain");
    }

    #[tokio::test]
    async fn all_who_wait_share_one_look_up() {
        let (names, answers, count) = scripted();
        let mut waiting = tokio::task::JoinSet::new();
        for _ in 0..500 {
            let names = names.clone();
            waiting.spawn(async move { names.find("app.test").await.unwrap().to_vec() });
        }
        until(|| count.load(Ordering::SeqCst) == 1).await;
        answers
            .send(Ok(vec![address(1), address(2), address(1)]))
            .unwrap();
        for found in waiting.join_all().await {
            assert_eq!(found, [address(1), address(2)]);
        }
        assert_eq!(count.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_are_remembered_and_used_on_while_new_ones_come() {
        let (names, answers, count) = scripted();
        answers.send(Ok(vec![address(1)])).unwrap();
        assert_eq!(*names.find("a.test").await.unwrap(), [address(1)]);
        tokio::time::advance(Duration::from_secs(9)).await;
        assert_eq!(*names.find("a.test").await.unwrap(), [address(1)]);
        assert_eq!(count.load(Ordering::SeqCst), 1);

        tokio::time::advance(Duration::from_secs(30)).await;
        for _ in 0..5 {
            assert_eq!(*names.find("a.test").await.unwrap(), [address(1)]);
        }
        answers.send(Ok(vec![address(2)])).unwrap();
        until(|| {
            let known = names.0.known();
            known["a.test"].pending.is_none()
        })
        .await;
        assert_eq!(*names.find("a.test").await.unwrap(), [address(2)]);
        assert_eq!(count.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_remembered_for_a_second_and_does_not_forget_what_was_good() {
        let (names, answers, count) = scripted();
        let fail = || answers.send(Err(io::ErrorKind::TimedOut.into())).unwrap();
        fail();
        assert!(names.find("a.test").await.is_err());
        assert!(names.find("a.test").await.is_err());
        assert_eq!(count.load(Ordering::SeqCst), 1);
        tokio::time::advance(Duration::from_secs(8)).await;
        answers.send(Ok(Vec::new())).unwrap();
        assert!(names.find("a.test").await.is_err(), "no address is none");
        tokio::time::advance(Duration::from_secs(8)).await;
        answers.send(Ok(vec![address(1)])).unwrap();
        assert_eq!(*names.find("a.test").await.unwrap(), [address(1)]);

        for _ in 0..20 {
            let seen = count.load(Ordering::SeqCst);
            tokio::time::advance(Duration::from_secs(14)).await;
            fail();
            assert_eq!(*names.find("a.test").await.unwrap(), [address(1)]);
            until(|| names.0.known()["a.test"].pending.is_none()).await;
            assert_eq!(count.load(Ordering::SeqCst), seen + 1);
        }
        tokio::time::advance(Duration::from_secs(30)).await;
        fail();
        assert!(names.find("a.test").await.is_err(), "for ever is too long");
    }

    #[tokio::test]
    async fn one_silent_name_holds_up_no_other_and_an_address_needs_no_look_up() {
        let names = Names::new(|host| {
            if host.starts_with("silent") {
                std::thread::sleep(Duration::from_secs(2));
            }
            Ok(vec![address(7)])
        });
        let mut silent = tokio::task::JoinSet::new();
        for n in 0..MOST_THREADS - 1 {
            let names = names.clone();
            silent.spawn(async move { names.find(&format!("silent-{n}.test")).await.is_ok() });
        }
        tokio::task::yield_now().await;
        let found = tokio::time::timeout(Duration::from_secs(1), names.find("quick.test"));
        assert_eq!(*found.await.unwrap().unwrap(), [address(7)]);
        assert_eq!(*names.find("192.0.2.9").await.unwrap(), [address(9)]);
        assert_eq!(names.find("::1").await.unwrap().len(), 1);
    }
}
