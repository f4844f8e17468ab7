//! The sample dataset inside the binary: 20 classes of public-domain clip art in Meta-Album's layout.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::{DataError, Result};

/// `[name length u16][data length u32][name][data]` per file, little-endian, as `build.rs` packs them.
const ARCHIVE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/clp_micro.bin"));

/// The folder name of the sample.
pub const NAME: &str = "CLP_Micro";

/// Writes the sample below `dir` and returns its folder, `dir/CLP_Micro`. Files that are already there with
/// the right length are left alone, so that calling it again is cheap and repairs what is missing.
///
/// # Errors
/// [`DataError::Io`] with the file that could not be written.
pub fn write_clp(dir: &Path) -> Result<PathBuf> {
    let root = dir.join(NAME);
    let images = root.join("images");
    fs::create_dir_all(&images).map_err(|e| DataError::Io { path: images.clone(), source: e })?;
    for (name, data) in files() {
        let path = root.join(name);
        if fs::metadata(&path).is_ok_and(|m| m.len() == data.len() as u64) {
            continue;
        }
        write_atomically(&path, data).map_err(|source| DataError::Io { path, source })?;
    }
    Ok(root)
}

/// A partly written file never carries the final name.
fn write_atomically(path: &Path, data: &[u8]) -> std::io::Result<()> {
    let temporary = path.with_extension(format!("{}.part", std::process::id()));
    let write = || {
        let mut file = fs::File::create(&temporary)?;
        file.write_all(data)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().inspect_err(|_| {
        let _ = fs::remove_file(&temporary);
    })
}

/// The files of the sample by path below its folder.
fn files() -> impl Iterator<Item = (&'static str, &'static [u8])> {
    let mut rest = ARCHIVE;
    std::iter::from_fn(move || {
        let (&[n0, n1, d0, d1, d2, d3], tail) = rest.split_first_chunk::<6>()?;
        let (name, tail) = tail.split_at(usize::from(u16::from_le_bytes([n0, n1])));
        let (data, tail) = tail.split_at(u32::from_le_bytes([d0, d1, d2, d3]) as usize);
        rest = tail;
        Some((std::str::from_utf8(name).expect("the build script packs UTF-8 names"), data))
    })
}
