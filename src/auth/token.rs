//! Finds exactly one bearer token in a request (RFC 6750 section 2), and removes it. The content of the token is not
//! read here.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::header::{AUTHORIZATION, COOKIE, SEC_WEBSOCKET_PROTOCOL};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::message::alphabet::TOKEN;
use crate::message::reject::{Reject, TokenFault};

/// Base64 of Basic credentials, with or without its padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The maximum length of a token, in bytes.
pub(super) const MAX_BYTES: usize = 16 * 1024;

/// How many more cookies of one name are checked: each costs a signature.
const MAX_RIVALS: usize = 3;

/// A place in which a token is accepted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum TokenSource {
    /// `Authorization: Bearer …`.
    Header,
    /// The cookie of this name.
    Cookie(String),
    /// The query parameter of this name.
    Query(String),
    /// `Sec-WebSocket-Protocol: bearer, TOKEN`: browsers let a page set no other header of a WebSocket.
    WebSocket,
    /// The password of `Authorization: Basic …` (RFC 7617), with any user name: package indexes and git clients send
    /// nothing else.
    Basic,
}

/// The one token of a request.
#[derive(Eq, PartialEq)]
pub(crate) struct Found<'r> {
    /// The raw token; [`Found::text`] checks its characters.
    pub(crate) token: Cow<'r, [u8]>,
    /// Where it was found: a bit for each of the searched places, in their order.
    pub(crate) places: u64,
    /// The values of other cookies of the same name: a browser sends those of several domains, without saying which is
    /// which (RFC 6265 section 5.4). The valid one is used.
    pub(crate) rivals: Vec<&'r [u8]>,
}

impl<'r> Found<'r> {
    /// The token and its rivals, each as if it were the only one.
    pub(crate) fn each(self) -> impl Iterator<Item = Self> {
        let Self {
            token,
            places,
            rivals,
        } = self;
        let alone = move |token: Cow<'r, [u8]>| Self {
            token,
            places,
            rivals: Vec::new(),
        };
        let rivals = rivals.into_iter().map(Cow::Borrowed);
        std::iter::once(token).chain(rivals).map(alone)
    }
}

impl Found<'_> {
    /// The token as text; every byte is one of b64token (RFC 6750 section 2.1). A token that was verified before need
    /// not be checked for this again.
    ///
    /// # Errors
    /// `TokenMalformed`.
    pub(crate) fn text(&self) -> Result<&str, Reject> {
        std::str::from_utf8(&self.token)
            .ok()
            .filter(|_| is_b64token(&self.token))
            .ok_or(Reject::TokenMalformed("the bearer token is malformed"))
    }
}

impl<'r> Found<'r> {
    /// Adds the value of another cookie of the same name.
    fn add_rival(&mut self, token: &'r [u8]) -> Result<(), Reject> {
        if token.len() > MAX_BYTES {
            return Err(Reject::TokenInvalid(TokenFault::TooLong));
        }
        if self.rivals.contains(&token) {
            return Ok(());
        }
        if self.rivals.len() >= MAX_RIVALS {
            return Err(Reject::TokenMalformed(
                "the request has too many different cookies of one name",
            ));
        }
        self.rivals.push(token);
        Ok(())
    }
}

impl fmt::Debug for Found<'_> {
    /// A token is never printed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a token of {} bytes in places {:b}",
            self.token.len(),
            self.places
        )
    }
}

