//! Connections that were closed before their first request: counted by cause and address, and logged at most once a
//! minute. Nothing is decided here.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::preamble::Fault;

/// The least time between two reports.
const AGAIN: Duration = Duration::from_secs(60);
/// How many addresses are remembered; all others are counted together.
const REMEMBERED: usize = 1024;
/// How many of them are logged by name.
const NAMED: usize = 10;

/// Why a connection was closed.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) enum Cause {
    /// `connections` is reached.
    Connections,
    /// `connections_per_ip` is reached.
    PerIp,
    /// It has no valid PROXY header.
    ProxyHeader(Fault),
    /// Its peer may not send a PROXY header.
    ProxyUntrusted,
}

impl Cause {
    /// Its word in metrics.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::PerIp => "connections_per_ip",
            Self::ProxyHeader(_) => "proxy_header",
            Self::ProxyUntrusted => "proxy_untrusted",
        }
    }

    /// Logs how many connections of a client were closed.
    fn tell(self, client: &str, count: u64) {
        const LIMIT: &str = "connections beyond a limit were closed";
        match self {
            Self::Connections => tracing::warn!(limit = "connections", %client, count, "{LIMIT}"),
            Self::PerIp => tracing::warn!(limit = "connections_per_ip", %client, count, "{LIMIT}"),
            Self::ProxyHeader(why) => tracing::warn!(
                reason = "proxy_header",
                %client,
                count,
                "connections without a valid PROXY header were closed: {why}"
            ),
            Self::ProxyUntrusted => tracing::warn!(
                reason = "proxy_untrusted",
                %client,
                count,
                "connections were closed: this address is not in `trusted_proxies`, and so may not send a PROXY header"
            ),
        }
    }
}

/// The closed connections that were not logged yet.
#[derive(Debug, Default)]
pub(super) struct Cut(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    by: HashMap<(Cause, Option<IpAddr>), u64>,
    /// Those from addresses beyond the remembered ones.
    others: u64,
    told: Option<Instant>,
}

/// What is logged: the addresses with the most, then all others together.
#[derive(Debug, Eq, PartialEq)]
struct Report {
    named: Vec<((Cause, Option<IpAddr>), u64)>,
    others: u64,
}

impl Cut {
    /// Counts one; `ip` is `None` on a Unix socket.
    pub(super) fn count(&self, cause: Cause, ip: Option<IpAddr>) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = counts.by.len();
        match counts.by.get_mut(&(cause, ip)) {
            Some(count) => *count += 1,
            None if known < REMEMBERED => {
                counts.by.insert((cause, ip), 1);
            }
            None => counts.others += 1,
        }
    }

    /// Logs the counts, at once and then once a minute.
    pub(super) fn tell(&self, now: Instant) {
        let Some(report) = self.report(now) else {
            return;
        };
        for ((cause, ip), count) in report.named {
            let client = ip.map_or_else(|| "unix".to_owned(), |ip| ip.to_string());
            cause.tell(&client, count);
        }
        if report.others > 0 {
            tracing::warn!(
                count = report.others,
                "connections of other clients were closed, too"
            );
        }
    }

    fn report(&self, now: Instant) -> Option<Report> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waits = |told| now.saturating_duration_since(told) < AGAIN;
        if counts.by.is_empty() || counts.told.is_some_and(waits) {
            return None;
        }
        counts.told = Some(now);
        let by = std::mem::take(&mut counts.by);
        let others = std::mem::take(&mut counts.others);
        drop(counts);
        let mut named: Vec<_> = by.into_iter().collect();
        named.sort_unstable_by_key(|(from, count)| (std::cmp::Reverse(*count), *from));
        let rest = named.split_off(named.len().min(NAMED));
        let rest: u64 = rest.iter().map(|(_, count)| count).sum();
        Some(Report {
            named,
            others: others + rest,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_that_were_cut_are_told_once_a_minute_by_address() {
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let cut = Cut::default();
        assert_eq!(cut.report(at(0)), None);
        let ip: Option<IpAddr> = "203.0.113.9".parse().ok();
        cut.count(Cause::PerIp, ip);
        let one = |count| Report {
            named: vec![((Cause::PerIp, ip), count)],
            others: 0,
        };
        assert_eq!(cut.report(at(1)), Some(one(1)));
        cut.count(Cause::PerIp, ip);
        cut.count(Cause::PerIp, ip);
        assert_eq!(cut.report(at(60)), None);
        assert_eq!(cut.report(at(61)), Some(one(2)));
        assert_eq!(cut.report(at(200)), None);
    }

    #[test]
    fn a_flood_from_many_addresses_takes_little_memory_and_few_lines() {
        let cut = Cut::default();
        for number in 0..5_000_u32 {
            cut.count(Cause::Connections, Some(IpAddr::V4(number.into())));
        }
        cut.count(Cause::Connections, Some(IpAddr::V4(7.into())));
        let report = cut.report(Instant::now()).unwrap();
        assert_eq!(report.named.len(), NAMED);
        assert_eq!(report.named[0].1, 2);
        assert_eq!(
            report.named.iter().map(|(_, n)| n).sum::<u64>() + report.others,
            5_001
        );
    }
}
