//! Why a verifier refuses a token, in words and with the values that it compared: for the command line. Only `verify`
//! and `keys` decide what is refused; nothing here is sent to a client.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::super::binding::{Binding, CONFIRMATION, Holder};
use super::super::claims::{ClaimPath, Claims, equal};
use super::super::json;
use super::super::jws::Jws;
use super::super::keys::KeySet;
use super::{Audience, Dates, Keys, Unverified, Verifier, bare};
use crate::clock;
use crate::message::reject::TokenFault;

impl Verifier {
    /// All errors in the claims at this time, in words; the first is the one that a client receives.
    pub(crate) fn all_why(
        &self,
        jws: &Jws<'_>,
        claims: &Claims,
        holder: Holder<'_>,
        now: SystemTime,
    ) -> Vec<String> {
        let typ = jws.typ.as_deref();
        let Err(first) = self.check_claims(typ, claims, holder, now) else {
            return Vec::new();
        };
        let dates = Dates::of(claims, self.leeway);
        let faults = [
            Err(first),
            self.check_type(typ),
            dates.and_then(|dates| self.check_revoked(claims, &dates)),
            self.check_issuer(claims),
            self.check_audience(claims),
            dates.and_then(|dates| self.check_dates(&dates, now)),
            self.check_own(claims),
            Binding::of(claims, self.cnf).and_then(|binding| binding.check(holder)),
        ];
        let mut lines: Vec<String> = Vec::new();
        for fault in faults.into_iter().filter_map(Result::err) {
            let line = self.why(jws, Some(claims), fault.into(), now);
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
        lines
    }

    /// Why a token is refused for this reason at this time.
    pub(crate) fn why(
        &self,
        jws: &Jws<'_>,
        claims: Option<&Claims>,
        reason: Unverified,
        now: SystemTime,
    ) -> String {
        let fault = match reason {
            Unverified::Token(fault) => fault,
            Unverified::NoKeys => return self.why_no_keys(),
        };
        let general = || fault.to_string();
        let Some(claims) = claims else {
            return self.why_not_signed(jws, fault, now);
        };
        let claim = |name: &str| claims.get(name);
        let (time, now) = (now, seconds(now));
        let dates = Dates::of(claims, self.leeway).unwrap_or_default();
        match fault {
            TokenFault::Algorithm | TokenFault::UnknownKey | TokenFault::Signature => {
                self.why_not_signed(jws, fault, time)
            }
            TokenFault::Expired => dates.exp.map_or_else(general, |exp| {
                format!(
                    "expired {} ago, at {} ({})",
                    span(now - exp),
                    moment(exp),
                    self.leeway_in_words()
                )
            }),
            TokenFault::Immature => dates.nbf.map_or_else(general, |nbf| {
                format!(
                    "not valid for another {}, until {} (nbf; {})",
                    span(nbf - now),
                    moment(nbf),
                    self.leeway_in_words()
                )
            }),
            TokenFault::IssuedInFuture => dates.iat.map_or_else(general, |iat| {
                format!(
                    "issued {} from now, at {} (iat; {}): is one of the clocks wrong?",
                    span(iat - now),
                    moment(iat),
                    self.leeway_in_words()
                )
            }),
            TokenFault::Lifetime => match (dates.exp, dates.iat, self.max_lifetime) {
                (Some(exp), Some(iat), Some(longest)) => format!(
                    "lives {} from iat to exp, and max_lifetime is {}",
                    span(exp - iat),
                    span(longest)
                ),
                _ => general(),
            },
            TokenFault::Issuer => {
                let said = claim("iss").and_then(Value::as_str).unwrap_or_default();
                let near = self
                    .issuer
                    .iter()
                    .find(|known| known.trim_end_matches('/') == said.trim_end_matches('/'));
                let why = if near.is_some() {
                    ": they differ only by a trailing slash"
                } else {
                    ""
                };
                format!(
                    "iss is {}, the verifier wants {}{why}",
                    shown(claim("iss")),
                    one_of(&self.issuer)
                )
            }
            TokenFault::Audience => match &self.audience {
                Audience::OneOf(wanted) => format!(
                    "aud is {}, the verifier wants {}",
                    shown(claim("aud")),
                    one_of(wanted)
                ),
                Audience::Unset | Audience::Any => format!(
                    "aud is {}, and the verifier names no audience: a token that is meant for somebody \
                     is refused by those who do not say that they are meant (`audience`)",
                    shown(claim("aud"))
                ),
            },
            TokenFault::Type => {
                let wanted = self.typ.as_deref().unwrap_or_default();
                let said = header(jws).get("typ").cloned();
                format!(
                    "typ is {}, the verifier wants {:?}",
                    shown(said.as_ref()),
                    bare(wanted)
                )
            }
            TokenFault::Claim(name) => match claim(name) {
                None => format!("{name} is missing"),
                Some(value) => format!("{name} is {value}, which is not what it can be"),
            },
            TokenFault::RequiredClaim => {
                let differs = |(path, wanted): &&(ClaimPath, Value)| {
                    !claims.at(path).is_some_and(|claim| equal(claim, wanted))
                };
                let wrong = self.claims.iter().find(differs);
                wrong.map_or_else(general, |(path, wanted)| {
                    format!(
                        "{path} is {}, the verifier wants {wanted}",
                        shown(claims.at(path))
                    )
                })
            }
            TokenFault::Revoked => format!(
                "revoked: the file `revoked` lists jti {} or sub {}",
                shown(claim("jti")),
                shown(claim("sub"))
            ),
            TokenFault::Binding(why) => format!("{why}: cnf is {}", shown(claim(CONFIRMATION))),
            TokenFault::TooLong | TokenFault::Malformed | TokenFault::Critical => general(),
        }
    }

    fn leeway_in_words(&self) -> String {
        format!("leeway {}", span(self.leeway))
    }

    fn why_no_keys(&self) -> String {
        match &*self.keys {
            Keys::Fixed(_) => "there are no keys".to_owned(),
            Keys::Remote(remote, _) => match remote.failure() {
                Some(failure) => format!("its keys could not be fetched: {failure}"),
                None => format!(
                    "its keys are at {} and were not fetched; --online fetches them",
                    remote.settings().location
                ),
            },
        }
    }

    /// Why none of its keys signed the token.
    fn why_not_signed(&self, jws: &Jws<'_>, fault: TokenFault, now: SystemTime) -> String {
        let header = header(jws);
        let (alg, kid) = (shown(header.get("alg")), shown(header.get("kid")));
        let named = header.get("kid").and_then(Value::as_str);
        let left_out = |set: &KeySet| {
            let reasons = named.into_iter().flat_map(|kid| set.why_left_out(kid));
            reasons.fold(String::new(), |all, why| {
                format!("{all}; a key of that name was left out of the set: {why}")
            })
        };
        let (algorithms, names, whence) = match &*self.keys {
            Keys::Fixed(set) => {
                let names: Vec<_> = set.names().flatten().map(str::to_owned).collect();
                (set.algorithms(), names, left_out(set))
            }
            Keys::Remote(remote, accepted) => {
                let current = remote.current();
                let (can, whence) = current.map_or_else(
                    || (*accepted, String::new()),
                    |fetched| {
                        let ago = seconds(now) - seconds(fetched.at);
                        let left_out = left_out(&fetched.set);
                        let whence = format!(" (fetched {} ago){left_out}", span(ago));
                        (fetched.set.algorithms().and(*accepted), whence)
                    },
                );
                (can, remote.names(), whence)
            }
        };
        let is_named = header.contains_key("kid") && names.contains(&unquoted(&kid));
        if fault == TokenFault::Algorithm {
            format!("alg {alg} is not among {algorithms}{whence}")
        } else if fault == TokenFault::UnknownKey && names.is_empty() {
            format!("kid {kid} is unknown: no key has a name{whence}")
        } else if fault == TokenFault::UnknownKey {
            let names = names.join(", ");
            format!("kid {kid} with alg {alg} is not among {names}{whence}")
        } else if fault == TokenFault::Signature && is_named {
            format!("the signature is not one of the key {kid}{whence}")
        } else {
            format!("{fault}{whence}")
        }
    }
}

fn unquoted(text: &str) -> String {
    text.trim_matches('"').to_owned()
}

fn header(jws: &Jws<'_>) -> Map<String, Value> {
    let part = jws.signed.split('.').next().unwrap_or_default();
    let bytes = URL_SAFE_NO_PAD.decode(part).unwrap_or_default();
    json::parse_object(&bytes).unwrap_or_default()
}

fn shown(value: Option<&Value>) -> String {
    value.map_or_else(|| "absent".to_owned(), Value::to_string)
}

fn one_of(names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
    match quoted.as_slice() {
        [only] => only.clone(),
        several => format!("one of {}", several.join(", ")),
    }
}

fn seconds(time: SystemTime) -> f64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => since.as_secs_f64(),
        Err(before) => -before.duration().as_secs_f64(),
    }
}

