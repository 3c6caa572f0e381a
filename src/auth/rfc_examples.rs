//! The examples of the RFCs on tokens, checked as they are written: by the key set and the structure of the token, and
//! by the claims where there are any. Other properties of tokens are tested beside each file, in `wycheproof` and in
//! `tests/gateway/attacks.rs`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::algorithm::{Algorithm, AlgorithmSet};
use super::binding::Holder;
use super::claims::Claims;
use super::jwk::{self, Material};
use super::jws::Jws;
use super::key_fault::{KeyFault, KeyProblem};
use super::keys::{KeySet, KeySource, ShortSecrets};
use super::testing::{encode, jwks, settings};
use super::verify::{Audience, Unverified, Verifier, VerifierSettings};
use crate::message::reject::TokenFault;

/// RFC 7515 A.1, and RFC 7519 3.1.
const HS256: &str = concat!(
    "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.",
    "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcG",
    "xlLmNvbS9pc19yb290Ijp0cnVlfQ.",
    "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
);

/// RFC 7515 A.2.
const RS256: &str = concat!(
    "eyJhbGciOiJSUzI1NiJ9.",
    "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcG",
    "xlLmNvbS9pc19yb290Ijp0cnVlfQ.",
    "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AA",
    "uHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAyn",
    "RFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZR",
    "mB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnv",
    "Wh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_Ioy",
    "pGlUPQGe77Rw",
);

/// RFC 7515 A.3.
const ES256: &str = concat!(
    "eyJhbGciOiJFUzI1NiJ9.",
    "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcG",
    "xlLmNvbS9pc19yb290Ijp0cnVlfQ.",
    "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApm",
    "WQxfKTUJqPP3-Kg6NU1Q",
);

/// RFC 7515 A.4.
const ES512: &str = concat!(
    "eyJhbGciOiJFUzUxMiJ9.",
    "UGF5bG9hZA.",
    "AdwMgeerwtHoh-l192l60hp9wAHZFVJbLfD_UxMi70cwnZOYaRI1bKPWROc-mZZqwq",
    "T2SI-KGDKB34XO0aw_7XdtAG8GaSwFKdCAPZgoXD2YBJZCPEX3xKpRwcdOO8KpEHwJ",
    "jyqOgzDO7iKvU8vcnwNrmxYbSW9ERBXukOXolLzeO_Jn",
);

/// RFC 7515 A.5, and RFC 7519 6.1.
const UNSECURED: &str = concat!(
    "eyJhbGciOiJub25lIn0.",
    "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcG",
    "xlLmNvbS9pc19yb290Ijp0cnVlfQ.",
);

/// RFC 7515 E.
const CRITICAL: &str = concat!(
    "eyJhbGciOiJub25lIiwNCiAiY3JpdCI6WyJodHRwOi8vZXhhbXBsZS5jb20vVU5ERU",
    "ZJTkVEIl0sDQogImh0dHA6Ly9leGFtcGxlLmNvbS9VTkRFRklORUQiOnRydWUNCn0.",
    "RkFJTA.",
);

/// RFC 7519 A.1: a JWE.
const ENCRYPTED: &str = concat!(
    "eyJhbGciOiJSU0ExXzUiLCJlbmMiOiJBMTI4Q0JDLUhTMjU2In0.",
    "QR1Owv2ug2WyPBnbQrRARTeEk9kDO2w8qDcjiHnSJflSdv1iNqhWXaKH4MqAkQtMoN",
    "fABIPJaZm0HaA415sv3aeuBWnD8J-Ui7Ah6cWafs3ZwwFKDFUUsWHSK-IPKxLGTkND",
    "09XyjORj_CHAgOPJ-Sd8ONQRnJvWn_hXV1BNMHzUjPyYwEsRhDhzjAD26imasOTsgr",
    "uobpYGoQcXUwFDn7moXPRfDE8-NoQX7N7ZYMmpUDkR-Cx9obNGwJQ3nM52YCitxoQV",
    "Pzjbl7WBuB7AohdBoZOdZ24WlN1lVIeh8v1K4krB8xgKvRU8kgFrEn_a1rZgN5Tiys",
    "nmzTROF869lQ.",
    "AxY8DCtDaGlsbGljb3RoZQ.",
    "MKOle7UQrG6nSxTLX6Mqwt0orbHvAKeWnDYvpIAeZ72deHxz3roJDXQyhxx0wKaMHD",
    "jUEOKIwrtkHthpqEanSBNYHZgmNOV7sln1Eu9g3J8.",
    "fiK51VwhsxJ-siBMR-YFiA",
);

