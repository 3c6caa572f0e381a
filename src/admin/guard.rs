//! Who may ask what. Nobody who cannot reach the socket or the address gets here; this keeps pages of other origins, names
//! that were bound anew (DNS rebinding) and holders of the wrong token out, and tells reading from changing.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, Method, StatusCode, Uri, header};

use crate::snapshot::AdminSettings;

/// What no page of another origin and few servers that are tricked into a request can send.
pub(super) const CHANGES: HeaderName = HeaderName::from_static("portcullis-admin");

/// How a request came.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Door {
    /// Over the control socket: its peer is root, or the user that serves.
    Control,
    /// Over the admin listener.
    Network,
}

/// What a request may do.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Right {
    /// What all may: health.
    Nothing,
    /// Read.
    Read,
    /// Change.
    Change,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Denied {
    pub(super) status: StatusCode,
    pub(super) why: &'static str,
    /// Whether it had a token, a wrong one.
    pub(super) wrong_token: bool,
}

const fn denied(status: StatusCode, why: &'static str) -> Denied {
    Denied {
        status,
        why,
        wrong_token: false,
    }
}

/// Whether a request may be answered that needs this right.
///
/// # Errors
/// Why not, with a status.
pub(super) fn admit(
    door: Door,
    settings: Option<&AdminSettings>,
    (method, uri, headers): (&Method, &Uri, &HeaderMap),
    needed: Right,
) -> Result<(), Denied> {
    if *method == Method::OPTIONS {
        return Err(denied(
            StatusCode::METHOD_NOT_ALLOWED,
            "OPTIONS is not served",
        ));
    }
    if door == Door::Control {
        return Ok(());
    }
    let Some(settings) = settings else {
        return Err(denied(
            StatusCode::FORBIDDEN,
            "there is no admin listener any more",
        ));
    };
    let host = one(headers, &header::HOST)
        .map_err(|()| denied(StatusCode::FORBIDDEN, "exactly one Host is needed"))?;
    let host = host.unwrap_or_default();
    let named = uri.authority().map_or(host, |authority| authority.as_str());
    if ![host, named].iter().all(|host| is_ours(host, settings)) {
        let why =
            "this Host is not served; `admin.hosts` names those beside IP addresses and localhost";
        return Err(denied(StatusCode::FORBIDDEN, why));
    }
    let origin =
        one(headers, &header::ORIGIN).map_err(|()| denied(StatusCode::FORBIDDEN, "two Origins"))?;
    if origin.is_some_and(|origin| !is_same(origin, host)) {
        return Err(denied(StatusCode::FORBIDDEN, "a page of another origin"));
    }
    let site = headers.get("sec-fetch-site");
    if site.is_some_and(|site| site != "same-origin" && site != "none") {
        return Err(denied(StatusCode::FORBIDDEN, "a page of another site"));
    }
    if needed == Right::Nothing {
        return Ok(());
    }
    let Some(token) = &settings.token else {
        // Only where nobody but this machine's users can reach it.
        if needed == Right::Change && !headers.contains_key(CHANGES) {
            return Err(denied(
                StatusCode::FORBIDDEN,
                "changes need the header field `Portcullis-Admin: 1`",
            ));
        }
        return Ok(());
    };
    let unauthorized = |why, wrong_token| Denied {
        status: StatusCode::UNAUTHORIZED,
        why,
        wrong_token,
    };
    let sent = one(headers, &header::AUTHORIZATION)
        .map_err(|()| unauthorized("two Authorization fields", true))?;
    let Some(sent) = sent.and_then(bearer) else {
        return Err(unauthorized(
            "a token is needed: Authorization: Bearer ...",
            false,
        ));
    };
    // Both are compared, so that the time tells nothing.
    let changes = same(sent, token);
    let reads = settings
        .read_token
        .as_deref()
        .is_some_and(|it| same(sent, it));
    match needed {
        Right::Nothing | Right::Read | Right::Change if changes => Ok(()),
        Right::Read if reads => Ok(()),
        Right::Nothing | Right::Read | Right::Change if reads => Err(denied(
            StatusCode::FORBIDDEN,
            "this token may read and not change",
        )),
        Right::Nothing | Right::Read | Right::Change => {
            Err(unauthorized("the token is wrong", true))
        }
    }
}

