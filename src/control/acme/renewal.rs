//! When a certificate is renewed, and when an attempt that failed is repeated. Pure: times and random numbers are
//! arguments. Times are in seconds since 1970.

use super::rows::{Row, WindowRow};

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// The pauses after the first failures, in minutes; then it is the last one.
const PAUSES: [u64; 10] = [1, 2, 5, 10, 20, 40, 60, 120, 240, 360];
/// The longest pause that a directory may ask for.
const LONGEST: u64 = 7 * DAY;
/// Below this, half of the life is left at the renewal, not a third.
const SHORT: u64 = 10 * DAY;
/// How often a window may lead to an order: a directory that always says "now" must not use up its own limits.
const BETWEEN_WINDOWS: u64 = 6 * HOUR;
/// The bounds for when to ask for a window again (RFC 9773 section 4.3.2).
const AGAIN: (u64, u64) = (MINUTE, DAY);

/// The pause after this many failures in a row, at least 1: +- 10 % by `random` from 0 to 1. What the directory asked
/// for in `Retry-After`, in seconds, is observed where it is longer.
pub(super) fn pause(failures: u32, retry_after: Option<u64>, random: f64) -> u64 {
    let at = usize::try_from(failures.saturating_sub(1)).unwrap_or(usize::MAX);
    let minutes = PAUSES.get(at).or(PAUSES.last()).copied().unwrap_or(360);
    let pause = share(minutes * MINUTE, 0.9 + 0.2 * random);
    pause.max(retry_after.unwrap_or(0).min(LONGEST))
}

/// When to renew a certificate that is valid from `begins` to `ends`, without a window: when a third of its life is
/// left, or half of one that is under ten days, 5 % of that earlier or later by `random` from 0 to 1.
pub(super) fn by_life(begins: u64, ends: u64, random: f64) -> u64 {
    let life = ends.saturating_sub(begins);
    let left = if life < SHORT { life / 2 } else { life / 3 };
    ends.saturating_sub(share(left, 0.95 + 0.1 * random))
}

/// A window as a directory suggests it, with a time in it by `random` from 0 to 1; one that is over means now.
/// `None` where it does not end after it begins (RFC 9773 section 4.2).
pub(super) fn window(id: &str, (start, end): (u64, u64), random: f64) -> Option<WindowRow> {
    if end <= start {
        return None;
    }
    Some(WindowRow {
        id: id.to_owned(),
        start,
        end,
        chosen: start + share(end - start, random),
    })
}

/// When to ask for a window again, after a `Retry-After` in seconds.
pub(super) fn again(retry_after: u64, now: u64) -> u64 {
    now + retry_after.clamp(AGAIN.0, AGAIN.1)
}

/// The later window, with the time that was chosen before, where the directory did not change it.
pub(super) fn updated(old: Option<&WindowRow>, new: WindowRow) -> WindowRow {
    let same = |old: &&WindowRow| (&old.id, old.start, old.end) == (&new.id, new.start, new.end);
    let chosen = old.filter(same).map_or(new.chosen, |old| old.chosen);
    WindowRow { chosen, ..new }
}

/// When a window says to renew: its time, but not within 6 h of the last order that a window led to, at `by_window`.
pub(super) fn by_window(window: &WindowRow, by_window: u64) -> u64 {
    window.chosen.max(by_window.saturating_add(BETWEEN_WINDOWS))
}

/// When to renew whatever a window says: half-way between the time without a window and the end. A directory that
/// suggests a time after the end must not let a certificate expire.
pub(super) fn latest(row: &Row) -> u64 {
    row.renew + row.ends.saturating_sub(row.renew) / 2
}

/// A time in seconds, +- 20 % by `random` from 0 to 1: gateways must not ask all at once.
pub(super) fn around(seconds: u64, random: f64) -> u64 {
    share(seconds, 0.8 + 0.4 * random)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "durations of years in seconds, and a share that is not negative"
)]
fn share(of: u64, share: f64) -> u64 {
    (of as f64 * share) as u64
}

/// A random number from 0 to 1.
pub(super) fn random() -> f64 {
    let mut bytes = [0; 2];
    // Without randomness the middle is as good as any.
    if getrandom::fill(&mut bytes).is_err() {
        return 0.5;
    }
    f64::from(u16::from_ne_bytes(bytes)) / f64::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_six_hours_and_a_later_retry_after_wins() {
        let minutes: Vec<u64> = (1..=12).map(|it| pause(it, None, 0.5) / MINUTE).collect();
        assert_eq!(minutes, [1, 2, 5, 10, 20, 40, 60, 120, 240, 360, 360, 360]);
        assert_eq!((pause(1, None, 0.0), pause(1, None, 1.0)), (54, 66));
        assert_eq!(pause(1, Some(30), 0.5), 60);
        assert_eq!(pause(1, Some(3600), 0.5), 3600);
        assert_eq!(pause(1, Some(u64::MAX), 0.5), 7 * DAY);
        assert_eq!(pause(u32::MAX, None, 0.5), 6 * HOUR);
        assert_eq!(pause(0, None, 0.5), 60);
    }

    #[test]
    fn a_third_of_a_long_life_is_left_and_half_of_a_short_one() {
        let begins = 1_000 * DAY;
        for (days, left, random) in [
            (90, 30 * DAY, 0.5),
            (90, 30 * DAY * 19 / 20, 0.0),
            (90, 30 * DAY * 21 / 20, 1.0),
            (6, 3 * DAY, 0.5),
            (10, 10 * DAY / 3, 0.5),
            (0, 0, 0.5),
        ] {
            let ends = begins + days * DAY;
            let at = by_life(begins, ends, random);
            assert!(at.abs_diff(ends - left) <= 1, "{days} {random}");
        }
        assert_eq!(by_life(9, 3, 0.5), 3);
    }

    #[test]
    fn a_window_gives_a_time_in_it_and_keeps_it_until_it_changes() {
        let made = |end, random| window("id", (100, end), random);
        assert_eq!(made(100, 0.5), None);
        assert_eq!(made(50, 0.5), None);
        let first = made(300, 0.25).unwrap();
        assert_eq!(first.chosen, 150);
        let later = updated(Some(&first), made(300, 0.75).unwrap());
        assert_eq!(later.chosen, 150);
        let moved = updated(Some(&first), made(200, 0.75).unwrap());
        assert_eq!(moved.chosen, 175);
        let mut other = made(300, 0.75).unwrap();
        other.id = "another".to_owned();
        assert_eq!(updated(Some(&first), other).chosen, 250);
        assert_eq!((again(0, 500), again(600, 500)), (560, 1100));
        assert_eq!(again(u64::MAX, 500), 500 + DAY);
    }

    #[test]
    fn windows_renew_once_in_six_hours_at_most() {
        let window = window("id", (100, 300), 0.5).unwrap();
        assert_eq!(by_window(&window, 0), 6 * HOUR);
        let late = WindowRow {
            chosen: 100 * DAY,
            ..window.clone()
        };
        assert_eq!(by_window(&late, 0), 100 * DAY);
        assert_eq!(by_window(&window, 99 * DAY), 99 * DAY + 6 * HOUR);
    }
}
