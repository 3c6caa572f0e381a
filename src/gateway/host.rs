//! The host of a request: named once, valid, and the same in `Host` and target.

use std::borrow::Cow;

use http::{Request, Uri, Version, header};

use crate::message::alphabet::Alphabet;
use crate::message::reject::Reject;
use crate::net::limits::Limits;
use crate::wire::verbatim_query;

/// The characters of a host name or an IPv4 address.
static HOST: Alphabet = Alphabet::alphanumeric_and(b"-._");

/// Checks the size limits of a head that the HTTP/2 layer does not check.
///
/// # Errors
/// `UriTooLong`, `HeadTooLarge`.
pub(crate) fn check_size<B>(request: &Request<B>, limits: &Limits) -> Result<(), Reject> {
    if request.version() != Version::HTTP_2 {
        return Ok(());
    }
    let target = request.uri().path_and_query();
    let target = target.map_or(0, |target| target.as_str().len());
    if target > limits.uri_bytes {
        // Not what has been escaped only here.
        let query = request.uri().query().map_or(0, str::len);
        let written = verbatim_query(request).map_or(query, str::len);
        if target - query + written > limits.uri_bytes {
            return Err(Reject::UriTooLong);
        }
    }
    if request.headers().len() > limits.header_count {
        return Err(Reject::HeadTooLarge);
    }
    Ok(())
}

/// The host of a request in lower case, without its port (RFC 9112 section 3.2, RFC 9113 section
/// 8.3.1). Empty for an HTTP/1.0 request that names none.
///
/// # Errors
/// `BadHost` where it is missing, repeated, malformed, or given as two different names. `BadRequest` for a target with
/// another scheme.
pub(crate) fn host_of<B>(request: &Request<B>) -> Result<Cow<'_, str>, Reject> {
    let mut lines = request.headers().get_all(header::HOST).iter();
    let field = match (lines.next(), lines.next()) {
        // Which characters it may have is looked at below.
        (Some(line), None) => {
            Some(std::str::from_utf8(line.as_bytes()).map_err(|_| Reject::BadHost)?)
        }
        (None, _) => None,
        (Some(_), Some(_)) => return Err(Reject::BadHost),
    };
    let uri = request.uri();
    if !matches!(uri.scheme_str(), None | Some("http" | "https")) {
        return Err(Reject::BadRequest("only http and https targets are served"));
    }
    let authority = uri.authority().map(|authority| authority.as_str());
    let said = match (field, authority) {
        (Some(field), Some(authority)) if !is_same(field, authority, uri) => {
            return Err(Reject::BadHost);
        }
        (Some(said), _) | (None, Some(said)) => said,
        (None, None) if request.version() == Version::HTTP_10 => return Ok(Cow::Borrowed("")),
        (None, None) => return Err(Reject::BadHost),
    };
    let host = without_port(said.trim_ascii()).ok_or(Reject::BadHost)?;
    let host = host.strip_suffix('.').unwrap_or(host);
    // Without an early exit the loop is vectorised.
    if host
        .bytes()
        .fold(false, |any, byte| any | byte.is_ascii_uppercase())
    {
        return Ok(Cow::Owned(host.to_ascii_lowercase()));
    }
    Ok(Cow::Borrowed(host))
}

/// Whether `Host` and the target's authority name the same host: either may omit the default port of the target's
/// scheme (RFC 9110 section 4.2.3).
fn is_same(field: &str, authority: &str, uri: &Uri) -> bool {
    if field.eq_ignore_ascii_case(authority) {
        return true;
    }
    let port = match uri.scheme_str() {
        Some("http") => "80",
        Some("https") => "443",
        _ => return false,
    };
    let bare = |said: &str| -> Option<String> {
        let without = said
            .strip_suffix(port)
            .and_then(|said| said.strip_suffix(':'));
        let without = without.or_else(|| said.strip_suffix(':'));
        // A malformed value gives `None`.
        without_port(said.trim_ascii())?;
        Some(without.unwrap_or(said).to_ascii_lowercase())
    };
    let field = bare(field);
    field.is_some() && field == bare(authority)
}