/// RFC 7519 A.2: a JWE of a JWS.
const NESTED: &str = concat!(
    "eyJhbGciOiJSU0ExXzUiLCJlbmMiOiJBMTI4Q0JDLUhTMjU2IiwiY3R5IjoiSldUIn",
    "0.",
    "g_hEwksO1Ax8Qn7HoN-BVeBoa8FXe0kpyk_XdcSmxvcM5_P296JXXtoHISr_DD_Mqe",
    "waQSH4dZOQHoUgKLeFly-9RI11TG-_Ge1bZFazBPwKC5lJ6OLANLMd0QSL4fYEb9ER",
    "e-epKYE3xb2jfY1AltHqBO-PM6j23Guj2yDKnFv6WO72tteVzm_2n17SBFvhDuR9a2",
    "nHTE67pe0XGBUS_TK7ecA-iVq5COeVdJR4U4VZGGlxRGPLRHvolVLEHx6DYyLpw30A",
    "y9R6d68YCLi9FYTq3hIXPK_-dmPlOUlKvPr1GgJzRoeC9G5qCvdcHWsqJGTO_z3Wfo",
    "5zsqwkxruxwA.",
    "UmVkbW9uZCBXQSA5ODA1Mg.",
    "VwHERHPvCNcHHpTjkoigx3_ExK0Qc71RMEParpatm0X_qpg-w8kozSjfNIPPXiTBBL",
    "XR65CIPkFqz4l1Ae9w_uowKiwyi9acgVztAi-pSL8GQSXnaamh9kX1mdh3M_TT-FZG",
    "QFQsFhu0Z72gJKGdfGE-OE7hS1zuBD5oEUfk0Dmb0VzWEzpxxiSSBbBAzP10l56pPf",
    "AtrjEYw-7ygeMkwBl6Z_mLS6w6xUgKlvW6ULmkV-uLC4FUiyKECK4e3WZYKw1bpgIq",
    "GYsw2v_grHjszJZ-_I5uM-9RA8ycX9KqPRp9gc6pXmoU_-27ATs9XCvrZXUtK2902A",
    "UzqpeEUJYjWWxSNsS-r1TJ1I-FMJ4XyAiGrfmo9hQPcNBYxPz3GQb28Y5CLSQfNgKS",
    "Gt0A4isp1hBUXBHAndgtcslt7ZoQJaKe_nNJgNliWtWpJ_ebuOpEl8jdhehdccnRMI",
    "wAmU1n7SPkmhIl1HlSOpvcvDfhUN5wuqU955vOBvfkBOh5A11UzBuo2WlgZ6hYi9-e",
    "3w29bR0C2-pp3jbqxEDw3iWaf2dc5b-LnR0FEYXvI_tYk5rd_J9N0mg0tQ6RbpxNEM",
    "NoA9QWk5lgdPvbh9BaO195abQ.",
    "AVO9iT5AV4CzvDJCdhSFlQ",
);

/// RFC 7520 4.1.
const COOKBOOK_RS256: &str = concat!(
    "eyJhbGciOiJSUzI1NiIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbX",
    "BsZSJ9.",
    "SXTigJlzIGEgZGFuZ2Vyb3VzIGJ1c2luZXNzLCBGcm9kbywgZ29pbmcgb3V0IHlvdX",
    "IgZG9vci4gWW91IHN0ZXAgb250byB0aGUgcm9hZCwgYW5kIGlmIHlvdSBkb24ndCBr",
    "ZWVwIHlvdXIgZmVldCwgdGhlcmXigJlzIG5vIGtub3dpbmcgd2hlcmUgeW91IG1pZ2",
    "h0IGJlIHN3ZXB0IG9mZiB0by4.",
    "MRjdkly7_-oTPTS3AXP41iQIGKa80A0ZmTuV5MEaHoxnW2e5CZ5NlKtainoFmKZopd",
    "HM1O2U4mwzJdQx996ivp83xuglII7PNDi84wnB-BDkoBwA78185hX-Es4JIwmDLJK3",
    "lfWRa-XtL0RnltuYv746iYTh_qHRD68BNt1uSNCrUCTJDt5aAE6x8wW1Kt9eRo4QPo",
    "cSadnHXFxnt8Is9UzpERV0ePPQdLuW3IS_de3xyIrDaLGdjluPxUAhb6L2aXic1U12",
    "podGU0KLUQSE_oI-ZnmKJ3F4uOZDnd6QZWJushZ41Axf_fcIe8u9ipH84ogoree7vj",
    "bU5y18kDquDg",
);

