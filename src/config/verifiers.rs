//! `jwt`: the keys of a verifier, and what stands behind each.

use std::time::Duration;

use serde_json::Value;

use super::decode::{Decoder, Fields};
use super::json::json;
use super::node::{Kind, Node};
use super::parsed::{Audience, Jwks, KeyFile, Secret, Spanned, TokenSource, Verifier};
use super::value;
use crate::auth::MAX_TRIES;
use crate::net::url::Url;

/// The algorithms that tokens may be signed with.
pub(super) const ALGORITHMS: [&str; 13] = [
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256",
    "ES384", "ES512", "EdDSA",
];

impl Decoder<'_> {
    /// One of `jwt`.
    pub(crate) fn verifier(&mut self, node: &Node) -> Verifier {
        let before = self.errors.count();
        let known = [
            "algorithms",
            "secret",
            "keys",
            "jwks",
            "jwks_refresh",
            "stale_for",
            "ca",
            "revoked",
            "issuer",
            "audience",
            "leeway",
            "require_exp",
            "max_lifetime",
            "typ",
            "claims",
            "from",
            "weak_secret",
        ];
        let mut verifier = Verifier {
            place: node.place,
            broken: false,
            algorithms: Vec::new(),
            secret: Vec::new(),
            keys: Vec::new(),
            jwks: None,
            jwks_refresh: None,
            stale_for: Spanned::default_of(Duration::from_secs(3600)),
            ca: None,
            revoked: None,
            issuer: Vec::new(),
            audience: None,
            leeway: Spanned::default_of(Duration::from_secs(30)),
            require_exp: Spanned::default_of(true),
            max_lifetime: None,
            typ: None,
            claims: Vec::new(),
            from: vec![Spanned::default_of(TokenSource::Header)],
            weak_secret: None,
        };
        if let Some(fields) = self.fields(node, "a map", &known) {
            self.signature(fields, &mut verifier);
            self.claims(fields, &mut verifier);
        }
        verifier.broken = self.errors.count() > before;
        verifier
    }

    /// The keys of a verifier that say whose signature is good.
    fn signature(&mut self, fields: Fields<'_>, verifier: &mut Verifier) {
        self.set(
            fields,
            "algorithms",
            &mut verifier.algorithms,
            |it, node| it.filled_list(node, "a list of algorithms", Self::algorithm),
        );
        self.set(fields, "secret", &mut verifier.secret, |it, node| {
            it.one_or_more(node, "a secret or a list of secrets", Self::secret)
        });
        if let Some(secret) = verifier.secret.get(MAX_TRIES) {
            self.errors
                .at(secret.place, format!("more than {MAX_TRIES} secrets"))
                .hint("no more than those are tried on a token; leave out the oldest");
        }
        self.set(fields, "keys", &mut verifier.keys, |it, node| {
            it.filled_list(node, "a list of key files", Self::key_file)
        });
        verifier.jwks = self.optional(fields, "jwks", |it, node| {
            if matches!(&node.kind, Kind::Scalar(scalar) if scalar.text.contains("://")) {
                let node = it.without_password(node)?;
                return it.scalar(node, "a URL", "", |text| {
                    let url = Url::parse(text).map_err(str::to_owned)?;
                    Ok(Jwks::Url(url))
                });
            }
            let file = it.file(node)?;
            Some(Spanned {
                value: Jwks::File(file.value),
                place: file.place,
                private: file.private,
            })
        });
        verifier.jwks_refresh = self.optional(fields, "jwks_refresh", |it, node| {
            it.scalar(node, "a duration from 10s to 24h", value::DURATIONS, |text| {
                let bounds = Duration::from_secs(10)..=Duration::from_secs(24 * 3600);
                match value::duration(text)? {
                    life if bounds.contains(&life) => Ok(life),
                    _ => Err("a shorter life asks too much of the issuer, a longer one keeps what it takes back".to_owned()),
                }
            })
        });
        self.set(
            fields,
            "stale_for",
            &mut verifier.stale_for,
            Self::duration_or_zero,
        );
        verifier.ca = self.optional(fields, "ca", Self::file);
        verifier.weak_secret = self
            .optional(fields, "weak_secret", |it, node| {
                it.choice(node, "`allow`", &[("allow", ())])
            })
            .map(|it| it.place);
    }

    fn secret(&mut self, node: &Node) -> Option<Spanned<Secret>> {
        self.scalar(node, "a secret that is not empty", "", |text| match text {
            "" => Err(String::new()),
            text => Ok(Secret::new(text.to_owned())),
        })
    }

    fn algorithm(&mut self, node: &Node) -> Option<Spanned<String>> {
        let known = ALGORITHMS.map(|name| (name, name));
        if let Kind::Scalar(scalar) = &node.kind
            && scalar.text.eq_ignore_ascii_case("none")
        {
            let hint = format!("known here: {}", ALGORITHMS.join(", "));
            self.errors
                .at(node.place, "tokens without a signature are never accepted")
                .hint(hint);
            return None;
        }
        let name = self.choice(node, "an algorithm", &known)?;
        Some(Spanned {
            value: name.value.to_owned(),
            place: name.place,
            private: name.private,
        })
    }

    fn key_file(&mut self, node: &Node) -> Option<KeyFile> {
        if matches!(node.kind, Kind::Scalar(_)) {
            return Some(KeyFile {
                kid: None,
                file: self.file(node)?,
            });
        }
        let fields = self.fields(node, "a path or a map", &["kid", "file"])?;
        let kid = self.optional(fields, "kid", Self::filled_text);
        let file = self.required(fields, "file", Self::file);
        Some(KeyFile { kid, file: file? })
    }

    /// The keys of a verifier that say what a token must hold, and where it is looked for.
    fn claims(&mut self, fields: Fields<'_>, verifier: &mut Verifier) {
        self.set(fields, "issuer", &mut verifier.issuer, |it, node| {
            it.one_or_more(node, "a text or a list of texts", Self::filled_text)
        });
        verifier.audience = self.optional(fields, "audience", |it, node| {
            let names =
                it.one_or_more(node, "`any`, a text or a list of texts", Self::filled_text)?;
            let any = matches!(&node.kind, Kind::Scalar(scalar) if scalar.text == "any");
            let private = names.iter().any(|name| name.private);
            let names = names.into_iter().map(|name| name.value).collect();
            let value = if any {
                Audience::Any
            } else {
                Audience::OneOf(names)
            };
            Some(Spanned {
                value,
                place: node.place,
                private,
            })
        });
        self.set(
            fields,
            "leeway",
            &mut verifier.leeway,
            Self::duration_or_zero,
        );
        self.set(
            fields,
            "require_exp",
            &mut verifier.require_exp,
            Self::boolean,
        );
        verifier.max_lifetime = self.optional(fields, "max_lifetime", Self::duration);
        verifier.typ = self.optional(fields, "typ", Self::filled_text);
        verifier.revoked = self.optional(fields, "revoked", Self::file);
        self.set(fields, "claims", &mut verifier.claims, |it, node| {
            it.named(node, "a map of claims", Self::claim)
        });
        self.set(fields, "from", &mut verifier.from, |it, node| {
            it.one_or_more(
                node,
                "a list of header, cookie:NAME, query:NAME, websocket, basic",
                |it, node| {
                    let general = value::TOKEN_SOURCES;
                    it.scalar(node, "a place of tokens", general, value::token_source)
                },
            )
        });
    }

    /// What a claim must be equal to.
    fn claim(&mut self, node: &Node) -> Option<Spanned<Value>> {
        let simple = |node: &Node| matches!(node.kind, Kind::Scalar(_) | Kind::Broken);
        let fits = match &node.kind {
            Kind::List(items) => items.iter().all(simple),
            Kind::Null | Kind::Map(_) | Kind::Scalar(_) | Kind::Broken => simple(node),
        };
        if !fits {
            self.unexpected(
                node,
                "a value or a list of values",
                "dots go inwards: realm_access.roles: clerk",
            );
            return None;
        }
        let private = matches!(&node.kind, Kind::Scalar(scalar) if scalar.is_private());
        let value = json(node, self.errors)?;
        Some(Spanned {
            value,
            place: node.place,
            private,
        })
    }
}
