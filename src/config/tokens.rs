//! Decodes `tokens` and `state`.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::decode::{Decoder, Fields};
use super::json::json;
use super::keys::{self, ALGORITHMS};
use super::node::{Kind, Node};
use super::parsed::{Cookies, Redis, Secret, Spanned, State, Throttle, Tokens};
use super::value;
use crate::state::StateKey;

impl Decoder<'_> {
    /// `tokens`.
    pub(crate) fn tokens(&mut self, node: &Node) -> Option<Tokens> {
        let before = self.errors.count();
        let fields = self.fields(node, "a map", &keys::TOKENS)?;
        let keys = self.required(fields, "keys", Self::file);
        let users = self.optional(fields, "users", Self::file);
        let directory = self.directory;
        let login = self.optional(fields, "login", |it, node| {
            let node = it.without_password(node)?;
            it.scalar(
                node,
                "the URL of an app that checks passwords",
                "",
                |text| value::server_and_target(text, directory),
            )
        });
        match (fields.get("users"), fields.get("login")) {
            (None, None) => {
                self.errors
                    .at(node.place, "who may log in is not said")
                    .hint(
                        "add `users: users.yaml`, or `login: URL` of an app that checks passwords",
                    );
            }
            (Some(_), Some(login)) => {
                let problem = "use either `users` or `login`, not both";
                self.errors.at(login.place, problem);
            }
            (Some(_), None) | (None, Some(_)) => {}
        }
        let empty = || Spanned::default_of(PathBuf::new());
        let mut tokens = Tokens {
            place: node.place,
            broken: false,
            path: self.value(fields, "path", Self::url_path)?,
            issuer: self.optional(fields, "issuer", Self::filled_text),
            algorithm: self.value(fields, "algorithm", Self::signing_algorithm)?,
            keys: keys.unwrap_or_else(empty),
            users,
            login,
            cookies: self.optional(fields, "cookies", Self::cookies),
            cors: self.optional(fields, "cors", Self::cors),
            username_field: self.value(fields, "username_field", |it, node| {
                it.scalar(node, "the name of a field", "", |text| match text {
                    "" | "password" => Err("such as `email`".to_owned()),
                    text => Ok(text.to_owned()),
                })
            })?,
            access_lifetime: self.value(fields, "access_lifetime", Self::whole_seconds)?,
            refresh_lifetime: self.value(fields, "refresh_lifetime", Self::whole_seconds)?,
            rotate_refresh: self.value(fields, "rotate_refresh", Self::boolean)?,
            refresh_grace: self.value(fields, "refresh_grace", Self::duration_or_zero)?,
            rotate_keys_after: self.value(fields, "rotate_keys_after", Self::whole_seconds)?,
            claims: Vec::new(),
            throttle: self.value(fields, "throttle", Self::throttle)?,
        };
        self.set(fields, "claims", &mut tokens.claims, |it, node| {
            it.named(node, "a map of claims", Self::issued_claim)
        });
        tokens.broken = self.errors.count() > before;
        Some(tokens)
    }

    fn signing_algorithm(&mut self, node: &Node) -> Option<Spanned<String>> {
        let known = ALGORITHMS.map(|name| (name, name));
        let name = self.choice(node, "an algorithm", &known)?;
        Some(Spanned {
            value: name.value.to_owned(),
            place: name.place,
            private: name.private,
        })
    }

    fn cookies(&mut self, node: &Node) -> Option<Cookies> {
        let fields = self.fields(node, "a map", &keys::COOKIES)?;
        let cookies = Cookies {
            access: self.value(fields, "access", Self::cookie_name)?,
            refresh: self.value(fields, "refresh", Self::cookie_name)?,
            is_lax: self.value(fields, "same_site", |it, node| {
                let known = [("lax", true), ("strict", false)];
                it.choice(node, "`lax` or `strict`", &known)
            })?,
            domain: self.optional(fields, "domain", |it, node| {
                it.scalar(node, "a domain", "such as example.com", |text| {
                    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
                    let good = text.contains('.') && text.chars().all(legal);
                    let inside = !text.starts_with('.') && !text.ends_with('.');
                    if good && inside {
                        Ok(text.to_ascii_lowercase())
                    } else {
                        Err("such as example.com".to_owned())
                    }
                })
            }),
            origins: self.value(fields, "origins", |it, node| {
                it.list(node, "a list of origins", |it, node| {
                    const SUCH: &str = "such as https://app.example.com";
                    it.scalar(node, "an origin", SUCH, |text| {
                        crate::message::cors::normal(text).ok_or_else(|| SUCH.to_owned())
                    })
                })
            })?,
        };
        if cookies.access.value == cookies.refresh.value {
            let problem = "the two cookies have one name";
            self.errors.at(cookies.refresh.place, problem);
        }
        Some(cookies)
    }

    fn cookie_name(&mut self, node: &Node) -> Option<Spanned<String>> {
        self.scalar(node, "a cookie's name", "", |text| {
            value::cookie_name(text).map(str::to_owned)
        })
    }

    /// `state`: a directory, or the address of Redis or Valkey.
    pub(crate) fn state(&mut self, node: &Node) -> Option<State> {
        let what = "a directory, a URL of Redis, or a map";
        match &node.kind {
            Kind::Scalar(scalar) if !scalar.text.contains("://") => {
                self.file(node).map(State::Directory)
            }
            Kind::Map(_) => {
                let fields = self.fields(node, what, &keys::STATE)?;
                let urls = self.required(fields, "redis", Self::redis_urls);
                let password = self.optional(fields, "password", |it, node| {
                    it.scalar(node, "a password", "", |text| {
                        Ok(Secret::new(text.to_owned()))
                    })
                });
                Some(State::Redis(Redis {
                    urls: urls.unwrap_or_default(),
                    username: self.optional(fields, "username", Self::filled_text),
                    password: password.map(|password| password.value),
                    ca: self.optional(fields, "ca", Self::file),
                    key: self.state_key(fields),
                }))
            }
            Kind::Scalar(_) | Kind::List(_) => {
                let urls = self.redis_urls(node)?;
                Some(State::Redis(Redis {
                    urls,
                    username: None,
                    password: None,
                    ca: None,
                    key: None,
                }))
            }
            Kind::Null | Kind::Broken => {
                self.unexpected(node, what, "such as `data/`");
                None
            }
        }
    }

    fn state_key(&mut self, fields: Fields<'_>) -> Option<StateKey> {
        const KEY: &str = "openssl rand -base64 32 makes one";
        let keys = self.optional(fields, "key", |it, node| {
            it.one_or_more(node, "a key or a list of keys", |it, node| {
                it.scalar(node, "32 bytes in base64", KEY, StateKey::decode)
            })
        });
        let keys: Vec<[u8; 32]> = keys?.into_iter().map(|key| key.value).collect();
        (!keys.is_empty()).then(|| StateKey::new(&keys))
    }

    fn redis_urls(&mut self, node: &Node) -> Option<Vec<Spanned<String>>> {
        const URLS: &str = "such as redis://10.0.0.5:6379, or rediss:// with TLS";
        self.one_or_more(node, "a URL of Redis", |it, node| {
            it.scalar(node, "a URL of Redis", URLS, |text| {
                let known = text.starts_with("redis://") || text.starts_with("rediss://");
                if known {
                    Ok(text.to_owned())
                } else {
                    Err(URLS.to_owned())
                }
            })
        })
    }

    /// A token lifetime: most readers of NumericDate expect whole seconds.
    fn whole_seconds(&mut self, node: &Node) -> Option<Spanned<Duration>> {
        self.scalar(
            node,
            "a duration of whole seconds",
            value::DURATIONS,
            |text| match value::duration(text)? {
                Duration::ZERO => Err("zero leaves no time at all".to_owned()),
                life if life.subsec_nanos() == 0 => Ok(life),
                _ => Err("a token's life has no fraction of a second".to_owned()),
            },
        )
    }

    fn issued_claim(&mut self, node: &Node) -> Option<Spanned<Value>> {
        if matches!(node.kind, Kind::Map(_) | Kind::Null) {
            self.unexpected(
                node,
                "a value or a list of values",
                "such as \"{user.roles}\"",
            );
            return None;
        }
        let value = json(node, self.errors)?;
        Some(Spanned {
            value,
            place: node.place,
            private: false,
        })
    }

    /// `off`, or `{per_ip, per_user}`.
    fn throttle(&mut self, node: &Node) -> Option<Throttle> {
        if matches!(&node.kind, Kind::Scalar(scalar) if scalar.text == "off") {
            return Some(Throttle {
                per_ip: None,
                per_user: None,
            });
        }
        let fields = self.fields(node, "`off` or a map", &keys::THROTTLE)?;
        let read = |it: &mut Self, node: &Node| {
            it.scalar(node, "a rate", value::RATES, |text| {
                value::rate(text, "zero lets nobody in; `off` lets everybody try")
            })
        };
        Some(Throttle {
            per_ip: Some(self.value(fields, "per_ip", read)?.value),
            per_user: Some(self.value(fields, "per_user", read)?.value),
        })
    }
}
