//! Reads the files of a reload on a separate thread: even if a file system blocks, signals are handled and later
//! reloads work.

use std::future::pending;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Timeout, timeout};

use super::Read;
use crate::admin::{By, Row};
use crate::clock;
use crate::tokens::States;

/// The timeout of a reload. Each file has a shorter one; this covers everything else that a disk can block.
const AT_MOST: Duration = Duration::from_secs(60);

/// Who requested a reload, and who waits for its outcome.
#[derive(Debug)]
pub(crate) struct Request {
    /// Who requested it.
    pub(crate) by: By,
    /// Takes the outcome.
    pub(crate) answer: Option<oneshot::Sender<Row>>,
}

impl Request {
    /// A file has changed.
    pub(crate) fn of_file() -> Self {
        Self {
            by: By::File,
            answer: None,
        }
    }

    /// SIGHUP.
    pub(crate) fn of_signal() -> Self {
        Self {
            by: By::Signal,
            answer: None,
        }
    }
}

/// What was read, and whether its token service could start.
type WasRead = (Read, Result<(), String>);

/// A running read.
#[derive(Debug)]
pub(crate) struct Reading {
    asked: Request,
    read: Pin<Box<Timeout<JoinHandle<WasRead>>>>,
}

impl Reading {
    /// Starts to read, and starts the token service of the result. `asked` tells who
    /// requested it.
    pub(crate) fn begin(
        asked: Request,
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

    /// Waits for the running read, if any, and takes it: who requested it, and the result. Cancel-safe.
    pub(crate) async fn end(reading: &mut Option<Self>) -> (Request, io::Result<WasRead>) {
        let read = match reading {
            Some(Self { read, .. }) => read.await,
            None => return pending().await,
        };
        let read = match read {
            Ok(read) => read.map_err(io::Error::other),
            Err(late) => Err(late.into()),
        };
        let asked = reading.take().map_or_else(Request::of_file, |it| it.asked);
        (asked, read)
    }
}
