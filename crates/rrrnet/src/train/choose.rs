//! Choosing the augmentation: short trainings on one part of the training images, measured on the other.
//!
//! What helps on photographs harms where colour, orientation or a mirror image tells classes apart. No test and no
//! validation image takes part in the choice.

use super::data::{TRAINING, WARMING, loader_options, store_options};
use super::session::{images as input, trainer_options};
use super::{Event, Schedule, TrainError, setup};
use crate::backbone::Backbone;
use crate::config::{Augmentation, Method, Settings, TrainConfig};
use crate::engine::Engine;
use crate::evaluate::{EvaluateError, predict_store};
use crate::model::{Model, Weights};
use crate::run::{RunDir, RunError};
use rrr_data::{Dataset, ImageStore, Loader, Workers};
use rrr_nn::{Compute, Trainer};
use rrr_report::metrics::Metrics;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What is tried, the gentlest first: of equals the first is taken.
const CANDIDATES: [Augmentation; 4] =
    [Augmentation::Shift, Augmentation::Light, Augmentation::Mixed, Augmentation::Paper];
/// Side of the images of a trial in pixels, where the training's are larger.
const SIZE: usize = 64;
const EPOCHS: usize = 6;
/// Images that take part at most, if that leaves some for every class.
const IMAGES: usize = 800;
/// One image in so many is for measuring.
const HELD_OUT: usize = 4;

/// The augmentation chosen for a run, as `augmentation.json` in its folder keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    /// The best of the trials.
    pub augmentation: Augmentation,
    /// Images that each trial learned from.
    pub train_images: usize,
    /// Images that each trial was measured on.
    pub held_out_images: usize,
    /// All trials.
    pub trials: Vec<Trial>,
}

/// A short training with one augmentation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// What was done to the images it learned from.
    pub augmentation: Augmentation,
    /// Share of the held-out images that it classified correctly.
    pub accuracy: f64,
    /// Negative log-likelihood of the held-out images.
    pub nll: f64,
}

impl Choice {
    /// Keeps it in the folder of a run.
    pub(super) fn write(&self, run: &RunDir) -> Result<(), RunError> {
        let mut json = serde_json::to_vec_pretty(self).expect("a choice is plain values");
        json.push(b'\n');
        run.write(&run.choice(), &json)
    }

    /// The choice of a run; `None` where nothing was left to choose.
    ///
    /// # Errors
    /// [`RunError`] names the file that cannot be read.
    pub fn read(run: &RunDir) -> Result<Option<Self>, RunError> {
        let path = run.choice();
        match std::fs::read(&path) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(choice) => Ok(Some(choice)),
                Err(e) => Err(RunError::Damaged { path, reason: e.to_string() }),
            },
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(RunError::File { action: "read", path, reason: e.to_string() }),
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { augmentation, held_out_images: n, trials, .. } = self;
        write!(f, "{augmentation}")?;
        for (i, t) in trials.iter().enumerate() {
            let before = if i == 0 {
                format!(", by the accuracy on {n} held-out training images:")
            } else {
                ",".into()
            };
            write!(f, "{before} {} {:.1}%", t.augmentation, 100.0 * t.accuracy)?;
        }
        Ok(())
    }
}

/// Images of the trials.
struct Images {
    train: Arc<ImageStore>,
    held_out: Arc<ImageStore>,
}

/// The trials of one training.
pub(super) struct Trials<'a> {
    config: TrainConfig,
    /// None if no class can spare an image to measure on.
    images: Option<Images>,
    backbone: &'a Backbone,
    workers: &'a Workers,
    compute: &'a Compute,
}

impl Trial {
    fn beats(&self, other: &Self) -> bool {
        (self.accuracy, -self.nll) > (other.accuracy, -other.nll)
    }
}

