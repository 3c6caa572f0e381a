//! The header fields that only the gateway, or a trusted proxy, may set, in any spelling. One list for heads and
//! trailers, HTTP/1.1 and HTTP/2.

use std::hash::{BuildHasher, RandomState};

use http::header::{self, HeaderName, HeaderValue};

use super::orders::is_order;
use crate::message::fields::{self, NameSet};

/// Requests that pass this gateway carry its id here (RFC 8586).
pub(super) static CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");

/// Fields that only the gateway sets, on every route.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Vouched {
    /// The headers that carry claims on any route: copies sent by clients are always removed. Shared with the bodies,
    /// whose trailers are checked against it.
    pub(super) names: NameSet,
    /// The id of this process in `CDN-Loop`.
    pub(super) id: HeaderValue,
}

impl Default for Vouched {
    fn default() -> Self {
        Self::new([], None)
    }
}

impl Vouched {
    /// The set of all routes' names; the id is that of `before`, so that it stays the same for the life of the process.
    pub(crate) fn new(names: impl IntoIterator<Item = HeaderName>, before: Option<&Self>) -> Self {
        Self {
            names: NameSet::new(names),
            id: before.map_or_else(new_id, |before| before.id.clone()),
        }
    }
}

/// An id that no other process has, and that cannot be guessed before a request has carried it.
fn new_id() -> HeaderValue {
    let mut bytes = [0; 8];
    let random = if getrandom::fill(&mut bytes).is_ok() {
        u64::from_ne_bytes(bytes)
    } else {
        // The standard library has a random key from the system, or aborts.
        RandomState::new().hash_one(0)
    };
    let id = HeaderValue::try_from(format!("portcullis-{random:016x}"));
    id.unwrap_or(HeaderValue::from_static("portcullis"))
}

/// Who may set a field of a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Setter {
    /// Every client.
    Anybody,
    /// Trusted proxies.
    Trusted,
    /// Only the gateway, which also passes on what trusted proxies sent.
    Nobody,
}

/// Who may set the field of this name, which must be folded.
pub(super) fn setter(name: &str) -> Setter {
    match name.as_bytes() {
        [b'x', b'-', rest @ ..] => setter_of_x(rest),
        b"forwarded" | b"proxy" => Setter::Nobody,
        b"true-client-ip" | b"cf-connecting-ip" | b"client-cert" | b"client-cert-chain" => {
            Setter::Trusted
        }
        _ => Setter::Anybody,
    }
}

/// The same for the part of a name after `x-`.
fn setter_of_x(rest: &[u8]) -> Setter {
    match rest {
        b"real-ip" | b"forwarded-for" | b"forwarded-proto" | b"forwarded-host"
        | b"forwarded-port" | b"portcullis-mirror" => Setter::Nobody,
        b"request-id"
        | b"forwarded"
        | b"client-ip"
        | b"cluster-client-ip"
        | b"original-forwarded-for"
        | b"original-url"
        | b"original-uri"
        | b"original-host"
        | b"original-method"
        | b"rewrite-url"
        | b"sendfile-type" => Setter::Trusted,
        // `-Prefix`, `-Scheme`, `-Server`, `-User`, `-Email`, `-Client-Cert` and any other such name.
        _ if rest.starts_with(b"forwarded-") || rest.starts_with(b"accel-") => Setter::Trusted,
        _ => Setter::Anybody,
    }
}

/// Whether the field applies to one connection only (RFC 9110 section 7.6.1), or is handled by the gateway itself.
pub(super) fn is_hop_by_hop(name: &str) -> bool {
    match name.len() {
        2 => name == "te",
        6 => name == "expect",
        7 => name == "upgrade",
        10 => name == "connection" || name == "keep-alive",
        14 => name == "http2-settings",
        16 => name == "proxy-connection",
        17 => name == "transfer-encoding",
        18 => name == "proxy-authenticate",
        19 => name == "proxy-authorization",
        _ => false,
    }
}

/// Whether an app would read a name with bytes other than letters, digits and `-` as one that a client must not set.
pub(super) fn shadows(folded: &str) -> bool {
    is_hop_by_hop(folded)
        || setter(folded) != Setter::Anybody
        || matches!(folded, "content-length" | "cdn-loop")
}

