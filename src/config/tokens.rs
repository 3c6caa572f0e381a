//! `tokens` and `state`: which keys there are, and what stands behind each.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::decode::Decoder;
use super::json::json;
use super::node::{Kind, Node};
use super::parsed::{Cookies, Redis, Secret, Spanned, State, Throttle, Tokens};
use super::value;
use super::verifiers::ALGORITHMS;

/// How a rate is written.
const RATES: &str = "rates are 10/m, 5/s, 100/h";

impl Decoder<'_> {
    /// `tokens`.
    pub(crate) fn tokens(&mut self, node: &Node) -> Option<Tokens> {
        let known = [
            "path",
            "issuer",
            "algorithm",
            "keys",
            "access_lifetime",
            "refresh_lifetime",
            "rotate_refresh",
            "refresh_grace",
            "rotate_keys_after",
            "users",
            "login",
            "username_field",
            "cookies",
            "cors",
            "claims",
            "throttle",
        ];
        let before = self.errors.count();
        let fields = self.fields(node, "a map", &known)?;
        let seconds = |seconds| Spanned::default_of(Duration::from_secs(seconds));
        let keys = self.required(fields, "keys", Self::file);
        let users = self.optional(fields, "users", Self::file);
        let folder = self.folder;
        let login = self.optional(fields, "login", |it, node| {
            let node = it.without_password(node)?;
            it.scalar(
                node,
                "the URL of an app that checks passwords",
                "",
                |text| value::server_and_target(text, folder),
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
                let problem = "either `users` or `login` says who may log in";
                self.errors.at(login.place, problem);
            }
            (Some(_), None) | (None, Some(_)) => {}
        }
        let empty = || Spanned::default_of(PathBuf::new());
        let mut tokens = Tokens {
            place: node.place,
            broken: false,
            path: Spanned::default_of("/api/token".to_owned()),
            issuer: self.optional(fields, "issuer", Self::filled_text),
            algorithm: Spanned::default_of("ES256".to_owned()),
            keys: keys.unwrap_or_else(empty),
            users,
            login,
            cookies: None,
            cors: None,
            username_field: Spanned::default_of("username".to_owned()),
            access_lifetime: seconds(5 * 60),
            refresh_lifetime: seconds(24 * 3600),
            rotate_refresh: Spanned::default_of(true),
            refresh_grace: seconds(10),
            rotate_keys_after: seconds(5 * 60),
            claims: Vec::new(),
            throttle: Throttle::default(),
        };
        self.set(fields, "path", &mut tokens.path, Self::url_path);
        self.set(fields, "algorithm", &mut tokens.algorithm, |it, node| {
            let known = ALGORITHMS.map(|name| (name, name));
            let name = it.choice(node, "an algorithm", &known)?;
            Some(Spanned {
                value: name.value.to_owned(),
                place: name.place,
                private: name.private,
            })
        });
        self.set(
            fields,
            "username_field",
            &mut tokens.username_field,
            |it, node| {
                it.scalar(node, "the name of a field", "", |text| match text {
                    "" | "password" => Err("such as `email`".to_owned()),
                    text => Ok(text.to_owned()),
                })
            },
        );
        tokens.cookies = self.optional(fields, "cookies", Self::cookies);
        tokens.cors = self.optional(fields, "cors", Self::cors);
        for (key, into) in [
            ("access_lifetime", &mut tokens.access_lifetime),
            ("refresh_lifetime", &mut tokens.refresh_lifetime),
            ("rotate_keys_after", &mut tokens.rotate_keys_after),
        ] {
            self.set(fields, key, into, Self::whole_seconds);
        }
        self.set(
            fields,
            "refresh_grace",
            &mut tokens.refresh_grace,
            Self::duration_or_zero,
        );
        self.set(
            fields,
            "rotate_refresh",
            &mut tokens.rotate_refresh,
            Self::boolean,
        );
        self.set(fields, "claims", &mut tokens.claims, |it, node| {
            it.named(node, "a map of claims", Self::issued_claim)
        });
        self.set(fields, "throttle", &mut tokens.throttle, Self::throttle);
        tokens.broken = self.errors.count() > before;
        Some(tokens)
    }

    fn cookies(&mut self, node: &Node) -> Option<Cookies> {
        let known = ["access", "refresh", "same_site", "domain", "origins"];
        let fields = self.fields(node, "a map", &known)?;
        let named = |name: &str| Spanned::default_of(name.to_owned());
        let mut cookies = Cookies {
            access: named("access_token"),
            refresh: named("refresh_token"),
            is_lax: Spanned::default_of(true),
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
            origins: Vec::new(),
        };
        for (key, into) in [
            ("access", &mut cookies.access),
            ("refresh", &mut cookies.refresh),
        ] {
            self.set(fields, key, into, |it, node| {
                it.scalar(node, "a cookie's name", "", |text| {
                    value::cookie_name(text).map(str::to_owned)
                })
            });
        }
        self.set(fields, "same_site", &mut cookies.is_lax, |it, node| {
            let known = [("lax", true), ("strict", false)];
            it.choice(node, "`lax` or `strict`", &known)
        });
        self.set(fields, "origins", &mut cookies.origins, |it, node| {
            it.list(node, "a list of origins", |it, node| {
                it.scalar(
                    node,
                    "an origin",
                    "such as https://app.example.com",
                    |text| {
                        crate::message::cors::normal(text)
                            .ok_or_else(|| "such as https://app.example.com".to_owned())
                    },
                )
            })
        });
        if cookies.access.value == cookies.refresh.value {
            let problem = "the two cookies have one name";
            self.errors.at(cookies.refresh.place, problem);
        }
        Some(cookies)
    }

    /// `state`: a folder, or where Redis or Valkey is.
    pub(crate) fn state(&mut self, node: &Node) -> Option<State> {
        let what = "a folder, a URL of Redis, or a map";
        match &node.kind {
            Kind::Scalar(scalar) if !scalar.text.contains("://") => {
                self.file(node).map(State::Folder)
            }
            Kind::Map(_) => {
                let fields = self.fields(node, what, &["redis", "username", "password", "ca"])?;
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
                }))
            }
            Kind::Scalar(_) | Kind::List(_) => {
                let urls = self.redis_urls(node)?;
                Some(State::Redis(Redis {
                    urls,
                    username: None,
                    password: None,
                    ca: None,
                }))
            }
            Kind::Null | Kind::Broken => {
                self.unexpected(node, what, "such as `data/`");
                None
            }
        }
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

    /// A life of tokens: NumericDates of most readers are whole seconds.
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
        let fields = self.fields(node, "`off` or a map", &["per_ip", "per_user"])?;
        let mut throttle = Throttle::default();
        for (key, into) in [
            ("per_ip", &mut throttle.per_ip),
            ("per_user", &mut throttle.per_user),
        ] {
            self.set(fields, key, into, |it, node| {
                let rate = it.scalar(node, "a rate", RATES, rate)?;
                Some(Some(rate.value))
            });
        }
        Some(throttle)
    }
}

/// `10/m`: so many in a second, a minute or an hour.
fn rate(text: &str) -> Result<(NonZeroU32, Duration), String> {
    let (count, unit) = text.split_once('/').ok_or(RATES)?;
    let count = u32::try_from(value::integer(count)?).map_err(|_| RATES)?;
    let per = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(RATES.to_owned()),
    };
    let count = NonZeroU32::new(count).ok_or("zero lets nobody in; `off` lets everybody try")?;
    Ok((count, Duration::from_secs(per)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_a_number_in_a_time() {
        let seconds = |text| rate(text).map(|(count, per)| (count.get(), per.as_secs()));
        assert_eq!(seconds("10/m"), Ok((10, 60)));
        assert_eq!(seconds("1/s"), Ok((1, 1)));
        assert_eq!(seconds("100/h"), Ok((100, 3600)));
        for bad in [
            "", "10", "10/", "/m", "0/m", "-1/m", "1.5/m", "10/d", "10 /m",
        ] {
            assert!(rate(bad).is_err(), "{bad}");
        }
    }
}
