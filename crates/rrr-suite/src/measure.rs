//! From a finished run to the numbers that are kept of it.

use crate::error::Result;
use crate::result::{Machine, Scores, TaskResult};
use rrr_checkpoint::Digest;
use rrr_kernels::Isa;
use rrrnet::compute::Precision;
use rrrnet::config::{ConfigError, TrainConfig};
use rrrnet::cost::net_cost;
use rrrnet::evaluate::Evaluation;
use rrrnet::model::{Model, ModelError};
use rrrnet::predict::Predictor;
use rrrnet::run::{RunDir, RunError};
use rrrnet::train::Summary;
use std::path::Path;
use std::time::{Duration, Instant};

/// Images of the larger batch whose speed is measured.
const BATCH: usize = 32;
/// Time for one measurement of speed; at least [`RUNS`] runs.
const TIME: Duration = Duration::from_millis(250);
const RUNS: usize = 3;

/// Why a finished run gives no numbers.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CollectError {
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    File(#[from] rrr_checkpoint::Error),
}

/// The numbers of a finished run.
pub(crate) fn collect(run: &Path, summary: &Summary, threads: usize) -> Result<TaskResult, CollectError> {
    let dir = RunDir::open(run)?;
    let config = TrainConfig::read(&dir.config())?;
    let records = dir.records()?;
    let last = records.last();
    let model = Model::load(&summary.model)?;
    let cost = net_cost(&model.spec, [model.info.preprocessing.size; 2]);
    let (latency_ms, images_per_second) = speed(&model, config.precision, threads)?;
    Ok(TaskResult {
        test: summary.evaluation.as_ref().map(scores),
        validation_accuracy: last.and_then(|r| r.val_accuracy),
        train_loss: last.map_or(0.0, |r| r.loss),
        train_seconds: summary.seconds,
        params: cost.params,
        macs: cost.macs,
        blocks: 1 + model.spec.stem.blocks.len() + model.spec.branch.blocks.len(),
        branches: model.spec.branches,
        latency_ms,
        images_per_second,
        model_sha256: Digest::of_file(&summary.model)?,
        machine: machine(threads, config.precision),
    })
}

fn scores(e: &Evaluation) -> Scores {
    let m = &e.metrics;
    Scores {
        images: m.n,
        accuracy: m.accuracy,
        balanced_accuracy: m.balanced_accuracy,
        macro_f1: m.macro_f1,
        nll: m.nll,
        brier: m.brier,
        ece: m.calibration.ece,
        branch_accuracy: m.mean_branch_accuracy,
        disagreement: m.disagreement,
    }
}

/// Milliseconds for one image alone, and images per second in batches: the best of several runs, which others on the
/// machine disturb least.
fn speed(model: &Model, precision: Precision, threads: usize) -> Result<(f64, f64), ModelError> {
    let mut predictor = Predictor::new(model, precision.compute(threads))?;
    let size = model.info.preprocessing.size;
    let pixels = vec![127u8; BATCH * size * size * 3];
    let mut best = |n: usize| {
        let mut best = f64::INFINITY;
        let begun = Instant::now();
        let mut runs = 0;
        while runs < RUNS || begun.elapsed() < TIME {
            let started = Instant::now();
            std::hint::black_box(predictor.logits(&pixels[..n * size * size * 3], n));
            best = best.min(started.elapsed().as_secs_f64());
            runs += 1;
        }
        best
    };
    Ok((1e3 * best(1), BATCH as f64 / best(BATCH)))
}

fn machine(threads: usize, precision: Precision) -> Machine {
    Machine {
        host: crate::db::Owner::this_process().host,
        cpu: rrrnet::cpu_model(),
        isa: format!("{:?}", Isa::active()).to_lowercase(),
        precision: precision.to_string(),
        threads,
        version: env!("CARGO_PKG_VERSION").into(),
    }
}