/// Whether the field describes how a message is sent or forwarded, so that no configuration may make it carry identity.
pub(crate) fn is_the_gateways(name: &HeaderName) -> bool {
    let folded = fields::folded(name.as_str());
    // Authenticating proxies describe users with these; no app reads them as forwarding information.
    let of_users = matches!(
        folded.as_str(),
        "x-forwarded-user"
            | "x-forwarded-email"
            | "x-forwarded-groups"
            | "x-forwarded-preferred-username"
            | "x-forwarded-client-cert"
    );
    let forwarding = folded == "x-forwarded" || folded.starts_with("x-forwarded-");
    is_hop_by_hop(&folded)
        || setter(&folded) == Setter::Nobody
        || (forwarding && !of_users)
        || matches!(
            folded.as_str(),
            "host" | "content-length" | "x-request-id" | "cdn-loop"
        )
}

/// Whether the field, in any spelling, frames a message or controls its connection.
pub(crate) fn frames(name: &HeaderName) -> bool {
    let folded = fields::folded(name.as_str());
    matches!(
        folded.as_str(),
        "connection"
            | "content-length"
            | "expect"
            | "http2-settings"
            | "keep-alive"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// Whether the field, in any spelling, carries the ids by which a gateway detects loops (RFC 8586).
pub(crate) fn ends_loops(name: &HeaderName) -> bool {
    fields::folded(name.as_str()) == CDN_LOOP.as_str()
}

/// Fields that a client's trailers must not contain.
#[derive(Clone, Debug, Default)]
pub(crate) struct TrailerRules {
    /// The headers that carry claims on any route.
    pub(super) vouched: NameSet,
    /// Those that the route sets or removes.
    pub(super) edited: NameSet,
    /// Whether names with `_` are allowed.
    pub(super) underscores: bool,
}

impl TrailerRules {
    /// Whether a field of this name is forbidden in trailers.
    pub(super) fn forbid(&self, name: &str) -> bool {
        let folded = fields::folded(name);
        setter(&folded) != Setter::Anybody
            || self.vouched.covers(&folded)
            || self.edited.covers(&folded)
            || (!self.underscores && name.contains('_'))
            || matches!(folded.as_str(), "content-length" | "cdn-loop")
    }
}

/// Whether a field of this name concerns framing, routing or the sender, and is therefore forbidden in trailers (RFC
/// 9110 section 6.5.1).
pub(super) fn is_for_heads(name: &HeaderName) -> bool {
    let folded = fields::folded(name.as_str());
    is_hop_by_hop(&folded)
        || is_order(&folded)
        || folded == "x-request-id"
        || folded == "forwarded"
        || folded.starts_with("x-forwarded-")
        || matches!(
            *name,
            header::HOST
                | header::CONTENT_LENGTH
                | header::AUTHORIZATION
                | header::COOKIE
                | header::TRAILER
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_what_clients_cannot_set() {
        for name in [
            "x-request-id",
            "x-real-ip",
            "x-forwarded-for",
            "x-forwarded-proto",
            "x-forwarded-host",
            "x-forwarded-port",
            "x-forwarded-prefix",
            "x-forwarded-scheme",
            "x-forwarded-server",
            "x-forwarded-user",
            "x-forwarded-email",
            "x-forwarded-groups",
            "x-forwarded-preferred-username",
            "forwarded",
            "true-client-ip",
            "x-client-ip",
            "x-cluster-client-ip",
            "cf-connecting-ip",
            "x-original-forwarded-for",
            "x-original-url",
            "x-original-uri",
            "x-original-host",
            "x-original-method",
            "x-rewrite-url",
            "proxy",
            "client-cert",
            "client-cert-chain",
            "x-forwarded-client-cert",
            "x-accel-redirect",
            "x-accel-mapping",
            "x-sendfile-type",
            "x-portcullis-mirror",
        ] {
            assert_ne!(setter(name), Setter::Anybody, "{name}");
            assert!(TrailerRules::default().forbid(name), "{name}");
            for byte in "_.~!#$%&'*+^`|".chars() {
                let odd = name.replacen('-', &byte.to_string(), 1);
                assert!(TrailerRules::default().forbid(&odd), "{odd}");
            }
        }
        for name in [
            "accept",
            "x-user",
            "x-forward",
            "x-original-filename",
            "x-requested-with",
            "proxy-status",
            "x-real",
        ] {
            assert_eq!(setter(name), Setter::Anybody, "{name}");
            assert!(!TrailerRules::default().forbid(name), "{name}");
        }
    }

    #[test]
    fn an_id_lives_as_long_as_its_process() {
        let first = Vouched::default();
        let next = Vouched::new([HeaderName::from_static("x-user")], Some(&first));
        assert_eq!(first.id, next.id);
        assert_ne!(first.id, Vouched::default().id);
    }
}
