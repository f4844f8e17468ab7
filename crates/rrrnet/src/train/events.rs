//! What a training reports while it runs.

use crate::config::TrainConfig;
use crate::run::EpochRecord;
use std::path::Path;

/// Something worth telling; nothing is printed by the library.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// A long step begins, such as reading the images.
    Stage(&'static str),
    /// Something the user may want to know.
    Note(String),
    /// News from getting the backbone.
    Backbone(rrr_checkpoint::Progress),
    /// Something is chosen by trials: what, and how it came about.
    Chosen(&'static str, String),
    /// Images and network are ready.
    Ready(Ready<'a>),
    /// A batch has warmed the stem.
    Warmed {
        /// Batches so far, all passes counted.
        done: u64,
        /// Batches in all.
        total: u64,
    },
    /// An optimiser step is done.
    Step(Step),
    /// An epoch is done and recorded.
    Epoch(&'a EpochRecord),
    /// A checkpoint was written.
    Saved(&'a Path),
}

/// What is about to be trained.
#[derive(Clone, Debug)]
pub struct Ready<'a> {
    /// The resolved configuration.
    pub config: &'a TrainConfig,
    /// Name of the backbone, once its alias is resolved.
    pub backbone: &'a str,
    /// Number of classes.
    pub classes: usize,
    /// Images to learn from.
    pub train: usize,
    /// Images to choose by.
    pub valid: usize,
    /// Images to measure on.
    pub test: usize,
    /// Trainable numbers of the model, the frozen stem's included.
    pub params: u64,
    /// Multiply-adds of the model for one image.
    pub macs: u64,
    /// Optimiser steps done before, by the run that is continued.
    pub done: u64,
    /// Optimiser steps in all.
    pub total: u64,
}

/// One optimiser step.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Epoch, from 1.
    pub epoch: usize,
    /// Steps done, over all epochs.
    pub done: u64,
    /// Steps in all.
    pub total: u64,
    /// Images of the step.
    pub images: usize,
    /// Mean loss of the epoch so far.
    pub loss: f64,
    /// Training accuracy of the epoch so far.
    pub accuracy: f64,
    /// Learning rate of the step.
    pub lr: f64,
}
