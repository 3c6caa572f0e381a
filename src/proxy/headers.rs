//! The fields of forwarded messages: removes those that belong to one connection or that only the gateway may set, then
//! sets the gateway's own.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Uri, Version};
use http_body::Frame;

use super::reserved::{
    CDN_LOOP, Setter, TrailerRules, Vouched, is_for_heads, is_hop_by_hop, setter, shadows,
};
use crate::auth::Permit;
use crate::edits::{Facts, HeaderEdits, Written};
use crate::message::fields;
use crate::message::reject::Reject;
use crate::message::request_id::RequestId;
use crate::net::client::{Client, Peer};

static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
static X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
static X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");

static HTTP: HeaderValue = HeaderValue::from_static("http");
static HTTPS: HeaderValue = HeaderValue::from_static("https");
static TE: HeaderValue = HeaderValue::from_static("te");
static TRAILERS: HeaderValue = HeaderValue::from_static("trailers");
static UPGRADE: HeaderValue = HeaderValue::from_static("upgrade");

/// Room for the fields that the gateway adds.
const OWN_FIELDS: usize = 12;

static X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The names that `Connection` lists, on all of its lines.
fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        // The usual options are not field names, or are removed anyway.
        .filter(|name| {
            !name.eq_ignore_ascii_case(b"keep-alive") && !name.eq_ignore_ascii_case(b"close")
        })
        .filter_map(|name| HeaderName::from_bytes(name).ok())
        .filter(|name| !matches!(*name, header::HOST | header::CONTENT_LENGTH) && *name != CDN_LOOP)
        .collect()
}

/// The protocol that a request wants to switch to, if it asks according to RFC 9110 section 7.8.
pub(crate) fn upgrade<B>(request: &Request<B>) -> Option<HeaderValue> {
    let headers = request.headers();
    let protocol = fields::rare(headers, &header::UPGRADE)?;
    let asked = request.version() == Version::HTTP_11
        && request.method() == Method::GET
        && named_by_connection(headers).contains(&header::UPGRADE);
    let known = protocol.as_bytes().eq_ignore_ascii_case(b"websocket");
    (asked && known).then(|| protocol.clone())
}

/// Whether the request is a gRPC call: a POST over HTTP/2 of `application/grpc`, perhaps with suffix and parameters.
pub(crate) fn is_grpc<B>(request: &Request<B>) -> bool {
    const KIND: &[u8] = b"application/grpc";
    if request.version() != Version::HTTP_2 || request.method() != Method::POST {
        return false;
    }
    let kind = request.headers().get(header::CONTENT_TYPE);
    kind.and_then(|kind| kind.as_bytes().split_at_checked(KIND.len()))
        .is_some_and(|(kind, rest)| {
            kind.eq_ignore_ascii_case(KIND)
                && matches!(rest.first(), None | Some(b'+' | b';' | b' '))
        })
}

/// Whether the response is a stream of events, which is never buffered.
pub(crate) fn is_event_stream(headers: &HeaderMap) -> bool {
    let kind = fields::early(headers, &header::CONTENT_TYPE);
    kind.is_some_and(|kind| {
        kind.as_bytes()
            .get(..17)
            .is_some_and(|kind| kind.eq_ignore_ascii_case(b"text/event-stream"))
    })
}

/// What a forwarded request is told about its origin and path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hop<'a> {
    /// The peer that sent it.
    pub(crate) peer: &'a Peer,
    /// The client, as identified by the peer's address and trusted proxies.
    pub(crate) client: &'a Client,
    /// Fields that only the gateway may set.
    pub(crate) vouched: &'a Vouched,
    /// Edits that are applied later: fields that they set or remove are not accepted from a client.
    pub(crate) edits: Option<&'a HeaderEdits>,
    /// Whether names with `_` are allowed.
    pub(crate) underscores: bool,
    /// The request's id.
    pub(crate) id: RequestId,
    /// The `Host` for an HTTP/1.0 client that sends none.
    pub(crate) host: &'a HeaderValue,
}

/// The fields of a forwarded request as they are sent, most of them borrowed from the client's request and the
/// configuration. They are few, and each is looked up once: a list costs less than a map.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fields<'a>(Vec<(&'a HeaderName, Value<'a>)>);

