//! Who works on what: leases in the database, locks on the disk.
//!
//! A lease is believed until it runs out; its owner renews it. On the owner's own machine there is better evidence: it
//! holds a lock on a file beside the run, which the system takes away the moment the process ends, however it ends.
//! The lock also keeps a process that was merely asleep from writing into a run that somebody else has taken over.

use super::{Database, now};
use crate::error::{Result, SuiteError};
use crate::matrix::Task;
use crate::result::TaskResult;
use rusqlite::{OptionalExtension, Transaction, params};
use std::collections::HashMap;
use std::fs::{File, TryLockError};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// After so many workers have died on it, a task counts as failed.
const MAX_ATTEMPTS: i64 = 10;

/// A process that runs tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Host, process and a random number.
    pub id: String,
    /// The host.
    pub host: String,
}

impl Owner {
    /// This process.
    pub fn this_process() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).ok().map(|s| s.trim().to_owned());
        let host = read("/proc/sys/kernel/hostname").or_else(|| std::env::var("HOSTNAME").ok());
        let host = host.filter(|h| !h.is_empty()).unwrap_or_else(|| "localhost".into());
        let random = RandomState::new().build_hasher().finish();
        Self { id: format!("{host} {} {random:016x}", std::process::id()), host }
    }
}

/// A task that this process has for itself until it lets go of it.
#[derive(Debug)]
pub struct Claim {
    /// Hash of the task.
    pub hash: String,
    /// The folder of its run, perhaps with what an earlier worker has done.
    pub run: PathBuf,
    owner: String,
    _lock: Option<File>,
}

struct Standing {
    state: String,
    lease: Option<i64>,
    host: Option<String>,
    attempts: i64,
}

impl Database {
    /// Takes the first of `tasks` that nobody has and whose predecessor is done.
    ///
    /// # Errors
    /// [`SuiteError`] of the database or of the folder of the runs.
    pub fn claim(&mut self, tasks: &[Task], owner: &Owner, lease: Duration) -> Result<Option<Claim>> {
        let runs = self.runs();
        std::fs::create_dir_all(&runs).map_err(|e| SuiteError::file("make the folder", &runs, e))?;
        self.write(|tx| {
            let standings = standings(tx)?;
            let done = |hash: &String| standings.get(hash).is_some_and(|s| s.state == "done");
            for task in tasks {
                let Some(now_at) = standings.get(&task.hash) else { continue };
                if !now_at.may_be_free(owner) || !task.after.as_ref().is_none_or(done) {
                    continue;
                }
                let Some(lock) = lock(&lock_path(&runs, &task.hash), now_at) else { continue };
                if now_at.attempts >= MAX_ATTEMPTS {
                    let message = format!("{MAX_ATTEMPTS} workers have died while they ran this task");
                    tx.execute(
                        "UPDATE task SET state = 'failed', message = ?2, owner = NULL, finished = ?3 WHERE hash = ?1",
                        params![task.hash, message, now()],
                    )?;
                    continue;
                }
                tx.execute(
                    "UPDATE task SET state = 'running', attempts = attempts + 1, owner = ?2, host = ?3, lease = ?4,
                     started = coalesce(started, ?5), message = NULL WHERE hash = ?1",
                    params![task.hash, owner.id, owner.host, until(lease), now()],
                )?;
                let run = run_path(&runs, &task.hash);
                return Ok(Some(Claim { hash: task.hash.clone(), run, owner: owner.id.clone(), _lock: lock }));
            }
            Ok(None)
        })
    }

    /// Renews a lease and records how far the task is; `false` if the task is not this owner's any more.
    ///
    /// # Errors
    /// [`SuiteError::Database`].
    pub fn heartbeat(
        &mut self,
        claim: &str,
        owner: &str,
        lease: Duration,
        progress: (u64, u64),
    ) -> Result<bool> {
        self.write(|tx| {
            let n = tx.execute(
                "UPDATE task SET lease = ?3, done = ?4, total = ?5 WHERE hash = ?1 AND owner = ?2",
                params![claim, owner, until(lease), progress.0 as i64, progress.1 as i64],
            )?;
            Ok(n == 1)
        })
    }

    /// Records the result of a task; `false` if it is not this owner's any more.
    ///
    /// # Errors
    /// [`SuiteError::Database`].
    pub fn finish(&mut self, claim: &Claim, result: &TaskResult, seconds: f64) -> Result<bool> {
        let json = serde_json::to_string(result).expect("a result is plain values");
        self.end(claim, "done", None, Some(json), seconds)
    }

