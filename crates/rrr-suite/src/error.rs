//! Why a suite cannot be used.

use std::path::PathBuf;

/// Why a suite cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SuiteError {
    /// A file cannot be read or written.
    #[error("cannot {action} {}: {reason}", path.display())]
    File {
        /// `read`, `write` or `make the folder`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// The suite's file is not TOML, or says something that cannot be meant.
    #[error("{}, line {line}: {message}", path.display())]
    Spec {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong; names the key.
        message: String,
    },
    /// There is a file already.
    #[error("{} exists\nhint: choose another name, or give --force to replace it", .0.display())]
    Exists(PathBuf),
    /// There is a file that a report would replace.
    #[error("{} is there and no part of a suite's report\nhint: choose another folder with --out, or give --overwrite", .0.display())]
    NoReport(PathBuf),
    /// The database cannot be used.
    #[error("cannot use the results database {}: {reason}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        reason: String,
    },
    /// The file is a database of another program or version.
    #[error("{} is no results database of this version (its number is {found}, not {expected})\nhint: choose another --db", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its `user_version`.
        found: i64,
        /// Ours.
        expected: i64,
    },
    /// The database has no such suite.
    #[error("there is no suite `{name}` in {}\nhint: it has {known}", path.display())]
    UnknownSuite {
        /// The database.
        path: PathBuf,
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// The database has several suites, and none was named.
    #[error("{} has several suites\nhint: name one with --suite: {known}", path.display())]
    WhichSuite {
        /// The database.
        path: PathBuf,
        /// What there is.
        known: String,
    },
    /// No task, or more than one, is meant.
    #[error("`{asked}` names {found} tasks\nhint: `rrr suite status --tasks` lists them with their hashes")]
    WhichTask {
        /// What was asked for.
        asked: String,
        /// How many match.
        found: usize,
    },
    /// A dataset cannot be read.
    #[error(transparent)]
    Data(#[from] rrr_data::DataError),
    /// The backbone cannot be found, or a file cannot be read or written.
    #[error(transparent)]
    Checkpoint(#[from] rrr_checkpoint::Error),
    /// There is nothing to report on.
    #[error("no task of suite `{0}` is done\nhint: run it with `rrr suite run`")]
    NothingDone(String),
}

impl SuiteError {
    pub(crate) fn file(
        action: &'static str,
        path: impl Into<PathBuf>,
        error: impl std::fmt::Display,
    ) -> Self {
        Self::File { action, path: path.into(), reason: error.to_string() }
    }
}

/// Shorthand for results of this crate.
pub type Result<T, E = SuiteError> = std::result::Result<T, E>;