/// The value of a field, if there is one; an error if there are several, or it is no text.
fn one<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, ()> {
    let mut all = headers.get_all(name).iter();
    match (all.next(), all.next()) {
        (None, _) => Ok(None),
        (Some(one), None) => one.to_str().map(Some).map_err(drop),
        (Some(_), Some(_)) => Err(()),
    }
}

/// Whether a `Host` is an IP address, localhost, or one of `hosts`, each with or without a port.
fn is_ours(host: &str, settings: &AdminSettings) -> bool {
    let without_port = match host.rsplit_once(':') {
        Some((name, port))
            if port.bytes().all(|byte| byte.is_ascii_digit()) && !port.is_empty() =>
        {
            name
        }
        _ => host,
    };
    // `::1` without brackets is no Host.
    let is_ip = match without_port.strip_prefix('[') {
        Some(rest) => rest
            .strip_suffix(']')
            .is_some_and(|ip| ip.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6())),
        None => without_port.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv4()),
    };
    let named = || {
        settings
            .hosts
            .iter()
            .any(|name| name.eq_ignore_ascii_case(without_port))
    };
    is_ip || without_port.eq_ignore_ascii_case("localhost") || named()
}

/// Whether a page of this origin is the listener's own, which is at this host.
fn is_same(origin: &str, host: &str) -> bool {
    let of_origin = origin
        .strip_prefix("http://")
        .or_else(|| origin.strip_prefix("https://"));
    of_origin.is_some_and(|it| it.eq_ignore_ascii_case(host))
}

