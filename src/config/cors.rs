//! Decodes `cors`.

use http::HeaderName;

use super::decode::Decoder;
use super::keys;
use super::node::Node;
use super::parsed::{Cors, Spanned};
use super::value;
use crate::message::cors::{ANY, Origin};

impl Decoder<'_> {
    /// `cors` of a route, or of `tokens`.
    pub(crate) fn cors(&mut self, node: &Node) -> Option<Cors> {
        let fields = self.fields(node, "a map", &keys::CORS)?;
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
        let credentials = self.value(fields, "credentials", Self::boolean);
        let methods = self.optional(fields, "methods", |it, node| {
            it.filled_list(node, "a list of methods", Self::method)
        });
        let headers = self.value(fields, "headers", Self::header_names_or_star);
        let expose = self.value(fields, "expose", Self::header_names_or_star);
        let max_age = self.value(fields, "max_age", |it, node| {
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
        let cors = Cors {
            origins: origins.unwrap_or_default(),
            credentials: credentials?,
            methods: methods.unwrap_or_default(),
            headers: headers?,
            expose: expose?,
            max_age: max_age?,
        };
        self.check_stars(&cors);
        Some(cors)
    }

    /// Checks what may be combined with `*`.
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
