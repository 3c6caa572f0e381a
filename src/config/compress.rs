//! Decodes `compress` of `defaults` and of routes. What it holds for is decided in `compile`.

use super::decode::Decoder;
use super::keys;
use super::node::{Kind, Node};
use super::parsed::{Compress, Spanned};
use super::value;
use crate::compress::{CompressRules, Level, MediaTypes, Private};
use crate::message::accept::Coding;

impl Decoder<'_> {
    /// `compress`: `true`, `off`, a list of codings, or a map.
    pub(super) fn compress(&mut self, node: &Node) -> Option<Spanned<Compress>> {
        let spanned = |value| Spanned {
            value,
            place: node.place,
            private: false,
        };
        let map;
        let node = match &node.kind {
            Kind::Scalar(scalar) if scalar.text == "off" => return Some(spanned(Compress::Off)),
            Kind::Scalar(_) => {
                let what = "`true`, `off`, a list of codings or a map";
                let is_on = self.scalar(node, what, "", |text| match text {
                    "true" => Ok(()),
                    text if value::is_off(text) => Err("write `off`".to_owned()),
                    text => Err(match value::boolean_of_yaml_1_1(text) {
                        Some(_) => "write `true`".to_owned(),
                        None if Coding::ALL.iter().any(|it| it.name() == text) => {
                            format!("write `[{text}]`")
                        }
                        None => String::new(),
                    }),
                });
                return is_on.map(|_| spanned(Compress::On(Box::default())));
            }
            Kind::List(_) => {
                map = node.clone().behind("codings", false);
                &map
            }
            Kind::Null | Kind::Map(_) | Kind::Broken => node,
        };
        let what = "`true`, `off`, a list of codings or a map";
        let fields = self.fields(node, what, &keys::COMPRESS)?;
        let codings = self.value(fields, "codings", Self::codings);
        let min = self.value(fields, "min", |it, node| {
            it.scalar(node, "a size", value::SIZES, value::size)
        });
        let level = self.value(fields, "level", |it, node| {
            let known = [
                ("fast", Level::Fast),
                ("default", Level::Default),
                ("small", Level::Small),
            ];
            it.choice(node, "`fast`, `default` or `small`", &known)
        });
        let types = self.optional(fields, "types", Self::media_types);
        let private = self.value(fields, "private", |it, node| {
            let known = [
                ("same_origin", Private::SameOrigin),
                ("always", Private::Always),
                ("never", Private::Never),
            ];
            it.choice(node, "`same_origin`, `always` or `never`", &known)
        });
        Some(spanned(Compress::On(Box::new(CompressRules {
            codings: codings?,
            min: min?.value,
            level: level?.value,
            types: types.unwrap_or_default(),
            private: private?.value,
        }))))
    }

    /// A list of codings, none of them twice.
    fn codings(&mut self, node: &Node) -> Option<Vec<Coding>> {
        let read = self.filled_list(node, "a list of codings", |it, node| {
            let known = Coding::ALL.map(|coding| (coding.name(), coding));
            it.choice(node, "a coding", &known)
        })?;
        let mut codings = Vec::with_capacity(read.len());
        for coding in read {
            if codings.contains(&coding.value) {
                let problem = format!("`{}` is here twice", coding.value.name());
                self.errors.at(coding.place, problem);
            } else {
                codings.push(coding.value);
            }
        }
        Some(codings)
    }

    fn media_types(&mut self, node: &Node) -> Option<MediaTypes> {
        let hint = "types are text/*, application/json, +json";
        let read = self.filled_list(node, "a list of media types", |it, node| {
            it.scalar(node, "a media type", hint, |text| {
                match MediaTypes::parse([text]) {
                    Ok(_) => Ok(text.to_owned()),
                    Err(_) => Err(hint.to_owned()),
                }
            })
        })?;
        MediaTypes::parse(read.iter().map(|text| text.value.as_str())).ok()
    }
}
