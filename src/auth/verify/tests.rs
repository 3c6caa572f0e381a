//! Tokens that are accepted, and those that are refused with their reason.

use serde_json::{Map, json};

use super::super::testing::{NOW, now, raw, settings};
use super::*;

const ALGORITHM: Algorithm = Algorithm::HS256;

fn verifier(change: impl FnOnce(&mut VerifierSettings)) -> Verifier {
    let mut settings = settings(ALGORITHM);
    change(&mut settings);
    Verifier::new(settings, None).unwrap()
}

fn outcome(verifier: &Verifier, typ: Option<&str>, claims: &Value) -> Result<(), TokenFault> {
    let token_alone = |unsigned: Unsigned| match unsigned.why {
        Unverified::Token(fault) => fault,
        Unverified::NoKeys => panic!("the keys are fixed"),
    };
    let mut header = Map::new();
    header.insert("alg".to_owned(), ALGORITHM.name().into());
    if let Some(typ) = typ {
        header.insert("typ".to_owned(), typ.into());
    }
    let token = raw(
        ALGORITHM,
        &Value::Object(header).to_string(),
        &claims.to_string(),
    );
    let jws = Jws::parse(&token)?;
    verifier.check_signature(&jws).map_err(token_alone)?;
    verifier
        .check_claims(
            jws.typ.as_deref(),
            &jws.claims()?,
            Holder::Client(None),
            now(),
        )
        .map(drop)
}

#[track_caller]
fn check(verifier: &Verifier, mut claims: Value, expected: Result<(), TokenFault>) {
    if let Some(members) = claims.as_object_mut() {
        members.entry("exp").or_insert_with(|| json!(NOW + 60));
    }
    assert_eq!(outcome(verifier, None, &claims), expected, "{claims}");
}

#[test]
fn expiry_is_honored_to_the_second() {
    let strict = verifier(|settings| settings.leeway = Duration::ZERO);
    let lenient = verifier(|_| {});
    for (verifier, leeway) in [(strict, 0), (lenient, 30)] {
        check(&verifier, json!({"exp": NOW - leeway + 1}), Ok(()));
        check(
            &verifier,
            json!({"exp": NOW - leeway}),
            Err(TokenFault::Expired),
        );
        check(
            &verifier,
            json!({"exp": NOW - leeway - 1}),
            Err(TokenFault::Expired),
        );
        check(&verifier, json!({"nbf": NOW + leeway}), Ok(()));
        check(
            &verifier,
            json!({"nbf": NOW + leeway + 1}),
            Err(TokenFault::Immature),
        );
        check(&verifier, json!({"iat": NOW + leeway}), Ok(()));
        check(
            &verifier,
            json!({"iat": NOW + leeway + 1}),
            Err(TokenFault::IssuedInFuture),
        );
    }
}

#[test]
fn dates_are_numbers_below_2_to_the_53() {
    let plain = verifier(|_| {});
    check(
        &plain,
        json!({"exp": NOW as f64 + 0.5, "nbf": 1.5, "iat": -1}),
        Ok(()),
    );
    check(&plain, json!({"exp": 9_007_199_254_740_991_u64}), Ok(()));
    for name in ["exp", "nbf", "iat"] {
        for value in [
            json!(null),
            json!("1790000060"),
            json!(true),
            json!([NOW]),
            json!(9_007_199_254_740_992_u64),
            json!(u64::MAX),
            json!(1e300),
            json!(-1e300),
        ] {
            check(&plain, json!({name: value}), Err(TokenFault::Claim(name)));
        }
    }
}

#[test]
fn exp_is_required_unless_the_verifier_says_otherwise() {
    let plain = verifier(|_| {});
    assert_eq!(
        outcome(&plain, None, &json!({})),
        Err(TokenFault::Claim("exp"))
    );
    let lenient = verifier(|settings| settings.require_exp = false);
    assert_eq!(outcome(&lenient, None, &json!({})), Ok(()));
    check(&lenient, json!({"exp": NOW - 60}), Err(TokenFault::Expired));
    check(
        &lenient,
        json!({"exp": null}),
        Err(TokenFault::Claim("exp")),
    );
}

#[test]
fn iat_alone_may_lie_further_ahead() {
    let verifier = verifier(|settings| {
        settings.leeway = Duration::ZERO;
        settings.iat_ahead = Duration::from_secs(60);
    });
    check(&verifier, json!({"iat": NOW + 60}), Ok(()));
    let later = json!({"iat": NOW + 61});
    check(&verifier, later, Err(TokenFault::IssuedInFuture));
    check(&verifier, json!({"exp": NOW}), Err(TokenFault::Expired));
    let immature = json!({"nbf": NOW + 1});
    check(&verifier, immature, Err(TokenFault::Immature));
}

#[test]
fn a_lifetime_is_measured_from_iat() {
    let limited = verifier(|settings| settings.max_lifetime = Some(Duration::from_secs(60)));
    check(&limited, json!({"iat": NOW, "exp": NOW + 60}), Ok(()));
    check(
        &limited,
        json!({"iat": NOW, "exp": NOW + 61}),
        Err(TokenFault::Lifetime),
    );
    check(
        &limited,
        json!({"exp": NOW + 1}),
        Err(TokenFault::Claim("iat")),
    );
    let endless = verifier(|settings| {
        settings.max_lifetime = Some(Duration::from_secs(60));
        settings.require_exp = false;
    });
    assert_eq!(
        outcome(&endless, None, &json!({"iat": NOW})),
        Err(TokenFault::Claim("exp"))
    );
}

