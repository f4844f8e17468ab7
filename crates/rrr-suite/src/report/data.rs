//! From rows of the database to what the report says.

use crate::db::{Row, State, SuiteInfo};
use crate::error::{Result, SuiteError};
use crate::result::{Machine, TaskResult};
use crate::stats::{
    Bootstrap, Friedman, Nemenyi, Wilcoxon, WinTieLoss, bootstrap_mean, friedman, holm, mean, nemenyi, sd,
    wilcoxon, win_tie_loss,
};
use crate::status::{Counts, Status};
use serde::Serialize;

/// Level of all tests and intervals.
pub(super) const ALPHA: f64 = 0.05;
/// Seed of the bootstrap: the same rows give the same report.
const SEED: u64 = 1;

/// Everything the report says.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The suite.
    pub suite: SuiteInfo,
    /// How many of its tasks are done.
    pub counts: Counts,
    /// Datasets, in the suite's order.
    pub datasets: Vec<String>,
    /// Methods, in the suite's order.
    pub methods: Vec<MethodSummary>,
    /// Accuracies, `[dataset][method]`.
    pub cells: Vec<Vec<CellSummary>>,
    /// The methods compared over the datasets that all of them have finished.
    pub comparison: Option<Comparison>,
    /// Chains of tasks, by series.
    pub chains: Vec<Chain>,
    /// Failed tasks: dataset, method, seed and message.
    pub failures: Vec<(String, String, u64, String)>,
    /// The machines that the results come from.
    pub machines: Vec<Machine>,
    #[serde(skip)]
    pub(super) rows: Vec<Row>,
}

/// A method over all its finished tasks; means where there are several.
#[derive(Clone, Debug, Serialize)]
pub struct MethodSummary {
    /// Its name.
    pub name: String,
    /// What it is.
    pub about: String,
    /// The values of what varies.
    pub varied: std::collections::BTreeMap<String, String>,
    /// Mean over the datasets of the mean over the seeds.
    pub accuracy: Option<f64>,
    /// Mean over the datasets of the standard deviation over the seeds.
    pub seed_sd: Option<f64>,
    /// Weights.
    pub params: f64,
    /// Multiply-adds for one image.
    pub macs: f64,
    /// Blocks of the network.
    pub blocks: f64,
    /// Branches of the network.
    pub branches: f64,
    /// Median time for one image alone, in milliseconds.
    pub latency_ms: f64,
    /// Median images per second in batches of 32.
    pub images_per_second: f64,
    /// Seconds of training.
    pub train_seconds: f64,
}

/// Accuracies of one method on one dataset.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CellSummary {
    /// One per finished seed, in the suite's order.
    pub values: Vec<f64>,
    /// Tasks in all.
    pub tasks: usize,
}

impl CellSummary {
    /// Mean over the seeds.
    pub fn mean(&self) -> Option<f64> {
        (!self.values.is_empty()).then(|| mean(&self.values))
    }

    /// Standard deviation over the seeds.
    pub fn sd(&self) -> Option<f64> {
        sd(&self.values)
    }
}

/// The methods compared.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// The datasets that count.
    pub datasets: Vec<String>,
    /// Friedman's test with average ranks.
    pub friedman: Friedman,
    /// Nemenyi's test.
    pub nemenyi: Nemenyi,
    /// Every pair of methods.
    pub pairs: Vec<Pair>,
}

/// Two methods compared.
#[derive(Clone, Debug, Serialize)]
pub struct Pair {
    /// Index of the first method.
    pub a: usize,
    /// Index of the second.
    pub b: usize,
    /// Mean of a - b over the datasets, and its bootstrap interval.
    pub difference: Bootstrap,
    /// Datasets on which a is better, equal, worse.
    pub score: WinTieLoss,
    /// Wilcoxon's test; none if the methods are equal everywhere.
    pub wilcoxon: Option<Wilcoxon>,
    /// Its p-value after Holm's correction over all pairs; 1 if there is none.
    pub holm: f64,
}

/// The steps of a chain, averaged over datasets and seeds.
#[derive(Clone, Debug, Serialize)]
pub struct Chain {
    /// `forward` or `control`.
    pub series: String,
    /// Step, blocks, mean accuracy and number of tasks.
    pub steps: Vec<(usize, usize, f64, usize)>,
}

impl Report {
    /// The report of the tasks in `rows`, as far as they are done.
    ///
    /// # Errors
    /// [`SuiteError::NothingDone`].
    pub fn new(suite: &SuiteInfo, rows: &[Row]) -> Result<Self> {
        if !rows.iter().any(|r| r.state == State::Done) {
            return Err(SuiteError::NothingDone(suite.name.clone()));
        }
        let datasets = unique(rows.iter().map(|r| &r.cell.dataset));
        let names = unique(rows.iter().map(|r| &r.cell.method));
        let value = |r: &Row| value(&suite.measure, r.result.as_ref()?);
        let cell = |dataset: &String, method: &String| {
            let tasks = rows.iter().filter(|r| r.cell.dataset == *dataset && r.cell.method == *method);
            let tasks: Vec<&Row> = tasks.collect();
            CellSummary { values: tasks.iter().filter_map(|r| value(r)).collect(), tasks: tasks.len() }
        };
        let cells: Vec<Vec<CellSummary>> =
            datasets.iter().map(|d| names.iter().map(|m| cell(d, m)).collect()).collect();
        let methods: Vec<MethodSummary> =
            names.iter().enumerate().map(|(i, name)| method(rows, name, i, &cells)).collect();
        let chained = rows.iter().any(|r| r.cell.series.is_some());
        let comparison = if chained { None } else { compare(&datasets, &cells) };
        let failed = rows.iter().filter(|r| r.state == State::Failed);
        let failures = failed.map(|r| {
            let message = r.message.clone().unwrap_or_default();
            (r.cell.dataset.clone(), r.cell.method.clone(), r.cell.seed, message)
        });
        let mut machines: Vec<Machine> = Vec::new();
        for result in rows.iter().filter_map(|r| r.result.as_ref()) {
            if !machines.contains(&result.machine) {
                machines.push(result.machine.clone());
            }
        }
        Ok(Self {
            suite: suite.clone(),
            counts: Status::of(rows).total,
            failures: failures.collect(),
            chains: chains(rows, &value),
            rows: rows.to_vec(),
            datasets,
            methods,
            cells,
            comparison,
            machines,
        })
    }

