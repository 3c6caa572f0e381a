//! A login that the app decides on: the request to the app, and what its response means. The gateway sends the
//! request.

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use serde_json::{Map, Value, json};

use super::mint::OWN;
use crate::auth::{parse_object, whole};

/// The maximum size of the app's data about a user, in bytes of JSON: all of it goes into each access token.
const LONGEST: usize = 4096;

/// A login that is to be decided.
pub(crate) struct Login {
    name: String,
    password: String,
}

impl std::fmt::Debug for Login {
    /// The password is never printed.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Login {}", self.name)
    }
}

/// The app's decision.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Decided {
    /// The user is this subject, with this data.
    User(String, Map<String, Value>),
    /// Wrong credentials, or access denied.
    Refused,
    /// Too many attempts; how many seconds to wait.
    Throttled(u64),
    /// A response that is invalid; the reason.
    Nothing(String),
}

impl Login {
    pub(super) fn new(name: String, password: String) -> Self {
        Self { name, password }
    }

    /// The body of the request: JSON.
    pub(crate) fn question(&self) -> Bytes {
        let body = json!({"username": self.name, "password": self.password});
        body.to_string().into()
    }

    /// Interprets a response: 2xx with a JSON object of claims accepts the user, whose name is `sub` or else the
    /// username; 401 and 403 reject the login, 429 asks to wait.
    pub(crate) fn decide(self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Decided {
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Decided::Refused,
            StatusCode::TOO_MANY_REQUESTS => {
                let wait = headers.get(header::RETRY_AFTER);
                let wait = wait.and_then(|wait| wait.to_str().ok()?.parse().ok());
                Decided::Throttled(wait.unwrap_or(60))
            }
            status if status.is_success() => self
                .user(body)
                .map_or_else(Decided::Nothing, |(sub, claims)| Decided::User(sub, claims)),
            status => Decided::Nothing(format!("its response is {status}")),
        }
    }

    fn user(self, body: &[u8]) -> Result<(String, Map<String, Value>), String> {
        if body.len() > LONGEST {
            return Err(format!("its response is longer than {LONGEST} bytes"));
        }
        let mut claims = parse_object(body)
            .map_err(|fault| format!("its body is not a JSON object: {fault}"))?;
        let sub = match claims.remove("sub") {
            None => self.name,
            Some(Value::String(sub)) if !sub.is_empty() => sub,
            Some(Value::Number(sub)) => whole(&sub)
                .ok_or("`sub` in its response is a number with a fraction, or a very large one")?,
            Some(_) => return Err("`sub` in its response is not a text or a number".to_owned()),
        };
        if let Some(own) = OWN.iter().find(|own| claims.contains_key(**own)) {
            return Err(format!("`{own}` in its response is the gateway's to say"));
        }
        Ok((sub, claims))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(status: u16, body: &str) -> Decided {
        let login = Login::new("alice".to_owned(), "pw".to_owned());
        let status = StatusCode::from_u16(status).unwrap();
        login.decide(status, &HeaderMap::new(), body.as_bytes())
    }

    #[test]
    fn an_object_lets_in_and_says_who_it_is() {
        let user = |sub: &str, claims: Value| {
            Decided::User(sub.to_owned(), claims.as_object().unwrap().clone())
        };
        assert_eq!(decide(200, "{}"), user("alice", json!({})));
        assert_eq!(
            decide(201, r#"{"sub":7,"roles":["clerk"]}"#),
            user("7", json!({"roles": ["clerk"]}))
        );
        assert_eq!(decide(200, r#"{"sub":"a"}"#), user("a", json!({})));
        let large = r#"{"sub":123456789012345678901}"#;
        assert_eq!(decide(200, large), user("123456789012345678901", json!({})));
    }

    #[test]
    fn whatever_else_lets_nobody_in() {
        assert_eq!(decide(401, "{}"), Decided::Refused);
        assert_eq!(decide(403, r#"{"sub":"alice"}"#), Decided::Refused);
        assert_eq!(decide(429, ""), Decided::Throttled(60));
        let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(LONGEST));
        for (status, body) in [
            (200, ""),
            (200, "[]"),
            (200, "true"),
            (200, r#"{"a":1,"a":2}"#),
            (200, r#"{"sub":null}"#),
            (200, r#"{"sub":""}"#),
            (200, r#"{"sub":1.5}"#),
            (200, r#"{"exp":99999999999}"#),
            (200, r#"{"token_type":"access"}"#),
            (200, &long),
            (302, "{}"),
            (404, "{}"),
            (500, "{}"),
        ] {
            let decided = decide(status, body);
            assert!(matches!(decided, Decided::Nothing(_)), "{status} {body}");
        }
    }

    #[test]
    fn a_password_is_in_the_question_alone() {
        let login = Login::new("al\"ice".to_owned(), "p\"w".to_owned());
        let question: Value = serde_json::from_slice(&login.question()).unwrap();
        assert_eq!(question, json!({"username": "al\"ice", "password": "p\"w"}));
        assert!(!format!("{login:?}").contains("p\"w"));
    }
}