/// RFC 7520 4.2.
const COOKBOOK_PS384: &str = concat!(
    "eyJhbGciOiJQUzM4NCIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbX",
    "BsZSJ9.",
    "SXTigJlzIGEgZGFuZ2Vyb3VzIGJ1c2luZXNzLCBGcm9kbywgZ29pbmcgb3V0IHlvdX",
    "IgZG9vci4gWW91IHN0ZXAgb250byB0aGUgcm9hZCwgYW5kIGlmIHlvdSBkb24ndCBr",
    "ZWVwIHlvdXIgZmVldCwgdGhlcmXigJlzIG5vIGtub3dpbmcgd2hlcmUgeW91IG1pZ2",
    "h0IGJlIHN3ZXB0IG9mZiB0by4.",
    "cu22eBqkYDKgIlTpzDXGvaFfz6WGoz7fUDcfT0kkOy42miAh2qyBzk1xEsnk2IpN6-",
    "tPid6VrklHkqsGqDqHCdP6O8TTB5dDDItllVo6_1OLPpcbUrhiUSMxbbXUvdvWXzg-",
    "UD8biiReQFlfz28zGWVsdiNAUf8ZnyPEgVFn442ZdNqiVJRmBqrYRXe8P_ijQ7p8Vd",
    "z0TTrxUeT3lm8d9shnr2lfJT8ImUjvAA2Xez2Mlp8cBE5awDzT0qI0n6uiP1aCN_2_",
    "jLAeQTlqRHtfa64QQSUmFAAjVKPbByi7xho0uTOcbH510a6GYmJUAfmWjwZ6oD4ifK",
    "o8DYM-X72Eaw",
);

/// RFC 7520 4.3.
const COOKBOOK_ES512: &str = concat!(
    "eyJhbGciOiJFUzUxMiIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbX",
    "BsZSJ9.",
    "SXTigJlzIGEgZGFuZ2Vyb3VzIGJ1c2luZXNzLCBGcm9kbywgZ29pbmcgb3V0IHlvdX",
    "IgZG9vci4gWW91IHN0ZXAgb250byB0aGUgcm9hZCwgYW5kIGlmIHlvdSBkb24ndCBr",
    "ZWVwIHlvdXIgZmVldCwgdGhlcmXigJlzIG5vIGtub3dpbmcgd2hlcmUgeW91IG1pZ2",
    "h0IGJlIHN3ZXB0IG9mZiB0by4.",
    "AE_R_YZCChjn4791jSQCrdPZCNYqHXCTZH0-JZGYNlaAjP2kqaluUIIUnC9qvbu9Pl",
    "on7KRTzoNEuT4Va2cmL1eJAQy3mtPBu_u_sDDyYjnAMDxXPn7XrT0lw-kvAD890jl8",
    "e2puQens_IEKBpHABlsbEPX6sFY8OcGDqoRuBomu9xQ2",
);

/// RFC 7520 4.4.
const COOKBOOK_HS256: &str = concat!(
    "eyJhbGciOiJIUzI1NiIsImtpZCI6IjAxOGMwYWU1LTRkOWItNDcxYi1iZmQ2LWVlZj",
    "MxNGJjNzAzNyJ9.",
    "SXTigJlzIGEgZGFuZ2Vyb3VzIGJ1c2luZXNzLCBGcm9kbywgZ29pbmcgb3V0IHlvdX",
    "IgZG9vci4gWW91IHN0ZXAgb250byB0aGUgcm9hZCwgYW5kIGlmIHlvdSBkb24ndCBr",
    "ZWVwIHlvdXIgZmVldCwgdGhlcmXigJlzIG5vIGtub3dpbmcgd2hlcmUgeW91IG1pZ2",
    "h0IGJlIHN3ZXB0IG9mZiB0by4.",
    "s0h6KThzkfBBBkLspW1h84VsJZFTsPPqMDA7g1Md7p0",
);

