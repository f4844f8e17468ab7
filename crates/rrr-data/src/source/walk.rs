//! Which files of a folder are images, and what becomes of the others.

use std::collections::HashSet;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{DataError, Result};

/// File name extensions of supported images, lower case. Content decides the format, not the extension.
pub const EXTENSIONS: [&str; 6] = ["jpg", "jpeg", "png", "webp", "gif", "bmp"];

/// Those of images that are not read.
const OTHER_EXTENSIONS: [&str; 23] = [
    "tif", "tiff", "ppm", "pgm", "pbm", "pnm", "avif", "heic", "heif", "jp2", "j2k", "jxl", "svg", "raw",
    "cr2", "nef", "dng", "tga", "ico", "exr", "hdr", "dds", "psd",
];

/// Whether a file name has one of the supported [`EXTENSIONS`], in any case.
pub fn is_image_name(path: &Path) -> bool {
    has_extension(path, &EXTENSIONS)
}

fn has_extension(path: &Path, known: &[&str]) -> bool {
    let extension = path.extension().and_then(|e| e.to_str());
    extension.is_some_and(|e| known.iter().any(|known| known.eq_ignore_ascii_case(e)))
}

/// Image files, and what else there was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundImages {
    /// The image files.
    pub images: Vec<PathBuf>,
    /// What a user may want to know: images of other formats that were left out. One sentence each.
    pub notes: Vec<String>,
}

/// Expands files and folders (searched with their subfolders) to image files, each folder's in byte order of
/// their paths. Files named explicitly are kept whatever their extension.
///
/// # Errors
/// [`DataError::ImageNotFound`], [`DataError::Io`], or [`DataError::NoImages`] for a folder without any.
pub fn find_images(paths: &[PathBuf]) -> Result<FoundImages> {
    let mut found = FoundImages::default();
    for path in paths {
        let meta = fs::metadata(path).map_err(|e| match DataError::io(path, e) {
            DataError::PathNotFound { path } => DataError::ImageNotFound { path },
            e => e,
        })?;
        if !meta.is_dir() {
            found.images.push(path.clone());
            continue;
        }
        let mut inside = Found::default();
        inside.walk(path, &mut Vec::new())?;
        if inside.images.is_empty() {
            return Err(DataError::NoImages { path: path.clone(), ignored: inside.ignored });
        }
        inside.images.sort();
        found.images.append(&mut inside.images);
        found.notes.extend(inside.left_out.notes(|path| path.display().to_string()));
    }
    Ok(found)
}

/// Why a file or folder is left out that may have been meant as images.
#[derive(Clone, Copy)]
pub(super) enum Why {
    OtherFormat,
    NotRegular,
    NoClass,
    DeadLink,
    ReadAlready,
}

const REASONS: [Why; 5] = [Why::OtherFormat, Why::NotRegular, Why::NoClass, Why::DeadLink, Why::ReadAlready];

impl Why {
    fn sentence(self, n: usize) -> String {
        let one = n == 1;
        let (s, are) = if one { ("", "is") } else { ("s", "are") };
        let what = match self {
            Self::OtherFormat => format!("file{s} that {are} not JPEG, PNG, WebP, GIF or BMP"),
            Self::NotRegular if one => "file that is not a regular file".into(),
            Self::NotRegular => "files that are not regular files".into(),
            Self::NoClass => format!("image{s} beside the class folders"),
            Self::DeadLink if one => "link that leads nowhere".into(),
            Self::DeadLink => "links that lead nowhere".into(),
            Self::ReadAlready if one => "link to a folder that contains it or is read already".into(),
            Self::ReadAlready => "links to folders that contain them or are read already".into(),
        };
        format!("left out {n} {what}")
    }
}

/// How many things were left out for each of [`REASONS`], and the first of them.
#[derive(Default)]
pub(super) struct LeftOut([(usize, Option<PathBuf>); REASONS.len()]);

impl LeftOut {
    pub fn add(&mut self, why: Why, path: &Path) {
        let (count, first) = &mut self.0[why as usize];
        *count += 1;
        first.get_or_insert_with(|| path.to_owned());
    }

    pub fn merge(&mut self, other: Self) {
        for ((count, first), (more, path)) in self.0.iter_mut().zip(other.0) {
            *count += more;
            *first = first.take().or(path);
        }
    }

    /// One sentence for each reason that occurred.
    pub fn notes(&self, name: impl Fn(&Path) -> String) -> Vec<String> {
        let occurred =
            REASONS.iter().zip(&self.0).filter_map(|(why, (n, first))| Some((why, *n, first.as_ref()?)));
        occurred
            .map(|(why, n, first)| {
                let such_as = if n == 1 { ": " } else { ", such as " };
                format!("{}{such_as}{}", why.sentence(n), name(first))
            })
            .collect()
    }
}

/// Image files below a folder.
#[derive(Default)]
pub(super) struct Found {
    pub images: Vec<PathBuf>,
    /// Files without the name of an image.
    pub ignored: usize,
    pub left_out: LeftOut,
    folders: HashSet<PathBuf>,
}

impl Found {
    /// Adds what is below `dir`, which lies in the folders `above`. Symbolic links are followed, but not to a folder that
    /// contains one of these, nor to one that was read before. Says whether `dir` was entered.
    pub fn walk(&mut self, dir: &Path, above: &mut Vec<PathBuf>) -> Result<bool> {
        let real = canonical(dir)?;
        if above.iter().any(|folder| folder.starts_with(&real)) || !self.folders.insert(real.clone()) {
            self.left_out.add(Why::ReadAlready, dir);
            return Ok(false);
        }
        above.push(real);
        for path in entries(dir)? {
            let meta = fs::metadata(&path);
            if meta.as_ref().is_ok_and(Metadata::is_dir) {
                self.walk(&path, above)?;
            } else {
                self.file(path, meta)?;
            }
        }
        above.pop();
        Ok(true)
    }

    /// Adds a path that is no folder.
    pub fn file(&mut self, path: PathBuf, meta: io::Result<Metadata>) -> Result<()> {
        match meta {
            Ok(meta) if is_image_name(&path) => {
                if meta.is_file() {
                    self.images.push(path);
                } else {
                    self.left_out.add(Why::NotRegular, &path);
                }
            }
            // Who decodes it says what is wrong with it, or skips it.
            Err(_) if is_image_name(&path) => self.images.push(path),
            Ok(_) => {
                self.ignored += 1;
                if has_extension(&path, &OTHER_EXTENSIONS) {
                    self.left_out.add(Why::OtherFormat, &path);
                }
            }
            Err(_) if path.is_symlink() => self.left_out.add(Why::DeadLink, &path),
            Err(e) => return Err(DataError::io(&path, e)),
        }
        Ok(())
    }
}

/// A folder's one name, whatever links lead to it.
pub(super) fn canonical(dir: &Path) -> Result<PathBuf> {
    fs::canonicalize(dir).map_err(|e| DataError::io(dir, e))
}

/// Entries of a folder by name, without hidden ones and archivers' leftovers.
pub(super) fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).map_err(|e| DataError::io(dir, e))? {
        let entry = entry.map_err(|e| DataError::io(dir, e))?;
        let name = entry.file_name();
        if !name.as_encoded_bytes().starts_with(b".") && name != "__MACOSX" {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}
