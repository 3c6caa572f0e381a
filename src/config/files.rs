//! Decodes `static` of a route. Whether the directory can be served is not checked here.

use std::path::PathBuf;

use super::decode::Decoder;
use super::keys;
use super::mask::quoted;
use super::node::{Kind, Node};
use super::parsed::{ServedRoot, Spanned, Static};
use super::value;
use crate::files::{CacheControl, FilePattern, PrivateFolder};
use crate::message::accept::Coding;

impl Decoder<'_> {
    /// `static`; a directory alone is short for a map with `root`.
    pub(super) fn files(&mut self, node: &Node) -> Option<Static> {
        let map;
        let node = if matches!(node.kind, Kind::Scalar(_)) {
            map = node.clone().behind("root", false);
            &map
        } else {
            node
        };
        let fields = self.fields(node, "a directory or a map", &keys::STATIC)?;
        let roots = self.required(fields, "root", |it, node| {
            it.one_or_more(node, "a directory or a list of directories", Self::root)
        });
        let index = self.value(fields, "index", |it, node| {
            it.list(node, "a list of file names", |it, node| {
                it.scalar(node, "a file's name", "", |text| match text {
                    "" | "." | ".." => Err("such as index.html".to_owned()),
                    text if text.contains(['/', '\\', '\0']) => {
                        Err("a name has no slash".to_owned())
                    }
                    text => Ok(text.to_owned()),
                })
            })
        });
        let fallback = self.optional(fields, "fallback", Self::url_path);
        let cache_control = self.optional(fields, "cache_control", Self::cache_control);
        let precompressed = self.value(fields, "precompressed", |it, node| {
            it.list(node, "a list of codings", |it, node| {
                let known = [
                    ("br", Coding::Br),
                    ("zstd", Coding::Zstd),
                    ("gzip", Coding::Gzip),
                ];
                it.choice(node, "a coding", &known)
            })
        });
        let mut codings: Vec<Coding> = Vec::new();
        for coding in precompressed.into_iter().flatten() {
            if codings.contains(&coding.value) {
                let problem = format!("`{}` is here twice", coding.value.name());
                self.errors.at(coding.place, problem);
            } else {
                codings.push(coding.value);
            }
        }
        let types = self.optional(fields, "types", Self::types);
        let charset = self.value(fields, "charset", |it, node| {
            let hint = "charsets are utf-8, windows-1251; `none` is for none";
            it.scalar(node, "a charset, or `none`", hint, |text| match text {
                "none" => Ok(None),
                text if is_token(text) => Ok(Some(text.to_owned())),
                _ => Err(hint.to_owned()),
            })
        });
        let download = self.value(fields, "download", Self::download);
        let untrusted = self.value(fields, "untrusted", Self::boolean);
        let listing = self.value(fields, "listing", Self::boolean);
        let otherwise = self.optional(fields, "else", Self::proxy_to);
        if let (Some(place), true) = (fields.place_of("fallback"), otherwise.is_some()) {
            self.errors
                .at(
                    place,
                    "`fallback` and `else` both respond where there is no file",
                )
                .hint("leave one of them out");
        }
        if let (Some(place), true, Some(true)) = (
            fields.place_of("listing"),
            otherwise.is_some(),
            listing.as_ref().map(|listing| listing.value),
        ) {
            self.errors
                .at(place, "`listing` and `else` both respond for a directory")
                .hint("leave one of them out");
        }
        Some(Static {
            place: fields.place,
            roots: self.each_once(roots?),
            index: index?,
            fallback,
            cache_control: cache_control.unwrap_or_default(),
            precompressed: codings,
            types: types.unwrap_or_default(),
            charset: charset?.value,
            download: download?,
            untrusted: untrusted?.value,
            listing: listing?.value,
            otherwise,
        })
    }

    /// `accel`: one directory for all paths, or directories by the beginnings of paths.
    pub(super) fn accel(
        &mut self,
        node: &Node,
    ) -> Option<Vec<(Spanned<String>, Spanned<PathBuf>)>> {
        if matches!(node.kind, Kind::Scalar(_)) {
            let directory = self.file(node)?;
            let all = Spanned {
                value: "/".to_owned(),
                place: directory.place,
                private: false,
            };
            return Some(vec![(all, directory)]);
        }
        let what = "a directory, or a map from beginnings of paths to directories";
        let named = self.named(node, what, Self::file)?;
        if named.is_empty() {
            self.unexpected(node, what, "");
        }
        for (prefix, _) in &named {
            let text = prefix.value.as_str();
            if !text.starts_with('/') || !text.ends_with('/') || text.contains("//") {
                let problem = format!("{} is not the beginning of a path", prefix.shown());
                let bare = text.trim_matches('/');
                self.errors
                    .at(prefix.place, problem)
                    .hint(format!("write `/{bare}/`"));
            }
        }
        Some(named)
    }

    /// A root, perhaps with claims in it.
    fn root(&mut self, node: &Node) -> Option<ServedRoot> {
        let path = self.file(node)?;
        match PrivateFolder::parse(&path.value) {
            Ok((_, None)) => Some(ServedRoot { path, folder: None }),
            Ok((base, folder)) => Some(ServedRoot {
                path: Spanned {
                    value: base,
                    ..path
                },
                folder,
            }),
            Err(problem) => {
                let hint = "such as ./data/{claim:sub}";
                self.errors.at(path.place, problem).hint(hint);
                None
            }
        }
    }

    /// The roots; one that is named twice is an error.
    fn each_once(&mut self, roots: Vec<ServedRoot>) -> Vec<ServedRoot> {
        let mut kept: Vec<ServedRoot> = Vec::with_capacity(roots.len());
        for root in roots {
            let shown = root.to_string();
            if kept.iter().any(|known| known.to_string() == shown) {
                let problem = format!("`{shown}` is here twice");
                self.errors.at(root.path.place, problem);
            } else {
                kept.push(root);
            }
        }
        kept
    }

    /// `cache_control`: one value for all files, or values by pattern.
    fn cache_control(&mut self, node: &Node) -> Option<Vec<(FilePattern, CacheControl)>> {
        let Kind::Map(entries) = &node.kind else {
            let value = self.caching(node)?;
            return Some(vec![(FilePattern::any(), value)]);
        };
        if entries.is_empty() {
            self.unexpected(node, "a value, or a map from patterns to values", "");
            return None;
        }
        let mut rules = Vec::with_capacity(entries.len());
        for (key, node) in entries {
            let pattern = FilePattern::parse(&key.text);
            let value = self.caching(node);
            match (pattern, value) {
                (Ok(pattern), Some(value)) => rules.push((pattern, value)),
                (Ok(_), None) => {}
                (Err(hint), _) => {
                    let problem = format!("{} picks no files", quoted(&key.text));
                    self.errors.at(key.place, problem).hint(hint);
                }
            }
        }
        Some(rules)
    }

    /// A value of `Cache-Control`.
    fn caching(&mut self, node: &Node) -> Option<CacheControl> {
        let value = self.header_value(node)?.value;
        Some(if value == "immutable" {
            CacheControl::Immutable
        } else {
            CacheControl::Value(value)
        })
    }

    /// `types`: media types by the end of the name.
    fn types(&mut self, node: &Node) -> Option<Vec<(String, String)>> {
        let named = self.named(
            node,
            "a map from ends of names to media types",
            |it, node| {
                let hint = "media types are model/gltf-binary, text/plain; charset=latin1";
                it.scalar(node, "a media type", hint, |text| {
                    if is_media_type(text) {
                        Ok(text.to_owned())
                    } else {
                        Err(hint.to_owned())
                    }
                })
            },
        )?;
        let mut types: Vec<(String, String)> = Vec::with_capacity(named.len());
        for (name, media_type) in named {
            let ending = name.value.to_ascii_lowercase();
            let is_ending = ending.len() > 1 && ending.starts_with('.') && !ending.contains('/');
            if !is_ending {
                let hint = match ending.trim_start_matches(['*', '.']) {
                    "" => "ends of names are .glb, .tar.gz".to_owned(),
                    bare => format!("write `.{bare}`"),
                };
                let problem = format!("{} is no end of a name", name.shown());
                self.errors.at(name.place, problem).hint(hint);
            } else if types.iter().any(|(known, _)| *known == ending) {
                let problem = format!("`{ending}` is here twice");
                self.errors.at(name.place, problem);
            } else {
                types.push((ending, media_type.value));
            }
        }
        Some(types)
    }

    /// `download`: all files, none, or those that patterns pick.
    fn download(&mut self, node: &Node) -> Option<Vec<FilePattern>> {
        if let Kind::Scalar(scalar) = &node.kind
            && (matches!(&*scalar.text, "true" | "false")
                || value::boolean_of_yaml_1_1(&scalar.text).is_some())
        {
            let all = self.boolean(node)?.value;
            return Some(all.then(FilePattern::any).into_iter().collect());
        }
        let what = "`true`, `false`, a pattern or a list of patterns";
        let patterns = self.one_or_more(node, what, |it, node| {
            it.scalar(node, "a pattern", "", FilePattern::parse)
        })?;
        Some(patterns.into_iter().map(|pattern| pattern.value).collect())
    }
}

/// Whether a text is a token (RFC 9110 section 5.6.2).
fn is_token(text: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(legal)
}

/// Whether a text is a media type, perhaps with parameters, that a header can carry.
fn is_media_type(text: &str) -> bool {
    let (essence, parameters) = text.split_once(';').unwrap_or((text, "a"));
    let is_named = essence
        .trim_end()
        .split_once('/')
        .is_some_and(|(kind, name)| is_token(kind) && is_token(name));
    is_named && !parameters.is_empty() && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}