/// A duration in words: `41 s`, `2 h 5 min`.
fn span(seconds: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "out of range it saturates, and only words come of it"
    )]
    let whole = seconds.max(0.0).round() as u64;
    let (days, hours, minutes, rest) = (
        whole / 86_400,
        whole / 3600 % 24,
        whole / 60 % 60,
        whole % 60,
    );
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{rest} s"),
        (0, 0, _) if rest == 0 => format!("{minutes} min"),
        (0, 0, _) => format!("{minutes} min {rest} s"),
        (0, _, 0) => format!("{hours} h"),
        (0, _, _) => format!("{hours} h {minutes} min"),
        (_, 0, _) => format!("{days} d"),
        (_, _, _) => format!("{days} d {hours} h"),
    }
}

/// A time in RFC 3339 format.
fn moment(seconds: f64) -> String {
    if !(0.0..253_402_300_800.0).contains(&seconds) {
        return format!("{seconds} s after 1970");
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it lies between 1970 and 10000"
    )]
    let whole = seconds as u64;
    let (year, month, day, hour, minute, second) = clock::civil(whole);
    format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::super::super::testing::{NOW, now, raw, settings};
    use super::super::super::{Algorithm, VerifierSettings};
    use super::*;

    #[track_caller]
    fn check(change: impl FnOnce(&mut VerifierSettings), claims: Value, expected: &str) {
        let mut settings = settings(Algorithm::HS256);
        change(&mut settings);
        let verifier = Verifier::new(settings, None).unwrap();
        let header = r#"{"alg":"HS256","typ":"JWT"}"#;
        let mut claims = claims;
        let members = claims.as_object_mut().unwrap();
        members.entry("exp").or_insert_with(|| json!(NOW + 60));
        let token = raw(Algorithm::HS256, header, &claims.to_string());
        let jws = Jws::parse(&token).unwrap();
        let read = jws.claims().unwrap();
        let fault = verifier
            .check_claims(jws.typ.as_deref(), &read, Holder::Nobody, now())
            .unwrap_err();
        let why = verifier.why(&jws, Some(&read), fault.into(), now());
        assert_eq!(why, expected);
    }

    #[test]
    fn the_reason_has_the_values_that_were_compared() {
        check(
            |_| {},
            json!({"exp": NOW - 41}),
            "expired 41 s ago, at 2026-09-21T14:12:39Z (leeway 30 s)",
        );
        check(
            |_| {},
            json!({"nbf": NOW + 7500}),
            "not valid for another 2 h 5 min, until 2026-09-21T16:18:20Z (nbf; leeway 30 s)",
        );
        check(
            |it| it.max_lifetime = Some(Duration::from_secs(60)),
            json!({"iat": NOW, "exp": NOW + 90_000}),
            "lives 1 d 1 h from iat to exp, and max_lifetime is 1 min",
        );
        let named = |it: &mut VerifierSettings| it.issuer = vec!["https://a.example".to_owned()];
        check(
            named,
            json!({"iss": "https://a.example/"}),
            "iss is \"https://a.example/\", the verifier wants \"https://a.example\": they differ only by a \
             trailing slash",
        );
        check(named, json!({}), "iss is missing");
        check(
            |it| it.audience = Audience::OneOf(vec!["orders-api".to_owned(), "b".to_owned()]),
            json!({"aud": "web"}),
            "aud is \"web\", the verifier wants one of \"orders-api\", \"b\"",
        );
        check(
            |it| it.typ = Some("application/at+jwt".to_owned()),
            json!({}),
            "typ is \"JWT\", the verifier wants \"at+jwt\"",
        );
        check(
            |it| it.claims = vec![(ClaimPath::parse("token_type").unwrap(), json!("access"))],
            json!({"token_type": "refresh"}),
            "token_type is \"refresh\", the verifier wants \"access\"",
        );
        check(
            |_| {},
            json!({"exp": "soon"}),
            "exp is \"soon\", which is not what it can be",
        );
    }
}
