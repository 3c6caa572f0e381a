//! Compression of responses (`Content-Encoding`, RFC 9110 section 8.4): whether one is compressed, with what, and what is
//! then said of it. `encoder` compresses, `body` does so as an app's response comes.
//!
//! Files are chosen in `files`; requests' bodies are never touched, and nothing is decompressed.

mod body;
mod encoder;
mod media_types;
mod store;

use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode, Version};
use http_body::Body as _;
use smallvec::SmallVec;

use self::body::Compressed;
pub(crate) use self::encoder::{Encoders, Level, compress};
pub(crate) use self::media_types::MediaTypes;
pub(crate) use self::store::CompressedFiles;
use crate::message::accept::{AcceptedCodings, Coding};
use crate::message::body::Body;
use crate::message::fields;

/// `Sec-Fetch-Site`, by which browsers say where a request comes from.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// Digests of the bytes that are sent, which compression changes (RFC 9530; RFC 2616 section 14.15).
const DIGESTS: [HeaderName; 4] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-md5"),
];

/// `compress` of a route.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct CompressRules {
    /// The codings, in the gateway's own order among those that a client likes equally.
    pub(crate) codings: Vec<Coding>,
    /// Shorter bodies are sent as they are.
    pub(crate) min: u64,
    /// How hard the encoders try.
    pub(crate) level: Level,
    /// What is compressed.
    pub(crate) types: MediaTypes,
    /// Whether responses to requests with ambient credentials are compressed.
    pub(crate) private: Private,
}

impl Default for CompressRules {
    fn default() -> Self {
        Self {
            codings: Coding::ALL.into(),
            min: 1024,
            level: Level::Default,
            types: MediaTypes::default(),
            private: Private::SameOrigin,
        }
    }
}

/// Whether an app's response is compressed for a request whose credentials a browser adds by itself: cookies, a password,
/// a client certificate. A page of another site can send such requests and measure the lengths of the responses; where
/// they repeat what the page wrote beside a secret, compression tells it the secret (BREACH).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Private {
    /// If the browser says that no other site has sent it.
    #[default]
    SameOrigin,
    /// In any case.
    Always,
    /// Never.
    Never,
}

/// Who asks, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asker<'a> {
    /// The request's method.
    pub(crate) method: &'a Method,
    /// Its version.
    pub(crate) version: Version,
    /// Its header fields.
    pub(crate) headers: &'a HeaderMap,
    /// Whether something in it, or another server, allowed it: the response is for this client alone.
    pub(crate) is_private: bool,
    /// Whether it has an API key in a header that only a page of this site, or a program, can set.
    pub(crate) has_key: bool,
    /// Whether the client showed a certificate.
    pub(crate) has_certificate: bool,
}

/// Why a request's response is not compressed, whatever it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Denied {
    /// It accepts no coding.
    NotAccepted,
    /// It asks for a part.
    Range,
    /// HTTP/1.0 has no framing for it.
    OldVersion,
    /// Another site may have sent it with the user's credentials.
    Private,
}

/// What a request asks of its response.
#[derive(Debug)]
pub(crate) struct Wish {
    coding: Result<Coding, Denied>,
    is_head: bool,
    /// Its `If-None-Match`.
    tags: SmallVec<[HeaderValue; 1]>,
}

impl Wish {
    /// The coding, or why there is none.
    pub(crate) fn coding(&self) -> Result<Coding, Denied> {
        self.coding
    }
}

impl CompressRules {
    /// What a request asks of its response.
    pub(crate) fn wish(&self, asker: &Asker<'_>) -> Wish {
        let tags = asker.headers.get_all(header::IF_NONE_MATCH).iter();
        Wish {
            coding: self.coding(asker),
            is_head: asker.method == Method::HEAD,
            tags: tags.cloned().collect(),
        }
    }

    fn coding(&self, asker: &Asker<'_>) -> Result<Coding, Denied> {
        let accepted = AcceptedCodings::of(asker.headers);
        let coding = accepted
            .preferred(self.codings.iter().copied())
            .ok_or(Denied::NotAccepted)?;
        if asker.version < Version::HTTP_11 {
            return Err(Denied::OldVersion);
        }
        if asker.headers.contains_key(header::RANGE) {
            return Err(Denied::Range);
        }
        let is_safe = match self.private {
            Private::Always => true,
            Private::SameOrigin => !is_ambient(asker) || is_of_same_origin(asker.headers),
            Private::Never => !is_ambient(asker),
        };
        is_safe.then_some(coding).ok_or(Denied::Private)
    }

