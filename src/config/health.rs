//! Decodes `health` of an upstream: how its servers are checked.

use std::time::Duration;

use http::Method;
use http::uri::PathAndQuery;

use super::decode::{Decoder, Fields};
use super::keys;
use super::node::{Kind, Node};
use super::parsed::{Health, HealthRequest, Spanned};
use super::value;

/// What `interval` may be.
const INTERVALS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3600));
/// `timeout` without the key, unless the interval is shorter.
const TIMEOUT: Duration = Duration::from_secs(1);

impl Decoder<'_> {
    /// `health`: a path, `tcp`, `off` or a map; `Some(None)` is `off`.
    pub(super) fn health(&mut self, node: &Node) -> Option<Option<Health>> {
        let map;
        let mut connects = false;
        let node = match &node.kind {
            Kind::Scalar(scalar) if scalar.text == "off" => return Some(None),
            Kind::Scalar(scalar) => {
                connects = scalar.text == "tcp";
                let entries = node
                    .clone()
                    .behind(if connects { "tcp" } else { "path" }, false);
                map = entries;
                &map
            }
            Kind::Null | Kind::List(_) | Kind::Map(_) | Kind::Broken => node,
        };
        let fields = self.fields(node, "a path, `tcp`, `off` or a map", &keys::HEALTH)?;
        if !connects {
            connects = self.value(fields, "tcp", Self::boolean)?.value;
        }
        let path = match connects {
            true => None,
            false => self.optional(fields, "path", Self::health_path),
        };
        let before = self.errors.count();
        match (connects, fields.get("path")) {
            (true, _) => self.only_with_a_request(fields),
            (false, None) => self.unexpected(
                node,
                "`path` or `tcp: true`",
                "what is checked: health: {path: /healthz}",
            ),
            (false, Some(_)) => {}
        }
        if self.errors.count() > before {
            return None;
        }
        let request = match connects {
            true => None,
            false => Some(self.health_request(path?, fields)?),
        };
        let interval = self.value(fields, "interval", |it, node| {
            it.duration_within(node, INTERVALS.0, INTERVALS.1)
        });
        let timeout = self.optional(fields, "timeout", Self::duration);
        let count = |it: &mut Self, node: &Node| it.integer(node, 1, 1000);
        let port = self.optional(fields, "port", |it, node| it.integer(node, 1, 65_535));
        let unhealthy_after = self.value(fields, "unhealthy_after", count);
        let healthy_after = self.value(fields, "healthy_after", count);
        let tries_all = self.value(fields, "all_down", |it, node| {
            let known = [("refuse", false), ("try", true)];
            it.choice(node, "what requests get", &known)
        });
        let interval = interval?;
        if let Some(timeout) = &timeout
            && timeout.value > interval.value
        {
            self.errors
                .at(timeout.place, "`timeout` is longer than `interval`")
                .hint("a check has to end before the next one begins");
            return None;
        }
        Some(Some(Health {
            request,
            port,
            timeout: timeout.map_or_else(|| TIMEOUT.min(interval.value), |it| it.value),
            interval,
            unhealthy_after: unhealthy_after?,
            healthy_after: healthy_after?,
            tries_all: tries_all?,
        }))
    }

    /// Reports keys that need a request, where there is none.
    fn only_with_a_request(&mut self, fields: Fields<'_>) {
        for key in ["path", "method", "host", "headers", "status", "body"] {
            if let Some(place) = fields.place_of(key) {
                let problem = format!("`{key}` with `tcp`, which sends no request");
                self.errors.at(place, problem).hint("leave out one of them");
            }
        }
    }

    fn health_request(
        &mut self,
        path: Spanned<String>,
        fields: Fields<'_>,
    ) -> Option<HealthRequest> {
        let method = self.optional(fields, "method", |it, node| {
            let known = [("GET", 0), ("HEAD", 1), ("OPTIONS", 2)];
            it.choice(node, "a method", &known)
        });
        let host = self.optional(fields, "host", Self::header_value);
        let headers = self.optional(fields, "headers", |it, node| {
            it.headers(node, "a map of headers", Self::header_value)
        });
        let status = self.optional(fields, "status", |it, node| {
            it.filled_list(node, "a list of statuses", Self::statuses)
        });
        let body = self.optional(fields, "body", Self::filled_text);
        let method = match method.map(|method| method.value) {
            Some(1) => Method::HEAD,
            Some(2) => Method::OPTIONS,
            _ => Method::GET,
        };
        if let Some(body) = &body
            && method == Method::HEAD
        {
            self.errors
                .at(body.place, "a response to HEAD has no `body`");
            return None;
        }
        let status = status.unwrap_or_default();
        let status: Vec<_> = status.into_iter().map(|it| it.value).collect();
        Some(HealthRequest {
            path,
            method,
            host,
            headers: headers.unwrap_or_default(),
            status: if status.is_empty() {
                vec![(200, 399)]
            } else {
                status
            },
            body,
        })
    }

    /// The path and query of a check.
    fn health_path(&mut self, node: &Node) -> Option<Spanned<String>> {
        let what = "a path, `tcp`, `off` or a map";
        let general = "a path begins with `/`";
        self.scalar(node, what, general, |text| {
            if !text.starts_with('/') {
                return Err(general.to_owned());
            }
            if text.contains('#') {
                return Err("a fragment (#) is never sent; leave it out".to_owned());
            }
            let is_path = text.is_ascii() && PathAndQuery::try_from(text).is_ok();
            is_path
                .then(|| text.to_owned())
                .ok_or_else(|| "this is no path".to_owned())
        })
    }

    /// A status, or a range of them.
    fn statuses(&mut self, node: &Node) -> Option<Spanned<(u16, u16)>> {
        let hint = "statuses are 200, 204, 200-399";
        self.scalar(node, "a status from 100 to 599, or a range", hint, |text| {
            let (from, to) = text.split_once('-').unwrap_or((text, text));
            let status = |text: &str| {
                let number = value::integer(text).map_err(|_| hint.to_owned())?;
                let number = u16::try_from(number).ok();
                let fits = number.filter(|it| (100..=599).contains(it));
                fits.ok_or_else(|| hint.to_owned())
            };
            let (from, to) = (status(from)?, status(to)?);
            if from > to {
                return Err("the range is empty".to_owned());
            }
            Ok((from, to))
        })
    }
}