/// A field's value.
#[derive(Clone, Debug)]
pub(crate) enum Value<'a> {
    /// From the client, or the configuration.
    Lent(&'a HeaderValue),
    /// Created for this request.
    Own(HeaderValue),
    /// Part of a value from the client.
    Part(&'a [u8]),
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

    /// Adds this prefix, which was stripped from the path, to that which a trusted proxy stripped before.
    pub(super) fn below(&mut self, prefix: &'a HeaderValue) {
        let mut outer = self.0.iter();
        let outer = outer.find(|(known, _)| **known == X_FORWARDED_PREFIX);
        let outer = outer.map(|(_, value)| value.bytes().trim_ascii_end());
        let whole = outer.and_then(|outer| {
            let outer = outer.strip_suffix(b"/").unwrap_or(outer);
            HeaderValue::from_bytes(&[outer, prefix.as_bytes()].concat()).ok()
        });
        match whole {
            Some(whole) => self.set(&X_FORWARDED_PREFIX, whole),
            None => self.lend(&X_FORWARDED_PREFIX, prefix),
        }
    }

    fn has(&self, name: &HeaderName) -> bool {
        self.0.iter().any(|(known, _)| *known == name)
    }

    /// Applies the edits of a configuration. A value that refers to an absent claim is left out.
    ///
    /// # Errors
    /// `ClaimUnfit` if a claim cannot be a header.
    pub(crate) fn apply(
        &mut self,
        edits: &'a HeaderEdits,
        hop: Hop<'a>,
        permit: &Permit,
    ) -> Result<(), Reject> {
        for name in &edits.remove {
            self.remove(name);
        }
        for (name, value) in &edits.set {
            match value {
                Written::Fixed(value) => self.lend(name, value),
                Written::Made(template) => {
                    let facts = self.facts(hop, permit);
                    match template.fill(&facts)? {
                        Some(value) => self.set(name, value),
                        None => self.remove(name),
                    }
                }
            }
        }
        Ok(())
    }

    /// The facts that templates may refer to.
    fn facts<'f>(&'f self, hop: Hop<'f>, permit: &'f Permit) -> Facts<'f> {
        let host = self.0.iter().find(|(name, _)| **name == header::HOST);
        Facts {
            client: hop.client.text(hop.peer),
            host: host.map_or(&[], |(_, value)| value.bytes()),
            secure: hop.client.secure,
            id: hop.id,
            permit: Some(permit),
        }
    }

    /// Joins all fields of a name: HTTP/2 may split cookies, HTTP/1.1 has one field (RFC 9113 section 8.2.3).
    fn join(&mut self, name: &'a HeaderName, between: &[u8]) {
        let lines = || self.0.iter().filter(|(known, _)| *known == name);
        if lines().nth(1).is_none() {
            return;
        }
        let values: Vec<&[u8]> = lines().map(|(_, value)| value.bytes()).collect();
        let sensitive = lines().any(|(_, value)| value.is_sensitive());
        // Joining valid values gives a valid value.
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
            Self::Part(bytes) => bytes,
            Self::Id(digits) => digits,
        }
    }

    /// As a header value.
    pub(crate) fn to_header(&self) -> Option<HeaderValue> {
        match self {
            Self::Lent(value) => Some((*value).clone()),
            Self::Own(value) => Some(value.clone()),
            Self::Part(bytes) => HeaderValue::from_bytes(bytes).ok(),
            Self::Id(digits) => HeaderValue::from_bytes(digits).ok(),
        }
    }

    fn is_sensitive(&self) -> bool {
        match self {
            Self::Lent(value) => value.is_sensitive(),
            Self::Own(value) => value.is_sensitive(),
            Self::Part(_) | Self::Id(_) => false,
        }
    }
}

