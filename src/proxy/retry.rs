//! What may be tried again after a try that failed, and how many such tries an upstream allows. Pure: it knows neither
//! servers nor requests, and is told the time.

#[cfg(test)]
mod tests;

use std::fmt::{Display, Formatter};
use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

/// How a try fails.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Condition {
    /// No connection: the request was not sent.
    ConnectFailure,
    /// Closed or reset before the first byte of the response: the request was perhaps processed.
    Broken,
    /// No head of a response in time: the request was sent.
    Timeout,
    /// The response breaks HTTP.
    Invalid,
    /// 429.
    TooManyRequests,
    /// 502.
    BadGateway,
    /// 503.
    ServiceUnavailable,
    /// 504.
    GatewayTimeout,
}

impl Display for Condition {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let word = Self::WORDS.iter().find(|(_, known)| known == self);
        f.write_str(word.map_or("", |(word, _)| word))
    }
}

impl Condition {
    /// All of them, by their words in the configuration.
    pub(crate) const WORDS: [(&'static str, Self); 8] = [
        ("connect_failure", Self::ConnectFailure),
        ("broken", Self::Broken),
        ("timeout", Self::Timeout),
        ("invalid", Self::Invalid),
        ("429", Self::TooManyRequests),
        ("502", Self::BadGateway),
        ("503", Self::ServiceUnavailable),
        ("504", Self::GatewayTimeout),
    ];

    /// The condition that a status is.
    pub(super) fn of(status: StatusCode) -> Option<Self> {
        match status {
            StatusCode::TOO_MANY_REQUESTS => Some(Self::TooManyRequests),
            StatusCode::BAD_GATEWAY => Some(Self::BadGateway),
            StatusCode::SERVICE_UNAVAILABLE => Some(Self::ServiceUnavailable),
            StatusCode::GATEWAY_TIMEOUT => Some(Self::GatewayTimeout),
            _ => None,
        }
    }

    fn bit(self) -> u8 {
        match self {
            Self::ConnectFailure => 1,
            Self::Broken => 1 << 1,
            Self::Timeout => 1 << 2,
            Self::Invalid => 1 << 3,
            Self::TooManyRequests => 1 << 4,
            Self::BadGateway => 1 << 5,
            Self::ServiceUnavailable => 1 << 6,
            Self::GatewayTimeout => 1 << 7,
        }
    }
}

/// A set of conditions.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Conditions(u8);

impl FromIterator<Condition> for Conditions {
    fn from_iter<I: IntoIterator<Item = Condition>>(conditions: I) -> Self {
        let bits = conditions.into_iter().map(Condition::bit);
        Self(bits.fold(0, |all, bit| all | bit))
    }
}

impl Conditions {
    /// Whether it has this one.
    pub(super) fn contains(self, condition: Condition) -> bool {
        self.0 & condition.bit() != 0
    }

    /// Whether a response's status can be one of them.
    pub(super) fn has_statuses(self) -> bool {
        self.0 >> 4 != 0
    }

    /// Whether a request may be sent again that was sent before.
    pub(super) fn sends_again(self) -> bool {
        self.0 & !Condition::ConnectFailure.bit() != 0
    }
}

/// `retries` of an upstream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct RetrySettings {
    /// How many more tries a request has; 0 to 10.
    pub(crate) attempts: u32,
    /// After which failures.
    pub(crate) on: Conditions,
    /// The share of requests that may be sent again, in percent.
    pub(crate) budget: u32,
    /// The longest time for the head of the response of one try.
    pub(crate) per_try: Option<Duration>,
    /// How long a request waits while no server can be connected to.
    pub(crate) hold: Duration,
    /// How many requests may wait so.
    pub(crate) queue: usize,
    /// Whether requests whose method is not idempotent are sent again, too.
    pub(crate) non_idempotent: bool,
}

impl RetrySettings {
    /// Nothing is tried again.
    pub(crate) const OFF: Self = Self {
        attempts: 0,
        on: Conditions(0),
        budget: 0,
        per_try: None,
        hold: Duration::ZERO,
        queue: 0,
        non_idempotent: false,
    };

    /// The defaults.
    pub(crate) const DEFAULT: Self = Self {
        attempts: 2,
        on: Conditions(1),
        budget: 20,
        queue: Self::QUEUE,
        ..Self::OFF
    };

    /// The default of `connections.queue`.
    pub(crate) const QUEUE: usize = 1024;

    /// Whether another connection is tried after `made` tries, the last of which could not connect: `attempts` times
    /// whatever it takes, and to each other server once while `connect` has not passed since the first. `others` is
    /// whether there is a server that was not tried, `since` the time since the first try.
    pub(super) fn may_connect_again(
        &self,
        made: u32,
        others: bool,
        since: Duration,
        connect: Duration,
    ) -> bool {
        let is_quick = others && since < connect;
        self.on.contains(Condition::ConnectFailure) && (made <= self.attempts || is_quick)
    }

    /// Whether a request that was sent is sent again after `made` tries; its budget is not asked.
    pub(super) fn may_send_again(&self, failed: Condition, made: u32, idempotent: bool) -> bool {
        let may = idempotent || self.non_idempotent;
        may && made <= self.attempts && self.on.contains(failed)
    }
}

/// The pause before the server that was tried last is tried again for the `nth` time, from 0: 25 ms, doubled each time,
/// more or less by a half. `chance` is from 0 to 99.
pub(super) fn pause(nth: u32, chance: u32) -> Duration {
    let whole = Duration::from_millis(25) * 2_u32.pow(nth.min(10));
    whole * (50 + chance.min(99)) / 100
}

/// What one sending again takes from the budget, and what a request puts in, times its percentage.
const WHOLE: u32 = 100;
/// The most tries that are saved up.
const SAVED: u32 = 100;
/// One try in this time is free.
const FREE: Duration = Duration::from_secs(1);

/// How many requests of one worker may still be sent again.
#[derive(Debug, Default)]
pub(super) struct Budget {
    /// In hundredths of a try.
    left: u32,
    /// When the last try was free.
    free: Option<Instant>,
}

impl Budget {
    /// A request comes; `percent` of the requests may be sent again.
    pub(super) fn comes(&mut self, percent: u32) {
        self.left = self.left.saturating_add(percent).min(SAVED * WHOLE);
    }

    /// Takes one try, if there is one.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        if let Some(left) = self.left.checked_sub(WHOLE) {
            self.left = left;
            return true;
        }
        let is_free = self
            .free
            .is_none_or(|last| now.duration_since(last) >= FREE);
        if is_free {
            self.free = Some(now);
        }
        is_free
    }
}
