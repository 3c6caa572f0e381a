//! What is known of one version of a file, in one form. It is shared by all requests for it, and kept with its bytes.

use std::fs::Metadata;

use super::conditional::Validators;
use super::describe::Told;
use super::stamp::Stamp;
use super::variants::Siblings;
use crate::message::accept::Coding;
use crate::message::reject::Reject;

/// What is known of one version of a file, in one form; shared by all its requests.
#[derive(Debug)]
pub(super) struct About {
    /// Its length in bytes.
    pub(super) len: u64,
    /// Its state when it was found.
    pub(super) stamp: Stamp,
    /// What conditions are evaluated against.
    pub(super) validators: Validators,
    /// What is said of it.
    pub(super) told: Told,
    /// The coding of this form.
    pub(super) coding: Option<Coding>,
    /// Whether other clients may get another form.
    pub(super) varies: bool,
    /// What stands beside it; nothing stands beside a sibling.
    pub(super) siblings: Siblings,
}

impl About {
    /// What follows from a file's state and what is said of its name. It has one form until others are found.
    pub(super) fn of(meta: &Metadata, told: Told, coding: Option<Coding>) -> Result<Self, Reject> {
        Ok(Self {
            len: meta.len(),
            stamp: Stamp::of(meta),
            validators: Validators::of(meta, coding)?,
            told,
            coding,
            varies: coding.is_some(),
            siblings: Siblings::default(),
        })
    }

    /// The same file with what stands beside it.
    pub(super) fn beside(self, siblings: Siblings) -> Self {
        Self {
            varies: siblings.are_forms(),
            siblings,
            ..self
        }
    }
}