/// The payload of all tokens of RFC 7520: Bilbo's words, with typographic apostrophes but for one.
const COOKBOOK_TEXT: &str = concat!(
    "It\u{2019}s a dangerous business, Frodo, going out your door. You step onto the road, and if ",
    "you don't keep your feet, there\u{2019}s no knowing where you might be swept off to.",
);

/// `exp` of the claims in RFC 7515 and RFC 7519.
const EXP: u64 = 1_300_819_380;

/// The secret of RFC 7515 A.1, RFC 7517 A.3 and RFC 7797 4.
fn secret() -> Value {
    json!({"kty": "oct", "k": SECRET})
}

const SECRET: &str =
    "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";

/// The key of RFC 7515 A.2.
fn rsa() -> Value {
    let n = concat!(
        "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-V",
        "aw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b",
        "32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-K",
        "XBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5",
        "IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb5",
        "4h4FRWyuXpoQ",
    );
    json!({"kty": "RSA", "n": n, "e": "AQAB"})
}

/// The key of RFC 7515 A.3.
fn p256() -> Value {
    json!({
        "kty": "EC", "crv": "P-256",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    })
}

/// The key of RFC 7515 A.4.
fn p521() -> Value {
    json!({
        "kty": "EC", "crv": "P-521",
        "x": "AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrjcBpXp5EOnYG_NjFZ6OvLFV1jSfS9tsz4qUxcWceqwQGk",
        "y": "ADSmRA43Z1DSNx_RvcLI87cdL07l6jQyyBXMoxVg_l2Th-x3S1WDhjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2",
    })
}

/// RFC 7520 3.1.
fn cookbook_p521() -> Value {
    json!({
        "kty": "EC", "kid": "bilbo.baggins@hobbiton.example", "use": "sig", "crv": "P-521",
        "x": "AHKZLLOsCOzz5cY97ewNUajB957y-C-U88c3v13nmGZx6sYl_oJXu9A5RkTKqjqvjyekWF-7ytDyRXYgCF5cj0Kt",
        "y": "AdymlHvOiLxXkEhayXQnNCvDX4h9htZaCJN34kfmC6pV5OhQHiraVySsUdaQkAgDPrwQrJmbnX9cwlGfP-HqHZR1",
    })
}

/// RFC 7520 3.3.
fn cookbook_rsa() -> Value {
    let n = concat!(
        "n4EPtAOCc9AlkeQHPzHStgAbgs7bTZLwUBZdR8_KuKPEHLd4rHVTeT-O-XV2jRojdN",
        "hxJWTDvNd7nqQ0VEiZQHz_AJmSCpMaJMRBSFKrKb2wqVwGU_NsYOYL-QtiWN2lbzcE",
        "e6XC0dApr5ydQLrHqkHHig3RBordaZ6Aj-oBHqFEHYpPe7Tpe-OfVfHd1E6cS6M1FZ",
        "cD1NNLYD5lFHpPI9bTwJlsde3uhGqC0ZCuEHg8lhzwOHrtIQbS0FVbb9k3-tVTU4fg",
        "_3L_vniUFAKwuCLqKnS2BYwdq_mzSnbLY7h_qixoR7jig3__kRhuaxwUkRz5iaiQkq",
        "gc5gHdrNP5zw",
    );
    json!({
        "kty": "RSA", "kid": "bilbo.baggins@hobbiton.example", "use": "sig", "n": n, "e": "AQAB",
    })
}

/// RFC 7520 3.5.
fn cookbook_secret() -> Value {
    json!({
        "kty": "oct", "kid": "018c0ae5-4d9b-471b-bfd6-eef314bc7037", "use": "sig", "alg": "HS256",
        "k": "hJtXIZ2uSN5kbQfbtTNWbpdmhkV8FJG-Onbc6mxCcYg",
    })
}

/// RFC 8037 A.2.
fn ed25519() -> Value {
    json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"})
}

/// The RSA key of RFC 7517 A.1.
fn set_rsa() -> Value {
    let n = concat!(
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu",
        "1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4H",
        "c5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqz",
        "s8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4",
        "vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8a",
        "wapJzKnqDKgw",
    );
    json!({"kty": "RSA", "n": n, "e": "AQAB", "alg": "RS256", "kid": "2011-04-29"})
}

