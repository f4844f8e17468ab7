//! The training loop.

use super::checkpoint::{Pace, Position, Saved, Sums};
use super::data::{BRANCHES, Images as Data, TRAINING, WARMING, loader_options};
use super::teacher::Teacher;
use super::{Event, Schedule, Step, TrainError};
use crate::config::{Method, TrainConfig};
use crate::engine::Engine;
use crate::evaluate::predict_store;
use crate::model::{Model, ModelInfo, Weights};
use crate::run::{EpochRecord, RunDir};
use rrr_data::{Batch, EpochIter, Loader, Workers};
use rrr_nn::{
    AdamW, Compute, Images, NetSpec, NetState, Pixels, State, StepOutput, Trainable, Trainer, TrainerOptions,
};
use rrr_report::metrics::Metrics;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// A training in progress.
pub(super) struct Session<'a> {
    pub(super) config: &'a TrainConfig,
    pub(super) run: &'a RunDir,
    pub(super) data: &'a Data,
    pub(super) workers: &'a Workers,
    pub(super) compute: Compute,
    pub(super) info: ModelInfo,
    pub(super) fingerprint: String,
    pub(super) contents: String,
    pub(super) schedule: Schedule,
    pub(super) trainer: Trainer,
    pub(super) copies: Vec<State>,
    pub(super) position: Position,
    pub(super) pace: Pace,
    pub(super) teacher: Option<Teacher>,
}

/// Whether the loop came to its end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    Complete,
    Interrupted,
}

/// The trainer's options for a configuration.
pub(super) fn trainer_options(config: &TrainConfig) -> TrainerOptions {
    TrainerOptions {
        adamw: AdamW { weight_decay: config.weight_decay, ..AdamW::default() },
        trainable: if config.method == Method::Probe { Trainable::Classifier } else { Trainable::All },
        label_smoothing: config.label_smoothing as f32,
        stem_rate: config.stem_lr,
        ..TrainerOptions::default()
    }
}

