//! `static` of a route: opens its directories.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::Compiler;
use crate::compress::CompressRules;
use crate::config::parsed::{self, Spanned};
use crate::config::source::why;
use crate::files::{
    AccelFolder, AccelFolders, DescribeRules, FileCompression, Files, FilesSettings, RootSettings,
};
use crate::message::accept::Coding;

impl Compiler<'_> {
    /// Opens the directories of a route with files.
    pub(super) fn files(
        &mut self,
        parsed: &parsed::Static,
        rules: Option<CompressRules>,
    ) -> Option<Files> {
        let are_there = parsed.roots.iter().fold(true, |others, root| {
            let is_there = self.is_directory(&root.path);
            others && is_there
        });
        if !are_there {
            return None;
        }
        let first = &parsed.roots.first()?.path;
        let roots = parsed.roots.iter().map(|root| RootSettings {
            path: root.path.value.clone(),
            folder: root.folder.clone(),
        });
        let settings = FilesSettings {
            roots: roots.collect(),
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
            listing: parsed.listing,
            compression: rules.map(|rules| FileCompression {
                rules,
                made: Arc::clone(&self.compressed),
            }),
            workers: self.workers,
        };
        let opened = self
            .loader
            .patiently(&first.value, move || Files::open(settings));
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
                self.cannot_serve(first, &error);
                None
            }
        }
    }

    /// Opens the directories of `accel`.
    pub(super) fn accel(
        &mut self,
        parsed: &parsed::Route,
        rules: Option<&CompressRules>,
    ) -> Option<Box<AccelFolders>> {
        let mut folders = Vec::with_capacity(parsed.accel.len());
        for (prefix, directory) in &parsed.accel {
            if !self.is_directory(directory) {
                continue;
            }
            let settings = FilesSettings {
                roots: vec![RootSettings {
                    path: directory.value.clone(),
                    folder: None,
                }],
                index: Vec::new(),
                fallback: None,
                precompressed: Coding::ALL.to_vec(),
                describe: DescribeRules::default(),
                listing: false,
                compression: rules.map(|rules| FileCompression {
                    rules: rules.clone(),
                    made: Arc::clone(&self.compressed),
                }),
                workers: self.workers,
            };
            let path = directory.value.clone();
            let opened = self.loader.patiently(&directory.value, move || {
                // Apps write paths that are absolute, with links or without.
                let paths = vec![std::path::absolute(&path)?, fs::canonicalize(&path)?];
                Ok((paths, Files::open(settings)?))
            });
            match opened {
                Ok((mut paths, files)) => {
                    paths.dedup();
                    folders.push(AccelFolder {
                        prefix: prefix.value.clone(),
                        paths,
                        files,
                    });
                }
                Err(error) => self.cannot_serve(directory, &error),
            }
        }
        (!folders.is_empty()).then(|| Box::new(AccelFolders::new(folders)))
    }

    /// Whether a root can be served, as far as it can be told without opening it; reports an error otherwise.
    fn is_directory(&mut self, root: &Spanned<PathBuf>) -> bool {
        let path = root.value.clone();
        let seen = (self.loader).patiently(&root.value, move || match fs::metadata(path)? {
            seen if seen.is_dir() => Ok(()),
            _ => Err(io::ErrorKind::NotADirectory.into()),
        });
        if let Err(error) = &seen {
            self.cannot_serve(root, error);
        }
        seen.is_ok()
    }

    fn cannot_serve(&mut self, root: &Spanned<PathBuf>, error: &io::Error) {
        // A root that is created later makes the configuration valid, so a missing one is watched. An existing one is
        // not: every file read from it would be an event.
        self.loader.watch(&root.value);
        let shown = root.value.display();
        self.errors.at(
            root.place,
            format!("`{shown}` cannot be served: {}", why(error)),
        );
    }
}