    /// Compresses an app's response, if it may be. Returns what the access log says of it: the coding, or why it was
    /// sent as it is although its reader would have taken it compressed.
    pub(crate) fn apply(
        &self,
        wish: &Wish,
        encoders: &Arc<Encoders>,
        response: &mut Response<Body>,
    ) -> Option<&'static str> {
        if response.status() == StatusCode::NOT_MODIFIED {
            weaken_if_known(response.headers_mut(), &wish.tags);
            return None;
        }
        if !self.may_be_compressed(response, wish.is_head) {
            return None;
        }
        vary(response.headers_mut());
        let coding = match wish.coding {
            Ok(coding) => coding,
            Err(Denied::Private) => return Some("private"),
            Err(Denied::NotAccepted | Denied::Range | Denied::OldVersion) => return None,
        };
        if !wish.is_head {
            let Some(encoder) = encoders.take(coding, self.level) else {
                return Some("busy");
            };
            let plain = std::mem::replace(response.body_mut(), Body::Empty);
            *response.body_mut() = Body::ahead(Compressed::new(plain, encoder));
        }
        describe(response.headers_mut(), coding);
        Some(coding.name())
    }

    /// Whether a response could be compressed for some client.
    fn may_be_compressed(&self, response: &Response<Body>, is_head: bool) -> bool {
        let status = response.status();
        let has_whole_body = !status.is_informational()
            && !matches!(
                status,
                StatusCode::NO_CONTENT
                    | StatusCode::RESET_CONTENT
                    | StatusCode::PARTIAL_CONTENT
                    | StatusCode::NOT_MODIFIED
            );
        let headers = response.headers();
        let content_type = headers.get(header::CONTENT_TYPE);
        has_whole_body
            && content_type.is_some_and(|value| self.types.has(value.as_bytes()))
            && !headers.contains_key(header::CONTENT_ENCODING)
            && !headers.contains_key(header::CONTENT_RANGE)
            && !has_token(headers, &header::CACHE_CONTROL, b"no-transform")
            && length(response, is_head).is_none_or(|length| length >= self.min)
    }

    /// Whether a file of this type and length is compressed for clients that accept it.
    pub(crate) fn may_compress_file(&self, content_type: &HeaderValue, length: u64) -> bool {
        self.may_compress(content_type.as_bytes(), length)
    }

    /// The same for a media type as text.
    pub(crate) fn may_compress(&self, media_type: &[u8], length: u64) -> bool {
        length >= self.min && self.types.has(media_type)
    }
}

/// The length of a response's body, where it is known.
fn length(response: &Response<Body>, is_head: bool) -> Option<u64> {
    let said = fields::rare(response.headers(), &header::CONTENT_LENGTH);
    let said = said.and_then(|value| value.to_str().ok()?.parse().ok());
    // The body of a response to HEAD is empty, and says nothing.
    said.or_else(|| response.body().size_hint().exact().filter(|_| !is_head))
}

/// Whether a browser may have added the credentials of a request by itself.
fn is_ambient(asker: &Asker<'_>) -> bool {
    let headers = asker.headers;
    if asker.has_certificate || headers.contains_key(header::COOKIE) {
        return true;
    }
    let mut credentials = headers.get_all(header::AUTHORIZATION).iter().peekable();
    if credentials.peek().is_none() {
        // What allowed the request is somewhere else, in a place that a link or a form may fill.
        return asker.is_private && !asker.has_key;
    }
    // A page of another site cannot set this field itself, and browsers add no bearer tokens.
    !credentials.all(|value| {
        let scheme = value.as_bytes().split(|byte| *byte == b' ').next();
        let scheme = scheme.unwrap_or_default();
        scheme.eq_ignore_ascii_case(b"bearer") || scheme.eq_ignore_ascii_case(b"dpop")
    })
}

/// Whether the browser says that a page of this very origin has sent the request, or the user alone.
fn is_of_same_origin(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(SEC_FETCH_SITE).iter();
    match (lines.next(), lines.next()) {
        (Some(site), None) => matches!(site.as_bytes(), b"same-origin" | b"none"),
        (_, _) => false,
    }
}

/// Says of a response that it is compressed, and no more what holds only of the plain bytes.
fn describe(headers: &mut HeaderMap, coding: Coding) {
    headers.insert(header::CONTENT_ENCODING, coding.value());
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::ACCEPT_RANGES);
    for digest in &DIGESTS {
        headers.remove(digest);
    }
    let etag = headers.get(header::ETAG).map(weakened);
    if let Some(Some(weak)) = etag {
        headers.insert(header::ETAG, weak);
    }
}

/// A strong entity tag as a weak one: the bytes are other ones, what they mean is the same. `None` for a weak one.
fn weakened(etag: &HeaderValue) -> Option<HeaderValue> {
    let tag = etag.as_bytes();
    if tag.starts_with(b"W/") {
        return None;
    }
    HeaderValue::from_bytes(&[b"W/", tag].concat()).ok()
}

/// The client has the response as it was compressed: then its tag in a 304 is the weak one that it knows.
fn weaken_if_known(headers: &mut HeaderMap, tags: &[HeaderValue]) {
    if tags.is_empty() {
        return;
    }
    let Some(weak) = headers.get(header::ETAG).and_then(weakened) else {
        return;
    };
    let tag = weak.as_bytes();
    let knows = |line: &HeaderValue| memchr::memmem::find(line.as_bytes(), tag).is_some();
    if tags.iter().any(knows) {
        headers.insert(header::ETAG, weak);
        vary(headers);
    }
}

/// Adds `Vary: Accept-Encoding`, unless it is there.
fn vary(headers: &mut HeaderMap) {
    if !has_token(headers, &header::VARY, b"*")
        && !has_token(headers, &header::VARY, b"accept-encoding")
    {
        headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    }
}

/// Whether a field's list has this token, which is in lower case.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &[u8]) -> bool {
    headers
        .get_all(name)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .any(|item| item.trim_ascii().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests;
