//! What can go wrong with data, one variant per cause.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Shorthand for results of this crate.
pub type Result<T, E = DataError> = std::result::Result<T, E>;

/// An image file that could not be turned into pixels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadImage {
    /// The file.
    pub path: PathBuf,
    /// Why, in one clause ("the jpeg data ends early (truncated file)").
    pub reason: String,
}

impl fmt::Display for BadImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.reason)
    }
}

/// Everything that opening, splitting, decoding and loading a dataset can fail with.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The given path does not exist.
    #[error(
        "'{}' does not exist; give a folder of class folders, a Meta-Album folder or a .csv/.tsv file",
        path.display()
    )]
    PathNotFound {
        /// The path as given.
        path: PathBuf,
    },

    /// A given image or folder of images does not exist.
    #[error("'{}' does not exist; give image files or folders of images", path.display())]
    ImageNotFound {
        /// The path as given.
        path: PathBuf,
    },

    /// A file that is neither a folder nor a table.
    #[error(
        "'{}' is neither a folder nor a .csv/.tsv file of image paths and labels",
        path.display()
    )]
    NotADataset {
        /// The file.
        path: PathBuf,
    },

    /// Something else where a folder of images is needed.
    #[error("'{}' is no folder; give a folder of images, which need no labels", path.display())]
    NotAFolder {
        /// The path as given.
        path: PathBuf,
    },

    /// The operating system refused a read or write.
    #[error("cannot access '{}': {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },

    /// Nothing to train on.
    #[error(
        "'{}' holds no images ({ignored} other files ignored); expected files named *.jpg, *.jpeg, *.png, *.webp, \
         *.gif or *.bmp, as CLASS/IMAGE where labels are needed",
        path.display()
    )]
    NoImages {
        /// The folder.
        path: PathBuf,
        /// Files with other extensions.
        ignored: usize,
    },

    /// Images beside, not inside, class folders.
    #[error(
        "'{}' holds {count} images but no class folders; move the images of each class into a folder named \
         after the class",
        path.display()
    )]
    LooseImages {
        /// The folder.
        path: PathBuf,
        /// Images directly in it.
        count: usize,
    },

    /// A class folder without images.
    #[error(
        "class folder '{}' holds no images ({ignored} other files ignored); add JPEG, PNG, WebP, GIF or \
         BMP images to it or remove it",
        path.display()
    )]
    EmptyClass {
        /// The class folder.
        path: PathBuf,
        /// Files with other extensions in it.
        ignored: usize,
    },

    /// Classification needs at least two classes.
    #[error("'{}' holds only one class, '{class}'; at least two are needed", path.display())]
    OneClass {
        /// The dataset.
        path: PathBuf,
        /// Its class.
        class: String,
    },

    /// A part of a dataset names a class that the training part (or the model) does not know.
    #[error(
        "'{}' has a class '{class}' that is not among the {known} known classes; rename or remove it",
        path.display()
    )]
    UnknownClass {
        /// The folder or table with the class.
        path: PathBuf,
        /// The class.
        class: String,
        /// Number of known classes.
        known: usize,
    },

    /// A folder with `test/` or `val/` but no `train/` where training images are needed.
    #[error("'{}' has no train/ folder beside its {present} folder; nothing to train on", path.display())]
    NoTrainFolder {
        /// The dataset folder.
        path: PathBuf,
        /// The parts that are there.
        present: String,
    },

    /// Two folders mean the same part, such as `val/` and `valid/`.
    #[error("'{}' and '{}' both mean the {part} split; keep one", first.display(), second.display())]
    AmbiguousSplit {
        /// One folder.
        first: PathBuf,
        /// The other.
        second: PathBuf,
        /// The part's name.
        part: &'static str,
    },

    /// A class cannot give each part of the split its share.
    #[error(
        "class '{class}' has {available} image{} but the split needs {needed}; add images, remove the class or \
         ask for fewer per class",
        if *available == 1 { "" } else { "s" }
    )]
    TooFewImages {
        /// The class.
        class: String,
        /// Images it has.
        available: usize,
        /// Images that the split takes at the least.
        needed: usize,
    },

    /// A split specification that makes no sense by itself.
    #[error("invalid split: {reason}")]
    InvalidSplit {
        /// What is wrong with it.
        reason: String,
    },

    /// `info.json` cannot be read as Meta-Album describes it.
    #[error("'{}' is not a valid Meta-Album info.json: {reason}", path.display())]
    InvalidInfo {
        /// The file.
        path: PathBuf,
        /// The parser's message.
        reason: String,
    },

    /// The labels table lacks a column.
    #[error("'{}' has no column '{column}'; its columns are {}", path.display(), present.join(", "))]
    MissingColumn {
        /// The table.
        path: PathBuf,
        /// The column that was looked for.
        column: String,
        /// The columns that are there.
        present: Vec<String>,
    },

    /// A table without rows, but for a header.
    #[error("'{}' has no rows; give an image path and a label on each line", path.display())]
    NoRows {
        /// The table.
        path: PathBuf,
    },

    /// A row of a table cannot be used.
    #[error("'{}' line {line}: {reason}", path.display())]
    InvalidRow {
        /// The table.
        path: PathBuf,
        /// Line number, from 1.
        line: u64,
        /// What is wrong.
        reason: String,
    },

    /// A table names image files that do not exist.
    #[error(
        "'{}' line {line} names '{image}', which does not exist ({missing} of its {total} images are missing); \
         correct the paths, or leave these images out with --skip-bad",
        path.display()
    )]
    MissingImages {
        /// The table.
        path: PathBuf,
        /// Line of the first one, from 1.
        line: u64,
        /// The first one as written in the table.
        image: String,
        /// How many are missing in all.
        missing: usize,
        /// How many images the table names.
        total: usize,
    },

    /// A table names one image twice.
    #[error(
        "'{}' line {line} names '{image}' again (first on line {first_line}); keep one of the two",
        path.display()
    )]
    DuplicateImage {
        /// The table.
        path: PathBuf,
        /// The image as written.
        image: String,
        /// Line of the second mention, from 1.
        line: u64,
        /// Line of the first mention.
        first_line: u64,
    },

    /// Images that cannot be decoded, where none may be skipped.
    #[error("{}", unreadable(images))]
    Unreadable {
        /// The images and why each is unreadable, in dataset order.
        images: Vec<BadImage>,
    },

    /// Skipping unreadable images left a class of the dataset empty.
    #[error("class '{class}' has no readable image left after skipping {skipped} unreadable ones")]
    ClassUnreadable {
        /// The class.
        class: String,
        /// Unreadable images of the class.
        skipped: usize,
    },

    /// A thread could not be started.
    #[error("cannot start worker threads: {reason}")]
    Threads {
        /// The system's message.
        reason: String,
    },
}

/// One line for the first unreadable images, however many there are.
fn unreadable(images: &[BadImage]) -> String {
    const SHOWN: usize = 5;
    let list: Vec<String> = images.iter().take(SHOWN).map(ToString::to_string).collect();
    let more = match images.len().saturating_sub(SHOWN) {
        0 => String::new(),
        n => format!("; and {n} more"),
    };
    let noun = if images.len() == 1 { "image is" } else { "images are" };
    format!(
        "{} {noun} unreadable: {}{more}; repair or remove them, or leave them out with --skip-bad",
        images.len(),
        list.join("; ")
    )
}

impl DataError {
    pub(crate) fn io(path: impl Into<PathBuf>, source: io::Error) -> Self {
        let path = path.into();
        if source.kind() == io::ErrorKind::NotFound {
            Self::PathNotFound { path }
        } else {
            Self::Io { path, source }
        }
    }
}
