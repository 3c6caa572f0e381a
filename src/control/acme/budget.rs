//! How many orders are placed: directories count them for each account, and refuse more for hours.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

/// The limit of orders, and its time in seconds. Let's Encrypt's is 300.
const ORDERS: usize = 250;
const WITHIN: u64 = 3 * 60 * 60;

/// The orders of the last hours, by directory. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Budget(Arc<Mutex<HashMap<String, VecDeque<u64>>>>);

impl Budget {
    /// Counts an order that was placed at this time, in seconds since 1970, before this process was started.
    pub(super) fn note(&self, directory: &str, at: u64) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let orders = all.entry(directory.to_owned()).or_default();
        let place = orders.partition_point(|known| *known <= at);
        orders.insert(place, at);
    }

    /// The time of the limit in seconds, and the limit.
    pub(super) fn bounds() -> (u64, usize) {
        (WITHIN, ORDERS)
    }

    /// Counts an order that is placed now.
    ///
    /// # Errors
    /// There were too many; how long to wait, in seconds.
    pub(super) fn take(&self, directory: &str) -> Result<(), u64> {
        self.take_at(directory, super::now())
    }

    fn take_at(&self, directory: &str, now: u64) -> Result<(), u64> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let orders = all.entry(directory.to_owned()).or_default();
        while orders.front().is_some_and(|first| first + WITHIN <= now) {
            orders.pop_front();
        }
        match orders.front() {
            Some(first) if orders.len() >= ORDERS => Err(first + WITHIN - now),
            _ => {
                orders.push_back(now);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_places_so_many_orders_and_no_more() {
        let budget = Budget::default();
        budget.note("a", 1_000);
        for _ in 1..ORDERS {
            assert_eq!(budget.take_at("a", 2_000), Ok(()));
        }
        assert_eq!(budget.take_at("a", 2_000), Err(WITHIN - 1_000));
        assert_eq!(budget.take_at("b", 2_000), Ok(()));
        assert_eq!(budget.take_at("a", 1_000 + WITHIN), Ok(()));
        assert_eq!(budget.take_at("a", 1_000 + WITHIN), Err(1_000));
    }
}
