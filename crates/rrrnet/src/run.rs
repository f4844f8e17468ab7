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
//! | `evaluation.json` | the numbers of the test split |
//! | `predictions.csv` | one row per test image |
//! | `report.html` | all of it for the eye |

use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

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
        /// `read` or `write`.
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunDir {
    root: PathBuf,
}

const FILES: [&str; 7] = [
    "augmentation.json",
    "metrics.jsonl",
    "model.safetensors",
    "evaluation.json",
    "predictions.csv",
    "report.html",
    "config.toml",
];
const CHECKPOINTS: [&str; 2] = ["last.safetensors", "best.safetensors"];

impl RunDir {
    /// An existing run.
    ///
    /// # Errors
    /// [`RunError::NoRun`] if the folder has no `config.toml`.
    pub fn open(root: &Path) -> Result<Self, RunError> {
        let run = Self { root: root.to_path_buf() };
        if run.config().is_file() { Ok(run) } else { Err(RunError::NoRun(root.to_path_buf())) }
    }

    /// Checks, before any long work, that a new run can be written to `root`. Leaves no trace.
    ///
    /// # Errors
    /// [`RunError`]: something is there already, or the folder cannot be made or written to.
    pub fn check_new(root: &Path, overwrite: bool) -> Result<(), RunError> {
        let run = Self { root: root.to_path_buf() };
        let occupied = fs::read_dir(root).is_ok_and(|mut entries| entries.next().is_some());
        match (occupied, run.config().is_file()) {
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

    /// Makes the folder for a new run, without anything a former run left there.
    ///
    /// # Errors
    /// Those of [`check_new`](Self::check_new).
    pub fn create(root: &Path, overwrite: bool, config: &str) -> Result<Self, RunError> {
        Self::check_new(root, overwrite)?;
        let run = Self { root: root.to_path_buf() };
        let own = FILES.iter().map(|f| root.join(f));
        for file in CHECKPOINTS.iter().map(|f| run.checkpoints().join(f)).chain(own) {
            match fs::remove_file(&file) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(file_error("write", &file, &e)),
                _ => {}
            }
        }
        if run.teacher().config().is_file() {
            fs::remove_dir_all(&run.teacher().root)
                .map_err(|e| file_error("remove", &run.teacher().root, &e))?;
        }
        fs::create_dir_all(run.checkpoints()).map_err(|e| file_error("write", &run.checkpoints(), &e))?;
        run.write(&run.config(), config.as_bytes())?;
        Ok(run)
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `config.toml`.
    pub fn config(&self) -> PathBuf {
        self.root.join("config.toml")
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
        Self { root: self.root.join("teacher") }
    }

    /// Removes what it takes to go on.
    pub(crate) fn remove_checkpoints(&self) -> Result<(), RunError> {
        fs::remove_dir_all(self.checkpoints()).map_err(|e| file_error("remove", &self.checkpoints(), &e))
    }

    fn checkpoints(&self) -> PathBuf {
        self.root.join("checkpoint")
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

/// The topmost folder of `path` that does not exist yet.
fn first_missing(path: &Path) -> Option<PathBuf> {
    path.ancestors()
        .filter(|p| !p.as_os_str().is_empty())
        .take_while(|p| !p.exists())
        .last()
        .map(Path::to_path_buf)
}

/// Writes and removes a small file.
fn probe(root: &Path) -> io::Result<()> {
    let path = root.join(format!(".rrr-writable-{}", std::process::id()));
    let written = fs::write(&path, b"x");
    let _ = fs::remove_file(&path);
    written
}

fn file_error(action: &'static str, path: &Path, e: &io::Error) -> RunError {
    RunError::File { action, path: path.to_path_buf(), reason: plain(e) }
}

/// The system's words, with the usual suspects put plainly.
fn plain(e: &io::Error) -> String {
    match e.kind() {
        io::ErrorKind::PermissionDenied => "permission denied".into(),
        io::ErrorKind::ReadOnlyFilesystem => "the file system is read-only".into(),
        io::ErrorKind::StorageFull => "the disk is full".into(),
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => "there is a file in its place".into(),
        _ => e.to_string(),
    }
}
