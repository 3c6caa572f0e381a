//! Static files from disk: what is sent for a path below a route, and with which headers.
//!
//! Listings and error pages are not made here. `resolve` opens files, `target` finds the form that the client prefers,
//! `describe` says what is said of it, `stream` reads it; `store` caches small files, `descriptors` keeps larger ones open.

mod about;
mod accel;
mod compressed;
mod conditional;
mod describe;
mod descriptors;
mod kind;
mod listing;
mod multipart;
mod pattern;
mod pieces;
mod private;
mod range;
mod resolve;
mod stamp;
mod store;
mod stream;
mod target;
#[cfg(test)]
mod tests;
mod tree;
mod variants;

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Cursor, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Response, StatusCode, Version};
use smallvec::SmallVec;

use self::about::About;
pub(crate) use self::accel::{AccelFolder, AccelFolders};
pub(crate) use self::compressed::FileCompression;
use self::conditional::Verdict;
pub(crate) use self::describe::{CacheControl, DescribeRules};
use self::describe::{Caching, Told};
pub(crate) use self::kind::media_type;
use self::listing::{Form, Listing, Order};
use self::multipart::{Parts, Segment};
pub(crate) use self::pattern::FilePattern;
pub(crate) use self::private::PrivateFolder;
#[cfg(any(test, fuzzing))]
pub(crate) use self::range::range_holds;
use self::range::{Part, Wanted};
use self::resolve::Folder;
use self::store::Kept;
use self::stream::FileStream;
use self::target::{Source, Target};
use self::tree::{Spot, Tree};
pub(crate) use self::variants::ending;
use crate::auth::Permit;
use crate::message::accept::Coding;
use crate::message::body::Body;
use crate::message::method::MethodSet;
use crate::message::path::RequestPath;
use crate::message::reject::Reject;

/// Room for the headers of a file and for those that the gateway adds.
const HEADERS: usize = 12;

/// `Vary` of a file that has several forms.
const VARY: HeaderValue = HeaderValue::from_static("Accept-Encoding");
/// The policy of what users have uploaded: whatever it is, it acts in nobody's name, and loads nothing.
const SANDBOX: HeaderValue = HeaderValue::from_static("sandbox; default-src 'none'");

/// How long a root's descriptor, the content of a file in memory, and the descriptor of a file are trusted before their
/// path is checked again.
const TRUSTED_FOR: Duration = Duration::from_secs(1);

/// The settings of a route with files.
#[derive(Debug)]
pub(crate) struct FilesSettings {
    /// The directories to serve; the first that has a file serves it.
    pub(crate) roots: Vec<RootSettings>,
    /// The index files of a directory; the first that exists is used.
    pub(crate) index: Vec<String>,
    /// The page that a single-page app sends for a navigation that names no file, as a path below the root.
    pub(crate) fallback: Option<String>,
    /// The codings of precompressed files that are looked for.
    pub(crate) precompressed: Vec<Coding>,
    /// What is said of the files besides their bytes.
    pub(crate) describe: DescribeRules,
    /// Whether directories without an index are listed.
    pub(crate) listing: bool,
    /// How the gateway compresses them, where it does.
    pub(crate) compression: Option<FileCompression>,
    /// How many workers serve the files; each has a descriptor of the root.
    pub(crate) workers: usize,
}

/// A directory to serve.
#[derive(Debug)]
pub(crate) struct RootSettings {
    /// Its path.
    pub(crate) path: PathBuf,
    /// The folder in it that is the user's own, where only that is served.
    pub(crate) folder: Option<PrivateFolder>,
}

/// The files of one route.
#[derive(Debug)]
pub(crate) struct Files {
    /// At least one, in the order in which they are looked in.
    trees: Box<[Tree]>,
    index: Vec<String>,
    /// Relative to the root.
    fallback: Option<String>,
    describe: DescribeRules,
    listing: bool,
    compression: Option<FileCompression>,
}

/// A request for a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FileRequest<'a> {
    /// The index of the worker that serves it.
    pub(crate) worker: usize,
    /// Its method.
    pub(crate) method: &'a Method,
    /// Its version.
    pub(crate) version: Version,
    /// Its header fields.
    pub(crate) headers: &'a HeaderMap,
    /// Its path.
    pub(crate) path: &'a RequestPath,
    /// How many leading segments of the path belong to the route: with 1, `/assets/a.css` is `a.css` below the root.
    pub(crate) skip: usize,
    /// The query (after `?`), for redirects.
    pub(crate) query: Option<&'a str>,
    /// When it arrived, in wall-clock time.
    pub(crate) now: SystemTime,
    /// The same moment on the monotonic clock.
    pub(crate) at: Instant,
    /// Whether the kernel can send bytes from a file to the client (`sendfile`), which it can if nothing is encrypted.
    pub(crate) carries: bool,
}

