//! Guards against real requests: tokens in every place, several verifiers, challenges.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::{AUTHORIZATION, COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::jws::Jws;
use super::testing::{NOW, OTHER, mint, now, raw, raw_by, settings};
use super::*;
use crate::message::reject::{Reject, TokenFault};

fn verifier(change: impl FnOnce(&mut VerifierSettings)) -> Arc<Verifier> {
    let mut settings = settings(Algorithm::HS256);
    change(&mut settings);
    Arc::new(Verifier::new(settings, None).unwrap())
}

fn guard_of(verifiers: Vec<Arc<Verifier>>, change: impl FnOnce(&mut JwtGuardSettings)) -> Guard {
    let mut settings = JwtGuardSettings {
        keys: None,
        basic: None,
        verifiers,
        optional: false,
        require: None,
        forward: Vec::new(),
        strip_token: false,
        only_reports: false,
        ends_with_token: false,
    };
    change(&mut settings);
    Guard::new(Scheme::Jwt(Box::new(JwtGuard::new(settings))), None)
}

fn guard(change: impl FnOnce(&mut JwtGuardSettings)) -> Guard {
    guard_of(vec![verifier(|_| {})], change)
}

fn bearer(token: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
    headers
}

fn nothing_remembered() -> Remembered {
    Remembered::new(0)
}

fn authenticate(guard: &Guard, headers: &HeaderMap) -> Result<Principal, Reject> {
    at_once(guard, headers, None, &nothing_remembered(), now())
}

fn at_once(
    guard: &Guard,
    headers: &HeaderMap,
    query: Option<&str>,
    remembered: &Remembered,
    now: SystemTime,
) -> Result<Principal, Reject> {
    let certified = guard.certify(None, now)?;
    guard
        .authenticate_at_once(&certified, headers, query, remembered, now)
        .map_err(|refused| refused.reject)
}

fn authorize(
    guard: &Guard,
    principal: Principal,
    params: &[(&str, Option<&str>)],
) -> Result<Permit, Reject> {
    guard.authorize(principal, &guard.certify(None, now())?, params)
}

fn permit(guard: &Guard, claims: &Value) -> Result<Permit, Reject> {
    let headers = bearer(&mint(Algorithm::HS256, claims));
    authorize(
        guard,
        authenticate(guard, &headers)?,
        &[("user", Some("7"))],
    )
}

fn user_of(principal: &Principal) -> Option<String> {
    principal.user(&[ClaimPath::parse("sub").unwrap()])
}

fn requirement(value: &Value) -> Option<Requirement> {
    Some(Requirement::parse(value, &["user"]).unwrap())
}

#[test]
fn the_open_guard_asks_for_nothing() {
    let principal = authenticate(&Guard::open(), &bearer("not a token")).unwrap();
    assert!(principal.is_anonymous());
    let permit = authorize(&Guard::open(), principal, &[]).unwrap();
    assert!(permit.identity().is_empty());
    assert_eq!(user_of(&permit.principal), None);
    assert_eq!(Guard::open().challenge(Reject::TokenMissing, || None), None);
}