/// The only token in these places; all of them are searched. `None` where there is no token: no field, another scheme,
/// an empty cookie, query parameter or password.
///
/// # Errors
/// `TokenMalformed` where two tokens differ that are not cookies of one name, or an escape of the query is malformed;
/// `TokenInvalid(TooLong)` above 16 KiB, and `TokenInvalid(Malformed)` where a password is not a token: the user is
/// prompted again.
pub(crate) fn find<'r>(
    headers: &'r HeaderMap,
    query: Option<&'r str>,
    places: &[TokenSource],
) -> Result<Option<Found<'r>>, Reject> {
    let mut found = None;
    for (at, place) in places.iter().enumerate() {
        // A place without a bit belongs to no verifier.
        let Some(bit) = u32::try_from(at).ok().and_then(|at| 1_u64.checked_shl(at)) else {
            break;
        };
        match place {
            TokenSource::Header => {
                for line in headers.get_all(AUTHORIZATION) {
                    if let Some(token) = bearer(line.as_bytes()) {
                        add(&mut found, bit, Cow::Borrowed(token))?;
                    }
                }
            }
            TokenSource::Basic => {
                for line in headers.get_all(AUTHORIZATION) {
                    if let Some(credentials) = basic(line.as_bytes()) {
                        let token = password(credentials)
                            .filter(|token| token.is_empty() || is_b64token(token))
                            .ok_or(Reject::TokenInvalid(TokenFault::Malformed))?;
                        if !token.is_empty() {
                            add(&mut found, bit, Cow::Owned(token))?;
                        }
                    }
                }
            }
            TokenSource::Cookie(name) => {
                for value in cookies_named(headers, name) {
                    match &mut found {
                        Some(first) if first.places == bit && first.token != value => {
                            first.add_rival(value)?;
                        }
                        _ => add(&mut found, bit, Cow::Borrowed(value))?,
                    }
                }
            }
            TokenSource::Query(name) => {
                for value in query
                    .into_iter()
                    .flat_map(|query| query.split('&'))
                    .filter_map(|parameter| parameter.split_once('='))
                    .filter(|(key, value)| is_named(key, name) && !value.is_empty())
                    .map(|(_, value)| value)
                {
                    let token = unescaped(value.as_bytes(), false).ok_or(
                        Reject::TokenMalformed("the query's token has a malformed escape"),
                    )?;
                    add(&mut found, bit, token)?;
                }
            }
            TokenSource::WebSocket => {
                let mut follows = false;
                for protocol in headers
                    .get_all(SEC_WEBSOCKET_PROTOCOL)
                    .iter()
                    .flat_map(|line| protocols(line.as_bytes()))
                {
                    if std::mem::take(&mut follows) {
                        add(&mut found, bit, Cow::Borrowed(protocol))?;
                    } else {
                        follows = is_bearer(protocol);
                    }
                }
            }
        }
    }
    Ok(found)
}

/// Removes the token from these places: whole `Authorization` fields of the scheme, and only the cookies and
/// parameters of the name. Returns the new query where it changed; an empty one means that the target no longer needs
/// a `?`.
pub(crate) fn strip(
    headers: &mut HeaderMap,
    query: Option<&str>,
    places: &[TokenSource],
) -> Option<String> {
    let mut new_query = None;
    for place in places {
        match place {
            TokenSource::Header => retain(headers, &AUTHORIZATION, |line| {
                bearer(line).is_none().then_some(Cow::Borrowed(line))
            }),
            TokenSource::Basic => retain(headers, &AUTHORIZATION, |line| {
                basic(line).is_none().then_some(Cow::Borrowed(line))
            }),
            TokenSource::Cookie(name) => remove_cookie(headers, name),
            TokenSource::WebSocket => strip_protocols(headers),
            TokenSource::Query(name) => {
                let named = |parameter: &&str| {
                    is_named(parameter.split('=').next().unwrap_or_default(), name)
                };
                let old = new_query.as_deref().or(query).unwrap_or_default();
                if old.split('&').any(|parameter| named(&parameter)) {
                    let rest: Vec<_> = old
                        .split('&')
                        .filter(|parameter| !named(parameter))
                        .collect();
                    new_query = Some(rest.join("&"));
                }
            }
        }
    }
    new_query
}

