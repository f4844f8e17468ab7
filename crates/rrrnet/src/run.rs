//! The run directory: everything a training leaves behind.
//!
//! | file | holds |
//! |---|---|
//! | `config.toml` | the resolved configuration; `rrr train --config` takes it |
//! | `augmentation.json` | how the augmentation was chosen ([`Choice`](crate::train::Choice)), if it was |
//! | `metrics.jsonl` | one line per epoch ([`EpochRecord`]) |
//! | `teacher/` | the run of the teacher, if it was trained for this one |
//! | `checkpoint/last.safetensors` | what it takes to go on |
//! | `checkpoint/best.safetensors` | the model with the best validation accuracy, not calibrated, if there is a validation split |
//! | `model.safetensors` | the finished model, self-contained |
//! | `model-int8.safetensors`, `model-int8.json` | what `rrr quantize` made of it, and its report |
//! | `evaluation.json` | the numbers of the test split |
//! | `predictions.csv` | one row per test image |
//! | `report.html` | all of it for the eye |

use rrr_checkpoint::plain;
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why a run directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// There is a run already.
    #[error(
        "{run} already holds a run\nhint: choose another folder, continue it with `rrr train --resume {run}`, or give \
         --overwrite",
        run = .0.display()
    )]
    Exists(PathBuf),
    /// The folder holds something else.
    #[error("{} is not empty and holds no run\nhint: choose an empty or a new folder", .0.display())]
    NotARun(PathBuf),
    /// There is no run to continue or to use.
    #[error("{} holds no run: it has no config.toml\nhint: name a folder that `rrr train --out` made", .0.display())]
    NoRun(PathBuf),
    /// Another process writes to the run.
    #[error("another process is training in {}\nhint: wait for its end, stop it, or choose another folder", .0.display())]
    Taken(PathBuf),
    /// The folder cannot be made or written to.
    #[error("cannot write to {}: {reason}\nhint: choose a folder that you may write to with --out", path.display())]
    NotWritable {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// A file cannot be read or written.
    #[error("cannot {action} {}: {reason}", path.display())]
    File {
        /// `read`, `write` or `remove`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// A file cannot be written.
    #[error(transparent)]
    Write(#[from] rrr_checkpoint::Error),
    /// A file is not what a run keeps there.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// One line of `metrics.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// From 1.
    pub epoch: usize,
    /// Mean cross-entropy over the epoch's images and the branches, in train mode.
    pub loss: f64,
    /// Share of them classified correctly.
    pub accuracy: f64,
    /// Mean cross-entropy of each branch.
    pub branch_loss: Vec<f64>,
    /// Learning rate of the epoch's last step.
    pub lr: f64,
    /// Negative log-likelihood on the validation split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub val_loss: Option<f64>,
    /// Accuracy on the validation split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub val_accuracy: Option<f64>,
    /// Training images per second.
    pub images_per_second: f64,
    /// Seconds of training since it began, pauses left out.
    pub seconds: f64,
}

/// The folder of one run.
#[derive(Clone, Debug)]
pub struct RunDir {
    root: PathBuf,
    /// Locked for as long as somebody holds it.
    _claim: Option<Arc<File>>,
}

/// Everything that a run may hold, but for its configuration and its folders.
const FILES: [&str; 8] = [
    "augmentation.json",
    "metrics.jsonl",
    "model.safetensors",
    "model-int8.safetensors",
    "model-int8.json",
    "evaluation.json",
    "predictions.csv",
    "report.html",
];
const CONFIG: &str = "config.toml";
const CHECKPOINT: &str = "checkpoint";
/// Begins the name of the file that shows that a folder can be written to.
const PROBE: &str = ".rrr-writable-";
const CHECKPOINTS: [&str; 2] = ["last.safetensors", "best.safetensors"];

impl RunDir {
    /// An existing run.
    ///
    /// # Errors
    /// [`RunError::NoRun`] if the folder has no `config.toml`.
    pub fn open(root: &Path) -> Result<Self, RunError> {
        let run = Self::at(root);
        if run.config().is_file() { Ok(run) } else { Err(RunError::NoRun(root.to_path_buf())) }
    }

    /// An existing run, for this process alone to write to as long as the value or a clone of it is there.
    ///
    /// # Errors
    /// [`RunError::NoRun`], or [`RunError::Taken`] if another process writes to it.
    pub fn take(root: &Path) -> Result<Self, RunError> {
        let run = Self::open(root)?;
        Ok(Self { _claim: claim(root)?, ..run })
    }

    fn at(root: &Path) -> Self {
        Self { root: root.to_path_buf(), _claim: None }
    }

    /// Checks, before any long work, that a new run can be written to `root`. Leaves no trace.
    ///
    /// # Errors
    /// [`RunError`]: something is there already, or the folder cannot be made or written to.
    pub fn check_new(root: &Path, overwrite: bool) -> Result<(), RunError> {
        let run = Self::at(root);
        match (holds_anything(root), run.config().is_file()) {
            (true, false) => return Err(RunError::NotARun(root.to_path_buf())),
            (true, true) if !overwrite => return Err(RunError::Exists(root.to_path_buf())),
            _ => {}
        }
        let made = first_missing(root);
        let result = fs::create_dir_all(root).and_then(|()| probe(root));
        // Only folders that were not there before, and only while they are empty.
        if let Some(first) = made {
            let mut dir = Some(root);
            while let Some(d) = dir.filter(|d| d.starts_with(&first)) {
                let _ = fs::remove_dir(d);
                dir = d.parent();
            }
        }
        result.map_err(|e| RunError::NotWritable { path: root.to_path_buf(), reason: plain(&e) })
    }

    /// Makes the folder for a new run, without anything a former run left there, for this process alone as with
    /// [`take`](Self::take).
    ///
    /// # Errors
    /// Those of [`check_new`](Self::check_new), and [`RunError::Taken`].
    pub fn create(root: &Path, overwrite: bool, config: &str) -> Result<Self, RunError> {
        Self::check_new(root, overwrite)?;
        fs::create_dir_all(root).map_err(|e| file_error("write", root, &e))?;
        let run = Self { _claim: claim(root)?, ..Self::at(root) };
        // The configuration is replaced last: whatever a kill leaves is still a run, the former one with less in it.
        let own = FILES.iter().map(|f| root.join(f));
        let checkpoints = CHECKPOINTS.iter().map(|f| run.checkpoints().join(f));
        for file in checkpoints.chain(own).chain(leftovers(root)).chain(leftovers(&run.checkpoints())) {
            match fs::remove_file(&file) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(file_error("remove", &file, &e));
                }
                _ => {}
            }
        }
        if run.teacher().config().is_file() {
            run.teacher().remove()?;
        }
        run.write(&run.config(), config.as_bytes())?;
        Ok(run)
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `config.toml`.
    pub fn config(&self) -> PathBuf {
        self.root.join(CONFIG)
    }

    /// `metrics.jsonl`.
    pub fn metrics(&self) -> PathBuf {
        self.root.join("metrics.jsonl")
    }

    /// `model.safetensors`.
    pub fn model(&self) -> PathBuf {
        self.root.join("model.safetensors")
    }

    /// `augmentation.json`.
    pub fn choice(&self) -> PathBuf {
        self.root.join("augmentation.json")
    }

    /// `checkpoint/last.safetensors`.
    pub fn last(&self) -> PathBuf {
        self.checkpoints().join(CHECKPOINTS[0])
    }

    /// `checkpoint/best.safetensors`.
    pub fn best(&self) -> PathBuf {
        self.checkpoints().join(CHECKPOINTS[1])
    }

    /// `evaluation.json`.
    pub fn evaluation(&self) -> PathBuf {
        self.root.join("evaluation.json")
    }

    /// `predictions.csv`.
    pub fn predictions(&self) -> PathBuf {
        self.root.join("predictions.csv")
    }

    /// `report.html`.
    pub fn report(&self) -> PathBuf {
        self.root.join("report.html")
    }

    /// The run of a teacher that is trained for this run, perhaps not there yet.
    pub(crate) fn teacher(&self) -> Self {
        Self::at(&self.root.join("teacher"))
    }

    /// Makes the folder of what it takes to go on.
    pub(crate) fn make_checkpoints(&self) -> Result<(), RunError> {
        fs::create_dir_all(self.checkpoints()).map_err(|e| file_error("write", &self.checkpoints(), &e))
    }

    /// Removes what it takes to go on.
    pub(crate) fn remove_checkpoints(&self) -> Result<(), RunError> {
        fs::remove_dir_all(self.checkpoints()).map_err(|e| file_error("remove", &self.checkpoints(), &e))
    }

    /// Removes the folder, the configuration last: whatever a kill leaves is still a run.
    fn remove(&self) -> Result<(), RunError> {
        let failed = |e: io::Error| file_error("remove", &self.root, &e);
        for entry in fs::read_dir(&self.root).map_err(failed)?.flatten() {
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            match entry.path() {
                path if path == self.config() => {}
                path if is_folder => fs::remove_dir_all(path).map_err(failed)?,
                path => fs::remove_file(path).map_err(failed)?,
            }
        }
        fs::remove_dir_all(&self.root).map_err(failed)
    }

    fn checkpoints(&self) -> PathBuf {
        self.root.join(CHECKPOINT)
    }

    /// Replaces a file of the run, or leaves it as it was.
    ///
    /// # Errors
    /// [`RunError::Write`] names the file.
    pub fn write(&self, path: &Path, content: &[u8]) -> Result<(), RunError> {
        Ok(rrr_checkpoint::atomic_write(path, content)?)
    }

    /// Appends a line to `metrics.jsonl`.
    ///
    /// # Errors
    /// [`RunError::File`] names the file.
    pub fn append(&self, record: &EpochRecord) -> Result<(), RunError> {
        let path = self.metrics();
        let mut line = serde_json::to_string(record).expect("an epoch's numbers are plain values");
        line.push('\n');
        let open = fs::OpenOptions::new().create(true).append(true).open(&path);
        open.and_then(|mut f| f.write_all(line.as_bytes())).map_err(|e| file_error("write", &path, &e))
    }

    /// The epochs in `metrics.jsonl`; an unfinished last line, as a crash leaves it, does not count.
    ///
    /// # Errors
    /// [`RunError`] if the file cannot be read or a line is no [`EpochRecord`].
    pub fn records(&self) -> Result<Vec<EpochRecord>, RunError> {
        let path = self.metrics();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(file_error("read", &path, &e)),
        };
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let parse = |(i, line): (usize, &str)| {
            serde_json::from_str(line)
                .map_err(|e| RunError::Damaged { path: path.clone(), reason: format!("line {}: {e}", i + 1) })
        };
        whole.lines().enumerate().map(parse).collect()
    }

    /// Drops every line of `metrics.jsonl` after the first `epochs` epochs.
    ///
    /// # Errors
    /// Those of [`records`](Self::records) and [`write`](Self::write).
    pub fn truncate_records(&self, epochs: usize) -> Result<(), RunError> {
        let mut kept = String::new();
        for record in self.records()?.iter().filter(|r| r.epoch <= epochs) {
            kept.push_str(&serde_json::to_string(record).expect("an epoch's numbers are plain values"));
            kept.push('\n');
        }
        self.write(&self.metrics(), kept.as_bytes())
    }
}

