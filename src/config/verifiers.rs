//! Decodes the verifiers of `jwt`.

use std::time::Duration;

use serde_json::Value;

use super::decode::{Decoder, Fields};
use super::json::json;
use super::keys::{self, ALGORITHMS};
use super::node::{Kind, Node};
use super::parsed::{Audience, Cnf, Jwks, KeyFile, Secret, Spanned, TokenSource, Verifier};
use super::value;
use crate::auth::MAX_TRIES;
use crate::net::url::Url;

impl Decoder<'_> {
    /// One of `jwt`.
    pub(crate) fn verifier(&mut self, node: &Node) -> Option<Verifier> {
        let before = self.errors.count();
        self.fields(node, "a map", &keys::VERIFIER);
        let map = node.as_map();
        let fields = self.known_fields(&map, &keys::VERIFIER)?;
        let mut verifier = Verifier {
            place: node.place,
            broken: false,
            algorithms: Vec::new(),
            secret: Vec::new(),
            keys: Vec::new(),
            jwks: None,
            jwks_refresh: None,
            stale_for: self.value(fields, "stale_for", Self::duration_or_zero)?,
            ca: self.optional(fields, "ca", Self::file),
            revoked: self.optional(fields, "revoked", Self::file),
            issuer: Vec::new(),
            audience: None,
            leeway: self.value(fields, "leeway", Self::duration_or_zero)?,
            require_exp: self.value(fields, "require_exp", Self::boolean)?,
            max_lifetime: self.optional(fields, "max_lifetime", Self::duration),
            typ: self.optional(fields, "typ", Self::filled_text),
            claims: Vec::new(),
            cnf: self.value(fields, "cnf", |it, node| {
                let known = [
                    ("check", Cnf::Check),
                    ("require", Cnf::Require),
                    ("ignore", Cnf::Ignore),
                ];
                it.choice(node, "`check`, `require` or `ignore`", &known)
            })?,
            from: self.value(fields, "from", Self::token_sources)?,
            weak_secret: None,
        };
        self.signature(fields, &mut verifier);
        self.claims(fields, &mut verifier);
        verifier.broken = self.errors.count() > before;
        Some(verifier)
    }

    fn token_sources(&mut self, node: &Node) -> Option<Vec<Spanned<TokenSource>>> {
        let what = "a list of header, cookie:NAME, query:NAME, websocket, basic";
        self.one_or_more(node, what, |it, node| {
            let general = value::TOKEN_SOURCES;
            it.scalar(node, "a place of tokens", general, value::token_source)
        })
    }

    /// The keys of a verifier that determine valid signatures.
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
        let fields = self.fields(node, "a path or a map", &keys::KEY_FILE)?;
        let kid = self.optional(fields, "kid", Self::filled_text);
        let file = self.required(fields, "file", Self::file);
        Some(KeyFile { kid, file: file? })
    }

    /// The keys of a verifier that determine required claims, and where tokens are read from.
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
        self.set(fields, "claims", &mut verifier.claims, |it, node| {
            it.named(node, "a map of claims", Self::claim)
        });
    }

    /// The value that a claim must equal.
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
