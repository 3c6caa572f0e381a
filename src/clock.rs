//! The only place that reads the wall clock, and the formatting of its time. All other code takes the time as an
//! argument, so that it can be tested.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// How long a reading of the wall clock is reused, and so how late a correction of it is noticed.
const LOOKED_AT_FOR: Duration = Duration::from_secs(1);
/// The maximum time between the readings of both clocks, unless every attempt takes longer.
const LOOK_TAKES: Duration = Duration::from_micros(50);
const TRIES: usize = 8;

/// The current time.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the wall clock"
)]
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}

/// A reading of both clocks, from which the wall clock's time is computed for a while without another reading.
#[derive(Debug)]
pub(crate) struct Look {
    at: Instant,
    time: SystemTime,
}

impl Look {
    /// Reads both clocks now. The computed time is never ahead of the wall clock, and hardly behind it.
    pub(crate) fn new() -> Self {
        let mut tries = 0;
        loop {
            let before = Instant::now();
            let time = now();
            let at = Instant::now();
            tries += 1;
            // The thread may have been preempted in between.
            if at.duration_since(before) < LOOK_TAKES || tries == TRIES {
                return Self { at, time };
            }
        }
    }

    /// The wall clock's time at a moment close to the present. For times that are counted in seconds or only
    /// displayed; where milliseconds matter, use [`now`].
    pub(crate) fn time(&mut self, at: Instant) -> SystemTime {
        match at.checked_duration_since(self.at) {
            Some(since) if since < LOOKED_AT_FOR => self.time + since,
            Some(_) | None => {
                *self = Self::new();
                self.time
            }
        }
    }
}

/// Seconds and milliseconds since 1970; earlier times give 1970.
pub(crate) fn since_epoch(time: SystemTime) -> (u64, u32) {
    let elapsed = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    (elapsed.as_secs(), elapsed.subsec_millis())
}

/// Year, month, day, hour, minute and second in UTC.
pub(crate) fn civil(seconds: u64) -> (u64, u64, u64, u64, u64, u64) {
    // Days are counted in eras of 400 years that begin in March, so that leap days come last.
    let (days, rest) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day, rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_look_at_the_wall_clock_holds_for_a_second() {
        let mut look = Look::new();
        let (began, time) = (look.at, look.time);
        let half = Duration::from_millis(500);
        assert_eq!(look.time(began + half), time + half);
        tokio::time::advance(LOOKED_AT_FOR).await;
        // The wall clock is not paused, but has hardly advanced.
        let later = look.time(began + LOOKED_AT_FOR);
        assert!(later >= time && later < time + half);
        assert_eq!(look.time(began + LOOKED_AT_FOR + half), later + half);
        assert!(look.time(began) < later + half, "an earlier moment, too");
        assert!(look.time(look.at) <= now(), "never ahead");
    }

    #[test]
    fn days_have_their_dates() {
        assert_eq!(civil(0), (1970, 1, 1, 0, 0, 0));
        assert_eq!(civil(951_827_696), (2000, 2, 29, 12, 34, 56));
        assert_eq!(civil(1_795_478_399), (2026, 11, 23, 23, 59, 59));
        assert_eq!(civil(4_107_542_400), (2100, 3, 1, 0, 0, 0));
    }
}
