//! Suites to begin with; those of the repository's `suites/`.

use crate::error::{Result, SuiteError};
use std::path::Path;

/// The paper's comparison of methods A to D.
pub const PAPER: &str = include_str!("../../../../suites/paper.toml");
/// The paper's choice of the number of branches.
pub const BRANCHES: &str = include_str!("../../../../suites/branches.toml");
/// The paper's forward selection of blocks.
pub const BLOCKS: &str = include_str!("../../../../suites/blocks.toml");
/// Fast geometric ensembles.
pub const FGE: &str = include_str!("../../../../suites/fge.toml");
/// A small comparison of one's own.
pub const SMALL: &str = include_str!("../../../../suites/small.toml");

/// Writes a suite's file.
///
/// # Errors
/// [`SuiteError::Exists`] unless `force`, or if the file cannot be written.
pub fn write(path: &Path, text: &str, force: bool) -> Result<()> {
    if path.exists() && !force {
        return Err(SuiteError::Exists(path.to_path_buf()));
    }
    Ok(rrr_checkpoint::atomic_write(path, text.as_bytes())?)
}
