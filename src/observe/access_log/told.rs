//! Reports lost access records to the operator: at once, and then once a minute while it continues.

use std::time::{Duration, Instant};

use super::Destination;
use super::sink::Unwritten;

/// The pause before a continuing problem is reported again.
const AGAIN: Duration = Duration::from_secs(60);

/// The result of writing lines.
#[derive(Clone, Debug, Default)]
pub(super) struct Trouble {
    /// Lines lost since the start.
    lost: u64,
    /// The last error.
    error: String,
    /// Whether the last write failed.
    lasts: bool,
}

impl Trouble {
    /// Notes the result of a write.
    pub(super) fn came_of(&mut self, written: Result<(), Unwritten>) {
        self.lasts = written.is_err();
        if let Err(unwritten) = written {
            self.lost += unwritten.lines;
            self.error = unwritten.error.to_string();
        }
    }
}

/// What was already reported.
#[derive(Debug, Default)]
pub(super) struct Told {
    dropped: Pace,
    unwritten: Pace,
    /// Whether the last reported problem was still continuing.
    lasts: bool,
}

/// A count, and when it was reported.
#[derive(Debug, Default)]
struct Pace {
    at: Option<Instant>,
    count: u64,
}

impl Pace {
    /// The increase since the last report, where one is due.
    fn due(&mut self, count: u64, lasts: bool, now: Instant) -> Option<u64> {
        let new = count - self.count;
        let waits = self
            .at
            .is_some_and(|at| now.saturating_duration_since(at) < AGAIN);
        if waits || (new == 0 && !lasts) {
            return None;
        }
        (self.at, self.count) = (Some(now), count);
        Some(new)
    }
}

impl Told {
    /// Reports what is new; `dropped` counts the lines dropped since the start.
    pub(super) fn tell(&mut self, to: &Destination, dropped: u64, trouble: &Trouble, now: Instant) {
        if let Some(lost) = self.dropped.due(dropped, false, now) {
            tracing::warn!(%to, lost, "access records were lost: the reader of the access log is too slow");
        }
        let error = &trouble.error;
        if let Some(lost) = self.unwritten.due(trouble.lost, trouble.lasts, now) {
            tracing::warn!(%to, lost, error, "the access log cannot be written");
            self.lasts = trouble.lasts;
        }
        if self.lasts && !trouble.lasts {
            self.lasts = false;
            tracing::info!(%to, "the access log is written again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_told_at_once_and_then_each_minute_with_the_count() {
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let mut pace = Pace::default();
        assert_eq!(pace.due(0, false, at(0)), None);
        assert_eq!(pace.due(2, false, at(1)), Some(2));
        assert_eq!(pace.due(5, false, at(60)), None);
        assert_eq!(pace.due(5, false, at(61)), Some(3));
        assert_eq!(pace.due(5, false, at(200)), None);
        // Nothing was lost, but lines are written to a file that was moved away.
        assert_eq!(pace.due(5, true, at(201)), Some(0));
        assert_eq!(pace.due(5, true, at(202)), None);
    }
}
