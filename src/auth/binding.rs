//! Tokens that are bound to a client certificate (RFC 8705 section 3): `cnf` of a token, and the certificate of the
//! connection that it came on. Every request is compared, also one whose token was verified before.

use serde_json::Value;

use super::claims::Claims;
use crate::message::reject::TokenFault;
use crate::net::tls::Fingerprint;

/// The confirmation method that names a certificate by its SHA-256.
pub(super) const THUMBPRINT: &str = "x5t#S256";
/// The claim that binds a token to a key of its holder (RFC 7800).
pub(super) const CONFIRMATION: &str = "cnf";

/// What a verifier makes of `cnf`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Cnf {
    /// A token that has it is only accepted from its holder.
    #[default]
    Check,
    /// The same, and a token without it is refused.
    Require,
    /// It is left to the app.
    Ignore,
}

/// Who sent a token.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Holder<'c> {
    /// A client with this certificate, or with none.
    Client(Option<&'c Fingerprint>),
    /// Nobody who could prove anything: the token is looked at, and opens nothing.
    Nobody,
}

/// The certificate that a token is bound to, if it is to any.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Binding(Option<Fingerprint>);

impl Binding {
    /// The binding of a token with these claims.
    ///
    /// # Errors
    /// `cnf` is malformed or of another kind, or it is missing where it is required.
    pub(super) fn of(claims: &Claims, cnf: Cnf) -> Result<Self, TokenFault> {
        let refused = |why| Err(TokenFault::Binding(why));
        let members = match (claims.get(CONFIRMATION), cnf) {
            (_, Cnf::Ignore) | (None, Cnf::Check) => return Ok(Self(None)),
            (None, Cnf::Require) => {
                return refused("the token is not bound to a client certificate");
            }
            (Some(Value::Object(members)), Cnf::Check | Cnf::Require) => members,
            (Some(_), Cnf::Check | Cnf::Require) => {
                return refused("the token's confirmation is malformed");
            }
        };
        // Another method beside it would have to hold, too.
        if members.keys().any(|method| method != THUMBPRINT) {
            return refused(
                "the token is bound to its holder in a way that cannot be checked here",
            );
        }
        let print = members.get(THUMBPRINT).and_then(Value::as_str);
        match print.and_then(Fingerprint::from_base64url) {
            Some(print) => Ok(Self(Some(print))),
            None => refused("the token's confirmation is malformed"),
        }
    }

    /// Whether this is the holder.
    ///
    /// # Errors
    /// It is somebody else.
    pub(super) fn check(&self, holder: Holder<'_>) -> Result<(), TokenFault> {
        let (Some(bound), Holder::Client(shown)) = (&self.0, holder) else {
            return Ok(());
        };
        match shown {
            Some(shown) if shown == bound => Ok(()),
            Some(_) => Err(TokenFault::Binding(
                "the token is bound to another client certificate",
            )),
            None => Err(TokenFault::Binding(
                "the token is bound to a client certificate, and the connection has none",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const OWN: &[u8] = b"own";

    /// Which text each setting refuses the claims with, from a client with this certificate.
    #[track_caller]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "rows read better without references"
    )]
    fn check(cnf: Value, shown: Option<&[u8]>, said: [Option<&str>; 3]) {
        let claims = if cnf == "none" {
            json!({})
        } else {
            json!({"cnf": cnf})
        };
        let claims = Claims::new(claims.as_object().unwrap().clone());
        let shown = shown.map(Fingerprint::of);
        for (setting, said) in [Cnf::Check, Cnf::Require, Cnf::Ignore]
            .into_iter()
            .zip(said)
        {
            let seen = Binding::of(&claims, setting)
                .and_then(|binding| binding.check(Holder::Client(shown.as_ref())));
            match (seen, said) {
                (Ok(()), None) => {}
                (Err(TokenFault::Binding(text)), Some(said)) if text.contains(said) => {}
                (seen, said) => panic!("{setting:?}: {seen:?}, expected {said:?}"),
            }
        }
    }

    fn bound_to(certificate: &[u8]) -> Value {
        json!({"x5t#S256": Fingerprint::of(certificate).base64url()})
    }

    #[test]
    fn a_bound_token_is_for_its_holder_alone() {
        check(bound_to(OWN), Some(OWN), [None, None, None]);
        let other = Some("another");
        check(bound_to(OWN), Some(b"other"), [other, other, None]);
        let none = Some("has none");
        check(bound_to(OWN), None, [none, none, None]);
    }

    #[test]
    fn a_token_that_is_not_bound_is_refused_only_where_it_must_be() {
        for shown in [None, Some(OWN)] {
            check(json!("none"), shown, [None, Some("not bound"), None]);
        }
    }

    #[test]
    fn what_cannot_be_checked_is_refused() {
        let print = Fingerprint::of(OWN);
        let malformed = Some("malformed");
        for cnf in [
            json!(null),
            json!(true),
            json!([]),
            json!([{"x5t#S256": print.base64url()}]),
            json!(print.base64url()),
            json!({}),
            json!({"x5t#S256": null}),
            json!({"x5t#S256": 7}),
            json!({"x5t#S256": [print.base64url()]}),
            json!({"x5t#S256": ""}),
            json!({"x5t#S256": print.hex()}),
            json!({"x5t#S256": format!("{}=", print.base64url())}),
        ] {
            check(cnf, Some(OWN), [malformed, malformed, None]);
        }
        let unknown = Some("cannot be checked");
        for cnf in [
            json!({"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}),
            json!({"jwk": {"kty": "EC"}}),
            json!({"kid": "x"}),
            json!({"x5t#s256": print.base64url()}),
            json!({"x5t#S256": print.base64url(), "jkt": "x"}),
        ] {
            check(cnf, Some(OWN), [unknown, unknown, None]);
        }
    }

    #[test]
    fn who_only_looks_at_a_token_need_not_hold_it() {
        let claims = json!({"cnf": bound_to(OWN)});
        let claims = Claims::new(claims.as_object().unwrap().clone());
        let binding = Binding::of(&claims, Cnf::Check).unwrap();
        assert_eq!(binding.check(Holder::Nobody), Ok(()));
    }
}
