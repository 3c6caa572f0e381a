//! Finds the file behind a name, in the form that the client prefers. How it is sent is not decided here.

use std::fs::File;
use std::sync::Arc;

use bytes::Bytes;
use http::Version;

use super::about::About;
use super::descriptors::Held;
use super::resolve::Found;
use super::stamp::Stamp;
use super::tree::Spot;
use super::variants::Place;
use super::{FileRequest, Files};
use crate::message::accept::{AcceptedCodings, Coding};
use crate::message::reject::Reject;

/// Longer files are not compressed: they are sent as they are, or precompressed.
const LONGEST_COMPRESSED: u64 = 4 << 20;

/// A file that exists and may be read.
#[derive(Debug)]
pub(super) struct Target {
    /// Where its bytes come from.
    pub(super) source: Source,
    /// What is known of it.
    pub(super) about: Arc<About>,
    /// The index of the root that has it.
    pub(super) tree: usize,
    /// The form that its client prefers, where the gateway has yet to compress it.
    pub(super) wish: Option<Wish>,
}

/// A compressed form of a file that its client prefers.
#[derive(Debug)]
pub(super) struct Wish {
    /// The coding.
    pub(super) coding: Coding,
    /// The file's name below the root.
    pub(super) name: Box<str>,
}

impl Target {
    /// A form that is in memory.
    pub(super) fn in_memory(content: Bytes, about: Arc<About>, tree: usize) -> Self {
        Self {
            source: Source::Memory(content),
            about,
            tree,
            wish: None,
        }
    }
}

/// Where the bytes of a file come from.
#[derive(Debug)]
pub(super) enum Source {
    /// Memory.
    Memory(Bytes),
    /// A small file, just opened; and what it is kept under.
    Small(Arc<File>, Box<str>),
    /// A larger file, which others may be reading, too; and whether it is known to be in the page cache.
    Large(Arc<File>, bool),
}

/// One form of a file.
#[derive(Clone, Copy, Debug)]
struct Form<'a> {
    /// The file's name, by which it is described.
    name: &'a str,
    /// The name of this form below the root.
    path: &'a str,
    /// What it is kept under.
    key: &'a str,
    /// Its coding, and the state of the file that it stands for.
    coded: Option<(Coding, &'a Stamp)>,
}

impl Files {
    /// Finds a name below one root, in the form that the client prefers; `None` for a directory.
    pub(super) fn target(
        &self,
        asked: FileRequest<'_>,
        spot: &Spot,
        name: &str,
    ) -> Result<Option<Target>, Reject> {
        let path = spot.path(name);
        let plain = Form {
            name,
            path: &path,
            key: &path,
            coded: None,
        };
        let Some(mut target) = self.form(asked, spot, plain)? else {
            return Ok(None);
        };
        if !target.about.varies {
            return Ok(Some(target));
        }
        let accepted = AcceptedCodings::of(asked.headers);
        let about = &target.about;
        let sibling = about.siblings.preferred(accepted, about.len);
        if let Some(coding) = self.made(asked, about, accepted)
            && sibling.is_none_or(|sibling| {
                accepted.quality(Some(coding)) > accepted.quality(Some(sibling.coding))
            })
        {
            let name = (&*path).into();
            target.wish = Some(Wish { coding, name });
            return Ok(Some(target));
        }
        let Some(sibling) = sibling else {
            return Ok(Some(target));
        };
        let form = Form {
            name,
            path: &sibling.name,
            key: &sibling.key,
            coded: Some((sibling.coding, &about.stamp)),
        };
        match self.form(asked, spot, form) {
            Ok(Some(sibling)) => Ok(Some(sibling)),
            // It went since it was seen.
            Ok(None) | Err(Reject::FileNotFound | Reject::FileForbidden) => Ok(Some(target)),
            Err(other) => Err(other),
        }
    }

    /// The form that the client prefers among those that the gateway makes.
    fn made(
        &self,
        asked: FileRequest<'_>,
        about: &About,
        accepted: AcceptedCodings,
    ) -> Option<Coding> {
        let compression = self.compression.as_ref()?;
        // What was changed just now may change once more under the same stamp.
        let is_made = about.is_compressible
            && asked.version >= Version::HTTP_11
            && about.stamp.is_settled(asked.now);
        let codings = compression.rules.codings.iter().copied();
        is_made
            .then(|| accepted.preferred(codings.filter(|coding| about.is_made(*coding))))
            .flatten()
    }

    /// Finds one form of a file; `None` for a directory.
    fn form(
        &self,
        asked: FileRequest<'_>,
        spot: &Spot,
        form: Form<'_>,
    ) -> Result<Option<Target>, Reject> {
        let at_tree = spot.tree;
        let tree = self.trees.get(at_tree).ok_or(Reject::Internal)?;
        let FileRequest {
            worker, now, at, ..
        } = asked;
        let place = Place {
            root: &tree.root,
            worker,
            folder: spot.folder.len(),
            at,
        };
        let is_still = |stamp, about: &About| {
            place.stamp(form.path) == Some(stamp)
                && (form.coded.is_some()
                    || (tree.precompressed).are_still(place, form.path, &about.siblings))
        };
        if let Some(kept) = tree.store.get(worker, form.key, now, is_still) {
            let target = Target::in_memory(kept.content, kept.about, at_tree);
            return Ok(Some(target));
        }
        if let Some(held) = tree.descriptors.get(worker, form.key, now, is_still) {
            // A small file was sent recently.
            let is_warm = held.is_small();
            return Ok(Some(Target {
                source: Source::Large(held.file, is_warm),
                about: held.about,
                tree: at_tree,
                wish: None,
            }));
        }
        let (file, meta) = match place.find(form.path)? {
            Found::Directory => return Ok(None),
            Found::File(file, meta) => (file, meta),
        };
        let told = self.describe.told(form.name)?;
        let mut about = About::of(&meta, told, form.coded.map(|(coding, _)| coding))?;
        match form.coded {
            // The file was written since it was compared with its sibling.
            Some((_, plain)) if about.stamp.is_older_than(plain) => {
                return Err(Reject::FileNotFound);
            }
            Some(_) => {}
            None => {
                let siblings = tree.precompressed.beside(place, form.path, &about.stamp);
                let is_compressible = about.len <= LONGEST_COMPRESSED
                    && self.compression.as_ref().is_some_and(|compression| {
                        let kind = &about.told.content_type;
                        compression.rules.may_compress_file(kind, about.len)
                    });
                about = about.beside(siblings, is_compressible);
            }
        }
        let (about, file) = (Arc::new(about), Arc::new(file));
        let source = if about.len <= asked.longest_in_memory() {
            Source::Small(file, form.key.into())
        } else {
            if about.stamp.is_settled(now) {
                let held = Held {
                    file: Arc::clone(&file),
                    about: Arc::clone(&about),
                };
                tree.descriptors.put(worker, form.key, held, now);
            }
            Source::Large(file, false)
        };
        Ok(Some(Target {
            source,
            about,
            tree: at_tree,
            wish: None,
        }))
    }
}