/// Locks a folder for this process, whose end unlocks it: the folder itself, so that no file is left behind.
fn claim(root: &Path) -> Result<Option<Arc<File>>, RunError> {
    // Not every system opens folders, and not every file system has locks.
    let Ok(folder) = File::open(root) else { return Ok(None) };
    match folder.try_lock() {
        Ok(()) => Ok(Some(Arc::new(folder))),
        Err(TryLockError::WouldBlock) => Err(RunError::Taken(root.to_path_buf())),
        Err(TryLockError::Error(_)) => Ok(None),
    }
}

/// The topmost folder of `path` that does not exist yet.
fn first_missing(path: &Path) -> Option<PathBuf> {
    path.ancestors()
        .filter(|p| !p.as_os_str().is_empty())
        .take_while(|p| !p.exists())
        .last()
        .map(Path::to_path_buf)
}

/// Whether there is anything in a folder that a kill in the first moments of a run does not leave.
fn holds_anything(root: &Path) -> bool {
    let Ok(entries) = fs::read_dir(root) else { return false };
    let counts = |entry: fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => entry.file_name() != CHECKPOINT || holds_anything(&entry.path()),
        _ => !is_leftover(&entry.file_name()),
    };
    entries.into_iter().any(|entry| entry.map_or(true, counts))
}

/// Files in a folder that a kill has left half-written.
fn leftovers(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| is_leftover(&entry.file_name())).map(|entry| entry.path()).collect()
}

/// Whether a file is one of [`probe`] or of an atomic write.
fn is_leftover(name: &OsStr) -> bool {
    name.to_str().is_some_and(|n| n.starts_with(PROBE) || (n.starts_with(".rrr-") && n.ends_with(".tmp")))
}

/// Writes and removes a small file.
fn probe(root: &Path) -> io::Result<()> {
    let path = root.join(format!("{PROBE}{}", std::process::id()));
    let written = fs::write(&path, b"x");
    let _ = fs::remove_file(&path);
    written
}

fn file_error(action: &'static str, path: &Path, e: &io::Error) -> RunError {
    RunError::File { action, path: path.to_path_buf(), reason: plain(e) }
}
