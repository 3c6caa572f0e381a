//! Limits how often an address or a user may try a password.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use governor::clock::{Clock as _, DefaultClock};
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use unicode_normalization::UnicodeNormalization as _;

use super::users::LONGEST_NAME;
use crate::net::client::Counted;

/// This many attempts per period, which is also the burst.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Rate {
    /// The number of attempts.
    pub(crate) tries: NonZeroU32,
    /// The period.
    pub(crate) per: Duration,
}

type Limiter<K> = RateLimiter<K, HashMapStateStore<K>, DefaultClock>;

/// The attempts of all addresses and users.
#[derive(Clone, Debug, Default)]
pub(crate) struct Throttle {
    by_client: Option<Arc<Limiter<Counted>>>,
    by_user: Option<Arc<Limiter<String>>>,
    /// When idle entries were last forgotten.
    forgotten: Arc<Mutex<Option<Instant>>>,
}

fn limiter<K: std::hash::Hash + Eq + Clone>(rate: Option<Rate>) -> Option<Arc<Limiter<K>>> {
    let Rate { tries, per } = rate?;
    let quota = Quota::with_period(per / tries.get())?.allow_burst(tries);
    Some(Arc::new(RateLimiter::hashmap(quota)))
}

impl Throttle {
    /// Limits for one address and for one user.
    pub(crate) fn new(per_ip: Option<Rate>, per_user: Option<Rate>) -> Self {
        Self {
            by_client: limiter(per_ip),
            by_user: limiter(per_user),
            forgotten: Arc::default(),
        }
    }

    /// Counts an attempt; `client` is `None` where the client's address is not known.
    ///
    /// # Errors
    /// How long to wait, where there were too many.
    pub(crate) fn try_once(&self, client: Option<IpAddr>, user: &str) -> Result<(), Duration> {
        self.forget();
        if let Some(limiter) = &self.by_client {
            one(limiter, &Counted::of(client))?;
        }
        if let Some(limiter) = &self.by_user {
            // A name that is too long to be valid is truncated; the address is counted.
            let name: String = user.chars().take(LONGEST_NAME).collect();
            one(limiter, &name)?;
        }
        Ok(())
    }
}

impl Throttle {
    /// Occasionally forgets idle entries, if there are many.
    fn forget(&self) {
        const MANY: usize = 10_000;
        const NOW_AND_THEN: Duration = Duration::from_secs(1);
        let many = self.by_client.as_ref().is_some_and(|it| it.len() > MANY)
            || self.by_user.as_ref().is_some_and(|it| it.len() > MANY);
        if !many {
            return;
        }
        {
            let now = Instant::now();
            let mut last = self
                .forgotten
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if last.is_some_and(|last| now.duration_since(last) < NOW_AND_THEN) {
                return;
            }
            *last = Some(now);
        }
        if let Some(limiter) = &self.by_client {
            limiter.retain_recent();
        }
        if let Some(limiter) = &self.by_user {
            limiter.retain_recent();
        }
    }
}

/// A name as many apps compare it: compatibility forms are unified (NFKC), and upper case is folded to lower case. If
/// an app decides who `Alice` is, all spellings of that name count as one.
pub(super) fn folded(name: &str) -> String {
    name.nfkc()
        .flat_map(char::to_lowercase)
        .nfkc()
        .take(LONGEST_NAME)
        .collect()
}

fn one<K: std::hash::Hash + Eq + Clone>(limiter: &Limiter<K>, key: &K) -> Result<(), Duration> {
    limiter
        .check_key(key)
        .map_err(|refused| refused.wait_time_from(limiter.clock().now()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_name_are_folded() {
        for spelling in [
            "Alice",
            "ALICE",
            "\u{ff21}lice",
            "\u{24b6}lice",
            "\u{1d400}\u{1d425}ice",
        ] {
            assert_eq!(folded(spelling), "alice", "{spelling}");
        }
        assert_eq!(folded("e\u{301}"), folded("\u{c9}"));
        assert_eq!(folded("\u{130}"), folded("i\u{307}"));
        assert_ne!(folded("alice"), folded("alicia"));
        let long = "\u{fdfa}".repeat(10_000);
        assert_eq!(folded(&long).chars().count(), LONGEST_NAME);
    }

    #[test]
    fn an_address_and_a_user_have_their_own_tries() {
        let rate = |tries| {
            Some(Rate {
                tries: NonZeroU32::new(tries).unwrap(),
                per: Duration::from_secs(60),
            })
        };
        let throttle = Throttle::new(rate(3), rate(2));
        let ip = |text: &str| Some(text.parse().unwrap());
        assert_eq!(throttle.try_once(ip("10.0.0.1"), "alice"), Ok(()));
        assert_eq!(throttle.try_once(ip("10.0.0.1"), "alice"), Ok(()));
        let wait = throttle.try_once(ip("10.0.0.1"), "alice").unwrap_err();
        assert!(
            wait > Duration::from_secs(25) && wait <= Duration::from_secs(30),
            "{wait:?}"
        );
        // The address has no attempts left, either.
        assert!(throttle.try_once(ip("10.0.0.1"), "bob").is_err());
        assert!(throttle.try_once(ip("10.0.0.2"), "bob").is_ok());
        for last in 0..3 {
            let one_network = ip(&format!("2001:db8::{last}"));
            assert!(throttle.try_once(one_network, &format!("u{last}")).is_ok());
        }
        assert!(throttle.try_once(ip("2001:db8::9"), "u9").is_err());
        // All clients of a Unix socket count as one.
        for user in ["v1", "v2", "v3"] {
            assert!(throttle.try_once(None, user).is_ok());
        }
        assert!(throttle.try_once(None, "v4").is_err());
        assert!(Throttle::new(None, None).try_once(None, "a").is_ok());
    }
}
