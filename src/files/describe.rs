//! What is said of a file besides its bytes: its type, who may keep it for how long, whether a browser shows or stores
//! it. All of it follows from the file's name and the route's rules; the content is never examined.

use std::fmt::Write;

use http::HeaderValue;

use super::kind;
use super::pattern::FilePattern;
use crate::message::reject::Reject;

/// `Cache-Control` of a file whose name changes with its content.
const IMMUTABLE: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
/// The same behind a guard.
const PRIVATE_IMMUTABLE: HeaderValue =
    HeaderValue::from_static("private, max-age=31536000, immutable");
/// `Cache-Control` of every other file: it is kept, and asked for with its tag before it is used.
const NO_CACHE: HeaderValue = HeaderValue::from_static("no-cache");
/// The same behind a guard.
const PRIVATE_NO_CACHE: HeaderValue = HeaderValue::from_static("private, no-cache");

/// The rules of a route for what is said of its files.
#[derive(Debug)]
pub(crate) struct DescribeRules {
    /// `Cache-Control` by pattern; the first that fits holds.
    pub(crate) cache_control: Vec<(FilePattern, CacheControl)>,
    /// Media types by the end of the name, in lower case and with its dot, beside the usual ones.
    pub(crate) types: Vec<(String, String)>,
    /// The charset of text types; `None` for none.
    pub(crate) charset: Option<String>,
    /// The files that a browser stores instead of showing them.
    pub(crate) download: Vec<FilePattern>,
    /// Whether users upload to the root, so that nothing in it may act in the site's name.
    pub(crate) untrusted: bool,
}

impl Default for DescribeRules {
    fn default() -> Self {
        Self {
            cache_control: Vec::new(),
            types: Vec::new(),
            charset: Some("utf-8".to_owned()),
            download: Vec::new(),
            untrusted: false,
        }
    }
}

/// A configured `Cache-Control`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum CacheControl {
    /// `immutable`: kept for a year by whoever may keep it.
    Immutable,
    /// This value.
    Value(HeaderValue),
}

/// What is said of a file.
#[derive(Clone, Debug)]
pub(super) struct Told {
    /// `Content-Type`.
    pub(super) content_type: HeaderValue,
    /// Who may keep it.
    pub(super) caching: Caching,
    /// `Content-Disposition`, where a browser is not to show it.
    pub(super) disposition: Option<HeaderValue>,
}

/// Who may keep a file for how long, and why.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Caching {
    /// The rule of this index says it.
    Rule(usize, CacheControl),
    /// No rule fits, and its name has a hash.
    Hashed,
    /// No rule fits, and its name has none.
    Plain,
}

impl Caching {
    /// The value of `Cache-Control`, for the client alone if `private`.
    pub(super) fn value(&self, private: bool) -> HeaderValue {
        match (self, private) {
            (Self::Rule(_, CacheControl::Value(value)), _) => value.clone(),
            (Self::Rule(_, CacheControl::Immutable) | Self::Hashed, false) => IMMUTABLE,
            (Self::Rule(_, CacheControl::Immutable) | Self::Hashed, true) => PRIVATE_IMMUTABLE,
            (Self::Plain, false) => NO_CACHE,
            (Self::Plain, true) => PRIVATE_NO_CACHE,
        }
    }
}

impl DescribeRules {
    /// What is said of the file of a name below the root.
    pub(super) fn told(&self, name: &str) -> Result<Told, Reject> {
        let last = name.rsplit('/').next().unwrap_or_default();
        let content_type = self.content_type(last)?;
        let stores = self.download.iter().any(|pattern| pattern.fits(name))
            || self.untrusted && !is_shown(&content_type);
        Ok(Told {
            caching: self.caching(name, last),
            disposition: stores.then(|| attachment(last)).transpose()?,
            content_type,
        })
    }

    /// Why a file may be kept, in words.
    pub(super) fn why(&self, caching: &Caching) -> String {
        match caching {
            Caching::Rule(at, _) => match self.cache_control.get(*at) {
                Some((pattern, _)) => format!("`cache_control` of {pattern}"),
                None => "`cache_control`".to_owned(),
            },
            Caching::Hashed => "the name has a hash of its content".to_owned(),
            Caching::Plain => "the name has no hash of its content".to_owned(),
        }
    }

    fn caching(&self, name: &str, last: &str) -> Caching {
        let mut rules = self.cache_control.iter().enumerate();
        match rules.find(|(_, (pattern, _))| pattern.fits(name)) {
            Some((at, (_, control))) => Caching::Rule(at, control.clone()),
            None if is_hashed(last) => Caching::Hashed,
            None => Caching::Plain,
        }
    }

