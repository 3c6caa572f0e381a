//! The claims of a family's access and refresh token. The service decides who gets them, and the key signs them.

use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use super::store::{Family, FamilyName};
use crate::auth::Claims;

/// The claims that the service sets itself, or that the configuration may not redefine.
pub(crate) const OWN: [&str; 12] = [
    "token_type",
    "exp",
    "nbf",
    "iat",
    "jti",
    "iss",
    "aud",
    "sub",
    "sid",
    "auth_time",
    "auth_ms",
    "gen",
];

/// A claim of issued tokens.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Issued {
    /// This value.
    Fixed(Value),
    /// The user's name.
    Name,
    /// The value of this name in the data about the user.
    OfUser(String),
}

/// The claims of an access token that is issued at a time in seconds since 1970; without an id it belongs to no
/// family.
pub(super) fn access(
    (id, family): (Option<&str>, &Family),
    issuer: Option<&str>,
    (claims, user): (&[(String, Issued)], &Map<String, Value>),
    (now, life): (u64, Duration),
    jti: &str,
) -> Map<String, Value> {
    // The app's data from the login; the configuration overrides it.
    let mut all = family.claims.clone();
    for (name, issued) in claims {
        let value = match issued {
            Issued::Fixed(value) => Some(value),
            Issued::Name => None,
            Issued::OfUser(member) => match user.get(member) {
                None => continue,
                value => value,
            },
        };
        let value = value.map_or_else(|| family.sub.as_str().into(), Value::clone);
        all.insert(name.clone(), value);
    }
    all.extend(common(id, family, issuer));
    all.extend(object(json!({
        "token_type": "access",
        "iat": now,
        "exp": now + life.as_secs(),
        "jti": jti,
    })));
    all
}

/// The claims of the refresh token for the state of a family: the same each time.
pub(super) fn refresh(id: &str, family: &Family, issuer: Option<&str>) -> Map<String, Value> {
    let mut all = common(Some(id), family, issuer);
    all.extend(object(json!({
        "token_type": "refresh",
        "iat": family.rotated / 1000,
        "exp": family.expires,
        "gen": family.generation,
        "jti": name_of(id, family.generation),
    })));
    all
}

fn common(id: Option<&str>, family: &Family, issuer: Option<&str>) -> Map<String, Value> {
    let mut all = Map::new();
    if let Some(issuer) = issuer {
        all.insert("iss".to_owned(), issuer.into());
    }
    all.insert("sub".to_owned(), family.sub.as_str().into());
    if let Some(id) = id {
        all.insert("sid".to_owned(), id.into());
    }
    // When the user logged in, in whole seconds as most applications expect (OpenID Connect Core section 2), and the
    // milliseconds separately: ending all sessions ends those that began earlier.
    all.insert("auth_time".to_owned(), (family.created / 1000).into());
    all.insert("auth_ms".to_owned(), (family.created % 1000).into());
    all
}

/// The family that a token belongs to.
pub(super) fn family_of(claims: &Claims) -> Option<FamilyName> {
    let text = |name| claims.get(name).and_then(Value::as_str).map(str::to_owned);
    Some(FamilyName {
        id: text("sid")?,
        sub: text("sub")?,
    })
}

/// The id of a family's refresh token; the family's own id is 128 random bits.
fn name_of(id: &str, generation: u64) -> String {
    let sum = digest::digest(&digest::SHA256, format!("{id}/{generation}").as_bytes());
    let short = sum.as_ref().get(..16).unwrap_or_default();
    URL_SAFE_NO_PAD.encode(short)
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Map::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::spender::Spender;

    fn family() -> Family {
        Family {
            sub: "alice".to_owned(),
            created: 1_500,
            generation: 2,
            rotated: 61_000,
            expires: 90,
            spender: Spender::default(),
            repeated: false,
            ended: None,
            claims: object(json!({"roles": ["app"], "plan": "gold"})),
        }
    }

    #[test]
    fn the_configuration_has_the_last_word_and_the_services_own_are_its_own() {
        let claims = [
            ("roles".to_owned(), Issued::OfUser("roles".to_owned())),
            ("user_id".to_owned(), Issued::Name),
            ("tier".to_owned(), Issued::Fixed(json!(1))),
            ("none".to_owned(), Issued::OfUser("none".to_owned())),
        ];
        let user = object(json!({"roles": ["clerk"]}));
        let access = access(
            (Some("f"), &family()),
            Some("me"),
            (&claims, &user),
            (62, Duration::from_secs(300)),
            "j",
        );
        let expected = json!({
            "iss": "me", "sub": "alice", "sid": "f", "auth_time": 1, "auth_ms": 500, "token_type": "access",
            "iat": 62, "exp": 362, "jti": "j",
            "roles": ["clerk"], "plan": "gold", "user_id": "alice", "tier": 1,
        });
        assert_eq!(Value::Object(access), expected);
    }

    #[test]
    fn a_refresh_token_says_nothing_of_the_user_and_is_the_same_each_time() {
        let one = refresh("f", &family(), None);
        assert_eq!(one, refresh("f", &family(), None));
        let expected = json!({
            "sub": "alice", "sid": "f", "auth_time": 1, "auth_ms": 500, "token_type": "refresh",
            "iat": 61, "exp": 90, "gen": 2, "jti": name_of("f", 2),
        });
        assert_eq!(Value::Object(one), expected);
        assert_ne!(name_of("f", 2), name_of("f", 3));
        assert_ne!(name_of("f", 2), name_of("g", 2));
        assert_eq!(name_of("f", 2).len(), 22);
    }
}
