//! What stays of a run once its numbers are in the database.

use crate::db::{Database, State, lock_path};
use crate::error::{Result, SuiteError};
use std::path::{Path, PathBuf};

/// What stays of a run once its numbers are in the database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// Configuration, curves, predictions and report.
    #[default]
    Reports,
    /// The model as well.
    Models,
    /// Everything.
    All,
}

const NAMES: [(&str, Keep); 3] = [("reports", Keep::Reports), ("models", Keep::Models), ("all", Keep::All)];

/// Notes beside the run what is to stay of it, before its result is recorded: a worker may be killed in between.
pub(crate) fn note(run: &Path, keep: Keep) -> Result<()> {
    let (name, _) = NAMES.iter().find(|(_, k)| *k == keep).expect("every choice has a name");
    Ok(rrr_checkpoint::atomic_write(noted(run), name.as_bytes())?)
}

/// Removes what need not stay of a finished task: checkpoints, and models that no task needs any more.
pub(crate) fn tidy(db: &Database, hash: &str, after: Option<&str>, keep: Keep) -> Result<()> {
    let run = db.run_of(hash);
    if keep != Keep::All {
        remove(&run.join("checkpoint"))?;
    }
    if keep == Keep::Reports {
        for hash in [Some(hash), after].into_iter().flatten() {
            if !db.is_needed(hash)? {
                remove(&db.run_of(hash).join("model.safetensors"))?;
            }
        }
    }
    remove(&noted(&run))?;
    // Nobody claims a task that is done.
    remove(&lock_path(&db.runs(), hash))
}

/// Tidies the suite's finished runs whose workers were killed before they could.
pub(crate) fn sweep(db: &Database, suite: &str) -> Result<()> {
    for row in db.rows(suite)?.iter().filter(|row| row.state == State::Done) {
        let noted = std::fs::read_to_string(noted(&db.run_of(&row.hash))).unwrap_or_default();
        match NAMES.iter().find(|(name, _)| *name == noted) {
            Some((_, keep)) => tidy(db, &row.hash, row.after.as_deref(), *keep)?,
            None => remove(&lock_path(&db.runs(), &row.hash))?,
        }
    }
    Ok(())
}

/// Removes a file or a folder that may not be there.
pub(crate) fn remove(path: &Path) -> Result<()> {
    let removed = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    match removed {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(SuiteError::file("remove", path, e)),
        _ => Ok(()),
    }
}

fn noted(run: &Path) -> PathBuf {
    run.with_extension("tidy")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_understood() {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path().join("run");
        for keep in [Keep::Reports, Keep::Models, Keep::All] {
            note(&run, keep).unwrap();
            let text = std::fs::read_to_string(noted(&run)).unwrap();
            assert!(NAMES.contains(&(text.as_str(), keep)), "{text}");
        }
    }
}
