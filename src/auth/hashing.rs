//! The threads that check passwords: few, of low priority, and with a short queue, so that a flood of logins slows
//! down logins and not the traffic. Where hashes are stored, and how often a client may try, is not known here.

use std::io;
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;

use tokio::sync::oneshot;

use super::password::{self, Verdict};

/// How many logins may be queued.
const WAITING: usize = 128;
/// The niceness of these threads, so that the event loops take precedence on a busy processor.
const NICENESS: i32 = 10;

/// The result of a password check.
#[derive(Debug)]
pub(crate) struct Checked {
    /// Whether it is correct.
    pub(crate) verdict: Verdict,
    /// A hash of the current kind, where the password is correct and its hash is of an older one.
    pub(crate) renewed: Option<String>,
}

/// Why a password was not checked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Unchecked {
    /// The queue is full.
    Busy,
    /// There are no threads.
    Gone,
}

struct Job {
    hash: Option<String>,
    password: String,
    /// Whether a hash of an older kind is replaced.
    renews: bool,
    answer: oneshot::Sender<Checked>,
}

/// A shared handle of the threads, which start with the first password: half as many as there are processors. They end
/// when it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Hashing(OnceLock<Option<SyncSender<Job>>>);

impl Hashing {
    /// The queue of the threads; `None` where the system has no threads left.
    fn jobs(&self) -> Option<&SyncSender<Job>> {
        let jobs = self.0.get_or_init(|| {
            let started = Self::start();
            started
                .inspect_err(
                    |error| tracing::error!(%error, "no password can be checked: no thread starts"),
                )
                .ok()
        });
        jobs.as_ref()
    }

    fn start() -> io::Result<SyncSender<Job>> {
        let (jobs, queue) = mpsc::sync_channel(WAITING);
        let queue = Arc::new(Mutex::new(queue));
        let processors = thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..(processors / 2).max(1) {
            let queue = Arc::clone(&queue);
            thread::Builder::new()
                .name("passwords".to_owned())
                .spawn(move || work(&queue))?;
        }
        Ok(jobs)
    }

    /// Checks a password; without a hash it is always wrong, which takes as long. `renews` says whether a correct
    /// password with a hash of an older kind gets a new one.
    ///
    /// # Errors
    /// Where it cannot be checked now.
    pub(crate) async fn check(
        &self,
        hash: Option<String>,
        password: String,
        renews: bool,
    ) -> Result<Checked, Unchecked> {
        let (answer, checked) = oneshot::channel();
        let job = Job {
            hash,
            password,
            renews,
            answer,
        };
        let jobs = self.jobs().ok_or(Unchecked::Gone)?;
        jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => Unchecked::Busy,
            TrySendError::Disconnected(_) => Unchecked::Gone,
        })?;
        checked.await.map_err(|_| Unchecked::Gone)
    }
}

fn work(queue: &Mutex<Receiver<Job>>) {
    yield_to_traffic();
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        if job.answer.is_closed() {
            // The client left before its turn.
            continue;
        }
        let verdict = password::check(job.hash.as_deref(), &job.password);
        let renewed = match verdict {
            Verdict::RightAndOld if job.renews => password::hash(&job.password).ok(),
            Verdict::RightAndOld | Verdict::Right | Verdict::Wrong => None,
        };
        if job.answer.send(Checked { verdict, renewed }).is_err() {
            tracing::trace!("a client left while its password was checked");
        }
    }
}

/// On Linux each thread has its own priority; elsewhere these threads have the same priority as the others.
fn yield_to_traffic() {
    #[cfg(target_os = "linux")]
    {
        let this = rustix::thread::gettid();
        if let Err(error) = rustix::process::setpriority_process(Some(this), NICENESS) {
            tracing::debug!(%error, "the priority of a thread could not be lowered");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn passwords_are_checked_and_old_hashes_renewed() {
        let hashing = Hashing::default();
        let hash = password::hash("secret").unwrap();
        let check = async |hash: Option<&String>, password: &str, renews| {
            let checked = hashing.check(hash.cloned(), password.to_owned(), renews);
            checked.await.unwrap()
        };
        let right = check(Some(&hash), "secret", true).await;
        assert_eq!((right.verdict, right.renewed), (Verdict::Right, None));
        let wrong = check(Some(&hash), "other", true).await;
        assert_eq!(wrong.verdict, Verdict::Wrong);
        let nobody = check(None, "secret", true).await;
        assert_eq!(nobody.verdict, Verdict::Wrong);
        let old = bcrypt::hash("secret", 4).unwrap();
        let kept = check(Some(&old), "secret", false).await;
        assert_eq!((kept.verdict, kept.renewed), (Verdict::RightAndOld, None));
        let renewed = check(Some(&old), "secret", true).await;
        assert_eq!(renewed.verdict, Verdict::RightAndOld);
        let renewed = renewed.renewed.unwrap();
        assert_eq!(password::check(Some(&renewed), "secret"), Verdict::Right);
    }

    #[tokio::test]
    async fn more_than_the_queue_holds_are_sent_away() {
        let hashing = Arc::new(Hashing::default());
        // A hash that is fast to check, with a wrong password.
        let hash = bcrypt::hash("secret", 4).unwrap();
        let flood = (0..WAITING * 3).map(|_| {
            let (hashing, hash) = (Arc::clone(&hashing), Some(hash.clone()));
            tokio::spawn(async move { hashing.check(hash, "x".to_owned(), true).await.is_ok() })
        });
        let flood: Vec<_> = flood.collect();
        let mut served = 0;
        for one in flood {
            served += usize::from(one.await.unwrap());
        }
        assert!((WAITING..WAITING * 3).contains(&served), "{served}");
    }
}
