//! Tokens as cookies: how they are set, read and deleted, and which pages may use them. Scripts of the page cannot
//! read them; other sites cannot use them.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::wire::Answer;
use crate::auth::tokens_of_cookies;
use crate::message::cors;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The sites with whose requests the cookies are sent (RFC 6265bis section 5.6.7). `None` is not offered: it would let
/// any site act for the user.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum SameSite {
    /// Also with links from other sites.
    Lax,
    /// Only with requests from the site itself.
    Strict,
}

/// The cookies that hold tokens.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Cookies {
    /// The name of the access token's cookie.
    pub(crate) access: String,
    /// The name of the refresh token's cookie.
    pub(crate) refresh: String,
    /// With which requests they are sent.
    pub(crate) same_site: SameSite,
    /// The domain of the cookies, including its subdomains; without it, only the host.
    pub(crate) domain: Option<String>,
    /// The origins whose pages may use them besides the host's own, in the form of the `Origin` header.
    pub(crate) origins: Vec<String>,
    /// The path below which the refresh token is sent.
    pub(crate) path: String,
}

/// The maximum length of a cookie's name and value together, in bytes (RFC 6265bis section 5.6).
const LONGEST: usize = 4096;

/// How many cookies of one name are checked.
const TRIED: usize = 4;

/// The prefix of names that browsers accept only for one host and the path `/` (RFC 6265bis section 4.1.3).
pub(crate) const HOST_PREFIX: &str = "__host-";