impl Session<'_> {
    /// Warms the stem and trains, from wherever the position is, until the end or an interrupt; either way the last
    /// thing it does is to save a checkpoint.
    pub(super) fn run(
        &mut self,
        interrupt: &AtomicBool,
        events: &mut dyn FnMut(&Event<'_>),
    ) -> Result<Ended, TrainError> {
        let ended = match self.warm(interrupt, events)? {
            Ended::Complete => self.train(interrupt, events)?,
            Ended::Interrupted => Ended::Interrupted,
        };
        self.save(events)?;
        Ok(ended)
    }

    fn warm(
        &mut self,
        interrupt: &AtomicBool,
        events: &mut dyn FnMut(&Event<'_>),
    ) -> Result<Ended, TrainError> {
        let loader = self.loader(WARMING);
        let steps = loader.steps() as u64;
        let total = self.config.warm_passes as u64 * steps;
        while self.position.warmed < total {
            let (pass, from) = (self.position.warmed / steps, self.position.warmed % steps);
            let mut batches = loader.epoch(pass, from as usize)?;
            while let Some(batch) = batches.next() {
                let batch = batch?;
                self.trainer.warm_stem(&images(&batch, &self.info));
                batches.recycle(batch);
                self.position.warmed += 1;
                events(&Event::Warmed { done: self.position.warmed, total });
                if interrupt.load(Ordering::SeqCst) {
                    return Ok(Ended::Interrupted);
                }
            }
        }
        Ok(Ended::Complete)
    }

    fn train(
        &mut self,
        interrupt: &AtomicBool,
        events: &mut dyn FnMut(&Event<'_>),
    ) -> Result<Ended, TrainError> {
        let loaders: Vec<Loader> = if self.config.independent_batches {
            (0..self.trainer.spec().branches as u64).map(|b| self.loader(BRANCHES + b)).collect()
        } else {
            vec![self.loader(TRAINING)]
        };
        let per_epoch = loaders[0].steps() as u64;
        while self.position.steps < self.schedule.total() {
            let (epoch, from) = (self.position.steps / per_epoch, self.position.steps % per_epoch);
            let iterate = |loader: &Loader| loader.epoch(epoch, from as usize);
            let mut batches = loaders.iter().map(iterate).collect::<Result<Vec<_>, _>>()?;
            let mut lessons = self
                .teacher
                .as_ref()
                .map(|t| t.epoch(self.config, self.workers, epoch, from as usize))
                .transpose()?;
            for _ in from..per_epoch {
                let started = Instant::now();
                let (lr, seen) = self.step(
                    epoch as usize,
                    (self.position.steps % per_epoch) as usize,
                    &mut batches,
                    lessons.as_mut(),
                )?;
                let spent = started.elapsed().as_secs_f64();
                self.position.seconds += spent;
                self.position.epoch_seconds += spent;
                events(&Event::Step(Step {
                    epoch: epoch as usize + 1,
                    done: self.position.steps,
                    total: self.schedule.total(),
                    images: seen,
                    loss: self.position.sums.mean_loss(),
                    accuracy: self.position.sums.accuracy(),
                    lr,
                }));
                if self.position.steps.is_multiple_of(per_epoch) {
                    self.end_epoch(epoch as usize + 1, lr, events)?;
                }
                if interrupt.load(Ordering::SeqCst) {
                    return Ok(Ended::Interrupted);
                }
                if self.config.checkpoint_every > 0 && self.pace.is_due() {
                    self.save(events)?;
                }
            }
        }
        Ok(Ended::Complete)
    }

    /// One optimiser step of every branch; gives the learning rate and the number of images.
    fn step(
        &mut self,
        epoch: usize,
        step: usize,
        batches: &mut [EpochIter],
        lessons: Option<&mut EpochIter>,
    ) -> Result<(f64, usize), TrainError> {
        let done = self.position.steps;
        if self.schedule.starts_ema(done) {
            self.trainer.start_ema(self.config.ema_decay as f32);
        }
        let lr = self.schedule.lr(done);
        let independent = self.config.independent_batches;
        let mut seen = 0;
        let lesson = self
            .teacher
            .as_mut()
            .zip(lessons)
            .map(|(t, batches)| t.lesson(self.config, batches))
            .transpose()?;
        for (i, iter) in batches.iter_mut().enumerate() {
            let batch = iter.next().expect("an epoch has a batch for each of its steps")?;
            let (pixels, labels) = (images(&batch, &self.info), &batch.labels);
            let (first, out) = if independent {
                (i, self.trainer.step_branch(i, &pixels, labels, lr))
            } else if let Some(lesson) = lesson {
                (0, self.trainer.step_taught(&pixels, labels, lesson, lr))
            } else {
                (0, self.trainer.step(&pixels, labels, lr))
            };
            if let Some(&loss) = out.loss.iter().find(|loss| !loss.is_finite()) {
                return Err(TrainError::Diverged { epoch: epoch + 1, step: step + 1, loss, lr });
            }
            self.position.sums.add(first, out, batch.n);
            seen = batch.n;
            iter.recycle(batch);
        }
        self.position.steps += 1;
        if self.schedule.takes_copy(self.position.steps) {
            self.copies.extend(self.trainer.state().branches);
        }
        Ok((lr, seen))
    }

    fn end_epoch(
        &mut self,
        epoch: usize,
        lr: f64,
        events: &mut dyn FnMut(&Event<'_>),
    ) -> Result<(), TrainError> {
        let measured = self.validate()?;
        let sums = std::mem::take(&mut self.position.sums);
        let seconds = std::mem::take(&mut self.position.epoch_seconds);
        let record = EpochRecord {
            epoch,
            loss: sums.mean_loss(),
            accuracy: sums.accuracy(),
            branch_loss: sums.branch_loss(),
            lr,
            val_loss: measured.as_ref().map(|m| m.nll),
            val_accuracy: measured.as_ref().map(|m| m.accuracy),
            images_per_second: self.data.train.len() as f64 / seconds.max(1e-9),
            seconds: self.position.seconds,
        };
        if let Some(accuracy) = record.val_accuracy
            && self.is_complete()
            && self.position.best.is_none_or(|best| accuracy > best)
        {
            self.position.best = Some(accuracy);
            self.model()?.save(&self.run.best())?;
            events(&Event::Saved(&self.run.best()));
        }
        self.run.append(&record)?;
        events(&Event::Epoch(&record));
        let every = self.config.checkpoint_every;
        if every > 0 && epoch.is_multiple_of(every) && epoch < self.config.epochs {
            self.save(events)?;
        }
        Ok(())
    }

    /// Whether a model made now has all its branches: one of `fge` grows by a copy at a time.
    fn is_complete(&self) -> bool {
        self.config.method != Method::Fge || self.copies.len() == self.config.branch_count()
    }

    fn validate(&self) -> Result<Option<Metrics>, TrainError> {
        let Some(store) = &self.data.valid else { return Ok(None) };
        let model = self.model()?;
        let mut network = Engine::new(&model, self.compute.clone())?;
        let normalize = model.info.preprocessing.normalize();
        let batch = self.config.batch_size;
        let predictions =
            predict_store(&mut network, store, normalize, model.info.combine, batch, self.workers)?;
        Ok(Some(Metrics::evaluate(&predictions).map_err(crate::evaluate::EvaluateError::from)?))
    }

    /// The model as it would be if training ended here.
    pub(super) fn model(&self) -> Result<Model, TrainError> {
        let spec = self.trainer.spec();
        let (spec, state) = if self.copies.is_empty() {
            (spec.clone(), self.trainer.eval_state())
        } else {
            let stem = self.trainer.state().stem;
            let spec = NetSpec { branches: self.copies.len(), ..spec.clone() };
            (spec, NetState { stem, branches: self.copies.clone() })
        };
        Ok(Model { spec, state: Weights::F32(state), info: self.info.clone() })
    }

    fn save(&mut self, events: &mut dyn FnMut(&Event<'_>)) -> Result<(), TrainError> {
        let began = Instant::now();
        let saved = Saved {
            spec: self.trainer.spec().clone(),
            trainer: self.trainer.save(),
            copies: self.copies.clone(),
            position: self.position.clone(),
            info: self.info.clone(),
            fingerprint: self.fingerprint.clone(),
            contents: Some(self.contents.clone()),
            teacher: self.teacher.as_ref().map(|teacher| teacher.sha256.clone()),
            config: Some(self.config.clone()),
        };
        saved.write(&self.run.last())?;
        self.pace.saved(began);
        events(&Event::Saved(&self.run.last()));
        Ok(())
    }

    fn loader(&self, stream: u64) -> Loader {
        Loader::new(Arc::clone(&self.data.train), loader_options(self.config, stream), self.workers)
    }
}

pub(super) fn images<'b>(batch: &'b Batch, info: &ModelInfo) -> Images<'b> {
    let pixels = Pixels::U8 { data: &batch.pixels, normalize: info.preprocessing.normalize() };
    Images { pixels, n: batch.n, height: batch.size, width: batch.size }
}

impl Sums {
    /// Adds a step's output, of the branches from `first` on.
    fn add(&mut self, first: usize, out: &StepOutput, images: usize) {
        let branches = self.loss.len().max(first + out.loss.len());
        self.loss.resize(branches, 0.0);
        self.correct.resize(branches, 0);
        self.images.resize(branches, 0);
        for (i, (loss, correct)) in out.loss.iter().zip(&out.correct).enumerate() {
            self.loss[first + i] += f64::from(*loss) * images as f64;
            self.correct[first + i] += *correct as u64;
            self.images[first + i] += images as u64;
        }
    }

    fn branch_loss(&self) -> Vec<f64> {
        self.loss.iter().zip(&self.images).map(|(loss, n)| loss / (*n).max(1) as f64).collect()
    }

    fn mean_loss(&self) -> f64 {
        self.loss.iter().sum::<f64>() / self.images.iter().sum::<u64>().max(1) as f64
    }

    fn accuracy(&self) -> f64 {
        self.correct.iter().sum::<u64>() as f64 / self.images.iter().sum::<u64>().max(1) as f64
    }
}
