//! Limits of a route: how often and how many at a time its clients may send requests. Counts are shared by all workers
//! and survive reloads. Which status a refused client gets is said in `message::reject`.

mod in_flight;
mod source;
mod table;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

pub(crate) use self::in_flight::Counts;
use self::in_flight::Place;
pub(crate) use self::source::{By, Sender, Source};
pub(crate) use self::table::{Quota, Table};
use crate::message::reject::{Exceeded, Reject};
use crate::net::addresses::Addresses;

/// The most limits of one kind on a route.
pub(crate) const MOST: usize = 32;
/// How many requests the quota has, and how many are left (draft-ietf-httpapi-ratelimit-headers-11).
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LEFT: HeaderName = HeaderName::from_static("ratelimit");

/// The limits of a route, each kind in the order of the file.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    /// How often.
    pub(crate) rates: Box<[Arc<RateLimit>]>,
    /// How many at a time.
    pub(crate) in_flight: Box<[Arc<InFlight>]>,
}

/// What identifies a limit across reloads.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct LimitId {
    /// The route's name; `None` for a limit of `defaults`, which counts for all its routes together.
    pub(crate) route: Option<String>,
    /// The limit's name.
    pub(crate) name: String,
    /// What it counts by, as written.
    pub(crate) by: String,
}

/// Which requests a limit is for, and what becomes of those over it.
#[derive(Debug)]
pub(crate) struct Rule {
    /// Its identity.
    pub(crate) id: LimitId,
    /// What it counts by.
    pub(crate) by: By,
    /// Clients that are not counted.
    pub(crate) except: Option<Addresses>,
    /// Whether it is only reported who is over it.
    pub(crate) only_reports: bool,
    /// How many requests were over it.
    pub(crate) over: AtomicU64,
    /// How many were refused for it; the same across reloads.
    pub(crate) refused: Arc<AtomicU64>,
}

/// Which requests a rate limit counts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum CountedRequests {
    /// All of them.
    Every,
    /// Those that the gateway refuses with 401 or 403.
    Refused,
    /// Those with a wrong password.
    WrongPasswords,
}

/// Why the gateway refused a request with 401 or 403.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Refusal {
    /// Its password is wrong.
    WrongPassword,
    /// For another reason.
    Other,
}

/// `rate_limit`.
#[derive(Debug)]
pub(crate) struct RateLimit {
    /// For whom.
    pub(crate) rule: Rule,
    /// Its clients.
    pub(crate) table: Arc<Table>,
    /// Its rate.
    pub(crate) quota: Quota,
    /// The rate in words.
    pub(crate) words: String,
    /// Which requests are counted.
    pub(crate) counts: CountedRequests,
    /// `RateLimit-Policy` and the beginning of `RateLimit`, where responses tell the clients.
    pub(crate) fields: Option<RateFields>,
}

/// What responses say of a limit.
#[derive(Debug)]
pub(crate) struct RateFields {
    policy: HeaderValue,
    left: String,
}

impl RateFields {
    /// The fields of a limit; its name is ASCII without quotation marks and backslashes.
    pub(crate) fn new(name: &str, burst: u32, quota: Quota) -> Option<Self> {
        let policy = format!("\"{name}\";q={burst};w={}", quota.window());
        Some(Self {
            policy: HeaderValue::try_from(policy).ok()?,
            left: format!("\"{name}\";r="),
        })
    }
}

/// `in_flight`.
#[derive(Debug)]
pub(crate) struct InFlight {
    /// For whom.
    pub(crate) rule: Rule,
    /// Its clients.
    pub(crate) counts: Arc<Counts>,
    /// The most of one client.
    pub(crate) max: u32,
}

/// What a request is counted for. It must be given to [`Limits::leave`] when the request has ended.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    places: SmallVec<[(u8, Place); 2]>,
    /// Where it counts if it is refused.
    if_refused: SmallVec<[(u8, u64); 1]>,
    standings: SmallVec<[(u8, u64, u64); 2]>,
    /// The limit that it is over, and the reason; perhaps one that only reports.
    over: Option<(Which, Reject)>,
}

/// One of a route's limits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Which {
    Rate(u8),
    InFlight(u8),
}

impl Counted {
    /// Why the request would be refused if the limit were enforced.
    pub(crate) fn reported(&self) -> Option<Reject> {
        self.over.map(|(_, reject)| reject)
    }
}

