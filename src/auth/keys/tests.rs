//! Keys from files and sets: which are taken, and why others are not.

use serde_json::{Value, json};

use super::super::testing::{
    KEYS, OTHER, SECRET, encode, jwk, jwk_of, jwks, mint, pem, raw, source, spki,
};
use super::*;

fn load(sources: &[KeySource], algorithms: &[Algorithm]) -> Result<KeySet, Vec<KeyFault>> {
    KeySet::load(sources, algorithms, ShortSecrets::Refuse).map(|(keys, _)| keys)
}

fn verify(keys: &KeySet, token: &str) -> Result<(), TokenFault> {
    keys.verify(&Jws::parse(token)?, AlgorithmSet::ALL)
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "rows read better without references"
)]
fn with(mut key: Value, more: Value) -> Value {
    key.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    key
}

fn named_pem(kid: Option<&str>, bytes: Vec<u8>) -> KeySource {
    KeySource::Pem {
        kid: kid.map(str::to_owned),
        bytes,
    }
}

#[track_caller]
fn refuses(source: KeySource, algorithms: &[Algorithm], expected: &KeyProblem) {
    let faults = load(&[source], algorithms).unwrap_err();
    let problems: Vec<&KeyProblem> = faults
        .iter()
        .map(|fault| match fault {
            KeyFault::Source { key: 0, problem }
            | KeyFault::InSet {
                key: 0, problem, ..
            } => problem,
            KeyFault::NoKey
            | KeyFault::IdleAlgorithms(_)
            | KeyFault::SecretAtUrl(_)
            | KeyFault::Source { .. }
            | KeyFault::InSet { .. } => {
                panic!("{fault}")
            }
        })
        .collect();
    assert_eq!(problems, [expected], "{faults:?}");
}

#[test]
fn every_algorithm_verifies_with_every_form_of_its_key() {
    for algorithm in Algorithm::ALL {
        let token = mint(algorithm, &json!({}));
        let as_jwk = jwks(&[with(jwk(algorithm), json!({"alg": algorithm.name()}))]);
        for (source, algorithms) in [
            (source(algorithm), [algorithm].as_slice()),
            (jwks(&[jwk(algorithm)]), &[algorithm]),
            (jwks(&[jwk(algorithm)]), &[]),
            (as_jwk, &[]),
        ] {
            let keys = load(&[source], algorithms).unwrap();
            assert_eq!(verify(&keys, &token), Ok(()), "{algorithm}");
        }
    }
}

#[test]
fn tampered_tokens_are_refused_with_every_algorithm() {
    for algorithm in Algorithm::ALL {
        let keys = load(&[source(algorithm)], &[algorithm]).unwrap();
        let token = mint(algorithm, &json!({"sub": "a"}));
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let other = mint(algorithm, &json!({"sub": "b"}));
        let (other_signed, _) = other.rsplit_once('.').unwrap();
        let first = if signature.starts_with('A') { "B" } else { "A" };
        let (_, others) = signature.split_at(1);
        // Whole groups of four characters, so that it is still base64url.
        let (shorter, _) = signature.split_at(signature.len() / 8 * 4);
        // The all-zero signature, which some libraries accepted for every key.
        let psychic = encode(vec![0; signature.len() * 3 / 4]);
        for (tampered, fault) in [
            (format!("{signed}.{psychic}"), TokenFault::Signature),
            (format!("{other_signed}.{signature}"), TokenFault::Signature),
            (format!("{signed}.{first}{others}"), TokenFault::Signature),
            (format!("{signed}."), TokenFault::Signature),
            (format!("{signed}.{shorter}"), TokenFault::Signature),
            (format!("{signed}.{signature}="), TokenFault::Malformed),
            (format!("{signed}.{signature}+"), TokenFault::Malformed),
        ] {
            assert_eq!(
                verify(&keys, &tampered),
                Err(fault),
                "{algorithm} {tampered}"
            );
        }
    }
}