    /// Whether every task of the suite is done.
    pub fn is_complete(&self) -> bool {
        self.counts.done == self.counts.all()
    }
}

/// The accuracy that the suite compares by.
fn value(measure: &str, result: &TaskResult) -> Option<f64> {
    match measure {
        "validation" => result.validation_accuracy,
        _ => result.test.as_ref().map(|t| t.accuracy),
    }
}

fn unique<'a>(values: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut seen: Vec<String> = Vec::new();
    for value in values {
        if !seen.contains(value) {
            seen.push(value.clone());
        }
    }
    seen
}

fn method(rows: &[Row], name: &str, index: usize, cells: &[Vec<CellSummary>]) -> MethodSummary {
    let own: Vec<&Row> = rows.iter().filter(|r| r.cell.method == name).collect();
    let results: Vec<&TaskResult> = own.iter().filter_map(|r| r.result.as_ref()).collect();
    let all = |get: fn(&TaskResult) -> f64| results.iter().map(|r| get(r)).collect::<Vec<f64>>();
    let means: Vec<f64> = cells.iter().filter_map(|row| row[index].mean()).collect();
    let spreads: Vec<f64> = cells.iter().filter_map(|row| row[index].sd()).collect();
    MethodSummary {
        name: name.to_owned(),
        about: own[0].cell.about.clone(),
        varied: own[0].cell.varied.clone(),
        accuracy: (!means.is_empty()).then(|| mean(&means)),
        seed_sd: (!spreads.is_empty()).then(|| mean(&spreads)),
        params: mean(&all(|r| r.params as f64)),
        macs: mean(&all(|r| r.macs as f64)),
        blocks: mean(&all(|r| r.blocks as f64)),
        branches: mean(&all(|r| r.branches as f64)),
        latency_ms: median(all(|r| r.latency_ms)),
        images_per_second: median(all(|r| r.images_per_second)),
        train_seconds: mean(&all(|r| r.train_seconds)),
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

/// Compares the methods over the datasets whose every task is done.
fn compare(datasets: &[String], cells: &[Vec<CellSummary>]) -> Option<Comparison> {
    let whole = |row: &&Vec<CellSummary>| row.iter().all(|c| c.tasks > 0 && c.values.len() == c.tasks);
    let named = datasets.iter().zip(cells).filter(|(_, row)| whole(row)).map(|(d, _)| d.clone());
    let scores: Vec<Vec<f64>> =
        cells.iter().filter(whole).map(|row| row.iter().map(|c| mean(&c.values)).collect()).collect();
    let friedman = friedman(&scores)?;
    let nemenyi = nemenyi(&friedman.ranks, scores.len(), ALPHA);
    let column = |m: usize| scores.iter().map(|row| row[m]).collect::<Vec<f64>>();
    let mut pairs = Vec::new();
    for a in 0..friedman.methods {
        for b in a + 1..friedman.methods {
            let (x, y) = (column(a), column(b));
            let differences: Vec<f64> = x.iter().zip(&y).map(|(x, y)| x - y).collect();
            pairs.push(Pair {
                a,
                b,
                difference: bootstrap_mean(&differences, 1.0 - ALPHA, SEED)?,
                score: win_tie_loss(&x, &y),
                wilcoxon: wilcoxon(&x, &y),
                holm: 1.0,
            });
        }
    }
    let p: Vec<f64> = pairs.iter().map(|pair| pair.wilcoxon.map_or(1.0, |w| w.p)).collect();
    for (pair, adjusted) in pairs.iter_mut().zip(holm(&p)) {
        pair.holm = adjusted;
    }
    Some(Comparison { datasets: named.collect(), friedman, nemenyi, pairs })
}

fn chains(rows: &[Row], value: &dyn Fn(&Row) -> Option<f64>) -> Vec<Chain> {
    let series = unique(rows.iter().filter_map(|r| r.cell.series.as_ref()));
    let chain = |series: String| {
        let own = || rows.iter().filter(|r| r.cell.series.as_ref() == Some(&series));
        let last = own().filter_map(|r| r.cell.step).max().unwrap_or(0);
        let step = |step: usize| {
            let at = own().filter(|r| r.cell.step == Some(step) && r.result.is_some());
            let found: Vec<(usize, f64)> =
                at.filter_map(|r| Some((r.result.as_ref()?.blocks, value(r)?))).collect();
            let accuracies: Vec<f64> = found.iter().map(|f| f.1).collect();
            let blocks = found.first()?.0;
            Some((step, blocks, mean(&accuracies), accuracies.len()))
        };
        Chain { steps: (1..=last).filter_map(step).collect(), series }
    };
    series.into_iter().map(chain).collect()
}
