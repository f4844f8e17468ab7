//! Trials: trainings on one part of the training images, measured on the other.
//!
//! What depends on the images is chosen by them. No test and no validation image takes part in a choice.

use super::data::{TRAINING, WARMING, loader_options, store_options};
use super::session::{images as input, trainer_options};
use super::{Schedule, TrainError, setup};
use crate::backbone::Backbone;
use crate::config::TrainConfig;
use crate::engine::Engine;
use crate::evaluate::{EvaluateError, predict_store};
use crate::model::{Model, Weights};
use rrr_data::{Dataset, ImageStore, Loader, Workers};
use rrr_nn::{Compute, Trainer};
use rrr_report::metrics::Metrics;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// One image in so many is for measuring.
const HELD_OUT: usize = 4;

/// What all trials of a training have in common.
pub(super) struct Trials<'a> {
    pub(super) backbone: &'a Backbone,
    pub(super) workers: &'a Workers,
    pub(super) compute: &'a Compute,
    pub(super) interrupt: &'a AtomicBool,
}

/// The two parts of the training images.
pub(super) struct Parts {
    pub(super) train: Arc<ImageStore>,
    pub(super) held_out: Arc<ImageStore>,
}

/// What a trial came to on the images that were held out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Score {
    pub(super) accuracy: f64,
    pub(super) nll: f64,
}

impl Score {
    pub(super) fn beats(self, other: Self) -> bool {
        (self.accuracy, -self.nll) > (other.accuracy, -other.nll)
    }
}

impl Parts {
    /// Divides the training images, as `config` sees them, `most` of each class at most; `None` if no class can spare one
    /// to measure on.
    pub(super) fn of(
        config: &TrainConfig,
        all: &Dataset,
        most: usize,
        workers: &Workers,
    ) -> Result<Option<Self>, TrainError> {
        let most = most.max(HELD_OUT);
        let counts: Vec<usize> = all.class_counts().into_iter().map(|n| n.min(most)).collect();
        let mut seen = vec![0; counts.len()];
        let (mut train, mut held_out) = (Vec::new(), Vec::new());
        // Each class is listed in the shuffled order of the split, so that its last images are any images.
        for sample in &all.samples {
            let class = sample.label as usize;
            let n = counts[class];
            let last = if n < 2 { 0 } else { n.div_ceil(HELD_OUT) };
            let at = seen[class];
            seen[class] += 1;
            if at < n - last {
                train.push(sample.clone());
            } else if at < n {
                held_out.push(sample.clone());
            }
        }
        if held_out.is_empty() {
            return Ok(None);
        }
        let options = store_options(config);
        let load =
            |samples| ImageStore::load(Dataset { samples, ..all.clone() }, options, workers).map(Arc::new);
        Ok(Some(Self { train: load(train)?, held_out: load(held_out)? }))
    }
}

impl Trials<'_> {
    /// Trains as `config` says and measures. `None` if interrupted.
    pub(super) fn run(&self, config: &TrainConfig, parts: &Parts) -> Result<Option<Score>, TrainError> {
        let setup = setup::prepare(config, parts.train.dataset(), self.backbone)?;
        let mut trainer =
            Trainer::new(&setup.spec, &setup.state, &trainer_options(config), self.compute.clone())?;
        let loader =
            |stream| Loader::new(Arc::clone(&parts.train), loader_options(config, stream), self.workers);
        for pass in 0..config.warm_passes {
            for batch in loader(WARMING).epoch(pass as u64, 0)? {
                trainer.warm_stem(&input(&batch?, &setup.info));
            }
        }
        let training = loader(TRAINING);
        let schedule = Schedule::new(config, training.steps());
        let mut step = 0;
        for epoch in 0..config.epochs {
            for batch in training.epoch(epoch as u64, 0)? {
                if schedule.starts_ema(step) {
                    trainer.start_ema(config.ema_decay as f32);
                }
                let batch = batch?;
                trainer.step(&input(&batch, &setup.info), &batch.labels, schedule.lr(step));
                step += 1;
                if self.interrupt.load(Ordering::SeqCst) {
                    return Ok(None);
                }
            }
        }
        let model = Model { spec: setup.spec, state: Weights::F32(trainer.eval_state()), info: setup.info };
        let mut network = Engine::new(&model, self.compute.clone())?;
        let (normalize, combine) = (model.info.preprocessing.normalize(), model.info.combine);
        let (batch, workers) = (config.batch_size, self.workers);
        let predictions = predict_store(&mut network, &parts.held_out, normalize, combine, batch, workers)?;
        let metrics = Metrics::evaluate(&predictions).map_err(EvaluateError::from)?;
        Ok(Some(Score { accuracy: metrics.accuracy, nll: metrics.nll }))
    }
}