#[test]
fn another_algorithm_than_the_keys_own_is_refused() {
    for own in Algorithm::ALL {
        let keys = load(&[source(own)], &[own]).unwrap();
        for other in Algorithm::ALL.into_iter().filter(|other| *other != own) {
            let token = mint(other, &json!({}));
            assert_eq!(
                verify(&keys, &token),
                Err(TokenFault::Algorithm),
                "{own} {other}"
            );
        }
        // Signed correctly, but with a wrong name.
        for name in ["none", "None", "NONE", "nOnE", "", "HS1", "RS256 ", "hs256"] {
            let token = raw(own, &format!(r#"{{"alg":"{name}"}}"#), "{}");
            assert_eq!(
                verify(&keys, &token),
                Err(TokenFault::Algorithm),
                "{own} {name:?}"
            );
            let unsigned = format!("{}.", token.rsplit_once('.').unwrap().0);
            assert_eq!(
                verify(&keys, &unsigned),
                Err(TokenFault::Algorithm),
                "{own} {name:?}"
            );
        }
    }
}

#[test]
fn a_public_key_is_never_a_secret() {
    let file = pem("PUBLIC KEY", &spki(&KEYS, Algorithm::RS256));
    refuses(
        KeySource::Secret(file.clone()),
        &[Algorithm::HS256],
        &KeyProblem::SecretIsPem,
    );
    // A verifier that accepts both kinds does not confuse them.
    let keys = load(
        &[source(Algorithm::HS256), named_pem(None, file.clone())],
        &[Algorithm::HS256, Algorithm::RS256],
    )
    .unwrap();
    let der = spki(&KEYS, Algorithm::RS256);
    for secret in [file, der] {
        let signed = format!("{}.{}", encode(r#"{"alg":"HS256"}"#), encode("{}"));
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &secret);
        let mac = aws_lc_rs::hmac::sign(&key, signed.as_bytes());
        let token = format!("{signed}.{}", encode(mac));
        assert_eq!(verify(&keys, &token), Err(TokenFault::Signature));
    }
    assert_eq!(verify(&keys, &mint(Algorithm::HS256, &json!({}))), Ok(()));
    assert_eq!(verify(&keys, &mint(Algorithm::RS256, &json!({}))), Ok(()));
}

fn kid_token(kid: Option<&str>, algorithm: Algorithm) -> String {
    let mut header = json!({"alg": algorithm.name()});
    if let Some(kid) = kid {
        header["kid"] = kid.into();
    }
    raw(algorithm, &header.to_string(), "{}")
}

#[test]
fn the_kid_chooses_the_key() {
    let right = || pem("PUBLIC KEY", &spki(&KEYS, Algorithm::RS256));
    let wrong = || pem("PUBLIC KEY", &spki(&OTHER, Algorithm::RS256));
    let check = |sources: &[KeySource], kid: Option<&str>, expected: Result<(), TokenFault>| {
        let algorithms: &[_] = match sources {
            [KeySource::Pem { kid: Some(kid), .. }, ..] if kid == "e" => {
                &[Algorithm::RS256, Algorithm::ES256]
            }
            _ => &[Algorithm::RS256],
        };
        let keys = load(sources, algorithms).unwrap();
        assert_eq!(
            verify(&keys, &kid_token(kid, Algorithm::RS256)),
            expected,
            "{kid:?}"
        );
    };
    let named = [named_pem(Some("a"), wrong()), named_pem(Some("b"), right())];
    check(&named, Some("b"), Ok(()));
    check(&named, Some("a"), Err(TokenFault::Signature));
    check(&named, Some("c"), Err(TokenFault::UnknownKey));
    check(&named, None, Ok(()));
    // One key without a name: a kid does not matter.
    check(&[named_pem(None, right())], Some("c"), Ok(()));
    let mixed = [named_pem(Some("a"), wrong()), named_pem(None, right())];
    check(&mixed, Some("c"), Ok(()));
    check(&mixed, Some("a"), Err(TokenFault::Signature));
    // The name refers to a key of another type.
    let types = [
        KeySource::Pem {
            kid: Some("e".to_owned()),
            bytes: pem("PUBLIC KEY", &spki(&KEYS, Algorithm::ES256)),
        },
        named_pem(None, right()),
    ];
    check(&types, Some("e"), Err(TokenFault::UnknownKey));
}

#[test]
fn an_algorithm_that_no_key_can_do_is_a_mistake() {
    let faults = load(
        &[source(Algorithm::HS256)],
        &[Algorithm::HS256, Algorithm::RS256, Algorithm::EDDSA],
    )
    .unwrap_err();
    let idle = AlgorithmSet::of(Algorithm::RS256).or(AlgorithmSet::of(Algorithm::EDDSA));
    assert_eq!(faults, [KeyFault::IdleAlgorithms(idle)]);
    assert!(
        load(
            &[source(Algorithm::HS256)],
            &[Algorithm::HS256, Algorithm::HS384]
        )
        .is_ok()
    );
    // A set may get such a key later.
    assert!(
        load(
            &[jwks(&[jwk(Algorithm::RS256)])],
            &[Algorithm::RS256, Algorithm::EDDSA]
        )
        .is_ok()
    );
}

#[test]
fn a_fetched_set_leaves_out_what_it_cannot_use_and_every_secret() {
    let named = |key, kid: &str| with(key, json!({"kid": kid}));
    let fetched = |keys: &[Value]| KeySet::fetched(json!({"keys": keys}).to_string().as_bytes());
    let (set, said) = fetched(&[
        named(jwk(Algorithm::HS256), "s"),
        json!({"kty": "RSA", "kid": "short", "n": encode([0xff; 128]), "e": "AQAB"}),
        named(jwk(Algorithm::RS256), "a"),
        named(jwk(Algorithm::RS256), "a"),
        named(jwk(Algorithm::ES256), "a"),
    ])
    .unwrap();
    assert_eq!(said.len(), 2, "{said:?}");
    assert_eq!(set.names().collect::<Vec<_>>(), [Some("a"), Some("a")]);
    assert_eq!(
        verify(&set, &kid_token(Some("a"), Algorithm::RS256)),
        Ok(())
    );
    assert_eq!(
        verify(&set, &kid_token(Some("a"), Algorithm::ES256)),
        Ok(())
    );
    assert_eq!(
        verify(&set, &kid_token(Some("s"), Algorithm::HS256)),
        Err(TokenFault::Algorithm)
    );
    for none in [
        vec![],
        vec![named(jwk(Algorithm::HS256), "s")],
        vec![json!({"kty": "new"})],
    ] {
        assert!(fetched(&none).is_err());
    }
    assert_eq!(KeySet::fetched(b"<html>").unwrap_err(), KeyProblem::NotJwks);
    // Keys of an older set may be removed, added or changed.
    let (smaller, _) = fetched(&[named(jwk(Algorithm::RS256), "a")]).unwrap();
    assert!(smaller.is_within(&set) && !set.is_within(&smaller));
    let (renamed, _) = fetched(&[named(jwk(Algorithm::RS256), "b")]).unwrap();
    assert!(!smaller.is_within(&renamed));
    let (narrower, _) = fetched(&[with(
        jwk(Algorithm::RS256),
        json!({"kid": "a", "alg": "RS512"}),
    )])
    .unwrap();
    assert!(!smaller.is_within(&narrower));
}

#[test]
fn keys_of_one_name_are_all_tried_and_equal_ones_are_one() {
    let own = |algorithm| with(jwk(algorithm), json!({"kid": "a"}));
    let other = |algorithm| {
        let key = jwk_of(&OTHER, algorithm);
        with(key, json!({"kid": "a", "alg": algorithm.name()}))
    };
    for algorithm in [Algorithm::RS256, Algorithm::ES256] {
        let token = kid_token(Some("a"), algorithm);
        for set in [
            vec![own(algorithm), other(algorithm)],
            vec![other(algorithm), own(algorithm)],
            vec![own(algorithm), own(algorithm)],
        ] {
            let (keys, said) = KeySet::load(&[jwks(&set)], &[], ShortSecrets::Refuse).unwrap();
            assert_eq!(verify(&keys, &token), Ok(()));
            assert!(said.is_empty(), "{said:?}");
            let document = json!({"keys": set}).to_string();
            let (keys, said) = KeySet::fetched(document.as_bytes()).unwrap();
            assert_eq!(verify(&keys, &token), Ok(()));
            assert!(said.is_empty(), "{said:?}");
            let distinct = if set.first() == set.last() { 1 } else { 2 };
            assert_eq!(keys.names().count(), distinct);
        }
        let strangers = load(&[jwks(&[other(algorithm)])], &[]).unwrap();
        assert_eq!(verify(&strangers, &token), Err(TokenFault::Signature));
    }
    // At most four of one name, with a warning.
    let many = |n: usize| {
        let numbered = (0..n).map(|_| {
                let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
                let point = pair.public_key_raw().to_vec();
                json!({"kty": "EC", "crv": "P-256", "kid": "a", "x": encode(&point[1..33]), "y": encode(&point[33..])})
            });
        let document = json!({"keys": numbered.collect::<Vec<_>>()}).to_string();
        KeySet::fetched(document.as_bytes()).unwrap().1.len()
    };
    assert_eq!((many(4), many(5), many(9)), (0, 1, 1));
}

#[test]
fn null_and_empty_members_of_a_key_count_as_absent() {
    for empty in [json!(null), json!(""), json!([]), json!({})] {
        for algorithm in [Algorithm::RS256, Algorithm::ES256] {
            let mut key = jwk(algorithm);
            for name in ["kid", "use", "key_ops", "alg", "x5t", "x5t#S256", "d"] {
                key[name] = empty.clone();
            }
            let keys = load(&[jwks(&[key])], &[]).unwrap();
            assert_eq!(keys.names().collect::<Vec<_>>(), [None]);
            let token = kid_token(Some("any"), algorithm);
            assert_eq!(verify(&keys, &token), Ok(()), "{empty}");
        }
        let mut key = jwk(Algorithm::RS256);
        key["n"] = empty;
        refuses(jwks(&[key]), &[], &KeyProblem::Member("n"));
    }
    let marked = [
        b"\xef\xbb\xbf",
        json!({"keys": [jwk(Algorithm::RS256)]})
            .to_string()
            .as_bytes(),
    ]
    .concat();
    assert!(KeySet::fetched(&marked).is_ok());
    assert!(load(&[KeySource::Jwks(marked)], &[]).is_ok());
}

#[test]
fn of_several_secrets_each_is_tried_and_each_is_strong() {
    let secret = |text: &str| KeySource::Secret(text.repeat(8).into_bytes());
    let own = || source(Algorithm::HS256);
    let token = mint(Algorithm::HS256, &json!({}));
    for (sources, nth) in [
        (
            vec![own(), secret("other-0"), secret("other-1")],
            Some((1, 3)),
        ),
        (
            vec![secret("other-0"), secret("other-1"), own()],
            Some((3, 3)),
        ),
        (vec![own()], None),
    ] {
        let keys = load(&sources, &[Algorithm::HS256]).unwrap();
        assert_eq!(verify(&keys, &token), Ok(()));
        assert_eq!(keys.secret_of(&Jws::parse(&token).unwrap()), nth);
    }
    let others = load(&[secret("other-0"), secret("other-1")], &[Algorithm::HS256]).unwrap();
    assert_eq!(verify(&others, &token), Err(TokenFault::Signature));
    assert_eq!(others.secret_of(&Jws::parse(&token).unwrap()), None);
    let short = || KeySource::Secret(b"short".to_vec());
    let faults = load(&[own(), short(), short()], &[Algorithm::HS256]).unwrap_err();
    let places: Vec<_> = faults.iter().map(KeyFault::key).collect();
    assert_eq!(places, [Some(1), Some(2)]);
    assert!(
        load(
            &[secret("other-0"), secret("ab-cde")],
            &[Algorithm::HS256, Algorithm::HS384]
        )
        .is_ok()
    );
    assert!(
        load(
            &[secret("other-0"), secret("ab-cd")],
            &[Algorithm::HS256, Algorithm::HS384]
        )
        .is_err()
    );
}

#[test]
fn four_keys_are_tried_and_no_more() {
    let wrong = || {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        named_pem(None, pair.public_key_pem().into_bytes())
    };
    let right = || named_pem(None, pem("PUBLIC KEY", &spki(&KEYS, Algorithm::ES256)));
    let token = kid_token(None, Algorithm::ES256);
    let four = load(&[wrong(), wrong(), wrong(), right()], &[Algorithm::ES256]).unwrap();
    assert_eq!(verify(&four, &token), Ok(()));
    let five = load(
        &[wrong(), wrong(), wrong(), wrong(), right()],
        &[Algorithm::ES256],
    )
    .unwrap();
    assert_eq!(verify(&five, &token), Err(TokenFault::Signature));
}

#[test]
fn secrets_are_as_long_as_the_hash() {
    for (algorithm, needed) in [
        (Algorithm::HS256, 32),
        (Algorithm::HS384, 48),
        (Algorithm::HS512, 64),
    ] {
        let secret = |bytes| KeySource::Secret(vec![b'x'; bytes]);
        assert!(load(&[secret(needed)], &[algorithm]).is_ok());
        let short = KeyProblem::ShortSecret {
            bytes: needed - 1,
            algorithm,
            needed,
        };
        refuses(secret(needed - 1), &[algorithm], &short);
        refuses(secret(needed - 1), &[Algorithm::HS256, algorithm], &short);
        let (_, warnings) =
            KeySet::load(&[secret(needed - 1)], &[algorithm], ShortSecrets::Allow).unwrap();
        assert_eq!(warnings.len(), 1);
        let (_, none) = KeySet::load(&[secret(needed)], &[algorithm], ShortSecrets::Allow).unwrap();
        assert!(none.is_empty());
    }
    for blank in [b"".as_slice(), b" \n", &[b' '; 64]] {
        let blank = || KeySource::Secret(blank.to_vec());
        refuses(blank(), &[Algorithm::HS256], &KeyProblem::BlankSecret);
        assert!(KeySet::load(&[blank()], &[Algorithm::HS256], ShortSecrets::Allow).is_err());
    }
    let unfit = KeyProblem::Algorithms {
        kind: "a secret",
        fits: AlgorithmSet::HMAC,
    };
    refuses(source(Algorithm::HS256), &[Algorithm::RS256], &unfit);
    refuses(source(Algorithm::HS256), &[], &KeyProblem::NoAlgorithms);
    assert_eq!(
        load(&[], &[Algorithm::HS256]).unwrap_err(),
        [KeyFault::NoKey]
    );
}

#[test]
fn pem_files_are_public_keys_of_the_right_type() {
    let rsa = aws_lc_rs::signature::KeyPair::public_key(&KEYS.rsa).as_ref();
    let pkcs1 = || named_pem(None, pem("RSA PUBLIC KEY", rsa));
    let keys = load(&[pkcs1()], &[Algorithm::RS256]).unwrap();
    assert_eq!(verify(&keys, &mint(Algorithm::RS256, &json!({}))), Ok(()));
    refuses(pkcs1(), &[], &KeyProblem::NoAlgorithms);
    let unfit = |kind, fits| KeyProblem::Algorithms { kind, fits };
    refuses(
        pkcs1(),
        &[Algorithm::HS256],
        &unfit("an RSA key", AlgorithmSet::RSA),
    );
    refuses(
        source(Algorithm::ES256),
        &[Algorithm::ES384],
        &unfit("a P-256 key", AlgorithmSet::P256),
    );
    refuses(
        source(Algorithm::ES384),
        &[Algorithm::ES256, Algorithm::RS256],
        &unfit("a P-384 key", AlgorithmSet::P384),
    );
    for (file, problem) in [
        (b"".to_vec(), KeyProblem::NotPem),
        (b"\xff".to_vec(), KeyProblem::NotPem),
        (pem("PRIVATE KEY", b"x"), KeyProblem::PrivateKey),
        (pem("RSA PRIVATE KEY", b"x"), KeyProblem::PrivateKey),
        (pem("ENCRYPTED PRIVATE KEY", b"x"), KeyProblem::PrivateKey),
        (pem("X509 CRL", b"x"), KeyProblem::NotPem),
        (
            [pem("RSA PUBLIC KEY", rsa), pem("RSA PUBLIC KEY", rsa)].concat(),
            KeyProblem::SeveralKeys,
        ),
        (
            pem("PUBLIC KEY", rsa),
            KeyProblem::Malformed("the PEM file's content is damaged"),
        ),
        (
            pem("CERTIFICATE", rsa),
            KeyProblem::Malformed("the PEM file's content is damaged"),
        ),
        (
            pem("PUBLIC KEY", b""),
            KeyProblem::Malformed("the PEM file's content is damaged"),
        ),
    ] {
        refuses(named_pem(None, file), &[Algorithm::RS256], &problem);
    }
    let mut damaged = spki(&KEYS, Algorithm::ES256);
    *damaged.last_mut().unwrap() ^= 1;
    refuses(
        named_pem(None, pem("PUBLIC KEY", &damaged)),
        &[Algorithm::ES256],
        &KeyProblem::Malformed("its numbers are not a point on its curve"),
    );
}

#[test]
fn a_certificate_gives_its_key() {
    for (algorithm, kind) in [
        (Algorithm::ES256, &rcgen::PKCS_ECDSA_P256_SHA256),
        (Algorithm::EDDSA, &rcgen::PKCS_ED25519),
    ] {
        let pair = rcgen::KeyPair::generate_for(kind).unwrap();
        let params = rcgen::CertificateParams::new(vec!["issuer.example".to_owned()]).unwrap();
        let certificate = params.self_signed(&pair).unwrap();
        let from_certificate = pem::public_key(certificate.pem().as_bytes()).unwrap();
        let from_key = pem::public_key(pair.public_key_pem().as_bytes()).unwrap();
        assert_eq!(from_certificate.key, from_key.key);
        assert_eq!(from_key.thumbprints, [""; 0]);
        let file = || named_pem(None, certificate.pem().into_bytes());
        assert!(load(&[file()], &[algorithm]).is_ok());

        // A token that names no key by `kid` may name it by its certificate.
        let other = named_pem(None, pem("PUBLIC KEY", &spki(&OTHER, algorithm)));
        let keys = load(&[other, file()], &[algorithm]).unwrap();
        let hash = |kind| encode(digest::digest(kind, certificate.der()));
        for (name, thumbprint) in [
            ("x5t", hash(&digest::SHA1_FOR_LEGACY_USE_ONLY)),
            ("x5t#S256", hash(&digest::SHA256)),
        ] {
            let named = json!({"alg": algorithm.name(), name: thumbprint});
            let token = raw(algorithm, &named.to_string(), "{}");
            let jws = Jws::parse(&token).unwrap();
            assert!(keys.has_named_by(&jws), "{name}");
            assert_eq!(keys.candidates(&jws, algorithm).count(), 1, "{name}");
            let unknown = json!({"alg": algorithm.name(), name: "AAAA"});
            let token = raw(algorithm, &unknown.to_string(), "{}");
            let jws = Jws::parse(&token).unwrap();
            assert!(!keys.has_named_by(&jws), "{name}");
            assert_eq!(keys.candidates(&jws, algorithm).count(), 2, "{name}");
        }
    }
}

#[test]
fn short_rsa_keys_are_refused() {
    let (mut n, e) = (vec![0xff; 128], [1, 0, 1]);
    let set = |n: &[u8], e: &[u8]| jwks(&[json!({"kty": "RSA", "n": encode(n), "e": encode(e)})]);
    refuses(set(&n, &e), &[], &KeyProblem::WeakRsa(1024));
    n = vec![0xff; 256];
    n[0] = 0x7f;
    refuses(set(&n, &e), &[], &KeyProblem::WeakRsa(2047));
    n[0] = 0xff;
    assert!(load(&[set(&n, &e)], &[]).is_ok());
    assert!(load(&[set(&[&[0, 0], n.as_slice()].concat(), &e)], &[]).is_ok());
    for bad in [[0].as_slice(), &[1], &[2], &[1, 0, 0], &[1, 0, 0, 0, 1]] {
        assert!(load(&[set(&n, bad)], &[]).is_err(), "exponent {bad:?}");
    }
    assert!(load(&[set(&[0xff; 1025], &e)], &[]).is_err());
}

#[test]
fn sets_pass_over_what_they_cannot_use_and_refuse_what_is_wrong() {
    let rsa = |more| with(jwk(Algorithm::RS256), more);
    for passed in [
        rsa(json!({"use": "enc"})),
        rsa(json!({"use": "SIG"})),
        rsa(json!({"key_ops": ["encrypt"]})),
        rsa(json!({"alg": "RSA-OAEP"})),
        rsa(json!({"alg": "none"})),
        rsa(json!({"alg": "PS256"})),
        json!({"kty": "new"}),
        json!({"kty": "EC", "crv": "secp256k1", "x": "", "y": ""}),
        json!({"kty": "OKP", "crv": "X25519", "x": ""}),
    ] {
        let faults = load(&[jwks(std::slice::from_ref(&passed))], &[Algorithm::RS256]).unwrap_err();
        let none = |fault: &KeyFault| {
            matches!(
                fault,
                KeyFault::Source {
                    problem: KeyProblem::NoneUsable(_),
                    ..
                }
            )
        };
        assert!(faults.len() == 1 && faults.iter().all(none), "{faults:?}");
        let is_usual = passed.get("use") == Some(&json!("enc"));
        let passed = with(passed, json!({"kid": "p"}));
        let beside = jwks(&[
            passed,
            rsa(json!({"kid": "a", "use": "sig", "key_ops": ["verify"]})),
        ]);
        let (keys, said) =
            KeySet::load(&[beside], &[Algorithm::RS256], ShortSecrets::Refuse).unwrap();
        assert_eq!(
            verify(&keys, &kid_token(Some("a"), Algorithm::RS256)),
            Ok(())
        );
        assert_eq!(said.len(), usize::from(!is_usual), "{said:?}");
        assert!(
            said.iter()
                .all(|it| it.starts_with("left out: key 1 of the set (kid \"p\"): "))
        );
        assert_eq!(keys.why_left_out("p").count(), 1);
        assert_eq!(keys.why_left_out("a").count(), 0);
    }
    let private = KeyProblem::PrivateKey;
    refuses(jwks(&[rsa(json!({"d": "AAAA"}))]), &[], &private);
    refuses(
        jwks(&[rsa(json!({"n": "A+"}))]),
        &[],
        &KeyProblem::Member("n"),
    );
    refuses(jwks(&[json!({"n": "AA"})]), &[], &KeyProblem::Member("kty"));
    refuses(
        jwks(&[jwk(Algorithm::HS256), jwk(Algorithm::RS256)]),
        &[],
        &KeyProblem::MixedSet,
    );
    refuses(jwks(&[]), &[], &KeyProblem::NoUsableKey);
    for document in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[],"keys":[]}"#] {
        refuses(KeySource::Jwks(document.into()), &[], &KeyProblem::NotJwks);
    }
    for alg in ["ES256", "HS256", "ES384"] {
        let wrong = jwks(&[rsa(json!({"alg": alg}))]);
        let problem = KeyProblem::Malformed("`alg` does not fit the key's type or curve");
        refuses(wrong, &[], &problem);
    }
}

#[test]
fn every_fault_is_reported_with_its_place_and_none_shows_a_key() {
    let faults = load(
        &[
            KeySource::Secret(b"hunter2".to_vec()),
            source(Algorithm::RS256),
            named_pem(None, b"hunter2".to_vec()),
            jwks(&[json!({"kty": "oct", "k": encode("hunter2"), "kid": "weak"})]),
        ],
        &[Algorithm::HS256, Algorithm::RS256],
    )
    .unwrap_err();
    let places: Vec<_> = faults.iter().map(KeyFault::key).collect();
    assert_eq!(places, [Some(0), Some(2), Some(3)]);
    for fault in faults {
        let told = format!("{fault} {fault:?}");
        assert!(
            !told.contains("hunter2") && !told.contains(&encode("hunter2")),
            "{told}"
        );
    }
    assert!(!format!("{:?}", KeySource::Secret(SECRET.to_vec())).contains("0123"));
}