impl FileRequest<'_> {
    /// The longest file that is better sent from memory.
    fn longest_in_memory(&self) -> u64 {
        if self.carries {
            stream::LONGEST_COPIED
        } else {
            store::LONGEST
        }
    }
}

/// What a path names.
#[derive(Debug)]
enum Found {
    /// A file.
    File(Target),
    /// A directory, but without its trailing slash.
    Directory,
    /// A directory that is listed: everything of its name below the roots.
    Listed(Vec<Folder>),
}

/// What is said of a request for a file, in words.
#[derive(Debug)]
pub(crate) struct FileWords {
    /// Line by line.
    pub(crate) lines: Vec<String>,
    /// Where the response comes from.
    pub(crate) source: &'static str,
}

/// The kind of response.
#[derive(Debug)]
enum Outcome {
    /// The path names a directory, but without its trailing slash.
    Redirect,
    /// The client's copy is current.
    NotModified(Target),
    /// All of the file.
    Whole(Target),
    /// A part of it.
    Part(Target, Part),
    /// Several parts of it.
    Parts(Target, Parts),
}

impl Files {
    /// Opens the roots.
    ///
    /// # Errors
    /// A root is not a directory that can be opened, or an index or the fallback is not a plain name below it.
    pub(crate) fn open(settings: FilesSettings) -> io::Result<Self> {
        let FilesSettings {
            roots,
            index,
            fallback,
            precompressed,
            describe,
            listing,
            compression,
            workers,
        } = settings;
        if let Some(name) = index
            .iter()
            .find(|name| name.contains('/') || !is_plain(name))
        {
            return Err(invalid(format!("the index {name:?} is not a file's name")));
        }
        let fallback = fallback
            .map(|path| match path.strip_prefix('/') {
                Some(name) if is_plain(name) => Ok(name.to_owned()),
                Some(_) | None => Err(invalid(format!("the fallback {path:?} is not a path"))),
            })
            .transpose()?;
        let trees = (roots.into_iter())
            .map(|root| Tree::open(root, &precompressed, workers))
            .collect::<io::Result<Box<[_]>>>()?;
        if trees.is_empty() {
            return Err(invalid("there is no directory to serve".to_owned()));
        }
        Ok(Self {
            trees,
            index,
            fallback,
            describe,
            listing,
            compression,
        })
    }

    /// Whether paths are resolved in user space, because `openat2` is not available.
    pub(crate) fn walks(&self) -> bool {
        self.trees.iter().any(|tree| tree.root.walks())
    }

    /// Responds to a request for a file.
    ///
    /// # Errors
    /// `MethodNotAllowed`, `BadPath`, `FileNotFound`, `FileForbidden`, `PreconditionFailed`, `RangeNotSatisfiable`,
    /// `Forbidden` and `ClaimUnfit` for a user without a folder, and `Internal` for failures of the system.
    pub(crate) async fn serve(
        &self,
        permit: Permit,
        asked: FileRequest<'_>,
    ) -> Result<Response<Body>, Reject> {
        let found = self.find(&permit, asked)?;
        self.give(asked, found, permit.is_private()).await
    }

    /// Responds with a file where the path names one, or a directory with an index; otherwise returns the permit, for
    /// the app that is asked then.
    ///
    /// # Errors
    /// As [`Self::serve`], where the path is that of a file.
    pub(crate) async fn serve_if_there(
        &self,
        permit: Permit,
        asked: FileRequest<'_>,
    ) -> Result<Result<Response<Body>, Permit>, Reject> {
        match self.find_if_there(&permit, asked)? {
            Some(found) => self.give(asked, found, permit.is_private()).await.map(Ok),
            None => Ok(Err(permit)),
        }
    }

