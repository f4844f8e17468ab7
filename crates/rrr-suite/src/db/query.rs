//! Reading the database.

use super::Database;
use crate::error::{Result, SuiteError};
use crate::matrix::Cell;
use crate::result::TaskResult;
use rusqlite::params;
use serde::Serialize;

/// How a task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Nobody has it.
    Waiting,
    /// Somebody has it.
    Running,
    /// Its result is there.
    Done,
    /// It has failed.
    Failed,
}

impl State {
    /// Its name in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }
}

/// A task of a suite, as the database has it.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// SHA-256 of all that determines the result.
    pub hash: String,
    /// Place in the matrix.
    #[serde(flatten)]
    pub cell: Cell,
    /// How it stands.
    pub state: State,
    /// Times that a worker took it and did not give it back.
    pub attempts: i64,
    /// Who has it.
    pub owner: Option<String>,
    /// Seconds that workers spent on it, reading and measuring included.
    pub seconds: f64,
    /// When it was first begun, in milliseconds since 1970.
    pub started: Option<i64>,
    /// When it was finished, likewise.
    pub finished: Option<i64>,
    /// Optimiser steps done, while it runs.
    pub done: u64,
    /// Optimiser steps in all.
    pub total: u64,
    /// Why it failed.
    pub message: Option<String>,
    /// Hash of the task whose model it needs.
    pub after: Option<String>,
    /// The resolved configuration, TOML.
    #[serde(skip)]
    pub config: String,
    /// The numbers.
    pub result: Option<TaskResult>,
}

/// A suite that the database knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SuiteInfo {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub about: String,
    /// `matrix` or `forward-blocks`.
    pub kind: String,
    /// `test` or `validation`.
    pub measure: String,
    /// Its file as it was.
    #[serde(skip)]
    pub text: String,
}

impl Database {
    /// The suites, by name.
    ///
    /// # Errors
    /// [`SuiteError::Database`].
    pub fn suites(&self) -> Result<Vec<SuiteInfo>> {
        self.read(|c| {
            let mut query = c.prepare("SELECT name, about, kind, measure, text FROM suite ORDER BY name")?;
            let rows = query.query_map([], |r| {
                Ok(SuiteInfo {
                    name: r.get(0)?,
                    about: r.get(1)?,
                    kind: r.get(2)?,
                    measure: r.get(3)?,
                    text: r.get(4)?,
                })
            })?;
            rows.collect()
        })
    }

    /// The suite called `name`, or the only one.
    ///
    /// # Errors
    /// [`SuiteError::UnknownSuite`] or [`SuiteError::WhichSuite`].
    pub fn suite(&self, name: Option<&str>) -> Result<SuiteInfo> {
        let mut suites = self.suites()?;
        let known = suites.iter().map(|s| s.name.as_str()).collect::<Vec<_>>().join(", ");
        let path = || self.path().to_path_buf();
        match name {
            Some(name) => match suites.into_iter().find(|s| s.name == name) {
                Some(suite) => Ok(suite),
                None => Err(SuiteError::UnknownSuite { path: path(), name: name.into(), known }),
            },
            None if suites.len() > 1 => Err(SuiteError::WhichSuite { path: path(), known }),
            None => suites.pop().ok_or_else(|| SuiteError::UnknownSuite {
                path: path(),
                name: String::new(),
                known: "none".into(),
            }),
        }
    }

    /// The tasks of a suite, in its order.
    ///
    /// # Errors
    /// [`SuiteError::Database`], also if a row is not what this version writes.
    pub fn rows(&self, suite: &str) -> Result<Vec<Row>> {
        self.read(|c| {
            let mut query = c.prepare(
                "SELECT hash, dataset, method, about, seed, series, step, varied, state, attempts, owner, seconds,
                 started, finished, done, total, message, after, config, result
                 FROM entry JOIN task ON task = hash WHERE suite = ?1 ORDER BY position",
            )?;
            let rows = query.query_map(params![suite], row)?;
            rows.collect()
        })
    }

    /// The task whose hash begins with `prefix`, with its places in every suite.
    ///
    /// # Errors
    /// [`SuiteError::WhichTask`] if there is none or more than one.
    pub fn find(&self, prefix: &str) -> Result<Vec<(String, Row)>> {
        let mut found = Vec::new();
        for suite in self.suites()? {
            let rows = self.rows(&suite.name)?;
            found.extend(
                rows.into_iter().filter(|r| r.hash.starts_with(prefix)).map(|r| (suite.name.clone(), r)),
            );
        }
        let mut hashes: Vec<&String> = found.iter().map(|(_, r)| &r.hash).collect();
        hashes.sort();
        hashes.dedup();
        if hashes.len() == 1 {
            Ok(found)
        } else {
            Err(SuiteError::WhichTask { asked: prefix.into(), found: hashes.len() })
        }
    }
}

fn row(r: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    let bad = |i: usize, e: serde_json::Error| {
        rusqlite::Error::FromSqlConversionFailure(i, rusqlite::types::Type::Text, Box::new(e))
    };
    let varied: String = r.get(7)?;
    let result: Option<String> = r.get(19)?;
    let state: String = r.get(8)?;
    Ok(Row {
        hash: r.get(0)?,
        cell: Cell {
            dataset: r.get(1)?,
            method: r.get(2)?,
            about: r.get(3)?,
            seed: r.get::<_, i64>(4)? as u64,
            series: r.get(5)?,
            step: r.get::<_, Option<i64>>(6)?.map(|s| s as usize),
            varied: serde_json::from_str(&varied).map_err(|e| bad(7, e))?,
        },
        state: match state.as_str() {
            "running" => State::Running,
            "done" => State::Done,
            "failed" => State::Failed,
            _ => State::Waiting,
        },
        attempts: r.get(9)?,
        owner: r.get(10)?,
        seconds: r.get(11)?,
        started: r.get(12)?,
        finished: r.get(13)?,
        done: r.get::<_, i64>(14)? as u64,
        total: r.get::<_, i64>(15)? as u64,
        message: r.get(16)?,
        after: r.get(17)?,
        config: r.get(18)?,
        result: result.map(|text| serde_json::from_str(&text).map_err(|e| bad(19, e))).transpose()?,
    })
}