impl Rule {
    fn is_for(&self, sender: &Sender<'_>) -> bool {
        let except = self.except.as_ref();
        except.is_none_or(|except| !except.allows(sender.client))
    }

    /// Notes a request over the limit.
    ///
    /// # Errors
    /// The reason, unless it is only reported.
    fn is_over(&self, counted: &mut Counted, which: Which, reject: Reject) -> Result<(), Reject> {
        self.over.fetch_add(1, Ordering::Relaxed);
        if self.only_reports {
            counted.over = counted.over.or(Some((which, reject)));
            return Ok(());
        }
        self.refused.fetch_add(1, Ordering::Relaxed);
        counted.over = Some((which, reject));
        Err(reject)
    }
}

impl Limits {
    /// Whether a segment of the path is what one of them counts by.
    pub(crate) fn have_segment(&self, at: usize) -> bool {
        let rates = self.rates.iter().map(|rate| &rate.rule.by);
        let all = rates.chain(self.in_flight.iter().map(|limit| &limit.rule.by));
        all.into_iter().any(|by| by.has_segment(at))
    }

    /// Counts a request whose client is not known yet (`late` is false), or just became known. First where it is in
    /// flight, so that nothing else is counted for one that has no place.
    ///
    /// # Errors
    /// `TooManyInFlight`, `RateLimited` and `Throttled`, from the first limit that it is over. Later ones do not count it.
    pub(crate) fn count(
        &self,
        sender: &Sender<'_>,
        late: bool,
        now: Instant,
        counted: &mut Counted,
    ) -> Result<(), Reject> {
        for (at, limit) in (0_u8..).zip(&self.in_flight) {
            let rule = &limit.rule;
            if rule.by.has_claims() != late || !rule.is_for(sender) {
                continue;
            }
            let hash = rule.by.hash(&limit.counts.key, sender);
            match limit.counts.enter(hash, limit.max) {
                Some(place) => counted.places.push((at, place)),
                None => {
                    let reject = Reject::TooManyInFlight { limit: at };
                    rule.is_over(counted, Which::InFlight(at), reject)?;
                }
            }
        }
        for (at, limit) in (0_u8..).zip(&self.rates) {
            let rule = &limit.rule;
            if rule.by.has_claims() != late || !rule.is_for(sender) {
                continue;
            }
            let hash = rule.by.hash(&limit.table.key, sender);
            let is_every = limit.counts == CountedRequests::Every;
            let standing = if is_every {
                limit.table.take(hash, limit.quota, now)
            } else {
                counted.if_refused.push((at, hash));
                limit.table.look(hash, limit.quota, now)
            };
            if limit.fields.is_some() && (standing.retry.is_some() || is_every) {
                counted.standings.push((at, standing.left, standing.reset));
            }
            if let Some(retry) = standing.retry {
                let reject = match limit.counts {
                    CountedRequests::WrongPasswords => Reject::Throttled { retry },
                    CountedRequests::Every | CountedRequests::Refused => {
                        Reject::RateLimited(Exceeded { limit: at, retry })
                    }
                };
                rule.is_over(counted, Which::Rate(at), reject)?;
            }
        }
        Ok(())
    }

    /// Counts a request that the gateway refused with 401 or 403.
    pub(crate) fn refused(&self, counted: &Counted, why: Refusal, now: Instant) {
        for (at, hash) in &counted.if_refused {
            if let Some(limit) = self.rates.get(usize::from(*at))
                && (limit.counts == CountedRequests::Refused || why == Refusal::WrongPassword)
            {
                limit.table.take(*hash, limit.quota, now);
            }
        }
    }

    /// Gives back what the request had in flight.
    pub(crate) fn leave(&self, counted: &Counted) {
        for (at, place) in &counted.places {
            if let Some(limit) = self.in_flight.get(usize::from(*at)) {
                limit.counts.leave(*place);
            }
        }
    }

    /// The name of the limit that the request is over, or would be.
    pub(crate) fn name_of_over(&self, counted: &Counted) -> Option<&str> {
        let rule = match counted.over?.0 {
            Which::Rate(at) => &self.rates.get(usize::from(at))?.rule,
            Which::InFlight(at) => &self.in_flight.get(usize::from(at))?.rule,
        };
        Some(&rule.id.name)
    }