/// The other key of RFC 7517 A.1.
fn set_p256() -> Value {
    json!({
        "kty": "EC", "crv": "P-256",
        "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
        "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
        "use": "enc", "kid": "1",
    })
}

/// The private members of the RSA key of RFC 7517 A.2.
fn private_rsa() -> Value {
    let d = concat!(
        "X4cTteJY_gn4FYPsXB8rdXix5vwsg1FLN5E3EaG6RJoVH-HLLKD9M7dx5oo7GURknc",
        "hnrRweUkC7hT5fJLM0WbFAKNLWY2vv7B6NqXSzUvxT0_YSfqijwp3RTzlBaCxWp4do",
        "Fk5N2o8Gy_nHNKroADIkJ46pRUohsXywbReAdYaMwFs9tv8d_cPVY3i07a3t8MN6TN",
        "wm0dSawm9v47UiCl3Sk5ZiG7xojPLu4sbg1U2jx4IBTNBznbJSzFHK66jT8bgkuqsk",
        "0GjskDJk19Z4qwjwbsnn4j2WBii3RL-Us2lGVkY8fkFzme1z0HbIkfz0Y6mqnOYtqc",
        "0X4jfcKoAC8Q",
    );
    let p = concat!(
        "83i-7IvMGXoMXCskv73TKr8637FiO7Z27zv8oj6pbWUQyLPQBQxtPVnwD20R-60eTD",
        "mD2ujnMt5PoqMrm8RfmNhVWDtjjMmCMjOpSXicFHj7XOuVIYQyqVWlWEh6dN36GVZY",
        "k93N8Bc9vY41xy8B9RzzOGVQzXvNEvn7O0nVbfs",
    );
    let q = concat!(
        "3dfOR9cuYq-0S-mkFLzgItgMEfFzB2q3hWehMuG0oCuqnb3vobLyumqjVZQO1dIrdw",
        "gTnCdpYzBcOfW5r370AFXjiWft_NGEiovonizhKpo9VVS78TzFgxkIdrecRezsZ-1k",
        "Yd_s1qDbxtkDEgfAITAG9LUnADun4vIcb6yelxk",
    );
    let dp = concat!(
        "G4sPXkc6Ya9y8oJW9_ILj4xuppu0lzi_H7VTkS8xj5SdX3coE0oimYwxIi2emTAue0",
        "UOa5dpgFGyBJ4c8tQ2VF402XRugKDTP8akYhFo5tAA77Qe_NmtuYZc3C3m3I24G2Gv",
        "R5sSDxUyAN2zq8Lfn9EUms6rY3Ob8YeiKkTiBj0",
    );
    let dq = concat!(
        "s9lAH9fggBsoFR8Oac2R_E2gw282rT2kGOAhvIllETE1efrA6huUUvMfBcMpn8lqeW",
        "6vzznYY5SSQF7pMdC_agI3nG8Ibp1BUb0JUiraRNqUfLhcQb_d9GF4Dh7e74WbRsob",
        "RonujTYN1xCaP6TO61jvWrX-L18txXw494Q_cgk",
    );
    let qi = concat!(
        "GyM_p6JrXySiz1toFgKbWV-JdI3jQ4ypu9rbMWx3rQJBfmt0FoYzgUIZEVFEcOqwem",
        "RN81zoDAaa-Bk0KWNGDjJHZDdDmFhW3AN7lI-puxk_mHZGJ11rxyR8O55XLSe3SPmR",
        "fKwZI6yU24ZxvQKFYItdldUKGzO6Ia6zTKhAVRU",
    );
    json!({"d": d, "p": p, "q": q, "dp": dp, "dq": dq, "qi": qi})
}

fn with(mut key: Value, more: &Value) -> Value {
    let members = more.as_object().unwrap().clone();
    key.as_object_mut().unwrap().extend(members);
    key
}

fn load(keys: &[Value]) -> Result<KeySet, Vec<KeyFault>> {
    KeySet::load(&[jwks(keys)], &[], ShortSecrets::Refuse).map(|(keys, _)| keys)
}

/// The payload of the token, if the key signed it.
fn payload(key: &Value, token: &str) -> Result<Vec<u8>, TokenFault> {
    let keys = load(std::slice::from_ref(key)).unwrap();
    let jws = Jws::parse(token)?;
    keys.verify(&jws, AlgorithmSet::ALL)?;
    jws.payload()
}

