//! A reload's files are read on a thread of its own: whatever a file system holds up, signals are heard, and later
//! reloads come.

use std::future::pending;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Timeout, timeout};

use super::Read;
use crate::clock;
use crate::tokens::States;

/// How long a reload may take. Each file has a shorter deadline; this is for whatever else a disk can hold up.
const AT_MOST: Duration = Duration::from_secs(60);

/// What was read, and whether its token service could start.
type WasRead = (Read, Result<(), String>);

/// A reading that goes on.
#[derive(Debug)]
pub(crate) struct Reading {
    asked: bool,
    read: Pin<Box<Timeout<JoinHandle<WasRead>>>>,
}

impl Reading {
    /// Begins to read, and starts the token service of what was read. `asked` says whether a signal wants it.
    pub(crate) fn begin(
        asked: bool,
        reader: impl FnOnce() -> Read + Send + 'static,
        states: &Arc<States>,
    ) -> Self {
        let states = Arc::clone(states);
        let reading = spawn_blocking(move || {
            let read = reader();
            let next = read.snapshot();
            let tokens = next.and_then(|next| Some((next.tokens.as_ref()?, next.dialer.names())));
            let started = tokens.map_or(Ok(()), |(tokens, names)| {
                tokens.start(&states, names, clock::now())
            });
            (read, started)
        });
        Self {
            asked,
            read: Box::pin(timeout(AT_MOST, reading)),
        }
    }

    /// Waits for the reading that goes on, if any, and takes it away: whether a signal wanted it, and what it
    /// read. Who drops the future and asks again misses nothing.
    pub(crate) async fn end(reading: &mut Option<Self>) -> (bool, io::Result<WasRead>) {
        let Some(Self { asked, read }) = reading else {
            return pending().await;
        };
        let read = match read.await {
            Ok(read) => read.map_err(io::Error::other),
            Err(late) => Err(late.into()),
        };
        let asked = *asked;
        *reading = None;
        (asked, read)
    }
}
