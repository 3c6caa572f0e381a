//! `Cache-Control: private` for responses that a token or an external server authorised: they are for one client alone
//! (RFC 9111 section 5.2.2.7). Refusals are not handled here.

use http::{HeaderMap, HeaderValue, header};

/// Directives that already allow or forbid storage in shared caches.
const SAID: [&str; 4] = ["private", "public", "no-store", "s-maxage"];

/// Adds `private`, unless the response already says who may cache it. An app's own directives are kept; those
/// configured for the gateway's files become private to the client.
pub(super) fn keep(headers: &mut HeaderMap, is_file: bool) {
    let private = HeaderValue::from_static("private");
    let Some(said) = headers.get(header::CACHE_CONTROL) else {
        headers.insert(header::CACHE_CONTROL, private);
        return;
    };
    if !is_file {
        return;
    }
    let mut directives = said.as_bytes().split(|byte| *byte == b',');
    let is_said = directives.any(|directive| {
        let name = directive.split(|byte| *byte == b'=').next();
        let name = name.unwrap_or_default().trim_ascii();
        SAID.iter()
            .any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
    });
    if !is_said && let Ok(both) = HeaderValue::from_bytes(&[b"private, ", said.as_bytes()].concat())
    {
        headers.insert(header::CACHE_CONTROL, both);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_says_nothing_of_caches_is_private_and_a_file_that_does_not_say_whose() {
        for (is_file, said, expected) in [
            (false, None, "private"),
            (true, None, "private"),
            (false, Some("max-age=60"), "max-age=60"),
            (false, Some("public"), "public"),
            (true, Some("no-cache"), "private, no-cache"),
            (
                true,
                Some("max-age=60, immutable"),
                "private, max-age=60, immutable",
            ),
            (true, Some("Public, max-age=60"), "Public, max-age=60"),
            (
                true,
                Some("max-age=1, S-MaxAge = 60"),
                "max-age=1, S-MaxAge = 60",
            ),
            (true, Some("no-store"), "no-store"),
            (true, Some("private=\"x\""), "private=\"x\""),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(said) = said {
                headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(said));
            }
            keep(&mut headers, is_file);
            let lines: Vec<_> = headers.get_all(header::CACHE_CONTROL).iter().collect();
            assert_eq!(lines, [expected], "{said:?}");
        }
    }
}
