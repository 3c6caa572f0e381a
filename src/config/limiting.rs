//! Decodes `rate_limit`, `in_flight` and `addresses`, of a route or of `defaults`.

use http::HeaderName;

use super::decode::{Decoder, Fields, did_you_mean};
use super::keys::{self, Section};
use super::node::{Kind, Node};
use super::parsed::{
    AddressLists, InFlight, LimitRule, LimitSource, Limiting, RateLimit, Spanned, TrustedPeers,
};
use super::value;

/// The words of a source.
const SOURCES: [&str; 5] = ["ip", "header", "cookie", "claim", "path"];
/// The form of a source.
const FORM: &str = "known here: ip, header:NAME, cookie:NAME, claim:PATH, path:PARAMETER";
/// The longest name of a limit.
const LONGEST_NAME: usize = 64;

impl Decoder<'_> {
    /// The three keys of a route or of `defaults`.
    pub(super) fn limiting(&mut self, fields: Fields<'_>) -> Limiting {
        Limiting {
            rate_limit: self.optional(fields, "rate_limit", |it, node| {
                it.limit_list(node, &keys::RATE_LIMIT, Self::rate_limit)
            }),
            in_flight: self.optional(fields, "in_flight", |it, node| {
                it.limit_list(node, &keys::IN_FLIGHT, Self::in_flight)
            }),
            addresses: self.optional(fields, "addresses", Self::address_lists),
        }
    }

    /// `off`, a map, or a list of maps.
    fn limit_list<T>(
        &mut self,
        node: &Node,
        section: &'static Section,
        read: fn(&mut Self, Fields<'_>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let what = "`off`, a map, or a list of maps";
        match &node.kind {
            Kind::Scalar(scalar) if scalar.text == "off" => Some(Vec::new()),
            Kind::List(items) if !items.is_empty() => {
                let limits = items.iter().filter_map(|item| {
                    let fields = self.fields(item, "a map", section)?;
                    read(self, fields)
                });
                Some(limits.collect())
            }
            Kind::Map(_) => {
                let fields = self.fields(node, what, section)?;
                Some(vec![read(self, fields)?])
            }
            Kind::Null | Kind::Scalar(_) | Kind::List(_) | Kind::Broken => {
                self.unexpected(node, what, "");
                None
            }
        }
    }

    fn rate_limit(&mut self, fields: Fields<'_>) -> Option<RateLimit> {
        let rule = self.limit_rule(fields);
        let rate = self.required(fields, "rate", |it, node| {
            it.scalar(node, "a rate", value::RATES, |text| {
                value::rate(text, "zero would refuse everything")
            })
        });
        let burst = self.optional(fields, "burst", |it, node| it.integer(node, 1, u32::MAX));
        let only_refused = self.value(fields, "count", |it, node| {
            it.choice(
                node,
                "`all` or `refused`",
                &[("all", false), ("refused", true)],
            )
        });
        let keys = self.value(fields, "keys", |it, node| it.integer(node, 8, 16_777_216));
        let tells = self.value(fields, "fields", Self::boolean);
        Some(RateLimit {
            rule: rule?,
            rate: rate?,
            burst,
            only_refused: only_refused?,
            keys: keys?,
            fields: tells?,
        })
    }

    fn in_flight(&mut self, fields: Fields<'_>) -> Option<InFlight> {
        let rule = self.limit_rule(fields);
        let max = self.required(fields, "max", |it, node| it.integer(node, 1, 1_000_000));
        Some(InFlight {
            rule: rule?,
            max: max?,
        })
    }

    fn limit_rule(&mut self, fields: Fields<'_>) -> Option<LimitRule> {
        let name = self.optional(fields, "name", |it, node| {
            it.scalar(node, "a limit's name", "", |text| {
                let legal = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\';
                if text.is_empty() || text.len() > LONGEST_NAME || !text.bytes().all(legal) {
                    let hint =
                        format!("1 to {LONGEST_NAME} ASCII characters without `\"` and `\\`");
                    return Err(hint);
                }
                Ok(text.to_owned())
            })
        });
        let by = self.optional(fields, "by", |it, node| {
            it.one_or_more(node, "a source or a list of sources", Self::limit_source)
        });
        let except = self.optional(fields, "except", Self::networks);
        let prefix = self.value(fields, "prefix", |it, node| {
            let fields = it.fields(node, "a map", &keys::PREFIXES)?;
            let v4 = it.value(fields, "v4", |it, node| it.integer(node, 0, 32));
            let v6 = it.value(fields, "v6", |it, node| it.integer(node, 0, 128));
            Some((v4?, v6?))
        });
        let only_reports = self.value(fields, "enforce", Self::only_reports);
        let (v4, v6) = prefix?;
        Some(LimitRule {
            place: fields.place,
            name,
            by: by.unwrap_or_default(),
            except: except.unwrap_or_default(),
            v4,
            v6,
            only_reports: only_reports?,
        })
    }

    fn limit_source(&mut self, node: &Node) -> Option<Spanned<LimitSource>> {
        self.scalar(node, "what a limit counts by", FORM, limit_source)
    }

    /// Networks, and perhaps `unix`.
    fn networks(&mut self, node: &Node) -> Option<Vec<Spanned<TrustedPeers>>> {
        self.one_or_more(node, "a network or a list of networks", |it, node| {
            let hint = "networks are 10.0.0.0/8, \"fd00::/8\", 10.0.0.1, or `unix`";
            it.scalar(node, "a network", hint, value::trusted_peers)
        })
    }

    fn address_lists(&mut self, node: &Node) -> Option<AddressLists> {
        if matches!(&node.kind, Kind::Scalar(scalar) if scalar.text == "off") {
            return Some(AddressLists {
                is_off: true,
                ..AddressLists::default()
            });
        }
        let fields = self.fields(node, "`off` or a map", &keys::ADDRESSES)?;
        if matches!(&node.kind, Kind::Map(entries) if entries.is_empty()) {
            self.errors
                .at(node.place, "this allows and denies nobody")
                .hint("such as {allow: [10.0.0.0/8]}, or {deny: [192.0.2.0/24]}");
            return None;
        }
        let allow = self.optional(fields, "allow", Self::networks);
        let deny = self.optional(fields, "deny", Self::networks);
        let unread = |name, read: bool| fields.get(name).is_some() && !read;
        if unread("allow", allow.is_some()) || unread("deny", deny.is_some()) {
            return None;
        }
        Some(AddressLists {
            is_off: false,
            allow: allow.unwrap_or_default(),
            deny: deny.unwrap_or_default(),
        })
    }
}

/// What something counts by, or is decided by.
///
/// # Errors
/// The hint.
pub(super) fn limit_source(text: &str) -> Result<LimitSource, String> {
    let filled = |name: &str| match name {
        "" => Err(FORM.to_owned()),
        name => Ok(name.to_owned()),
    };
    match text.split_once(':') {
        None if text == "ip" => Ok(LimitSource::Ip),
        Some(("header", name)) => HeaderName::from_bytes(name.as_bytes())
            .map(LimitSource::Header)
            .map_err(|_| "such as header:X-Api-Key".to_owned()),
        Some(("cookie", name)) => {
            value::cookie_name(name).map(|name| LimitSource::Cookie(name.to_owned()))
        }
        Some(("claim", path)) => Ok(LimitSource::Claim(filled(path)?)),
        Some(("path", name)) => Ok(LimitSource::Path(filled(name)?)),
        None if SOURCES.contains(&text) => Err(format!("write `{text}:NAME`; {FORM}")),
        Some((word, _)) if SOURCES.contains(&word) => Err(FORM.to_owned()),
        None => Err(did_you_mean(text, &SOURCES)),
        Some((word, _)) => Err(did_you_mean(word, &SOURCES)),
    }
}