/// Removes the cookies of this name.
pub(crate) fn remove_cookie(headers: &mut HeaderMap, name: &str) {
    let named = |pair: &&[u8]| cookie(pair).is_some_and(|(key, _)| key == name.as_bytes());
    retain(headers, &COOKIE, |line| {
        if !pairs(line).any(|pair| named(&pair)) {
            return Some(Cow::Borrowed(line));
        }
        let rest: Vec<_> = pairs(line).filter(|pair| !named(pair)).collect();
        (!rest.is_empty()).then(|| Cow::Owned(rest.join(b"; ".as_slice())))
    });
}

/// Whether a WebSocket client offered the protocol `bearer`, which its token follows.
pub(crate) fn offers_bearer(headers: &HeaderMap) -> bool {
    headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .flat_map(|line| protocols(line.as_bytes()))
        .any(is_bearer)
}

/// Removes `bearer` and the token after it from the protocols that a WebSocket client offers.
fn strip_protocols(headers: &mut HeaderMap) {
    if !offers_bearer(headers) {
        return;
    }
    let mut rest: Vec<Vec<u8>> = Vec::new();
    let mut follows = false;
    for protocol in headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .flat_map(|line| protocols(line.as_bytes()))
    {
        if std::mem::take(&mut follows) {
            continue;
        }
        follows = is_bearer(protocol);
        if !follows {
            rest.push(protocol.to_vec());
        }
    }
    headers.remove(SEC_WEBSOCKET_PROTOCOL);
    if !rest.is_empty()
        // Parts of a valid field are valid together.
        && let Ok(rest) = HeaderValue::from_bytes(&rest.join(b", ".as_slice()))
    {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, rest);
    }
}

/// The items of a `Sec-WebSocket-Protocol` field (RFC 6455 section 11.3.4).
fn protocols(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|protocol| !protocol.is_empty())
}

fn is_bearer(protocol: &[u8]) -> bool {
    protocol.eq_ignore_ascii_case(b"bearer")
}

/// Adds a token to the result.
fn add<'r>(found: &mut Option<Found<'r>>, place: u64, token: Cow<'r, [u8]>) -> Result<(), Reject> {
    if token.len() > MAX_BYTES {
        return Err(Reject::TokenInvalid(TokenFault::TooLong));
    }
    match found {
        None => {
            *found = Some(Found {
                token,
                places: place,
                rivals: Vec::new(),
            });
        }
        Some(first) if first.token == token && first.rivals.is_empty() => first.places |= place,
        Some(_) => {
            return Err(Reject::TokenMalformed(
                "the request has two different bearer tokens",
            ));
        }
    }
    Ok(())
}

/// The credentials of an `Authorization` field; `None` for another scheme than Bearer.
fn bearer(line: &[u8]) -> Option<&[u8]> {
    credentials(line, b"bearer")
}

/// The same for Basic.
pub(super) fn basic(line: &[u8]) -> Option<&[u8]> {
    credentials(line, b"basic")
}

/// Basic credentials without their encoding: name, colon and password (RFC 7617 section 2).
pub(super) fn user_and_password(credentials: &[u8]) -> Option<Vec<u8>> {
    BASE64.decode(credentials.trim_ascii()).ok()
}

/// The password of Basic credentials (RFC 7617 section 2); `None` where they are malformed.
fn password(credentials: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = user_and_password(credentials)?;
    let colon = memchr::memchr(b':', &decoded)?;
    decoded.drain(..=colon);
    Some(decoded)
}

/// The credentials after this scheme, which is in lower case.
fn credentials<'l>(line: &'l [u8], named: &[u8]) -> Option<&'l [u8]> {
    let (scheme, rest) = line.split_at_checked(named.len())?;
    // A longer word is another scheme; any other byte ends this one.
    let ends = rest.first().is_none_or(|byte| !TOKEN.has(*byte));
    if !scheme.eq_ignore_ascii_case(named) || !ends {
        return None;
    }
    let spaces = rest.iter().take_while(|byte| **byte == b' ').count();
    rest.get(spaces..)
}

