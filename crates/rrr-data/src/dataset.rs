//! Labelled image files.

use std::path::{Path, PathBuf};

use crate::error::{DataError, Result};
use crate::source::{display_name, find_images, relative_id};

/// One labelled image file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Where the image is.
    pub path: PathBuf,
    /// Its name within the dataset: the path below the root with `/` separators, the same on every machine.
    pub id: String,
    /// Index into [`Dataset::classes`].
    pub label: u32,
}

/// Labelled image files that share one class map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataset {
    /// The dataset's name (folder or file name).
    pub name: String,
    /// The folder or table it was opened from.
    pub root: PathBuf,
    /// Class names by label.
    pub classes: Vec<String>,
    /// The images.
    pub samples: Vec<Sample>,
}

impl Dataset {
    /// All images below a folder whose labels nobody needs: each gets that of the first of `classes`. With the notes of
    /// [`find_images`].
    ///
    /// # Errors
    /// [`DataError::NotAFolder`], and those of [`find_images`].
    pub fn unlabelled(folder: &Path, classes: Vec<String>) -> Result<(Self, Vec<String>)> {
        if !folder.is_dir() {
            return Err(DataError::NotAFolder { path: folder.to_owned() });
        }
        let sample = |path: PathBuf| Sample { id: relative_id(folder, &path), path, label: 0 };
        let found = find_images(&[folder.to_owned()])?;
        let samples = found.images.into_iter().map(sample).collect();
        let dataset = Self { name: display_name(folder), root: folder.to_owned(), classes, samples };
        Ok((dataset, found.notes))
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether there are no images.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// Number of images of each class, by label.
    pub fn class_counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.classes.len()];
        for sample in &self.samples {
            counts[sample.label as usize] += 1;
        }
        counts
    }
}

/// The parts of a dataset. All share the class map of `train`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Splits {
    /// Images to learn from.
    pub train: Dataset,
    /// Images to choose settings with.
    pub valid: Option<Dataset>,
    /// Images to measure with.
    pub test: Option<Dataset>,
}
