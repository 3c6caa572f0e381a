//! Paths in all their spellings, and what each reading of them is.

use proptest::prelude::*;

use super::*;

fn parse(raw: &str) -> Result<RequestPath, Reject> {
    RequestPath::parse(&raw.parse().map_err(|_| Reject::BadPath)?)
}

/// Checks the resolved reading, and all that differ from it.
#[track_caller]
fn check(raw: &str, resolved: &str, others: &[&str]) {
    let path = parse(raw).unwrap();
    assert_eq!(path.written(), raw);
    assert_eq!(path.resolved().to_string(), resolved, "{raw}");
    let mut seen: Vec<String> = Vec::new();
    for other in path.others() {
        let text = other.reading().to_string();
        if text != resolved && !seen.contains(&text) {
            seen.push(text);
        }
    }
    seen.sort();
    assert_eq!(seen, others, "{raw}");
    assert!(!path.has_one_reading() || others.is_empty(), "{raw}");
}

#[test]
fn a_plain_path_has_one_reading() {
    for raw in ["/", "/a/b", "/a/b/", "/a=1,2/@b.c!"] {
        check(raw, raw, &[]);
        assert!(parse(raw).unwrap().read.is_none(), "{raw}");
    }
    for raw in ["/..a/...", "/.hidden"] {
        check(raw, raw, &[]);
    }
    assert!(parse("/a/b.css?x=/../;%zz").unwrap().read.is_none());
}

#[test]
fn escapes_are_decoded_once() {
    check("/%61%2Db", "/a-b", &[]);
    check("/a%20b", "/a%20b", &[]);
    check("/%252e%252e/%252Fx", "/%252e%252e/%252Fx", &[]);
    check("/caf%c3%A9", "/caf%C3%A9", &[]);
    check("/a%3Fb%23%3B", "/a%3Fb%23%3B", &[]);
    // With a bare `;` it would climb above the root.
    check("/%2e%2e%3b", "/..%3B", &[]);
    holds(b"/%2e%2e%3b");
}

#[test]
fn dot_segments_and_empty_ones_are_there_or_not() {
    check("//admin", "/admin", &["//admin"]);
    check("/a//b//", "/a/b/", &["/a//b//"]);
    check("/a/./b/..", "/a/", &["/a/./b/.."]);
    check("/a/%2e%2E/b", "/b", &["/a/../b"]);
    // An app that resolves dots first removes the empty segment.
    check("/a//../b", "/b", &["/a/../b", "/a//../b", "/a/b"]);
}

#[test]
fn escaped_slashes_and_backslashes_are_slashes_or_not() {
    check("/a%2Fb", "/a%2Fb", &["/a/b"]);
    check("/a%5cb", "/a%5Cb", &["/a/b"]);
    check("/a\\b", "/a%5Cb", &["/a/b"]);
    check(
        "/a%2f..%5cb",
        "/a%2F..%5Cb",
        &["/a%2F../b", "/a/..%5Cb", "/a/../b", "/b"],
    );
}

#[test]
fn path_parameters_are_taken_off_or_not() {
    check("/a;v=1/b;", "/a%3Bv=1/b%3B", &["/a/b"]);
    check("/a/..;x/b", "/a/..%3Bx/b", &["/a/../b", "/b"]);
    check("/a/;x/b", "/a/%3Bx/b", &["/a//b", "/a/b"]);
    // They end with the segment, wherever that ends.
    check("/a;%2Fb/c", "/a%3B%2Fb/c", &["/a%3B/b/c", "/a/b/c", "/a/c"]);
}

#[test]
fn climbing_above_the_root_is_refused_in_every_reading() {
    for raw in [
        "/..",
        "/a/../..",
        "/a/%2e%2e/%2E%2e/etc/passwd",
        "/..%2fx",
        "/..\\x",
        "/..;/x",
        "/a%5c..%5c..",
        "/a//../..",
        "/a;%2f../b/../..",
        "/%2e%2e;a=b/x",
    ] {
        assert_eq!(parse(raw).err(), Some(Reject::BadPath), "{raw}");
    }
}

#[test]
fn invalid_escapes_and_nul_are_refused() {
    for raw in ["/a%00", "/a%", "/a%2", "/a%zz", "/a;%", "/a;%00", "*"] {
        assert_eq!(parse(raw).err(), Some(Reject::BadPath), "{raw}");
    }
}

#[test]
fn a_file_has_no_slash_in_a_segment() {
    assert_eq!(parse("/a//./b%20c").unwrap().file(), Ok("/a/b c"));
    assert_eq!(parse("/a/b%20c/d").unwrap().file_after(1), Ok("b c/d"));
    assert_eq!(parse("/a").unwrap().file_after(1), Ok(""));
    for raw in ["/a%2fb", "/a%5Cb", "/a\\b", "/%ff", "/%c0%ae%c0%ae/x"] {
        assert_eq!(parse(raw).unwrap().file(), Err(Reject::BadPath), "{raw}");
    }
}

#[test]
fn what_follows_the_segments_is_as_it_was_written() {
    let path = parse("/assets/a%20b//c").unwrap();
    assert_eq!(path.written_after(1), "a%20b//c");
    assert_eq!(path.written_from(2), "//c");
    assert_eq!(path.written_after(0), "assets/a%20b//c");
    assert_eq!(parse("/assets").unwrap().written_from(1), "");
    assert_eq!(parse("/assets/").unwrap().written_from(1), "/");
    assert!(path.stays_below(1));
    assert!(parse("/a/x/../y").unwrap().stays_below(1));
    assert!(!parse("/a/../a/x").unwrap().stays_below(1));
    assert!(!parse("/a/..;/a/x").unwrap().stays_below(1));
    assert!(!parse("/a/x%2f..%2f..%2fa").unwrap().stays_below(1));
}

#[test]
fn the_longest_and_oddest_target_is_read_in_bounded_time() {
    let began = std::time::Instant::now();
    let raw = format!("/{}", "a;b%2fc\\d%5ce//./".repeat(450));
    assert_eq!(parse(&raw).unwrap().others().count(), 23 * 4 - 1);
    // Generous for a debug build on a loaded machine; the point is that the time is not exponential in the length.
    assert!(began.elapsed() < std::time::Duration::from_secs(5));
}

proptest! {
    #[test]
    fn paths_hold(
        raw in "/(/|%2e|\\.|%2f|%5c|\\\\|%|[a-c]|%00|;){0,24}",
        uneven in "/(/|%2e|\\.|\\.\\.;?/|%2[fF]|%5C|\\\\|[a-c]|;){0,12}",
        escaped in "/(/|%2e|\\.|%[2-7][0-9a-f]|[a-c]|%C3|;){0,24}",
    ) {
        holds(raw.as_bytes());
        holds(uneven.as_bytes());
        holds(escaped.as_bytes());
    }
}
