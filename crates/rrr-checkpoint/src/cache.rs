//! The folder of downloaded backbones: `CACHE/backbones/NAME/{model.safetensors, config.json}`.

use std::env;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::error::Error;
use crate::pull::Progress;

pub(crate) const WEIGHTS: &str = "model.safetensors";

/// The cache folder: `RRR_CACHE`, else `XDG_CACHE_HOME/rrrnet`, else `.cache/rrrnet` in the home folder.
///
/// # Errors
/// If none of the variables is set.
pub fn cache_dir() -> Result<PathBuf, Error> {
    let variable = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("RRR_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|cache| cache.join("rrrnet")))
        .or_else(|| env::home_dir().map(|home| home.join(".cache").join("rrrnet")))
        .ok_or(Error::NoCacheFolder)
}

/// The folder of one backbone.
pub(crate) fn folder(cache: &Path, name: &str) -> PathBuf {
    cache.join("backbones").join(name)
}

pub(crate) fn create_dir(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(|e| Error::io("create", path, e))
}

/// Removes a file that may not be there.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path, e)),
        _ => Ok(()),
    }
}

/// Holds other processes off a backbone's folder while this lives. The system releases it even after a crash.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    pub(crate) fn acquire(folder: &Path, name: &str, progress: &dyn Fn(Progress)) -> Result<Self, Error> {
        let path = folder.join(".lock");
        let fail = |e| Error::io("lock", &path, e);
        let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(fail)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                progress(Progress::Waiting { name: name.into() });
                file.lock().map_err(fail)?;
            }
            // Some network file systems have no locks; then two pulls at once are the user's risk.
            Err(TryLockError::Error(e)) if e.kind() == io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(e)) => return Err(fail(e)),
        }
        Ok(Self { _file: file })
    }
}

pub(crate) fn check_sha256(path: &Path, expected: &str) -> Result<(), Error> {
    let found = Digest::of_file(path)?;
    if found == expected {
        Ok(())
    } else {
        Err(Error::WrongHash { path: path.into(), expected: expected.into(), found })
    }
}
