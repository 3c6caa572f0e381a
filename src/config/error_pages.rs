//! Decodes `errors`, of a route or of the whole site.

use http::StatusCode;

use super::decode::{Decoder, did_you_mean};
use super::keys;
use super::node::Node;
use super::parsed::{ErrorPages, Spanned};
use crate::message::error_pages::Statuses;

/// `404`, `5xx`.
fn statuses(text: &str) -> Option<Statuses> {
    match text {
        "4xx" => Some(Statuses::Class(4)),
        "5xx" => Some(Statuses::Class(5)),
        text if text.len() == 3 => {
            let status = StatusCode::from_bytes(text.as_bytes()).ok()?;
            let is_error = status.is_client_error() || status.is_server_error();
            is_error.then_some(Statuses::One(status))
        }
        _ => None,
    }
}

impl Decoder<'_> {
    /// `errors`.
    pub(super) fn error_pages(&mut self, node: &Node) -> Option<ErrorPages> {
        let fields = self.fields(node, "a map", &keys::ERRORS)?;
        let mut pages = Vec::new();
        for key in keys::ERRORS.keys {
            let Some(statuses) = statuses(key.name) else {
                continue;
            };
            if let Some(file) = self.optional(fields, key.name, Self::file) {
                pages.push((statuses, file));
            }
        }
        let intercept = self.optional(fields, "intercept", |it, node| {
            it.filled_list(node, "a list of statuses", Self::error_status)
        });
        Some(ErrorPages { pages, intercept })
    }

    fn error_status(&mut self, node: &Node) -> Option<Spanned<Statuses>> {
        self.scalar(
            node,
            "a status from 400 to 599, `4xx` or `5xx`",
            "",
            |text| statuses(text).ok_or_else(|| did_you_mean(text, &["4xx", "5xx"])),
        )
    }
}
