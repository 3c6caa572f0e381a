//! The fields of forwarded messages: strip what belongs to one connection and what only the
//! gateway may say, then set what it says.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Uri, Version};
use http_body::Frame;

use crate::client::Peer;
use crate::edits::HeaderEdits;
use crate::fields;
use crate::request_id::RequestId;

static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
static X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");

static HTTP: HeaderValue = HeaderValue::from_static("http");
static HTTPS: HeaderValue = HeaderValue::from_static("https");
static TE: HeaderValue = HeaderValue::from_static("te");
static TRAILERS: HeaderValue = HeaderValue::from_static("trailers");
static UPGRADE: HeaderValue = HeaderValue::from_static("upgrade");

/// Room for the fields that the gateway adds.
const OWN_FIELDS: usize = 10;

static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The headers that carry claims on any route: a client's own, in any spelling, never pass.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Vouched {
    /// In lower case, with `-` for `_`, sorted. Shared with the bodies, whose trailers it judges.
    names: Arc<[String]>,
}

impl Vouched {
    /// The set of all routes' names.
    pub(crate) fn new(names: impl IntoIterator<Item = HeaderName>) -> Self {
        let mut names: Vec<String> = names
            .into_iter()
            .map(|name| name.as_str().replace('_', "-"))
            .collect();
        names.sort();
        names.dedup();
        Self {
            names: names.into(),
        }
    }

    /// Whether an app could take the name for one of them: CGI and WSGI write `-` as `_`. `underscored` is whether
    /// the name has one.
    fn covers(&self, name: &str, underscored: bool) -> bool {
        if self.names.is_empty() {
            return false;
        }
        if !underscored {
            return self
                .names
                .binary_search_by(|known| known.as_str().cmp(name))
                .is_ok();
        }
        let name = name.replace('_', "-");
        self.names.binary_search(&name).is_ok()
    }
}

/// Whether the field is meaningful for one connection only (RFC 9110 section 7.6.1), or is
/// answered by the gateway itself.
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

/// Whether the field says how a message goes its way, which no configuration may make it say
/// otherwise of a client.
pub(crate) fn is_the_gateways(name: &HeaderName) -> bool {
    let text = name.as_str();
    is_hop_by_hop(text)
        || is_forwarding(text)
        || (has_underscore(text) && shadows(text))
        || matches!(*name, header::HOST | header::CONTENT_LENGTH)
        || *name == X_REQUEST_ID
}

/// Names are short: a plain look at all bytes together costs less than a search.
fn has_underscore(name: &str) -> bool {
    name.bytes().fold(false, |any, byte| any | (byte == b'_'))
}

/// Whether a name with `_` would be read by an app as a field that only the gateway sets.
fn shadows(name: &str) -> bool {
    let twin = name.replace('_', "-");
    is_hop_by_hop(&twin)
        || is_forwarding(&twin)
        || matches!(twin.as_str(), "content-length" | "x-request-id")
}

/// Whether the field, or its twin with `_`, says for whom a proxy forwards.
pub(super) fn is_forwarding(name: &str) -> bool {
    name == "forwarded"
        || name.strip_prefix("x").is_some_and(|rest| {
            let rest = rest.as_bytes();
            matches!(rest.first(), Some(b'-' | b'_'))
                && rest.get(1..10) == Some(b"forwarded")
                && matches!(rest.get(10), Some(b'-' | b'_'))
        })
}

/// The names that `Connection` lists; every line counts, not just the first.
fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        // What is usually named is no field, or goes anyway.
        .filter(|name| {
            !name.eq_ignore_ascii_case(b"keep-alive") && !name.eq_ignore_ascii_case(b"close")
        })
        .filter_map(|name| HeaderName::from_bytes(name).ok())
        .filter(|name| *name != header::HOST && *name != header::CONTENT_LENGTH)
        .collect()
}

/// The protocol that a request wants to switch to, where it asks as RFC 9110 section 7.8 says.
pub(crate) fn upgrade<B>(request: &Request<B>) -> Option<HeaderValue> {
    let headers = request.headers();
    let protocol = fields::rare(headers, &header::UPGRADE)?;
    let asked = request.version() == Version::HTTP_11
        && request.method() == Method::GET
        && named_by_connection(headers).contains(&header::UPGRADE);
    let known = protocol.as_bytes().eq_ignore_ascii_case(b"websocket");
    (asked && known).then(|| protocol.clone())
}

