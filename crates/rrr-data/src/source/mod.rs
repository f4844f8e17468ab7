//! Where labelled images come from: class folders, Meta-Album folders, tables.

mod folder;
mod meta_album;
mod table;
mod walk;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::dataset::{Dataset, Sample, Splits};
use crate::error::{DataError, Result};
use crate::split::{self, SplitSpec};

pub use walk::{EXTENSIONS, FoundImages, find_images, is_image_name};

/// What a [`Source`] was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// `CLASS/**/IMAGE`, perhaps inside `train/`, `val/` (or `valid/`, `validation/`) and `test/`.
    /// Classes are numbered in the byte order of their names.
    Folder,
    /// `labels.csv`, `info.json` and `images/`. Classes are numbered in order of first appearance.
    MetaAlbum,
    /// A CSV or TSV file of image paths (relative to the file) and labels. Classes are numbered in the byte
    /// order of their names, or by value if all are whole numbers.
    Table,
}

/// How to read a source.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// Class names by label to use instead of the source's own: those of a trained model. Classes without
    /// images are then fine, unknown ones are an error.
    pub classes: Option<Vec<String>>,
    /// Column of image paths in a table or `labels.csv`, instead of the default.
    pub image_column: Option<String>,
    /// Column of labels in a table or `labels.csv`, instead of the default.
    pub label_column: Option<String>,
    /// Keep images that a table names but that do not exist: they are unreadable like others, which whoever decodes
    /// them with [`skip_bad`](crate::StoreOptions::skip_bad) leaves out. Otherwise they are an error.
    pub skip_bad: bool,
}

/// Labelled images as found, before any seeded split.
#[derive(Clone, Debug)]
pub struct Source {
    /// What it was read from.
    pub kind: SourceKind,
    /// The folder's or file's name.
    pub name: String,
    /// The folder or file.
    pub root: PathBuf,
    /// Class names by label, the same for every part.
    pub classes: Vec<String>,
    /// Images of `train/`, or all of them where the source has no parts.
    pub train: Vec<Sample>,
    /// Images of `val/`, if there is one.
    pub valid: Option<Vec<Sample>>,
    /// Images of `test/`, if there is one.
    pub test: Option<Vec<Sample>>,
    /// Files that are not supported images and were passed over.
    pub ignored: usize,
    /// What a user may want to know: folders passed over, images of other formats left out, defaults assumed. One
    /// sentence each.
    pub notes: Vec<String>,
}

impl Source {
    /// Lists the images of a dataset: a folder of class folders, a Meta-Album folder or a CSV/TSV file.
    ///
    /// # Errors
    /// One [`DataError`] variant per cause: see there. Images are listed, not decoded.
    pub fn open(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Self> {
        let path = path.as_ref();
        let meta = fs::metadata(path).map_err(|e| DataError::io(path, e))?;
        let source = if meta.is_dir() {
            if path.join("labels.csv").is_file() {
                meta_album::open(path, options)?
            } else {
                folder::open(path, options)?
            }
        } else if table::delimiter(path).is_some() {
            table::open(path, options)?
        } else {
            return Err(DataError::NotADataset { path: path.to_owned() });
        };
        if options.classes.is_none() && source.classes.len() < 2 {
            let class = source.classes.into_iter().next().unwrap_or_default();
            return Err(DataError::OneClass { path: path.to_owned(), class });
        }
        Ok(source)
    }

    /// Divides the images into train, validation and test as [`SplitSpec`] describes.
    ///
    /// # Errors
    /// [`DataError::InvalidSplit`], [`DataError::TooFewImages`], or [`DataError::NoTrainFolder`] where there is
    /// only a `test/` or `val/` folder.
    pub fn split(&self, spec: &SplitSpec, seed: u64) -> Result<Splits> {
        if self.train.is_empty() {
            let present = if self.test.is_some() { "test/" } else { "val/" }.to_owned();
            return Err(DataError::NoTrainFolder { path: self.root.clone(), present });
        }
        split::split(self, spec, seed)
    }

    /// The images to evaluate a trained model on when no split is asked for: those of `test/` if there is one,
    /// else of `val/`, else all.
    pub fn evaluation(&self) -> Dataset {
        self.dataset(self.test.as_ref().or(self.valid.as_ref()).unwrap_or(&self.train).clone())
    }

    /// All images, whatever part they are in.
    pub fn everything(&self) -> Dataset {
        let parts = [Some(&self.train), self.valid.as_ref(), self.test.as_ref()];
        self.dataset(parts.into_iter().flatten().flatten().cloned().collect())
    }

    pub(crate) fn dataset(&self, samples: Vec<Sample>) -> Dataset {
        Dataset { name: self.name.clone(), root: self.root.clone(), classes: self.classes.clone(), samples }
    }
}

/// `path` below `root` with `/` separators.
pub(crate) fn relative_id(root: &Path, path: &Path) -> String {
    let relative = path.strip_prefix(root).unwrap_or(path);
    let parts: Vec<_> = relative.components().map(|c| c.as_os_str().to_string_lossy()).collect();
    parts.join("/")
}

/// The last component of a path as text, also of `.` and `..`.
pub(crate) fn display_name(path: &Path) -> String {
    let resolved = fs::canonicalize(path);
    let path = resolved.as_deref().unwrap_or(path);
    path.file_name().map_or_else(|| "dataset".into(), |n| n.to_string_lossy().into_owned())
}

/// Class names and the label of each.
pub(crate) struct ClassMap<'a> {
    path: &'a Path,
    pub names: Vec<String>,
    labels: HashMap<String, u32>,
}

impl<'a> ClassMap<'a> {
    /// The classes of the dataset at `path`, in this order.
    pub fn new(path: &'a Path, names: Vec<String>) -> Self {
        let labels = names.iter().zip(0..).map(|(n, i)| (n.clone(), i)).collect();
        Self { path, names, labels }
    }

    /// The label of a class.
    pub fn label(&self, class: &str) -> Result<u32> {
        self.labels.get(class).copied().ok_or_else(|| DataError::UnknownClass {
            path: self.path.to_owned(),
            class: class.to_owned(),
            known: self.names.len(),
        })
    }
}
