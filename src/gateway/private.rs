//! Responses to requests that a token, or another server's word, opened: they are for one client alone
//! (RFC 9111 section 5.2.2.7). What refuses a request is not looked at here.

use http::{HeaderMap, HeaderValue, header};

/// What gives a response to caches that serve many, or keeps it from all.
const SAID: [&str; 4] = ["private", "public", "no-store", "s-maxage"];

/// Says so, unless the response says itself who may keep it. An app's word stands as it is; what the gateway says
/// of its own files holds for this client.
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