    /// Responds with the file of a name below the roots, to whom an app gives it. Only he may keep it, unless the app says
    /// otherwise.
    ///
    /// # Errors
    /// `FileNotFound`, `FileForbidden`, `PreconditionFailed`, `RangeNotSatisfiable`, and `Internal` for failures of the
    /// system.
    pub(crate) async fn serve_named(
        &self,
        asked: FileRequest<'_>,
        name: &str,
    ) -> Result<Response<Body>, Reject> {
        for tree in 0..self.trees.len() {
            let spot = Spot {
                tree,
                folder: String::new(),
            };
            match self.target(asked, &spot, name) {
                Ok(Some(target)) => {
                    let mut file = self.give(asked, Found::File(target), true).await?;
                    // Whether the name has a hash in it does not matter: another user may not get this response.
                    let headers = file.headers_mut();
                    headers.insert(header::CACHE_CONTROL, Caching::Plain.value(true));
                    return Ok(file);
                }
                Ok(None) | Err(Reject::FileNotFound) => {}
                Err(other) => return Err(other),
            }
        }
        Err(Reject::FileNotFound)
    }

    /// Responds with what was found.
    async fn give(
        &self,
        asked: FileRequest<'_>,
        found: Found,
        private: bool,
    ) -> Result<Response<Body>, Reject> {
        let target = match found {
            Found::File(target) if target.wish.is_some() => self.compressed(asked, target).await?,
            Found::File(target) => target,
            Found::Directory => return self.respond(asked, Outcome::Redirect, private),
            Found::Listed(folders) => return list(asked, folders, private).await,
        };
        let outcome = judge(asked, target)?;
        self.answer(asked, outcome, private).await
    }

    /// What is decided of a file besides its bytes, in words: its form, and who may keep it.
    pub(crate) fn in_words(&self, permit: &Permit, asked: FileRequest<'_>) -> FileWords {
        self.told(permit, asked, self.find(permit, asked).ok())
    }

    /// The same where an app is asked if there is no file; `None` if it is.
    ///
    /// # Errors
    /// As [`Self::serve_if_there`].
    pub(crate) fn in_words_if_there(
        &self,
        permit: &Permit,
        asked: FileRequest<'_>,
    ) -> Result<Option<FileWords>, Reject> {
        let found = self.find_if_there(permit, asked)?;
        Ok(found.map(|found| self.told(permit, asked, Some(found))))
    }

    fn told(&self, permit: &Permit, asked: FileRequest<'_>, found: Option<Found>) -> FileWords {
        let mut words = FileWords {
            lines: Vec::new(),
            source: "from a file",
        };
        for Spot { folder, .. } in self.spots(permit).into_iter().flatten() {
            if !folder.is_empty() {
                words
                    .lines
                    .push(format!("in the folder {folder} of this user"));
            }
        }
        let target = match found {
            Some(Found::File(target)) => target,
            Some(Found::Listed(_)) => {
                words.lines.push("the directory has no index".to_owned());
                words.source = "with a listing";
                return words;
            }
            Some(Found::Directory) | None => return words,
        };
        let Target { about, wish, .. } = &target;
        let form = match (about.coding, about.varies) {
            (None, true) if wish.is_some() => {
                let coding = wish.as_ref().map_or("", |wish| wish.coding.name());
                format!("{coding}, unless that is not shorter by a tenth")
            }
            (Some(coding), _) => format!("{} from the file beside it", coding.name()),
            (None, true) => "as it is: no other form is accepted, or preferred".to_owned(),
            (None, false) => "as it is: there is no other form".to_owned(),
        };
        let caching = &about.told.caching;
        let value = caching.value(permit.is_private());
        let value = String::from_utf8_lossy(value.as_bytes());
        let why = self.describe.why(caching);
        let told = [form, format!("Cache-Control: {value}: {why}")];
        words.lines.extend(told);
        words.lines.extend(ranges_in_words(asked, target));
        words
    }

    /// Reads files to be cached that are not in memory yet, so that the response needs no waiting.
    async fn answer(
        &self,
        asked: FileRequest<'_>,
        mut outcome: Outcome,
        private: bool,
    ) -> Result<Response<Body>, Reject> {
        if let Outcome::Whole(target) | Outcome::Part(target, _) | Outcome::Parts(target, _) =
            &mut outcome
            && asked.method != Method::HEAD
            && let Source::Small(file, key) = &target.source
            && target.about.stamp.is_settled(asked.now)
        {
            let content = stream::read(Arc::clone(file), target.about.len).await?;
            let kept = Kept {
                content: content.clone(),
                about: Arc::clone(&target.about),
            };
            let tree = self.trees.get(target.tree).ok_or(Reject::Internal)?;
            tree.store.put(asked.worker, key, kept, asked.now);
            target.source = Source::Memory(content);
        }
        self.respond(asked, outcome, private)
    }

