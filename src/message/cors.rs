//! `Cors`: which origins may send which requests to a route and read its responses (the Fetch standard's CORS
//! protocol). Routing and access control are decided elsewhere.

use std::fmt;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use crate::message::method::MethodSet;
use crate::message::reject::Reject;

/// The wildcard for every origin and for every header.
pub(crate) const ANY: &str = "*";

/// An origin, or a set of origins, that is allowed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Origin {
    /// Every origin.
    Any,
    /// This origin, in the form that browsers send.
    Exact(String),
    /// All subdomains of a host, with this scheme and port.
    Below {
        /// The scheme with its `://`.
        scheme: String,
        /// The end of the host, with its leading dot and its port.
        suffix: String,
    },
}

impl Origin {
    /// Parses an origin, an origin with `*` as its first label (all subdomains), or `*` alone.
    ///
    /// # Errors
    /// What to write instead.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        const FORM: &str =
            "origins are https://app.example.com, https://*.example.com, capacitor://localhost";
        if text == ANY {
            return Ok(Self::Any);
        }
        if text == "null" {
            return Err(
                "`null` is what sandboxed frames and local files say, whoever wrote them"
                    .to_owned(),
            );
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(match normal(&format!("https://{text}")) {
                Some(meant) => format!("write `{meant}`"),
                None => FORM.to_owned(),
            });
        };
        let (star, named) = match rest.strip_prefix("*.") {
            Some(named) => ("*.", named),
            None => ("", rest),
        };
        let origin = normal(&format!("{scheme}://{named}"));
        let Some(origin) = origin else {
            let authority = named.split(['/', '?', '#']).next().unwrap_or_default();
            return Err(match normal(&format!("{scheme}://{authority}")) {
                Some(_) => format!(
                    "an origin has no path; write `{}://{star}{}`",
                    scheme.to_ascii_lowercase(),
                    authority.to_ascii_lowercase()
                ),
                None if named.contains('*') => {
                    "a star stands for all in front of a name: https://*.example.com".to_owned()
                }
                None => FORM.to_owned(),
            });
        };
        if star.is_empty() {
            return Ok(Self::Exact(origin));
        }
        let (scheme, host) = origin.split_once("://").unwrap_or_default();
        if APPS.contains(&scheme) {
            return Err("an app has one host, and none below it".to_owned());
        }
        let name = host.split(':').next().unwrap_or_default();
        if name.starts_with('[') || name.parse::<std::net::Ipv4Addr>().is_ok() {
            return Err("there are no hosts below an address".to_owned());
        }
        Ok(Self::Below {
            scheme: format!("{scheme}://"),
            suffix: format!(".{host}"),
        })
    }

    /// Whether this matches the origin that a browser sent.
    fn is(&self, written: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(known) => known == written,
            Self::Below { scheme, suffix } => {
                let below = written
                    .strip_prefix(scheme.as_str())
                    .and_then(|host| host.strip_suffix(suffix.as_str()));
                let legal =
                    |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b);
                below.is_some_and(|below| {
                    below
                        .split('.')
                        .all(|label| !label.is_empty() && label.bytes().all(legal))
                })
            }
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str(ANY),
            Self::Exact(origin) => f.write_str(origin),
            Self::Below { scheme, suffix } => write!(f, "{scheme}*{suffix}"),
        }
    }
}

/// An origin in the form that browsers send (RFC 6454 section 6.1): lower case, without the scheme's default port.
/// `None` where the text is not an origin.
pub(crate) fn normal(origin: &str) -> Option<String> {
    let origin = origin.to_ascii_lowercase();
    let (scheme, authority) = origin.split_once("://")?;
    let implied = match scheme {
        "https" => 443,
        "http" => 80,
        // The host of an app's pages is the app's own name, not a network name.
        _ if APPS.contains(&scheme) => return is_app_host(authority).then(|| origin.clone()),
        _ => return None,
    };
    let (host, port) = match authority.rsplit_once(':') {
        // The colons inside brackets belong to an IPv6 address.
        Some((host, port)) if !port.ends_with(']') => {
            let digits = port.bytes().all(|byte| byte.is_ascii_digit());
            (host, port.parse::<u16>().ok().filter(|_| digits)?)
        }
        Some(_) | None => (authority, implied),
    };
    let address = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let legal = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
    let is_host = match address {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.chars().all(legal),
    };
    is_host.then(|| {
        if port == implied {
            format!("{scheme}://{host}")
        } else {
            format!("{scheme}://{host}:{port}")
        }
    })
}

/// Schemes of pages in apps and browser extensions: Capacitor and Ionic, Tauri, Chrome and Firefox.
const APPS: [&str; 5] = [
    "capacitor",
    "ionic",
    "tauri",
    "chrome-extension",
    "moz-extension",
];

fn is_app_host(host: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    !host.is_empty() && host.chars().all(legal)
}

/// The CORS settings of a route.
#[derive(Clone, Debug)]
pub(crate) struct CorsSettings {
    /// The allowed origins; `Any` is the only item.
    pub(crate) origins: Vec<Origin>,
    /// Whether cookies and other browser credentials are allowed; never together with any origin.
    pub(crate) credentials: bool,
    /// The allowed methods.
    pub(crate) methods: MethodSet,
    /// The allowed request headers; `*` for all.
    pub(crate) headers: Vec<String>,
    /// The response headers that pages may read.
    pub(crate) expose: Vec<String>,
    /// How long a browser may cache a preflight response; whole seconds.
    pub(crate) max_age: Duration,
}