/// The key accepts the token and its payload is this one; with another payload, a changed letter in its signature or
/// no signature, the token is refused.
#[track_caller]
fn accepted(key: &Value, token: &str, expected: impl AsRef<[u8]>) {
    assert_eq!(payload(key, token).as_deref(), Ok(expected.as_ref()));
    let parts: Vec<&str> = token.split('.').collect();
    let [header, body, signature] = parts[..] else {
        panic!("{} parts", parts.len())
    };
    let (first, rest) = signature.split_at(1);
    let other = if first == "A" { "B" } else { "A" };
    for forged in [
        format!("{header}.{}.{signature}", encode("{}")),
        format!("{header}.{body}.{other}{rest}"),
        format!("{header}.{body}."),
    ] {
        assert_eq!(
            payload(key, &forged),
            Err(TokenFault::Signature),
            "{forged}"
        );
    }
}

#[track_caller]
fn refused(key: &Value, token: &str, expected: TokenFault) {
    assert_eq!(payload(key, token), Err(expected));
}

/// A time within the lifetime of the claims: this many seconds before their `exp`.
fn before_exp(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(EXP - seconds)
}

/// A verifier's full check of a token of `joe`.
fn judge(
    key: &Value,
    algorithm: Algorithm,
    token: &str,
    now: SystemTime,
) -> Result<Claims, TokenFault> {
    let made_of = VerifierSettings {
        keys: vec![jwks(std::slice::from_ref(key))],
        issuer: vec!["joe".to_owned()],
        audience: Audience::Unset,
        leeway: Duration::ZERO,
        ..settings(algorithm)
    };
    let verifier = Verifier::new(made_of, None).unwrap();
    let jws = Jws::parse(token)?;
    verifier
        .check_signature(&jws)
        .map_err(|unsigned| match unsigned.why {
            Unverified::Token(fault) => fault,
            Unverified::NoKeys => panic!("the keys are fixed"),
        })?;
    let claims = jws.claims()?;
    verifier.check_claims(jws.typ.as_deref(), &claims, Holder::Nobody, now)?;
    Ok(claims)
}

/// The claims of RFC 7515 and RFC 7519 are parsed, and are valid until their `exp`.
#[track_caller]
fn joe_is_root_until_exp(key: &Value, algorithm: Algorithm, token: &str) {
    let claims = judge(key, algorithm, token, before_exp(1)).unwrap();
    assert_eq!(claims.get("iss"), Some(&json!("joe")));
    assert_eq!(claims.get("exp"), Some(&json!(EXP)));
    assert_eq!(claims.get("http://example.com/is_root"), Some(&json!(true)));
    let late = judge(key, algorithm, token, before_exp(0));
    assert_eq!(late, Err(TokenFault::Expired));
}

/// The bytes that RFC 7515 A.1 signs.
const CLAIMS: &str =
    "{\"iss\":\"joe\",\r\n \"exp\":1300819380,\r\n \"http://example.com/is_root\":true}";

#[test]
fn rfc_7515_a_1_hs256_and_rfc_7519_3_1() {
    accepted(&secret(), HS256, CLAIMS);
    joe_is_root_until_exp(&secret(), Algorithm::HS256, HS256);
    let jws = Jws::parse(HS256).unwrap();
    assert_eq!(jws.typ.as_deref(), Some("JWT"));
}

#[test]
fn rfc_7515_a_2_rs256() {
    accepted(&rsa(), RS256, CLAIMS);
    joe_is_root_until_exp(&rsa(), Algorithm::RS256, RS256);
}

#[test]
fn rfc_7515_a_3_es256() {
    accepted(&p256(), ES256, CLAIMS);
    joe_is_root_until_exp(&p256(), Algorithm::ES256, ES256);
}

#[test]
fn es512_of_rfc_7515_a_4_and_rfc_7520_4_3() {
    accepted(&p521(), ES512, "Payload");
    accepted(&cookbook_p521(), COOKBOOK_ES512, COOKBOOK_TEXT);
}