    /// Finds the file, without reading its content.
    fn find(&self, permit: &Permit, asked: FileRequest<'_>) -> Result<Found, Reject> {
        if !MethodSet::READ.contains(asked.method) {
            return Err(Reject::MethodNotAllowed(MethodSet::READ));
        }
        let whole = asked.path.file()?;
        let name = asked.path.file_after(asked.skip)?;
        if name.split('/').any(is_hidden) {
            return Err(Reject::FileNotFound);
        }
        let is_directory = whole.ends_with('/');
        let mut found_directory = false;
        let spots = self.spots(permit)?;
        for spot in &spots {
            match self.look_up(asked, spot, name, is_directory) {
                Ok(Some(target)) => return Ok(Found::File(target)),
                // Another root may have a file of this name.
                Ok(None) => found_directory = true,
                Err(Reject::FileNotFound) => {}
                Err(other) => return Err(other),
            }
        }
        if found_directory {
            return Ok(Found::Directory);
        }
        if self.listing && is_directory {
            let folders = self.folders(asked, &spots, name)?;
            if !folders.is_empty() {
                return Ok(Found::Listed(folders));
            }
        }
        self.fall_back(asked, &spots, name).map(Found::File)
    }

    /// Where the files of a request may be, in the order in which they are looked for.
    fn spots(&self, permit: &Permit) -> Result<SmallVec<[Spot; 1]>, Reject> {
        let trees = self.trees.iter().enumerate();
        trees
            .map(|(tree, Tree { folder, .. })| {
                let folder = match folder {
                    None => String::new(),
                    Some(folder) => folder.of(permit)?,
                };
                Ok(Spot { tree, folder })
            })
            .collect()
    }

