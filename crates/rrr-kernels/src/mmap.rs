//! A read-only memory-mapped file.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::Path;

/// The bytes of a file, mapped into memory and read on demand.
///
/// Nobody may shorten the file while it is mapped: on Unix a read behind the new end raises SIGBUS. Writers that
/// replace a file by renaming a new one over it are safe, since the mapping keeps the old file alive.
#[derive(Debug)]
pub struct MappedFile {
    // An empty file cannot be mapped on every system.
    map: Option<memmap2::Mmap>,
}

impl MappedFile {
    /// Maps the whole of the regular file at `path`.
    ///
    /// # Errors
    /// Whatever the system says about opening or mapping it, and `InvalidInput` if it is not a regular file.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        if metadata.len() == 0 {
            return Ok(Self { map: None });
        }
        // SAFETY: the mapping is private and read-only. The one remaining hazard, another process truncating or
        // rewriting the file in place, is excluded by the contract above; what is read is used at once, so that mappings
        // live shortly.
        let map = unsafe { memmap2::Mmap::map(&file)? };
        Ok(Self { map: Some(map) })
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.map.as_deref().unwrap_or_default()
    }
}

/// Bytes as little-endian f32, where they lie; `None` if they do not begin on a multiple of four bytes, or the machine orders
/// bytes otherwise.
pub fn as_f32(bytes: &[u8]) -> Option<&[f32]> {
    // SAFETY: every four bytes are an f32.
    let (before, floats, after) = unsafe { bytes.align_to::<f32>() };
    (cfg!(target_endian = "little") && before.is_empty() && after.is_empty()).then_some(floats)
}