#[test]
fn an_example_of_one_key_is_refused_by_the_others() {
    let examples = [(secret(), HS256), (rsa(), RS256), (p256(), ES256)];
    for (at, (key, _)) in examples.iter().enumerate() {
        for (other, (_, token)) in examples.iter().enumerate() {
            let expected = if at == other {
                Ok(CLAIMS.as_bytes().to_vec())
            } else {
                Err(TokenFault::Algorithm)
            };
            assert_eq!(payload(key, token), expected, "key {at}, token {other}");
        }
    }
    refused(&set_rsa(), RS256, TokenFault::Signature);
    refused(&cookbook_secret(), HS256, TokenFault::Signature);
}

#[test]
fn rfc_7515_a_5_and_rfc_7519_6_1_unsecured() {
    for key in [secret(), rsa(), p256()] {
        refused(&key, UNSECURED, TokenFault::Algorithm);
    }
    // The same claims with a signature are the example above.
    accepted(&secret(), HS256, CLAIMS);
}

#[test]
fn rfc_7515_a_6_and_a_7_the_json_serializations_are_no_tokens() {
    let part = |token: &'static str, at| token.split('.').nth(at).unwrap();
    let general = json!({
        "payload": part(RS256, 1),
        "signatures": [
            {"protected": part(RS256, 0), "header": {"kid": "2010-12-29"}, "signature": part(RS256, 2)},
            {
                "protected": part(ES256, 0),
                "header": {"kid": "e9bc097a-ce51-4036-9562-d2ade882db0d"},
                "signature": part(ES256, 2),
            },
        ],
    });
    let flattened = json!({
        "payload": part(ES256, 1),
        "protected": part(ES256, 0),
        "header": {"kid": "e9bc097a-ce51-4036-9562-d2ade882db0d"},
        "signature": part(ES256, 2),
    });
    for json in [general, flattened] {
        for key in [rsa(), p256()] {
            refused(&key, &json.to_string(), TokenFault::Malformed);
            refused(&key, &encode(json.to_string()), TokenFault::Malformed);
        }
    }
    // The same parts in the compact form are the examples above.
    accepted(&rsa(), RS256, CLAIMS);
    accepted(&p256(), ES256, CLAIMS);
}

#[test]
fn rfc_7515_e_an_extension_that_is_not_known_is_critical() {
    for key in [secret(), rsa(), p256()] {
        refused(&key, CRITICAL, TokenFault::Critical);
    }
}

#[test]
fn rfc_7519_a_1_and_a_2_encrypted_tokens_are_no_signatures() {
    for key in [secret(), rsa(), p256()] {
        refused(&key, ENCRYPTED, TokenFault::Malformed);
        refused(&key, NESTED, TokenFault::Malformed);
    }
}

#[test]
fn rfc_7520_4_1_rs256() {
    accepted(&cookbook_rsa(), COOKBOOK_RS256, COOKBOOK_TEXT);
}

#[test]
fn rfc_7520_4_2_ps384() {
    accepted(&cookbook_rsa(), COOKBOOK_PS384, COOKBOOK_TEXT);
}

#[test]
fn rfc_7520_4_4_hs256() {
    accepted(&cookbook_secret(), COOKBOOK_HS256, COOKBOOK_TEXT);
}

#[test]
fn rfc_7520_4_5_a_detached_payload_is_missed() {
    let (signed, signature) = COOKBOOK_HS256.rsplit_once('.').unwrap();
    let (header, _) = signed.split_once('.').unwrap();
    let detached = format!("{header}..{signature}");
    refused(&cookbook_secret(), &detached, TokenFault::Signature);
}

#[test]
fn rfc_7520_texts_are_no_claims() {
    for (key, token) in [
        (cookbook_rsa(), COOKBOOK_RS256),
        (cookbook_rsa(), COOKBOOK_PS384),
        (cookbook_secret(), COOKBOOK_HS256),
    ] {
        assert!(payload(&key, token).is_ok());
        let claims = Jws::parse(token).unwrap().claims();
        assert_eq!(claims, Err(TokenFault::Malformed));
    }
}

#[test]
fn rfc_8037_a_4_ed25519() {
    let token = concat!(
        "eyJhbGciOiJFZERTQSJ9.",
        "RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.",
        "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
    );
    accepted(&ed25519(), token, "Example of Ed25519 signing");
}

#[test]
fn rfc_8037_a_1_a_private_key_is_refused() {
    let d = json!({"d": "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"});
    let faults = load(&[with(ed25519(), &d)]).unwrap_err();
    assert_eq!(problems(&faults), [(0, &KeyProblem::PrivateKey)]);
    assert!(load(&[ed25519()]).is_ok(), "its public half is accepted");
}