    /// Finds the file, or the directory with an index; `None` for everything that is the app's: what is no file, has a
    /// path that no file can have, or is another method.
    fn find_if_there(
        &self,
        permit: &Permit,
        asked: FileRequest<'_>,
    ) -> Result<Option<Found>, Reject> {
        let upgrade = asked.headers.get(header::UPGRADE);
        if upgrade.is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket")) {
            return Ok(None);
        }
        match self.find(permit, asked) {
            Ok(Found::Directory) if !self.has_index(permit, asked)? => Ok(None),
            Ok(found) => Ok(Some(found)),
            Err(Reject::FileNotFound | Reject::BadPath | Reject::MethodNotAllowed(_)) => Ok(None),
            Err(other) => Err(other),
        }
    }

    /// Whether the directory that the path names without its slash has an index.
    fn has_index(&self, permit: &Permit, asked: FileRequest<'_>) -> Result<bool, Reject> {
        let name = asked.path.file_after(asked.skip)?;
        let directory = if name.is_empty() {
            String::new()
        } else {
            format!("{name}/")
        };
        for spot in &self.spots(permit)? {
            match self.look_up(asked, spot, &directory, true) {
                Ok(found) => return Ok(found.is_some()),
                Err(Reject::FileNotFound) => {}
                Err(other) => return Err(other),
            }
        }
        Ok(false)
    }

    /// The directories of a name below the roots, opened to be read.
    fn folders(
        &self,
        asked: FileRequest<'_>,
        spots: &[Spot],
        name: &str,
    ) -> Result<Vec<Folder>, Reject> {
        let mut folders = Vec::new();
        for (tree, spot) in self.trees.iter().zip(spots) {
            let (path, folder) = (spot.path(name), spot.folder.len());
            match (tree.root).directory(asked.worker, &path, folder, asked.at) {
                Ok(folder) => folders.push(folder),
                Err(Reject::FileNotFound) => {}
                Err(other) => return Err(other),
            }
        }
        Ok(folders)
    }

    /// The file of a name below one root, or the index of a directory; `None` for a directory without its trailing
    /// slash.
    fn look_up(
        &self,
        asked: FileRequest<'_>,
        spot: &Spot,
        name: &str,
        directory: bool,
    ) -> Result<Option<Target>, Reject> {
        if !directory {
            // The root itself, requested by the route's own path.
            if name.is_empty() {
                return Ok(None);
            }
            return self.target(asked, spot, name);
        }
        for index in &self.index {
            let file = if name.is_empty() {
                Cow::Borrowed(index.as_str())
            } else {
                Cow::Owned([name, index].concat())
            };
            match self.target(asked, spot, &file) {
                Ok(Some(target)) => return Ok(Some(target)),
                // Try the next name; a directory is not an index either.
                Ok(None) | Err(Reject::FileNotFound) => {}
                Err(other) => return Err(other),
            }
        }
        Err(Reject::FileNotFound)
    }

    /// The app's page, for a browser that navigates to one of the app's own addresses, which may contain dots. Never
    /// for a missing script or image: a page in its place would hide the error.
    fn fall_back(
        &self,
        asked: FileRequest<'_>,
        spots: &[Spot],
        name: &str,
    ) -> Result<Target, Reject> {
        let last = name.rsplit('/').next().unwrap_or_default();
        let Some(fallback) = &self.fallback else {
            return Err(Reject::FileNotFound);
        };
        if kind::is_asset(last) || !accepts_html(asked.headers) {
            return Err(Reject::FileNotFound);
        }
        for spot in spots {
            match self.target(asked, spot, fallback) {
                Ok(Some(target)) => return Ok(target),
                // A fallback that is a directory is not a page.
                Ok(None) | Err(Reject::FileNotFound) => {}
                Err(other) => return Err(other),
            }
        }
        Err(Reject::FileNotFound)
    }

    fn respond(
        &self,
        asked: FileRequest<'_>,
        outcome: Outcome,
        private: bool,
    ) -> Result<Response<Body>, Reject> {
        let mut headers = HeaderMap::with_capacity(HEADERS);
        let (status, body) = match outcome {
            Outcome::Redirect => {
                headers.insert(header::LOCATION, location(asked)?);
                (StatusCode::MOVED_PERMANENTLY, Body::Empty)
            }
            Outcome::NotModified(target) => {
                self.describe(&mut headers, asked, &target.about, private)?;
                (StatusCode::NOT_MODIFIED, Body::Empty)
            }
            Outcome::Whole(target) => {
                self.describe(&mut headers, asked, &target.about, private)?;
                let len = target.about.len;
                let body = self.content(&mut headers, asked, target, 0, len)?;
                (StatusCode::OK, body)
            }
            Outcome::Part(target, part) => {
                self.describe(&mut headers, asked, &target.about, private)?;
                let Part { first, last } = part;
                let value =
                    header_value(format_args!("bytes {first}-{last}/{}", target.about.len))?;
                headers.insert(header::CONTENT_RANGE, value);
                let body = self.content(&mut headers, asked, target, first, part.len())?;
                (StatusCode::PARTIAL_CONTENT, body)
            }
            Outcome::Parts(target, parts) => {
                self.describe(&mut headers, asked, &target.about, private)?;
                let body = self.parts(&mut headers, asked, target, parts)?;
                (StatusCode::PARTIAL_CONTENT, body)
            }
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    }

    /// Headers that a client with a current copy needs, too (RFC 9110 section 15.4.5).
    fn describe(
        &self,
        headers: &mut HeaderMap,
        asked: FileRequest<'_>,
        about: &About,
        private: bool,
    ) -> Result<(), Reject> {
        if let Some(date) = about.validators.last_modified(asked.now)? {
            headers.insert(header::LAST_MODIFIED, date);
        }
        headers.insert(header::ETAG, about.validators.etag.clone());
        headers.insert(header::CACHE_CONTROL, about.told.caching.value(private));
        if about.varies {
            headers.insert(header::VARY, VARY);
        }
        if self.describe.untrusted {
            headers.insert(header::CONTENT_SECURITY_POLICY, SANDBOX);
        }
        Ok(())
    }

    /// The headers of the bytes that are sent, and for GET the bytes.
    fn content(
        &self,
        headers: &mut HeaderMap,
        asked: FileRequest<'_>,
        target: Target,
        offset: u64,
        len: u64,
    ) -> Result<Body, Reject> {
        let told = &target.about.told;
        headers.insert(header::CONTENT_TYPE, told.content_type.clone());
        if let Some(coding) = target.about.coding {
            headers.insert(header::CONTENT_ENCODING, coding.value());
        }
        told_of_all(headers, told);
        if asked.method == Method::HEAD || len == 0 {
            // The length of a body is added by the code that sends it.
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(len));
            return Ok(Body::Empty);
        }
        let (file, is_warm) = match target.source {
            Source::Small(file, ..) => (file, false),
            Source::Large(file, is_warm) => (file, is_warm),
            Source::Memory(content) => {
                let from = usize::try_from(offset).map_err(|_| Reject::Internal)?;
                let to = usize::try_from(offset + len).map_err(|_| Reject::Internal)?;
                return Ok(Body::full(content.slice(from..to)));
            }
        };
        let tree = self.trees.get(target.tree).ok_or(Reject::Internal)?;
        let pieces = tree.descriptors.pieces(asked.worker);
        let pieces = pieces.ok_or(Reject::Internal)?;
        let stream = FileStream::new(file, offset, len, pieces);
        Ok(if asked.carries && len > stream::LONGEST_COPIED {
            Body::file(stream.warm(is_warm))
        } else {
            stream.into_body()
        })
    }

    /// The headers of several parts, and their bytes.
    fn parts(
        &self,
        headers: &mut HeaderMap,
        asked: FileRequest<'_>,
        target: Target,
        parts: Parts,
    ) -> Result<Body, Reject> {
        headers.insert(header::CONTENT_TYPE, parts.content_type()?);
        told_of_all(headers, &target.about.told);
        let (file, is_warm) = match target.source {
            Source::Small(file, ..) => (file, false),
            Source::Large(file, is_warm) => (file, is_warm),
            Source::Memory(content) => {
                return Ok(Body::file(parts.into_body(|part| {
                    let at = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
                    let bytes = at(part.first)..at(part.last).saturating_add(1);
                    // All parts lie in the file, which is as long as its content.
                    let is_there = content.get(bytes.clone()).is_some();
                    Segment::Bytes(if is_there {
                        content.slice(bytes)
                    } else {
                        Bytes::new()
                    })
                })));
            }
        };
        let tree = self.trees.get(target.tree).ok_or(Reject::Internal)?;
        let pieces = tree.descriptors.pieces(asked.worker);
        let pieces = pieces.ok_or(Reject::Internal)?;
        Ok(Body::file(parts.into_body(|part| {
            let stream = FileStream::new(
                Arc::clone(&file),
                part.first,
                part.len(),
                Arc::clone(&pieces),
            );
            match stream.at_once(stream::LONGEST_COPIED) {
                Some(bytes) => Segment::Bytes(bytes),
                None => Segment::File(stream.warm(is_warm).carried(asked.carries)),
            }
        })))
    }
}