/// Builds the fields of the forwarded request from the client's in one pass: removes those that belong to one
/// connection or that only the gateway may set, then sets the latter. The sender adds the fields that frame the body.
///
/// # Errors
/// `LoopDetected` if the request has passed this gateway before.
pub(crate) fn prepare<'a>(
    headers: &'a HeaderMap,
    uri: &'a Uri,
    upgrade: Option<&'a HeaderValue>,
    hop: Hop<'a>,
) -> Result<Fields<'a>, Reject> {
    let Hop {
        peer,
        client,
        vouched,
        id,
        host,
        ..
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
    let (mut cookies, mut loops) = (0, 0);
    for (name, value) in headers {
        match *name {
            header::HOST => {
                named = named.or(Some(value));
                fields.add(name, Value::Lent(value));
                continue;
            }
            header::CONTENT_LENGTH => continue,
            header::COOKIE => cookies += 1,
            _ => {}
        }
        if !hop.lets_pass(name.as_str()) || doomed.contains(name) {
            continue;
        }
        if *name == CDN_LOOP {
            if memchr::memmem::find(value.as_bytes(), vouched.id.as_bytes()).is_some() {
                return Err(Reject::LoopDetected);
            }
            loops += 1;
        }
        fields.add(name, Value::Lent(value));
    }
    let named = match (named, uri.authority()) {
        (Some(named), _) => named.as_bytes(),
        // HTTP/2 sends it in `:authority`.
        (None, Some(authority)) => {
            let authority = authority.as_str().as_bytes();
            fields.add(&header::HOST, Value::Part(authority));
            authority
        }
        (None, None) => {
            fields.add(&header::HOST, Value::Lent(host));
            host.as_bytes()
        }
    };
    if cookies > 1 {
        fields.join(&header::COOKIE, b"; ");
    }
    fields.say_who(peer, client, named);
    if client.told.is_none() || !fields.has(&X_REQUEST_ID) {
        fields.add(&X_REQUEST_ID, Value::Id(id.digits()));
    }
    fields.add(&CDN_LOOP, Value::Lent(&vouched.id));
    if loops > 0 {
        fields.join(&CDN_LOOP, b", ");
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
    Ok(fields)
}

impl Hop<'_> {
    /// Whether a client's field of this name is forwarded to the app, apart from what its `Connection` and framing
    /// exclude.
    fn lets_pass(&self, name: &str) -> bool {
        let taken = |name: &str| {
            self.vouched.names.covers(name) || self.edits.is_some_and(|it| it.names.covers(name))
        };
        if fields::is_odd(name) {
            // An app may read it as another name.
            let folded = fields::folded(name);
            return !taken(&folded)
                && !shadows(&folded)
                && (self.underscores || !name.as_bytes().contains(&b'_'));
        }
        !is_hop_by_hop(name)
            && !taken(name)
            && match setter(name) {
                Setter::Anybody => true,
                Setter::Trusted => self.client.told.is_some(),
                Setter::Nobody => false,
            }
    }
}

impl<'a> Fields<'a> {
    /// Sets the fields that describe the client, from one source: a trusted proxy's, or the gateway's own view. `named`
    /// is the host as the client wrote it.
    fn say_who(&mut self, peer: &'a Peer, client: &'a Client, named: &'a [u8]) {
        let told = client.told.as_deref();
        let chain = told.map_or(&peer.text, |told| &told.chain);
        self.add(&X_FORWARDED_FOR, Value::Lent(chain));
        self.add(&X_REAL_IP, Value::Lent(client.text(peer)));
        let scheme = if client.secure { &HTTPS } else { &HTTP };
        self.add(&X_FORWARDED_PROTO, Value::Lent(scheme));
        let host = told.and_then(|told| told.host.as_ref());
        let host = host.map_or(named, HeaderValue::as_bytes);
        self.add(&X_FORWARDED_HOST, Value::Part(host));
        let port = match (told.and_then(|told| told.port.as_ref()), port_of(host)) {
            (Some(port), _) => Value::Lent(port),
            (None, Some(port)) => Value::Part(port),
            (None, None) => match (peer.port(), client.secure) {
                (Some(port), _) => Value::Lent(port),
                (None, true) => Value::Part(b"443"),
                (None, false) => Value::Part(b"80"),
            },
        };
        self.add(&X_FORWARDED_PORT, port);
    }
}

/// The port of `name:port`: the digits at its end, if there are some and a colon is before them. Those of an IPv6 address
/// are in brackets.
fn port_of(host: &[u8]) -> Option<&[u8]> {
    let digits = host.iter().rev().take_while(|byte| byte.is_ascii_digit());
    let (name, port) = host.split_at_checked(host.len() - digits.count())?;
    (!port.is_empty() && name.ends_with(b":")).then_some(port)
}

/// Whether a line of `TE` says that trailers are accepted.
fn takes_trailers(line: &HeaderValue) -> bool {
    line.as_bytes()
        .split(|byte| *byte == b',')
        .any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

/// A frame of a body to be forwarded: data unchanged, trailers without fields that heads must not have either. `rules`
/// apply to clients; an app may send any identity headers.
pub(crate) fn cleaned(frame: Frame<Bytes>, rules: Option<&TrailerRules>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            clean_trailers(&mut trailers, rules);
            Frame::trailers(trailers)
        }
        Err(frame) => frame,
    }
}

/// Removes fields that are forbidden in trailers: framing, routing, identity (RFC 9110 section 6.5.1).
fn clean_trailers(trailers: &mut HeaderMap, rules: Option<&TrailerRules>) {
    let is_doomed = |name: &&HeaderName| {
        is_for_heads(name) || rules.is_some_and(|rules| rules.forbid(name.as_str()))
    };
    let doomed: Vec<HeaderName> = trailers.keys().filter(is_doomed).cloned().collect();
    for name in doomed {
        trailers.remove(name);
    }
}

#[cfg(test)]
mod tests;
