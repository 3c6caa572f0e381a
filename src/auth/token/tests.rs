//! Where a token is found, and what is refused for being two or none.

use proptest::prelude::*;

use super::*;

fn places() -> Vec<TokenSource> {
    vec![
        TokenSource::Header,
        TokenSource::Cookie("at".to_owned()),
        TokenSource::Query("token".to_owned()),
    ]
}

fn headers(authorization: &[&str], cookies: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in authorization {
        headers.append(
            AUTHORIZATION,
            HeaderValue::from_bytes(line.as_bytes()).unwrap(),
        );
    }
    for line in cookies {
        headers.append(COOKIE, HeaderValue::from_bytes(line.as_bytes()).unwrap());
    }
    headers
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome<'t> {
    Token(&'t str, u64),
    Nothing,
    Malformed,
    TooLong,
}

/// The token's text and its places.
fn read(found: Result<Option<Found<'_>>, Reject>) -> Result<Option<(String, u64)>, Reject> {
    let Some(found) = found? else {
        return Ok(None);
    };
    Ok(Some((found.text()?.to_owned(), found.places)))
}

#[track_caller]
fn check(authorization: &[&str], cookies: &[&str], query: Option<&str>, expected: Outcome<'_>) {
    let headers = headers(authorization, cookies);
    let found = find(&headers, query, &places());
    let read = read(found);
    let seen = match &read {
        Ok(Some((token, places))) => Outcome::Token(token, *places),
        Ok(None) => Outcome::Nothing,
        Err(Reject::TokenInvalid(TokenFault::TooLong)) => Outcome::TooLong,
        Err(Reject::TokenMalformed(_)) => Outcome::Malformed,
        Err(other) => panic!("{other:?}"),
    };
    assert_eq!(seen, expected);
}

#[test]
fn one_token_is_found_wherever_it_stands() {
    check(&["Bearer a.b.c"], &[], None, Outcome::Token("a.b.c", 0b001));
    check(
        &["bEARER   a.b.c"],
        &[],
        None,
        Outcome::Token("a.b.c", 0b001),
    );
    check(&["Bearer a=="], &[], None, Outcome::Token("a==", 0b001));
    check(
        &[],
        &["x=1; at=a.b.c;y=2"],
        None,
        Outcome::Token("a.b.c", 0b010),
    );
    check(
        &[],
        &["x=1", "at=\"a.b.c\""],
        None,
        Outcome::Token("a.b.c", 0b010),
    );
    check(
        &[],
        &[],
        Some("x=1&token=a.b%2Ec&y"),
        Outcome::Token("a.b.c", 0b100),
    );
    check(
        &[],
        &[],
        Some("%74oken=a.b.c"),
        Outcome::Token("a.b.c", 0b100),
    );
}

#[test]
fn other_schemes_and_empty_places_are_no_token() {
    check(&[], &[], None, Outcome::Nothing);
    check(&["Basic dTpw"], &[], None, Outcome::Nothing);
    check(
        &["Bearertoken abc", "Beare abc", ""],
        &[],
        None,
        Outcome::Nothing,
    );
    check(&["Basic dTpw, Bearer abc"], &[], None, Outcome::Nothing);
    check(
        &[],
        &["at=; AT=x; at2=y; at"],
        Some("token=&Token=x&token"),
        Outcome::Nothing,
    );
}

#[test]
fn malformed_tokens_are_refused() {
    for line in [
        "Bearer",
        "Bearer ",
        "Bearer,",
        "Bearer\tabc",
        "Bearer a b",
        "Bearer a, Bearer a",
        "Bearer a,b",
        "Bearer \"a\"",
        "Bearer a=b",
        "Bearer ==",
        "Bearer a\u{e9}",
        "Bearer a\t",
    ] {
        check(&[line], &[], None, Outcome::Malformed);
    }
    check(&[], &["at=a b"], None, Outcome::Malformed);
    check(&[], &["at=\"a"], None, Outcome::Malformed);
    for query in [
        "token=a%",
        "token=a%2",
        "token=a%zz",
        "token=a%00",
        "token=a%20b",
    ] {
        check(&[], &[], Some(query), Outcome::Malformed);
    }
}

#[test]
fn every_byte_is_one_of_b64token_or_is_not() {
    for byte in 0..=u8::MAX {
        let naive = byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
        assert_eq!(is_b64token(&[b'a', byte, b'a']), naive, "{byte:#x}");
    }
}

#[test]
fn two_different_tokens_are_refused_and_the_same_one_twice_is_not() {
    check(
        &["Bearer a", "Bearer a"],
        &["at=a"],
        Some("token=%61"),
        Outcome::Token("a", 0b111),
    );
    check(
        &["Bearer a", "Basic b"],
        &[],
        None,
        Outcome::Token("a", 0b001),
    );
    check(&["Bearer a", "Bearer b"], &[], None, Outcome::Malformed);
    check(&["Bearer a"], &["at=b"], None, Outcome::Malformed);
    check(&["Bearer a"], &[], Some("token=b"), Outcome::Malformed);
    check(&["Bearer a", "Bearer"], &[], None, Outcome::Malformed);
    check(&[], &["at=a; at=b"], None, Outcome::Token("a", 2));
    check(&[], &["at=a; at=b"], Some("token=a"), Outcome::Malformed);
    check(&["Bearer a"], &["at=a; at=b"], None, Outcome::Malformed);
    check(
        &[],
        &["at=a; at=b; at=c; at=d; at=b"],
        None,
        Outcome::Token("a", 2),
    );
    check(
        &[],
        &["at=a; at=b; at=c; at=d; at=e"],
        None,
        Outcome::Malformed,
    );
    check(&[], &[], Some("token=a&tok%65n=b"), Outcome::Malformed);
}

#[test]
fn places_that_are_not_listed_are_not_searched() {
    let headers = headers(&["Bearer a"], &["at=b"]);
    let found = find(
        &headers,
        Some("token=c"),
        &[TokenSource::Cookie("at".to_owned())],
    );
    assert_eq!(found.unwrap().unwrap().text(), Ok("b"));
}

#[test]
fn a_websocket_offers_its_token_behind_bearer() {
    let check = |lines: &[&str], expected: Result<Option<&str>, ()>, left: &[&str]| {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(SEC_WEBSOCKET_PROTOCOL, line.parse().unwrap());
        }
        let found = find(&headers, None, &[TokenSource::WebSocket]);
        let seen = read(found).map_err(drop);
        let expected = expected.map(|text| text.map(|text| (text.to_owned(), 1)));
        assert_eq!(seen, expected, "{lines:?}");
        strip(&mut headers, None, &[TokenSource::WebSocket]);
        let rest: Vec<_> = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().collect();
        assert_eq!(rest, left, "{lines:?}");
    };
    check(&[], Ok(None), &[]);
    check(&["chat"], Ok(None), &["chat"]);
    check(&["bearer, a.b.c"], Ok(Some("a.b.c")), &[]);
    check(
        &["chat,Bearer,a.b.c ,  v2"],
        Ok(Some("a.b.c")),
        &["chat, v2"],
    );
    check(&["bearer", "a.b.c, chat"], Ok(Some("a.b.c")), &["chat"]);
    check(&["bearer"], Ok(None), &[]);
    check(&["bearer, a, bearer, a"], Ok(Some("a")), &[]);
    check(&["bearer, a, bearer, b"], Err(()), &[]);
    check(&["bearer, a b"], Err(()), &[]);
    check(&["bearer, bearer"], Ok(Some("bearer")), &[]);
}

