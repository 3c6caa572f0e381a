//! Folders whose files an app may name in its response instead of sending them: `X-Accel-Redirect` and `X-Sendfile`. What
//! becomes of the app's response is decided in `gateway/accel`.

use std::path::{Component, Path, PathBuf};

use super::{Files, is_hidden};

/// The folders of one route.
#[derive(Debug)]
pub(crate) struct AccelFolders(Vec<AccelFolder>);

/// One of them.
#[derive(Debug)]
pub(crate) struct AccelFolder {
    /// The beginning of the paths that name its files, with a slash at both ends.
    pub(crate) prefix: String,
    /// The paths of the folder in the file system, as the configuration has it and without links.
    pub(crate) paths: Vec<PathBuf>,
    /// Its files.
    pub(crate) files: Files,
}

impl AccelFolders {
    /// These folders.
    pub(crate) fn new(mut folders: Vec<AccelFolder>) -> Self {
        // The longest prefix that fits counts.
        folders.sort_by_key(|folder| std::cmp::Reverse(folder.prefix.len()));
        Self(folders)
    }

    /// The file that a value of `X-Accel-Redirect` names: its folder, and its name there. `None` if it names none.
    ///
    /// The path is decoded once, as nginx does; a query means nothing to a file.
    pub(crate) fn of_redirect(&self, value: &[u8]) -> Option<(&Files, String)> {
        let path = value.split(|byte| *byte == b'?').next()?;
        let path = decoded(path)?;
        let mut folders = self.0.iter();
        let (files, name) = folders.find_map(|folder| {
            let name = path.strip_prefix(folder.prefix.as_str())?;
            Some((&folder.files, name))
        })?;
        Some((files, is_name(name).then(|| name.to_owned())?))
    }

    /// The same for a value of `X-Sendfile`: an absolute path that lies in one of the folders. Nothing in it is decoded.
    pub(crate) fn of_sendfile(&self, value: &[u8]) -> Option<(&Files, String)> {
        let path = Path::new(std::str::from_utf8(value).ok()?);
        let found = self.0.iter().flat_map(|folder| {
            let below = folder.paths.iter();
            below.filter_map(|own| Some((own, &folder.files, path.strip_prefix(own).ok()?)))
        });
        let (_, files, below) = found.max_by_key(|(own, ..)| own.as_os_str().len())?;
        let is_plain = |part: Component<'_>| matches!(part, Component::Normal(_));
        let name = below
            .to_str()
            .filter(|_| below.components().all(is_plain))?;
        Some((files, is_name(name).then(|| name.to_owned())?))
    }

    /// The folders, for messages.
    pub(crate) fn in_words(&self) -> String {
        let folders = self.0.iter().map(|folder| {
            let path = folder.paths.first().map(|path| path.display());
            let path = path.map_or_else(String::new, |path| path.to_string());
            format!("{} is {path}", folder.prefix)
        });
        folders.collect::<Vec<_>>().join(", ")
    }
}

/// A path without its escapes; `None` where one is malformed, or it is not UTF-8.
fn decoded(path: &[u8]) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.iter();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || char::from(*rest.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            byte => *byte,
        });
    }
    String::from_utf8(bytes).ok()
}