/// Whether the message is gRPC's, which is never buffered.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = fields::rare(headers, &header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// Whether the answer is a stream of events, which is never buffered.
pub(crate) fn is_event_stream(headers: &HeaderMap) -> bool {
    let kind = fields::early(headers, &header::CONTENT_TYPE);
    kind.is_some_and(|kind| {
        kind.as_bytes()
            .get(..17)
            .is_some_and(|kind| kind.eq_ignore_ascii_case(b"text/event-stream"))
    })
}

/// What a forwarded request is told of its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hop<'a> {
    /// The peer that it came from.
    pub(crate) peer: &'a Peer,
    /// Whether the peer's own word on whom it forwards for is believed.
    pub(crate) peer_is_trusted: bool,
    /// The headers that only the gateway may set.
    pub(crate) vouched: &'a Vouched,
    /// The request's id.
    pub(crate) id: RequestId,
    /// The `Host` for a client of HTTP/1.0 that names none.
    pub(crate) host: &'a HeaderValue,
}

/// The fields of a forwarded request as they are sent, most of them where the client's request and the
/// configuration have them. There are few, and each is looked for once: a list costs less than a table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fields<'a>(Vec<(&'a HeaderName, Value<'a>)>);

/// What a field says.
#[derive(Clone, Debug)]
pub(crate) enum Value<'a> {
    /// What the client, or the configuration, says.
    Lent(&'a HeaderValue),
    /// What was made for this request.
    Own(HeaderValue),
    /// The digits of a request's id.
    Id([u8; 16]),
}

impl<'a> Fields<'a> {
    /// All fields, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'a HeaderName, &Value<'a>)> {
        self.0.iter().map(|(name, value)| (*name, value))
    }

    /// Replaces every value of the field.
    pub(crate) fn set(&mut self, name: &'a HeaderName, value: HeaderValue) {
        self.replace(name, Value::Own(value));
    }

    /// Replaces every value of the field.
    pub(crate) fn lend(&mut self, name: &'a HeaderName, value: &'a HeaderValue) {
        self.replace(name, Value::Lent(value));
    }

    fn replace(&mut self, name: &'a HeaderName, value: Value<'a>) {
        self.remove(name);
        self.add(name, value);
    }

    fn add(&mut self, name: &'a HeaderName, value: Value<'a>) {
        self.0.push((name, value));
    }

    /// Removes every value of the field.
    pub(crate) fn remove(&mut self, name: &HeaderName) {
        self.0.retain(|(known, _)| *known != name);
    }

    fn has(&self, name: &HeaderName) -> bool {
        self.0.iter().any(|(known, _)| *known == name)
    }

    /// Makes the edits of a configuration.
    pub(crate) fn apply(&mut self, edits: &'a HeaderEdits) {
        for name in &edits.remove {
            self.remove(name);
        }
        for (name, value) in &edits.set {
            self.lend(name, value);
        }
    }

    /// Makes one field of several: HTTP/2 may carry cookies so, HTTP/1.1 has one (RFC 9113 section 8.2.3).
    fn join(&mut self, name: &'a HeaderName, between: &[u8]) {
        let lines = || self.0.iter().filter(|(known, _)| *known == name);
        if lines().nth(1).is_none() {
            return;
        }
        let values: Vec<&[u8]> = lines().map(|(_, value)| value.bytes()).collect();
        let sensitive = lines().any(|(_, value)| value.is_sensitive());
        // Parts of valid fields make a valid one.
        if let Ok(mut joined) = HeaderValue::from_bytes(&values.join(between)) {
            joined.set_sensitive(sensitive);
            self.set(name, joined);
        }
    }
}

impl Value<'_> {
    /// Its bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Lent(value) => value.as_bytes(),
            Self::Own(value) => value.as_bytes(),
            Self::Id(digits) => digits,
        }
    }

    /// The same as a header's value.
    pub(crate) fn to_header(&self) -> Option<HeaderValue> {
        match self {
            Self::Lent(value) => Some((*value).clone()),
            Self::Own(value) => Some(value.clone()),
            Self::Id(digits) => HeaderValue::from_bytes(digits).ok(),
        }
    }

    fn is_sensitive(&self) -> bool {
        match self {
            Self::Lent(value) => value.is_sensitive(),
            Self::Own(value) => value.is_sensitive(),
            Self::Id(_) => false,
        }
    }
}

