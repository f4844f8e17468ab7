//! Choosing between the settings of a training and their alternative: a trial with either, as long as the training
//! itself.
//!
//! Larger images show details that tell some classes apart, and hide in them what tells others apart at a glance.

use super::trial::{self, Parts, Score, Trials};
use super::{Event, TrainError};
use crate::config::TrainConfig;
use crate::run::{RunDir, RunError};
use rrr_data::Dataset;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What is told before each trial.
const STAGES: [&str; 2] = [
    "trying the settings on three quarters of the training images",
    "trying their alternative on three quarters of the training images",
];

/// How the settings of a run were chosen, as `alternative.json` in its folder keeps it; a trial at a time, so that one
/// that is done is not made again after an interrupt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AlternativeChoice {
    /// Images that each trial learned from.
    pub train_images: usize,
    /// Images that each trial was measured on.
    pub held_out_images: usize,
    /// The settings as they were, then the alternative.
    pub trials: Vec<AlternativeTrial>,
}

/// A training with one of the two.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AlternativeTrial {
    /// Side of the images in pixels.
    pub image_size: usize,
    /// Passes over the images.
    pub epochs: usize,
    /// Learning rate of the stem as a share of the branches'.
    pub stem_lr: f64,
    /// Share of the held-out images that it classified correctly.
    pub accuracy: f64,
    /// Negative log-likelihood of the held-out images.
    pub nll: f64,
}

impl AlternativeTrial {
    fn score(&self) -> Score {
        Score { accuracy: self.accuracy, nll: self.nll }
    }
}

impl AlternativeChoice {
    /// The choice of a run; `None` where there was none.
    ///
    /// # Errors
    /// [`RunError`] names the file that cannot be read.
    pub fn read(run: &RunDir) -> Result<Option<Self>, RunError> {
        trial::read(&run.alternative())
    }

    /// Whether the alternative did better than the settings as they were.
    pub fn is_taken(&self) -> bool {
        matches!(&self.trials[..], [usual, other] if other.score().beats(usual.score()))
    }
}

impl fmt::Display for AlternativeChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let taken = self.trials.get(usize::from(self.is_taken()));
        if let Some(t) = taken {
            write!(f, "{} pixels, {} epochs", t.image_size, t.epochs)?;
            if t.stem_lr > 0.0 {
                write!(f, ", the stem trained at {} of the rate", t.stem_lr)?;
            }
        }
        for (i, t) in self.trials.iter().enumerate() {
            let before = match i {
                0 => format!("; by the accuracy on {} held-out training images:", self.held_out_images),
                _ => ",".into(),
            };
            write!(f, "{before} {} pixels {:.1}%", t.image_size, 100.0 * t.accuracy)?;
        }
        Ok(())
    }
}

/// Tries `config` and its alternative on the training images `all`; what is done is kept in `run`. `None` if
/// interrupted.
pub(super) fn choose(
    config: &TrainConfig,
    all: &Dataset,
    trials: &Trials<'_>,
    run: &RunDir,
    events: &mut dyn FnMut(&Event<'_>),
) -> Result<Option<AlternativeChoice>, TrainError> {
    let mut choice = AlternativeChoice::read(run)?.unwrap_or(AlternativeChoice {
        train_images: 0,
        held_out_images: 0,
        trials: Vec::new(),
    });
    let candidates = [TrainConfig { alternative: None, ..config.clone() }, config.with_alternative()];
    for (candidate, stage) in candidates.iter().zip(STAGES).skip(choice.trials.len()) {
        let Some(parts) = Parts::of(candidate, all, usize::MAX, trials.workers)? else {
            events(&Event::Note("too few images per class to try other settings on".into()));
            return Ok(Some(choice));
        };
        events(&Event::Stage(stage));
        let Some(Score { accuracy, nll }) = trials.run(candidate, &parts)? else { return Ok(None) };
        [choice.train_images, choice.held_out_images] = [&parts.train, &parts.held_out].map(|s| s.len());
        let TrainConfig { image_size, epochs, stem_lr, .. } = *candidate;
        choice.trials.push(AlternativeTrial { image_size, epochs, stem_lr, accuracy, nll });
        trial::write(run, &run.alternative(), &choice)?;
    }
    Ok(Some(choice))
}
