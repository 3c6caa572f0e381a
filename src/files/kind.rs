//! Content types, determined by a file's name only. The content is never examined.

use std::path::Path;

use http::HeaderValue;

use crate::message::reject::Reject;

/// The media type of the files that browsers render as pages.
pub(super) const HTML: &str = "text/html";

/// An unknown type is sent as bytes; with `nosniff` a browser only stores it.
const UNKNOWN: &str = "application/octet-stream";
/// Images that are text, and say so themselves.
const SVG: &str = "image/svg+xml";

/// The media type of a file by its name's extension, without parameters.
pub(crate) fn media_type(name: &str) -> &'static str {
    mime_guess::from_path(Path::new(name))
        .first_raw()
        .unwrap_or(UNKNOWN)
}

/// Whether pages load or link to files with such a name: it has the extension of a known media type, and does not
/// rather look like a host name or a version.
pub(super) fn is_asset(name: &str) -> bool {
    /// Also extensions of media types, but addresses like `/@ada@example.com` and `/releases/v1.x` are more frequent.
    const NAMES: &[&str] = &[
        "ac", "ai", "au", "bz", "cc", "com", "es", "fm", "in", "ink", "ma", "me", "mk", "ms",
        "org", "pm", "ps", "py", "rs", "sh", "so", "st", "tr", "x",
    ];
    name.rsplit_once('.').is_some_and(|(_, ending)| {
        let is_known = mime_guess::from_ext(ending).first_raw().is_some();
        is_known && !NAMES.iter().any(|known| ending.eq_ignore_ascii_case(known))
    })
}

/// The value of `Content-Type` (RFC 9110 section 8.3): text has a charset. JSON always is UTF-8 (RFC 8259 section 8.1),
/// and its media types have no such parameter, nor has that of SVG.
pub(super) fn content_type(
    media_type: &'static str,
    charset: Option<&str>,
) -> Result<HeaderValue, Reject> {
    if is_text(media_type) && media_type != SVG {
        with_charset(media_type, charset)
    } else {
        Ok(HeaderValue::from_static(media_type))
    }
}

/// The same of a configured media type, which may have its charset already.
pub(super) fn with_charset(media_type: &str, charset: Option<&str>) -> Result<HeaderValue, Reject> {
    let value = match charset {
        Some(charset) if is_text(media_type) && !media_type.contains(';') => {
            HeaderValue::try_from(format!("{media_type}; charset={charset}"))
        }
        Some(_) | None => HeaderValue::from_str(media_type),
    };
    value.map_err(|_| Reject::Internal)
}

fn is_text(media_type: &str) -> bool {
    media_type.starts_with("text/")
        || media_type.ends_with("+xml")
        || matches!(
            media_type,
            "application/ecmascript" | "application/javascript" | "application/xml"
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, expected: &str) {
        assert_eq!(
            content_type(media_type(name), Some("utf-8")).unwrap(),
            expected,
            "file {name:?}"
        );
    }

    #[test]
    fn text_says_that_it_is_utf8() {
        check("index.html", "text/html; charset=utf-8");
        check("a.css", "text/css; charset=utf-8");
        check("app.min.JS", "text/javascript; charset=utf-8");
        check("app.mjs", "application/javascript; charset=utf-8");
        check("feed.atom", "application/atom+xml; charset=utf-8");
        check("list.csv", "text/csv; charset=utf-8");
    }

    #[test]
    fn json_and_svg_have_no_parameters() {
        check("data.json", "application/json");
        check("DATA.JSON", "application/json");
        check("logo.svg", "image/svg+xml");
        check("site.webmanifest", "application/manifest+json");
        check("map.geojson", "application/geo+json");
    }

    #[test]
    fn an_asset_ends_like_one() {
        for name in [
            "app.js",
            "a.min.css",
            "a.PNG",
            "a.woff2",
            "a.json",
            "a.pdf",
            "a.txt",
            "a.html",
            "a@2x.webp",
        ] {
            assert!(is_asset(name), "{name}");
        }
        for name in [
            "john.doe",
            "@ada@mastodon.social",
            "@ada@example.com",
            "v1.2",
            "v1.x",
            "10.0.0.1",
            "lodash.merge",
            "eyJh.eyJz.c2ln",
            "jane@example.org",
            "a.",
            "a",
            "",
            "..",
        ] {
            assert!(!is_asset(name), "{name}");
        }
    }

    #[test]
    fn bytes_do_not() {
        check("a.png", "image/png");
        check("a.wasm", "application/wasm");
        check("a.woff2", "font/woff2");
    }

    #[test]
    fn what_is_not_known_is_bytes() {
        check("LICENSE", "application/octet-stream");
        check("a.nothing-known", "application/octet-stream");
        check("html", "application/octet-stream");
        check("a.", "application/octet-stream");
    }
}
