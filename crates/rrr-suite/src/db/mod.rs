//! The results database: one SQLite file for any number of suites and of processes.
//!
//! A task is known by its hash and belongs to no suite; suites list tasks. What was once done stays done, whatever
//! suite asks for it again.

mod claim;
mod query;

pub use claim::{Claim, Owner};
pub(crate) use claim::{lock_path, run_path};
pub use query::{Row, State, SuiteInfo};

use crate::error::{Result, SuiteError};
use crate::matrix::Task;
use crate::spec::Suite;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior, params};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const VERSION: i64 = 1;
const BUSY: Duration = Duration::from_secs(60);

/// A connection to the results database.
pub struct Database {
    path: PathBuf,
    connection: Connection,
}

impl Database {
    /// Opens the database, making it if it is not there.
    ///
    /// # Errors
    /// [`SuiteError::Database`], or [`SuiteError::Version`] for a file of something else.
    pub fn open_or_create(path: &Path) -> Result<Self> {
        Self::connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)
    }

    /// Opens a database that must be there.
    ///
    /// # Errors
    /// As [`open_or_create`](Self::open_or_create), and if there is none.
    pub fn open(path: &Path) -> Result<Self> {
        if !path.is_file() {
            let reason = "there is no such file\nhint: `rrr suite run` makes it; --db names it".into();
            return Err(SuiteError::Database { path: path.to_path_buf(), reason });
        }
        Self::connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)
    }

    fn connect(path: &Path, flags: OpenFlags) -> Result<Self> {
        let failed =
            |e: rusqlite::Error| SuiteError::Database { path: path.to_path_buf(), reason: e.to_string() };
        let mut connection =
            Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(failed)?;
        connection.busy_timeout(BUSY).map_err(failed)?;
        // Readers and one writer at a time never block each other; every commit is on the disk.
        write_ahead(&connection).map_err(failed)?;
        connection.pragma_update(None, "synchronous", "full").map_err(failed)?;
        connection.pragma_update(None, "foreign_keys", true).map_err(failed)?;
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        let found: i64 = tx.pragma_query_value(None, "user_version", |r| r.get(0)).map_err(failed)?;
        let tables: i64 =
            tx.query_row("SELECT count(*) FROM sqlite_schema", [], |r| r.get(0)).map_err(failed)?;
        match (found, tables) {
            (VERSION, _) => {}
            (0, 0) => {
                tx.execute_batch(include_str!("schema.sql")).map_err(failed)?;
                tx.pragma_update(None, "user_version", VERSION).map_err(failed)?;
            }
            (found, _) => {
                return Err(SuiteError::Version { path: path.to_path_buf(), found, expected: VERSION });
            }
        }
        tx.commit().map_err(failed)?;
        Ok(Self { path: path.to_path_buf(), connection })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder of the runs, beside the database.
    pub fn runs(&self) -> PathBuf {
        let mut name = self.path.file_stem().unwrap_or_default().to_os_string();
        name.push("-runs");
        self.path.with_file_name(name)
    }

    /// The folder of a task's run.
    pub fn run_of(&self, hash: &str) -> PathBuf {
        run_path(&self.runs(), hash)
    }

    /// Makes the suite's list of tasks what it is now. Tasks that were done before, for whatever suite, stay done.
    ///
    /// # Errors
    /// [`SuiteError::Database`].
    pub fn register(&mut self, suite: &Suite, tasks: &[Task]) -> Result<()> {
        self.write(|tx| {
            tx.execute(
                "INSERT INTO suite (name, about, kind, measure, text, updated) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (name) DO UPDATE SET about = excluded.about, kind = excluded.kind,
                 measure = excluded.measure, text = excluded.text, updated = excluded.updated",
                params![
                    suite.name,
                    suite.about,
                    suite.kind.as_str(),
                    suite.measure.as_str(),
                    suite.text,
                    now()
                ],
            )?;
            tx.execute("DELETE FROM entry WHERE suite = ?1", [&suite.name])?;
            let mut task = tx.prepare(
                "INSERT INTO task (hash, key, after, config) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
            )?;
            let mut entry =
                tx.prepare("INSERT INTO entry VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)")?;
            for (position, t) in tasks.iter().enumerate() {
                task.execute(params![t.hash, t.key, t.after, t.config.to_toml()])?;
                let c = &t.cell;
                let varied = serde_json::to_string(&c.varied).expect("texts are plain values");
                entry.execute(params![
                    suite.name,
                    position as i64,
                    t.hash,
                    c.dataset,
                    c.method,
                    c.about,
                    c.seed as i64,
                    c.series,
                    c.step.map(|s| s as i64),
                    varied
                ])?;
            }
            Ok(())
        })
    }

    /// Runs `work` in a transaction that holds the write lock from its beginning.
    fn write<T>(
        &mut self,
        work: impl FnOnce(&rusqlite::Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T> {
        let path = self.path.clone();
        let run = || {
            let tx = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let value = work(&tx)?;
            tx.commit()?;
            Ok(value)
        };
        run().map_err(|e: rusqlite::Error| SuiteError::Database { path, reason: e.to_string() })
    }

    fn read<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        work(&self.connection)
            .map_err(|e| SuiteError::Database { path: self.path.clone(), reason: e.to_string() })
    }
}

/// Switches to a write-ahead log. The switch does not wait for others that have just opened the file, whatever
/// the time-out is.
fn write_ahead(connection: &Connection) -> rusqlite::Result<()> {
    let since = Instant::now();
    loop {
        match connection.pragma_update(None, "journal_mode", "wal") {
            Err(e) if e.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && since.elapsed() < BUSY => {
                std::thread::sleep(Duration::from_millis(5));
            }
            done => return done,
        }
    }
}

/// Milliseconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