/// The token of a field `Authorization: Bearer TOKEN`.
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Whether both are the same text, in a time that depends on their lengths alone.
fn same(sent: &str, wanted: &str) -> bool {
    let (sent, wanted) = (sent.as_bytes(), wanted.as_bytes());
    let differing = sent
        .iter()
        .zip(wanted)
        .fold(0, |all, (a, b)| std::hint::black_box(all | (a ^ b)));
    sent.len() == wanted.len() && differing == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "a-token-of-twenty-four-bytes";
    const READS: &str = "another-of-twenty-four-bytes";

    fn settings(with_tokens: bool) -> AdminSettings {
        AdminSettings {
            token: with_tokens.then(|| TOKEN.to_owned()),
            read_token: with_tokens.then(|| READS.to_owned()),
            hosts: vec!["gateway.internal".to_owned()],
            ..AdminSettings::default()
        }
    }

    #[track_caller]
    fn status(settings: &AdminSettings, needed: Right, fields: &[(&str, &str)]) -> u16 {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        headers
            .entry(header::HOST)
            .or_insert("127.0.0.1:9000".parse().unwrap());
        let request = (&Method::GET, &Uri::from_static("/"), &headers);
        let admitted = admit(Door::Network, Some(settings), request, needed);
        admitted.map_or_else(|denied| denied.status.as_u16(), |()| 200)
    }

    #[test]
    fn without_tokens_all_may_read_and_changing_takes_a_field() {
        let open = settings(false);
        assert_eq!(status(&open, Right::Read, &[]), 200);
        assert_eq!(status(&open, Right::Change, &[]), 403);
        assert_eq!(
            status(&open, Right::Change, &[("portcullis-admin", "1")]),
            200
        );
    }

    #[test]
    fn a_token_reads_or_changes() {
        let closed = settings(true);
        let with = |token: &str| format!("Bearer {token}");
        for (fields, read, change) in [
            (None, 401, 401),
            (Some(with(TOKEN)), 200, 200),
            (Some(format!("bearer {TOKEN}")), 200, 200),
            (Some(with(READS)), 200, 403),
            (Some(with("no")), 401, 401),
            (Some(with(TOKEN.trim_start_matches('a'))), 401, 401),
            (Some(with(&format!("{TOKEN}x"))), 401, 401),
            (Some(format!("Basic {TOKEN}")), 401, 401),
        ] {
            let fields: Vec<_> = fields
                .iter()
                .map(|it| ("authorization", it.as_str()))
                .collect();
            assert_eq!(status(&closed, Right::Nothing, &fields), 200, "{fields:?}");
            assert_eq!(status(&closed, Right::Read, &fields), read, "{fields:?}");
            assert_eq!(
                status(&closed, Right::Change, &fields),
                change,
                "{fields:?}"
            );
        }
        let twice = with(TOKEN);
        let twice = [
            ("authorization", twice.as_str()),
            ("authorization", twice.as_str()),
        ];
        assert_eq!(status(&closed, Right::Read, &twice), 401);
        // The field for listeners without a token is none here.
        assert_eq!(
            status(&closed, Right::Change, &[("portcullis-admin", "1")]),
            401
        );
    }

    #[test]
    fn names_that_were_bound_anew_get_nothing() {
        let open = settings(false);
        for (host, expected) in [
            ("127.0.0.1", 200),
            ("127.0.0.1:9000", 200),
            ("[::1]", 200),
            ("[::1]:9000", 200),
            ("192.0.2.7:80", 200),
            ("localhost", 200),
            ("LOCALHOST:9000", 200),
            ("gateway.internal", 200),
            ("Gateway.Internal:9000", 200),
            ("evil.example", 403),
            ("evil.example:9000", 403),
            ("127.0.0.1.evil.example", 403),
            ("localhost.evil.example:9000", 403),
            ("gateway.internal.evil.example", 403),
            ("::1", 403),
            ("[::1", 403),
            ("[127.0.0.1]", 403),
            ("127.0.0.1:", 403),
            ("127.0.0.1:9000:1", 403),
            ("", 403),
        ] {
            assert_eq!(
                status(&open, Right::Nothing, &[("host", host)]),
                expected,
                "{host}"
            );
        }
        assert_eq!(
            status(
                &open,
                Right::Read,
                &[("host", "127.0.0.1"), ("host", "localhost")]
            ),
            403
        );
    }

    #[test]
    fn pages_of_others_get_nothing() {
        let open = settings(false);
        let host = ("host", "localhost:9000");
        for (field, expected) in [
            (("origin", "http://localhost:9000"), 200),
            (("origin", "https://localhost:9000"), 200),
            (("origin", "http://localhost"), 403),
            (("origin", "http://evil.example"), 403),
            (("origin", "null"), 403),
            (("sec-fetch-site", "same-origin"), 200),
            (("sec-fetch-site", "none"), 200),
            (("sec-fetch-site", "same-site"), 403),
            (("sec-fetch-site", "cross-site"), 403),
        ] {
            assert_eq!(
                status(&open, Right::Read, &[host, field]),
                expected,
                "{field:?}"
            );
        }
    }

    #[test]
    fn a_target_with_a_host_of_its_own_must_be_ours_too() {
        let open = settings(false);
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, "127.0.0.1".parse().unwrap());
        let uri = Uri::from_static("http://evil.example/status");
        let denied = admit(
            Door::Network,
            Some(&open),
            (&Method::GET, &uri, &headers),
            Right::Read,
        );
        assert_eq!(denied.unwrap_err().status, StatusCode::FORBIDDEN);
        let options = admit(
            Door::Control,
            None,
            (&Method::OPTIONS, &uri, &headers),
            Right::Nothing,
        );
        assert_eq!(options.unwrap_err().status, StatusCode::METHOD_NOT_ALLOWED);
    }
}
