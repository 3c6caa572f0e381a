//! Decodes `upstreams`: app servers, and how requests are sent to them.

use std::time::Duration;

use super::decode::{Decoder, did_you_mean};
use super::keys;
use super::limiting::limit_source;
use super::node::{Kind, Node};
use super::parsed::{
    Balance, Buffer, Buffering, EjectRules, Retries, RetryRules, Spanned, StickyRules, Upstream,
    UpstreamServer,
};
use super::value;
use crate::proxy::Condition;

/// The longest life of a cookie: browsers take no longer one.
const LONGEST_AGE: Duration = Duration::from_secs(400 * 86_400);
/// The most that `slow_start` may be.
const LONGEST_START: Duration = Duration::from_secs(900);
/// The most that `retries.hold` may be.
const LONGEST_HOLD: Duration = Duration::from_secs(60);

impl Decoder<'_> {
    /// One of `upstreams`; a URL alone is short for a map with `servers`.
    pub(crate) fn upstream(&mut self, node: &Node) -> Option<Upstream> {
        let before = self.errors.count();
        let alone = matches!(node.kind, Kind::Scalar(_));
        let servers = if alone {
            self.server_of(node).map(|server| vec![server])
        } else {
            let fields = self.fields(node, "a URL or a map", &keys::UPSTREAM);
            fields.and_then(|fields| {
                self.required(fields, "servers", |it, node| {
                    it.filled_list(node, "a list of servers", Self::server_of)
                })
            })
        };
        let map = node.as_map();
        let fields = self.known_fields(&map, &keys::UPSTREAM)?;
        let balance = self.value(fields, "balance", Self::balance);
        let slow_start = self.value(fields, "slow_start", |it, node| {
            it.duration_within(node, Duration::ZERO, LONGEST_START)
        });
        let sticky = self.optional(fields, "sticky", Self::sticky);
        let health = self.optional(fields, "health", Self::health);
        let eject = self.value(fields, "eject", Self::eject);
        let retries = self.value(fields, "retries", Self::retries);
        let (connect, response, idle, total) = self.value(fields, "timeouts", |it, node| {
            let fields = it.fields(node, "a map", &keys::UPSTREAM_TIMEOUTS)?;
            Some((
                it.value(fields, "connect", Self::duration)?,
                it.value(fields, "response", Self::duration_or_off)?,
                it.value(fields, "idle", Self::duration)?,
                it.optional(fields, "total", Self::duration),
            ))
        })?;
        let (keep_alive, fresh, max, queue, wait) =
            self.value(fields, "connections", |it, node| {
                let fields = it.fields(node, "a map", &keys::CONNECTIONS)?;
                let keep_alive = |it: &mut Self, node: &Node| it.integer(node, 0, 65_535);
                Some((
                    it.value(fields, "keep_alive", keep_alive)?,
                    it.value(fields, "fresh", Self::duration_or_zero)?,
                    it.optional(fields, "max", Self::most),
                    it.optional(fields, "queue", |it, node| it.integer(node, 0, 1_000_000)),
                    it.optional(fields, "wait", Self::duration),
                ))
            })?;
        let buffer = self.optional(fields, "buffer", Self::buffer);
        let underscores = self.value(fields, "underscores", |it, node| {
            let known = [("remove", false), ("pass", true)];
            it.choice(node, "how header names with `_` are treated", &known)
        });
        Some(Upstream {
            place: node.place,
            broken: self.errors.count() > before,
            servers: servers.unwrap_or_default(),
            balance: balance?,
            connect,
            response,
            idle,
            total,
            slow_start: slow_start?,
            sticky,
            health: health.flatten(),
            eject: eject?,
            retries: retries?,
            max,
            queue,
            wait,
            keep_alive,
            fresh,
            buffer: buffer.unwrap_or(Buffering::Default),
            underscores: underscores?,
        })
    }

    /// `balance`: a word, or `hash:` and a source.
    fn balance(&mut self, node: &Node) -> Option<Spanned<Balance>> {
        let source = match &node.kind {
            Kind::Scalar(scalar) => scalar.text.strip_prefix("hash:"),
            Kind::Null | Kind::List(_) | Kind::Map(_) | Kind::Broken => None,
        };
        if let Some(source) = source {
            return self.scalar(node, "a way to balance", "", |_| {
                limit_source(source)
                    .map(Balance::Hash)
                    .map_err(|hint| format!("`hash:` and a source; {hint}"))
            });
        }
        let known = ["round_robin", "least_requests", "random_two", "hash:SOURCE"];
        self.scalar(node, "a way to balance", "", |text| match text {
            "round_robin" => Ok(Balance::RoundRobin),
            "least_requests" => Ok(Balance::LeastRequests),
            "random_two" => Ok(Balance::RandomTwo),
            text => Err(did_you_mean(text, &known)),
        })
    }

    /// `sticky`; a cookie's name alone is short for a map with `cookie`.
    fn sticky(&mut self, node: &Node) -> Option<StickyRules> {
        let cookie = |it: &mut Self, node: &Node| {
            it.scalar(node, "a cookie's name", "", |text| {
                value::cookie_name(text).map(str::to_owned)
            })
        };
        if matches!(node.kind, Kind::Scalar(_)) {
            return Some(StickyRules {
                cookie: cookie(self, node)?,
                secret: None,
                max_age: None,
            });
        }
        let fields = self.fields(node, "a cookie's name or a map", &keys::STICKY)?;
        let name = self.required(fields, "cookie", cookie);
        let secret = self.optional(fields, "secret", |it, node| {
            let what = "a secret of at least 32 bytes";
            it.scalar(node, what, "openssl rand -base64 32 makes one", |text| {
                let fits = text.len() >= 32;
                fits.then(|| text.to_owned())
                    .ok_or_else(|| "openssl rand -base64 32 makes one".to_owned())
            })
        });
        let max_age = self.optional(fields, "max_age", |it, node| {
            it.duration_within(node, Duration::from_secs(1), LONGEST_AGE)
        });
        Some(StickyRules {
            cookie: name?,
            secret,
            max_age,
        })
    }

    /// One of `servers`; a URL alone is short for a map with `url`.
    fn server_of(&mut self, node: &Node) -> Option<UpstreamServer> {
        let alone = matches!(node.kind, Kind::Scalar(_));
        let url = if alone {
            self.server(node)
        } else {
            let fields = self.fields(node, "a URL or a map", &keys::UPSTREAM_SERVER)?;
            self.required(fields, "url", Self::server)
        };
        let map = node.as_map();
        let fields = self.known_fields(&map, &keys::UPSTREAM_SERVER)?;
        let weight = self.value(fields, "weight", |it, node| it.integer(node, 0, 256));
        let backup = self.value(fields, "backup", Self::boolean);
        let max = self.optional(fields, "max", Self::most);
        Some(UpstreamServer {
            url: url?,
            weight: weight?,
            backup: backup?,
            max,
        })
    }

    /// `max`: requests at the same time.
    fn most(&mut self, node: &Node) -> Option<Spanned<u32>> {
        self.integer(node, 1, 1_000_000)
    }

    /// `eject`; `Some(None)` is `off`.
    fn eject(&mut self, node: &Node) -> Option<Option<EjectRules>> {
        if matches!(&node.kind, Kind::Scalar(scalar) if scalar.text == "off") {
            return Some(None);
        }
        let fields = self.fields(node, "`off` or a map", &keys::EJECT)?;
        let count = |it: &mut Self, node: &Node| it.integer(node, 1, 1000);
        Some(Some(EjectRules {
            consecutive_failures: self.value(fields, "consecutive_failures", count)?,
            time: self.value(fields, "for", Self::duration)?,
            longest: self.value(fields, "longest", Self::duration)?,
            most: self.value(fields, "most", Self::percentage)?,
            on: self.value(fields, "on", Self::conditions)?,
        }))
    }

    fn conditions(&mut self, node: &Node) -> Option<Vec<Spanned<Condition>>> {
        self.filled_list(node, "a list of failures", Self::condition)
    }

    fn retries(&mut self, node: &Node) -> Option<Retries> {
        if matches!(&node.kind, Kind::Scalar(scalar) if scalar.text == "off") {
            return Some(Retries::Off);
        }
        let fields = self.fields(node, "`off` or a map", &keys::RETRIES)?;
        let on = self.value(fields, "on", Self::conditions);
        let hold = self.value(fields, "hold", |it, node| {
            it.duration_within(node, Duration::ZERO, LONGEST_HOLD)
        });
        Some(Retries::On(RetryRules {
            attempts: self.value(fields, "attempts", |it, node| it.integer(node, 0, 10))?,
            on: on?,
            budget: self.value(fields, "budget", Self::percentage)?,
            per_try: self.optional(fields, "per_try", Self::duration),
            hold: hold?,
            non_idempotent: self.value(fields, "non_idempotent", Self::boolean)?,
        }))
    }

    /// One of `on`. Of statuses only those count that say that the app did nothing.
    fn condition(&mut self, node: &Node) -> Option<Spanned<Condition>> {
        let status = match &node.kind {
            Kind::Scalar(scalar) => scalar.text.parse::<u16>().ok(),
            Kind::Null | Kind::List(_) | Kind::Map(_) | Kind::Broken => None,
        };
        let words = Condition::WORDS;
        if status.is_some_and(|status| !words.iter().any(|(word, _)| *word == status.to_string())) {
            self.unexpected(node, "a failure", "statuses are 429, 502, 503 and 504");
            return None;
        }
        self.choice(node, "a failure", &words)
    }

    /// A duration within limits.
    pub(super) fn duration_within(
        &mut self,
        node: &Node,
        least: Duration,
        most: Duration,
    ) -> Option<Spanned<Duration>> {
        let what = format!("a duration from {} to {}", shown(least), shown(most));
        self.scalar(node, &what, value::DURATIONS, |text| {
            let duration = value::duration(text)?;
            let fits = Some(duration).filter(|it| (least..=most).contains(it));
            fits.ok_or_else(String::new)
        })
    }

    /// Whole percent, at most 100.
    fn percentage(&mut self, node: &Node) -> Option<Spanned<u32>> {
        let hint = "percentages are 20%, 50%, 100%";
        self.scalar(node, "a percentage", hint, |text| {
            let number = text.strip_suffix('%').ok_or_else(|| hint.to_owned())?;
            let number = value::integer(number).map_err(|why| format!("{why}; {hint}"))?;
            let fits = u32::try_from(number).ok().filter(|it| *it <= 100);
            fits.ok_or_else(|| "at most 100%".to_owned())
        })
    }

    fn buffer(&mut self, node: &Node) -> Option<Buffering> {
        if matches!(&node.kind, Kind::Scalar(scalar) if scalar.text == "off") {
            return Some(Buffering::Off);
        }
        let fields = self.fields(node, "`off` or a map", &keys::BUFFER)?;
        Some(Buffering::Own(Buffer {
            place: fields.place,
            request: self.value(fields, "request", Self::size_or_zero)?,
            response: self.value(fields, "response", Self::size_or_zero)?,
            spool: self.optional(fields, "spool", Self::file),
            spool_bytes: self.value(fields, "spool_bytes", Self::size)?,
        }))
    }
}

/// A duration as it is written: `250ms`, `60s`.
fn shown(duration: Duration) -> String {
    match (duration.as_secs(), duration.subsec_millis()) {
        (0, 0) => "0s".to_owned(),
        (seconds, 0) => format!("{seconds}s"),
        _ => format!("{}ms", duration.as_millis()),
    }
}