/// Whether a cookie's name begins with a prefix, ignoring case, as browsers compare it.
pub(crate) fn is_prefixed(name: &str, prefix: &str) -> bool {
    name.get(..prefix.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// The domains for which a host can set cookies: itself and its parents, except the last label, which no browser
/// accepts. Empty for an address.
fn domains_of(origin: &str) -> Vec<&str> {
    /// Names have few labels; a long one would produce many lines.
    const MOST: usize = 6;
    let authority = origin.split_once("://").map_or(origin, |(_, rest)| rest);
    let host = authority.split(':').next().unwrap_or_default();
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if host.parse::<std::net::Ipv4Addr>().is_ok() || !host.chars().all(legal) {
        return Vec::new();
    }
    let above = host
        .match_indices('.')
        .filter_map(|(at, _)| host.get(at + 1..));
    std::iter::once(host)
        .chain(above)
        .filter(|domain| domain.trim_end_matches('.').contains('.'))
        .take(MOST)
        .collect()
}

/// Which of the two cookies.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Access,
    Refresh,
}

impl Cookies {
    fn name(&self, kind: Kind) -> (&str, &str) {
        match kind {
            Kind::Access => (&self.access, "/"),
            Kind::Refresh => (&self.refresh, &self.path),
        }
    }

    /// A line that sets a cookie for this many seconds; with 0 the browser deletes it. `None` where browsers would
    /// reject it.
    pub(super) fn set(&self, kind: Kind, token: &str, seconds: u64) -> Option<HeaderValue> {
        self.line(kind, self.domain.as_deref(), token, seconds)
    }

    fn line(
        &self,
        kind: Kind,
        domain: Option<&str>,
        token: &str,
        seconds: u64,
    ) -> Option<HeaderValue> {
        let (name, path) = self.name(kind);
        let same_site = match self.same_site {
            SameSite::Lax => "Lax",
            SameSite::Strict => "Strict",
        };
        let domain = match domain {
            Some(domain) => format!("; Domain={domain}"),
            None => String::new(),
        };
        let line = format!(
            "{name}={token}; Path={path}{domain}; Max-Age={seconds}; HttpOnly; Secure; SameSite={same_site}"
        );
        let fits = name.len() + token.len() <= LONGEST;
        HeaderValue::try_from(line).ok().filter(|_| fits)
    }

    /// The lines that make the browser delete both, of whatever domain, at the host of this origin.
    pub(super) fn forget(&self, own: Option<&str>) -> Vec<HeaderValue> {
        let kinds = [Kind::Access, Kind::Refresh];
        kinds
            .into_iter()
            .filter_map(|kind| self.set(kind, "", 0))
            .chain(self.forget_others(own))
            .collect()
    }

    /// The lines that make the browser delete cookies of these names that do not have the configured domain: a browser
    /// treats them as different cookies, and would send both (RFC 6265 section 5.3). They remain after `domain` was
    /// changed, or where another host of the domain sets them.
    pub(super) fn forget_others(&self, own: Option<&str>) -> Vec<HeaderValue> {
        let mut lines = Vec::new();
        for kind in [Kind::Access, Kind::Refresh] {
            if is_prefixed(self.name(kind).0, HOST_PREFIX) {
                // No other cookie can have this name.
                continue;
            }
            if self.domain.is_some() {
                lines.extend(self.line(kind, None, "", 0));
            }
            for domain in own.map(domains_of).unwrap_or_default() {
                if self.domain.as_deref() != Some(domain) {
                    lines.extend(self.line(kind, Some(domain), "", 0));
                }
            }
        }
        lines
    }

    /// The values of the cookies of a kind, each once, in the order of the request.
    pub(super) fn all(&self, kind: Kind, headers: &HeaderMap) -> Vec<String> {
        let mut tokens = tokens_of_cookies(headers, self.name(kind).0);
        tokens.truncate(TRIED);
        tokens
    }

    /// Whether the requesting page may use the cookies: a page of the host itself, whose origin this is, or of
    /// `origins`.
    ///
    /// # Errors
    /// The response that denies it.
    pub(super) fn check_origin(
        &self,
        headers: &HeaderMap,
        own: Option<&str>,
    ) -> Result<(), Answer> {
        match self.origin(headers, own) {
            Origin::Own => Ok(()),
            Origin::Unsaid => Err(Answer::other_origin("")),
            Origin::Other(origin) => Err(Answer::other_origin(&origin)),
        }
    }

    /// The same for requests without anything that only the browser has: clients other than browsers are allowed, too.
    ///
    /// # Errors
    /// The response that denies it.
    pub(super) fn check_page(&self, headers: &HeaderMap, own: Option<&str>) -> Result<(), Answer> {
        match self.origin(headers, own) {
            Origin::Own | Origin::Unsaid => Ok(()),
            Origin::Other(origin) => Err(Answer::other_origin(&origin)),
        }
    }

    fn origin(&self, headers: &HeaderMap, own: Option<&str>) -> Origin {
        let mut origins = headers.get_all(header::ORIGIN).iter();
        if let Some(origin) = origins.next() {
            let text = origin.to_str().unwrap_or("?");
            let known = |known: &str| known == text;
            let is_own = own.and_then(cors::normal).as_deref().is_some_and(known)
                || self.origins.iter().any(|origin| known(origin));
            return if is_own && origins.next().is_none() {
                Origin::Own
            } else {
                Origin::Other(text.to_owned())
            };
        }
        match headers.get(SEC_FETCH_SITE).map(HeaderValue::as_bytes) {
            None => Origin::Unsaid,
            Some(b"same-origin") => Origin::Own,
            Some(site) => Origin::Other(String::from_utf8_lossy(site).into_owned()),
        }
    }
}

/// The origin of the requesting page.
enum Origin {
    /// An allowed one.
    Own,
    /// Not given; browsers give it.
    Unsaid,
    /// Another one.
    Other(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cookies() -> Cookies {
        Cookies {
            access: "at".to_owned(),
            refresh: "rt".to_owned(),
            same_site: SameSite::Lax,
            domain: None,
            origins: vec!["https://app.example.com".to_owned()],
            path: "/api/token".to_owned(),
        }
    }

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn cookies_are_for_browsers_over_tls_alone() {
        let line = |cookies: &Cookies, kind| cookies.set(kind, "x", 300).unwrap();
        assert_eq!(
            line(&cookies(), Kind::Access),
            "at=x; Path=/; Max-Age=300; HttpOnly; Secure; SameSite=Lax"
        );
        let wide = Cookies {
            domain: Some("example.com".to_owned()),
            same_site: SameSite::Strict,
            ..cookies()
        };
        assert_eq!(
            line(&wide, Kind::Refresh),
            "rt=x; Path=/api/token; Domain=example.com; Max-Age=300; HttpOnly; Secure; SameSite=Strict"
        );
        let longest = "x".repeat(LONGEST - 2);
        assert!(cookies().set(Kind::Access, &longest, 1).is_some());
        assert!(cookies().set(Kind::Refresh, &(longest + "x"), 1).is_none());
        let forgotten = cookies().forget(None);
        assert_eq!(forgotten.len(), 2);
        assert!(
            forgotten
                .iter()
                .all(|line| line.to_str().unwrap().contains("=; Path="))
        );
    }

    #[test]
    fn cookies_of_other_domains_are_forgotten_too() {
        let forgotten = |cookies: &Cookies, own: Option<&str>| {
            let lines = cookies.forget_others(own);
            lines
                .iter()
                .map(|line| {
                    let line = line.to_str().unwrap();
                    assert!(line.contains("Max-Age=0"), "{line}");
                    let name = line.split('=').next().unwrap();
                    let domain = line.split("; Domain=").nth(1);
                    let domain = domain.map_or("", |rest| rest.split(';').next().unwrap());
                    format!("{name} {domain}")
                })
                .collect::<Vec<_>>()
        };
        let own = Some("https://www.shop.example.com:8443");
        let domains = ["www.shop.example.com", "shop.example.com", "example.com"];
        let both = |domains: &[&str]| {
            let lines = |name: &'static str| {
                let of = move |domain: &&str| format!("{name} {domain}");
                domains.iter().map(of).collect::<Vec<_>>()
            };
            [lines("at"), lines("rt")].concat()
        };
        assert_eq!(forgotten(&cookies(), own), both(&domains));
        let wide = Cookies {
            domain: Some("example.com".to_owned()),
            ..cookies()
        };
        assert_eq!(
            forgotten(&wide, own),
            both(&["", "www.shop.example.com", "shop.example.com"])
        );
        for own in [
            "http://localhost:8080",
            "http://10.0.0.1",
            "http://[::1]:80",
        ] {
            assert!(forgotten(&cookies(), Some(own)).is_empty(), "{own}");
        }
        let own_host = Cookies {
            access: "__HOST-at".to_owned(),
            ..cookies()
        };
        assert_eq!(
            forgotten(&own_host, Some("https://a.example")),
            ["rt a.example"]
        );
    }

    #[test]
    fn only_pages_that_may_use_them() {
        let own = Some("https://www.example.com:443");
        let check = |fields: &[(&'static str, &str)]| {
            let headers = headers(fields);
            (
                cookies().check_origin(&headers, own).is_ok(),
                cookies().check_page(&headers, own).is_ok(),
            )
        };
        for fields in [
            &[("origin", "https://www.example.com")][..],
            &[("origin", "https://app.example.com")],
            &[("sec-fetch-site", "same-origin")],
        ] {
            assert_eq!(check(fields), (true, true), "{fields:?}");
        }
        assert_eq!(check(&[]), (false, true));
        for fields in [
            &[("origin", "https://evil.example.com")][..],
            &[("origin", "http://www.example.com")],
            &[("origin", "https://www.example.com:8443")],
            &[("origin", "https://www.example.com.evil.org")],
            &[("origin", "null")],
            &[("origin", "")],
            &[("origin", "https://www.example.com"), ("origin", "null")],
            &[("origin", "null"), ("sec-fetch-site", "same-origin")],
            &[("sec-fetch-site", "same-site")],
            &[("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "none")],
        ] {
            assert_eq!(check(fields), (false, false), "{fields:?}");
        }
        let nobody = headers(&[("origin", "https://www.example.com")]);
        assert!(cookies().check_origin(&nobody, None).is_err());
    }

    #[test]
    fn cookies_of_one_name_are_all_read() {
        let read = |line: &str| cookies().all(Kind::Refresh, &headers(&[("cookie", line)]));
        assert_eq!(read("a=b; rt=x.y.z"), ["x.y.z"]);
        assert!(read("at=x").is_empty());
        assert_eq!(read("rt=x; rt=x"), ["x"]);
        assert_eq!(read("rt=x; rt=y; rt=\u{e4}; rt="), ["x", "y"]);
        assert_eq!(read("rt=1; rt=2; rt=3; rt=4; rt=5").len(), TRIED);
    }
}
