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
            TokenSource::Cookie(name) => {
                let named =
                    |pair: &&[u8]| cookie(pair).is_some_and(|(key, _)| key == name.as_bytes());
                retain(headers, &COOKIE, |line| {
                    if !pairs(line).any(|pair| named(&pair)) {
                        return Some(Cow::Borrowed(line));
                    }
                    let rest: Vec<_> = pairs(line).filter(|pair| !named(pair)).collect();
                    (!rest.is_empty()).then(|| Cow::Owned(rest.join(b"; ".as_slice())))
                });
            }
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
fn basic(line: &[u8]) -> Option<&[u8]> {
    credentials(line, b"basic")
}

/// The password of Basic credentials (RFC 7617 section 2); `None` where they are malformed.
fn password(credentials: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = BASE64.decode(credentials.trim_ascii()).ok()?;
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
fn cookies_named<'r>(headers: &'r HeaderMap, name: &str) -> impl Iterator<Item = &'r [u8]> {
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn places() -> Vec<TokenSource> {
        vec![
            TokenSource::Header,
            TokenSource::Cookie("at".to_owned()),
            TokenSource::Query("token".to_owned()),
        ]
    }

    fn headers(authorization: &[&str], cookies: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in authorization {
            headers.append(
                AUTHORIZATION,
                HeaderValue::from_bytes(line.as_bytes()).unwrap(),
            );
        }
        for line in cookies {
            headers.append(COOKIE, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        headers
    }

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Outcome<'t> {
        Token(&'t str, u64),
        Nothing,
        Malformed,
        TooLong,
    }

    /// The token's text and its places.
    fn read(found: Result<Option<Found<'_>>, Reject>) -> Result<Option<(String, u64)>, Reject> {
        let Some(found) = found? else {
            return Ok(None);
        };
        Ok(Some((found.text()?.to_owned(), found.places)))
    }

    #[track_caller]
    fn check(authorization: &[&str], cookies: &[&str], query: Option<&str>, expected: Outcome<'_>) {
        let headers = headers(authorization, cookies);
        let found = find(&headers, query, &places());
        let read = read(found);
        let seen = match &read {
            Ok(Some((token, places))) => Outcome::Token(token, *places),
            Ok(None) => Outcome::Nothing,
            Err(Reject::TokenInvalid(TokenFault::TooLong)) => Outcome::TooLong,
            Err(Reject::TokenMalformed(_)) => Outcome::Malformed,
            Err(other) => panic!("{other:?}"),
        };
        assert_eq!(seen, expected);
    }

    #[test]
    fn one_token_is_found_wherever_it_stands() {
        check(&["Bearer a.b.c"], &[], None, Outcome::Token("a.b.c", 0b001));
        check(
            &["bEARER   a.b.c"],
            &[],
            None,
            Outcome::Token("a.b.c", 0b001),
        );
        check(&["Bearer a=="], &[], None, Outcome::Token("a==", 0b001));
        check(
            &[],
            &["x=1; at=a.b.c;y=2"],
            None,
            Outcome::Token("a.b.c", 0b010),
        );
        check(
            &[],
            &["x=1", "at=\"a.b.c\""],
            None,
            Outcome::Token("a.b.c", 0b010),
        );
        check(
            &[],
            &[],
            Some("x=1&token=a.b%2Ec&y"),
            Outcome::Token("a.b.c", 0b100),
        );
        check(
            &[],
            &[],
            Some("%74oken=a.b.c"),
            Outcome::Token("a.b.c", 0b100),
        );
    }

    #[test]
    fn other_schemes_and_empty_places_are_no_token() {
        check(&[], &[], None, Outcome::Nothing);
        check(&["Basic dTpw"], &[], None, Outcome::Nothing);
        check(
            &["Bearertoken abc", "Beare abc", ""],
            &[],
            None,
            Outcome::Nothing,
        );
        check(&["Basic dTpw, Bearer abc"], &[], None, Outcome::Nothing);
        check(
            &[],
            &["at=; AT=x; at2=y; at"],
            Some("token=&Token=x&token"),
            Outcome::Nothing,
        );
    }

    #[test]
    fn malformed_tokens_are_refused() {
        for line in [
            "Bearer",
            "Bearer ",
            "Bearer,",
            "Bearer\tabc",
            "Bearer a b",
            "Bearer a, Bearer a",
            "Bearer a,b",
            "Bearer \"a\"",
            "Bearer a=b",
            "Bearer ==",
            "Bearer a\u{e9}",
            "Bearer a\t",
        ] {
            check(&[line], &[], None, Outcome::Malformed);
        }
        check(&[], &["at=a b"], None, Outcome::Malformed);
        check(&[], &["at=\"a"], None, Outcome::Malformed);
        for query in [
            "token=a%",
            "token=a%2",
            "token=a%zz",
            "token=a%00",
            "token=a%20b",
        ] {
            check(&[], &[], Some(query), Outcome::Malformed);
        }
    }

    #[test]
    fn every_byte_is_one_of_b64token_or_is_not() {
        for byte in 0..=u8::MAX {
            let naive = byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
            assert_eq!(is_b64token(&[b'a', byte, b'a']), naive, "{byte:#x}");
        }
    }

    #[test]
    fn two_different_tokens_are_refused_and_the_same_one_twice_is_not() {
        check(
            &["Bearer a", "Bearer a"],
            &["at=a"],
            Some("token=%61"),
            Outcome::Token("a", 0b111),
        );
        check(
            &["Bearer a", "Basic b"],
            &[],
            None,
            Outcome::Token("a", 0b001),
        );
        check(&["Bearer a", "Bearer b"], &[], None, Outcome::Malformed);
        check(&["Bearer a"], &["at=b"], None, Outcome::Malformed);
        check(&["Bearer a"], &[], Some("token=b"), Outcome::Malformed);
        check(&["Bearer a", "Bearer"], &[], None, Outcome::Malformed);
        check(&[], &["at=a; at=b"], None, Outcome::Token("a", 2));
        check(&[], &["at=a; at=b"], Some("token=a"), Outcome::Malformed);
        check(&["Bearer a"], &["at=a; at=b"], None, Outcome::Malformed);
        check(
            &[],
            &["at=a; at=b; at=c; at=d; at=b"],
            None,
            Outcome::Token("a", 2),
        );
        check(
            &[],
            &["at=a; at=b; at=c; at=d; at=e"],
            None,
            Outcome::Malformed,
        );
        check(&[], &[], Some("token=a&tok%65n=b"), Outcome::Malformed);
    }

    #[test]
    fn places_that_are_not_listed_are_not_searched() {
        let headers = headers(&["Bearer a"], &["at=b"]);
        let found = find(
            &headers,
            Some("token=c"),
            &[TokenSource::Cookie("at".to_owned())],
        );
        assert_eq!(found.unwrap().unwrap().text(), Ok("b"));
    }

    #[test]
    fn a_websocket_offers_its_token_behind_bearer() {
        let check = |lines: &[&str], expected: Result<Option<&str>, ()>, left: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(SEC_WEBSOCKET_PROTOCOL, line.parse().unwrap());
            }
            let found = find(&headers, None, &[TokenSource::WebSocket]);
            let seen = read(found).map_err(drop);
            let expected = expected.map(|text| text.map(|text| (text.to_owned(), 1)));
            assert_eq!(seen, expected, "{lines:?}");
            strip(&mut headers, None, &[TokenSource::WebSocket]);
            let rest: Vec<_> = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().collect();
            assert_eq!(rest, left, "{lines:?}");
        };
        check(&[], Ok(None), &[]);
        check(&["chat"], Ok(None), &["chat"]);
        check(&["bearer, a.b.c"], Ok(Some("a.b.c")), &[]);
        check(
            &["chat,Bearer,a.b.c ,  v2"],
            Ok(Some("a.b.c")),
            &["chat, v2"],
        );
        check(&["bearer", "a.b.c, chat"], Ok(Some("a.b.c")), &["chat"]);
        check(&["bearer"], Ok(None), &[]);
        check(&["bearer, a, bearer, a"], Ok(Some("a")), &[]);
        check(&["bearer, a, bearer, b"], Err(()), &[]);
        check(&["bearer, a b"], Err(()), &[]);
        check(&["bearer, bearer"], Ok(Some("bearer")), &[]);
    }

    #[test]
    fn a_basic_password_is_a_token_whoever_the_user_is() {
        let places = [TokenSource::Header, TokenSource::Basic];
        let malformed = Reject::TokenInvalid(TokenFault::Malformed);
        let encode = |text: &str| BASE64.encode(text);
        for (lines, expected) in [
            (
                vec![format!("Basic {}", encode("__token__:a.b.c"))],
                Ok(Some(("a.b.c", 0b10))),
            ),
            (
                vec![format!("bASIC   {}", encode(":a.b.c"))],
                Ok(Some(("a.b.c", 0b10))),
            ),
            (
                vec![format!("Basic {}", encode("x:a.b.c").trim_end_matches('='))],
                Ok(Some(("a.b.c", 0b10))),
            ),
            (vec![format!("Basic {}", encode("alice:"))], Ok(None)),
            (vec![format!("Basic {}", encode("alice"))], Err(malformed)),
            (vec![format!("Basic {}", encode("a:b:c"))], Err(malformed)),
            (
                vec![format!("Basic {}", encode("a:pass word"))],
                Err(malformed),
            ),
            (vec!["Basic".to_owned()], Err(malformed)),
            (vec!["Basic !".to_owned()], Err(malformed)),
            (vec![format!("Basics {}", encode("a:b"))], Ok(None)),
            (
                vec![format!("Basic {}", encode("a:t")), "Bearer t".to_owned()],
                Ok(Some(("t", 0b11))),
            ),
            (
                vec![format!("Basic {}", encode("a:t")), "Bearer u".to_owned()],
                Err(Reject::TokenMalformed(
                    "the request has two different bearer tokens",
                )),
            ),
        ] {
            let borrowed: Vec<&str> = lines.iter().map(String::as_str).collect();
            let mut seen = headers(&borrowed, &[]);
            let found = find(&seen, None, &places);
            let found =
                found.map(|found| found.map(|it| (it.text().unwrap().to_owned(), it.places)));
            let expected = expected.map(|it| it.map(|(text, at)| (text.to_owned(), at)));
            assert_eq!(found, expected, "{lines:?}");
            assert_eq!(find(&seen, None, &[]), Ok(None));
            strip(&mut seen, None, &places);
            let others = lines.iter().any(|line| line.starts_with("Basics"));
            assert_eq!(seen.contains_key(AUTHORIZATION), others, "{lines:?}");
        }
    }

    #[test]
    fn sixteen_kibibytes_are_read_and_one_byte_more_is_not() {
        let longest = "a".repeat(MAX_BYTES);
        check(
            &[&format!("Bearer {longest}")],
            &[],
            None,
            Outcome::Token(&longest, 1),
        );
        check(
            &[&format!("Bearer {longest}a")],
            &[],
            None,
            Outcome::TooLong,
        );
    }

    #[track_caller]
    fn strips(before: (&[&str], &[&str], Option<&str>), after: (&[&str], &[&str], Option<&str>)) {
        let mut stripped = headers(before.0, before.1);
        let query = strip(&mut stripped, before.2, &places());
        assert_eq!(stripped, headers(after.0, after.1));
        assert_eq!(query.as_deref(), after.2);
    }

    #[test]
    fn stripping_takes_the_token_alone() {
        strips((&["Bearer a"], &[], None), (&[], &[], None));
        strips(
            (&["Basic x", "bearer a"], &[], Some("q")),
            (&["Basic x"], &[], None),
        );
        strips(
            (&[], &["x=1;at=a; y=\"2\"", "z"], None),
            (&[], &["x=1; y=\"2\"", "z"], None),
        );
        strips((&[], &["at=a", "x=1"], None), (&[], &["x=1"], None));
        strips((&[], &["x=1;y=2"], None), (&[], &["x=1;y=2"], None));
        strips(
            (&[], &[], Some("a=%20&token=x&b")),
            (&[], &[], Some("a=%20&b")),
        );
        strips(
            (&[], &[], Some("token=x&tok%65n=x&token")),
            (&[], &[], Some("")),
        );
        strips((&[], &[], Some("tokens=x")), (&[], &[], None));
    }

    proptest! {
        /// However the tokens are distributed and encoded, only a request whose tokens are all the same, or all
        /// cookies of one name, is accepted, and after stripping none is left.
        #[test]
        fn two_different_tokens_never_get_through(
            lines in proptest::collection::vec("(Bearer|bearer|Basic|BEARER) {1,2}[ab]{0,2}", 0..3),
            cookies in proptest::collection::vec("(at|x)=[ab]{0,2}(; ?(at|x)=[ab]{0,2})?", 0..3),
            query in proptest::option::of("((token|tok%65n|x)=([ab]|%61|%62){0,2}&){0,3}x"),
        ) {
            let authorization: Vec<&str> = lines.iter().map(String::as_str).collect();
            let cookie_lines: Vec<&str> = cookies.iter().map(String::as_str).collect();
            let mut headers = headers(&authorization, &cookie_lines);

            // The naive parser: every token, decoded.
            let mut tokens: Vec<String> = Vec::new();
            for line in &lines {
                let (scheme, rest) = line.split_once(' ').unwrap();
                if scheme.eq_ignore_ascii_case("bearer") {
                    tokens.push(rest.trim().to_owned());
                }
            }
            let in_lines = tokens.iter().any(|token| !token.is_empty());
            for pair in cookies.iter().flat_map(|line| line.split(';')) {
                if let Some(value) = pair.trim().strip_prefix("at=").filter(|v| !v.is_empty()) {
                    tokens.push(value.to_owned());
                }
            }
            for pair in query.iter().flat_map(|query| query.split('&')) {
                let pair = pair.replace("%65", "e").replace("%61", "a").replace("%62", "b");
                if let Some(value) = pair.strip_prefix("token=").filter(|v| !v.is_empty()) {
                    tokens.push(value.to_owned());
                }
            }
            let in_query = query.iter().flat_map(|query| query.split('&')).any(|pair| {
                let key = pair.split('=').next().unwrap_or_default().replace("%65", "e");
                key == "token" && pair.split_once('=').is_some_and(|(_, value)| !value.is_empty())
            });
            tokens.sort();
            tokens.dedup();

            let found = read(find(&headers, query.as_deref(), &places()));
            match (tokens.as_slice(), &found) {
                ([], Ok(None)) => {}
                ([one], Ok(Some((found, _)))) => prop_assert_eq!(found, one),
                ([one], Err(Reject::TokenMalformed(_))) => prop_assert_eq!(one, ""),
                (several @ [_, _, ..], Ok(Some((found, _)))) => {
                    prop_assert!(several.contains(found) && several.len() <= 1 + MAX_RIVALS);
                    prop_assert!(!in_lines && !in_query);
                }
                ([_, _, ..], Err(Reject::TokenMalformed(_))) => {}
                other => prop_assert!(false, "{:?}", other),
            }

            let new = strip(&mut headers, query.as_deref(), &places());
            let left = find(&headers, new.as_deref().or(query.as_deref()), &places());
            prop_assert_eq!(left, Ok(None));
        }
    }
}