#[test]
fn the_issuer_is_one_of_those_that_are_named() {
    let named = verifier(|settings| settings.issuer = vec!["a".to_owned(), "b".to_owned()]);
    check(&named, json!({"iss": "a"}), Ok(()));
    check(&named, json!({"iss": "b"}), Ok(()));
    check(&named, json!({"iss": "a/"}), Err(TokenFault::Issuer));
    check(&named, json!({"iss": ["a"]}), Err(TokenFault::Claim("iss")));
    check(&named, json!({}), Err(TokenFault::Claim("iss")));
    check(&verifier(|_| {}), json!({"iss": "anybody"}), Ok(()));
}

#[test]
fn the_audience_is_somebody_who_is_named() {
    let unset = verifier(|_| {});
    check(&unset, json!({}), Ok(()));
    for audience in [json!("a"), json!(["a"]), json!([]), json!(null), json!(7)] {
        check(&unset, json!({"aud": audience}), Err(TokenFault::Audience));
    }
    let any = verifier(|settings| settings.audience = Audience::Any);
    check(&any, json!({"aud": "a"}), Ok(()));
    check(&any, json!({}), Ok(()));
    let named = verifier(|settings| {
        settings.audience = Audience::OneOf(vec!["a".to_owned(), "b".to_owned()]);
    });
    check(&named, json!({"aud": "b"}), Ok(()));
    check(&named, json!({"aud": ["x", "a"]}), Ok(()));
    check(&named, json!({"aud": "x"}), Err(TokenFault::Audience));
    check(&named, json!({"aud": "A"}), Err(TokenFault::Audience));
    check(&named, json!({"aud": []}), Err(TokenFault::Audience));
    check(
        &named,
        json!({"aud": ["a", 1]}),
        Err(TokenFault::Claim("aud")),
    );
    check(&named, json!({}), Err(TokenFault::Claim("aud")));
}

#[test]
fn the_type_is_compared_without_case_and_prefix() {
    let typed = |typ: &str| verifier(|settings| settings.typ = Some(typ.to_owned()));
    let claims = json!({"exp": NOW + 60});
    for expected in ["at+jwt", "application/at+jwt", "AT+JWT"] {
        let typed = typed(expected);
        for typ in [
            "at+jwt",
            "AT+jwt",
            "application/at+jwt",
            "APPLICATION/at+JWT",
        ] {
            assert_eq!(outcome(&typed, Some(typ), &claims), Ok(()), "{typ}");
        }
        for typ in [
            None,
            Some("JWT"),
            Some(""),
            Some("x/at+jwt"),
            Some("application/"),
        ] {
            assert_eq!(
                outcome(&typed, typ, &claims),
                Err(TokenFault::Type),
                "{typ:?}"
            );
        }
    }
    assert_eq!(
        outcome(&verifier(|_| {}), Some("anything"), &claims),
        Ok(())
    );
}

#[test]
fn the_verifiers_own_claims_are_there_and_equal() {
    let own = verifier(|settings| {
        settings.claims = vec![
            (ClaimPath::parse("token_type").unwrap(), json!("access")),
            (ClaimPath::parse("a.b").unwrap(), json!([1])),
        ];
    });
    check(
        &own,
        json!({"token_type": "access", "a": {"b": [1]}}),
        Ok(()),
    );
    for claims in [
        json!({"token_type": "refresh", "a": {"b": [1]}}),
        json!({"a": {"b": [1]}}),
        json!({"token_type": "access", "a": {"b": 1}}),
        json!({"token_type": ["access"], "a": {"b": [1]}}),
    ] {
        check(&own, claims, Err(TokenFault::RequiredClaim));
    }
}

#[test]
fn remembered_dates_are_checked_as_fresh_ones() {
    let verifier = verifier(|settings| settings.leeway = Duration::ZERO);
    let claims = json!({"exp": NOW + 60, "nbf": NOW - 60});
    let claims = Claims::new(claims.as_object().unwrap().clone());
    let nobody = Holder::Client(None);
    let terms = verifier.check_claims(None, &claims, nobody, now()).unwrap();
    let verified = verifier.found(claims, terms);
    let right = |at: SystemTime| verifier.is_still_right(&verified, nobody, at);
    assert!(right(now() + Duration::from_secs(59)));
    assert!(!right(now() + Duration::from_secs(60)));
    assert!(!right(now() - Duration::from_secs(61)));
    assert!(!right(UNIX_EPOCH - Duration::from_secs(1)));
}

#[test]
fn each_verifier_is_itself_alone() {
    assert_ne!(verifier(|_| {}).stamp(), verifier(|_| {}).stamp());
}

#[test]
fn a_verifier_whose_revocations_change_is_the_same_one() {
    let made_of = settings(ALGORITHM);
    let before = Verifier::new(made_of.clone(), None).unwrap();
    let mut revoking = made_of.clone();
    revoking.revoked.subject("mallory".to_owned(), None);
    let after = Verifier::new(revoking, Some((&made_of, &before))).unwrap();
    assert_eq!(after.stamp(), before.stamp());
    check(&before, json!({"sub": "mallory"}), Ok(()));
    check(&after, json!({"sub": "mallory"}), Err(TokenFault::Revoked));
    check(&after, json!({"sub": "alice"}), Ok(()));
    // A cached token is checked again.
    let claims = json!({"sub": "mallory", "exp": NOW + 60});
    let claims = Claims::new(claims.as_object().unwrap().clone());
    let nobody = Holder::Client(None);
    let terms = before.check_claims(None, &claims, nobody, now()).unwrap();
    let remembered = before.found(claims, terms);
    assert!(before.is_still_right(&remembered, nobody, now()));
    assert!(!after.is_still_right(&remembered, nobody, now()));
    // Any other change makes another verifier.
    let mut other = made_of.clone();
    other.leeway = Duration::ZERO;
    let other = Verifier::new(other, Some((&made_of, &before))).unwrap();
    assert_ne!(other.stamp(), before.stamp());
}
