//! SHA-256 in lower-case hexadecimal.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::error::Error;

/// A SHA-256 in the making.
///
/// ```
/// let mut digest = rrr_checkpoint::Digest::default();
/// digest.update("a");
/// digest.update([b'b', b'c']);
/// assert!(digest.hex().starts_with("ba7816bf"));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Digest(Sha256);

impl Digest {
    /// The digest of a file, in hexadecimal.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn of_file(path: &Path) -> Result<String, Error> {
        let fail = |e| Error::io("read", path, e);
        let mut file = File::open(path).map_err(fail)?;
        let mut digest = Self::default();
        let mut buffer = vec![0; 1 << 18];
        loop {
            match file.read(&mut buffer).map_err(fail)? {
                0 => return Ok(digest.hex()),
                n => digest.update(&buffer[..n]),
            }
        }
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.update(bytes);
    }

    /// The digest of all that was added: 64 lower-case hexadecimal digits.
    pub fn hex(self) -> String {
        self.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