/// The reduced backbone with one branch, whatever is trained afterwards: the fastest to tell. A backbone that was split
/// before is taken as it is.
fn trial_config(config: &TrainConfig, backbone: &Backbone) -> Result<TrainConfig, TrainError> {
    let split = backbone.tail.is_some();
    let reduced = Settings {
        data: Some(config.data.clone()),
        method: Some(Method::Reduced),
        seed: Some(config.seed),
        threads: config.threads,
        precision: Some(config.precision),
        image_size: Some(config.image_size.min(SIZE)),
        resize: Some(config.resize),
        epochs: Some(EPOCHS),
        warm_passes: Some(1),
        ..Settings::default()
    };
    let trial = reduced.resolve()?;
    Ok(TrainConfig {
        backbone: config.backbone.clone(),
        method: if split { Method::Rrr } else { Method::Reduced },
        blocks: if split { config.blocks } else { trial.blocks },
        split: if split { config.split.clone() } else { trial.split.clone() },
        branches: if split { config.branches } else { None },
        skip_bad: config.skip_bad,
        memory_budget_mib: config.memory_budget_mib,
        ..trial
    })
}

/// The images of the trials; `None` if no class can spare one to measure on.
fn divided(config: &TrainConfig, all: &Dataset, workers: &Workers) -> Result<Option<Images>, TrainError> {
    let most = (IMAGES / all.classes.len()).max(HELD_OUT);
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
    let load = |samples| ImageStore::load(Dataset { samples, ..all.clone() }, options, workers).map(Arc::new);
    Ok(Some(Images { train: load(train)?, held_out: load(held_out)? }))
}

impl<'a> Trials<'a> {
    /// Trials on the training images of `config`, which `train` holds.
    pub(super) fn new(
        config: &TrainConfig,
        train: &ImageStore,
        backbone: &'a Backbone,
        workers: &'a Workers,
        compute: &'a Compute,
    ) -> Result<Self, TrainError> {
        let config = trial_config(config, backbone)?;
        let images = divided(&config, train.dataset(), workers)?;
        Ok(Self { config, images, backbone, workers, compute })
    }

    /// Tries every candidate. `None` if interrupted.
    pub(super) fn run(
        &self,
        interrupt: &AtomicBool,
        events: &mut dyn FnMut(&Event<'_>),
    ) -> Result<Option<Choice>, TrainError> {
        let Some(images) = &self.images else {
            let note = "too few images per class to choose the augmentation by: small shifts are taken";
            events(&Event::Note(note.into()));
            let augmentation = CANDIDATES[0];
            return Ok(Some(Choice {
                augmentation,
                train_images: 0,
                held_out_images: 0,
                trials: Vec::new(),
            }));
        };
        events(&Event::Stage("choosing the augmentation: short trainings on three quarters of the images"));
        let mut trials: Vec<Trial> = Vec::with_capacity(CANDIDATES.len());
        for augmentation in CANDIDATES {
            match self.trial(augmentation, images, interrupt)? {
                Some(trial) => trials.push(trial),
                None => return Ok(None),
            }
        }
        let best = trials.iter().fold(trials[0], |best, t| if t.beats(&best) { *t } else { best });
        let [train_images, held_out_images] = [&images.train, &images.held_out].map(|store| store.len());
        Ok(Some(Choice { augmentation: best.augmentation, train_images, held_out_images, trials }))
    }

    /// Trains with `augmentation` and measures. `None` if interrupted.
    fn trial(
        &self,
        augmentation: Augmentation,
        images: &Images,
        interrupt: &AtomicBool,
    ) -> Result<Option<Trial>, TrainError> {
        let config = &TrainConfig { augmentation, ..self.config.clone() };
        let setup = setup::prepare(config, images.train.dataset(), self.backbone)?;
        let mut trainer =
            Trainer::new(&setup.spec, &setup.state, &trainer_options(config), self.compute.clone())?;
        let loader =
            |stream| Loader::new(Arc::clone(&images.train), loader_options(config, stream), self.workers);
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
                if interrupt.load(Ordering::SeqCst) {
                    return Ok(None);
                }
            }
        }
        let model = Model { spec: setup.spec, state: Weights::F32(trainer.eval_state()), info: setup.info };
        let mut network = Engine::new(&model, self.compute.clone())?;
        let (normalize, combine) = (model.info.preprocessing.normalize(), model.info.combine);
        let predictions = predict_store(
            &mut network,
            &images.held_out,
            normalize,
            combine,
            config.batch_size,
            self.workers,
        )?;
        let metrics = Metrics::evaluate(&predictions).map_err(EvaluateError::from)?;
        Ok(Some(Trial { augmentation, accuracy: metrics.accuracy, nll: metrics.nll }))
    }
}