    /// Records why a task failed.
    ///
    /// # Errors
    /// [`SuiteError::Database`].
    pub fn fail(&mut self, claim: &Claim, message: &str, seconds: f64) -> Result<bool> {
        self.end(claim, "failed", Some(message), None, seconds)
    }

    fn end(
        &mut self,
        claim: &Claim,
        state: &str,
        message: Option<&str>,
        result: Option<String>,
        seconds: f64,
    ) -> Result<bool> {
        self.write(|tx| {
            let n = tx.execute(
                "UPDATE task SET state = ?3, message = ?4, result = ?5, seconds = seconds + ?6, finished = ?7,
                 owner = NULL, lease = NULL WHERE hash = ?1 AND owner = ?2",
                params![claim.hash, claim.owner, state, message, result, seconds, now()],
            )?;
            Ok(n == 1)
        })
    }

    /// Gives an interrupted task back; its run stays for whoever takes it next.
    ///
    /// # Errors
    /// [`SuiteError::Database`].
    pub fn release(&mut self, claim: &Claim, seconds: f64) -> Result<()> {
        self.write(|tx| {
            tx.execute(
                "UPDATE task SET state = 'waiting', attempts = attempts - 1, seconds = seconds + ?3, owner = NULL,
                 lease = NULL WHERE hash = ?1 AND owner = ?2",
                params![claim.hash, claim.owner, seconds],
            )
            .map(|_| ())
        })
    }

    /// Lets failed tasks of a suite be run again.
    ///
    /// # Errors
    /// [`SuiteError::Database`].
    pub fn retry_failed(&mut self, suite: &str) -> Result<usize> {
        self.write(|tx| {
            tx.execute(
                "UPDATE task SET state = 'waiting', attempts = 0, message = NULL
                 WHERE state = 'failed' AND hash IN (SELECT task FROM entry WHERE suite = ?1)",
                [suite],
            )
        })
    }

    /// Whether a task that needs the model of `hash`, in any suite, is not done.
    pub(crate) fn is_needed(&self, hash: &str) -> Result<bool> {
        self.read(|c| {
            c.query_row("SELECT 1 FROM task WHERE after = ?1 AND state != 'done'", [hash], |_| Ok(()))
                .optional()
                .map(|found| found.is_some())
        })
    }
}

impl Standing {
    /// Whether the task waits, or its owner may be gone: a lock will tell.
    fn may_be_free(&self, owner: &Owner) -> bool {
        match self.state.as_str() {
            "waiting" => true,
            "running" => self.expired() || self.host.as_ref() == Some(&owner.host),
            _ => false,
        }
    }

    fn expired(&self) -> bool {
        self.lease.is_none_or(|until| until < now())
    }
}

fn standings(tx: &Transaction<'_>) -> rusqlite::Result<HashMap<String, Standing>> {
    let mut query = tx.prepare("SELECT hash, state, lease, host, attempts FROM task")?;
    let rows = query.query_map([], |r| {
        let standing = Standing { state: r.get(1)?, lease: r.get(2)?, host: r.get(3)?, attempts: r.get(4)? };
        Ok((r.get(0)?, standing))
    })?;
    rows.collect()
}

/// The lock of a run: `None` if somebody holds it, `Some(None)` where the file system knows no locks and the lease has
/// to do.
fn lock(path: &Path, standing: &Standing) -> Option<Option<File>> {
    let file = File::options().create(true).append(true).open(path).ok()?;
    match file.try_lock() {
        Ok(()) => Some(Some(file)),
        Err(TryLockError::WouldBlock) => None,
        Err(TryLockError::Error(_)) => (standing.state == "waiting" || standing.expired()).then_some(None),
    }
}

fn until(lease: Duration) -> i64 {
    now().saturating_add(i64::try_from(lease.as_millis()).unwrap_or(i64::MAX))
}

/// Enough of a hash to name a folder.
pub(crate) fn run_path(runs: &Path, hash: &str) -> PathBuf {
    runs.join(&hash[..16.min(hash.len())])
}

pub(crate) fn lock_path(runs: &Path, hash: &str) -> PathBuf {
    run_path(runs, hash).with_extension("lock")
}
