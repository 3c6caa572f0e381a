//! `Url`: the URL of a document that the gateway itself needs. `fetch` gets the document.

use std::fmt;
use std::net::IpAddr;

use http::Uri;

/// The URL of a document: `https://`, or `http://` to a loopback address only.
#[derive(Clone, Eq, PartialEq)]
pub(crate) struct Url {
    uri: Uri,
    is_https: bool,
    host: String,
    port: u16,
}

impl fmt::Display for Url {
    /// The query is hidden: some servers expect a key there.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_https { "https" } else { "http" };
        let path = self.uri.path();
        let query = if self.uri.query().is_some() {
            "?***"
        } else {
            ""
        };
        write!(f, "{scheme}://{}{path}{query}", self.authority())
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Url {
    /// Parses a URL.
    ///
    /// # Errors
    /// A sentence that says what is expected.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let uri: Uri = text
            .parse()
            .map_err(|_| "this is no URL; write https://HOST/PATH")?;
        let authority = uri
            .authority()
            .ok_or("this is no URL; write https://HOST/PATH")?;
        if authority.as_str().contains('@') {
            return Err("a user or password in a URL is not supported here");
        }
        if text.contains('#') {
            return Err("a fragment (#) is never sent; leave it out");
        }
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_ascii_lowercase();
        if host.is_empty() {
            return Err("the URL has no host");
        }
        let (is_https, port) = match uri.scheme_str() {
            Some("https") => (true, 443),
            Some("http") if is_this_machine(&host) => (false, 80),
            Some("http") => {
                return Err(
                    "over plain http anybody on the way can put in keys of their own; write https:// (http:// \
                     goes to this machine alone)",
                );
            }
            Some(_) | None => return Err("the URL begins with https://"),
        };
        let written = authority.as_str().strip_prefix(authority.host());
        let port = match (written, authority.port_u16()) {
            (Some(""), _) => port,
            (_, Some(port)) if port > 0 => port,
            (_, Some(_) | None) => return Err("a port is a number from 1 to 65535"),
        };
        Ok(Self {
            uri,
            is_https,
            host,
            port,
        })
    }

    /// The URL with this suffix after its path, as OpenID Connect Discovery section 4 builds one.
    pub(crate) fn beneath(&self, suffix: &str) -> Result<Self, &'static str> {
        if self.uri.query().is_some() {
            return Err("an issuer has no query (?)");
        }
        let base = self.uri.to_string();
        Self::parse(&format!("{}{suffix}", base.trim_end_matches('/')))
    }

    /// The target of a `Location`: a complete URL, or a path on the same host.
    ///
    /// # Errors
    /// A sentence that says why it is not followed.
    pub(crate) fn redirected(&self, location: &str) -> Result<Self, &'static str> {
        let to = if location.starts_with('/') && !location.starts_with("//") {
            let scheme = if self.is_https { "https" } else { "http" };
            let authority = self
                .uri
                .authority()
                .map_or("", http::uri::Authority::as_str);
            Self::parse(&format!("{scheme}://{authority}{location}"))?
        } else {
            Self::parse(location)?
        };
        self.leads(to)
    }

    /// A URL that the document at this URL refers to.
    ///
    /// # Errors
    /// A sentence that says why it is not trusted.
    pub(crate) fn names(&self, text: &str) -> Result<Self, &'static str> {
        self.leads(Self::parse(text)?)
    }

    fn leads(&self, to: Self) -> Result<Self, &'static str> {
        if self.is_https && !to.is_https {
            return Err("it leads from https to plain http");
        }
        Ok(to)
    }

    /// Whether it uses TLS.
    pub(crate) fn is_https(&self) -> bool {
        self.is_https
    }

    /// The host's name or address, without brackets.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The whole URL, with its query; `Display` hides that.
    pub(crate) fn whole(&self) -> String {
        self.uri.to_string()
    }

    /// Host and port as written.
    pub(crate) fn authority(&self) -> &str {
        self.uri
            .authority()
            .map_or("", http::uri::Authority::as_str)
    }

    /// Path and query.
    pub(crate) fn target(&self) -> &str {
        self.uri
            .path_and_query()
            .map_or("/", |target| target.as_str())
    }
}

fn is_this_machine(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_goes_to_this_machine_alone() {
        for good in [
            "https://issuer.example",
            "https://issuer.example:8443/a/b?c=d",
            "http://127.0.0.1:9/jwks",
            "http://[::1]/jwks",
            "http://localhost:8080/",
        ] {
            assert!(Url::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "issuer.example",
            "/jwks",
            "ftp://issuer.example/",
            "http://issuer.example/",
            "http://127.0.0.1.example/",
            "http://localhost.example/",
            "http://10.0.0.1/",
            "https://user:pw@issuer.example/",
            "https://issuer.example/#a",
            "https:///a",
            "https://issuer.example:99999/",
            "https://issuer.example:0/",
        ] {
            assert!(Url::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_redirect_never_leaves_tls() {
        let url = Url::parse("https://a.example:8443/x/y").unwrap();
        let to = |location| url.redirected(location).map(|url| url.to_string());
        let moved = url.redirected("/z?q").unwrap();
        assert_eq!(
            (moved.authority(), moved.target()),
            ("a.example:8443", "/z?q")
        );
        // A query may contain a key and is not shown.
        assert_eq!(moved.to_string(), "https://a.example:8443/z?***");
        assert!(url.names("http://127.0.0.1/").is_err());
        assert!(url.names("https://b.example/").is_ok());
        assert_eq!(
            to("https://b.example/"),
            Ok("https://b.example/".to_owned())
        );
        for bad in ["http://127.0.0.1/", "//b.example/z", "z", "", "ftp://b/"] {
            assert!(to(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_suffix_follows_the_path() {
        for (base, expected) in [
            ("https://a.example", "https://a.example/.well-known/x"),
            ("https://a.example/", "https://a.example/.well-known/x"),
            (
                "https://a.example/r/m",
                "https://a.example/r/m/.well-known/x",
            ),
            (
                "https://a.example/r/m/",
                "https://a.example/r/m/.well-known/x",
            ),
        ] {
            let url = Url::parse(base).unwrap().beneath("/.well-known/x");
            assert_eq!(url.unwrap().to_string(), expected);
        }
        let query = Url::parse("https://a.example/?b").unwrap();
        assert!(query.beneath("/.well-known/x").is_err());
    }
}
