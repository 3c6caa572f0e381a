//! Counts the open connections, over all workers and by client. Accessed once per connection, never by a request.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::cut::{Cause, Cut};
use crate::net::client::Counted;
use crate::net::limits::Limits;
use crate::observe::counts::{Lanes, ListenerLane};

/// The open connections.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    open: AtomicUsize,
    by_client: Mutex<HashMap<Counted, u32>>,
    /// Those that were rejected.
    pub(super) cut: Cut,
}

/// A connection's place in the tally, released when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    tally: Arc<Tally>,
    client: Option<Counted>,
    /// The numbers of its listener, and the worker that counts.
    numbers: Option<(Arc<Lanes<ListenerLane>>, usize)>,
}

impl Tally {
    /// Counts a connection; `client` is `None` for a peer that forwards for many clients.
    ///
    /// # Errors
    /// The limit that is reached.
    pub(crate) fn enter(
        self: &Arc<Self>,
        client: Option<Counted>,
        limits: &Limits,
    ) -> Result<Place, Cause> {
        if self.open.fetch_add(1, Ordering::Relaxed) >= limits.connections {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return Err(Cause::Connections);
        }
        let mut place = Place {
            tally: Arc::clone(self),
            client: None,
            numbers: None,
        };
        if let Some(client) = client {
            place.count(client, limits)?;
        }
        Ok(place)
    }

    /// How many are open.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

impl Place {
    /// Counts the connection for its client, which was not known when it was accepted.
    ///
    /// # Errors
    /// The limit that is reached.
    pub(crate) fn count(&mut self, client: Counted, limits: &Limits) -> Result<(), Cause> {
        let by_client = &self.tally.by_client;
        let mut by_client = by_client.lock().unwrap_or_else(PoisonError::into_inner);
        let count = by_client.entry(client).or_insert(0);
        if *count >= limits.connections_per_ip {
            return Err(Cause::PerIp);
        }
        *count += 1;
        self.client = Some(client);
        Ok(())
    }

    /// Counts the connection as one of this listener, until it is dropped.
    pub(crate) fn of_listener(mut self, lanes: &Arc<Lanes<ListenerLane>>, worker: usize) -> Self {
        self.numbers = Some((Arc::clone(lanes), worker));
        self.count_in(|lane| lane.connections.one());
        self
    }

    /// Counts a TLS handshake.
    pub(crate) fn shook_hands(&self, word: &'static str) {
        self.count_in(|lane| lane.handshakes.count(word));
    }

    fn count_in(&self, count: impl FnOnce(&ListenerLane)) {
        let numbers = self.numbers.as_ref();
        if let Some(lane) = numbers.and_then(|(lanes, worker)| lanes.of(*worker)) {
            count(lane);
        }
    }

    /// Notes why the connection is closed before its first request; `ip` is `None` on a Unix socket.
    pub(crate) fn cut(&self, why: Cause, ip: Option<IpAddr>) {
        self.count_in(|lane| lane.refused.count(why.reason()));
        self.tally.cut.count(why, ip);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.count_in(|lane| lane.closed.one());
        self.tally.open.fetch_sub(1, Ordering::Relaxed);
        let Some(client) = self.client else { return };
        let mut by_client = self
            .tally
            .by_client
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = by_client.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                by_client.remove(&client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_hold_and_places_are_given_back() {
        let limits = Limits {
            connections: 3,
            connections_per_ip: 2,
            header_bytes: 0,
            header_count: 0,
            uri_bytes: 0,
            body_bytes: 0,
        };
        let tally = Arc::new(Tally::default());
        let client = |ip: &str| Some(Counted::of(ip.parse().ok()));
        let (one, two) = (client("2001:db8::1"), client("unix"));
        let first = tally.enter(one, &limits).unwrap();
        let second = tally.enter(one, &limits).unwrap();
        let refused = tally.enter(client("2001:db8::2"), &limits);
        assert_eq!(refused.err(), Some(Cause::PerIp));
        let third = tally.enter(two, &limits).unwrap();
        assert_eq!(tally.enter(None, &limits).err(), Some(Cause::Connections));
        drop(first);
        assert!(tally.enter(one, &limits).is_ok());
        drop((second, third));
        assert_eq!(tally.open(), 0);
        assert!(tally.by_client.lock().unwrap().is_empty());
    }
}
