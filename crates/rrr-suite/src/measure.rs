//! From a finished run to the numbers that are kept of it.

use crate::error::Result;
use crate::result::{Machine, Scores, TaskResult};
use rrr_checkpoint::Digest;
use rrr_kernels::Isa;
use rrrnet::bench::QuickSpeed;
use rrrnet::compute::Precision;
use rrrnet::config::{ConfigError, TrainConfig};
use rrrnet::cost::net_cost;
use rrrnet::evaluate::Evaluation;
use rrrnet::model::{Model, ModelError};
use rrrnet::predict::Predictor;
use rrrnet::run::{RunDir, RunError};
use rrrnet::train::Summary;
use std::path::Path;

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
    let QuickSpeed { latency_ms, images_per_second } =
        QuickSpeed::of(&mut Predictor::new(&model, config.precision.compute(threads))?);
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
