//! Reads the file of revoked tokens (`revoked`).

use std::path::Path;

use super::decode::Decoder;
use super::error::Errors;
use super::keys;
use super::merge;
use super::node::{Kind, Node};
use super::place::Place;
use super::source::Loader;
use super::value;
use crate::auth::Revoked;

/// Reads the file; `None` where an error was reported.
pub(super) fn read(
    path: &Path,
    place: Place,
    loader: &Loader<'_>,
    errors: &mut Errors,
) -> Option<Revoked> {
    let node = merge::side_file(path, place, loader, errors)?;
    let mut revoked = Revoked::default();
    let before = errors.count();
    let mut decoder = Decoder {
        errors,
        directory: loader.directory(),
    };
    decoder.list(&node, "a list of tokens", |it, node| {
        it.revocation(node, &mut revoked)
    });
    (errors.count() == before).then_some(revoked)
}

impl Decoder<'_> {
    /// `{jti: X}`, `{sub: Y}`, or `{sub: Y, before: TIME}`.
    fn revocation(&mut self, node: &Node, revoked: &mut Revoked) -> Option<()> {
        let what = "{jti: X}, {sub: Y} or {sub: Y, before: TIME}";
        let fields = self.fields(node, what, &keys::REVOCATION)?;
        let jti = self.optional(fields, "jti", Self::filled_text);
        let sub = self.optional(fields, "sub", Self::filled_text);
        let before = self.optional(fields, "before", |it, node| {
            it.scalar(node, "a time", "", value::moment)
        });
        let broken = fields.get("before").is_some() && before.is_none();
        match (jti, sub) {
            (Some(jti), None) if fields.get("before").is_none() => revoked.id(jti.value),
            (None, Some(sub)) if !broken => {
                revoked.subject(sub.value, before.map(|before| before.value));
            }
            (None, None) | (Some(_), _) if !broken && matches!(node.kind, Kind::Map(_)) => {
                self.errors
                    .at(node.place, "it is not clear which tokens are meant")
                    .hint(format!("write {what}"));
            }
            (None | Some(_), _) => {}
        }
        Some(())
    }
}