#[test]
fn a_good_token_gets_in_and_others_do_not() {
    let guard = guard(|_| {});
    let permit = permit(&guard, &json!({"sub": "alice"})).unwrap();
    assert_eq!(user_of(&permit.principal).as_deref(), Some("alice"));
    let seen = |headers: &HeaderMap| authenticate(&guard, headers).map(drop);
    assert_eq!(seen(&HeaderMap::new()), Err(Reject::TokenMissing));
    assert_eq!(
        seen(&bearer("x")),
        Err(Reject::TokenInvalid(TokenFault::Malformed))
    );
    let unsigned = format!(
        "{}.{}.",
        testing::encode(r#"{"alg":"none"}"#),
        testing::encode("{}")
    );
    assert_eq!(
        seen(&bearer(&unsigned)),
        Err(Reject::TokenInvalid(TokenFault::Algorithm))
    );
    let twice = raw(
        Algorithm::HS256,
        r#"{"alg":"HS256"}"#,
        &format!(r#"{{"exp":{},"sub":"a","sub":"b"}}"#, NOW + 60),
    );
    assert_eq!(
        seen(&bearer(&twice)),
        Err(Reject::TokenInvalid(TokenFault::Malformed))
    );
    let critical = raw(
        Algorithm::HS256,
        r#"{"alg":"HS256","crit":["x"],"x":1}"#,
        "{}",
    );
    assert_eq!(
        seen(&bearer(&critical)),
        Err(Reject::TokenInvalid(TokenFault::Critical))
    );
    let long = "a".repeat(16 * 1024 + 1);
    assert_eq!(
        seen(&bearer(&long)),
        Err(Reject::TokenInvalid(TokenFault::TooLong))
    );
}

#[test]
fn optional_lets_the_anonymous_in_and_never_a_bad_token() {
    let guard = guard(|settings| settings.optional = true);
    let anonymous = authenticate(&guard, &HeaderMap::new()).unwrap();
    assert!(anonymous.is_anonymous());
    assert!(authorize(&guard, anonymous, &[]).is_ok());
    let expired = mint(Algorithm::HS256, &json!({"exp": NOW - 60}));
    assert_eq!(
        authenticate(&guard, &bearer(&expired)).unwrap_err(),
        Reject::TokenInvalid(TokenFault::Expired)
    );
    assert!(matches!(
        authenticate(&guard, &bearer("a b")).unwrap_err(),
        Reject::TokenMalformed(_)
    ));
}

#[test]
fn the_anonymous_do_not_get_past_a_requirement() {
    let guard = guard(|settings| {
        settings.optional = true;
        settings.require = requirement(&json!({"role": "admin"}));
    });
    let anonymous = authenticate(&guard, &HeaderMap::new()).unwrap();
    assert_eq!(
        authorize(&guard, anonymous, &[]).unwrap_err(),
        Reject::TokenMissing
    );
    assert_eq!(
        permit(&guard, &json!({"role": "user"})).unwrap_err(),
        Reject::Forbidden
    );
    assert!(permit(&guard, &json!({"role": "admin"})).is_ok());
}

#[test]
fn a_principal_of_another_route_is_not_let_in() {
    let guard = guard(|_| {});
    assert_eq!(
        authorize(&guard, Principal::anonymous(), &[]).unwrap_err(),
        Reject::TokenMissing
    );
}

#[test]
fn claims_are_forwarded_as_headers() {
    let name = HeaderName::from_static;
    let guard = guard(|settings| {
        settings.require = requirement(&json!({"sub": "{user}"}));
        settings.forward = vec![
            (name("x-user-id"), ClaimPath::parse("sub").unwrap()),
            (
                name("x-user-roles"),
                ClaimPath::parse("realm_access.roles").unwrap(),
            ),
        ];
    });
    assert_eq!(
        guard.identity_names().collect::<Vec<_>>(),
        ["x-user-id", "x-user-roles"]
    );
    let both = permit(
        &guard,
        &json!({"sub": "7", "realm_access": {"roles": ["a", "b"]}}),
    )
    .unwrap();
    let value = HeaderValue::from_static;
    assert_eq!(
        both.identity(),
        [
            (name("x-user-id"), value("7")),
            (name("x-user-roles"), value("a,b"))
        ]
    );
    let one = permit(&guard, &json!({"sub": "7"})).unwrap();
    assert_eq!(one.identity(), [(name("x-user-id"), value("7"))]);
    let split = json!({"sub": "7", "realm_access": {"roles": "a\r\nX-Admin: 1"}});
    assert_eq!(permit(&guard, &split).unwrap_err(), Reject::ClaimUnfit);
    assert_eq!(
        permit(&guard, &json!({"sub": "8"})).unwrap_err(),
        Reject::Forbidden
    );
}

#[test]
fn challenges_say_what_rfc_6750_says() {
    let guard = guard(|settings| {
        settings.require = requirement(&json!({"scope": ["orders:read", "orders:write"]}));
    });
    for (reject, expected) in [
        (Reject::TokenMissing, r#"Bearer realm="app""#),
        (
            Reject::TokenMalformed("the bearer token is malformed"),
            r#"Bearer realm="app", error="invalid_request", error_description="the bearer token is malformed""#,
        ),
        (
            Reject::TokenInvalid(TokenFault::Expired),
            r#"Bearer realm="app", error="invalid_token", error_description="the token has expired""#,
        ),
        (
            Reject::Forbidden,
            r#"Bearer realm="app", error="insufficient_scope", scope="orders:read orders:write""#,
        ),
    ] {
        assert_eq!(guard.challenge(reject, || None).unwrap(), expected);
    }
    for reject in [
        Reject::ClaimUnfit,
        Reject::NoRoute,
        Reject::FileNotFound,
        Reject::AccelNotFound,
        Reject::Internal,
    ] {
        assert_eq!(guard.challenge(reject, || None), None);
    }
    let odd = guard_of(
        vec![verifier(|settings| {
            settings.name = "a\"b\\\n\u{e9}".to_owned();
        })],
        |_| {},
    );
    assert_eq!(
        odd.challenge(Reject::TokenMissing, || None).unwrap(),
        r#"Bearer realm="a?b???""#
    );
}

#[test]
fn strip_token_takes_it_out_of_wherever_it_was() {
    let from = vec![
        TokenSource::Header,
        TokenSource::Cookie("at".to_owned()),
        TokenSource::Query("token".to_owned()),
    ];
    let guards = [true, false].map(|strip| {
        let verifier = verifier(|settings| settings.from = from.clone());
        guard_of(vec![verifier], |settings| settings.strip_token = strip)
    });
    let token = mint(Algorithm::HS256, &json!({}));
    let mut headers = bearer(&token);
    headers.insert(COOKIE, format!("a=1; at={token}; b=2").parse().unwrap());
    let target = format!("/a?x=1&token={token}");
    let (_, query) = target.split_once('?').unwrap();
    for (guard, strips) in guards.iter().zip([true, false]) {
        let principal =
            at_once(guard, &headers, Some(query), &nothing_remembered(), now()).unwrap();
        let permit = authorize(guard, principal, &[]).unwrap();
        let mut stripped = headers.clone();
        let new = permit.strip_token(&mut stripped, &target);
        if strips {
            assert_eq!(new.as_deref(), Some("/a?x=1"));
            assert_eq!(stripped.get(COOKIE).unwrap(), "a=1; b=2");
            assert!(!stripped.contains_key(AUTHORIZATION));
        } else {
            assert_eq!(new, None);
            assert_eq!(stripped, headers);
        }
    }
}

#[test]
fn a_place_counts_for_the_verifiers_that_list_it() {
    let by_header = verifier(|settings| settings.issuer = vec!["h".to_owned()]);
    let by_cookie = verifier(|settings| {
        settings.issuer = vec!["c".to_owned()];
        settings.from = vec![TokenSource::Cookie("at".to_owned())];
    });
    let guard = guard_of(vec![by_header, by_cookie], |_| {});
    let cookie = |issuer: &str| {
        let mut headers = HeaderMap::new();
        let token = mint(Algorithm::HS256, &json!({"iss": issuer}));
        headers.insert(COOKIE, format!("at={token}").parse().unwrap());
        headers
    };
    assert!(authenticate(&guard, &cookie("c")).is_ok());
    assert_eq!(
        authenticate(&guard, &cookie("h")).unwrap_err(),
        Reject::TokenInvalid(TokenFault::Issuer)
    );
}

#[test]
fn of_several_verifiers_the_one_with_the_issuer_decides() {
    let strict = || {
        verifier(|settings| {
            settings.issuer = vec!["a".to_owned()];
            settings.audience = Audience::OneOf(vec!["me".to_owned()]);
        })
    };
    let lenient = || verifier(|settings| settings.audience = Audience::Any);
    for verifiers in [vec![strict(), lenient()], vec![lenient(), strict()]] {
        let guard = guard_of(verifiers, |_| {});
        let seen = |claims: Value| {
            authenticate(&guard, &bearer(&mint(Algorithm::HS256, &claims))).map(drop)
        };
        assert_eq!(seen(json!({"iss": "a", "aud": "me"})), Ok(()));
        assert_eq!(
            seen(json!({"iss": "a", "aud": "you"})),
            Err(Reject::TokenInvalid(TokenFault::Audience))
        );
        assert_eq!(seen(json!({"iss": "b", "aud": "you"})), Ok(()));
        assert_eq!(seen(json!({})), Ok(()));
    }
}

#[test]
fn without_an_issuer_each_fitting_verifier_is_tried_up_to_four() {
    let other_secret =
        || verifier(|settings| settings.keys = vec![KeySource::Secret(vec![b'o'; 32])]);
    let rsa = || Arc::new(Verifier::new(settings(Algorithm::RS256), None).unwrap());
    let token = bearer(&mint(Algorithm::HS256, &json!({})));
    let with = |others: Vec<Arc<Verifier>>| {
        let mut verifiers = others;
        verifiers.push(verifier(|_| {}));
        authenticate(&guard_of(verifiers, |_| {}), &token).map(drop)
    };
    assert_eq!(with((0..3).map(|_| other_secret()).collect()), Ok(()));
    let fifth = with((0..4).map(|_| other_secret()).collect());
    assert_eq!(fifth, Err(Reject::TokenInvalid(TokenFault::Signature)));
    // Those of another algorithm are not counted.
    assert_eq!(with((0..9).map(|_| rsa()).collect()), Ok(()));

    let two = guard_of(vec![rsa(), other_secret()], |_| {});
    let seen = |token: String| match authenticate(&two, &bearer(&token)) {
        Err(Reject::TokenInvalid(fault)) => fault,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        seen(mint(Algorithm::HS256, &json!({}))),
        TokenFault::Signature
    );
    assert_eq!(
        seen(mint(Algorithm::ES256, &json!({}))),
        TokenFault::Algorithm
    );
    assert_eq!(
        seen(mint(Algorithm::RS256, &json!({"exp": 1}))),
        TokenFault::Expired
    );
    let forged = raw_by(&OTHER, Algorithm::RS256, r#"{"alg":"RS256"}"#, "{}");
    assert_eq!(seen(forged), TokenFault::Signature);
}

#[test]
fn a_remembered_token_is_still_checked_against_the_clock() {
    let guard = guard(|_| {});
    let remembered = Remembered::new(1 << 20);
    let headers = bearer(&mint(
        Algorithm::HS256,
        &json!({"exp": NOW + 60, "sub": "a"}),
    ));
    let at = |seconds| {
        let then = now() + Duration::from_secs(seconds);
        at_once(&guard, &headers, None, &remembered, then)
    };
    assert_eq!(user_of(&at(0).unwrap()).as_deref(), Some("a"));
    assert_eq!(user_of(&at(89).unwrap()).as_deref(), Some("a"));
    assert_eq!(
        at(90).unwrap_err(),
        Reject::TokenInvalid(TokenFault::Expired)
    );
}

#[test]
fn what_one_route_remembers_does_not_open_another() {
    let remembered = Remembered::new(1 << 20);
    let lenient = verifier(|settings| settings.audience = Audience::Any);
    let strict = verifier(|settings| settings.issuer = vec!["a".to_owned()]);
    let wide = guard_of(vec![Arc::clone(&lenient)], |_| {});
    let narrow = guard_of(vec![Arc::clone(&strict)], |_| {});
    let both = guard_of(vec![lenient, strict], |_| {});
    let headers = bearer(&mint(Algorithm::HS256, &json!({"iss": "a", "aud": "you"})));
    let seen = |guard: &Guard| at_once(guard, &headers, None, &remembered, now()).map(drop);
    let refused = Err(Reject::TokenInvalid(TokenFault::Audience));
    for _ in 0..2 {
        assert_eq!(seen(&both), refused);
        assert_eq!(seen(&narrow), refused);
        assert_eq!(seen(&wide), Ok(()));
    }
}

#[test]
fn bad_tokens_are_not_remembered_and_a_new_verifier_knows_nothing() {
    let remembered = Remembered::new(1 << 20);
    let token = mint(Algorithm::HS256, &json!({}));
    let headers = bearer(&token);
    let old = guard(|_| {});
    assert!(at_once(&old, &headers, None, &remembered, now()).is_ok());
    let rotated = guard_of(
        vec![verifier(|settings| {
            settings.keys = vec![KeySource::Secret(vec![b'n'; 32])];
        })],
        |_| {},
    );
    for _ in 0..2 {
        let seen = at_once(&rotated, &headers, None, &remembered, now());
        assert_eq!(
            seen.unwrap_err(),
            Reject::TokenInvalid(TokenFault::Signature)
        );
    }
    let mut tampered = token;
    tampered.pop();
    let seen = at_once(&old, &bearer(&tampered), None, &remembered, now());
    assert!(seen.is_err());
}

#[test]
fn guards_are_shared_between_workers_and_nothing_shows_a_token() {
    fn shared<T: Send + Sync>() {}
    shared::<Guard>();
    shared::<Remembered>();
    shared::<Permit>();

    let guard = guard(|_| {});
    let remembered = Remembered::new(1 << 20);
    let token = mint(Algorithm::HS256, &json!({"email": "a@example.com"}));
    let headers = bearer(&token);
    let principal = at_once(&guard, &headers, None, &remembered, now()).unwrap();
    let found = token::find(&headers, None, &[TokenSource::Header]).unwrap();
    let jws = Jws::parse(&token).unwrap();
    let permit = authorize(&guard, principal, &[]).unwrap();
    let shown = format!("{guard:?} {remembered:?} {found:?} {jws:?} {permit:?}");
    let (signed, signature) = token.rsplit_once('.').unwrap();
    for secret in [signed, signature, "a@example.com", "0123456789abcdef"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}