/// The settings, compiled to header values.
#[derive(Debug)]
pub(crate) struct Cors {
    origins: Vec<Origin>,
    credentials: bool,
    methods: HeaderValue,
    headers: Allowed,
    expose: Option<HeaderValue>,
    max_age: HeaderValue,
}

/// The request headers that a page may send.
#[derive(Debug)]
enum Allowed {
    /// Whatever the preflight asks for.
    Asked,
    /// These; `None` allows only those that need no preflight.
    Named(Option<HeaderValue>),
}

impl Cors {
    /// Builds the header values once.
    pub(crate) fn new(settings: CorsSettings) -> Self {
        let list = |names: &[String]| {
            let list = HeaderValue::try_from(names.join(", ")).ok();
            list.filter(|list| !list.is_empty())
        };
        Self {
            headers: if settings.headers.iter().any(|name| name == ANY) {
                Allowed::Asked
            } else {
                Allowed::Named(list(&settings.headers))
            },
            expose: list(&settings.expose),
            methods: settings.methods.allow(),
            max_age: HeaderValue::from(settings.max_age.as_secs()),
            origins: settings.origins,
            credentials: settings.credentials,
        }
    }

    /// Who may read the response to a request: the value of `Access-Control-Allow-Origin`. `None` where the request
    /// comes from no other origin, or from one that is not allowed.
    pub(crate) fn reader(&self, request: &HeaderMap) -> Option<HeaderValue> {
        if self.is_for_any() {
            // Sent to everybody, so that a cache can reuse one response for all.
            return Some(HeaderValue::from_static(ANY));
        }
        let origin = only(request, &header::ORIGIN)?;
        let written = origin.to_str().ok()?;
        let known = self.origins.iter().any(|origin| origin.is(written));
        known.then(|| origin.clone())
    }

    /// Adds to a response who may read it, and removes what an app says about that itself.
    pub(crate) fn apply(&self, reader: Option<HeaderValue>, answer: &mut HeaderMap) {
        for name in [
            header::ACCESS_CONTROL_ALLOW_ORIGIN,
            header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
        ] {
            answer.remove(name);
        }
        if !self.is_for_any() {
            vary_on_origin(answer);
        }
        let Some(reader) = reader else { return };
        answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, reader);
        if self.credentials {
            let yes = HeaderValue::from_static("true");
            answer.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
        }
        if let Some(expose) = &self.expose {
            answer.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone());
        }
    }

    /// The fields of a preflight response, besides those of [`apply`](Self::apply).
    ///
    /// # Errors
    /// `OriginRefused`.
    pub(crate) fn preflight(&self, request: &HeaderMap) -> Result<HeaderMap, Reject> {
        if self.reader(request).is_none() {
            return Err(Reject::OriginRefused);
        }
        let mut answer = HeaderMap::new();
        answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, self.methods.clone());
        let name = header::ACCESS_CONTROL_ALLOW_HEADERS;
        match &self.headers {
            Allowed::Named(names) => {
                if let Some(names) = names {
                    answer.insert(name, names.clone());
                }
            }
            // With credentials browsers read a star as a literal name, and it never covers Authorization.
            Allowed::Asked => {
                let asked = request.get_all(header::ACCESS_CONTROL_REQUEST_HEADERS);
                for line in asked.iter().filter(|line| is_list_of_names(line)) {
                    answer.append(&name, line.clone());
                }
            }
        }
        answer.insert(header::ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
        let asked = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";
        answer.insert(header::VARY, HeaderValue::from_static(asked));
        Ok(answer)
    }

    /// Whether requests with credentials are allowed.
    pub(crate) fn has_credentials(&self) -> bool {
        self.credentials
    }

    fn is_for_any(&self) -> bool {
        self.origins.contains(&Origin::Any)
    }
}

impl fmt::Display for Cors {
    /// The origins, and whether credentials are allowed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origins: Vec<String> = self.origins.iter().map(Origin::to_string).collect();
        f.write_str(&origins.join(", "))?;
        if self.credentials {
            f.write_str(CREDENTIALS)?;
        }
        Ok(())
    }
}

/// The end of a displayed [`Cors`] with credentials.
pub(crate) const CREDENTIALS: &str = ", with credentials";

/// The method that a preflight asks about; `None` for every other request.
pub(crate) fn preflighted(method: &Method, headers: &HeaderMap) -> Option<Method> {
    if *method != Method::OPTIONS {
        return None;
    }
    only(headers, &header::ORIGIN)?;
    let asked = only(headers, &header::ACCESS_CONTROL_REQUEST_METHOD)?;
    Method::from_bytes(asked.as_bytes()).ok()
}

/// The only value of this field; `None` where it is missing or repeated.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h HeaderValue> {
    let mut lines = headers.get_all(name).iter();
    lines.next().filter(|_| lines.next().is_none())
}

/// Whether the list is safe to echo: header names separated by commas (RFC 9110 section 5.6.2).
fn is_list_of_names(line: &HeaderValue) -> bool {
    let legal = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~, ".contains(b);
    line.as_bytes().iter().all(legal)
}

/// Adds `Vary: Origin`, since the response differs by origin.
fn vary_on_origin(answer: &mut HeaderMap) {
    let said = answer
        .get_all(header::VARY)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .map(str::trim)
        .any(|name| name == ANY || name.eq_ignore_ascii_case("origin"));
    if !said {
        answer.append(header::VARY, HeaderValue::from_static("Origin"));
    }
}

#[cfg(test)]
mod tests;