    fn content_type(&self, last: &str) -> Result<HeaderValue, Reject> {
        let own = self
            .types
            .iter()
            .filter(|(ending, _)| ends_with(last, ending))
            .max_by_key(|(ending, _)| ending.len());
        let charset = self.charset.as_deref();
        match own {
            Some((_, media_type)) => kind::with_charset(media_type, charset),
            None => kind::content_type(kind::media_type(last), charset),
        }
    }
}

/// Whether a name has this end, which is in lower case, and something before it.
fn ends_with(name: &str, ending: &str) -> bool {
    let at = name.len().checked_sub(ending.len());
    at.and_then(|at| name.as_bytes().get(at..))
        .is_some_and(|end| end.len() < name.len() && end.eq_ignore_ascii_case(ending.as_bytes()))
}

/// Whether browsers show the type and can do no harm with it: images without scripts, sounds, films.
fn is_shown(content_type: &HeaderValue) -> bool {
    let value = content_type.as_bytes();
    let is = |prefix: &[u8]| {
        value
            .get(..prefix.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    is(b"audio/") || is(b"video/") || is(b"image/") && !is(b"image/svg")
}

/// Whether a name has a hash of its content in it, as bundlers write them: what stands before the last extension, behind
/// `.`, `-` or `_`, is 8 or more hexadecimal digits with a digit and a letter among them, or exactly 8 characters of
/// base64url with a digit, a small letter and two capitals.
///
/// A hash that is not recognised costs a 304; one that is none would cost a year.
fn is_hashed(name: &str) -> bool {
    let Some((stem, _)) = name.rsplit_once('.') else {
        return false;
    };
    let stem = stem.as_bytes();
    let is_between = |byte: &u8| matches!(byte, b'.' | b'-' | b'_');
    let hexadecimal = stem
        .iter()
        .rposition(is_between)
        .and_then(|at| stem.get(at + 1..))
        .is_some_and(|end| {
            end.len() >= 8
                && end
                    .iter()
                    .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
                && end.iter().any(u8::is_ascii_digit)
                && end.iter().any(u8::is_ascii_lowercase)
        });
    let in_base64 = || {
        let at = stem.len().checked_sub(8)?;
        let (before, end) = stem.split_at_checked(at)?;
        let count = |is: fn(&u8) -> bool| end.iter().filter(|byte| is(byte)).count();
        let legal = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        Some(
            before.last().is_some_and(is_between)
                && end.iter().all(legal)
                && count(u8::is_ascii_digit) > 0
                && count(u8::is_ascii_lowercase) > 0
                && count(u8::is_ascii_uppercase) > 1,
        )
    };
    hexadecimal || in_base64().unwrap_or(false)
}

/// `Content-Disposition: attachment` with the file's name (RFC 6266), in the form of RFC 8187 where it is not plain ASCII.
fn attachment(name: &str) -> Result<HeaderValue, Reject> {
    // Some browsers decode escapes in a quoted name.
    let is_plain = |byte: u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\' | b'%');
    let mut text = String::from("attachment; filename");
    if name.bytes().all(is_plain) {
        text.push_str("=\"");
        text.push_str(name);
        text.push('"');
    } else {
        text.push_str("*=UTF-8''");
        for byte in name.bytes() {
            match byte {
                b'!' | b'#' | b'$' | b'&' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|'
                | b'~' => text.push(char::from(byte)),
                byte if byte.is_ascii_alphanumeric() => text.push(char::from(byte)),
                byte => write!(text, "%{byte:02X}").map_err(|_| Reject::Internal)?,
            }
        }
    }
    HeaderValue::try_from(text).map_err(|_| Reject::Internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_recognised_and_nothing_else_taken_for_one() {
        for name in [
            "index-BX3kQ9az.js",
            "index-D1wrgTa_.css",
            "app.3f2a9c1b.js",
            "app_0123456789abcdef.min-0a1b2c3d.css",
            "main.d41d8cd98f00b204e9800998ecf8427e.js",
            "chunk-A-b_C1d2.js",
            "style.55e7cbb9ba48.css",
        ] {
            assert!(is_hashed(name), "{name}");
        }
        for name in [
            "version2.js",
            "2024-01-31.pdf",
            "photo-20240101.jpg",
            "font-awesome5.css",
            "app.js",
            "app-deadbeef",
            "app.3f2a9c1b",
            "app-deadbeef.js",
            "app-12345678.js",
            "app-3F2A9C1B.js",
            "3f2a9c1b.js",
            "app-3f2a9c.js",
            "app-BX3kQ9azz.js",
            "appBX3kQ9az.js",
            "report-Q3.final.pdf",
            "jquery-3.7.1.min.js",
            "README-v1Final2.md",
            "",
            ".",
            "a.",
        ] {
            assert!(!is_hashed(name), "{name}");
        }
    }

    #[test]
    fn the_first_rule_that_fits_says_who_may_keep_a_file() {
        let rule = |pattern: &str, value: &'static str| {
            let control = match value {
                "immutable" => CacheControl::Immutable,
                value => CacheControl::Value(HeaderValue::from_static(value)),
            };
            (FilePattern::parse(pattern).unwrap(), control)
        };
        let rules = DescribeRules {
            cache_control: vec![
                rule("/fonts/*", "immutable"),
                rule("*.json", "no-store"),
                rule("*.css", "public, max-age=600"),
            ],
            ..DescribeRules::default()
        };
        for (name, public, private, why) in [
            (
                "fonts/a.json",
                "public, max-age=31536000, immutable",
                "private, max-age=31536000, immutable",
                "`cache_control` of /fonts/*",
            ),
            (
                "a.json",
                "no-store",
                "no-store",
                "`cache_control` of *.json",
            ),
            (
                "x/app-BX3kQ9az.css",
                "public, max-age=600",
                "public, max-age=600",
                "`cache_control` of *.css",
            ),
            (
                "x/app-BX3kQ9az.js",
                "public, max-age=31536000, immutable",
                "private, max-age=31536000, immutable",
                "the name has a hash of its content",
            ),
            (
                "x/app.js",
                "no-cache",
                "private, no-cache",
                "the name has no hash of its content",
            ),
        ] {
            let told = rules.told(name).unwrap();
            assert_eq!(told.caching.value(false), public, "{name}");
            assert_eq!(told.caching.value(true), private, "{name}");
            assert_eq!(rules.why(&told.caching), why);
        }
    }

    #[test]
    fn own_types_come_before_the_usual_ones_and_the_longest_end_wins() {
        let own = |ending: &str, media_type: &str| (ending.to_owned(), media_type.to_owned());
        let rules = DescribeRules {
            types: vec![
                own(".glb", "model/gltf-binary"),
                own(".txt", "text/plain; charset=latin1"),
                own(".gz", "application/gzip"),
                own(".tar.gz", "application/x-tar"),
                own(".vue", "text/x-vue"),
            ],
            ..DescribeRules::default()
        };
        for (name, expected) in [
            ("a.GLB", "model/gltf-binary"),
            ("a.txt", "text/plain; charset=latin1"),
            ("x.tar.gz", "application/x-tar"),
            ("x.gz", "application/gzip"),
            (".gz", "application/octet-stream"),
            ("a.vue", "text/x-vue; charset=utf-8"),
            ("a.html", "text/html; charset=utf-8"),
        ] {
            assert_eq!(rules.told(name).unwrap().content_type, expected, "{name}");
        }
        let rules = DescribeRules {
            charset: None,
            ..DescribeRules::default()
        };
        assert_eq!(rules.told("a.html").unwrap().content_type, "text/html");
        let rules = DescribeRules {
            charset: Some("windows-1251".to_owned()),
            ..DescribeRules::default()
        };
        let told = rules.told("a.html").unwrap();
        assert_eq!(told.content_type, "text/html; charset=windows-1251");
        assert_eq!(
            rules.told("a.json").unwrap().content_type,
            "application/json"
        );
    }

    #[test]
    fn a_download_has_its_name_in_the_form_that_it_needs() {
        let rules = DescribeRules {
            download: vec![FilePattern::any()],
            ..DescribeRules::default()
        };
        for (name, expected) in [
            ("x/a b.csv", "attachment; filename=\"a b.csv\""),
            ("naïve.csv", "attachment; filename*=UTF-8''na%C3%AFve.csv"),
            (
                "50% \"off\"\\.csv",
                "attachment; filename*=UTF-8''50%25%20%22off%22%5C.csv",
            ),
        ] {
            let told = rules.told(name).unwrap();
            assert_eq!(told.disposition.unwrap(), expected, "{name}");
        }
        let none = DescribeRules::default().told("a.csv").unwrap();
        assert_eq!(none.disposition, None);
    }

    #[test]
    fn of_what_users_upload_only_pictures_sounds_and_films_are_shown() {
        let rules = DescribeRules {
            untrusted: true,
            ..DescribeRules::default()
        };
        for (name, is_shown) in [
            ("a.png", true),
            ("a.JPEG", true),
            ("a.mp4", true),
            ("a.mp3", true),
            ("a.svg", false),
            ("a.html", false),
            ("a.xhtml", false),
            ("a.pdf", false),
            ("a.js", false),
            ("a.txt", false),
            ("a", false),
        ] {
            let told = rules.told(name).unwrap();
            assert_eq!(told.disposition.is_none(), is_shown, "{name}");
        }
    }
}
