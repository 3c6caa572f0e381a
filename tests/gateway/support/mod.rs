//! The test harness: the program as a child process, scripted apps behind it, clients in front of it. Everything that
//! waits polls with a deadline.

mod app;
mod gateway;
mod h2;
mod reply;
mod secure;
mod token;
mod wire;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

pub(crate) use self::app::{Answer, App, Seen};
pub(crate) use self::gateway::{Folder, Gateway, program, run_to_end};
pub(crate) use self::h2::{Frame, Framed, H2, block, fields_of, status_of};
pub(crate) use self::reply::Reply;
pub(crate) use self::secure::{Authority, Issued, connect_offering, identified, resuming};
pub(crate) use self::token::{Kind, claims, key, now, sign, sign_with_header, token};
pub(crate) use self::wire::{Wire, chunked, get, request};

/// The timeout of every wait.
pub(crate) const DEADLINE: Duration = Duration::from_secs(15);

/// Polls `probe` until it returns a value.
#[track_caller]
pub(crate) fn eventually<T>(
    what: &str,
    mut probe: impl AsyncFnMut() -> Option<T>,
) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    async move {
        let start = Instant::now();
        loop {
            if let Some(found) = probe().await {
                return found;
            }
            assert!(
                start.elapsed() < DEADLINE,
                "{caller}: waited in vain for {what}"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// The future's output if it completes in time; for proofs that something does *not* happen.
pub(crate) async fn within<T>(time: Duration, future: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(time, future).await.ok()
}

/// A configuration with one plain-text listener, two workers and an access log on stdout, unless the text has its own;
/// each `@name` in it is replaced by its value.
pub(crate) fn config(text: &str, values: &[(&str, &str)]) -> String {
    let mut whole = String::new();
    for (key, line) in [
        ("workers:", "workers: 2\n"),
        ("listeners:", "listeners: [{address: 127.0.0.1:0}]\n"),
        ("log:", "log: {access: {to: stdout, format: json}}\n"),
    ] {
        if !text.lines().any(|known| known.starts_with(key)) {
            whole.push_str(line);
        }
    }
    whole.push_str(text);
    for (name, value) in values {
        whole = whole.replace(&format!("@{name}"), value);
    }
    whole
}

/// An unused port. It is below the range of the system's ephemeral ports, so that a connection of another test does not
/// take it.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 18_000 + u16::try_from(std::process::id() % 600).unwrap() * 20;
    loop {
        let port = first + NEXT.fetch_add(1, Ordering::Relaxed) % 2_000;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// The loopback address of a port.
pub(crate) fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// The index of `needle` in `bytes`.
pub(crate) fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes
        .windows(needle.len())
        .position(|window| window == needle)
}
