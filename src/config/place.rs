//! Places in the configuration's files, and which parts may be shown.

/// A place in the configuration's files.
///
/// The default, with line 0, stands for the main file as a whole.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Place {
    /// The file, in the order in which the files were read; 0 is the main file.
    pub(crate) file: u16,
    /// The line, from 1; 0 where there is none.
    pub(crate) line: u32,
    /// The column in characters, from 1.
    pub(crate) column: u32,
    /// How many characters the caret marks on that line.
    pub(crate) length: u32,
}

impl Place {
    /// A file as a whole.
    pub(crate) fn of_file(file: u16) -> Self {
        Self {
            file,
            ..Self::default()
        }
    }
}

/// A part of a file that messages must not show.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stretch {
    /// The first character: line from 1, column from 0.
    pub(crate) from: (usize, usize),
    /// The first character after it.
    pub(crate) to: (usize, usize),
}

/// The line of an error in displayable form, and the position of the caret.
#[derive(Clone, Debug)]
pub(super) struct Excerpt {
    /// The line, without secrets and control characters.
    pub(super) line: String,
    /// The number of characters before the caret.
    pub(super) before: usize,
    /// The number of carets.
    pub(super) carets: usize,
}