/// Makes a client's header fields those of the forwarded request, in one pass: strips what belongs
/// to one connection and what only the gateway may say, then says it. How the body is framed is
/// said by whoever sends it.
pub(crate) fn prepare<'a>(
    headers: &'a HeaderMap,
    uri: &Uri,
    upgrade: Option<&'a HeaderValue>,
    hop: Hop<'a>,
) -> Fields<'a> {
    let Hop {
        peer,
        peer_is_trusted,
        vouched,
        id,
        host,
    } = hop;
    // Few requests have either; comparing names costs less than looking them up.
    let (mut connection, mut te) = (false, false);
    for name in headers.keys() {
        connection |= name == header::CONNECTION;
        te |= name == header::TE;
    }
    let doomed = if connection {
        named_by_connection(headers)
    } else {
        Vec::new()
    };
    let trailers = te && headers.get_all(header::TE).iter().any(takes_trailers);
    let mut fields = Fields(Vec::with_capacity(headers.len() + OWN_FIELDS));
    let mut named = None;
    let mut cookies = 0;
    for (name, value) in headers {
        let text = name.as_str();
        let underscored = has_underscore(text);
        if is_hop_by_hop(text)
            || *name == header::CONTENT_LENGTH
            || vouched.covers(text, underscored)
            || (underscored && shadows(text))
            || (!peer_is_trusted && (is_forwarding(text) || *name == X_REQUEST_ID))
            || doomed.contains(name)
        {
            continue;
        }
        match *name {
            header::HOST => named = named.or(Some(value)),
            header::COOKIE => cookies += 1,
            _ => {}
        }
        fields.add(name, Value::Lent(value));
    }
    let named = named.map_or_else(
        || {
            // HTTP/2 says it in `:authority`.
            let authority = uri
                .authority()
                .and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
            let named = authority.map_or(Value::Lent(host), Value::Own);
            fields.add(&header::HOST, named.clone());
            named
        },
        Value::Lent,
    );
    if cookies > 1 {
        fields.join(&header::COOKIE, b"; ");
    }
    fields.add(&X_FORWARDED_FOR, Value::Lent(&peer.text));
    if peer_is_trusted {
        fields.join(&X_FORWARDED_FOR, b", ");
    }
    let scheme = if peer.tls { &HTTPS } else { &HTTP };
    let own = [
        (&X_FORWARDED_PROTO, Some(Value::Lent(scheme))),
        (&X_FORWARDED_HOST, Some(named)),
        (&X_FORWARDED_PORT, peer.port.as_ref().map(Value::Lent)),
        (&X_REQUEST_ID, Some(Value::Id(id.digits()))),
    ];
    for (name, value) in own {
        if let Some(value) = value {
            if !(peer_is_trusted && fields.has(name)) {
                fields.add(name, value);
            }
        }
    }
    if trailers {
        fields.add(&header::TE, Value::Lent(&TRAILERS));
    }
    if let Some(protocol) = upgrade {
        fields.add(&header::CONNECTION, Value::Lent(&UPGRADE));
        fields.add(&header::UPGRADE, Value::Lent(protocol));
    } else if trailers {
        fields.add(&header::CONNECTION, Value::Lent(&TE));
    }
    fields
}

/// Whether a line of `TE` says that trailers are understood.
fn takes_trailers(line: &HeaderValue) -> bool {
    line.as_bytes()
        .split(|byte| *byte == b',')
        .any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

/// A piece of a body as it is handed on: data as it is, trailers without what a head would not
/// have been let keep. `vouched` is for a client's; an app may say what it likes of who is who.
pub(crate) fn cleaned(frame: Frame<Bytes>, vouched: Option<&Vouched>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            clean_trailers(&mut trailers, vouched);
            Frame::trailers(trailers)
        }
        Err(frame) => frame,
    }
}

