//! Choosing the augmentation: short trials with each.
//!
//! What helps on photographs harms where colour, orientation or a mirror image tells classes apart.

use super::trial::{Parts, Score, Trials};
use super::{Event, TrainError};
use crate::backbone::Backbone;
use crate::config::{Augmentation, Method, Settings, TrainConfig};
use crate::run::{RunDir, RunError};
use rrr_data::Dataset;
use serde::{Deserialize, Serialize};
use std::{fmt, io};

/// What is tried, the gentlest first: of equals the first is taken.
const CANDIDATES: [Augmentation; 4] =
    [Augmentation::Shift, Augmentation::Light, Augmentation::Mixed, Augmentation::Paper];
/// Side of the images of a trial in pixels, where the training's are larger.
const SIZE: usize = 64;
const EPOCHS: usize = 6;
/// Images that take part at most, if that leaves some for every class.
const IMAGES: usize = 800;

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

    /// Keeps the choice in the run's folder.
    pub(super) fn write(&self, run: &RunDir) -> Result<(), RunError> {
        let mut json = serde_json::to_vec_pretty(self).expect("a choice is plain values");
        json.push(b'\n');
        run.write(&run.choice(), &json)
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

impl Trial {
    fn score(&self) -> Score {
        Score { accuracy: self.accuracy, nll: self.nll }
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

/// Tries every candidate on the training images `all` of `config`. `None` if interrupted.
pub(super) fn choose(
    config: &TrainConfig,
    all: &Dataset,
    trials: &Trials<'_>,
    events: &mut dyn FnMut(&Event<'_>),
) -> Result<Option<Choice>, TrainError> {
    let config = trial_config(config, trials.backbone)?;
    let Some(parts) = Parts::of(&config, all, IMAGES / all.classes.len(), trials.workers)? else {
        let note = "too few images per class to choose the augmentation by: small shifts are taken";
        events(&Event::Note(note.into()));
        let augmentation = CANDIDATES[0];
        return Ok(Some(Choice { augmentation, train_images: 0, held_out_images: 0, trials: Vec::new() }));
    };
    events(&Event::Stage("choosing the augmentation: short trainings on three quarters of the images"));
    let mut results: Vec<Trial> = Vec::with_capacity(CANDIDATES.len());
    for augmentation in CANDIDATES {
        match trials.run(&TrainConfig { augmentation, ..config.clone() }, &parts)? {
            Some(Score { accuracy, nll }) => results.push(Trial { augmentation, accuracy, nll }),
            None => return Ok(None),
        }
    }
    let best =
        results.iter().fold(results[0], |best, t| if t.score().beats(best.score()) { *t } else { best });
    let [train_images, held_out_images] = [&parts.train, &parts.held_out].map(|store| store.len());
    Ok(Some(Choice { augmentation: best.augmentation, train_images, held_out_images, trials: results }))
}