/// `b64token` of RFC 6750 section 2.1.
fn is_b64token(token: &[u8]) -> bool {
    let padding = token.iter().rev().take_while(|byte| **byte == b'=').count();
    let body = token.get(..token.len() - padding).unwrap_or_default();
    // No early exit, so that the compiler can vectorize the loop.
    let all = body.iter().fold(true, |all, byte| {
        let letter = (byte | 0x20).wrapping_sub(b'a') < 26;
        // `-`, `.`, `/` and the digits are adjacent in ASCII.
        let digit = byte.wrapping_sub(b'-') <= b'9' - b'-';
        all & (letter | digit | (*byte == b'_') | (*byte == b'~') | (*byte == b'+'))
    });
    all && !body.is_empty()
}

/// The tokens in the cookies of this name, each once, in the order of the request; values that cannot be tokens are
/// skipped.
pub(crate) fn tokens_of_cookies(headers: &HeaderMap, name: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    for value in cookies_named(headers, name) {
        let text = std::str::from_utf8(value).ok();
        let fits = value.len() <= MAX_BYTES && is_b64token(value);
        if let Some(text) = text.filter(|text| fits && !tokens.iter().any(|known| known == text)) {
            tokens.push(text.to_owned());
        }
    }
    tokens
}

/// The non-empty values of the cookies of this name.
pub(crate) fn cookies_named<'r>(
    headers: &'r HeaderMap,
    name: &str,
) -> impl Iterator<Item = &'r [u8]> {
    headers
        .get_all(COOKIE)
        .iter()
        .flat_map(|line| pairs(line.as_bytes()))
        .filter_map(cookie)
        .filter(move |(cookie, value)| *cookie == name.as_bytes() && !value.is_empty())
        .map(|(_, value)| value)
}

/// The pairs of a `Cookie` field (RFC 6265 section 4.2.1), without the space around them.
fn pairs(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| *byte == b';')
        .map(<[u8]>::trim_ascii)
        .filter(|pair| !pair.is_empty())
}

/// Name and value of a cookie, the value without its quotes.
fn cookie(pair: &[u8]) -> Option<(&[u8], &[u8])> {
    let equals = memchr::memchr(b'=', pair)?;
    let name = pair.get(..equals)?.trim_ascii();
    let value = pair.get(equals + 1..)?.trim_ascii();
    let bare = value
        .strip_prefix(b"\"")
        .and_then(|value| value.strip_suffix(b"\""));
    Some((name, bare.unwrap_or(value)))
}

/// Whether the key of a query parameter is this name, in any percent-encoding.
fn is_named(key: &str, name: &str) -> bool {
    key == name || unescaped(key.as_bytes(), true).is_some_and(|key| *key == *name.as_bytes())
}

/// The bytes with their percent escapes decoded, and in keys a plus as a space; `None` where an escape is malformed.
fn unescaped(text: &[u8], is_key: bool) -> Option<Cow<'_, [u8]>> {
    if !text
        .iter()
        .any(|byte| *byte == b'%' || (is_key && *byte == b'+'))
    {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = text.iter().copied();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => hex(bytes.next()?)? << 4 | hex(bytes.next()?)?,
            b'+' if is_key => b' ',
            other => other,
        });
    }
    Some(Cow::Owned(decoded))
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

/// Rewrites each field line of the name; `None` removes it.
fn retain<'h>(
    headers: &'h mut HeaderMap,
    name: &HeaderName,
    keep: impl for<'l> Fn(&'l [u8]) -> Option<Cow<'l, [u8]>>,
) {
    let old: Vec<HeaderValue> = headers.get_all(name).iter().cloned().collect();
    if old
        .iter()
        .all(|line| matches!(keep(line.as_bytes()), Some(Cow::Borrowed(_))))
    {
        return;
    }
    headers.remove(name);
    for line in &old {
        // The rest of a valid field is valid; an invalid one would be dropped.
        if let Some(mut rest) =
            keep(line.as_bytes()).and_then(|rest| HeaderValue::from_bytes(&rest).ok())
        {
            rest.set_sensitive(line.is_sensitive());
            headers.append(name, rest);
        }
    }
}

#[cfg(test)]
mod tests;
