//! What became of the start and of each reload: who asked, what changed, what was refused. Kept in memory, the last fifty.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// How many reloads are remembered.
const REMEMBERED: usize = 50;

/// Who asked for a reload.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum By {
    /// The start of the process.
    Start,
    /// A file of the configuration changed.
    File,
    /// SIGHUP.
    Signal,
    /// The admin listener.
    Admin,
    /// The control socket.
    Prompt,
}

impl By {
    /// Whether somebody waits for it: then it takes place even where no file has changed.
    pub(crate) fn is_asked(self) -> bool {
        self != Self::File
    }

    /// Its word.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::File => "file",
            Self::Signal => "signal",
            Self::Admin => "admin",
            Self::Prompt => "prompt",
        }
    }
}

/// Something that a reload changed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Change {
    /// What.
    pub(crate) text: String,
    /// Whether access got wider.
    pub(crate) wider: bool,
}

/// What became of a reload.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Outcome {
    /// The configuration is in force.
    Good(Vec<Change>),
    /// It was refused, for all these errors.
    Refused(String),
}

/// A reload.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// When it ended.
    pub(crate) time: SystemTime,
    /// Who asked.
    pub(crate) by: By,
    /// The digest of the files.
    pub(crate) digest: u64,
    /// What became of it.
    pub(crate) outcome: Outcome,
}

/// How many reloads there were.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    /// The good ones.
    pub(super) good: u64,
    /// Those that were refused.
    pub(super) refused: u64,
    /// Whether the last one was good.
    pub(super) is_good: bool,
    /// When the last good one ended.
    pub(super) good_at: Option<SystemTime>,
}

/// The last reloads.
#[derive(Debug, Default)]
pub(crate) struct History(Mutex<(VecDeque<Row>, Totals)>);

impl History {
    fn lock(&self) -> MutexGuard<'_, (VecDeque<Row>, Totals)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what became of a reload; the start is none.
    pub(crate) fn add(&self, row: Row) {
        let (rows, totals) = &mut *self.lock();
        let is_reload = u64::from(row.by != By::Start);
        totals.is_good = matches!(row.outcome, Outcome::Good(_));
        if totals.is_good {
            totals.good += is_reload;
            totals.good_at = Some(row.time);
        } else {
            totals.refused += is_reload;
        }
        if rows.len() == REMEMBERED {
            rows.pop_front();
        }
        rows.push_back(row);
    }

    /// The last reloads, the latest first.
    pub(super) fn rows(&self) -> Vec<Row> {
        self.lock().0.iter().rev().cloned().collect()
    }

    /// How many there were.
    pub(super) fn totals(&self) -> Totals {
        self.lock().1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_fifty_are_remembered_and_all_are_counted() {
        let history = History::default();
        let row = |by, outcome| Row {
            time: SystemTime::UNIX_EPOCH,
            by,
            digest: 7,
            outcome,
        };
        history.add(row(By::Start, Outcome::Good(Vec::new())));
        for _ in 0..60 {
            history.add(row(By::File, Outcome::Good(Vec::new())));
        }
        assert!(history.totals().is_good);
        history.add(row(By::Signal, Outcome::Refused("no".to_owned())));
        let totals = history.totals();
        assert_eq!(
            (totals.good, totals.refused, totals.is_good),
            (60, 1, false)
        );
        let rows = history.rows();
        assert_eq!((rows.len(), rows[0].by), (REMEMBERED, By::Signal));
    }
}
