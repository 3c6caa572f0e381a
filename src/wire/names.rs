//! Header field names. Common names, in the spellings that clients and apps use, are recognised by a single comparison;
//! `http` parses all others byte by byte. What a field means is not known here.

use http::header::{self, HeaderName, InvalidHeaderName};

/// Parses a field name.
///
/// # Errors
/// It is not a token (RFC 9110 section 5.1).
pub(crate) fn name_of(written: &[u8]) -> Result<HeaderName, InvalidHeaderName> {
    usual(written).map_or_else(|| HeaderName::from_bytes(written), Ok)
}

/// A common name in a common spelling. The length is compared first, so that few comparisons are left.
fn usual(written: &[u8]) -> Option<HeaderName> {
    Some(match (written.len(), written) {
        (2, b"TE" | b"te") => header::TE,
        (3, b"Age" | b"age") => header::AGE,
        (3, b"DNT" | b"dnt") => header::DNT,
        (3, b"Via" | b"via") => header::VIA,
        (4, b"Date" | b"date") => header::DATE,
        (4, b"ETag" | b"etag") => header::ETAG,
        (4, b"Host" | b"host") => header::HOST,
        (4, b"Vary" | b"vary") => header::VARY,
        (5, b"Allow" | b"allow") => header::ALLOW,
        (5, b"Range" | b"range") => header::RANGE,
        (6, b"Accept" | b"accept") => header::ACCEPT,
        (6, b"Cookie" | b"cookie") => header::COOKIE,
        (6, b"Expect" | b"expect") => header::EXPECT,
        (6, b"Origin" | b"origin") => header::ORIGIN,
        (6, b"Server" | b"server") => header::SERVER,
        (7, b"Alt-Svc" | b"alt-svc") => header::ALT_SVC,
        (7, b"Expires" | b"expires") => header::EXPIRES,
        (7, b"Referer" | b"referer") => header::REFERER,
        (7, b"Upgrade" | b"upgrade") => header::UPGRADE,
        (8, b"If-Match" | b"if-match") => header::IF_MATCH,
        (8, b"If-Range" | b"if-range") => header::IF_RANGE,
        (8, b"Location" | b"location") => header::LOCATION,
        (8, b"Priority" | b"priority") => const { HeaderName::from_static("priority") },
        (9, b"sec-ch-ua") => const { HeaderName::from_static("sec-ch-ua") },
        (9, b"X-Real-IP" | b"x-real-ip") => const { HeaderName::from_static("x-real-ip") },
        (10, b"Connection" | b"connection") => header::CONNECTION,
        (10, b"Keep-Alive" | b"keep-alive") => const { HeaderName::from_static("keep-alive") },
        (10, b"Set-Cookie" | b"set-cookie") => header::SET_COOKIE,
        (10, b"User-Agent" | b"user-agent") => header::USER_AGENT,
        (11, b"X-CSRFToken" | b"x-csrftoken") => const { HeaderName::from_static("x-csrftoken") },
        (12, b"Content-Type" | b"content-type") => header::CONTENT_TYPE,
        (12, b"X-Request-ID" | b"x-request-id") => {
            const { HeaderName::from_static("x-request-id") }
        }
        (13, b"Accept-Ranges" | b"accept-ranges") => header::ACCEPT_RANGES,
        (13, b"Authorization" | b"authorization") => header::AUTHORIZATION,
        (13, b"Cache-Control" | b"cache-control") => header::CACHE_CONTROL,
        (13, b"Content-Range" | b"content-range") => header::CONTENT_RANGE,
        (13, b"If-None-Match" | b"if-none-match") => header::IF_NONE_MATCH,
        (13, b"Last-Modified" | b"last-modified") => header::LAST_MODIFIED,
        (14, b"Content-Length" | b"content-length") => header::CONTENT_LENGTH,
        (14, b"Sec-Fetch-Dest" | b"sec-fetch-dest") => {
            const { HeaderName::from_static("sec-fetch-dest") }
        }
        (14, b"Sec-Fetch-Mode" | b"sec-fetch-mode") => {
            const { HeaderName::from_static("sec-fetch-mode") }
        }
        (14, b"Sec-Fetch-Site" | b"sec-fetch-site") => {
            const { HeaderName::from_static("sec-fetch-site") }
        }
        (14, b"Sec-Fetch-User" | b"sec-fetch-user") => {
            const { HeaderName::from_static("sec-fetch-user") }
        }
        (15, b"Accept-Encoding" | b"accept-encoding") => header::ACCEPT_ENCODING,
        (15, b"Accept-Language" | b"accept-language") => header::ACCEPT_LANGUAGE,
        (15, b"Referrer-Policy" | b"referrer-policy") => header::REFERRER_POLICY,
        (15, b"X-Forwarded-For" | b"x-forwarded-for") => {
            const { HeaderName::from_static("x-forwarded-for") }
        }
        (15, b"X-Frame-Options" | b"x-frame-options") => header::X_FRAME_OPTIONS,
        (16, b"Content-Encoding" | b"content-encoding") => header::CONTENT_ENCODING,
        (16, b"Content-Language" | b"content-language") => header::CONTENT_LANGUAGE,
        (16, b"Content-Location" | b"content-location") => header::CONTENT_LOCATION,
        (16, b"sec-ch-ua-mobile") => const { HeaderName::from_static("sec-ch-ua-mobile") },
        (16, b"WWW-Authenticate" | b"www-authenticate") => header::WWW_AUTHENTICATE,
        (16, b"X-Forwarded-Host" | b"x-forwarded-host") => {
            const { HeaderName::from_static("x-forwarded-host") }
        }
        (16, b"X-Forwarded-Port" | b"x-forwarded-port") => {
            const { HeaderName::from_static("x-forwarded-port") }
        }
        (16, b"X-Requested-With" | b"x-requested-with") => {
            const { HeaderName::from_static("x-requested-with") }
        }
        (17, b"If-Modified-Since" | b"if-modified-since") => header::IF_MODIFIED_SINCE,
        (17, b"Sec-WebSocket-Key" | b"sec-websocket-key") => header::SEC_WEBSOCKET_KEY,
        (17, b"Transfer-Encoding" | b"transfer-encoding") => header::TRANSFER_ENCODING,
        (17, b"X-Forwarded-Proto" | b"x-forwarded-proto") => {
            const { HeaderName::from_static("x-forwarded-proto") }
        }
        (18, b"sec-ch-ua-platform") => const { HeaderName::from_static("sec-ch-ua-platform") },
        (19, b"Content-Disposition" | b"content-disposition") => header::CONTENT_DISPOSITION,
        (21, b"Sec-WebSocket-Version" | b"sec-websocket-version") => header::SEC_WEBSOCKET_VERSION,
        (22, b"X-Content-Type-Options" | b"x-content-type-options") => {
            header::X_CONTENT_TYPE_OPTIONS
        }
        (23, b"Content-Security-Policy" | b"content-security-policy") => {
            header::CONTENT_SECURITY_POLICY
        }
        (25, b"Strict-Transport-Security" | b"strict-transport-security") => {
            header::STRICT_TRANSPORT_SECURITY
        }
        (25, b"Upgrade-Insecure-Requests" | b"upgrade-insecure-requests") => {
            header::UPGRADE_INSECURE_REQUESTS
        }
        (26, b"Cross-Origin-Opener-Policy" | b"cross-origin-opener-policy") => {
            const { HeaderName::from_static("cross-origin-opener-policy") }
        }
        (27, b"Access-Control-Allow-Origin" | b"access-control-allow-origin") => {
            header::ACCESS_CONTROL_ALLOW_ORIGIN
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_what_http_reads() {
        let mut known = 0;
        // Every literal of the table is in this file.
        for literal in include_str!("names.rs").split("b\"").skip(1) {
            let written = literal.split('"').next().unwrap_or_default().as_bytes();
            if let Some(name) = usual(written) {
                assert_eq!(name, HeaderName::from_bytes(written).unwrap());
                known += 1;
            }
        }
        assert!(known > 100, "{known}");
        for written in [
            "HOST",
            "x-own",
            "content-lengti",
            "content-length ",
            "",
            "a b",
        ] {
            assert_eq!(usual(written.as_bytes()), None, "{written}");
        }
        assert_eq!(name_of(b"X-Own").unwrap(), "x-own");
        assert!(name_of(b"a b").is_err() && name_of(b"").is_err());
    }
}
