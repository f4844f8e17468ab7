//! Why a training failed.

use crate::config::{Change, ConfigError};
use crate::evaluate::EvaluateError;
use crate::model::ModelError;
use crate::run::RunError;
use std::path::PathBuf;

/// Why a training failed.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The run directory cannot be used.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The images cannot be used.
    #[error(transparent)]
    Data(#[from] rrr_data::DataError),
    /// The backbone or another checkpoint cannot be read, or a file cannot be written.
    #[error(transparent)]
    Checkpoint(#[from] rrr_checkpoint::Error),
    /// The backbone.
    #[error(transparent)]
    Backbone(#[from] crate::backbone::BackboneError),
    /// The backbone was reduced before, to something that this training cannot use.
    #[error(
        "the reduced backbone {name} does not fit: {reason}\nhint: ask for what it has (--blocks, --split, --branches), or \
         give the full backbone"
    )]
    ReducedBackbone {
        /// The backbone.
        name: String,
        /// What does not fit.
        reason: String,
    },
    /// There is no such network.
    #[error(transparent)]
    Plan(#[from] crate::plan::PlanError),
    /// The split is no block of the backbone.
    #[error(transparent)]
    Arch(#[from] crate::arch::ArchError),
    /// The backbone's weights do not fit.
    #[error(transparent)]
    Recycle(#[from] crate::recycle::RecycleError),
    /// Weights do not fit the architecture.
    #[error(transparent)]
    State(#[from] rrr_nn::StateError),
    /// The model cannot be read or written.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The model cannot be measured.
    #[error(transparent)]
    Evaluate(#[from] EvaluateError),
    /// The loss is not a number any more.
    #[error(
        "training diverged: the loss of epoch {epoch}, step {step} is {loss}\nhint: use a smaller --lr (it is {lr})"
    )]
    Diverged {
        /// From 1.
        epoch: usize,
        /// From 1.
        step: usize,
        /// The loss.
        loss: f32,
        /// The learning rate of the step.
        lr: f64,
    },
    /// The last step has led to weights that are no numbers.
    #[error(
        "training diverged: its last step led to weights that are no numbers\nhint: use a smaller --lr (it is {lr})"
    )]
    NotFinite {
        /// The highest learning rate.
        lr: f64,
    },
    /// A teacher that cannot teach here.
    #[error(
        "{} cannot be the teacher: {reason}\nhint: train it on the same images: the same --seed, --train-per-class, \
         --val-per-class and --test-per-class (or fractions)", path.display()
    )]
    Teacher {
        /// The model.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// `select = "best"` without images to choose by.
    #[error(
        "choosing the best weights needs validation images\nhint: give --val-per-class or --val-fraction"
    )]
    NoValidation,
    /// `fge` has fewer steps than its copies need.
    #[error(
        "{steps} steps are too few for {copies} copies along the learning-rate cycles\nhint: give more --epochs or fewer --branches"
    )]
    TooFewSteps {
        /// Optimiser steps of the training.
        steps: u64,
        /// Copies to keep.
        copies: usize,
    },
    /// The checkpoint of the run is not usable.
    #[error("the checkpoint {} is damaged: {reason}\nhint: start the run anew with --overwrite", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The configuration of the run is not what its checkpoint was made with.
    #[error(
        "{}: {} = {}, but the run has begun with {}\nhint: change it back, or start a new run",
        path.display(), change.key, change.now, change.begun
    )]
    ConfigChanged {
        /// The file.
        path: PathBuf,
        /// The setting.
        change: Change,
    },
    /// The images differ from those that the run began with.
    #[error(
        "the images of {} are not those that this run began with\nhint: bring the former images back, or start a new run",
        data.display()
    )]
    DataChanged {
        /// The dataset.
        data: PathBuf,
    },
    /// The teacher is another model.
    #[error(
        "{} is not the teacher that this run began with\nhint: bring the former model back, or start a new run",
        path.display()
    )]
    TeacherChanged {
        /// The model.
        path: PathBuf,
    },
    /// The images have their names still, but other bytes.
    #[error(
        "images of {} have other contents than when this run began, under the same names\nhint: bring the former images \
         back, or start a new run",
        data.display()
    )]
    ContentsChanged {
        /// The dataset.
        data: PathBuf,
    },
}