/// Removes from trailers what must not stand there: framing, routing, identity (RFC 9110
/// section 6.5.1).
fn clean_trailers(trailers: &mut HeaderMap, vouched: Option<&Vouched>) {
    let doomed: Vec<HeaderName> = trailers
        .keys()
        .filter(|name| {
            let text = name.as_str();
            is_hop_by_hop(text)
                || is_forwarding(text)
                || (has_underscore(text) && shadows(text))
                || vouched.is_some_and(|vouched| vouched.covers(text, has_underscore(text)))
                || **name == X_REQUEST_ID
                || matches!(
                    **name,
                    header::HOST
                        | header::CONTENT_LENGTH
                        | header::AUTHORIZATION
                        | header::COOKIE
                        | header::TRAILER
                )
        })
        .cloned()
        .collect();
    for name in doomed {
        trailers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                value.parse().unwrap(),
            );
        }
        headers
    }

    fn prepared(fields: &[(&str, &str)], trusted: bool) -> HeaderMap {
        let peer = Peer::new(
            Some("203.0.113.9".parse().unwrap()),
            Some(8443.into()),
            true,
        );
        let vouched = Vouched::new([HeaderName::from_static("x-user-id")]);
        let hop = Hop {
            peer: &peer,
            peer_is_trusted: trusted,
            vouched: &vouched,
            id: RequestId(7),
            host: &HeaderValue::from_static("app"),
        };
        let fields = map(fields);
        let prepared = prepare(&fields, &Uri::from_static("/"), None, hop);
        prepared
            .iter()
            .map(|(name, value)| (name.clone(), value.to_header().unwrap()))
            .collect()
    }

    #[test]
    fn a_request_has_a_host() {
        assert_eq!(prepared(&[], false)["host"], "app");
        assert_eq!(prepared(&[("host", "h")], false)["host"], "h");
    }

    #[test]
    fn fields_of_the_connection_stop_here() {
        let headers = prepared(
            &[
                ("connection", "close"),
                ("connection", " x-debug ,keep-alive, host"),
                ("x-debug", "1"),
                ("keep-alive", "5"),
                ("te", "gzip"),
                ("upgrade", "h2c"),
                ("expect", "100-continue"),
                ("transfer-encoding", "chunked"),
                ("proxy-authorization", "x"),
                ("accept", "*/*"),
                ("host", "h"),
            ],
            false,
        );
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "accept",
                "host",
                "x-forwarded-for",
                "x-forwarded-host",
                "x-forwarded-port",
                "x-forwarded-proto",
                "x-request-id"
            ]
        );
    }

    #[test]
    fn connection_cannot_strike_what_the_gateway_sets() {
        let headers = prepared(
            &[("host", "h"), ("connection", "x-forwarded-for, x-user-id")],
            false,
        );
        assert_eq!(headers["x-forwarded-for"], "203.0.113.9");
    }

    #[test]
    fn a_strangers_word_on_forwarding_is_replaced() {
        let theirs = [
            ("host", "h"),
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-proto", "gopher"),
            ("x-forwarded-host", "evil"),
            ("x-forwarded-port", "1"),
            ("x-forwarded-prefix", "/x"),
            ("forwarded", "for=1.1.1.1"),
            ("x_forwarded_for", "1.1.1.1"),
        ];
        let headers = prepared(&theirs, false);
        assert_eq!(headers["x-forwarded-for"], "203.0.113.9");
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["x-forwarded-host"], "h");
        assert_eq!(headers["x-forwarded-port"], "8443");
        assert!(!headers.contains_key("forwarded") && !headers.contains_key("x-forwarded-prefix"));
        assert!(!headers.contains_key("x_forwarded_for"));
        let headers = prepared(&theirs, true);
        assert_eq!(headers["x-forwarded-for"], "1.1.1.1, 203.0.113.9");
        assert_eq!(headers["x-forwarded-proto"], "gopher");
        assert_eq!(headers["x-forwarded-prefix"], "/x");
        assert!(!headers.contains_key("x_forwarded_for"));
    }

    #[test]
    fn a_clients_own_identity_never_passes() {
        for name in ["x-user-id", "x_user_id", "x-user_id", "X_User-Id"] {
            let headers = prepared(&[("host", "h"), (name, "root"), ("x-user", "fine")], true);
            assert!(
                headers
                    .keys()
                    .all(|name| !name.as_str().contains("user-id") && !name.as_str().contains('_')),
                "{name}"
            );
            assert_eq!(headers["x-user"], "fine");
        }
    }

    proptest! {
        #[test]
        fn preparing_twice_is_preparing_once(
            fields in prop::collection::vec(("(connection|te|x-a|x-b|upgrade|forwarded|x-forwarded-for|x_user_id|keep-alive)", "[a-z, -]{0,12}"), 0..8),
        ) {
            let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let once = prepared(&fields, false);
            let twice: Vec<(&str, &str)> = once.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
            prop_assert_eq!(&prepared(&twice, false), &once);
        }
    }
}
