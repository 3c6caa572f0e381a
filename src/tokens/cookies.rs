//! Tokens as cookies: how they are set, read and cleared, and who may use them. A script of the page
//! cannot read them; another site cannot use them.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::wire::Answer;
use crate::auth::token_of_cookie;
use crate::cors;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Which sites' requests the cookies go along with (RFC 6265bis section 5.6.7). `None` is not offered:
/// it would let any site act for the user.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum SameSite {
    /// With links from other sites, too.
    Lax,
    /// With the site's own alone.
    Strict,
}

/// The cookies that hold tokens.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Cookies {
    /// The name of the access token's.
    pub(crate) access: String,
    /// The name of the refresh token's.
    pub(crate) refresh: String,
    /// With whose requests they go along.
    pub(crate) same_site: SameSite,
    /// The domain that they are for, its hosts included; else the host alone.
    pub(crate) domain: Option<String>,
    /// Whose pages may use them beside the host's own, as `Origin` writes it.
    pub(crate) origins: Vec<String>,
    /// Below which path the refresh token is sent.
    pub(crate) path: String,
}

/// What name and value of a cookie may have together, in bytes (RFC 6265bis section 5.6).
const LONGEST: usize = 4096;

/// Which of the two.
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

    /// A line that sets a cookie for so many seconds; with none the browser forgets it. `None` where
    /// browsers would throw it away.
    pub(super) fn set(&self, kind: Kind, token: &str, seconds: u64) -> Option<HeaderValue> {
        let (name, path) = self.name(kind);
        let same_site = match self.same_site {
            SameSite::Lax => "Lax",
            SameSite::Strict => "Strict",
        };
        let domain = match &self.domain {
            Some(domain) => format!("; Domain={domain}"),
            None => String::new(),
        };
        let line = format!(
            "{name}={token}; Path={path}{domain}; Max-Age={seconds}; HttpOnly; Secure; SameSite={same_site}"
        );
        let fits = name.len() + token.len() <= LONGEST;
        HeaderValue::try_from(line).ok().filter(|_| fits)
    }

    /// The lines that make the browser forget both.
    pub(super) fn forget(&self) -> Vec<HeaderValue> {
        let kinds = [Kind::Access, Kind::Refresh];
        kinds
            .into_iter()
            .filter_map(|kind| self.set(kind, "", 0))
            .collect()
    }

    /// The token in a cookie.
    ///
    /// # Errors
    /// Where there are several that differ: somebody else may have set one.
    pub(super) fn read(&self, kind: Kind, headers: &HeaderMap) -> Result<Option<String>, Answer> {
        let (name, _) = self.name(kind);
        token_of_cookie(headers, name).map_err(|_| {
            let what = format!("There is more than one cookie {name}.");
            Answer::malformed(&what)
        })
    }

    /// Whether the page that asks may use the cookies: a page of the host's own, whose origin this is,
    /// or of `origins`.
    ///
    /// # Errors
    /// The refusal.
    pub(super) fn check_origin(
        &self,
        headers: &HeaderMap,
        own: Option<&str>,
    ) -> Result<(), Answer> {
        match self.origin(headers, own) {
            Origin::Own => Ok(()),
            Origin::Unsaid => Err(Answer::other_origin("neither Origin nor Sec-Fetch-Site")),
            Origin::Other(origin) => Err(Answer::other_origin(&origin)),
        }
    }

    /// The same where nothing is sent that only the browser has: what is no browser may ask, too.
    ///
    /// # Errors
    /// The refusal.
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

/// Whose page asks.
enum Origin {
    /// One that may.
    Own,
    /// It does not say; browsers do.
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
        let forgotten = cookies().forget();
        assert_eq!(forgotten.len(), 2);
        assert!(
            forgotten
                .iter()
                .all(|line| line.to_str().unwrap().contains("=; Path="))
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
    fn two_cookies_of_one_name_are_none() {
        let read = |line: &str| {
            cookies()
                .read(Kind::Refresh, &headers(&[("cookie", line)]))
                .ok()
        };
        assert_eq!(read("a=b; rt=x.y.z"), Some(Some("x.y.z".to_owned())));
        assert_eq!(read("at=x"), Some(None));
        assert_eq!(read("rt=x; rt=x"), Some(Some("x".to_owned())));
        assert_eq!(read("rt=x; rt=y"), None);
    }
}