/// What is said of a file whether it is sent whole or in parts, besides its type.
fn told_of_all(headers: &mut HeaderMap, told: &Told) {
    if let Some(disposition) = &told.disposition {
        headers.insert(header::CONTENT_DISPOSITION, disposition.clone());
    }
    // A value that is not a constant would be checked byte by byte each time.
    let nosniff = const { HeaderValue::from_static("nosniff") };
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    let bytes = const { HeaderValue::from_static("bytes") };
    headers.insert(header::ACCEPT_RANGES, bytes);
}

/// Evaluates the request against what is known of the file.
fn judge(asked: FileRequest<'_>, target: Target) -> Result<Outcome, Reject> {
    match target.about.validators.evaluate(asked.headers) {
        Verdict::Failed => Err(Reject::PreconditionFailed),
        Verdict::NotModified => Ok(Outcome::NotModified(target)),
        Verdict::Send => match wanted(asked, &target.about) {
            Wanted::Whole => Ok(Outcome::Whole(target)),
            Wanted::Part(part) => Ok(Outcome::Part(target, part)),
            Wanted::Parts(parts) => Ok(match Parts::of(parts, &target.about)? {
                Some(parts) => Outcome::Parts(target, parts),
                None => Outcome::Whole(target),
            }),
            Wanted::Unsatisfiable => Err(Reject::RangeNotSatisfiable {
                length: target.about.len,
                varies: target.about.varies,
            }),
        },
    }
}

