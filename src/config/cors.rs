//! `cors`: which keys there are, and what stands behind each.

use std::time::Duration;

use http::HeaderName;

use super::decode::Decoder;
use super::node::Node;
use super::parsed::{Cors, Spanned};
use super::value;
use crate::message::cors::{ANY, Origin};

impl Decoder<'_> {
    /// `cors` of a route, or of `tokens`.
    pub(crate) fn cors(&mut self, node: &Node) -> Option<Cors> {
        let known = [
            "origins",
            "credentials",
            "methods",
            "headers",
            "expose",
            "max_age",
        ];
        let fields = self.fields(node, "a map", &known)?;
        let origins = self.required(fields, "origins", |it, node| {
            it.one_or_more(node, "a list of origins", |it, node| {
                it.scalar(
                    node,
                    "an origin",
                    "such as https://app.example.com",
                    Origin::parse,
                )
            })
        });
        let names = |names: [&str; 2]| {
            let names = names.into_iter();
            names
                .map(|name| Spanned::default_of(name.to_owned()))
                .collect()
        };
        let mut cors = Cors {
            origins: origins.unwrap_or_default(),
            credentials: Spanned::default_of(false),
            methods: Vec::new(),
            headers: names(["Authorization", "Content-Type"]),
            expose: names(["WWW-Authenticate", "Retry-After"]),
            max_age: Spanned::default_of(Duration::from_secs(10 * 60)),
        };
        self.set(fields, "credentials", &mut cors.credentials, Self::boolean);
        self.set(fields, "methods", &mut cors.methods, |it, node| {
            it.filled_list(node, "a list of methods", Self::method)
        });
        for (key, into) in [("headers", &mut cors.headers), ("expose", &mut cors.expose)] {
            self.set(fields, key, into, Self::header_names_or_star);
        }
        self.set(fields, "max_age", &mut cors.max_age, |it, node| {
            let what = "a duration of whole seconds";
            it.scalar(
                node,
                what,
                value::DURATIONS,
                |text| match value::duration(text)? {
                    age if age.subsec_nanos() == 0 => Ok(age),
                    _ => Err("browsers count whole seconds".to_owned()),
                },
            )
        });
        self.check_stars(&cors);
        Some(cors)
    }

    /// What goes together with `*`.
    fn check_stars(&mut self, cors: &Cors) {
        let any = cors.origins.iter().find(|it| it.value == Origin::Any);
        if let Some(any) = any {
            if cors.origins.len() > 1 {
                self.errors
                    .at(any.place, "`*` is every origin, and stands alone");
            }
            if cors.credentials.value {
                self.errors
                    .at(
                        cors.credentials.place,
                        "credentials are for origins that are named, never for `*`",
                    )
                    .hint("name the origins");
            }
        }
        let star = cors.expose.iter().find(|name| name.value == ANY);
        if let (Some(star), true) = (star, cors.credentials.value) {
            self.errors
                .at(
                    star.place,
                    "with `credentials` browsers take `*` for the name of a header",
                )
                .hint("name the headers");
        }
    }

    fn header_names_or_star(&mut self, node: &Node) -> Option<Vec<Spanned<String>>> {
        let names = self.list(node, "a list of header names", |it, node| {
            it.scalar(node, "a header's name", "such as X-Request-Id", |text| {
                HeaderName::from_bytes(text.as_bytes())
                    .map(|_| text.to_owned())
                    .map_err(|_| "such as X-Request-Id".to_owned())
            })
        })?;
        if let (Some(star), 2..) = (names.iter().find(|it| it.value == ANY), names.len()) {
            self.errors
                .at(star.place, "`*` is every header, and stands alone");
        }
        Some(names)
    }
}
