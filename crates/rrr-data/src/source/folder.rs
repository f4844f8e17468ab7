//! Folders of class folders.

use std::fs;
use std::path::{Path, PathBuf};

use super::walk::{Found, LeftOut, Why, canonical, entries};
use super::{ClassMap, OpenOptions, Source, SourceKind, display_name, relative_id};
use crate::dataset::Sample;
use crate::error::{DataError, Result};

/// The part that a folder name stands for.
fn part_of(name: &str) -> Option<usize> {
    match name.to_ascii_lowercase().as_str() {
        "train" => Some(0),
        "val" | "valid" | "validation" => Some(1),
        "test" => Some(2),
        _ => None,
    }
}

const PARTS: [&str; 3] = ["train", "validation", "test"];

/// The images of one part by class.
struct Part {
    dir: PathBuf,
    classes: Vec<(String, Vec<PathBuf>)>,
    ignored: usize,
    left_out: LeftOut,
}

pub(super) fn open(root: &Path, options: &OpenOptions) -> Result<Source> {
    let (folders, files): (Vec<PathBuf>, Vec<PathBuf>) = entries(root)?.into_iter().partition(|p| p.is_dir());
    let parts: Vec<Option<usize>> = folders.iter().map(|p| part_of(&file_name(p))).collect();
    // A class may be called "test": only a train/ folder, or nothing but parts, makes them parts.
    let has_parts = parts.contains(&Some(0)) || (!parts.is_empty() && parts.iter().all(Option::is_some));
    let mut notes = Vec::new();
    let mut left_out = LeftOut::default();
    let mut read: [Option<Part>; 3] = [None, None, None];
    if has_parts {
        left_out.merge(beside_folders(files)?.left_out);
        for (dir, part) in folders.iter().zip(&parts) {
            let Some(part) = *part else {
                notes.push(format!("folder '{}' beside train/ was passed over", dir.display()));
                continue;
            };
            if let Some(other) = &read[part] {
                let first = other.dir.clone();
                return Err(DataError::AmbiguousSplit { first, second: dir.clone(), part: PARTS[part] });
            }
            read[part] = Some(read_part(dir, options.classes.is_none() && part == 0)?);
        }
    } else {
        read[0] = Some(read_part(root, options.classes.is_none())?);
    }
    let names = match (&options.classes, &read[0]) {
        (Some(names), _) => names.clone(),
        (None, Some(part)) => part.classes.iter().map(|(name, _)| name.clone()).collect(),
        (None, None) => {
            let mut names: Vec<String> =
                read.iter().flatten().flat_map(|p| p.classes.iter().map(|(name, _)| name.clone())).collect();
            names.sort();
            names.dedup();
            names
        }
    };
    let ignored = read.iter().flatten().map(|p| p.ignored).sum();
    for part in read.iter_mut().flatten() {
        left_out.merge(std::mem::take(&mut part.left_out));
    }
    notes.extend(left_out.notes(|path| relative_id(root, path)));
    let [train, valid, test] = read.map(|part| part.map(|part| label(root, part, &names)).transpose());
    let (train, valid, test) = (train?.unwrap_or_default(), valid?, test?);
    if train.is_empty() && valid.is_none() && test.is_none() {
        return Err(DataError::NoImages { path: root.to_owned(), ignored });
    }
    Ok(Source {
        kind: SourceKind::Folder,
        name: display_name(root),
        root: root.to_owned(),
        classes: names,
        train,
        valid,
        test,
        ignored,
        notes,
    })
}

/// What lies beside class folders; images are left out there.
fn beside_folders(files: Vec<PathBuf>) -> Result<Found> {
    let mut found = Found::default();
    for path in files {
        let meta = fs::metadata(&path);
        found.file(path, meta)?;
    }
    found.images.iter().for_each(|path| found.left_out.add(Why::NoClass, path));
    Ok(found)
}

fn read_part(dir: &Path, all_filled: bool) -> Result<Part> {
    let (folders, files): (Vec<PathBuf>, Vec<PathBuf>) = entries(dir)?.into_iter().partition(|p| p.is_dir());
    let beside = beside_folders(files)?;
    let (loose, ignored, left_out) = (beside.images.len(), beside.ignored, beside.left_out);
    let mut part = Part { dir: dir.to_owned(), classes: Vec::new(), ignored, left_out };
    let mut first_empty = None;
    let mut above = vec![canonical(dir)?];
    for path in folders {
        let mut found = Found::default();
        let entered = found.walk(&path, &mut above)?;
        part.left_out.merge(found.left_out);
        part.ignored += found.ignored;
        if !found.images.is_empty() {
            part.classes.push((file_name(&path), found.images));
        } else if entered {
            first_empty.get_or_insert((path, found.ignored));
        }
    }
    // Beside class folders, a stray picture is as likely a mistake as an image without a class.
    if loose > 0 && part.classes.is_empty() {
        return Err(DataError::LooseImages { path: dir.to_owned(), count: loose });
    }
    part.ignored += loose;
    if part.classes.is_empty() && (first_empty.is_none() || !all_filled) {
        return Err(DataError::NoImages { path: dir.to_owned(), ignored: part.ignored });
    }
    match first_empty {
        Some((path, ignored)) if all_filled => Err(DataError::EmptyClass { path, ignored }),
        _ => Ok(part),
    }
}

fn label(root: &Path, part: Part, names: &[String]) -> Result<Vec<Sample>> {
    let map = ClassMap::new(&part.dir, names.to_vec());
    let mut samples = Vec::new();
    for (class, images) in part.classes {
        let label = map.label(&class)?;
        samples.extend(images.into_iter().map(|path| Sample { id: relative_id(root, &path), path, label }));
    }
    Ok(samples)
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
}
