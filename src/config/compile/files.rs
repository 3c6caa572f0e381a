//! `static` of a route: opens its directory.

use std::sync::Arc;

use super::Compiler;
use crate::compress::CompressRules;
use crate::config::parsed;
use crate::config::source::why;
use crate::files::{DescribeRules, FileCompression, Files, FilesSettings};

impl Compiler<'_> {
    /// Opens the directory of a route with files.
    pub(super) fn files(
        &mut self,
        parsed: &parsed::Static,
        rules: Option<CompressRules>,
    ) -> Option<Files> {
        let settings = FilesSettings {
            root: parsed.root.value.clone(),
            index: parsed.index.iter().map(|name| name.value.clone()).collect(),
            fallback: parsed.fallback.as_ref().map(|path| path.value.clone()),
            precompressed: parsed.precompressed.clone(),
            describe: DescribeRules {
                cache_control: parsed.cache_control.clone(),
                types: parsed.types.clone(),
                charset: parsed.charset.clone(),
                download: parsed.download.clone(),
                untrusted: parsed.untrusted,
            },
            compression: rules.map(|rules| FileCompression {
                rules,
                made: Arc::clone(&self.compressed),
            }),
            workers: self.workers,
        };
        let opened = self
            .loader
            .patiently(&parsed.root.value, move || Files::open(settings));
        match opened {
            Ok(files) => {
                let warning = "the kernel, or a sandbox, does not offer openat2: files and links below `static` are looked up \
                               segment by segment, which serves the same and costs more";
                let is_known = self.warnings.iter().any(|known| known == warning);
                if files.walks() && self.previous.is_none() && !is_known {
                    self.warnings.push(warning.to_owned());
                }
                Some(files)
            }
            Err(error) => {
                // A root that is created later makes the configuration valid, so a missing one is watched. An existing
                // one is not: every file read from it would be an event.
                self.loader.watch(&parsed.root.value);
                let root = parsed.root.value.display();
                self.errors.at(
                    parsed.root.place,
                    format!("`{root}` cannot be served: {}", why(&error)),
                );
                None
            }
        }
    }
}
