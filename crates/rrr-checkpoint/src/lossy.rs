//! Paths in JSON: with replacement characters for what is no Unicode, rather than an error after all the work.

use serde::Serializer;
use std::path::{Path, PathBuf};

/// For `serialize_with` of a path.
///
/// # Errors
/// The serializer's.
pub fn path<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

/// For `serialize_with` of a path that may be absent.
///
/// # Errors
/// The serializer's.
pub fn option<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
    match path {
        Some(path) => serializer.collect_str(&path.display()),
        None => serializer.serialize_none(),
    }
}

/// For `serialize_with` of several paths.
///
/// # Errors
/// The serializer's.
pub fn all<S: Serializer>(paths: &[PathBuf], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(paths.iter().map(|path| path.to_string_lossy()))
}