    /// `RateLimit-Policy` and `RateLimit` of a response. They are added to those of an app behind, which are lists, too.
    pub(crate) fn tell(&self, counted: &Counted, headers: &mut HeaderMap) {
        let mut left = Vec::with_capacity(64);
        let mut policies: SmallVec<[&HeaderValue; 2]> = SmallVec::new();
        for (at, rest, reset) in &counted.standings {
            let limit = self.rates.get(usize::from(*at));
            let Some(fields) = limit.and_then(|limit| limit.fields.as_ref()) else {
                continue;
            };
            if !left.is_empty() {
                left.extend_from_slice(b", ");
            }
            let mut number = itoa::Buffer::new();
            left.extend_from_slice(fields.left.as_bytes());
            left.extend_from_slice(number.format(*rest).as_bytes());
            left.extend_from_slice(b";t=");
            left.extend_from_slice(number.format(*reset).as_bytes());
            policies.push(&fields.policy);
        }
        let policy = match policies.as_slice() {
            [] => return,
            [one] => Ok((*one).clone()),
            all => {
                let all: Vec<&[u8]> = all.iter().map(|policy| policy.as_bytes()).collect();
                HeaderValue::from_bytes(&all.join(&b", "[..]))
            }
        };
        if let (Ok(policy), Ok(left)) = (
            policy,
            HeaderValue::from_maybe_shared(bytes::Bytes::from(left)),
        ) {
            headers.append(POLICY, policy);
            headers.append(LEFT, left);
        }
    }

    /// Those that were exceeded: how often, and how many clients of theirs gave way to others before they were at rest.
    pub(crate) fn exceeded(&self) -> impl Iterator<Item = (&LimitId, u64, u64)> {
        let rates = self.rates.iter().map(|it| (&it.rule, it.table.evicted()));
        let all = rates.chain(self.in_flight.iter().map(|it| (&it.rule, 0)));
        all.map(|(rule, evicted)| (&rule.id, rule.over.load(Ordering::Relaxed), evicted))
            .filter(|(_, over, evicted)| over + evicted > 0)
    }

    /// Each limit: how many requests were refused for it, how many of its clients gave way to others, and how many
    /// requests are in flight, of a limit of those.
    pub(crate) fn numbers(
        &self,
    ) -> impl Iterator<Item = (&LimitId, u64, Option<u64>, Option<u64>)> {
        let rates = self.rates.iter();
        let rates = rates.map(|it| (&it.rule, Some(it.table.evicted()), None));
        let in_flight = self.in_flight.iter();
        let in_flight = in_flight.map(|it| (&it.rule, None, Some(it.counts.all())));
        rates.chain(in_flight).map(|(rule, evicted, in_flight)| {
            let refused = rule.refused.load(Ordering::Relaxed);
            (&rule.id, refused, evicted, in_flight)
        })
    }

    /// What would be counted for this client, a line for each limit; nothing is.
    pub(crate) fn explain(&self, sender: &Sender<'_>) -> Vec<String> {
        let mut lines = Vec::new();
        for limit in &self.in_flight {
            let max = limit.max;
            lines.push(limit.rule.explain(sender, &format!("{max} in flight")));
        }
        for limit in &self.rates {
            let counts = match limit.counts {
                CountedRequests::Every => "every request",
                CountedRequests::Refused => "refused requests only",
                CountedRequests::WrongPasswords => "wrong passwords only",
            };
            let words = format!("{}, {counts}", limit.words);
            lines.push(limit.rule.explain(sender, &words));
        }
        lines
    }
}

impl Rule {
    fn explain(&self, sender: &Sender<'_>, words: &str) -> String {
        let by = match self.id.by.as_str() {
            "" => "for everybody together".to_owned(),
            by => format!("by {by}"),
        };
        let name = &self.id.name;
        let text = format!("`{name}` {by}: {words}");
        match (self.is_for(sender), self.only_reports) {
            (false, _) => format!("{text}; this address is excepted"),
            (true, true) => format!("{text}; only reported"),
            (true, false) => text,
        }
    }
}

impl RateLimit {
    /// How many wrong passwords a client may send in a minute.
    pub(crate) const WRONG_PASSWORDS: u32 = 10;
    /// The default size of a table.
    pub(crate) const CLIENTS: u32 = 65_536;

    /// The count and the time of a rate, in words.
    pub(crate) fn in_words(count: u32, per: Duration, burst: u32) -> String {
        let unit = match per.as_secs() {
            1 => "s",
            60 => "m",
            3600 => "h",
            _ => "d",
        };
        if burst == count {
            format!("{count}/{unit}")
        } else {
            format!("{count}/{unit}, burst {burst}")
        }
    }
}

#[cfg(test)]
mod tests;
