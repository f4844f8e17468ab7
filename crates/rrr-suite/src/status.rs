//! How far a suite is, and how long the rest will take.

use crate::db::{Row, State};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// How far a suite is.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Status {
    /// All tasks.
    pub total: Counts,
    /// By method, in the suite's order.
    pub methods: Vec<(String, Counts)>,
    /// Processes at work.
    pub workers: usize,
    /// Seconds that the rest will take with so many workers (at least one); none before the first task is done.
    pub seconds_left: Option<f64>,
}

/// Tasks by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Waiting.
    pub waiting: usize,
    /// Running.
    pub running: usize,
    /// Done.
    pub done: usize,
    /// Failed.
    pub failed: usize,
}

impl Counts {
    fn add(&mut self, state: State) {
        match state {
            State::Waiting => self.waiting += 1,
            State::Running => self.running += 1,
            State::Done => self.done += 1,
            State::Failed => self.failed += 1,
        }
    }

    /// All of them.
    pub fn all(&self) -> usize {
        self.waiting + self.running + self.done + self.failed
    }
}

impl Status {
    /// The status of the tasks in `rows`.
    pub fn of(rows: &[Row]) -> Self {
        let mut status = Self::default();
        let mut workers = BTreeSet::new();
        for row in rows {
            status.total.add(row.state);
            let at = status.methods.iter().position(|(name, _)| *name == row.cell.method);
            let at = at.unwrap_or_else(|| {
                status.methods.push((row.cell.method.clone(), Counts::default()));
                status.methods.len() - 1
            });
            status.methods[at].1.add(row.state);
            workers.extend(row.owner.as_deref().filter(|_| row.state == State::Running));
        }
        status.workers = workers.len();
        status.seconds_left = seconds_left(rows).map(|s| s / workers.len().max(1) as f64);
        status
    }
}

/// Work that is left, in seconds of one worker: each task is taken to cost what done tasks of the same method cost,
/// corrected for its dataset where that is known.
fn seconds_left(rows: &[Row]) -> Option<f64> {
    let done: Vec<&Row> = rows.iter().filter(|r| r.state == State::Done).collect();
    let overall = mean(done.iter().map(|r| r.seconds))?;
    let group = |key: fn(&Row) -> &str| -> BTreeMap<&str, f64> {
        let mut groups: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for row in &done {
            groups.entry(key(row)).or_default().push(row.seconds);
        }
        groups.into_iter().filter_map(|(k, v)| Some((k, mean(v.into_iter())?))).collect()
    };
    let method = group(|r| &r.cell.method);
    // A dataset's factor: what its tasks cost, next to what their methods cost on average.
    let mut factors: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for row in &done {
        let usual = method[row.cell.method.as_str()].max(1e-9);
        factors.entry(&row.cell.dataset).or_default().push(row.seconds / usual);
    }
    let expected = |row: &Row| {
        let usual = method.get(row.cell.method.as_str()).copied().unwrap_or(overall);
        let factor = factors.get(row.cell.dataset.as_str()).and_then(|f| mean(f.iter().copied()));
        usual * factor.unwrap_or(1.0)
    };
    let left = rows.iter().filter(|r| matches!(r.state, State::Waiting | State::Running));
    Some(left.map(|r| expected(r) * (1.0 - r.done as f64 / r.total.max(1) as f64).clamp(0.0, 1.0)).sum())
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (n, sum) = values.fold((0usize, 0.0), |(n, sum), x| (n + 1, sum + x));
    (n > 0).then(|| sum / n as f64)
}