/// The host of `host:port`; `None` where either part is malformed.
fn without_port(said: &str) -> Option<&str> {
    let (host, port) = match said.strip_prefix('[') {
        Some(rest) => {
            let (literal, port) = rest.split_once(']')?;
            literal.parse::<std::net::Ipv6Addr>().ok()?;
            let host = said.get(..literal.len() + 2)?;
            (
                host,
                port.strip_prefix(':')
                    .or_else(|| port.is_empty().then_some("")),
            )
        }
        None => {
            let end = said.bytes().position(|byte| !HOST.has(byte));
            match end.and_then(|end| said.split_at_checked(end)) {
                Some((host, port)) => (host, Some(port.strip_prefix(':')?)),
                None => (said, Some("")),
            }
        }
    };
    let port = port?;
    let valid = port.is_empty()
        || (port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok());
    (valid && !host.is_empty() && host != ".").then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(target: &str, hosts: &[&str], expected: Result<&str, Reject>) {
        let mut request = Request::builder().uri(target);
        for host in hosts {
            request = request.header("host", *host);
        }
        let request = request.body(()).unwrap();
        let seen = host_of(&request);
        assert_eq!(
            seen.as_deref().map_err(|reject| *reject),
            expected,
            "{target} {hosts:?}"
        );
    }

    #[test]
    fn a_host_is_said_once_and_plainly() {
        check("/", &["Example.COM:8080"], Ok("example.com"));
        check("/", &["example.com."], Ok("example.com"));
        check("/", &["[::1]:80"], Ok("[::1]"));
        check("/", &["127.0.0.1"], Ok("127.0.0.1"));
        for hosts in [
            &[][..],
            &["a", "a"],
            &[""],
            &["a b"],
            &["a@b"],
            &["a/b"],
            &["a:x"],
            &["a:70000"],
            &["[::1"],
            &["[zz]"],
            &[":80"],
            &["a,b"],
            &["a:80:80"],
            &["."],
        ] {
            check("/", hosts, Err(Reject::BadHost));
        }
    }

    #[test]
    fn the_port_of_the_scheme_may_be_left_out() {
        for (target, host) in [
            ("http://example.com:80/", "example.com"),
            ("http://example.com/", "example.com:80"),
            ("http://Example.com:80/", "EXAMPLE.com"),
            ("http://example.com/", "example.com:"),
            ("http://example.com:/", "example.com:80"),
            ("https://example.com:443/", "example.com"),
            ("https://example.com/", "example.com:443"),
        ] {
            check(target, &[host], Ok("example.com"));
        }
        check("http://[::1]:80/", &["[::1]"], Ok("[::1]"));
        check("http://[::1]/", &["[::1]:80"], Ok("[::1]"));
        for (target, host) in [
            ("http://example.com:443/", "example.com"),
            ("http://example.com/", "example.com:443"),
            ("https://example.com:80/", "example.com"),
            ("http://example.com:80/", "example.com:81"),
            ("http://example.com:8080/", "example.com:80"),
            ("http://example.com:080/", "example.com"),
            ("http://example.com:80/", "example.com:80:80"),
            ("http://example.com/", "example.com80"),
            ("http://[::1]/", "[::1:80]"),
        ] {
            check(target, &[host], Err(Reject::BadHost));
        }
    }

    #[test]
    fn a_target_and_its_host_agree() {
        check("http://example.com/", &["example.com"], Ok("example.com"));
        check("http://example.com/", &["EXAMPLE.com"], Ok("example.com"));
        check("http://example.com/", &[], Ok("example.com"));
        check("http://example.com/", &["other.com"], Err(Reject::BadHost));
        check(
            "http://example.com:81/",
            &["example.com"],
            Err(Reject::BadHost),
        );
        check("http://user@example.com/", &[], Err(Reject::BadHost));
        check(
            "ftp://example.com/",
            &["example.com"],
            Err(Reject::BadRequest("only http and https targets are served")),
        );
    }
}
