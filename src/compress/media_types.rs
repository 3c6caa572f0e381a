//! Which media types are worth compressing.

/// The types that are compressed unless the configuration names others.
pub(crate) const USUAL: [&str; 18] = [
    "text/*",
    "application/json",
    "application/x-ndjson",
    "application/javascript",
    "application/x-javascript",
    "application/ecmascript",
    "application/xml",
    "application/wasm",
    "application/vnd.ms-fontobject",
    "application/x-font-ttf",
    "font/ttf",
    "font/otf",
    "font/collection",
    "image/bmp",
    "image/x-icon",
    "image/vnd.microsoft.icon",
    "+json",
    "+xml",
];

/// A set of media types.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct MediaTypes(Box<[Pattern]>);

#[derive(Clone, Debug, Eq, PartialEq)]
enum Pattern {
    /// This type.
    Exact(Box<str>),
    /// Every type that begins so: `text/`.
    Family(Box<str>),
    /// Every type that ends so: `+json`.
    Suffix(Box<str>),
}

impl Default for MediaTypes {
    fn default() -> Self {
        Self(
            USUAL
                .iter()
                .filter_map(|text| Pattern::parse(text))
                .collect(),
        )
    }
}

impl MediaTypes {
    /// Reads patterns: `text/*`, `application/json`, `+json`. The error is the index of one that is none.
    pub(crate) fn parse<'t>(patterns: impl IntoIterator<Item = &'t str>) -> Result<Self, usize> {
        let patterns = patterns.into_iter().enumerate();
        let read = patterns.map(|(at, text)| Pattern::parse(text).ok_or(at));
        Ok(Self(read.collect::<Result<_, _>>()?))
    }

    /// Whether a value of `Content-Type` is in the set, and not among those that are never compressed: event streams,
    /// gRPC, and bodies of parts.
    pub(super) fn has(&self, content_type: &[u8]) -> bool {
        let essence = content_type.split(|byte| *byte == b';').next();
        let essence = essence.unwrap_or_default().trim_ascii();
        let begins = |start: &str| {
            essence
                .get(..start.len())
                .is_some_and(|it| it.eq_ignore_ascii_case(start.as_bytes()))
        };
        let never = essence.eq_ignore_ascii_case(b"text/event-stream")
            || begins("application/grpc")
            || begins("multipart/");
        !never
            && self.0.iter().any(|pattern| match pattern {
                Pattern::Exact(text) => essence.eq_ignore_ascii_case(text.as_bytes()),
                Pattern::Family(start) => begins(start),
                Pattern::Suffix(end) => essence
                    .len()
                    .checked_sub(end.len())
                    .and_then(|at| essence.get(at..))
                    .is_some_and(|it| it.eq_ignore_ascii_case(end.as_bytes())),
            })
    }
}

impl Pattern {
    fn parse(text: &str) -> Option<Self> {
        let is_token = |text: &str| {
            let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte);
            !text.is_empty() && text.bytes().all(legal)
        };
        if text.starts_with('+') {
            return is_token(text.get(1..)?).then(|| Self::Suffix(text.into()));
        }
        match text.split_once('/')? {
            (family, "*") if is_token(family) => Some(Self::Family(text.strip_suffix('*')?.into())),
            (family, name) if is_token(family) && is_token(name) => Some(Self::Exact(text.into())),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_types_are_texts_and_what_is_like_them() {
        let usual = MediaTypes::default();
        assert_eq!(usual.0.len(), USUAL.len());
        for content_type in [
            "text/html; charset=utf-8",
            "TEXT/CSS",
            "application/json",
            "application/problem+json",
            "image/svg+xml",
            "application/manifest+json; x=y",
            "application/wasm",
            "font/ttf",
        ] {
            assert!(usual.has(content_type.as_bytes()), "{content_type}");
        }
        for content_type in [
            "image/png",
            "font/woff2",
            "video/mp4",
            "application/pdf",
            "application/zip",
            "application/octet-stream",
            "text/event-stream; charset=utf-8",
            "application/grpc-web+json",
            "multipart/mixed; boundary=x",
            "textual/html",
            "",
        ] {
            assert!(!usual.has(content_type.as_bytes()), "{content_type}");
        }
    }

    #[test]
    fn others_are_named() {
        let own = MediaTypes::parse(["text/*", "application/pdf", "+cbor"]).unwrap();
        assert!(own.has(b"text/plain") && own.has(b"application/PDF") && own.has(b"a/b+cbor"));
        assert!(!own.has(b"application/json"));
        assert!(!own.has(b"text/event-stream"));
        for (at, patterns) in [
            (0, vec!["text"]),
            (1, vec!["text/*", "*/*"]),
            (0, vec!["text/h*"]),
            (0, vec!["+"]),
            (0, vec![""]),
            (0, vec!["a/b c"]),
        ] {
            assert_eq!(MediaTypes::parse(patterns), Err(at));
        }
    }
}