#[test]
fn a_basic_password_is_a_token_whoever_the_user_is() {
    let places = [TokenSource::Header, TokenSource::Basic];
    let malformed = Reject::TokenInvalid(TokenFault::Malformed);
    let encode = |text: &str| BASE64.encode(text);
    for (lines, expected) in [
        (
            vec![format!("Basic {}", encode("__token__:a.b.c"))],
            Ok(Some(("a.b.c", 0b10))),
        ),
        (
            vec![format!("bASIC   {}", encode(":a.b.c"))],
            Ok(Some(("a.b.c", 0b10))),
        ),
        (
            vec![format!("Basic {}", encode("x:a.b.c").trim_end_matches('='))],
            Ok(Some(("a.b.c", 0b10))),
        ),
        (vec![format!("Basic {}", encode("alice:"))], Ok(None)),
        (vec![format!("Basic {}", encode("alice"))], Err(malformed)),
        (vec![format!("Basic {}", encode("a:b:c"))], Err(malformed)),
        (
            vec![format!("Basic {}", encode("a:pass word"))],
            Err(malformed),
        ),
        (vec!["Basic".to_owned()], Err(malformed)),
        (vec!["Basic !".to_owned()], Err(malformed)),
        (vec![format!("Basics {}", encode("a:b"))], Ok(None)),
        (
            vec![format!("Basic {}", encode("a:t")), "Bearer t".to_owned()],
            Ok(Some(("t", 0b11))),
        ),
        (
            vec![format!("Basic {}", encode("a:t")), "Bearer u".to_owned()],
            Err(Reject::TokenMalformed(
                "the request has two different bearer tokens",
            )),
        ),
    ] {
        let borrowed: Vec<&str> = lines.iter().map(String::as_str).collect();
        let mut seen = headers(&borrowed, &[]);
        let found = find(&seen, None, &places);
        let found = found.map(|found| found.map(|it| (it.text().unwrap().to_owned(), it.places)));
        let expected = expected.map(|it| it.map(|(text, at)| (text.to_owned(), at)));
        assert_eq!(found, expected, "{lines:?}");
        assert_eq!(find(&seen, None, &[]), Ok(None));
        strip(&mut seen, None, &places);
        let others = lines.iter().any(|line| line.starts_with("Basics"));
        assert_eq!(seen.contains_key(AUTHORIZATION), others, "{lines:?}");
    }
}