/// Lists directories, in the form and the order that the client asks for.
async fn list(
    asked: FileRequest<'_>,
    folders: Vec<Folder>,
    private: bool,
) -> Result<Response<Body>, Reject> {
    let form = Form::of(asked.headers);
    let order = Order::of(asked.query);
    let path = asked.path.file()?.to_owned();
    let is_top = asked.path.file_after(asked.skip)?.is_empty();
    // A directory may be on a slow disk, and have many entries.
    let page = stream::off_the_loop(move || {
        let listing = Listing::read(&folders)?;
        let written = listing.write((form, order), &path, is_top);
        written.map_err(io::Error::other)
    });
    let page = page.await.map_err(|error| {
        if error.kind() == io::ErrorKind::PermissionDenied {
            Reject::FileForbidden
        } else {
            Reject::Internal
        }
    })?;
    let mut headers = HeaderMap::with_capacity(HEADERS);
    let content_type = HeaderValue::from_static(form.content_type());
    headers.insert(header::CONTENT_TYPE, content_type);
    headers.insert(header::CACHE_CONTROL, Caching::Plain.value(private));
    headers.insert(header::VARY, HeaderValue::from_static("Accept"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    let policy = HeaderValue::from_static(listing::POLICY);
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    let body = if *asked.method == Method::HEAD {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(page.len()));
        Body::Empty
    } else {
        Body::full(page)
    };
    let mut response = Response::new(body);
    *response.headers_mut() = headers;
    Ok(response)
}

/// Whether a part of a path is hidden: what begins with a dot is not for clients, except what RFC 8615 puts there.
fn is_hidden(segment: &str) -> bool {
    segment.starts_with('.') && segment != ".well-known"
}

/// Which bytes of the file are sent, in words; `None` where no range is asked for.
fn ranges_in_words(asked: FileRequest<'_>, target: Target) -> Option<String> {
    if !asked.headers.contains_key(header::RANGE) {
        return None;
    }
    let (len, is_made) = (target.about.len, target.wish.is_some());
    let words = match judge(asked, target).ok()? {
        // How long the compressed form is, is not known here.
        _ if is_made => "ranges of the compressed form".to_owned(),
        Outcome::Part(_, Part { first, last }) => format!("bytes {first}-{last} of {len}"),
        Outcome::Parts(_, parts) => {
            let ranges = parts.ranges().iter();
            let ranges = ranges.map(|Part { first, last }| format!("{first}-{last}"));
            let ranges: Vec<_> = ranges.collect();
            format!("bytes {} of {len}, each as a part", ranges.join(", "))
        }
        Outcome::Whole(_) => format!("all {len} bytes, although a range is asked for"),
        Outcome::NotModified(_) | Outcome::Redirect => return None,
    };
    Some(words)
}

/// Which bytes of the file to send.
fn wanted(asked: FileRequest<'_>, about: &About) -> Wanted {
    // Ranges are defined only for GET (RFC 9110 section 14.2).
    if asked.method != Method::GET || !asked.headers.keys().any(|name| *name == header::RANGE) {
        return Wanted::Whole;
    }
    let mut lines = asked.headers.get_all(header::RANGE).iter();
    match (lines.next(), lines.next()) {
        (Some(value), None)
            if about
                .validators
                .range_may_be_served(asked.headers, asked.now) =>
        {
            range::parse(value.as_bytes(), about.len)
        }
        (Some(_) | None, _) => Wanted::Whole,
    }
}

/// The path with a trailing slash, and the unchanged query.
fn location(asked: FileRequest<'_>) -> Result<HeaderValue, Reject> {
    // Security: the client's own spelling may begin with two slashes and so name another host in its first segment.
    let mut location = asked.path.resolved().to_string();
    if !location.ends_with('/') {
        location.push('/');
    }
    if let Some(query) = asked.query {
        location.push('?');
        location.push_str(query);
    }
    HeaderValue::try_from(location).map_err(|_| Reject::BadPath)
}

/// Whether a browser requests a page.
fn accepts_html(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .filter_map(|range| range.split(|byte| *byte == b';').next())
        .any(|media_type| {
            media_type
                .trim_ascii()
                .eq_ignore_ascii_case(kind::HTML.as_bytes())
        })
}

/// Whether a configured name has no part that could lead elsewhere.
fn is_plain(name: &str) -> bool {
    !name.contains('\0') && name.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

/// A short header value, written without an allocation of its own.
fn header_value(value: fmt::Arguments<'_>) -> Result<HeaderValue, Reject> {
    let mut text = Cursor::new([0_u8; 96]);
    text.write_fmt(value).map_err(|_| Reject::Internal)?;
    let written = usize::try_from(text.position()).ok();
    let written = written
        .and_then(|len| text.get_ref().get(..len))
        .ok_or(Reject::Internal)?;
    HeaderValue::from_bytes(written).map_err(|_| Reject::Internal)
}
