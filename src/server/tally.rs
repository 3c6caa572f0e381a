//! How many connections are open, over all workers and by address. Touched once a connection,
//! never by a request.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::limits::Limits;

/// The open connections.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    open: AtomicUsize,
    by_ip: Mutex<HashMap<IpAddr, u32>>,
}

/// A connection's place in the tally, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    tally: Arc<Tally>,
    ip: Option<IpAddr>,
}

impl Tally {
    /// Counts a connection in; `ip` is `None` where addresses are not counted. `None` comes back
    /// where a limit is reached.
    pub(crate) fn enter(self: &Arc<Self>, ip: Option<IpAddr>, limits: &Limits) -> Option<Place> {
        if self.open.fetch_add(1, Ordering::Relaxed) >= limits.connections {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        if let Some(ip) = ip {
            let mut by_ip = self.by_ip.lock().unwrap_or_else(PoisonError::into_inner);
            let count = by_ip.entry(ip).or_insert(0);
            if *count >= limits.connections_per_ip {
                self.open.fetch_sub(1, Ordering::Relaxed);
                return None;
            }
            *count += 1;
        }
        Some(Place {
            tally: Arc::clone(self),
            ip,
        })
    }

    /// How many are open.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.tally.open.fetch_sub(1, Ordering::Relaxed);
        let Some(ip) = self.ip else { return };
        let mut by_ip = self
            .tally
            .by_ip
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = by_ip.get_mut(&ip) {
            *count -= 1;
            if *count == 0 {
                by_ip.remove(&ip);
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
        let (one, two) = ("10.0.0.1".parse().ok(), "10.0.0.2".parse().ok());
        let first = tally.enter(one, &limits).unwrap();
        let second = tally.enter(one, &limits).unwrap();
        assert!(tally.enter(one, &limits).is_none());
        let third = tally.enter(two, &limits).unwrap();
        assert!(tally.enter(None, &limits).is_none());
        drop(first);
        assert!(tally.enter(one, &limits).is_some());
        drop((second, third));
        assert_eq!(tally.open(), 0);
        assert!(tally.by_ip.lock().unwrap().is_empty());
    }
}
