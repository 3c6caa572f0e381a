//! `portcullis precompress`: writes `FILE.br`, `FILE.zst` and `FILE.gz` beside the files of a directory, with the best
//! levels, for the gateway or any other server to send. It needs no configuration.

use std::fs::{self, DirEntry, File};
use std::io::{self, Write, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::SystemTime;

use super::{bad, failed, say};
use crate::clock;
use crate::compress::{CompressRules, Level, compress};
use crate::files::{ending, media_type};
use crate::message::accept::Coding;

/// The arguments of `precompress`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  portcullis precompress dist
  portcullis precompress dist --codings br,gzip

Texts, scripts, JSON, XML, SVG, WebAssembly and fonts of at least 1 KiB are compressed. What is newer than its file is left
as it is, what would not be shorter by a tenth is not written. Dotfiles and links are passed over.

Exit codes: 0 done, 1 something could not be read or written, 2 wrong arguments.")]
pub(super) struct PrecompressArguments {
    /// The directory, with everything below it.
    directory: PathBuf,
    /// The codings.
    #[arg(long, value_delimiter = ',', value_enum, default_values = ["br", "zstd", "gzip"])]
    codings: Vec<Named>,
}

/// A coding by its name.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Named {
    Br,
    Zstd,
    Gzip,
}

impl Named {
    fn coding(self) -> Coding {
        match self {
            Self::Br => Coding::Br,
            Self::Zstd => Coding::Zstd,
            Self::Gzip => Coding::Gzip,
        }
    }
}

/// What was done, by all threads.
#[derive(Debug, Default)]
struct Done {
    written: AtomicUsize,
    current: AtomicUsize,
    not_shorter: AtomicUsize,
    /// Bytes of the files for which something was written, and of what was written, once for each coding.
    before: AtomicU64,
    after: AtomicU64,
    errors: Mutex<Vec<String>>,
}

/// Compresses the files of a directory: exits with 0 where all could be, 1 where some could not.
pub(super) fn precompress(arguments: &PrecompressArguments) -> ExitCode {
    let directory = &arguments.directory;
    if !directory.is_dir() {
        return bad(format!("`{}` is no directory", directory.display()));
    }
    let mut files = Vec::new();
    let mut done = Done::default();
    if let Err(error) = walk(directory, &mut files) {
        return failed(error);
    }
    let next = AtomicUsize::new(0);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                    for named in &arguments.codings {
                        if let Err(error) = sibling(file, named.coding(), &done) {
                            let line = format!("`{}`: {error}", file.display());
                            let mut errors =
                                done.errors.lock().unwrap_or_else(PoisonError::into_inner);
                            errors.push(line);
                        }
                    }
                }
            });
        }
    });
    let errors = done.errors.get_mut();
    let errors = std::mem::take(errors.unwrap_or_else(PoisonError::into_inner));
    let count = |of: &AtomicUsize| of.load(Ordering::Relaxed);
    say(
        &mut stdout(),
        &format!(
            "{} files: {} compressed files written ({} bytes became {}), {} current, {} would not be shorter\n",
            files.len(),
            count(&done.written),
            done.before.load(Ordering::Relaxed),
            done.after.load(Ordering::Relaxed),
            count(&done.current),
            count(&done.not_shorter),
        ),
    );
    if errors.is_empty() {
        ExitCode::SUCCESS
    } else {
        failed(errors.join("\n"))
    }
}

/// Finds the files that are worth it.
fn walk(directory: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    let named = |error: io::Error| {
        io::Error::new(error.kind(), format!("`{}`: {error}", directory.display()))
    };
    let mut entries: Vec<DirEntry> = fs::read_dir(directory)
        .map_err(named)?
        .collect::<Result<_, _>>()
        .map_err(named)?;
    entries.sort_by_key(DirEntry::file_name);
    let rules = CompressRules::default();
    for entry in entries {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with('.') && name != ".well-known" {
            continue;
        }
        let kind = entry.file_type().map_err(named)?;
        if kind.is_dir() {
            walk(&entry.path(), files)?;
        } else if kind.is_file() {
            let length = entry.metadata().map_err(named)?.len();
            if rules.may_compress(media_type(&name).as_bytes(), length) {
                files.push(entry.path());
            }
        }
    }
    Ok(())
}

/// Writes one compressed file, unless it is there and newer than its file, or would not be shorter by a tenth.
fn sibling(file: &Path, coding: Coding, done: &Done) -> io::Result<()> {
    let mut path = file.as_os_str().to_owned();
    path.push(ending(coding));
    let path = PathBuf::from(path);
    let meta = fs::metadata(file)?;
    let modified = meta.modified()?;
    let is_current = |meta: fs::Metadata| meta.modified().is_ok_and(|at| at >= modified);
    if fs::metadata(&path).is_ok_and(is_current) {
        done.current.fetch_add(1, Ordering::Relaxed);
        return Ok(());
    }
    let content = fs::read(file)?;
    let made = compress(&content, coding, Level::Best)?;
    if made.len() >= content.len() - content.len() / 10 {
        done.not_shorter.fetch_add(1, Ordering::Relaxed);
        return Ok(());
    }
    write(&path, &made, &meta, modified)?;
    done.written.fetch_add(1, Ordering::Relaxed);
    done.before
        .fetch_add(content.len() as u64, Ordering::Relaxed);
    done.after.fetch_add(made.len() as u64, Ordering::Relaxed);
    Ok(())
}

/// Writes a file that is whole or not there, with the mode of what it stands for, and no older.
fn write(path: &Path, content: &[u8], like: &fs::Metadata, modified: SystemTime) -> io::Result<()> {
    let directory = path.parent().unwrap_or_else(|| Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(content)?;
    file.as_file().set_permissions(like.permissions())?;
    let opened: &File = file.as_file();
    opened.set_modified(modified.max(clock::now()))?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}
