//! Files that the gateway compresses itself: each version once for all requests, and kept by the workers that sent it.
//! Which form a client prefers is decided in `target`.

use std::sync::Arc;

use super::about::About;
use super::store::{self, Kept};
use super::target::{Source, Target};
use super::{FileRequest, Files, stream};
use crate::compress::{CompressRules, CompressedFiles};
use crate::message::reject::Reject;

/// How a route's files are compressed.
#[derive(Debug)]
pub(crate) struct FileCompression {
    /// Which files, with what, how hard.
    pub(crate) rules: CompressRules,
    /// Those of all routes that are compressed already.
    pub(crate) made: Arc<CompressedFiles>,
}

impl Files {
    /// The file in the form that its client wishes, where the gateway makes that form; otherwise as it was found.
    pub(super) async fn compressed(
        &self,
        asked: FileRequest<'_>,
        mut target: Target,
    ) -> Result<Target, Reject> {
        let (Some(wish), Some(compression)) = (target.wish.take(), &self.compression) else {
            return Ok(target);
        };
        let (worker, now) = (asked.worker, asked.now);
        let at_tree = target.tree;
        let tree = self.trees.get(at_tree).ok_or(Reject::Internal)?;
        let plain = &target.about;
        let key = [&*wish.name, "\0", wish.coding.name(), "\0made"].concat();
        let is_of = |about: &About| about.stamp == plain.stamp;
        let kept = tree.store.get(worker, &key, now, |_, about| is_of(about));
        if let Some(kept) = kept.filter(|kept| is_of(&kept.about)) {
            return Ok(Target::in_memory(kept.content, kept.about, at_tree));
        }
        let level = compression.rules.level;
        let version = format!(
            "{}\0{}\0{:?}\0{}\0{level:?}",
            tree.root.path().display(),
            wish.name,
            plain.stamp,
            wish.coding.name(),
        );
        let read = async {
            match &target.source {
                Source::Memory(content) => Ok(content.clone()),
                Source::Small(file, _) | Source::Large(file, _) => {
                    stream::read(Arc::clone(file), plain.len).await
                }
            }
        };
        let made = &compression.made;
        let made = made
            .get_or_make(&version, (wish.coding, level), read)
            .await?;
        let Some(content) = made else {
            plain.is_not_shorter(wish.coding);
            return Ok(target);
        };
        let about = Arc::new(plain.compressed(wish.coding, content.len() as u64)?);
        if about.len <= store::LONGEST {
            let kept = Kept {
                content: content.clone(),
                about: Arc::clone(&about),
            };
            tree.store.put(worker, &key, kept, now);
        }
        Ok(Target::in_memory(content, about, at_tree))
    }
}
