//! What is kept of a finished task.

use serde::{Deserialize, Serialize};

/// The numbers of one finished training. Accuracies are shares in 0..=1.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TaskResult {
    /// What was measured on the test images.
    pub test: Option<Scores>,
    /// Accuracy on the validation images after the last epoch.
    pub validation_accuracy: Option<f64>,
    /// Mean loss of the last epoch's training images.
    pub train_loss: f64,
    /// Seconds spent in optimiser steps.
    pub train_seconds: f64,
    /// Numbers of the network that are trained or frozen weights; its size.
    pub params: u64,
    /// Multiply-adds for one image.
    pub macs: u64,
    /// Blocks of the network: the stem's first convolution counts as one.
    pub blocks: usize,
    /// Branches of the network.
    pub branches: usize,
    /// Shortest time for one image alone, in milliseconds.
    pub latency_ms: f64,
    /// Images per second in batches of 32, at best.
    pub images_per_second: f64,
    /// SHA-256 of the model file.
    pub model_sha256: String,
    /// Where it ran.
    pub machine: Machine,
}

/// What was measured on the test images.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Images.
    pub images: usize,
    /// Share classified correctly.
    pub accuracy: f64,
    /// Mean recall of the classes.
    pub balanced_accuracy: f64,
    /// Mean F1 of the classes.
    pub macro_f1: f64,
    /// Negative log-likelihood, in nats per image.
    pub nll: f64,
    /// Brier score, 0..=2.
    pub brier: f64,
    /// Expected calibration error.
    pub ece: f64,
    /// Mean accuracy of the branches alone.
    pub branch_accuracy: f64,
    /// Share of branch pairs that disagree.
    pub disagreement: Option<f64>,
}

/// Where a task ran.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Name of the host.
    pub host: String,
    /// The processor, where the system tells.
    pub cpu: Option<String>,
    /// Instruction set of the kernels.
    pub isa: String,
    /// Number format of the matrix products, `f32` or `bf16`.
    pub precision: String,
    /// Threads.
    pub threads: usize,
    /// Version of rrrnet.
    pub version: String,
}