/// Whether a name has no part that leads elsewhere, or that is hidden.
fn is_name(name: &str) -> bool {
    !name.contains('\0')
        && name
            .split('/')
            .all(|part| !part.is_empty() && part != "." && part != ".." && !is_hidden(part))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::{DescribeRules, FilesSettings, RootSettings};
    use super::*;

    fn folders(directory: &Path) -> AccelFolders {
        let folder = |prefix: &str, name: &str| {
            let path = directory.join(name);
            fs::create_dir_all(&path).unwrap();
            let files = Files::open(FilesSettings {
                roots: vec![RootSettings {
                    path: path.clone(),
                    folder: None,
                }],
                index: vec![],
                fallback: None,
                precompressed: vec![],
                describe: DescribeRules::default(),
                listing: false,
                compression: None,
                workers: 1,
            });
            AccelFolder {
                prefix: prefix.to_owned(),
                paths: vec![path],
                files: files.unwrap(),
            }
        };
        AccelFolders::new(vec![
            folder("/", "all"),
            folder("/media/", "media"),
            folder("/media/own/", "media/own"),
        ])
    }

    /// The folder's index in the order of the prefixes, longest first, and the name.
    fn found(folders: &AccelFolders, found: Option<(&Files, String)>) -> Option<(usize, String)> {
        let (files, name) = found?;
        let mut all = folders.0.iter();
        let at = all.position(|folder| std::ptr::eq(&raw const folder.files, files));
        Some((at.unwrap(), name))
    }

    #[test]
    fn a_redirect_is_decoded_once_and_the_longest_prefix_counts() {
        let directory = tempfile::tempdir().unwrap();
        let folders = folders(directory.path());
        for (value, expected) in [
            ("/media/a.pdf", Some((1, "a.pdf"))),
            ("/media/own/a.pdf", Some((0, "a.pdf"))),
            ("/other/a.pdf", Some((2, "other/a.pdf"))),
            ("/media/a%20b.pdf", Some((1, "a b.pdf"))),
            ("/media/a b.pdf", Some((1, "a b.pdf"))),
            ("/media/100%25.pdf", Some((1, "100%.pdf"))),
            ("/media/%2525.pdf", Some((1, "%25.pdf"))),
            ("/media/a%3Fb.pdf", Some((1, "a?b.pdf"))),
            ("/media/a.pdf?x=/../y", Some((1, "a.pdf"))),
            ("/media/%D1%84.pdf", Some((1, "\u{444}.pdf"))),
            ("/media/\u{444}.pdf", Some((1, "\u{444}.pdf"))),
            ("/media/sub%2Fa.pdf", Some((1, "sub/a.pdf"))),
            ("/media/..%2Fa.pdf", None),
            ("/media/../a.pdf", None),
            ("/media/%2E%2E/a.pdf", None),
            ("/media//a.pdf", None),
            ("/media/", None),
            ("/media/.env", None),
            ("/media/%00", None),
            ("/media/%FF.pdf", None),
            ("/media/100%.pdf", None),
            ("/media/a%4", None),
            ("media/a.pdf", None),
            ("http://a.example/media/a.pdf", None),
            ("@fallback", None),
            ("", None),
        ] {
            let named = found(&folders, folders.of_redirect(value.as_bytes()));
            let expected = expected.map(|(at, name)| (at, name.to_owned()));
            assert_eq!(named, expected, "{value}");
        }
    }

    #[test]
    fn a_path_lies_in_a_folder_or_names_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let folders = folders(directory.path());
        for (value, expected) in [
            ("media/a.pdf", Some((1, "a.pdf"))),
            ("media/own/a.pdf", Some((0, "a.pdf"))),
            ("all/sub/a b.pdf", Some((2, "sub/a b.pdf"))),
            ("media/100%25.pdf", Some((1, "100%25.pdf"))),
            ("media/a?b.pdf", Some((1, "a?b.pdf"))),
            ("media", None),
            ("media/", None),
            ("media/../secret", None),
            ("media/own/../../secret", None),
            ("mediation/a.pdf", None),
            ("media/.env", None),
            ("secret", None),
        ] {
            let path = format!("{}/{value}", directory.path().display());
            let named = found(&folders, folders.of_sendfile(path.as_bytes()));
            let expected = expected.map(|(at, name)| (at, name.to_owned()));
            assert_eq!(named, expected, "{value}");
        }
        assert!(folders.of_sendfile(b"media/a.pdf").is_none());
        assert!(folders.of_sendfile(b"/etc/passwd").is_none());
        assert!(folders.of_sendfile(b"\xff").is_none());
    }
}
