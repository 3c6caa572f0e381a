//! What is known of one version of a file, in one form. It is shared by all requests for it, and kept with its bytes.

use std::fs::Metadata;
use std::sync::atomic::{AtomicU8, Ordering};

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
    /// Whether the gateway compresses it for clients that accept it.
    pub(super) is_compressible: bool,
    /// The codings in which it is not shorter, as bits.
    pub(super) not_shorter: AtomicU8,
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
            is_compressible: false,
            not_shorter: AtomicU8::new(0),
        })
    }

    /// What is known of the same version once it is compressed to this length.
    pub(super) fn compressed(&self, coding: Coding, len: u64) -> Result<Self, Reject> {
        Ok(Self {
            len,
            stamp: self.stamp,
            validators: self.validators.compressed(coding, len)?,
            told: self.told.clone(),
            coding: Some(coding),
            varies: true,
            siblings: Siblings::default(),
            is_compressible: false,
            not_shorter: AtomicU8::new(0),
        })
    }

    /// Notes that it is not shorter in this coding.
    pub(super) fn is_not_shorter(&self, coding: Coding) {
        self.not_shorter.fetch_or(bit(coding), Ordering::Relaxed);
    }

    /// Whether the gateway makes a form in this coding.
    pub(super) fn is_made(&self, coding: Coding) -> bool {
        let not_shorter = self.not_shorter.load(Ordering::Relaxed);
        not_shorter & bit(coding) == 0 && !self.siblings.has(coding)
    }

    /// The same file with what stands beside it, and whether the gateway compresses it.
    pub(super) fn beside(self, siblings: Siblings, is_compressible: bool) -> Self {
        Self {
            varies: siblings.are_forms() || is_compressible,
            siblings,
            is_compressible,
            ..self
        }
    }
}

fn bit(coding: Coding) -> u8 {
    match coding {
        Coding::Zstd => 1,
        Coding::Br => 2,
        Coding::Gzip => 4,
    }
}