#[test]
fn sixteen_kibibytes_are_read_and_one_byte_more_is_not() {
    let longest = "a".repeat(MAX_BYTES);
    check(
        &[&format!("Bearer {longest}")],
        &[],
        None,
        Outcome::Token(&longest, 1),
    );
    check(
        &[&format!("Bearer {longest}a")],
        &[],
        None,
        Outcome::TooLong,
    );
}

#[track_caller]
fn strips(before: (&[&str], &[&str], Option<&str>), after: (&[&str], &[&str], Option<&str>)) {
    let mut stripped = headers(before.0, before.1);
    let query = strip(&mut stripped, before.2, &places());
    assert_eq!(stripped, headers(after.0, after.1));
    assert_eq!(query.as_deref(), after.2);
}

#[test]
fn stripping_takes_the_token_alone() {
    strips((&["Bearer a"], &[], None), (&[], &[], None));
    strips(
        (&["Basic x", "bearer a"], &[], Some("q")),
        (&["Basic x"], &[], None),
    );
    strips(
        (&[], &["x=1;at=a; y=\"2\"", "z"], None),
        (&[], &["x=1; y=\"2\"", "z"], None),
    );
    strips((&[], &["at=a", "x=1"], None), (&[], &["x=1"], None));
    strips((&[], &["x=1;y=2"], None), (&[], &["x=1;y=2"], None));
    strips(
        (&[], &[], Some("a=%20&token=x&b")),
        (&[], &[], Some("a=%20&b")),
    );
    strips(
        (&[], &[], Some("token=x&tok%65n=x&token")),
        (&[], &[], Some("")),
    );
    strips((&[], &[], Some("tokens=x")), (&[], &[], None));
}

proptest! {
    /// However the tokens are distributed and encoded, only a request whose tokens are all the same, or all
    /// cookies of one name, is accepted, and after stripping none is left.
    #[test]
    fn two_different_tokens_never_get_through(
        lines in proptest::collection::vec("(Bearer|bearer|Basic|BEARER) {1,2}[ab]{0,2}", 0..3),
        cookies in proptest::collection::vec("(at|x)=[ab]{0,2}(; ?(at|x)=[ab]{0,2})?", 0..3),
        query in proptest::option::of("((token|tok%65n|x)=([ab]|%61|%62){0,2}&){0,3}x"),
    ) {
        let authorization: Vec<&str> = lines.iter().map(String::as_str).collect();
        let cookie_lines: Vec<&str> = cookies.iter().map(String::as_str).collect();
        let mut headers = headers(&authorization, &cookie_lines);

        // The naive parser: every token, decoded.
        let mut tokens: Vec<String> = Vec::new();
        for line in &lines {
            let (scheme, rest) = line.split_once(' ').unwrap();
            if scheme.eq_ignore_ascii_case("bearer") {
                tokens.push(rest.trim().to_owned());
            }
        }
        let in_lines = tokens.iter().any(|token| !token.is_empty());
        for pair in cookies.iter().flat_map(|line| line.split(';')) {
            if let Some(value) = pair.trim().strip_prefix("at=").filter(|v| !v.is_empty()) {
                tokens.push(value.to_owned());
            }
        }
        for pair in query.iter().flat_map(|query| query.split('&')) {
            let pair = pair.replace("%65", "e").replace("%61", "a").replace("%62", "b");
            if let Some(value) = pair.strip_prefix("token=").filter(|v| !v.is_empty()) {
                tokens.push(value.to_owned());
            }
        }
        let in_query = query.iter().flat_map(|query| query.split('&')).any(|pair| {
            let key = pair.split('=').next().unwrap_or_default().replace("%65", "e");
            key == "token" && pair.split_once('=').is_some_and(|(_, value)| !value.is_empty())
        });
        tokens.sort();
        tokens.dedup();

        let found = read(find(&headers, query.as_deref(), &places()));
        match (tokens.as_slice(), &found) {
            ([], Ok(None)) => {}
            ([one], Ok(Some((found, _)))) => prop_assert_eq!(found, one),
            ([one], Err(Reject::TokenMalformed(_))) => prop_assert_eq!(one, ""),
            (several @ [_, _, ..], Ok(Some((found, _)))) => {
                prop_assert!(several.contains(found) && several.len() <= 1 + MAX_RIVALS);
                prop_assert!(!in_lines && !in_query);
            }
            ([_, _, ..], Err(Reject::TokenMalformed(_))) => {}
            other => prop_assert!(false, "{:?}", other),
        }

        let new = strip(&mut headers, query.as_deref(), &places());
        let left = find(&headers, new.as_deref().or(query.as_deref()), &places());
        prop_assert_eq!(left, Ok(None));
    }
}