#[test]
fn rfc_7797_4_1_an_encoded_payload_is_accepted() {
    let token = "eyJhbGciOiJIUzI1NiJ9.JC4wMg.5mvfOroL-g7HyqJoozehmsaqmvTYGEq5jTI1gVvoEoQ";
    accepted(&secret(), token, "$.02");
}

#[test]
fn rfc_7797_4_2_an_unencoded_payload_is_refused() {
    let header = "eyJhbGciOiJIUzI1NiIsImI2NCI6ZmFsc2UsImNyaXQiOlsiYjY0Il19";
    let signature = "A5dxf2s96_n5FLueVuW1Z_vh161FwXZC4YLPff6dmDY";
    let detached = format!("{header}..{signature}");
    refused(&secret(), &detached, TokenFault::Critical);
    // If it were encoded in spite of `b64`, it would read as the example above.
    let encoded = format!("{header}.JC4wMg.{signature}");
    refused(&secret(), &encoded, TokenFault::Critical);
    let json = json!({"protected": header, "payload": "$.02", "signature": signature});
    refused(&secret(), &json.to_string(), TokenFault::Malformed);
}

/// Which keys of the set are refused, and why.
fn problems(faults: &[KeyFault]) -> Vec<(usize, &KeyProblem)> {
    faults
        .iter()
        .map(|fault| match fault {
            KeyFault::InSet { at, problem, .. } => (*at, problem),
            KeyFault::NoKey
            | KeyFault::IdleAlgorithms(_)
            | KeyFault::SecretAtUrl(_)
            | KeyFault::Source { .. } => panic!("{fault}"),
        })
        .collect()
}

#[test]
fn rfc_7517_a_1_a_set_of_public_keys_is_read() {
    let set = json!({"keys": [set_p256(), set_rsa()]}).to_string();
    let entries = jwk::read(set.as_bytes()).unwrap();
    let [Err(left), Ok(rsa)] = &entries[..] else {
        panic!("the key for encryption is passed over, and the other one read")
    };
    assert!(left.problem.is_passed_over() && left.problem.is_usual());
    assert_eq!(rsa.kid.as_deref(), Some("2011-04-29"));
    assert_eq!(rsa.algorithm, Some(Algorithm::RS256));
    assert!(matches!(rsa.material, Material::Public(_)));
    let (keys, warnings) = KeySet::load(
        &[KeySource::Jwks(set.into_bytes())],
        &[Algorithm::RS256],
        ShortSecrets::Refuse,
    )
    .unwrap();
    assert_eq!(format!("{keys:?}"), "KeySet of 1 keys for RS256");
    assert!(warnings.is_empty());
}

#[test]
fn rfc_7517_a_2_private_keys_are_refused() {
    let d = json!({"d": "870MB6gfuTJ4HtUnUvYMyJpr5eUZNP4Bk43bVdj3eAE"});
    let p256 = with(set_p256(), &d);
    let rsa = with(set_rsa(), &private_rsa());
    let faults = load(&[p256.clone(), rsa]).unwrap_err();
    assert_eq!(problems(&faults), [(1, &KeyProblem::PrivateKey)]);
    // The other key is skipped for its `use`; it is private too.
    let signing = json!({"use": "sig"});
    let faults = load(&[with(p256, &signing)]).unwrap_err();
    assert_eq!(problems(&faults), [(0, &KeyProblem::PrivateKey)]);
    let public = [with(set_p256(), &signing), set_rsa()];
    assert!(load(&public).is_ok(), "their public halves are accepted");
}

#[test]
fn rfc_7517_a_3_a_set_of_secrets_is_read() {
    let wrapping = json!({"kty": "oct", "alg": "A128KW", "k": "GawgguFyGrWKav7AX4VKUg"});
    let signing = json!({
        "kty": "oct", "k": SECRET, "kid": "HMAC key used in JWS spec Appendix A.1 example",
    });
    let keys = load(&[wrapping, signing]).unwrap();
    assert_eq!(
        format!("{keys:?}"),
        "KeySet of 1 keys for HS256, HS384, HS512"
    );
    assert_eq!(
        keys.verify(&Jws::parse(HS256).unwrap(), AlgorithmSet::ALL),
        Ok(())
    );
}
